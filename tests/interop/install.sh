#!/usr/bin/env bash
# Build (or complete) the environment of the libraries that networks are imported from, by default in .venv-interop at
# the repository root; another folder may be given. About 1 GB, never CUDA. Safe to run again.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="${1:-$root/.venv-interop}"
peers='^(snntorch|spikingjelly|norse|sinabs|nirtorch|brevitas)=='

if [[ ! -x "$venv/bin/python" ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" -c "$root/constraints.txt" -e "$root[torch,hdf5]" pytest hypothesis
"${pip[@]}" -c "$root/constraints.txt" -r <(grep -Ev "$peers" "$here/requirements.txt")
"${pip[@]}" --no-deps -r <(grep -E "$peers" "$here/requirements.txt")
echo "environment ready: ${venv#"$root"/}"

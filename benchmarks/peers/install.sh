#!/usr/bin/env bash
# Build (or complete) the environment of the peer benchmarks in .venv-peers at the repository root.
# Safe to run again: what is already there at the pinned version is kept. PYTHON picks the
# interpreter (3.11 or later, because bindsnet 0.3.4 asks for it).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="$root/.venv-peers"

. "$here/environment.sh"
complete "$venv" "$here/requirements.txt" '^bindsnet=='

# A one-image run proves that the environment works.
"$venv/bin/python" "$here/bindsnet_stdp.py" --images 1 --neurons 100 --threads 1 >/dev/null
echo "peer environment ready: ${venv#"$root"/}"

#!/usr/bin/env bash
# The package as a user gets it: a wheel in a fresh environment without torch, run in an empty folder.
# Usage: wheel.sh [PYTHON]
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${1:-python3}"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

mkdir "$place/source" "$place/empty"
cp -r "$root/src" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$place/source" # a build writes beside its sources
find "$place/source" \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
"$python" -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
pip wheel --no-deps --wheel-dir "$place/wheels" "$place/source"
pip install -c "$root/constraints.txt" "$place"/wheels/qspinn-*.whl

cd "$place/empty"
unset PYTHONPATH
"$place/venv/bin/python" -c 'import qspinn, sys; sys.exit("venv" not in qspinn.__file__)'
if "$place/venv/bin/python" -c 'import torch' 2>/dev/null; then
  echo "torch is in an environment that should do without it" >&2
  exit 1
fi
"$place/venv/bin/qspinn" --help > /dev/null
"$place/venv/bin/qspinn" explore "$root/experiments/digits_stdp.toml" --out run
test -s run/model.qspinn && test -s run/report.html
"$place/venv/bin/qspinn" evaluate run/model.qspinn
echo "wheel: $(basename "$place"/wheels/*.whl) works without torch in an empty folder"

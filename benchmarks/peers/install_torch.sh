#!/usr/bin/env bash
# Build (or complete) the environment of snnTorch and SpikingJelly, by default in .venv-peers-torch at the repository
# root; another folder may be given. About 1 GB, never CUDA. Safe to run again. PYTHON picks the interpreter (3.11 or
# later, because spikingjelly 2.0.0 asks for it).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="${1:-$root/.venv-peers-torch}"

. "$here/environment.sh"
complete "$venv" "$here/requirements-torch.txt" '^(snntorch|spikingjelly)=='

# Both import what the workers use, and no GPU library came along.
"$venv/bin/python" - <<'PY'
import importlib.metadata

import snntorch.functional.quant
from spikingjelly.activation_based import functional, layer, neuron, surrogate

found = {d.name.lower() for d in importlib.metadata.distributions()}
unwanted = sorted(n for n in found if n.startswith("nvidia") or n in ("triton", "torchvision", "torchaudio"))
if unwanted:
    raise SystemExit(f"not wanted here: {', '.join(unwanted)}")
PY
echo "peer environment ready: ${venv#"$root"/}"

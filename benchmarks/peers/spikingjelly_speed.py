"""Speed of SpikingJelly on a given network, weights and inputs; see worker.py for the dialogue.

Multi-step mode on its torch backend, the one for CPUs: every layer runs over all steps at once. Its ``LIFNode`` with
``decay_input=False``, ``v_reset=None`` and tau = 1 / (1 - decay) is the neuron of the other side up to float rounding:
v - v / tau stands for decay * v. Kinds: ``float``; ``train`` with batch normalization as a module, over steps and
samples, and with resets detached from the gradient.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from worker import Case, serve


def build(case: Case, kind: str) -> nn.Module:
    """The network of a case."""
    if kind not in ("float", "train"):
        raise SystemExit(f"spikingjelly has no kind {kind}")
    constants = case.net["neuron"]
    parts: list[nn.Module] = []
    for declared in case.net["layers"]:
        parts += weighted(case, declared, normalized=kind == "train")
        parts.append(
            neuron.LIFNode(
                tau=1.0 / (1.0 - constants["decay"]),
                decay_input=False,
                v_threshold=constants["v_th"],
                v_reset=None,
                surrogate_function=surrogate.ATan(alpha=2.0),
                detach_reset=True,
            )
        )
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    return net


def weighted(case: Case, declared: dict[str, Any], *, normalized: bool) -> list[nn.Module]:
    """The modules before the neurons of a layer."""
    n_in, n_out = declared["n_in"], declared["n_out"]
    parts: list[nn.Module] = [layer.AvgPool2d(declared["pool"])] if declared["pool"] else []
    norm: nn.Module | None
    if declared["kind"] == "conv":
        own: nn.Module = layer.Conv2d(n_in, n_out, declared["kernel"], declared["stride"], bias=not normalized)
        norm = layer.BatchNorm2d(n_out) if normalized else None
    else:
        parts.append(layer.Flatten())
        own = layer.Linear(n_in, n_out, bias=not normalized)
        norm = layer.BatchNorm1d(n_out) if normalized else None
    case.fill(declared, own, norm)
    return [*parts, own, *([norm] if norm is not None else [])]


def forward(net: nn.Module, x: Tensor) -> Tensor:
    """Output spikes [T, B, n_classes]."""
    functional.reset_net(net)
    return net(x)


if __name__ == "__main__":
    serve(__doc__, {"spikingjelly": importlib.metadata.version("spikingjelly")}, build, forward)

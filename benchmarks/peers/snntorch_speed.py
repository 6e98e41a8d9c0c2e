"""Speed of snnTorch on a given network, weights and inputs; see worker.py for the dialogue.

The network is stepped as in snnTorch's tutorial on event data: an ``nn.Sequential`` with hidden states, reset before
each batch, one call per step. Kinds:

* ``float``: ``Leaky`` as it comes. It spikes over (not at) the threshold, and the reset takes place one step after the
  spike, when the potential has decayed: v <- beta * v + x - reset. The other side, as SpikingJelly, resets in the step
  of the spike. ``reset_delay=False`` is no way to the same neuron: what is over the threshold even after its reset has
  its next potential compared with twice the threshold.
* ``quantized``: ``float`` with ``state_quant`` of 8 bits, uniform, around the threshold: potentials on a grid from
  -threshold to 1.2 * threshold, found by comparison with all 256 levels.
* ``train``: ``float`` with batch normalization as a module, here over the samples of one step, since steps come one by
  one (the other side normalizes over all steps).

``LeakyParallel``, its faster neuron, has no reset and is no candidate.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate, utils
from snntorch.functional import quant
from torch import Tensor, nn
from worker import Case, serve

STATE_BITS = 8


def build(case: Case, kind: str) -> nn.Module:
    """The network of a case in one of the kinds."""
    snn.SpikingNeuron.init()  # resets go by a list of all neurons ever made
    neuron = case.net["neuron"]
    parts: list[nn.Module] = []
    for layer in case.net["layers"]:
        parts += weighted(case, layer, normalized=kind == "train")
        state_quant: Any = quant.state_quant(STATE_BITS, threshold=neuron["v_th"]) if kind == "quantized" else False
        parts.append(
            snn.Leaky(
                beta=neuron["decay"],
                threshold=neuron["v_th"],
                spike_grad=surrogate.atan(alpha=2.0),
                init_hidden=True,
                reset_mechanism="subtract",
                state_quant=state_quant,
            )
        )
    return nn.Sequential(*parts)


def weighted(case: Case, layer: dict[str, Any], *, normalized: bool) -> list[nn.Module]:
    """The modules before the neurons of a layer."""
    parts: list[nn.Module] = [nn.AvgPool2d(layer["pool"])] if layer["pool"] else []
    norm: nn.Module | None
    if layer["kind"] == "conv":
        own: nn.Module = nn.Conv2d(layer["n_in"], layer["n_out"], layer["kernel"], layer["stride"], bias=not normalized)
        norm = nn.BatchNorm2d(layer["n_out"]) if normalized else None
    else:
        parts.append(nn.Flatten())
        own = nn.Linear(layer["n_in"], layer["n_out"], bias=not normalized)
        norm = nn.BatchNorm1d(layer["n_out"]) if normalized else None
    case.fill(layer, own, norm)
    return [*parts, own, *([norm] if norm is not None else [])]


def forward(net: nn.Module, x: Tensor) -> Tensor:
    """Output spikes [T, B, n_classes]."""
    utils.reset(net)
    return torch.stack([net(step) for step in x])


if __name__ == "__main__":
    serve(__doc__, {"snntorch": importlib.metadata.version("snntorch")}, build, forward)

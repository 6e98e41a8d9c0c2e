"""Neurons of SpikingJelly 2.0 in the terms of `Leaky`.

With k = 1/tau of LIFNode, sigmoid(w) of ParametricLIFNode, and r = v_reset, or 0 where the reset subtracts:

    H[t] = V[t-1] + k (X - (V[t-1] - r)) with decay_input, V[t-1] - k (V[t-1] - r) + X without;  IFNode: V[t-1] + X
    S[t] = H[t] >= v_threshold;  V[t] = H[t] - S v_threshold (v_reset is None), or r where S and H[t] elsewhere

Potentials begin at r and leak to it, so they are counted from r: the threshold is v_threshold - r and the reset 0.
Source: Fang et al. (2023), and spikingjelly/activation_based/neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qspinn.importers.neuron import Floats, Neurons, Place, need_step
from qspinn.networks.layered import Leaky


def _lif(place: Place) -> Neurons:
    return _neurons(place, (1.0 / place.number("tau"), None))


def _parametric(place: Place) -> Neurons:
    return _neurons(place, place.each("w", place.module.w.double().sigmoid()))


def _integrate(place: Place) -> Neurons:
    return _neurons(place, (0.0, None), scaled=False)


def _neurons(place: Place, leak: tuple[float, Floats | None], *, scaled: bool | None = None) -> Neurons:
    """What all neurons of the library share.

    Args:
        leak: k, as one number or one per neuron.
        scaled: inputs are multiplied by k; None for what the module says.
    """
    m = place.module
    need_step(place, "surrogate_function", m.surrogate_function, strict=False)
    base = 0.0 if m.v_reset is None else place.number("v_reset")
    v_th = place.number("v_threshold") - base
    if v_th <= 0:
        raise place.refuse("v_threshold", "is not above v_reset: silence reaches it", m.v_threshold, f"above {base:g}")
    k, each = leak
    gain: float | Floats = 1.0
    notes: tuple[str, ...] = ()
    if m.decay_input if scaled is None else scaled:
        gain = k if each is None else each
        notes = (f"everything that enters is scaled by 1/tau = {k:.6g} (decay_input)",)
    if base != 0.0:
        notes = (*notes, f"potentials are counted from v_reset = {base:g}: the threshold is {v_th:g}, the reset 0")
    return Neurons(
        Leaky(decay=1.0 - k, v_th=v_th, reset="subtract" if m.v_reset is None else "value"),
        gain=gain,
        decay=None if each is None else 1.0 - each,
        origin=base,
        notes=notes,
    )


TABLE: dict[str, Callable[[Place], Neurons]] = {"LIFNode": _lif, "ParametricLIFNode": _parametric, "IFNode": _integrate}
"""Class of neurons -> the function that reads it."""


def steps(module: Any, x: Any) -> tuple[Any, Any]:
    """Spikes and potentials [T, B, ...] of a copied module from a fresh state, given what enters it [T, B, ...]."""
    import torch

    module.reset()
    spikes, potentials = [], []
    for now in x:
        spikes.append(module.single_step_forward(now).detach().clone())
        potentials.append(module.v.detach().clone())
    module.reset()
    return torch.stack(spikes), torch.stack(potentials)

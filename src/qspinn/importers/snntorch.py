"""Neurons of snnTorch 1.0 in the terms of `Leaky`.

With R[t] = H(U[t-1] - threshold), H(0) = 0, and beta, alpha clamped to 0..1:

    Leaky     U[t] = beta U[t-1] + X - R threshold ("subtract"), beta (1 - R) U[t-1] + X ("zero")
    Synaptic  I[t] = alpha I[t-1] + X;  U[t] = beta U[t-1] + I[t] - R threshold, or (1 - R) (beta U[t-1] + I[t])
    S[t] = H(U[t] - threshold)

so a reset acts one step later, unless `reset_delay = False` takes it at once. What "zero" of Synaptic drops, the input
of the step after a spike, is a refractory step of the potential.
Source: Eshraghian et al. (2023), and snntorch/_neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qspinn.importers.neuron import Feedback, Floats, Neurons, Place, need_step
from qspinn.networks.layered import Leaky

RESETS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
"""Method that a module was built with -> its reset."""


def _leaky(place: Place) -> Neurons:
    return _neurons(place, decay=place.each("beta", place.module.beta.clamp(0, 1)))


def _synaptic(place: Place) -> Neurons:
    m = place.module
    return _neurons(
        place, decay=place.each("beta", m.beta.clamp(0, 1)), i_decay=place.each("alpha", m.alpha.clamp(0, 1))
    )


def _lapicque(place: Place) -> Neurons:
    """U[t] = (1 - dt / (R C)) U[t-1] + dt / C X - R threshold."""
    step, resistance, capacity = (place.number(field) for field in ("time_step", "R", "C"))
    kept, gain = 1.0 - step / (resistance * capacity), step / capacity
    if not 0.0 <= kept <= 1.0:
        raise place.refuse(
            "time_step", "is longer than the time constant R C", step, f"0..{resistance * capacity:g}", "a shorter step"
        )
    scale = f"the potential is kept by 1 - dt / (R C) = {kept:.6g} a step, and inputs are scaled by dt / C = {gain:.6g}"
    return _neurons(place, decay=(kept, None), gain=gain, notes=(scale,))


def _neurons(
    place: Place,
    *,
    decay: tuple[float, Floats | None],
    i_decay: tuple[float, Floats | None] | None = None,
    gain: float = 1.0,
    notes: tuple[str, ...] = (),
) -> Neurons:
    """What all neurons of the library share: threshold, reset, feedback."""
    m = place.module
    _need_plain(place)
    reset, delayed = _reset(place), bool(getattr(m, "reset_delay", True))
    v_th, each = place.each("threshold")
    if (v_th if each is None else each.min()) <= 0:
        raise place.refuse("threshold", "silence reaches it", float(np.min(place.numbers("threshold"))), "above 0")
    feedback = _feedback(place) if type(m).__name__ in ("RLeaky", "RSynaptic") else None
    if i_decay is not None and (i_decay[0] >= 1.0 or (i_decay[1] is not None and i_decay[1].max() >= 1.0)):
        raise place.refuse("alpha", "keeps synaptic currents for ever", i_decay[0], "below 1")
    if reset == "subtract" and not delayed:
        raise place.refuse(
            "reset_delay",
            "with reset by subtraction compares a potential that was left above the threshold with two thresholds",
            False,
            "True",
            "reset_delay = True, the library's default",
        )
    drops = reset == "zero" and delayed and (i_decay is not None or feedback is not None)
    if drops:
        notes = (*notes, "the reset drops the input of the step after a spike: n_ref_steps = 1")
    return Neurons(
        Leaky(
            decay=decay[0],
            v_th=v_th,
            reset="subtract" if reset == "subtract" else "value",
            reset_delay=delayed,
            strict=True,
            n_ref_steps=1 if drops else 0,
            current_decay=None if i_decay is None else i_decay[0],
        ),
        gain=gain,
        decay=decay[1],
        i_decay=None if i_decay is None else i_decay[1],
        v_th=each,
        feedback=feedback,
        notes=notes,
    )


def _need_plain(place: Place) -> None:
    """Refuses options under which spikes or states are something else.

    Raises:
        ConfigError: names the option.
    """
    m = place.module
    if m.inhibition:
        raise place.refuse("inhibition", "lets one neuron of a layer spike at a time", True, "False")
    if m.state_quant:
        raise place.refuse("state_quant", "quantizes states in the library already", m.state_quant, "False")
    need_step(place, "spike_grad", m.spike_grad, strict=True)
    factor = place.number("graded_spikes_factor")
    if factor != 1.0:
        raise place.refuse("graded_spikes_factor", "scales spikes", factor, "1", "scale the next weights instead")


def _reset(place: Place) -> str:
    """The reset that a module applies: "subtract" or "zero".

    A module chooses its rule once, when it is built; the word may have been changed since, by hand or by a state that
    was loaded.

    Raises:
        ConfigError: there is none, or the two contradict each other.
    """
    m = place.module
    built = RESETS.get(getattr(m.state_function, "__name__", ""), "")
    stored = list(RESETS.values())[int(m.reset_mechanism_val)]
    if built != stored:
        raise place.refuse(
            "reset_mechanism", f"was changed after the module was built with {built!r}", stored, built, "build it anew"
        )
    if built == "none":
        raise place.refuse("reset_mechanism", "leaves potentials as they are after a spike", "none", "subtract, zero")
    return built


def _feedback(place: Place) -> Feedback:
    """Connection of a layer's spikes onto the layer."""
    recurrent, n = place.module.recurrent, int(np.prod(place.shape))
    kind = type(recurrent).__name__
    if kind == "Linear":
        bias = None if recurrent.bias is None else place.numbers("recurrent.bias", recurrent.bias)
        return Feedback(place.numbers("recurrent.weight", recurrent.weight), bias)
    if kind == "RecurrentOneToOne":
        v = np.broadcast_to(place.numbers("recurrent.V", recurrent.V).reshape(-1), n)
        return Feedback(np.diag(v), None)
    raise place.refuse(
        "recurrent", "is a connection that layers onto themselves cannot have", kind, "Linear, one-to-one"
    )


TABLE: dict[str, Callable[[Place], Neurons]] = {
    "Leaky": _leaky,
    "Synaptic": _synaptic,
    "RLeaky": _leaky,
    "RSynaptic": _synaptic,
    "Lapicque": _lapicque,
}
"""Class of neurons -> the function that reads it."""


def steps(module: Any, x: Any) -> tuple[Any, Any]:
    """Spikes and potentials [T, B, ...] of a copied module from a fresh state, given what enters it [T, B, ...]."""
    import torch

    module.spike_grad = lambda apart: (apart > 0).to(apart.dtype)  # surrogates give float32 whatever they take
    module.reset_mem()
    spikes, potentials = [], []
    for now in x:
        out = module(now)
        spikes.append((out[0] if isinstance(out, tuple) else out).detach().clone())
        potentials.append(module.mem.detach().clone())
    module.reset_mem()
    return torch.stack(spikes), torch.stack(potentials)

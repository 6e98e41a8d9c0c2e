"""Neurons of Norse 1.1 in the terms of `Leaky`.

With a = dt tau_mem_inv and s = dt tau_syn_inv, from V = v_leak and J = 0:

    J[t] = (1 - s) J[t-1] + X + W S[t-1] (LIFBox: J = X);  V <- V + a (v_leak - V + J);  S = V > v_th
    V <- v_reset where S;  LIFBox with reset_subtract: V - v_th;  IAF: V <- V + X

Potentials are counted from v_leak: the threshold is v_th - v_leak, the reset v_reset - v_leak, and everything that
enters is scaled by a.
Source: Pehle & Pedersen (2021), and norse/torch/functional.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qspinn.importers.neuron import Feedback, Floats, Neurons, Place, need_step
from qspinn.networks.layered import Leaky


def _lif(place: Place) -> Neurons:
    return _neurons(place, has_current=True)


def _box(place: Place) -> Neurons:
    name = getattr(place.module.p.reset_method, "__name__", "")
    if name not in ("reset_value", "reset_subtract"):
        raise place.refuse("p.reset_method", "is no reset that is known", name, "reset_value, reset_subtract")
    return _neurons(place, has_current=False, subtracts=name == "reset_subtract")


def _recurrent(place: Place) -> Neurons:
    return _neurons(place, has_current=True)._replace(
        weights=place.numbers("input_weights"), feedback=Feedback(place.numbers("recurrent_weights"), None)
    )


def _integrate(place: Place) -> Neurons:
    p = place.module.p
    _need_step(place)
    base = place.number("p.v_reset", p.v_reset)
    v_th = place.number("p.v_th", p.v_th) - base
    if v_th <= 0:
        raise place.refuse("p.v_th", "is not above v_reset: silence reaches it", float(p.v_th), f"above {base:g}")
    notes = () if base == 0.0 else (f"potentials are counted from v_reset = {base:g}: the threshold is {v_th:g}",)
    return Neurons(Leaky(decay=1.0, v_th=v_th, reset="value", strict=True), origin=base, notes=notes)


def _neurons(place: Place, *, has_current: bool, subtracts: bool = False) -> Neurons:
    """What neurons with a leak share."""
    p = place.module.p
    _need_step(place)
    gain, gains = _share(place, "p.tau_mem_inv", p.tau_mem_inv)
    current: tuple[float, Floats | None] | None = None
    if has_current:
        s, each = _share(place, "p.tau_syn_inv", p.tau_syn_inv)
        current = (1.0 - s, None if each is None else 1.0 - each)
    base = place.number("p.v_leak", p.v_leak)
    v_th = place.number("p.v_th", p.v_th) - base
    v_reset = 0.0 if subtracts else place.number("p.v_reset", p.v_reset) - base
    if v_th <= 0:
        raise place.refuse("p.v_th", "is not above v_leak: silence reaches it", float(p.v_th), f"above {base:g}")
    if subtracts and base != 0.0:
        raise place.refuse("p.v_leak", "shifts what reset_subtract takes away, v_th", base, "0")
    notes: tuple[str, ...] = (f"everything that enters is scaled by dt tau_mem_inv = {gain:.6g}",)
    if base != 0.0:
        notes = (*notes, f"potentials are counted from v_leak = {base:g}: threshold {v_th:g}, reset {v_reset:g}")
    return Neurons(
        Leaky(
            decay=1.0 - gain,
            v_th=v_th,
            reset="subtract" if subtracts else "value",
            v_reset=v_reset,
            strict=True,
            current_decay=None if current is None else current[0],
        ),
        gain=gain if gains is None else gains,
        decay=None if gains is None else 1.0 - gains,
        i_decay=None if current is None else current[1],
        origin=base,
        notes=notes,
    )


def _share(place: Place, field: str, rate: Any) -> tuple[float, Floats | None]:
    """dt times a rate: the share that a state loses in a step.

    Raises:
        ConfigError: more than all of it: the step is longer than the time constant.
    """
    dt = float(place.module.dt)
    share, each = place.each(field, rate)
    least, most = (share, share) if each is None else (float(each.min()), float(each.max()))
    if not 0.0 < dt * least <= dt * most <= 1.0:
        raise place.refuse(field, f"times dt = {dt:g} is no share of a state that a step takes", dt * most, "0..1")
    return dt * share, None if each is None else dt * each


def _need_step(place: Place) -> None:
    from norse.torch.functional.threshold import threshold

    p = place.module.p
    need_step(place, "p.method", lambda x: threshold(x, p.method, p.alpha), strict=True)


TABLE: dict[str, Callable[[Place], Neurons]] = {
    "LIFCell": _lif,
    "LIF": _lif,
    "LIFBoxCell": _box,
    "LIFRecurrentCell": _recurrent,
    "LIFRecurrent": _recurrent,
    "IAFCell": _integrate,
    "IAF": _integrate,
}
"""Class of neurons -> the function that reads it."""


def steps(module: Any, x: Any) -> tuple[Any, Any]:
    """Spikes and potentials [T, B, ...] of a copied module from a fresh state, given what enters it [T, B, ...]."""
    import torch

    p = module.p._replace(
        **{name: v.to(x.dtype) for name, v in module.p._asdict().items() if isinstance(v, torch.Tensor)}
    )
    module.p = p
    weights = (module.input_weights, module.recurrent_weights) if hasattr(module, "recurrent_weights") else ()
    state = module.initial_state(x if type(module).__name__ in ("LIF", "LIFRecurrent", "IAF") else x[0])
    if weights and state.z.is_sparse:
        state = state._replace(z=state.z.to_dense())
    spikes, potentials = [], []
    for now in x:
        fired, state = module.activation(now, state, *weights, p, module.dt)
        spikes.append(fired.detach().clone())
        potentials.append(state.v.detach().clone())
    return torch.stack(spikes), torch.stack(potentials)

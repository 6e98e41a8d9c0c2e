"""Neurons of Sinabs 3.1 in the terms of `Leaky`.

With am = exp(-1 / tau_mem) (IAF: 1) and as = exp(-1 / tau_syn):

    I[t] = as (I[t-1] + X), or X without tau_syn;  V <- am V + (1 - am) I[t] with norm_input, am V + I[t] without
    S = trunc(V / threshold) where V > 0 (MultiSpike), at most n (MaxSpike), or V >= threshold (SingleSpike)
    V <- V - S threshold (MembraneSubtract), or 0 where S (MembraneReset)

Source: Sheik et al. (2023), and sinabs/layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qspinn.importers.neuron import Feedback, Floats, Neurons, Place
from qspinn.networks.layered import Leaky

MOST_SPIKES = 255
"""Spikes of a neuron in a step that can be counted."""


def _lif(place: Place) -> Neurons:
    m = place.module
    given = m.alpha_mem_calculated.double() if m.train_alphas or m.tau_mem is None else _kept(m.tau_mem)
    decay, each = place.each("tau_mem", given)
    gain: Floats = np.asarray(1.0)
    notes: tuple[str, ...] = ()
    current = None
    if m.tau_syn_calculated is not None:
        kept = m.alpha_syn_calculated.double() if m.train_alphas else _kept(m.tau_syn)
        current = place.each("tau_syn", kept)
        gain = gain * (current[0] if current[1] is None else current[1])
        notes = (f"everything that enters is scaled by exp(-1/tau_syn) = {current[0]:.6g}: a current decays at once",)
    if m.norm_input:
        gain = gain * (1.0 - (decay if each is None else each))
        notes = (*notes, f"everything that enters is scaled by 1 - exp(-1/tau_mem) = {1.0 - decay:.6g} (norm_input)")
    if m.min_v_mem is not None:
        raise place.refuse(
            "min_v_mem", "bounds potentials from below", place.number("min_v_mem"), "None", "train without a bound"
        )
    v_th, thresholds = place.each("spike_threshold")
    if (v_th if thresholds is None else float(thresholds.min())) <= 0:
        raise place.refuse("spike_threshold", "silence reaches it", v_th, "above 0")
    most = _most(place)
    if most == MOST_SPIKES:
        notes = (*notes, f"a neuron that would spike more than {MOST_SPIKES} times in a step spikes so often")
    subtracts = _subtracts(place, v_th)
    if most > 1 and not subtracts:
        raise place.refuse("reset_fn", "sets a potential after several spikes in a step", "MembraneReset", "subtract")
    return Neurons(
        Leaky(
            decay=decay,
            v_th=v_th,
            reset="subtract" if subtracts else "value",
            current_decay=None if current is None else current[0],
            max_spikes=most,
        ),
        gain=float(gain) if gain.ndim == 0 else gain,
        decay=each,
        i_decay=None if current is None else current[1],
        v_th=thresholds,
        feedback=_feedback(place) if hasattr(m, "rec_connect") else None,
        notes=notes,
    )


def _kept(tau: Any) -> Any:
    """What a state keeps in a step, in float64."""
    return (-1.0 / tau.double()).exp()


def _most(place: Place) -> int:
    """Largest number of spikes of a neuron in a step."""
    given = place.module.spike_fn
    name = getattr(given, "__name__", type(given).__name__)
    if name == "SingleSpike":
        return 1
    if name == "MultiSpike":
        return MOST_SPIKES
    if name == "MaxSpike":
        most = given.max_num_spikes_per_bin
        return MOST_SPIKES if most is None else min(int(most), MOST_SPIKES)
    raise place.refuse("spike_fn", "is no function of spikes that is known", name, "SingleSpike, MaxSpike, MultiSpike")


def _subtracts(place: Place, v_th: float) -> bool:
    """Whether the reset takes the threshold from the potential; it sets it to 0 otherwise.

    Raises:
        ConfigError: another reset.
    """
    given = place.module.reset_fn
    name = type(given).__name__
    if name == "MembraneSubtract":
        if given.subtract_value is not None and float(given.subtract_value) != v_th:
            raise place.refuse("reset_fn.subtract_value", "is not the threshold", given.subtract_value, str(v_th))
        return True
    if name == "MembraneReset":
        if float(given.reset_value) != 0.0:
            raise place.refuse(
                "reset_fn.reset_value", "is added to every potential, with and without a spike", given.reset_value, "0"
            )
        return False
    raise place.refuse("reset_fn", "is no reset that is known", name, "MembraneSubtract, MembraneReset")


def _feedback(place: Place) -> Feedback:
    """Connection of a layer's spikes onto the layer.

    Raises:
        ConfigError: it is no matrix, or has a bias, which acts from the second step on.
    """
    recurrent = place.module.rec_connect
    if type(recurrent).__name__ != "Linear":
        raise place.refuse("rec_connect", "is no connection that can be said", type(recurrent).__name__, "Linear")
    if recurrent.bias is not None and bool((recurrent.bias != 0).any()):
        raise place.refuse("rec_connect.bias", "acts from the second step on", "a bias", "bias = False")
    return Feedback(place.numbers("rec_connect.weight", recurrent.weight), None)


TABLE: dict[str, Callable[[Place], Neurons]] = dict.fromkeys(
    ("LIF", "IAF", "LIFSqueeze", "IAFSqueeze", "LIFRecurrent", "IAFRecurrent"), _lif
)
"""Class of neurons -> the function that reads it."""


def steps(module: Any, x: Any) -> tuple[Any, Any]:
    """Spikes and potentials [T, B, ...] of a copied module from a fresh state, given what enters it [T, B, ...]."""
    from sinabs.layers import LIF

    by_sample = x.transpose(0, 1)
    module.init_state_with_shape((len(by_sample), *by_sample.shape[2:]))
    module.to(x.dtype)
    module.record_states = True
    if not hasattr(module, "rec_connect"):
        spikes = LIF.forward(module, by_sample)
        potentials = module.recordings["v_mem"].detach().transpose(0, 1)
    else:  # what it records of potentials is that of the next step, before its reset
        module.rec_connect.register_forward_pre_hook(lambda _, given: tuple(s.to(x.dtype) for s in given))
        spikes, potentials = type(module).forward(module, by_sample), None
    return spikes.detach().transpose(0, 1), potentials

"""Hand-built vectors for the switches of a population that only general kernels know."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from qspinn.fixedpoint import Rounding
from qspinn.spikes import from_dense
from qspinn.testing.programs import ROUNDINGS, Case
from qspinn.testing.vectors import lone

DRIVES = np.resize([9, -9, 3, 30000, -30000, 16384, 1, 40], 70)[:, None]
LEVELS = np.resize([9, 18, 6, 32767, 0, 1, 45], 70)


def adversarial_neurons() -> Iterator[Case]:
    """Resets a step later: of neurons that spike again at once, that rest, or that it takes below v_min. Thresholds
    that move, up to their limit, with every remainder. Several spikes in a step, up to their limit, at exact multiples
    of the threshold, fed back, and all of these together."""
    now_and_then = np.ones((7, 2, 1))
    now_and_then[[2, 3, 5], 1] = 0
    spikes = from_dense(now_and_then)
    for rounding in ROUNDINGS:
        for name, settings in itertools.chain(_delays(rounding), _moving(rounding), _several(rounding)):
            program = lone(DRIVES, n_steps=7, **({"v_th": LEVELS} | settings))
            yield Case(name=f"{name}, {rounding.value}", program=program, spikes=spikes)


def _delays(rounding: Rounding) -> Iterator[tuple[str, dict[str, Any]]]:
    for n_ref, v_min, leak, strict in itertools.product((0, 1, 3), (-32768, -20, 0), ((1, 0), (15, 4)), (False, True)):
        same = {
            "rounding": rounding,
            "n_ref": n_ref,
            "v_min": v_min,
            "decay": leak,
            "strict": strict,
            "reset_delay": True,
        }
        where = f"n_ref {n_ref}, v_min {v_min}, leak {leak}, strict {strict}"
        yield f"a delayed subtraction, {where}", {**same, "reset": "subtract"}
        yield f"a delayed reset to -200, {where}", {**same, "v_reset": -200}


def _moving(rounding: Rounding) -> Iterator[tuple[str, dict[str, Any]]]:
    steps = np.resize([1, 3, 200, 255, 7], 70)
    for leak, bits, shift, delay in itertools.product(((0, 4), (13, 4), (255, 8)), (3, 8, 16), (0, 2), (False, True)):
        same = {
            "rounding": rounding,
            "theta_step": steps,
            "theta_decay": leak,
            "theta_bits": bits,
            "theta_shift": shift,
            "reset_delay": delay,
        }
        where = f"of {bits} bits, by {shift}, leak {leak}, delay {delay}"
        yield f"a moving threshold {where}", {**same, "reset": "subtract"}
        yield f"a moving threshold {where}, to a value", {**same, "n_ref": 1, "current": (7, 3)}


def _several(rounding: Rounding) -> Iterator[tuple[str, dict[str, Any]]]:
    back = np.resize([0, 3, -2, 1], (70, 70))
    for most, strict, delay, n_ref in itertools.product((2, 3, 255), (False, True), (False, True), (0, 2)):
        same = {
            "rounding": rounding,
            "max_spikes": most,
            "strict": strict,
            "reset_delay": delay,
            "n_ref": n_ref,
            "reset": "subtract",
        }
        where = f"up to {most} spikes, strict {strict}, delay {delay}, n_ref {n_ref}"
        yield where, same
        yield f"{where}, of thresholds down to -3", {**same, "v_th": np.resize([-3, 3, 0, 4500], 70)}
        yield f"{where}, fed back", {**same, "feedback": back, "decay": (7, 3)}
        yield (
            f"{where}, under a moving threshold",
            {**same, "theta_step": np.resize([1, 5, 90], 70), "theta_decay": (7, 3), "feedback": back},
        )

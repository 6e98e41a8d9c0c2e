"""Hand-built vectors for the switches of a population that only general kernels know."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from qspinn.fixedpoint import Rounding
from qspinn.spikes import from_dense
from qspinn.testing.layered import lone
from qspinn.testing.programs import ROUNDINGS, Case

DRIVES = np.resize([9, -9, 3, 30000, -30000, 16384, 1, 40], 70)[:, None]
LEVELS = np.resize([9, 18, 6, 32767, 0, 1, 45], 70)


def adversarial_neurons() -> Iterator[Case]:
    """Resets a step later: of neurons that spike again at once, that rest, or that it takes below v_min."""
    now_and_then = np.ones((7, 2, 1))
    now_and_then[[2, 3, 5], 1] = 0
    spikes = from_dense(now_and_then)
    for rounding in ROUNDINGS:
        for name, settings in _delays(rounding):
            program = lone(DRIVES, v_th=LEVELS, n_steps=7, **settings)
            yield Case(name=f"{name}, {rounding.value}", program=program, spikes=spikes)


def _delays(rounding: Rounding) -> Iterator[tuple[str, dict[str, Any]]]:
    for n_ref, v_min, leak, strict in itertools.product(
            (0, 1, 3), (-32768, -20, 0), ((1, 0), (15, 4)), (False, True)):
        same = {"rounding": rounding, "n_ref": n_ref, "v_min": v_min, "decay": leak, "strict": strict,
                "reset_delay": True}
        where = f"n_ref {n_ref}, v_min {v_min}, leak {leak}, strict {strict}"
        yield f"a delayed subtraction, {where}", {**same, "reset": "subtract"}
        yield f"a delayed reset to -200, {where}", {**same, "v_reset": -200}

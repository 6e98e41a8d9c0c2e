"""A potential that is kept in coarse codes is carried in them from step to step, in training and in every engine."""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import Program
from qspinn.program.parts import Store
from qspinn.runtime import run
from qspinn.spikes import from_dense
from qspinn.testing.programs import constant, single
from samples import with_parts

ENGINES = ("reference", "numba", "torch")
ONE = 1024
"""Code of a potential of 1; kept in codes of 1/4, which are 256."""


def kept_coarsely(drive: float) -> Program:
    """Decay 0.9, threshold 1, reset to 0, an input in each of 40 steps, potentials kept in steps of 0.25."""
    program = single(
        [[round(drive * ONE)]],
        signed=True,
        w_bits=12,
        v_bits=16,
        v_min=-(1 << 15),
        winner=False,
        v_th=ONE,
        decay=round(0.9 * (1 << 16)),
        decay_shift=16,
        n_steps=40,
        rounding=Rounding.NEAREST,
    )
    return with_parts(program, store=Store(fmt=QFormat(bits=8, frac=-8, signed=True), min=-128))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("drive", "expected"), [(0.15, []), (0.2, list(range(5, 41, 5)))])
def test_the_rounded_state_is_the_next_steps_state(drive: float, expected: list[int], engine: str) -> None:
    """Drive 0.15 stalls at 0.5: 0.45 + 0.15 rounds to 0.5 again. Drive 0.2 is kept as 0.25, 0.5, 0.75, 1 and crosses in
    step 5, since the compare comes before the rounding. States only shown in codes would spike in steps 9 and 6."""
    result = run(kept_coarsely(drive), constant(1, 40, 1), backend=engine, record=True)
    assert (np.flatnonzero(result.spikes["p0"][:, 0, 0]) + 1).tolist() == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("n_ref", "expected"), [(2, [0, 3, 6, 9]), (1, [0, 2, 4, 6, 8]), (0, list(range(10)))])
def test_refractory_steps_are_silent_steps(n_ref: int, expected: list[int], engine: str) -> None:
    program = single([[9]], v_bits=8, v_th=5, n_ref=n_ref, winner=False, n_steps=10)
    result = run(program, constant(1, 10, 1), backend=engine, record=True)
    assert np.flatnonzero(result.spikes["p0"][:, 0, 0]).tolist() == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_no_input_no_spikes(engine: str) -> None:
    """A reset that subtracts the spike and not its product with the threshold would spike without an input."""
    program = single([[9]], v_bits=12, v_th=1000, decay=9, decay_shift=4, winner=False, n_steps=5)
    quiet = from_dense(np.zeros((5, 1, 1)))
    result = run(with_parts(program, reset={"by": "subtract"}), quiet, backend=engine, record=True)
    assert not result.counts["p0"].any()
    assert not result.v["p0"].any()

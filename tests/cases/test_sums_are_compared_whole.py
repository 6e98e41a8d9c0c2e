"""A step widens before it compares, then saturates; resets act on the new potential; decays and shifts round right."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qspinn.fixedpoint import QFormat, Rounding, encode, requantize, saturate
from qspinn.program import Program
from qspinn.quantization.plan import QuantRule
from qspinn.quantization.units import decay_codes
from qspinn.runtime import run
from qspinn.testing.programs import constant, single

ENGINES = ("reference", "numba", "torch")


def steps(program: Program, engine: str) -> list[int]:
    """Steps, counted from 1, in which the only neuron spikes."""
    result = run(program, constant(1, program.n_steps, 1), backend=engine, record=True)
    return (np.flatnonzero(result.spikes["p0"][:, 0, 0]) + 1).tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("drive", [180, 190])
def test_the_sum_is_compared_before_it_is_cut_to_the_width_of_the_potential(engine: str, drive: int) -> None:
    """v/2 + 180 is 270 in step 2, beyond 8 bits and above 200: a spike in every second step."""
    program = single([[drive]], v_th=200, decay=1, decay_shift=1, rounding=Rounding.TRUNCATE, winner=False, n_steps=10)
    assert steps(program, engine) == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("silent", "expected"), [(0, 10), (1, 5), (2, 4)])
def test_a_refractory_period_is_the_number_of_silent_steps(engine: str, silent: int, expected: int) -> None:
    assert steps(single([[50]], n_ref=silent, winner=False, n_steps=10), engine) == list(range(1, 11, silent + 1))
    assert len(range(1, 11, silent + 1)) == expected


def test_negative_sums_shift_with_their_sign() -> None:
    assert requantize([-100], 3, Rounding.NEAREST).tolist() == [-12]
    assert saturate([536870900], QFormat(bits=8, signed=True)).tolist() == [127]


@pytest.mark.parametrize(("value", "code"), [(-5.0, 0), (-25.5, 0), (30.0, 255), (2.5, 25)])
def test_values_beyond_an_unsigned_grid_take_its_ends(value: float, code: int) -> None:
    assert encode([value], QFormat(bits=8), scale=0.1)[0].tolist() == [code]


@pytest.mark.parametrize("decay", [0.04, 0.5, 0.9, 0.95, 0.99])
def test_decays_are_rounded_to_nearest(decay: float) -> None:
    exact = Fraction(decay) * 2**15
    assert decay_codes(decay, QuantRule(tensor="*", bits=15)).codes.tolist() == [round(exact)]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unsigned_potential_stays_at_zero_under_inhibition(engine: str) -> None:
    program = single([[-50]], w_bits=8, winner=False, n_steps=4)
    assert run(program, constant(1, 4, 1), backend=engine, record=True).v["p0"].tolist() == [[0]]

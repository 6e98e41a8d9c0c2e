"""The paired interval: a published example, its formula, its coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qspinn.errors import DataError
from qspinn.exploration.statistics import paired_difference


def paired(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


def test_published_example() -> None:
    """Approval ratings of 1,600 people asked twice: 794 / 150 / 86 / 570, difference -0.04, 95 % (-0.059, -0.021).

    Source: Agresti, Categorical Data Analysis (2002), section 10.1.1 (Wald); the adjustment changes the fourth digit.
    """
    got = paired_difference(*paired(794, 150, 86, 570))
    assert got.points == pytest.approx(-4.0)
    assert (round(got.low, 1), round(got.high, 1)) == (-5.9, -2.1)


def test_formula_by_hand() -> None:
    """n = 20, gained 5, lost 2: (5.5 - 2.5) / 22 +- 1.95996 * sqrt(8 - 9 / 22) / 22."""
    got = paired_difference(*paired(10, 2, 5, 3))
    half = 1.959963984540054 * math.sqrt(8 - 9 / 22) / 22
    assert got.points == pytest.approx(15.0)
    assert got.low == pytest.approx(100 * (3 / 22 - half))
    assert got.high == pytest.approx(100 * (3 / 22 + half))


def test_exchanging_the_classifiers_turns_the_interval() -> None:
    a, b = paired(10, 2, 5, 3)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.points, one.low, one.high) == pytest.approx((-other.points, -other.high, -other.low))


@pytest.mark.parametrize(("n", "p_gain", "p_loss"), [(100, 0.03, 0.05), (300, 0.02, 0.02), (50, 0.1, 0.02)])
def test_coverage(n: int, p_gain: float, p_loss: float) -> None:
    """Of 2,000 drawn experiments the interval holds the true difference in about 95 %."""
    rng, truth = np.random.default_rng(3), 100 * (p_gain - p_loss)
    held = 0
    for _ in range(2000):
        u = rng.random(n)
        gained, lost = u < p_gain, (u >= p_gain) & (u < p_gain + p_loss)
        got = paired_difference(lost, gained)  # right in neither elsewhere, which does not matter
        held += got.low <= truth <= got.high
    assert 0.94 < held / 2000 < 0.99


def test_level() -> None:
    a, b = paired(10, 2, 5, 3)
    narrow, wide = paired_difference(a, b, level=0.5), paired_difference(a, b, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_no_difference_still_has_a_width() -> None:
    got = paired_difference(np.ones(50, bool), np.ones(50, bool))
    assert got.low < 0 == got.points < got.high


def test_unpaired_vectors_are_refused() -> None:
    for a, b in (
        (np.ones(2, bool), np.ones(3, bool)),
        (np.ones(0, bool), np.ones(0, bool)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool)),
    ):
        with pytest.raises(DataError, match="two equal, non-empty vectors"):
            paired_difference(a, b)

"""The front against brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qspinn.errors import DataError
from qspinn.exploration.pareto import dominates, pareto_front

COSTS = st.tuples(st.integers(0, 12), st.integers(1, 4)).flatmap(
    lambda s: arrays(float, s, elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, np.inf, -np.inf, np.nan]))
)


@given(COSTS)
def test_front_equals_brute_force(costs: np.ndarray) -> None:
    rows = costs.tolist()

    valid = [all(math.isfinite(x) for x in row) for row in rows]

    def beaten(i: int) -> bool:
        return any(
            valid[j]
            and all(a <= b for a, b in zip(rows[j], rows[i], strict=True))
            and any(a < b for a, b in zip(rows[j], rows[i], strict=True))
            for j in range(len(rows))
        )

    assert pareto_front(costs).tolist() == [v and not beaten(i) for i, v in enumerate(valid)]


@given(COSTS)
def test_dominates_is_a_strict_order(costs: np.ndarray) -> None:
    for a in costs[:5]:
        assert not dominates(a, a)
        for b in costs[:5]:
            assert not (dominates(a, b) and dominates(b, a))


@given(arrays(float, (8, 2), elements=st.integers(0, 5)), st.permutations(range(8)))
def test_order_does_not_matter(costs: np.ndarray, order: list[int]) -> None:
    np.testing.assert_array_equal(pareto_front(costs)[order], pareto_front(costs[order]))


def test_by_hand() -> None:
    assert pareto_front([[1, 5], [2, 2], [3, 3], [2, 2]]).tolist() == [True, True, False, True]
    assert pareto_front(np.empty((0, 2))).tolist() == []
    assert pareto_front([[1.0, np.nan], [5.0, 5.0]]).tolist() == [False, True]
    with pytest.raises(DataError, match=r"\[n, k\]"):
        pareto_front([1, 2])


def test_a_cost_that_is_not_finite_is_no_point_of_the_front() -> None:
    inf, nan = math.inf, math.nan
    assert pareto_front([(-0.9, 100), (inf, 50)]).tolist() == [True, False]
    assert pareto_front([(-0.9, 100), (-inf, 120), (-0.8, 90)]).tolist() == [True, False, True]
    assert pareto_front([(-0.90, 100), (-0.92, 120), (nan, 50), (-0.88, 130)]).tolist() == [True, True, False, False]
    assert pareto_front([(inf, inf)]).tolist() == [False]
    assert not dominates([-inf, 1], [0, 1])


@pytest.mark.parametrize("large", [(1 << 53) + 1, -(1 << 53) - 1, 1 << 62, (1 << 63) + 1, np.uint64((1 << 63) + 1)])
def test_integers_that_floats_round_are_refused(large: Any) -> None:
    for costs in ([[large]], np.array([[large]]), [[0.5, large]], [[large], [large + 1]]):
        with pytest.raises(DataError, match=r"-2\*\*53\.\.2\*\*53"):
            pareto_front(costs)
    with pytest.raises(DataError, match="hold an integer that floats round"):
        dominates([0.5, large], [0.5, 1])
    assert pareto_front([[1 << 53, 0], [2.0**60, 1]]).tolist() == [True, False]


@pytest.mark.parametrize(
    "costs", [[[1, 2], [3]], "ab", [["1", "2"]], [[1j, 2]], [[None, 1]], np.ma.masked_array([[1, 2]], [[True, False]])]
)
def test_costs_that_are_no_numbers_are_refused(costs: Any) -> None:
    with pytest.raises(DataError, match="costs"):
        pareto_front(costs)

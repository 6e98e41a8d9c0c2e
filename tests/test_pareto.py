"""The front against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qspinn.explore.pareto import dominates, pareto_front

COSTS = st.tuples(st.integers(0, 12), st.integers(1, 4)).flatmap(
    lambda s: arrays(float, s, elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, np.inf, -np.inf, np.nan])))


@given(COSTS)
def test_front_equals_brute_force(costs: np.ndarray) -> None:
    rows = costs.tolist()

    def beaten(i: int) -> bool:
        return any(all(a <= b for a, b in zip(rows[j], rows[i], strict=True))
                   and any(a < b for a, b in zip(rows[j], rows[i], strict=True)) for j in range(len(rows)))

    valid = [not any(x != x for x in row) for row in rows]
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
    with pytest.raises(ValueError, match=r"\[n, k\]"):
        pareto_front([1, 2])

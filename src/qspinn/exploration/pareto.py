"""Pareto fronts on plain arrays: every objective is a cost, lower is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.errors import DataError

EXACT = 1 << 53
"""Integers up to it are floats, too."""


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Whether cost vector a is nowhere worse than b and somewhere better; never where either is not finite.

    Raises:
        DataError: a and b are no numbers, integers beyond 2**53, or not as many.
    """
    x, y = _costs("a", a), _costs("b", b)
    if x.shape != y.shape:
        raise DataError("costs", "have different shapes", got=(x.shape, y.shape))
    return bool(np.isfinite(x).all() and np.isfinite(y).all() and np.all(x <= y) and np.any(x < y))


def pareto_front(costs: ArrayLike) -> NDArray[np.bool_]:
    """Mask [n] of the rows of costs [n, k] that no other row dominates; equal rows stay together.

    A row with NaN or infinity is a candidate that failed: never on the front, and it dominates nothing.

    Raises:
        DataError: costs are no numbers, integers beyond 2**53, or not [n, k].

    >>> pareto_front([[1, 5], [2, 2], [3, 3], [2, 2]]).tolist()
    [True, True, False, True]
    """
    rows = _costs("costs", costs)
    if rows.ndim != 2:
        raise DataError("costs", "wrong shape", got=rows.shape, allowed="[n, k]")
    on_front = np.zeros(len(rows), dtype=bool)
    valid = np.flatnonzero(np.isfinite(rows).all(axis=1))
    for i in valid:
        others = rows[valid]
        worse_nowhere = (others <= rows[i]).all(axis=1)
        better_somewhere = (others < rows[i]).any(axis=1)
        on_front[i] = not (worse_nowhere & better_somewhere).any()
    return on_front


def _costs(where: str, costs: ArrayLike) -> NDArray[np.float64]:
    """Costs as float64; here, unlike elsewhere, NaN and infinity have a meaning."""
    try:
        array = np.asarray(costs)
    except Exception as problem:  # rows of unequal length, tensors that need a gradient
        raise DataError(where, "are no rectangular array", got=type(costs).__name__, fix=str(problem)[:120]) from None
    if array.dtype.kind not in "iuf" or np.ma.is_masked(costs):
        raise DataError(where, "are no real numbers", got=str(array.dtype), allowed="integers or floats")
    numbers = array.astype(np.float64)
    if np.any(np.isfinite(numbers) & (np.abs(numbers) >= EXACT)):  # NumPy itself rounds integers beside floats
        for x in np.asarray(costs, dtype=object).ravel():
            if isinstance(x, int | np.integer) and abs(int(x)) > EXACT:
                raise DataError(where, "hold an integer that floats round", got=int(x), allowed="-2**53..2**53")
    return numbers

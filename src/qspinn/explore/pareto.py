"""Pareto fronts on plain arrays: every objective is a cost, lower is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Whether cost vector a is nowhere worse than b and somewhere better."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return bool(np.all(x <= y) and np.any(x < y))


def pareto_front(costs: ArrayLike) -> NDArray[np.bool_]:
    """Mask [n] of the rows of costs [n, k] that no other row dominates; equal rows stay together.

    Rows with NaN are never on the front.

    >>> pareto_front([[1, 5], [2, 2], [3, 3], [2, 2]]).tolist()
    [True, True, False, True]
    """
    rows = np.asarray(costs, dtype=float)
    if rows.ndim != 2:
        raise ValueError(f"costs must be [n, k], got shape {rows.shape}")
    on_front = np.zeros(len(rows), dtype=bool)
    valid = np.flatnonzero(~np.isnan(rows).any(axis=1))
    for i in valid:
        others = rows[valid]
        worse_nowhere = (others <= rows[i]).all(axis=1)
        better_somewhere = (others < rows[i]).any(axis=1)
        on_front[i] = not (worse_nowhere & better_somewhere).any()
    return on_front

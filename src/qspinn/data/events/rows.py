"""Entries of compressed rows: merged where they meet, and counts that fit a byte. Inputs are checked by the callers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import DataError


def distinct(key: NDArray[np.int64], counts: NDArray | None) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """The different keys, ascending, and the sum of the counts of each (None without counts)."""
    rank = slice(None) if counts is None else np.argsort(key, kind="stable")
    ordered = np.sort(key) if counts is None else key[rank]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    if counts is None or not key.size:
        return ordered[first], counts
    return ordered[first], np.add.reduceat(counts[rank], first, dtype=np.int64)


def small(count: NDArray) -> NDArray[np.uint8]:
    """Counts as bytes.

    Raises:
        DataError: a count over 255.
    """
    if count.size and count.max() > 255:
        raise DataError(
            "events.count",
            "too many events fall together",
            got=int(count.max()),
            allowed="0..255",
            fix="use shorter bins, a finer grid, or binary events",
        )
    return count.astype(np.uint8)

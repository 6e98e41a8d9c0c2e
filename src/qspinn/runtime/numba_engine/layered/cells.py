"""Sources that add at one place, taken together: busy signals meet the sums of a population far less often.

Under a stride, sources of several channels and neighbouring pixels add their strips at the same place. What spikes of
such a cell in a step adds one block, looked up by which of its sources spike, instead of a block each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.lanes import STRIP
from qspinn.compiled.vectors import INTS, aligned
from qspinn.program.field import up_to
from qspinn.runtime.numba_engine.layered.strips import Strips

MOST = 8  # sources of a cell; where more meet at a place, several cells do
MOST_CELLS = 1 << 13  # whose numbers, with that of a source, have 16 bits
LARGEST = 1 << 19  # bytes of blocks, which are to stay in the cache


class Cells(NamedTuple):
    """The cells of a connection. of [n_sources]: cell << 3 | which of its sources. table, filled up to whole registers:
    where the block of cell i is added, [2 i], and where in `blocks` (flat) its blocks begin, by the bits of the sources
    that spike, [2 i + 1]. least: events in a step from which on cells are faster. Without entries where there is
    nothing to be taken together."""

    of: NDArray[np.uint16]
    table: NDArray[np.int32]
    blocks: NDArray
    least: int


def no_cells(lane: type) -> Cells:
    return Cells(np.zeros(0, np.uint16), np.zeros(0, np.int32), np.zeros(0, lane), 0)


def cells(strips: Strips, lane: type) -> Cells:
    """The cells of a connection, if there are some of several sources and their blocks are not too large."""
    at, row = strips.table.reshape(-1, 2).T
    size = strips.n_rows * strips.n_strips * STRIP
    rows, kind = np.unique(row, return_inverse=True)  # sources of a kind have the same weights, and places of their own
    place, number = np.unique(at, return_inverse=True)
    n_sets = -(-len(rows) // MOST)
    many = len(rows) > 1 and len(place) < len(at)
    if strips.pitch == 0 or not many or n_sets * (size << MOST) > LARGEST // np.dtype(lane).itemsize:
        return no_cells(lane)
    which, bit = np.divmod(kind, MOST)
    used, cell = np.unique(number * n_sets + which, return_inverse=True)
    alone = len(used) == len(at) or len(np.unique(cell * MOST + bit)) < len(at)  # a bit is one source
    if alone or len(used) > MOST_CELLS:
        return no_cells(lane)
    patterns = np.arange(1 << MOST)[:, None] >> np.arange(MOST) & 1
    weights = np.zeros((n_sets * MOST, size), np.int64)
    weights[: len(rows)] = [strips.rows[k : k + size] for k in rows]
    blocks = aligned((n_sets * (size << MOST),), lane)  # earlier overflow cancels, see `add_spikes`
    blocks[:] = (patterns @ weights.reshape(n_sets, MOST, size)).astype(lane).ravel()
    table = np.zeros((up_to(len(used), INTS), 2), np.int32)
    table[: len(used)] = np.stack([place[used // n_sets], used % n_sets * (size << MOST)], axis=1)
    least = len(used) // 4 if n_sets == 1 else 3 * len(used) // 4
    return Cells((cell * MOST + bit).astype(np.uint16), table.ravel(), blocks, least)

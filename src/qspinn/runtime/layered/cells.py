"""Sources that add at one place, taken together: busy signals meet the sums of a population far less often.

Under a stride, sources of several channels and neighbouring pixels add their strips at the same place. What spikes of
such a cell in a step adds one block, looked up by which of its sources spike, instead of a block each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.runtime._lanes import STRIP
from qspinn.runtime._vectors import INTS, aligned
from qspinn.runtime.layered.field import up_to
from qspinn.runtime.layered.strips import Strips

MOST = 8  # sources of a cell
LARGEST = 1 << 18  # bytes of blocks, which are to stay in the cache


class Cells(NamedTuple):
    """The cells of a connection. of [n_sources]: cell << 8 | the source's bit; places [n_cells, filled up to whole
    registers]: where the block of each is added; blocks: flat, by the bits of the sources that spike. Without entries
    where there is nothing to be taken together."""

    of: NDArray[np.uint32]
    places: NDArray[np.int32]
    blocks: NDArray


def no_cells(lane: type) -> Cells:
    return Cells(np.zeros(0, np.uint32), np.zeros(0, np.int32), np.zeros(0, lane))


def cells(strips: Strips, lane: type) -> Cells:
    """The cells of a connection, if they have two to eight sources, of the same weights in each (at the map's edge some
    may be missing)."""
    at, first = strips.table.reshape(-1, 2).T
    places, cell, sizes = np.unique(at, return_inverse=True, return_counts=True)
    n, size = int(sizes.max(initial=0)), strips.n_rows * strips.n_strips * STRIP
    if not 2 <= n <= MOST or size << n > LARGEST // np.dtype(lane).itemsize or strips.pitch == 0:
        return no_cells(lane)
    kinds, bit = np.unique(first, return_inverse=True)
    if len(kinds) > n or len(np.unique(cell * n + bit)) < len(cell):  # a bit is one source
        return no_cells(lane)
    rows = np.stack([strips.rows[k : k + size].astype(np.int64) for k in kinds])
    which = np.arange(1 << len(kinds))[:, None] >> np.arange(len(kinds)) & 1
    blocks = aligned((len(which) * size,), lane)
    blocks[:] = (which @ rows).astype(lane).ravel()  # earlier overflow cancels, see `add_spikes`
    filled = np.zeros(up_to(len(places), INTS), np.int32)
    filled[: len(places)] = places
    return Cells((cell << 8 | 1 << bit).astype(np.uint32), filled, blocks)

"""Input sums of many steps at once.

What a population receives in a step depends on its inputs and weights only, so the sums of a whole stretch of steps
are made before its neurons are advanced. They are made for a few registers of neurons at a time: the weights of those
from all inputs of a sample then stay in the nearest cache, instead of every step reading whole rows from the next one.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import piece
from qspinn.compiled.vectors import (
    FLOATS,
    LANES,
    floats_add,
    floats_splat,
    lanes_add,
    lanes_splat,
    load_bytes,
    load_floats,
    store_floats,
    store_lanes,
)

ROOM = 1 << 18  # bytes of sums kept at once: a share of the second cache
_F32 = np.float32


@piece
def steps_at_once(width, item_bytes, n_steps):
    """Number of steps whose sums are computed at once for rows of this width."""
    return min(n_steps, max(8, ROOM // (width * item_bytes)))


@piece
def find_places(index, start, stop, width, places):
    """places[e] = where the row of input spike start + e begins."""
    for e in range(start, stop):
        places[e - start] = np.int64(index[e]) * width


@piece
def drive_floats(rows, places, ends, width, n, drive):
    """drive[t * width :] = sum of the rows that start at rows[places[ends[t] : ends[t + 1]]], for all steps t; places
    counts from ends[0]. All arrays are flat, width is a multiple of 16; only the first n sums are wanted."""
    first = ends[0]
    j = 0
    while j < n:
        if j + 5 * FLOATS <= width:
            for t in range(ends.size - 1):
                a = floats_splat(_F32(0))
                b = floats_splat(_F32(0))
                c = floats_splat(_F32(0))
                d = floats_splat(_F32(0))
                f = floats_splat(_F32(0))
                for place in places[ends[t] - first : ends[t + 1] - first]:
                    at = place + j
                    a = floats_add(a, load_floats(rows, at))
                    b = floats_add(b, load_floats(rows, at + FLOATS))
                    c = floats_add(c, load_floats(rows, at + 2 * FLOATS))
                    d = floats_add(d, load_floats(rows, at + 3 * FLOATS))
                    f = floats_add(f, load_floats(rows, at + 4 * FLOATS))
                at = t * width + j
                store_floats(drive, at, a)
                store_floats(drive, at + FLOATS, b)
                store_floats(drive, at + 2 * FLOATS, c)
                store_floats(drive, at + 3 * FLOATS, d)
                store_floats(drive, at + 4 * FLOATS, f)
            j += 5 * FLOATS
        else:
            for t in range(ends.size - 1):
                a = floats_splat(_F32(0))
                for place in places[ends[t] - first : ends[t + 1] - first]:
                    a = floats_add(a, load_floats(rows, place + j))
                store_floats(drive, t * width + j, a)
            j += FLOATS


@piece
def drive_bytes(rows, places, ends, width, drive):
    """`drive_floats` for rows of bytes and sums of 16 bits; width is a multiple of 32."""
    first = ends[0]
    j = 0
    while j < width:
        if j + 5 * LANES <= width:
            for t in range(ends.size - 1):
                a = lanes_splat(np.int64(0))
                b = lanes_splat(np.int64(0))
                c = lanes_splat(np.int64(0))
                d = lanes_splat(np.int64(0))
                f = lanes_splat(np.int64(0))
                for place in places[ends[t] - first : ends[t + 1] - first]:
                    at = place + j
                    a = lanes_add(a, load_bytes(rows, at))
                    b = lanes_add(b, load_bytes(rows, at + LANES))
                    c = lanes_add(c, load_bytes(rows, at + 2 * LANES))
                    d = lanes_add(d, load_bytes(rows, at + 3 * LANES))
                    f = lanes_add(f, load_bytes(rows, at + 4 * LANES))
                at = t * width + j
                store_lanes(drive, at, a)
                store_lanes(drive, at + LANES, b)
                store_lanes(drive, at + 2 * LANES, c)
                store_lanes(drive, at + 3 * LANES, d)
                store_lanes(drive, at + 4 * LANES, f)
            j += 5 * LANES
        elif j + 3 * LANES <= width:
            for t in range(ends.size - 1):
                a = lanes_splat(np.int64(0))
                b = lanes_splat(np.int64(0))
                c = lanes_splat(np.int64(0))
                for place in places[ends[t] - first : ends[t + 1] - first]:
                    at = place + j
                    a = lanes_add(a, load_bytes(rows, at))
                    b = lanes_add(b, load_bytes(rows, at + LANES))
                    c = lanes_add(c, load_bytes(rows, at + 2 * LANES))
                at = t * width + j
                store_lanes(drive, at, a)
                store_lanes(drive, at + LANES, b)
                store_lanes(drive, at + 2 * LANES, c)
            j += 3 * LANES
        else:
            for t in range(ends.size - 1):
                a = lanes_splat(np.int64(0))
                for place in places[ends[t] - first : ends[t + 1] - first]:
                    a = lanes_add(a, load_bytes(rows, place + j))
                store_lanes(drive, t * width + j, a)
            j += LANES

"""Compiled kernels of signals between layers: what their spikes bring to a population, how many there are, pooling.

What a population receives lies in rows, one after the other: group, y, then x and channel together, (x * channels +
channel), with a margin. So one spike adds `n_rows` strips of weights, one below the other, whatever the connection is:
those of its taps, of a column of a matrix, or a single weight. The margin takes what falls off the map, so that there
are no cases. Signals are events in the program's numbering; within a step in any order.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.lanes import (
    STRIP,
    add,
    lanes_of,
    load_full,
    load_full_row,
    load_row,
    load_strip,
    mul,
    splat_strip,
    store,
)
from qspinn.compiled.vectors import INTS, differ_from_0, list_bits

STREAMS = 4
"""Events far apart in a step's list are added by turns: neighbours often meet at the same places, and a sum that was
just stored under another width must be waited for."""


@kernel
def busiest(offsets, count):
    """(most spikes in one step, most of one source in a step)."""
    events, largest = np.int64(0), np.int64(1)
    for s in range(offsets.shape[0]):
        for t in range(offsets.shape[1] - 1):
            events = max(events, offsets[s, t + 1] - offsets[s, t])
    for c in count:
        largest = max(largest, np.int64(c))
    return events, largest


@piece
def times(count, e):
    """How often the source of event e spikes."""
    return np.int64(count[e]) if count.size > 0 else np.int64(1)


@piece
def add_full(total, at, rows, row):
    """total[at : at + lanes] += rows[row : row + lanes], for a whole register."""
    store(total, at, add(load_full(total, at), load_full_row(rows, row, total)))


@piece
def add_row(total, at, rows, row, n_strips):
    """total[at:] += rows[row:] for so many strips: whole registers, then the half that may be left."""
    lanes = lanes_of(total)
    whole = n_strips * STRIP // lanes * lanes
    if whole > 0:
        add_full(total, at, rows, row)
    if whole > lanes:
        add_full(total, at + lanes, rows, row + lanes)
    for k in range(2 * lanes, whole, lanes):
        add_full(total, at + k, rows, row + k)
    if whole < n_strips * STRIP:
        store(total, at + whole, add(load_strip(total, at + whole), load_row(rows, row + whole, total)))


@piece
def add_once(index, start, stop, table, rows, n_rows, n_strips, pitch, total):
    """`add_spikes` for sources that spike once. The first rows and registers are written out: where n_rows and n_strips
    are constants, no loop is left, which LLVM would not see by itself."""
    share = (stop - start) // STREAMS
    for k in range(share):
        for stream in range(STREAMS):
            add_event(np.int64(index[start + stream * share + k]), table, rows, n_rows, n_strips, pitch, total)
    for e in range(start + STREAMS * share, stop):
        add_event(np.int64(index[e]), table, rows, n_rows, n_strips, pitch, total)


@piece
def add_event(source, table, rows, n_rows, n_strips, pitch, total):
    """What one spike of a source brings."""
    add_block(np.int64(table[2 * source]), rows, np.int64(table[2 * source + 1]), n_rows, n_strips, pitch, total)


@piece
def add_block(at, rows, row, n_rows, n_strips, pitch, total):
    """total[at:] += n_rows rows of strips from rows[row] on."""
    length = n_strips * STRIP
    if n_rows > 0:
        add_row(total, at, rows, row, n_strips)
    if n_rows > 1:
        add_row(total, at + pitch, rows, row + length, n_strips)
    if n_rows > 2:
        add_row(total, at + 2 * pitch, rows, row + 2 * length, n_strips)
    for k in range(3, n_rows):
        add_row(total, at + k * pitch, rows, row + k * length, n_strips)


@piece
def add_often(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total):
    """`add_spikes` for sources that may spike several times."""
    for e in range(start, stop):
        i = 2 * np.int64(index[e])
        at = np.int64(table[i])
        row = np.int64(table[i + 1])
        c = splat_strip(total, np.int64(count[e]))
        for _ in range(n_rows):
            for k in range(0, n_strips * STRIP, STRIP):
                store(total, at + k, add(load_strip(total, at + k), mul(c, load_row(rows, row + k, total))))
            at += pitch
            row += n_strips * STRIP


@piece
def add_to_one(index, count, start, stop, table, rows, total):
    """`add_spikes` where all sources add one strip at the same place: it stays in a register, as waiting for each sum
    to be stored before it is loaded again would take most of the time."""
    if start < stop:
        at = np.int64(table[0])
        strip = load_strip(total, at)
        for e in range(start, stop):
            row = load_row(rows, np.int64(table[2 * np.int64(index[e]) + 1]), total)
            if count.size > 0:
                row = mul(splat_strip(total, np.int64(count[e])), row)
            strip = add(strip, row)
        store(total, at, strip)


@piece
def add_own(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total):
    """`add_spikes` of a population's own spikes, which come by a matrix."""
    if n_strips == 1:
        add_to_one(index, count, start, stop, table, rows, total)
    elif count.size > 0:
        add_often(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total)
    else:
        add_once(index, start, stop, table, rows, n_rows, n_strips, pitch, total)


@piece
def add_spikes(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total):
    """total += what the events start..stop - 1 bring: from table[2 * source] on, row by row, the strips of weights from
    rows[table[2 * source + 1]] on. Sums are exact wherever the last one fits: earlier overflow cancels.

    pitch: from row to row, or 0: all sources have one row, at the same place.
    """
    if pitch == 0 and n_strips == 1:
        add_to_one(index, count, start, stop, table, rows, total)
    elif count.size > 0:
        add_often(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total)
    elif n_rows == 3 and n_strips == 3:
        add_once(index, start, stop, table, rows, 3, 3, pitch, total)
    elif n_rows == 2 and n_strips == 4:
        add_once(index, start, stop, table, rows, 2, 4, pitch, total)
    elif n_rows == 2 and n_strips == 2:
        add_once(index, start, stop, table, rows, 2, 2, pitch, total)
    elif n_rows == 3 and n_strips == 6:
        add_once(index, start, stop, table, rows, 3, 6, pitch, total)
    else:
        add_once(index, start, stop, table, rows, n_rows, n_strips, pitch, total)


@piece
def add_signal(index, count, start, stop, feed, total, seen, listed):
    """`add_spikes` of a signal by feed = (table, rows, n_rows, n_strips, pitch, cells), see `strips` and `cells`.

    seen [n_cells filled up], of zeros, and listed, a register longer, are room for a step.
    """
    table, rows, n_rows, n_strips, pitch, cells = feed
    if count.size > 0 or seen.size == 0 or stop - start < cells.least:
        add_spikes(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total)
    elif n_rows == 3 and n_strips == 3:
        add_cells(index, start, stop, cells, 3, 3, pitch, total, seen, listed)
    elif n_rows == 2 and n_strips == 4:
        add_cells(index, start, stop, cells, 2, 4, pitch, total, seen, listed)
    else:
        add_cells(index, start, stop, cells, n_rows, n_strips, pitch, total, seen, listed)


@piece
def add_cells(index, start, stop, cells, n_rows, n_strips, pitch, total, seen, listed):
    """total += what the cells bring that hold the events start..stop - 1."""
    of, table, blocks, _ = cells
    for e in range(start, stop):
        entry = np.int64(of[index[e]])
        seen[entry >> 3] |= 1 << (entry & 7)
    m = np.int64(0)
    for q in range(0, seen.size, INTS):  # without a jump, which would often be wrong
        m = list_bits(listed, m, q, differ_from_0(seen, q))
    size = n_rows * n_strips * STRIP
    share = m // STREAMS
    for k in range(share):
        for stream in range(STREAMS):
            add_cell(np.int64(listed[stream * share + k]), table, blocks, seen, size, n_rows, n_strips, pitch, total)
    for k in range(STREAMS * share, m):
        add_cell(np.int64(listed[k]), table, blocks, seen, size, n_rows, n_strips, pitch, total)
    seen[:] = 0


@piece
def add_cell(cell, table, blocks, seen, size, n_rows, n_strips, pitch, total):
    """What the sources of one cell bring that spike together."""
    block = table[2 * cell + 1] + seen[cell] * size
    add_block(np.int64(table[2 * cell]), blocks, block, n_rows, n_strips, pitch, total)


@kernel
def count_spikes(offsets, index, count, counts):
    """counts [S, N] += how often each source spikes."""
    for s in range(offsets.shape[0]):
        for e in range(offsets[s, 0], offsets[s, -1]):
            counts[s, index[e]] += times(count, e)


@kernel
def add_all(offsets, index, count, feed, totals):
    """totals [S, T, size] += what a signal brings in every step; feed: see `add_signal`."""
    seen, listed = room_for(feed)
    for s in range(totals.shape[0]):
        for t in range(totals.shape[1]):
            add_signal(index, count, offsets[s, t], offsets[s, t + 1], feed, totals[s, t], seen, listed)


@kernel
def room_for(feed):
    """(seen, listed) for `add_signal`."""
    cells = feed[5]
    n_cells = cells.table.size // 2
    return np.zeros(n_cells, np.uint8), np.empty(n_cells + INTS, np.int32)


@kernel
def pool(offsets, index, count, first, windows, by_sum, grid, new_offsets, new_index, new_count):
    """Events of a pooled signal; returns their number. Source i is in windows[first[i] : first[i + 1]], or where first
    has no entries, in windows[i].

    grid [n], of zeros, is room for one step; new_offsets [S, T + 1] start at 0; new_index has room for one event more.
    """
    n = np.int64(0)
    for s in range(offsets.shape[0]):
        new_offsets[s, 0] = n
        for t in range(offsets.shape[1] - 1):
            start = n
            if first.size == 0 and by_sum and count.size == 0:
                for e in range(offsets[s, t], offsets[s, t + 1]):
                    at = windows[index[e]]
                    seen = grid[at]
                    new_index[n] = at  # without a jump, which would often be wrong
                    n += seen == 0
                    grid[at] = seen + 1
            else:
                n = pool_step(
                    index, count, offsets[s, t], offsets[s, t + 1], first, windows, by_sum, grid, new_index, n
                )
            for e in range(start, n):
                new_count[e] = grid[new_index[e]]
                grid[new_index[e]] = 0
            new_offsets[s, t + 1] = n
    return n


@piece
def pool_step(index, count, begin, end, first, windows, by_sum, grid, new_index, n):
    """Notes in grid what the events begin..end bring, and lists the windows that they are the first in; returns how
    many are listed now."""
    for e in range(begin, end):
        c, i = times(count, e), np.int64(index[e])
        low, high = (first[i], first[i + 1]) if first.size > 0 else (i, i + 1)
        for k in range(low, high):
            at = windows[k]
            new_index[n] = at
            n += grid[at] == 0 and c > 0
            grid[at] = grid[at] + c if by_sum else max(grid[at], c)
    return n

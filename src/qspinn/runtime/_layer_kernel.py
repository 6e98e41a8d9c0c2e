"""Compiled kernels of layered networks: per step what reaches a population, then the population itself.

What a population receives lies in rows, one after the other: group, y, then x and channel together, (x * channels +
channel), with a margin. So one spike adds `n_rows` strips of weights, one below the other, whatever the connection is:
those of its taps, of a column of a matrix, or a single weight. The margin takes what falls off the map, so that there
are no cases. Signals between populations are events in the program's numbering; within a step in any order.
"""

from __future__ import annotations

import numpy as np

from qspinn.runtime._jit import kernel, piece
from qspinn.runtime._lanes import (
    STRIP,
    above,
    add,
    add_within,
    both,
    choose,
    down,
    equal,
    lanes_of,
    least,
    load_full,
    load_full_row,
    load_numbers,
    load_row,
    load_strip,
    most,
    mul,
    scaled,
    scaled_to_nearest,
    sign,
    spill,
    splat_full,
    splat_like,
    splat_strip,
    store,
    sub,
    up,
)
from qspinn.runtime._vectors import aligned_zeros
from qspinn.runtime.arithmetic import random_word, requantize, step_key, stream_base


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
    length = n_strips * STRIP
    for e in range(start, stop):
        i = 2 * np.int64(index[e])
        at = np.int64(table[i])
        row = np.int64(table[i + 1])
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
def add_to_one(index, start, stop, table, rows, total):
    """`add_once` where all sources add one strip at the same place: it stays in a register, as waiting for each sum to
    be stored before it is loaded again would take most of the time."""
    if start < stop:
        at = np.int64(table[0])
        strip = load_strip(total, at)
        for e in range(start, stop):
            strip = add(strip, load_row(rows, np.int64(table[2 * np.int64(index[e]) + 1]), total))
        store(total, at, strip)


@piece
def add_spikes(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total):
    """total += what the events start..stop - 1 bring: from table[2 * source] on, row by row, the strips of weights from
    rows[table[2 * source + 1]] on. Sums are exact wherever the last one fits: earlier overflow cancels.

    pitch: from row to row, or 0: all sources have one row, at the same place.
    """
    if count.size > 0:
        add_often(index, count, start, stop, table, rows, n_rows, n_strips, pitch, total)
    elif pitch == 0 and n_strips == 1:
        add_to_one(index, start, stop, table, rows, total)
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


@kernel
def count_spikes(offsets, index, counts):
    """counts [S, N] += how often each source spikes."""
    for s in range(offsets.shape[0]):
        for e in range(offsets[s, 0], offsets[s, -1]):
            counts[s, index[e]] += 1


@kernel
def add_all(offsets, index, count, table, rows, n_rows, n_strips, pitch, totals):
    """totals [S, T, size] += what a signal brings in every step."""
    for s in range(totals.shape[0]):
        for t in range(totals.shape[1]):
            add_spikes(index, count, offsets[s, t], offsets[s, t + 1], table, rows, n_rows, n_strips, pitch,
                       totals[s, t])


@piece
def begin(total, layout, start):
    """Sets what every neuron has received before its first input, from the flat tensor `start`."""
    map_rows, per_group, width, first, row_pitch, group_pitch, lanes, stretch, _, by_row = layout
    for row in range(map_rows):
        at = first + row // per_group * group_pitch + row % per_group * row_pitch
        c = (row if by_row else row // per_group) * stretch
        for k in range(0, width, lanes):
            store(total, at + k, load_full(start, c + k % stretch))


@piece
def settle(total, v, k, stop, stretch, at, valid, lanes, start, shift, factor, f_half, f_shift, bottom, top, threshold,
           less, numbers, further, index, n_events, bounded):
    """A row of neurons of the usual kind, every `stretch`: they leak, round to nearest, and are lowered by their
    threshold. What they receive begins at `start`, which holds the bias and the half for rounding. Returns the number
    of events. bounded: potentials have limits of their own; otherwise those of the lanes, where sums saturate."""
    while k < stop:
        drive = down(load_full(total, k), shift)
        store(total, k, start)
        x = add_within(scaled_to_nearest(load_full(v, at), factor, f_half, f_shift), drive)
        if bounded:
            x = least(most(x, bottom), top)
        crossing = above(x, threshold)
        store(v, at, choose(crossing, sub(x, less), x))
        n_events += spill(index, n_events, numbers, crossing, valid[at // lanes])
        k += stretch
        at += stretch
        numbers = add(numbers, further)
    return n_events


@kernel
def in_lanes(offsets, index, count, feed, again, totals, layout, tensors, names, valid, neuron, after,
             new_offsets, new_index, counts, v_out, ref_out, i_out, v_sum):
    """Advances a population over all steps of S samples in narrow lanes, and writes its spikes; returns their number.

    feed: (table, rows, n_rows, n_strips, pitch) of the signal (offsets, index, count); again: the same of the
    population's own spikes, or with an empty table. totals [S, T, size]: what other connections bring, or one row of
    zeros, [1, 1, size], for all steps. layout: `_layer_arguments.Layout`; neuron: `Neuron`. tensors: eight flat arrays
    in lanes, a stretch for each group (repeated along its rows) or for each row. names: the number of each lane's
    neuron in the program; valid: a bit per lane that is a neuron; after: the place of every neuron in the lanes.
    """
    table, rows, n_rows, n_strips, pitch = feed
    own_table, own_rows, own_n_rows, own_n_strips, own_pitch = again
    map_rows, per_group, width, first, row_pitch, group_pitch, lanes, stretch, run, by_row = layout
    bias, left, half, low, right, level, lowered, begins = tensors
    (v_min, v_max, decay, decay_half, decay_low, decay_shift, leaks, moves, subtract, n_ref, has_current, current,
     current_half, current_low, current_shift, i_min, i_max, usual, bounded, stores, store_half, store_low, store_shift,
     store_min, store_max) = neuron
    n_samples, n_steps, n = new_offsets.shape[0], new_offsets.shape[1] - 1, counts.shape[1]
    v = aligned_zeros(map_rows * width, bias.dtype)
    i_syn = aligned_zeros(map_rows * width if has_current else 0, bias.dtype)
    ref = aligned_zeros(map_rows * width if n_ref > 0 else 0, bias.dtype)
    none = np.zeros(0, np.uint8)
    zero, one = splat_full(bias, 0), splat_full(bias, 1)
    bottom, top = splat_full(bias, v_min), splat_full(bias, v_max)
    i_bottom, i_top = splat_full(bias, i_min), splat_full(bias, i_max)
    factor, f_half = splat_full(bias, decay), splat_full(bias, decay_half)
    f_low, f_shift = splat_full(bias, decay_low), splat_full(bias, decay_shift)
    g, g_half = splat_full(bias, current), splat_full(bias, current_half)
    g_low, g_shift = splat_full(bias, current_low), splat_full(bias, current_shift)
    s_half, s_low, s_shift = splat_full(bias, store_half), splat_full(bias, store_low), splat_full(bias, store_shift)
    s_bottom, s_top = splat_full(bias, store_min), splat_full(bias, store_max)
    keep, rest = splat_full(bias, -1 if subtract else 0), splat_full(bias, n_ref)
    further = splat_like(load_numbers(names, 0, bias), stretch // run)
    everywhere = totals.shape[0] == 1 and totals.shape[1] == 1
    if usual and everywhere:
        begin(totals[0, 0], layout, begins)
    tall = 1 if by_row else per_group
    n_events = np.int64(0)
    for s in range(n_samples):
        v[:] = 0
        i_syn[:] = 0
        ref[:] = 0
        new_offsets[s, 0] = n_events
        before = n_events
        for t in range(n_steps):
            total = totals[0 if everywhere else s, 0 if everywhere else t]
            add_spikes(index, count, offsets[s, t], offsets[s, t + 1], table, rows, n_rows, n_strips, pitch, total)
            if own_table.size > 0:
                add_spikes(new_index, none, before, n_events, own_table, own_rows, own_n_rows, own_n_strips, own_pitch,
                           total)
            before = n_events
            for block in range(map_rows // tall):
                for phase in range(0, stretch, lanes):
                    c = block * stretch + phase
                    b, to_left, to_right = load_full(bias, c), load_full(left, c), load_full(right, c)
                    h, lo = load_full(half, c), load_full(low, c)
                    threshold, less, base = load_full(level, c), load_full(lowered, c), load_full(begins, c)
                    for row in range(block * tall, (block + 1) * tall):
                        start = first + row // per_group * group_pitch + row % per_group * row_pitch
                        at = row * width + phase
                        numbers = load_numbers(names, at, bias)
                        if usual and everywhere:
                            if bounded:
                                n_events = settle(total, v, start + phase, start + width, stretch, at, valid, lanes,
                                                  base, to_right, factor, f_half, f_shift, bottom, top, threshold, less,
                                                  numbers, further, new_index, n_events, True)
                            else:
                                n_events = settle(total, v, start + phase, start + width, stretch, at, valid, lanes,
                                                  base, to_right, factor, f_half, f_shift, bottom, top, threshold, less,
                                                  numbers, further, new_index, n_events, False)
                            continue
                        for k in range(start + phase, start + width, stretch):
                            drive = load_full(total, k)
                            store(total, k, zero)
                            x = load_full(v, at)
                            word = valid[at // lanes]
                            if leaks:
                                x = scaled(x, factor, f_half, f_low, f_shift)
                            if has_current:
                                kept = scaled(load_full(i_syn, at), g, g_half, g_low, g_shift)
                                drive = least(most(add_within(kept, add(drive, b)), i_bottom), i_top)
                                store(i_syn, at, drive)
                            if moves:
                                drive = up(drive, to_left)
                                drive = down(add(drive, add(h, both(sign(drive), lo))), to_right)
                            if not has_current:
                                drive = add(drive, b)
                            fed = least(most(add_within(x, drive), bottom), top)
                            crossing = above(fed, threshold)
                            if n_ref > 0:
                                waiting = load_full(ref, at)
                                active = equal(waiting, zero)
                                x = choose(active, fed, x)
                                crossing = both(active, crossing)
                                store(ref, at, choose(crossing, rest, most(sub(waiting, one), zero)))
                            else:
                                x = fed
                            x = choose(crossing, sub(both(x, keep), less), x)
                            if stores:
                                x = down(add(x, add(s_half, both(sign(x), s_low))), s_shift)
                                x = up(least(most(x, s_bottom), s_top), s_shift)
                            store(v, at, x)
                            n_events += spill(new_index, n_events, numbers, crossing, word)
                            at += stretch
                            numbers = add(numbers, further)
            new_offsets[s, t + 1] = n_events
            if v_sum.size > 0:
                for j in range(n):
                    v_sum[s, j] += v[after[j]]
        for e in range(new_offsets[s, 0], n_events if counts.shape[0] > 0 else 0):
            counts[s, new_index[e]] += 1
        for j in range(n if v_out.size > 0 else 0):
            v_out[s, j] = v[after[j]]
            ref_out[s, j] = ref[after[j]] if n_ref > 0 else 0
            i_out[s, j] = i_syn[after[j]] if has_current else 0
    return n_events


@kernel
def in_general(offsets, index, count, feed, again, totals, places, neuron, each, winner, inhibits, strength, seed,
               stream, new_offsets, new_index, counts, v_out, ref_out, i_out, v_sum):
    """`in_lanes` for every population there is: 64 bits, neuron after neuron, in the program's order.

    places [N]: of what each neuron receives; each: (in_shifts, level, reset, bias), [N] each.
    """
    table, rows, n_rows, n_strips, pitch = feed
    own_table, own_rows, own_n_rows, own_n_strips, own_pitch = again
    (decay, decay_shift, v_min, v_max, strict, subtract, spiking, n_ref, mode, has_current, current, current_shift,
     i_min, i_max, stores, store_shift, store_min, store_max) = neuron
    in_shifts, level, reset, bias = each
    n_samples, n_steps, n = new_offsets.shape[0], new_offsets.shape[1] - 1, counts.shape[1]
    v = np.empty(n, np.int64)
    i_syn = np.empty(n, np.int64)
    until = np.empty(n, np.int64)
    none = np.zeros(0, np.uint8)
    everywhere = totals.shape[0] == 1 and totals.shape[1] == 1
    n_events = np.int64(0)
    base = stream_base(seed, stream)
    base_decay = stream_base(seed, stream + 1)
    base_in = stream_base(seed, stream + 2)
    base_current = stream_base(seed, stream + 6)
    base_store = stream_base(seed, stream + 7)
    for s in range(n_samples):
        v[:] = 0
        i_syn[:] = 0
        until[:] = 0
        before = n_events
        new_offsets[s, 0] = n_events
        for t in range(n_steps):
            total = totals[0 if everywhere else s, 0 if everywhere else t]
            add_spikes(index, count, offsets[s, t], offsets[s, t + 1], table, rows, n_rows, n_strips, pitch, total)
            if own_table.size > 0:
                add_spikes(new_index, none, before, n_events, own_table, own_rows, own_n_rows, own_n_strips, own_pitch,
                           total)
            before = n_events
            k_decay = step_key(base_decay, t)
            k_in = step_key(base_in, t)
            k_current = step_key(base_current, t)
            for j in range(n):
                x = requantize(v[j] * decay, decay_shift, mode, k_decay, j)
                drive = np.int64(total[places[j]])
                if has_current:
                    drive = requantize(i_syn[j] * current, current_shift, mode, k_current, j) + drive
                    drive = min(max(drive + bias[j], i_min), i_max)
                    i_syn[j] = drive
                if until[j] <= t:
                    x = x + requantize(drive, in_shifts[j], mode, k_in, j) + (0 if has_current else bias[j])
                    x = min(max(x, v_min), v_max)
                    if spiking and (x > level[j] if strict else x >= level[j]):
                        new_index[n_events] = j
                        n_events += 1
                v[j] = x
            total[:] = 0
            if winner and n_events > before + 1:
                key = step_key(base, t)
                best = new_index[before]
                for e in range(before + 1, n_events):
                    if random_word(key, new_index[e]) > random_word(key, best):
                        best = new_index[e]
                new_index[before] = best
                n_events = before + 1
            for e in range(before, n_events):
                j = new_index[e]
                v[j] = v[j] - level[j] if subtract else reset[j]
                until[j] = t + n_ref + 1
                if counts.shape[0] > 0:
                    counts[s, j] += 1
            new_offsets[s, t + 1] = n_events
            if inhibits and n_events > before:
                for j in range(n):
                    others = n_events - before - (1 if until[j] == t + n_ref + 1 else 0)
                    if others > 0:
                        v[j] = max(v[j] - others * strength[j], v_min)
            if stores:
                k_store = step_key(base_store, t)
                for j in range(n):
                    kept = requantize(v[j], store_shift, mode, k_store, j)
                    v[j] = min(max(kept, store_min), store_max) << store_shift
            if v_sum.size > 0:
                for j in range(n):
                    v_sum[s, j] += v[j]
        for j in range(n if v_out.size > 0 else 0):
            v_out[s, j] = v[j]
            ref_out[s, j] = max(until[j] - n_steps, 0)
            i_out[s, j] = i_syn[j]
    return n_events


@kernel
def pool(offsets, index, count, first, windows, by_sum, grid, new_offsets, new_index, new_count):
    """Events of a pooled signal; returns their number. Source i is in windows[first[i] : first[i + 1]].

    grid [n], of zeros, is room for one step; new_offsets [S, T + 1] start at 0.
    """
    n = np.int64(0)
    for s in range(offsets.shape[0]):
        new_offsets[s, 0] = n
        for t in range(offsets.shape[1] - 1):
            start = n
            for e in range(offsets[s, t], offsets[s, t + 1]):
                c = times(count, e)
                for k in range(first[index[e]], first[index[e] + 1]):
                    at = windows[k]
                    if grid[at] == 0 and c > 0:
                        new_index[n] = at
                        n += 1
                    grid[at] = grid[at] + c if by_sum else max(grid[at], c)
            for e in range(start, n):
                new_count[e] = grid[new_index[e]]
                grid[new_index[e]] = 0
            new_offsets[s, t + 1] = n
    return n

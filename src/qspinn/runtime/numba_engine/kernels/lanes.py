"""Compiled kernel of a population of layers in lanes of 16 or 32 bits, over all steps."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.lanes import (
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
    load_numbers,
    most,
    scaled,
    scaled_to_nearest,
    sign,
    spill,
    splat_full,
    splat_like,
    store,
    sub,
    up,
)
from qspinn.compiled.vectors import aligned_zeros
from qspinn.runtime.numba_engine.kernels.feed import add_own, add_signal, room_for


@kernel
def begins_of(layout):
    """Where in the sums each row begins."""
    map_rows, per_group, _, first, row_pitch, group_pitch, _, _, _, _ = layout
    places = np.empty(map_rows, np.int64)
    for row in range(map_rows):
        places[row] = first + row // per_group * group_pitch + row % per_group * row_pitch
    return places


@piece
def begin(total, places, layout, start):
    """Sets what every neuron has received before its first input, from the flat tensor `start`."""
    map_rows, per_group, width, _, _, _, lanes, stretch, _, by_row = layout
    for row in range(map_rows):
        c = (row if by_row else row // per_group) * stretch
        for k in range(0, width, lanes):
            store(total, places[row] + k, load_full(start, c + k % stretch))


@piece
def word_of(valid, at, like):
    """The word of `valid` that holds the bit of lane `at`, the first of a register of arrays like `like`."""
    return valid[np.uint64(at) // np.uint64(lanes_of(like))]  # a shift: unsigned, by a constant


@piece
def settle(
    total,
    v,
    k,
    stop,
    stretch,
    at,
    valid,
    start,
    shift,
    factor,
    f_half,
    f_shift,
    bottom,
    top,
    threshold,
    less,
    numbers,
    further,
    index,
    n_events,
    bounded,
):
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
        n_events += spill(index, n_events, numbers, crossing, word_of(valid, at, v))
        k += stretch
        at += stretch
        numbers = add(numbers, further)
    return n_events


@kernel
def in_lanes(
    offsets,
    index,
    count,
    feed,
    again,
    totals,
    layout,
    tensors,
    names,
    valid,
    neuron,
    after,
    new_offsets,
    new_index,
    new_count,
    counts,
    v_out,
    ref_out,
    i_out,
    theta_out,
    v_sum,
):
    """Advances a population over all steps of S samples in narrow lanes, and writes its spikes; returns their number.

    feed: of the signal (offsets, index, count), see `add_signal`; again: (table, rows, n_rows, n_strips, pitch) of the
    population's own spikes, or with an empty table. totals [S, T, size]: what other connections bring, or one row of
    zeros, [1, 1, size], for all steps. layout: `arguments.Layout`; neuron: `Neuron`. tensors: eight flat arrays
    in lanes, a stretch for each group (repeated along its rows) or for each row. names: the number of each lane's
    neuron in the program; valid: a bit per lane that is a neuron; after: the place of every neuron in the lanes.
    new_count and theta_out are for populations that these lanes do not take.
    """
    own_table, own_rows, own_n_rows, own_n_strips, own_pitch = again
    map_rows, per_group, width, _, _, _, lanes, stretch, run, by_row = layout
    bias, left, half, low, right, level, lowered, begins = tensors
    (
        v_min,
        v_max,
        decay,
        decay_half,
        decay_low,
        decay_shift,
        leaks,
        moves,
        subtract,
        n_ref,
        has_current,
        current,
        current_half,
        current_low,
        current_shift,
        i_min,
        i_max,
        usual,
        bounded,
        stores,
        store_half,
        store_low,
        store_shift,
        store_min,
        store_max,
    ) = neuron
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
    places = begins_of(layout)
    if usual and everywhere:
        begin(totals[0, 0], places, layout, begins)
    tall = 1 if by_row else per_group
    seen, listed = room_for(feed)
    n_events = np.int64(0)
    for s in range(n_samples):
        v[:] = 0
        i_syn[:] = 0
        ref[:] = 0
        new_offsets[s, 0] = n_events
        before = n_events
        for t in range(n_steps):
            total = totals[0 if everywhere else s, 0 if everywhere else t]
            add_signal(index, count, offsets[s, t], offsets[s, t + 1], feed, total, seen, listed)
            if own_table.size > 0:
                add_own(
                    new_index, none, before, n_events, own_table, own_rows, own_n_rows, own_n_strips, own_pitch, total
                )
            before = n_events
            for block in range(map_rows // tall):
                for phase in range(0, stretch, lanes):
                    c = block * stretch + phase
                    b, to_left, to_right = load_full(bias, c), load_full(left, c), load_full(right, c)
                    h, lo = load_full(half, c), load_full(low, c)
                    threshold, less, base = load_full(level, c), load_full(lowered, c), load_full(begins, c)
                    for row in range(block * tall, (block + 1) * tall):
                        start = places[row]
                        at = row * width + phase
                        numbers = load_numbers(names, at, bias)
                        if usual and everywhere:
                            if bounded:
                                n_events = settle(
                                    total,
                                    v,
                                    start + phase,
                                    start + width,
                                    stretch,
                                    at,
                                    valid,
                                    base,
                                    to_right,
                                    factor,
                                    f_half,
                                    f_shift,
                                    bottom,
                                    top,
                                    threshold,
                                    less,
                                    numbers,
                                    further,
                                    new_index,
                                    n_events,
                                    True,
                                )
                            else:
                                n_events = settle(
                                    total,
                                    v,
                                    start + phase,
                                    start + width,
                                    stretch,
                                    at,
                                    valid,
                                    base,
                                    to_right,
                                    factor,
                                    f_half,
                                    f_shift,
                                    bottom,
                                    top,
                                    threshold,
                                    less,
                                    numbers,
                                    further,
                                    new_index,
                                    n_events,
                                    False,
                                )
                            continue
                        for k in range(start + phase, start + width, stretch):
                            drive = load_full(total, k)
                            store(total, k, zero)
                            x = load_full(v, at)
                            word = word_of(valid, at, v)
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

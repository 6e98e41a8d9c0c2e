"""Compiled kernel of every population of layers there is, in 64 bits: for what narrow lanes do not take."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel
from qspinn.compiled.scalars import random_word, requantize, step_key, stream_base
from qspinn.program.ops import Stream
from qspinn.runtime.numba_engine.kernels.feed import add_own, add_signal, room_for, times

WINNER, DECAY, INPUT = int(Stream.WINNER), int(Stream.DECAY), int(Stream.INPUT)
CURRENT, THETA, STORE = int(Stream.CURRENT), int(Stream.THETA), int(Stream.STORE)


@kernel
def in_general(
    offsets,
    index,
    count,
    feed,
    again,
    totals,
    places,
    neuron,
    each,
    winner,
    inhibits,
    strength,
    seed,
    stream,
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
    """`in_lanes` for every population there is: 64 bits, neuron after neuron, in the program's order.

    places [N]: of what each neuron receives; each: (in_shifts, level, reset, bias, theta_step, and the decay factors
    of potential, synaptic current and adaptive threshold), [N] each. new_count has entries where a neuron may spike
    several times in a step.
    """
    own_table, own_rows, own_n_rows, own_n_strips, own_pitch = again
    (
        decay_shift,
        v_min,
        v_max,
        strict,
        subtract,
        delayed,
        spiking,
        n_ref,
        mode,
        has_current,
        current_shift,
        i_min,
        i_max,
        adapts,
        theta_decay_shift,
        theta_max,
        theta_shift,
        max_spikes,
        stores,
        store_shift,
        store_min,
        store_max,
    ) = neuron
    in_shifts, level, reset, bias, theta_step, decay, current, theta_decay = each
    n_samples, n_steps, n = new_offsets.shape[0], new_offsets.shape[1] - 1, counts.shape[1]
    v = np.empty(n, np.int64)
    i_syn = np.empty(n, np.int64)
    until = np.empty(n, np.int64)
    theta = np.empty(n if adapts else 0, np.int64)
    looks_back = delayed or adapts
    spent = np.empty(n if looks_back else 0, np.int64)
    everywhere = totals.shape[0] == 1 and totals.shape[1] == 1
    seen, listed = room_for(feed)
    n_events = np.int64(0)
    base = stream_base(seed, stream + WINNER)
    base_decay = stream_base(seed, stream + DECAY)
    base_in = stream_base(seed, stream + INPUT)
    base_current = stream_base(seed, stream + CURRENT)
    base_theta = stream_base(seed, stream + THETA)
    base_store = stream_base(seed, stream + STORE)
    for s in range(n_samples):
        v[:] = 0
        i_syn[:] = 0
        until[:] = 0
        theta[:] = 0
        spent[:] = 0
        before = n_events
        new_offsets[s, 0] = n_events
        for t in range(n_steps):
            total = totals[0 if everywhere else s, 0 if everywhere else t]
            add_signal(index, count, offsets[s, t], offsets[s, t + 1], feed, total, seen, listed)
            if own_table.size > 0:
                add_own(
                    new_index,
                    new_count,
                    before,
                    n_events,
                    own_table,
                    own_rows,
                    own_n_rows,
                    own_n_strips,
                    own_pitch,
                    total,
                )
            before = n_events
            k_decay = step_key(base_decay, t)
            k_in = step_key(base_in, t)
            k_current = step_key(base_current, t)
            k_theta = step_key(base_theta, t)
            for j in range(n):
                x = requantize(v[j] * decay[j], decay_shift, mode, k_decay, j)
                high = level[j]
                if looks_back:
                    fired = spent[j]
                    spent[j] = 0
                    if delayed and fired > 0:
                        reached = high + (theta[j] << theta_shift if adapts else 0)
                        x = x - fired * reached if subtract else reset[j]
                    if adapts:
                        kept = requantize(theta[j] * theta_decay[j], theta_decay_shift, mode, k_theta, j)
                        theta[j] = min(kept + fired * theta_step[j], theta_max)
                        high += theta[j] << theta_shift
                drive = np.int64(total[places[j]])
                if has_current:
                    drive = requantize(i_syn[j] * current[j], current_shift, mode, k_current, j) + drive
                    drive = min(max(drive + bias[j], i_min), i_max)
                    i_syn[j] = drive
                if until[j] <= t:
                    x = x + requantize(drive, in_shifts[j], mode, k_in, j) + (0 if has_current else bias[j])
                    x = min(max(x, v_min), v_max)
                    if spiking and (x > high if strict else x >= high):
                        if max_spikes > 1:
                            c = 1
                            while c < max_spikes and (x > (c + 1) * high if strict else x >= (c + 1) * high):
                                c += 1
                            new_count[n_events] = c
                        new_index[n_events] = j
                        n_events += 1
                elif delayed:
                    x = min(max(x, v_min), v_max)
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
                c = times(new_count, e)
                if looks_back:
                    spent[j] = c
                if not delayed:
                    high = level[j] + (theta[j] << theta_shift if adapts else 0)
                    v[j] = v[j] - c * high if subtract else reset[j]
                until[j] = t + n_ref + 1
                if counts.shape[0] > 0:
                    counts[s, j] += c
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
            theta_out[s, j] = theta[j] if adapts else 0
    return n_events

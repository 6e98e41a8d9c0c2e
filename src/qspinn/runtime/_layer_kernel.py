"""Compiled kernels of layered networks: what reaches a population in all steps of a few samples, then the population.

Currents and states lie channel-last, (y * width + x) * channels + channel, so that one spike adds whole runs of a
weight row; signals between populations are events in the program's order, channel after channel.
"""

from __future__ import annotations

import numpy as np

from qspinn.runtime._jit import kernel, piece
from qspinn.runtime.arithmetic import random_word, requantize, step_key, stream_base


@piece
def times(count, e):
    """How often the source of event e spikes."""
    return np.int64(count[e]) if count.size > 0 else np.int64(1)


@kernel
def feed_dense(offsets, index, count, rows, shift, total):
    """total [S, T, N] += rows [n_pre, N] of the sources that spike, times 2**shift."""
    for s in range(total.shape[0]):
        for t in range(total.shape[1]):
            here = total[s, t]
            for e in range(offsets[s, t], offsets[s, t + 1]):
                row = rows[index[e]]
                c = np.int32(times(count, e) << shift)
                for j in range(here.size):
                    here[j] += c * row[j]


@kernel
def feed_conv(offsets, index, count, rows, of_y, of_x, of_c, of_group, stride, padding, dilation, shape, shift, total):
    """total [S, T, H * W * C_out] += the convolution of the spikes, times 2**shift.

    rows [C_in, kernel_y, kernel_x, C_out / groups]; of_y, of_x, of_c: place and channel of each source, of_group: the
    first target channel of its group; shape (H, W, C_out) of the target.
    """
    height, width, channels = shape
    kernel_y, kernel_x, run = rows.shape[1], rows.shape[2], rows.shape[3]
    for s in range(total.shape[0]):
        for t in range(total.shape[1]):
            here = total[s, t]
            for e in range(offsets[s, t], offsets[s, t + 1]):
                i = index[e]
                c = np.int32(times(count, e) << shift)
                for ky in range(kernel_y):
                    y = of_y[i] + padding[0] - ky * dilation[0]
                    if y < 0 or y % stride[0] != 0 or y // stride[0] >= height:
                        continue
                    for kx in range(kernel_x):
                        x = of_x[i] + padding[1] - kx * dilation[1]
                        if x < 0 or x % stride[1] != 0 or x // stride[1] >= width:
                            continue
                        at = (y // stride[0] * width + x // stride[1]) * channels + of_group[i]
                        row = rows[of_c[i], ky, kx]
                        for o in range(run):
                            here[at + o] += c * row[o]


@kernel
def feed_same(offsets, index, count, weight, inner, shift, total):
    """total [S, T, N] += weight [N] of each spiking source at its own place, times 2**shift."""
    for s in range(total.shape[0]):
        for t in range(total.shape[1]):
            for e in range(offsets[s, t], offsets[s, t + 1]):
                i = index[e]
                total[s, t, inner[i]] += np.int32(times(count, e) << shift) * weight[i]


@kernel
def pool(offsets, index, count, of_y, of_x, of_c, size, stride, shape, by_sum, new_offsets, new_index, new_count):
    """Events of a pooled signal of shape (C, H, W); returns their number. new_offsets [S, T + 1] start at 0."""
    channels, height, width = shape
    grid = np.zeros(channels * height * width, np.int64)
    n = 0
    for s in range(offsets.shape[0]):
        new_offsets[s, 0] = n
        for t in range(offsets.shape[1] - 1):
            for e in range(offsets[s, t], offsets[s, t + 1]):
                i = index[e]
                c = times(count, e)
                for y in range(max(0, -((size[0] - 1 - of_y[i]) // stride[0])), min(of_y[i] // stride[0] + 1, height)):
                    for x in range(max(0, -((size[1] - 1 - of_x[i]) // stride[1])),
                                   min(of_x[i] // stride[1] + 1, width)):
                        at = (of_c[i] * height + y) * width + x
                        grid[at] = grid[at] + c if by_sum else max(grid[at], c)
            for at in range(grid.size):
                if grid[at] != 0:
                    new_index[n] = at
                    new_count[n] = grid[at]
                    grid[at] = 0
                    n += 1
            new_offsets[s, t + 1] = n
    return n


@kernel
def neurons(total, recurrent, decay, decay_shift, in_shift, in_shifts, v_min, v_max, level, strict, subtract, reset,
            bias, spiking, winner, inhibits, strength, n_ref, mode, has_current, current, current_shift, i_min, i_max,
            outer, seed, stream, offsets, index, counts, v_out, ref_out, i_out, v_sum):
    """Advances a population over all steps of the samples in total [S, T, N] and writes its spikes as events.

    Vectors have one entry per neuron, channel-last; outer[j] is the place of neuron j in the program's order, under
    which it draws random words. recurrent [N, N] rows of the population's own spikes (or [0, 0]), in both directions
    channel-last. Outputs: offsets [S, T + 1] from 0, index, counts, and final states [S, N] in the program's order.
    Returns the number of events.
    """
    n_samples, n_steps, n = total.shape
    v = np.empty(n, np.int64)
    i_syn = np.empty(n, np.int64)
    until = np.empty(n, np.int64)
    fired = np.empty(n, np.int64)
    n_events = 0
    base = stream_base(seed, stream)
    base_decay = stream_base(seed, stream + 1)
    base_in = stream_base(seed, stream + 2)
    base_current = stream_base(seed, stream + 6)
    for s in range(n_samples):
        v[:] = 0
        i_syn[:] = 0
        until[:] = 0
        n_fired = 0
        offsets[s, 0] = n_events
        for t in range(n_steps):
            here = total[s, t]
            if recurrent.size > 0:
                for q in range(n_fired):
                    row = recurrent[fired[q]]
                    for j in range(n):
                        here[j] += row[j]
            k_decay = step_key(base_decay, t)
            k_in = step_key(base_in, t)
            k_current = step_key(base_current, t)
            n_fired = 0
            for j in range(n):
                x = requantize(v[j] * decay, decay_shift, mode, k_decay, outer[j])
                drive = np.int64(here[j])
                if has_current:
                    drive = requantize(i_syn[j] * current, current_shift, mode, k_current, outer[j]) + drive
                    drive = min(max(drive + bias[j], i_min), i_max)
                    i_syn[j] = drive
                if until[j] <= t:
                    shift = in_shifts[j] if in_shifts.size > 0 else in_shift
                    x = x + requantize(drive, shift, mode, k_in, outer[j]) + (0 if has_current else bias[j])
                    x = min(max(x, v_min), v_max)
                    if spiking and (x > level[j] if strict else x >= level[j]):
                        fired[n_fired] = j
                        n_fired += 1
                v[j] = x
            if winner and n_fired > 1:
                key = step_key(base, t)
                best = fired[0]
                for q in range(1, n_fired):
                    if random_word(key, outer[fired[q]]) > random_word(key, outer[best]):
                        best = fired[q]
                fired[0] = best
                n_fired = 1
            for q in range(n_fired):
                j = fired[q]
                v[j] = v[j] - level[j] if subtract else reset[j]
                until[j] = t + n_ref + 1
                counts[s, outer[j]] += 1
                index[n_events] = outer[j]
                n_events += 1
            offsets[s, t + 1] = n_events
            if inhibits and n_fired > 0:
                for j in range(n):
                    others = n_fired - (1 if until[j] == t + n_ref + 1 else 0)
                    if others > 0:
                        v[j] = max(v[j] - others * strength[j], v_min)
            if v_sum.size > 0:
                for j in range(n):
                    v_sum[s, outer[j]] += v[j]
        for j in range(n if v_out.size > 0 else 0):
            v_out[s, outer[j]] = v[j]
            ref_out[s, outer[j]] = max(until[j] - n_steps, 0)
            i_out[s, outer[j]] = i_syn[j]
    return n_events

"""Compiled kernels of `numba_engine`: one call runs a block of samples of one population over all steps.

`until[j]` is the first step at which neuron j is active again; `resting` lists the neurons that are refractory now.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from qspinn.runtime._vectors import (
    LANES,
    lanes_add,
    lanes_min,
    lanes_reach,
    lanes_scale,
    lanes_splat,
    load_bytes,
    load_lanes,
    store_lanes,
)
from qspinn.runtime.arithmetic import _U, NEAREST, STOCHASTIC, random_word, requantize, step_key, stream_base

_I32 = np.int32
_SIXTEEN = np.uint32(16)
CHUNK = 32  # rows are padded to a multiple of this; padded neurons have a level that nothing reaches


@nb.njit(nogil=True, cache=True)
def busiest_step(offsets):
    """The largest number of spikes in one step."""
    most = np.int64(0)
    for s in range(offsets.shape[0]):
        for t in range(offsets.shape[1] - 1):
            most = max(most, offsets[s, t + 1] - offsets[s, t])
    return most


@nb.njit(nogil=True, cache=True)
def tally(counts, votes):
    """Class scores [B, C]: counts [B, N] times votes [N, C]; most counts are zero. (A matrix product would wake the
    linear algebra library's threads, which then spin on the cores the next run needs.)"""
    scores = np.zeros((counts.shape[0], votes.shape[1]), np.int64)
    for s in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            if counts[s, j] != 0:
                for c in range(votes.shape[1]):
                    scores[s, c] += counts[s, j] * votes[j, c]
    return scores


@nb.njit(inline="always")
def sum_rows(rows, index, start, stop, total):
    """total[j] = sum of rows[index[start:stop], j], four rows a pass."""
    n = total.size
    head = start + (stop - start) % 4
    if head == start:
        for j in range(n):
            total[j] = 0
    elif head == start + 1:
        a = rows[index[start]]
        for j in range(n):
            total[j] = a[j]
    elif head == start + 2:
        a = rows[index[start]]
        b = rows[index[start + 1]]
        for j in range(n):
            total[j] = a[j] + b[j]
    else:
        a = rows[index[start]]
        b = rows[index[start + 1]]
        c = rows[index[start + 2]]
        for j in range(n):
            total[j] = a[j] + b[j] + c[j]
    for e in range(head, stop, 4):
        a = rows[index[e]]
        b = rows[index[e + 1]]
        c = rows[index[e + 2]]
        d = rows[index[e + 3]]
        for j in range(n):
            total[j] += a[j] + b[j] + c[j] + d[j]


@nb.njit(inline="always")
def advance(v, total, level, decay, gain, decay_scale, in_shift, v_max, mode, decay_key, in_key):
    """Decay, integrate, saturate in the lanes of v's type; returns whether any neuron reached its level.

    Both roundings are done at a common shift of 16: (x * 2**(16 - k) + r * 2**(16 - k)) >> 16 equals (x + r) >> k.
    """
    n = v.size
    crossing = _I32(0)
    if mode == STOCHASTIC:
        back = _U(32 - in_shift) if in_shift > 0 else _U(0)
        for j in range(n):
            r = _U(_U(random_word(decay_key, j) >> _U(16 + decay_scale)) << _U(decay_scale))
            x = _U(_U(_U(v[j]) * decay) + r) >> _SIXTEEN
            y = _U(total[j])
            if in_shift > 0:
                y = _U(_U(y + _U(random_word(in_key, j) >> back)) >> _U(in_shift))
            s = min(_I32(_I32(x) + _I32(y)), _I32(v_max))
            v[j] = s
            crossing |= _I32(s >= level[j])
        return crossing != 0
    half = _U(32768) if mode == NEAREST else _U(0)
    in_half = half if in_shift > 0 else _U(0)
    for j in range(n):
        x = _U(_U(_U(v[j]) * decay) + half) >> _SIXTEEN
        y = _U(_U(_U(total[j]) * gain) + in_half) >> _SIXTEEN
        s = min(_I32(_I32(x) + _I32(y)), _I32(v_max))
        v[j] = s
        crossing |= _I32(s >= level[j])
    return crossing != 0


@nb.njit(inline="always")
def draw_winner(v, level, until, t, key):
    """The crossing active neuron with the largest random word, or -1. Width is a multiple of CHUNK."""
    best = -1
    best_word = _U(0)
    for start in range(0, v.size, CHUNK):
        crossing = _I32(0)
        for j in range(start, start + CHUNK):
            crossing |= _I32(v[j] >= level[j])
        if crossing == 0:
            continue
        for j in range(start, start + CHUNK):
            if v[j] >= level[j] and until[j] <= t:
                word = random_word(key, j)
                if best < 0 or word > best_word:
                    best = j
                    best_word = word
    return best


@nb.njit(inline="always")
def clear_resting(resting, n_resting, until, t, total):
    """Refractory neurons receive nothing: their input is set to zero. Returns how many still rest."""
    still = 0
    for q in range(n_resting):
        j = resting[q]
        if until[j] > t:
            total[j] = 0
            resting[still] = j
            still += 1
    return still


@nb.njit(inline="always")
def step_bytes(flat, places, n_places, v, level, decay, gain, in_shift, v_max, mode):
    """`sum_rows` and `advance` in one pass over registers: byte weights, 16-bit potentials, no
    stochastic rounding of potentials. Returns whether anything reached its level."""
    leak = lanes_splat(np.int64(decay))
    scale = lanes_splat(np.int64(gain))
    half = lanes_splat(np.int64(32768 if mode == NEAREST else 0))
    top = lanes_splat(np.int64(v_max))
    crossing = np.uint32(0)
    j = 0
    while j < v.size:
        if j + 2 * LANES <= v.size:
            a = lanes_splat(np.int64(0))
            b = lanes_splat(np.int64(0))
            for e in range(n_places):
                a = lanes_add(a, load_bytes(flat, places[e] + j))
                b = lanes_add(b, load_bytes(flat, places[e] + j + LANES))
            if in_shift > 0:
                a = lanes_scale(a, scale, half)
                b = lanes_scale(b, scale, half)
            a = lanes_min(lanes_add(a, lanes_scale(load_lanes(v, j), leak, half)), top)
            b = lanes_min(lanes_add(b, lanes_scale(load_lanes(v, j + LANES), leak, half)), top)
            store_lanes(v, j, a)
            store_lanes(v, j + LANES, b)
            crossing |= lanes_reach(a, load_lanes(level, j)) | lanes_reach(b, load_lanes(level, j + LANES))
            j += 2 * LANES
        else:
            a = lanes_splat(np.int64(0))
            for e in range(n_places):
                a = lanes_add(a, load_bytes(flat, places[e] + j))
            if in_shift > 0:
                a = lanes_scale(a, scale, half)
            a = lanes_min(lanes_add(a, lanes_scale(load_lanes(v, j), leak, half)), top)
            store_lanes(v, j, a)
            crossing |= lanes_reach(a, load_lanes(level, j))
            j += LANES
    return crossing != 0


@nb.njit(inline="always")
def hold_resting(resting, n_resting, until, t, v, decay, mode, held):
    """held[q] = decayed potential of the neurons that are refractory, to be put back after a fused pass, since they
    receive nothing. Returns how many still rest."""
    still = 0
    for q in range(n_resting):
        j = resting[q]
        if until[j] > t:
            resting[still] = j
            held[still] = requantize(np.int64(v[j]) * np.int64(decay), 16, mode, _U(0), 0)
            still += 1
    return still


@nb.njit(nogil=True, cache=True)
def narrow(offsets, index, rows, room, decay, gain, decay_scale, in_shift, v_max, level, reset, strength, seed, stream,
           n_ref, mode, fused, counts, v_out, ref_out, raster):
    """Winner-take-all population of unsigned potentials. rows [n_pre, width] unsigned; outputs [B, N].

    The types of `level` and `room` set the lanes of potentials and of input sums: 16 bits where proved, else 32. With
    `fused`, sums and potentials stay in registers (`step_bytes`): byte weights, 16-bit lanes, no stochastic rounding.
    """
    n_samples, n_steps, n = offsets.shape[0], offsets.shape[1] - 1, counts.shape[1]
    width = rows.shape[1]
    v = np.zeros_like(level)
    total = np.zeros_like(room)
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    flat = rows.reshape(rows.size)
    places = np.empty(rows.shape[0], np.int64)
    held = np.empty(n_ref + 1, np.int64)
    record = raster.shape[0] > 0
    bases = (stream_base(seed, stream), stream_base(seed, stream + 1), stream_base(seed, stream + 2))
    for s in range(n_samples):
        v[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            start, stop = offsets[s, t], offsets[s, t + 1]
            if fused:
                for e in range(start, stop):
                    places[e - start] = np.int64(index[e]) * width
                n_resting = hold_resting(resting, n_resting, until, t, v, decay, mode, held)
                crossed = step_bytes(flat, places, stop - start, v, level, decay, gain, in_shift, v_max, mode)
                for q in range(n_resting):
                    v[resting[q]] = held[q]
            else:
                sum_rows(rows, index, start, stop, total)
                n_resting = clear_resting(resting, n_resting, until, t, total)
                k1 = step_key(bases[1], t)
                k2 = step_key(bases[2], t)
                crossed = advance(v, total, level, decay, gain, decay_scale, in_shift, v_max, mode, k1, k2)
            if not crossed:
                continue
            k = draw_winner(v, level, until, t, step_key(bases[0], t))
            if k < 0:
                continue
            for j in range(width):
                v[j] = max(_I32(_I32(v[j]) - strength[j]), _I32(0))
            v[k] = reset[k]
            until[k] = t + n_ref + 1
            if n_ref > 0:
                resting[n_resting] = k
                n_resting += 1
            counts[s, k] += 1
            if record:
                raster[s, t, k] = 1
        for j in range(n if record else 0):
            v_out[s, j] = v[j]
            ref_out[s, j] = max(until[j] - n_steps, 0)


@nb.njit(nogil=True, cache=True)
def wide(offsets, index, rows, decay, decay_shift, in_shift, v_min, v_max, level, reset, strength, inhibits, winner,
         seed, stream, n_ref, mode, counts, v_out, ref_out, raster):
    """Any population, in 64-bit arithmetic. rows int32 [n_pre, N]; outputs [B, N]."""
    n_samples, n_steps, n = offsets.shape[0], offsets.shape[1] - 1, counts.shape[1]
    v = np.zeros(n, np.int64)
    total = np.zeros(n, np.int64)
    until = np.zeros(n, np.int64)
    fired = np.zeros(n, np.int64)
    record = raster.shape[0] > 0
    bases = (stream_base(seed, stream), stream_base(seed, stream + 1), stream_base(seed, stream + 2))
    for s in range(n_samples):
        v[:] = 0
        until[:] = 0
        for t in range(n_steps):
            sum_rows(rows, index, offsets[s, t], offsets[s, t + 1], total)
            k1 = step_key(bases[1], t)
            k2 = step_key(bases[2], t)
            n_crossing = 0
            for j in range(n):
                x = requantize(v[j] * decay, decay_shift, mode, k1, j)
                if until[j] <= t:
                    x = min(max(x + requantize(total[j], in_shift, mode, k2, j), v_min), v_max)
                    if x >= level[j]:
                        fired[n_crossing] = j
                        n_crossing += 1
                v[j] = x
            if n_crossing == 0:
                continue
            if winner:
                key = step_key(bases[0], t)
                best = fired[0]
                for q in range(1, n_crossing):
                    if random_word(key, fired[q]) > random_word(key, best):
                        best = fired[q]
                fired[0] = best
                n_crossing = 1
            if inhibits:
                for j in range(n):
                    v[j] = max(v[j] - n_crossing * strength[j], v_min)
            for q in range(n_crossing):
                j = fired[q]
                until[j] = t + n_ref + 1
                counts[s, j] += 1
                if record:
                    raster[s, t, j] = 1
                v[j] = reset[j]
                if inhibits and n_crossing > 1:  # the other spikes of this step lower it too
                    v[j] = max(v[j] - (n_crossing - 1) * strength[j], v_min)
        for j in range(n if record else 0):
            v_out[s, j] = v[j]
            ref_out[s, j] = max(until[j] - n_steps, 0)

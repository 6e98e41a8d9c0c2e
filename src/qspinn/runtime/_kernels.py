"""Compiled kernels of `numba_engine`: one call runs a block of samples of one population over all steps.

`until[j]` is the first step at which neuron j is active again; `resting` lists the neurons that are refractory now.
"""

from __future__ import annotations

import numpy as np

from qspinn.runtime._drive import drive_bytes, find_places, steps_at_once
from qspinn.runtime._jit import kernel, piece
from qspinn.runtime._vectors import (
    LANES,
    aligned_zeros,
    any_of,
    lanes_add,
    lanes_min,
    lanes_none,
    lanes_reach,
    lanes_scale,
    lanes_splat,
    load_lanes,
    lowest_bit,
    reach_bits,
    store_lanes,
)
from qspinn.runtime.arithmetic import _U, NEAREST, STOCHASTIC, random_word, step_key, stream_base

_I32 = np.int32
_SIXTEEN = np.uint32(16)
CHUNK = 32  # rows are padded to a multiple of this; padded neurons have a level that nothing reaches


@kernel
def busiest_step(offsets):
    """The largest number of spikes in one step."""
    most = np.int64(0)
    for s in range(offsets.shape[0]):
        for t in range(offsets.shape[1] - 1):
            most = max(most, offsets[s, t + 1] - offsets[s, t])
    return most


@kernel
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


@piece
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


@piece
def advance(v, total, level, names, decay, gain, decay_scale, in_shift, v_max, mode, decay_key, in_key):
    """Decay, integrate, saturate in the lanes of v's type; returns whether any neuron reached its level.

    names[j] is the number under which neuron j draws random words. Both roundings are done at a common shift of 16:
    (x * 2**(16 - k) + r * 2**(16 - k)) >> 16 equals (x + r) >> k.
    """
    n = v.size
    crossing = _I32(0)
    if mode == STOCHASTIC:
        back = _U(32 - in_shift) if in_shift > 0 else _U(0)
        for j in range(n):
            r = _U(_U(random_word(decay_key, names[j]) >> _U(16 + decay_scale)) << _U(decay_scale))
            x = _U(_U(_U(v[j]) * decay) + r) >> _SIXTEEN
            y = _U(total[j])
            if in_shift > 0:
                y = _U(_U(y + _U(random_word(in_key, names[j]) >> back)) >> _U(in_shift))
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


@piece
def draw_winner(v, level, until, t, key):
    """The crossing active neuron with the largest random word, or -1. Width is a multiple of CHUNK."""
    best = -1
    best_word = _U(0)
    for start in range(0, v.size, CHUNK):
        crossing = reach_bits(v, level, start)
        while crossing != 0:
            j = start + lowest_bit(crossing)
            crossing = _U(crossing & _U(crossing - _U(1)))
            if until[j] <= t:
                word = random_word(key, j)
                if best < 0 or word > best_word:
                    best = j
                    best_word = word
    return best


@piece
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


@piece
def advance_lanes(v, total, level, decay, gain, in_shift, v_max, mode):
    """`advance` in explicit 16-bit lanes: potentials of at most 15 bits, decay < 1, no stochastic rounding."""
    leak = lanes_splat(np.int64(decay))
    scale = lanes_splat(np.int64(gain))
    half = lanes_splat(np.int64(32768 if mode == NEAREST else 0))
    top = lanes_splat(np.int64(v_max))
    crossing = lanes_none()
    for j in range(0, v.size, LANES):
        x = load_lanes(total, j)
        if in_shift > 0:
            x = lanes_scale(x, scale, half)
        x = lanes_min(lanes_add(x, lanes_scale(load_lanes(v, j), leak, half)), top)
        store_lanes(v, j, x)
        crossing = lanes_reach(crossing, x, load_lanes(level, j))
    return any_of(crossing)


@kernel
def narrow(offsets, index, rows, room, decay, gain, decay_scale, in_shift, v_max, level, reset, strength, seed, stream,
           n_ref, mode, fused, counts, v_out, ref_out, raster):
    """Winner-take-all population of unsigned potentials. rows [n_pre, width] unsigned; outputs [B, N].

    The types of `level` and `room` set the lanes of potentials and of input sums: 16 bits where proved, else 32. With
    `fused`, both run in explicit 16-bit lanes: byte weights, no stochastic rounding.
    """
    n_samples, n_steps, n = offsets.shape[0], offsets.shape[1] - 1, counts.shape[1]
    n_pre, width = rows.shape
    block = steps_at_once(width, room.itemsize, n_steps)
    drive = aligned_zeros(block * width, room.dtype)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre if fused else 0, np.int64)
    v = np.zeros_like(level)
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    names = np.arange(width)
    record = raster.shape[0] > 0
    bases = (stream_base(seed, stream), stream_base(seed, stream + 1), stream_base(seed, stream + 2))
    for s in range(n_samples):
        v[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            first = t - t % block
            if t == first:
                last = min(first + block, n_steps)
                if fused:
                    find_places(index, offsets[s, first], offsets[s, last], width, places)
                    drive_bytes(flat, places, offsets[s, first : last + 1], width, drive)
                else:
                    for step in range(first, last):
                        sum_rows(rows, index, offsets[s, step], offsets[s, step + 1],
                                 drive[(step - first) * width : (step - first + 1) * width])
            total = drive[(t - first) * width : (t - first + 1) * width]
            n_resting = clear_resting(resting, n_resting, until, t, total)
            if fused:
                crossed = advance_lanes(v, total, level, decay, gain, in_shift, v_max, mode)
            else:
                k1 = step_key(bases[1], t)
                k2 = step_key(bases[2], t)
                crossed = advance(v, total, level, names, decay, gain, decay_scale, in_shift, v_max, mode, k1, k2)
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

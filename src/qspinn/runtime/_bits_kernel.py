"""Compiled kernel for weights of one bit: rows of bits are summed as bit-sliced counters, 512 neurons at a time.

Plane p holds bit p of all counts. A full adder takes two rows at a time into the planes (after Harley and Seal's
carry-save counting); the counts then enter the potentials as masked additions of 2**p, 32 lanes at a time.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from qspinn.runtime._kernels import _I32, draw_winner
from qspinn.runtime._vectors import (
    LANES,
    WORDS,
    lanes_add_where,
    lanes_min,
    lanes_reach,
    lanes_scale,
    lanes_splat,
    load_lanes,
    load_words,
    store_lanes,
    store_words,
    words_and,
    words_or,
    words_xor,
    words_zero,
)
from qspinn.runtime.arithmetic import NEAREST, step_key, stream_base

PLANES = 6
BUSIEST = (1 << PLANES) - 1
GROUP = WORDS * 64  # neurons per pass


@nb.njit(inline="always")
def full_adder(x, a, b):
    """(sum, carry) of three bits, in all lanes."""
    u = words_xor(x, a)
    return words_xor(u, b), words_or(words_and(x, a), words_and(u, b))


@nb.njit(inline="always")
def count_rows(bits, index, start, stop, width, column, planes, at):
    """planes[at:] = bit planes of the number of set bits in each column of the rows index[start:stop]."""
    many = stop - start >= 16
    p0 = words_zero()
    p1 = words_zero()
    p2 = words_zero()
    p3 = words_zero()
    p4 = words_zero()
    p5 = words_zero()
    e = start
    while e + 4 <= stop:
        p0, c1 = full_adder(p0, load_words(bits, np.int64(index[e]) * width + column),
                            load_words(bits, np.int64(index[e + 1]) * width + column))
        p0, c2 = full_adder(p0, load_words(bits, np.int64(index[e + 2]) * width + column),
                            load_words(bits, np.int64(index[e + 3]) * width + column))
        p1, c = full_adder(p1, c1, c2)
        d = words_and(p2, c)
        p2 = words_xor(p2, c)
        c = words_and(p3, d)
        p3 = words_xor(p3, d)
        if many:
            d = words_and(p4, c)
            p4 = words_xor(p4, c)
            p5 = words_xor(p5, d)
        e += 4
    while e < stop:
        c = load_words(bits, np.int64(index[e]) * width + column)
        d = words_and(p0, c)
        p0 = words_xor(p0, c)
        c = words_and(p1, d)
        p1 = words_xor(p1, d)
        d = words_and(p2, c)
        p2 = words_xor(p2, c)
        c = words_and(p3, d)
        p3 = words_xor(p3, d)
        if many:
            d = words_and(p4, c)
            p4 = words_xor(p4, c)
            p5 = words_xor(p5, d)
        e += 1
    store_words(planes, at, p0)
    store_words(planes, at + WORDS, p1)
    store_words(planes, at + 2 * WORDS, p2)
    store_words(planes, at + 3 * WORDS, p3)
    store_words(planes, at + 4 * WORDS, p4)
    store_words(planes, at + 5 * WORDS, p5)


@nb.njit(nogil=True, cache=True)
def one_bit(offsets, index, bits, width, left, decay, v_max, level, reset, strength, seed, stream, n_ref, mode, counts,
            v_out, ref_out, raster):
    """Winner-take-all population with one-bit weights. bits uint64 [n_pre * width], width words a row, a multiple of
    8; level, reset, strength int16 [n padded to 32]; at most BUSIEST input spikes a step; outputs [B, N]."""
    n_samples, n_steps, n = offsets.shape[0], offsets.shape[1] - 1, counts.shape[1]
    size = level.size
    v = np.zeros(size, np.int16)
    planes = np.zeros(width * PLANES, np.uint64)
    words32 = planes.view(np.uint32)
    until = np.zeros(size, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    record = raster.shape[0] > 0
    base = stream_base(seed, stream)
    factor = lanes_splat(np.int64(decay))
    half = lanes_splat(np.int64(32768 if mode == NEAREST else 0))
    top = lanes_splat(np.int64(v_max))
    w0 = lanes_splat(np.int64(1) << left)
    w1 = lanes_splat(np.int64(2) << left)
    w2 = lanes_splat(np.int64(4) << left)
    w3 = lanes_splat(np.int64(8) << left)
    w4 = lanes_splat(np.int64(16) << left)
    w5 = lanes_splat(np.int64(32) << left)
    for s in range(n_samples):
        v[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            start, stop = offsets[s, t], offsets[s, t + 1]
            for column in range(0, width, WORDS):
                count_rows(bits, index, start, stop, width, column, planes, column * PLANES)
            still = 0
            for q in range(n_resting):  # refractory neurons receive nothing
                j = resting[q]
                if until[j] > t:
                    at = (j // GROUP) * GROUP // 32 * PLANES + (j % GROUP) // 32
                    for p in range(PLANES):
                        words32[at + p * 2 * WORDS] &= ~np.uint32(np.uint32(1) << np.uint32(j % 32))
                    resting[still] = j
                    still += 1
            n_resting = still
            crossing = np.uint32(0)
            few = stop - start < 16
            for j in range(0, size, LANES):
                at = (j // GROUP) * GROUP // 32 * PLANES + (j % GROUP) // 32
                x = lanes_scale(load_lanes(v, j), factor, half)
                x = lanes_add_where(x, words32[at], w0)
                x = lanes_add_where(x, words32[at + 2 * WORDS], w1)
                x = lanes_add_where(x, words32[at + 4 * WORDS], w2)
                x = lanes_add_where(x, words32[at + 6 * WORDS], w3)
                if not few:
                    x = lanes_add_where(x, words32[at + 8 * WORDS], w4)
                    x = lanes_add_where(x, words32[at + 10 * WORDS], w5)
                x = lanes_min(x, top)
                store_lanes(v, j, x)
                crossing |= lanes_reach(x, load_lanes(level, j))
            if crossing == 0:
                continue
            k = draw_winner(v, level, until, t, step_key(base, t))
            if k < 0:
                continue
            for j in range(size):
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

"""Compiled backward pass of local learning: errors of one sample, and gradients as sums over events.

An error that is not zero is an event: the place where its patch of P starts, and its value.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import piece
from qspinn.compiled.products import (
    PAIRED,
    add_products,
    ints_top,
    load_pairs,
    load_wide,
    pair_high,
    pair_low,
    splat_pair,
    store_narrow,
)
from qspinn.compiled.vectors import (
    INTS,
    ints_add,
    ints_max,
    ints_min,
    ints_mul,
    ints_shift,
    ints_splat,
    ints_sub,
    load_ints,
)
from qspinn.learning.local.kernels.forward import put

_I64 = np.int64


@piece
def blame(size, c, readouts, s, label, error):
    """Errors of a sample at the read-out."""
    for k in range(readouts.shape[1]):
        e = _I64(readouts[s, k]) - (c.one if k == label else 0)
        e = (e << c.e_up) if c.e_down == 0 else (e + c.e_half) >> c.e_down
        error[k] = min(max(e, -c.e_max), c.e_max)


@piece
def shape_errors(size, c, feedback, error, gate, top_u, lit, e_shift, delta):
    """Errors at the potentials, rounded and saturated; returns the largest before that."""
    flat, sign = feedback.reshape(-1), ints_splat(31)
    push, pull = ints_splat(c.push), ints_splat(c.pull if lit < c.least else 0)
    half, shift = ints_splat(((1 << e_shift) >> 1) * c.e_rounds), ints_splat(e_shift)
    e_max, e_min, most = ints_splat(c.e_max), ints_splat(-c.e_max), ints_splat(0)
    for j in range(0, size.n_wide, INTS):
        back = ints_sub(ints_splat(0), pull)
        for k in range(error.size):
            back = ints_add(back, ints_mul(load_wide(flat, k * size.n_wide + j), ints_splat(error[k])))
        high = ints_add(ints_mul(ints_shift(load_wide(top_u, j), sign), push), push)
        found = ints_add(ints_mul(back, load_wide(gate, j)), high)
        most = ints_max(most, ints_max(found, ints_sub(ints_splat(0), found)))
        store_narrow(delta, j, ints_max(ints_min(ints_shift(ints_add(found, half), shift), e_max), e_min))
    return _I64(ints_top(most))


@piece
def list_events(size, delta, where, count, list_at, list_d):
    """The errors that are not zero, by channel: where their patches start, and what they are; an even number."""
    room = list_d.size // size.c_out
    for c in range(size.c_out):
        count[c] = 0
    for j in range(0, size.p_rows * size.p_cols * size.wide, size.wide):
        for c in range(size.c_out):
            n = count[c]
            list_at[c * room + n] = where[j + c]
            list_d[c * room + n] = delta[j + c]
            count[c] = n + (delta[j + c] != 0)
    for c in range(size.c_out):
        list_at[c * room + count[c]] = 0
        list_d[c * room + count[c]] = 0
        count[c] += count[c] & 1


@piece
def gather(size, p, at, count, list_at, list_d, grad):
    """grad [c_out, k, strips, 32] += sum over events of error * patch; two events at a time."""
    flat, room = grad.reshape(-1), list_d.size // size.c_out
    for c in range(size.c_out):
        first, end = c * room, c * room + count[c]
        for k in range(size.kernel):
            to, row = (c * size.kernel + k) * size.strips * PAIRED, at + k * size.line
            for j in range(0, (size.strips - size.strips % 2) * PAIRED, 2 * PAIRED):
                a, b = load_ints(flat, to + j), load_ints(flat, to + j + INTS)
                d, e = load_ints(flat, to + j + PAIRED), load_ints(flat, to + j + PAIRED + INTS)
                for n in range(first, end, 2):
                    pair = splat_pair(list_d, n)
                    one, two = row + list_at[n] + j, row + list_at[n + 1] + j
                    x, y = load_pairs(p, one), load_pairs(p, two)
                    a, b = add_products(a, pair_low(x, y), pair), add_products(b, pair_high(x, y), pair)
                    x, y = load_pairs(p, one + PAIRED), load_pairs(p, two + PAIRED)
                    d, e = add_products(d, pair_low(x, y), pair), add_products(e, pair_high(x, y), pair)
                put(flat, to + j, a, b)
                put(flat, to + j + PAIRED, d, e)
            if size.strips % 2 == 1:
                j = (size.strips - 1) * PAIRED
                a, b = load_ints(flat, to + j), load_ints(flat, to + j + INTS)
                for n in range(first, end, 2):
                    pair = splat_pair(list_d, n)
                    x, y = load_pairs(p, row + list_at[n] + j), load_pairs(p, row + list_at[n + 1] + j)
                    a, b = add_products(a, pair_low(x, y), pair), add_products(b, pair_high(x, y), pair)
                put(flat, to + j, a, b)


@piece
def sum_bias(size, c, count, list_d, total):
    """The same for the biases, whose input is always 1."""
    room = list_d.size // size.c_out
    for k in range(size.c_out):
        found = _I64(0)
        for n in range(k * room, k * room + count[k]):
            found += list_d[n]
        total[k] += found * c.p_one


@piece
def flush(grad, total):
    """Sums of 32 bits, before they could overflow, into those of 64."""
    small, large = grad.reshape(-1), total.reshape(-1)
    for j in range(small.size):
        large[j] += small[j]
        small[j] = 0

"""Compiled forward pass of local learning: traces, convolution, potentials, pooling and read-out of one sample."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import piece
from qspinn.compiled.lanes import above, choose
from qspinn.compiled.products import PAIRED, add_products, ints_total, load_pairs, load_wide, splat_pair, store_narrow
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
    store_ints,
)

_I64 = np.int64
DECAY_BITS = 8


@piece
def follow(size, c, alpha, gain, beta, jump, q, p, s, spikes, spikes_from):
    """Traces of a sample: P <- alpha P + gain Q, then Q <- beta Q + jump * spikes, rounded and saturated."""
    p_up, q_up, p_shift = ints_splat(c.p_up), ints_splat(c.q_up), ints_splat(c.p_shift)
    p_half, p_max = ints_splat(c.p_half), ints_splat(c.p_max)
    q_half, q_max, q_shift = ints_splat(c.q_half), ints_splat(c.q_max), ints_splat(DECAY_BITS)
    for y in range(size.height):
        at = s * size.in_sample + y * size.in_row
        to = s * size.p_sample + (y + size.pad) * size.line + size.pad * size.c_in
        for j in range(0, size.in_row, INTS):
            old = load_wide(q, at + j)
            kept = left(ints_mul(load_ints(alpha, j), load_wide(p, to + j)), p_up)
            new = ints_add(ints_add(kept, left(ints_mul(load_ints(gain, j), old), q_up)), p_half)
            store_narrow(p, to + j, ints_min(ints_shift(new, p_shift), p_max))
            kept = ints_shift(ints_add(ints_mul(load_ints(beta, j), old), q_half), q_shift)
            fed = ints_mul(load_ints(jump, j), load_wide(spikes, spikes_from + at + j))
            store_narrow(q, at + j, ints_min(ints_add(kept, fed), q_max))


@piece
def left(x, factor):
    """x times a power of two."""
    return ints_mul(x, factor)


@piece
def convolve(size, w, p, at, sums):
    """sums [cols, wide] of one row of outputs: conv(P, W) of the sample whose rows start at `at`."""
    step, last = size.stride * size.c_in, (size.cols - 1) * size.stride * size.c_in
    for x in range(0, size.cols, 4):
        a = at + x * step
        b, d, e = at + min((x + 1) * step, last), at + min((x + 2) * step, last), at + min((x + 3) * step, last)
        to_b, to_d, to_e = min(x + 1, size.cols - 1), min(x + 2, size.cols - 1), min(x + 3, size.cols - 1)
        for c in range(0, size.wide - INTS, PAIRED):
            a_1, b_1, d_1, e_1 = ints_splat(0), ints_splat(0), ints_splat(0), ints_splat(0)
            a_2, b_2, d_2, e_2 = ints_splat(0), ints_splat(0), ints_splat(0), ints_splat(0)
            m = 2 * c
            for k in range(size.kernel):
                for j in range(k * size.line, k * size.line + 2 * size.pairs, 2):
                    one, two = load_pairs(w, m), load_pairs(w, m + PAIRED)
                    m += 2 * size.wide
                    n = splat_pair(p, a + j)
                    a_1, a_2 = add_products(a_1, n, one), add_products(a_2, n, two)
                    n = splat_pair(p, b + j)
                    b_1, b_2 = add_products(b_1, n, one), add_products(b_2, n, two)
                    n = splat_pair(p, d + j)
                    d_1, d_2 = add_products(d_1, n, one), add_products(d_2, n, two)
                    n = splat_pair(p, e + j)
                    e_1, e_2 = add_products(e_1, n, one), add_products(e_2, n, two)
            put(sums, to_e * size.wide + c, e_1, e_2)
            put(sums, to_d * size.wide + c, d_1, d_2)
            put(sums, to_b * size.wide + c, b_1, b_2)
            put(sums, x * size.wide + c, a_1, a_2)
        if size.wide % PAIRED != 0:
            a_1, b_1, d_1, e_1 = ints_splat(0), ints_splat(0), ints_splat(0), ints_splat(0)
            c = size.wide - INTS
            m = 2 * c
            for k in range(size.kernel):
                for j in range(k * size.line, k * size.line + 2 * size.pairs, 2):
                    one = load_pairs(w, m)
                    m += 2 * size.wide
                    a_1 = add_products(a_1, splat_pair(p, a + j), one)
                    b_1 = add_products(b_1, splat_pair(p, b + j), one)
                    d_1 = add_products(d_1, splat_pair(p, d + j), one)
                    e_1 = add_products(e_1, splat_pair(p, e + j), one)
            store_ints(sums, to_e * size.wide + c, e_1)
            store_ints(sums, to_d * size.wide + c, d_1)
            store_ints(sums, to_b * size.wide + c, b_1)
            store_ints(sums, x * size.wide + c, a_1)


@piece
def put(to, at, one, two):
    """Two registers, one behind the other."""
    store_ints(to, at, one)
    store_ints(to, at + INTS, two)


@piece
def decide(size, c, sums, bias, r, at, u, to):
    """Potentials of a row of outputs, U = sums + bias - R rounded and saturated, and R <- gamma R + [U >= 0]."""
    r_shift, u_half, u_shift = ints_splat(1 << c.r_shift), ints_splat(c.u_half), ints_splat(c.u_shift)
    u_max, u_min, sign = ints_splat(c.u_max), ints_splat(-c.u_max), ints_splat(31)
    r_decay, r_half = ints_splat(c.r_decay), ints_splat(c.r_half)
    r_unit, r_max = ints_splat(c.r_unit), ints_splat(c.r_max)
    for x in range(0, size.cols * size.wide, size.wide):
        for k in range(x, x + size.wide, INTS):
            old = load_wide(r, at + k)
            v = ints_sub(ints_add(load_ints(sums, k), load_ints(bias, k - x)), ints_mul(old, r_shift))
            v = ints_max(ints_min(ints_shift(ints_add(v, u_half), u_shift), u_max), u_min)
            store_narrow(u, to + k, v)
            fired = ints_add(ints_mul(ints_shift(v, sign), r_unit), r_unit)
            kept = ints_shift(ints_add(ints_mul(old, r_decay), r_half), ints_splat(DECAY_BITS))
            store_narrow(r, at + k, ints_min(ints_add(kept, fired), r_max))


@piece
def pool(size, u, top_u, where, out, s):
    """The largest potential of each window, where its patch of P starts, and its spike; the first of equals counts."""
    one, sign = ints_splat(1), ints_splat(31)
    for y in range(size.p_rows):
        for x in range(size.p_cols):
            to, left_top = (y * size.p_cols + x) * size.wide, (y * size.cols + x) * size.pool
            for c in range(0, size.wide, INTS):
                best, place = load_wide(u, left_top * size.wide + c), ints_splat(patch(size, y, x, 0, 0))
                for d in range(1, size.pool * size.pool):
                    dy, dx = d // size.pool, d % size.pool
                    v = load_wide(u, (left_top + dy * size.cols + dx) * size.wide + c)
                    larger = above(v, best)
                    best = choose(larger, v, best)
                    place = choose(larger, ints_splat(patch(size, y, x, dy, dx)), place)
                store_narrow(top_u, to + c, best)
                store_ints(where, to + c, place)
                fired = ints_add(ints_shift(best, sign), one)
                store_narrow(out, s * size.out_sample + y * size.out_row + x * size.c_out + c, fired)


@piece
def patch(size, y, x, dy, dx):
    """Where in a sample of P the patch of one output starts."""
    return (y * size.pool + dy) * size.stride * size.line + (x * size.pool + dx) * size.stride * size.c_in


@piece
def look_up(size, c, top_u, activity, slope, act, gate):
    """Sigmoid and its slope from tables; returns the sum of activities of the real channels."""
    lit = 0
    for j in range(0, size.p_rows * size.p_cols * size.wide, size.wide):
        for k in range(j, j + size.c_out):
            v = top_u[k] + c.u_max
            act[k] = activity[v]
            gate[k] = slope[v]
            lit += activity[v]
    return lit


@piece
def read(size, c, readout, act, readouts, s):
    """The read-out of a sample, rounded and saturated."""
    flat = readout.reshape(-1)
    for k in range(readouts.shape[1]):
        one, two = ints_splat(0), ints_splat(0)
        for j in range(0, size.n_wide, 2 * PAIRED):
            at = k * size.n_wide + j
            one = add_products(one, load_pairs(flat, at), load_pairs(act, j))
            two = add_products(two, load_pairs(flat, at + PAIRED), load_pairs(act, j + PAIRED))
        found = (_I64(ints_total(ints_add(one, two))) + c.read_half) >> c.read_shift
        readouts[s, k] = min(max(found, -c.read_max), c.read_max)

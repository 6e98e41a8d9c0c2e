"""Compiled local learning in integers: one step of one layer for a range of samples, and the update of its weights.

Everything is laid out channel-last and in whole registers: `wide` is the number of output channels filled up to 16,
and rows of inputs are filled up to 16 numbers. A sample of P is [y + margins, line], margins of zeros all round, so no
kernel needs clipping. No number here is a float, and no sum can overflow: `local_grid` proves it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qspinn.runtime._jit import kernel, piece
from qspinn.runtime._lanes import above, choose
from qspinn.runtime._products import (
    PAIRED,
    add_products,
    ints_top,
    ints_total,
    load_pairs,
    load_wide,
    pair_high,
    pair_low,
    splat_pair,
    store_narrow,
)
from qspinn.runtime._vectors import (
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
from qspinn.runtime.arithmetic import _U, NEAREST, STOCHASTIC, TOWARD_ZERO, random_word

_I32, _I64 = np.int32, np.int64


class Sizes(NamedTuple):
    """Geometry of a layer, in numbers of elements.

    in_row, in_sample: of Q and of input spikes; line, p_sample: of P; run: of a kernel's row (k * C_in); pairs: of
    such a row; strips: registers of 32 for it. rows, cols: before pooling; p_rows, p_cols after it.
    out_row, out_sample: of the spikes that the next layer gets. n_wide: pooled outputs in whole registers.
    """

    c_in: int
    height: int
    width: int
    in_row: int
    in_sample: int
    pad: int
    line: int
    p_sample: int
    kernel: int
    stride: int
    run: int
    pairs: int
    strips: int
    c_out: int
    wide: int
    rows: int
    cols: int
    pool: int
    p_rows: int
    p_cols: int
    n_wide: int
    out_row: int
    out_sample: int


class Numbers(NamedTuple):
    """Shifts, limits and constants of a layer's arithmetic; `*_half` is what is added before a shift.

    Attributes:
        p_up, q_up: shifts that bring P and Q to a common unit before they are added.
        r_unit: what a spike adds to R; r_shift: R in units of the sums.
        e_down, e_up: shifts from read-out to error; e_rounds: whether errors are rounded to nearest; one: code of a
            wanted 1.
        push, pull: codes of the two regularizers; least: sum of activities below which the second acts.
    """

    p_up: int
    q_up: int
    p_shift: int
    p_half: int
    p_max: int
    q_half: int
    q_max: int
    r_decay: int
    r_half: int
    r_unit: int
    r_max: int
    r_shift: int
    u_shift: int
    u_half: int
    u_max: int
    read_shift: int
    read_half: int
    read_max: int
    one: int
    e_down: int
    e_half: int
    e_up: int
    e_max: int
    e_rounds: int
    push: int
    pull: int
    least: int
    p_one: int
    n_safe: int


DECAY_BITS = 8


@kernel
def advance(size, c, tables, weights, bias, state, spikes, spikes_from, out, room, readouts, labels, learn, e_shift,
            top, grads, part, start, stop):
    """One step of samples start..stop.

    Args:
        tables: (alpha, gain, beta, jump [in_row] int32, activity, slope [2 u_max + 1] int16, readout, feedback
            [n_classes, n_wide] int16).
        weights, bias: forward codes, int16 [k, pairs, wide, 2] flat and int32 [wide].
        state: (q, p, r), int16, int16, uint8, flat.
        spikes, spikes_from: input spikes, uint8 flat, and where this step's first sample is.
        out: pooled spikes, uint8 flat.
        room: (sums int32, u, top_u, act, gate, delta int16, where int32, error int32, count int64,
            list_at int32, list_d int16): room for one sample.
        readouts: int16 [B, n_classes].
        learn: whether gradients are added up; e_shift: right shift of errors; top [parts] int64: the largest error
            before that shift.
        grads: (grad int32, total int64 [parts, c_out, k, 32 strips], bias int64 [parts, c_out]).
    """
    q, p, r = state
    sums, u, top_u, act, gate, delta, where, error, count, list_at, list_d = room
    activity, slope, readout, feedback = tables[4], tables[5], tables[6], tables[7]
    grad, total, total_bias = grads[0][part], grads[1][part], grads[2][part]
    held = 0
    for s in range(start, stop):
        follow(size, c, tables[0], tables[1], tables[2], tables[3], q, p, s, spikes, spikes_from)
        for y in range(size.rows):
            convolve(size, weights, p, s * size.p_sample + y * size.stride * size.line, sums)
            decide(size, c, sums, bias, r, (s * size.rows + y) * size.cols * size.wide, u, y * size.cols * size.wide)
        pool(size, u, top_u, where, out, s)
        lit = look_up(size, c, top_u, activity, slope, act, gate)
        read(size, c, readout, act, readouts, s)
        if learn:
            blame(size, c, readouts, s, labels[s], error)
            top[part] = max(top[part], shape_errors(size, c, feedback, error, gate, top_u, lit, e_shift, delta))
            list_events(size, delta, where, count, list_at, list_d)
            gather(size, p, s * size.p_sample, count, list_at, list_d, grad)
            sum_bias(size, c, count, list_d, total_bias)
            held += 1
            if held == c.n_safe or s == stop - 1:
                flush(grad, total)
                held = 0


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


@kernel
def update(total, order, steps, g_max, rate, shift, rounding, key, first, learned):
    """learned <- learned - rate * total / 2^exponent, rounded and saturated; returns the exponent, -1 where nothing is
    to be learned: the power of two nearest to the largest gradient.

    Args:
        total: gradients of all parts, int64 [parts, n]; order: place in them of each weight, int32.
        steps: room, int32, as many as weights.
        rate, shift: of the learning rate, in codes: rate * (gradient / 2^exponent * 2^16) >> shift.
        key, first: of the random bits, and the index of the first weight.
        learned: codes, int16, in place.
    """
    for part in range(1, total.shape[0]):
        for j in range(total.shape[1]):
            total[0, j] += total[part, j]
    largest = _I64(0)
    for j in range(order.size):
        largest = max(largest, abs(total[0, order[j]]))
    if largest == 0:
        return -1
    exponent = nearest_power(largest)
    for j in range(order.size):
        g = total[0, order[j]]
        g = (g << _I64(16 - exponent)) if exponent <= 16 else (g >> _I64(exponent - 16))
        steps[j] = _I32(g * rate)
    half, mask = _I32(0), _I32(0)
    if rounding == NEAREST:
        half = _I32(1 << (shift - 1))
    if rounding == TOWARD_ZERO:
        mask = _I32((1 << shift) - 1)
    for j in range(order.size):
        x = steps[j]
        if rounding == STOCHASTIC:
            x = _I32(x + _I32(random_word(key, first + j) >> _U(32 - shift)))
        else:
            x = _I32(_I32(x + half) + (mask & _I32(x >> 31)))
        new = _I32(_I32(learned[j]) - _I32(x >> shift))
        learned[j] = min(max(new, _I32(-g_max)), _I32(g_max))
    return exponent


@piece
def nearest_power(x):
    """The exponent of the power of two that is nearest to x > 0 by ratio."""
    exponent = 0
    while x >> (exponent + 1) > 0:
        exponent += 1
    part = x >> (exponent - 15) if exponent > 15 else x << (15 - exponent)
    return exponent + (part * part >= 1 << 31)


@kernel
def power_of(x):
    """`nearest_power` for Python."""
    return nearest_power(x)


@kernel
def forward_codes(learned, shift, half, w_max, place, w):
    """w[place] = codes of the learned weights in the forward format."""
    for j in range(learned.size):
        code = (_I64(learned[j]) + half) >> shift
        w[place[j]] = min(max(code, -w_max), w_max)

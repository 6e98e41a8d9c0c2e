"""Compiled passes of a connection over all steps of a few samples, event by event.

A signal is a list of what is not zero; every entry adds whole runs of a weight row to the currents, and in the backward
pass the same runs of the currents' gradient to that row. Only the gradient to the source is dense. Everything but the
lists lies flat in one dimension: currents as [B, T, y, x, C_out], sources as [B, T, y, x, C_in].

`taps` [n_sources, 4] says where a source goes: the first target number, the first number in `rows`, the length of a run
and how many runs; from one run to the next, targets advance by `line` numbers and weights go back by `back`.
"""

from __future__ import annotations

import numpy as np

from qspinn.runtime._jit import kernel, piece
from qspinn.runtime._vectors import (
    FLOATS,
    floats_add,
    floats_fma,
    floats_splat,
    floats_sub,
    load_floats,
    store_floats,
)

_F32 = np.float32


@kernel
def find(x, by_sample, by_step, n, start, stop, ends, index, grades):
    """Lists what is not zero in samples start..stop, each of n numbers a step; grades[s] says whether any is not 1.

    Entries of sample s and step t are index[s, ends[s, t - 1]:ends[s, t]], from 0 at the first step.
    """
    for s in range(start, stop):
        m, graded = 0, False
        for t in range(ends.shape[1]):
            at = s * by_sample + t * by_step
            for j in range(n):
                index[s, m] = j
                m += x[at + j] != 0
            ends[s, t] = m
            for e in range(ends[s, t - 1] if t > 0 else 0, m):
                graded |= x[at + index[s, e]] != 1
        grades[s] = graded


@kernel
def look_up(x, by_sample, by_step, start, stop, ends, index, value):
    """value[s, e]: the number behind entry e."""
    for s in range(start, stop):
        e = 0
        for t in range(ends.shape[1]):
            at = s * by_sample + t * by_step
            while e < ends[s, t]:
                value[s, e] = x[at + index[s, e]]
                e += 1


@piece
def add_run(to, at, rows, w, length, factor):
    """to[at + q] += factor * rows[w + q] for all q < length."""
    many = floats_splat(factor)
    whole = length - length % FLOATS
    for q in range(0, whole, FLOATS):
        store_floats(to, at + q, floats_fma(many, load_floats(rows, w + q), load_floats(to, at + q)))
    for q in range(whole, length):
        to[at + q] += factor * rows[w + q]


@kernel
def feed(index, ends, value, taps, rows, line, back, start_at, n, start, stop, current, mean, squares):
    """current [B, T, n] = what the entries of samples start..stop add up to, from start_at [C_out] on.

    Where mean [B, C_out] has entries: means of each sample, and sums of squares around them.
    """
    n_steps, width = ends.shape[1], start_at.size
    for s in range(start, stop):
        e = 0
        for t in range(n_steps):
            here = (s * n_steps + t) * n
            for p in range(0, n, width):
                for c in range(width):
                    current[here + p + c] = start_at[c]
            while e < ends[s, t]:
                j = index[s, e]
                factor = value[s, e] if value.size > 0 else _F32(1)
                at, w, length = here + taps[j, 0], np.int64(taps[j, 1]), np.int64(taps[j, 2])
                for _ in range(taps[j, 3]):
                    add_run(current, at, rows, w, length, factor)
                    at += line
                    w -= back
                e += 1
        if mean.size > 0:
            moments(current, s, n_steps, n, mean, squares)


@kernel
def moments_of(current, n, n_steps, start, stop, mean, squares):
    """The means and squares of `feed` for currents made elsewhere."""
    for s in range(start, stop):
        moments(current, s, n_steps, n, mean, squares)


@kernel
def moments(x, s, n_steps, n, mean, squares):
    """Means of a sample by channel, and sums of squares around them."""
    width = mean.shape[1]
    part, around = np.zeros(width, _F32), np.zeros(width, _F32)
    for by_square in range(2):
        total = np.zeros(width)
        for t in range(n_steps):
            column_sums(x, (s * n_steps + t) * n, n // width, around, by_square == 1, part)
            for c in range(width):
                total[c] += part[c]
        for c in range(width):
            if by_square == 1:
                squares[s, c] = total[c]
            else:
                mean[s, c] = total[c] / (n_steps * (n // width))
                around[c] = mean[s, c]
                mean[s, c] = total[c] / (n_steps * (n // width))


@piece
def column_sums(x, at, n_rows, around, squared, total):
    """total[c] = sum over rows of x - around[c], or of its square."""
    width = around.size
    whole = width - width % FLOATS
    for c in range(0, whole, FLOATS):
        middle, one, two = load_floats(around, c), floats_splat(_F32(0)), floats_splat(_F32(0))
        for p in range(at + c, at + c + (n_rows - n_rows % 2) * width, 2 * width):
            a, b = floats_sub(load_floats(x, p), middle), floats_sub(load_floats(x, p + width), middle)
            one = floats_fma(a, a, one) if squared else floats_add(one, a)
            two = floats_fma(b, b, two) if squared else floats_add(two, b)
        if n_rows % 2 == 1:
            a = floats_sub(load_floats(x, at + c + (n_rows - 1) * width), middle)
            one = floats_fma(a, a, one) if squared else floats_add(one, a)
        store_floats(total, c, floats_add(one, two))
    for c in range(whole, width):
        one = _F32(0)
        for p in range(at + c, at + n_rows * width, width):
            a = x[p] - around[c]
            one += a * a if squared else a
        total[c] = one


@kernel
def backward(index, ends, value, taps, turned, line, back, geometry, n, n_source, weighs, start, stop, by, grad,
             current, d_rows, source_grad):
    """Gradients of `feed` for samples start..stop.

    grad [B, T, n] is that of the currents after normalization; with by = (a, b, c) [3, C_out] it becomes
    a * grad + b * current + c, in place. Then, if weighs, entries are added to d_rows; and where source_grad has
    entries, it is written, by the weights turned [k_y, C_out, k_x, C_in].
    geometry: rows and columns of target, kernel and source, stride, padding; pairs (y, x).
    """
    n_steps = ends.shape[1]
    for s in range(start, stop):
        if by.size > 0:
            settle(grad, current, s * n_steps * n, n_steps * n, by)
        e = 0
        for t in range(n_steps if weighs else 0):
            here = (s * n_steps + t) * n
            while e < ends[s, t]:
                j = index[s, e]
                factor = value[s, e] if value.size > 0 else _F32(1)
                at, w, length = here + taps[j, 0], np.int64(taps[j, 1]), np.int64(taps[j, 2])
                for _ in range(taps[j, 3]):
                    add_run(d_rows, w, grad, at, length, factor)
                    at += line
                    w -= back
                e += 1
        if source_grad.size > 0:
            to_source(grad, s * n_steps * n, n, n_steps, turned, geometry, source_grad, s * n_steps * n_source, n_source)


@piece
def settle(grad, current, at, n, by):
    """grad <- a * grad + b * current + c from number `at` on, by channel."""
    width = by.size // 3
    whole = width - width % FLOATS
    for c in range(0, whole, FLOATS):
        a, b, d = load_floats(by, c), load_floats(by, width + c), load_floats(by, 2 * width + c)
        for p in range(at + c, at + n, width):
            x = floats_fma(b, load_floats(current, p), d)
            store_floats(grad, p, floats_fma(a, load_floats(grad, p), x))
    for c in range(whole, width):
        for p in range(at + c, at + n, width):
            grad[p] = by[c] * grad[p] + by[width + c] * current[p] + by[2 * width + c]


@kernel
def to_source(grad, at, n, n_steps, turned, geometry, found, to, n_source):
    """The source's gradient in one sample: every target position adds runs of weights, by channel."""
    height, width, k_y, k_x, s_height, s_width, stride_y, stride_x, pad_y, pad_x = geometry
    channels, c_in = n // (height * width), n_source // (s_height * s_width)
    row = k_x * c_in
    found[to : to + n_steps * n_source] = 0
    for y in range(height):
        for x in range(width):
            first = max(0, pad_x - x * stride_x)
            length = (min(k_x, s_width + pad_x - x * stride_x) - first) * c_in
            here = at + (y * width + x) * channels
            for k in range(max(0, pad_y - y * stride_y), min(k_y, s_height + pad_y - y * stride_y)):
                there = to + ((y * stride_y - pad_y + k) * s_width + x * stride_x - pad_x + first) * c_in
                w = k * channels * row + first * c_in
                t = 0
                while t + 4 <= n_steps:
                    four_steps(grad, here + t * n, n, channels, turned, w, row, found, there + t * n_source, n_source,
                               length)
                    t += 4
                while t < n_steps:
                    for q in range(0, length):
                        total = found[there + t * n_source + q]
                        for o in range(channels):
                            total += grad[here + t * n + o] * turned[w + o * row + q]
                        found[there + t * n_source + q] = total
                    t += 1


@piece
def four_steps(grad, g, by_g, channels, turned, w, row, found, to, by_to, length):
    """A run of weights times the gradients of one position, in four steps at once: weights are read once, and sums
    stay in registers."""
    pairs = length - length % (2 * FLOATS)
    for q in range(0, pairs, 2 * FLOATS):
        at, at_1, at_2, at_3 = to + q, to + by_to + q, to + 2 * by_to + q, to + 3 * by_to + q
        a, b = load_floats(found, at), load_floats(found, at + FLOATS)
        a_1, b_1 = load_floats(found, at_1), load_floats(found, at_1 + FLOATS)
        a_2, b_2 = load_floats(found, at_2), load_floats(found, at_2 + FLOATS)
        a_3, b_3 = load_floats(found, at_3), load_floats(found, at_3 + FLOATS)
        for o in range(channels):
            one, two = load_floats(turned, w + o * row + q), load_floats(turned, w + o * row + q + FLOATS)
            x = floats_splat(grad[g + o])
            a, b = floats_fma(x, one, a), floats_fma(x, two, b)
            x = floats_splat(grad[g + by_g + o])
            a_1, b_1 = floats_fma(x, one, a_1), floats_fma(x, two, b_1)
            x = floats_splat(grad[g + 2 * by_g + o])
            a_2, b_2 = floats_fma(x, one, a_2), floats_fma(x, two, b_2)
            x = floats_splat(grad[g + 3 * by_g + o])
            a_3, b_3 = floats_fma(x, one, a_3), floats_fma(x, two, b_3)
        store_floats(found, at, a)
        store_floats(found, at + FLOATS, b)
        store_floats(found, at_1, a_1)
        store_floats(found, at_1 + FLOATS, b_1)
        store_floats(found, at_2, a_2)
        store_floats(found, at_2 + FLOATS, b_2)
        store_floats(found, at_3, a_3)
        store_floats(found, at_3 + FLOATS, b_3)
    whole = length - length % FLOATS
    for q in range(pairs, whole, FLOATS):
        at, at_1, at_2, at_3 = to + q, to + by_to + q, to + 2 * by_to + q, to + 3 * by_to + q
        a, a_1 = load_floats(found, at), load_floats(found, at_1)
        a_2, a_3 = load_floats(found, at_2), load_floats(found, at_3)
        for o in range(channels):
            one = load_floats(turned, w + o * row + q)
            a = floats_fma(floats_splat(grad[g + o]), one, a)
            a_1 = floats_fma(floats_splat(grad[g + by_g + o]), one, a_1)
            a_2 = floats_fma(floats_splat(grad[g + 2 * by_g + o]), one, a_2)
            a_3 = floats_fma(floats_splat(grad[g + 3 * by_g + o]), one, a_3)
        store_floats(found, at, a)
        store_floats(found, at_1, a_1)
        store_floats(found, at_2, a_2)
        store_floats(found, at_3, a_3)
    for q in range(whole, length):
        for t in range(4):
            total = found[to + t * by_to + q]
            for o in range(channels):
                total += grad[g + t * by_g + o] * turned[w + o * row + q]
            found[to + t * by_to + q] = total

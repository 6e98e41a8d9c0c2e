"""Compiled gradients of a connection: `conv_kernel`, backwards. Weights by entries, sources densely."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.vectors import FLOATS, aligned_zeros, floats_fma, floats_splat, load_floats, store_floats
from qspinn.learning.gradients.kernels.conv import add_block, factor_of, frame_sizes, inner_channels, meet, room_to_meet

_F32 = np.float32


STEPS = 4
"""Steps that are worked on at once, so that their gradients stay close."""


@kernel
def backward(
    index,
    ends,
    starts,
    value,
    taps,
    frame,
    turned,
    geometry,
    width,
    start,
    stop,
    by,
    grad,
    current,
    d_rows,
    source_grad,
):
    """Gradients of `feed` for samples start..stop, or of `gather`, where starts has entries.

    grad [B, T, y, x, C_out] is that of the currents after normalization, where by has entries: see `settle`. For every
    entry of the signal d_rows is added to, where it has entries; source_grad is written, where it has entries, by the
    weights turned [k_y, C_out, k_x, C_in]. geometry: rows and columns of target, kernel and source, stride, padding;
    pairs (y, x).
    """
    n_steps = ends.shape[1]
    n = geometry[0] * geometry[1] * width
    framed = aligned_zeros(frame_sizes(frame, width)[0], _F32)
    part = aligned_zeros(-(-width // FLOATS) * FLOATS, _F32)
    settled = aligned_zeros(STEPS * n if by.size > 0 else 0, _F32)
    n_source = source_grad.size // (ends.shape[0] * n_steps)
    by_place = starts.size > 0
    places, factors = room_to_meet(geometry, inner_channels(starts, geometry) if by_place else 0, value)
    flat, values = index.reshape(-1), value.reshape(-1)
    for s in range(start, stop):
        for t in range(0, n_steps, STEPS):
            many = min(STEPS, n_steps - t)
            step = s * n_steps + t
            here, at = grad, step * n
            if by.size > 0:
                settle(grad, current, at, many * n, by, settled, 0)
                here, at = settled, 0
            if d_rows.size > 0 and by_place:
                spread(
                    flat,
                    index.shape[1],
                    starts,
                    values,
                    geometry,
                    s,
                    t,
                    many,
                    here,
                    at,
                    width,
                    d_rows,
                    part,
                    places,
                    factors,
                )
            elif d_rows.size > 0:
                unfeed(index, ends, value, taps, frame, geometry[:2], s, t, many, here, at, width, d_rows, framed)
            if n_source > 0:
                to_source(here, at, n, many, turned, geometry, source_grad, step * n_source, n_source)


@piece
def unfeed(index, ends, value, taps, frame, size, s, first, many, grad, at, width, d_rows, framed):
    """The gradient of `feed` by its rows from steps of one sample, whose gradients begin at `at`; framed: zeros of a
    frame's size."""
    n = size[0] * size[1] * width
    _, line, length = frame_sizes(frame, width)
    e = ends[s, first - 1] if first > 0 else 0
    for t in range(many):
        into_frame(grad, at + t * n, frame, size, width, framed)
        while e < ends[s, first + t]:
            j = index[s, e]
            factor = value[s, e] if value.size > 0 else _F32(1)
            to, w = np.int64(taps[j, 0]), np.int64(taps[j, 1])
            add_block(d_rows, w, length, framed, to, line, frame[4], length, factor)
            e += 1


@piece
def into_frame(grad, at, frame, size, width, found):
    """Puts a step's gradients into the frame, whose margin stays as it is."""
    whole, each = width - width % FLOATS, -(-width // FLOATS) * FLOATS
    for y in range(size[0]):
        place = ((frame[0] + y) * frame[3] + frame[1]) * each
        for _ in range(size[1]):
            for c in range(0, whole, FLOATS):
                store_floats(found, place + c, load_floats(grad, at + c))
            for c in range(whole, width):
                found[place + c] = grad[at + c]
            at += width
            place += each


@piece
def spread(index, room, starts, value, geometry, s, first, many, grad, at, channels, d_rows, part, places, factors):
    """The gradient of `gather` by its rows from steps of one sample, whose gradients begin at `at`; part: room for the
    channels, filled up by zeros; index, value in one dimension."""
    c_in = inner_channels(starts, geometry)
    for t in range(first, first + many):
        for y in range(geometry[0]):
            for x in range(geometry[1]):
                for c in range(channels):
                    part[c] = grad[at + c]
                at += channels
                m = meet(index, room, starts, value, geometry, c_in, s, t, y, x, part.size, places, factors)
                for c in range(0, part.size, 2 * FLOATS):
                    if c + FLOATS < part.size:
                        add_pair(places, factors, m, load_floats(part, c), load_floats(part, c + FLOATS), c, d_rows)
                    else:
                        add_one(places, factors, m, load_floats(part, c), c, d_rows)


@piece
def add_one(places, factors, m, g, c, d_rows):
    """Adds a register of gradients to the rows of m entries."""
    for e in range(m):
        at = np.int64(places[e]) + c
        store_floats(d_rows, at, floats_fma(factor_of(factors, e), g, load_floats(d_rows, at)))


@piece
def add_pair(places, factors, m, g, h, c, d_rows):
    """Two of them."""
    for e in range(m):
        factor, at = factor_of(factors, e), np.int64(places[e]) + c
        store_floats(d_rows, at, floats_fma(factor, g, load_floats(d_rows, at)))
        store_floats(d_rows, at + FLOATS, floats_fma(factor, h, load_floats(d_rows, at + FLOATS)))


@kernel
def settle_samples(grad, current, n, start, stop, by, found):
    """`settle` for samples start..stop, n numbers each."""
    settle(grad, current, start * n, (stop - start) * n, by, found, start * n)


@piece
def settle(grad, current, at, n, by, found, to):
    """found[to:] <- a * grad + b * current + c of n numbers from `at` on, by channel; by = (a, b, c) [3, C]."""
    width = by.size // 3
    whole = width - width % FLOATS
    for c in range(0, whole, FLOATS):
        a, b, d = load_floats(by, c), load_floats(by, width + c), load_floats(by, 2 * width + c)
        for p in range(c, n, width):
            x = floats_fma(b, load_floats(current, at + p), d)
            store_floats(found, to + p, floats_fma(a, load_floats(grad, at + p), x))
    for c in range(whole, width):
        for p in range(c, n, width):
            found[to + p] = by[c] * grad[at + p] + by[width + c] * current[at + p] + by[2 * width + c]


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
                    four_steps(
                        grad, here + t * n, n, channels, turned, w, row, found, there + t * n_source, n_source, length
                    )
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
    triples = length - length % (3 * FLOATS)
    for q in range(0, triples, 3 * FLOATS):
        at, at_1, at_2, at_3 = to + q, to + by_to + q, to + 2 * by_to + q, to + 3 * by_to + q
        a, b = load_floats(found, at), load_floats(found, at + FLOATS)
        c = load_floats(found, at + 2 * FLOATS)
        a_1, b_1 = load_floats(found, at_1), load_floats(found, at_1 + FLOATS)
        c_1 = load_floats(found, at_1 + 2 * FLOATS)
        a_2, b_2 = load_floats(found, at_2), load_floats(found, at_2 + FLOATS)
        c_2 = load_floats(found, at_2 + 2 * FLOATS)
        a_3, b_3 = load_floats(found, at_3), load_floats(found, at_3 + FLOATS)
        c_3 = load_floats(found, at_3 + 2 * FLOATS)
        for o in range(channels):
            p = w + o * row + q
            one, two = load_floats(turned, p), load_floats(turned, p + FLOATS)
            three = load_floats(turned, p + 2 * FLOATS)
            x = floats_splat(grad[g + o])
            a, b, c = floats_fma(x, one, a), floats_fma(x, two, b), floats_fma(x, three, c)
            x = floats_splat(grad[g + by_g + o])
            a_1, b_1, c_1 = floats_fma(x, one, a_1), floats_fma(x, two, b_1), floats_fma(x, three, c_1)
            x = floats_splat(grad[g + 2 * by_g + o])
            a_2, b_2, c_2 = floats_fma(x, one, a_2), floats_fma(x, two, b_2), floats_fma(x, three, c_2)
            x = floats_splat(grad[g + 3 * by_g + o])
            a_3, b_3, c_3 = floats_fma(x, one, a_3), floats_fma(x, two, b_3), floats_fma(x, three, c_3)
        put_three(found, at, a, b, c)
        put_three(found, at_1, a_1, b_1, c_1)
        put_three(found, at_2, a_2, b_2, c_2)
        put_three(found, at_3, a_3, b_3, c_3)
    whole = length - length % FLOATS
    for q in range(triples, whole, FLOATS):
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


@piece
def put_three(to, at, a, b, c):
    store_floats(to, at, a)
    store_floats(to, at + FLOATS, b)
    store_floats(to, at + 2 * FLOATS, c)

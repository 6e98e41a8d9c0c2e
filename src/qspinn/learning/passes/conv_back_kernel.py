"""Compiled gradients of a connection: `conv_kernel`, backwards. Weights by entries, sources densely."""

from __future__ import annotations

import numpy as np

from qspinn.learning.passes.conv_kernel import add_block, factor_of, frame_sizes
from qspinn.runtime._jit import kernel, piece
from qspinn.runtime._vectors import (
    FLOATS,
    aligned_zeros,
    floats_fma,
    floats_splat,
    load_floats,
    store_floats,
)

_F32 = np.float32


@kernel
def backward(index, ends, starts, value, taps, frame, turned, geometry, width, start, stop, by, grad, current, d_rows,
             source_grad):
    """Gradients of `feed` for samples start..stop, or of `gather`, where starts has entries.

    grad [B, T, y, x, C_out] is that of the currents after normalization; with by = (a, b, c) [3, C_out] it becomes
    a * grad + b * current + c, in place. Then, where d_rows has entries, it is added to for every entry of the signal;
    and source_grad, where it has entries, is written, by the weights turned [k_y, C_out, k_x, C_in].
    geometry: rows and columns of target, kernel and source, stride, padding; pairs (y, x).
    """
    n_steps = ends.shape[1]
    n = geometry[0] * geometry[1] * width
    framed = aligned_zeros(frame_sizes(frame, width)[0], _F32)
    part = aligned_zeros(-(-width // FLOATS) * FLOATS, _F32)
    n_source = source_grad.size // (ends.shape[0] * n_steps)
    for s in range(start, stop):
        if by.size > 0:
            settle(grad, current, s * n_steps * n, n_steps * n, by)
        if d_rows.size > 0 and starts.size > 0:
            spread(index, index.reshape(-1), starts, value.reshape(-1), geometry, s, grad, width, d_rows, part)
        elif d_rows.size > 0:
            unfeed(index, ends, value, taps, frame, geometry[:2], s, grad, width, d_rows, framed)
        if n_source > 0:
            to_source(grad, s * n_steps * n, n, n_steps, turned, geometry, source_grad, s * n_steps * n_source,
                      n_source)


@piece
def unfeed(index, ends, value, taps, frame, size, s, grad, width, d_rows, framed):
    """The gradient of `feed` by its rows from one sample; framed: zeros of a frame's size."""
    n_steps = ends.shape[1]
    n = size[0] * size[1] * width
    _, line, length = frame_sizes(frame, width)
    e = 0
    for t in range(n_steps):
        into_frame(grad, (s * n_steps + t) * n, frame, size, width, framed)
        while e < ends[s, t]:
            j = index[s, e]
            factor = value[s, e] if value.size > 0 else _F32(1)
            at, w = np.int64(taps[j, 0]), np.int64(taps[j, 1])
            add_block(d_rows, w, length, framed, at, line, frame[4], length, factor)
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
def spread(index, flat, starts, value, geometry, s, grad, channels, d_rows, part):
    """The gradient of `gather` by its rows from one sample; part: room for the channels, filled up by zeros;
    flat: index in one dimension, as value."""
    height, width_x, k_y, k_x, s_height, s_width, stride_y, stride_x, pad_y, pad_x = geometry
    n_steps = starts.shape[1]
    c_in = (starts.shape[2] - 1) * FLOATS // (s_height * s_width)
    room = index.size // index.shape[0]
    for t in range(n_steps):
        for y in range(height):
            for x in range(width_x):
                left = x * stride_x - pad_x
                x_0, x_1 = max(0, left) * c_in // FLOATS, min(s_width, left + k_x) * c_in // FLOATS
                here = (((s * n_steps + t) * height + y) * width_x + x) * channels
                for c in range(channels):
                    part[c] = grad[here + c]
                for k in range(max(0, pad_y - y * stride_y), min(k_y, s_height + pad_y - y * stride_y)):
                    row = (y * stride_y - pad_y + k) * s_width
                    e = s * room + starts[s, t, row * c_in // FLOATS + x_0]
                    end = s * room + starts[s, t, row * c_in // FLOATS + x_1]
                    w = (k * k_x - row - left) * c_in
                    for c in range(0, part.size, 2 * FLOATS):
                        if c + FLOATS < part.size:
                            add_pair(flat, value, e, end, w, load_floats(part, c), load_floats(part, c + FLOATS), c,
                                     part.size, d_rows)
                        else:
                            add_one(flat, value, e, end, w, load_floats(part, c), c, part.size, d_rows)


@piece
def add_one(index, value, e, end, w, g, c, each, d_rows):
    """Adds a register of gradients to the rows of entries e..end."""
    for q in range(e, end):
        at = (w + index[q]) * each + c
        store_floats(d_rows, at, floats_fma(factor_of(value, q), g, load_floats(d_rows, at)))


@piece
def add_pair(index, value, e, end, w, g, h, c, each, d_rows):
    """Two of them."""
    for q in range(e, end):
        at, factor = (w + index[q]) * each + c, factor_of(value, q)
        store_floats(d_rows, at, floats_fma(factor, g, load_floats(d_rows, at)))
        store_floats(d_rows, at + FLOATS, floats_fma(factor, h, load_floats(d_rows, at + FLOATS)))


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

"""Compiled passes of a connection over all steps of a few samples, event by event.

A signal is a list of what is not zero; every entry adds a block of weights to the currents, and in the backward pass
the same places of the currents' gradient to that block. Only the gradient to the source is dense. Everything but the
lists lies flat in one dimension: currents as [B, T, y, x, C_out], sources as [B, T, y, x, C_in].

One step of the targets is worked on as a frame [y, x, C]: with a margin, so that no block needs clipping, and with
channels filled up to whole registers. `taps` [n_sources, 2] says where in the frame a source's block starts, and where
in `rows`, whose blocks are [n_y, n_x, C]; frame = (first y, first x, rows, columns, n_y, n_x) in these units.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.vectors import (
    FLOATS,
    INTS,
    aligned_zeros,
    differ_from_0,
    differ_from_1,
    floats_add,
    floats_fma,
    floats_splat,
    floats_sub,
    ints_add,
    ints_mul,
    ints_splat,
    list_bits,
    load_floats,
    load_ints,
    store_floats,
    store_ints,
)

_F32 = np.float32


@kernel
def find(x, by_sample, by_step, n, start, stop, ends, index, starts, grades):
    """Lists what is not zero in samples start..stop, each of n numbers a step; grades[s] says whether any is not 1.

    Entries of sample s and step t are index[s, ends[s, t - 1]:ends[s, t]], from 0 at the first step; index [B, room for
    all and a register more]. starts [B, T, n / 16 + 1], where it has entries: the first entry from each 16th number on.
    """
    room = index.shape[1]
    flat = index.reshape(-1)
    for s in range(start, stop):
        m, graded = np.int64(s * room), False
        for t in range(ends.shape[1]):
            at = s * by_sample + t * by_step
            for j in range(0, n - n % FLOATS, FLOATS):
                if starts.size > 0:
                    starts[s, t, j // FLOATS] = m - s * room
                bits = differ_from_0(x, at + j)
                if bits != 0:
                    graded |= (bits & differ_from_1(x, at + j)) != 0
                    m = list_bits(flat, m, j, bits)
            for j in range(n - n % FLOATS, n):
                flat[m] = j
                m += x[at + j] != 0
                graded |= x[at + j] != 0 and x[at + j] != 1
            ends[s, t] = m - s * room
            if starts.size > 0:
                starts[s, t, n // FLOATS] = m - s * room
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
def add_block(to, at, by_to, rows, w, by_rows, n_y, length, factor):
    """to += factor * rows, in n_y runs of length numbers (whole registers), which lie by_to and by_rows apart."""
    many = floats_splat(factor)
    for _ in range(n_y):
        for q in range(0, length, FLOATS):
            store_floats(to, at + q, floats_fma(many, load_floats(rows, w + q), load_floats(to, at + q)))
        at += by_to
        w += by_rows


@kernel
def feed(index, ends, value, taps, rows, frame, size, start_at, start, stop, current, mean, squares):
    """current [B, T, y, x, C_out] = start_at [C_out] + what the entries of samples start..stop add up to.

    size: (y, x) of the target. Where mean [B, C_out] has entries: means of each sample, and sums of squares around
    them.
    """
    n_steps, width = ends.shape[1], start_at.size
    n = size[0] * size[1] * width
    room, line, length = frame_sizes(frame, width)
    sums = aligned_zeros(room, _F32)
    for s in range(start, stop):
        e = 0
        for t in range(n_steps):
            for q in range(0, room, FLOATS):
                store_floats(sums, q, floats_splat(_F32(0)))
            while e < ends[s, t]:
                j = index[s, e]
                factor = value[s, e] if value.size > 0 else _F32(1)
                at, w = np.int64(taps[j, 0]), np.int64(taps[j, 1])
                add_block(sums, at, line, rows, w, length, frame[4], length, factor)
                e += 1
            unframe(sums, frame, size, start_at, current, (s * n_steps + t) * n)
        if mean.size > 0:
            moments(current, s, n_steps, n, mean, squares)


@piece
def frame_sizes(frame, width):
    """(numbers in a frame, in a line of it, in a run of a block)."""
    whole = -(-width // FLOATS) * FLOATS
    return frame[2] * frame[3] * whole, frame[3] * whole, frame[5] * whole


@piece
def unframe(sums, frame, size, start_at, current, at):
    """Writes a step's currents from the frame, plus start_at."""
    width = start_at.size
    whole, each = width - width % FLOATS, -(-width // FLOATS) * FLOATS
    for y in range(size[0]):
        place = ((frame[0] + y) * frame[3] + frame[1]) * each
        for _ in range(size[1]):
            for c in range(0, whole, FLOATS):
                store_floats(current, at + c, floats_add(load_floats(sums, place + c), load_floats(start_at, c)))
            for c in range(whole, width):
                current[at + c] = sums[place + c] + start_at[c]
            at += width
            place += each


@kernel
def gather(index, starts, value, rows, geometry, start_at, start, stop, current, mean, squares):
    """As `feed`, target by target: sums stay in registers, and the entries of a kernel's row follow each other.

    Worth it where several sources of a place spike. rows [k_y, k_x, C_in, C_out filled up]; C_in whole registers.
    """
    height, width_x = geometry[:2]
    n_steps, channels = starts.shape[1], start_at.size
    c_in = inner_channels(starts, geometry)
    each = -(-channels // FLOATS) * FLOATS
    n = height * width_x * channels
    first, part = np.zeros(each, _F32), np.empty(each, _F32)
    first[:channels] = start_at
    places, factors = room_to_meet(geometry, c_in, value)
    flat = index.reshape(-1)
    for s in range(start, stop):
        for t in range(n_steps):
            for y in range(height):
                for x in range(width_x):
                    m = meet(flat, index.shape[1], starts, value, geometry, c_in, s, t, y, x, each, places, factors)
                    for c in range(0, each, 2 * FLOATS):
                        d = c + FLOATS if c + FLOATS < each else c
                        a, a_2 = load_floats(first, c), load_floats(first, d)
                        b, b_2 = floats_splat(_F32(0)), floats_splat(_F32(0))
                        for e in range(0, m - m % 2, 2):
                            one, two = factor_of(factors, e), factor_of(factors, e + 1)
                            p, q = np.int64(places[e]), np.int64(places[e + 1])
                            a = floats_fma(one, load_floats(rows, p + c), a)
                            b = floats_fma(two, load_floats(rows, q + c), b)
                            a_2 = floats_fma(one, load_floats(rows, p + d), a_2)
                            b_2 = floats_fma(two, load_floats(rows, q + d), b_2)
                        if m % 2 == 1:
                            one, p = factor_of(factors, m - 1), np.int64(places[m - 1])
                            a = floats_fma(one, load_floats(rows, p + c), a)
                            a_2 = floats_fma(one, load_floats(rows, p + d), a_2)
                        store_floats(part, d, floats_add(a_2, b_2))
                        store_floats(part, c, floats_add(a, b))
                    put(part, current, (((s * n_steps + t) * height + y) * width_x + x) * channels, channels)
        if mean.size > 0:
            moments(current, s, n_steps, n, mean, squares)


@piece
def inner_channels(starts, geometry):
    """C_in of a connection by places."""
    return (starts.shape[2] - 1) * FLOATS // (geometry[4] * geometry[5])


@kernel
def room_to_meet(geometry, c_in, value):
    """(places, factors) for `meet`."""
    most = geometry[2] * geometry[3] * c_in + INTS
    return np.empty(most, np.int32), np.empty(most if value.size > 0 else 0, _F32)


@piece
def meet(index, room, starts, value, geometry, c_in, s, t, y, x, each, places, factors):
    """Lists the entries that the target at y, x meets in a step: places, where the weights (`each` numbers) of each
    begin among the kernel's, and factors, unless all are 1. Returns how many there are.

    One list of all the kernel's rows: a loop over each row's few entries would end unforeseen as often as it starts.
    """
    _, _, k_y, k_x, s_height, s_width, stride_y, stride_x, pad_y, pad_x = geometry
    left, top = x * stride_x - pad_x, y * stride_y - pad_y
    x_0, x_1 = max(0, left) * c_in // FLOATS, min(s_width, left + k_x) * c_in // FLOATS
    by = ints_splat(each)
    m = 0
    for k in range(max(0, -top), min(k_y, s_height - top)):
        row = (top + k) * s_width
        e = s * room + starts[s, t, row * c_in // FLOATS + x_0]
        end = s * room + starts[s, t, row * c_in // FLOATS + x_1]
        to_row = ints_splat((k * k_x - row - left) * c_in)
        for q in range(e, end, INTS):  # what is written beyond the end is overwritten, or left unread
            store_ints(places, m + q - e, ints_mul(ints_add(load_ints(index, q), to_row), by))
            if value.size > 0:
                store_floats(factors, m + q - e, load_floats(value, q))
        m += end - e
    return m


@piece
def factor_of(value, e):
    """What an entry counts, in every lane."""
    return floats_splat(value[e] if value.size > 0 else _F32(1))


@piece
def put(part, to, at, n):
    """to[at:at + n] = part[:n]."""
    whole = n - n % FLOATS
    for q in range(0, whole, FLOATS):
        store_floats(to, at + q, load_floats(part, q))
    for q in range(whole, n):
        to[at + q] = part[q]


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

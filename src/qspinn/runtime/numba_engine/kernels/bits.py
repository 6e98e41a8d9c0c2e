"""Compiled kernel for weights of one bit: everything is bit-sliced, 512 neurons at a time.

A register holds one bit of 512 neurons; a number of b bits is b such planes, lowest first. Input spikes are counted by
full adders (after Harley and Seal's carry-save counting), and one pass of carries from the lowest plane to the highest
decays the potentials, adds the counts and compares with the thresholds. The work goes with the number of bits of the
potential, not with the width of a machine word.

Decay is exact: (v * m + r) >> k equals v - ((v * c + 2**k - 1 - r) >> k) with c = 2**k - m, and c has few bits set.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.scalars import random_word, step_key, stream_base
from qspinn.compiled.vectors import (
    WORDS,
    aligned_zeros,
    load_words,
    lowest_bit,
    store_words,
    words_and,
    words_bit,
    words_borrow,
    words_lanes,
    words_majority,
    words_or,
    words_splat,
    words_xor,
    words_xor3,
)
from qspinn.program.ops import Stream

_U64 = np.uint64
WINNER = int(Stream.WINNER)
GROUP = WORDS * 64  # neurons per pass
USUAL = 24  # rows counted in most steps, rows of zeros among them
AT_ONCE = 63  # rows counted in six planes
BUSIEST = 1023  # most input spikes in a step: ten planes of counts


@piece
def full_adder(x, a, b):
    """(sum, carry) of three bits, in all lanes."""
    return words_xor3(x, a, b), words_majority(x, a, b)


@piece
def load_row(bits, index, e, stop, nothing, width, column):
    """A register of the row of input spike e, of the row of zeros for e >= stop."""
    i = np.int64(index[_U64(e)])  # an unsigned place needs no wraparound
    return load_words(bits, (i if e < stop else nothing) * width + column)


@piece
def count_eight(bits, index, e, stop, nothing, width, column, p0, p1, p2):
    """Adds eight rows to three planes of counts; returns them and what they carry."""
    p0, a = full_adder(
        p0,
        load_row(bits, index, e, stop, nothing, width, column),
        load_row(bits, index, e + 1, stop, nothing, width, column),
    )
    p0, b = full_adder(
        p0,
        load_row(bits, index, e + 2, stop, nothing, width, column),
        load_row(bits, index, e + 3, stop, nothing, width, column),
    )
    p1, c = full_adder(p1, a, b)
    p0, a = full_adder(
        p0,
        load_row(bits, index, e + 4, stop, nothing, width, column),
        load_row(bits, index, e + 5, stop, nothing, width, column),
    )
    p0, b = full_adder(
        p0,
        load_row(bits, index, e + 6, stop, nothing, width, column),
        load_row(bits, index, e + 7, stop, nothing, width, column),
    )
    p1, d = full_adder(p1, a, b)
    p2, a = full_adder(p2, c, d)
    return p0, p1, p2, a


@piece
def count_rows(bits, index, start, stop, width, column, planes, at):
    """planes[at:] = six bit planes of the number of set bits in each column of the rows index[start:stop], at most
    AT_ONCE. Rows of zeros fill them up to a usual number: the branches of a step are then predictable."""
    zero = words_splat(_U64(0))
    nothing = bits.size // width - 1
    usual = stop - start <= USUAL
    if usual and start + USUAL <= index.size:
        p0, p1, p2, a = count_eight(bits, index, start, stop, nothing, width, column, zero, zero, zero)
        p0, p1, p2, b = count_eight(bits, index, start + 8, stop, nothing, width, column, p0, p1, p2)
        p0, p1, p2, c = count_eight(bits, index, start + 16, stop, nothing, width, column, p0, p1, p2)
        p3, p4 = full_adder(a, b, c)
        p5 = zero
    else:
        p0 = zero
        p1 = zero
        p2 = zero
        p3 = zero
        p4 = zero
        p5 = zero
        for e in range(start, stop):
            a = load_row(bits, index, e, stop, nothing, width, column)
            b = words_and(p0, a)
            p0 = words_xor(p0, a)
            a = words_and(p1, b)
            p1 = words_xor(p1, b)
            b = words_and(p2, a)
            p2 = words_xor(p2, a)
            a = words_and(p3, b)
            p3 = words_xor(p3, b)
            p5 = words_xor(p5, words_and(p4, a))
            p4 = words_xor(p4, a)
    store_words(planes, at, p0)
    store_words(planes, at + WORDS, p1)
    store_words(planes, at + 2 * WORDS, p2)
    store_words(planes, at + 3 * WORDS, p3)
    store_words(planes, at + 4 * WORDS, p4)
    store_words(planes, at + 5 * WORDS, p5)


@piece
def add_planes(x, at, y, from_y, n):
    """x[at:] += y[from_y:], n planes; what carries out of them is lost."""
    carry = words_splat(_U64(0))
    for p in range(0, n * WORDS, WORDS):
        total, carry = full_adder(load_words(x, at + p), load_words(y, from_y + p), carry)
        store_words(x, at + p, total)


@piece
def count_all(bits, index, start, stop, width, column, counts, left, n_counts, room):
    """counts[left:] = bit planes of the number of set bits in each column of any number of rows."""
    if stop - start <= AT_ONCE:
        count_rows(bits, index, start, stop, width, column, counts, left)
        return
    for p in range(n_counts * WORDS):
        counts[left + p] = 0
    for begin in range(start, stop, AT_ONCE):
        count_rows(bits, index, begin, min(begin + AT_ONCE, stop), width, column, room, 0)
        add_planes(counts, left, room, 0, n_counts)


@piece
def times(v, s0, s1, s2, s3, n_terms, p, carry1, carry2, carry3):
    """Plane p of v * c, c the sum of 2**s over at most four shifts; and the carries of its additions."""
    x = load_words(v, s0 + p)
    if n_terms > 1:
        x, carry1 = full_adder(x, load_words(v, s1 + p), carry1)
    if n_terms > 2:
        x, carry2 = full_adder(x, load_words(v, s2 + p), carry2)
    if n_terms > 3:
        x, carry3 = full_adder(x, load_words(v, s3 + p), carry3)
    return x, carry1, carry2, carry3


@piece
def leak_planes(v, at, shifts, n_low, leak, n_planes, decay_shift):
    """leak = (v * c + 2**n_low - 1) >> decay_shift: what a step takes from the potentials v[at:].

    n_low is decay_shift, or one less for rounding to nearest; shifts are given in words; v has planes of zeros below
    and above. Adding ones to the n_low lowest planes carries exactly where one of them is set.
    """
    n_terms = shifts.size
    s0 = at - shifts[0]
    s1 = at - shifts[min(1, n_terms - 1)]
    s2 = at - shifts[min(2, n_terms - 1)]
    s3 = at - shifts[n_terms - 1]
    carry1 = words_splat(_U64(0))
    carry2 = carry1
    carry3 = carry1
    carry = carry1
    for p in range(0, n_low * WORDS, WORDS):
        x, carry1, carry2, carry3 = times(v, s0, s1, s2, s3, n_terms, p, carry1, carry2, carry3)
        carry = words_or(carry, x)
    if n_low < decay_shift:
        x, carry1, carry2, carry3 = times(v, s0, s1, s2, s3, n_terms, n_low * WORDS, carry1, carry2, carry3)
        carry = words_and(carry, x)
    first = decay_shift * WORDS
    for p in range(0, n_planes * WORDS, WORDS):
        x, carry1, carry2, carry3 = times(v, s0, s1, s2, s3, n_terms, first + p, carry1, carry2, carry3)
        store_words(leak, p, words_xor(x, carry))
        carry = words_and(carry, x)


@piece
def step_planes(v, at, leak, n_leak, drive, n_drive, level, level_at, rest, rest_at, n_planes):
    """v <- min(v - leak + drive, 2**n_planes - 1); refractory neurons get no drive. Returns who reaches the level."""
    ones = words_splat(~_U64(0))
    awake = words_xor(load_words(rest, rest_at), ones)
    borrow = words_splat(_U64(0))
    carry = borrow
    below = borrow  # v < level: what v - level borrows
    low = min(max(n_leak, n_drive), n_planes) * WORDS
    for p in range(0, low, WORDS):
        a = load_words(v, at + p)
        u = load_words(leak, p)
        x = words_xor3(a, u, borrow)
        borrow = words_borrow(a, u, borrow)
        x, carry = full_adder(x, words_and(load_words(drive, p), awake), carry)
        below = words_borrow(x, load_words(level, level_at + p), below)
        store_words(v, at + p, x)
    for p in range(low, n_planes * WORDS, WORDS):
        a = load_words(v, at + p)
        x = words_xor(a, borrow)
        borrow = words_and(borrow, x)
        y = words_xor(x, carry)
        carry = words_and(carry, x)
        below = words_borrow(y, load_words(level, level_at + p), below)
        store_words(v, at + p, y)
    for p in range(n_planes * WORDS, n_drive * WORDS, WORDS):
        carry = words_or(carry, words_and(load_words(drive, p), awake))
    if words_lanes(carry) != 0:
        below = words_and(below, words_xor(carry, ones))
        for p in range(0, n_planes * WORDS, WORDS):
            store_words(v, at + p, words_or(load_words(v, at + p), carry))
    below = words_or(below, load_words(level, level_at + n_planes * WORDS))
    return words_and(awake, words_xor(below, ones))


@piece
def inhibit_planes(v, at, strength, reset, codes_at, winner, n_planes):
    """v <- max(v - strength, 0), and the reset code for the winner."""
    borrow = words_splat(_U64(0))
    ones = words_splat(~_U64(0))
    for p in range(0, n_planes * WORDS, WORDS):
        a = load_words(v, at + p)
        u = load_words(strength, codes_at + p)
        store_words(v, at + p, words_xor3(a, u, borrow))
        borrow = words_borrow(a, u, borrow)
    stays = words_xor(words_or(borrow, winner), ones)
    for p in range(0, n_planes * WORDS, WORDS):
        code = words_and(load_words(reset, codes_at + p), winner)
        store_words(v, at + p, words_or(words_and(load_words(v, at + p), stays), code))


@piece
def draw_bit(crossing, lanes, first, key, best, best_word):
    """The set bit with the largest random word among the lanes of crossing, and that word; `best` if none beats it."""
    while lanes != 0:
        w = first + lowest_bit(lanes)
        lanes = np.uint32(lanes & np.uint32(lanes - np.uint32(1)))
        word = crossing[w]
        while word != 0:
            j = w * 64 + lowest_bit(word)
            word = word & (word - _U64(1))
            drawn = random_word(key, j)
            if best < 0 or drawn > best_word:
                best = j
                best_word = drawn
    return best, best_word


@kernel
def one_bit(
    offsets,
    index,
    bits,
    width,
    left,
    n_counts,
    n_planes,
    n_leak,
    shifts,
    n_low,
    decay_shift,
    level,
    strength,
    reset,
    seed,
    stream,
    n_ref,
    counts,
    v_out,
    ref_out,
    raster,
):
    """Winner-take-all population with one-bit weights.

    bits uint64 [(n_pre + 1) * width], width words a row, a multiple of 8, the last row zeros; a row counts 2**left;
    n_counts planes hold the most input spikes of a step. Potentials have n_planes bits. shifts, n_low, n_leak: see
    `leak_planes`. level has n_planes + 1 planes of 8 words a group, strength and reset n_planes; outputs [B, N].
    """
    n_samples, n_steps, n = offsets.shape[0], offsets.shape[1] - 1, counts.shape[1]
    n_groups = width // WORDS
    guard = decay_shift + 1  # planes of zeros around the potentials of a group
    stride = (n_planes + 2 * guard) * WORDS
    v = aligned_zeros(n_groups * stride, np.uint64)
    n_drive = left + n_counts
    drive = aligned_zeros((max(n_planes, n_drive) + 6) * WORDS, np.uint64)
    room = aligned_zeros(max(n_counts, 6) * WORDS, np.uint64)
    leak = aligned_zeros((max(n_planes, n_leak) + 1) * WORDS, np.uint64)
    rest = aligned_zeros(width, np.uint64)
    crossing = aligned_zeros(width, np.uint64)
    until = np.zeros(n, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    record = raster.shape[0] > 0
    base = stream_base(seed, stream + WINNER)
    for s in range(n_samples):
        v[:] = 0
        rest[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            start, stop = offsets[s, t], offsets[s, t + 1]
            still = 0
            for q in range(n_resting):
                j = resting[q]
                if until[j] > t:
                    resting[still] = j
                    still += 1
                else:
                    at = j // GROUP * WORDS
                    store_words(rest, at, words_xor(load_words(rest, at), words_bit(j % GROUP)))
            n_resting = still
            k = np.int64(-1)
            drawn = np.uint32(0)
            for g in range(n_groups):
                at = g * stride + guard * WORDS
                count_all(bits, index, start, stop, width, g * WORDS, drive, left * WORDS, n_counts, room)
                leak_planes(v, at, shifts, n_low, leak, n_leak, decay_shift)
                reached = step_planes(
                    v, at, leak, n_leak, drive, n_drive, level, g * (n_planes + 1) * WORDS, rest, g * WORDS, n_planes
                )
                lanes = words_lanes(reached)
                if lanes != 0:
                    store_words(crossing, g * WORDS, reached)
                    k, drawn = draw_bit(crossing, lanes, g * WORDS, step_key(base, t), k, drawn)
            if k < 0:
                continue
            for g in range(n_groups):
                winner = words_bit(k - g * GROUP)
                inhibit_planes(v, g * stride + guard * WORDS, strength, reset, g * n_planes * WORDS, winner, n_planes)
                if n_ref > 0:
                    store_words(rest, g * WORDS, words_or(load_words(rest, g * WORDS), winner))
            until[k] = t + n_ref + 1
            if n_ref > 0:
                resting[n_resting] = k
                n_resting += 1
            counts[s, k] += 1
            if record:
                raster[s, t, k] = 1
        for j in range(n if record else 0):
            at = (j // GROUP) * stride + guard * WORDS + (j % GROUP) // 64
            code = np.int64(0)
            for p in range(n_planes):
                code |= np.int64((v[at + p * WORDS] >> _U64(j % 64)) & _U64(1)) << p
            v_out[s, j] = code
            ref_out[s, j] = max(until[j] - n_steps, 0)

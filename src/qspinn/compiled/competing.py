"""Step of competing populations: sums of rows, leak and integration of 16-bit potentials, the winner of a step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.jit import piece
from qspinn.compiled.scalars import _U, NEAREST, STOCHASTIC, random_word
from qspinn.compiled.vectors import (
    LANES,
    aligned,
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
from qspinn.fixedpoint import QFormat

_I32 = np.int32
_SIXTEEN = np.uint32(16)

CHUNK = 32  # rows are padded to a multiple of this; padded neurons have a level that nothing reaches


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


class Settings(NamedTuple):
    """Constants of a population for the kernels in 16-bit lanes, at the common shift of 16; see `advance`."""

    decay: np.uint32
    gain: np.uint32
    decay_scale: int
    in_shift: int
    v_max: np.int32


def narrow_settings(v_fmt: QFormat, in_shift: int, decay: int, decay_shift: int) -> Settings:
    """The settings of a population with potentials of this format, input shift and decay."""
    scale = 16 - decay_shift
    right = max(in_shift, 0)
    return Settings(np.uint32(decay << scale), np.uint32(1 << (16 - right)), scale, right, np.int32(v_fmt.code_max))


def padded(x: NDArray, kind: type, fill: int) -> NDArray:
    """x with its last axis filled up to whole vector registers, aligned; padded neurons never spike."""
    width = -(-x.shape[-1] // CHUNK) * CHUNK
    wide = aligned((*x.shape[:-1], width), kind)
    wide[...] = fill
    wide[..., : x.shape[-1]] = x
    return wide

"""Compiled update of weights in local learning: gradients over a power of two, rounded by hashed random bits."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.scalars import _U, NEAREST, STOCHASTIC, TOWARD_ZERO, random_word

_I32, _I64 = np.int32, np.int64


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

"""Jitted twins of the scalar rules in `qspinn.fixedpoint`, for the compiled engines. The tests hold them equal.

Numba widens small integers to 64 bits after every operation, so each result is cast back explicitly.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import piece
from qspinn.fixedpoint import INDEX_STRIDE, STEP_STRIDE, Rounding

TRUNCATE, NEAREST, STOCHASTIC, TOWARD_ZERO = 0, 1, 2, 3
MODE = {
    Rounding.TRUNCATE: TRUNCATE,
    Rounding.NEAREST: NEAREST,
    Rounding.STOCHASTIC: STOCHASTIC,
    Rounding.TOWARD_ZERO: TOWARD_ZERO,
}

_U = np.uint32
_INDEX_STRIDE = np.uint32(INDEX_STRIDE)
_STEP_STRIDE = np.uint32(STEP_STRIDE)
_M1, _M2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_S15, _S16 = np.uint32(15), np.uint32(16)


@piece
def mix32(h):
    h = _U(h ^ (h >> _S16))
    h = _U(h * _M1)
    h = _U(h ^ (h >> _S15))
    h = _U(h * _M2)
    return _U(h ^ (h >> _S16))


@piece
def stream_base(seed, stream):
    """First half of `fixedpoint.stream_key`, the same for all steps."""
    return mix32(_U(_U(seed) ^ _U(_U(stream) * _INDEX_STRIDE)))


@piece
def step_key(base, t):
    """Second half of `fixedpoint.stream_key`."""
    return mix32(_U(base + _U(_U(t) * _STEP_STRIDE)))


@piece
def random_word(key, index):
    return mix32(_U(key ^ _U(_U(index) * _INDEX_STRIDE)))


@piece
def requantize(x, shift, mode, key, index):
    """x (int64) over 2**shift by the rounding mode; shift <= 0 multiplies."""
    if shift <= 0:
        return x << -shift
    if mode == NEAREST:
        return (x + (np.int64(1) << (shift - 1))) >> shift
    if mode == STOCHASTIC:
        return (x + np.int64(random_word(key, index) >> _U(32 - shift))) >> shift
    if mode == TOWARD_ZERO and x < 0:
        return -((-x) >> shift)
    return x >> shift

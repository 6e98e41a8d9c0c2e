"""THE arithmetic: fixed-point formats, the four roundings, saturation, and the random bits of stochastic rounding.

Every number that a Program computes goes through the rules of this file; `docs/numerics.md` states them in words.
The compiled engine has jitted twins (`runtime/arithmetic.py`) which the tests hold equal to these functions.
"""

from __future__ import annotations

import enum

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.errors import ConfigError

Ints = NDArray[np.int64]
MAX_BITS = 32


class Rounding(enum.Enum):
    """What happens to the bits that do not fit.

    ======================  =========================================  ================
    member                  integer rule for a right shift by s        value rule
    ======================  =========================================  ================
    ``TRUNCATE``            ``x >> s``                                 toward -inf
    ``NEAREST``             ``(x + (1 << (s - 1))) >> s``              ties toward +inf
    ``STOCHASTIC``          ``(x + r) >> s``, r of s random bits       unbiased
    ``TOWARD_ZERO``         ``sign(x) * (|x| >> s)``                   toward 0 (Loihi)
    ======================  =========================================  ================
    """

    TRUNCATE = "truncate"
    NEAREST = "nearest"
    STOCHASTIC = "stochastic"
    TOWARD_ZERO = "toward_zero"


class Overflow(enum.Enum):
    """What happens to a value outside the format: clip to the nearest code, or keep the low bits."""

    SATURATE = "saturate"
    WRAP = "wrap"


class QFormat(msgspec.Struct, frozen=True, kw_only=True):
    """A fixed-point grid: value = code * 2**-frac, with `bits` bits in all (sign included when signed).

    Printed as ``Q<i>.<f> (<bits> bit)`` with the sign bit counted apart from the i integer bits
    (Putra & Shafique 2021 use the same notation), ``UQ`` where there is no sign bit. One bit with a sign is binary: the
    codes -1 and +1 without zero, stored as 0 and 1.

    >>> str(QFormat(bits=8, frac=6, signed=True)), QFormat(bits=8, frac=6, signed=True).code_max
    ('Q1.6 (8 bit)', 127)
    """

    bits: int
    frac: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise ConfigError("format.bits", "width out of range", got=self.bits, allowed=f"1..{MAX_BITS}")
        if not -64 <= self.frac <= 64:
            raise ConfigError("format.frac", "fraction bits out of range", got=self.frac, allowed="-64..64")

    @property
    def code_min(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def code_max(self) -> int:
        return 1 if self.binary else (1 << (self.bits - self.signed)) - 1

    @property
    def binary(self) -> bool:
        """Whether the codes are -1 and +1 only."""
        return self.signed and self.bits == 1

    @property
    def delta(self) -> float:
        """One step of the grid, 2**-frac."""
        return 2.0**-self.frac

    def __str__(self) -> str:
        if self.binary and self.frac == 0:
            return "binary (1 bit)"
        integer = self.bits - self.signed - self.frac
        return f"{'Q' if self.signed else 'UQ'}{integer}.{self.frac} ({self.bits} bit)"


def mix32(h: ArrayLike) -> NDArray[np.uint32]:
    """A bijective scrambling of 32-bit words (two multiplications, three shifts); works in C with uint32_t.

    Source: C. Wellons, "Prospecting for hash functions" (2018), constants of lowbias32 (public domain).
    """
    x = np.atleast_1d(np.asarray(h)).astype(np.uint32)
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


INDEX_STRIDE = 0x9E3779B1  # odd, so index -> index * stride is a bijection modulo 2**32
STEP_STRIDE = 0x85EBCA6B


def stream_key(seed: int, stream: int, step: int) -> int:
    """The 32-bit key of one (seed, stream, step); combined with an index it gives that index's random word."""
    first = int(mix32((seed ^ (stream * INDEX_STRIDE)) & 0xFFFFFFFF)[0])
    return int(mix32((first + step * STEP_STRIDE) & 0xFFFFFFFF)[0])


def random_words(key: int, index: ArrayLike) -> NDArray[np.uint32]:
    """Counter-based random 32-bit words, one per index: no generator state, so any order gives the same words."""
    scaled = (np.asarray(index, dtype=np.uint64) * np.uint64(INDEX_STRIDE)) & np.uint64(0xFFFFFFFF)
    return mix32(scaled ^ np.uint64(key))


def sr_bits(key: int, index: ArrayLike, n_bits: int) -> Ints:
    """The random integers in [0, 2**n_bits) that stochastic rounding adds before it shifts by n_bits (0..31)."""
    if n_bits == 0:
        return np.zeros(np.shape(np.atleast_1d(index)), dtype=np.int64)
    return (random_words(key, index) >> np.uint32(32 - n_bits)).astype(np.int64)


def requantize(
    x: ArrayLike, shift: int, rounding: Rounding, *, key: int = 0, index: ArrayLike | None = None
) -> Ints:
    """x / 2**shift as integers, rounded by the scheme; a negative shift multiplies exactly.

    Args:
        x: integers of any shape.
        shift: bits dropped; 0 returns x, negative shifts to the left.
        key, index: of the random bits (STOCHASTIC only); index defaults to the position in x.
    """
    x = np.asarray(x, dtype=np.int64)
    if shift <= 0:
        return x << -shift
    if rounding is Rounding.TRUNCATE:
        return x >> shift
    if rounding is Rounding.NEAREST:
        return (x + (1 << (shift - 1))) >> shift
    if rounding is Rounding.TOWARD_ZERO:
        return np.sign(x) * (np.abs(x) >> shift)
    where = np.arange(x.size).reshape(x.shape) if index is None else np.asarray(index)
    return (x + sr_bits(key, where, shift).reshape(x.shape)) >> shift


def saturate(x: ArrayLike, fmt: QFormat) -> Ints:
    """x clipped to the codes of fmt; of a binary format, its sign, +1 for 0."""
    if fmt.binary:
        return np.where(np.asarray(x) >= 0, 1, -1).astype(np.int64)
    return np.clip(np.asarray(x, dtype=np.int64), fmt.code_min, fmt.code_max)


def wrap(x: ArrayLike, fmt: QFormat) -> Ints:
    """x modulo 2**bits, brought into the codes of fmt.

    Raises:
        ConfigError: the format is binary, which has no such order.
    """
    if fmt.binary:
        raise ConfigError("format", "binary codes cannot wrap", got=str(fmt), fix="use Overflow.SATURATE")
    low = np.asarray(x, dtype=np.int64) & ((1 << fmt.bits) - 1)
    return np.where(low > fmt.code_max, low - (1 << fmt.bits), low)


def encode(
    x: ArrayLike,
    fmt: QFormat,
    rounding: Rounding = Rounding.NEAREST,
    *,
    scale: ArrayLike = 1.0,
    overflow: Overflow = Overflow.SATURATE,
    key: int = 0,
) -> tuple[Ints, int]:
    """(codes, number of values that did not fit) of real numbers x on the grid fmt.

    The rule, in float64: y = x / scale * 2**frac, r = floor(y), then TRUNCATE r; NEAREST r + (y - r >= 1/2);
    STOCHASTIC r + (y - r > u) with u a 32-bit fraction from the hash of the position; TOWARD_ZERO trunc(y). A binary
    format takes the sign of y under every rounding, +1 for 0, and clips nothing.

    Args:
        x: finite real numbers, any shape.
        scale: real step multiplier, broadcast against x (one per output channel, say).
        key: stream key of the random bits (STOCHASTIC only).

    Raises:
        ConfigError: x or scale hold NaN or infinity.
    """
    y = np.asarray(x, dtype=np.float64) / np.asarray(scale, dtype=np.float64) * 2.0**fmt.frac
    if not np.all(np.isfinite(y)):
        raise ConfigError("encode", "values must be finite", got="NaN or infinity", fix="look at the tensor's origin")
    if fmt.binary:
        return saturate(y, fmt), 0
    floor = np.floor(y)
    part = y - floor
    if rounding is Rounding.NEAREST:
        floor = floor + (part >= 0.5)
    elif rounding is Rounding.STOCHASTIC:
        u = random_words(key, np.arange(y.size)).reshape(y.shape) * 2.0**-32
        floor = floor + (part > u)
    elif rounding is Rounding.TOWARD_ZERO:
        floor = np.trunc(y)
    code = np.clip(floor, -(2.0**62), 2.0**62).astype(np.int64)
    outside = int(np.count_nonzero((code < fmt.code_min) | (code > fmt.code_max)))
    return (saturate(code, fmt) if overflow is Overflow.SATURATE else wrap(code, fmt)), outside


def decode(codes: ArrayLike, fmt: QFormat, *, scale: ArrayLike = 1.0) -> NDArray[np.float64]:
    """The real numbers that codes stand for: code * 2**-frac * scale."""
    return np.asarray(codes, dtype=np.float64) * fmt.delta * np.asarray(scale, dtype=np.float64)

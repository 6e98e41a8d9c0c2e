"""THE arithmetic: fixed-point formats, the four roundings, saturation, and the random bits of stochastic rounding.

Every number that a Program computes goes through the rules of this file; `docs/numerics.md` states them in words.
The compiled engine has jitted twins (`runtime/arithmetic.py`) which the tests hold equal to these functions.
"""

from __future__ import annotations

import enum
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.arrays import integer, integers, need_kind, reals
from qspinn.errors import ConfigError
from qspinn.records.named import NamedFields

Ints = NDArray[np.int64]
E = TypeVar("E", bound=enum.Enum)
MAX_BITS = 32
WORD_BITS = 32
"""Random bits that one position has at one step; stochastic rounding cannot drop more."""


class Rounding(enum.Enum):
    """Rounding mode: how the bits that do not fit change the others.

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
    """Overflow mode: a value outside the format is clipped to the nearest code, or keeps its low bits."""

    SATURATE = "saturate"
    WRAP = "wrap"


class QFormat(msgspec.Struct, metaclass=NamedFields, frozen=True, kw_only=True):
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
        for field in ("bits", "frac", "signed"):
            if isinstance(value := getattr(self, field), np.generic):
                msgspec.structs.force_setattr(self, field, value.item())
        if type(self.bits) is not int or not 1 <= self.bits <= MAX_BITS:
            raise ConfigError("format.bits", "width out of range", got=self.bits, allowed=f"an integer, 1..{MAX_BITS}")
        if type(self.frac) is not int or not -64 <= self.frac <= 64:
            raise ConfigError("format.frac", "fraction bits out of range", got=self.frac, allowed="an integer, -64..64")
        if type(self.signed) is not bool:
            raise ConfigError("format.signed", "is neither true nor false", got=self.signed, allowed="True, False")

    @property
    def code_min(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def code_max(self) -> int:
        """Largest code."""
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

    Integers beyond 32 bits are taken modulo 2**32.
    Source: C. Wellons, "Prospecting for hash functions" (2018), constants of lowbias32 (public domain).
    """
    x = np.atleast_1d(_words("h", h)).astype(np.uint32)
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


INDEX_STRIDE = 0x9E3779B1  # odd, so index -> index * stride is a bijection modulo 2**32
STEP_STRIDE = 0x85EBCA6B


def stream_key(seed: int, stream: int, step: int) -> int:
    """The 32-bit key of one (seed, stream, step); combined with an index it gives that index's random word."""
    first = _mixed((seed ^ (stream * INDEX_STRIDE)) & 0xFFFFFFFF)
    return _mixed((first + step * STEP_STRIDE) & 0xFFFFFFFF)


def _mixed(h: int) -> int:
    """`mix32` of one word: keys are made several times a step, and an array of one number costs ten times as much."""
    h ^= h >> 16
    h = h * 0x7FEB352D & 0xFFFFFFFF
    h ^= h >> 15
    h = h * 0x846CA68B & 0xFFFFFFFF
    return h ^ h >> 16


def random_words(key: int, index: ArrayLike) -> NDArray[np.uint32]:
    """Counter-based random 32-bit words, one per index: no generator state, so any order gives the same words.

    Args:
        key: see `stream_key`, 0..2**32 - 1.
        index: integers of any shape, counted modulo 2**32.
    """
    integer("key", key, low=0, high=(1 << 32) - 1)
    scaled = (_words("index", index).astype(np.uint64) * np.uint64(INDEX_STRIDE)) & np.uint64(0xFFFFFFFF)
    return mix32(scaled ^ np.uint64(key))


def sr_bits(key: int, index: ArrayLike, n_bits: int) -> Ints:
    """The random integers in [0, 2**n_bits) that stochastic rounding adds before it shifts by n_bits (0..32)."""
    integer("n_bits", n_bits, low=0, high=WORD_BITS)
    if n_bits == 0:
        return np.zeros(np.atleast_1d(_words("index", index)).shape, dtype=np.int64)
    return (random_words(key, index) >> np.uint32(WORD_BITS - n_bits)).astype(np.int64)


def requantize(x: ArrayLike, shift: int, rounding: Rounding, *, key: int = 0, index: ArrayLike | None = None) -> Ints:
    """x / 2**shift as integers, rounded by the scheme; a negative shift multiplies exactly.

    Exact for every 64-bit integer and every shift: nothing wraps.

    Args:
        x: integers of any shape.
        shift: bits dropped; 0 returns x, negative shifts to the left.
        key, index: of the random bits (STOCHASTIC only); index defaults to the position in x.

    Raises:
        ConfigError: x or index are no integers, there is no such rounding, a shift to the left leaves 64 bits, or
            stochastic rounding is asked for more random bits than there are.
    """
    codes, shift = _whole("x", x), integer("shift", shift, low=-(2**31), high=2**31 - 1)
    rounding = _word("rounding", rounding, Rounding)
    if shift <= 0:
        return _shifted_left(codes, -shift)
    last = min(shift - 1, 63)  # shifts beyond the word are left to no one: 64 bits to the right leave the sign
    if rounding is Rounding.TRUNCATE:
        return codes >> min(shift, 63)
    if rounding is Rounding.NEAREST:  # half of the last bit dropped is added behind the others: nothing can overflow
        return ((codes >> last) + 1) >> 1 if shift > 1 else (codes >> 1) + (codes & 1)
    if rounding is Rounding.TOWARD_ZERO:
        below = (1 << min(shift, 63)) - 1  # what brings a negative number up to the next multiple
        return (codes + ((codes >> 63) & below)) >> min(shift, 63) if shift < 64 else np.zeros_like(codes)
    if shift > WORD_BITS:
        raise ConfigError(
            "shift", "stochastic rounding has no random bits for so many", got=shift, allowed=f"up to {WORD_BITS}"
        )
    where = np.arange(codes.size).reshape(codes.shape) if index is None else _words("index", index)
    dropped = codes & ((1 << shift) - 1)
    return (codes >> shift) + ((dropped + _like(sr_bits(key, where, shift), codes)) >> shift)


def _shifted_left(codes: Ints, by: int) -> Ints:
    """codes * 2**by, exactly."""
    if by == 0:
        return codes
    result = codes << min(by, 63)
    lost = (result >> min(by, 63)) != codes if by < 64 else codes != 0
    if lost.any():
        raise ConfigError(
            "shift", "leaves 64 bits", got=f"{int(codes[lost].flat[0])} * 2**{by}", allowed="-2**63..2**63 - 1"
        )
    return result


def _like(words: Ints, codes: Ints) -> Ints:
    """Random integers in the shape of the codes that they are for."""
    if words.size == codes.size:
        return words.reshape(codes.shape)
    try:
        return np.broadcast_to(words, codes.shape)
    except ValueError:
        raise ConfigError("index", "does not have the shape of x", got=words.shape, allowed=str(codes.shape)) from None


def _word(where: str, word: Any, kind: type[E]) -> E:
    """The member of an enum that is given, as such or by its word."""
    if isinstance(word, kind):
        return word
    if isinstance(word, str) and word in [member.value for member in kind]:
        return kind(word)
    raise ConfigError(where, f"is no {kind.__name__.lower()}", got=word, allowed=", ".join(m.value for m in kind))


def _whole(where: str, x: ArrayLike) -> Ints:
    """x as 64-bit integers; arrays of these, as computing makes them, pass as they are."""
    if type(x) is np.ndarray and x.dtype == np.int64:
        return x
    return integers(where, x, error=ConfigError)


def _words(where: str, x: ArrayLike) -> NDArray[Any]:
    """x as integers of any width, for what counts modulo 2**32."""
    if type(x) is np.ndarray and x.dtype.kind == "u":
        return x
    return _whole(where, x)


def saturate(x: ArrayLike, fmt: QFormat) -> Ints:
    """Integers x clipped to the codes of fmt; of a binary format, their sign, +1 for 0.

    Raises:
        ConfigError: x are no integers, or fmt is no format.
    """
    need_kind("fmt", fmt, QFormat)
    codes = _whole("x", x)
    return _signs(codes) if fmt.binary else np.clip(codes, fmt.code_min, fmt.code_max)


def _signs(x: NDArray[Any]) -> Ints:
    """The codes of a binary format."""
    return np.where(x >= 0, 1, -1).astype(np.int64)


def wrap(x: ArrayLike, fmt: QFormat) -> Ints:
    """Integers x modulo 2**bits, brought into the codes of fmt.

    Raises:
        ConfigError: x are no integers, fmt is no format, or a binary one, which has no such order.
    """
    need_kind("fmt", fmt, QFormat)
    if fmt.binary:
        raise ConfigError("format", "binary codes cannot wrap", got=str(fmt), fix="use Overflow.SATURATE")
    low = _whole("x", x) & ((1 << fmt.bits) - 1)
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
    """Codes of real numbers x on the grid fmt, and the number of values that did not fit.

    The rule, in float64: y = x / scale * 2**frac, r = floor(y), then TRUNCATE r; NEAREST r + (y - r >= 1/2);
    STOCHASTIC r + (y - r > u) with u a 32-bit fraction from the hash of the position; TOWARD_ZERO trunc(y). A binary
    format takes the sign of y under every rounding, +1 for 0, and clips nothing.

    Args:
        x: finite real numbers, any shape.
        scale: real step multiplier, above 0, broadcast against x (one per output channel, say).
        key: stream key of the random bits (STOCHASTIC only).

    Raises:
        ConfigError: x or scale are no real numbers, hold NaN or infinity, do not broadcast, or a scale is not above 0;
            fmt is no format, or there is no such rounding or overflow.
    """
    need_kind("fmt", fmt, QFormat)
    rounding, overflow = _word("rounding", rounding, Rounding), _word("overflow", overflow, Overflow)
    values, steps = _real("x", x), _real("scale", scale)
    if not ((steps > 0) & (steps < np.inf)).all():
        raise ConfigError("scale", "is not above 0 and finite", got=_first(steps, ~((steps > 0) & (steps < np.inf))))
    try:
        with np.errstate(all="ignore"):  # what leaves float64 is refused below
            y = values / steps * 2.0**fmt.frac
    except ValueError:
        raise ConfigError("scale", "does not broadcast against x", got=steps.shape, allowed=str(values.shape)) from None
    if y.size and not (np.isfinite(y.min()) and np.isfinite(y.max())):  # NaN is both of them
        reals("x", values, error=ConfigError)
        raise ConfigError("encode", "values must be finite", got="NaN or infinity", fix="look at the tensor's origin")
    if fmt.binary:
        return _signs(y), 0
    floor = np.floor(y)
    part = y - floor
    if rounding is Rounding.NEAREST:
        floor = floor + (part >= 0.5)
    elif rounding is Rounding.STOCHASTIC:
        u = random_words(key, np.arange(y.size)).reshape(y.shape) * 2.0**-32
        floor = floor + (part > u)
    elif rounding is Rounding.TOWARD_ZERO:
        floor = np.trunc(y)
    if not y.size or (floor.min() >= fmt.code_min and floor.max() <= fmt.code_max):
        return floor.astype(np.int64), 0
    code = np.clip(floor, -(2.0**62), 2.0**62).astype(np.int64)
    outside = int(np.count_nonzero((code < fmt.code_min) | (code > fmt.code_max)))
    if overflow is Overflow.SATURATE:
        return saturate(code, fmt), outside
    return wrap(np.fmod(floor, 2.0**fmt.bits).astype(np.int64), fmt), outside  # exact, also beyond 64 bits


def decode(codes: ArrayLike, fmt: QFormat, *, scale: ArrayLike = 1.0) -> NDArray[np.float64]:
    """The real numbers that codes, integers, stand for: code * 2**-frac * scale.

    Raises:
        ConfigError: codes are no integers, fmt is no format, scale no real numbers, or they do not broadcast.
    """
    need_kind("fmt", fmt, QFormat)
    steps = reals("scale", scale, error=ConfigError)
    try:
        return _whole("codes", codes).astype(np.float64) * fmt.delta * steps
    except ValueError:
        raise ConfigError("scale", "does not broadcast against codes", got=steps.shape) from None


def _real(where: str, x: ArrayLike) -> NDArray[np.float64]:
    """x as float64; arrays of floats pass as they are, NaN and infinity are for the caller to refuse."""
    if type(x) is np.ndarray and x.dtype in (np.float64, np.float32):
        return x.astype(np.float64, copy=False)
    return reals(where, x, error=ConfigError)


def _first(x: NDArray[Any], which: NDArray[np.bool_]) -> Any:
    """The first of the values that are marked."""
    return x[which].flat[0].item() if x.ndim else x.item()

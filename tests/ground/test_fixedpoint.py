"""THE arithmetic against literal tables and exact fractions; the compiled twins against it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.compiled import scalars as arithmetic
from qspinn.errors import ConfigError
from qspinn.fixedpoint import (
    MAX_BITS,
    Overflow,
    QFormat,
    Rounding,
    decode,
    encode,
    mix32,
    random_words,
    requantize,
    saturate,
    sr_bits,
    stream_key,
    wrap,
)

TRUNCATE, NEAREST, STOCHASTIC, TOWARD_ZERO = (
    Rounding.TRUNCATE,
    Rounding.NEAREST,
    Rounding.STOCHASTIC,
    Rounding.TOWARD_ZERO,
)

# x / 4 for x = -9 ... 9
TABLE = {
    TRUNCATE: [-3, -2, -2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2],
    NEAREST: [-2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
    TOWARD_ZERO: [-2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2],
}


def exact(x: Fraction, rounding: Rounding) -> int:
    """The rounded value, by exact fractions."""
    return {
        TRUNCATE: lambda: math.floor(x),
        NEAREST: lambda: math.floor(x + Fraction(1, 2)),
        TOWARD_ZERO: lambda: math.trunc(x),
    }[rounding]()


@pytest.mark.parametrize("rounding", TABLE, ids=lambda r: r.value)
def test_requantize_table(rounding: Rounding) -> None:
    assert requantize(np.arange(-9, 10), 2, rounding).tolist() == TABLE[rounding]


@pytest.mark.parametrize("rounding", TABLE, ids=lambda r: r.value)
def test_requantize_equals_exact_fractions(rounding: Rounding) -> None:
    for shift in range(-3, 8):
        x = np.arange(-300, 301)
        expected = [exact(Fraction(int(v)) / Fraction(2) ** shift, rounding) for v in x]
        assert requantize(x, shift, rounding).tolist() == expected


EDGES = [-(2**63), -(2**63) + 1, -(2**62), -(2**32), -3, -1, 0, 1, 3, 2**31, 2**62 - 1, 2**62, 2**63 - 2, 2**63 - 1]


@pytest.mark.parametrize("rounding", TABLE, ids=lambda r: r.value)
@pytest.mark.parametrize("shift", [1, 2, 31, 32, 33, 61, 62, 63, 64, 65, 66, 100, 10**6])
def test_requantize_is_exact_at_the_ends_of_64_bits(rounding: Rounding, shift: int) -> None:
    exact_shift = min(shift, 200)  # beyond that the value no longer depends on it
    expected = [exact(Fraction(x, 2**exact_shift), rounding) for x in EDGES]
    assert requantize(EDGES, shift, rounding).tolist() == expected


@pytest.mark.parametrize("shift", [1, 8, 31, 32])
def test_stochastic_rounding_is_exact_at_the_ends_of_64_bits(shift: int) -> None:
    random = sr_bits(7, np.arange(len(EDGES)), shift).tolist()
    expected = [(x + r) >> shift for x, r in zip(EDGES, random, strict=True)]
    assert requantize(EDGES, shift, STOCHASTIC, key=7).tolist() == expected


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize(
    ("x", "shift"), [(3, -62), (3, -64), (1, -63), (-2, -63), (2**62, -1), (-(2**62) - 1, -1), ([0, 0, 1], -(10**6))]
)
def test_a_left_shift_out_of_64_bits_is_refused(x: int, shift: int, rounding: Rounding) -> None:
    with pytest.raises(ConfigError, match=r"shift: leaves 64 bits; got '-?\d+ \* 2\*\*\d+'"):
        requantize(x, shift, rounding)
    assert requantize(-1, -63, rounding) == -(2**63)
    assert requantize([0, 0], -(10**6), rounding).tolist() == [0, 0]


@pytest.mark.parametrize(
    "x",
    [
        [2.7],
        2.0,
        "3",
        None,
        [1, None],
        [1j],
        np.ma.masked_array([1, 2], [True, False]),
        [[1], [2, 3]],
        np.array(["a"], object),
    ],
)
def test_what_is_no_integer_is_refused(x: object) -> None:
    fmt = QFormat(bits=8)
    for call in (
        lambda: requantize(x, 0, NEAREST),
        lambda: saturate(x, fmt),
        lambda: wrap(x, fmt),  # type: ignore
        lambda: decode(x, fmt),
        lambda: sr_bits(1, x, 3),
        lambda: mix32(x),
        lambda: saturate(  # type: ignore
            x, QFormat(bits=1, signed=True)
        ),
    ):  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            call()


def test_words_count_modulo_32_bits_and_codes_do_not() -> None:
    wide = np.array([2**63 + 5], np.uint64)
    assert mix32(wide).tolist() == mix32([5]).tolist()
    assert sr_bits(1, wide, 8).tolist() == sr_bits(1, [5], 8).tolist()
    for call in (lambda: requantize(wide, 0, NEAREST), lambda: saturate(wide, QFormat(bits=8))):
        with pytest.raises(ConfigError, match="out of range"):
            call()
    narrow = np.array([2**32 - 1], np.uint32)
    assert requantize(narrow, -8, TRUNCATE).tolist() == [(2**32 - 1) << 8]


@pytest.mark.parametrize("shift", [1.0, True, None, "1", 2**40, np.float32(3)])
def test_shifts_that_are_no_integers_are_refused(shift: object) -> None:
    with pytest.raises(ConfigError, match=r"shift: is (no integer|out of range)"):
        requantize([5], shift, NEAREST)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"n_bits: is (no integer|out of range)"):
        sr_bits(1, [0], shift if shift != 1.0 else 33)  # type: ignore[arg-type]


def test_stochastic_rounding_has_32_random_bits() -> None:
    with pytest.raises(ConfigError, match="shift: stochastic rounding has no random bits for so many; got 33"):
        requantize(5, 33, STOCHASTIC)


def test_words_stand_for_their_members_and_other_words_are_refused() -> None:
    fmt = QFormat(bits=3)
    for rounding in Rounding:
        word: Any = rounding.value
        assert requantize([5, -5, 12], 3, word).tolist() == requantize([5, -5, 12], 3, rounding).tolist()
        assert encode([0.75, 2.5], fmt, word)[0].tolist() == encode([0.75, 2.5], fmt, rounding)[0].tolist()
    assert encode([9.0], fmt, overflow="saturate")[0].tolist() == [7]  # type: ignore[arg-type]
    for bad in ("nearer", None, 1, Overflow.WRAP):
        with pytest.raises(ConfigError, match="rounding: is no rounding"):
            requantize(5, 3, bad)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="rounding: is no rounding"):
            encode([5.0], fmt, bad)  # type: ignore[arg-type]
    for call in (lambda f: encode([1.0], f), lambda f: decode([1], f), lambda f: wrap([1], f)):
        with pytest.raises(ConfigError, match="fmt: is of the wrong type"):
            call(8)
    with pytest.raises(ConfigError, match="overflow: is no overflow"):
        encode([9.0], fmt, overflow="clip")  # type: ignore[arg-type]


@pytest.mark.parametrize("x", [2.0**62 + 2.0**20, -(2.0**63), 2.0**80 + 2.0**30, 5e15 + 3, -5e15 - 3])
def test_wrapping_keeps_the_low_bits_of_any_number(x: float) -> None:
    fmt = QFormat(bits=32)
    assert encode([x], fmt, overflow=Overflow.WRAP)[0].tolist() == [int(x) % 2**32]


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        ([1.0], 0.0),
        ([1.0], -1.0),
        ([1.0], math.nan),
        ([1.0], math.inf),
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([1 + 2j], 1.0),
        (["1"], 1.0),
        ([None], 1.0),
        ([1e308], 1e-308),
        ([math.nan], 1.0),
    ],
)
def test_encode_refuses_what_has_no_code(x: list, scale: object) -> None:
    for fmt in (QFormat(bits=8), QFormat(bits=1, signed=True)):
        with pytest.raises(ConfigError):
            encode(x, fmt, scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 8.0), ("bits", True), ("bits", "8"), ("frac", 0.5), ("frac", None), ("signed", 1), ("signed", "no")],
)
def test_a_format_of_other_types_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"format.{field}"):
        QFormat(**{"bits": 8, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
def test_requantize_without_remainder_is_exact(rounding: Rounding) -> None:
    x = np.arange(-64, 65)
    for shift in range(8):
        assert requantize(x << shift, shift, rounding, key=9).tolist() == x.tolist()
    assert requantize(x, -3, rounding).tolist() == (x * 8).tolist()


@given(st.integers(-(2**40), 2**40), st.integers(1, 31), st.integers(0, 2**32 - 1))
def test_stochastic_rounding_is_floor_or_one_more(x: int, shift: int, key: int) -> None:
    got = int(requantize([x], shift, STOCHASTIC, key=key)[0])
    assert got - (x >> shift) in ((0, 1) if x % (1 << shift) else (0,))


@pytest.mark.parametrize("x", [-7, -5, -1, 1, 3, 6, 13])
@pytest.mark.parametrize("shift", [1, 3, 4])
def test_stochastic_rounding_is_unbiased(x: int, shift: int) -> None:
    n = 40_000
    for key in (stream_key(1, 2, 3), 0):
        got = requantize(np.full(n, x), shift, STOCHASTIC, key=key)
        part = x / 2**shift - math.floor(x / 2**shift)
        assert abs(got.mean() - x / 2**shift) < 4 * math.sqrt(part * (1 - part) / n) + 1e-12


def test_random_bits_depend_on_every_coordinate_but_not_on_order() -> None:
    index = np.arange(1000)
    keys = {stream_key(*c) for c in ((1, 2, 3), (0, 2, 3), (1, 3, 3), (1, 2, 4))}
    assert len(keys) == 4
    words = random_words(stream_key(1, 2, 3), index)
    np.testing.assert_array_equal(random_words(stream_key(1, 2, 3), index[::-1]), words[::-1])
    assert len(np.unique(words)) == 1000
    bits = sr_bits(stream_key(1, 2, 3), index, 3)
    assert np.bincount(bits, minlength=8).min() > 90
    assert sr_bits(5, index, 0).tolist() == [0] * 1000


def test_mix32_is_the_published_hash() -> None:
    """lowbias32, computed here with Python integers; a bijection has no collisions."""

    def lowbias32(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ (x >> 16)

    x = np.concatenate([np.arange(5000), 2**32 - 1 - np.arange(5000)])
    assert mix32(x).tolist() == [lowbias32(int(v)) for v in x]
    assert len(np.unique(mix32(x))) == len(x)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.49999999999999994, 0),
        (0.5, 1),
        (-0.5, 0),
        (1.5, 2),
        (-1.5, -1),
        (2.5, 3),
        (-0.50000000000000011, -1),
        (-0.49999999999999994, 0),
        (0.0, 0),
        (-0.0, 0),
        (6.999, 7),
        (127.4, 127),
        (-128.5, -128),
    ],
)
def test_encode_nearest_by_hand(value: float, expected: int) -> None:
    assert encode([value], QFormat(bits=8, signed=True))[0].tolist() == [expected]


@pytest.mark.parametrize("rounding", TABLE, ids=lambda r: r.value)
def test_encode_equals_exact_fractions(rounding: Rounding) -> None:
    """Every multiple of 1/64 in [-8, 8), onto a grid of 1/8: saturated and counted where it does not fit."""
    fmt = QFormat(bits=6, frac=3, signed=True)
    x = np.arange(-512, 512) / 64
    wanted = [exact(Fraction(float(v)) * 8, rounding) for v in x]
    codes, outside = encode(x, fmt, rounding)
    assert codes.tolist() == [min(max(w, -32), 31) for w in wanted]
    assert outside == sum(not -32 <= w <= 31 for w in wanted)
    wrapped, _ = encode(x, fmt, rounding, overflow=Overflow.WRAP)
    assert wrapped.tolist() == [(w + 32) % 64 - 32 for w in wanted]


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=20), st.integers(-3, 6), st.integers(1, 12), st.booleans())
def test_encode_is_within_the_grid_and_half_a_step(x: list[float], frac: int, bits: int, signed: bool) -> None:
    fmt = QFormat(bits=bits, frac=frac, signed=signed and bits > 1)
    codes, outside = encode(x, fmt)
    assert codes.min() >= fmt.code_min
    assert codes.max() <= fmt.code_max
    inside = np.clip(x, fmt.code_min * fmt.delta, fmt.code_max * fmt.delta)
    assert np.abs(decode(codes, fmt) - inside).max() <= fmt.delta / 2
    assert outside <= len(x)
    np.testing.assert_array_equal(encode(decode(codes, fmt), fmt)[0], codes)


def test_encode_stochastic_is_unbiased_and_keyed() -> None:
    fmt, n = QFormat(bits=8, signed=True), 40_000
    for value in (0.25, -0.7, 3.9, -4.0):
        codes, _ = encode(np.full(n, value), fmt, STOCHASTIC, key=77)
        part = value - math.floor(value)
        assert abs(codes.mean() - value) < 4 * math.sqrt(part * (1 - part) / n) + 1e-12
    first, other = (encode(np.full(n, 0.5), fmt, STOCHASTIC, key=k)[0] for k in (1, 2))
    assert (first != other).any()


def test_encode_scales_per_channel() -> None:
    x = np.array([[1.0, 2.0], [10.0, 20.0]])
    codes, _ = encode(x, QFormat(bits=4), scale=np.array([[1.0], [10.0]]))
    assert codes.tolist() == [[1, 2], [1, 2]]
    np.testing.assert_array_equal(decode(codes, QFormat(bits=4), scale=[[1.0], [10.0]]), x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_values_are_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match="NaN or infinity"):
        encode([0.0, bad], QFormat(bits=8))


def test_huge_values_saturate() -> None:
    codes, outside = encode([1e300, -1e300, 1e19], QFormat(bits=MAX_BITS, signed=True))
    assert codes.tolist() == [2**31 - 1, -(2**31), 2**31 - 1]
    assert outside == 3


def test_formats() -> None:
    assert [
        (f.code_min, f.code_max, f.delta, str(f))
        for f in (
            QFormat(bits=8, frac=6, signed=True),
            QFormat(bits=1),
            QFormat(bits=1, signed=True),
            QFormat(bits=3, frac=5),
            QFormat(bits=4, frac=-2),
        )
    ] == [
        (-128, 127, 2**-6, "Q1.6 (8 bit)"),
        (0, 1, 1.0, "UQ1.0 (1 bit)"),
        (-1, 1, 1.0, "binary (1 bit)"),
        (0, 7, 2**-5, "UQ-2.5 (3 bit)"),
        (0, 15, 4.0, "UQ6.-2 (4 bit)"),
    ]
    for bad in ({"bits": 0}, {"bits": 33}, {"bits": 8, "frac": 65}, {"bits": 8, "frac": -65}):
        with pytest.raises(ConfigError, match="out of range"):
            QFormat(**bad)


def test_one_bit_with_a_sign_is_binary() -> None:
    fmt = QFormat(bits=1, signed=True)
    for rounding in Rounding:
        codes, outside = encode([-3.0, -1e-9, -0.0, 0.0, 1e-9, 7.0], fmt, rounding, key=3)
        assert codes.tolist() == [-1, -1, 1, 1, 1, 1]
        assert outside == 0
    assert saturate([-2, 0, 5], fmt).tolist() == [-1, 1, 1]
    with pytest.raises(ConfigError, match="cannot wrap"):
        wrap([0], fmt)


def test_saturate_and_wrap_at_the_ends() -> None:
    signed, unsigned = QFormat(bits=4, signed=True), QFormat(bits=4)
    x = [-17, -9, -8, -1, 0, 7, 8, 15, 16, 31]
    assert saturate(x, signed).tolist() == [-8, -8, -8, -1, 0, 7, 7, 7, 7, 7]
    assert saturate(x, unsigned).tolist() == [0, 0, 0, 0, 0, 7, 8, 15, 15, 15]
    assert wrap(x, signed).tolist() == [-1, 7, -8, -1, 0, 7, -8, -1, 0, -1]
    assert wrap(x, unsigned).tolist() == [15, 7, 8, 15, 0, 7, 8, 15, 0, 15]


@nb.njit
def _twins(x, shift, mode, seed, stream, t):
    """What the compiled twins make of every x."""
    key = arithmetic.step_key(arithmetic.stream_base(np.uint32(seed), stream), t)
    words, rounded = np.empty(x.size, np.uint32), np.empty(x.size, np.int64)
    for i in range(x.size):
        words[i] = arithmetic.random_word(key, i)
        rounded[i] = arithmetic.requantize(x[i], shift, mode, key, i)
    return key, words, rounded


def test_compiled_twins_equal_fixedpoint() -> None:
    rng = np.random.default_rng(0)
    for trial in range(400):
        shift, rounding = int(rng.integers(-4, 32)), list(Rounding)[trial % 4]
        seed, stream, t = (int(rng.integers(0, 1 << bits)) for bits in (32, 24, 31))
        x = rng.integers(-(1 << 40), 1 << 40, 50) >> rng.integers(0, 40, 50)
        key, words, rounded = _twins(x, shift, arithmetic.MODE[rounding], seed, stream, t)
        assert key == stream_key(seed, stream, t)
        np.testing.assert_array_equal(words, random_words(key, np.arange(50)))
        np.testing.assert_array_equal(rounded, requantize(x, shift, rounding, key=key))


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
def test_compiled_twins_in_a_small_range(rounding: Rounding) -> None:
    x = np.arange(-200, 201)
    for shift in range(6):
        key, _, rounded = _twins(x, shift, arithmetic.MODE[rounding], 3, 16, 5)
        np.testing.assert_array_equal(rounded, requantize(x, shift, rounding, key=key))

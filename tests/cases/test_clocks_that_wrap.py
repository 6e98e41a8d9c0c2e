"""Clocks of few bits that start again at 0.

Reported: a clock of 24 bits built from two words lost its upper part, so that late events came first; and sorting such
events mixes them for good. Right: time never goes back; a fall from near 2^k to near 0 is named as a wrap, never
sorted, and undone where that is asked for.
"""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events.recording import check, make
from qspinn.errors import ConfigError, DataError

BITS = (16, 20, 23, 24, 28, 30, 31, 32, 40)


def at(*times: int) -> np.ndarray:
    z = np.zeros(len(times), int)
    return make(z, z, np.array(times), z)


def times(*t: int, **named: str) -> list[int]:
    return check(at(*t), (1, 1), **named)["t"].tolist()


def test_words_of_twelve_bits() -> None:
    assert times(16_773_119, 16_773_130, 5, order="unwrap") == [16_773_119, 16_773_130, 16_777_221]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("order", ["reject", "sort"])
def test_a_wrap_is_named_and_never_sorted(bits: int, order: str) -> None:
    period = 1 << bits
    with pytest.raises(
        DataError,
        match=rf"t\[2\]: .*the clock wraps at 2\^{bits} microseconds; got 3; .*"
        rf'fix: order="unwrap", which adds 2\^{bits} us',
    ):
        times(period // 2, period - 4, 3, 9, order=order)


@pytest.mark.parametrize("bits", BITS)
def test_wraps_are_undone(bits: int) -> None:
    period, true = 1 << bits, []
    for turn in range(3):
        true += [turn * period + part * period // 64 for part in (0, 1, 20, 40, 62, 63)]
    assert times(*(t % period for t in true), order="unwrap") == true
    assert times(*true[:6], order="unwrap") == true[:6]


def test_disorder_is_no_wrap() -> None:
    for t in ((100, 50), (0, 60_000, 100), (1_000_000, 3), (500_000, 2, 3), (65_530, 65_540, 65_531), (2**24 + 5, 3)):
        with pytest.raises(DataError, match=r'events are not in order of time \(1 steps back\).*fix: order="sort"'):
            times(*t)
        assert times(*t, order="sort") == sorted(t)
        with pytest.raises(DataError, match="not in order of time"):
            times(*t, order="unwrap")


def test_long_falls_are_never_sorted() -> None:
    for order in ("reject", "sort", "unwrap"):
        with pytest.raises(DataError, match=r"t\[1\]: timestamps wrapped around; got 5"):
            times(3 << 30, 5, order=order)
        with pytest.raises(DataError, match=r"t\[0\]: timestamps wrapped around: a time is negative"):
            times(-5, 5, order=order)


def test_events_on_the_wrong_side_of_a_wrap_are_refused() -> None:
    """Unwrapping in order would move the third event by a whole period."""
    with pytest.raises(DataError, match=r"t\[2\]: may lie before or after a wrap"):
        times(65_530, 3, 65_534, 8, order="unwrap")
    with pytest.raises(DataError, match=r"t\[2\]: events are not in order of time"):
        times(65_530, 30, 10, order="unwrap")


def test_orders_are_known() -> None:
    with pytest.raises(ConfigError, match="allowed: reject, sort, unwrap"):
        times(1, 2, order="sorted")

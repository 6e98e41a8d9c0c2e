"""Times of events: their unit, and clocks that start again at 0 where their bits end."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer, integers, numbers, reals
from qspinn.errors import ConfigError, DataError

Order: TypeAlias = Literal["reject", "sort", "unwrap"]
TimeUnit: TypeAlias = Literal["us", "ms", "s"]
LONGEST_US = (1 << 62) - 1
"""No time is further from 0 than this (146,000 years), so that differences fit 64 bits."""
WRAP_US = 1 << 30
"""A fall of the time by more than this (18 minutes) is a counter that wrapped, not disorder."""
CLOCK_BITS = range(16, 41)
"""Bits of clocks whose wrap is distinguished from disorder."""
NEAR = 5
"""A wrap goes from the last to the first 2^-NEAR of a clock's period: less than round times leave (1 s is 95 % of
2^20 us)."""
FACTORS = {"us": 1, "ms": 1000, "s": 1_000_000}
"""Microseconds of each unit of time."""


class Remedies(NamedTuple):
    """Advice in an error: against disorder, against a wrap ("{}" is the period), and where the period is not known."""

    disorder: str = 'order="sort"'
    wrap: str = 'order="unwrap", which adds {} us from here on; or clock_bits=0, if the clock does not wrap here'
    unknown: str = "add the counter's period from here on, or clock_bits=0, if the clock does not wrap"


def microseconds_of(where: str, t: Any, unit: str | None, longest: int = LONGEST_US) -> NDArray[np.int64]:
    """Times in microseconds: integers as they are (or in the unit given), floats only with a unit, to the nearest.

    Raises:
        DataError: another kind of number, floats without a unit, NaN, or a time further from 0 than `longest`.
    """
    if unit is not None and not (isinstance(unit, str) and unit in FACTORS):
        raise ConfigError("time_unit", "is no unit of time", got=unit, allowed=", ".join(FACTORS))
    factor, given = FACTORS[unit or "us"], numbers(where, t, (None,), DataError)
    if given.dtype.kind != "f" or not given.size:
        whole = integers(where, t, shape=(None,), low=-(longest // factor), high=longest // factor)
        return whole * factor if factor > 1 else whole
    if unit is None:
        raise DataError(
            where,
            "holds floats, whose unit is not known",
            got=str(given.dtype),
            allowed="integers, in microseconds",
            fix='qspinn.data.events.recording.check(events, sensor, time_unit="s"), or "ms", "us"',
        )
    longest = LONGEST_US // factor // 2  # far from where the product would leave 64 bits
    return np.rint(reals(where, t, shape=(None,), low=-longest, high=longest) * factor).astype(np.int64)


def in_order(
    t: NDArray[np.int64], order: Order, where: str, remedies: Remedies, clock_bits: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64] | slice]:
    """Times without wraps, and what puts them into order.

    Raises:
        DataError: a negative time, a clock that wrapped (unless it is to be unwrapped), disorder (unless it is to be
            sorted).
    """
    if order not in ("reject", "sort", "unwrap"):
        raise ConfigError("order", "is unknown", got=order, allowed="reject, sort, unwrap")
    if clock_bits is not None:
        _need_clock(t, order, where, integer("clock_bits", clock_bits, low=0, high=CLOCK_BITS[-1]))
    if t.size and t.min() < 0:
        i = int(np.argmax(t < 0))
        raise DataError(
            f"{where}[{i}]",
            "timestamps wrapped around: a time is negative",
            got=int(t[i]),
            allowed=f"{max(int(t[i - 1]), 0) if i else 0} us or later",
            fix="add the counter's period from here on",
        )
    falls = np.flatnonzero(t[1:] < t[:-1]) + 1
    if not falls.size:
        return t, slice(None)
    bits, wraps = wraps_of(t, falls, clock_bits)
    if wraps.size and order == "unwrap" and bits:
        return _unwrapped(t, bits, wraps, where), slice(None)
    if wraps.size:
        _refuse_wrap(t, bits, int(wraps[0]), where, remedies)
    if order != "sort":
        raise DataError(
            f"{where}[{falls[0]}]",
            f"events are not in order of time ({falls.size} steps back)",
            got=int(t[falls[0]]),
            allowed=f"{int(t[falls[0] - 1])} us or later",
            fix=remedies.disorder,
        )
    return t, np.argsort(t, kind="stable")


def _need_clock(t: NDArray[np.int64], order: Order, where: str, bits: int) -> None:
    """Refuses a clock that cannot have shown the times, and unwrapping without one."""
    if bits and bits not in CLOCK_BITS:
        raise ConfigError(
            "clock_bits",
            "is out of range",
            got=bits,
            allowed=f"0 for a clock that does not wrap, or {CLOCK_BITS[0]}..{CLOCK_BITS[-1]}",
        )
    if order == "unwrap" and not bits:
        raise ConfigError("clock_bits", "says that there is nothing to unwrap", got=bits, fix='order="sort"')
    if bits and t.size and int(t.max()) >> bits:
        i = int(np.argmax(t))
        raise DataError(
            f"{where}[{i}]", f"is no time of a clock of {bits} bits", got=int(t[i]), allowed=f"0..{(1 << bits) - 1} us"
        )


def wraps_of(
    t: NDArray[np.int64], falls: NDArray[np.int64], clock_bits: int | None = None
) -> tuple[int, NDArray[np.int64]]:
    """Bits of a clock and the falls at which it wrapped; 0 and the falls that are too long for disorder, where it did
    not.

    Without clock_bits, the bits are those of the largest time: a clock of fewer would not show it.
    """
    if clock_bits == 0:
        return 0, falls[:0]
    bits = clock_bits or int(t.max()).bit_length()
    edge = (1 << bits) >> NEAR
    wraps = falls[(t[falls - 1] >= (1 << bits) - edge) & (t[falls] < edge)]
    if clock_bits or (bits in CLOCK_BITS and wraps.size):
        return bits, wraps
    return 0, falls[t[falls - 1] - t[falls] > WRAP_US]


def _refuse_wrap(t: NDArray[np.int64], bits: int, i: int, where: str, remedies: Remedies) -> None:
    problem = (
        f"timestamps wrapped around: the clock wraps at 2^{bits} microseconds" if bits else "timestamps wrapped around"
    )
    fix = remedies.wrap.format(f"2^{bits}") if bits else remedies.unknown
    raise DataError(f"{where}[{i}]", problem, got=int(t[i]), allowed=f"{int(t[i - 1])} us or later", fix=fix)


def _unwrapped(t: NDArray[np.int64], bits: int, wraps: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """Times to which the period is added from each wrap on.

    Raises:
        DataError: what remains is not in order; an event on the wrong side of a wrap would move by a period.
    """
    edge = (1 << bits) >> NEAR
    back = np.flatnonzero((t[:-1] < edge) & (t[1:] >= (1 << bits) - edge)) + 1
    if back.size:
        i = int(back[0])
        raise DataError(
            f"{where}[{i}]",
            "may lie before or after a wrap of the clock",
            got=int(t[i]),
            allowed=f"below {(1 << bits) - edge} us after {int(t[i - 1])} us",
            fix="put the events around the wrap into order first",
        )
    turns = np.zeros(len(t), np.int64)
    turns[wraps] = 1
    unwrapped = t + (np.cumsum(turns) << bits)
    falls = np.flatnonzero(unwrapped[1:] < unwrapped[:-1]) + 1
    if falls.size:
        i = int(falls[0])
        raise DataError(
            f"{where}[{i}]",
            f"events are not in order of time ({falls.size} steps back)",
            got=int(t[i]),
            allowed=f"{int(t[i - 1])} us or later",
            fix="sort the events between two wraps by time first",
        )
    return unwrapped

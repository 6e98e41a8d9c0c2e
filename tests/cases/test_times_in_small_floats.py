"""Times of spikes in seconds, in 16-bit floats.

Reported: such times became infinite on the way to microseconds, or were cut to 0 and 1. Right: widened to 64 bits
first, then to the nearest microsecond, and only where the unit is given; without a unit floats are refused.
"""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events.recording import bin_events, check, crop_time, downsample, flip, join, make, shift
from qspinn.errors import ConfigError, DataError


def events_of(t: list[float], kind: str) -> np.ndarray:
    out = np.zeros(len(t), [("x", "i2"), ("y", "i2"), ("t", kind), ("p", "?")])
    out["t"] = t
    return out


def test_half_floats_in_seconds() -> None:
    events = events_of([0.4997, 0.9995, 1.2345], "f2")
    assert check(events, (1, 1), time_unit="s")["t"].tolist() == [499_756, 999_512, 1_234_375]
    z = np.zeros(3, int)
    assert make(z, z, events["t"], z, time_unit="s")["t"].tolist() == [499_756, 999_512, 1_234_375]


@pytest.mark.parametrize(
    ("kind", "unit", "t", "expected"),
    [
        ("f4", "ms", [0.5, 1.0, 2.25], [500, 1000, 2250]),
        ("f8", "us", [0.4, 1.0, 1.6], [0, 1, 2]),
        (">f8", "s", [1e-6, 2e-6], [1, 2]),
        ("i4", "ms", [1, 2, 70_000], [1000, 2000, 70_000_000]),
        ("u1", "s", [1, 2, 255], [10**6, 2 * 10**6, 255 * 10**6]),
        ("i8", "us", [1, 2, 3], [1, 2, 3]),
        ("i8", None, [1, 2, 2**62 - 1], [1, 2, 2**62 - 1]),
    ],
)
def test_units(kind: str, unit: str, t: list[float], expected: list[int]) -> None:
    assert check(events_of(t, kind), (1, 1), time_unit=unit)["t"].tolist() == expected


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4"])
def test_floats_without_a_unit_are_refused(kind: str) -> None:
    events = events_of([1.0, 2.0, 3.0], kind)
    for function in (
        lambda: check(events, (1, 1)),
        lambda: bin_events(events, (1, 1), 10, 2),
        lambda: flip(events, (1, 1)),
        lambda: shift(events, (1, 1), 0, 0),
        lambda: downsample(events, (1, 1), (1, 1)),
        lambda: join([events]),
    ):
        with pytest.raises(DataError, match=r"t: holds floats, whose unit is not known; .*time_unit=\"s\""):
            function()
    with pytest.raises(DataError, match="holds no integers"):
        crop_time(events, 0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e13])
def test_times_that_are_none(value: float) -> None:
    with pytest.raises(DataError, match=r"events\.t\[1\]: holds"):
        check(events_of([0.0, value], "f8"), (1, 1), time_unit="s")


@pytest.mark.parametrize(("kind", "values"), [("i8", [2**62]), ("u8", [2**64 - 1]), ("i8", [-(2**63)])])
def test_times_beyond_the_range(kind: str, values: list[int]) -> None:
    for function in (lambda e: check(e, (1, 1)), lambda e: bin_events(e, (1, 1), 10, 2)):
        with pytest.raises(DataError, match=r"events\.t\[0\]: holds a value out of range"):
            function(events_of(values, kind))
    with pytest.raises(DataError, match="out of range"):
        check(events_of([2**50], "i8"), (1, 1), time_unit="s")


@pytest.mark.parametrize("unit", ["h", "S", 1, "ns"])
def test_units_are_known(unit: object) -> None:
    with pytest.raises(ConfigError, match="allowed: us, ms, s"):
        check(events_of([1], "i8"), (1, 1), time_unit=unit)  # type: ignore[arg-type]


def test_other_kinds_of_time_are_refused() -> None:
    for kind in ("M8[us]", "m8[us]", "c8", "U4", "O"):
        with pytest.raises(DataError, match=r"events\.t"):
            check(np.zeros(2, [("x", "i2"), ("y", "i2"), ("t", kind), ("p", "?")]), (1, 1))

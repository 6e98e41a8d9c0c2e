"""Pixels counted from 1, and coordinates that do not fit.

Reported: addresses 1..100 of a sensor of 10 x 10 read as if they began at 0, which moves every pixel and puts the last
outside. Right: y = 10 is an error that says so; a coordinate is never folded into 16 bits.
"""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events.recording import bin_events, check, downsample, flip, make
from qspinn.errors import DataError

ADDRESSES = np.array([1, 10, 100])
T = np.arange(3)


def test_counting_from_one() -> None:
    x, y = (ADDRESSES - 1) % 10, (ADDRESSES - 1) // 10
    events = check(make(x, y, T, T * 0), (10, 10))
    assert [(e["x"], e["y"]) for e in events] == [(0, 0), (9, 0), (9, 9)]
    assert bin_events(events, (10, 10), 10, 1).address.tolist() == [0, 9, 99]


def test_counting_from_zero_by_mistake_is_loud() -> None:
    events = make(ADDRESSES % 10, ADDRESSES // 10, T, T * 0)
    for function in (lambda: check(events, (10, 10)), lambda: bin_events(events, (10, 10), 10, 1)):
        with pytest.raises(DataError, match=r"events\.y\[2\]: is outside the sensor .*; got 10; allowed: 0\.\.9"):
            function()
    one_based = make(np.array([1, 10, 10]), np.array([1, 1, 10]), T, T * 0)
    with pytest.raises(DataError, match=r"got 10; .*fix: subtract 1 if pixels are counted from 1"):
        check(one_based, (10, 10))


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.uint64, ">i4"])
@pytest.mark.parametrize("value", [32_768, 40_000, 65_535])
def test_coordinates_do_not_wrap(kind: type, value: int) -> None:
    column, z = np.array([0, value, 3]).astype(kind), np.zeros(3, int)
    for x, y, name in ((column, z, "x"), (z, column, "y")):
        with pytest.raises(DataError, match=rf"events\.{name}\[1\]: holds a value out of range; got {value}"):
            make(x, y, z, z)


@pytest.mark.parametrize("value", [-1, 65_541, 2**40, -(2**63)])
def test_other_coordinates_out_of_range(value: int) -> None:
    z = np.zeros(1, int)
    with pytest.raises(DataError, match=rf"events\.x\[0\]: .*got {value}"):
        make(np.array([value]), z, z, z)


@pytest.mark.parametrize("values", [[3.7], [np.nan], [3.0], ["3"], [None], [3j]])
def test_coordinates_are_integers(values: list) -> None:
    z = np.zeros(1, int)
    with pytest.raises(DataError, match=r"events\.y: "):
        make(z, np.array(values), z, z)


@pytest.mark.parametrize("values", [[np.nan, 3.7, 0.0], [0.0, 1.0, 2.0]])
@pytest.mark.parametrize("field", ["x", "y"])
def test_coordinates_of_structured_arrays_are_integers(field: str, values: list[float]) -> None:
    """Reported: pixels of NaN and 3.7 became 0 and 3. Right: floats are no coordinates for any function."""
    kinds = {"x": "i2", "y": "i2", "t": "i8", "p": "?"} | {field: "f4"}
    events = np.zeros(3, list(kinds.items()))
    events[field], events["t"] = values, T
    for function in (
        lambda: check(events, (5, 5)),
        lambda: bin_events(events, (5, 5), 10, 1),
        lambda: flip(events, (5, 5)),
        lambda: downsample(events, (5, 5), (1, 1)),
    ):
        with pytest.raises(DataError, match=rf"events\.{field}: holds no integers"):
            function()


def test_columns_are_of_one_length() -> None:
    with pytest.raises(DataError, match=r"columns have different lengths; got \[3, 3, 2, 3\]"):
        make(T, T, T[:2], T * 0)

"""Polarities that all become 'brighter', and inputs that are edited.

Reported: a voxel grid mapped off to on and wrote that into the caller's array; a polarity of -1 stored as a boolean is
True. Right: darker and brighter stay apart, -1 and 1 are read as such where they are the only values, and no function
changes what it is given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qspinn.data.events.recording import bin_events, check, crop_time, downsample, flip, join, make, shift
from qspinn.errors import DataError

DO: dict[str, Callable] = {
    "check": lambda e: check(e, (1, 1)),
    "sort": lambda e: check(e, (1, 1), order="sort"),
    "flip": lambda e: flip(e, (1, 1)),
    "shift": lambda e: shift(e, (1, 1), 0, 0),
    "downsample": lambda e: downsample(e, (1, 1), (1, 1)),
    "crop_time": lambda e: crop_time(e, 0, 100),
    "join": lambda e: join([e]),
    "make": lambda e: make(e["x"], e["y"], e["t"], e["p"]),
}
KINDS = ("i1", "i2", ">i4", "i8", "f4", "f8")


def events_of(p: list[float], kind: str) -> np.ndarray:
    out = np.zeros(len(p), [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", kind)])
    out["t"], out["p"] = np.arange(len(p)) * 5, p
    return out


@pytest.mark.parametrize("name", DO)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("off", [-1, 0])
def test_off_and_on_stay_apart(name: str, kind: str, off: int) -> None:
    events = events_of([off, 1, off], kind)
    before = events.copy()
    assert DO[name](events)["p"].tolist() == [False, True, False]
    np.testing.assert_array_equal(events, before)
    events.flags.writeable = False
    assert DO[name](events)["p"].dtype == bool


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("off", [-1, 0])
def test_bins_hold_both_polarities(kind: str, off: int) -> None:
    events = events_of([off, 1, off], kind)
    binned = bin_events(events, (1, 1), 6, 2, binary=False)
    assert list(zip(binned.bin, binned.address, binned.counts, strict=True)) == [(0, 0, 1), (0, 1, 1), (1, 0, 1)]
    assert events["p"].tolist() == [off, 1, off]


@pytest.mark.parametrize("name", DO)
@pytest.mark.parametrize(
    ("p", "kind", "bad"),
    [
        ([0, -1, 1], "i1", r"\[1\].*got -1"),
        ([-1, 2, 1], "i8", r"\[1\].*got 2"),
        ([1, 1, 255], "u1", r"\[2\].*got 255"),
        ([-2, 1, 1], "i2", r"\[0\].*got -2"),
    ],
)
def test_other_polarities_are_refused(name: str, p: list[int], kind: str, bad: str) -> None:
    with pytest.raises(DataError, match=rf"p{bad}; allowed: 0, 1, or -1, 1 throughout"):
        DO[name](events_of(p, kind))


@pytest.mark.parametrize("p", [[0.5, 1, 1], [np.nan, 1, 1], [np.inf, 0, 0]])
def test_polarities_that_are_no_whole_numbers(p: list[float]) -> None:
    for function in DO.values():
        with pytest.raises(DataError, match=r"p\[0\]: holds a value that is no"):
            function(events_of(p, "f8"))

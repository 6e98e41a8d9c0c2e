"""Operations on event sets by hand: moved in time, thinned, some of each class."""

from __future__ import annotations

import msgspec
import numpy as np

from qspinn.data.event_dataset import some_of_each
from qspinn.data.event_set import from_dense


def test_delayed_and_thinned() -> None:
    raster = np.zeros((2, 4, 1, 1, 3), np.uint8)
    raster[0, 0, 0, 0, 1] = raster[0, 2, 0, 0, 0] = raster[1, 3, 0, 0, 2] = raster[1, 1, 0, 0, 1] = 1
    events = from_dense(raster, [0, 1], order="BT")
    moved = events.delayed([1, -2]).dense().swapaxes(0, 1)
    expected = np.zeros_like(raster)
    expected[0, 1, 0, 0, 1] = expected[0, 3, 0, 0, 0] = expected[1, 1, 0, 0, 2] = 1
    assert np.array_equal(moved, expected)
    kept = events.thinned(np.array([True, False, False, True])).dense().swapaxes(0, 1)
    assert kept.sum() == 2
    assert kept[0, 0, 0, 0, 1] == kept[1, 3, 0, 0, 2] == 1


def test_jittered() -> None:
    raster = np.zeros((2, 4, 1, 1, 3), np.uint8)
    raster[0, 0, 0, 0, 1] = raster[0, 2, 0, 0, 1] = raster[0, 3, 0, 0, 0] = raster[1, 0, 0, 0, 2] = 1
    raster[1, 3, 0, 0, 2] = 1
    events = from_dense(raster, [0, 1], order="BT")
    moved = events.jittered(np.array([1, -1, 1, -1, 0]))  # two meet, one leaves at either end
    expected = np.zeros_like(raster)
    expected[0, 1, 0, 0, 1] = expected[1, 3, 0, 0, 2] = 1
    assert np.array_equal(moved.dense().swapaxes(0, 1), expected)
    counted = msgspec.structs.replace(events, count=np.array([2, 3, 1, 1, 4], np.uint8))
    assert counted.jittered(np.array([1, -1, 0, 0, 0])).count.tolist() == [5, 1, 1, 4]


def test_some_recordings_of_each_class() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    raster = np.zeros((9, 1, 1, 1, 9), np.uint8)
    raster[np.arange(9), 0, 0, 0, np.arange(9)] = 1
    events = from_dense(raster, labels, order="BT")
    assert some_of_each(events, 5).labels.tolist() == [0, 0, 1, 1, 2]
    assert some_of_each(events, 6).index.tolist() == [0, 1, 4, 5, 6, 7]
    assert some_of_each(events, 0) is events
    assert some_of_each(events, 9) is events

"""Operations on event sets by hand: moved in time, thinned, some of each class."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from qspinn.data.events.dataset import some_of_each
from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.errors import ConfigError, DataError


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


def test_the_order_of_axes_must_be_said() -> None:
    raster = np.random.default_rng(0).integers(0, 2, (2, 4, 1, 1, 3))
    by_time, by_sample = from_dense(raster, [0] * 4, order="TB"), from_dense(raster, [0] * 2, order="BT")
    np.testing.assert_array_equal(by_time.dense(), raster)
    np.testing.assert_array_equal(by_sample.dense(), raster.swapaxes(0, 1))
    with pytest.warns(DeprecationWarning, match=r'without `order` takes \[B, T, \.\.\.\]; pass order="BT"') as seen:
        without = from_dense(raster, [0] * 2)
    assert seen[0].filename == __file__
    np.testing.assert_array_equal(without.dense(), by_sample.dense())
    with pytest.raises(ConfigError, match="allowed: TB, BT"):
        from_dense(raster, [0] * 2, order="time")  # type: ignore[arg-type]


def test_axes_in_the_other_order_are_seen_by_the_labels() -> None:
    raster = np.ones((2, 4, 1, 1, 3))
    for order, n, other in (("TB", 2, "BT"), ("BT", 4, "TB")):
        with pytest.raises(DataError, match=rf'as the steps, not as the recordings; got {n}; .*order="{other}"'):
            from_dense(raster, [0] * n, order=order)  # type: ignore[arg-type]
    with pytest.warns(DeprecationWarning, match="without `order`"), pytest.raises(DataError, match='order="TB"'):
        from_dense(raster, [0] * 4)


@pytest.mark.parametrize("labels", [[0.7], [0, 1], [], 0, [[0]], ["a"], [None], [-1], [np.nan], [0.0]])
def test_labels_are_one_class_for_each_recording(labels: object) -> None:
    with pytest.raises(DataError, match=r"events\.labels"):
        from_dense(np.ones((3, 1, 1, 1, 1)), labels, order="TB")
    with pytest.raises(DataError, match=r"events\.labels"):
        EventSet(offsets=[[0, 1]], index=[0], count=None, shape=(1, 1, 1), labels=labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 0, 1), (1, 1, -1), (1.0, 1, 1), "111", None, (2**16, 2**16, 2), (True, 1, 1)]
)
def test_shapes_are_three_sizes(shape: object) -> None:
    with pytest.raises(DataError, match=r"events\.shape"):
        EventSet(offsets=[[0, 1]], index=[0], count=None, shape=shape, labels=[0])  # type: ignore[arg-type]


def test_stores_stay_as_they_were_checked() -> None:
    labels, index = np.array([0, 1]), np.array([0, 2, 1])
    events = EventSet(offsets=[[0, 1, 2], [2, 2, 3]], index=index, count=[1, 2, 3], shape=[1, 1, 3], labels=labels)
    labels[:], index[:] = 9, 9
    assert (events.labels.tolist(), events.index.tolist(), events.shape) == ([0, 1], [0, 2, 1], (1, 1, 3))
    for made in (
        events,
        events.take([1, 0]),
        events.shifted(1, 0),
        events.rebinned(2),
        events.compact(),
        events.slice(0, 1),
        events.flipped(),
        events.delayed(1),
        events.thinned(np.ones(3, bool)),
    ):
        assert not any(a.flags.writeable for a in (made.offsets, made.index, made.count, made.labels))
        assert made.graded().index is made.index


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("take", ([-1],)),
        ("take", ([2],)),
        ("take", ([0.0],)),
        ("take", ([True],)),
        ("take", (0,)),
        ("take", ("0",)),
        ("shifted", ([1, 2, 3], 0)),
        ("shifted", (0.5, 0)),
        ("shifted", (np.nan, 0)),
        ("flipped", ([1, 0],)),
        ("flipped", ([True],)),
        ("flipped", (None,)),
        ("delayed", ([1, 2, 3],)),
        ("delayed", (1.5,)),
        ("jittered", ([0],)),
        ("jittered", ([0.5, 0, 0],)),
        ("thinned", ([1, 0, 1],)),
        ("thinned", ([True],)),
        ("slice", (-1,)),
        ("slice", (0.0,)),
    ],
)
def test_operations_take_what_they_mean(method: str, arguments: tuple) -> None:
    events = EventSet(offsets=[[0, 1, 2], [2, 2, 3]], index=[0, 2, 1], count=None, shape=(1, 1, 3), labels=[0, 1])
    with pytest.raises(DataError, match=rf"{method}\."):
        getattr(events, method)(*arguments)

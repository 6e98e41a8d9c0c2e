"""Down-sampling that keeps brighter events only.

Reported: of one brighter and three darker events at opposite corners only the brighter one was left. Right: all four,
at the pixels that contain them; and a coordinate outside the sensor is refused, not folded into it.
"""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events.event_set import from_dense
from qspinn.data.events.recording import downsample, flip, make, shift
from qspinn.errors import DataError

EVENTS = make(np.array([0, 3, 3, 3]), np.array([0, 3, 3, 3]), np.arange(4), np.array([1, 0, 0, 0]))


def test_both_corners_are_left() -> None:
    coarse = downsample(EVENTS, (4, 4), (2, 2))
    assert [tuple(e.tolist()) for e in coarse] == [(0, 0, 0, True)] + [(1, 1, t, False) for t in (1, 2, 3)]
    assert EVENTS["x"].tolist() == [0, 3, 3, 3]


@pytest.mark.parametrize("to", [(4, 4), (2, 2), (1, 4), (1, 1)])
def test_no_event_is_lost(to: tuple[int, int]) -> None:
    assert downsample(EVENTS, (4, 4), to)["p"].tolist() == EVENTS["p"].tolist()


def test_the_store_keeps_both_channels() -> None:
    raster = np.zeros((1, 1, 2, 4, 4), np.uint8)
    raster[0, 0, 1, 0, 0], raster[0, 0, 0, 3, 3] = 1, 3
    coarse = from_dense(raster, [0], order="TB").downsampled(2).dense()[0, 0]
    assert coarse[1].tolist() == [[1, 0], [0, 0]]
    assert coarse[0].tolist() == [[0, 0], [0, 3]]


@pytest.mark.parametrize("sensor", [(3, 4), (4, 3), (2, 2)])
def test_events_outside_are_refused(sensor: tuple[int, int]) -> None:
    for function in (
        lambda: downsample(EVENTS, sensor, (1, 1)),
        lambda: flip(EVENTS, sensor),
        lambda: shift(EVENTS, sensor, -2, -2),
    ):
        with pytest.raises(DataError, match=r"events\.[xy]\[1\]: is outside the sensor \(3 such events\); got 3"):
            function()

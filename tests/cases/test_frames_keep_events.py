"""Frames that lose events.

Reported of tools that cut recordings into frames: one event in one frame counted as none; 100 events in 30 frames
became 90; the event on the last border was dropped; 40,000 events of one pixel became a negative number in 16 bits;
frames began at the first event, not where the recording begins. Right: the counts of all bins add up to the number of
events within them, and a count that does not fit is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.data.events.event_set import from_dense, pack
from qspinn.data.events.recording import bin_events, make
from qspinn.errors import DataError
from qspinn.spikes import from_dense as spikes_from_dense


def at(*times: int) -> np.ndarray:
    """Events of one pixel."""
    z = np.zeros(len(times), int)
    return make(z, z, np.array(times), z)


def frames(times: tuple[int, ...], bin_us: int, n_bins: int, **named: int) -> list[int]:
    """Events of each bin."""
    found = bin_events(at(*times), (1, 1), bin_us, n_bins, binary=False, **named)
    counts = np.zeros(n_bins, int)
    counts[found.bin] = found.counts
    return counts.tolist()


@pytest.mark.parametrize(
    ("times", "bin_us", "expected"),
    [
        ((7,), 10, [1]),
        ((0,), 1, [1]),
        ((0, 250, 500, 750, 1000), 500, [2, 2, 1]),
        ((100, 500, 900), 200, [1, 0, 1, 0, 1]),
        ((999,), 1000, [1]),
        ((1000,), 1000, [0, 1]),
    ],
)
def test_every_event_is_in_a_frame(times: tuple[int, ...], bin_us: int, expected: list[int]) -> None:
    assert frames(times, bin_us, len(expected)) == expected


def test_a_hundred_events_in_thirty_frames() -> None:
    counts = frames(tuple(range(100)), 4, 30)
    assert sum(counts) == 100
    assert counts == [4] * 25 + [0] * 5


def test_frames_begin_where_they_are_told_to() -> None:
    assert frames((100, 500, 900), 200, 5, start_us=100) == [1, 0, 1, 0, 1]
    assert frames((100, 500, 900), 200, 5, start_us=-100) == [0, 1, 0, 1, 0]
    assert frames((100, 500, 900), 200, 2, start_us=101) == [0, 1]


@given(st.lists(st.integers(0, 999), max_size=60), st.integers(1, 400))
def test_frames_add_up_to_the_events(times: list[int], bin_us: int) -> None:
    assert sum(frames(tuple(times), bin_us, -(-1000 // bin_us))) == len(times)


@pytest.mark.parametrize("n", [255, 256, 40_000, 70_000])
def test_counts_do_not_wrap(n: int) -> None:
    z = np.zeros(n, int)
    binned = bin_events(make(z, z, z, z), (1, 1), 10, 1, binary=False)
    assert binned.counts.tolist() == [n]
    if n > 255:
        with pytest.raises(DataError, match=rf"too many events fall together; got {n}; allowed: 0\.\.255"):
            pack([(binned, 0)], 1, (1, 1))
    else:
        assert pack([(binned, 0)], 1, (1, 1)).dense().sum() == 255


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float64, ">u2"])
def test_rasters_keep_their_counts(kind: type) -> None:
    raster = np.array([[[[[0, 1, 7]]], [[[255, 0, 2]]]]]).astype(kind)  # one step, two recordings
    recordings = from_dense(raster, [0, 1], order="TB")
    assert recordings.dense().sum() == 265
    assert recordings.graded().dense().tolist() == [[[0, 1, 7], [255, 0, 2]]]
    with pytest.raises(DataError, match=r"graded=True"):
        spikes_from_dense(raster.reshape(1, 2, 3))
    assert spikes_from_dense(raster.reshape(1, 2, 3), graded=True).dense().sum() == 265


@pytest.mark.parametrize("value", [-1, 256, 0.5, np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_count_is_refused(value: float) -> None:
    raster = np.zeros((1, 1, 1, 1, 3))
    raster[..., 1] = value
    for make_set in (
        lambda: from_dense(raster, [0], order="TB"),
        lambda: from_dense(raster, [0], order="BT"),
        lambda: spikes_from_dense(raster[..., 0, 0, :], graded=True),
        lambda: spikes_from_dense(raster[..., 0, 0, :]),
    ):
        with pytest.raises(DataError, match=r"\[0, 0, .*1\]: holds a value"):
            make_set()

"""Event lists against rasters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qspinn.errors import DataError
from qspinn.spikes import Spikes, from_dense, index_dtype

RASTERS = st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1)))


@given(RASTERS)
def test_dense_and_back(raster: np.ndarray) -> None:
    spikes = from_dense(raster)
    np.testing.assert_array_equal(spikes.dense(), raster)
    assert (spikes.n_steps, spikes.n_samples, spikes.n) == raster.shape
    assert spikes.n_events == raster.sum()


@given(RASTERS, st.data())
def test_slices_and_batches(raster: np.ndarray, data: st.DataObject) -> None:
    spikes = from_dense(raster)
    start = data.draw(st.integers(0, spikes.n_samples))
    stop = data.draw(st.integers(start, spikes.n_samples))
    part = spikes.slice(start, stop)
    np.testing.assert_array_equal(part.dense(), raster[:, start:stop])
    assert part.n_events == raster[:, start:stop].sum()
    assert part.index is spikes.index
    batches = list(spikes.batches(2))
    assert [b.n_samples for b in batches] == [2] * (spikes.n_samples // 2) + [1] * (spikes.n_samples % 2)
    if batches:
        np.testing.assert_array_equal(np.concatenate([b.dense() for b in batches], axis=1), raster)


@given(RASTERS, st.data())
def test_select_keeps_and_renumbers(raster: np.ndarray, data: st.DataObject) -> None:
    kept = data.draw(arrays(np.int32, raster.shape[2], elements=st.integers(0, 1)))
    start = data.draw(st.integers(0, raster.shape[1]))
    chosen = from_dense(raster).slice(start, raster.shape[1]).select(kept)
    np.testing.assert_array_equal(chosen.dense(), raster[:, start:, kept == 1])
    assert chosen.n == kept.sum()


def test_counts_are_kept_or_refused() -> None:
    assert from_dense(np.array([[[0, 3, 255]]]), graded=True).count.tolist() == [3, 255]
    with pytest.raises(DataError, match=r"spikes more than once in a step; got 3; .*graded=True"):
        from_dense(np.array([[[0, 3, 1]]]))


def test_index_types() -> None:
    assert index_dtype(1 << 16) is np.uint16
    assert index_dtype((1 << 16) + 1) is np.uint32
    raster = np.zeros((1, 1, 70_000), bool)
    raster[0, 0, 69_999] = True
    assert from_dense(raster).index.tolist() == [69_999]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[B, T \+ 1\]"):
        Spikes(offsets=np.zeros(3, np.int64), index=np.zeros(0, np.uint16), n=1)
    with pytest.raises(DataError, match="T >= 1"):
        Spikes(offsets=np.zeros((2, 1), np.int64), index=np.zeros(0, np.uint16), n=1)
    with pytest.raises(DataError, match=r"\[T, B, n\]"):
        from_dense(np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"spikes\.select: wrong shape; got \(2,\); allowed: \(3,\)"):
        from_dense(np.ones((1, 1, 3))).select(np.ones(2))

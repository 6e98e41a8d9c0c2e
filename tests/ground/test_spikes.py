"""Event lists against rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qspinn.errors import ConfigError, DataError
from qspinn.spikes import Spikes, from_dense, index_dtype

RASTERS = st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


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


GOOD = {
    "offsets": np.array([[0, 1, 3], [3, 3, 4]]),
    "index": np.array([2, 0, 3, 1]),
    "n": 4,
    "count": np.array([1, 9, 255, 2]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.array([[0, 2, 1], [1, 3, 4]])}, r"offsets: rows do not follow each other"),
        ({"offsets": np.array([[0, 1, 3], [2, 3, 4]])}, r"offsets: rows do not follow each other"),
        ({"offsets": np.array([[0, 1, 2], [3, 3, 4]])}, r"offsets: rows do not follow each other"),
        ({"offsets": np.array([[-1, 1, 3], [3, 3, 4]])}, r"offsets: rows do not follow.*got \(-1, 4\)"),
        ({"offsets": np.array([[0, 1, 3], [3, 3, 5]])}, r"offsets: rows do not follow.*got \(0, 5\)"),
        ({"offsets": np.array([[0, 1, 10**8], [10**8, 10**8, 10**8]])}, r"offsets: rows do not follow"),
        ({"offsets": GOOD["offsets"].astype(float)}, r"offsets: holds no integers; got 'float64'"),
        ({"offsets": [[0, 1], [1]]}, r"offsets: is no rectangular array"),
        ({"index": np.array([2, 0, 4, 1])}, r"index\[2\]: holds a value out of range; got 4; allowed: 0\.\.3"),
        ({"index": np.array([2, -1, 3, 1])}, r"index\[1\]: .*got -1"),
        ({"index": np.array([2, 3, 0, 1])}, r"index\[2\]: sources of a step do not ascend.*got 0; allowed: above 3"),
        ({"index": np.array([2, 3, 3, 1])}, r"index\[2\]: sources .* or one is listed twice; got 3"),
        ({"index": np.array([[2, 0, 3, 1]])}, r"index: has the wrong shape"),
        ({"index": ["a"] * 4}, r"index: holds no int"),
        ({"count": np.array([1, 0, 1, 1])}, r"count\[1\]: .*got 0; allowed: 1\.\.255"),
        ({"count": np.array([1, 256, 1, 1])}, r"count\[1\]: .*got 256"),
        ({"count": np.ones(4)}, r"count: holds no integers"),
        ({"count": np.array([1, 1, 1])}, r"count: wrong shape; got \(3,\); allowed: \(4,\)"),
        ({"n": 3}, r"index\[2\]: .*got 3; allowed: 0\.\.2"),
        ({"n": 4.0}, "n: is no integer"),
        ({"n": True}, "n: is no integer"),
        ({"n": -1}, "n: is out of range"),
        ({"n": 2**32 + 1}, "n: is out of range"),
        ({"n": 0}, "index"),
    ],
)
def test_what_would_be_another_spike_train_is_refused(change: dict, message: str) -> None:
    Spikes(**GOOD)
    with pytest.raises(DataError, match=rf"spikes\.{message}"):
        Spikes(**(GOOD | change))


@pytest.mark.parametrize("n", [4, 70_000])
@pytest.mark.parametrize("kind", ["u1", "i4", ">i8", "u8"])
def test_integers_of_any_kind_are_taken_in_the_narrowest(n: int, kind: str) -> None:
    spikes = Spikes(**(GOOD | {"n": n} | {k: GOOD[k].astype(kind) for k in ("offsets", "index", "count")}))
    assert [a.dtype for a in (spikes.offsets, spikes.index, spikes.count)] == [np.int64, index_dtype(n), np.uint8]
    assert spikes.slice(0, 2).batches(1).__next__().dense()[:, 0, :4].tolist() == [[0, 0, 1, 0], [9, 0, 0, 255]]


def test_what_was_checked_stays_so() -> None:
    offsets, index, count = (GOOD[k].copy() for k in ("offsets", "index", "count"))
    spikes = Spikes(offsets=offsets, index=index, n=4, count=count)
    before = spikes.dense()
    offsets[:], index[:], count[:] = -5, 999, 0
    np.testing.assert_array_equal(spikes.dense(), before)
    for made in (spikes, spikes.slice(0, 1), spikes.select(np.ones(4, int)), from_dense(before, graded=True)):
        for array in (made.offsets, made.index, made.count):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
    view = index.astype(np.uint16)
    sealed = view[:]
    sealed.flags.writeable = False  # but who has the array itself can still write to it
    assert Spikes(**(GOOD | {"index": np.array([2, 0, 3, 1], np.uint16)})).index is not sealed
    view[:] = [2, 0, 3, 1]
    taken = Spikes(**(GOOD | {"index": sealed}))
    view[:] = 999
    assert taken.index.tolist() == [2, 0, 3, 1]


def test_arrays_that_nobody_can_write_to_are_shared(tmp_path: Path) -> None:
    spikes = Spikes(**GOOD)
    again = Spikes(offsets=spikes.offsets, index=spikes.index, n=4, count=spikes.count)
    assert again.offsets is spikes.offsets
    assert again.index is spikes.index
    assert again.count is spikes.count
    np.save(tmp_path / "index.npy", spikes.index)
    mapped = np.load(tmp_path / "index.npy", mmap_mode="r")
    assert Spikes(**(GOOD | {"index": mapped})).index is mapped
    assert np.shares_memory(spikes.slice(1, 2).offsets, spikes.offsets)
    assert spikes.slice(1, 2).index is spikes.index


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, -1, 256, "1", 1j, None])
def test_rasters_of_anything_but_counts_are_refused(value: object) -> None:
    for graded in (False, True):
        with pytest.raises(DataError, match="spikes"):
            from_dense(np.array([[[value]]]), graded=graded)
    with pytest.raises(DataError, match="spikes: is masked"):
        from_dense(np.ma.masked_array(np.ones((1, 1, 2)), mask=[[[0, 1]]]))


@pytest.mark.parametrize(
    "raster",
    [
        [[[0, 1, 1]]],
        np.array([[[0, 1, 1]]], ">f4"),
        np.array([[[False, True, True]]]),
        np.array([[[0, 1, 1]]], np.float16),
    ],
)
def test_rasters_of_any_whole_numbers_are_taken(raster: np.ndarray) -> None:
    assert from_dense(raster).index.tolist() == [1, 2]


def test_parts_are_asked_for_in_integers() -> None:
    spikes = Spikes(**GOOD)
    for start, stop in ((-1, 2), (0, -1), (0.0, 2), ("0", 1), (True, 2)):
        with pytest.raises(DataError, match=r"slice\.st"):
            spikes.slice(start, stop)  # type: ignore[arg-type]
    for size in (0, -1, 1.5):
        with pytest.raises(ConfigError, match=r"spikes\.batches"):
            spikes.batches(size)  # type: ignore[arg-type]
    assert spikes.slice(0, 99).n_samples == spikes.slice(0).n_samples == 2


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[B, T \+ 1\]"):
        Spikes(offsets=np.zeros(3, np.int64), index=np.zeros(0, np.uint16), n=1)
    with pytest.raises(DataError, match="T >= 1"):
        Spikes(offsets=np.zeros((2, 1), np.int64), index=np.zeros(0, np.uint16), n=1)
    with pytest.raises(DataError, match=r"\[T, B, n\]"):
        from_dense(np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"spikes\.select: wrong shape; got \(2,\); allowed: \(3,\)"):
        from_dense(np.ones((1, 1, 3))).select(np.ones(2))

"""Data of the user's own have one meaning: it does not depend on other recordings, on their order or on the length of a
step, and what would be passed over without a word is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import DataConfig, EventData, EventDataset
from qspinn.data.npz import multiple
from qspinn.errors import ConfigError, DataError
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import raster_of
from qspinn.networks.local import LocalLayer, LocalNetwork

PARTS = ("train", "validation", "test")
LABELS = np.arange(30) % 2
SPLIT = np.array(["train"] * 20 + ["validation"] * 5 + ["test"] * 5)


def raster(seed: int = 0, shape: tuple[int, ...] = (30, 6, 4)) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(np.uint8)


def read(path: Path, *, arrays: dict[str, Any] | None = None, **settings: Any) -> EventDataset:
    """The recordings of a file, which is written first where arrays are given."""
    if arrays is not None:
        np.savez(path, **arrays)
    found = qspinn.load_data(EventData(file=str(path), **settings))
    assert isinstance(found, EventDataset)
    return found


def totals(data: EventDataset) -> list[int]:
    return [int(events.dense().sum()) for _, events in data.parts()]


@pytest.mark.parametrize("most", [1, 2])
def test_counts_add_up_whatever_other_recordings_hold(most: int, tmp_path: Path) -> None:
    x = raster()
    x[0, 0, 0] = most
    own = {f"x_{part}": x[part == SPLIT] for part in PARTS} | {
        f"labels_{part}": LABELS[part == SPLIT] for part in PARTS
    }
    expected = [int(x[part == SPLIT].sum()) for part in PARTS]
    for arrays in (
        own,
        {"x": x, "labels": LABELS, "split": SPLIT},
        {"x": x.astype(float), "labels": LABELS, "split": SPLIT},
    ):
        merged = read(tmp_path / "mine.npz", arrays={**arrays, "bin_ms": 5.0}, bin_ms=10.0)
        assert totals(merged) == expected
        coarse = {k: v.reshape(len(v), 3, 2, 4).sum(axis=2) if k.startswith("x") else v for k, v in arrays.items()}
        assert read(tmp_path / "coarse.npz", arrays={**coarse, "bin_ms": 10.0}).checksum() == merged.checksum()


def test_the_presence_of_events_stays_presence(tmp_path: Path) -> None:
    x = raster().astype(bool)
    merged = read(tmp_path / "mine.npz", arrays={"x": x, "labels": LABELS, "split": SPLIT, "bin_ms": 5.0}, bin_ms=10.0)
    assert totals(merged) == [int(x[part == SPLIT].reshape(-1, 3, 2, 4).any(axis=2).sum()) for part in PARTS]


def packed(counts: tuple[str, ...]) -> dict[str, Any]:
    """Two entries of address 3 in each recording, in steps 0 and 1 of two."""
    arrays: dict[str, Any] = {"shape": [1, 1, 8], "bin_ms": 5.0}
    for k, part in enumerate(PARTS):
        arrays |= {
            f"offsets_{part}": np.arange(2)[:, None] * 4 + [0, 2, 4],
            f"index_{part}": np.array([3, 4 + k, 3, 7, 3, 5 - k, 3, 6]),
            f"labels_{part}": [0, 1],
        }
        if part in counts:
            arrays[f"count_{part}"] = np.ones(8, int)
    arrays["index_test"] = np.array([1, 3, 3, 7, 2, 3, 3, 6])
    arrays["index_validation"] = np.array([0, 3, 3, 7, 2, 3, 3, 7])
    arrays["index_train"] = np.array([3, 4, 3, 7, 3, 5, 3, 6])
    return arrays


def test_counts_of_one_split_are_counts_of_all(tmp_path: Path) -> None:
    for counts, expected in (((), [6, 6, 6]), (("train",), [8, 8, 8]), (PARTS, [8, 8, 8])):
        assert totals(read(tmp_path / "mine.npz", arrays=packed(counts), bin_ms=10.0)) == expected


def test_packed_entries_that_no_recording_holds_are_refused(tmp_path: Path) -> None:
    for name, value in (
        ("index_test", np.array([1, 3, 3, 7, 2, 3, 3, 6, 0])),
        ("offsets_test", [[1, 2, 4], [4, 6, 8]]),
    ):
        with pytest.raises(DataError, match="offsets_test: leave out entries of index"):
            read(tmp_path / "mine.npz", arrays=packed(()) | {name: value})
    with pytest.raises(DataError, match=r"data\.scale: is for dense rasters.*packed events"):
        read(tmp_path / "mine.npz", arrays=packed(()), scale=255.0)


def test_local_learning_refuses_counts_that_it_would_drop() -> None:
    x = raster(shape=(30, 10, 1, 4, 4))
    network = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1),))
    for part in PARTS:
        counted = x.copy()
        counted[np.argmax(part == SPLIT), 0, 0, 0, 0] = 9
        data = qspinn.Recordings((counted, LABELS), split=SPLIT, bin_ms=5.0).events()
        with pytest.raises(DataError, match=rf"recordings\.{part}: hold several events.*got 9.*x > 0"):
            qspinn.train(network, data, LocalLearning(n_epochs=1, batch=10, burn_in=1))
        with pytest.raises(DataError, match="hold several events"):
            raster_of(getattr(data, part))


def reused(n: int, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """Recordings that are written into one array, one after the other."""
    rng, x = np.random.default_rng(seed), np.zeros((6, 4), np.uint8)
    for i in range(n):
        x[:] = rng.random((6, 4)) < 0.4
        yield x, i % 2


def test_a_source_may_use_its_memory_again() -> None:
    data = qspinn.Recordings(reused(10, 0), validation=reused(4, 1), test=reused(4, 2), bin_ms=5.0).events()
    assert len({data.train.dense()[:, b].tobytes() for b in range(10)}) == 10
    x, labels = raster(), LABELS.copy()
    made = qspinn.Recordings((x, labels), bin_ms=5.0)
    before = made.events().checksum()
    x[:], labels[:] = 0, 0
    assert made.events().checksum() == before


def columns(n: int = 40, per: int = 30) -> dict[str, Any]:
    """Columns of n recordings, each of `per` events within 50 ms on a sensor of 4 x 4."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 50_000, (n, per)))
    t[:, 0] = 0
    pixels = {name: rng.integers(0, side, n * per) for name, side in (("x", 4), ("y", 4), ("p", 2))}
    return {**pixels, "t": t.ravel(), "offsets": np.arange(n + 1) * per, "sensor": [4, 4], "labels": np.arange(n) % 2}


def structured(arrays: dict[str, Any]) -> list[np.ndarray]:
    """The recordings of columns as structured arrays."""
    events = np.zeros(len(arrays["t"]), [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    for name in ("x", "y", "t", "p"):
        events[name] = arrays[name]
    return np.split(events, arrays["offsets"][1:-1])


def test_masked_events_are_refused() -> None:
    events = [np.ma.array(e, mask=[(k == 0,) * 4 for k in range(len(e))]) for e in structured(columns())]
    with pytest.raises(DataError, match=r"recordings\[0\]: is a masked array"):
        qspinn.Recordings([(e, i % 2) for i, e in enumerate(events)], sensor_size=(4, 4), bin_ms=5.0)


def test_the_split_of_event_columns_does_not_depend_on_steps(tmp_path: Path) -> None:
    whole = [
        read(tmp_path / "mine.npz", arrays=columns(), bin_ms=ms).test.rebinned(99).dense() for ms in (5.0, 2.5, 50.0)
    ]
    assert np.array_equal(whole[0], whole[1])
    assert np.array_equal(whole[0], whole[2])


def test_recordings_that_steps_do_not_tell_apart_are_no_shared_ones(tmp_path: Path) -> None:
    n = 24
    zeros, split = np.zeros(n, int), np.array(["train"] * 16 + ["validation"] * 4 + ["test"] * 4)
    arrays = {"x": zeros, "y": zeros, "p": zeros, "t": np.arange(n) * 40, "offsets": np.arange(n + 1), "sensor": [1, 1]}
    arrays |= {"labels": np.arange(n) % 2, "split": split}
    assert read(tmp_path / "mine.npz", arrays=arrays, bin_ms=1.0).allow_shared
    with pytest.raises(DataError, match="splits share recordings"):
        read(tmp_path / "mine.npz", arrays=arrays | {"t": zeros}, bin_ms=1.0)


def test_a_number_of_steps_belongs_to_their_length(tmp_path: Path) -> None:
    arrays = columns() | {"bin_ms": 10.0, "n_bins": 5}
    assert [read(tmp_path / "mine.npz", arrays=arrays, bin_ms=ms).n_steps for ms in (10.0, 5.0, 50.0)] == [5, 10, 1]
    with pytest.raises(DataError, match=r"n_bins: makes no whole number of steps.*5 of 10 ms.*data\.n_bins = 2"):
        read(tmp_path / "mine.npz", arrays=arrays, bin_ms=30.0)
    assert read(tmp_path / "mine.npz", arrays=arrays, bin_ms=30.0, n_bins=2).n_steps == 2


def test_settings_without_a_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.scale: is for dense rasters.*event columns"):
        read(tmp_path / "mine.npz", arrays=columns(), bin_ms=5.0, scale=2.0)
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 5), np.uint8)
    for field, value in (("bin_ms", 5.0), ("n_bins", 7)):
        with pytest.raises(DataError, match=f"{field}: is for recordings, and images have no steps"):
            qspinn.Recordings((images, LABELS), **{field: value}).images()  # type: ignore[arg-type]


def test_a_folder_beside_an_absolute_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "mine.npz", x=raster(), labels=LABELS, bin_ms=5.0)
    with pytest.raises(
        DataError, match=r"data\.file: is an absolute path.*fix: name the file itself: --data .*other.mine\.npz"
    ):
        read(tmp_path / "mine.npz", folder=str(tmp_path / "other"))
    assert read(tmp_path / "mine.npz", folder=str(tmp_path)).n_steps == 6


def test_short_bins_are_multiples_as_long_ones_are() -> None:
    assert multiple(3e-6, 1e-6, "x") == 3
    assert multiple(0.3, 0.1, "x") == 3
    for asked, stored in ((2.4e-6, 1e-6), (1e-9, 7e-10)):
        with pytest.raises(DataError, match="is not a multiple"):
            multiple(asked, stored, "x")


def test_labels_that_numpy_would_make_the_same_are_refused() -> None:
    x = raster()
    mixed = [[0, "0", "1"][i % 3] for i in range(30)]
    for source in ([(x[i], mixed[i]) for i in range(30)], (x, mixed)):
        with pytest.raises(DataError, match="labels: holds text and numbers"):
            qspinn.Recordings(source, bin_ms=5.0)
    with pytest.raises(DataError, match=r"labels\[1\]: ends in a NUL"):
        qspinn.Recordings((x, [["a", "a\0"][i % 2] for i in range(30)]), bin_ms=5.0)
    for names in ("ab", {"a", "b"}, {"a": 0, "b": 1}, 5):
        with pytest.raises(ConfigError, match=r"Recordings\.class_names: are no list of names"):
            qspinn.Recordings((x, LABELS), bin_ms=5.0, class_names=names)  # type: ignore[arg-type]


def test_booleans_are_no_pixels_without_a_scale(tmp_path: Path) -> None:
    x = raster(shape=(30, 5, 5)).astype(bool)
    with pytest.raises(DataError, match=r"x: holds booleans where pixels.*scale = 255"):
        qspinn.Recordings((x, LABELS)).images()
    assert qspinn.Recordings((x, LABELS), scale=255.0).images().train.images.max() == 255
    np.savez(tmp_path / "mine.npz", x=x, labels=LABELS)
    with pytest.raises(DataError, match="holds booleans"):
        qspinn.load_data(DataConfig(file=str(tmp_path / "mine.npz")))


def held(x: np.ndarray, labels: np.ndarray) -> set[bytes]:
    """The recordings of the test split."""
    data = qspinn.Recordings((x, labels), bin_ms=1.0).events().test
    return {data.dense()[:, b].tobytes() + bytes(data.labels[b : b + 1]) for b in range(data.n_samples)}


def test_a_split_does_not_depend_on_where_empty_recordings_are() -> None:
    x, labels = raster(shape=(41, 4, 6)), np.arange(41) % 2
    x[:7] = 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(41)
        assert held(x, labels) == held(x[order], labels[order])


@pytest.mark.parametrize("seed", range(6))
def test_equal_recordings_of_different_labels_are_named(seed: int) -> None:
    x = raster(seed, shape=(40, 4, 6))
    x[1] = x[0]
    labels = np.arange(40) % 2
    with pytest.raises(DataError, match=r"recordings 0 and 1 are the same and have different labels; got \['0', '1'\]"):
        qspinn.Recordings((x, labels), bin_ms=1.0).events()
    assert qspinn.Recordings((x, labels), bin_ms=1.0, allow_shared=True).events().allow_shared
    with pytest.raises(DataError, match=r"images 0 and 1 are the same and have different labels"):
        qspinn.Recordings((x, labels)).images()

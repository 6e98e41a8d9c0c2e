"""Recordings in memory, of NumPy, torch, tonic's kind and plain lists, are the same data sets as files of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import EventData
from qspinn.data.events.recording import EVENT
from qspinn.errors import ConfigError, DataError

N = 60
PARTS = ("train", "validation", "test")
WITHOUT_TORCH = """
import sys, numpy as np, qspinn
x = (np.random.default_rng(0).random((30, 5, 4)) < 0.5).astype(np.uint8)
assert qspinn.Recordings((x, np.arange(30) % 3), bin_ms=1.0).events().n_steps == 5
assert "torch" not in sys.modules
"""


def raster() -> tuple[np.ndarray, np.ndarray]:
    return (np.random.default_rng(0).random((N, 5, 4)) < 0.5).astype(np.uint8), np.arange(N) % 3


def splits() -> np.ndarray:
    return np.array(PARTS)[np.arange(N) // 3 % 3]


class Gestures:
    """A data set as tonic has them: events and class by number."""

    sensor_size = (6, 5, 2)

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        if not 0 <= i < N:
            raise IndexError(i)
        rng = np.random.default_rng(i)
        events = np.zeros(9, np.dtype([("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")]))
        events["x"], events["y"] = rng.integers(0, 6, 9), rng.integers(0, 5, 9)
        events["t"], events["p"] = np.sort(rng.integers(0, 10_000, 9)), rng.integers(0, 2, 9)
        return events, i % 3


def test_arrays_lists_and_files_are_the_same(tmp_path: Path) -> None:
    x, labels = raster()
    whole = qspinn.Recordings((x, labels), split=splits(), bin_ms=2.0, name="mine").events()
    assert (whole.name, whole.shape, whole.n_steps, whole.bin_ms) == ("mine", (4, 1, 1), 5, 2.0)
    pairs = qspinn.Recordings(list(zip(x, labels, strict=True)), split=list(splits()), bin_ms=2.0).events()
    apart = {part: (x[splits() == part], labels[splits() == part]) for part in PARTS}
    three = qspinn.Recordings(apart["train"], validation=apart["validation"], test=apart["test"], bin_ms=2.0)
    assert whole.checksum() == pairs.checksum() == three.events().checksum()
    three.save(tmp_path / "mine.npz")
    assert qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"))).checksum() == whole.checksum()
    by_rule = qspinn.Recordings((x, labels), bin_ms=2.0).events()
    np.savez(tmp_path / "mine.npz", x=x, labels=labels, bin_ms=2.0)
    assert qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"))).checksum() == by_rule.checksum()


def test_images_and_names_of_classes() -> None:
    x = np.random.default_rng(1).integers(0, 256, (N, 3, 4)).astype(np.uint8)
    words = [("b", "a", "c")[k % 3] for k in range(N)]
    found = qspinn.Recordings(zip(x, words, strict=True), class_names=("c", "b", "a"), split=splits()).images()
    assert (found.shape, found.labels) == ((3, 4), ("c", "b", "a"))
    assert np.array_equal(found.test.images, x[splits() == "test"].reshape(-1, 12))
    halves = qspinn.Recordings((x / 255, words), scale=255.0, split=splits()).images()
    assert np.array_equal(halves.test.images, found.test.images)


def test_tensors_data_sets_and_loaders_of_torch() -> None:
    torch = pytest.importorskip("torch")
    x, labels = raster()
    expected = qspinn.Recordings((x, labels), bin_ms=2.0).events().checksum()
    tensors = torch.tensor(x, dtype=torch.float32, requires_grad=True), torch.tensor(labels)
    assert qspinn.Recordings(tensors, bin_ms=2.0).events().checksum() == expected
    items = torch.utils.data.TensorDataset(*tensors)
    assert qspinn.Recordings(items, bin_ms=2.0).events().checksum() == expected
    for size in (7, N, None):
        loader = torch.utils.data.DataLoader(items, batch_size=size)
        assert qspinn.Recordings(loader, bin_ms=2.0).events().checksum() == expected
    with pytest.raises(DataError, match="is no tensor that NumPy can hold"):
        qspinn.Recordings((tensors[0].bfloat16(), labels), bin_ms=2.0)


def test_events_as_tonic_has_them(tmp_path: Path) -> None:
    source = Gestures()
    made = qspinn.Recordings(source, sensor_size=source.sensor_size, bin_ms=1.0, split=splits())
    found = made.events()
    assert (found.shape, found.n_steps, found.name) == ((2, 5, 6), 10, "recordings")
    expected = np.zeros((10, N, 2, 5, 6), np.uint8)
    for i in range(N):
        for x, y, t, p in source[i][0].tolist():
            expected[t // 1000, i, int(p), y, x] = 1
    assert np.array_equal(found.validation.dense(), expected[:, splits() == "validation"])
    made.save(tmp_path / "mine.npz")
    again = qspinn.load_data(EventData(file=str(tmp_path / "mine.npz")))
    assert again.checksum() == found.checksum()
    short = qspinn.Recordings(source, sensor_size=source.sensor_size, bin_ms=1.0, n_bins=4)
    short.save(tmp_path / "short.npz")
    assert qspinn.load_data(EventData(file=str(tmp_path / "short.npz"))).n_steps == short.events().n_steps == 4


def test_no_torch_is_needed_for_arrays() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, timeout=120)


def endless() -> Iterator[tuple[np.ndarray, int]]:
    while True:
        yield np.zeros((2, 2), np.uint8), 0


X, LABELS = raster()
EVENTS = np.zeros(3, EVENT)
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no source": (3, {}, r"recordings: is no source of recordings; got 'int'"),
    "an array alone": (X, {}, r"recordings: is no source of pairs; got 'ndarray'; allowed: \(x, labels\)"),
    "a table": ({"x": X}, {}, r"recordings: is no source of pairs; got 'dict'"),
    "types": ([(X[0], 0), (X[0].astype("M8[s]"), 1)], {}, r"recordings: holds recordings of several shapes or types"),
    "no pair": ([X[0], X[1]], {}, r"recordings\[0\]: is no pair"),
    "nothing": ([], {}, r"recordings: holds no recordings"),
    "shapes": ([(X[0], 0), (X[0, :3], 1)], {}, r"recordings: holds recordings of several shapes"),
    "two of three": ((X, LABELS), {"test": (X, LABELS)}, r"takes all three splits.*\['train', 'test'\]"),
    "split and parts": (
        (X, LABELS),
        {"test": (X, LABELS), "validation": (X, LABELS), "split": splits()},
        "takes all three splits",
    ),
    "no sensor": ([(EVENTS, 0)], {}, r"Recordings\.sensor_size: is needed for events"),
    "a sensor": ((X, LABELS), {"sensor_size": (3, 3)}, r"sensor_size: is for events, and here are arrays"),
    "sensor": ([(EVENTS, 0)], {"sensor_size": (3, 3, 1)}, r"sensor_size: is no size of a sensor with two polarities"),
    "unit": ((X, LABELS), {"time_unit": "s"}, r"Recordings\.time_unit: is for events"),
    "no events": (
        [(np.zeros(3, [("x", "i4")]), 0)],
        {"sensor_size": (3, 3)},
        r"recordings\[0\]: is no array of events",
    ),
    "bin": ((X, LABELS), {"bin_ms": -1.0}, r"Recordings\.bin_ms: is no number of 0 or more; got -1\.0"),
    "bins": ((X, LABELS), {"n_bins": -1}, r"Recordings\.n_bins"),
    "scale": ((X, LABELS), {"scale": "2"}, r"Recordings\.scale: is no number"),
    "name": ((X, LABELS), {"name": ""}, r"Recordings\.name: is no name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_source_is_said_by_name(name: str) -> None:
    source, settings, message = WRONG[name]
    with pytest.raises((ConfigError, DataError), match=message):
        qspinn.Recordings(source, **settings)


def test_a_source_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qspinn.data.own.recordings.MOST_ITEMS", 100)
    with pytest.raises(DataError, match="recordings: does not end"):
        qspinn.Recordings(endless())


def test_unequal_numbers_and_shared_recordings_are_refused() -> None:
    with pytest.raises(DataError, match="recordings: labels: are not as many as the recordings; got 59; allowed: 60"):
        qspinn.Recordings((X, LABELS[:-1]), bin_ms=1.0).events()
    three = {"validation": (X, LABELS), "test": (X[::-1], LABELS[::-1]), "bin_ms": 1.0}
    with pytest.raises(DataError, match="recordings: splits share recordings"):
        qspinn.Recordings((X, LABELS), **three).events()
    assert qspinn.Recordings((X, LABELS), **three, allow_shared=True).events().allow_shared
    with pytest.raises(DataError, match=r"allow_shared: is neither True nor False"):
        qspinn.Recordings((X, LABELS), bin_ms=1.0, allow_shared=1).events()  # type: ignore[arg-type]

"""Data files of the user's own: every form they may have, the splits made of them, and what is refused, by name."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import DataConfig, Dataset, EventData, EventDataset, EventSet, catalog
from qspinn.data.events.event_set import from_dense
from qspinn.data.own.labels import MOST_CLASSES
from qspinn.errors import ConfigError, DataError
from qspinn.records.record import content_key, from_plain, to_plain

N = 60
PARTS = ("train", "validation", "test")


def raster(n: int = N, shape: tuple[int, ...] = (4, 3), seed: int = 0) -> np.ndarray:
    """Random spikes [n, 6, *shape]."""
    return (np.random.default_rng(seed).random((n, 6, *shape)) < 0.4).astype(np.uint8)


def classes(n: int = N) -> np.ndarray:
    return np.arange(n) % 3


def names_of_splits(n: int = N) -> np.ndarray:
    """A split of each recording in which every split has every class."""
    return np.array(PARTS)[np.arange(n) // 3 % 3]


def events(folder: Path, *, settings: dict[str, Any] | None = None, **arrays: Any) -> EventDataset:
    """The data set of these arrays, through a file."""
    np.savez(folder / "mine.npz", **arrays)
    found = qspinn.load_data(EventData(file="mine.npz", folder=str(folder), **(settings or {})))
    assert isinstance(found, EventDataset)
    return found


def images(folder: Path, *, settings: dict[str, Any] | None = None, **arrays: Any) -> Dataset:
    np.savez(folder / "mine.npz", **arrays)
    found = qspinn.load_data(DataConfig(file="mine.npz", folder=str(folder), **(settings or {})))
    assert isinstance(found, Dataset)
    return found


def same(a: EventSet, b: EventSet) -> bool:
    return bool(np.array_equal(a.dense(), b.dense()) and np.array_equal(a.labels, b.labels))


def good(**changed: Any) -> dict[str, Any]:
    """Arrays of a file that is taken, with some changed; None leaves one out."""
    whole = {"x": raster(), "labels": classes(), "bin_ms": 2.0} | changed
    return {name: array for name, array in whole.items() if array is not None}


@pytest.mark.parametrize(("axes", "shape"), [((4,), (4, 1, 1)), ((3, 4), (1, 3, 4)), ((2, 3, 4), (2, 3, 4))])
def test_a_dense_raster_of_any_rank(axes: tuple[int, ...], shape: tuple[int, int, int], tmp_path: Path) -> None:
    x, split = raster(shape=axes), names_of_splits()
    found = events(tmp_path, x=x, labels=classes(), split=split, bin_ms=2.5)
    assert (found.name, found.shape, found.n_steps, found.bin_ms) == ("mine.npz", shape, 6, 2.5)
    assert found.labels == ("0", "1", "2")
    for part, events_of_part in found.parts():
        chosen = split == part
        expected = from_dense(x[chosen].reshape(chosen.sum(), 6, *shape), classes()[chosen], order="BT")
        assert same(events_of_part, expected)
    assert found.split_rule == "mine.npz, splits as the file says"


def test_packed_events_and_arrays_of_each_split_are_the_same_data(tmp_path: Path) -> None:
    x, split = raster() * np.random.default_rng(1).integers(1, 4, (N, 6, 4, 3)).astype(np.uint8), names_of_splits()
    dense = events(tmp_path, x=x, labels=classes(), split=split, bin_ms=2.0)
    store = from_dense(x[:, :, None], classes(), order="BT")
    one = {"offsets": store.offsets, "index": store.index, "count": store.count, "labels": store.labels}
    packed = events(tmp_path, **one, shape=np.array([1, 4, 3]), split=split, bin_ms=2.0)
    three = {}
    for part in PARTS:
        own = store.take(split == part)
        three |= {f"offsets_{part}": own.offsets, f"index_{part}": own.index.astype(np.int32)}
        three |= {f"count_{part}": own.count.astype(np.int64), f"labels_{part}": own.labels}  # type: ignore[union-attr]
    apart = events(tmp_path, **three, shape=np.array([1, 4, 3]), bin_ms=2.0)
    assert dense.checksum() == packed.checksum() == apart.checksum()
    assert dense.max_count == 3


def test_event_columns_are_binned(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    n_each = rng.integers(1, 9, N)
    offsets = np.cumsum([0, *n_each])
    t = np.concatenate([np.sort(rng.integers(0, 9000, n)) for n in n_each])
    x, y, p = (rng.integers(0, high, len(t)) for high in (5, 4, 2))
    columns = {"x": x, "y": y, "t": t, "p": p, "offsets": offsets, "labels": classes(), "split": names_of_splits()}
    found = events(tmp_path, **columns, sensor=np.array([4, 5]), settings={"bin_ms": 3.0, "allow_shared": True})
    assert (found.shape, found.n_steps, found.bin_ms) == ((2, 4, 5), t.max() // 3000 + 1, 3.0)
    expected = np.zeros((found.n_steps, N, 2, 4, 5), np.uint8)
    for i in range(N):
        for k in range(offsets[i], offsets[i + 1]):
            expected[t[k] // 3000, i, p[k], y[k], x[k]] = 1
    for part, events_of_part in found.parts():
        assert np.array_equal(events_of_part.dense(), expected[:, names_of_splits() == part])
    in_seconds = columns | {"t": t / 1e6, "time_unit": "s", "bin_ms": 3.0}
    seconds = events(tmp_path, **in_seconds, sensor=np.array([4, 5]), settings={"allow_shared": True})
    assert seconds.checksum() == found.checksum()
    short = events(
        tmp_path, **columns, sensor=np.array([4, 5]), settings={"bin_ms": 3.0, "n_bins": 2, "allow_shared": True}
    )
    assert np.array_equal(short.test.dense(), found.test.dense()[:2])


def test_stored_bins_are_merged_where_longer_ones_are_asked_for(tmp_path: Path) -> None:
    arrays = good(split=names_of_splits())
    short, long = events(tmp_path, **arrays), events(tmp_path, **arrays, settings={"bin_ms": 6.0})
    assert (short.n_steps, short.bin_ms, long.n_steps, long.bin_ms) == (6, 2.0, 2, 6.0)
    assert np.array_equal(long.train.dense(), short.train.dense().reshape(2, 3, -1).sum(axis=1).reshape(2, -1, 1, 4, 3))
    present = events(tmp_path, **arrays | {"x": arrays["x"].astype(bool)}, settings={"bin_ms": 6.0})
    assert np.array_equal(present.train.dense(), long.train.dense() > 0)
    with pytest.raises(DataError, match=r"bin_ms: bin_ms is not a multiple.*got 3\.0.*2\.0 ms"):
        events(tmp_path, **arrays, settings={"bin_ms": 3.0})


@pytest.mark.parametrize("flat", [False, True])
def test_images_of_any_size(flat: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (N, 5, 7))
    x = pixels.reshape(N, 35) if flat else pixels
    found = images(tmp_path, x=x, labels=classes(), split=names_of_splits())
    assert found.shape == ((1, 35) if flat else (5, 7))
    assert np.array_equal(found.test.images, pixels.reshape(N, 35)[names_of_splits() == "test"])
    firsts = [split.first for _, split in found.parts()]
    assert firsts == [0, len(found.train.labels), len(found.train.labels) + len(found.validation.labels)]
    shaped = images(tmp_path, x=x, labels=classes(), split=names_of_splits(), shape=np.array([5, 7]))
    assert shaped.shape == (5, 7)
    with pytest.raises(DataError, match=r"mine\.npz: shape: does not fit x; got \(5, 8\)"):
        images(tmp_path, x=x, labels=classes(), shape=np.array([5, 8]))
    shares = images(tmp_path, x=x / 255, labels=classes(), split=names_of_splits(), settings={"scale": 255.0})
    assert np.array_equal(shares.test.images, found.test.images)
    few = images(tmp_path, x=x, labels=classes(), split=names_of_splits(), settings={"n_train": 5})
    assert np.array_equal(few.train.images, found.train.images[:5])


def test_labels_that_are_text_become_classes_in_sorted_order(tmp_path: Path) -> None:
    words = np.array(["pear", "apple", "fig"])[classes()]
    found = events(tmp_path, **good(labels=words, split=names_of_splits()))
    assert found.labels == ("apple", "fig", "pear")
    assert np.array_equal(found.test.labels, np.array([2, 0, 1])[classes()[names_of_splits() == "test"]])
    assert found.split_rule.endswith("classes follow its sorted order: 0 = apple, 1 = fig, 2 = pear")
    as_bytes = events(tmp_path, **good(labels=np.char.encode(words, "utf-8"), split=names_of_splits()))
    assert as_bytes.checksum() == found.checksum()
    own = np.array(["fig", "pear", "apple"])
    named = events(tmp_path, **good(labels=words, split=names_of_splits(), class_names=own))
    assert named.labels == ("fig", "pear", "apple")
    assert np.array_equal(named.test.labels, np.array([1, 2, 0])[classes()[names_of_splits() == "test"]])
    numbered = events(tmp_path, **good(split=names_of_splits(), class_names=own))
    assert numbered.labels == ("fig", "pear", "apple")
    assert np.array_equal(numbered.test.labels, classes()[names_of_splits() == "test"])


def test_the_rule_splits_by_content_whatever_the_order(tmp_path: Path) -> None:
    x, labels = raster(200), classes(200)
    x[150:] = x[:50]
    labels[150:] = labels[:50]
    found = events(tmp_path, **good(x=x, labels=labels))
    assert found.shared() == {}
    sizes = {part: np.array(n) for part, n in found.class_counts().items()}
    whole = np.bincount(labels)
    assert (np.abs(sizes["train"] - 0.7 * whole) <= 3).all()
    assert (np.abs(sizes["test"] - 0.15 * whole) <= 3).all()
    assert sum(n.sum() for n in sizes.values()) == 200
    order = np.random.default_rng(5).permutation(200)
    again = events(tmp_path, **good(x=x[order], labels=labels[order]))
    assert again.checksum() == found.checksum()
    assert "the first 70 % for training, the next 15 % for validation, the last 15 % for test" in found.split_rule


def test_a_class_that_test_lacks_is_noted_and_one_that_training_lacks_refused(tmp_path: Path) -> None:
    split = names_of_splits()
    split[(classes() == 1) & (split == "test")] = "train"
    assert "test holds no recording of 1" in events(tmp_path, **good(split=split)).split_rule
    split = names_of_splits()
    split[(classes() == 1) & (split == "train")] = "test"
    with pytest.raises(DataError, match=r"mine\.npz: train: holds no recording of some classes; got \['1'\].*add"):
        events(tmp_path, **good(split=split))
    with pytest.raises(DataError, match=r"mine\.npz: train: holds no recording.*got \['0'\]; fix: number .* from 0"):
        images(tmp_path, x=raster()[:, :, 0], labels=classes() + 1, split=names_of_splits())


def test_shared_recordings_are_refused_unless_allowed(tmp_path: Path) -> None:
    x = raster()
    x[names_of_splits() == "test"] = x[names_of_splits() == "train"][: (names_of_splits() == "test").sum()]
    arrays = good(x=x, split=names_of_splits())
    with pytest.raises(DataError, match=r"mine\.npz: splits share recordings.*train and test share 18.*allow_shared"):
        events(tmp_path, **arrays)
    assert events(tmp_path, **arrays, settings={"allow_shared": True}).shared() == {("train", "test"): 18}
    arrays = {"x": x.reshape(N, 6, -1) * 100, "labels": classes(), "split": names_of_splits()}
    with pytest.raises(DataError, match=r"mine\.npz: splits share recordings"):
        images(tmp_path, **arrays)
    assert images(tmp_path, **arrays, settings={"allow_shared": True}).allow_shared


def test_fractions_are_counts_only_where_a_scale_says_so(tmp_path: Path) -> None:
    x = raster() * np.float32(0.5)
    with pytest.raises(DataError, match=r"mine\.npz: x: holds floats where counts are asked; got .float32.*scale = 1"):
        events(tmp_path, **good(x=x))
    scaled = events(tmp_path, **good(x=x, split=names_of_splits()), settings={"scale": 2.0})
    assert scaled.checksum() == events(tmp_path, **good(split=names_of_splits())).checksum()
    assert events(tmp_path, **good(x=raster().astype(float))).checksum() == events(tmp_path, **good()).checksum()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no x": ({"x": None}, r"mine\.npz: holds no array 'x'; got .*labels.*allowed.*add x"),
    "no labels": ({"labels": None}, r"mine\.npz: holds no array 'labels'"),
    "no bin length": ({"bin_ms": None}, r"mine\.npz: bin_ms: is not given.*data\.bin_ms = 5\.0"),
    "no length": ({"bin_ms": 0.0}, r"bin_ms: is no length; got 0\.0"),
    "misspelt": ({"splitt": names_of_splits()}, r"not understood; got 'splitt'; allowed: .*did you mean 'split'"),
    "objects": ({"labels": classes().astype(object)}, r"mine\.npz: labels: holds Python objects.*'object'.*dtype=str"),
    "unequal": (
        {"labels": classes(N - 1)},
        r"mine\.npz: labels: are not as many as the recordings; got 59; allowed: 60",
    ),
    "empty": ({"x": raster(0), "labels": classes(0)}, r"holds no recordings"),
    "NaN": ({"x": np.full((N, 6, 4), np.nan)}, r"mine\.npz: x\[0, 0, 0\]: holds NaN"),
    "negative": ({"x": raster().astype(int) - 1}, r"mine\.npz: x\[0, .*out of range; got -1; allowed: 0\.\.255"),
    "too many events": ({"x": raster().astype(int) * 256}, r"mine\.npz: x\[0, .*got 256; allowed: 0\.\.255"),
    "complex": ({"x": raster() * 1j}, r"mine\.npz: x: holds no integers; got 'complex128'"),
    "text": ({"x": raster().astype(str)}, r"mine\.npz: x: holds no integers"),
    "two axes": ({"x": raster()[:, :, 0, 0]}, r"x: has the wrong shape; got \(60, 6\); allowed: \[N, T, C\]"),
    "six axes": ({"x": raster()[..., None, None, None]}, r"x: has the wrong shape.*\[N, T, C, H, W\]"),
    "no steps": ({"x": raster()[:, :0]}, r"x: has the wrong shape; got \(60, 0, 4, 3\)"),
    "one-hot": ({"labels": np.eye(3, dtype=int)[classes()]}, r"labels: has the wrong shape.*labels\.argmax"),
    "float labels": ({"labels": classes().astype(float)}, r"labels: holds no integers; got 'float64'"),
    "negative label": ({"labels": classes() - 1}, r"mine\.npz: labels\[0\]: .*got -1"),
    "too many classes": (
        {"labels": np.arange(N) * 1000},
        rf"mine\.npz: labels: are of too many classes; got 59001; allowed: 1\.\.{MOST_CLASSES}",
    ),
    "few of a class": ({"labels": np.minimum(np.arange(N), 1)}, r"class 0 has too few recordings.*got 1; allowed: 3"),
    "unknown class": (
        {"labels": np.array(["a", "b", "c"])[classes()], "class_names": np.array(["a", "b", "d"])},
        r"mine\.npz: labels\[2\]: is none of class_names; got 'c'; allowed: a, b, d",
    ),
    "class without a name": (
        {"class_names": np.array(["a", "b"])},
        r"labels\[2\]: has no name; got 2; allowed: 0\.\.1",
    ),
    "class named twice": ({"class_names": np.array(["a", "b", "b"])}, r"class_names: name a class twice; got \['b'\]"),
    "names as numbers": ({"class_names": np.arange(3)}, r"class_names: are no names of classes"),
    "unknown split": ({"split": np.full(N, "valid")}, r"split\[0\]: names no split; got 'valid'; .*'validation'"),
    "short split": ({"split": names_of_splits(5)}, r"mine\.npz: split: does not name a split of each recording"),
    "empty split": ({"split": np.full(N, "train")}, r"mine\.npz: validation: holds no recordings; got 0"),
    "a part alone": (
        {"x": None, "labels": None, "x_train": raster(), "labels_train": classes()},
        r"mine\.npz: holds no split for validation; got \['train'\].*x_test, labels_test",
    ),
    "a part without labels": (
        {f"x_{p}": raster(seed=i) for i, p in enumerate(PARTS)}
        | {"x": None, "labels": None, "labels_train": classes(), "labels_test": classes()},
        r"mine\.npz: holds no array 'labels_validation'",
    ),
    "split and parts": ({"x_train": raster(), "labels_train": classes()}, r"not understood; got 'x'"),
    "dates": ({"x": raster().astype("M8[s]")}, r"x: holds no integers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_said_by_name(name: str, tmp_path: Path) -> None:
    changed, message = WRONG[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=message):
            events(tmp_path, **good(**changed))


PACKED: dict[str, tuple[dict[str, Any], str]] = {
    "no shape": ({"shape": None}, r"mine\.npz: holds no array 'shape'"),
    "wrong shape": ({"shape": np.array([2, 3])}, r"mine\.npz: shape: has the wrong shape"),
    "no address": ({"index": np.full(8, 12)}, r"mine\.npz: index\[0\]: .*got 12; allowed: 0\.\.11"),
    "falling offsets": ({"offsets": np.array([[0, 2, 1], [1, 5, 8]])}, r"mine\.npz: offsets"),
    "flat offsets": ({"offsets": np.array([0, 4, 8])}, r"mine\.npz: offsets: has the wrong shape"),
    "labels": ({"labels": classes(5)}, r"mine\.npz: labels: are not as many as the recordings; got 5; allowed: 2"),
    "count of 0": ({"count": np.zeros(8, int)}, r"mine\.npz: count\[0\]"),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_is_wrong_with_packed_events_is_said_by_name(name: str, tmp_path: Path) -> None:
    changed, message = PACKED[name]
    arrays = {
        "offsets": np.array([[0, 2, 4], [4, 6, 8]]),
        "index": np.array([0, 1, 0, 1, 2, 3, 2, 3]),
        "shape": np.array([1, 3, 4]),
        "labels": np.array([0, 1]),
        "bin_ms": 1.0,
    } | changed
    with pytest.raises(DataError, match=message):
        events(tmp_path, **{k: v for k, v in arrays.items() if v is not None})


COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "no sensor": ({"sensor": None}, r"mine\.npz: holds no array 'sensor'.*\(height, width\)"),
    "off the sensor": ({"x": np.array([0, 9, 0, 0])}, r"mine\.npz: recording 0\.x\[1\]: is outside the sensor.*got 9"),
    "disorder": ({"t": np.array([5, 1, 0, 0])}, r"mine\.npz: recording 0\.t\[1\]: .*order.*sort the events"),
    "floats": ({"t": np.array([0.5, 1, 2, 3])}, r"mine\.npz: t: holds floats, whose unit is not known"),
    "polarity": ({"p": np.array([0, 1, 2, 3])}, r"mine\.npz: p\[2\]: is no polarity"),
    "offsets": ({"offsets": np.array([0, 2, 5])}, r"offsets: does not say where.*ascending from 0 to 4"),
    "lengths": ({"x": np.array([0, 1])}, r"mine\.npz: .*columns have different lengths"),
    "no axis": ({"t": np.array(3)}, r"mine\.npz: t: has the wrong shape; got \(\)"),
    "far": ({"t": np.array([1 << 60] * 4)}, r"mine\.npz: t: needs too many steps.*subtract the time"),
    "labels": ({"labels": classes(5)}, r"mine\.npz: labels: are not as many as the recordings; got 5; allowed: 2"),
    "many steps": ({"t": np.array([1 << 37] * 4)}, r"mine\.npz: t: needs too many steps; got 137438954"),
    "large sensor": ({"sensor": np.array([4, 40_000])}, r"mine\.npz: sensor\[1\]: .*40000"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_is_wrong_with_event_columns_is_said_by_name(name: str, tmp_path: Path) -> None:
    changed, message = COLUMNS[name]
    arrays = {field: np.array([0, 1, 0, 1]) for field in ("x", "y", "p")} | {
        "t": np.array([1, 2, 1, 2]),
        "offsets": np.array([0, 2, 4]),
        "labels": np.array([0, 1]),
        "sensor": np.array([4, 5]),
        "bin_ms": 1.0,
    }
    with pytest.raises((ConfigError, DataError), match=message):
        events(tmp_path, **{k: v for k, v in (arrays | changed).items() if v is not None})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((N, 4, 4)),
            r"mine\.npz: x: holds floats where pixels 0\.\.255 are asked; got 'float64'.*scale = 255",
        ),
        (np.full((N, 4), 256), r"mine\.npz: x\[0, 0\]: .*got 256; allowed: 0\.\.255"),
        (np.zeros((N, 4, 4, 3), np.uint8), r"mine\.npz: x: has the wrong shape; got \(60, 4, 4, 3\)"),
        (np.full((N, 4), np.nan), r"mine\.npz: x\[0, 0\]: holds NaN"),
        (np.zeros((N + 1, 4), np.uint8), r"mine\.npz: labels: are not as many as the recordings; got 60; allowed: 61"),
    ],
)
def test_what_are_no_images_is_said_by_name(x: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        images(tmp_path, x=x, labels=classes())


def archive(place: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)


def npy(header: str, data: bytes = b"") -> bytes:
    """An array file of any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def stored(array: np.ndarray) -> bytes:
    raw = io.BytesIO()
    np.save(raw, array)
    return raw.getvalue()


HUGE = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 1000), }", b"\0" * 64)
HOSTILE: dict[str, tuple[dict[str, bytes] | bytes, str]] = {
    "huge": ({"x.npy": HUGE}, r"mine\.npz: x: announces another size than it has; got .*1000000"),
    "negative": (
        {"x.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8), }")},
        r"x: announces another",
    ),
    "short": ({"x.npy": stored(raster())[:-5]}, r"mine\.npz: x: announces another size"),
    "long": ({"x.npy": stored(raster()) + b"\0"}, r"mine\.npz: x: announces another size"),
    "header": ({"x.npy": npy("{'descr': (")}, r"mine\.npz: cannot be read"),
    "no array": ({"x.npy": b"nothing"}, r"mine\.npz: cannot be read"),
    "version": ({"x.npy": b"\x93NUMPY\x09\x00" + b" " * 80}, r"mine\.npz"),
    "fields": ({"x.npy": stored(np.zeros(3, [("x", "i4")]))}, r"mine\.npz: x: is no plain array"),
    "other file": ({"x.txt": b"hello"}, r"something else than arrays.*got 'x\.txt'"),
    "no zip": (b"nothing of a zip", r"mine\.npz: is no \.npz file, or a damaged one"),
    "nothing": (b"", r"mine\.npz: is no \.npz file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_and_hostile_files_are_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    place = tmp_path / "mine.npz"
    if isinstance(content, bytes):
        place.write_bytes(content)
    else:
        archive(place, content)
    with pytest.raises(DataError, match=message):
        qspinn.load_data(EventData(file=str(place), bin_ms=1.0))


def test_a_file_damaged_at_any_byte_is_refused_or_read_as_other_numbers(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "good.npz", **good(x=raster(N, (2,))))
    whole = (tmp_path / "good.npz").read_bytes()
    refused = 0
    for at in range(0, len(whole), 23):
        (tmp_path / "mine.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            qspinn.load_data(EventData(file=str(tmp_path / "mine.npz")))
        except DataError as error:
            refused += "mine.npz" in str(error)
    assert refused > len(whole) // 23 * 0.6
    for cut in (1, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "mine.npz").write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"mine\.npz: is no \.npz file, or a damaged one"):
            qspinn.load_data(EventData(file=str(tmp_path / "mine.npz")))


def test_an_array_given_twice_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with zipfile.ZipFile(tmp_path / "mine.npz", "w") as file:
            for _ in range(2):
                file.writestr("x.npy", stored(raster()))
    with pytest.raises(
        DataError, match=r"mine\.npz: holds something else than arrays, or an array twice; got 'x\.npy'"
    ):
        qspinn.load_data(EventData(file=str(tmp_path / "mine.npz")))


def test_more_than_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qspinn.data.npz.MOST_BYTES", 1000)
    with pytest.raises(DataError, match=r"mine\.npz: is too large, once unpacked; got .*bytes.*up to 1,000 bytes"):
        events(tmp_path, **good())


def test_a_configuration_names_a_set_or_a_file() -> None:
    assert EventData(file="a.npz") == EventData(name="npz", file="a.npz")
    assert DataConfig(file="a.npz").name == "npz"
    assert from_plain(DataConfig, {"file": "a.npz"}).name == "npz"
    assert from_plain(qspinn.Experiment, {"name": "e", "data": {"file": "a.npz"}}).data.name == "npz"
    assert (DataConfig().title, EventData(file="place/a.npz").title) == ("digits", "a.npz")
    for make in (
        lambda: DataConfig(name="digits", file="a.npz"),
        lambda: EventData(name="nmnist8", file="a.npz"),
        lambda: EventData(name="npz"),
    ):
        with pytest.raises(ConfigError, match=r"data\.file: is"):
            make()
    with pytest.raises(ConfigError, match="name"):
        EventData(file="")  # type: ignore[call-arg]
    with pytest.raises(DataError, match=r"data\.file: is missing; got .*nowhere.*--data"):
        qspinn.load_data(EventData(file="a.npz", folder="nowhere"))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (EventData(name="nmnist8", scale=2.0), "scale"),
        (EventData(name="braille7", allow_shared=True), "allow_shared"),
        (DataConfig(scale=2.0), "scale"),
        (DataConfig(name="mnist", allow_shared=True), "allow_shared"),
        (EventData(file="a.npz", size=8), "size"),
    ],
)
def test_settings_of_other_sets_are_refused(config: EventData | DataConfig, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{field}: {config.name} does not have this setting"):
        qspinn.load_data(config)
    with pytest.raises(DataError, match=r"data\.n_bins: is for event columns"):
        _n_bins_of_a_raster()


def _n_bins_of_a_raster() -> None:
    from qspinn.data.own.arrays import events_of
    from qspinn.data.own.forms import Settings

    events_of({k: np.asarray(v) for k, v in good().items()}, Settings(where="a", name="a", n_bins=3))


def test_new_fields_do_not_change_the_keys_of_older_experiments() -> None:
    assert content_key(EventData(name="nmnist8")) == "df88360cc6fa4bfc6657dc16a02ed72113dff66f4efc8602ef827e6ee228eaee"
    assert content_key(DataConfig()) == "a44cae9b36ad7a710dc9081ef3db2ec58e3e14e2946f2548c51ade6f26c10737"
    own = qspinn.Experiment(name="x", data=DataConfig(file="a.npz", allow_shared=True))
    assert to_plain(own)["data"] == {
        "name": "npz",
        "folder": "",
        "n_train": 0,
        "n_validation": 0,
        "n_test": 0,
        "file": "a.npz",
        "allow_shared": True,
    }
    assert from_plain(qspinn.Experiment, to_plain(own)) == own


def test_the_file_lies_beside_the_experiment_unless_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('name = "e"\n[data]\nfile = "mine.npz"\n')
    place = tmp_path / "e.toml"
    assert qspinn.load_experiment(place).data.folder == str(tmp_path)
    assert qspinn.load_experiment(place, ['data.folder="other"']).data.folder == "other"
    absolute = qspinn.load_experiment(place, [f'data.file="{tmp_path}/mine.npz"']).data
    assert (absolute.folder, absolute.file) == ("", f"{tmp_path}/mine.npz")


def test_the_table_names_every_set_once() -> None:
    import typing

    from qspinn.data.events.dataset import EventName
    from qspinn.data.images.dataset import ImageName

    assert catalog.names("events") == typing.get_args(EventName)
    assert catalog.names("images") == typing.get_args(ImageName)
    assert len({(e.kind, e.name) for e in catalog.TABLE}) == len(catalog.TABLE)


@pytest.mark.parametrize("entry", catalog.TABLE, ids=lambda e: f"{e.kind}-{e.name}")
def test_every_entry_of_the_table_has_a_loader_that_takes_its_settings(entry: catalog.Entry) -> None:
    import importlib
    import inspect

    module, _, function = entry.loader.rpartition(".")
    taken = inspect.signature(getattr(importlib.import_module(f"qspinn.data.{module}"), function)).parameters
    assert {"to" if s == "size" else s for s in entry.settings} <= set(taken)
    assert ("folder" in taken) == (entry.source != "none")
    assert not entry.sized or {"n_train", "n_validation", "n_test"} <= set(taken)
    assert entry.bin_ms == (0 if "bin_ms" not in entry.settings else taken["bin_ms"].default)
    fields = EventData if entry.kind == "events" else DataConfig
    assert set(entry.settings) <= set(fields.__struct_fields__)

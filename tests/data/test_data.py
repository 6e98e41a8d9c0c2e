"""Data sets: fixed splits, and damaged files that are named."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from qspinn import data
from qspinn.data import DataConfig, Split
from qspinn.data.images import digits, mnist
from qspinn.errors import ConfigError, DataError


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def test_plain_and_gzip_files_are_read(tmp_path: Path) -> None:
    for name, content in (("x", idx(IMAGES)), ("x.gz", gzip.compress(idx(IMAGES)))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(mnist.read_idx(tmp_path / name), IMAGES)


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        mnist.read_idx(path)
    assert caught.value.where == str(path)
    return str(caught.value)


def test_every_truncation_is_refused_by_name(tmp_path: Path) -> None:
    plain, packed = idx(IMAGES), gzip.compress(idx(IMAGES))
    for cut in range(len(plain)):
        refused(tmp_path / "x", plain[:cut])
    for cut in range(len(packed)):
        refused(tmp_path / "x.gz", packed[:cut])


def test_files_that_unpack_to_any_length_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MOST_BYTES", len(idx(IMAGES)))
    for name, content in (("x", idx(IMAGES)), ("x.gz", gzip.compress(idx(IMAGES)))):
        (tmp_path / name).write_bytes(content)
        assert mnist.read_idx(tmp_path / name).shape == IMAGES.shape
    refused(tmp_path / "x.gz", gzip.compress(bytes(1 << 20)))
    with pytest.raises(DataError, match=r"x\.gz: is too long, once unpacked"):
        mnist.read_idx(tmp_path / "x.gz")


def test_flipped_bytes_of_a_gzip_file_are_refused_or_harmless(tmp_path: Path) -> None:
    packed, path = gzip.compress(idx(IMAGES)), tmp_path / "x.gz"
    for at in range(len(packed)):
        for bit in range(8):
            path.write_bytes(packed[:at] + bytes([packed[at] ^ (1 << bit)]) + packed[at + 1 :])
            try:
                np.testing.assert_array_equal(mnist.read_idx(path), IMAGES)
            except DataError:
                continue


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d\x01" + b"\0" * 8, "not an idx file of unsigned bytes"),
        (b"PNG!....", "not an idx file"),
        (idx(IMAGES) + b"\0", "wrong length; got '41 bytes'; allowed: 40 bytes"),
        (b"\0\0\x08\x00", "header is cut short"),
        (b"\0\0\x08\x03\0\0\0\x02", "header is cut short"),
        (b"\0\0\x08\x04" + struct.pack(">4I", *[1 << 16] * 4), "wrong length"),
        (b"", "not an idx file"),
    ],
)
def test_wrong_files_are_said_to_be(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(tmp_path / "x", content)


def folder_of(tmp_path: Path, n_train: int = 12, n_test: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for kind, n in (("train", n_train), ("t10k", n_test)):
        (tmp_path / f"{kind}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)))
        labels = (np.arange(n) % 10).astype(np.uint8)
        (tmp_path / f"{kind}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_mnist_splits_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "N_VALIDATION", 4)
    folder = folder_of(tmp_path, 15)
    whole = data.load(DataConfig(name="mnist", folder=str(folder)))
    assert [len(s.labels) for s in (whole.train, whole.validation, whole.test)] == [11, 4, 3]
    assert [s.first for s in (whole.train, whole.validation, whole.test)] == [0, 11, 15]
    assert whole.validation.labels.tolist() == [1, 2, 3, 4]
    monkeypatch.setenv("QSPINN_DATA", str(folder.parent))
    folder.rename(folder.parent / "mnist")
    assert data.load(DataConfig(name="mnist")).checksum() == whole.checksum()
    few = data.load(DataConfig(name="mnist", n_train=10, n_validation=1, n_test=1))
    assert [len(s.labels) for s in (few.train, few.validation, few.test)] == [10, 1, 1]
    assert few.validation.first == 11
    assert few.checksum() != whole.checksum()


def test_missing_and_mismatched_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no MNIST idx files.*QSPINN_DATA"):
        mnist.load(str(tmp_path))
    folder = folder_of(tmp_path)
    with pytest.raises(DataError, match="too short; got 12"):
        mnist.load(str(folder))
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: is missing"):
        mnist.load(str(folder))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match="do not belong together"):
        mnist.load(str(folder))


@pytest.mark.parametrize("beside", [True, False], ids=["table", "import"])
def test_digits_are_those_of_scikit_learn(beside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    if not beside:  # a version that keeps its table elsewhere
        monkeypatch.setattr(digits, "TABLE", "nowhere.csv.gz")
    pixels, labels = load_digits(return_X_y=True)
    found = digits.read_table()
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(found[1], labels)
    assert found[1].dtype == np.int64


def test_digits_splits() -> None:
    whole = data.load(DataConfig())
    assert [len(s.labels) for s in (whole.train, whole.validation, whole.test)] == [1197, 300, 300]
    assert [s.first for s in (whole.train, whole.validation, whole.test)] == [0, 1197, 1497]
    assert whole.shape == (8, 8)
    assert whole.train.images.shape == (1197, 64)
    assert (whole.train.images.min(), whole.train.images.max()) == (0, 255)
    assert all(set(s.labels) == set(range(10)) for s in (whole.train, whole.validation, whole.test))
    assert data.load(DataConfig()).checksum() == whole.checksum()
    few = data.load(DataConfig(n_train=34))
    np.testing.assert_array_equal(few.train.images, whole.train.images[:34])
    with pytest.raises(ConfigError, match=r"data\.n_train: leaves no training image of 1 of .*got 33; .*34 and more"):
        data.load(DataConfig(n_train=33))


def test_splits_are_checked() -> None:
    with pytest.raises(DataError, match="uint8"):
        Split(images=np.zeros((2, 3)), labels=np.zeros(2, np.int64), first=0)
    with pytest.raises(DataError, match="do not match the images"):
        Split(images=np.zeros((2, 3), np.uint8), labels=np.zeros(3, np.int64), first=0)


@pytest.mark.skipif(not os.environ.get("QSPINN_DATA"), reason="QSPINN_DATA does not name a folder with MNIST")
def test_real_mnist() -> None:
    whole = data.load(DataConfig(name="mnist"))
    assert [len(s.labels) for s in (whole.train, whole.validation, whole.test)] == [50_000, 10_000, 10_000]
    assert whole.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert whole.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert whole.train.images[0].sum() == 27_525
    assert np.bincount(whole.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_as_frames_of_graded_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "N_VALIDATION", 4)
    folder = str(folder_of(tmp_path, n_train=24))
    images = data.load(DataConfig(name="mnist", folder=folder))
    config = data.EventData(name="mnist_frames", folder=folder, n_bins=3, n_train=15, n_validation=2)
    events = data.load_recordings(config)
    assert (events.shape, events.n_steps, events.max_count) == ((1, 28, 28), 3, 15)
    assert [e.n_samples for _, e in events.parts()] == [15, 2, 3]
    for events_of, split, n in ((events.train, images.train, 15), (events.validation, images.validation, 2)):
        expected = np.broadcast_to(split.images[:n] >> 4, (3, n, 784)).reshape(3, n, 1, 28, 28)
        np.testing.assert_array_equal(events_of.dense(), expected)
        np.testing.assert_array_equal(events_of.graded().dense(), expected.reshape(3, n, 784))
        assert events_of.labels.tolist() == split.labels[:n].tolist()
    with pytest.raises(ConfigError, match=r"data.bin_ms.*mnist_frames does not have this setting"):
        data.load_recordings(data.EventData(name="mnist_frames", folder=folder, bin_ms=5.0))

"""Small or damaged files of data that announce much, or what no file can hold, are refused by name before memory or
time is taken for them."""

from __future__ import annotations

import io
import itertools
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import EventData, npz
from qspinn.data.events.nmnist import read_packed
from qspinn.data.images.mnist import read_idx
from qspinn.data.own import binned
from qspinn.data.own.forms import counts_of
from qspinn.data.own.labels import absences
from qspinn.errors import DataError

LABELS = np.arange(30) % 2


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    """The bytes of an array's file with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def load(path: Path, **members: bytes) -> Any:
    """The recordings of a file of two, with some members as given."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in ({"x": npy("'|u1'", "(2, 2, 2)", bytes(8))} | members).items():
            file.writestr(f"{name}.npy", data)
    return qspinn.load_data(EventData(file=str(path), bin_ms=5.0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (npy("()", "(3,)", bytes(12)), r"mine\.npz: cannot be read"),
        (npy("'<f4'", f"(0, {10**23})"), r"mine\.npz: cannot be read"),
        (npy("'<U0'", "(100000000,)"), r"mine\.npz: labels: holds texts of no characters"),
        (npy("'<U1'", "(2,)", b"\xff\xff\xff\x7fa\0\0\0"), r"labels: holds code points that no character has"),
        (npy("'>U1'", "(2,)", b"\0\0\xd8\0\0\0\0a"), r"labels: holds code points that no character has"),
    ],
)
def test_headers_and_texts_that_numpy_does_not_survive(labels: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path / "mine.npz", labels=labels)
    for name in ("class_names", "split"):
        with pytest.raises(DataError):
            load(tmp_path / "mine.npz", labels=npy("'<i8'", "(2,)", bytes(16)), **{name: labels})


def test_halves_of_characters_are_refused_in_memory() -> None:
    x = np.ones((30, 2, 2), bool)
    for given in ({"labels": ["a", "\ud800"] * 15}, {"labels": LABELS, "class_names": ["a", "\udfff"]}):
        labels = given.pop("labels")
        with pytest.raises(DataError, match="holds code points that no character has"):
            qspinn.Recordings((x, labels), bin_ms=5.0, **given).events()  # type: ignore[arg-type]


def test_damaged_members_of_every_compression_are_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.random.default_rng(0).random((30, 6, 4)) < 0.4)
    path = tmp_path / "mine.npz"
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("x.npy", content.getvalue())
        data = bytearray(path.read_bytes())
        data[100] ^= 255
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"mine\.npz: (cannot be read|x: )"):
            qspinn.load_data(EventData(file=str(path), bin_ms=5.0))


def test_packed_sets_are_bounded_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nmnist8_train.npz"
    np.savez_compressed(path, delta=np.zeros(1 << 22, np.uint8), offsets=[0], n_bins=[1], label=[0])
    monkeypatch.setattr(npz, "MOST_PACKED", 1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"nmnist8_train\.npz: is too large, once unpacked; got '4,194,"):
            read_packed(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()


def columns(last: int, n: int = 8) -> dict[str, Any]:
    """Columns of n recordings of one event each, the last of which is late [us]."""
    zeros = np.zeros(n, int)
    t = zeros.copy()
    t[-1] = last
    return {"x": np.arange(n), "y": zeros, "t": t, "p": zeros, "offsets": np.arange(n + 1), "sensor": [1, n]} | {
        "labels": np.arange(n) % 2
    }


def test_steps_without_events_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mine.npz", **columns((1 << 24) - 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"t: needs too many steps; got 16777216; .* and 16,777,216 of all"):
            qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=0.001))
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(binned, "FEWEST_ROWS", 1 << 6)
    np.savez(tmp_path / "mine.npz", **columns(63))  # 64 steps of 8 recordings, and 8 events
    assert qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=0.001)).n_steps == 64


def test_scaled_bytes_take_no_floats_of_all_of_them() -> None:
    x = np.zeros((1 << 12, 1 << 12), np.uint8)
    x[-1, -1] = 100
    tracemalloc.start()
    try:
        assert counts_of("x", x, 2.0)[-1, -1] == 200
        assert tracemalloc.get_traced_memory()[1] < 4 * x.nbytes
    finally:
        tracemalloc.stop()
    x[-1, 7] = 128
    with pytest.raises(DataError, match=r"x\[4095, 7\]: holds a value out of range; got 128"):
        counts_of("x", x, 2.0)
    for flat, place in ((np.array([1.0, np.nan]), r"x\[1\]"), (np.ones((3, 2, 2)) * -1, r"x\[0, 0, 0\]")):
        with pytest.raises(DataError, match=place):
            counts_of("x", flat, 2.0)
    assert counts_of("x", np.array([[0.5, 0.25]]), 255.0).tolist() == [[128, 64]]


def test_classes_that_a_split_lacks_are_found_in_one_pass() -> None:
    labels = np.arange(100_000) % 1000
    start = time.perf_counter()
    assert absences("x", {"train": labels, "test": labels[:998]}, tuple(map(str, range(1000)))) == [
        "test holds no recording of 998, 999"
    ]
    assert time.perf_counter() - start < 3.0


class Long:
    """A source that says it has a billion items."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        raise AssertionError("is not asked for items")


def test_sources_without_an_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="has too many items; got 1000000000"):
        qspinn.Recordings(Long(), bin_ms=5.0)
    monkeypatch.setattr("qspinn.data.own.recordings.MOST_BYTES", 1 << 20)
    with pytest.raises(DataError, match="holds too much, or does not end; got 'over 1,0"):
        qspinn.Recordings(itertools.repeat((np.zeros((64, 64), np.uint8), 0)), bin_ms=5.0)


def test_idx_files_of_more_axes_than_arrays_have_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.idx"
    for rank in (9, 65, 255):
        path.write_bytes(b"\0\0\x08" + bytes([rank]) + b"\0\0\0\1" * rank + b"\1")
        with pytest.raises(DataError, match=rf"r\.idx: byte 3: announces too many axes; got {rank}; allowed: 1\.\.8"):
            read_idx(path)

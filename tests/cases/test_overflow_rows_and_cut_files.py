"""Overflow rows of N-MNIST, and files that are cut short.

Reported: rows that mean "the counter wrapped" read as events, so that time went back; a file with three stray bytes
gave an event that carried another event's time. Right: times go on after an overflow, stray bytes are an error that
names the byte, and advice names what the reader really takes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qspinn.data.events.nmnist import read_nmnist, read_packed
from qspinn.errors import DataError


def rows(*events: tuple[int, int, int, int]) -> bytes:
    """(x, y, p, t) as five bytes each."""
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, p, t in events)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.bin"


def test_time_goes_on_after_an_overflow(path: Path) -> None:
    path.write_bytes(rows((1, 2, 1, 100), (0, 240, 0, 0), (3, 4, 0, 200), (0, 240, 0, 0), (5, 6, 1, 300)))
    events = read_nmnist(path)
    assert [tuple(e.tolist()) for e in events] == [(1, 2, 100, True), (3, 4, 8392, False), (5, 6, 16_684, True)]


def test_an_empty_file_has_no_events(path: Path) -> None:
    path.write_bytes(b"")
    assert len(read_nmnist(path)) == 0


@pytest.mark.parametrize("n_stray", [1, 2, 3, 4])
def test_stray_bytes_are_named(path: Path, n_stray: int) -> None:
    path.write_bytes(rows((1, 2, 1, 100)) + b"\x03\x04\x00\x00"[:n_stray])
    with pytest.raises(DataError, match=r"a\.bin: byte 5: file is cut short"):
        read_nmnist(path)


@pytest.mark.parametrize(
    ("events", "byte"),
    [
        (((1, 2, 0, 100), (1, 2, 0, 50)), 5),
        (((1, 2, 0, 100), (0, 240, 0, 0), (1, 1, 0, 9000), (1, 2, 0, 50)), 15),
        (((1, 2, 0, 2**23 - 1), (1, 2, 0, 3)), 5),
    ],
)
def test_time_that_goes_back_is_damage(path: Path, events: tuple, byte: int) -> None:
    path.write_bytes(rows(*events))
    with pytest.raises(DataError, match=rf"byte {byte}: events are not in order.*fix: the file is damaged") as caught:
        read_nmnist(path)
    assert "order=" not in str(caught.value)


GOOD = {
    "delta": np.array([5, 10, 3]),
    "offsets": np.array([0, 2, 3]),
    "n_bins": np.array([3, 4]),
    "label": np.array([0, 1]),
}


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array(3)},
        {"label": np.array(["a", "b"])},
        {"label": np.array([0.0, np.nan])},
        {"label": np.array([0, -1])},
        {"label": np.array([[0, 1]])},
        {"delta": np.array([-5, 1, 3])},
        {"delta": np.array([5.5, 1, 3])},
        {"delta": np.array([2**62, 2**62, 3])},
        {"n_bins": np.array([3.0, np.nan])},
        {"n_bins": np.array([3, 64])},
        {"n_bins": np.array([3, -4])},
        {"offsets": np.array([0, 3, 2])},
        {"offsets": np.array([0, 2, 4])},
        {"offsets": np.array([1, 2, 3])},
        {"offsets": np.array([0.0, 2.0, 3.0])},
        {"delta": np.array([5, 0, 3])},
        {"delta": np.zeros(0, int), "offsets": np.array([0]), "n_bins": np.zeros(0, int), "label": np.zeros(0, int)},
        {"delta": np.array([1, 2, 3j])},
        {"label": np.array([0, 2**63], np.uint64)},
    ],
)
def test_wrong_contents_of_packed_files_name_the_file(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, **(GOOD | change))
    with pytest.raises(DataError) as caught:
        read_packed(path)
    assert caught.value.where == str(path)
    assert caught.value.fix == "copy the file anew"


@pytest.mark.parametrize("kind", ["u1", "i2", ">i4", "u8"])
def test_packed_files_of_any_integers(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "p.npz", **{name: array.astype(kind) for name, array in GOOD.items()})
    got = read_packed(tmp_path / "p.npz")
    assert got.labels.tolist() == [0, 1]
    assert got.index.tolist() == [5, 15, 3]

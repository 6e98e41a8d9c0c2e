"""Events out of order, and everything else that a file could not give back.

Reported: an event that came late was written with an overflow mark, and read 2^16 us later. Right: disorder is sorted
first or refused, and the writer refuses whatever its own reader could not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qspinn.data.events.aedat import read_aedat, write_aedat
from qspinn.data.events.recording import EVENT, check, join, make
from qspinn.errors import ConfigError, DataError


def at(*times: int) -> np.ndarray:
    z = np.zeros(len(times), int)
    return make(z, z, np.array(times), z)


def test_a_late_event_is_sorted_or_refused(tmp_path: Path) -> None:
    late = at(65_530, 65_540, 65_531)
    with pytest.raises(DataError, match=r'not in order of time.*fix: put the events into order first: .*order="sort"'):
        write_aedat(tmp_path / "a", late)
    write_aedat(tmp_path / "a", check(late, (1, 1), order="sort"))
    assert join(read_aedat(tmp_path / "a"))["t"].tolist() == [65_530, 65_531, 65_540]


def test_blocks_in_order_of_time(tmp_path: Path) -> None:
    write_aedat(tmp_path / "a", [at(1, 2), at(), at(2, 2**30), at(2**31 - 1)])
    assert join(read_aedat(tmp_path / "a"))["t"].tolist() == [1, 2, 2, 2**30, 2**31 - 1]
    with pytest.raises(DataError, match=r"block 1\.t\[0\]: events are not in order of time.*got 4; allowed: 5 us"):
        write_aedat(tmp_path / "b", [at(1, 5), at(4, 9)])
    with pytest.raises(DataError, match=r"block 2\.t: events pause for too long"):
        write_aedat(tmp_path / "b", [at(1, 5), at(), at(2**31)])
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("named", "field"),
    [
        *(({"packet_events": n}, "packet_events") for n in (0, -1, 1.5, "4", True, 2**32)),
        *(({"source": s}, "source") for s in ("é", "X\r\nY", "a\n", "", "x" * 2000, "\x00", 3)),
    ],
)
def test_settings_that_no_reader_could_take(tmp_path: Path, named: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"write_aedat\.{field}: is"):
        write_aedat(tmp_path / "a", at(1, 2), **named)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / "folder"):
        with pytest.raises(DataError, match=r"cannot be written.*fix: choose another place") as caught:
            write_aedat(path, at(1, 2))
        assert caught.value.where == str(path)
    assert not list((tmp_path / "folder").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    """Reported: FileNotFoundError, which named a half file. Right: the file is written where it was asked for."""
    write_aedat(tmp_path / "no" / "such" / "a", at(1, 2))
    assert join(read_aedat(tmp_path / "no" / "such" / "a"))["t"].tolist() == [1, 2]


@pytest.mark.parametrize("t", [[2**62, 2**62 + 1], [2**63 - 1], [-1, 2], [-(2**62), 0]])
def test_times_outside_of_the_format(tmp_path: Path, t: list[int]) -> None:
    with pytest.raises(DataError, match=r"events\.t\[0\]"):
        write_aedat(tmp_path / "a", at(*t))


@pytest.mark.parametrize("field", ["x", "y"])
def test_coordinates_outside_of_the_format(tmp_path: Path, field: str) -> None:
    wide = np.zeros(2, [("x", "i4"), ("y", "i4"), ("t", "i8"), ("p", "?")])
    wide[field] = [0, 32_768]
    with pytest.raises(DataError, match=rf"events\.{field}\[1\]: is outside the sensor"):
        write_aedat(tmp_path / "a", wide)


def test_no_events_make_an_empty_file(tmp_path: Path) -> None:
    for nothing in (at(), [], [at(), at()]):
        write_aedat(tmp_path / "a", nothing)
        assert join(read_aedat(tmp_path / "a")).dtype == EVENT

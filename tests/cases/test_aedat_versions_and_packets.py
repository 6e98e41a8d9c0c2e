"""Headers, versions and packets of AEDAT files.

Reported: event words read with another camera's masks; an address byte '#' taken for a header line; special packets and
places without events returned as events; the overflow counter of time ignored; headers of any length but five lines
shifted everything. Right: AEDAT 3.1 as it is written; every other version is named, with what can be done.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from qspinn.data.events.aedat import read_aedat, write_aedat
from qspinn.data.events.recording import join, make
from qspinn.errors import DataError

START, END = b"#!AER-DAT3.1\r\n", b"#!END-HEADER\r\n"


def packet(
    *events: tuple[int, int, int, int],
    kind: int = 1,
    overflow: int = 0,
    valid: tuple[int, ...] = (),
    room: int | None = None,
) -> bytes:
    """Events (x, y, t, p); `valid` are their valid bits, `room` is the capacity that the packet tells."""
    bits = valid or (1,) * len(events)
    body = b"".join(
        struct.pack("<Ii", x << 17 | y << 2 | p << 1 | v, t) for (x, y, t, p), v in zip(events, bits, strict=True)
    )
    return (
        struct.pack("<HHIIIIII", kind, 1, 8, 4, overflow, len(events) if room is None else room, len(events), sum(bits))
        + body
    )


def read(path: Path, content: bytes) -> list[tuple]:
    path.write_bytes(content)
    return [tuple(e.tolist()) for e in join(read_aedat(path))]


@pytest.mark.parametrize(
    "lines", [b"", b"#a\r\n", b"#a\r\n#b\r\n#c\r\n#d\r\n#e\r\n#f\r\n", b"#Format: RAW\r\n#\xe9\r\n"]
)
def test_headers_of_any_length(tmp_path: Path, lines: bytes) -> None:
    assert read(tmp_path / "a", START + lines + END + packet((5, 140, 100, 1), (7, 10, 101, 0))) == [
        (5, 140, 100, True),
        (7, 10, 101, False),
    ]


def test_special_packets_and_invalid_events_are_no_events(tmp_path: Path) -> None:
    content = START + END + packet((0, 256, 0, 0), kind=0) + packet((1, 2, 3, 1), (3, 4, 4, 0), valid=(1, 0))
    assert read(tmp_path / "a", content) == [(1, 2, 3, True)]


@pytest.mark.parametrize("room", [2, 4, 1000, 2**32 - 1])
def test_room_for_more_events_is_no_event(tmp_path: Path, room: int) -> None:
    """A packet of two events with room for four, then one of one event: three events, none made of the next header."""
    content = START + END + packet((1, 2, 3, 1), (3, 4, 4, 0), room=room) + packet((5, 6, 7, 1))
    assert read(tmp_path / "a", content) == [(1, 2, 3, True), (3, 4, 4, False), (5, 6, 7, True)]


def test_the_overflow_counter_is_part_of_the_time(tmp_path: Path) -> None:
    assert read(tmp_path / "a", START + END + packet((0, 0, 5, 1), overflow=1)) == [(0, 0, 2_147_483_653, True)]
    assert read(tmp_path / "a", START + END + packet((0, 0, 5, 1), overflow=2**31 - 1))[0][2] == (2**31 - 1) * 2**31 + 5


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"#!AER-DAT2.0\r\n# x\r\n\x23\x00\x58\x00\x00\x00\x00\x64", "an AEDAT 2.0 file"),
        (b"#!AER-DAT1.0\r\n", "an AEDAT 1 file"),
        (START.replace(b"3.1", b"3.0"), "an AEDAT 3.0 file"),
        (START.replace(b"3.1", b"3.2"), "a file of another AEDAT 3"),
        (START.replace(b"3.1", b"4.0"), "an AEDAT 4 file"),
        (b"% evt 3.0\n", "a Prophesee file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x93NUMPY\x01", "a NumPy array"),
    ],
)
def test_other_formats_are_named_with_what_helps(tmp_path: Path, start: bytes, named: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(start)
    with pytest.raises(DataError, match=rf"but {named}.*; fix: convert it to AEDAT 3\.1$") as caught:
        list(read_aedat(path))
    assert caught.value.where == str(path)


def test_compressed_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content, problem in (
        (START + b"#Format: Serial\r\n" + END, "format is not supported"),
        (START + END + packet((0, 0, 0, 0), kind=0x8001), "compressed packet"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{problem}.*fix: write .*compressed"):
            list(read_aedat(path))
    path.write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"is not an AEDAT 3\.1 file; .*fix: copy the file anew"):
        list(read_aedat(path))


@pytest.mark.parametrize("t", [[0], [2**31 - 1, 2**31], [2**62 - 2, 2**62 - 1]])
@pytest.mark.parametrize("place", [0, 127, 32767])
def test_what_is_written_is_read(tmp_path: Path, t: list[int], place: int) -> None:
    at = np.full(len(t), place)
    events = make(at, place - at, np.array(t), np.arange(len(t)) % 2)
    write_aedat(tmp_path / "a", events)
    np.testing.assert_array_equal(join(read_aedat(tmp_path / "a")), events)

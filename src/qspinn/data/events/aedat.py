"""AEDAT 3.1 files of event cameras, read and written block by block.

A text header (lines that start with '#'), then packets: 28 bytes of header and events of one type. Polarity events
(type 1) are 8 bytes: a word (bit 0 valid, bit 1 brighter, bits 2-16 y, bits 17-31 x) and a time in microseconds of
31 bits, to which the packet's overflow counter adds 2^31 each.

A packet may announce room for more events than it has (capacity above number); only those that it has are in the file.

The format has no checksum. What is damaged is found where it breaks a rule of the format: lengths, counts of events,
the order of time. A file cut exactly between two packets cannot be told from a shorter recording.

Source: iniVation, "AEDAT 3.1" file format. We refuse compressed packets, more events than a packet's capacity, and
jumps of over 2^30 us (18 minutes) between packets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer
from qspinn.data.events.clock import LONGEST_US, Remedies
from qspinn.data.events.recording import Events, assembled, checked, crop_time, each
from qspinn.data.paths import path_of
from qspinn.errors import ConfigError, DataError, WriteError
from qspinn.files import replacing

VERSION, END = b"#!AER-DAT3.1", b"#!END-HEADER"
PACKET = np.dtype(
    [
        ("type", "<u2"),
        ("source", "<u2"),
        ("size", "<u4"),
        ("ts_offset", "<u4"),
        ("overflow", "<u4"),
        ("capacity", "<u4"),
        ("number", "<u4"),
        ("valid", "<u4"),
    ]
)
POLARITY_EVENT = np.dtype([("word", "<u4"), ("t", "<i4")])
POLARITY = 1
LAST_TYPE = 13
"""Types of AEDAT 3.1: 0 special, 1 polarity, 2 frame, 3-4 inertial, 5 sample, 6 ear, 7 config, 8-11 point, 12, 13."""
COMPRESSED = 1 << 15
"""Bit of the type of a compressed packet."""
BLOCK = 1 << 16
"""Most events held at once (half a MiB of the file)."""
MAX_LINE, MAX_LINES = 1 << 12, 1 << 10
MAX_JUMP_US = 1 << 30
MOST_EVENTS = (1 << 32) // 8 - 1
"""Events of a packet of 4 GiB."""
AXIS = 1 << 15
"""Coordinates have 15 bits."""
OTHERS = {
    b"#!AER-DAT1": "an AEDAT 1 file",
    b"#!AER-DAT2": "an AEDAT 2.0 file",
    b"#!AER-DAT3.0": "an AEDAT 3.0 file",
    b"#!AER-DAT3": "a file of another AEDAT 3",
    b"#!AER-DAT4": "an AEDAT 4 file",
    b"% ": "a Prophesee file (DAT, RAW)",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a zip archive (such as .npz)",
    b"\x93NUMPY": "a NumPy array",
}
"""What files begin with that are read as AEDAT 3.1 by mistake."""
CONVERT, COPY = "convert it to AEDAT 3.1", "copy the file anew"
SORT = Remedies(
    'put the events into order first: qspinn.data.events.recording.check(events, sensor, order="sort")',
    'put them into order first: qspinn.data.events.recording.check(events, sensor, order="unwrap"), or '
    'order="sort" and clock_bits=0, if the clock does not wrap here',
)


class _Packet(NamedTuple):
    """Header of a packet and the byte at which it starts."""

    at: int
    type: int
    source: int
    size: int
    ts_offset: int
    overflow: int
    capacity: int
    number: int
    valid: int


def read_aedat(path: str | Path, *, start_us: int | None = None, stop_us: int | None = None) -> Iterator[Events]:
    """The polarity events of a file as blocks of at most `BLOCK`, in order; packets of other types are passed over.

    The file is read once, a block at a time; reading ends after the first packet of which every event is at stop_us or
    later. Events whose valid bit is not set are left out. None are put into order: see `events.check`.

    Args:
        start_us, stop_us: only events with start_us <= t < stop_us.

    Raises:
        DataError: not such a file, truncated or damaged; names the file and the byte.
    """
    low = 0 if start_us is None else integer("read_aedat.start_us", start_us)
    high = LONGEST_US + 1 if stop_us is None else integer("read_aedat.stop_us", stop_us)
    return _blocks(path_of("read_aedat.path", path), low, high)


def _blocks(path: Path, low: int, high: int) -> Iterator[Events]:
    """The events with low <= t < high."""
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), "cannot be read", got=getattr(error, "strerror", None) or str(error), fix=COPY
        ) from None
    with file:
        _text_header(file, path)
        source: int | None = None
        span: tuple[int, int] | None = None
        for packet in _packets(file, path):
            if packet.type != POLARITY:
                file.seek(packet.size * packet.number, os.SEEK_CUR)
                continue
            source = packet.source if source is None else source
            if packet.source != source:
                _damaged(path, packet.at + 2, "event source changes", packet.source, str(source))
            before, earliest = span, None
            for block in _events(file, path, packet):
                if earliest is None:
                    span = _span(block, before, packet, path)
                assert span is not None
                times = int(block["t"].min()), int(block["t"].max())
                earliest = times[0] if earliest is None else min(earliest, times[0])
                span = span[0], max(span[1], times[1])
                inside = crop_time(block, low, high)
                if inside.size:
                    yield inside
            if earliest is not None and earliest >= high:
                return


def _damaged(path: Path, at: int, problem: str, got: object, allowed: str, fix: str = COPY) -> None:
    raise DataError(str(path), f"byte {at}: {problem}", got=got, allowed=allowed, fix=fix)


def _text_header(file: BinaryIO, path: Path) -> None:
    """Reads the lines before the first packet."""
    at = 0
    for number in range(MAX_LINES):
        line = file.readline(MAX_LINE)
        text = line.rstrip(b"\r\n")
        if number == 0 and text != VERSION:
            what = next((what for start, what in OTHERS.items() if line.startswith(start)), "")
            _damaged(
                path,
                at,
                "is not an AEDAT 3.1 file" + (f" but {what}" if what else ""),
                line[:20],
                VERSION.decode(),
                CONVERT if what else COPY,
            )
        if not line.startswith(b"#") or not line.endswith(b"\n"):
            _damaged(path, at, "text header is damaged or cut short", line[:20], f"lines from '#' to {END.decode()}")
        if text.startswith(b"#Format:") and text.split(b":", 1)[1].strip() != b"RAW":
            _damaged(
                path,
                at,
                "format is not supported",
                text.decode("latin1"),
                "#Format: RAW",
                "write it with #Format: RAW, not compressed",
            )
        if text == END:
            return
        at += len(line)
    _damaged(path, at, "text header does not end", f"{MAX_LINES} lines", END.decode())


def _packets(file: BinaryIO, path: Path) -> Iterator[_Packet]:
    """Headers of the packets; between two the caller reads or passes over the events."""
    length = os.fstat(file.fileno()).st_size
    while True:
        at = file.tell()
        data = file.read(PACKET.itemsize)
        if not data:
            return
        if len(data) < PACKET.itemsize:
            _damaged(path, at, "packet header is cut short", f"{len(data)} bytes", f"{PACKET.itemsize} bytes")
        packet = _Packet(at, *np.frombuffer(data, PACKET)[0].item())
        _check_packet(packet, length - at - PACKET.itemsize, path)
        yield packet


def _check_packet(p: _Packet, left: int, path: Path) -> None:
    """Refuses a header that contradicts itself or the length of the file."""
    polarity = p.type == POLARITY
    rules = (
        (p.type <= LAST_TYPE, 0, "unknown event type (or compressed packet)", p.type, f"0..{LAST_TYPE}"),
        (p.size == 8 if polarity else p.size >= 8, 4, "wrong event size", p.size, "8" if polarity else ">= 8"),
        (
            p.ts_offset == 4 if polarity else p.ts_offset <= p.size - 4,
            8,
            "wrong place of the timestamp",
            p.ts_offset,
            "4" if polarity else f"0..{p.size - 4}",
        ),
        (p.overflow < 1 << 31, 12, "timestamp overflow is negative", p.overflow, "0..2**31 - 1"),
        (p.capacity >= p.number, 16, "capacity is below the number of events", p.capacity, f">= {p.number}"),
        (p.size * p.number <= left, 20, "packet is cut short", f"{left} bytes", f"{p.size * p.number} bytes"),
        (p.valid <= p.number, 24, "more valid events than events", p.valid, f"0..{p.number}"),
    )
    for ok, offset, problem, got, allowed in rules:
        if not ok:
            fix = "write the file uncompressed, or copy it anew" if offset == 0 and p.type & COMPRESSED else COPY
            _damaged(path, p.at + offset, problem, got, allowed, fix)


def _events(file: BinaryIO, path: Path, packet: _Packet) -> Iterator[Events]:
    """The valid events of a polarity packet, in blocks."""
    n_valid = 0
    for first in range(0, packet.number, BLOCK):
        at, n = file.tell(), min(BLOCK, packet.number - first)
        data = file.read(n * 8)
        if len(data) < n * 8:  # shorter than when it was opened
            _damaged(path, at, "packet is cut short", f"{len(data)} bytes", f"{n * 8} bytes")
        raw = np.frombuffer(data, POLARITY_EVENT)
        early = np.flatnonzero(raw["t"] < 0)
        if early.size:
            i = int(early[0])
            _damaged(path, at + 8 * i + 4, "timestamp is negative", int(raw["t"][i]), "0..2**31 - 1")
        raw = raw[raw["word"] & 1 == 1]
        n_valid += len(raw)
        word, t = raw["word"], raw["t"] + (np.int64(packet.overflow) << 31)
        if raw.size:
            yield assembled(word >> 17, word >> 2 & AXIS - 1, t, word & 2)
    if n_valid != packet.valid:
        _damaged(path, packet.at + 24, "wrong number of valid events", n_valid, str(packet.valid))


def _span(block: Events, before: tuple[int, int] | None, packet: _Packet, path: Path) -> tuple[int, int]:
    """First and latest time of a packet so far: not before the start of the packet before, nor long after its end."""
    first = int(block["t"][0])
    if before is not None and not before[0] <= first <= before[1] + MAX_JUMP_US:
        _damaged(
            path,
            packet.at + PACKET.itemsize + 4,
            "time of the packet is out of order (wrapped or damaged)",
            first,
            f"{before[0]}..{before[1] + MAX_JUMP_US} us",
        )
    return first, first


def write_aedat(
    path: str | Path, events: Events | Iterable[Events], *, source: str = "DVS128", packet_events: int = 4096
) -> None:
    """Writes events, or blocks of them, in order of time; the file appears whole or not at all.

    Args:
        source: the camera named in the header, printable ASCII.
        packet_events: most events of a packet.

    Raises:
        ConfigError: packet_events or source that a reader could not take.
        DataError: a coordinate over 15 bits, a time outside 0..2^62 - 1, disorder, within a block or from one to the
            next, a pause of over 2^30 us, which readers take for damage, or a file that cannot be written.
    """
    path = path_of("write_aedat.path", path)
    packet_events = integer("write_aedat.packet_events", packet_events, low=1, high=MOST_EVENTS)
    if not isinstance(source, str) or not re.fullmatch(r"[ -~]{1,1000}", source):
        raise ConfigError(
            "write_aedat.source", "is no name of a camera", got=source, allowed="1 to 1000 printable ASCII characters"
        )
    blocks = [events] if isinstance(events, np.ndarray) else each("write_aedat.events", events)
    header = (VERSION, b"#Format: RAW", f"#Source 1: {source}".encode("ascii"), END)
    try:
        with replacing(path) as file:
            file.write(b"".join(line + b"\r\n" for line in header))
            for packet in _cut(blocks, packet_events):
                file.write(packet)
    except WriteError as error:
        raise DataError(str(path), "cannot be written", got=error.got, fix="choose another place") from None


def _cut(blocks: Iterable[Events], packet_events: int) -> Iterator[bytes]:
    """Packets of the blocks, none across a wrap of the timestamp."""
    last = -1
    for number, block in enumerate(blocks):
        where = f"block {number}" if number else "events"
        events = checked(block, (AXIS, AXIS), "reject", None, where, SORT)
        if not events.size:
            continue
        t = events["t"]
        if last > t[0]:
            raise DataError(
                f"{where}.t[0]",
                "events are not in order of time: the block starts before the one before it ends",
                got=int(t[0]),
                allowed=f"{last} us or later",
            )
        pauses = np.diff(t, prepend=t[0] if last < 0 else last)
        if pauses.max() > MAX_JUMP_US:
            raise DataError(
                f"{where}.t", "events pause for too long", got=int(pauses.max()), allowed=f"{MAX_JUMP_US} us"
            )
        last = int(t[-1])
        for part in np.split(events, np.flatnonzero(np.diff(t >> 31)) + 1):
            for start in range(0, len(part), packet_events):
                yield _packet(part[start : start + packet_events])


def _packet(events: Events) -> bytes:
    """Header and bytes of events that share their timestamp overflow."""
    n = len(events)
    header = np.array((POLARITY, 1, 8, 4, int(events["t"][0]) >> 31, n, n, n), dtype=PACKET)
    return header.tobytes() + _raw(events).tobytes()


def _raw(events: Events) -> NDArray[np.void]:
    raw = np.empty(len(events), dtype=POLARITY_EVENT)
    x, y, p = (events[field].astype(np.uint32) for field in ("x", "y", "p"))
    raw["word"] = x << 17 | y << 2 | p << 1 | 1
    raw["t"] = events["t"] & (1 << 31) - 1
    return raw

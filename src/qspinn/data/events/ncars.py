"""N-CARS: cars and background before an event camera, regions of at most 120 x 100 pixels, 100 ms each.

A folder holds n-cars_train/{cars,background} and n-cars_test/{cars,background} with Prophesee's .dat files: text lines
that begin with '%', a byte for the type and one for the size of events, then events of 8 bytes, little-endian: time
[us], and an address of x (bits 0-13), y (bits 14-27) and polarity (bit 28).

Source: Sironi et al. 2018, "HATS: Histograms of Averaged Time Surfaces". The layout of files of version 1 (x in bits
0-8, y in bits 9-16, polarity in bit 17) is known from one reader only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from qspinn.data.events.clock import Remedies
from qspinn.data.events.dataset import EventDataset, Kept, split_off
from qspinn.data.events.dvs_gesture import bins_of, microseconds
from qspinn.data.events.event_set import EventSet, pack
from qspinn.data.events.recording import LARGEST_SIDE, Events, Sensor, assembled, bin_events, checked, sensor_of
from qspinn.data.npz import need
from qspinn.data.paths import files_in, path_of
from qspinn.errors import DataError

SENSOR: Sensor = (100, 120)
CLASSES = ("background", "cars")
DURATION_MS = 100
VALIDATION_SHARE = 0.1
EVENT_SIZE = 8
MAX_LINES, MAX_LINE = 1 << 10, 1 << 12
TYPES = (0, 12)
"""Types of events that are changes of a pixel: of the first cameras, and of later ones (CD)."""
BITS = {1: (9, 8), 2: (14, 14)}
"""Bits of x and of y in an address, by version."""
REMEDIES = Remedies("the file is damaged: copy it anew", "the file is damaged: copy it anew")


def read_dat(path: str | Path, sensor: Sensor | None = None) -> Events:
    """The events of a .dat file.

    Args:
        sensor: (height, width) that events must be on; None: as the file's header says.

    Raises:
        DataError: no such file, truncated, an event outside the sensor, disorder; names the file and the byte.
    """
    path = path_of("read_dat.path", path)
    if sensor is not None:
        sensor = sensor_of(sensor, "read_dat.sensor")
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), "cannot be read", got=getattr(error, "strerror", None) or str(error), fix="copy the file anew"
        ) from None
    at, header = _header(data, path)
    version = header.get("Version", 2)
    if len(data) > at and data[at] not in TYPES:
        raise DataError(
            str(path),
            f"byte {at}: holds events of another type than changes of pixels",
            got=data[at],
            allowed=", ".join(map(str, TYPES)),
            fix="export the events of changes (CD) alone",
        )
    if len(data) < at + 2 or data[at + 1] != EVENT_SIZE:
        raise DataError(
            str(path),
            f"byte {at + 1}: size of events is not given, or another one",
            got=data[at + 1 : at + 2],
            allowed=f"{EVENT_SIZE} bytes",
            fix="copy the file anew",
        )
    body = data[at + 2 :]
    if len(body) % EVENT_SIZE:
        raise DataError(
            str(path),
            f"byte {len(data) - len(body) % EVENT_SIZE}: file is cut short",
            got=f"{len(body)} bytes of events",
            allowed=f"a multiple of {EVENT_SIZE}",
            fix="copy the file anew",
        )
    raw = np.frombuffer(body, "<u4").reshape(-1, 2)
    if sensor is None:
        sensor = (header.get("Height", LARGEST_SIDE), header.get("Width", LARGEST_SIDE))
    return checked(_events(raw, version, path, at + 2, sensor), sensor, "reject", None, str(path), REMEDIES)


def _header(data: bytes, path: Path) -> tuple[int, dict[str, int]]:
    """(byte at which the text lines end, the whole numbers that they give by name)."""
    at, header = 0, dict[str, int]()
    for _ in range(MAX_LINES):
        if data[at : at + 1] != b"%":
            if at == 0:
                break
            return at, header
        end = data.find(b"\n", at, at + MAX_LINE)
        if end < 0:
            raise DataError(str(path), f"byte {at}: text header is damaged or cut short", got=data[at : at + 20])
        found = re.fullmatch(rb"%\s*(version|height|width)\b\s*(.*?)\s*", data[at:end], re.IGNORECASE)
        if found:
            name = found[1].decode().capitalize()
            header[name] = _stated(path, at, name, found[2])
        at = end + 1
    raise DataError(
        str(path),
        "is not a Prophesee .dat file",
        got=data[:20],
        allowed="text lines that begin with '%', then events",
        fix="copy the file anew",
    )


def _stated(path: Path, at: int, name: str, text: bytes) -> int:
    """The number that a line of the header states."""
    allowed = BITS if name == "Version" else range(1, LARGEST_SIDE + 1)
    if not re.fullmatch(rb"\d{1,9}", text) or int(text) not in allowed:
        raise DataError(
            str(path),
            f"byte {at}: {name} is none that can be read",
            got=text[:20],
            allowed="1, 2" if name == "Version" else f"1..{LARGEST_SIDE}",
            fix="copy the file anew",
        )
    return int(text)


def _events(raw: np.ndarray, version: int, path: Path, start: int, sensor: Sensor) -> Events:
    """Time and address of each event as events on the sensor."""
    x_bits, y_bits = BITS[version]
    address = raw[:, 1].astype(np.int64)
    x, y, p = address & (1 << x_bits) - 1, address >> x_bits & (1 << y_bits) - 1, address >> x_bits + y_bits
    bad = np.flatnonzero((x >= sensor[1]) | (y >= sensor[0]) | (p > 1))
    if bad.size:
        i = int(bad[0])
        raise DataError(
            str(path),
            f"byte {start + EVENT_SIZE * i}: event outside the sensor, or of no polarity",
            got=(int(x[i]), int(y[i]), int(p[i])),
            allowed=f"x 0..{sensor[1] - 1}, y 0..{sensor[0] - 1}, p 0..1",
            fix=f"the file says or implies version {version}: check '% Version'",
        )
    return assembled(x, y, raw[:, 0].astype(np.int64), p)


def ncars_recordings(folder: str | Path, part: Literal["train", "test"]) -> Iterator[tuple[Events, int]]:
    """Events and class of every file of a part, one by one: by class, then by name.

    Raises:
        DataError: a folder is missing or empty, a file is damaged.
    """
    for label, name in enumerate(CLASSES):
        place = path_of("data.folder", folder) / f"n-cars_{part}" / name
        files = files_in(place, "*.dat")
        need(bool(files), place, "holds no .dat files", 0, "n-cars_train/ and n-cars_test/, each cars/ and background/")
        for path in files:
            yield read_dat(path, SENSOR), label


def load(
    folder: str | Path, *, bin_ms: float = 5.0, n_bins: int | None = None, allow_shared: bool = False
) -> EventDataset:
    """Cars against background; shape (2, 100, 120), smaller regions in its upper left corner; binary.

    Args:
        n_bins: None for as many as make 100 ms; events after the last bin are dropped.

    Raises:
        DataError: files are missing or damaged.
    """
    bin_us = microseconds(bin_ms)
    n_bins = bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins

    notes: list[str] = []

    def part(name: Literal["train", "test"]) -> EventSet:
        kept = Kept(bin_us, n_bins)
        read = ((kept.counted(events), label) for events, label in ncars_recordings(folder, name))
        made = pack(((bin_events(events, SENSOR, bin_us, n_bins), label) for events, label in read), n_bins, SENSOR)
        notes.extend(kept.notes("ncars", name))
        return made

    whole, test = part("train"), part("test")
    chosen = split_off(whole.labels, fraction=VALIDATION_SHARE)
    return EventDataset(
        name="ncars",
        shape=whole.shape,
        n_steps=n_bins,
        bin_ms=bin_ms,
        labels=CLASSES,
        train=whole.take(~chosen),
        validation=whole.take(chosen),
        test=test,
        split_rule="; ".join(
            [
                "N-CARS: n-cars_test for test; of each class of n-cars_train, the last tenth (by file name) for "
                "validation, the others for training",
                *notes,
            ]
        ),
        allow_shared=allow_shared,
    )

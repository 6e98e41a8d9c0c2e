"""CIFAR10-DVS: images of CIFAR-10 moved before an event camera of 128 x 128 pixels, ten classes of 1,000 recordings.

A folder holds a folder for each class with cifar10_<class>_<i>.aedat, AEDAT 2.0 of a DVS128: text lines that begin with
'#', then pairs of big-endian words of 32 bits: address and time [us]. Bit 0 of an address is the polarity, bits 1-7 and
8-14 are the coordinates, counted from the other end: x = 127 - bits 8-14, y = 127 - bits 1-7, p = 1 - bit 0.

Source: Li et al. 2017, "CIFAR10-DVS: An Event-Stream Dataset for Object Classification". There is no published split.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from qspinn.arrays import integer
from qspinn.data.events.aedat import OTHERS
from qspinn.data.events.clock import Remedies
from qspinn.data.events.dataset import EventDataset, Kept
from qspinn.data.events.dvs_gesture import bins_of, microseconds
from qspinn.data.events.event_set import EventSet, pack
from qspinn.data.events.recording import Binned, Events, Sensor, assembled, bin_events, checked, downsample
from qspinn.data.npz import need
from qspinn.data.paths import files_in, path_of
from qspinn.errors import DataError

SENSOR: Sensor = (128, 128)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DURATION_MS = 1300
N_TEST, N_VALIDATION = 100, 100
VERSION = b"#!AER-DAT2.0"
ADDRESS_BITS = 15
REMEDIES = Remedies("the file is damaged: copy it anew", "the file is damaged: copy it anew")


def read_aedat2(path: str | Path) -> Events:
    """The events of an AEDAT 2.0 file of a DVS128.

    Raises:
        DataError: another format, truncated, an address of more than 15 bits, disorder; names the file and the byte.
    """
    path = path_of("read_aedat2.path", path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), "cannot be read", got=getattr(error, "strerror", None) or str(error), fix="copy the file anew"
        ) from None
    at = _header(data, path)
    if (len(data) - at) % 8:
        raise DataError(
            str(path),
            f"byte {len(data) - (len(data) - at) % 8}: file is cut short",
            got=f"{len(data) - at} bytes of events",
            allowed="a multiple of 8",
            fix="copy the file anew",
        )
    raw = np.frombuffer(data, ">u4", offset=at).reshape(-1, 2).astype(np.int64)
    bad = np.flatnonzero(raw[:, 0] >> ADDRESS_BITS)
    if bad.size:
        i = int(bad[0])
        raise DataError(
            str(path),
            f"byte {at + 8 * i}: is no address of a DVS128",
            got=int(raw[i, 0]),
            allowed=f"0..{(1 << ADDRESS_BITS) - 1}",
            fix="a file of another camera has other addresses",
        )
    x, y, p = 127 - (raw[:, 0] >> 8 & 127), 127 - (raw[:, 0] >> 1 & 127), 1 - (raw[:, 0] & 1)
    return checked(assembled(x, y, raw[:, 1], p), SENSOR, "reject", None, str(path), REMEDIES)


def _header(data: bytes, path: Path) -> int:
    """The byte at which the text lines end: a line is printable and ends in CR LF, which an event that begins with the
    byte of '#' does not."""
    if not data.startswith(VERSION):
        what = next((f" but {what}" for start, what in OTHERS.items() if data.startswith(start)), "")
        raise DataError(
            str(path), f"is not an AEDAT 2.0 file{what}", got=data[:20], allowed=VERSION.decode(), fix="copy it anew"
        )
    at = 0
    while found := re.compile(rb"#[\x20-\x7e\t]*\r\n").match(data, at):
        at = found.end()
    if at == 0:
        raise DataError(
            str(path), "byte 0: text header is damaged or cut short", got=data[:20], allowed="lines of text"
        )
    return at


def load(
    folder: str | Path,
    *,
    bin_ms: float = 10.0,
    n_bins: int | None = None,
    to: Sensor = (32, 32),
    n_test: int = N_TEST,
    n_validation: int = N_VALIDATION,
    allow_shared: bool = False,
) -> EventDataset:
    """The ten classes; bins start at the first event of a recording; binary.

    Args:
        n_bins: None for as many as make 1.3 s; events after the last bin are dropped.
        to: the sensor is reduced to so many rows and columns, divisors of 128.
        n_test, n_validation: the first and the last so many of each class (by their numbers) test and validate. A test
            on the first hundred is said to be easier than one on random recordings.

    Raises:
        DataError: files are missing, damaged, or too few.
    """
    bin_us = microseconds(bin_ms)
    n_bins = bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins
    n_test = integer("cifar10_dvs.n_test", n_test, low=1)
    n_validation = integer("cifar10_dvs.n_validation", n_validation, low=1)
    files = {name: _files(path_of("data.folder", folder) / name, n_test + n_validation) for name in CLASSES}
    kept = {part: Kept(bin_us, n_bins) for part in ("train", "validation", "test")}
    parts = {
        part: _set([files[name][which] for name in CLASSES], bin_us, n_bins, to, kept[part])
        for part, which in (
            ("train", slice(n_test, -n_validation)),
            ("validation", slice(-n_validation, None)),
            ("test", slice(n_test)),
        )
    }
    return EventDataset(
        name="cifar10_dvs",
        shape=parts["train"].shape,
        n_steps=n_bins,
        bin_ms=bin_ms,
        labels=CLASSES,
        split_rule="; ".join(
            [
                f"CIFAR10-DVS has no published split: of each class, the first {n_test} recordings (by number) for "
                f"test, the last {n_validation} for validation, the others for training",
                *(note for part, of in kept.items() for note in of.notes("cifar10_dvs", part)),
            ]
        ),
        allow_shared=allow_shared,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def _files(place: Path, most_held_out: int) -> list[Path]:
    """The recordings of a class in the order of their numbers."""
    known: dict[int, Path] = {}
    for path in files_in(place, "*.aedat"):
        match = re.fullmatch(r"cifar10_(\w+)_(\d+)\.aedat", path.name)
        if match is None:
            continue
        need(match[1] == place.name, path, "is a recording of another class than its folder", match[1], place.name)
        n = int(match[2])
        need(n not in known, path, "has the number of another recording", known.get(n, path).name, "each number once")
        known[n] = path
    found = sorted(known.items())
    need(
        len(found) > most_held_out,
        place,
        "holds too few recordings cifar10_<class>_<i>.aedat",
        len(found),
        f"over {most_held_out}",
    )
    return [path for _, path in found]


def _set(files: list[list[Path]], bin_us: int, n_bins: int, to: Sensor, kept: Kept) -> EventSet:
    """The recordings of all classes in bins."""

    def binned(path: Path) -> Binned:
        events = read_aedat2(path)
        start = int(events["t"][0]) if events.size else 0
        kept.add(events["t"], start)
        return bin_events(downsample(events, SENSOR, to), to, bin_us, n_bins, start_us=start)

    return pack(((binned(path), label) for label, own in enumerate(files) for path in own), n_bins, to)

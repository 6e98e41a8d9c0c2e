"""N-MNIST: MNIST digits shown to a moving event camera of 34 x 34 pixels, for about 310 ms each.

`load` reads the published folders (Train/0..9/*.bin, Test/0..9/*.bin), `load_packed` a smaller set of the digits 0-7
in bins of 5 ms (nmnist8_train.npz, nmnist8_test.npz).

Source: Orchard et al. 2015, "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer
from qspinn.data.events.dataset import EventDataset, Kept, alike_once_merged, largest_count, split_off
from qspinn.data.events.dvs_gesture import bins_of, microseconds
from qspinn.data.events.event_set import EventSet, concatenate, pack
from qspinn.data.events.recording import Events, Sensor, assembled, bin_events
from qspinn.data.npz import column, find, multiple, need, read_npz
from qspinn.data.paths import files_in, path_of
from qspinn.errors import DataError

SENSOR: Sensor = (34, 34)
N_ADDRESSES = 2 * 34 * 34
OVERFLOW_ROW, OVERFLOW_US = 240, 1 << 13
"""An event in this row is no event: the camera's counter wrapped, and later times are so much later."""
PACKED_BIN_MS = 5.0
PACKED_STEPS = 63
"""Bins of the longest recording of the packed set."""
DURATION_MS = 315
CHUNK = 1000
VALIDATION_SHARE = 0.1


def read_nmnist(path: str | Path) -> Events:
    """The events of a .bin file: 5 bytes each, x, y, then one bit of polarity (1: brighter) and 23 bits of time [us].

    A file of 0 bytes is a recording without events.

    Raises:
        DataError: truncated, an event outside the sensor, time that goes back; names the file and the byte.
    """
    path = path_of("read_nmnist.path", path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), "cannot be read", got=getattr(error, "strerror", None) or str(error), fix="copy the file anew"
        ) from None
    if len(data) % 5:
        raise DataError(
            str(path),
            f"byte {len(data) - len(data) % 5}: file is cut short",
            got=f"{len(data)} bytes",
            allowed="a multiple of 5 bytes, one event each",
            fix="copy the file anew",
        )
    raw = np.frombuffer(data, dtype=np.uint8).reshape(-1, 5).astype(np.int64)
    wrapped = raw[:, 1] == OVERFLOW_ROW
    outside = np.flatnonzero(((raw[:, 0] >= SENSOR[1]) | (raw[:, 1] >= SENSOR[0])) & ~wrapped)
    if outside.size:
        i = int(outside[0])
        raise DataError(
            str(path),
            f"byte {5 * i}: event outside the sensor",
            got=(int(raw[i, 0]), int(raw[i, 1])),
            allowed="x, y in 0..33",
        )
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    t += np.cumsum(wrapped) * OVERFLOW_US
    kept = np.flatnonzero(~wrapped)
    falls = np.flatnonzero(np.diff(t[kept]) < 0) + 1
    if falls.size:
        i, before = int(kept[falls[0]]), int(kept[falls[0] - 1])
        raise DataError(
            str(path),
            f"byte {5 * i}: events are not in order of time ({falls.size} steps back)",
            got=int(t[i]),
            allowed=f"{int(t[before])} us or later",
            fix="the file is damaged: copy it anew",
        )
    return assembled(raw[kept, 0], raw[kept, 1], t[kept], raw[kept, 2] >> 7)


def nmnist_recordings(folder: str | Path, part: Literal["Train", "Test"]) -> Iterator[tuple[Events, int]]:
    """Events and digit of every file of a part, one by one: by digit, then by name.

    Raises:
        DataError: a folder is missing or empty, a file is damaged.
    """
    for digit in range(10):
        place = path_of("data.folder", folder) / part / str(digit)
        files = files_in(place, "*.bin")
        need(bool(files), place, "holds no .bin files", 0, "the folders of N-MNIST: Train/0..9, Test/0..9")
        for path in files:
            yield read_nmnist(path), digit


def nmnist_set(
    folder: str | Path,
    part: Literal["Train", "Test"],
    *,
    bin_ms: float = 5.0,
    n_bins: int = PACKED_STEPS,
    binary: bool = True,
    kept: Kept | None = None,
) -> EventSet:
    """All recordings of a part in bins; events after the last bin are dropped, which `kept` counts."""
    bin_us = microseconds(bin_ms)
    kept = Kept(bin_us, n_bins) if kept is None else kept
    binned = (
        (bin_events(kept.counted(events), SENSOR, bin_us, n_bins, binary=binary), digit)
        for events, digit in nmnist_recordings(folder, part)
    )
    return pack(binned, n_bins, SENSOR)


def load(folder: str | Path, *, bin_ms: float = 5.0, n_bins: int | None = None, binary: bool = True) -> EventDataset:
    """The published set: 60,000 training and 10,000 test recordings, a tenth of the former for validation.

    Args:
        n_bins: None for as many as make 315 ms; events after the last bin are dropped.
    """
    folder = path_of("data.folder", folder)
    n_bins = bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins
    kept = {part: Kept(microseconds(bin_ms), n_bins) for part in ("Train", "Test")}
    whole, test = (
        nmnist_set(folder, part, bin_ms=bin_ms, n_bins=n_bins, binary=binary, kept=kept[part])
        for part in ("Train", "Test")
    )
    chosen = split_off(whole.labels, fraction=VALIDATION_SHARE)
    return EventDataset(
        name="nmnist",
        shape=whole.shape,
        n_steps=n_bins,
        bin_ms=bin_ms,
        labels=tuple(str(d) for d in range(10)),
        max_count=largest_count(whole, test),
        train=whole.take(~chosen),
        validation=whole.take(chosen),
        test=test,
        split_rule="; ".join(
            [
                "N-MNIST: Test for test; of each digit of Train, the last tenth (by file name) for validation, the "
                "others for training",
                *(note for part, of in kept.items() for note in of.notes("nmnist", part.lower())),
            ]
        ),
    )


def load_packed(folder: str | Path = "", *, bin_ms: float = PACKED_BIN_MS, n_validation: int = 1000) -> EventDataset:
    """The digits 0-7 of the packed set: 7,000 training, 1,000 validation and 2,000 test recordings, binary.

    Args:
        folder: where the two files are; empty: $QSPINN_DATA.
        bin_ms: a multiple of 5; stored bins are merged.
        n_validation: a multiple of 8; as many of each digit.
    """
    factor = multiple(bin_ms, PACKED_BIN_MS, "nmnist8")
    if integer("nmnist8.n_validation", n_validation, error=DataError) < 0 or n_validation % 8:
        raise DataError("nmnist8", "validation cannot be balanced", got=n_validation, allowed="a multiple of 8")
    whole, test = (read_packed(find(folder, f"nmnist8_{part}.npz"), factor) for part in ("train", "test"))
    chosen = split_off(whole.labels, n_validation // 8)
    parts = whole.take(~chosen), whole.take(chosen), test

    def stored() -> tuple[EventSet, ...]:
        whole, test = (read_packed(find(folder, f"nmnist8_{part}.npz")) for part in ("train", "test"))
        return whole.take(~chosen), whole.take(chosen), test

    alike = factor > 1 and alike_once_merged("nmnist8", parts, stored)
    return EventDataset(
        name="nmnist8",
        shape=whole.shape,
        n_steps=whole.n_steps,
        bin_ms=bin_ms,
        labels=tuple(str(d) for d in range(8)),
        train=parts[0],
        validation=parts[1],
        test=test,
        allow_shared=alike,
        split_rule=f"N-MNIST digits 0-7: of each digit, the last {n_validation // 8} recordings of the training file "
        "for validation, the others for training; the test file for test",
    )


def read_packed(path: str | Path, factor: int = 1) -> EventSet:
    """The recordings of a packed file with `factor` of its bins of 5 ms merged.

    Address keys are stored as differences: key = bin * 2312 + p * 1156 + y * 34 + x.

    Raises:
        DataError: missing or damaged, or keys that do not ascend within the recording's bins.
    """
    factor, path = integer("read_packed.factor", factor, low=1), path_of("read_packed.path", path)
    names = ("delta", "offsets", "n_bins", "label")
    delta, starts, n_bins, labels = (
        column(path, name, array) for name, array in zip(names, read_npz(path, names), strict=True)
    )
    need(labels.size > 0, path, "holds no recordings", 0, "one or more")
    need(
        starts.size == len(labels) + 1 == len(n_bins) + 1
        and starts[0] == 0
        and starts[-1] == len(delta)
        and bool((np.diff(starts) >= 0).all()),
        path,
        "offsets do not fit the recordings",
        starts.shape,
        f"0..{len(delta)}, ascending, one more than labels",
    )
    need(int(n_bins.max()) <= PACKED_STEPS, path, "too many bins", int(n_bins.max()), f"0..{PACKED_STEPS}")
    need(
        int(delta.max(initial=0)) <= PACKED_STEPS * N_ADDRESSES,
        path,
        "events after the last bin",
        int(delta.max(initial=0)),
        f"differences of at most {PACKED_STEPS * N_ADDRESSES}",
    )
    edges = [*range(0, len(labels), CHUNK), len(labels)]
    return concatenate(
        [
            _unpacked(
                delta[starts[a] : starts[b]], starts[a : b + 1] - starts[a], n_bins[a:b], labels[a:b], path
            ).rebinned(factor)
            for a, b in itertools.pairwise(edges)
        ]
    )


def _unpacked(delta: NDArray, starts: NDArray[np.int64], n_bins: NDArray, labels: NDArray, path: Path) -> EventSet:
    """Recordings whose keys are the running sums of delta[starts[i]:starts[i + 1]]."""
    running = np.concatenate([[0], np.cumsum(delta, dtype=np.int64)])
    sample = np.repeat(np.arange(len(labels)), np.diff(starts))
    key = running[1:] - running[starts[:-1]][sample]
    first = np.zeros(len(delta), dtype=bool)
    first[starts[:-1][np.diff(starts) > 0]] = True
    need(bool((delta[~first] > 0).all()), path, "events are not in order", 0, "differences over 0")
    need(
        bool((key < n_bins.astype(np.int64)[sample] * N_ADDRESSES).all()),
        path,
        "events after the last bin",
        int(key.max(initial=0)),
        f"below {N_ADDRESSES} times the recording's bins",
    )
    row = sample * PACKED_STEPS + key // N_ADDRESSES
    ends = np.cumsum(np.bincount(row, minlength=len(labels) * PACKED_STEPS))
    rows = np.concatenate([starts[:-1, None], ends.reshape(-1, PACKED_STEPS)], axis=1)
    return EventSet(
        offsets=rows,
        index=(key % N_ADDRESSES).astype(np.uint16),
        count=None,
        shape=(2, *SENSOR),
        labels=labels.astype(np.int64),
    )

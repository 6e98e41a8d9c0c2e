"""Event recordings with their three splits, and which of them an experiment uses."""

from __future__ import annotations

import hashlib
import math
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.data.event_set import EventSet, Shape
from qspinn.errors import DataError
from qspinn.network import _need
from qspinn.records import Record

EventName: TypeAlias = Literal["braille7", "dvs_gesture", "ev_containers", "mnist_frames", "nmnist", "nmnist8",
                               "synthetic_gestures"]


class EventData(Record, frozen=True):
    """Which event recordings, how they are brought into steps, and how many of them.

    Attributes:
        folder: where the files are; empty: $QSPINN_DATA.
        bin_ms, n_bins: length [ms] and number of the steps; 0 for what is usual for the set.
        size: rows and columns that the sensor is reduced to (dvs_gesture, synthetic_gestures); 0 for the usual.
        fine: training may move events about in so many parts of a step (braille7).
        n_train, n_validation, n_test: use only so many of a split, of all classes alike; 0 for all.
        on_error: "skip" leaves damaged files out (dvs_gesture) and names them in the result.
    """

    name: EventName
    folder: str = ""
    bin_ms: float = 0.0
    n_bins: int = 0
    size: int = 0
    fine: int = 1
    n_train: int = 0
    n_validation: int = 0
    n_test: int = 0
    on_error: Literal["stop", "skip"] = "stop"

    def check(self) -> None:
        for field in ("bin_ms", "n_bins", "size", "n_train", "n_validation", "n_test"):
            _need(getattr(self, field) >= 0, f"data.{field}", getattr(self, field), ">= 0")
        _need(self.fine >= 1, "data.fine", self.fine, ">= 1")


class EventDataset(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Event recordings with fixed splits: training, validation (for every choice), test (for one report).

    Attributes:
        shape: (channels, height, width).
        n_steps: bins of a recording.
        bin_ms: length of a bin [ms].
        labels: names of the classes; label k of an EventSet is labels[k].
        split_rule: in words, for the report.
        skipped: files that were left out, and why.
        max_count: how often an address may occur in a bin.
        fine, per_step: the recordings of `train` in bins of which so many make one; None where there are none.
    """

    name: str
    shape: Shape
    n_steps: int
    bin_ms: float
    labels: tuple[str, ...]
    train: EventSet
    validation: EventSet
    test: EventSet
    split_rule: str
    skipped: tuple[str, ...] = ()
    max_count: int = 1
    fine: EventSet | None = None
    per_step: int = 1

    def __post_init__(self) -> None:
        for part, events in self.parts():
            place = f"{self.name}.{part}"
            if (events.shape, events.n_steps) != (self.shape, self.n_steps):
                raise DataError(place, "wrong shape", got=(events.shape, events.n_steps),
                                allowed=str((self.shape, self.n_steps)))
            if events.n_samples and not 0 <= events.labels.min() <= events.labels.max() < len(self.labels):
                raise DataError(f"{place}.labels", "unknown class", got=sorted({*events.labels.tolist()}),
                                allowed=f"0..{len(self.labels) - 1}")
        if self.fine is not None and (-(-self.fine.n_steps // self.per_step) != self.n_steps
                                      or not np.array_equal(self.fine.labels, self.train.labels)):
            raise DataError(f"{self.name}.fine", "are not the training recordings in finer bins",
                            got=(self.fine.n_samples, self.fine.n_steps),
                            allowed=f"{self.train.n_samples} recordings of {self.n_steps} steps")
        present = set(self.train.labels.tolist())
        missing = [name for k, name in enumerate(self.labels) if k not in present]
        if missing:
            raise DataError(f"{self.name}.train", "holds no recording of some classes", got=missing,
                            fix="a class cannot be learned without examples: add recordings of it")

    def parts(self) -> tuple[tuple[str, EventSet], ...]:
        """The three splits with their names."""
        return ("train", self.train), ("validation", self.validation), ("test", self.test)

    def learned(self) -> tuple[EventSet, int]:
        """What training takes: recordings, and how many of their bins make a step."""
        return (self.train, 1) if self.fine is None else (self.fine, self.per_step)

    def checksum(self) -> str:
        """sha256 (hex) of shape, splits, labels, bins, addresses and counts."""
        sha = hashlib.sha256(repr((self.shape, self.n_steps, self.bin_ms)).encode())
        for part, events in self.parts():
            whole = events.compact()
            sha.update(f"{part} {whole.n_samples} {whole.n_events} {whole.count is None}".encode())
            for array in (whole.labels, whole.offsets, whole.index, whole.count):
                sha.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def split_off(labels: NDArray[np.int64], n_per_class: int | None = None, *, fraction: float = 0.0,
              seed: int | None = None) -> NDArray[np.bool_]:
    """A mask [n] of the same share of every class: n_per_class, or the fraction (ties of rounding up).

    Taken are the last of each class in the order of the data or, with a seed, random ones.

    Raises:
        DataError: a class would keep nothing.
    """
    taken = np.zeros(len(labels), dtype=bool)
    rng = None if seed is None else np.random.default_rng(seed)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        k = math.floor(fraction * len(of_class) + 0.5) if n_per_class is None else n_per_class
        if not 0 <= k < len(of_class):
            raise DataError("labels", f"class {label} has too few recordings to split off {k}", got=len(of_class),
                            allowed=f"over {k}")
        order = of_class if rng is None else rng.permutation(of_class)
        taken[order[len(order) - k :]] = True
    return taken


def some_of_each(events: EventSet, n: int) -> EventSet:
    """About n recordings in their order, of every class as many as can be: the first of each; all for n = 0."""
    if n == 0 or n >= events.n_samples:
        return events
    rank = np.empty(events.n_samples, dtype=np.int64)
    for label in np.unique(events.labels):
        own = events.labels == label
        rank[own] = np.arange(np.count_nonzero(own))
    return events.take(np.sort(np.argsort(rank, kind="stable")[:n]))

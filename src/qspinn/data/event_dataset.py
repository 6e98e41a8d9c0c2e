"""Event recordings with their three splits, and which of them an experiment uses."""

from __future__ import annotations

import hashlib
import math
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from qspinn.arrays import integer, integers
from qspinn.data._shared import check_classes, check_shared, class_counts, hashes, refuse_shared, shared
from qspinn.data.event_set import EventSet, Shape, shape_of
from qspinn.errors import ConfigError, DataError
from qspinn.network import _need
from qspinn.records import Record
from qspinn.spikes import MAX_COUNT, span

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

    def __post_init__(self) -> None:
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
        max_count: how often an address may occur in a bin, 1..255.
        fine, per_step: the recordings of `train` in bins of which so many make one; None where there are none.
        allow_shared: splits may hold recordings of the same content; see `shared`.

    Raises:
        DataError: a split of another shape, a label that is no class, a class without a training recording, a count
            over max_count, a recording that is in two splits.
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
    allow_shared: bool = False

    def __post_init__(self) -> None:
        self._check_sizes()
        for part, events in self.parts():
            place = f"{self.name}.{part}"
            if (events.shape, events.n_steps) != (self.shape, self.n_steps):
                raise DataError(place, "wrong shape", got=(events.shape, events.n_steps),
                                allowed=str((self.shape, self.n_steps)))
            check_classes(place, events.labels, len(self.labels))
            if (most := largest_count(events)) > self.max_count:
                raise DataError(f"{place}.count", "an address occurs more often in a bin than was declared", got=most,
                                allowed=f"1..{self.max_count}", fix=f"max_count={most}, or binary events")
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
        refuse_shared(self.name, {} if self.allow_shared else self.shared())

    def _check_sizes(self) -> None:
        force_setattr(self, "shape", shape_of(self.shape, f"{self.name}.shape"))
        integer(f"{self.name}.n_steps", self.n_steps, low=1, error=DataError)
        integer(f"{self.name}.per_step", self.per_step, low=1, error=DataError)
        integer(f"{self.name}.max_count", self.max_count, low=1, high=MAX_COUNT, error=DataError)
        check_shared(self.name, self.allow_shared)
        if not isinstance(self.bin_ms, (int, float)) or not 0 < self.bin_ms < math.inf:
            raise DataError(f"{self.name}.bin_ms", "is no length", got=self.bin_ms, allowed="over 0 ms")

    def shared(self) -> dict[tuple[str, str], int]:
        """For each two splits that share recordings, how many of the later one are in the earlier one."""
        return shared([(name, hashes(_recordings(events))) for name, events in self.parts()])

    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """How many recordings of each class each split holds."""
        return class_counts([(name, events.labels) for name, events in self.parts()], len(self.labels))

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


def largest_count(*sets: EventSet) -> int:
    """How often an address occurs in a bin at most; 1 where only presence is kept."""
    return max(1 if s.count is None else int(s.count[slice(*span(s.offsets))].max(initial=1)) for s in sets)


def _recordings(events: EventSet) -> list[tuple[NDArray, ...]]:
    """What makes up each recording: where its rows end, its addresses, and how often each occurs."""
    count = np.ones(len(events.index), np.uint8) if events.count is None else events.count
    return [(row - row[0], events.index[row[0] : row[-1]], count[row[0] : row[-1]]) for row in events.offsets]


def split_off(labels: NDArray[np.int64], n_per_class: int | None = None, *, fraction: float = 0.0,
              seed: int | None = None) -> NDArray[np.bool_]:
    """A mask [n] of the same share of every class: n_per_class, or the fraction (ties of rounding up).

    Taken are the last of each class in the order of the data or, with a seed, random ones.

    Raises:
        DataError: a class would keep nothing, or labels that are no integers [n].
        ConfigError: a number or fraction that is none.
    """
    labels = integers("labels", labels, shape=(None,))
    if n_per_class is None and not (isinstance(fraction, (int, float)) and 0 <= fraction < 1):
        raise ConfigError("split_off.fraction", "is no fraction", got=fraction, allowed="0 <= fraction < 1")
    if n_per_class is not None:
        n_per_class = integer("split_off.n_per_class", n_per_class)
    if seed is not None:
        seed = integer("split_off.seed", seed, low=0)
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
    n = integer("some_of_each.n", n, low=0)
    if n == 0 or n >= events.n_samples:
        return events
    rank = np.empty(events.n_samples, dtype=np.int64)
    for label in np.unique(events.labels):
        own = events.labels == label
        rank[own] = np.arange(np.count_nonzero(own))
    return events.take(np.sort(np.argsort(rank, kind="stable")[:n]))

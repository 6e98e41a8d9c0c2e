"""Event recordings with their three splits, and which of them an experiment uses."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from qspinn.arrays import HIGHEST, LARGEST_SIZE, integer, integers, need_kind, need_words, real_of
from qspinn.data.events.event_set import EventSet, Shape, shape_of
from qspinn.data.events.recording import MOST_BINS
from qspinn.data.own.naming import need_file, own_name, title_of
from qspinn.data.shared import Contents, check_classes, check_shared, class_counts, hashes, refuse_shared, shared
from qspinn.errors import ConfigError, DataError
from qspinn.records.record import Record, need
from qspinn.spikes import MAX_COUNT, span

PARTS = ("train", "validation", "test")
EventName: TypeAlias = Literal[
    "braille7",
    "cifar10_dvs",
    "dvs_gesture",
    "ev_containers",
    "mnist_frames",
    "ncars",
    "nmnist",
    "nmnist8",
    "npz",
    "shd",
    "ssc",
    "synthetic_gestures",
]
"""Names of the event sets in the table of `data.catalog`."""


class EventData(Record, frozen=True):
    """Configuration of a set of event recordings: which, how many, and how they are brought into steps.

    Attributes:
        folder: where the files are; empty: $QSPINN_DATA.
        bin_ms, n_bins: length [ms] and number of the steps; 0 for what is usual for the set.
        size: rows and columns that the sensor is reduced to (dvs_gesture, synthetic_gestures); 0 for the usual.
        fine: training may move events about in so many parts of a step (braille7).
        n_train, n_validation, n_test: use only so many of a split, of all classes alike; 0 for all.
        on_error: "skip" leaves damaged files out (dvs_gesture) and names them in the result.
        file: the user's own .npz file (docs/own_data.md), relative to `folder`; the name "npz" may then be left out.
        scale: values of a dense raster with fractions times this, rounded, are its counts (npz); 0: it holds counts.
        allow_shared: splits may hold recordings of the same content (npz, cifar10_dvs, ncars, shd, ssc).
    """

    LATER: ClassVar[tuple[str, ...]] = ("file", "scale", "allow_shared")

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
    file: str = ""
    scale: float = 0.0
    allow_shared: bool = False

    @property
    def title(self) -> str:
        """Name of the data in reports: the set's, or that of the user's own file."""
        return title_of(self.name, self.file)

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return own_name(given)

    def check(self) -> None:
        for field in ("bin_ms", "n_bins", "size", "n_train", "n_validation", "n_test", "scale"):
            need(getattr(self, field) >= 0, f"data.{field}", getattr(self, field), ">= 0")
        need(self.fine >= 1, "data.fine", self.fine, ">= 1")
        need_file(self.name, self.file)


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
            over max_count, a recording that is in two splits, `fine` of other events than `train`, or a field of the
            wrong type.
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
                raise DataError(
                    place, "wrong shape", got=(events.shape, events.n_steps), allowed=str((self.shape, self.n_steps))
                )
            check_classes(place, events.labels, len(self.labels))
            if (most := largest_count(events)) > self.max_count:
                raise DataError(
                    f"{place}.count",
                    "an address occurs more often in a bin than was declared",
                    got=most,
                    allowed=f"1..{self.max_count}",
                    fix=f"max_count={most}, or binary events",
                )
        self._check_fine()
        present = set(self.train.labels.tolist())
        missing = [name for k, name in enumerate(self.labels) if k not in present]
        if missing:
            raise DataError(
                f"{self.name}.train",
                "holds no recording of some classes",
                got=missing,
                fix="a class cannot be learned without examples: add recordings of it",
            )
        refuse_shared(self.name, {} if self.allow_shared else self.shared())

    def _check_sizes(self) -> None:
        for field in ("name", "split_rule"):
            need_kind(f"dataset.{field}", getattr(self, field), str, DataError)
        for field in ("labels", "skipped"):
            need_words(f"{self.name}.{field}", getattr(self, field), distinct=field == "labels")
        force_setattr(self, "shape", shape_of(self.shape, f"{self.name}.shape"))
        for field, high in (("n_steps", HIGHEST), ("per_step", HIGHEST), ("max_count", MAX_COUNT)):
            where, n = f"{self.name}.{field}", getattr(self, field)
            force_setattr(self, field, integer(where, n, low=1, high=high, error=DataError))
        for part, events in self.parts():
            need_kind(f"{self.name}.{part}", events, EventSet, DataError)
        check_shared(self.name, self.allow_shared)
        bin_ms = real_of(self.bin_ms)
        if not 0 < bin_ms <= LARGEST_SIZE:
            raise DataError(f"{self.name}.bin_ms", "is no length", got=self.bin_ms, allowed="over 0 ms")
        force_setattr(self, "bin_ms", bin_ms)

    def _check_fine(self) -> None:
        """Refuses finer bins that do not make up the training recordings."""
        if self.fine is None:
            if self.per_step != 1:
                raise DataError(
                    f"{self.name}.per_step",
                    "says how finer bins are merged, of which there are none",
                    got=self.per_step,
                    allowed="1",
                    fix="give fine, too",
                )
            return
        need_kind(f"{self.name}.fine", self.fine, EventSet, DataError)
        if -(-self.fine.n_steps // self.per_step) != self.n_steps or not _same(
            self.fine.rebinned(self.per_step), self.train
        ):
            raise DataError(
                f"{self.name}.fine",
                "are not the training recordings in finer bins",
                got=(self.fine.n_samples, self.fine.n_steps),
                allowed=f"{self.train.n_samples} recordings of {self.n_steps} steps, with the same events",
            )

    def shared(self) -> dict[tuple[str, str], int]:
        """Number of recordings of a later split that are in an earlier one, by pair of splits; pairs without any are
        left out."""
        return shared(contents((self.train, self.validation, self.test)))

    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """Number of recordings of each class in each split."""
        return class_counts([(name, events.labels) for name, events in self.parts()], len(self.labels))

    def parts(self) -> tuple[tuple[str, EventSet], ...]:
        """The three splits with their names."""
        return ("train", self.train), ("validation", self.validation), ("test", self.test)

    def learned(self) -> tuple[EventSet, int]:
        """Recordings that training uses, and the number of their bins in a step."""
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
    """Largest count of an address in a bin; 1 where only presence is kept."""
    return max(1 if s.count is None else int(s.count[slice(*span(s.offsets))].max(initial=1)) for s in sets)


def _same(a: EventSet, b: EventSet) -> bool:
    """Whether two stores hold the same recordings."""
    if (a.shape, a.count is None) != (b.shape, b.count is None):
        return False
    a, b = a.compact(), b.compact()
    return all(
        np.array_equal(x, y)
        for x, y in ((a.labels, b.labels), (a.offsets, b.offsets), (a.index, b.index), (a.count, b.count))
        if x is not None and y is not None
    )


def alike_once_merged(
    name: str, merged: Sequence[EventSet], stored: Callable[[], Sequence[EventSet | list[bytes]]]
) -> bool:
    """Whether splits (training, validation, test) share recordings in merged bins, and none in the stored ones: they
    are different recordings, then, which the bins do not tell apart.

    Args:
        stored: makes the splits in the stored bins, or the hashes of what they were made from.

    Raises:
        DataError: they share recordings in the stored bins, too.
    """
    if shared(contents(merged)):
        refuse_shared(name, shared(contents(stored())))
        return True
    return False


def contents(splits: Sequence[EventSet | list[bytes]]) -> Contents:
    """Name of each of the three splits and the hashes of its recordings, made here where they are not given."""
    return [
        (part, hashes(recordings(events)) if isinstance(events, EventSet) else events)
        for part, events in zip(PARTS, splits, strict=True)
    ]


def recordings(events: EventSet) -> list[tuple[NDArray, ...]]:
    """Content of each recording: ends of its rows, its addresses, and the count of each."""
    count = np.ones(len(events.index), np.uint8) if events.count is None else events.count
    return [(row - row[0], events.index[row[0] : row[-1]], count[row[0] : row[-1]]) for row in events.offsets]


class Kept:
    """Number of events of a split before the end of the last step, and of all, counted while they are read."""

    def __init__(self, bin_us: int, n_bins: int) -> None:
        self._stop_us = bin_us * integer("data.n_bins", n_bins, low=1, high=MOST_BINS)
        self._kept = self._all = 0

    def counted(self, events: NDArray[np.void], start_us: int = 0) -> NDArray[np.void]:
        """The events of a recording, in order of time, whose first step begins at start_us."""
        self.add(events["t"], start_us)
        return events

    def add(self, times: NDArray[np.int64], start_us: int = 0) -> None:
        """Counts the events at some times [us]."""
        self._kept += int(np.count_nonzero(times < start_us + self._stop_us))
        self._all += len(times)

    def notes(self, name: str, part: str) -> list[str]:
        """Sentence of a report on the events that are dropped.

        Args:
            part: of the data set; "train" for training, "" for all recordings together.

        Raises:
            DataError: all events for training are.
        """
        if self._kept == self._all:
            return []
        if not self._kept and part in ("train", ""):
            raise DataError(
                f"{name}: {part or 'recordings'}",
                "has no event before the end of the last step",
                got=f"0 of {self._all:,} events",
                allowed="times from the start of each recording, in their unit",
                fix="correct the times, or take longer steps or more of them (data.bin_ms, data.n_bins)",
            )
        share = (self._all - self._kept) / self._all
        return [f"{share:.2%} of the events of {part or 'all'} are after the last step, and left out"]


def split_off(
    labels: NDArray[np.int64], n_per_class: int | None = None, *, fraction: float | None = None, seed: int | None = None
) -> NDArray[np.bool_]:
    """A mask [n] of the same share of every class: n_per_class, or the fraction (ties of rounding up).

    Taken are the last of each class in the order of the data or, with a seed, random ones.

    Raises:
        DataError: a class would keep nothing, or labels that are no integers [n].
        ConfigError: a number or fraction that is none, or both.
    """
    labels = integers("labels", labels, shape=(None,))
    if n_per_class is not None and fraction is not None:
        raise ConfigError(
            "split_off",
            "takes a number for each class or a fraction, not both",
            got=(n_per_class, fraction),
            fix="leave one of them out",
        )
    share = 0.0 if fraction is None else real_of(fraction)
    if not 0 <= share < 1:
        raise ConfigError("split_off.fraction", "is no fraction", got=fraction, allowed="0 <= fraction < 1")
    if n_per_class is not None:
        n_per_class = integer("split_off.n_per_class", n_per_class, low=0)
    if seed is not None:
        seed = integer("split_off.seed", seed, low=0)
    taken = np.zeros(len(labels), dtype=bool)
    rng = None if seed is None else np.random.default_rng(seed)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        k = math.floor(share * len(of_class) + 0.5) if n_per_class is None else n_per_class
        if not 0 <= k < len(of_class):
            raise DataError(
                "labels",
                f"class {label} has too few recordings to split off {k}",
                got=len(of_class),
                allowed=f"over {k}",
            )
        order = of_class if rng is None else rng.permutation(of_class)
        taken[order[len(order) - k :]] = True
    return taken


def some_of_each(events: EventSet, n: int) -> EventSet:
    """About n recordings in their order, of every class as many as can be: the first of each; all for n = 0."""
    n = integer("some_of_each.n", n, low=0)
    return events if n == 0 or n >= events.n_samples else events.take(first_of_each(events.labels, n))


def first_of_each(labels: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The numbers, ascending, of about n recordings with these labels [B]: the first of each class; all for n = 0."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        own = labels == label
        rank[own] = np.arange(np.count_nonzero(own))
    return np.sort(np.argsort(rank, kind="stable")[: n or None])


def need_of_each(n_train: int, n_classes: int) -> None:
    """Checks that so many training recordings (0: all) can hold one of each class.

    Raises:
        ConfigError: they cannot.
    """
    if 0 < n_train < n_classes:
        raise ConfigError(
            "data.n_train",
            "is too small for a recording of each class",
            got=n_train,
            allowed=f"0 for all, or {n_classes} and more",
        )

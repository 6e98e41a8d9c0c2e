"""Many recordings in bins, as one compressed row store."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import ArrayLike, NDArray

from qspinn.arrays import booleans, frozen, integer, integers, need_kind, numbers, sealed, whole
from qspinn.data.events.recording import MOST_BINS, Binned, Sensor, each, sensor_of
from qspinn.data.events.rows import distinct, small
from qspinn.errors import ConfigError, DataError
from qspinn.spikes import (
    MAX_COUNT,
    MAX_SOURCES,
    Spikes,
    assembled,
    index_dtype,
    offsets_of,
    part,
    seal,
    span,
    unchecked,
)

Shape: TypeAlias = tuple[int, int, int]
FARTHEST = 1 << 32
"""Recordings and entries are moved by at most so much: further than any shape or number of bins."""


class EventSet(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """B recordings of T bins. The addresses active in recording b, bin t are index[offsets[b, t]:offsets[b, t + 1]].

    Rows follow each other without gaps; the addresses of a row ascend, each once. The arrays are read-only; those given
    are copied unless nobody can write to them.

    Attributes:
        offsets: int64 [B, T + 1], T >= 1.
        index: uint16 (uint32 where there are over 65,536 addresses) [n_events]; channel * H * W + y * W + x.
        count: uint8 [n_events], events that fell together, 1..255; None where only their presence is kept.
        shape: (channels, height, width).
        labels: int64 [B], 0 or more.

    Raises:
        DataError: as `Spikes`; a shape that is no three sizes, labels that are not one integer for each recording.
    """

    offsets: NDArray[np.int64]
    index: NDArray
    count: NDArray[np.uint8] | None
    shape: Shape
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = shape_of(self.shape)
        seal(self, "events", math.prod(shape))
        force_setattr(self, "shape", shape)
        force_setattr(self, "labels", _labels(self.labels, self.n_samples))

    @property
    def n_samples(self) -> int:
        """Number of recordings."""
        return self.offsets.shape[0]

    @property
    def n_steps(self) -> int:
        """Number of bins of each recording."""
        return self.offsets.shape[1] - 1

    @property
    def n(self) -> int:
        """Number of addresses."""
        return math.prod(self.shape)

    @property
    def n_events(self) -> int:
        """Entries of the store: pairs of bin and address."""
        start, stop = span(self.offsets)
        return stop - start

    def spikes(self, start: int = 0, stop: int | None = None) -> Spikes:
        """Recordings start..stop-1 as binary spikes (an entry is one spike whatever its count), sharing memory."""
        return unchecked(offsets=part(self.offsets, start, stop), index=self.index, n=self.n)

    def graded(self) -> Spikes:
        """All recordings as spikes, a source as often as its count says, sharing memory."""
        return unchecked(offsets=self.offsets, index=self.index, n=self.n, count=self.count)

    def counted(self) -> EventSet:
        """The same recordings with a count of each entry, so that they add up where entries meet."""
        count = np.ones(len(self.index), np.uint8) if self.count is None else self.count
        return _assembled(self.offsets, self.index, count, self.shape, self.labels)

    def least(self) -> EventSet:
        """The same recordings, without counts where none is over 1."""
        start, stop = span(self.offsets)
        if self.count is None or self.count[start:stop].max(initial=1) > 1:
            return self
        return _assembled(self.offsets, self.index, None, self.shape, self.labels)

    def slice(self, start: int, stop: int | None = None) -> EventSet:
        """Recordings start..stop-1 (fewer where there are fewer), sharing memory."""
        return _assembled(
            part(self.offsets, start, stop), self.index, self.count, self.shape, part(self.labels, start, stop)
        )

    def take(self, which: ArrayLike) -> EventSet:
        """Recordings in the order given by their numbers (or those marked in a mask [B]), copied."""
        chosen = self._chosen(which)
        offsets = self.offsets[chosen]
        ends = np.cumsum(offsets[:, -1] - offsets[:, 0])
        starts = np.concatenate([[0], ends])[: len(chosen)]
        spans = [slice(a, b) for a, b in zip(offsets[:, 0], offsets[:, -1], strict=True)]

        def gathered(values: NDArray) -> NDArray:
            return np.concatenate([values[:0], *(values[span] for span in spans)])

        return _assembled(
            offsets - offsets[:, :1] + starts[:, None],
            gathered(self.index),
            None if self.count is None else gathered(self.count),
            self.shape,
            self.labels[chosen],
        )

    def _chosen(self, which: ArrayLike) -> NDArray[np.int64]:
        """Numbers of recordings."""
        if numbers("take.which", which, (None,), DataError).dtype.kind == "b":
            return np.flatnonzero(booleans("take.which", which, shape=(self.n_samples,)))
        return integers("take.which", which, low=0, high=self.n_samples - 1)

    def compact(self) -> EventSet:
        """The same recordings, with nothing in index that is not theirs."""
        start, stop = span(self.offsets)
        return _assembled(
            self.offsets - start,
            self.index[start:stop],
            None if self.count is None else self.count[start:stop],
            self.shape,
            self.labels,
        )

    def shifted(self, dx: ArrayLike, dy: ArrayLike) -> EventSet:
        """Each recording moved by its own dx (right) and dy (down) [B], or all by one; what leaves is dropped."""
        row, address, count = self._entries()
        _, height, width = self.shape
        by = [self._each(f"shifted.{name}", d)[row // self.n_steps] for name, d in (("dx", dx), ("dy", dy))]
        x, y = address % width + by[0], address // width % height + by[1]
        stays = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        moved = address + by[1] * width + by[0]
        return self._from(row[stays], moved[stays], None if count is None else count[stays])

    def flipped(self, which: ArrayLike = True) -> EventSet:
        """Recordings marked in which [B] (or all) with left and right exchanged."""
        row, address, count = self._entries()
        width = self.shape[2]
        marks = booleans("flipped.which", which)
        chosen = self._spread("flipped.which", marks)[row // self.n_steps]
        mirrored = np.where(chosen, address + (width - 1 - 2 * (address % width)), address)
        rank = np.argsort(row * self.n + mirrored, kind="stable")
        return self._from(row[rank], mirrored[rank], None if count is None else count[rank])

    def delayed(self, by: ArrayLike) -> EventSet:
        """Each recording moved by its own number of bins [B], later where positive; what leaves is dropped."""
        row, address, count = self._entries()
        step = row % self.n_steps + self._each("delayed.by", by)[row // self.n_steps]
        stays = (step >= 0) & (step < self.n_steps)
        moved = row // self.n_steps * self.n_steps + step
        return self._from(moved[stays], address[stays], None if count is None else count[stays])

    def jittered(self, by: NDArray[np.integer], *, most: int | None = None) -> EventSet:
        """Each entry moved by its own number of bins [n_events], later where positive; what leaves is dropped, counts
        of what meets add up, to `most` at most.

        Raises:
            DataError: a count over 255, without `most`.
        """
        row, address, count = self._entries()
        by = integers("jittered.by", by, shape=(self.n_events,), low=-FARTHEST, high=FARTHEST)
        step = row % self.n_steps + by
        stays = (step >= 0) & (step < self.n_steps)
        row, count = (row + by)[stays], None if count is None else count[stays]
        return self._merged(row, address[stays], count, self.n_steps, self.shape, most)

    def thinned(self, kept: NDArray[np.bool_]) -> EventSet:
        """Only the entries marked in kept [n_events]."""
        row, address, count = self._entries()
        kept = booleans("thinned.kept", kept, shape=(self.n_events,))
        return self._from(row[kept], address[kept], None if count is None else count[kept])

    def rebinned(self, factor: int, *, most: int | None = None) -> EventSet:
        """Each `factor` consecutive bins made one; the last takes what remains. Counts add up, to `most` at most.

        Raises:
            DataError: a count over 255, without `most`.
        """
        factor = integer("rebinned.factor", factor, low=1)
        if factor == 1:
            return self
        row, address, count = self._entries()
        n_steps = -(-self.n_steps // factor)
        row = row // self.n_steps * n_steps + row % self.n_steps // factor
        return self._merged(row, address, count, n_steps, self.shape, most)

    def downsampled(self, factor: int) -> EventSet:
        """Blocks of factor x factor pixels made one pixel. Counts add up.

        Raises:
            ConfigError: factor does not divide height and width.
            DataError: a count over 255.
        """
        channels, height, width = self.shape
        factor = integer("downsampled.factor", factor, low=1)
        if height % factor or width % factor:
            raise ConfigError(
                "downsampled.factor",
                "does not divide the sensor",
                got=factor,
                allowed=f"divisors of {height} and {width}",
            )
        row, address, count = self._entries()
        x, line = address % width // factor, address // width
        shape = (channels, height // factor, width // factor)
        return self._merged(
            row,
            line // height * (shape[1] * shape[2]) + line % height // factor * shape[2] + x,
            count,
            self.n_steps,
            shape,
        )

    def dense(self) -> NDArray[np.uint8]:
        """Counts (ones where binary), uint8 [T, B, channels, height, width]."""
        row, address, count = self._entries()
        out = np.zeros((self.n_steps, self.n_samples, self.n), dtype=np.uint8)
        out[row % self.n_steps, row // self.n_steps, address] = 1 if count is None else count
        return out.reshape(self.n_steps, self.n_samples, *self.shape)

    def feed(self, sha: Any) -> None:
        """Updates a hash with everything in the set."""
        whole = self.compact()
        sha.update(repr((self.shape, self.n_steps, self.n_samples)).encode())
        for array in (whole.offsets, whole.index, whole.count, whole.labels):
            sha.update(b"" if array is None else np.ascontiguousarray(array).tobytes())

    def _entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray | None]:
        """Row (recording * T + bin), address and count of every entry."""
        start, stop = span(self.offsets)
        row = np.repeat(np.arange(self.n_samples * self.n_steps), np.diff(self.offsets, axis=1).ravel())
        return row, self.index[start:stop].astype(np.int64), None if self.count is None else self.count[start:stop]

    def _each(self, where: str, values: ArrayLike) -> NDArray[np.int64]:
        """A whole number for each recording, of one for all or of [B]."""
        return self._spread(where, integers(where, values, low=-FARTHEST, high=FARTHEST))

    def _spread(self, where: str, values: NDArray) -> NDArray:
        if values.shape not in ((), (self.n_samples,)):
            raise DataError(where, "has the wrong shape", got=values.shape, allowed=f"() or ({self.n_samples},)")
        return np.broadcast_to(values, self.n_samples)

    def _from(self, row: NDArray, address: NDArray, count: NDArray | None) -> EventSet:
        return _from_rows(row, address, count, self.n_steps, self.shape, self.labels)

    def _merged(
        self, row: NDArray, address: NDArray, count: NDArray | None, n_steps: int, shape: Shape, most: int | None = None
    ) -> EventSet:
        """Entries of one row and address made one; counts over `most` are held at it."""
        n = math.prod(shape)
        key, total = distinct(row * n + address, count)
        if total is not None and most is not None:
            total = np.minimum(total, integer("most", most, low=1, high=MAX_COUNT))
        return _from_rows(key // n, key % n, None if total is None else small(total), n_steps, shape, self.labels)


def shape_of(shape: Any, where: str = "events.shape") -> Shape:
    """Shape (channels, height, width) as given, checked.

    Raises:
        DataError: no three integers over 0, or over 2^32 addresses.
    """
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise DataError(where, "is no shape of recordings", got=shape, allowed="(channels, height, width)")
    channels, height, width = (
        integer(f"{where}[{i}]", n, low=1, high=MAX_SOURCES, error=DataError) for i, n in enumerate(shape)
    )
    n = channels * height * width
    if n > MAX_SOURCES:
        raise DataError(where, "has too many addresses", got=n, allowed=f"at most {MAX_SOURCES} in all")
    return channels, height, width


def _labels(labels: ArrayLike, n_samples: int) -> NDArray[np.int64]:
    """One class for each recording, read-only."""
    classes = sealed("events.labels", labels, np.int64, low=0)
    if classes.shape != (n_samples,):
        raise DataError("events.labels", "do not match the recordings", got=classes.shape, allowed=f"({n_samples},)")
    return classes


_BLANK = EventSet(
    offsets=np.zeros((0, 2), np.int64),
    index=np.zeros(0, np.uint16),
    count=None,
    shape=(1, 1, 1),
    labels=np.zeros(0, np.int64),
)


def _assembled(
    offsets: NDArray[np.int64], index: NDArray, count: NDArray | None, shape: Shape, labels: NDArray[np.int64]
) -> EventSet:
    """A store of arrays that are right by construction, or were checked before."""
    return assembled(
        _BLANK,
        offsets=frozen(offsets),
        index=frozen(index),
        shape=shape,
        labels=frozen(labels),
        count=None if count is None else frozen(count),
    )


def _from_rows(
    row: NDArray, address: NDArray, count: NDArray | None, n_steps: int, shape: Shape, labels: NDArray[np.int64]
) -> EventSet:
    """The store of entries sorted by row and address."""
    sizes = np.bincount(row, minlength=len(labels) * n_steps).reshape(-1, n_steps)
    return _assembled(offsets_of(sizes), address.astype(index_dtype(math.prod(shape))), count, shape, labels)


def pack(recordings: Iterable[tuple[Binned, int]], n_bins: int, sensor: Sensor) -> EventSet:
    """The store of binned recordings with their labels, two channels (darker, brighter), taken one by one.

    Raises:
        DataError: bins that are not as `Binned` says, a count over 255, recordings with and without counts.
    """
    shape = (2, *sensor_of(sensor))
    n, n_bins = math.prod(shape), integer("pack.n_bins", n_bins, low=1, high=MOST_BINS)
    sizes, index, counts, labels = [np.zeros(0, np.int64)], [np.zeros(0, index_dtype(n))], [], []
    for i, pair in enumerate(each("recordings", recordings)):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"recording {i}", "is no recording with its class", got=type(pair).__name__, allowed="(Binned, class)"
            )
        binned, label = pair
        step, address, count = _columns(binned, n_bins, n, f"recording {i}")
        sizes.append(np.bincount(step, minlength=n_bins))
        index.append(address.astype(index_dtype(n)))
        counts += [] if count is None else [small(count)]
        labels.append(integer(f"recording {i}.label", label, low=0, error=DataError))
    if counts and len(counts) != len(labels):
        raise DataError("events.count", "some recordings have counts, some not", got=f"{len(counts)} of {len(labels)}")
    return _assembled(
        offsets_of(np.concatenate(sizes).reshape(-1, n_bins)),
        np.concatenate(index),
        np.concatenate(counts) if counts else None,
        shape,
        np.array(labels, dtype=np.int64),
    )


def _columns(
    binned: Binned, n_bins: int, n: int, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None]:
    """Bin, address and count of the entries of a recording."""
    if not isinstance(binned, tuple) or len(binned) != 3:
        raise DataError(where, "is no recording in bins", got=type(binned).__name__, allowed="Binned, of bin_events")
    step = integers(f"{where}.bin", binned[0], shape=(None,), low=0, high=n_bins - 1)
    address = integers(f"{where}.address", binned[1], shape=step.shape, low=0, high=n - 1)
    if (np.diff(step * n + address) <= 0).any():
        raise DataError(where, "entries are not in order of bin and address, each once", fix="bin_events makes them so")
    count = None if binned[2] is None else integers(f"{where}.counts", binned[2], shape=step.shape, low=1)
    return step, address, count


def from_dense(raster: NDArray, labels: ArrayLike, *, order: Literal["TB", "BT"] | None = None) -> EventSet:
    """The store of a raster of numbers of events 0..255; it has counts where a number is over 1. Without
    counts, entries that meet in merged bins are one event; `counted` makes them add up.

    Args:
        raster: [T, B, channels, height, width] with order "TB" (time first, as `spikes.from_dense`), or [B, T,
            channels, height, width] with order "BT".
        labels: class of each recording [B].
        order: must be given; without it the order is "BT" in this version, with a DeprecationWarning.

    Raises:
        DataError: another shape, a value that is no whole number of 0..255, a label that is no class, labels that are
            not one for each recording.
    """
    if order not in ("TB", "BT", None):
        raise ConfigError("from_dense.order", "is unknown", got=order, allowed="TB, BT")
    if order is None:
        warnings.warn(
            'from_dense(raster, labels) without `order` takes [B, T, ...]; pass order="BT" for that, or '
            'order="TB" for time first',
            DeprecationWarning,
            stacklevel=2,
        )
    raster = whole("events", raster, low=0, high=MAX_COUNT, whole_floats=True)
    if raster.ndim != 5 or 0 in raster.shape[2:]:
        raise DataError("events", "wrong shape", got=raster.shape, allowed="5 axes, none of the last three empty")
    given = raster.shape
    raster = np.swapaxes(raster, 0, 1) if order == "TB" else raster
    n_samples, n_steps, *shape = raster.shape
    if n_steps < 1:
        raise DataError("events", "holds no steps", got=given, allowed="T >= 1")
    if numbers("events.labels", labels, (None,), DataError).shape == (n_steps,) != (n_samples,):
        other = "BT" if order == "TB" else "TB"
        raise DataError(
            "events.labels",
            "are as many as the steps, not as the recordings",
            got=n_steps,
            allowed=str(n_samples),
            fix=f'order="{other}"' if order else 'order="TB"',
        )
    classes = _labels(labels, n_samples)
    rows = np.ascontiguousarray(raster).reshape(n_samples * n_steps, math.prod(shape))
    row, address = np.nonzero(rows)
    count = rows[row, address].astype(np.uint8) if rows.size and rows.max() > 1 else None
    return _from_rows(row, address, count, n_steps, shape_of(tuple(shape)), classes)


def concatenate(sets: Iterable[EventSet]) -> EventSet:
    """The recordings of several stores of one shape, one after the other.

    Raises:
        DataError: shapes, numbers of bins or kinds (binary, counts) differ.
    """
    sets = list(each("sets", sets))
    for i, s in enumerate(sets):
        need_kind(f"sets[{i}]", s, EventSet, DataError)
    kinds = {(s.shape, s.n_steps, s.count is None) for s in sets}
    if len(kinds) != 1:
        raise DataError("events", "stores do not belong together", got=sorted(kinds), allowed="one shape and kind")
    taken = [s.compact() for s in sets]
    starts = np.cumsum([0, *(len(s.index) for s in taken)])
    counts = [s.count for s in taken if s.count is not None]
    return _assembled(
        np.concatenate([s.offsets + start for s, start in zip(taken, starts[:-1], strict=True)]),
        np.concatenate([s.index for s in taken]),
        np.concatenate(counts) if counts else None,
        sets[0].shape,
        np.concatenate([s.labels for s in taken]),
    )

"""Many recordings in bins, as one compressed row store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.data.events import Binned, Sensor, distinct
from qspinn.errors import ConfigError, DataError
from qspinn.spikes import Spikes, index_dtype

Shape: TypeAlias = tuple[int, int, int]


class EventSet(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """B recordings of T bins. The addresses active in recording b, bin t are index[offsets[b, t]:offsets[b, t + 1]].

    Rows follow each other without gaps; the addresses of a row ascend.

    Attributes:
        offsets: int64 [B, T + 1].
        index: uint16 (uint32 where there are over 65,536 addresses) [n_events]; channel * H * W + y * W + x.
        count: uint8 [n_events], events that fell together; None where only their presence is kept.
        shape: (channels, height, width).
        labels: int64 [B].
    """

    offsets: NDArray[np.int64]
    index: NDArray
    count: NDArray[np.uint8] | None
    shape: Shape
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.offsets.ndim != 2 or self.offsets.shape[1] < 2:
            raise DataError("events.offsets", "wrong shape", got=self.offsets.shape, allowed="[B, T + 1] with T >= 1")
        if self.labels.shape != (self.n_samples,):
            raise DataError("events.labels", "do not match the recordings", got=self.labels.shape,
                            allowed=f"({self.n_samples},)")
        if self.count is not None and (self.count.dtype != np.uint8 or self.count.shape != self.index.shape):
            raise DataError("events.count", "wrong shape or type", got=f"{self.count.dtype} {self.count.shape}",
                            allowed=f"uint8 {self.index.shape}")
        bounds = self.offsets.ravel()
        if bounds.size and (bounds[0] < 0 or bounds[-1] > len(self.index) or (np.diff(bounds) < 0).any()
                            or (self.offsets[1:, 0] != self.offsets[:-1, -1]).any()):
            raise DataError("events.offsets", "rows do not follow each other within index",
                            allowed=f"ascending from 0 to {len(self.index)}")

    @property
    def n_samples(self) -> int:
        return self.offsets.shape[0]

    @property
    def n_steps(self) -> int:
        return self.offsets.shape[1] - 1

    @property
    def n(self) -> int:
        """Number of addresses."""
        return math.prod(self.shape)

    @property
    def n_events(self) -> int:
        """Entries of the store: pairs of bin and address."""
        start, stop = self._span()
        return stop - start

    def spikes(self, start: int = 0, stop: int | None = None) -> Spikes:
        """Recordings start..stop-1 as binary spikes (an entry is one spike whatever its count), sharing memory."""
        return Spikes(offsets=self.offsets[start:stop], index=self.index, n=self.n)

    def graded(self) -> Spikes:
        """All recordings as spikes, a source as often as its count says, sharing memory."""
        return Spikes(offsets=self.offsets, index=self.index, n=self.n, count=self.count)

    def slice(self, start: int, stop: int | None = None) -> EventSet:
        """Recordings start..stop-1, sharing memory."""
        return EventSet(offsets=self.offsets[start:stop], index=self.index, count=self.count, shape=self.shape,
                        labels=self.labels[start:stop])

    def take(self, which: ArrayLike) -> EventSet:
        """Recordings in the order given by their numbers (or those marked in a mask), copied."""
        chosen = np.arange(self.n_samples)[np.asarray(which)]
        offsets = self.offsets[chosen]
        ends = np.cumsum(offsets[:, -1] - offsets[:, 0])
        starts = np.concatenate([[0], ends])[: len(chosen)]
        spans = [slice(a, b) for a, b in zip(offsets[:, 0], offsets[:, -1], strict=True)]

        def gathered(values: NDArray) -> NDArray:
            return np.concatenate([values[:0], *(values[span] for span in spans)])

        return EventSet(offsets=offsets - offsets[:, :1] + starts[:, None], index=gathered(self.index),
                        count=None if self.count is None else gathered(self.count), shape=self.shape,
                        labels=self.labels[chosen])

    def compact(self) -> EventSet:
        """The same recordings, with nothing in index that is not theirs."""
        start, stop = self._span()
        return EventSet(offsets=self.offsets - start, index=self.index[start:stop],
                        count=None if self.count is None else self.count[start:stop], shape=self.shape,
                        labels=self.labels)

    def shifted(self, dx: ArrayLike, dy: ArrayLike) -> EventSet:
        """Each recording moved by its own dx (right) and dy (down) [B], or all by one; what leaves is dropped."""
        row, address, count = self._entries()
        _, height, width = self.shape
        by = [np.broadcast_to(np.asarray(d, np.int64), self.n_samples)[row // self.n_steps] for d in (dx, dy)]
        x, y = address % width + by[0], address // width % height + by[1]
        stays = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        moved = address + by[1] * width + by[0]
        return self._from(row[stays], moved[stays], None if count is None else count[stays])

    def flipped(self, which: ArrayLike = True) -> EventSet:
        """Recordings marked in which [B] (or all) with left and right exchanged."""
        row, address, count = self._entries()
        width = self.shape[2]
        chosen = np.broadcast_to(np.asarray(which, bool), self.n_samples)[row // self.n_steps]
        mirrored = np.where(chosen, address + (width - 1 - 2 * (address % width)), address)
        rank = np.argsort(row * self.n + mirrored, kind="stable")
        return self._from(row[rank], mirrored[rank], None if count is None else count[rank])

    def delayed(self, by: ArrayLike) -> EventSet:
        """Each recording moved by its own number of bins [B], later where positive; what leaves is dropped."""
        row, address, count = self._entries()
        step = row % self.n_steps + np.broadcast_to(np.asarray(by, np.int64), self.n_samples)[row // self.n_steps]
        stays = (step >= 0) & (step < self.n_steps)
        moved = row // self.n_steps * self.n_steps + step
        return self._from(moved[stays], address[stays], None if count is None else count[stays])

    def jittered(self, by: NDArray[np.integer]) -> EventSet:
        """Each entry moved by its own number of bins [n_events], later where positive; what leaves is dropped, counts
        of what meets add up.

        Raises:
            DataError: a count over 255.
        """
        row, address, count = self._entries()
        step = row % self.n_steps + by
        stays = (step >= 0) & (step < self.n_steps)
        row, count = (row + by)[stays], None if count is None else count[stays]
        return self._merged(row, address[stays], count, self.n_steps, self.shape)

    def thinned(self, kept: NDArray[np.bool_]) -> EventSet:
        """Only the entries marked in kept [n_events]."""
        row, address, count = self._entries()
        return self._from(row[kept], address[kept], None if count is None else count[kept])

    def rebinned(self, factor: int) -> EventSet:
        """Each `factor` consecutive bins made one; the last takes what remains. Counts add up.

        Raises:
            DataError: a count over 255.
        """
        if factor < 1:
            raise ConfigError("rebinned.factor", "is not a number of bins", got=factor, allowed=">= 1")
        if factor == 1:
            return self
        row, address, count = self._entries()
        n_steps = -(-self.n_steps // factor)
        row = row // self.n_steps * n_steps + row % self.n_steps // factor
        return self._merged(row, address, count, n_steps, self.shape)

    def downsampled(self, factor: int) -> EventSet:
        """Blocks of factor x factor pixels made one pixel. Counts add up.

        Raises:
            ConfigError: factor does not divide height and width.
            DataError: a count over 255.
        """
        channels, height, width = self.shape
        if factor < 1 or height % factor or width % factor:
            raise ConfigError("downsampled.factor", "does not divide the sensor", got=factor,
                              allowed=f"divisors of {height} and {width}")
        row, address, count = self._entries()
        x, line = address % width // factor, address // width
        shape = (channels, height // factor, width // factor)
        return self._merged(row, line // height * (shape[1] * shape[2]) + line % height // factor * shape[2] + x, count,
                            self.n_steps, shape)

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
        start, stop = self._span()
        row = np.repeat(np.arange(self.n_samples * self.n_steps), np.diff(self.offsets, axis=1).ravel())
        return row, self.index[start:stop].astype(np.int64), None if self.count is None else self.count[start:stop]

    def _span(self) -> tuple[int, int]:
        """Where in index the entries of all recordings are."""
        return (int(self.offsets[0, 0]), int(self.offsets[-1, -1])) if self.n_samples else (0, 0)

    def _from(self, row: NDArray, address: NDArray, count: NDArray | None) -> EventSet:
        return _from_rows(row, address, count, self.n_steps, self.shape, self.labels)

    def _merged(self, row: NDArray, address: NDArray, count: NDArray | None, n_steps: int, shape: Shape) -> EventSet:
        """Entries of one row and address made one."""
        n = math.prod(shape)
        key, total = distinct(row * n + address, count)
        return _from_rows(key // n, key % n, None if total is None else _small(total), n_steps, shape, self.labels)


def _small(count: NDArray) -> NDArray[np.uint8]:
    if count.size and count.max() > 255:
        raise DataError("events.count", "too many events fall together", got=int(count.max()), allowed="0..255",
                        fix="use shorter bins, a finer grid, or binary events")
    return count.astype(np.uint8)


def _from_rows(row: NDArray, address: NDArray, count: NDArray | None, n_steps: int, shape: Shape,
               labels: NDArray[np.int64]) -> EventSet:
    """The store of entries sorted by row and address."""
    ends = np.cumsum(np.bincount(row, minlength=len(labels) * n_steps)).reshape(-1, n_steps)
    offsets = np.zeros((len(labels), n_steps + 1), dtype=np.int64)
    offsets[:, 1:] = ends
    offsets[1:, 0] = ends[:-1, -1]
    return EventSet(offsets=offsets, index=address.astype(index_dtype(math.prod(shape))), count=count, shape=shape,
                    labels=labels)


def pack(recordings: Iterable[tuple[Binned, int]], n_bins: int, sensor: Sensor) -> EventSet:
    """The store of binned recordings with their labels, two channels (darker, brighter), taken one by one.

    Raises:
        DataError: a count over 255, or recordings with and without counts.
    """
    n = 2 * sensor[0] * sensor[1]
    sizes, index, counts, labels = [np.zeros(0, np.int64)], [np.zeros(0, index_dtype(n))], [], []
    for binned, label in recordings:
        sizes.append(np.bincount(binned.bin, minlength=n_bins))
        index.append(binned.address.astype(index_dtype(n)))
        counts += [] if binned.counts is None else [_small(binned.counts)]
        labels.append(label)
    if counts and len(counts) != len(labels):
        raise DataError("events.count", "some recordings have counts, some not", got=f"{len(counts)} of {len(labels)}")
    ends = np.cumsum(np.concatenate(sizes)).reshape(-1, n_bins)
    offsets = np.concatenate([np.concatenate([[0], ends[:-1, -1]])[: len(ends), None], ends], axis=1)
    return EventSet(offsets=offsets, index=np.concatenate(index), count=np.concatenate(counts) if counts else None,
                    shape=(2, *sensor), labels=np.array(labels, dtype=np.int64))


def from_dense(raster: NDArray, labels: ArrayLike) -> EventSet:
    """The binary store of a raster [B, T, channels, height, width]; every non-zero entry is one event."""
    if raster.ndim != 5:
        raise DataError("events", "wrong shape", got=raster.shape, allowed="[B, T, channels, height, width]")
    n_samples, n_steps, *shape = raster.shape
    row, address = np.nonzero(raster.reshape(n_samples * n_steps, -1))
    return _from_rows(row, address, None, n_steps, (shape[0], shape[1], shape[2]), np.asarray(labels, dtype=np.int64))


def concatenate(sets: Sequence[EventSet]) -> EventSet:
    """The recordings of several stores of one shape, one after the other.

    Raises:
        DataError: shapes, numbers of bins or kinds (binary, counts) differ.
    """
    kinds = {(s.shape, s.n_steps, s.count is None) for s in sets}
    if len(kinds) != 1:
        raise DataError("events", "stores do not belong together", got=sorted(kinds), allowed="one shape and kind")
    taken = [s.compact() for s in sets]
    starts = np.cumsum([0, *(len(s.index) for s in taken)])
    counts = [s.count for s in taken if s.count is not None]
    return EventSet(
        offsets=np.concatenate([s.offsets + start for s, start in zip(taken, starts[:-1], strict=True)]),
        index=np.concatenate([s.index for s in taken]), count=np.concatenate(counts) if counts else None,
        shape=sets[0].shape, labels=np.concatenate([s.labels for s in taken]))

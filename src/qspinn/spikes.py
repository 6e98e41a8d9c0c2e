"""Spike trains as event lists: the form in which inputs are stored, shared and executed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from qspinn.arrays import flag, frozen, integer, sealed, whole
from qspinn.errors import DataError

MAX_COUNT = 255
"""Most spikes of one source in a step."""
MAX_SOURCES = 1 << 32
S = TypeVar("S")


class Spikes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Spikes of B samples over T steps from n sources, as compressed rows.

    The sources that spike in sample b at step t are ``index[offsets[b, t]:offsets[b, t + 1]]``, ascending, each once.
    Rows follow each other without gaps, within a sample and from one to the next. The arrays are read-only; those given
    are copied unless nobody can write to them.

    Attributes:
        offsets: int64 [B, T + 1], T >= 1, positions in `index`.
        index: uint16 [n_events] (uint32 where n > 65536), numbers of sources below n.
        n: number of sources, at most 2^32.
        count: uint8 [n_events], how often each source spikes in the step, 1..255; None: once. (Pooled signals within an
            engine have int32.)

    Raises:
        DataError: an array of another kind or shape, rows that do not follow each other, a source that does not exist
            or is not above the one before it, a count out of range.
    """

    offsets: NDArray[np.int64]
    index: NDArray
    n: int
    count: NDArray | None = None

    def __post_init__(self) -> None:
        n = integer("spikes.n", self.n, low=0, high=MAX_SOURCES, error=DataError)
        seal(self, "spikes", n)
        force_setattr(self, "n", n)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.offsets.shape[0]

    @property
    def n_steps(self) -> int:
        """Number of steps of each sample."""
        return self.offsets.shape[1] - 1

    @property
    def n_events(self) -> int:
        """Number of entries of all samples; a source that spikes several times in a step is one entry."""
        start, stop = span(self.offsets)
        return stop - start

    def slice(self, start: int, stop: int | None = None) -> Spikes:
        """Samples start..stop-1 (None: to the last; fewer where there are fewer), sharing memory."""
        return unchecked(offsets=part(self.offsets, start, stop), index=self.index, n=self.n, count=self.count)

    def batches(self, size: int) -> Iterator[Spikes]:
        """Consecutive slices of at most `size` samples."""
        size = integer("spikes.batches", size, low=1)
        return (self.slice(start, start + size) for start in range(0, self.n_samples, size))

    def select(self, kept: NDArray) -> Spikes:
        """The spikes of the sources whose entry in kept [n] is not zero, renumbered without gaps.

        Raises:
            DataError: kept has another shape, or is no array of numbers without fractions.
        """
        kept = whole("spikes.select", kept, whole_floats=True)
        if kept.shape != (self.n,):
            raise DataError("spikes.select", "wrong shape", got=kept.shape, allowed=f"({self.n},)")
        number = np.cumsum(kept != 0) - 1
        start, stop = span(self.offsets)
        index = self.index[start:stop]
        stays = kept[index] != 0
        before = np.concatenate([[0], np.cumsum(stays)])
        count = None if self.count is None else self.count[start:stop][stays]
        n = int(np.count_nonzero(kept))
        return unchecked(
            offsets=before[self.offsets - start], index=number[index[stays]].astype(index_dtype(n)), n=n, count=count
        )

    def dense(self) -> NDArray:
        """The same spikes as numbers [T, B, n], uint8 (int32 where a count is over 255)."""
        counts = self.count is not None and int(self.count.max(initial=0))
        raster = np.zeros((self.n_steps, self.n_samples, self.n), np.int32 if counts > MAX_COUNT else np.uint8)
        steps = np.arange(self.n_steps)
        for b in range(self.n_samples):
            here = slice(self.offsets[b, 0], self.offsets[b, -1])
            step = np.repeat(steps, np.diff(self.offsets[b]))
            raster[step, b, self.index[here]] = 1 if self.count is None else self.count[here]
        return raster


def largest(spikes: Any) -> int:
    """Largest number of spikes of a source in a step, among the samples of Spikes or an EventSet; 1 without counts."""
    if spikes.count is None:
        return 1
    return int(spikes.count[slice(*span(spikes.offsets))].max(initial=0))


def unchecked(*, offsets: NDArray, index: NDArray, n: int, count: NDArray | None = None) -> Spikes:
    """Spikes of arrays that are right by construction or were checked before; marks the arrays read-only, no more.

    Within engines the sources of a step may be in any order, and counts int32.
    """
    return assembled(
        _BLANK, offsets=frozen(offsets), index=frozen(index), n=n, count=None if count is None else frozen(count)
    )


def assembled(blank: S, **fields: Any) -> S:
    """A struct of the kind of `blank` with other fields, without the checks of its constructor."""
    struct = copy.copy(blank)
    for name, value in fields.items():
        force_setattr(struct, name, value)  # type: ignore[arg-type]
    return struct


def seal(rows: Any, where: str, n: int) -> None:
    """Checks offsets, index and count of a store of compressed rows, and puts read-only arrays in their
    place; n is the number of sources."""
    offsets = sealed(f"{where}.offsets", rows.offsets, np.int64)
    if offsets.ndim != 2 or offsets.shape[1] < 2:
        raise DataError(f"{where}.offsets", "wrong shape", got=offsets.shape, allowed="[B, T + 1] with T >= 1")
    index = sealed(f"{where}.index", rows.index, index_dtype(n), shape=(None,), low=0, high=max(n - 1, 0))
    start, stop = span(offsets)
    if (
        start < 0
        or stop > len(index)
        or (offsets[:, 1:] < offsets[:, :-1]).any()
        or (offsets[1:, 0] != offsets[:-1, -1]).any()
    ):
        raise DataError(
            f"{where}.offsets",
            "rows do not follow each other within index",
            got=(start, stop),
            allowed=f"ascending from 0 to {len(index)}, each sample from the end of the one before",
        )
    _check_ascending(f"{where}.index", offsets, index, n)
    force_setattr(rows, "offsets", offsets)
    force_setattr(rows, "index", index)
    if rows.count is not None:
        count = sealed(f"{where}.count", rows.count, np.uint8, low=1, high=MAX_COUNT)
        if count.shape != index.shape:
            raise DataError(f"{where}.count", "wrong shape", got=count.shape, allowed=str(index.shape))
        force_setattr(rows, "count", count)


def _check_ascending(where: str, offsets: NDArray[np.int64], index: NDArray, n: int) -> None:
    """Refuses a source that is not above the one before it in the same step, so that none is listed twice."""
    start, stop = span(offsets)
    if n == 0 and stop > start:
        raise DataError(where, "names a source although there are none", got=int(index[start]), allowed="no events")
    rises = index[start + 1 : stop] > index[start : stop - 1] if stop > start else np.zeros(0, bool)
    first = offsets[:, :-1].ravel()
    rises[first[(first > start) & (first < stop)] - start - 1] = True  # the first of a step follows nothing
    if not rises.all():
        at = start + 1 + int(rises.argmin())
        raise DataError(
            f"{where}[{at}]",
            "sources of a step do not ascend, or one is listed twice",
            got=int(index[at]),
            allowed=f"above {int(index[at - 1])}",
            fix="sort the sources of each step, and give repeats as count",
        )


def span(offsets: NDArray[np.int64]) -> tuple[int, int]:
    """Range of index that holds the entries of all samples."""
    return (int(offsets[0, 0]), int(offsets[-1, -1])) if len(offsets) else (0, 0)


def part(rows: NDArray, start: int, stop: int | None) -> NDArray:
    """Rows start..stop-1, sharing memory.

    Raises:
        DataError: a number that is no integer or below 0.
    """
    start = integer("slice.start", start, low=0, error=DataError)
    return rows[start : None if stop is None else integer("slice.stop", stop, low=0, error=DataError)]


def from_dense(raster: NDArray, *, graded: bool = False) -> Spikes:
    """Spikes of a raster [T, B, n] of zeros and ones or, with `graded`, of counts 0..255.

    Raises:
        DataError: another shape, a value that is no whole number of 0..255, or over 1 without `graded`.
        ConfigError: `graded` is neither true nor false.
    """
    graded = flag("from_dense.graded", graded)
    raster = whole("spikes", raster, low=0, high=MAX_COUNT, whole_floats=True)
    if raster.ndim != 3 or raster.shape[0] < 1:
        raise DataError("spikes", "wrong shape", got=raster.shape, allowed="[T, B, n] with T >= 1")
    n = integer("spikes.n", raster.shape[2], low=0, high=MAX_SOURCES, error=DataError)
    if not graded and raster.size and raster.max() > 1:
        raise DataError(
            "spikes",
            "a source spikes more than once in a step",
            got=int(raster.max()),
            allowed="0, 1",
            fix="pass graded=True to keep the counts, or raster > 0 for single spikes",
        )
    by_sample = np.ascontiguousarray(np.swapaxes(raster != 0, 0, 1))
    offsets = offsets_of(by_sample.sum(axis=2))
    index = np.nonzero(by_sample)[2].astype(index_dtype(n))
    count = np.swapaxes(raster, 0, 1)[by_sample].astype(np.uint8) if graded else None
    return unchecked(offsets=offsets, index=index, n=n, count=count)


def offsets_of(sizes: NDArray) -> NDArray[np.int64]:
    """Offsets [B, T + 1] of rows of these sizes [B, T], one after the other."""
    n_samples, n_steps = sizes.shape
    ends = np.cumsum(sizes.ravel(), dtype=np.int64).reshape(n_samples, n_steps)
    offsets = np.zeros((n_samples, n_steps + 1), dtype=np.int64)
    offsets[:, 1:] = ends
    offsets[1:, 0] = ends[:-1, -1]
    return offsets


def index_dtype(n: int) -> type[np.unsignedinteger]:
    """The narrowest type that addresses n sources."""
    return np.uint16 if n <= 1 << 16 else np.uint32


_BLANK = Spikes(offsets=np.zeros((0, 2), np.int64), index=np.zeros(0, np.uint16), n=0)

"""Spike trains as event lists: the form in which inputs are stored, shared and executed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.errors import DataError


class Spikes(msgspec.Struct, frozen=True, kw_only=True):
    """Spikes of B samples over T steps from n sources, as compressed rows.

    The sources that spike in sample b at step t are ``index[offsets[b, t]:offsets[b, t + 1]]``, ascending.

    Attributes:
        offsets: int64 [B, T + 1], positions in `index`.
        index: uint16 [n_events] (uint32 where n > 65536).
        n: number of sources.
        count: uint8 (pooled: int32) [n_events], how often each source spikes in the step; None: once.
    """

    offsets: NDArray[np.int64]
    index: NDArray
    n: int
    count: NDArray | None = None

    def __post_init__(self) -> None:
        if self.offsets.ndim != 2 or self.offsets.shape[1] < 2:
            raise DataError("spikes.offsets", "wrong shape", got=self.offsets.shape, allowed="[B, T + 1] with T >= 1")

    @property
    def n_samples(self) -> int:
        return self.offsets.shape[0]

    @property
    def n_steps(self) -> int:
        return self.offsets.shape[1] - 1

    @property
    def n_events(self) -> int:
        return int((self.offsets[:, -1] - self.offsets[:, 0]).sum())

    def slice(self, start: int, stop: int) -> Spikes:
        """Samples start..stop-1, sharing memory."""
        return Spikes(offsets=self.offsets[start:stop], index=self.index, n=self.n, count=self.count)

    def batches(self, size: int) -> Iterator[Spikes]:
        """Consecutive slices of at most `size` samples."""
        for start in range(0, self.n_samples, size):
            yield self.slice(start, min(start + size, self.n_samples))

    def select(self, kept: NDArray) -> Spikes:
        """The spikes of the sources whose entry in kept [n] is not zero, renumbered without gaps."""
        if kept.shape != (self.n,):
            raise DataError("spikes.select", "wrong shape", got=kept.shape, allowed=f"({self.n},)")
        number = np.cumsum(kept != 0) - 1
        start, stop = (self.offsets[0, 0], self.offsets[-1, -1]) if self.n_samples else (0, 0)
        index = self.index[start:stop]
        stays = kept[index] != 0
        before = np.concatenate([[0], np.cumsum(stays)])
        count = None if self.count is None else self.count[start:stop][stays]
        return Spikes(offsets=before[self.offsets - start], index=number[index[stays]].astype(index.dtype),
                      n=int(np.count_nonzero(kept)), count=count)

    def dense(self) -> NDArray[np.uint8]:
        """The same spikes as numbers, uint8 [T, B, n]."""
        raster = np.zeros((self.n_steps, self.n_samples, self.n), dtype=np.uint8)
        for b in range(self.n_samples):
            for t in range(self.n_steps):
                here = slice(self.offsets[b, t], self.offsets[b, t + 1])
                raster[t, b, self.index[here]] = 1 if self.count is None else self.count[here]
        return raster


def from_dense(raster: NDArray, *, graded: bool = False) -> Spikes:
    """Event lists of a raster [T, B, n]; every non-zero entry is one spike, or with `graded` as many as it says."""
    if raster.ndim != 3:
        raise DataError("spikes", "wrong shape", got=raster.shape, allowed="[T, B, n]")
    n_steps, n_samples, n = raster.shape
    by_sample = np.ascontiguousarray(np.swapaxes(raster != 0, 0, 1))
    ends = np.cumsum(by_sample.sum(axis=2).ravel()).astype(np.int64)
    offsets = np.empty((n_samples, n_steps + 1), dtype=np.int64)
    offsets[:, 1:] = ends.reshape(n_samples, n_steps)
    offsets[:, 0] = np.concatenate([[0], offsets[:-1, -1]]) if n_samples else 0
    index = np.nonzero(by_sample)[2].astype(index_dtype(n))
    if not graded:
        return Spikes(offsets=offsets, index=index, n=n)
    if raster.size and (raster.min() < 0 or raster.max() > 255):
        raise DataError("spikes", "more spikes of one source in a step than a byte counts",
                        got=(raster.min(), raster.max()), allowed="0..255")
    return Spikes(offsets=offsets, index=index, n=n, count=np.swapaxes(raster, 0, 1)[by_sample].astype(np.uint8))


def index_dtype(n: int) -> type[np.unsignedinteger]:
    """The narrowest type that addresses n sources."""
    return np.uint16 if n <= 1 << 16 else np.uint32

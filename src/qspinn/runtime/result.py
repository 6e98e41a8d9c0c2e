"""Result of running a program, the same from every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.program import Program
from qspinn.program.ops import VoteOp


class Counts(Mapping[str, NDArray[np.int64]]):
    """Spike counts by population; of hidden layers made when first asked for, as they take longer than the spikes."""

    def __init__(self, made: Mapping[str, NDArray[np.int64] | Callable[[], NDArray[np.int64]]]) -> None:
        self._made = dict(made)

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        counts = self._made[name]
        if not isinstance(counts, np.ndarray):
            counts = self._made[name] = counts()
        return counts

    def __reduce__(self) -> tuple[type[Counts], tuple[dict[str, NDArray[np.int64]]]]:
        """All counts, made: what makes them cannot be sent to another process."""
        return Counts, (dict(self),)

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


class Result(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Outcome of a batch of B samples.

    Attributes:
        counts: spike counts int64 [B, N] of every population, by name.
        scores: int64 [B, n_classes].
        spikes: rasters uint8 [T, B, N] by population; only when recording was asked for.
        v, ref: final potentials and refractory counters int64 [B, N] by population; only when recording was asked for.
        current: final synaptic currents int64 [B, N] of the populations that have one; only when recording.
        theta: final adaptive thresholds int64 [B, N] of the populations whose thresholds move; only when recording.
    """

    counts: Mapping[str, NDArray[np.int64]]
    scores: NDArray[np.int64]
    v: dict[str, NDArray[np.int64]] = {}
    ref: dict[str, NDArray[np.int64]] = {}
    spikes: dict[str, NDArray[np.uint8]] = {}
    current: dict[str, NDArray[np.int64]] = {}
    theta: dict[str, NDArray[np.int64]] = {}

    def predictions(self) -> NDArray[np.int64]:
        """The class with the largest score; ties go to the lowest class."""
        return self.scores.argmax(axis=1)


def vote(program: Program, counts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Class scores of a read-out by votes, int64 [B, n_classes]."""
    (op,) = program.ops_of(VoteOp)
    return counts[op.source] @ program.codes(op.votes).astype(np.int64)

"""Populations and pools of layered programs on compiled kernels, over all steps of a block of samples.

`in_lanes` computes in 16 or 32 bits where `lanes_for` proves from the program and the busiest step of the given input
that every intermediate fits; `in_general` computes everything else in 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.vectors import aligned
from qspinn.program import Program
from qspinn.program.field import MARGIN, field_of, grid
from qspinn.program.ops import Feed, LifOp, PoolOp, pool_shape
from qspinn.runtime.numba_engine.kernels import feed as feed_kernel
from qspinn.runtime.numba_engine.layered.arguments import NONE, events_of, general, narrow, shifted_weights
from qspinn.runtime.numba_engine.layered.cells import cells, no_cells
from qspinn.runtime.numba_engine.layered.proof import begins_ahead, lanes_for, reach
from qspinn.runtime.numba_engine.layered.strips import NOTHING, Strips, own_strips, strips
from qspinn.runtime.once import once
from qspinn.spikes import Spikes, index_dtype, unchecked

Room = dict[str, NDArray]
"""Arrays of a thread, by name, that every block of samples writes anew: fresh memory costs more than the writing."""


ALL = 1 << 32  # more sources than there are: all of them spike


class States(NamedTuple):
    """Final states of a population, int64 [B, N] each, in the program's order; without samples where they were not
    asked for."""

    counts: NDArray
    v: NDArray
    ref: NDArray
    current: NDArray
    theta: NDArray
    v_sum: NDArray

    @classmethod
    def of(cls, n_samples: int, n: int, wanted: Wanted) -> States:
        return cls(
            *(
                np.zeros((n_samples if wish else 0, n), np.int64)
                for wish in (wanted.counts, *(wanted.states,) * 4, wanted.v_sum)
            )
        )

    def part(self, a: int, b: int) -> States:
        """States of samples a..b - 1, sharing memory."""
        return States(*(x[a:b] if len(x) else x for x in self))


class Wanted(NamedTuple):
    """Results that are wanted of a population: its counts, its final states, the sum of its potentials."""

    counts: bool
    states: bool
    v_sum: bool


class Plan(NamedTuple):
    """Plan of a population for every input: the size of its sums, its connections with others (strips, then
    cells) and with itself, the kernel with its arguments between the sums and the outputs."""

    size: int
    fed: list[tuple]
    again: Strips
    kernel: Callable
    arguments: tuple


def plan(program: Program, op: LifOp, feeds: list[Feed], kind: type | None, ahead: bool) -> Plan:
    """The plan of a population in lanes of some type, or in 64 bits; ahead: see `begins_ahead`."""
    field, lane = field_of(program, op, feeds), kind or np.int64
    left = shifted_weights(program, op, field) if kind else np.zeros(op.n, np.int64)
    fed = [strips(program, f, field, lane, left) for f in feeds if f.source != op.name]
    again = own_strips(program, [f for f in feeds if f.source == op.name], field, lane, left)
    kernel = narrow(program, op, field, kind, left, ahead) if kind else general(program, op, field)
    return Plan(field.size, [(*s, cells(s, lane)) for s in fed], again, *kernel)


def population(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes], like: Spikes, left: States, room: Room
) -> Spikes:
    """The spikes of one population, in no particular order within a step; they lie in `room` until its next call.

    Args:
        signals: of the population's sources; like: any signal of that size.
        left: is filled, where it has samples.
    """
    n_samples, n_steps = like.n_samples, like.n_steps
    kind, ahead = chosen_lanes(program, op, feeds, signals)
    size, all_strips, again, kernel, arguments = once(
        program, (op.name, kind, ahead), lambda: plan(program, op, feeds, kind, ahead)
    )
    fed = list(zip([signals[f.source] for f in feeds if f.source != op.name], all_strips, strict=True))
    source, feed = fed[0] if fed else (silent(like), (*NOTHING, no_cells(kind or np.int64)))
    totals = aligned((n_samples, n_steps, size) if len(fed) > 1 else (1, 1, size), kind or np.int64)
    for signal, more in fed[1:]:
        feed_kernel.add_all(signal.offsets, *events_of(signal), more, totals)
    offsets = np.zeros((n_samples, n_steps + 1), np.int64)
    index = taken(room, op.name, n_samples * n_steps * op.n + MARGIN, index_dtype(op.n))
    several = op.threshold.max_spikes > 1
    count = taken(room, f"{op.name}, count", len(index), np.uint8) if several else NONE
    used = kernel(source.offsets, *events_of(source), feed, again, totals, *arguments, offsets, index, count, *left)
    return unchecked(offsets=offsets, index=index[:used], n=op.n, count=count[:used] if several else None)


def chosen_lanes(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes]
) -> tuple[type | None, bool]:
    """Lanes, and whether sums begin ahead: the best there is, if that is proved for every input; otherwise what is
    proved for this one."""

    def proved(given: Callable[[Feed], tuple[int, int]]) -> tuple[type | None, bool]:
        low, high = (sum(ends) for ends in zip((0, 0), *map(given, feeds), strict=True))
        kind = lanes_for(program, op, low, high)
        return kind, kind is not None and begins_ahead(program, op, low, high, kind)

    if all(signal.count is None for signal in signals.values()):
        found = once(program, (op.name, "any input"), lambda: proved(lambda f: reach(program, f, None, ALL)))
        if found == (np.int16, True):
            return found
    return proved(lambda f: reach(program, f, signals.get(f.source), op.n))


def taken(room: Room, name: str, length: int, kind: type) -> NDArray:
    """An array of at least this length, with anything in it. Pages that nothing is written to cost nothing."""
    if name not in room or len(room[name]) < length:
        room[name] = np.empty(length, kind)
    return room[name]


def silent(like: Spikes) -> Spikes:
    """A signal of one source that never spikes."""
    return unchecked(offsets=np.zeros_like(like.offsets), index=np.zeros(0, np.uint16), n=1)


def pooled(program: Program, op: PoolOp, signal: Spikes, room: Room) -> Spikes:
    """The pooled signal, with counts; in no particular order within a step; in `room` until its next call."""
    n, n_steps = math.prod(pool_shape(op)), signal.n_steps
    first, windows = once(program, ("windows", op), lambda: windows_of(op))
    each = int(np.diff(first).max(initial=0)) if first.size else 1
    most = min(signal.n_events * each, signal.n_samples * n_steps * n) + 1
    offsets = np.zeros((signal.n_samples, n_steps + 1), np.int64)
    index, count = taken(room, op.target, most, index_dtype(n)), taken(room, f"{op.target}, count", most, np.int32)
    used = feed_kernel.pool(
        signal.offsets,
        *events_of(signal),
        first,
        windows,
        op.kind == "sum",
        np.zeros(n, np.int64),
        offsets,
        index,
        count,
    )
    return unchecked(offsets=offsets, index=index[:used], n=n, count=count[:used])


def windows_of(op: PoolOp) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Arguments `first` and `windows` of `kernels.feed.pool`."""
    channels, height, width = pool_shape(op)
    c, y, x = grid((channels, height, width))
    sources = np.concatenate(
        [
            (c * op.shape[1] + y * op.stride[0] + ky) * op.shape[2] + x * op.stride[1] + kx
            for ky in range(op.kernel[0])
            for kx in range(op.kernel[1])
        ]
    )
    windows = np.tile(np.arange(len(c)), op.kernel[0] * op.kernel[1])
    first = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=math.prod(op.shape)))])
    alone = (np.diff(first) == 1).all()
    return first[:0] if alone else first, windows[np.argsort(sources, kind="stable")]


def counted(signal: Spikes) -> NDArray[np.int64]:
    """Number of spikes of each source, [B, n]."""
    counts = np.zeros((signal.n_samples, signal.n), np.int64)
    feed_kernel.count_spikes(signal.offsets, *events_of(signal), counts)
    return counts


def joined(parts: list[Spikes]) -> Spikes:
    """Consecutive blocks of samples as one signal."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(p.index) for p in parts)])
    counts = [p.count for p in parts if p.count is not None]
    return unchecked(
        offsets=np.concatenate([p.offsets + at for p, at in zip(parts, starts[:-1], strict=True)]),
        index=np.concatenate([p.index for p in parts]),
        n=parts[0].n,
        count=np.concatenate(counts) if counts else None,
    )

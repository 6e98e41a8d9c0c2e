"""Layered programs on compiled kernels: population after population, each over all steps of a few samples at a time.

`in_lanes` computes in 16 or 32 bits where `lanes_for` proves from the program and the busiest step of the given input
that every intermediate fits; `in_general` computes everything else in 64 bits.

- `_layer_field`: how a population lies in memory;
- `_layer_strips`: its connections as strips of weights;
- `_layer_proof`: the narrowest lanes that are exact;
- `_layer_arguments`: its constants as the kernels take them;
- `_layer_kernel`: the kernels.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.ops import Feed, LifOp, PoolOp, pool_shape
from qspinn.program import Program
from qspinn.runtime import _layer_kernel as kernels
from qspinn.runtime._layer_arguments import events_of, general, narrow
from qspinn.runtime._layer_field import MARGIN, field_of, grid
from qspinn.runtime._layer_proof import lanes_for, reach
from qspinn.runtime._layer_strips import NOTHING, Strips, own_strips, strips
from qspinn.runtime._once import once
from qspinn.runtime._vectors import aligned
from qspinn.spikes import Spikes, index_dtype

SMALL = 1 << 18  # bytes of events at most: less is not worth waking other threads
ROOM = 1 << 24  # bytes of events and sums made at once by a thread


class States(NamedTuple):
    """What is left of a population after its last step, int64 [B, N] each, in the program's order; without samples
    where nobody asked."""

    counts: NDArray
    v: NDArray
    ref: NDArray
    current: NDArray
    v_sum: NDArray


class Wanted(NamedTuple):
    """What is wanted of a population: its counts, its spikes, its final states, the sum of its potentials."""

    counts: bool
    spikes: bool
    states: bool
    v_sum: bool


class Plan(NamedTuple):
    """What a population takes whatever its input is: the size of its sums, its connections with others and with
    itself, the kernel with its arguments between the sums and the outputs."""

    size: int
    fed: list[Strips]
    again: Strips
    kernel: Callable
    arguments: tuple


def plan(program: Program, op: LifOp, feeds: list[Feed], kind: type | None) -> Plan:
    """The plan of a population in lanes of some type, or in 64 bits."""
    field, lane = field_of(program, op, feeds), kind or np.int64
    fed = [strips(program, f, field, lane) for f in feeds if f.source != op.name]
    again = own_strips(program, [f for f in feeds if f.source == op.name], field, lane)
    return Plan(field.size, fed, again, *(narrow(program, op, field, kind) if kind else general(program, op, field)))


def population(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes], like: Spikes, wanted: Wanted,
    n_threads: int,
) -> tuple[States, Spikes]:
    """(states, spikes) of one population over all samples of its sources' signals; like: any signal of that size.

    Spikes are in no particular order within a step.
    """
    n_samples, n_steps = like.n_samples, like.n_steps
    low, high = np.sum([reach(program, f, signals.get(f.source), op.n) for f in feeds] or [(0, 0)], axis=0)
    kind = lanes_for(program, op, int(low), int(high))
    lane = kind or np.int64
    size, all_strips, again, kernel, arguments = once(program, (op.name, kind), lambda: plan(program, op, feeds, kind))
    fed = list(zip([signals[f.source] for f in feeds if f.source != op.name], all_strips, strict=True))
    source, feed = fed[0] if fed else (silent(like), NOTHING)
    left = States(*(np.zeros((n_samples if wish else 0, op.n), np.int64)
                    for wish in (wanted.counts, *(wanted.states,) * 3, wanted.v_sum)))
    per_sample = n_steps * max(op.n * 2, size * np.dtype(lane).itemsize if len(fed) > 1 else 0)
    room = threading.local()  # of a thread, for the spikes of one block after the other

    def part(a: int, b: int) -> tuple[NDArray, NDArray]:
        totals = aligned((b - a, n_steps, size) if len(fed) > 1 else (1, 1, size), lane)
        for signal, more in fed[1:]:
            kernels.add_all(signal.offsets[a:b], *events_of(signal), *more, totals)
        offsets = np.zeros((b - a, n_steps + 1), np.int64)
        longest = (b - a) * n_steps * op.n + MARGIN
        if len(getattr(room, "index", ())) < longest:
            room.index = np.empty(longest, index_dtype(op.n))
        out = [x[a:b] if len(x) else x for x in left]
        used = kernel(source.offsets[a:b], *events_of(source), feed, again, totals, *arguments, offsets,
                      room.index, *out)
        return offsets, room.index[: used if wanted.spikes else 0].copy()

    return left, joined(in_parts(part, n_samples, per_sample, n_threads), op.n, n_steps)


def in_parts(part: Callable[[int, int], tuple], n_samples: int, per_sample: int, n_threads: int) -> list[tuple]:
    """What `part(start, stop)` makes of consecutive blocks of samples, in order: enough blocks to keep all threads busy
    to the end, few enough that starting them costs nothing, small enough for memory."""
    block = max(1, min(-(-n_samples // (4 * n_threads)), ROOM // max(per_sample, 1)))
    starts = range(0, n_samples, block)
    if n_threads == 1 or n_samples * per_sample < SMALL:
        return [part(a, min(a + block, n_samples)) for a in starts]
    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda a: part(a, min(a + block, n_samples)), starts))


def silent(like: Spikes) -> Spikes:
    """A signal of one source that never spikes."""
    return Spikes(offsets=np.zeros_like(like.offsets), index=np.zeros(0, np.uint16), n=1)


def pooled(program: Program, op: PoolOp, signal: Spikes, n_threads: int) -> Spikes:
    """The pooled signal, with counts; in no particular order within a step."""
    n, n_steps = math.prod(pool_shape(op)), signal.n_steps
    first, windows = once(program, ("windows", op), lambda: windows_of(op))
    largest = int(np.diff(first).max(initial=0))

    def part(a: int, b: int) -> tuple[NDArray, NDArray, NDArray]:
        room = min(int(signal.offsets[b - 1, -1] - signal.offsets[a, 0]) * largest, (b - a) * n_steps * n)
        offsets = np.zeros((b - a, n_steps + 1), np.int64)
        index, count = np.empty(room, index_dtype(n)), np.empty(room, np.int32)
        used = kernels.pool(signal.offsets[a:b], *events_of(signal), first, windows, op.kind == "sum",
                            np.zeros(n, np.int64), offsets, index, count)
        return offsets, index[:used], count[:used]

    return joined(in_parts(part, signal.n_samples, n_steps * n * 6, n_threads), n, n_steps, graded=True)


def windows_of(op: PoolOp) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, windows): source i is in the windows windows[first[i] : first[i + 1]]."""
    channels, height, width = pool_shape(op)
    c, y, x = grid((channels, height, width))
    sources = np.concatenate([
        (c * op.shape[1] + y * op.stride[0] + ky) * op.shape[2] + x * op.stride[1] + kx
        for ky in range(op.kernel[0]) for kx in range(op.kernel[1])])
    windows = np.tile(np.arange(len(c)), op.kernel[0] * op.kernel[1])
    first = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=math.prod(op.shape)))])
    return first, windows[np.argsort(sources, kind="stable")]


def counted(signal: Spikes) -> NDArray[np.int64]:
    """How often each source spikes, [B, n], of a signal without counts of its own."""
    counts = np.zeros((signal.n_samples, signal.n), np.int64)
    kernels.count_spikes(signal.offsets, signal.index, counts)
    return counts


def joined(parts: list[tuple], n: int, n_steps: int, *, graded: bool = False) -> Spikes:
    """The events (offsets, index, count) of consecutive blocks of samples as one signal."""
    parts = parts or [(np.zeros((0, n_steps + 1), np.int64), np.zeros(0, index_dtype(n)), np.zeros(0, np.int32))]
    if len(parts) == 1:
        (offsets, index, *count), = parts
        return Spikes(offsets=offsets, index=index, n=n, count=count[0] if graded else None)
    starts = np.cumsum([0, *(len(p[1]) for p in parts)])
    offsets = np.concatenate([p[0] + start for p, start in zip(parts, starts[:-1], strict=True)])
    return Spikes(offsets=offsets, index=np.concatenate([p[1] for p in parts]), n=n,
                  count=np.concatenate([p[2] for p in parts]) if graded else None)

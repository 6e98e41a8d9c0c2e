"""The compiled engine: event driven, a block of samples after the other through all layers, threads over blocks.

Within a block it goes layer by layer over all steps. Per step and population it adds the weight rows of the sources
that spiked, then makes one pass over the potentials (decay, integrate, compare). Only a step in which something crosses
pays for the winner and the inhibition.

Kernels are chosen by proof, never by hope: those of `_competing` for competing neurons where they apply; those of
`layered` for everything else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.threads import in_parts
from qspinn.program import Program
from qspinn.program.check import n_sums
from qspinn.program.ops import (
    AddOp,
    ConvOp,
    DenseOp,
    EventsOp,
    Feed,
    LifOp,
    PoissonOp,
    PoolOp,
    ReadOp,
    SelectOp,
    VoteOp,
)
from qspinn.runtime.numba_engine import competing
from qspinn.runtime.numba_engine.kernels import narrow
from qspinn.runtime.numba_engine.layered import populations
from qspinn.runtime.numba_engine.layered.populations import Room, States, Wanted
from qspinn.runtime.once import once
from qspinn.runtime.result import Counts, Result
from qspinn.spikes import Spikes, unchecked

WORK = 1 << 23  # steps of neurons in a block, about: its signals stay in the cache, and calls cost little against it
SUMS = 1 << 25  # sums of several connections in a block, at most: with the margins of large kernels they may be many
KEPT = 1 << 26  # bytes that a thread keeps between runs; what was never written to takes no memory
LITTLE = 1 << 20  # steps of neurons that are not worth waking another thread
_of_thread = threading.local()


def run(program: Program, spikes: Spikes, *, record: bool = False, n_threads: int = 0) -> Result:
    """Runs every sample from a fresh state over all its steps; equal to `reference.run` in every bit.

    Counts of hidden layers are made when they are first asked for, by a second run that keeps their spikes.

    Args:
        n_threads: 0 for all cores.
    """
    return _run(program, spikes, {}, record, n_threads, keep=False)[0]


def run_from(
    program: Program, spikes: Spikes, given: Mapping[str, Spikes], *, n_threads: int = 0
) -> tuple[Result, dict[str, Spikes]]:
    """Result and signals by name; populations whose spikes are given are not run again.

    Args:
        given: what `run_from` returned for populations that everything up to them leaves as it was; not the one that
            is read out.
    """
    return _run(program, spikes, given, False, n_threads, keep=True)


class _Outline(NamedTuple):
    """Of a program: its populations, what is read out, and the signals that are taken by something."""

    populations: list[LifOp]
    readout: VoteOp | ReadOp
    read: set[str]

    @classmethod
    def of(cls, program: Program) -> _Outline:
        (readout,) = (op for op in program.ops if isinstance(op, VoteOp | ReadOp))
        return cls(
            list(program.ops_of(LifOp)),
            readout,
            {op.source for op in program.ops if isinstance(op, Feed | PoolOp | SelectOp)},
        )


class _Job(NamedTuple):
    """What a run is asked for: `given` are signals that are known; keep: all signals shall outlast the run; new:
    populations to run."""

    program: Program
    given: Mapping[str, Spikes]
    record: bool
    keep: bool
    readout: VoteOp | ReadOp
    read: set[str]
    new: list[LifOp]

    def wanted(self, op: LifOp) -> Wanted:
        readout = self.readout
        of = readout.of if isinstance(readout, ReadOp) and readout.source == op.name else "spikes"
        return Wanted(
            counts=self.record or op.name not in self.read or op.name == readout.source,
            states=self.record or of == "v_last",
            v_sum=of == "v_sum",
        )


def _run(
    program: Program, spikes: Spikes, given: Mapping[str, Spikes], record: bool, n_threads: int, keep: bool
) -> tuple[Result, dict[str, Spikes]]:
    """(result, signals of populations by name where they are kept)."""
    ops, readout, read = once(program, ("outline",), lambda: _Outline.of(program))
    job = _Job(program, given, record, keep or record, readout, read, [op for op in ops if op.name not in given])
    n_samples = spikes.n_samples
    left = {op.name: States.of(n_samples, op.n, job.wanted(op)) for op in job.new}

    def part(a: int, b: int) -> dict[str, Spikes]:
        with _room() as room:
            return _block(
                job,
                spikes.slice(a, b),
                {name: signal.slice(a, b) for name, signal in given.items()},
                {name: states.part(a, b) for name, states in left.items()},
                room,
            )

    n_threads = n_threads or os.cpu_count() or 1
    steps = n_samples * spikes.n_steps
    sums = steps * once(program, ("sums",), lambda: _most_sums(program))
    n_parts = max(_n_parts(steps * sum(op.n for op in job.new), n_threads), -(-sums // SUMS))
    parts = in_parts(part, n_samples, n_parts, n_threads)
    signals = dict(given) | {name: populations.joined([p[name] for p in parts]) for name in parts[0]}

    @functools.cache
    def all_signals() -> dict[str, Spikes]:
        return signals if job.keep else run_from(program, spikes, {}, n_threads=n_threads)[1]

    def counts_of(name: str) -> NDArray[np.int64] | Callable[[], NDArray[np.int64]]:
        if name in left and len(left[name].counts) == n_samples:
            return left[name].counts
        return lambda: populations.counted(all_signals()[name])

    result = Result(counts=Counts({op.name: counts_of(op.name) for op in ops}), scores=_scores(job, left))
    if record:
        result = msgspec.structs.replace(
            result,
            v={op.name: left[op.name].v for op in ops},
            ref={op.name: left[op.name].ref for op in ops},
            spikes={op.name: signals[op.name].dense() for op in ops},
            current={op.name: left[op.name].current for op in ops if op.current is not None},
            theta={op.name: left[op.name].theta for op in ops if op.adaptation is not None},
        )
    return result, signals


@contextlib.contextmanager
def _room() -> Iterator[Room]:
    """Memory of this thread, which it keeps from run to run unless it is a lot."""
    room: Room = getattr(_of_thread, "room", {})
    _of_thread.room = {}  # another run within this one has memory of its own
    yield room
    if sum(x.nbytes for x in room.values()) <= KEPT:
        _of_thread.room = room


def _n_parts(work: int, n_threads: int) -> int:
    """How many blocks so many steps of neurons make: equally many for every thread."""
    return 1 if work < LITTLE else -(-max(1, work // WORK) // n_threads) * n_threads


def _most_sums(program: Program) -> int:
    """The most sums that a population has in each step; see `check.n_sums`."""
    feeds = {
        op.name: [f for f in program.ops if isinstance(f, Feed) and f.target == op.name] for op in program.ops_of(LifOp)
    }
    return max(n_sums(program, op, feeds[op.name]) for op in program.ops_of(LifOp))


def _block(
    job: _Job, spikes: Spikes, given: Mapping[str, Spikes], left: dict[str, States], room: Room
) -> dict[str, Spikes]:
    """Runs a block of samples and fills `left`; returns copies of the signals of new populations where they are kept,
    as those in `room` are overwritten by the next block."""
    program, read = job.program, job.read
    signals: dict[str, Spikes] = {"input": spikes}
    chosen: dict[str, NDArray] = {}
    feeding: dict[str, list[Feed]] = {}
    for op in program.ops:
        match op:
            case SelectOp():
                signals[op.target] = signals[op.source]
                chosen[op.target] = program.codes(op.kept)
            case PoolOp():
                signals[op.target] = populations.pooled(program, op, _selected(signals, chosen, op.source), room)
            case DenseOp() | ConvOp() | AddOp():
                feeding.setdefault(op.target, []).append(op)
            case LifOp() if op.name in given:
                signals[op.name] = given[op.name]
            case LifOp():
                feeds = feeding.get(op.name, [])
                plan = None
                if isinstance(job.readout, VoteOp):
                    plan = competing.plan(program, op, feeds, signals, chosen)
                if plan is None:
                    sources = {f.source: _selected(signals, chosen, f.source) for f in feeds if f.source != op.name}
                    signals[op.name] = populations.population(program, op, feeds, sources, spikes, left[op.name], room)
                else:
                    signals[op.name] = competing.population(
                        op, plan, signals[feeds[0].source], left[op.name], job.keep or op.name in read
                    )
            case PoissonOp() | EventsOp() | VoteOp() | ReadOp():
                pass
    return {op.name: _copied(signals[op.name]) for op in job.new} if job.keep else {}


def _copied(signal: Spikes) -> Spikes:
    """The same in memory of its own."""
    count = None if signal.count is None else signal.count.copy()
    return unchecked(offsets=signal.offsets, index=signal.index.copy(), n=signal.n, count=count)


def _selected(signals: dict[str, Spikes], chosen: dict[str, NDArray], name: str) -> Spikes:
    """A signal, without the sources that were left out."""
    return signals[name].select(chosen[name]) if name in chosen else signals[name]


def _scores(job: _Job, left: dict[str, States]) -> NDArray[np.int64]:
    """Class scores, int64 [B, n_classes]."""
    readout = job.readout
    states = left[readout.source]
    if isinstance(readout, VoteOp):
        return narrow.tally(states.counts, job.program.codes(readout.votes).astype(np.int64))
    return {"spikes": states.counts, "v_last": states.v, "v_sum": states.v_sum}[readout.of]

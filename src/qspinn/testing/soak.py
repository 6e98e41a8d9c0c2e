"""Long trials of the loader and of all engines with changed files: each is refused by name, or runs alike everywhere.

Processes of their own judge the mutants, within bounds of memory and time, so that one that kills its process or never
ends is counted and named, and the trial goes on.
"""

from __future__ import annotations

import enum
import multiprocessing
import multiprocessing.connection
import os
import resource
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from qspinn.errors import ArtifactError
from qspinn.program import Program, from_bytes, to_bytes
from qspinn.program.ops import EventsOp
from qspinn.runtime import backend_run
from qspinn.spikes import Spikes, from_dense
from qspinn.testing.contract import check_equal
from qspinn.testing.mutants import Mutant, mutant

MEMORY_LIMIT = 1 << 25
"""Bytes that one sample of a program may take: what the loader is asked to allow."""
HEADROOM = 1 << 30
"""Bytes that a process may ask for beyond what it had before its first mutant."""
SLOW_S, STUCK_S, START_S = 5.0, 120.0, 600.0
"""Longest time of a mutant that needs no compiling; silence after which a process is ended, and its mutant tried once
more, as kernels may have been compiled, which are kept; the same while a process starts."""
N_SAMPLES, MOST_STEPS = 2, 6
CHUNK = 400


class Outcome(enum.Enum):
    """Outcome of reading a changed file; all but the first two are faults."""

    REFUSED = "refused"
    EQUAL = "equal in all engines"
    DIFFERENT = "different"
    FOREIGN = "foreign error"
    CRASH = "crash"
    HANG = "hang"
    MEMORY = "over memory"

    @property
    def fault(self) -> bool:
        return self not in (Outcome.REFUSED, Outcome.EQUAL)


class Verdict(NamedTuple):
    """Outcome of one mutant, with what went wrong."""

    number: int
    outcome: Outcome
    detail: str = ""


Judge = Callable[[int, int], Verdict]


def judged(seed: int, number: int) -> Verdict:
    """Verdict on the mutant (seed, number): loaded, written again, and run by every engine."""
    changed = mutant(seed, number)
    started = time.monotonic()
    verdict = _tried(changed, seed, number)
    if not verdict.outcome.fault and time.monotonic() - started > SLOW_S:
        started = time.monotonic()  # kernels are compiled by now, if it was that
        verdict = _tried(changed, seed, number)
        if time.monotonic() - started > SLOW_S:
            verdict = Verdict(number, Outcome.HANG, f"{time.monotonic() - started:.1f} s")
    if not verdict.outcome.fault:
        return verdict
    return verdict._replace(detail=f"{changed.base}: {'; '.join(changed.changes)}: {verdict.detail}")


def _tried(changed: Mutant, seed: int, number: int) -> Verdict:
    try:
        program = from_bytes(changed.data, "mutant", memory_limit=MEMORY_LIMIT)
    except ArtifactError:
        return Verdict(number, Outcome.REFUSED)
    except Exception as error:
        return _foreign(number, error)
    try:
        stored = to_bytes(program)
        if to_bytes(from_bytes(stored, memory_limit=MEMORY_LIMIT)) != stored:
            return Verdict(number, Outcome.DIFFERENT, "written and read again it is another program")
        compare(program, inputs(program, np.random.default_rng([seed, number, 23])))
    except AssertionError as error:
        return Verdict(number, Outcome.DIFFERENT, str(error))
    except Exception as error:
        return _foreign(number, error)
    return Verdict(number, Outcome.EQUAL)


def _foreign(number: int, error: Exception) -> Verdict:
    """The verdict for an exception that nobody should see: memory that ran out, or anything else."""
    short = isinstance(error, MemoryError) or "alloc" in str(error).lower()
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Verdict(
        number,
        Outcome.MEMORY if short else Outcome.FOREIGN,
        f"{type(error).__name__}: {str(error)[:300]} ({os.path.basename(place.filename)}:{place.lineno})",
    )


def inputs(program: Program, rng: np.random.Generator) -> Spikes:
    """Random spikes for a program, over its first steps; sources that may spike several times in a step do so."""
    most = next((op.max_count for op in program.ops_of(EventsOp)), 1)
    shape = (min(program.n_steps, MOST_STEPS), N_SAMPLES, program.n_inputs)
    graded = most > 1 and bool(rng.random() < 0.5)
    raster = (rng.random(shape, dtype=np.float32) < rng.choice([0.1, 0.5, 1.0])) * (
        rng.integers(1, most + 1, shape) if graded else 1
    )
    return from_dense(raster, graded=graded)


def compare(program: Program, spikes: Spikes) -> None:
    """Runs the reference, Numba and torch.

    Raises:
        AssertionError: scores, counts, spikes or states differ.
    """
    expected = backend_run("reference")(program, spikes, record=True)
    for name in ("numba", "torch"):
        check_equal(backend_run(name)(program, spikes, record=True), expected, name)


def confine() -> None:
    """Bounds this process: one thread for torch, warnings are errors, memory as it is now plus HEADROOM."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for number in range(40):  # what is loaded and compiled once shall not count as a mutant's memory
        judged(0, number * 41)
    limit_memory()


def limit_memory() -> None:
    """Lets this process ask for HEADROOM beyond what it has, and for no more (Linux)."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, resource.RLIM_INFINITY))


def _work(link: Any, seed: int, judge: Judge, prepare: Callable[[], None]) -> None:
    """A process: verdicts of the numbers that it is sent, one by one."""
    prepare()
    link.send(None)
    while (numbers := link.recv()) is not None:
        for number in range(*numbers):
            link.send(judge(seed, number))


class _Worker:
    """A process with the number that it is at and the one it goes up to."""

    def __init__(self, seed: int, judge: Judge, prepare: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, seed, judge, prepare), daemon=True)
        self.process.start()
        theirs.close()
        self.at = self.stop = 0
        self.ready = False
        self.heard = time.monotonic()

    def give(self, at: int, stop: int) -> None:
        self.at, self.stop = at, stop
        self.link.send((at, stop))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.link.close()


def soak(
    seed: int,
    *,
    seconds: float = 0,
    mutations: int = 0,
    n_workers: int = 2,
    judge: Judge = judged,
    prepare: Callable[[], None] = confine,
) -> Iterator[Verdict]:
    """Verdicts of the mutants 0, 1, 2, ... of a seed, in any order, until the time or their number is over.

    Args:
        seconds: when no further mutants are given out, from the call; 0 for no limit.
        mutations: how many mutants; 0 for as many as the time allows.
        judge, prepare: what a process does with a number, and before its first.

    Raises:
        RuntimeError: a process ended before its first mutant, or never came to it.
    """
    until = time.monotonic() + seconds if seconds else float("inf")
    queue = _Queue(mutations or (1 << 62 if seconds else 0), until)
    workers = [_Worker(seed, judge, prepare) for _ in range(n_workers)]
    try:
        while workers:
            heard = multiprocessing.connection.wait([worker.link for worker in workers], timeout=1.0)
            for worker in workers.copy():
                verdict = _heard(worker) if worker.link in heard else _silent(worker)
                ended = worker.link.closed
                if ended:
                    tried_again = queue.again(worker, verdict)
                    workers[workers.index(worker)] = _Worker(seed, judge, prepare)
                if verdict is not None and not (ended and tried_again):
                    yield verdict
                if ended:
                    continue
                if worker.ready and worker.at == worker.stop and not queue.give(worker):
                    worker.end()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()


class _Queue:
    """The numbers that are still to be judged."""

    def __init__(self, total: int, until: float) -> None:
        self.next, self.total, self.until = 0, total, until
        self.left: list[tuple[int, int]] = []
        self.silent: set[int] = set()

    def again(self, worker: _Worker, verdict: Verdict | None) -> bool:
        """Takes back what a process that has ended did not do; true where its last mutant is to be tried once more."""
        retry = verdict is not None and verdict.outcome is Outcome.HANG and worker.at not in self.silent
        if retry:
            self.silent.add(worker.at)
        start = worker.at + (not retry)
        if start < worker.stop:
            self.left.append((start, worker.stop))
        return retry

    def give(self, worker: _Worker) -> bool:
        """Hands out the next numbers; false where there are none."""
        if time.monotonic() > self.until or (not self.left and self.next >= self.total):
            return False
        if self.left:
            worker.give(*self.left.pop())
        else:
            start, self.next = self.next, min(self.next + CHUNK, self.total)
            worker.give(start, self.next)
        return True


def _heard(worker: _Worker) -> Verdict | None:
    """What a process has sent, or that it is no more."""
    try:
        verdict: Verdict | None = worker.link.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode
        if not worker.ready:
            raise RuntimeError(f"a process ended before its first mutant (exit code {code})") from None
        worker.end()
        return Verdict(worker.at, Outcome.CRASH, f"exit code {code}")
    worker.heard, worker.ready = time.monotonic(), True
    if verdict is not None:
        worker.at = verdict.number + 1
    return verdict


def _silent(worker: _Worker) -> Verdict | None:
    """The verdict for a process that has not been heard of for too long."""
    if time.monotonic() - worker.heard <= (STUCK_S if worker.ready else START_S):
        return None
    worker.end()
    if not worker.ready:
        raise RuntimeError(f"a process did not begin within {START_S:.0f} s")
    return Verdict(worker.at, Outcome.HANG, f"no answer within {STUCK_S:.0f} s")


def counted(verdicts: list[Verdict]) -> dict[str, int]:
    """Number of mutants by the name of their outcome."""
    counts = Counter(v.outcome for v in verdicts)
    return {outcome.value: counts[outcome] for outcome in Outcome}

"""Workers of a run: tasks go out to processes, records come back into the journal, progress is reported."""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import signal
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from qspinn import former
from qspinn.errors import RunError
from qspinn.exploration import tasks as ev
from qspinn.exploration.journal import Journal


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a run: which stage, how much is done of how much, and the best candidate so far."""

    stage: str
    done: int
    total: int
    best: str = ""


OnEvent = Callable[[Event], None]
Executors = Callable[..., concurrent.futures.Executor]
Submit = Callable[[str, str, bytes], concurrent.futures.Future]
"""Hands out a task: kind, key, argument."""


class _WorkerProcess(multiprocessing.context.SpawnProcess):
    """A fresh process that does not import the caller's main module: workers need nothing of it, and so a script
    without a main guard, a notebook, or code read from a pipe can call `explore` all the same."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # the hook's name is multiprocessing's
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        # Ctrl-C reaches the whole group: a worker that still imports would print where it was interrupted
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return multiprocessing.context.SpawnProcess._Popen(process_obj)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            sys.modules["__main__"] = main


class _WorkerContext(multiprocessing.context.SpawnContext):
    """Context of worker processes, which keeps those that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[_WorkerProcess] = []

    def Process(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]  # the name is multiprocessing's
        process = _WorkerProcess(*args, **options)
        self.made.append(process)
        return process


class LocalProcesses(concurrent.futures.ProcessPoolExecutor):
    """Executor with a fresh Python process per worker on this machine, whose work can be ended at once."""

    def __init__(self, n_workers: int, initializer: Callable[..., None], arguments: tuple) -> None:
        self.context, self.n_workers = _WorkerContext(), n_workers
        super().__init__(n_workers, mp_context=self.context, initializer=initializer, initargs=arguments)

    def start(self) -> None:
        """Starts the processes now, which otherwise the first task does: they import while the caller goes on."""
        for _ in range(self.n_workers):
            self.submit(ev.idle)

    def end(self) -> None:
        """Ends the processes with the tasks that they are at: files are written whole or not at all."""
        alive = [process for process in self.context.made if process.pid is not None and process.is_alive()]
        for process in alive:
            process.terminate()
        waiting = {process.sentinel for process in alive}
        while waiting and (ended := multiprocessing.connection.wait(waiting, timeout=10)):
            waiting -= {*ended}


def local_processes(n_workers: int, initializer: Callable[..., None], arguments: tuple) -> concurrent.futures.Executor:
    """Executor with a fresh Python process per worker on this machine."""
    return LocalProcesses(n_workers, initializer, arguments)


def stop(pool: concurrent.futures.Executor) -> None:
    """Ends the work of an executor without waiting for tasks at which a run that stops would not look."""
    if isinstance(pool, LocalProcesses):
        pool.end()
    pool.shutdown(wait=False, cancel_futures=True)


class Precompilation:
    """Compilation of kernels beside the tasks of a run, before the kernels are called.

    Args:
        pieces: gives (key, argument) of each; asked for and handed out behind the first tasks of the run.
    """

    STAGE = "compiling kernels, once per machine"

    def __init__(self, pieces: Callable[[], Iterable[tuple[str, bytes]]] = tuple) -> None:
        self.pieces: Callable[[], Iterable[tuple[str, bytes]]] | None = pieces
        self.total, self.running = 0, set[concurrent.futures.Future]()

    def start(self, submit: Submit, report: OnEvent) -> None:
        """Hands out the pieces, the first time it is called."""
        if self.pieces is None:
            return
        pieces, self.pieces = list(self.pieces()), None
        self.total = len(pieces)
        if pieces:
            report(Event(stage=self.STAGE, done=0, total=self.total))
        self.running = {submit("rehearsal", key, argument) for key, argument in pieces}

    def note(self, ready: set[concurrent.futures.Future], report: OnEvent) -> None:
        """Reports pieces that have ended, failed ones too: the run itself compiles their kernels when it calls them."""
        for future in ready & self.running:
            self.running.remove(future)
            report(Event(stage=self.STAGE, done=self.total - len(self.running), total=self.total))


class Workers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Worker processes of a run: take tasks, and their records go to the journal.

    Attributes:
        inputs: names of classes and files of the splits, as JSON, which every task names.
        max_running: tasks that are handed out at a time.
        precompilation: kernels to compile beside the tasks.
    """

    journal: Journal
    pool: concurrent.futures.Executor
    inputs: bytes
    report: OnEvent
    max_running: int
    precompilation: Precompilation = msgspec.field(default_factory=Precompilation)

    def done(self, kind: str) -> dict[str, dict[str, Any]]:
        """Finished records of a kind, by key."""
        return {r["key"]: r for r in self.journal.records if r.get("kind") == kind and "key" in r}

    def measured(self) -> list[dict[str, Any]]:
        """Records of the candidates that were measured."""
        return [r for r in self.done("candidate").values() if is_measured(r)]

    def run(
        self,
        stage: str,
        kind: str,
        tasks: Iterable[tuple[str, bytes]],
        best: Callable[[], str] = str,
        has_file: Callable[[dict[str, Any]], bool] = lambda record: True,
    ) -> dict[str, dict[str, Any]]:
        """Records of all tasks (key, argument), computing those that are missing, or whose file is, by `has_file` of
        the record; order does not matter."""
        todo = dict(tasks)
        total, wanted = len(todo), set(todo)
        for key, record in self.done(kind).items():
            if key in todo and has_file(record):
                del todo[key]
        self.report(Event(stage=stage, done=total - len(todo), total=total, best=best()))
        waiting = list(todo.items())
        running: dict[concurrent.futures.Future, str] = {}
        finished = total - len(todo)
        while waiting or running:
            while waiting and len(running) < self.max_running:
                key, argument = waiting.pop(0)
                running[self._submit(kind, key, argument)] = key
            self.precompilation.start(self._submit, self.report)
            ready, _ = concurrent.futures.wait(
                {*running, *self.precompilation.running}, return_when=concurrent.futures.FIRST_COMPLETED
            )
            self.precompilation.note(ready, self.report)
            for future in ready & running.keys():
                running.pop(future)
                self.journal.append(_result_of(future))
                finished += 1
                self.report(Event(stage=stage, done=finished, total=total, best=best()))
        return {k: r for k, r in self.done(kind).items() if k in wanted}

    def _submit(self, kind: str, key: str, argument: bytes) -> concurrent.futures.Future:
        return self.pool.submit(ev.work, kind, key, argument, self.inputs)


def is_measured(record: dict[str, Any]) -> bool:
    """Whether a record holds an accuracy and a memory to be compared by; NaN, which JSON has as null, is none."""
    numbers = (record.get("accuracy"), record.get("bits"))
    return "rejected" not in record and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers
    )


def _result_of(future: concurrent.futures.Future) -> dict[str, Any]:
    try:
        return future.result()
    except concurrent.futures.BrokenExecutor:
        raise RunError(
            "worker",
            "a worker process died (killed, or out of memory)",
            fix="run the same command again: it continues; --workers 1 needs less memory",
        ) from None


__getattr__ = former.names_of(__name__)

"""Workers of a run: tasks go out to processes, records come back into the journal, progress is reported."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
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
LEADER_S = 0.25
"""How long the best candidate so far may be the one that was best before."""
READY = "qspinn.compiled.ready"
"""Module whose import makes the compiler of kernels ready."""
Submit = Callable[[str, str, bytes], concurrent.futures.Future]
"""Hands out a task: kind, key, argument."""


_STARTING = threading.Lock()
"""Held while a process starts: what the interpreter has one of for all threads is another one meanwhile."""


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Processes that start in this block import nothing of the caller's main module: workers need nothing of it, and so
    a script without a main guard, a notebook, or code read from a pipe can call `explore` all the same."""
    with _STARTING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        # Ctrl-C reaches the whole group: a worker that still imports would print where it was interrupted
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            sys.modules["__main__"] = main


class _SpawnedProcess(multiprocessing.context.SpawnProcess):
    """A fresh process."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # the hook's name is multiprocessing's
        with _apart():
            return multiprocessing.context.SpawnProcess._Popen(process_obj)


class _SpawnContext(multiprocessing.context.SpawnContext):
    """Context of fresh processes, which keeps those that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Any] = []

    def Process(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]  # the name is multiprocessing's
        process = _SpawnedProcess(*args, **options)
        self.made.append(process)
        return process

    @property
    def runs(self) -> bool:
        """Whether a process runs."""
        return any(process.is_alive() for process in self.made)

    def prepare(self, modules: list[str]) -> None:
        """Does nothing: a fresh process imports for itself."""

    def close(self) -> None:
        """Does nothing: there is nothing but the processes."""


FORKS = "forkserver" in multiprocessing.get_all_start_methods()

if FORKS:
    import multiprocessing.forkserver

    class _ForkedContext(multiprocessing.context.ForkServerContext):
        """Context of processes that a server of this context's forks; it has imported what they need, once for all.

        The server that multiprocessing has for the whole program would keep the environment of its first use.
        """

        def __init__(self) -> None:
            super().__init__()
            self.made: list[Any] = []
            self.server: Any = multiprocessing.forkserver.ForkServer()

        def Process(self, *args: Any, **options: Any) -> Any:  # type: ignore[override]
            process = _ForkedProcess(*args, **options)
            process.server = self.server
            self.made.append(process)
            return process

        @property
        def runs(self) -> bool:
            """Whether the server runs, or a process that it forked."""
            return self.server._forkserver_pid is not None or any(process.is_alive() for process in self.made)

        def prepare(self, modules: list[str]) -> None:
            """Has the server started, and these modules imported there; what cannot be imported, workers tell."""
            self.server.set_forkserver_preload(modules)
            with _apart():
                self.server.ensure_running()

        def close(self) -> None:
            """Ends the server, once its processes have ended: it holds nothing then, and is not waited for."""
            pid = self.server._forkserver_pid
            if pid is not None and not any(process.is_alive() for process in self.made):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.server._stop()

    class _ForkedProcess(multiprocessing.context.ForkServerProcess):
        """A process that the server of its context forks."""

        server: Any

        def _Popen(self, process_obj: Any) -> Any:  # type: ignore[override]  # the hook's name is multiprocessing's
            server = self.__dict__.pop("server")
            with _apart():
                usual = multiprocessing.forkserver.connect_to_new_process
                multiprocessing.forkserver.connect_to_new_process = server.connect_to_new_process
                try:
                    return multiprocessing.context.ForkServerProcess._Popen(process_obj)
                finally:
                    multiprocessing.forkserver.connect_to_new_process = usual


class LocalProcesses(concurrent.futures.ProcessPoolExecutor):
    """Executor with a Python process per worker on this machine, whose work can be ended at once."""

    def __init__(self, n_workers: int, initializer: Callable[..., None], arguments: tuple) -> None:
        self.context, self.n_workers = _ForkedContext() if FORKS else _SpawnContext(), n_workers
        super().__init__(n_workers, mp_context=self.context, initializer=initializer, initargs=arguments)

    def start(self, modules: list[str]) -> None:
        """Starts what the first task would wait for: workers, or the server that forks them, import these modules while
        the caller goes on."""
        self.context.prepare(modules)
        if not FORKS:  # a server forks at once, when it is ready
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

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks, and ends the processes once those that were handed out are done."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.context.close()


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
        """Hands out the pieces, each as soon as it is known, the first time it is called."""
        if self.pieces is None:
            return
        pieces, self.pieces = self.pieces, None
        for key, argument in pieces():
            self.running.add(submit("rehearsal", key, argument))
            self.total += 1
        if self.total:
            report(Event(stage=self.STAGE, done=0, total=self.total))

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
        finished, leader, due = total - len(todo), "", 0.0
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
                if time.monotonic() >= due or finished == total:  # the best of all takes a front of all
                    leader, due = best(), time.monotonic() + LEADER_S
                self.report(Event(stage=stage, done=finished, total=total, best=leader))
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

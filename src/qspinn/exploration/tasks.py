"""Tasks of a worker process, for every family: build a candidate, measure it on validation, store it, record it.

A worker keeps the measurement of its family; candidates travel to it and plain records back.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.errors import QSpinnError, RunError
from qspinn.exploration.artifacts import PROGRAM, digest
from qspinn.exploration.family import (
    AnyCandidate,
    AnyExperiment,
    Family,
    Files,
    candidate_of,
    family_of,
    read_experiment,
    rehearsal_of,
)
from qspinn.files import store_array
from qspinn.records.record import to_plain


class Worker(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Family of an experiment in a worker process, with the measurement that its functions need."""

    folder: Path
    experiment: AnyExperiment
    family: Family
    measurement: Any


def checksum(array: NDArray) -> str:
    """sha256 (hex) of the type, shape and content of an array."""
    sha = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    sha.update(np.ascontiguousarray(array).data if array.size else b"")
    return sha.hexdigest()


def map_array(path: str | Path, expected: str) -> NDArray:
    """A stored array that stays on disk until it is used.

    Raises:
        RunError: the file is missing, damaged, or holds another array than the one with this checksum.
    """
    try:
        array = np.load(path, mmap_mode="r")
        same = checksum(array) == expected
    except (OSError, ValueError, EOFError) as error:
        raise RunError(str(path), "cannot be read", got=str(error)[:200], fix="delete it, and start again") from None
    if not same:
        raise RunError(
            str(path), "is not what was stored: the file was changed or damaged", fix="delete it, and start again"
        )
    return array


def keep_array(path: Path, array: NDArray) -> str:
    """Writes an array unless it is stored there already; returns its checksum."""
    expected = checksum(array)
    try:
        map_array(path, expected)
    except RunError:
        store_array(path, array)
    return expected


def evaluate(worker: Worker, candidate: AnyCandidate) -> dict[str, Any]:
    """Builds and measures a candidate, stores what was built, and returns the record for the journal.

    A candidate that cannot be lowered, that diverges, or whose building or measuring fails in any other way gets a
    record with the reason under "rejected", the kind of the error under "error", and no accuracy: the others do not
    depend on it. What is wrong with the run itself, its folder or the machine's memory, stops the run.

    Raises:
        RunError: the run's folder cannot be read or written, or there is not enough memory.
    """
    start = time.perf_counter()
    record = {"key": candidate.key(), "candidate": to_plain(candidate)}
    family = worker.family
    try:
        built, learning = family.build(worker.measurement, candidate)
        right, facts = family.measure(worker.measurement, candidate, built)
        account = family.STORED.account(built)
        measured = facts | {
            "accuracy": float(right.mean()) if len(right) else math.nan,
            "bits": account.total_bits,
            "learning_bits": learning.total_bits if learning else 0,
            "memory": [to_plain(row) for row in account.rows],
        }
        _need_numbers(measured)
        path = family.STORED.path(worker.folder, candidate)
        family.STORED.save(built, path)
        measured["sha256"] = digest(path)
    except Exception as error:
        return record | rejection(error, worker.folder)
    return record | measured | {"seconds": round(time.perf_counter() - start, 3)}


def rejection(error: Exception, folder: Path | None) -> dict[str, str]:
    """Entries of the record of a candidate that failed: the reason, and the kind of the error.

    An error that was not raised on purpose is a mistake of this library: it is named with its place in the source.

    Raises:
        RunError, or the error itself: not the candidate is at fault but the run.
    """
    if isinstance(error, MemoryError):
        raise RunError(
            "worker",
            "there is not enough memory",
            got=str(error)[:120] or None,
            fix="run the same command again: it continues; --workers 1 needs less memory",
        ) from None
    if isinstance(error, OSError):
        raise RunError(
            str(error.filename or folder or "worker"),
            "cannot be read or written",
            got=error.strerror,
            fix="free some space and run the same command again: it continues",
        ) from None
    if isinstance(error, QSpinnError):
        if folder is not None and Path(error.where).is_relative_to(folder):
            raise error
        return {"rejected": str(error), "error": type(error).__name__}
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "rejected": f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})",
        "error": type(error).__name__,
    }


def _need_numbers(measured: Mapping[str, Any], path: str = "") -> None:
    """Checks that everything measured is finite: what is not has no place on a front, in a reward or in JSON.

    Raises:
        RunError: names what is not.
    """
    for name, value in measured.items():
        if isinstance(value, Mapping):
            _need_numbers(value, f"{path}{name}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise RunError(f"{path}{name}", "is not finite", got=number)


def program_path(folder: Path, candidate: AnyCandidate) -> Path:
    """The file of a candidate that is an integer program."""
    return PROGRAM.path(folder, candidate)


def sensitivity_point(worker: Worker, candidate: AnyCandidate) -> dict[str, Any]:
    """Validation accuracy with one tensor narrow and the rest wide, or why that is not possible; as in `evaluate`."""
    record = {"key": candidate.key(), "label": candidate.label}
    try:
        measured = {"accuracy": worker.family.sweep_accuracy(worker.measurement, candidate)}
        _need_numbers(measured)
    except Exception as error:
        return record | rejection(error, worker.folder)
    return record | measured


class _Started(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Folder and experiment of a worker that waits for its first task, which names the files of the splits."""

    folder: Path
    experiment: AnyExperiment


_worker: Worker | _Started | QSpinnError | None = None
"""Worker of this process, before and after its first task, or the error with which it could not be opened."""


def start_worker(folder: str, experiment: bytes) -> None:
    """Prepares a worker process: imports what the family needs, and makes sure it ends when its parent is killed.

    The data of the run need not be there yet.
    """
    global _worker
    parent = multiprocessing.parent_process()  # known from birth: os.getppid() is already another one if it died since

    def watch(parent: Any) -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    _worker = _or_error(_started, folder, experiment)


def _started(folder: str, experiment: bytes) -> _Started:
    declared = read_experiment(msgspec.json.decode(experiment))
    family_of(declared)  # imports it
    return _Started(folder=Path(folder), experiment=declared)


def _or_error(step: Callable[..., Any], *arguments: Any) -> Any:
    """What a step of starting returns, or its error: it is raised where a task asks for the worker, since a process
    that dies at its start cannot say why."""
    try:
        return step(*arguments)
    except QSpinnError as error:
        return error
    except Exception as error:
        return RunError("worker", "could not be started", got=f"{type(error).__name__}: {error}"[:200])


def idle() -> None:
    """Does nothing: a process that takes this task has started."""


def open_worker(folder: Path, experiment: AnyExperiment, labels: tuple[str, ...], files: Files) -> Worker:
    """The worker for an experiment whose splits are in files."""
    family = family_of(experiment)
    return Worker(
        folder=folder,
        experiment=experiment,
        family=family,
        measurement=family.open_measurement(folder, experiment, labels, files),
    )


def work(kind: str, key: str, argument: bytes, inputs: bytes) -> dict[str, Any]:
    """Runs a task in a worker process; inputs are names of classes and files of splits, as JSON, see `open_worker`."""
    worker = _opened(inputs)
    plain = msgspec.json.decode(argument)
    if kind == "float":
        trained = worker.family.train_float(worker.measurement, plain)
        return {"kind": kind, "key": key, **trained, "sha256": digest(worker.family.float_path(worker.folder, plain))}
    if kind == "rehearsal":
        rehearsal_of(worker.experiment).rehearse(worker.measurement, plain)
        return {}
    measure = {"candidate": evaluate, "sensitivity": sensitivity_point}[kind]
    return {"kind": kind, **measure(worker, candidate_of(worker.experiment, plain))}


def _opened(inputs: bytes) -> Worker:
    """The worker of this process, opened if this is its first task."""
    global _worker
    if isinstance(_worker, _Started):
        labels, files = msgspec.json.decode(inputs)
        _worker = _or_error(open_worker, _worker.folder, _worker.experiment, tuple(labels), files)
    if isinstance(_worker, QSpinnError):
        raise _worker
    if not isinstance(_worker, Worker):
        raise RunError("worker", "was not started")
    return _worker

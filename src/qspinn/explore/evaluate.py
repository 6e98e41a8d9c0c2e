"""What is done with a candidate, whatever its family: build, measure on validation, store, record. Runs in workers.

A worker keeps a bench, what its family measures with; what travels is a candidate one way and a plain record the other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.errors import LoweringError, RunError
from qspinn.explore.family import AnyCandidate, AnyExperiment, Family, Files, candidate_of, family_of, read_experiment
from qspinn.explore.stored import PROGRAM
from qspinn.program import replacing
from qspinn.records import to_plain


class Worker(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A family at work on an experiment: its functions and the bench they need."""

    folder: Path
    experiment: AnyExperiment
    family: Family
    bench: Any


def store_array(path: Path, array: NDArray) -> None:
    """Writes an array as .npy, all or nothing; see `program.replacing`, also for errors."""
    with replacing(path) as file:
        np.save(file, array)


def evaluate(worker: Worker, candidate: AnyCandidate) -> dict[str, Any]:
    """Builds and measures a candidate, stores what was built, and returns the record for the journal.

    A candidate that cannot be lowered gets a record with the reason under "rejected" and no accuracy.
    """
    start = time.perf_counter()
    record = {"key": candidate.key(), "candidate": to_plain(candidate)}
    family = worker.family
    try:
        built, learning = family.build(worker.bench, candidate)
    except LoweringError as error:  # a plan that cannot become integers is a finding, not a failure of the run
        return record | {"rejected": str(error)}
    right, facts = family.measure(worker.bench, candidate, built)
    account = family.STORED.account(built)
    family.STORED.save(built, family.STORED.path(worker.folder, candidate))
    return record | facts | {
        "accuracy": float(right.mean()), "bits": account.total_bits,
        "learning_bits": learning.total_bits if learning else 0,
        "memory": [to_plain(row) for row in account.rows], "seconds": round(time.perf_counter() - start, 3),
    }


def program_path(folder: Path, candidate: AnyCandidate) -> Path:
    """The file of a candidate that is an integer program."""
    return PROGRAM.path(folder, candidate)


def sensitivity_point(worker: Worker, candidate: AnyCandidate) -> dict[str, Any]:
    """Validation accuracy with one tensor narrow and the rest wide, or why that is not possible."""
    record = {"key": candidate.key(), "label": candidate.label}
    try:
        return record | {"accuracy": worker.family.sweep_accuracy(worker.bench, candidate)}
    except LoweringError as error:
        return record | {"rejected": str(error)}


_worker: Worker | None = None


def start_worker(folder: str, experiment: bytes, labels: tuple[str, ...], files: Files) -> None:
    """Prepares a worker process: opens the shared files, and makes sure it ends when its parent is killed."""
    global _worker
    parent = multiprocessing.parent_process()  # known from birth: os.getppid() is already another one if it died since

    def watch(parent: Any) -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    _worker = open_worker(Path(folder), read_experiment(msgspec.json.decode(experiment)), labels, files)


def open_worker(folder: Path, experiment: AnyExperiment, labels: tuple[str, ...], files: Files) -> Worker:
    """The worker for an experiment whose splits are in files."""
    family = family_of(experiment)
    return Worker(folder=folder, experiment=experiment, family=family,
                  bench=family.open_bench(folder, experiment, labels, files))


def work(kind: str, key: str, argument: bytes) -> dict[str, Any]:
    """One task in a worker process."""
    if _worker is None:
        raise RunError("worker", "was not started")
    plain = msgspec.json.decode(argument)
    if kind == "float":
        return {"kind": kind, "key": key, **_worker.family.train_float(_worker.bench, plain)}
    measure = {"candidate": evaluate, "sensitivity": sensitivity_point}[kind]
    return {"kind": kind, **measure(_worker, candidate_of(_worker.experiment, plain))}

"""The exploration of any family: float training, significance, candidates, front, reward, one report on test.

Every finished piece of work is one record of the run's journal; what is there is not done again, so running the same
command after an interruption continues. Work goes to anything with the `concurrent.futures.Executor` interface.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from qspinn import __version__
from qspinn.arrays import integer, need_call, path_of
from qspinn.errors import ArtifactError, ConfigError, LoweringError, QSpinnError, RunError
from qspinn.exploration import tasks as ev
from qspinn.exploration.artifacts import need_digest
from qspinn.exploration.entries import check_entries
from qspinn.exploration.family import (
    AnyDataset,
    AnyExperiment,
    Family,
    Files,
    checked,
    family_of,
    home_of,
    read_experiment,
    rehearsal_of,
)
from qspinn.exploration.journal import Journal
from qspinn.exploration.outcome import Outcome, Selection, outcome_of, ranked, reasons, versions_of
from qspinn.exploration.sensitivity import Significance
from qspinn.exploration.workers import (
    READY,
    Event,
    Executors,
    LocalProcesses,
    OnEvent,
    Precompilation,
    Workers,
    is_measured,
    local_processes,
    stop,
)
from qspinn.files import remove_parts, write_atomic
from qspinn.records.record import canonical_json, content_key, to_plain

__all__ = ["Event", "Outcome", "explore", "local_processes", "sweep"]


def explore(
    experiment: AnyExperiment,
    out: str | Path,
    *,
    n_workers: int = 0,
    on_event: OnEvent | None = None,
    executors: Executors = local_processes,
) -> Outcome:
    """Runs, or continues, the exploration of an experiment in the folder out, and returns its result.

    Writes `journal`, `float/`, `cache/`, `candidates/`, the winner (`Outcome.model`) and `result.json` into out.

    Args:
        n_workers: worker processes; 0 for one per core.
        on_event: called after every finished piece of work.
        executors: makes the executor from (n_workers, initializer, its arguments).

    Raises:
        ConfigError: not an experiment, or a library that it needs is not installed.
        RunError: the folder belongs to another experiment, is in use or cannot be written, or a worker died. A
            candidate that fails is recorded with its reason, and the others go on.
        TargetError: no candidate meets the target; names the nearest.
        DataError: the data are missing or damaged.
    """
    start = time.perf_counter()
    report = on_event or _silent
    with _opened(experiment, out, n_workers, report, executors) as job:
        selection = _candidates(job, *_floats_and_sweep(job))
        worker = ev.open_worker(job.folder, experiment, job.dataset.labels, job.files)
        report(Event(stage="test", done=0, total=1))
        outcome = outcome_of(worker, job.dataset, job.workers.journal.records, selection, time.perf_counter() - start)
    write_atomic(job.folder / "result.json", msgspec.json.format(msgspec.json.encode(outcome), indent=1))
    report(Event(stage="test", done=1, total=1))
    return outcome


def sweep(
    experiment: AnyExperiment,
    out: str | Path,
    *,
    n_workers: int = 0,
    on_event: OnEvent | None = None,
    executors: Executors = local_processes,
) -> list[Significance]:
    """Runs, or continues, the part of `explore` up to the ranked significance curves, and returns those."""
    with _opened(experiment, out, n_workers, on_event or _silent, executors) as job:
        return _floats_and_sweep(job)[1]


def _silent(event: Event) -> None:
    """Ignores an event: no callback was given."""


class _Job(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An opened run: folder, experiment with its family, data, stored splits, and the workers."""

    folder: Path
    experiment: AnyExperiment
    family: Family
    dataset: AnyDataset
    files: Files
    workers: Workers


@contextlib.contextmanager
def _opened(
    experiment: AnyExperiment, out: str | Path, n_workers: int, report: OnEvent, executors: Executors
) -> Iterator[_Job]:
    """Loads and encodes the data, opens the journal and starts the workers; stops them again whatever happens."""
    experiment = checked(experiment)
    out, n_workers = path_of("out", out), integer("n_workers", n_workers, low=0, high=1024)
    for name, function in (("on_event", report), ("executors", executors)):
        need_call(name, function)
    folder = Path(out).resolve()
    _need_own(folder)
    report(Event(stage="data", done=0, total=1))
    n_workers = n_workers or os.cpu_count() or 1
    with executors(n_workers, ev.start_worker, (str(folder), canonical_json(experiment))) as pool, _stopping(pool):
        if isinstance(pool, LocalProcesses) and not (folder / "journal").exists():
            pool.start([home_of(experiment), READY])  # a run that is continued may have no task left
        family = family_of(experiment)
        dataset = family.load(experiment)
        with Journal(folder / "journal") as journal, _stopping(pool):
            _claim(journal, experiment, dataset, folder)
            for place, names in WRITTEN.items():  # this run holds the lock
                remove_parts(folder / place, names)
            files = family.store(folder, experiment, dataset)
            report(Event(stage="data", done=1, total=1))
            workers = Workers(
                journal=journal,
                pool=pool,
                inputs=canonical_json([dataset.labels, files]),
                report=report,
                max_running=2 * n_workers,
                precompilation=Precompilation(lambda: _rehearsals(experiment, folder, dataset.labels, files)),
            )
            yield _Job(
                folder=folder, experiment=experiment, family=family, dataset=dataset, files=files, workers=workers
            )


@contextlib.contextmanager
def _stopping(pool: concurrent.futures.Executor) -> Iterator[None]:
    """Ends the work of an executor where the block is left by an exception: none of it outlives the run's lock."""
    try:
        yield
    except BaseException:
        stop(pool)
        raise


WRITTEN = {
    "": ("result.json", "report.html", "model.qspinn", "model.safetensors"),
    "float": ("*.safetensors", "*.training"),
    "cache": ("*.npy", "*.sha256.json"),
    "candidates": ("*.qspinn", "*.safetensors", "*.training"),
}
"""Folder within a run's folder -> patterns of the files that a run writes there, beside its journal."""


def _need_own(folder: Path) -> None:
    """Checks that a run does not write over files of others: those of a run lie beside a journal.

    Raises:
        RunError: a file that a run writes is there and no journal, or a file stands where a run has a folder.
    """
    for name in filter(None, WRITTEN):
        place = folder / name
        if os.path.lexists(place) and not place.is_dir():
            raise RunError(str(place), "is no folder", fix="choose another folder with --out, or move it away")
    if (folder / "journal").exists():
        return
    for name, patterns in WRITTEN.items():
        for found in sorted(file for pattern in patterns for file in (folder / name).glob(pattern)):
            raise RunError(
                str(folder),
                "holds files, and no journal of a run that wrote them; they would be written over",
                got=str(found.relative_to(folder)),
                fix="choose another folder with --out, or move them away",
            )


def _rehearsals(
    experiment: AnyExperiment, folder: Path, labels: tuple[str, ...], files: Files
) -> Iterator[tuple[str, bytes]]:
    """Kernels that workers compile beforehand, see `rehearsal_of`; none where that fails: the run itself says why."""
    rehearsal = rehearsal_of(experiment)
    if rehearsal is None:
        return
    with contextlib.suppress(QSpinnError):
        measurement = ev.open_worker(folder, experiment, labels, files).measurement
        for key, piece in rehearsal.rehearsals(measurement):
            yield key, msgspec.json.encode(piece)


def _claim(journal: Journal, experiment: AnyExperiment, dataset: AnyDataset, folder: Path) -> None:
    """Writes what this run is about as its first record, or checks that it is the same."""
    mine = {
        "kind": "run",
        "key": content_key(experiment),
        "experiment": to_plain(experiment),
        "data": dataset.checksum(),
        "version": __version__,
        "labels": list(dataset.labels),
        "shape": list(dataset.shape),
    }
    if not journal.records:
        journal.append(mine)
        return
    check_entries(journal.records, str(journal.path))
    first = journal.records[0]
    for name, what in (("labels", "other names of classes"), ("shape", "samples of another shape")):
        # journals of earlier versions do not say them
        if first.get("data") == mine["data"] and first.get(name, mine[name]) != mine[name]:
            raise RunError(
                str(folder),
                f"holds a run of the same data with {what}",
                got=mine[name],
                allowed=str(first[name]),
                fix="choose another folder with --out, or delete this one",
            )
    same = first.get("data") == mine["data"]  # a folder of data that was moved is another experiment
    if not same or (first.get("key") != mine["key"] and not _reads_as(first.get("experiment"), experiment)):
        raise RunError(
            str(folder),
            "holds a run of another experiment or other data",
            got="the same data, and another experiment" if same else "other data",
            fix="choose another folder with --out, or delete this one; data.folder counts as it is written",
        )
    if versions_of(journal.records)[-1] != __version__:
        journal.append(mine)  # so that the result names every version that worked on it


def _reads_as(plain: Any, experiment: AnyExperiment) -> bool:
    """Whether the stored form of an experiment, perhaps one with former names of keys, is this experiment."""
    try:
        return read_experiment(plain) == experiment
    except ConfigError:
        return False


def _floats_and_sweep(job: _Job) -> tuple[Selection, list[Significance]]:
    """Float networks and the significance sweep."""
    experiment, family = job.experiment, job.family
    tasks = family.float_tasks(experiment)
    by_key = dict(tasks)
    floats = job.workers.run(
        "float training",
        "float",
        [(key, msgspec.json.encode(task)) for key, task in tasks],
        has_file=lambda record: _has_float(job, by_key[record["key"]], record),
    )
    account = family.account(experiment, job.dataset)
    points = family.points(experiment, job.dataset)
    job.workers.run("significance", "sensitivity", [(c.key(), canonical_json(c)) for c in points])
    selection = Selection(
        experiment=experiment, float_accuracy=floats[tasks[0][0]]["accuracy"], float_bits=account.total_bits
    )
    return selection, ranked(experiment, job.workers.journal.records, account)


def _has_float(job: _Job, task: Any, record: dict[str, Any]) -> bool:
    """Whether the float network of a task is whole, and the one that this run trained."""
    try:
        need_digest(job.family.float_path(job.folder, task), record.get("sha256"))
    except ArtifactError:
        return False
    return job.family.has_float(job.folder, task)


def _candidates(job: _Job, selection: Selection, curves: list[Significance]) -> Selection:
    """All candidates; their records are in the journal afterwards."""
    workers = job.workers

    def best() -> str:
        record = workers.done("candidate").get(selection.winner(workers.measured()))
        return f"{record['accuracy'] * 100:.2f} % at {selection.float_bits / record['bits']:.1f}x" if record else ""

    try:
        proposed = job.family.propose(job.experiment, job.dataset, curves)
    except LoweringError as error:
        why = [r for r in workers.done("sensitivity").values() if r["label"].startswith(f"{error.where}|")]
        raise LoweringError(error.where, error.problem, got=reasons(why)[0][0], fix=error.fix) from None
    by_key = {c.key(): c for c in proposed}

    def has_file(record: dict[str, Any]) -> bool:
        try:
            job.family.STORED.kept(job.folder, by_key[record["key"]], record["bits"], record.get("sha256"))
        except ArtifactError:
            return False
        return True

    workers.run(
        "candidates",
        "candidate",
        [(key, canonical_json(c)) for key, c in by_key.items()],
        best,
        lambda record: not is_measured(record) or has_file(record),
    )
    return selection

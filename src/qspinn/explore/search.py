"""The exploration: float training, significance, candidates, front, reward, one report on the test split.

Every finished piece of work is one record of the run's journal; what is there is not done again, so running the same
command after an interruption continues. Work goes to anything with the `concurrent.futures.Executor` interface.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from qspinn import data as datasets
from qspinn.errors import RunError
from qspinn.explore import evaluate as ev
from qspinn.explore import sensitivity
from qspinn.explore.crew import Crew, Event, Executors, OnEvent, local_processes
from qspinn.explore.journal import Journal
from qspinn.explore.outcome import Judge, Outcome, conclude, ranked
from qspinn.explore.proposal import propose
from qspinn.explore.sensitivity import Significance
from qspinn.explore.space import Experiment
from qspinn.memory import float_account
from qspinn.network import Network
from qspinn.program import write_atomic
from qspinn.records import canonical_json, content_key, to_plain
from qspinn.version import __version__

__all__ = ["Event", "Outcome", "explore", "local_processes", "sweep"]


def explore(
    experiment: Experiment, out: str | Path, *, n_workers: int = 0, on_event: OnEvent | None = None,
    executors: Executors = local_processes,
) -> Outcome:
    """Runs, or continues, the exploration of an experiment in the folder out, and returns its result.

    Writes `journal`, `float/`, `cache/`, `candidates/`, `model.qspinn` (the winner) and `result.json` into out.

    Args:
        n_workers: worker processes; 0 for one per core.
        on_event: called after every finished piece of work.
        executors: makes the executor from (n_workers, initializer, its arguments).

    Raises:
        RunError: the folder belongs to another experiment, is in use, or a candidate failed.
        DataError: the data are missing or damaged.
    """
    start = time.perf_counter()
    report = on_event or _silent
    with _opened(experiment, out, n_workers, report, executors) as job:
        judge = _candidates(experiment, job.crew, *_floats_and_sweep(experiment, job))
        bench = ev.open_bench(job.folder, experiment, job.dataset.labels, job.splits)
        report(Event(stage="test", done=0, total=1))
        outcome = conclude(experiment, job.dataset, bench, job.crew.journal.records, judge,
                           time.perf_counter() - start)
    write_atomic(job.folder / "result.json", msgspec.json.format(msgspec.json.encode(outcome), indent=1))
    report(Event(stage="test", done=1, total=1))
    return outcome


def sweep(
    experiment: Experiment, out: str | Path, *, n_workers: int = 0, on_event: OnEvent | None = None,
    executors: Executors = local_processes,
) -> list[Significance]:
    """Runs, or continues, the part of `explore` up to the ranked significance curves, and returns those."""
    with _opened(experiment, out, n_workers, on_event or _silent, executors) as job:
        _floats_and_sweep(experiment, job)
        return ranked(experiment, job.crew.journal.records, float_account(job.network))


def _silent(event: Event) -> None:
    """Nobody listens."""


class _Job(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An opened run: folder, data, encoded files, and the workers."""

    folder: Path
    dataset: datasets.Dataset
    network: Network
    splits: dict[str, tuple[str, str, str, int]]
    crew: Crew


@contextlib.contextmanager
def _opened(
    experiment: Experiment, out: str | Path, n_workers: int, report: OnEvent, executors: Executors
) -> Iterator[_Job]:
    """Loads and encodes the data, opens the journal and starts the workers; stops them again whatever happens."""
    folder = Path(out).resolve()
    report(Event(stage="data", done=0, total=1))
    dataset = datasets.load(experiment.data)
    n_workers = n_workers or os.cpu_count() or 1
    network = experiment.network.build(dataset.train.images.shape[1], len(dataset.labels))
    with Journal(folder / "journal") as journal:
        _claim(journal, experiment, dataset, folder)
        for left_over in folder.rglob(".*.part"):  # half files of a run that was killed; this one holds the lock
            left_over.unlink(missing_ok=True)
        splits = _encoded(folder, experiment, dataset)
        report(Event(stage="data", done=1, total=1))
        arguments = (str(folder), canonical_json(experiment), dataset.labels, splits)
        with executors(n_workers, ev.start_worker, arguments) as pool:
            crew = Crew(journal=journal, pool=pool, report=report, room=2 * n_workers)
            try:
                yield _Job(folder=folder, dataset=dataset, network=network, splits=splits, crew=crew)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _claim(journal: Journal, experiment: Experiment, dataset: datasets.Dataset, folder: Path) -> None:
    """Writes what this run is about as its first record, or checks that it is the same."""
    mine = {"kind": "run", "key": content_key(experiment), "experiment": to_plain(experiment),
            "data": dataset.checksum(), "version": __version__}
    if not journal.records:
        journal.append(mine)
        return
    first = journal.records[0]
    if (first.get("key"), first.get("data")) != (mine["key"], mine["data"]):
        raise RunError(str(folder), "holds a run of another experiment or other data",
                       fix="choose another folder with --out, or delete this one")


def _encoded(folder: Path, experiment: Experiment, dataset: datasets.Dataset) -> dict[str, tuple[str, str, str, int]]:
    """Files of the encoded training and validation splits; drawn once, shared by all candidates."""
    files = {}
    for name, split in (("train", dataset.train), ("validation", dataset.validation)):
        spikes = ev.encode_split(folder, name, split.images, split.first, experiment, len(dataset.labels))
        stem = str(spikes.offsets.filename).removesuffix(".offsets.npy")  # type: ignore[attr-defined]
        labels = Path(f"{stem}.labels.npy")
        ev.store_array(labels, split.labels)
        files[name] = (f"{stem}.offsets.npy", f"{stem}.index.npy", str(labels), spikes.n)
    return files


def _floats_and_sweep(experiment: Experiment, job: _Job) -> tuple[Judge, list[Significance]]:
    """Float networks and the significance sweep."""
    n0 = experiment.network.n_neurons
    sizes = sorted({n0, *experiment.search.n_neurons}, reverse=True)
    floats = job.crew.run("float training", "float", [(f"float-n{n}", msgspec.json.encode(n)) for n in sizes])
    account = float_account(job.network)
    points = sensitivity.points(experiment, job.network)
    job.crew.run("significance", "sensitivity", [(c.key(), canonical_json(c)) for c in points])
    judge = Judge(experiment=experiment, float_accuracy=floats[f"float-n{n0}"]["accuracy"],
                  float_bits=account.total_bits)
    return judge, ranked(experiment, job.crew.journal.records, account)


def _candidates(experiment: Experiment, crew: Crew, judge: Judge, curves: list[Significance]) -> Judge:
    """All candidates; their records are in the journal afterwards."""

    def best() -> str:
        found = crew.done("candidate").get(judge.winner(crew.measured()))
        return f"{found['accuracy'] * 100:.2f} % at {judge.float_bits / found['bits']:.1f}x" if found else ""

    crew.run("candidates", "candidate", [(c.key(), canonical_json(c)) for c in propose(experiment, curves)], best)
    return judge

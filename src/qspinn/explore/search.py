"""The exploration: float training, significance, candidates, front, reward, one report on the test split.

Every finished piece of work is one record of the run's journal; what is there is not done again, so running the same
command after an interruption continues. Work goes to anything with the `concurrent.futures.Executor` interface.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import itertools
import multiprocessing
import multiprocessing.context
import os
import platform
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from qspinn import data as datasets
from qspinn import program as program_file
from qspinn.data.encoders import poisson
from qspinn.errors import RunError
from qspinn.explore import evaluate as ev
from qspinn.explore import sensitivity
from qspinn.explore.journal import Journal
from qspinn.explore.pareto import pareto_front
from qspinn.explore.sensitivity import Significance
from qspinn.explore.space import Candidate, Experiment, Scheme, candidate_plan, label_of
from qspinn.explore.statistics import Difference, paired_difference
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp import respond
from qspinn.lower import readout_votes
from qspinn.memory import MemoryAccount, float_account
from qspinn.network import Network
from qspinn.plan import Granularity
from qspinn.program import PoissonOp, write_atomic
from qspinn.records import canonical_json, content_key, from_plain, to_plain
from qspinn.runtime import run
from qspinn.version import __version__


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a run: which stage, how much is done of how much, and the best candidate so far."""

    stage: str
    done: int
    total: int
    best: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an exploration, as written to result.json.

    Accuracies are shares in 0..1: on validation for the search, on test for the baseline and the winner only.
    """

    experiment: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]
    float_bits: int
    float_memory: list[dict[str, Any]]
    floats: list[dict[str, Any]]
    significance: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    front: list[str]
    admitted: list[str]
    winner: str
    rewards: dict[str, float]
    float_validation: float
    winner_validation: float
    float_test: float
    winner_test: float
    test_difference: Difference
    confusion: list[list[int]]
    seconds: float


OnEvent = Callable[[Event], None]
Executors = Callable[..., concurrent.futures.Executor]


class _WorkerProcess(multiprocessing.context.SpawnProcess):
    """A fresh process that does not import the caller's main module: workers need nothing of it, and so a script
    without a main guard, a notebook, or code read from a pipe can call `explore` all the same."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # the hook's name is multiprocessing's
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return multiprocessing.context.SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _WorkerContext(multiprocessing.context.SpawnContext):
    Process = _WorkerProcess


def local_processes(n_workers: int, initializer: Callable[..., None], arguments: tuple) -> concurrent.futures.Executor:
    """One fresh Python process per worker on this machine."""
    return concurrent.futures.ProcessPoolExecutor(n_workers, mp_context=_WorkerContext(), initializer=initializer,
                                                  initargs=arguments)


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
        outcome = _outcome(experiment, job.dataset, bench, job.crew.journal.records, judge,
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


class Crew(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Hands tasks to the workers and their records to the journal."""

    journal: Journal
    pool: concurrent.futures.Executor
    report: OnEvent
    room: int

    def done(self, kind: str) -> dict[str, dict[str, Any]]:
        """Finished records of a kind, by key."""
        return {r["key"]: r for r in self.journal.records if r["kind"] == kind}

    def measured(self) -> list[dict[str, Any]]:
        """Records of the candidates that could be lowered."""
        return [r for r in self.done("candidate").values() if "rejected" not in r]

    def run(self, stage: str, kind: str, tasks: Iterable[tuple[str, bytes]], best: Callable[[], str] = str
            ) -> dict[str, dict[str, Any]]:
        """Records of all tasks (key, argument), computing those that are missing; order does not matter."""
        todo = dict(tasks)
        total, wanted = len(todo), set(todo)
        for key in self.done(kind):
            todo.pop(key, None)
        self.report(Event(stage=stage, done=total - len(todo), total=total, best=best()))
        waiting = list(todo.items())
        running: dict[concurrent.futures.Future, str] = {}
        finished = total - len(todo)
        while waiting or running:
            while waiting and len(running) < self.room:
                key, argument = waiting.pop(0)
                running[self.pool.submit(ev.work, kind, argument)] = key
            ready, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ready:
                running.pop(future)
                self.journal.append(_result_of(future))
                finished += 1
                self.report(Event(stage=stage, done=finished, total=total, best=best()))
        return {k: r for k, r in self.done(kind).items() if k in wanted}


def _result_of(future: concurrent.futures.Future) -> dict[str, Any]:
    try:
        return future.result()
    except concurrent.futures.BrokenExecutor:
        raise RunError("worker", "a worker process died (killed, or out of memory)",
                       fix="run the same command again: it continues; --workers 1 needs less memory") from None


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
        with labels.with_suffix(".part").open("wb") as file:
            np.save(file, split.labels)
        labels.with_suffix(".part").replace(labels)
        files[name] = (f"{stem}.offsets.npy", f"{stem}.index.npy", str(labels), spikes.n)
    return files


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """Target, front and reward, with what they compare against."""

    experiment: Experiment
    float_accuracy: float
    float_bits: int

    def front(self, records: list[dict[str, Any]]) -> list[str]:
        """Keys of the candidates that no other beats in both accuracy and memory, cheapest first."""
        if not records:
            return []
        mask = pareto_front([(-r["accuracy"], r["bits"]) for r in records])
        on = [r for r, m in zip(records, mask, strict=True) if m]
        return [r["key"] for r in sorted(on, key=lambda r: (r["bits"], r["key"]))]

    def admitted(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The candidates that lose no more than the target allows."""
        floor = self.float_accuracy - self.experiment.search.max_drop_points / 100
        return [r for r in records if r["accuracy"] >= floor - 1e-12]

    def reward(self, record: dict[str, Any]) -> float:
        return self.experiment.reward.value(record["accuracy"], record["bits"], self.float_accuracy, self.float_bits)

    def winner(self, records: list[dict[str, Any]]) -> str:
        """Key of the admitted candidate with the largest reward; "" when none is admitted. It is on the front."""
        best = max(self.admitted(records), key=lambda r: (self.reward(r), -r["bits"], r["key"]), default=None)
        return best["key"] if best else ""


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


def ranked(experiment: Experiment, records: list[dict[str, Any]], account: MemoryAccount) -> list[Significance]:
    """The significance curves of a journal."""
    accuracy = {r["label"]: r["accuracy"] for r in records if r["kind"] == "sensitivity"}
    return sensitivity.significance(experiment, accuracy, account)


def propose(experiment: Experiment, curves: list[Significance]) -> list[Candidate]:
    """The candidates in the order in which they are tried, from most to fewest weight bits.

    The tensors other than the weights get either the widths that significance found harmless under the same rounding
    ("lean") or one of the fixed `state_bits`. Left out as hopeless: PTQ with a global step where quantizing the
    weights alone already loses more than `hopeless_points`. ITQ is tried lean and with all inputs; network sizes other
    than the baseline's by PTQ with a step per neuron.
    """
    search, n0 = experiment.search, experiment.network.n_neurons
    found: list[Candidate] = []

    def add(scheme: Scheme, bits: int, granularity: Granularity, rounding: Rounding, states: str,
            widths: dict[str, int], rate: float, n: int) -> None:
        plan = candidate_plan(bits, granularity, rounding, widths, rate)
        label = label_of(scheme, bits, granularity, rounding, states, rate, n)
        found.append(Candidate(scheme=scheme, plan=plan, n_neurons=n, seed=experiment.seed, label=label))

    for bits, rounding, granularity in itertools.product(
            sorted(search.weight_bits, reverse=True), search.roundings, search.granularities):
        own = {s.path: s for s in curves if s.rounding is rounding}
        per_neuron = granularity is Granularity.PER_NEURON
        if Scheme.ITQ in search.schemes:
            add(Scheme.ITQ, bits, granularity, rounding, "lean", learning_widths(lean_widths(own)), 0.0, n0)
        if not per_neuron and own["exc.w"].drop_at(bits) * 100 > search.hopeless_points:
            continue
        levels = {"lean": lean_widths(own)} | {f"s{b}": dict.fromkeys(lean_widths(own), b) for b in search.state_bits}
        for (states, widths), rate in itertools.product(levels.items(), search.input_rates):
            for scheme in search.schemes:
                if scheme is not Scheme.ITQ:
                    add(scheme, bits, granularity, rounding, states, widths, rate, n0)
            for n in search.n_neurons:
                if per_neuron and Scheme.PTQ in search.schemes and n != n0:
                    add(Scheme.PTQ, bits, granularity, rounding, states, widths, rate, n)
    return found


TRACE_BITS = 8
LEARNING_BITS = {"v": 12, "decay": 12, "theta": 16, "v_th": 16}
"""Least widths while learning: small increments and slow decays that inference may round away must be kept here."""


def lean_widths(own: dict[str, Significance]) -> dict[str, int]:
    """The harmless width of everything but the weights."""
    return {path: s.harmless_bits for path, s in own.items() if path != "exc.w"}


def learning_widths(lean: dict[str, int]) -> dict[str, int]:
    """Lean widths, raised to what learning on the grid needs, and traces."""
    raised = {path: max(bits, LEARNING_BITS.get(path.split(".")[-1], 0)) for path, bits in lean.items()}
    raised["exc.v"] = min(raised["exc.v"], 15)  # up to 15 bits the engine keeps potentials in 16-bit lanes
    return raised | {"exc.x_pre": TRACE_BITS, "exc.x_post": TRACE_BITS}


def _outcome(
    experiment: Experiment, dataset: datasets.Dataset, bench: ev.Bench, records: list[dict[str, Any]], judge: Judge,
    seconds: float,
) -> Outcome:
    """Chooses on validation, measures baseline and winner once on test, and stores the winner's program."""
    by_kind = {kind: [r for r in records if r["kind"] == kind] for kind in ("float", "sensitivity", "candidate")}
    rejected = [r for r in by_kind["candidate"] if "rejected" in r]
    candidates = sorted((r for r in by_kind["candidate"] if "rejected" not in r), key=lambda r: r["key"])
    winner = judge.winner(candidates)
    if not winner:
        best = max(candidates, key=lambda r: r["accuracy"])
        raise RunError("search", "no candidate meets the target", got=f"best loses "
                       f"{(judge.float_accuracy - best['accuracy']) * 100:.2f} points",
                       allowed=f"{experiment.search.max_drop_points} points",
                       fix="allow a larger search.max_drop_points in a new folder, or add weight_bits")
    chosen = next(r for r in candidates if r["key"] == winner)
    candidate = from_plain(Candidate, chosen["candidate"])
    program = program_file.load(ev.program_path(bench.folder, candidate))
    test = dataset.test
    spikes = poisson(test.images, program.ops_of(PoissonOp)[0], program.n_steps, first_sample=test.first)
    trained = bench.float_network(experiment.network.n_neurons)
    float_right = (respond(trained, spikes) @ readout_votes(trained)).argmax(axis=1) == test.labels
    predicted = run(program, spikes).predictions()
    right = predicted == test.labels
    provenance = program.provenance | {"data": dataset.checksum(), "qspinn": __version__,
                                       "validation_accuracy": chosen["accuracy"], "test_accuracy": float(right.mean())}
    program_file.save(msgspec.structs.replace(program, provenance=provenance), bench.folder / "model.qspinn")
    account = float_account(trained.network)
    confusion = np.zeros((len(dataset.labels), len(dataset.labels)), dtype=int)
    np.add.at(confusion, (test.labels, predicted), 1)
    return Outcome(
        experiment=to_plain(experiment),
        data={"name": dataset.name, "split_rule": dataset.split_rule, "sha256": dataset.checksum(),
              "shape": list(dataset.shape), "labels": list(dataset.labels),
              "n": [len(dataset.train.labels), len(dataset.validation.labels), len(test.labels)]},
        versions=versions(), float_bits=judge.float_bits, float_memory=[to_plain(r) for r in account.rows],
        floats=sorted(by_kind["float"], key=lambda r: r["n_neurons"]),
        significance=[to_plain(s) for s in ranked(experiment, records, account)], candidates=candidates, rejected=rejected,
        front=judge.front(candidates), admitted=[r["key"] for r in judge.admitted(candidates)], winner=winner,
        rewards={r["key"]: judge.reward(r) for r in candidates}, float_validation=judge.float_accuracy,
        winner_validation=chosen["accuracy"], float_test=float(float_right.mean()), winner_test=float(right.mean()),
        test_difference=paired_difference(float_right, right), confusion=confusion.tolist(), seconds=round(seconds, 1),
    )


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"qspinn": __version__, "python": platform.python_version(), "numpy": np.__version__,
            "numba": importlib.metadata.version("numba")}

"""The exploration: float training, significance, candidates, front, reward, one report on the test split.

Every finished piece of work is one record of the run's journal; what is there is not done again, so running the same
command after an interruption continues. Work goes to anything with the `concurrent.futures.Executor` interface.
"""

from __future__ import annotations

import concurrent.futures
import importlib.metadata
import multiprocessing
import multiprocessing.context
import os
import platform
import sys
import time
import types
from collections.abc import Callable, Iterable
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
from qspinn.explore.space import Candidate, Experiment, Scheme, SearchConfig, candidate_plan, label_of
from qspinn.explore.statistics import Difference, paired_difference
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
    folder = Path(out).resolve()
    report = on_event or (lambda event: None)
    report(Event(stage="data", done=0, total=1))
    dataset = datasets.load(experiment.data)
    n_workers = n_workers or os.cpu_count() or 1
    network = experiment.network.build(dataset.train.images.shape[1], len(dataset.labels))
    with Journal(folder / "journal") as journal:
        _claim(journal, experiment, dataset, folder)
        splits = _encoded(folder, experiment, dataset)
        arguments = (str(folder), canonical_json(experiment), dataset.labels, splits)
        with executors(n_workers, ev.start_worker, arguments) as pool:
            crew = Crew(journal=journal, pool=pool, report=report, room=2 * n_workers)
            try:
                judge = _stages(experiment, crew, network)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        bench = ev.open_bench(folder, experiment, dataset.labels, splits)
        report(Event(stage="test", done=0, total=1))
        outcome = _outcome(experiment, dataset, bench, journal.records, judge, time.perf_counter() - start)
    write_atomic(folder / "result.json", msgspec.json.format(msgspec.json.encode(outcome), indent=1))
    return outcome


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


def _stages(experiment: Experiment, crew: Crew, network: Network) -> Judge:
    """Float networks, significance, candidates; their records are in the journal afterwards."""
    n0 = experiment.network.n_neurons
    sizes = sorted({n0, *experiment.search.n_neurons}, reverse=True)
    floats = crew.run("float training", "float", [(f"float-n{n}", msgspec.json.encode(n)) for n in sizes])
    account = float_account(network)
    judge = Judge(experiment=experiment, float_accuracy=floats[f"float-n{n0}"]["accuracy"],
                  float_bits=account.total_bits)
    sweep = sensitivity.points(experiment, network)
    crew.run("significance", "sensitivity", [(c.key(), canonical_json(c)) for c in sweep])
    candidates = propose(experiment, ranked(experiment, crew.journal.records, account))

    def best() -> str:
        found = crew.done("candidate").get(judge.winner(crew.measured()))
        return f"{found['accuracy'] * 100:.2f} % at {judge.float_bits / found['bits']:.1f}x" if found else ""

    crew.run("candidates", "candidate", [(c.key(), canonical_json(c)) for c in candidates], best)
    return judge


def ranked(experiment: Experiment, records: list[dict[str, Any]], account: MemoryAccount) -> list[Significance]:
    """The significance curves of a journal."""
    accuracy = {r["label"]: r["accuracy"] for r in records if r["kind"] == "sensitivity"}
    return sensitivity.significance(experiment, accuracy, account)


def propose(experiment: Experiment, curves: list[Significance]) -> list[Candidate]:
    """The candidates in the order in which they are tried, from most to fewest weight bits.

    The tensors other than the weights get either the widths that significance found harmless under the same rounding
    ("lean") or one of the fixed `state_bits`. Left out: PTQ with a global step where quantizing the weights alone
    already loses more than `hopeless_points`; ITQ with other than the smallest and the largest input rate; other
    network sizes in anything but PTQ with a step per neuron.
    """
    search = experiment.search
    found: list[Candidate] = []
    for bits in sorted(search.weight_bits, reverse=True):
        for rounding in search.roundings:
            own = {s.path: s for s in curves if s.rounding is rounding}
            for granularity in search.granularities:
                hopeless = granularity is Granularity.GLOBAL and (
                    own["exc.w"].drop_at(bits) * 100 > search.hopeless_points)
                for states, widths in state_levels(search, own).items():
                    for rate in search.input_rates:
                        plan = candidate_plan(bits, granularity, rounding, widths, rate)
                        for scheme, n in _ways(experiment, granularity, rate, hopeless):
                            label = label_of(scheme, bits, granularity, rounding, states, rate, n)
                            found.append(Candidate(scheme=scheme, plan=plan, n_neurons=n, seed=experiment.seed,
                                                   label=label))
    return found


def state_levels(search: SearchConfig, own: dict[str, Significance]) -> dict[str, dict[str, int]]:
    """Widths of everything but the weights, by level: "lean" from the curves, "s<bits>" fixed. Traces: 8 bits lean."""
    lean = {path: s.harmless_bits for path, s in own.items() if path != "exc.w"}
    lean |= {"exc.x_pre": 8, "exc.x_post": 8}
    return {"lean": lean} | {f"s{bits}": dict.fromkeys(lean, bits) for bits in search.state_bits}


def _ways(experiment: Experiment, granularity: Granularity, rate: float, hopeless: bool) -> list[tuple[Scheme, int]]:
    """(scheme, network size) pairs that are worth trying for a plan."""
    search, n0 = experiment.search, experiment.network.n_neurons
    ways = []
    for scheme in search.schemes:
        if scheme is Scheme.ITQ and rate not in (min(search.input_rates), max(search.input_rates)):
            continue
        if scheme is not Scheme.ITQ and hopeless:
            continue
        ways.append((scheme, n0))
        if scheme is Scheme.PTQ and granularity is Granularity.PER_NEURON:
            ways += [(scheme, n) for n in search.n_neurons if n != n0]
    return ways


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

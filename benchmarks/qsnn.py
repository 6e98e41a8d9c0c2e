"""Q-SNN (Wei et al. 2024) in integers: one-bit weights with potentials of 8, 4 and 2 bits, and what regulation brings.

Usage: qsnn.py widths | regulation [NAME ...] [--seeds 0 1 2] [--set search.itq.epochs=1 ...]

Reads the data from QSPINN_DATA. Runs are kept in runs/bench and continue where they were. Every choice is made on
validation; test is measured once for the float network, the three widths, and the one without regulation, each as the
integer engine executes it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import qspinn
from claims import ROOT, claim, write
from qspinn import program as programs
from qspinn.exploration.layered import measurement as layered
from qspinn.exploration.layered.space import LayeredCandidate, LayeredExperiment
from qspinn.exploration.search import Outcome
from qspinn.exploration.tasks import program_path
from qspinn.memory import MemoryRow
from qspinn.records.record import from_plain

RUNS = ROOT / "runs" / "bench"
TOPIC = "qsnn"
LIMITS = {8: 0.3, 4: 0.6, 2: 1.3}
"""What each width of the potentials may lose on test [points]; the paper on DVS-Gesture: -0.09, 0.26, 1.30."""
LEAST_FACTOR = 20.0
NAMES = ("qsnn_nmnist8", "qsnn_braille")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One exploration of a seed, and its data set."""

    seed: int
    folder: Path
    experiment: LayeredExperiment
    outcome: Outcome
    dataset: Any

    def record(self, state_bits: int) -> dict[str, Any]:
        """The candidate of one-bit weights and this width of potentials."""
        return next(
            c for c in self.outcome.candidates if {"w1", f"s{state_bits}"} <= set(c["candidate"]["label"].split())
        )

    def test_accuracy(self, program: qspinn.Program) -> float:
        """Share of test recordings that the integer engine gets right."""
        split = self.dataset.test
        return float((qspinn.run(program, split.graded()).predictions() == split.labels).mean())

    def stored(self, state_bits: int) -> qspinn.Program:
        candidate = from_plain(LayeredCandidate, self.record(state_bits)["candidate"])
        return programs.load(program_path(self.folder, candidate))


def explored(name: str, seed: int, overrides: list[str]) -> Run:
    """The run of a seed, continued where it was, with its report; with overrides in a folder of its own."""
    experiment = qspinn.load_experiment(ROOT / "experiments" / f"{name}.toml", [f"seed={seed}", *overrides])
    folder = (RUNS / "tried" if overrides else RUNS) / f"{experiment.name}-{seed}"
    outcome = qspinn.explore(experiment, folder)
    qspinn.write_report(folder)
    print(f"{name} seed {seed}: float {outcome.float_test:.4f} on test, {outcome.seconds:.0f} s", flush=True)
    return Run(seed=seed, folder=folder, experiment=experiment, outcome=outcome, dataset=layered.load(experiment))


def widths(name: str, seeds: list[int], overrides: list[str], command: str) -> list[dict[str, Any]]:
    """Claims about the three widths."""
    runs = [explored(name, seed, overrides) for seed in seeds]
    floats = [r.outcome.float_test * 100 for r in runs]
    found = [claim(f"{name}: float test accuracy", floats, "%", "", None, seeds=seeds, command=command)]
    for bits, limit in LIMITS.items():
        lost = [(r.outcome.float_test - r.test_accuracy(r.stored(bits))) * 100 for r in runs]
        validation = [(r.outcome.float_validation - r.record(bits)["accuracy"]) * 100 for r in runs]
        judged = bool(np.median(lost) <= limit) if name == NAMES[0] else None
        found.append(
            claim(
                f"{name}: one-bit weights, potentials of {bits} bits, accuracy lost on test",
                lost,
                "points",
                f"at most {limit:g}" if judged is not None else "",
                judged,
                seeds=seeds,
                command=command,
                note=f"on validation: {', '.join(f'{x:.2f}' for x in validation)}; {rates(runs, bits)}",
            )
        )
    saved = [r.outcome.float_bits / r.record(2)["bits"] for r in runs]
    judged = bool(np.median(saved) >= LEAST_FACTOR) if name == NAMES[0] else None
    found.append(
        claim(
            f"{name}: one-bit weights, potentials of 2 bits, parameters and all states, batch 1",
            saved,
            "times less",
            f"at least {LEAST_FACTOR:g}" if judged is not None else "",
            judged,
            seeds=seeds,
            command=command,
            digits=1,
            note=shares(runs[0]),
        )
    )
    return found


def rates(runs: list[Run], bits: int) -> str:
    """Firing rates on validation, float and integers, of the first run."""
    record, float_rates = runs[0].record(bits), runs[0].outcome.floats[0]["rates"]
    told = ", ".join(f"{n} {float_rates[n]:.3f} → {rate:.3f}" for n, rate in record["rates"].items())
    return f"spikes per neuron and step, seed {runs[0].seed}: {told}"


def shares(run: Run) -> str:
    """Where the memory lies."""
    rows = [from_plain(MemoryRow, r) for r in run.record(2)["memory"]]
    state = sum(r.total_bits for r in rows if r.role == "state")
    total = sum(r.total_bits for r in rows)
    weights = {r["path"]: r["count"] for r in run.outcome.float_memory if ".w" in r["path"]}
    ends = (run.experiment.search.first_bits, run.experiment.search.last_bits)
    hidden = sum(r.count for r in rows if r.path in weights and r.bits == 1) / sum(weights.values())
    return (
        f"{total / 8000:.2f} kB, {state / total:.0%} of it potentials; {hidden:.1%} of the weights have one bit, "
        f"those of the first and last layer {ends[0]} and {ends[1]}"
    )


def regulation(name: str, seeds: list[int], overrides: list[str], command: str) -> list[dict[str, Any]]:
    """What weight and spike regulation bring at potentials of 2 bits, against neither, from the same float network."""
    gains, told = [], []
    for seed in seeds:
        run = explored(name, seed, overrides)
        plain = without(run)
        on, off = (run.test_accuracy(p) * 100 for p in (run.stored(2), plain))
        gains.append(on - off)
        told.append(f"{on:.2f} against {off:.2f}")
    return [
        claim(
            f"{name}: weight and spike regulation at one-bit weights and potentials of 2 bits, gain on test",
            gains,
            "points",
            "reported as it is",
            None,
            seeds=seeds,
            command=command,
            note="; ".join(told),
        )
    ]


def without(run: Run) -> qspinn.Program:
    """The candidate of 2-bit potentials trained without regulation, from the run's folder or anew."""
    search = run.experiment.search
    search = msgspec.structs.replace(
        search, standardize=False, itq=msgspec.structs.replace(search.itq, spike_regulation=0.0)
    )
    experiment = msgspec.structs.replace(run.experiment, search=search)
    label = run.record(2)["candidate"]["label"]
    candidate = next(c for c in layered.propose(experiment, run.dataset, []) if c.label == label)
    path = program_path(run.folder, candidate)
    if not path.exists():
        files = layered.store(run.folder, experiment, run.dataset)
        bench = layered.open_measurement(run.folder, experiment, run.dataset.labels, files)
        programs.save(layered.build(bench, candidate)[0], path)
    return programs.load(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=["widths", "regulation"])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        default=[],
        help="Override keys, for a try: its runs lie apart and no result is stored.",
    )
    arguments = parser.parse_args()
    topic = {"widths": widths, "regulation": regulation}[arguments.topic]
    new = []
    for name in arguments.names or (NAMES[:1] if topic is widths else NAMES):
        command = f"python benchmarks/qsnn.py {arguments.topic} {name}"
        new += topic(name, arguments.seeds, arguments.overrides, command)
    for record in new:
        print(f"{record['claim']}: {record['value']} {record['unit']} {record['spread']}; {record['note']}")
    if arguments.overrides:
        return
    stored = ROOT / "benchmarks" / "results" / f"{TOPIC}.json"
    records = json.loads(stored.read_text()) if stored.exists() else []
    replaced = {r["command"] for r in new}
    write(TOPIC, [r for r in records if r["command"] not in replaced] + new)


if __name__ == "__main__":
    main()

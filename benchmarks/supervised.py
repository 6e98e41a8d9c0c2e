"""Accuracy and memory of layered networks: searches by seed, fixed widths on test, identity of training and engine.

Usage: supervised.py search NAME ... | identity [--seeds 0 1 2]; NAME is a file of experiments/ (nmnist8, braille, ...).

Reads the data from QSPINN_DATA (dvs_gesture runs on synthetic gestures). Runs are kept in runs/bench and continue where
they were. Every choice is made on validation; test is measured for the float network, the winner, and the widths below.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import msgspec
import numpy as np
import torch

import qspinn
from claims import ROOT, claim, write
from qspinn import program as programs
from qspinn.data import EventDataset
from qspinn.exploration.layered import measurement as layered
from qspinn.exploration.layered.space import LayeredCandidate, LayeredExperiment
from qspinn.exploration.search import Outcome
from qspinn.exploration.tasks import program_path
from qspinn.learning.gradients import quantized
from qspinn.learning.gradients.training import Supervision, fit, layer_ranges
from qspinn.quantization.layered import lower_layers
from qspinn.records.record import from_plain

RUNS = ROOT / "runs" / "bench"
TOPIC = "supervised"
TARGETS: dict[str, tuple[float | None, float | None, float | None]] = {
    "nmnist8": (98.5, 12, 1.0),
    "braille": (94, 8, 1.5),
    "dvs_gesture": (90, 4, 1.0),
    "ev_containers": (None, None, None),
    "mnist_conv": (None, None, None),
}
"""Least float test accuracy [%], least memory factor, largest loss on test [points]."""
WIDTHS = {
    "nmnist8": (
        ("ptq w4 per-channel nearest s12", 0.3),
        ("itq w3 per-channel nearest s6", 0.3),
        ("itq w2 per-channel nearest s4", 1.0),
    )
}
"""Candidates of fixed widths that are measured on test besides the winner, and what they may lose."""
PROVEN = ("itq w2 per-channel nearest s4", "itq w1 per-channel nearest s3 first3")
"""Candidates of nmnist8 whose modules are compared with the engine."""


def experiment_of(name: str, seed: int) -> LayeredExperiment:
    """The experiment of a file; DVS gestures on synthetic recordings."""
    found = qspinn.load_experiment(ROOT / "experiments" / f"{name}.toml", [f"seed={seed}"])
    return found.on_synthetic_data() if name == "dvs_gesture" else found


def run(name: str, seed: int) -> Outcome:
    """One exploration with its report, continued where it was."""
    folder = RUNS / f"{name}-{seed}"
    outcome = qspinn.explore(experiment_of(name, seed), folder)
    qspinn.write_report(folder)
    print(f"{name} seed {seed}: float {outcome.float_test:.4f}, winner {outcome.winner_test:.4f}", flush=True)
    return outcome


def search(name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Claims of one experiment over the seeds."""
    outcomes = [run(name, seed) for seed in seeds]
    winners = [next(c for c in o.candidates if c["key"] == o.winner) for o in outcomes]
    least, factor, loss = TARGETS[name]
    title = f"{name} (synthetic gestures)" if name == "dvs_gesture" else name
    command = f"python benchmarks/supervised.py search {name}"
    floats = [o.float_test * 100 for o in outcomes]
    saved = [o.float_bits / w["bits"] for o, w in zip(outcomes, winners, strict=True)]
    lost = [-o.test_difference.points for o in outcomes]
    note = "; ".join(
        f"seed {s}: {w['candidate']['label']}, {w['bits'] / 8000:.2f} kB, 95 % interval of the difference "
        f"{o.test_difference.low:+.2f} to {o.test_difference.high:+.2f}, search {o.seconds:.0f} s"
        for s, w, o in zip(seeds, winners, outcomes, strict=True)
    )

    def judged(values: list[float], limit: float | None, sign: int) -> bool | None:
        return None if limit is None else bool(sign * np.median(values) >= sign * limit)

    def target(words: str, limit: float | None) -> str:
        return "" if limit is None else f"{words} {limit:g}"

    return [
        claim(
            f"{title}: float test accuracy",
            floats,
            "%",
            target("at least", least),
            judged(floats, least, 1),
            seeds=seeds,
            command=command,
        ),
        claim(
            f"{title}: winner, parameters and all states",
            saved,
            "times less",
            target("at least", factor),
            judged(saved, factor, 1),
            seeds=seeds,
            command=command,
            digits=1,
        ),
        claim(
            f"{title}: the same winner, accuracy lost on test",
            lost,
            "points",
            target("at most", loss),
            judged(lost, loss, -1),
            seeds=seeds,
            command=command,
            note=note,
        ),
        *(fixed(name, label, limit, outcomes, seeds, command) for label, limit in WIDTHS.get(name, ())),
    ]


def fixed(
    name: str, label: str, limit: float, outcomes: list[Outcome], seeds: list[int], command: str
) -> dict[str, Any]:
    """What the candidate of this label, stored by the search, loses on test."""
    lost, rates = [], []
    for seed, outcome in zip(seeds, outcomes, strict=True):
        record = next(c for c in outcome.candidates if c["candidate"]["label"] == label)
        candidate = from_plain(LayeredCandidate, record["candidate"])
        program = programs.load(program_path(RUNS / f"{name}-{seed}", candidate))
        dataset = layered.load(experiment_of(name, seed))
        right = qspinn.run(program, dataset.test.graded()).predictions() == dataset.test.labels
        lost.append((outcome.float_test - right.mean()) * 100)
        rates.append((outcome.float_validation - record["accuracy"]) * 100)
    return claim(
        f"{name}: {label}, accuracy lost on test",
        lost,
        "points",
        f"at most {limit:g}",
        bool(np.median(lost) <= limit),
        seeds=seeds,
        command=command,
        note=f"on validation: {', '.join(f'{x:.2f}' for x in rates)}",
    )


def identity(seeds: list[int]) -> list[dict[str, Any]]:
    """How much of what the module computes on test differs from the engine: predictions, spikes, final states."""
    differing, seconds = [], []
    command = "python benchmarks/supervised.py identity"
    for seed in seeds:
        experiment = experiment_of("nmnist8", seed)
        dataset: EventDataset = layered.load(experiment)
        net = layered.Measurement.float_net(bench_of(experiment, seed, dataset))
        ranges = layer_ranges(net, dataset.train.slice(0, 500))
        plans = [plan_of(experiment, dataset, label, seed) for label in PROVEN]
        found = 0
        for plan in plans:
            module = quantized.prepare(net.network, plan, net.params(), ranges, seed=seed)
            fit(module, dataset.train.slice(0, 2000), Supervision(n_epochs=1, shift=2), seed=seed)
            found += differences(module, quantized.convert(module), dataset)
        differing.append(float(found))
        plan, start = plans[0], time.perf_counter()
        qspinn.run(lower_layers(net.network, net.params(), plan, ranges, seed=seed), dataset.test.graded())
        seconds.append(time.perf_counter() - start)
    return [
        claim(
            "nmnist8, 2,000 test recordings: predictions, spikes and final states in which the module of in-training "
            "quantization differs from the engine",
            differing,
            "",
            "0",
            not any(differing),
            seeds=seeds,
            command=command,
            note="each of: " + "; ".join(PROVEN),
        ),
        claim(
            "one PTQ candidate on 2,000 nmnist8 test recordings, lowering included",
            seconds,
            "s",
            "at most 3",
            bool(np.median(seconds) <= 3),
            seeds=seeds,
            command=command,
        ),
    ]


def bench_of(experiment: LayeredExperiment, seed: int, dataset: EventDataset) -> layered.Measurement:
    """The bench of the run of a seed, for its float network."""
    folder = RUNS / f"{experiment.name}-{seed}"
    files = layered.store(folder, experiment, dataset)
    return layered.open_measurement(folder, experiment, dataset.labels, files)


def plan_of(experiment: LayeredExperiment, dataset: EventDataset, label: str, seed: int) -> Any:
    """The plan of a candidate of the stored search."""
    outcome = msgspec.json.decode((RUNS / f"{experiment.name}-{seed}" / "result.json").read_bytes(), type=Outcome)
    record = next(c for c in outcome.candidates if c["candidate"]["label"] == label)
    return from_plain(LayeredCandidate, record["candidate"]).plan


def differences(module: quantized.QuantNet, program: qspinn.Program, dataset: EventDataset) -> int:
    """Number of entries that differ over the test split."""
    found = 0
    for at in range(0, dataset.test.n_samples, 200):
        part = dataset.test.slice(at, at + 200)
        with torch.no_grad():
            out = module(torch.from_numpy(part.dense().reshape(part.n_steps, part.n_samples, -1)), potentials=True)
        result = qspinn.run(program, part.graded(), record=True)
        found += int((out.scores.argmax(dim=1).numpy() != result.predictions()).sum())
        for name, spikes in result.spikes.items():
            found += int((out.spikes[name].flatten(2).numpy() != spikes).sum())
            found += int((out.potentials[name][-1].flatten(1).numpy() != result.v[name]).sum())
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=["search", "identity"])
    parser.add_argument("names", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    stored = ROOT / "benchmarks" / "results" / f"{TOPIC}.json"
    records = json.loads(stored.read_text()) if stored.exists() else []
    new = (
        identity(arguments.seeds)
        if arguments.topic == "identity"
        else [r for name in arguments.names for r in search(name, arguments.seeds)]
    )
    replaced = {r["command"] for r in new}
    write(TOPIC, [r for r in records if r["command"] not in replaced] + new)


if __name__ == "__main__":
    main()

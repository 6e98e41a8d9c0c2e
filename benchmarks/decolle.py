"""Local learning in integers: its error and memory against float, the precision its traces need, its speed.

Usage: decolle.py error | precision | gestures | speed | cost ... [--seeds 0 1 2] [--set KEY=VALUE ...] [--dry]

Reads the data from QSPINN_DATA. Trained layers are kept in runs/bench/decolle and continue where they were. `error` is
measured on test, once per seed, everything else on validation or on no data at all. `gestures` is `precision` on
synthetic gestures in 64 steps, with the decays per step that were published. --dry writes nothing to results.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from statistics import median
from typing import Any

import msgspec
import numpy as np

import qspinn
from claims import ROOT, claim, write
from qspinn.data import EventDataset, EventSet, load_recordings
from qspinn.exploration.local.space import LocalExperiment
from qspinn.fixedpoint import Rounding
from qspinn.learning.local import model as local_model
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.memory import (
    PUBLISHED,
    PUBLISHED_CLASSES,
    PUBLISHED_SHAPE,
    PUBLISHED_SLIP,
    cost_table,
    local_account,
    saving,
    stdp_accounts,
)
from qspinn.learning.local.model import load_local
from qspinn.learning.local.start import raster_of, start_of
from qspinn.learning.local.training import layers_of
from qspinn.networks.models import diehl_cook
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.records.record import content_key

RUNS = ROOT / "runs" / "bench" / "decolle"
TOPIC = "decolle"
TRACE_BITS = (4, 6, 7, 8, 9, 10, 11, 12)
GESTURES = [
    "data.name=synthetic_gestures",
    "data.size=32",
    "data.bin_ms=10",
    "data.n_bins=64",
    "data.n_train=660",
    "data.n_validation=330",
    "data.n_test=11",
    "learning.burn_in=16",
    "network.tau_mem_ms=[50.0,350.0]",
    "network.tau_syn_ms=[50.0,100.0]",
]
BATCHES, ROUNDS = 8, 5
COMMAND = "python benchmarks/decolle.py"


def experiment_of(seed: int, arithmetic: str, sets: list[str]) -> LocalExperiment:
    """The experiment of the repository, with a seed and an arithmetic."""
    path = ROOT / "experiments" / "integer_decolle.toml"
    found = qspinn.load_experiment(path, [f"seed={seed}", f"learning.arithmetic={arithmetic}", *sets])
    assert isinstance(found, LocalExperiment)
    return found


def accuracy(experiment: LocalExperiment, dataset: EventDataset, split: EventSet) -> float:
    """Accuracy on a split [%]; trains unless it was trained before."""
    path = RUNS / f"{experiment.learning.arithmetic}-{content_key(experiment)[:16]}.safetensors"
    if not path.exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        trained, _ = qspinn.train(experiment, resume=path.with_suffix(".training"))
        qspinn.save(trained, path)
        path.with_suffix(".training").unlink(missing_ok=True)
    read = load_local(path)
    said, _ = local_model.predictions(local_model.restored(read), split, read.network)
    found = float((said == split.labels).mean() * 100)
    print(f"{experiment.learning.arithmetic} seed {experiment.seed}: {found:.2f} %", flush=True)
    return found


def error(seeds: list[int], sets: list[str]) -> list[dict[str, Any]]:
    """Test error and learning memory of integers against float."""
    rates: dict[str, list[float]] = {}
    for arithmetic in ("float", "integer"):
        for seed in seeds:
            experiment = experiment_of(seed, arithmetic, sets)
            dataset = load_recordings(experiment.data)
            rates.setdefault(arithmetic, []).append(accuracy(experiment, dataset, dataset.test))
    more = [f - i for f, i in zip(rates["float"], rates["integer"], strict=True)]
    accounts = [
        local_account(experiment.network, dataset.shape, len(dataset.labels), plan) for plan in (experiment.plan, None)
    ]
    command = f"{COMMAND} error"
    return [
        claim("nmnist8: float DECOLLE, test accuracy", rates["float"], "%", "", None, seeds=seeds, command=command),
        claim("nmnist8: integer DECOLLE, test accuracy", rates["integer"], "%", "", None, seeds=seeds, command=command),
        claim(
            "nmnist8: integer DECOLLE against float, test error added",
            more,
            "points",
            "at most 1.04",
            bool(median(more) <= 1.04),
            seeds=seeds,
            command=command,
            note=f"seed by seed: {', '.join(f'{x:+.2f}' for x in more)}",
        ),
        claim(
            "the same: memory of learning saved",
            [saving(*accounts)],
            "%",
            "at least 73.78, aim 80",
            saving(*accounts) >= 73.78,
            command=command,
            note=f"{accounts[0].total_bits:,} against {accounts[1].total_bits:,} bits",
        ),
    ]


def precision(
    seeds: list[int], sets: list[str], command: str = "precision", widths: tuple[int, ...] = TRACE_BITS
) -> list[dict[str, Any]]:
    """Validation accuracy by the width of both traces."""
    found: dict[int, list[float]] = {bits: [] for bits in widths}
    for seed in seeds:
        experiment = experiment_of(seed, "integer", sets)
        dataset = load_recordings(experiment.data)
        for bits in widths:
            rules = tuple(
                QuantRule(tensor=f"*.{kind}", bits=bits, rounding=Rounding.NEAREST) for kind in ("q_trace", "p_trace")
            )
            plan = QuantPlan(rules=(*rules, *(r for r in experiment.plan.rules if not r.tensor.endswith("_trace"))))
            narrow = msgspec.structs.replace(experiment, plan=plan)
            found[bits].append(accuracy(narrow, dataset, dataset.validation))
    name = experiment.data.name
    return [
        claim(
            f"{name}: integer DECOLLE, P and Q of {bits} bits, validation accuracy",
            values,
            "%",
            "",
            None,
            seeds=seeds,
            command=f"{COMMAND} {command}",
        )
        for bits, values in found.items()
    ]


def gestures(seeds: list[int], sets: list[str]) -> list[dict[str, Any]]:
    """The same on moving classes, with traces as long as published."""
    return precision(seeds, [*GESTURES, *sets], "gestures", (4, 6, 8, 10, 12))


def speed(seeds: list[int], sets: list[str]) -> list[dict[str, Any]]:
    """Samples per second of training, both arithmetics by turns on all cores."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    kinds = ("integer", "float")
    experiment = experiment_of(seeds[0], "integer", sets)
    dataset = load_recordings(experiment.data)
    size = experiment.learning.batch
    data = dataset.train.slice(0, min(size * BATCHES, dataset.train.n_samples))
    start = start_of(
        experiment.network,
        dataset.train,
        len(dataset.labels),
        step_ms=dataset.bin_ms,
        burn_in=experiment.learning.burn_in,
    )
    layers = {
        kind: layers_of(
            experiment.network, msgspec.structs.replace(experiment.learning, arithmetic=kind), start, experiment.plan
        )
        for kind in kinds
    }
    rasters = [
        (raster_of(part), part.labels)
        for part in (data.slice(at, at + size) for at in range(0, data.n_samples - size + 1, size))
    ]
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    reading = []
    for round_number in range(ROUNDS + 1):  # the first compiles and warms up
        for kind in kinds:
            begin = time.perf_counter()
            for raster, labels in rasters:
                layers[kind].learn(raster, labels, 0)
            seconds = time.perf_counter() - begin
            if round_number:
                rates[kind].append(len(rasters) * size / seconds)
        begin = time.perf_counter()
        for raster, _ in rasters:
            layers["integer"].readouts(raster)
        if round_number:
            reading.append(len(rasters) * size / (time.perf_counter() - begin))
    ratio = [a / b for a, b in zip(rates["integer"], rates["float"], strict=True)]
    command, per = f"{COMMAND} speed", f"{dataset.n_steps} steps, batches of {size}"
    return [
        claim(f"integer DECOLLE, training, {per}", rates["integer"], "samples/s", "", None, command=command, digits=0),
        claim(f"integer DECOLLE, forward pass alone, {per}", reading, "samples/s", "", None, command=command, digits=0),
        claim(
            f"float DECOLLE (torch), training, {per}", rates["float"], "samples/s", "", None, command=command, digits=0
        ),
        claim(
            "integer DECOLLE against float, same cores, by turns: training speed",
            ratio,
            "times",
            "at least 2",
            bool(np.median(ratio) >= 2),
            command=command,
            peer=f"torch {torch.__version__}",
        ),
    ]


def cost(seeds: list[int], sets: list[str]) -> list[dict[str, Any]]:
    """What on-device learning costs in bits: published DECOLLE, ours, and STDP on the grid."""

    def published(plan: QuantPlan | None, outputs: dict[str, int]) -> Any:
        return local_account(PUBLISHED, PUBLISHED_SHAPE, PUBLISHED_CLASSES, plan, outputs=outputs)

    experiment = experiment_of(seeds[0], "integer", sets)
    stdp = QuantPlan(rules=(QuantRule(tensor="exc.w", bits=4), QuantRule(tensor="*", bits=8)))
    systems = {
        "DECOLLE, DVS Gesture, as published": tuple(published(p, PUBLISHED_SLIP) for p in (None, DEFAULT_PLAN)),
        "DECOLLE, DVS Gesture, outputs of layer 1 corrected": tuple(published(p, {}) for p in (None, DEFAULT_PLAN)),
        "DECOLLE, nmnist8, this experiment": tuple(
            local_account(experiment.network, (2, 34, 34), 8, p) for p in (None, experiment.plan)
        ),
        "STDP on the grid, MNIST, N = 400, weights 4 bit, all else 8 bit": stdp_accounts(diehl_cook(784, 400), stdp),
    }
    print(cost_table(systems))  # type: ignore[arg-type]
    return [
        claim(
            f"learning memory saved: {name}",
            [saving(integer, real)],
            "%",
            "",
            None,
            command=f"{COMMAND} cost",
            digits=3,
            note=f"{integer.total_bits:,} against {real.total_bits:,} bits",
        )
        for name, (real, integer) in systems.items()
    ]


TOPICS = {"error": error, "precision": precision, "gestures": gestures, "speed": speed, "cost": cost}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="+", choices=list(TOPICS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    stored = ROOT / "benchmarks" / "results" / f"{TOPIC}.json"
    records = json.loads(stored.read_text()) if stored.exists() else []
    for topic in arguments.topics:
        new = TOPICS[topic](arguments.seeds, arguments.sets)
        for record in new:
            print(f"{record['claim']}: {record['value']} {record['unit']} {record['spread']} {record['target']}")
        records = [r for r in records if r["command"] != f"{COMMAND} {topic}"] + new
        if not arguments.dry:
            write(TOPIC, records)


if __name__ == "__main__":
    main()

"""Accuracy on MNIST: the float baseline by size, and the searches.

Usage: accuracy.py float|search|sizes [--seeds 0 1 2]

Reads MNIST from QSPINN_DATA. Runs are kept in runs/bench and continue where they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import median
from typing import Any

import qspinn
from claims import ROOT, claim, write
from qspinn.exploration.search import Outcome
from qspinn.networks import checkpoint

RUNS = ROOT / "runs" / "bench"
FLOAT_TARGETS = {100: (85, 87), 400: (91, 92), 1600: (92, 94), 6400: (None, 95)}
POINTS = "points"


def float_baselines(seeds: list[int], sizes: list[int]) -> None:
    """Float accuracy on the 10,000 test images, by N."""
    stored = ROOT / "benchmarks" / "results" / "float.json"
    records = [
        r
        for r in (json.loads(stored.read_text()) if stored.exists() else [])
        if not any(f"N = {n}," in r["claim"] for n in sizes)
    ]
    for n in sizes:
        hits = []
        for seed in seeds:
            experiment = qspinn.load_experiment(
                ROOT / "experiments" / "mnist_stdp.toml", [f"network.n_neurons={n}", f"seed={seed}"]
            )
            stored_net = RUNS / f"mnist_sizes-{seed}" / "float" / f"n{n}.safetensors"  # the same training, done before
            trained = checkpoint.load(stored_net) if stored_net.exists() else qspinn.train(experiment)[0]
            test = qspinn.evaluate(trained, qspinn.load_data(experiment.data).test, "test", seed=seed)[0]
            hits.append(test.accuracy * 100)
            print(f"N={n} seed={seed} test {test.accuracy:.4f}", flush=True)
        least, aim = FLOAT_TARGETS[n]
        target = f"at least {least}, aim {aim}" if least else f"aim {aim}"
        passes = experiment.training.n_passes
        text = f"float baseline, N = {n}, {passes} passes over 50,000, 10,000 test images"
        records.append(
            claim(
                text,
                hits,
                "%",
                target,
                median(hits) >= (least or aim),
                seeds=seeds[: len(hits)],
                command="python benchmarks/accuracy.py float",
            )
        )
        write("float", sorted(records, key=lambda r: int(r["claim"].split("N = ")[1].split(",")[0])))


def run(config: str, seed: int) -> Outcome:
    """One exploration, continued where it was."""
    experiment = qspinn.load_experiment(ROOT / "experiments" / f"{config}.toml", [f"seed={seed}"])
    folder = RUNS / f"{config}-{seed}"
    outcome = qspinn.explore(experiment, folder)
    qspinn.write_report(folder)
    return outcome


def label_parts(record: dict[str, Any]) -> dict[str, Any]:
    """Scheme, weight bits, rounding, granularity of a candidate record."""
    rule = record["candidate"]["plan"]["rules"]
    w = next(r for r in rule if r["tensor"] == "exc.w")
    return {
        "scheme": record["candidate"]["scheme"],
        "bits": w["bits"],
        "rounding": w.get("rounding", "nearest"),
        "n": record["candidate"]["n_neurons"],
    }


def best_drop(outcome: Outcome, keep: Callable[[dict[str, Any], dict[str, Any]], bool]) -> float | None:
    """Smallest accuracy lost against float on validation, in points, among the candidates that `keep` admits."""
    kept = [c["accuracy"] for c in outcome.candidates if keep(label_parts(c), c)]
    return (outcome.float_validation - max(kept)) * 100 if kept else None


def search(seeds: list[int]) -> None:
    """The main experiment: what the winner saves and loses, and what the front shows."""
    outcomes = [run("mnist_stdp", seed) for seed in seeds]
    command = "python benchmarks/accuracy.py search"
    winners = [next(c for c in o.candidates if c["key"] == o.winner) for o in outcomes]
    saved = [o.float_bits / w["bits"] for o, w in zip(outcomes, winners, strict=True)]
    lost = [-o.test_difference.points for o in outcomes]
    per_weight = [next(r for r in w["memory"] if r["path"] == "exc.w")["count"] / (784 * 400) for w in winners]
    intervals = "; ".join(
        f"seed {s}: {o.test_difference.low:+.2f} to {o.test_difference.high:+.2f} "
        f"({next(c for c in o.candidates if c['key'] == o.winner)['candidate']['label']})"
        for s, o in zip(seeds, outcomes, strict=True)
    )
    records = [
        claim(
            "N = 400, all tensors quantized, winner: inference memory",
            saved,
            "times less",
            "at least 24, aim 30",
            min(saved) >= 24,
            seeds=seeds,
            command=command,
            digits=1,
        ),
        claim(
            "the same winner: accuracy lost on test",
            lost,
            POINTS,
            "at most 0.5, aim 0",
            median(lost) <= 0.5,
            seeds=seeds,
            command=command,
            note=f"95 % intervals of the difference: {intervals}",
        ),
        claim(
            "the same winner: bits stored per declared weight",
            per_weight,
            "bit",
            "below 1",
            max(per_weight) < 1,
            seeds=seeds,
            command=command,
            digits=3,
        ),
        claim(
            "the same winner: test accuracy",
            [o.winner_test * 100 for o in outcomes],
            "%",
            "",
            None,
            seeds=seeds,
            command=command,
        ),
        claim(
            "float, the same seeds: test accuracy",
            [o.float_test * 100 for o in outcomes],
            "%",
            "",
            None,
            seeds=seeds,
            command=command,
        ),
    ]
    for scheme, bits, limit in (("itq", 4, 1.0), ("itq", 2, 2.0)):
        drops = [best_drop(o, lambda p, c, s=scheme, b=bits: p["scheme"] == s and p["bits"] == b) for o in outcomes]
        found = [d for d in drops if d is not None]
        records.append(
            claim(
                f"{bits}-bit weights learned on the grid (ITQ), best rounding: lost on validation",
                found,
                POINTS,
                f"at most {limit}",
                median(found) <= limit,
                seeds=seeds,
                command=command,
            )
        )
    for factor in (4, 8, 16, 24):
        for scheme in ("ptq", "itq"):
            for rounding in ("truncate", "nearest", "stochastic"):
                drops = [
                    best_drop(
                        o,
                        lambda p, c, s=scheme, r=rounding, f=factor, m=o.float_bits: (
                            p["scheme"] == s and p["rounding"] == r and m / c["bits"] >= f * 0.97
                        ),
                    )
                    for o in outcomes
                ]
                found = [d for d in drops if d is not None]
                if found:
                    text = f"at {factor} times less memory: {scheme.upper()}, {rounding}: lost on validation"
                    records.append(claim(text, found, POINTS, "", None, seeds=seeds, command=command))
    write("search", records)


def sizes(seeds: list[int]) -> None:
    """Network size searched together with precision: the memory at which one point more than float N = 400 is had."""
    outcomes = [run("mnist_sizes", seed) for seed in seeds]
    shares = []
    for o in outcomes:
        better = [c["bits"] for c in o.candidates if c["accuracy"] >= o.float_validation + 0.01]
        shares.append(min(better) / o.float_bits if better else float("inf"))
    command = "python benchmarks/accuracy.py sizes"
    text = "memory of the cheapest candidate one point above float N = 400 (validation), as a share of its memory"
    met = median(shares) <= 0.125
    records = [claim(text, shares, "", "at most 0.125", met, seeds=seeds, command=command, digits=4)]
    top = [max(o.candidates, key=lambda c: c["accuracy"]) for o in outcomes]
    records.append(
        claim(
            "most accurate candidate of the size search: above float N = 400 (validation)",
            [(c["accuracy"] - o.float_validation) * 100 for c, o in zip(top, outcomes, strict=True)],
            POINTS,
            "",
            None,
            seeds=seeds,
            command=command,
            note="; ".join(
                f"{c['candidate']['label']} at {o.float_bits / c['bits']:.1f}x"
                for c, o in zip(top, outcomes, strict=True)
            ),
        )
    )
    write("sizes", records)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=["float", "search", "sizes"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 400, 1600, 6400])
    chosen = parser.parse_args()
    if chosen.topic == "float":
        float_baselines(chosen.seeds, chosen.sizes)
    else:
        {"search": search, "sizes": sizes}[chosen.topic](chosen.seeds)


if __name__ == "__main__":
    main()

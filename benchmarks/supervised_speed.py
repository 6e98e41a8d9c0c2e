"""Speed of supervised spiking networks against snnTorch and SpikingJelly: the same network, weights and inputs.

Usage: supervised_speed.py [--case NAME ...] [--rounds N] [--quick]; needs `make peers` and QSPINN_DATA. Run it on an
idle machine: in every round ours and the peers take turns, ratios are taken within a round, figures are medians of
rounds. `--quick` shows in a few minutes that everything runs and agrees; it stores nothing.

Measured per case: inference (our 8-bit integer engine; the peers in floats, at batch 1 and at the best batch found
beforehand; snnTorch with 8-bit `state_quant`) and training steps of batch 64 (forward, backward, Adam). Peers get dense
float inputs for nothing, we read event lists. Our side runs with OMP_WAIT_POLICY=PASSIVE, as the command line does:
torch's idle threads then leave the cores to our own. The peers, which have no others, run as they come. Differences
between the neurons are written in peers/*_speed.py.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

import qspinn
from claims import RESULTS, claim, write
from supervised_speed_cases import BATCH, CASES, N_INPUTS, Case, Job, quantized_step, ready, timed, training_step
from supervised_speed_peers import ENVIRONMENT, Peer, agreement, losses, peers_of

TOPIC = "supervised_speed"
COMMAND = "python benchmarks/supervised_speed.py"
INFER, TRAIN, GRID = "8-bit integers", "training step", "quantized training step"
FLOAT, ONE, STATES, STEP = "float", "float, batch 1", "8-bit state_quant", "training"


def prepare(peers: dict[str, Peer], job: Job, quick: bool) -> None:
    """Chooses batch sizes and threads; beforehand, so that a round holds no trials."""
    least = 0.05 if quick else 0.5
    largest = max(layer.n for layer in job.net.network.layers)
    for name, peer in peers.items():
        peer.best(FLOAT, (1, 32) if quick else (1, 32, 128), least, task="infer", kind="float")
        peer.best(ONE, (1,), least, task="infer", kind="float")
        peer.best(STEP, (BATCH,), 0, task="train", kind="train")
        if name == "snntorch":  # 256 levels by 4 bytes of every potential, a few times over
            batches = (1,) if quick or largest > 20_000 else (1, 8)
            peer.best(STATES, batches, 0, task="infer", kind="quantized")


def things(job: Job, peers: dict[str, Peer], least: float) -> dict[str, Callable[[], float]]:
    """Everything a round measures, in turn: a function for each that returns samples per second."""
    spikes = job.events.spikes()
    found: dict[str, Callable[[], float]] = {
        INFER: lambda: spikes.n_samples / timed(lambda: qspinn.run(job.program, spikes), least)
    }
    for key in (FLOAT, ONE, STATES):
        found |= {f"{n}, {key}": lambda p=p, key=key: p.rate(key, least) for n, p in peers.items() if key in p.chosen}
    step = training_step(copy.deepcopy(job.net), job.events)
    found[TRAIN] = lambda: BATCH / timed(step, least)
    found |= {f"{n}, {STEP}": lambda p=p: p.rate(STEP, least) for n, p in peers.items()}
    on_grid = quantized_step(job)
    if on_grid is not None:
        found[GRID] = lambda: BATCH / timed(on_grid, least)
    return found


def measure(case: Case, rounds: int, environment: Path, quick: bool) -> list[dict[str, Any]]:
    """Records of a case."""
    print(case.name, flush=True)
    job = ready(case, quick)
    with peers_of(job, environment) as peers:
        facts: dict[str, Any] = {
            "case": case.name,
            "densities": {k: round(v, 4) for k, v in job.densities.items()},
            "agreement": {"integers": f"class {job.same_class:.1%}"} | agreement(job, peers, 32 if quick else N_INPUTS),
            "losses": losses(job, peers),
        }
        print(f"  {facts}", flush=True)
        prepare(peers, job, quick)
        facts["versions"] = versions(peers)
        rates: dict[str, list[float]] = {}
        todo = things(job, peers, 0.1 if quick else 1.0)
        for _ in range(rounds):
            for name, work in todo.items():
                rates.setdefault(name, []).append(work())
            print("  " + ", ".join(f"{k}: {v[-1]:.4g}/s" for k, v in rates.items()), flush=True)
        chosen = {
            f"{n}, {key}": f"batch {c['batch']}, {c['threads']} thread(s)"
            for n, p in peers.items()
            for key, c in p.chosen.items()
        }
    return records(case, facts, rates, chosen)


def versions(peers: dict[str, Peer]) -> dict[str, str]:
    """Of everything that was timed."""
    found = {"python": platform.python_version(), "qspinn": qspinn.__version__}
    found |= {name: version(name) for name in ("numba", "numpy")} | {"torch": torch.__version__}
    for name, peer in peers.items():
        theirs = peer.ask(task="versions")
        found |= {name: f"{theirs[name]} with torch {theirs['torch']}"}
    return found


def records(
    case: Case, facts: dict[str, Any], rates: dict[str, list[float]], chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """Claims of a case: rates, then ratios within rounds; the facts go with the first."""
    made = []
    for name, values in rates.items():
        library = name.partition(",")[0]
        peer = f"{library} {facts['versions'][library]}, {chosen[name]}" if name in chosen else None
        made.append(claim(f"{case.name}: {name}", values, "samples/s", "", None, command=COMMAND, peer=peer))
    for ours, keys in ((INFER, (FLOAT, ONE, STATES)), (TRAIN, (STEP,)), (GRID, (STEP,))):
        for name in (f"{n}, {key}" for key in keys for n in ("snntorch", "spikingjelly")):
            if ours not in rates or name not in rates:
                continue
            values = [a / b for a, b in zip(rates[ours], rates[name], strict=True)]
            made.append(
                claim(
                    f"{case.name}: {ours} against {name}",
                    values,
                    "times",
                    *judged(case, ours, name, values),
                    command=COMMAND,
                    peer=chosen[name],
                )
                | {"ratio": [ours, name]}
            )
    if GRID in rates:
        values = [a / b for a, b in zip(rates[GRID], rates[TRAIN], strict=True)]
        made.append(
            claim(
                f"{case.name}: {GRID} against {TRAIN}",
                values,
                "times",
                *judged(case, GRID, TRAIN, values),
                command=COMMAND,
            )
            | {"ratio": [GRID, TRAIN]}
        )
    for record in made:
        record["case"] = case.name
    made[0] |= facts | {"note": note(facts), "rounds": len(rates[INFER])}
    return made


def judged(case: Case, ours: str, theirs: str, ratios: list[float]) -> tuple[str, bool | None]:
    """(target, whether the median meets it) of a ratio of speeds; no target: ("", None)."""
    sparse = case.density is not None and case.density <= 0.02
    least = {(INFER, FLOAT): 20 if sparse else 1, (INFER, STATES): 1000, (TRAIN, STEP): 2, (GRID, TRAIN): 0.77}.get(
        (ours, theirs.split(", ", 1)[-1])
    )
    return ("", None) if least is None else (f"at least {least:g}", median(ratios) >= least)


def note(facts: dict[str, Any]) -> str:
    """Densities, agreement and versions in one line."""
    parts = [
        "spikes per neuron and step: " + ", ".join(f"{k} {v:.1%}" for k, v in facts["densities"].items()),
        "agreement with our float network: " + "; ".join(f"{k}: {v}" for k, v in facts["agreement"].items()),
        "loss before the first update: " + ", ".join(f"{k} {v:g}" for k, v in facts["losses"].items()),
        ", ".join(f"{k} {v}" for k, v in facts["versions"].items()),
    ]
    return ". ".join(parts)


def stored(case: Case) -> list[dict[str, Any]]:
    """Records of a case from an earlier run."""
    path = RESULTS / f"{TOPIC}.json"
    return [r for r in json.loads(path.read_text()) if r["case"] == case.name] if path.exists() else []


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=[c.name for c in CASES], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round, stores nothing")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="where make peers installed the peers")
    chosen = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # libgomp reads it when torch is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    fresh = {
        c.name: measure(c, 1 if chosen.quick else chosen.rounds, chosen.environment, chosen.quick)
        for c in CASES
        if chosen.case is None or c.name in chosen.case
    }
    if chosen.quick:
        print(json.dumps([r for made in fresh.values() for r in made], indent=1, ensure_ascii=False))
    else:
        write(TOPIC, [r for c in CASES for r in fresh.get(c.name, stored(c))])


if __name__ == "__main__":
    main()

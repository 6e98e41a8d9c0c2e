"""Speed of BindsNET's Diehl & Cook 2015 network, the peer of this project's own simulator.

Usage, in the environment that ``install.sh`` builds::

    .venv-peers/bin/python benchmarks/peers/bindsnet_stdp.py \
        --spikes FILE.npz --mode train --batch 1 32 128 --images 256 --threads 2

``FILE.npz`` holds ``offsets`` (int64, [samples, T + 1]) and ``index`` (uint16, [events]): the inputs of sample n
that spike at step t are ``index[offsets[n, t]:offsets[n, t + 1]]``. Without it, seeded Poisson spikes stand in (13
of 784 inputs a step, 250 steps). ``--images`` is rounded up to whole batches; samples repeat when they run out.

What is done for the peer, so that it shows its best side:

* The clock covers ``Network.run`` only: not the dense [T, B, 784] boolean input tensor, not the reset of state
  variables, not a first full run as warm-up.
* ``torch.inference_mode`` is on (a stricter ``no_grad``; the learning rules use no autograd). No monitor is attached
  while the clock runs: spikes are counted in an untimed replay from the same seed, and ``replay_identical`` says
  whether weights, thresholds and voltages ended bit for bit alike.
* ``sparse=False`` (sparse weight tensors are slower). ``--sparse-compute`` switches on an option that
  DiehlAndCook2015 leaves off: a gather of the active rows only, the same sums, faster on a CPU. Report both.

A run slows down many times when threads outnumber free cores: measure one and all, report the better.
``bindsnet/__init__.py`` imports data sets, plotting and games (torchvision, opencv, gymnasium, ...), so
``load_bindsnet`` puts an empty package in its place; no simulation code is replaced.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from typing import Any

import numpy as np
import torch

N_INPUTS = 784


@functools.cache
def load_bindsnet() -> tuple[Any, Any]:
    """Return ``DiehlAndCook2015`` and ``Monitor``, loaded past the package's own ``__init__``."""
    spec = importlib.util.find_spec("bindsnet")
    if spec is None:
        raise SystemExit("bindsnet is not installed: run benchmarks/peers/install.sh")
    sys.modules["bindsnet"] = package = types.ModuleType("bindsnet")
    package.__path__ = list(spec.submodule_search_locations or [])
    monitors = importlib.import_module("bindsnet.network.monitors")  # first: learning and network import each other
    return importlib.import_module("bindsnet.models").DiehlAndCook2015, monitors.Monitor


class Spikes:
    """Event lists of many samples, turned into dense batches on request."""

    def __init__(self, path: str | None, seed: int) -> None:
        if path is not None:
            with np.load(path) as data:
                self.offsets, self.index = data["offsets"], data["index"]
        else:
            active = np.random.default_rng(seed).random((64 * 250, N_INPUTS)) < 13 / N_INPUTS
            ends = np.cumsum(active.sum(axis=1)).reshape(64, 250)  # samples, steps
            self.offsets = np.column_stack([np.concatenate([[0], ends[:-1, -1]]), ends])
            self.index = np.nonzero(active)[1]
        self.steps = self.offsets.shape[1] - 1

    def dense(self, first: int, batch: int) -> torch.Tensor:
        """Samples ``first`` to ``first + batch`` (wrapping around) as a boolean [T, batch, 784]."""
        out = np.zeros((self.steps, batch, N_INPUTS), dtype=np.bool_)
        for b in range(batch):
            row = self.offsets[(first + b) % len(self.offsets)]
            out[np.repeat(np.arange(self.steps), np.diff(row)), b, self.index[row[0] : row[-1]]] = True
        return torch.from_numpy(out)


def simulate(args: argparse.Namespace, spikes: Spikes, batch: int, count: bool) -> tuple[float, int, tuple[Any, ...]]:
    """Run all batches on a fresh network; return seconds, excitatory spikes and the final state."""
    model, monitor = load_bindsnet()
    torch.manual_seed(args.seed)
    network = model(n_inpt=N_INPUTS, n_neurons=args.neurons, dt=1.0, norm=78.4, theta_plus=0.05, nu=(1e-4, 1e-2))
    network.train(args.mode == "train")
    for connection in network.connections.values():
        connection.sparse_compute = args.sparse_compute
    excitatory = network.layers["Ae"]
    network.run({"X": spikes.dense(0, batch)}, time=spikes.steps)  # warm-up
    recorder = monitor(excitatory, ["s"])
    if count:
        network.add_monitor(recorder, "excitatory")
    seconds, total = 0.0, 0
    for first in range(0, args.images, batch):
        inputs = {"X": spikes.dense(first, batch)}
        network.reset_state_variables()
        start = time.perf_counter()
        network.run(inputs, time=spikes.steps)
        seconds += time.perf_counter() - start
        total += int(recorder.get("s").sum())
    return seconds, total, (network.connections[("X", "Ae")].pipeline[0].value, excitatory.theta, excitatory.v)


def measure(args: argparse.Namespace, spikes: Spikes, batch: int) -> dict[str, Any]:
    """Time one batch size, then replay it with spikes counted."""
    images = -(-args.images // batch) * batch
    seconds, _, timed = simulate(args, spikes, batch, count=False)
    _, total, replayed = simulate(args, spikes, batch, count=True)
    if total == 0:
        raise SystemExit(f"no excitatory spike at batch {batch}: not a meaningful run")
    return {
        "batch": batch,
        "images": images,
        "seconds": round(seconds, 4),
        "images_per_second": round(images / seconds, 3),
        "spikes_per_image": round(total / images, 3),
        "replay_identical": all(torch.equal(a, b) for a, b in zip(timed, replayed, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of BindsNET's DiehlAndCook2015 on given input spikes.")
    parser.add_argument("--spikes", metavar="FILE.npz", help="input events (default: seeded Poisson spikes)")
    parser.add_argument("--mode", choices=("train", "infer"), default="train")
    parser.add_argument("--neurons", type=int, default=400)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--images", type=int, default=64, help="images per measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sparse-compute", action="store_true", help="switch BindsNET's sparse_compute option on")
    args = parser.parse_args()
    if min(args.images, args.neurons, args.threads, *args.batch) < 1:
        parser.error("counts must be positive")
    torch.set_num_threads(args.threads)
    spikes = Spikes(args.spikes, args.seed)
    with torch.inference_mode():
        results = [measure(args, spikes, batch) for batch in args.batch]
    report = {
        "peer": f"bindsnet {importlib.metadata.version('bindsnet')}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "mode": args.mode,
        "neurons": args.neurons,
        "steps": spikes.steps,
    }
    print(json.dumps(report | {"results": results}))


if __name__ == "__main__":
    main()

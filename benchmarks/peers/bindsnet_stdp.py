"""Speed of BindsNET's Diehl & Cook 2015 network, the peer of this project's own simulator.

Usage, in the environment that ``install.sh`` builds::

    .venv-peers/bin/python benchmarks/peers/bindsnet_stdp.py \
        --spikes FILE.npz --mode train --batch 1 32 128 --images 256 --threads 2

``FILE.npz`` holds ``offsets`` (int64, [samples, T + 1]) and ``index`` (uint16, [events]): the inputs
of sample n that spike at step t are ``index[offsets[n, t]:offsets[n, t + 1]]``. Without ``--spikes``,
seeded Poisson spikes of about 13 of 784 inputs per step over 250 steps stand in. One JSON object goes
to standard output. ``--images`` is rounded up to whole batches, and samples repeat when they run out.

What is done for the peer, so that it shows its best side:

* The clock covers ``Network.run`` only. Turning events into the dense [T, B, 784] boolean tensor,
  resetting state variables and a first full run as warm-up are not timed.
* ``torch.inference_mode`` is on (a stricter ``no_grad``; BindsNET's learning rules use no autograd),
  and no monitor is attached while the clock runs. Excitatory spikes are counted in a second, untimed
  run of a fresh network from the same seed; ``replay_identical`` says whether weights, thresholds and
  voltages ended bit for bit where the timed run ended.
* ``sparse=False`` (sparse weight tensors are slower), but ``sparse_compute`` is set on every
  connection: BindsNET's own gather of only the active rows, which gives the same sums and is faster
  on a CPU (``--no-sparse-compute`` turns it off).
* Input shape [784] rather than [1, 28, 28], which saves reshaping.

Thread count matters: a network of this size is often faster on one thread than on all, and slows
down many times when threads outnumber free cores. Measure both on an idle machine; report the better.

``bindsnet/__init__.py`` imports data sets, plotting and games (torchvision, opencv, gymnasium, ...).
``load_bindsnet`` puts an empty package in its place, so that the unchanged simulation modules load
without them; no simulation code is replaced.
"""

from __future__ import annotations

import argparse
import importlib
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
SYNTHETIC_STEPS = 250
SYNTHETIC_SAMPLES = 64
SYNTHETIC_ACTIVE = 13  # mean number of active inputs per step


def load_bindsnet() -> Any:
    """Return ``bindsnet.models``, loaded past the package's own ``__init__``."""
    spec = importlib.util.find_spec("bindsnet")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("bindsnet is not installed: run benchmarks/peers/install.sh")
    package = types.ModuleType("bindsnet")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["bindsnet"] = package
    importlib.import_module("bindsnet.network")  # before learning and models: they import each other
    return importlib.import_module("bindsnet.models")


class Spikes:
    """Event lists of many samples, turned into dense batches on request."""

    def __init__(self, path: str | None, seed: int) -> None:
        if path is not None:
            with np.load(path) as data:
                self.offsets, self.index = data["offsets"], data["index"]
        else:
            active = np.random.default_rng(seed).random((SYNTHETIC_SAMPLES, SYNTHETIC_STEPS, N_INPUTS))
            sample, step, self.index = np.nonzero(active < SYNTHETIC_ACTIVE / N_INPUTS)
            counts = np.bincount(sample * SYNTHETIC_STEPS + step, minlength=SYNTHETIC_SAMPLES * SYNTHETIC_STEPS)
            ends = np.cumsum(counts).reshape(SYNTHETIC_SAMPLES, SYNTHETIC_STEPS)
            starts = np.concatenate([[0], ends[:-1, -1]])
            self.offsets = np.column_stack([starts, ends])
        self.steps = self.offsets.shape[1] - 1

    def dense(self, first: int, batch: int) -> torch.Tensor:
        """Samples ``first`` to ``first + batch`` (wrapping around) as a boolean [T, batch, 784]."""
        out = np.zeros((self.steps, batch, N_INPUTS), dtype=np.bool_)
        for b in range(batch):
            row = self.offsets[(first + b) % len(self.offsets)]
            out[np.repeat(np.arange(self.steps), np.diff(row)), b, self.index[row[0] : row[-1]]] = True
        return torch.from_numpy(out)


class SpikeCounter:
    """The least a BindsNET monitor can be: adds up the spikes of one layer."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.total = 0

    def record(self) -> None:
        self.total += int(self.layer.s.sum())

    def reset_state_variables(self) -> None:
        """Keep the count: it runs over all batches."""


def simulate(
    models: Any, args: argparse.Namespace, spikes: Spikes, batch: int, count: bool
) -> tuple[float, int, list[torch.Tensor]]:
    """Run all batches on a fresh network; return seconds, excitatory spikes and the final state."""
    torch.manual_seed(args.seed)
    network = models.DiehlAndCook2015(
        n_inpt=N_INPUTS, n_neurons=args.neurons, dt=1.0, norm=78.4, theta_plus=0.05, nu=(1e-4, 1e-2)
    )
    network.train(args.mode == "train")
    for connection in network.connections.values():
        connection.sparse_compute = args.sparse_compute
    excitatory = network.layers["Ae"]
    network.run({"X": spikes.dense(0, batch)}, time=spikes.steps)  # warm-up
    counter = SpikeCounter(excitatory)
    if count:
        network.add_monitor(counter, "excitatory")
    seconds = 0.0
    for first in range(0, args.images, batch):
        inputs = {"X": spikes.dense(first, batch)}
        network.reset_state_variables()
        start = time.perf_counter()
        network.run(inputs, time=spikes.steps)
        seconds += time.perf_counter() - start
    weights = network.connections[("X", "Ae")].pipeline[0].value
    return seconds, counter.total, [weights, excitatory.theta, excitatory.v]


def measure(models: Any, args: argparse.Namespace, spikes: Spikes, batch: int) -> dict[str, Any]:
    """Time one batch size, then replay it with spikes counted."""
    images = -(-args.images // batch) * batch
    seconds, _, timed = simulate(models, args, spikes, batch, count=False)
    _, total, replayed = simulate(models, args, spikes, batch, count=True)
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
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice, all cores)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sparse-compute", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    if min(args.images, args.neurons, *args.batch) < 1:
        parser.error("--images, --neurons and --batch must be positive")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    models = load_bindsnet()
    spikes = Spikes(args.spikes, args.seed)
    with torch.inference_mode():
        results = [measure(models, args, spikes, batch) for batch in args.batch]
    report = {
        "peer": f"bindsnet {importlib.metadata.version('bindsnet')}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "mode": args.mode,
        "neurons": args.neurons,
        "steps": spikes.steps,
        "sparse_compute": args.sparse_compute,
        "results": results,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

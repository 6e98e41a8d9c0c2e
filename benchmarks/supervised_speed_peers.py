"""The peers' side of supervised_speed.py: their processes, what they are given, and whether they agree with us."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from claims import ROOT
from qspinn.data.events.event_set import EventSet
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork, Pool2d, Weighted
from supervised_speed_cases import BATCH, GAIN, NEURON, Job, raster

ENVIRONMENT = ROOT / ".venv-peers-torch"
CORES = os.cpu_count() or 1
LEAST_AGREEMENT = 0.9
"""Share of samples in which a peer must choose the class that its neuron chooses on our side, else it is not the same
network."""


class Peer:
    """A worker process in the peers' environment."""

    def __init__(self, python: Path, name: str, file: Path) -> None:
        script = ROOT / "benchmarks" / "peers" / f"{name}_speed.py"
        self.name = name
        own = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        self.process = subprocess.Popen(
            [str(python), str(script), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own
        )
        self.chosen: dict[str, dict[str, Any]] = {}
        """Batch and threads by measured thing."""

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; see peers/worker.py."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}; its last words are above")
        return json.loads(line)

    def best(self, key: str, batches: tuple[int, ...], least: float, **request: Any) -> None:
        """Chooses the fastest batch and number of threads for one thing."""
        options = [{"batch": b, "threads": t} for b in batches for t in sorted({1, CORES})]
        self.chosen[key] = request | max(
            options, key=lambda o: self.ask(**request, **o, least=least)["samples_per_second"]
        )

    def rate(self, key: str, least: float) -> float:
        """Samples per second of one thing as chosen."""
        return self.ask(**self.chosen[key], least=least)["samples_per_second"]

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def peers_of(job: Job, environment: Path) -> Iterator[dict[str, Peer]]:
    """Both peers, started on the network, weights and inputs of a job."""
    python = environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{environment} is missing: run make peers")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.npz"
        np.savez(file, **case_arrays(job))
        found = {name: Peer(python, name, file) for name in ("snntorch", "spikingjelly")}
        try:
            yield found
        finally:
            for peer in found.values():
                peer.close()


def case_arrays(job: Job) -> dict[str, Any]:
    """What peers/worker.py reads."""
    network, spikes = job.net.network, job.events.spikes()
    arrays: dict[str, Any] = dict(job.net.params())
    layers = []
    for layer in network.layers:
        (c,) = (c for c in network.into(layer.name) if isinstance(c, Weighted))
        norm: Any = job.net.norms[f"{layer.name}__w"]
        arrays |= {
            f"raw.{layer.name}.{key}": x.detach().numpy()
            for key, x in (("w", job.net.weight(c)), ("gamma", norm.weight), ("beta", norm.bias))
        }
        layers.append(described(network, layer, c))
    declared = {"shape": network.input.shape, "neuron": {"decay": NEURON.decay, "v_th": NEURON.v_th}, "layers": layers}
    return arrays | {
        "network": json.dumps(declared),
        "offsets": spikes.offsets,
        "index": spikes.index,
        "labels": job.events.labels,
    }


def described(network: LayeredNetwork, layer: Layer, c: Weighted) -> dict[str, Any]:
    """A layer in words that peers understand."""
    pool = next((p for p in network.connections if isinstance(p, Pool2d) and p.target == c.source), None)
    theirs = network.shape_of(c.source)
    conv = isinstance(c, Conv2d)
    own = {"kernel": c.kernel, "stride": c.stride} if isinstance(c, Conv2d) else {}
    return own | {
        "name": layer.name,
        "kind": "conv" if conv else "linear",
        "n_out": layer.shape[0],
        "n_in": theirs[0] if conv else math.prod(theirs),
        "pool": pool.kernel if pool is not None else None,
    }


def delayed_counts(net: SurrogateNet, events: EventSet) -> NDArray[np.int64]:
    """Spike counts [B, n_classes] of our weights with snnTorch's rule: v > v_th spikes, and lowers v by v_th in the
    next step, after the decay."""
    params, (c_a, c_b, *_) = net.params(), net.network.connections
    x = raster(events).view(events.n_steps, events.n_samples, *events.shape)
    pool = next((c for c in net.network.connections if isinstance(c, Pool2d)), None)
    for layer, c in zip(net.network.layers, (c_a, c_b, None), strict=True):
        w, bias = (torch.from_numpy(params[f"{layer.name}.{kind}"]).float() for kind in ("w", "bias"))
        images = x.flatten(0, 1)
        if isinstance(c, Conv2d):
            current = functional.conv2d(images, w, bias, c.stride)
        else:
            images = images if pool is None else functional.avg_pool2d(images, pool.kernel, pool.stride)
            current = functional.linear(images.flatten(1), w, bias)
        x = delayed(current.view(*x.shape[:2], *layer.shape))
    return x.sum(0).flatten(1).long().numpy()


def delayed(current: torch.Tensor) -> torch.Tensor:
    """Spikes [T, ...] of snnTorch's rule."""
    v = torch.zeros_like(current[0])
    spikes = []
    for x in current:
        v = NEURON.decay * v + x - (v > NEURON.v_th).float() * NEURON.v_th
        spikes.append((v > NEURON.v_th).float())
    return torch.stack(spikes)


def agreement(job: Job, peers: dict[str, Peer], samples: int) -> dict[str, str]:
    """How often a peer chooses the class, and counts the output spikes, of our float network. SpikingJelly has its
    neuron; snnTorch is compared with our weights under its own rule as well.

    Raises:
        SystemExit: a peer computes something else than the same neuron does on our side.
    """
    with torch.no_grad():
        delayed_ones = np.concatenate(
            [delayed_counts(job.net, job.events.slice(a, a + 32)) for a in range(0, samples, 32)]
        )
    found = {}
    for name, kind, what, ours, needed in (
        ("spikingjelly", "float", "", job.counts, True),
        ("snntorch", "float", "", job.counts, False),
        ("snntorch", "float", " with our weights under its rule", delayed_ones, True),
        ("snntorch", "quantized", "", job.counts, False),
    ):
        n = min(samples, 8) if kind == "quantized" else samples
        theirs = np.array(peers[name].ask(task="outputs", kind=kind, samples=n)["counts"])
        same = float((theirs.argmax(1) == ours[:n].argmax(1)).mean())
        equal = float((theirs == ours[:n]).all(axis=1).mean())
        found[f"{name} {kind}{what}"] = f"class {same:.1%}, all counts {equal:.1%}"
        if needed and same < LEAST_AGREEMENT:
            raise SystemExit(f"{name} agrees in {same:.1%} of samples: not the same network")
    return found


def losses(job: Job, peers: dict[str, Peer]) -> dict[str, float]:
    """Loss of the first training batch before any update, ours and theirs."""
    net = copy.deepcopy(job.net).train()
    part = job.events.slice(0, BATCH)
    with torch.no_grad():
        own = functional.cross_entropy(net(raster(part)).scores * GAIN, torch.tensor(part.labels)).item()
    return {"qspinn": round(own, 4)} | {n: round(p.ask(task="loss", batch=BATCH)["loss"], 4) for n, p in peers.items()}

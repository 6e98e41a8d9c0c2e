"""Speed of supervised spiking networks against snnTorch and SpikingJelly: the same network, weights and inputs.

Usage: supervised_speed.py [--case NAME ...] [--rounds N] [--quick]; needs `make peers` and QSPINN_DATA. Run it on an
idle machine: in every round ours and the peers take turns, ratios are taken within a round, figures are medians of
rounds. `--quick` shows in a few minutes that everything runs and agrees; it stores nothing.

Measured per case: inference (our 8-bit integer engine; the peers in floats, at batch 1 and at the best batch found
beforehand; snnTorch with 8-bit `state_quant`) and training steps of batch 64 (forward, backward, Adam). Peers get dense
float inputs for nothing, we read event lists. Differences between the neurons are written in peers/*_speed.py.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

import qspinn
from claims import RESULTS, ROOT, claim, write
from qspinn.data import nmnist
from qspinn.data._npz import find
from qspinn.data.dvs_gesture import SENSOR
from qspinn.data.event_set import EventSet, from_dense, pack
from qspinn.data.events import Binned, bin_events, downsample, make
from qspinn.layers import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d, Weighted
from qspinn.learning.supervised import Supervision, fit, layer_ranges
from qspinn.learning.surrogate import SurrogateNet
from qspinn.lower_layers import LayerRanges, lower_layers
from qspinn.plan import Granularity, QuantPlan, QuantRule
from qspinn.program import Program

TOPIC = "supervised_speed"
COMMAND = "python benchmarks/supervised_speed.py"
ENVIRONMENT = ROOT / ".venv-peers-torch"
N_INPUTS, BATCH = 128, 64
"""Samples of a case, and those of them that make the training batch."""
CORES = os.cpu_count() or 1
LEARNING_RATE, GAIN = 1e-3, 10.0  # as in peers/worker.py
PLAN = QuantPlan(rules=(QuantRule(tensor="*.w", bits=8, granularity=Granularity.PER_CHANNEL),
                        QuantRule(tensor="*", bits=12)))
NEURON = Leaky(decay=0.9)
LEAST_AGREEMENT = 0.9
"""Share of samples in which a peer must choose the class that its neuron chooses on our side, else it is not the same
network."""


class Data(NamedTuple):
    """Events to train a case's network on, and those it is measured with."""

    train: EventSet
    measured: EventSet


class Case(NamedTuple):
    """What is measured: data(), how many classes, pooling before the last layer, epochs of training.

    With `density`, nothing is learned: the layers are set to this many spikes per neuron and step.
    """

    name: str
    data: Callable[[], Data]
    n_classes: int
    pool: bool = False
    n_epochs: int = 0
    density: float | None = None


class Job(NamedTuple):
    """A case, ready: our module and program, and the float network's answers to the measured inputs."""

    case: Case
    net: SurrogateNet
    program: Program
    ranges: LayerRanges
    events: EventSet
    counts: NDArray[np.int64]
    densities: dict[str, float]
    same_class: float


# Data

def digits(bin_ms: float) -> Data:
    """N-MNIST, digits 0-7."""
    found = nmnist.load_packed(bin_ms=bin_ms)
    order = np.random.default_rng(0).permutation(found.train.n_samples)[:1024]
    chosen = np.random.default_rng(1).permutation(found.test.n_samples)[:N_INPUTS]
    return Data(found.train.take(order), found.test.take(chosen))


def gestures(side: int, n_steps: int = 20, bin_ms: int = 10) -> Data:
    """Windows of the three real DVS128 Gesture recordings, starting every 10 ms."""
    windows: list[tuple[Binned, int]] = []
    for label in (0, 5, 8):
        with np.load(find("", f"dvs_gesture_samples/class{label + 1:02d}.npz")) as file:
            events = downsample(make(file["x"], file["y"], file["t"], file["p"]), SENSOR, (side, side))
        first, last = int(events["t"].min()), int(events["t"].max())
        windows += [(bin_events(events, (side, side), bin_ms * 1000, n_steps, start_us=start), label)
                    for start in range(first, last - n_steps * bin_ms * 1000, 10_000)]
    order = np.random.default_rng(0).permutation(len(windows))
    everything = pack((windows[i] for i in order), n_steps, (side, side))
    return Data(everything, everything.slice(0, N_INPUTS))


def noise(density: float, n_steps: int = 16) -> Data:
    """Independent random spikes on 34 x 34 pixels."""
    rng = np.random.default_rng(0)
    raster = rng.random((N_INPUTS, n_steps, 2, 34, 34)) < density
    events = from_dense(raster, rng.integers(0, 8, N_INPUTS))
    return Data(events, events)


CASES = (
    Case("nmnist8, 20 ms", lambda: digits(20), 8, n_epochs=3),
    Case("nmnist8, 5 ms", lambda: digits(5), 8, n_epochs=2),
    Case("gestures, 32 x 32", lambda: gestures(32), 11, pool=True, n_epochs=4),
    Case("gestures, 128 x 128", lambda: gestures(128), 11, pool=True, n_epochs=2),
    Case("noise, 30 %", lambda: noise(0.3), 8, density=0.3),
)


# Our side

def network_of(case: Case, events: EventSet) -> LayeredNetwork:
    """16C5s2-32C3s2-FC, with an average pool before the last layer where the case asks for one."""
    first = Conv2d(source="input", target="a", kernel=(5, 5), stride=(2, 2), norm=True)
    second = Conv2d(source="a", target="b", kernel=(3, 3), stride=(2, 2), norm=True)
    a = first.shape_after(*events.shape[1:])
    b = second.shape_after(*a)
    pool = (Pool2d(source="b", target="p", kind="average"),) if case.pool else ()
    return LayeredNetwork(
        name="bench", input=EventInput(shape=events.shape), n_steps=events.n_steps,
        layers=(Layer(name="a", shape=(16, *a), neuron=NEURON), Layer(name="b", shape=(32, *b), neuron=NEURON),
                Layer(name="out", shape=(case.n_classes, 1, 1), neuron=NEURON)),
        connections=(first, second, *pool, Linear(source="p" if pool else "b", target="out", norm=True)),
        readout=NeuronReadout(source="out"))


def raster(events: EventSet) -> torch.Tensor:
    """Float32 [T, B, n]."""
    return torch.from_numpy(events.dense().reshape(events.n_steps, events.n_samples, -1)).float()


def set_density(net: SurrogateNet, events: EventSet, density: float) -> None:
    """Moves the offset of every normalization, layer by layer, until the layer spikes at this density."""
    x = raster(events.slice(0, 32))
    for layer in net.network.layers:
        (norm,) = (m for name, m in net.norms.items() if name.startswith(f"{layer.name}__"))
        low, high = -3.0, 3.0
        with torch.no_grad():
            for _ in range(12):
                norm.bias.fill_((low + high) / 2)
                net.train()  # normalized by this batch, whose statistics the last rounds leave behind
                low, high = ((low + high) / 2, high) if net(x).rates[layer.name] < density else (low, (low + high) / 2)
    with torch.no_grad():
        for _ in range(40):  # running statistics of the settled network
            net(x)
    net.eval()


def ready(case: Case, quick: bool) -> Job:
    """Trains (or sets) the network of a case and lowers it."""
    data = case.data()
    network = network_of(case, data.measured)
    net = SurrogateNet(network, seed=0)
    if case.density is not None:
        set_density(net, data.train, case.density)
    else:
        part = data.train.slice(0, 128) if quick else data.train
        fit(net, part, Supervision(n_epochs=1 if quick else case.n_epochs, batch=32))
    ranges = layer_ranges(net, data.train.slice(0, BATCH))
    program = lower_layers(network, net.params(), PLAN, ranges)
    events = data.measured.compact()
    counts = float_counts(net, events)
    result = qspinn.run(program, events.spikes())
    densities = {"input": events.n_events / (events.n_samples * events.n_steps * events.n)}
    densities |= {layer.name: float(result.counts[layer.name].mean()) / network.n_steps for layer in network.layers}
    return Job(case=case, net=net, program=program, ranges=ranges, events=events, counts=counts, densities=densities,
               same_class=float((result.predictions() == counts.argmax(1)).mean()))


def float_counts(net: SurrogateNet, events: EventSet) -> NDArray[np.int64]:
    """Spike counts of our float network's output layer, [B, n_classes]."""
    net.eval()
    with torch.no_grad():
        parts = [net(raster(events.slice(a, a + 32))).scores for a in range(0, events.n_samples, 32)]
    return (torch.cat(parts) * net.network.n_steps).round().long().numpy()


def timed(work: Callable[[], Any], least: float) -> float:
    """Seconds per call over `least` seconds, after one call that is not counted."""
    work()
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() - start < least:
        work()
        calls += 1
    return (time.perf_counter() - start) / calls


def training_step(module: Any, events: EventSet) -> Callable[[], None]:
    """One update of a module on the training batch, whose inputs lie ready as for the peers."""
    module.train()
    part = events.slice(0, BATCH)
    x, labels = raster(part), torch.from_numpy(part.labels)
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)

    def step() -> None:
        loss = functional.cross_entropy(module(x).scores * GAIN, labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def quantized_step(job: Job) -> Callable[[], None] | None:
    """A step of training on the grid (ITQ); None, with a line on the screen, where the package has no such module."""
    name = "qspinn.learning.quantized"
    if importlib.util.find_spec(name) is None:
        print(f"  left out: quantized training step ({name} is missing)", flush=True)
        return None
    module = importlib.import_module(name).prepare(job.net.network, PLAN, job.net.params(), job.ranges, seed=0)
    return training_step(module, job.events)


# Peers

class Peer:
    """A worker process in the peers' environment."""

    def __init__(self, python: Path, name: str, file: Path) -> None:
        script = ROOT / "benchmarks" / "peers" / f"{name}_speed.py"
        self.name = name
        self.process = subprocess.Popen([str(python), str(script), str(file)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
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
            options, key=lambda o: self.ask(**request, **o, least=least)["samples_per_second"])

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
        arrays |= {f"raw.{layer.name}.{key}": x.detach().numpy() for key, x in (
            ("w", job.net.weight(c)), ("gamma", norm.weight), ("beta", norm.bias))}
        layers.append(described(network, layer, c))
    declared = {"shape": network.input.shape, "neuron": {"decay": NEURON.decay, "v_th": NEURON.v_th}, "layers": layers}
    return arrays | {"network": json.dumps(declared), "offsets": spikes.offsets, "index": spikes.index,
                     "labels": job.events.labels}


def described(network: LayeredNetwork, layer: Layer, c: Weighted) -> dict[str, Any]:
    """A layer in words that peers understand."""
    pool = next((p for p in network.connections if isinstance(p, Pool2d) and p.target == c.source), None)
    theirs = network.shape_of(c.source)
    conv = isinstance(c, Conv2d)
    own = {"kernel": c.kernel, "stride": c.stride} if isinstance(c, Conv2d) else {}
    return own | {"name": layer.name, "kind": "conv" if conv else "linear", "n_out": layer.shape[0],
                  "n_in": theirs[0] if conv else math.prod(theirs), "pool": pool.kernel if pool is not None else None}


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
        delayed_ones = np.concatenate([delayed_counts(job.net, job.events.slice(a, a + 32))
                                       for a in range(0, samples, 32)])
    found = {}
    for name, kind, what, ours, needed in (
            ("spikingjelly", "float", "", job.counts, True), ("snntorch", "float", "", job.counts, False),
            ("snntorch", "float", " with our weights under its rule", delayed_ones, True),
            ("snntorch", "quantized", "", job.counts, False)):
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
        own = functional.cross_entropy(net(raster(part)).scores * GAIN, torch.from_numpy(part.labels)).item()
    return {"qspinn": round(own, 4)} | {n: round(p.ask(task="loss", batch=BATCH)["loss"], 4) for n, p in peers.items()}


# Rounds

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
        INFER: lambda: spikes.n_samples / timed(lambda: qspinn.run(job.program, spikes), least)}
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
            "case": case.name, "densities": {k: round(v, 4) for k, v in job.densities.items()},
            "agreement": {"integers": f"class {job.same_class:.1%}"} | agreement(job, peers, 32 if quick else N_INPUTS),
            "losses": losses(job, peers)}
        print(f"  {facts}", flush=True)
        prepare(peers, job, quick)
        facts["versions"] = versions(peers)
        rates: dict[str, list[float]] = {}
        todo = things(job, peers, 0.1 if quick else 1.0)
        for _ in range(rounds):
            for name, work in todo.items():
                rates.setdefault(name, []).append(work())
            print("  " + ", ".join(f"{k}: {v[-1]:.4g}/s" for k, v in rates.items()), flush=True)
        chosen = {f"{n}, {key}": f"batch {c['batch']}, {c['threads']} thread(s)"
                  for n, p in peers.items() for key, c in p.chosen.items()}
    return records(case, facts, rates, chosen)


def versions(peers: dict[str, Peer]) -> dict[str, str]:
    """Of everything that was timed."""
    found = {"python": platform.python_version(), "qspinn": qspinn.__version__}
    found |= {name: version(name) for name in ("numba", "numpy")} | {"torch": torch.__version__}
    for name, peer in peers.items():
        theirs = peer.ask(task="versions")
        found |= {name: f"{theirs[name]} with torch {theirs['torch']}"}
    return found


def records(case: Case, facts: dict[str, Any], rates: dict[str, list[float]], chosen: dict[str, str]
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
            made.append(claim(f"{case.name}: {ours} against {name}", values, "times", "", None, command=COMMAND,
                              peer=chosen[name]) | {"ratio": [ours, name]})
    if GRID in rates:
        values = [a / b for a, b in zip(rates[GRID], rates[TRAIN], strict=True)]
        made.append(claim(f"{case.name}: {GRID} against {TRAIN}", values, "times", "", None, command=COMMAND)
                    | {"ratio": [GRID, TRAIN]})
    for record in made:
        record["case"] = case.name
    made[0] |= facts | {"note": note(facts), "rounds": len(rates[INFER])}
    return made


def note(facts: dict[str, Any]) -> str:
    """Densities, agreement and versions in one line."""
    parts = ["spikes per neuron and step: " + ", ".join(f"{k} {v:.1%}" for k, v in facts["densities"].items()),
             "agreement with our float network: " + "; ".join(f"{k}: {v}" for k, v in facts["agreement"].items()),
             "loss before the first update: " + ", ".join(f"{k} {v:g}" for k, v in facts["losses"].items()),
             ", ".join(f"{k} {v}" for k, v in facts["versions"].items())]
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
    fresh = {c.name: measure(c, 1 if chosen.quick else chosen.rounds, chosen.environment, chosen.quick)
             for c in CASES if chosen.case is None or c.name in chosen.case}
    if chosen.quick:
        print(json.dumps([r for made in fresh.values() for r in made], indent=1, ensure_ascii=False))
    else:
        write(TOPIC, [r for c in CASES for r in fresh.get(c.name, stored(c))])


if __name__ == "__main__":
    main()

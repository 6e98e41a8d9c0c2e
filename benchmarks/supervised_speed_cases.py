"""Cases of supervised_speed.py and our side of them: data, networks, programs, training steps."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

import qspinn
from qspinn.data.events import nmnist
from qspinn.data.events.dvs_gesture import SENSOR
from qspinn.data.events.event_set import EventSet, from_dense, pack
from qspinn.data.events.recording import Binned, bin_events, downsample, make
from qspinn.data.npz import find
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.gradients.training import Supervision, fit, layer_ranges
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d
from qspinn.program import Program
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges

N_INPUTS, BATCH = 128, 64
"""Samples of a case, and those of them that make the training batch."""
LEARNING_RATE, GAIN = 1e-3, 10.0  # as in peers/worker.py
PLAN = QuantPlan(
    rules=(QuantRule(tensor="*.w", bits=8, granularity=Granularity.PER_CHANNEL), QuantRule(tensor="*", bits=12))
)
NEURON = Leaky(decay=0.9)


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
        windows += [
            (bin_events(events, (side, side), bin_ms * 1000, n_steps, start_us=start), label)
            for start in range(first, last - n_steps * bin_ms * 1000, 10_000)
        ]
    order = np.random.default_rng(0).permutation(len(windows))
    everything = pack((windows[i] for i in order), n_steps, (side, side))
    return Data(everything, everything.slice(0, N_INPUTS))


def noise(density: float, n_steps: int = 16) -> Data:
    """Independent random spikes on 34 x 34 pixels."""
    rng = np.random.default_rng(0)
    raster = rng.random((N_INPUTS, n_steps, 2, 34, 34)) < density
    events = from_dense(raster, rng.integers(0, 8, N_INPUTS), order="BT")
    return Data(events, events)


CASES = (
    Case("nmnist8, 20 ms", lambda: digits(20), 8, n_epochs=3),
    Case("nmnist8, 5 ms", lambda: digits(5), 8, n_epochs=2),
    Case("gestures, 32 x 32", lambda: gestures(32), 11, pool=True, n_epochs=4),
    Case("gestures, 128 x 128", lambda: gestures(128), 11, pool=True, n_epochs=2),
    Case("nmnist8, 20 ms, layers at 1.5 %", lambda: digits(20), 8, density=0.015),
    Case("nmnist8, 5 ms, layers at 1.5 %", lambda: digits(5), 8, density=0.015),
    Case("gestures, 32 x 32, layers at 1.5 %", lambda: gestures(32), 11, pool=True, density=0.015),
    Case("gestures, 32 x 32, 2 ms, layers at 1.5 %", lambda: gestures(32, 100, 2), 11, pool=True, density=0.015),
    Case("gestures, 128 x 128, layers at 1.5 %", lambda: gestures(128), 11, pool=True, density=0.015),
    Case("noise, 30 %", lambda: noise(0.3), 8, density=0.3),
)


def network_of(case: Case, events: EventSet) -> LayeredNetwork:
    """16C5s2-32C3s2-FC, with an average pool before the last layer where the case asks for one."""
    first = Conv2d(source="input", target="a", kernel=(5, 5), stride=(2, 2), norm=True)
    second = Conv2d(source="a", target="b", kernel=(3, 3), stride=(2, 2), norm=True)
    a = first.shape_after(*events.shape[1:])
    b = second.shape_after(*a)
    pool = (Pool2d(source="b", target="p", of="average"),) if case.pool else ()
    return LayeredNetwork(
        name="bench",
        input=EventInput(shape=events.shape),
        n_steps=events.n_steps,
        layers=(
            Layer(name="a", shape=(16, *a), neuron=NEURON),
            Layer(name="b", shape=(32, *b), neuron=NEURON),
            Layer(name="out", shape=(case.n_classes, 1, 1), neuron=NEURON),
        ),
        connections=(first, second, *pool, Linear(source="p" if pool else "b", target="out", norm=True)),
        readout=NeuronReadout(source="out"),
    )


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
    return Job(
        case=case,
        net=net,
        program=program,
        ranges=ranges,
        events=events,
        counts=counts,
        densities=densities,
        same_class=float((result.predictions() == counts.argmax(1)).mean()),
    )


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


def training_step(module: Any, events: EventSet, size: int = BATCH, device: str = "cpu") -> Callable[[], None]:
    """One update of a module on the first samples, whose inputs lie ready on its device as for the peers."""
    module.to(device).train()
    part = events.slice(0, size)
    x, labels = raster(part).to(device), torch.tensor(part.labels).to(device)
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)

    def step() -> None:
        loss = functional.cross_entropy(module(x).scores * GAIN, labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def quantized_step(job: Job, size: int = BATCH, device: str = "cpu") -> Callable[[], None] | None:
    """A step of training on the grid (ITQ); None, with a line on the screen, where the package has no such module."""
    name = "qspinn.learning.gradients.quantized"
    if importlib.util.find_spec(name) is None:
        print(f"  left out: quantized training step ({name} is missing)", flush=True)
        return None
    module = importlib.import_module(name).prepare(job.net.network, PLAN, job.net.params(), job.ranges, seed=0)
    return training_step(module, job.events, size, device)

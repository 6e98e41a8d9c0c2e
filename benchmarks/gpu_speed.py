"""Speed on a CUDA card, for gpu.py: training steps and inference, ours and the peers' by turns on the same card.

One network, 16C5s2-32C3s2-FC on 2 x 34 x 34 inputs over 16 steps: shape, and spikes per neuron and step, of nmnist8 at
20 ms. Inputs are random spikes and weights are not trained: for speed on a card it matters how many numbers there are.
Measured at every batch size, on the device unless the name says CPU:

- inference of the 8-bit integer program, from event lists in memory to class counts in memory (transfers included), in
  torch and, on the CPU, in the compiled engine; and of the float network, from dense inputs that lie ready there;
- training steps (forward, backward, Adam) of the float network and with quantization in the loop, as `fit` runs them:
  cuDNN takes only algorithms that repeat;
- the same of snnTorch and SpikingJelly in floats, as they come, by the code in peers/: dense inputs lie ready on the
  device, nothing is transferred. SpikingJelly chooses its kernels itself (Triton's where Triton is there).

Every call is timed from a device that is done to a device that is done; every round measures everything once, ratios
are taken within a round, figures are medians of five rounds.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import qspinn
from claims import ROOT
from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.learning.device import repeatable
from qspinn.testing.contract import check_equal
from supervised_speed_cases import Case, Data, Job, quantized_step, raster, ready, training_step
from supervised_speed_peers import case_arrays

SIZES = (128, 1024, 32, 512, 64, 256)
ROUNDS, LEAST = 5, 0.15
"""Rounds per batch size; seconds by the clock per measured thing and round."""
DENSITY, LAYERS = 0.05, 0.15
"""Spikes per neuron and step of inputs and of layers: nmnist8 at 20 ms has 5 % and, by layer, 13 to 20 %."""
INFER, FLOAT, TRAIN, GRID = "integer inference", "float inference", "training step", "quantized training step"
ON_CPU = ", CPU"
PEERS = ("snntorch", "spikingjelly")
RATIOS = (
    (INFER, INFER + ON_CPU),
    (TRAIN, TRAIN + ON_CPU),
    (GRID, GRID + ON_CPU),
    (GRID, TRAIN),
    *(
        (ours, f"{peer}, {theirs}")
        for peer in PEERS
        for ours, theirs in ((INFER, FLOAT), (FLOAT, FLOAT), (TRAIN, TRAIN), (GRID, TRAIN))
    ),
)

Rate = Callable[[], float]
"""Measures once: samples per second."""


class Notebook(Protocol):
    """Where results go; see `gpu.Check`."""

    device: str
    quick: bool

    def say(self, text: str) -> None: ...
    def skip(self, what: str, why: str) -> None: ...
    def add(
        self,
        text: str,
        values: list[float],
        unit: str,
        target: str = "",
        met: bool | None = None,
        *,
        peer: str | None = None,
        note: str | None = None,
        **more: Any,
    ) -> None: ...


def speed(check: Notebook, left: Callable[[], float]) -> None:
    """Measures every batch size for which time is left, in seconds."""
    sizes = (4, 8) if check.quick else SIZES
    if left() < 1:
        check.skip("speed", "no time left")
        return
    job = ready(Case("nmnist8-like", lambda: noise(max(sizes), check.quick), 8, density=LAYERS), check.quick)
    check.say(f"network ready; spikes per neuron and step: { {k: round(v, 3) for k, v in job.densities.items()} }")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "case.npz"
        np.savez(file, **case_arrays(job))
        workers = peers_of(check, job, file)
    took = 0.0  # for the last size
    for size in sizes:
        if left() < max(1.0, 0.5 * took):
            check.skip(f"speed of batches of {size}", "no time left")
            continue
        start = time.perf_counter()
        try:
            one_size(check, job, workers, size, left)
        except Exception as error:  # a card that runs out of memory, say: smaller batches may still run
            check.skip(f"what is missing of batches of {size}", f"{type(error).__name__}: {str(error)[:200]}")
        took = time.perf_counter() - start


def compile_kernels() -> None:
    """Has everything compiled, and kept on disk, that the CPU's side of `speed` needs."""
    job = ready(Case("nmnist8-like", lambda: noise(4, True), 8, density=LAYERS), True)
    part = job.events.slice(0, 4)
    for step in (training_step(copy.deepcopy(job.net), part, 4), quantized_step(job, 4)):
        if step is not None:
            step()


def noise(n_samples: int, quick: bool) -> Data:
    """Independent random spikes in the shape of nmnist8 at 20 ms."""
    rng = np.random.default_rng(0)
    n_samples = max(n_samples, 64)
    spikes = rng.random((n_samples, 4 if quick else 16, 2, 34, 34), np.float32) < DENSITY
    events = from_dense(spikes, rng.integers(0, 8, n_samples), order="BT")
    return Data(events, events)


def peers_of(check: Notebook, job: Job, file: Path) -> dict[str, Any]:
    """The peers that are installed, each as a worker of peers/worker.py in this process, on the device."""
    found: dict[str, Any] = {}
    sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
    for name in PEERS:
        try:
            module, worker = import_module(f"{name}_speed"), import_module("worker")
            found[name] = worker.Worker(worker.Case(str(file), check.device), {}, module.build, module.forward)
            n = min(64, job.events.n_samples)
            counts = np.array(found[name].answer({"task": "outputs", "kind": "float", "samples": n})["counts"])
        except Exception as error:  # a peer that fails is not measured; we are
            found.pop(name, None)
            check.skip(name, f"not measured: {type(error).__name__}: {str(error)[:200]}")
            continue
        same = float((counts.argmax(1) == job.counts[:n].argmax(1)).mean())
        check.add(
            f"{name} on {check.device} chooses our float network's class",
            [100 * same],
            "%",
            note="its neuron resets a step later" if name == "snntorch" else kernels(check.device),
        )
    return found


def kernels(device: str) -> str:
    """Which kernels SpikingJelly takes for its neurons on a device."""
    try:
        ask = import_module("spikingjelly.activation_based.functional").neuron_implementation
        return f"its neurons: {ask('lif', torch.device(device))['implementation']}"
    except Exception as error:  # another version of it may have other names
        return f"its neurons: unknown kernels ({type(error).__name__})"


def one_size(check: Notebook, job: Job, workers: dict[str, Any], size: int, left: Callable[[], float]) -> None:
    """Measures everything at one batch size by turns, and records medians and ratios."""
    same_results(check, job, size)
    works: dict[str, Rate] = {}
    rates: dict[str, list[float]] = {}
    for name, make in things(check, job, workers, size).items():
        try:
            work = make()
            work()  # has made what is made once: kernels, plans, memory
            works[name] = work
        except Exception as error:
            check.skip(f"{name}, batches of {size}", f"{type(error).__name__}: {str(error)[:200]}")
    for done in range(1 if check.quick else ROUNDS):
        if left() <= 0 and done:
            check.skip(f"rounds after {done} of batches of {size}", "no time left")
            break
        for name, work in works.items():
            rates.setdefault(name, []).append(work())
    for name, values in rates.items():
        check.add(
            f"{check.device}, batches of {size}: {name}",
            values,
            "samples/s",
            peer=name.partition(",")[0] if name.startswith(PEERS) else None,
            batch=size,
        )
    for ours, theirs in RATIOS:
        if ours in rates and theirs in rates:
            ratios = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
            check.add(f"{check.device}, batches of {size}: {ours} against {theirs}", ratios, "times", batch=size)


def same_results(check: Notebook, job: Job, size: int) -> None:
    """Counts and scores of the integer program on the device against the compiled engine."""
    spikes, wrong = job.events.slice(0, size).spikes(), None
    try:
        check_equal(
            qspinn.run(job.program, spikes, backend="torch", device=check.device, record=True),
            qspinn.run(job.program, spikes, record=True),
            f"batch of {size}",
        )
    except Exception as error:
        wrong = f"{type(error).__name__}: {str(error)[:300]}"
    check.add(
        f"{check.device}, batch of {size}: the program of the speed check differs from the compiled engine",
        [float(wrong is not None)],
        "of 1 cases",
        "0",
        wrong is None,
        note=wrong,
        batch=size,
    )


def things(check: Notebook, job: Job, workers: dict[str, Any], size: int) -> dict[str, Callable[[], Rate]]:
    """What is measured at a batch size: a function for each that makes it ready."""
    least = 0.01 if check.quick else LEAST
    part, device = job.events.slice(0, size), check.device
    spikes = part.spikes()
    found: dict[str, Callable[[], Rate]] = {
        INFER: lambda: rate(
            lambda: qspinn.run(job.program, spikes, backend="torch", device=device), size, device, least
        ),
        INFER + ON_CPU: lambda: rate(lambda: qspinn.run(job.program, spikes), size, "cpu", least),
        FLOAT: lambda: rate(float_inference(job, part, device), size, device, least),
    }
    for where, end in ((device, ""), ("cpu", ON_CPU)):
        found[TRAIN + end] = lambda w=where: trained(
            training_step(copy.deepcopy(job.net), part, size, w), size, w, least
        )
        found[GRID + end] = lambda w=where: trained(quantized_step(job, size, w), size, w, least)
    for name, worker in workers.items():
        for what, task, kind in ((FLOAT, "infer", "float"), (TRAIN, "train", "train")):
            request = {"task": task, "kind": kind, "batch": size, "least": least}
            found[f"{name}, {what}"] = lambda w=worker, r=request: lambda: w.answer(r)["samples_per_second"]
    return found


def float_inference(job: Job, events: EventSet, device: str) -> Callable[[], Any]:
    """Class scores of our float network from inputs that lie ready on the device."""
    net, x = copy.deepcopy(job.net).to(device).eval(), raster(events).to(device)

    def work() -> Any:
        with torch.no_grad():
            return net(x).scores

    return work


def trained(step: Callable[[], Any], size: int, device: str, least: float) -> Rate:
    """Samples per second of a training step under the settings under which `fit` trains."""
    measured = rate(step, size, device, least)

    def work() -> float:
        with repeatable(torch.device(device), 0):
            return measured()

    return work


def rate(work: Callable[[], Any], size: int, device: str, least: float) -> Rate:
    """Samples per second of calls that fill `least` seconds by the clock, after one that is not counted."""

    def now() -> float:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def measured() -> float:
        work()
        seconds, calls = 0.0, 0
        while seconds < least or not calls:
            start = now()
            work()
            seconds += now() - start
            calls += 1
        return size * calls / seconds

    return measured


if __name__ == "__main__":
    compile_kernels()

"""What snntorch_speed.py and spikingjelly_speed.py share: the network and its inputs from a file, clocks, the dialogue.

A worker is started once per case and keeps its library loaded and warm::

    .venv-peers-torch/bin/python benchmarks/peers/snntorch_speed.py CASE.npz

It answers every request, a line of JSON on standard input, with a line of JSON on standard output:

    {"task": "versions"}                                              -> {"torch": "2.13.0+cpu", ...}
    {"task": "outputs", "kind": "float", "samples": 64}               -> {"counts": [[...], ...]}
    {"task": "loss", "batch": 64}                                     -> {"loss": ...}, before any update
    {"task": "infer", "kind": "float", "batch": 32, "threads": 2, "least": 1.0}
    {"task": "train", "kind": "train", "batch": 64, "threads": 2, "least": 1.0}
                                   -> {"seconds_per_batch": ..., "samples_per_second": ..., "batches": ...}

``CASE.npz`` holds what both sides compute with: ``network`` (JSON: neuron, input shape, layers in order), ``<layer>.w``
and ``<layer>.bias`` with batch normalization folded, ``raw.<layer>.w|gamma|beta`` for training, and the inputs as event
lists: the sources of sample n that spike at step t are ``index[offsets[n, t]:offsets[n, t + 1]]``.

The clock covers the peer's own forward pass (and for training loss, backward pass and update) from dense float32 inputs
that lie ready in memory: their making is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LEARNING_RATE, GAIN = 1e-3, 10.0
"""Of the training step, as in ``Supervision``: cross-entropy of GAIN * (spikes per step), Adam."""


class Case:
    """A case file: ``net`` (declaration), ``arrays``, and inputs x [T, N, C, H, W] float32 with labels [N] on a
    device."""

    def __init__(self, path: str, device: str = "cpu") -> None:
        self.device = torch.device(device)
        with np.load(path) as data:
            self.arrays = {name: data[name] for name in data.files}
        self.net: dict[str, Any] = json.loads(str(self.arrays.pop("network")))
        self.labels = torch.from_numpy(self.arrays.pop("labels")).to(self.device)
        offsets, index = self.arrays.pop("offsets"), self.arrays.pop("index")
        n_samples, n_steps = offsets.shape[0], offsets.shape[1] - 1
        x = np.zeros((n_steps, n_samples, int(np.prod(self.net["shape"]))), np.float32)
        row = np.repeat(np.arange(n_samples * n_steps), np.diff(offsets, axis=1).ravel())
        x[row % n_steps, row // n_steps, index[offsets[0, 0] : offsets[-1, -1]]] = 1
        self.x = torch.from_numpy(x).to(self.device).view(n_steps, n_samples, *self.net["shape"])

    def batch(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """(inputs, labels) of a batch, wrapping around."""
        which = torch.arange(number * size, (number + 1) * size, device=self.device) % len(self.labels)
        return self.x[:, which].contiguous(), self.labels[which]

    def now(self) -> float:
        """Seconds on a clock once the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def fill(self, layer: dict[str, Any], weighted: nn.Module, norm: nn.Module | None) -> None:
        """Puts the weights of a layer into a convolution or linear module and, where given, its normalization."""
        name = layer["name"]
        with torch.no_grad():
            if norm is None:
                self._copy(f"{name}.w", weighted.weight)
                self._copy(f"{name}.bias", weighted.bias)
            else:
                self._copy(f"raw.{name}.w", weighted.weight)
                self._copy(f"raw.{name}.gamma", norm.weight)
                self._copy(f"raw.{name}.beta", norm.bias)

    def _copy(self, key: str, into: Any) -> None:
        into.copy_(torch.from_numpy(np.asarray(self.arrays[key], np.float32)).view_as(into))


Build = Callable[[Case, str], nn.Module]
Forward = Callable[[nn.Module, Tensor], Tensor]


class Worker:
    """Answers requests about one case. ``build(case, kind)`` gives a module, ``forward(module, x)`` output spikes
    [T, B, n_classes]."""

    def __init__(self, case: Case, versions: dict[str, str], build: Build, forward: Forward) -> None:
        self.case, self.versions, self.build, self.forward = case, versions, build, forward
        self.current: tuple[str, nn.Module, torch.optim.Optimizer] | None = None

    def model(self, kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        """(module, optimizer) of a kind; only one is alive, so that resets touch no idle ones."""
        if self.current is None or self.current[0] != kind:
            self.current = None
            module = self.build(self.case, kind).to(self.case.device)
            module.train(kind == "train")
            self.current = (kind, module, torch.optim.Adam(module.parameters(), LEARNING_RATE))
        return self.current[1:]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(request.get("threads", torch.get_num_threads()))
        match request["task"]:
            case "versions":
                return {"torch": torch.__version__} | self.versions
            case "outputs":
                return {"counts": self.outputs(request["kind"], request["samples"])}
            case "loss":
                return {"loss": self.loss(request["batch"])}
            case "infer" | "train":
                return self.timed(request)
        raise SystemExit(f"unknown task {request['task']}")

    def outputs(self, kind: str, samples: int, size: int = 32) -> list[list[int]]:
        """Spike counts of the output layer for the first samples."""
        module, _ = self.model(kind)
        with torch.no_grad():
            parts = [self.forward(module, self.case.batch(k, size)[0]).sum(0) for k in range(-(-samples // size))]
        return torch.cat(parts)[:samples].round().long().tolist()

    def loss(self, size: int) -> float:
        """Loss of the first training batch before any update."""
        self.current = None
        module, _ = self.model("train")
        x, labels = self.case.batch(0, size)
        with torch.no_grad():
            found = functional.cross_entropy(self.forward(module, x).mean(0) * GAIN, labels).item()
        self.current = None
        return found

    def timed(self, request: dict[str, Any]) -> dict[str, Any]:
        """Whole batches until the clock shows ``least`` seconds, after one that is not counted."""
        work = self.step if request["task"] == "train" else self.infer
        kind, size = request["kind"], request["batch"]
        work(kind, 0, size)
        seconds, batches = 0.0, 0
        while seconds < request["least"] or not batches:
            seconds += work(kind, batches, size)
            batches += 1
        return {
            "seconds_per_batch": seconds / batches,
            "samples_per_second": size * batches / seconds,
            "batches": batches,
        }

    def infer(self, kind: str, number: int, size: int) -> float:
        """Seconds of the spike counts of a batch."""
        module, _ = self.model(kind)
        x, _ = self.case.batch(number, size)
        with torch.no_grad():
            start = self.case.now()
            self.forward(module, x).sum(0)
            return self.case.now() - start

    def step(self, kind: str, number: int, size: int) -> float:
        """Seconds of a training step: forward pass, loss, backward pass, update."""
        module, optimizer = self.model(kind)
        x, labels = self.case.batch(number, size)
        start = self.case.now()
        loss = functional.cross_entropy(self.forward(module, x).mean(0) * GAIN, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return self.case.now() - start


def serve(description: str | None, versions: dict[str, str], build: Build, forward: Forward) -> None:
    """Command line of a worker: answers until standard input ends."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("case", metavar="CASE.npz", help="network, weights and inputs")
    worker = Worker(Case(parser.parse_args().case), versions, build, forward)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)

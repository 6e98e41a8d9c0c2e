"""The verbs for networks that were trained with other libraries, see `qspinn.importers`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.data import EventDataset, EventSet
from qspinn.errors import DataError
from qspinn.exploration.statistics import Accuracy, share
from qspinn.importers.model import Model, counts_of
from qspinn.networks.simulation import simulate
from qspinn.program import Program
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan
from qspinn.quantization.ranges import LayerRanges, Sizes, sizes_of
from qspinn.workflow.splits import labels_of, need_classes, need_samples, training_split

BATCH = 64
"""Samples that are simulated at a time."""


def calibrate(trained: Model, data: Any, seed: int) -> LayerRanges:
    """Ranges of potentials, synaptic currents and adaptive thresholds on recordings, or on counts [T, B, ...]."""
    counts = _counts(trained, data)
    v: dict[str, Sizes] = {}
    i: dict[str, float] = {}
    theta: dict[str, float] = {}
    for a in range(0, counts.shape[1], BATCH):
        signals = simulate(trained.network, trained.params, counts[:, a : a + BATCH])
        for name, x in signals.potentials.items():
            new = sizes_of(x)
            v[name] = v[name].merged(new) if name in v else new
        for largest, seen in ((i, signals.currents), (theta, signals.thetas)):
            for name, x in seen.items():
                largest[name] = max(largest.get(name, 0.0), float(np.abs(x).max()))
    return LayerRanges(v={name: sizes.top for name, sizes in v.items()}, i=i, theta=theta, sizes=v)


def quantize(trained: Model, plan: QuantPlan, data: Any, seed: int) -> Program:
    """Post-training quantization: weights, states and constants as codes."""
    ranges = data if isinstance(data, LayerRanges) else calibrate(trained, data, seed)
    labels = labels_of(data) if isinstance(data, EventSet | EventDataset) else ()
    provenance = {"source": trained.source, "notes": [str(note) for note in trained.notes]}
    return lower_layers(trained.network, trained.params, plan, ranges, seed=seed, labels=labels, provenance=provenance)


def evaluate_trained(trained: Model, split: Any, name: str, seed: int) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy and predictions [n] in float64 on recordings."""
    need_samples(split, name)
    counts, predicted, spikes = _counts(trained, split), [], 0.0
    for a in range(0, counts.shape[1], BATCH):
        signals = simulate(trained.network, trained.params, counts[:, a : a + BATCH])
        predicted.append(signals.scores.argmax(axis=1))
        spikes += sum(float(x.sum()) for x in signals.spikes.values())
    predictions = np.concatenate(predicted)
    need_classes(split, signals.scores.shape[1], name)
    return share(name, predictions == split.labels, spikes / len(predictions)), predictions


def _counts(trained: Model, data: Any) -> NDArray[np.float64]:
    """Spike counts [T, B, n_inputs] of recordings, or of an array.

    Raises:
        DataError: another shape, no samples, or values that are no counts.
    """
    if isinstance(data, EventSet | EventDataset):
        split = training_split("data", data, EventSet)
        shape, steps = trained.network.input.shape, trained.network.n_steps
        if (split.shape, split.n_steps) != (shape, steps):
            raise DataError(
                "data",
                "does not fit the network",
                got=f"events {split.shape} over {split.n_steps} steps",
                allowed=f"events {shape} over {steps} steps",
            )
        data = split.dense().reshape(split.n_steps, split.n_samples, -1)
    return counts_of(trained.network, data)

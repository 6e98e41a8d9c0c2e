"""The verbs for networks of layers, which learn by surrogate gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import need_kind
from qspinn.data import EventDataset, EventSet
from qspinn.errors import ConfigError, DataError
from qspinn.exploration.layered import measurement
from qspinn.exploration.layered.space import LayeredExperiment
from qspinn.exploration.statistics import Accuracy, share
from qspinn.learning.gradients import quantized
from qspinn.learning.gradients.quantized import QuantNet
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet, frozen, restored
from qspinn.learning.gradients.training import fit, layer_ranges, responses
from qspinn.networks.checkpoint import TrainedLayers
from qspinn.networks.layered import LayeredNetwork
from qspinn.program import Program
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan
from qspinn.quantization.ranges import LayerRanges
from qspinn.runtime.torch_engine.engine import device_of
from qspinn.workflow.splits import labels_of, measuring_split, need_classes, need_samples, training_split

Progress = Callable[[int, int], None]
Module = SurrogateNet | QuantNet


def train_experiment(
    experiment: LayeredExperiment, progress: Progress | None, resume: Path | None, device: str
) -> tuple[TrainedLayers, Accuracy]:
    """The float network of an experiment and its validation accuracy."""
    dataset = measurement.load(experiment)
    network = measurement.declared(experiment, dataset)
    place = str(device_of(device))
    net = measurement.trained_net(experiment, network, *dataset.learned(), resume, _of_loss(progress), place)
    return frozen(net), _measured(net, dataset.validation, "validation")[0]


def train(
    what: LayeredNetwork | Module,
    data: Any,
    training: Supervision | None,
    seed: int,
    progress: Progress | None,
    resume: Path | None,
    device: str,
    *,
    teacher: SurrogateNet | None = None,
) -> tuple[TrainedLayers | Module, Accuracy]:
    """Surrogate gradients: a network from fresh weights, or a module in place, on the integer grid where it is one of
    `prepare`."""
    split = training_split("data", data, EventSet)
    fresh = isinstance(what, LayeredNetwork)
    net = SurrogateNet(what, seed=seed).to(str(device_of(device))) if isinstance(what, LayeredNetwork) else what
    if not fresh and device != "cpu":
        raise ConfigError("device", "a module trains where it lies", got=device, fix="module.to(device)")
    settings = Supervision() if training is None else training
    need_kind("training", settings, Supervision)
    if teacher is not None and not settings.distillation:
        raise ConfigError(
            "train.teacher",
            "is not asked: the training has no distillation",
            got=type(teacher).__name__,
            fix="Supervision(distillation=...) above 0, or leave it out",
        )
    learned = data.learned() if isinstance(data, EventDataset) else (split, 1)
    fit(
        net,
        learned[0],
        settings,
        seed=seed,
        per_step=learned[1],
        progress=_of_loss(progress),
        checkpoint=resume,
        teacher=teacher,
    )
    name, measured = measuring_split(data)
    accuracy = _measured(net, measured, name)[0]
    return (frozen(net) if fresh and isinstance(net, SurrogateNet) else net), accuracy


def _of_loss(progress: Progress | None) -> Callable[[int, int, float], None] | None:
    """Progress as `fit` tells it, which says the loss as well."""
    return None if progress is None else lambda done, total, loss: progress(done, total)


def calibrate(trained: TrainedLayers | SurrogateNet, data: Any, seed: int) -> LayerRanges:
    """Ranges of potentials, synaptic currents and adaptive thresholds on recordings."""
    return layer_ranges(_module(trained), training_split("data", data, EventSet))


def _module(trained: TrainedLayers | SurrogateNet) -> SurrogateNet:
    return restored(trained) if isinstance(trained, TrainedLayers) else trained


def quantize(trained: TrainedLayers | SurrogateNet, plan: QuantPlan, data: Any, seed: int) -> Program:
    """Post-training quantization: batch normalization folded, weights, states and constants as codes."""
    net = _module(trained)
    need_kind("trained", net, SurrogateNet)
    ranges = data if isinstance(data, LayerRanges) else calibrate(net, data, seed)
    return lower_layers(net.network, net.params(), plan, ranges, seed=seed, labels=labels_of(data))


def prepare(
    what: LayeredNetwork | TrainedLayers | SurrogateNet,
    plan: QuantPlan,
    data: Any,
    ranges: LayerRanges | None,
    seed: int,
    **options: Any,
) -> QuantNet:
    """A torch module that trains on the integer grid (quantization-aware training, ITQ)."""
    if isinstance(what, LayeredNetwork) and (data is None or isinstance(data, Mapping)):
        return quantized.prepare(what, plan, data, ranges, seed=seed, **options)
    net = SurrogateNet(what, seed=seed) if isinstance(what, LayeredNetwork) else _module(what)
    need_kind("trained", net, SurrogateNet)
    if isinstance(data, LayerRanges):
        ranges = data
    if ranges is None:
        ranges = calibrate(net, data, seed)
    return quantized.prepare(net.network, plan, net.params(), ranges, seed=seed, **options)


def convert(module: QuantNet, data: Any, labels: tuple[str, ...], provenance: dict[str, Any] | None) -> Program:
    """The integer program that a module of `prepare` computes; `data` gives the class names."""
    if data is not None:
        _need_fit(module.network, data)
    return quantized.convert(module, labels=labels or labels_of(data), provenance=provenance)


def _need_fit(network: LayeredNetwork, data: Any) -> None:
    """Checks that recordings are some that a network takes, and that it has all their classes.

    Raises:
        DataError: they have another shape, other steps, or more classes.
    """
    split = training_split("data", data, EventSet)
    if (split.shape, split.n_steps) != (network.input.shape, network.n_steps):
        raise DataError(
            "data",
            "does not fit the network",
            got=f"events {split.shape} over {split.n_steps} steps",
            allowed=f"events {network.input.shape} over {network.n_steps} steps",
            fix="choose the data set the network was made for",
        )
    need_classes(split, next(layer.n for layer in network.layers if layer.name == network.readout.source), "data")


def evaluate_trained(
    trained: TrainedLayers | Module, split: Any, name: str, seed: int
) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy and predictions [n] of a trained network of layers, or of a module, on recordings."""
    need_samples(split, name)
    need_kind(name, split, EventSet, DataError)
    net = restored(trained) if isinstance(trained, TrainedLayers) else trained
    return _measured(net, split, name)


def _measured(net: Module, split: EventSet, name: str) -> tuple[Accuracy, NDArray[np.int64]]:
    scores, rates = responses(net, split)
    need_classes(split, scores.shape[1], name)
    spikes = sum(rates[x.name] * x.n for x in net.network.layers if x.name in rates) * net.network.n_steps
    predicted = scores.argmax(axis=1)
    return share(name, predicted == split.labels, spikes), predicted

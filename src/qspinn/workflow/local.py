"""The verbs for layers that learn locally (DECOLLE), in integers or in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import need_kind
from qspinn.data import EventDataset, EventSet, load_recordings
from qspinn.errors import ConfigError, DataError
from qspinn.exploration.local.space import LocalExperiment
from qspinn.exploration.statistics import Accuracy, share
from qspinn.learning.local import model
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.model import TrainedLocal
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import need_presence
from qspinn.networks.local import LocalNetwork
from qspinn.optional import module
from qspinn.quantization.plan import QuantPlan
from qspinn.records.record import to_plain
from qspinn.workflow.splits import need_classes, need_samples

Progress = Callable[[int, int], None]


def train_experiment(
    experiment: LocalExperiment, progress: Progress | None, resume: Path | None, device: str
) -> tuple[TrainedLocal, Accuracy]:
    """The layers of an experiment, in the arithmetic that it says, and their validation accuracy."""
    if experiment.learning.arithmetic == "float":  # said before data are read, which takes longer
        module("qspinn.learning.local.floats", "local learning in float arithmetic")
    dataset = load_recordings(experiment.data)
    return _trained(
        dataset,
        experiment.network,
        experiment.learning,
        experiment.plan,
        experiment.seed,
        progress,
        resume,
        {"experiment": to_plain(experiment)},
    )


def train(
    network: LocalNetwork,
    data: Any,
    training: LocalLearning | None,
    seed: int,
    progress: Progress | None,
    resume: Path | None,
    device: str,
    *,
    plan: QuantPlan | None = None,
) -> tuple[TrainedLocal, Accuracy]:
    """Local learning from fresh weights; `plan` has the widths, where the arithmetic is that of integers."""
    need_kind("data", data, EventDataset, DataError)
    need_kind("plan", plan, QuantPlan | None)
    learning = LocalLearning() if training is None else training
    need_kind("training", learning, LocalLearning)
    if plan is not None and learning.arithmetic == "float":
        raise ConfigError(
            "train.plan",
            "has widths of integers, and the arithmetic is that of floats",
            got=type(plan).__name__,
            fix="leave it out, or choose the arithmetic of integers",
        )
    plan = DEFAULT_PLAN if plan is None else plan
    return _trained(data, network, learning, plan, seed, progress, resume, {})


def _trained(
    dataset: EventDataset,
    network: LocalNetwork,
    learning: LocalLearning,
    plan: QuantPlan,
    seed: int,
    progress: Progress | None,
    resume: Path | None,
    provenance: dict[str, Any],
) -> tuple[TrainedLocal, Accuracy]:
    for name, events in dataset.parts():  # before training, which takes longer
        need_presence(events, f"{dataset.name}.{name}")
    layers, declaration = model.trained_layers(dataset, network, learning, plan, seed, progress=progress, resume=resume)
    predicted, n_spikes = model.predictions(layers, dataset.validation, declaration)
    of_data = {"labels": list(dataset.labels), "data": dataset.checksum()}
    trained = TrainedLocal(network=declaration, params=layers.state(), provenance=provenance | of_data)
    return trained, share("validation", predicted == dataset.validation.labels, n_spikes)


def evaluate_trained(trained: TrainedLocal, split: Any, name: str, seed: int) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy and predictions [n] of layers that learned locally, on recordings."""
    need_samples(split, name)
    need_kind(name, split, EventSet, DataError)
    need_classes(split, trained.network.n_classes, name)
    predicted, n_spikes = model.predictions(model.restored(trained), split, trained.network)
    return share(name, predicted == split.labels, n_spikes), predicted

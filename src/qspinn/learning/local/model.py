"""Locally learning layers from start to end: trained on a data set, declared for their file, and restored from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.checkpoint import LocalDeclaration, TrainedLocal
from qspinn.data.event_dataset import EventDataset
from qspinn.data.event_set import EventSet
from qspinn.errors import ArtifactError, DataError
from qspinn.learning.local import LocalLearning, LocalNetwork
from qspinn.learning.local.start import LayerStart, drawn_layers, start_of
from qspinn.learning.local.training import Layers, Progress, answers, fit, layers_of
from qspinn.plan import QuantPlan
from qspinn.records import content_key


def trained_layers(
    dataset: EventDataset, network: LocalNetwork, learning: LocalLearning, plan: QuantPlan, seed: int = 0, *,
    n_threads: int = 0, progress: Progress | None = None, resume: Path | None = None,
) -> tuple[Layers, LocalDeclaration]:
    """Layers trained on the training split of a data set, and their declaration; arguments and errors as for
    `training.layers_of` and `training.fit`."""
    start = start_of(network, dataset.train, len(dataset.labels), step_ms=dataset.bin_ms, burn_in=learning.burn_in,
                     seed=seed)
    return trained_from(start, dataset.train, dataset.bin_ms, network, learning, plan, seed, n_threads=n_threads,
                        progress=progress, resume=resume)


def trained_from(
    start: tuple[LayerStart, ...], train: EventSet, step_ms: float, network: LocalNetwork, learning: LocalLearning,
    plan: QuantPlan, seed: int = 0, *, n_threads: int = 0, progress: Progress | None = None, resume: Path | None = None,
) -> tuple[Layers, LocalDeclaration]:
    """The same from layers that `start_of` made for this network, seed and length of a step [ms]."""
    layers = layers_of(network, learning, start, plan, seed=seed, n_threads=n_threads)
    fit(layers, train, learning, seed=seed, progress=progress, checkpoint=resume, origin=content_key(network, plan))
    return layers, LocalDeclaration(
        network=network, learning=learning, plan=plan, shape=train.shape, n_classes=len(start[0].readout),
        step_ms=step_ms, seed=seed, scales=tuple(layer.scale for layer in start))


def restored(trained: TrainedLocal, *, n_threads: int = 0) -> Layers:
    """The layers of a checkpoint: what was random is drawn again from the seed, what was learned is put back.

    Raises:
        ArtifactError: arrays are missing or do not fit the declaration.
    """
    told = trained.network
    drawn = drawn_layers(told.network, told.shape, told.n_classes, told.step_ms, told.seed)
    try:
        start = tuple(msgspec.structs.replace(layer, scale=scale)
                      for layer, scale in zip(drawn, told.scales, strict=True))
        layers = layers_of(told.network, told.learning, start, told.plan, seed=told.seed, n_threads=n_threads)
        layers.put_back(trained.params)
    except (KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise ArtifactError("checkpoint", "does not fit its own declaration", got=str(error)[:120]) from None
    return layers


def predictions(layers: Layers, data: EventSet, told: LocalDeclaration) -> tuple[NDArray[np.int64], float]:
    """(class of every recording [B], spikes per recording).

    Raises:
        DataError: the events do not fit the layers.
    """
    if data.shape != told.shape:
        raise DataError("events", "do not fit the layers", got=data.shape, allowed=str(told.shape))
    return answers(layers, data, told.network.prediction, told.learning.burn_in)

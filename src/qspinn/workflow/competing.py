"""The verbs for competing populations that learn by STDP (winner-take-all)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import data as datasets
from qspinn.arrays import need_kind
from qspinn.data import Split
from qspinn.data.images.encoders import poisson
from qspinn.errors import DataError
from qspinn.exploration.competing.space import Experiment
from qspinn.exploration.statistics import Accuracy, summary
from qspinn.learning.stdp import grid
from qspinn.learning.stdp import training as stdp
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Network
from qspinn.program import Program
from qspinn.program.ops import VoteOp
from qspinn.quantization.competing import lower, poisson_op, readout_votes
from qspinn.quantization.plan import QuantPlan
from qspinn.quantization.ranges import Ranges
from qspinn.quantization.ranges import calibrate as measured_ranges
from qspinn.runtime import run
from qspinn.spikes import Spikes
from qspinn.workflow.programs import evaluate
from qspinn.workflow.splits import (
    encoded_blocks,
    labels_of,
    measuring_split,
    need_classes,
    need_samples,
    training_split,
)

Progress = Callable[[int, int], None]


def train_experiment(
    experiment: Experiment, progress: Progress | None, resume: Path | None, device: str
) -> tuple[Trained, Accuracy]:
    """The float network of an experiment and its validation accuracy."""
    dataset = datasets.load(experiment.data)
    network = experiment.network.build(dataset.train.images.shape[1], len(dataset.labels))
    return _trained(network, dataset, experiment.training, experiment.seed, progress, experiment.search.assign_samples)


def train(
    network: Network | grid.GridModel,
    data: Any,
    training: stdp.StdpTraining | None,
    seed: int,
    progress: Progress | None,
    resume: Path | None,
    device: str,
) -> tuple[Trained | grid.GridModel, Accuracy]:
    """STDP in float32 from fresh weights, with classes assigned; or of a model on the grid, in place."""
    training = stdp.StdpTraining() if training is None else training
    if isinstance(network, grid.GridModel):
        split = training_split("data", data, Split)
        grid.fit(network, spikes_of(network.network, split, network.seed), training, progress=progress)
        name, measured = measuring_split(data)
        return network, evaluate(convert(network, data, (), None), measured, name)[0]
    return _trained(network, data, training, seed, progress)


def _trained(
    network: Network, data: Any, training: stdp.StdpTraining, seed: int, progress: Progress | None, n_assigned: int = 0
) -> tuple[Trained, Accuracy]:
    """A network after STDP, its classes assigned on the first n_assigned samples (0: on all), and its accuracy."""
    split = training_split("data", data, Split)
    need_classes(split, network.readout.n_classes, "data")
    spikes = spikes_of(network, split, seed)
    trained = stdp.train(network, spikes, training, seed=seed, progress=progress)
    n = min(n_assigned or len(split.labels), len(split.labels))
    counts = stdp.respond(trained, spikes.slice(0, n))
    trained = trained.with_params(
        readout__responses=stdp.mean_responses(counts, split.labels[:n], network.readout.n_classes)
    )
    name, measured = measuring_split(data)
    return trained, evaluate_trained(trained, measured, name, seed)[0]


def spikes_of(network: Network, data: Any, seed: int) -> Spikes:
    """Encoded samples: Spikes as they are, images of a data set's training split or of a split as Poisson spikes."""
    if isinstance(data, Spikes):
        return data
    split = training_split("data", data, Split)
    op = poisson_op(network, seed)
    if split.images.shape[1] != network.input.n:
        raise DataError(
            "data", "does not fit the network", got=f"{split.images.shape[1]} pixels", allowed=f"{network.input.n}"
        )
    return poisson(split.images, op, network.n_steps, first_sample=split.first)


def calibrate(trained: Trained, data: Any, seed: int) -> Ranges:
    """Ranges of a trained network on spikes, a split or the training split of a data set."""
    return measured_ranges(trained, spikes_of(trained.network, data, seed))


def _ranges(trained: Trained, data: Any, seed: int) -> Ranges:
    return data if isinstance(data, Ranges) else calibrate(trained, data, seed)


def quantize(trained: Trained, plan: QuantPlan, data: Any, seed: int) -> Program:
    """Post-training quantization; with labelled images the classes are assigned anew to the integer program."""
    draft = lower(trained, plan, _ranges(trained, data, seed), seed=seed, labels=labels_of(data))
    if isinstance(data, Spikes | Ranges):
        return draft
    return _assigned(draft, trained, plan, data, seed)


def _assigned(draft: Program, trained: Trained, plan: QuantPlan, data: Any, seed: int) -> Program:
    """The program with votes by its own mean responses: integers may answer a little differently than floats."""
    split = training_split("data", data, Split)
    spikes = spikes_of(trained.network, split, seed)
    (vote,) = draft.ops_of(VoteOp)
    responses = stdp.mean_responses(
        run(draft, spikes).counts[vote.source], split.labels, trained.network.readout.n_classes
    )
    voting = lower(trained.with_params(readout__responses=responses), plan, measured_ranges(trained, spikes), seed=seed)
    return msgspec.structs.replace(draft, tensors={**draft.tensors, "readout.votes": voting.tensors["readout.votes"]})


def prepare(what: Network | Trained, plan: QuantPlan, data: Any, ranges: Any, seed: int) -> grid.GridModel:
    """The population on the integer grid, to be trained there (quantization-aware training, ITQ): from fresh weights
    for a network, else from the trained ones."""
    network = what.network if isinstance(what, Trained) else what
    if ranges is None:
        start = what if isinstance(what, Trained) else Trained(network=network, params=stdp.init_params(network, seed))
        ranges = _ranges(start, data, seed)
    return grid.prepare(network, plan, ranges, seed=seed, start=what if isinstance(what, Trained) else None)


def convert(model: grid.GridModel, data: Any, labels: tuple[str, ...], provenance: dict[str, Any] | None) -> Program:
    """The program that a model on the grid has become; classes are assigned on labelled images."""
    network = model.network
    split = training_split("data", data, Split)
    need_classes(split, network.readout.n_classes, "data")
    spikes = spikes_of(network, split, model.seed)
    trained = Trained(network=network, params=stdp.init_params(network, model.seed)).with_params(
        readout__responses=np.ones((network.population(network.readout.source).n, network.readout.n_classes))
    )
    ranges = measured_ranges(trained, spikes)
    votes = lower(trained, model.plan, ranges, seed=model.seed).tensors["readout.votes"]
    draft = grid.to_program(model, votes, labels=labels or labels_of(data), provenance=provenance)
    return _assigned(draft, trained, model.plan, split, model.seed)


def evaluate_trained(trained: Trained, split: Any, name: str, seed: int) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy and predictions [n] of a trained float network on a split of images."""
    need_samples(split, name)
    need_kind(name, split, Split, DataError)
    trained.need_whole()
    need_classes(split, trained.network.readout.n_classes, name)
    op = poisson_op(trained.network, seed)
    counts = np.concatenate([stdp.respond(trained, s) for s in encoded_blocks(split, op, trained.network.n_steps)])
    predicted = (counts @ readout_votes(trained)).argmax(axis=1)
    return summary(name, predicted == split.labels, counts), predicted

"""The jobs of the command line as Python calls: read an experiment, train, sweep significance, evaluate a model."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import checkpoint, data
from qspinn.checkpoint import Trained
from qspinn.data.encoders import poisson
from qspinn.errors import ConfigError, DataError
from qspinn.explore.family import AnyExperiment, read_experiment
from qspinn.explore.space import Experiment
from qspinn.explore.statistics import wilson_interval
from qspinn.learning import stdp
from qspinn.lower import poisson_op, readout_votes
from qspinn.ops import PoissonOp
from qspinn.program import Program
from qspinn.records import with_override
from qspinn.runtime import run
from qspinn.spikes import Spikes

BLOCK = 2000  # samples encoded and run at once when nothing is stored
SPLITS = ("train", "validation", "test")


def load_data(config: data.DataConfig) -> data.Dataset:
    """The data set of a configuration."""
    return data.load(config)


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> AnyExperiment:
    """The experiment, of either family, in a TOML or JSON file, with dotted overrides such as
    ``network.n_neurons=100`` applied.

    Raises:
        ConfigError: unreadable, not TOML or JSON, an unknown key (named with its path and the nearest valid one), or a
            value out of range.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        plain = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(str(path), "cannot be read", got=error.strerror) from None
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
        kind = path.suffix.lstrip(".").upper() or "TOML"
        raise ConfigError(str(path), f"is not valid {kind}", got=str(error)) from None
    for assignment in overrides:
        plain = with_override(plain, assignment)
    return read_experiment(plain)


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy (share) on n samples of a split with a 95 % interval [low, high], and spikes per sample."""

    split: str
    n: int
    accuracy: float
    low: float
    high: float
    spikes_per_sample: float


def train(experiment: Experiment, *, progress: stdp.Progress | None = None) -> tuple[Trained, Accuracy]:
    """The trained float network of an experiment, classes assigned, and its validation accuracy."""
    dataset = data.load(experiment.data)
    n_classes = len(dataset.labels)
    network = experiment.network.build(dataset.train.images.shape[1], n_classes)
    op = poisson_op(network, experiment.seed)
    spikes = poisson(dataset.train.images, op, network.n_steps, first_sample=dataset.train.first)
    trained = stdp.train(network, spikes, experiment.training, seed=experiment.seed, progress=progress)
    n = min(experiment.search.assign_images or len(dataset.train.labels), len(dataset.train.labels))
    counts = stdp.respond(trained, spikes.slice(0, n))
    trained = trained.with_params(
        readout__responses=stdp.mean_responses(counts, dataset.train.labels[:n], n_classes))
    return trained, evaluate_float(trained, dataset.validation, "validation", seed=experiment.seed)


def evaluate_float(trained: Trained, split: data.Split, name: str, *, seed: int = 0) -> Accuracy:
    """Accuracy of a trained float network on a split."""
    op = poisson_op(trained.network, seed)
    counts = np.concatenate([stdp.respond(trained, s) for s in encoded_blocks(split, op, trained.network.n_steps)])
    return summary(name, (counts @ readout_votes(trained)).argmax(axis=1) == split.labels, counts)


def evaluate(
    program: Program, split: data.Split, name: str, *, backend: str = "numba"
) -> tuple[Accuracy, NDArray[np.int64]]:
    """(accuracy, predictions [n]) of an integer program on a split.

    Raises:
        DataError: the images do not have the program's inputs.
    """
    if split.images.shape[1] != program.n_inputs:
        raise DataError("data", "does not fit the model", got=f"{split.images.shape[1]} pixels",
                        allowed=f"{program.n_inputs} inputs", fix="choose the data set the model was made for")
    (op,) = program.ops_of(PoissonOp)
    results = [run(program, s, backend=backend) for s in encoded_blocks(split, op, program.n_steps)]
    predicted = np.concatenate([r.predictions() for r in results])
    counts = np.concatenate([np.concatenate(list(r.counts.values()), axis=1) for r in results])
    return summary(name, predicted == split.labels, counts), predicted


def encoded_blocks(split: data.Split, op: PoissonOp, n_steps: int) -> Iterable[Spikes]:
    """The split as spikes, block by block, so that memory stays small."""
    for at in range(0, len(split.labels), BLOCK):
        yield poisson(split.images[at : at + BLOCK], op, n_steps, first_sample=split.first + at)


def summary(name: str, right: NDArray[np.bool_], counts: NDArray[np.int64]) -> Accuracy:
    """Accuracy record of a split."""
    low, high = wilson_interval(int(right.sum()), right.size)
    return Accuracy(split=name, n=right.size, accuracy=float(right.mean()), low=low, high=high,
                    spikes_per_sample=float(counts.sum(axis=1).mean()))


def sensitivity(experiment: Experiment, out: str | Path, **options: Any) -> Any:
    """The ranked significance curves of an experiment; same folder, journal and options as `qspinn.explore`."""
    from qspinn.explore.search import sweep

    return sweep(experiment, out, **options)


def save_trained(trained: Trained, path: str | Path) -> Path:
    """Writes a float checkpoint."""
    checkpoint.save(trained, Path(path))
    return Path(path)

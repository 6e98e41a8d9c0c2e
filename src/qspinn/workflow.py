"""The jobs of the command line as Python calls: read an experiment, train, sweep significance, evaluate a model."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn import data
from qspinn.data.images.encoders import poisson
from qspinn.errors import ConfigError, DataError
from qspinn.exploration.family import AnyDataset, AnyExperiment, checked, read_experiment
from qspinn.exploration.layered.space import LayeredExperiment
from qspinn.exploration.local.space import LocalExperiment
from qspinn.exploration.shipped import experiment_file
from qspinn.exploration.statistics import Accuracy, _share, summary
from qspinn.learning.local.model import TrainedLocal
from qspinn.learning.stdp import training as stdp
from qspinn.networks import checkpoint
from qspinn.networks.checkpoint import AnyTrained, Trained, TrainedLayers
from qspinn.optional import module
from qspinn.program import Program
from qspinn.program.ops import EventsOp, PoissonOp
from qspinn.quantization.competing import poisson_op, readout_votes
from qspinn.records.plain import MAX_DEPTH, read_json, with_override
from qspinn.records.record import to_plain
from qspinn.runtime import run
from qspinn.spikes import Spikes

BLOCK = 2000  # samples encoded and run at once when nothing is stored
SPLITS = ("train", "validation", "test")
MAX_BYTES = 1 << 20
"""Size of the largest experiment file."""
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_DEPTH}}}")
"""A key of so many parts; TOML's reader needs memory for the square of their number."""


def load_data(config: data.DataConfig | data.EventData) -> AnyDataset:
    """The data set of a configuration: images or event recordings.

    Raises:
        ConfigError: neither a DataConfig nor an EventData, or a setting that the set does not have.
        DataError: files are missing or damaged.
    """
    return data.load_recordings(config) if isinstance(config, data.EventData) else data.load(config)


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> AnyExperiment:
    """The experiment, of any family, in a TOML or JSON file, with dotted overrides such as
    ``network.n_neurons=100`` applied.

    Args:
        path: the file, or the name of an experiment that comes with the package, such as "digits_stdp"; a file of that
            name wins.

    Raises:
        ConfigError: neither a file nor such a name (the nearest is named), unreadable, not TOML or JSON, a key given
            twice, an unknown key (named with its path and the nearest valid one), or a value out of range.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError("path", "is no path of a file", got=path, allowed="text or a Path")
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ConfigError("overrides", "is no list of assignments", got=overrides, fix='["network.n_neurons=100"]')
    plain = _read_plain(experiment_file(Path(path)))
    for assignment in overrides:
        plain = with_override(plain, assignment)
    return read_experiment(plain)


def _read_plain(path: Path) -> Any:
    """What a TOML or JSON file holds."""
    kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(str(path), "is too long for an experiment", allowed=f"up to {MAX_BYTES} bytes")
        text = data.decode("utf-8-sig")
        if kind == "TOML" and _LONG_KEY.search(text):
            raise ConfigError(str(path), "has a key of too many parts", allowed=f"{MAX_DEPTH} levels")
        return read_json(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(str(path), "cannot be read", got=error.strerror) from None
    except RecursionError:
        raise ConfigError(str(path), "holds tables or lists too deep within one another") from None
    except ValueError as error:  # of the syntax, the encoding, numbers of thousands of digits, or a path with NUL
        raise ConfigError(str(path), f"is not valid {kind}", got=str(error)) from None


def train(
    experiment: AnyExperiment, *, progress: stdp.Progress | None = None, resume: Path | None = None, device: str = "cpu"
) -> tuple[AnyTrained, Accuracy]:
    """The trained network of an experiment and its validation accuracy: a float network, or with local learning what
    `learning.arithmetic` says.

    Args:
        progress: called with (done, total): samples of STDP, epochs of the others.
        resume: for all but STDP, the file that is written after every epoch and from which an interrupted call goes on.
        device: "cpu"; for layers that learn by gradients also "cuda" or "cuda:<i>".

    Raises:
        ConfigError: not an experiment, a library that it needs is not installed, the device does not exist, or the
            experiment does not train there.
    """
    experiment = checked(experiment)
    if isinstance(experiment, LayeredExperiment):
        return _train_layers(experiment, progress, resume, device)
    if device != "cpu":
        raise ConfigError("device", "only gradients train elsewhere than on the CPU", got=device, allowed="cpu")
    if isinstance(experiment, LocalExperiment):
        return _train_local(experiment, progress, resume)
    dataset = data.load(experiment.data)
    n_classes = len(dataset.labels)
    network = experiment.network.build(dataset.train.images.shape[1], n_classes)
    op = poisson_op(network, experiment.seed)
    spikes = poisson(dataset.train.images, op, network.n_steps, first_sample=dataset.train.first)
    trained = stdp.train(network, spikes, experiment.training, seed=experiment.seed, progress=progress)
    n = min(experiment.search.assign_images or len(dataset.train.labels), len(dataset.train.labels))
    counts = stdp.respond(trained, spikes.slice(0, n))
    trained = trained.with_params(readout__responses=stdp.mean_responses(counts, dataset.train.labels[:n], n_classes))
    return trained, evaluate_float(trained, dataset.validation, "validation", seed=experiment.seed)


def _train_layers(
    experiment: LayeredExperiment, progress: stdp.Progress | None, resume: Path | None, device: str
) -> tuple[TrainedLayers, Accuracy]:
    """The trained layered network and its validation accuracy."""
    layered = module("qspinn.exploration.layered.bench", "training by gradients")
    from qspinn.learning.gradients.surrogate import frozen
    from qspinn.learning.gradients.training import responses
    from qspinn.runtime.torch_engine.engine import _device

    place = str(_device(device))
    dataset = layered.load(experiment)
    network = layered.declared(experiment, dataset)
    told = None if progress is None else lambda done, total, loss: progress(done, total)
    net = layered.trained_net(experiment, network, *dataset.learned(), resume, told, place)
    scores, rates = responses(net, dataset.validation)
    n_spikes = sum(rates[x.name] * x.n for x in network.layers if x.name in rates) * network.n_steps
    right = scores.argmax(axis=1) == dataset.validation.labels
    return frozen(net), _share("validation", right, n_spikes)


def _train_local(
    experiment: LocalExperiment, progress: stdp.Progress | None, resume: Path | None
) -> tuple[TrainedLocal, Accuracy]:
    """Layers that learned locally and their validation accuracy."""
    from qspinn.learning.local import model as local_model

    if experiment.learning.arithmetic == "float":  # said before data are read, which takes longer
        module("qspinn.learning.local.floats", "local learning in float arithmetic")
    dataset = data.load_recordings(experiment.data)
    layers, declaration = local_model.trained_layers(
        dataset,
        experiment.network,
        experiment.learning,
        experiment.plan,
        experiment.seed,
        progress=progress,
        resume=resume,
    )
    said, n_spikes = local_model.predictions(layers, dataset.validation, declaration)
    right = said == dataset.validation.labels
    trained = TrainedLocal(network=declaration, params=layers.state(), provenance={"experiment": to_plain(experiment)})
    return trained, _share("validation", right, n_spikes)


def evaluate_float(trained: Trained, split: data.Split, name: str, *, seed: int = 0) -> Accuracy:
    """Accuracy of a trained float network on a split.

    Raises:
        DataError: the split is empty, or its images or classes are not what the network takes.
    """
    _need_samples(split, name)
    trained.need_whole()
    _need_classes(split, trained.network.readout.n_classes, name)
    op = poisson_op(trained.network, seed)
    counts = np.concatenate([stdp.respond(trained, s) for s in encoded_blocks(split, op, trained.network.n_steps)])
    return summary(name, (counts @ readout_votes(trained)).argmax(axis=1) == split.labels, counts)


def evaluate(
    program: Program, split: data.Split | data.EventSet, name: str, *, backend: str = "numba", device: str = "cpu"
) -> tuple[Accuracy, NDArray[np.int64]]:
    """(accuracy, predictions [n]) of an integer program on a split.

    Raises:
        DataError: the split holds no recordings, or they do not fit the program's inputs or classes.
        ConfigError: there is no such backend or device.
    """
    _need_samples(split, name)
    results = []
    for spikes in inputs_of(program, split):
        results.append(run(program, spikes, backend=backend, device=device))
        _need_classes(split, results[0].scores.shape[1], name)
    predicted = np.concatenate([r.predictions() for r in results])
    counts = np.concatenate([np.concatenate(list(r.counts.values()), axis=1) for r in results])
    return summary(name, predicted == split.labels, counts), predicted


def evaluate_local(trained: TrainedLocal, split: data.EventSet, name: str) -> tuple[Accuracy, NDArray[np.int64]]:
    """(accuracy, predictions [n]) of layers that learned locally, on a split.

    Raises:
        DataError: the split holds no recordings, or they do not fit the layers or classes.
    """
    _need_samples(split, name)
    _need_classes(split, trained.network.n_classes, name)
    from qspinn.learning.local import model as local_model

    said, n_spikes = local_model.predictions(local_model.restored(trained), split, trained.network)
    return _share(name, said == split.labels, n_spikes), said


def _need_samples(split: Any, name: str) -> None:
    if not isinstance(split, data.Split | data.EventSet):
        raise DataError(name, "is no split of a data set", got=type(split).__name__, allowed="a Split or an EventSet")
    if len(split.labels) == 0:
        raise DataError(name, "holds no recordings", got=0, allowed="at least one")


def _need_classes(split: data.Split | data.EventSet, n_classes: int, name: str) -> None:
    """Refuses classes that a model has no output for: they would count as wrong answers, whatever it says."""
    highest = int(split.labels.max())
    if highest >= n_classes:
        raise DataError(
            f"{name}: labels",
            "has classes that the model does not know",
            got=highest,
            allowed=f"0..{n_classes - 1}",
            fix="choose the data set the model was made for",
        )


def inputs_of(program: Program, split: data.Split | data.EventSet) -> Iterable[Spikes]:
    """A split as the program takes it, block by block.

    Raises:
        DataError: images where the program takes events or the other way round, or another shape.
    """
    fix = "choose the data set the model was made for"
    if not program.ops_of(EventsOp) and not program.ops_of(PoissonOp):
        raise DataError(
            "data",
            "cannot be turned into spikes: the program does not say how its inputs come about",
            got=f"{program.n_inputs} inputs",
            allowed="a program with a PoissonOp or an EventsOp",
            fix="give spikes to qspinn.runtime.run",
        )
    if isinstance(split, data.EventSet):
        shapes = [op.shape for op in program.ops_of(EventsOp)]
        if (split.shape, split.n_steps) not in [(shape, program.n_steps) for shape in shapes]:
            raise DataError(
                "data",
                "does not fit the model",
                got=f"events {split.shape} over {split.n_steps} steps",
                allowed=_takes(program),
                fix=fix,
            )
        return split.graded().batches(BLOCK)
    if split.images.shape[1] != program.n_inputs or not program.ops_of(PoissonOp):
        raise DataError(
            "data", "does not fit the model", got=f"{split.images.shape[1]} pixels", allowed=_takes(program), fix=fix
        )
    (op,) = program.ops_of(PoissonOp)
    return encoded_blocks(split, op, program.n_steps)


def _takes(program: Program) -> str:
    """What the program's inputs are, in words."""
    events = [f"events {op.shape} over {program.n_steps} steps" for op in program.ops_of(EventsOp)]
    return events[0] if events else f"{program.n_inputs} inputs"


def encoded_blocks(split: data.Split, op: PoissonOp, n_steps: int) -> Iterable[Spikes]:
    """The split as spikes, block by block, so that memory stays small."""
    for at in range(0, len(split.labels), BLOCK):
        yield poisson(split.images[at : at + BLOCK], op, n_steps, first_sample=split.first + at)


def sensitivity(experiment: AnyExperiment, out: str | Path, **options: Any) -> Any:
    """The ranked significance curves of an experiment; same folder, journal and options as `qspinn.explore`."""
    from qspinn.exploration.search import sweep

    return sweep(experiment, out, **options)


def save_trained(trained: AnyTrained, path: str | Path) -> Path:
    """Writes the checkpoint of a trained network."""
    checkpoint.save(trained, Path(path))
    return Path(path)

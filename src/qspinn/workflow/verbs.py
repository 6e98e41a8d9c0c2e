"""Verbs of the workflow, one for each stage, for networks of every family.

The family is that of the first argument's type: competing populations that learn by STDP (`Network`, `Trained`,
`GridModel`), layers that learn by gradients (`LayeredNetwork`, `TrainedLayers`, the torch modules `SurrogateNet` and
`QuantNet`), layers that learn locally (`LocalNetwork`, `TrainedLocal`), and their experiments.

    trained, accuracy = qspinn.train(network, data)          # in float32
    program = qspinn.quantize(trained, plan, data)           # post-training quantization (PTQ)
    model = qspinn.prepare(trained, plan, data)              # quantization-aware training (QAT, here ITQ): on the grid,
    model, accuracy = qspinn.train(model, data)              # trained there,
    program = qspinn.convert(model, data)                    # and as a program
    accuracy, predicted = qspinn.evaluate(program, data.test)
    qspinn.save(program, "model.qspinn")
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer, need_call, need_kind, need_words, path_of, text
from qspinn.errors import ArtifactError, ConfigError
from qspinn.exploration.family import checked
from qspinn.exploration.statistics import Accuracy
from qspinn.networks import checkpoint
from qspinn.optional import module
from qspinn.program import Program, file
from qspinn.quantization.plan import QuantPlan
from qspinn.records.words import unknown_key
from qspinn.spikes import Spikes
from qspinn.workflow import programs

FAMILIES = {
    "imported": ("Model",),
    "competing": ("Experiment", "GridModel", "Network", "Trained"),
    "layered": ("LayeredExperiment", "LayeredNetwork", "QuantNet", "SurrogateNet", "TrainedLayers"),
    "local": ("LocalExperiment", "LocalNetwork", "TrainedLocal"),
}
"""Family -> the types of this package that belong to it. By name, since torch is loaded only where it is needed."""
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"layered": ("teacher",), "local": ("plan",)},
    "prepare": {"layered": ("learn_steps", "surrogate", "width", "estimator")},
}
"""Verb -> family -> the options that it has beside those of all families."""
EXPERIMENTS = ("Experiment", "LayeredExperiment", "LocalExperiment")


def _kind(what: Any) -> str:
    """The name of the type of this package that an object is of; empty for foreign objects."""
    names = [kind.__name__ for kind in type(what).__mro__ if kind.__module__.split(".")[0] == "qspinn"]
    known = [name for name in names if any(name in of for of in FAMILIES.values())]
    return known[0] if known else ""


def _family(verb: str, what: Any, *kinds: str) -> ModuleType:
    """The module of the family that an object belongs to.

    Raises:
        ConfigError: the verb does not take such an object, or a library that the family needs is not installed.
    """
    kind = _kind(what)
    if kind not in kinds:
        raise ConfigError(verb, "does not take such an object", got=type(what).__name__, allowed=", ".join(kinds))
    name = next(family for family, members in FAMILIES.items() if kind in members)
    return module(f"qspinn.workflow.{name}", f"qspinn.{verb}")


def _need_options(verb: str, what: Any, options: Mapping[str, Any]) -> None:
    """Refuses options that the verb does not have for the family of an object.

    Raises:
        ConfigError: names the option.
    """
    family = next(family for family, members in FAMILIES.items() if _kind(what) in members)
    for name in options:
        if name not in OPTIONS[verb].get(family, ()):
            others = [other for other, own in OPTIONS[verb].items() if name in own]
            raise ConfigError(
                f"{verb}.{name}",
                f"is no option here, but of {others[0]} networks" if others else "is no option here",
                got=options[name],
                allowed=", ".join(OPTIONS[verb].get(family, ())) or "none",
                fix="leave it out",
            )


def _seed(where: str, seed: Any) -> int:
    """A seed of random draws."""
    return integer(where, seed, low=0, high=(1 << 32) - 1)


def train(
    what: Any,
    data: Any = None,
    training: Any = None,
    *,
    seed: int | None = None,
    progress: Any = None,
    resume: str | Path | None = None,
    device: str = "cpu",
    **options: Any,
) -> tuple[Any, Accuracy]:
    """Trains a network; returns it and its accuracy on validation.

    Args:
        what: an experiment, which says all but progress, resume and device itself; a network, which starts from fresh
            weights; or a model of `prepare` (`GridModel`, `QuantNet`) or a `SurrogateNet`, which is trained in place
            and returned.
        data: a data set with its splits. A `Split` or an `EventSet` alone will do except for local learning; the
            accuracy is then that on the training data.
        training: `StdpTraining`, `Supervision` or `LocalLearning`; None for the usual.
        seed: of every random draw, 0 unless given; a `GridModel` has that of `prepare`.
        progress: called with (done, total): samples of STDP, epochs of the others.
        resume: for all but STDP, the file that is written after every epoch and from which an interrupted call goes on.
        device: "cpu"; for layers that learn by gradients also "cuda" or "cuda:<i>".
        options: `plan` of local learning in integers (widths); `teacher` of layers that learn by distillation.

    Returns:
        (`Trained`, `TrainedLayers`, `TrainedLocal` or the model itself, `Accuracy`).

    Raises:
        ConfigError: an argument of another kind, a library that is not installed, a device that does not exist or on
            which the network does not train.
        DataError: the data do not fit the network, or training did not stay finite.
    """
    family = _family(
        "train",
        what,
        *EXPERIMENTS,
        "Network",
        "LayeredNetwork",
        "LocalNetwork",
        "GridModel",
        "QuantNet",
        "SurrogateNet",
    )
    need_call("progress", progress)
    if text("device", device) != "cpu" and not family.__name__.endswith(".layered"):
        raise ConfigError("device", "only gradients train elsewhere than on the CPU", got=device, allowed="cpu")
    resume = None if resume is None else path_of("resume", resume)
    if resume is not None and family.__name__.endswith(".competing"):
        raise ConfigError("resume", "STDP keeps nothing to go on from", got=str(resume), allowed="None")
    _need_options("train", what, options)
    if _kind(what) in EXPERIMENTS:
        given = {"data": data, "training": training, "seed": seed, **options}
        for name, value in given.items():
            if value is not None or name in options:
                raise ConfigError(
                    f"train.{name}",
                    "is said by the experiment itself",
                    got=type(value).__name__,
                    fix="change the experiment",
                )
        return family.train_experiment(checked(what), progress, resume, device)
    own = what.seed if _kind(what) == "GridModel" else 0
    seed = _seed("train.seed", own if seed is None else seed)
    if _kind(what) == "GridModel" and seed != own:
        raise ConfigError(
            "train.seed",
            "a model on the grid draws by the seed that it was prepared with",
            got=seed,
            allowed=str(own),
            fix="give the seed to qspinn.prepare",
        )
    return family.train(what, data, training, seed, progress, resume, device, **options)


def calibrate(trained: Any, data: Any, *, seed: int = 0) -> Any:
    """Measures the ranges of a trained network on calibration data, from which lowering chooses formats.

    Args:
        trained: `Trained`, `TrainedLayers`, a `SurrogateNet`, or an imported `Model`.
        data: a data set, whose training split is taken, or a split; for `Trained` also `Spikes`, for `Model` also
            an array of counts [T, B, ...].
        seed: of the Poisson spikes that images become; recordings, and spikes, are what they are.

    Returns:
        `Ranges` of competing populations, `LayerRanges` of layers.

    Raises:
        ConfigError, DataError: an argument of another kind, or data that do not fit the network.
    """
    family = _family("calibrate", trained, "Trained", "TrainedLayers", "SurrogateNet", "Model")
    seed = _seed("calibrate.seed", seed)
    if seed != 0 and (_kind(trained) != "Trained" or isinstance(data, Spikes)):
        raise ConfigError(
            "calibrate.seed", "is of the spikes that images become", got=seed, allowed="0 here", fix="leave it out"
        )
    return family.calibrate(trained, data, seed)


def quantize(trained: Any, plan: QuantPlan, data: Any, *, seed: int = 0) -> Program:
    """Post-training quantization (PTQ): a trained float network as an integer program.

    Args:
        trained: `Trained`, `TrainedLayers`, a `SurrogateNet`, or an imported `Model`.
        plan: format, rounding and calibrator of every tensor.
        data: calibration data as for `calibrate`, or what that returned. With labelled images, the classes of
            competing populations are assigned anew to the integer program.
        seed: of stochastic rounding while encoding, and of every random draw at run time.

    Raises:
        ConfigError: the plan does not fit the network.
        DataError: the data do not.
        LoweringError: an accumulator could overflow, or a constant cannot be kept; names the tensor and what would fit.
    """
    need_kind("plan", plan, QuantPlan)
    family = _family("quantize", trained, "Trained", "TrainedLayers", "SurrogateNet", "Model")
    return family.quantize(trained, plan, data, _seed("quantize.seed", seed))


def prepare(what: Any, plan: QuantPlan, data: Any = None, ranges: Any = None, *, seed: int = 0, **options: Any) -> Any:
    """A model that trains on the integer grid of a plan: quantization-aware training (QAT, here ITQ).

    Args:
        what: a `Network` or `LayeredNetwork` (fresh weights), or a `Trained`, `TrainedLayers` or `SurrogateNet`, from
            whose weights training goes on.
        data: calibration data as for `calibrate`, or what that returned; for a `LayeredNetwork` also its arrays.
        ranges: what `calibrate` returned, in place of data.
        options: of layers, see `learning.gradients.quantized.prepare`: learn_steps, surrogate, width, estimator.

    Returns:
        `GridModel` of competing populations, `QuantNet` (a torch module) of layers.

    Raises:
        ConfigError, DataError, LoweringError: as `quantize`.
    """
    need_kind("plan", plan, QuantPlan)
    family = _family("prepare", what, "Network", "Trained", "LayeredNetwork", "TrainedLayers", "SurrogateNet")
    _need_options("prepare", what, options)
    seed = _seed("prepare.seed", seed)
    arrays = _kind(what) == "LayeredNetwork" and isinstance(data, Mapping)
    if data is not None and ranges is not None and not arrays:
        raise ConfigError(
            "prepare.ranges",
            "stand beside data, which give ranges, too",
            got=type(ranges).__name__,
            fix="leave one of the two out",
        )
    return family.prepare(what, plan, data, ranges, seed, **options)


def convert(
    model: Any, data: Any = None, *, labels: tuple[str, ...] = (), provenance: dict[str, Any] | None = None
) -> Program:
    """The integer program that a model of `prepare` computes, bit for bit.

    Args:
        data: labelled images, by which the classes of competing populations are assigned; for layers only the source
            of the class names, if given, and then recordings that the network takes.
        labels: names of the classes; those of the data set unless given.
        provenance: plain data that the file keeps.

    Raises:
        ConfigError, DataError, LoweringError: not such a model, or one that cannot be kept as integers.
    """
    family = _family("convert", model, "GridModel", "QuantNet")
    need_words("convert.labels", labels, distinct=True)
    return family.convert(model, data, labels, provenance)


def evaluate(
    model: Any, split: Any, name: str = "test", *, backend: str = "numba", device: str = "cpu", seed: int = 0
) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy and predictions [n] of a program or a trained network on a split.

    Args:
        model: a `Program`, `Trained`, `TrainedLayers`, `TrainedLocal`, `SurrogateNet`, `QuantNet`, or an imported
            `Model`.
        split: `Split` of images or `EventSet` of recordings.
        name: of the split, in messages and in the result.
        backend, device: of a program; see `runtime.run`.
        seed: of the Poisson spikes of `Trained`; a program has its own.

    Raises:
        DataError: the split holds no samples, or they do not fit the model's inputs or classes.
        ConfigError: an argument of another kind, no such backend or device, or one where it means nothing.
    """
    for option, value in (("name", name), ("backend", backend), ("device", device)):
        text(f"evaluate.{option}", value)
    seed = _seed("evaluate.seed", seed)
    if seed != 0 and _kind(model) != "Trained":
        raise ConfigError("evaluate.seed", "is for competing populations in float", got=seed, fix="leave it out")
    if isinstance(model, Program):
        return programs.evaluate(model, split, name, backend, device)
    family = _family("evaluate", model, "Trained", "TrainedLayers", "TrainedLocal", "SurrogateNet", "QuantNet", "Model")
    for option, value, usual in (("backend", backend, "numba"), ("device", device, "cpu")):
        if value != usual:
            raise ConfigError(f"evaluate.{option}", "is for programs", got=value, fix="leave it out")
    return family.evaluate_trained(model, split, name, seed)


def sensitivity(experiment: Any, out: str | Path, **options: Any) -> Any:
    """The ranked significance curves of an experiment; same folder, journal and options as `qspinn.explore`."""
    from qspinn.exploration.search import sweep

    known = [name for name in inspect.signature(sweep).parameters if name not in ("experiment", "out")]
    for name in options:
        if name not in known:
            raise unknown_key(f"sensitivity.{name}", name, known)
    return sweep(experiment, out, **options)


def save(model: Any, path: str | Path) -> Path:
    """Writes a program (`.qspinn`) or a trained network (`.safetensors`), whole or not at all; returns its path.

    Raises:
        ConfigError: neither of them, arrays that could not be read again, or no path.
        WriteError: the disk is full or the place is not writable.
    """
    path = path_of("path", path)
    if isinstance(model, Program):
        return file.save(model, path)
    checkpoint.save(model, path)
    return path


def trained_family(path: str | Path) -> str | None:
    """The family of the trained network in a file, "" for competing populations, "layers" or "local"; None where it
    is no checkpoint, or cannot be read."""
    return checkpoint.family_in(path)


def load(path: str | Path, *, memory_limit: int | None = None) -> Any:
    """Loads a file that `save` wrote: a `Program`, `Trained`, `TrainedLayers` or `TrainedLocal`, by the content of the
    file.

    Args:
        memory_limit: bytes that a run of one sample of a program may take; None for half of the machine's memory.
            Trained networks have no such limit.

    Raises:
        ArtifactError: missing, truncated, altered, foreign, or written by a newer version.
    """
    path = path_of("path", path, ArtifactError)
    if memory_limit is not None:
        integer("memory_limit", memory_limit, low=1)
    family = checkpoint.family_in(path)
    if family is None:
        return file.load(path, memory_limit=memory_limit)
    if family == "local":
        from qspinn.learning.local.model import load_local

        return load_local(path)
    return checkpoint.load(path) if family == "" else checkpoint.load_layers(path)

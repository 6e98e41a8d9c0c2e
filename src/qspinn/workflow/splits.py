"""Splits of data sets as networks and programs take them, and the checks that they fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from qspinn import data
from qspinn.data.images.encoders import poisson
from qspinn.errors import DataError
from qspinn.program import Program
from qspinn.program.ops import EventsOp, PoissonOp
from qspinn.spikes import Spikes

T = TypeVar("T")
BLOCK = 2000  # samples encoded and run at once when nothing is stored


def need_samples(split: Any, name: str) -> None:
    """Checks that a split has samples.

    Raises:
        DataError: it has none, or is no split.
    """
    if not isinstance(split, data.Split | data.EventSet):
        raise DataError(name, "is no split of a data set", got=type(split).__name__, allowed="a Split or an EventSet")
    if len(split.labels) == 0:
        raise DataError(name, "holds no recordings", got=0, allowed="at least one")


def need_classes(split: data.Split | data.EventSet, n_classes: int, name: str) -> None:
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


def training_split(what: str, given: Any, kind: type[T]) -> T:
    """The split to train or calibrate on: the training split of a data set, or a split as it is given.

    Args:
        what: the argument's name, for messages.
        kind: `Split` for images, `EventSet` for recordings of events.

    Raises:
        DataError: neither a data set nor a split of that kind, or one without samples.
    """
    split = given.train if isinstance(given, data.Dataset | data.EventDataset) else given
    if not isinstance(split, kind):
        whole = "Dataset" if kind is data.Split else "EventDataset"
        raise DataError(
            what,
            "is not data that this network takes",
            got=type(given).__name__,
            allowed=f"a {whole}, or one split of it: {kind.__name__}",
        )
    need_samples(split, what)
    return split


def measuring_split(given: Any) -> tuple[str, Any]:
    """Name and split to measure a training on: validation of a data set, else the training data themselves."""
    whole = isinstance(given, data.Dataset | data.EventDataset)
    return ("validation", given.validation) if whole else ("train", given)


def labels_of(given: Any) -> tuple[str, ...]:
    """The names of a data set's classes; empty where a split alone was given."""
    return given.labels if isinstance(given, data.Dataset | data.EventDataset) else ()

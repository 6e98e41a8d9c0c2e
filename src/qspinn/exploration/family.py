"""One interface of an exploration to the families of networks, and the family of an experiment.

A family is a module `measurement` whose functions are those of `Family`: in `competing` for populations that learn by
STDP, in `layered` for layers that learn by gradients, in `local` for layers that learn from themselves alone, in
integers. The search, its workers, the journal and the selection know none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from qspinn.data import Dataset, EventDataset
from qspinn.errors import ConfigError
from qspinn.exploration.artifacts import Stored
from qspinn.exploration.competing.space import Candidate, Experiment
from qspinn.exploration.layered.space import LayeredCandidate, LayeredExperiment
from qspinn.exploration.local.space import LocalCandidate, LocalExperiment
from qspinn.exploration.sensitivity import Significance
from qspinn.memory import MemoryAccount
from qspinn.optional import module
from qspinn.records.record import from_plain, to_plain

AnyExperiment = Experiment | LayeredExperiment | LocalExperiment
AnyCandidate = Candidate | LayeredCandidate | LocalCandidate
AnyDataset = Dataset | EventDataset
Files = dict[str, dict[str, Any]]
"""For each split the files of its arrays, by kind, and their sizes where a file does not say."""

_FAMILIES: dict[type, tuple[str, type[AnyCandidate]]] = {
    Experiment: ("competing", Candidate),
    LayeredExperiment: ("layered", LayeredCandidate),
    LocalExperiment: ("local", LocalCandidate),
}


class Family(Protocol):
    """Functions that an exploration needs of a family of networks.

    Experiments, candidates, data sets and measurements are those of the family. A measurement holds all that a worker
    measures candidates with: the run's folder, the experiment, the stored splits, and results shared by its tasks.

    Attributes:
        LIBRARIES: the packages whose versions a result depends on.
        STORED: form in which a candidate is stored.
    """

    LIBRARIES: tuple[str, ...]
    STORED: Stored

    def load(self, experiment: Any) -> Any:
        """The data set."""

    def describe(self, dataset: Any) -> dict[str, Any]:
        """Facts on the data for the report, beside name, split and labels."""

    def store(self, folder: Path, experiment: Any, dataset: Any) -> Files:
        """Files of the training and validation splits, as candidates take them; written once, shared by workers."""

    def account(self, experiment: Any, dataset: Any) -> MemoryAccount:
        """Memory of the float baseline."""

    def float_tasks(self, experiment: Any) -> list[tuple[str, Any]]:
        """Float networks to train as (key, argument of `train_float`), the baseline first."""

    def points(self, experiment: Any, dataset: Any) -> list[Any]:
        """The significance sweep as candidates."""

    def curves(self, experiment: Any, accuracy: dict[str, float], account: MemoryAccount) -> list[Significance]:
        """Ranked significance curves, from the accuracy of every point of the sweep that was possible, by label, and
        the memory of the float baseline."""

    def propose(self, experiment: Any, dataset: Any, curves: list[Significance]) -> list[Any]:
        """The candidates to try, given the significance curves."""

    def open_measurement(self, folder: Path, experiment: Any, labels: tuple[str, ...], files: Files) -> Any:
        """Opens the measurement of a run from its stored splits."""

    def float_path(self, folder: Path, task: Any) -> Path:
        """File of a task's float network in a run's folder."""

    def train_float(self, measurement: Any, task: Any) -> dict[str, Any]:
        """Trains and stores a float network; returns its record without kind and key."""

    def has_float(self, folder: Path, task: Any) -> bool:
        """Whether the float network of a task is whole in a run's folder."""

    def sweep_accuracy(self, measurement: Any, candidate: Any) -> float:
        """Validation accuracy of a point of the sweep; an error says that it is not possible."""

    def build(self, measurement: Any, candidate: Any) -> tuple[Any, MemoryAccount | None]:
        """Built candidate, and the memory of learning it on the grid where `STORED.account` counts inference alone.

        An error says that it is not possible, and becomes the record of the candidate.
        """

    def measure(self, measurement: Any, candidate: Any, built: Any) -> tuple[NDArray[np.bool_], dict[str, Any]]:
        """Correctness of each validation sample, and further entries of the candidate's record."""

    def test(self, measurement: Any, dataset: Any, built: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Correctness of the float baseline and predictions of the winner on each test sample, once per run."""


def family_of(experiment: AnyExperiment) -> Family:
    """The family of an experiment, loaded when first asked for: layers need torch.

    Raises:
        ConfigError: not an experiment, or a library that the family needs is not installed.
    """
    _need_experiment(experiment)
    name, _ = _FAMILIES[type(experiment)]
    return cast(Family, module(home_of(experiment), f"an experiment of the family {name!r}"))


def home_of(experiment: AnyExperiment) -> str:
    """The name of the module that is the family of an experiment."""
    name, _ = _FAMILIES[type(experiment)]
    return f"qspinn.exploration.{name}.measurement"


def rehearsal_of(experiment: AnyExperiment) -> Any:
    """The module that compiles kernels of a family ahead, with `rehearsals` and `rehearse` of a measurement; None
    for a family whose kernels are compiled when they are first called."""
    name, _ = _FAMILIES[type(experiment)]
    return module("qspinn.exploration.competing.rehearsal", "compiling ahead") if name == "competing" else None


def _need_experiment(experiment: Any) -> None:
    if type(experiment) not in _FAMILIES:
        raise ConfigError(
            "experiment",
            "is no experiment",
            got=type(experiment).__name__,
            allowed=", ".join(kind.__name__ for kind in _FAMILIES),
            fix="qspinn.load_experiment reads one from a file",
        )


def checked(experiment: AnyExperiment) -> AnyExperiment:
    """The experiment, once it is known that it can be written and read again as the same: what travels to workers and
    stands in a run's journal is its plain form.

    Raises:
        ConfigError: not an experiment, or a part of it is another record than declared; named by its path.
    """
    _need_experiment(experiment)
    try:
        read = read_experiment(to_plain(experiment), "experiment")
    except TypeError as error:  # an object that has no plain form
        raise ConfigError("experiment", "cannot be written", got=str(error)[:200]) from None
    if read != experiment:
        raise ConfigError(
            "experiment",
            "is another one when it is read again",
            got=type(experiment).__name__,
            fix="give every part as the record that is declared for it",
        )
    return experiment


def candidate_of(experiment: AnyExperiment, plain: Any, where: str = "candidate") -> AnyCandidate:
    """A candidate of an experiment's family from plain data."""
    return from_plain(_FAMILIES[type(experiment)][1], plain, where)


def kind_of(plain: Any, where: str = "config") -> type[AnyExperiment]:
    """The type of the experiment in plain data, by its `family`.

    Raises:
        ConfigError: an unknown family.
    """
    named = plain.get("family") if isinstance(plain, Mapping) else None
    kinds: dict[Any, type[AnyExperiment]] = {None: Experiment, "layers": LayeredExperiment, "local": LocalExperiment}
    if not isinstance(named, str | None) or named not in kinds:
        raise ConfigError(
            f"{where}.family",
            "unknown family of networks",
            got=named,
            allowed='"layers", "local"; leave it out for competing populations',
        )
    return kinds[named]


def read_experiment(plain: Any, where: str = "config") -> AnyExperiment:
    """The experiment in plain data: of layers where `family` says so, else of competing populations.

    Raises:
        ConfigError: an unknown family or key (named with its path and the nearest valid one), or a value out of range.
    """
    return from_plain(kind_of(plain, where), plain, where)

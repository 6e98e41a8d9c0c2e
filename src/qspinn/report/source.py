"""Source of a report: the files of a finished run, read once and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from qspinn import program as program_file
from qspinn.errors import ArtifactError, ConfigError, RunError
from qspinn.exploration.artifacts import PROGRAM
from qspinn.exploration.family import AnyCandidate, AnyExperiment, candidate_of, read_experiment
from qspinn.exploration.outcome import Outcome
from qspinn.exploration.sensitivity import Significance
from qspinn.memory import MemoryRow
from qspinn.quantization.paths import is_weight
from qspinn.quantization.plan import QuantRule


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A measured candidate: what it is, its accuracy on validation (share) and its memory in bits.

    learning_bits is 0 where the scheme learns nothing on the grid. Of layers: rates are spikes per neuron and step by
    layer, epochs those of training with quantization in the loop, trained_rates the rates in each of these, on training
    data. Of local learning: epochs, and spikes per recording.
    """

    key: str
    candidate: AnyCandidate
    accuracy: float
    bits: int
    learning_bits: int
    memory: tuple[MemoryRow, ...]
    reward: float
    on_front: bool
    admitted: bool
    rates: dict[str, float] = {}
    epochs: int = 0
    trained_rates: dict[str, list[float]] = {}
    spikes: float = 0.0

    @property
    def label(self) -> str:
        """Label of the candidate."""
        return self.candidate.label

    @property
    def weights(self) -> QuantRule:
        """The rule for the weights: the one of fewest bits, where layers differ."""
        rules = self.candidate.plan.rules
        return min((r for r in rules if is_weight(r.tensor)), key=lambda r: r.bits, default=rules[0])


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """The data set: how it was split, the number of training, validation and test samples, files left out, and for each
    two splits that were allowed to share samples how many they share."""

    name: str
    split_rule: str
    sha256: str
    shape: tuple[int, ...]
    labels: tuple[str, ...]
    n: tuple[int, int, int]
    skipped: tuple[str, ...] = ()
    shared: dict[str, int] = {}


class FloatNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A trained float network of the run: accuracy on validation (share), seconds of training; size of competing
    populations, epochs and rates of layers, spikes per recording of local learning."""

    accuracy: float
    seconds: float
    n_neurons: int = 0
    epochs: int = 0
    rates: dict[str, float] = {}
    spikes: float = 0.0


class Source(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Content of a report.

    Attributes:
        family_facts: facts that only the run's family of networks has.
        notes: values of the winner's tensors that lowering could not keep, one sentence each.
    """

    outcome: Outcome
    experiment: AnyExperiment
    data: Data
    points: tuple[Point, ...]
    winner: Point
    curves: tuple[Significance, ...]
    float_networks: tuple[FloatNetwork, ...]
    float_memory: tuple[MemoryRow, ...]
    float_learning_bits: int
    family_facts: Any
    notes: tuple[str, ...] = ()


class Section(Protocol):
    """Section that a family of networks adds to a report: a module of `report.sections`.

    Attributes:
        TEMPLATE: the section's own template, beside its module.
    """

    TEMPLATE: str

    def read(self, folder: Path, facts: dict[str, Any], model: Path) -> tuple[Any, int]:
        """Facts that only this family has, and bits that learning takes in float, from a run's folder, the facts of all
        families (fields of `Source`) and the winner's file."""

    def view(self, source: Source, family_facts: Any) -> dict[str, Any]:
        """Variables of the templates besides those of all families."""


def read_run(folder: Path, sections: Mapping[type, Section]) -> Source:
    """The content of a finished run.

    Args:
        sections: the section of a report by the type of the run's experiment (`report.sections.SECTIONS`).

    Raises:
        RunError: the folder, or a file of it, is missing, damaged or does not fit the others.
    """
    outcome = _outcome(folder / "result.json")
    try:
        facts = _facts(outcome)
    except (ConfigError, msgspec.ValidationError, LookupError, TypeError, ValueError) as error:
        raise _broken(folder / "result.json", f"{type(error).__name__}: {error}") from None
    read = sections[type(facts["experiment"])].read
    try:
        model = folder / outcome.model
        family_facts, learning_bits = read(folder, facts, model)
        notes = program_file.load(model).notable() if model.suffix == PROGRAM.suffix else []
    except ArtifactError as error:
        raise RunError(
            error.where,
            f"{error.problem}, so the report cannot be written",
            got=error.got,
            fix="run qspinn explore with this --out again: it continues and restores its files",
        ) from None
    except (ConfigError, LookupError, ValueError, TypeError) as error:
        raise _broken(folder / outcome.model, f"does not fit the float network: {error}") from None
    return Source(
        outcome=outcome,
        family_facts=family_facts,
        **facts,
        float_learning_bits=learning_bits,
        notes=tuple(str(note) for note in notes),
    )


def _facts(outcome: Outcome) -> dict[str, Any]:
    """The plain parts of an outcome as records, checked."""
    experiment = read_experiment(outcome.experiment, "result.json.experiment")
    points = tuple(_point(outcome, experiment, r) for r in outcome.candidates)
    data = msgspec.convert(outcome.data, Data)
    if [len(row) for row in outcome.confusion] != [len(data.labels)] * len(data.labels):
        raise ValueError("the confusion matrix does not fit the labels")
    return {
        "experiment": experiment,
        "data": data,
        "points": points,
        "winner": {p.key: p for p in points}[outcome.winner],
        "curves": msgspec.convert(outcome.significance, tuple[Significance, ...]),
        "float_networks": msgspec.convert(outcome.floats, tuple[FloatNetwork, ...]),
        "float_memory": msgspec.convert(outcome.float_memory, tuple[MemoryRow, ...]),
    }


def _outcome(path: Path) -> Outcome:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Outcome)
    except OSError as error:
        raise RunError(
            str(path),
            "cannot be read: no finished run is there",
            got=error.strerror,
            fix=f"run qspinn explore <config.toml> --out {path.parent} first",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from None


def _broken(path: Path, got: str) -> RunError:
    return RunError(
        str(path),
        "is damaged or was written by another version of qspinn",
        got=got[:200],
        fix="run qspinn explore with this --out again: it continues and restores its files",
    )


def _point(outcome: Outcome, experiment: AnyExperiment, record: dict[str, Any]) -> Point:
    key = record["key"]
    return Point(
        key=key,
        candidate=candidate_of(experiment, record["candidate"], key),
        accuracy=float(record["accuracy"]),
        bits=int(record["bits"]),
        learning_bits=int(record["learning_bits"]),
        memory=tuple(msgspec.convert(r, MemoryRow) for r in record["memory"]),
        reward=outcome.rewards[key],
        on_front=key in outcome.front,
        admitted=key in outcome.admitted,
        rates=msgspec.convert(record.get("rates", {}), dict[str, float]),
        epochs=int(record.get("epochs", 0)),
        trained_rates=msgspec.convert(record.get("trained_rates", {}), dict[str, list[float]]),
        spikes=float(record.get("spikes", 0.0)),
    )

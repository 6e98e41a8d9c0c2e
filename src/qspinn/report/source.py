"""Source of a report: the files of a finished run, read once and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

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

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
Width = Annotated[int, msgspec.Meta(ge=1, le=64)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Signed = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Points = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]
Keys = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a row of memory."""

    count: Count
    bits: Count


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a measured candidate."""

    key: str
    accuracy: Share
    bits: Size
    learning_bits: Count
    memory: tuple[_Row, ...]
    rates: dict[str, Amount] = {}
    epochs: Count = 0
    trained_rates: dict[str, Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]] = {}
    spikes: Amount = 0.0


class _Float(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a float network."""

    accuracy: Share
    seconds: Amount
    n_neurons: Count = 0
    epochs: Count = 0
    rates: dict[str, Amount] = {}
    spikes: Amount = 0.0


class _Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of a significance curve."""

    bits: Annotated[tuple[Width, ...], msgspec.Meta(min_length=1)]
    accuracy: Annotated[tuple[Share, ...], msgspec.Meta(min_length=1)]
    harmless_bits: Width
    significance: Signed


class _Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference in points with its interval."""

    points: Points
    low: Points
    high: Points


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the data set."""

    shape: tuple[Size, ...]
    labels: Keys
    n: tuple[Size, Size, Size]
    shared: dict[str, Count] = {}


class _Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a result within their ranges; everything that is drawn or divided by is among them."""

    data: _Data
    float_bits: Size
    float_memory: tuple[_Row, ...]
    floats: Annotated[tuple[_Float, ...], msgspec.Meta(min_length=1)]
    significance: tuple[_Curve, ...]
    candidates: Annotated[tuple[_Candidate, ...], msgspec.Meta(min_length=1)]
    front: Keys
    admitted: Keys
    winner: str
    rewards: dict[str, Signed]
    float_validation: Share
    winner_validation: Share
    float_test: Share
    winner_test: Share
    test_difference: _Difference
    confusion: tuple[tuple[Count, ...], ...]
    seconds: Amount
    model: str = "model.qspinn"


def _check_numbers(plain: bytes) -> None:
    """Checks the numbers of a result, and that its parts fit each other.

    Raises:
        ConfigError, msgspec.ValidationError: names the path of what is out of range.
    """
    result = msgspec.json.decode(plain, type=_Numbers)
    keys, n_classes = {c.key for c in result.candidates}, len(result.data.labels)
    if len(keys) < len(result.candidates):
        raise ConfigError("candidates", "hold a key twice", got=len(result.candidates), allowed=str(len(keys)))
    for name, used in (
        ("front", result.front),
        ("admitted", result.admitted),
        ("winner", (result.winner,)),
        ("rewards", result.rewards),
    ):
        if unknown := sorted({*used} - keys):
            raise ConfigError(name, "names no measured candidate", got=unknown[0])
    if [len(row) for row in result.confusion] != [n_classes] * n_classes:
        raise ConfigError("confusion", "does not fit the labels", allowed=f"{n_classes} rows of {n_classes} numbers")
    if (n := sum(map(sum, result.confusion))) != result.data.n[2]:
        raise ConfigError("confusion", "does not count the test samples", got=n, allowed=str(result.data.n[2]))
    for i, curve in enumerate(result.significance):
        if len(curve.bits) != len(curve.accuracy):
            raise ConfigError(f"significance[{i}]", "has not one accuracy for each width", got=len(curve.accuracy))
    for i, c in enumerate(result.candidates):
        if len({len(line) for line in c.trained_rates.values()}) > 1:
            raise ConfigError(f"candidates[{i}].trained_rates", "are not of as many epochs in each layer")
    if not result.test_difference.low <= result.test_difference.points <= result.test_difference.high:
        d = result.test_difference
        raise ConfigError("test_difference", "is no interval around the points", got=[d.low, d.points, d.high])
    if Path(result.model).name != result.model or result.model in ("", ".", ".."):
        raise ConfigError("model", "is no name of a file in the run's folder", got=result.model)


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
    outcome, plain = _outcome(folder / "result.json")
    try:
        _check_numbers(plain)
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
    return {
        "experiment": experiment,
        "data": data,
        "points": points,
        "winner": {p.key: p for p in points}[outcome.winner],
        "curves": msgspec.convert(outcome.significance, tuple[Significance, ...]),
        "float_networks": msgspec.convert(outcome.floats, tuple[FloatNetwork, ...]),
        "float_memory": msgspec.convert(outcome.float_memory, tuple[MemoryRow, ...]),
    }


def _outcome(path: Path) -> tuple[Outcome, bytes]:
    """A result, and the JSON that it is read from."""
    try:
        if path.exists() and not path.is_file():
            raise _broken(path, "is no regular file")
        plain = path.read_bytes()
        return msgspec.json.decode(plain, type=Outcome), plain
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
    candidate = candidate_of(experiment, record["candidate"], key)
    if not candidate.plan.rules:
        raise ConfigError(f"{key}.plan.rules", "is empty", allowed="a rule for every tensor")
    return Point(
        key=key,
        candidate=candidate,
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

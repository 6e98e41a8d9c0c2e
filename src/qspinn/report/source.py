"""What the page is made from: the files of a finished run, read once and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import checkpoint
from qspinn import program as program_file
from qspinn.errors import ArtifactError, ConfigError, RunError
from qspinn.explore.outcome import Outcome
from qspinn.explore.sensitivity import Significance
from qspinn.explore.space import Candidate, Experiment
from qspinn.memory import MemoryRow, float_account
from qspinn.ops import DenseOp, SelectOp, VoteOp
from qspinn.plan import QuantRule
from qspinn.program import Program
from qspinn.records import from_plain


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A measured candidate: what it is, its accuracy on validation (share) and its memory in bits.

    learning_bits is 0 where the scheme learns nothing on the grid.
    """

    key: str
    candidate: Candidate
    accuracy: float
    bits: int
    learning_bits: int
    memory: tuple[MemoryRow, ...]
    reward: float
    on_front: bool
    admitted: bool

    @property
    def label(self) -> str:
        return self.candidate.label

    @property
    def weights(self) -> QuantRule:
        """The rule for the weights: the first that names a weight tensor."""
        rules = self.candidate.plan.rules
        return next((r for r in rules if r.tensor.endswith(".w")), rules[0])


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """The data set: how it was split, and the number of training, validation and test images."""

    name: str
    split_rule: str
    sha256: str
    shape: tuple[int, ...]
    labels: tuple[str, ...]
    n: tuple[int, int, int]


class FloatNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A trained float network of the run: size, accuracy on validation (share), seconds of training."""

    n_neurons: int
    accuracy: float
    seconds: float


class Fields(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Weights of the winner before and after, on the same neurons and inputs.

    Attributes:
        before: float [N, n_inputs]; after: codes as float [N, n_inputs], 0 where left out.
        kept: bool [n_inputs]; which inputs the winner has.
        votes_before, votes_after: class index that a neuron votes for, [N].
        shape: height and width of the input image, (0, 0) where it is not an image.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    kept: NDArray[np.bool_]
    votes_before: NDArray[np.int64]
    votes_after: NDArray[np.int64]
    shape: tuple[int, int]


class Source(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything the page shows."""

    outcome: Outcome
    experiment: Experiment
    data: Data
    points: tuple[Point, ...]
    winner: Point
    curves: tuple[Significance, ...]
    float_networks: tuple[FloatNetwork, ...]
    float_memory: tuple[MemoryRow, ...]
    float_learning_bits: int
    fields: Fields


def read_run(folder: Path) -> Source:
    """The content of a finished run.

    Raises:
        RunError: the folder, or a file of it, is missing, damaged or does not fit the others.
    """
    outcome = _outcome(folder / "result.json")
    try:
        facts = _facts(outcome)
    except (ConfigError, msgspec.ValidationError, LookupError, TypeError, ValueError) as error:
        raise _broken(folder / "result.json", f"{type(error).__name__}: {error}") from None
    n0, n = facts["experiment"].network.n_neurons, facts["winner"].candidate.n_neurons
    try:
        program = program_file.load(folder / "model.qspinn")
        base, trained = (checkpoint.load(folder / "float" / f"n{size}.safetensors") for size in (n0, n))
    except ArtifactError as error:
        raise RunError(error.where, f"{error.problem}, so the report cannot be written", got=error.got,
                       fix="run qspinn explore with this --out again: it continues and restores its files") from None
    try:
        fields = _fields(program, trained.params, facts["data"])
    except (LookupError, ValueError, TypeError) as error:
        raise _broken(folder / "model.qspinn", f"does not fit the float network: {error}") from None
    return Source(outcome=outcome, fields=fields, **facts,
                  float_learning_bits=float_account(base.network, learning=True).total_bits)


def _facts(outcome: Outcome) -> dict[str, Any]:
    """The plain parts of an outcome as records, checked."""
    points = tuple(_point(outcome, r) for r in outcome.candidates)
    data = msgspec.convert(outcome.data, Data)
    if [len(row) for row in outcome.confusion] != [len(data.labels)] * len(data.labels):
        raise ValueError("the confusion matrix does not fit the labels")
    return {
        "experiment": from_plain(Experiment, outcome.experiment, "result.json.experiment"), "data": data,
        "points": points, "winner": {p.key: p for p in points}[outcome.winner],
        "curves": msgspec.convert(outcome.significance, tuple[Significance, ...]),
        "float_networks": msgspec.convert(outcome.floats, tuple[FloatNetwork, ...]),
        "float_memory": msgspec.convert(outcome.float_memory, tuple[MemoryRow, ...]),
    }


def _outcome(path: Path) -> Outcome:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Outcome)
    except OSError as error:
        raise RunError(str(path), "cannot be read: no finished run is there", got=error.strerror,
                       fix=f"run qspinn explore <config.toml> --out {path.parent} first") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from None


def _broken(path: Path, got: str) -> RunError:
    return RunError(str(path), "is damaged or was written by another version of qspinn", got=got[:200],
                    fix="run qspinn explore with this --out again: it continues and restores its files")


def _point(outcome: Outcome, record: dict[str, Any]) -> Point:
    key = record["key"]
    return Point(
        key=key, candidate=from_plain(Candidate, record["candidate"], key), accuracy=float(record["accuracy"]),
        bits=int(record["bits"]), learning_bits=int(record["learning_bits"]),
        memory=tuple(msgspec.convert(r, MemoryRow) for r in record["memory"]), reward=outcome.rewards[key],
        on_front=key in outcome.front, admitted=key in outcome.admitted,
    )


def _fields(program: Program, params: checkpoint.Parameters, data: Data) -> Fields:
    """Float weights and the winner's codes, both [N, n_inputs]; inputs the winner lacks have code 0."""
    weight = program.ops_of(DenseOp)[0].weight
    before = np.asarray(params[weight], dtype=np.float64)
    select = program.ops_of(SelectOp)
    kept = program.codes(select[0].kept).ravel() == 1 if select else np.ones(before.shape[1], dtype=bool)
    after = np.zeros_like(before)
    after[:, kept] = program.codes(weight)
    is_image = len(data.shape) == 2 and data.shape[0] * data.shape[1] == before.shape[1]
    return Fields(before=before, after=after, kept=kept, votes_before=params["readout.responses"].argmax(axis=1),
                  votes_after=program.codes(program.ops_of(VoteOp)[0].votes).argmax(axis=1),
                  shape=(data.shape[0], data.shape[1]) if is_image else (0, 0))

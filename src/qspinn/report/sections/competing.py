"""The part of the page that is about competing populations: receptive fields, sizes, what learning needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import program as program_file
from qspinn.exploration.competing.space import Experiment
from qspinn.exploration.scheme import Scheme
from qspinn.memory import float_account
from qspinn.networks import checkpoint
from qspinn.networks.parameters import Parameters
from qspinn.program import Program
from qspinn.program.ops import DenseOp, SelectOp, VoteOp
from qspinn.report import words
from qspinn.report.images import Field, grey_of, image, shown
from qspinn.report.source import Data, Source

TEMPLATE = "competing.html.j2"
SCHEME_MEANING = {
    Scheme.PTQ: "quantized after float training, in one go",
    Scheme.PTQ_ADAPT: "quantized after float training, then only the thresholds learned anew on the grid",
    Scheme.ITQ: "learned by STDP on the integer grid, from fresh weights",
}


def view(source: Source, family_facts: Fields) -> dict[str, Any]:
    """Variables of the template besides those of all families."""
    experiment = source.experiment
    assert isinstance(experiment, Experiment)
    before, after = grids(family_facts, source.data.labels)
    n_neurons = source.winner.candidate.n_neurons  # type: ignore[union-attr]
    return {
        "noun": "images",
        "winner_text": winner_text(source, family_facts, n_neurons),
        "caution": caution(source, experiment.network.n_neurons, n_neurons),
        "sizes": (experiment.network.n_neurons, n_neurons),
        "n_swept": experiment.search.sweep.samples,
        "float_texts": [
            f"{words.count_text(f.n_neurons)} neurons: {words.percent(f.accuracy)} on validation, trained "
            f"in {words.duration_text(f.seconds)}"
            for f in source.float_networks
        ],
        "cost": "inference",
        "swept_text": words.SWEPT,
        "own_title": "Receptive fields",
        "fields_before": before,
        "fields_after": after,
        "n_kept": int(family_facts.kept.sum()),
        "n_inputs": family_facts.kept.size,
        "n_neurons": n_neurons,
    }


def winner_text(source: Source, family_facts: Fields, n_neurons: int) -> str:
    """Sentence that describes the winner."""
    p, w = source.winner, source.winner.weights
    n_kept, n_inputs = int(family_facts.kept.sum()), family_facts.kept.size
    inputs = "all inputs kept" if n_kept == n_inputs else f"{n_kept} of {n_inputs} inputs kept"
    bit = f"{w.bits}‑bit weights ({words.GRANULARITIES[w.granularity]})"
    return (
        f"The winner is {words.SCHEMES[p.candidate.scheme]}, {SCHEME_MEANING[p.candidate.scheme]}: {bit}, "
        f"{words.ROUNDINGS[w.rounding]} rounding, {words.count_text(n_neurons)} neurons, {inputs}."
    )


def caution(source: Source, n0: int, n_neurons: int) -> str:
    """Sentence on differences of the comparison besides precision; empty where there are none."""
    parts = []
    scheme = source.winner.candidate.scheme
    if scheme is Scheme.PTQ_ADAPT:
        parts.append("the winner’s thresholds were learned again after quantization, the baseline’s were not")
    if scheme is Scheme.ITQ:
        parts.append("the winner was learned anew, with a rule made for the grid")
    if n_neurons != n0:
        parts.append(f"the baseline has {words.count_text(n0)} neurons")
    if not parts:
        return ""
    return f"The difference is not the effect of precision alone: {', and '.join(parts)}."


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


def read(folder: Path, facts: dict[str, Any], model: Path) -> tuple[Fields, int]:
    """Receptive fields of the winner, and bits that float learning needs."""
    program = program_file.load(model)
    n0, n = facts["experiment"].network.n_neurons, facts["winner"].candidate.n_neurons
    base, trained = (checkpoint.load(folder / "float" / f"n{size}.safetensors") for size in (n0, n))
    return _fields(program, trained.params, facts["data"]), float_account(base.network, learning=True).total_bits


def _fields(program: Program, params: Parameters, data: Data) -> Fields:
    """Float weights and the winner's codes, both [N, n_inputs]; inputs the winner lacks have code 0."""
    weight = program.ops_of(DenseOp)[0].weight
    before = np.asarray(params[weight], dtype=np.float64)
    select = program.ops_of(SelectOp)
    kept = program.codes(select[0].kept).ravel() == 1 if select else np.ones(before.shape[1], dtype=bool)
    after = np.zeros_like(before)
    after[:, kept] = program.codes(weight)
    is_image = len(data.shape) == 2 and data.shape[0] * data.shape[1] == before.shape[1]
    return Fields(
        before=before,
        after=after,
        kept=kept,
        votes_before=params["readout.responses"].argmax(axis=1),
        votes_after=program.codes(program.ops_of(VoteOp)[0].votes).argmax(axis=1),
        shape=(data.shape[0], data.shape[1]) if is_image else (0, 0),
    )


def grids(fields: Fields, labels: Sequence[str]) -> tuple[list[Field], list[Field]]:
    """The images before and after, of the same neurons in the same order; empty where inputs are not an image."""
    if not fields.shape[0]:
        return [], []
    neurons = shown(fields.before.shape[0])
    everywhere = np.ones_like(fields.kept)
    return (
        _grid(fields.before, everywhere, fields.votes_before, neurons, fields.shape, labels),
        _grid(fields.after, fields.kept, fields.votes_after, neurons, fields.shape, labels),
    )


def _grid(
    weights: NDArray,
    opaque: NDArray[np.bool_],
    votes: NDArray,
    neurons: list[int],
    shape: tuple[int, int],
    labels: Sequence[str],
) -> list[Field]:
    return [
        image(
            grey_of(weights[k]).reshape(shape),
            f"neuron {k}\nvotes most for “{labels[votes[k]]}”",
            opaque.reshape(shape),
        )
        for k in neurons
    ]

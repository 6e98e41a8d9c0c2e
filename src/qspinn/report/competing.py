"""The part of the page that is about competing populations: receptive fields, sizes, what learning needs."""

from __future__ import annotations

from typing import Any

from qspinn.explore.space import Experiment, Scheme
from qspinn.report import fields, words
from qspinn.report.source import Fields, Source

SCHEME_MEANING = {
    Scheme.PTQ: "quantized after float training, in one go",
    Scheme.PTQ_ADAPT: "quantized after float training, then only the thresholds learned anew on the grid",
    Scheme.ITQ: "learned by STDP on the integer grid, from fresh weights",
}


def view(source: Source, own: Fields, experiment: Experiment) -> dict[str, Any]:
    """What the template needs besides what all families have."""
    before, after = fields.grids(own, source.data.labels)
    n_neurons = source.winner.candidate.n_neurons  # type: ignore[union-attr]
    return {
        "noun": "images", "winner_text": winner_text(source, own, n_neurons),
        "caution": caution(source, experiment.network.n_neurons, n_neurons),
        "sizes": (experiment.network.n_neurons, n_neurons), "n_swept": experiment.search.sensitivity_images,
        "float_texts": [f"{words.count_text(f.n_neurons)} neurons: {words.percent(f.accuracy)} on validation, trained "
                        f"in {words.duration_text(f.seconds)}" for f in source.float_networks],
        "cost": "inference", "swept_text": words.SWEPT,
        "own_title": "Receptive fields", "template": "fields.html.j2", "fields_before": before, "fields_after": after,
        "n_kept": int(own.kept.sum()), "n_inputs": own.kept.size, "n_neurons": n_neurons,
    }


def winner_text(source: Source, own: Fields, n_neurons: int) -> str:
    """One sentence that says what the winner is."""
    p, w = source.winner, source.winner.weights
    kept, n_inputs = int(own.kept.sum()), own.kept.size
    inputs = "all inputs kept" if kept == n_inputs else f"{kept} of {n_inputs} inputs kept"
    bit = f"{w.bits}‑bit weights ({words.GRANULARITIES[w.granularity]})"
    return (f"The winner is {words.SCHEMES[p.candidate.scheme]}, {SCHEME_MEANING[p.candidate.scheme]}: {bit}, "
            f"{words.ROUNDINGS[w.rounding]} rounding, {words.count_text(n_neurons)} neurons, {inputs}.")


def caution(source: Source, n0: int, n_neurons: int) -> str:
    """What the comparison also contains besides precision; empty where there is nothing."""
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

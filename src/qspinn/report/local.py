"""The part of the page that is about local learning: widths by kind of tensor, and what learning costs in bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qspinn.explore.local_space import LocalExperiment, LocalSearch
from qspinn.fixedpoint import Rounding
from qspinn.report import words
from qspinn.report.local_facts import KindFacts, Local
from qspinn.report.source import Source

MEANINGS = {
    "w": "weights of the forward pass", "gradient": "learned weights and their updates", "q_trace": "synaptic traces",
    "p_trace": "membrane traces", "r": "refractory traces", "u": "potentials", "readout": "both random matrices",
    "read": "values read out", "activation": "sigmoid of the potentials, a table", "error": "errors"}
ROLES = {"parameter": "parameters", "state": "states", "learning": "learning"}


def view(source: Source, own: Local) -> dict[str, Any]:
    """What the template needs besides what all families have."""
    experiment, told = source.experiment, own.told
    assert isinstance(experiment, LocalExperiment)
    search = experiment.search
    return {
        "noun": "recordings", "winner_text": winner_text(own), "sizes": (own.n_neurons, own.n_neurons),
        "caution": "The difference is not the effect of precision alone: both learn from the same start, but the "
                   f"baseline by Adamax at a rate of its own ({told.learning.float_learning_rate:g}, integers "
                   f"{told.learning.learning_rate:g}).",
        "float_texts": [words.float_text(f) for f in source.float_networks], "n_swept": search.sensitivity_samples,
        "cost": "learning", "swept_text": swept_text(search, source.data.n[0]),
        "own_title": "Learning on the device", "template": "local.html.j2", "rows": [_row(f) for f in own.facts],
        "roles": [_role(role, own.facts) for role in ROLES],
        "spikes": (source.float_networks[0].spikes, source.winner.spikes),
        "epochs": source.winner.epochs,
    }


def winner_text(own: Local) -> str:
    """One sentence that says what the winner is."""
    facts = {f.kind: f for f in own.facts}
    return (f"The winner learned in integers alone, from fresh weights to the last update: {_bit(facts['w'])} weights, "
            f"{_bit(facts['gradient'])} learned weights ({facts['gradient'].rounding} rounding), "
            f"{_bit(facts['q_trace'])} synaptic and {_bit(facts['p_trace'])} membrane traces, "
            f"{words.count_text(own.n_neurons)} neurons in {len(facts['w'].widths)} layers.")


def swept_text(search: LocalSearch, n_train: int) -> str:
    """What a point of the sweep is, of so many training recordings."""
    epochs = f"{search.sensitivity_epochs} epoch{'' if search.sensitivity_epochs == 1 else 's'}"
    n = words.count_text(min(search.sensitivity_samples or n_train, n_train))
    return ("One kind of tensor at a time is narrowed in all layers while all others stay as in the experiment’s plan. "
            f"Every point is a training of its own, {epochs} on {n} of the {words.count_text(n_train)} training "
            "recordings; the float line is that of the whole training.")


def _bit(f: KindFacts) -> str:
    return words.width_text(f.widths)


def _row(f: KindFacts) -> dict[str, Any]:
    widths = f.widths[:1] if len({*f.widths}) == 1 else f.widths
    return {"kind": f.kind, "meaning": MEANINGS[f.kind], "widths": ", ".join(map(str, widths)),
            "rounding": words.ROUNDINGS[Rounding(f.rounding)], "count": f.count, "float_bits": f.float_bits,
            "bits": f.bits}


def _role(role: str, facts: Sequence[KindFacts]) -> dict[str, Any]:
    own = [f for f in facts if f.role == role]
    before, after = sum(f.float_bits for f in own), sum(f.bits for f in own)
    return {"name": ROLES[role], "count": sum(f.count for f in own), "float_bits": before, "bits": after,
            "saved": 1 - after / before if before else 0.0}

"""The part of the page that is about local learning: widths by kind of tensor, and what learning costs in bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qspinn.exploration.local.space import LocalExperiment, LocalSearch
from qspinn.fixedpoint import Rounding
from qspinn.learning.local.formats import DEFAULTS, local_rules
from qspinn.learning.local.model import LocalDeclaration, load_local
from qspinn.memory import MemoryRow
from qspinn.networks.local import sizes_of
from qspinn.report import words
from qspinn.report.source import Source

TEMPLATE = "local.html.j2"
MEANINGS = {
    "w": "weights of the forward pass",
    "gradient": "learned weights and their updates",
    "q_trace": "synaptic traces",
    "p_trace": "membrane traces",
    "r": "refractory traces",
    "u": "potentials",
    "readout": "both random matrices",
    "read": "values read out",
    "activation": "sigmoid of the potentials, a table",
    "error": "errors",
}
ROLES = {"parameter": "parameters", "state": "states", "learning": "learning"}


def view(source: Source, family_facts: Local) -> dict[str, Any]:
    """Variables of the template besides those of all families."""
    experiment, declared = source.experiment, family_facts.declared
    assert isinstance(experiment, LocalExperiment)
    search = experiment.search
    return {
        "noun": "recordings",
        "winner_text": winner_text(family_facts),
        "sizes": (family_facts.n_neurons, family_facts.n_neurons),
        "caution": "The difference is not the effect of precision alone: both learn from the same start, but the "
        f"baseline by Adamax at a rate of its own ({declared.learning.float_learning_rate:g}, integers "
        f"{declared.learning.learning_rate:g}).",
        "float_texts": [words.float_text(f) for f in source.float_networks],
        "n_swept": search.sweep.samples,
        "cost": "learning",
        "swept_text": swept_text(search, source.data.n[0]),
        "own_title": "Learning on the device",
        "rows": [_row(f) for f in family_facts.facts],
        "roles": [_role(role, family_facts.facts) for role in ROLES],
        "spikes": (source.float_networks[0].spikes, source.winner.spikes),
        "epochs": source.winner.epochs,
    }


def winner_text(family_facts: Local) -> str:
    """Sentence that describes the winner."""
    facts = {f.kind: f for f in family_facts.facts}
    return (
        f"The winner learned in integers alone, from fresh weights to the last update: {_bit(facts['w'])} weights, "
        f"{_bit(facts['gradient'])} learned weights ({facts['gradient'].rounding} rounding), "
        f"{_bit(facts['q_trace'])} synaptic and {_bit(facts['p_trace'])} membrane traces, "
        f"{words.count_text(family_facts.n_neurons)} neurons in {len(facts['w'].widths)} layers."
    )


def swept_text(search: LocalSearch, n_train: int) -> str:
    """Sentence on a point of the sweep, of so many training recordings."""
    epochs = f"{search.sweep.epochs} epoch{'' if search.sweep.epochs == 1 else 's'}"
    n = words.count_text(min(search.sweep.samples or n_train, n_train))
    return (
        "One kind of tensor at a time is narrowed in all layers while all others stay as in the experiment’s plan. "
        f"Every point is a training of its own, {epochs} on {n} of the {words.count_text(n_train)} training "
        "recordings; the float line is that of the whole training."
    )


def _bit(f: KindFacts) -> str:
    return words.width_text(f.widths)


def _row(f: KindFacts) -> dict[str, Any]:
    widths = f.widths[:1] if len({*f.widths}) == 1 else f.widths
    return {
        "kind": f.kind,
        "meaning": MEANINGS[f.kind],
        "widths": ", ".join(map(str, widths)),
        "rounding": words.ROUNDINGS[Rounding(f.rounding)],
        "count": f.count,
        "float_bits": f.float_bits,
        "bits": f.bits,
    }


def _role(role: str, facts: Sequence[KindFacts]) -> dict[str, Any]:
    of_role = [f for f in facts if f.role == role]
    before, after = sum(f.float_bits for f in of_role), sum(f.bits for f in of_role)
    return {
        "name": ROLES[role],
        "count": sum(f.count for f in of_role),
        "float_bits": before,
        "bits": after,
        "saved": 1 - after / before if before else 0.0,
    }


def read(folder: Path, facts: dict[str, Any], model: Path) -> tuple[Local, int]:
    """Widths of the winner, and 0: all memory is that of learning."""
    return local_of(load_local(model).network, facts["float_memory"], facts["winner"].memory), 0


class KindFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Kind of tensor in all layers of the winner, beside the float baseline.

    Attributes:
        role: in the memory account; empty for what it does not count.
        widths: bits in the winner's plan, layer by layer.
        rounding: of the first layer's.
        count, float_bits, bits: how many values, and what they need.
    """

    kind: str
    role: str
    widths: tuple[int, ...]
    rounding: str
    count: int
    float_bits: int
    bits: int


class Local(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All kinds of tensors; the declaration of the winner."""

    declared: LocalDeclaration
    facts: tuple[KindFacts, ...]

    @property
    def n_neurons(self) -> int:
        """Number of neurons of all layers."""
        return sum(math.prod(size.target) for size in sizes_of(self.declared.network, self.declared.shape))


def local_of(declared: LocalDeclaration, float_memory: Iterable[MemoryRow], memory: Iterable[MemoryRow]) -> Local:
    """The facts of a run's winner, from its declaration and both accounts.

    Raises:
        ConfigError: the declaration's plan does not fit its layers.
    """
    names = [size.name for size in sizes_of(declared.network, declared.shape)]
    rules = local_rules(declared.plan, names)
    old, new = list(float_memory), list(memory)

    def of(rows: list[MemoryRow], kind: str) -> list[MemoryRow]:
        return [row for row in rows if row.path.endswith(f".{kind}")]

    return Local(
        declared=declared,
        facts=tuple(
            KindFacts(
                kind=kind,
                role=next((row.role for row in of(new, kind)), ""),
                widths=tuple(rules[f"{name}.{kind}"].bits for name in names),
                count=sum(row.count for row in of(new, kind)),
                rounding=rules[f"{names[0]}.{kind}"].rounding.value,
                float_bits=sum(row.total_bits for row in of(old, kind)),
                bits=sum(row.total_bits for row in of(new, kind)),
            )
            for kind in DEFAULTS
        ),
    )

"""Widths of local learning that are worth trying: the sweep's points, and the candidates given their curves."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from qspinn.exploration.local.space import GROUPS, LocalCandidate, LocalExperiment
from qspinn.exploration.sensitivity import Significance, significance
from qspinn.learning.local.formats import DEFAULTS, SPANS, local_rules
from qspinn.memory import MemoryAccount, MemoryRow
from qspinn.networks.tensors import TensorPath
from qspinn.quantization.plan import QuantPlan, QuantRule

KINDS = tuple(kind for kind in DEFAULTS if kind != "activation")
"""What is swept: narrower tables of the sigmoid save nothing that is counted."""
BASE = "plan"
"""Label of the sweep's one point that all curves begin with."""
SHORT = {
    "weight_bits": "w",
    "gradient_bits": "gradient",
    "trace_bits": "trace",
    "state_bits": "u",
    "refractory_bits": "r",
    "readout_bits": "readout",
    "error_bits": "error",
}
Change = Callable[[str, int], int]
"""(kind of tensor, bits in the plan) -> bits."""


def changed_plan(plan: QuantPlan, names: list[str], change: Change) -> QuantPlan:
    """The plan with other widths: a rule for each kind of tensor, or for each layer where layers differ."""
    rules, new_rules = local_rules(plan, names), []
    for kind in DEFAULTS:
        of_kind = [
            msgspec.structs.replace(
                rules[f"{name}.{kind}"], tensor=f"{name}.{kind}", bits=change(kind, rules[f"{name}.{kind}"].bits)
            )
            for name in names
        ]
        for_all = [msgspec.structs.replace(rule, tensor=f"*.{kind}") for rule in of_kind]
        new_rules += for_all[:1] if all(rule == for_all[0] for rule in for_all) else of_kind
    return msgspec.structs.replace(plan, rules=tuple(new_rules))


def points(experiment: LocalExperiment, names: list[str]) -> list[LocalCandidate]:
    """Every (kind of tensor, narrower width) of the sweep, all else as in the plan, and the plan itself.

    Raises:
        ConfigError: the plan does not fit the layers of these names; see `formats.local_rules`.
    """
    candidates = []
    for kind, rule in _widest(experiment.plan, names).items():
        for bits in sorted({*experiment.search.sweep.bits}, reverse=True):
            if SPANS[kind][0] <= bits < rule.bits:
                candidates.append(_candidate(experiment, names, _label(kind, rule, bits), _capped({kind: bits})))
    return [_candidate(experiment, names, BASE, _capped({})), *candidates] if candidates else []


def curves(experiment: LocalExperiment, accuracy: dict[str, float], account: MemoryAccount) -> list[Significance]:
    """The curve of every kind of tensor that was swept, the plan's width first; none where the plan is not possible."""
    names = list(dict.fromkeys(TensorPath.of(row.path).layer for row in account.rows))
    narrowed = {label: value for label, value in accuracy.items() if label != BASE}
    if BASE not in accuracy:
        return []
    swept = {label.split("|")[0] for label in narrowed}
    for kind, rule in _widest(experiment.plan, names).items():
        if f"*.{kind}" in swept:
            narrowed[_label(kind, rule, rule.bits)] = accuracy[BASE]
    rows = [
        MemoryRow(
            path=f"*.{kind}",
            role="",
            bits=0,
            count=sum(row.count for row in account.rows if row.path.endswith(f".{kind}")),
        )
        for kind in KINDS
    ]
    return significance(experiment.search.sweep, narrowed, MemoryAccount(rows=tuple(rows)))


def propose(experiment: LocalExperiment, names: list[str], significances: list[Significance]) -> list[LocalCandidate]:
    """The candidates in the order in which they are tried: plan and lean, then the widths asked for on either."""
    harmless = {curve.path.removeprefix("*."): curve.harmless_bits for curve in significances}
    asked = {name: bits for name in GROUPS if (bits := getattr(experiment.search, name))}
    combinations = [dict(zip(asked, widths, strict=True)) for widths in itertools.product(*asked.values())]
    candidates: dict[QuantPlan, LocalCandidate] = {}
    for asked_widths in [{}, *combinations] if asked else [{}]:
        widths = {kind: bits for name, bits in asked_widths.items() for kind in GROUPS[name]}
        parts = [f"{SHORT[name]}{bits}" for name, bits in asked_widths.items()]
        for level, change in ((BASE, _capped({})), ("lean", _capped(harmless))):
            candidate = _candidate(experiment, names, " ".join([*parts, level]), _set(widths, change))
            candidates.setdefault(candidate.plan, candidate)
    return list(candidates.values())


def _widest(plan: QuantPlan, names: list[str]) -> dict[str, QuantRule]:
    """By kind of tensor the rule of the layer that has most bits."""
    rules = local_rules(plan, names)
    return {kind: max((rules[f"{name}.{kind}"] for name in names), key=lambda rule: rule.bits) for kind in KINDS}


def _capped(limits: dict[str, int]) -> Change:
    """At most so many bits; what the plan has fewer of stays."""
    return lambda kind, bits: min(bits, limits.get(kind, bits))


def _set(widths: dict[str, int], otherwise: Change) -> Change:
    return lambda kind, bits: widths[kind] if kind in widths else otherwise(kind, bits)


def _label(kind: str, rule: QuantRule, bits: int) -> str:
    return f"*.{kind}|{rule.rounding.value}|{bits}"


def _candidate(experiment: LocalExperiment, names: list[str], label: str, change: Change) -> LocalCandidate:
    return LocalCandidate(plan=changed_plan(experiment.plan, names, change), seed=experiment.seed, label=label)

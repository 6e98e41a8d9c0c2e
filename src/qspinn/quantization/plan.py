"""Plan of the format of every tensor: ordered rules as plain data; the first rule that matches a tensor wins."""

from __future__ import annotations

import enum
import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import msgspec

from qspinn import former
from qspinn.arrays import need_kind
from qspinn.errors import ConfigError
from qspinn.fixedpoint import Rounding
from qspinn.networks.tensors import TensorPath
from qspinn.records.record import Record, content_key, need
from qspinn.records.words import unknown_key

WIDE_BITS = 16
SHIFT_BITS = 6
"""Of the shift between a channel's weights and its potentials, signed."""


class Granularity(enum.Enum):
    """Granularity of steps: one for the whole tensor, or one per target neuron (competing populations) or output
    channel (layers): potentials then count in it."""

    GLOBAL = "global"
    PER_NEURON = "per_neuron"
    PER_CHANNEL = "per_channel"


class Calibrator(enum.Enum):
    """Calibrator: choice of the real value of a tensor's largest code, from weights or from potentials on calibration
    data.

    MAX: the largest size. PERCENTILE: the quantile `quantile` of the sizes. MSE: what makes the mean squared error of
    quantization least. MEAN_ABS: in proportion to the mean size, 2 * mean * sqrt(largest code), for weights only
    (Esser et al. 2020 start learned steps there; rescaling by the mean size: QP-SNN, Wei et al. 2025).
    THRESHOLD: nothing but the threshold (and what a bias brings), for potentials only: the levels are spread over the
    threshold's range, whatever potentials were seen (the uniform case of SQUAT, Venkatesh et al. 2024).
    Where several values share a code's range, what lies above saturates.
    """

    MAX = "max"
    PERCENTILE = "percentile"
    MSE = "mse"
    MEAN_ABS = "mean_abs"
    THRESHOLD = "threshold"


class Levels(enum.Enum):
    """The codes that weights, and kept potentials, may have.

    UNIFORM: all of their width, symmetric about 0; of potentials, two's complement. BINARY (1 bit): -1 and +1, the sign
    of a weight, +1 for 0. TERNARY (2 bits): -1, 0 and +1; 0 where the size is below 0.7 of its mean (Li & Liu 2016).
    The step of binary and ternary codes is the mean size of the weights that are not 0, which makes the squared error
    least (Rastegari et al. 2016). Potentials may be ternary, too, in what is kept of them between steps (SpQuant,
    Hasssan et al. 2024).
    """

    UNIFORM = "uniform"
    BINARY = "binary"
    TERNARY = "ternary"


LEVEL_BITS = {Levels.BINARY: 1, Levels.TERNARY: 2}
"""The width that goes with the levels that have one of their own."""


class QuantRule(Record, frozen=True):
    """The format of the tensors whose path matches.

    Keys:
        tensor: path or shell pattern, e.g. ``"exc.w"``, ``"*.theta"``, ``"*"``.
    Format:
        bits: width 1..16. How they split into integer and fraction bits follows from the calibrated range.
        rounding: how real values, and for `v` and the traces also every step's result, are brought onto the grid.
        granularity: of the step; only weights may be PER_NEURON.
        clip: share of the largest value that the largest code stands for; what lies above saturates.
        calibrator: for weights and potentials of layers: which value counts as the largest.
        quantile: for PERCENTILE.
        levels: for weights and potentials of layers: the codes they may have.
        standardize: binary and ternary weights: the mean of each output channel is taken away first, and gradients go
            through (w - mean) / std (Wei et al. 2024, eq. 6, there per layer; per channel as in their code).
        accumulator_bits: for potentials of layers: the width in which a step decays, integrates, compares and resets;
            `bits` is then what is kept until the next step, rounded after the reset (Wei et al. 2024, eq. 10). 0: a
            step computes in `bits`.
        shared_step: for potentials of layers: the unit is the weights' step itself, no power of two above it (MINT,
            Yin et al. 2024).
        power_of_two: binary and ternary weights: the step is the nearest power of two (Qin et al. 2020).
    """

    tensor: str
    bits: int
    rounding: Rounding = Rounding.NEAREST
    granularity: Granularity = Granularity.GLOBAL
    clip: float = 1.0
    calibrator: Calibrator = Calibrator.MAX
    quantile: float = 0.99
    levels: Levels = Levels.UNIFORM
    standardize: bool = True
    power_of_two: bool = False
    accumulator_bits: int = 0
    shared_step: bool = False

    def check(self) -> None:
        need(1 <= self.bits <= 16, f"plan rule {self.tensor!r}: bits", self.bits, "1..16")
        need(0.0 < self.clip <= 1.0, f"plan rule {self.tensor!r}: clip", self.clip, "above 0, at most 1")
        need(0.0 < self.quantile <= 1.0, f"plan rule {self.tensor!r}: quantile", self.quantile, "above 0, at most 1")
        wide = self.accumulator_bits
        need(
            wide == 0 or self.bits <= wide <= 16,
            f"plan rule {self.tensor!r}: accumulator_bits",
            wide,
            f"0, or {self.bits} (the width that is kept: no shift may be negative) to 16",
        )
        if self.levels in LEVEL_BITS:
            own = LEVEL_BITS[self.levels]
            need(self.bits == own, f"plan rule {self.tensor!r}: bits", self.bits, f"{own} for {self.levels.value}")


class QuantPlan(Record, frozen=True):
    """Plan by which a network becomes integers.

    Attributes:
        rules: ordered; first match wins. A rule without a tensor and a tensor without a rule are errors. One plan
            serves learning and inference: a rule of a trace (`x_pre`, `x_post`) counts while learning alone, one of
            `theta` changes nothing where thresholds are folded.
        fold_theta: store v_th + theta as one tensor of thresholds (possible once learning is over), in the format of
            v_th.
        keep_sum: after rounding, choose each neuron's unit so that the sum of its weights is what it was
            (of PER_NEURON weights, in integers this only moves the thresholds; GLOBAL weights have one step, and it
            changes nothing for them).
        min_input_rate: inputs that spike less often than this (per step, on the calibration data) are left out.
    """

    rules: tuple[QuantRule, ...]
    fold_theta: bool = False
    keep_sum: bool = True
    min_input_rate: float = 0.0
    version: int = 1

    def check(self) -> None:
        need(0.0 <= self.min_input_rate < 1.0, "plan.min_input_rate", self.min_input_rate, "0 <= rate < 1")
        if self.version != 1:
            raise ConfigError("plan.version", "unknown version", got=self.version, allowed="1")

    def key(self) -> str:
        """Content key (sha256, hex) of the plan."""
        return content_key(self)


def chosen_rules(
    plan: QuantPlan,
    paths: list[str],
    known: list[str],
    finer: Granularity,
    *,
    keys: Callable[[str, QuantRule], frozenset[str]] | None = None,
) -> dict[str, QuantRule]:
    """The first rule that matches, for every path; see `matches`.

    Args:
        known: further paths that rules may speak of.
        finer: the granularity other than GLOBAL that weights of this network may have.
        keys: the keys of a rule that mean something for a path; by default those of competing populations or of layers.

    Raises:
        ConfigError: a rule matches no tensor (the nearest path is named), or changes nothing because earlier rules
            cover all its tensors; a tensor is matched by no rule; a key is set that no tensor of its rule uses.
    """
    need_kind("plan", plan, QuantPlan)
    for i, rule in enumerate(plan.rules):
        if not any(matches(rule.tensor, path) for path in known):
            raise unknown_key(f"plan.rules[{i}].tensor", rule.tensor, known)
    winners = {
        path: next((i for i, r in enumerate(plan.rules) if matches(r.tensor, path)), None)
        for path in dict.fromkeys([*paths, *known])
    }
    chosen: dict[str, QuantRule] = {}
    for path in paths:
        if winners[path] is None:
            raise ConfigError(
                f"plan: {path}", "no rule matches this tensor", fix=f"add a rule for {path!r}, or a last rule for '*'"
            )
        chosen[path] = rule = plan.rules[winners[path] or 0]
        possible = {Granularity.GLOBAL, finer} if TensorPath.of(path).is_weight else {Granularity.GLOBAL}
        if rule.granularity not in possible:
            what = "neuron" if finer is Granularity.PER_NEURON else "channel"
            raise ConfigError(
                f"plan: {path}",
                f"only weights can have a step per {what}",
                got=rule.tensor,
                fix="use granularity = 'global' here; potentials and thresholds follow the weights' unit",
            )
    _check_calibrators(chosen, finer)
    _check_effect(plan, winners, keys or (_competing_keys if finer is Granularity.PER_NEURON else _layer_keys))
    return chosen


def need_no_options(plan: QuantPlan, what: str) -> None:
    """Refuses options that only competing populations have.

    Raises:
        ConfigError: names the option.
    """
    need_kind("plan", plan, QuantPlan)
    for option in ("fold_theta", "keep_sum", "min_input_rate"):
        if getattr(plan, option) != getattr(QuantPlan(rules=()), option):
            raise ConfigError(
                f"plan.{option}",
                "is for competing populations only",
                got=getattr(plan, option),
                fix=f"leave it out in plans for {what}",
            )


@functools.lru_cache(maxsize=4096)
def matches(pattern: str, path: str) -> bool:
    """Whether a rule for `pattern` speaks of a path. A pattern that ends in `.w` means all weights of a layer: `a.w`
    also where several connections feed it and each has a path of its own (`a.w_b`)."""
    own = TensorPath.of(path)
    return fnmatch.fnmatchcase(path, pattern) or (
        own.is_weight
        and bool(own.source)
        and TensorPath.of(pattern).name == "w"
        and fnmatch.fnmatchcase(f"{own.layer}.w", pattern)
    )


@functools.cache
def _rule_defaults() -> dict[str, Any]:
    """The keys of a rule that need not be given, and what they are then."""
    return {f.name: f.default for f in msgspec.structs.fields(QuantRule) if not f.required}


def _check_effect(
    plan: QuantPlan, winners: dict[str, int | None], keys: Callable[[str, QuantRule], frozenset[str]]
) -> None:
    """Every rule decides about a tensor, and every key that is set decides something about one of them.

    Raises:
        ConfigError: names the rule and the key.
    """
    defaults = _rule_defaults()
    for i, rule in enumerate(plan.rules):
        own = [path for path, winner in winners.items() if winner == i]
        if not own:
            earlier = sorted(
                {plan.rules[w].tensor for path, w in winners.items() if w is not None and matches(rule.tensor, path)}
            )
            raise ConfigError(
                f"plan.rules[{i}]",
                "changes nothing: earlier rules cover every tensor that it matches",
                got=rule.tensor,
                allowed="a tensor is given by the first rule that matches it",
                fix=f"move it before {', '.join(map(repr, earlier))}, or remove it",
            )
        used = frozenset().union(*(keys(path, rule) for path in own))
        for key, default in defaults.items():
            if getattr(rule, key) != default and key not in used:
                raise ConfigError(
                    f"plan.rules[{i}].{key}",
                    f"changes nothing for {rule.tensor!r}",
                    got=getattr(rule, key),
                    allowed=", ".join(sorted(used)) or "bits alone",
                    fix=_EFFECTS.get(key, "remove it"),
                )


_EFFECTS = {
    "quantile": 'calibrator = "percentile", or remove it',
    "clip": "remove it, or move it to a rule for weights",
    "power_of_two": 'levels = "binary" or "ternary", or remove it',
    "standardize": 'levels = "binary" or "ternary", or remove it',
}
"""What to do about a key that decides nothing."""


def _competing_keys(path: str, rule: QuantRule) -> frozenset[str]:
    """The keys that mean something for a tensor of competing populations."""
    kind = TensorPath.of(path).kind
    return frozenset({"rounding"} | {"w": {"granularity", "clip"}, "votes": {"clip"}}.get(kind, set()))


def _layer_keys(path: str, rule: QuantRule) -> frozenset[str]:
    """The keys that mean something for a tensor of layers, given the others. Every rule may have a rounding: plans
    round everything alike, where there is anything to round."""
    tensor = TensorPath.of(path)
    quantile = {"quantile"} if rule.calibrator is Calibrator.PERCENTILE else set()
    if tensor.is_weight:
        by_range, by_mean = {"clip", "calibrator", *quantile}, {"standardize", "power_of_two"}
        more = by_range if rule.levels is Levels.UNIFORM else by_mean
        return frozenset({"rounding", "granularity", "levels", *more})
    if tensor.kind == "v":
        clip = set() if rule.calibrator is Calibrator.THRESHOLD else {"clip"}
        return frozenset({"rounding", "calibrator", "levels", "accumulator_bits", "shared_step", *clip, *quantile})
    return frozenset({"rounding", "clip"} if tensor.kind == "skip" else {"rounding"})


def _check_calibrators(chosen: dict[str, QuantRule], finer: Granularity) -> None:
    """Calibrators are asked for only where they mean something.

    Raises:
        ConfigError: names the tensor.
    """
    for path, rule in chosen.items():
        kind = TensorPath.of(path).kind
        known = {"w": set(Calibrator) - {Calibrator.THRESHOLD}, "v": set(Calibrator) - {Calibrator.MEAN_ABS}}.get(
            kind, {Calibrator.MAX}
        )
        if finer is Granularity.PER_NEURON:
            known = {Calibrator.MAX}
        _check_levels(path, rule, "" if finer is Granularity.PER_NEURON else kind)
        if rule.calibrator not in known:
            raise ConfigError(
                f"plan: {path}",
                "this calibrator does not apply here",
                got=rule.calibrator.value,
                allowed=", ".join(sorted(c.value for c in known)),
                fix="calibrators are for weights (w) and potentials (v) of layers",
            )


def _check_levels(path: str, rule: QuantRule, kind: str) -> None:
    """Levels, accumulators and shared steps are asked for only where there are any.

    Args:
        kind: of a layer's tensor; empty for competing populations.
    """
    allowed = {"w": set(Levels), "v": {Levels.UNIFORM, Levels.TERNARY}}.get(kind, {Levels.UNIFORM})
    if rule.levels not in allowed:
        raise ConfigError(
            f"plan: {path}",
            "these levels do not apply here",
            got=rule.levels.value,
            allowed=", ".join(sorted(x.value for x in allowed)),
            fix="binary and ternary levels are for weights (w) of layers, ternary for potentials (v) too",
        )
    if (rule.accumulator_bits or rule.shared_step) and kind != "v":
        raise ConfigError(
            f"plan: {path}",
            "has no accumulator and no step to share",
            got=rule.tensor,
            allowed="potentials (v) of layers",
            fix="leave out accumulator_bits and shared_step here",
        )


def with_rule(plan: QuantPlan, rule: QuantRule) -> QuantPlan:
    """The plan with one more rule in front, so that it wins; rules that only repeat its tensors are replaced by it."""
    plain = not set(rule.tensor) & set("?[")
    rest = tuple(r for r in plan.rules if not (r.tensor == rule.tensor or (plain and matches(rule.tensor, r.tensor))))
    return QuantPlan(
        rules=(rule, *rest), fold_theta=plan.fold_theta, keep_sum=plan.keep_sum, min_input_rate=plan.min_input_rate
    )


__getattr__ = former.names_of(__name__)

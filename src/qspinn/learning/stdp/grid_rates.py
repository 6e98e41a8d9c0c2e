"""The learning constants of STDP on the grid as codes, and the proof that they still mean what was declared.

A rate is a code of at most 8 bits over a power of two. A constant that this cannot hold within a third is refused, and
so is a rate under which no update could ever change a code: both would train something else than the declared rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from qspinn.errors import ConfigError, LoweringError
from qspinn.fixedpoint import Rounding, requantize
from qspinn.networks.competing import Population, Stdp
from qspinn.quantization.plan import QuantRule

RATE_MAX = 255
MOST_SHIFT = 31
THETA_SHIFT = 16
"""Bits below a theta code in which theta_plus counts."""
LEAST = 0.75
"""The smallest value that is nearest to code 1 within a third; a smaller one would grow, or vanish below 1/2."""
WIDEST = 16


class Rates(NamedTuple):
    """The constants of one pass as codes, and what they were made from.

    Attributes:
        post, pre, shift: learning rates, code / 2**shift per trace code and share of the weights' range.
        fine: bits below a trace code in which traces count; offset: x_offset in these.
        theta: theta_plus in 1 / 2**THETA_SHIFT of a theta code.
        full: (largest presynaptic, largest postsynaptic) trace in fine codes.
    """

    post: int
    pre: int
    shift: int
    fine: int
    offset: int
    theta: int
    full: tuple[int, int]
    name: str
    stdp: Stdp
    theta_plus_mv: float
    rules: Mapping[str, QuantRule]


def rates_of(
    population: Population,
    stdp: Stdp,
    factor: float,
    *,
    reach: float,
    tops: tuple[int, int],
    rules: Mapping[str, QuantRule],
    theta_delta: float,
) -> Rates:
    """The codes of a pass.

    Args:
        factor: of annealing, on rates and theta_plus.
        reach: what weights are a share of. tops: largest code of the pre- and the postsynaptic trace.
        rules: of w, theta and x_pre.
        theta_delta: mV of one theta code.

    Raises:
        LoweringError: a constant vanishes or grows; named with what would fit.
    """
    fine = max(0, 8 - rules["x_pre"].bits)
    unit_post, unit_pre = ((1 << fine) * top / factor for top in tops)
    where = f"network.{population.name}.stdp"
    post, pre, shift = learning_rate_codes(
        stdp.eta_post / unit_post / reach,
        stdp.eta_pre / unit_pre / reach,
        units=(unit_post * reach, unit_pre * reach),
        where=where,
    )
    theta = _theta_code(population, factor, theta_delta, rules["theta"])
    exact = stdp.x_offset * tops[0] * (1 << fine)
    if 0 < exact < LEAST:
        raise LoweringError(
            f"{where}.x_offset",
            "vanishes: it is less than one step of the trace",
            got=stdp.x_offset,
            allowed=f"0, or at least {_up(LEAST / (tops[0] << fine))}",
            fix=f"more bits for {population.name}.x_pre",
        )
    return Rates(
        post,
        pre,
        shift,
        fine,
        round(exact),
        theta,
        (tops[0] << fine, tops[1] << fine),
        population.name,
        stdp,
        population.neuron.theta_plus_mv * factor,
        rules,
    )


def learning_rate_codes(
    post: float, pre: float, *, units: tuple[float, float] = (1.0, 1.0), where: str = "network.stdp"
) -> tuple[int, int, int]:
    """Codes e_post, e_pre and shift with e / 2**shift nearest to the rates; the larger one has 8 bits, shift is at most
    31.

    Args:
        units: what the declared rates were divided by, for the error. where: path of the rule, for the error.

    Raises:
        ConfigError: a rate is negative or not finite.
        LoweringError: a rate is too small beside the other, or at all, to be within a third of its code; or too large.
    """
    rates = {"eta_post": post, "eta_pre": pre}
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise ConfigError(f"{where}.{name}", "is no rate", got=rate, allowed="0 or more, finite")
    largest = max(post, pre)
    if largest <= 0:
        return 0, 0, 0
    headroom = math.log2(RATE_MAX) - math.log2(largest)
    shift = max(0, min(MOST_SHIFT, math.floor(headroom)))
    if largest * 2.0**shift > RATE_MAX + 0.5:
        name = "eta_post" if post >= pre else "eta_pre"
        unit = units[0] if post >= pre else units[1]
        raise LoweringError(
            f"{where}.{name}",
            "is too large for its 8 bits",
            got=_declared(largest, unit),
            allowed=f"at most {RATE_MAX * unit:.3g}",
        )
    for (name, rate), unit in zip(rates.items(), units, strict=True):
        if 0 < rate * 2.0**shift < LEAST:
            beside = "" if rate == largest else f" beside {'eta_pre' if name == 'eta_post' else 'eta_post'}"
            raise LoweringError(
                f"{where}.{name}",
                f"vanishes on the grid{beside}: it is less than one unit of 2**-{shift}",
                got=_declared(rate, unit),
                allowed=f"0, or at least {_up(LEAST * 2.0**-shift * unit)}",
                fix="a larger rate, or 0" if not beside else "rates that differ less, or 0",
            )
    return round(post * 2.0**shift), round(pre * 2.0**shift), shift


def _declared(rate: float, unit: float) -> float:
    """A rate as it was declared, without the last digits of two divisions."""
    return float(f"{rate * unit:.12g}")


def _up(x: float) -> str:
    """Three digits of a lower limit, rounded up: what is shown is large enough."""
    digits = 2 - math.floor(math.log10(x))
    return f"{math.ceil(round(x * 10.0**digits, 6)) / 10.0**digits:.3g}"


def _theta_code(population: Population, factor: float, delta: float, rule: QuantRule) -> int:
    """theta_plus in 1 / 2**THETA_SHIFT of a theta code.

    Raises:
        LoweringError: one spike would raise the threshold beyond what theta can hold.
    """
    exact = population.neuron.theta_plus_mv * factor / delta * (1 << THETA_SHIFT)
    top = (1 << rule.bits) - 1
    if exact > top << THETA_SHIFT:
        raise LoweringError(
            f"network.{population.name}.neuron.theta_plus_mv",
            "is more than theta can hold",
            got=population.neuron.theta_plus_mv,
            allowed=f"at most {top * delta:.3g} mV",
        )
    return round(exact)


def need_constants(rates: Rates, learn_weights: bool) -> None:
    """Checks that spikes can change weights and thresholds, at the largest that an update can be.

    Raises:
        LoweringError: an update would always be rounded to nothing; says from which value or width on it is not.
    """
    if learn_weights:
        _need_weights(rates)
    if rates.theta_plus_mv > 0:
        _need_theta(rates)


def _need_weights(rates: Rates) -> None:
    """Every learning rate that is not 0 can change a weight."""
    rule, stdp = rates.rules["w"], rates.stdp
    rise = rates.post * max(0, rates.full[0] - rates.offset)
    largest = {"eta_post": rise or -rates.post * rates.offset, "eta_pre": -rates.pre * rates.full[1]}
    for name, per_code in largest.items():
        if per_code == 0 or _changes(per_code * ((1 << rule.bits) - 1), rates.shift, rule.rounding):
            continue
        declared = getattr(stdp, name)
        in_codes = abs(per_code) * ((1 << rule.bits) - 1) / 2.0**rates.shift
        needed = 0.5 if rule.rounding is Rounding.NEAREST else 1.0
        wide = next(
            (
                n
                for n in range(rule.bits + 1, WIDEST + 1)
                if _changes(per_code * ((1 << n) - 1), rates.shift, rule.rounding)
            ),
            None,
        )
        fix = f"{f'{wide} bits or more for {rates.name}.w, ' if wide else ''}a larger {name}, or stochastic rounding"
        raise LoweringError(
            f"network.{rates.name}.stdp.{name}",
            "can never change a weight: every update is rounded to nothing",
            got=f"{declared:g} on {rule.bits} bits rounded {rule.rounding.value}",
            allowed=f"0, or at least {_up(declared * needed / in_codes)}",
            fix=fix,
        )


def _need_theta(rates: Rates) -> None:
    """A spike can raise a threshold."""
    rule = rates.rules["theta"]
    stochastic = rule.rounding is Rounding.STOCHASTIC
    if rates.theta > 0 if stochastic else _changes(rates.theta, THETA_SHIFT, rule.rounding):
        return
    needed = {Rounding.NEAREST: 0.5, Rounding.STOCHASTIC: LEAST / (1 << THETA_SHIFT)}.get(rule.rounding, 1.0)
    raise LoweringError(
        f"network.{rates.name}.neuron.theta_plus_mv",
        "can never raise a threshold: it is rounded to nothing",
        got=f"{rates.theta_plus_mv:g} mV on {rule.bits} bits rounded {rule.rounding.value}",
        allowed=f"0, or at least {needed:g} of a step of theta",
        fix=f"more bits for {rates.name}.theta, a larger theta_plus_mv"
        + ("" if stochastic else ", or stochastic rounding"),
    )


def _changes(update: int, shift: int, rounding: Rounding) -> bool:
    """Whether an update, in 1 / 2**shift of a code, can change a code."""
    if rounding is Rounding.STOCHASTIC:
        return update != 0
    rounded: Any = requantize(update, shift, rounding)
    return bool(rounded != 0)

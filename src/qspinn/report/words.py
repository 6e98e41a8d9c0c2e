"""The numbers as text: sizes, factors, points, the headline and what the interval allows to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from qspinn.exploration.outcome import Outcome, reasons
from qspinn.exploration.reward import Reward
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.statistics import Difference
from qspinn.fixedpoint import Rounding
from qspinn.quantization.plan import Granularity
from qspinn.report.source import FloatNetwork, Point, Source

SCHEMES = {Scheme.PTQ: "PTQ", Scheme.PTQ_ADAPT: "PTQ + adapt", Scheme.ITQ: "ITQ"}
ROUNDINGS = {
    Rounding.TRUNCATE: "truncate",
    Rounding.NEAREST: "nearest",
    Rounding.STOCHASTIC: "stochastic",
    Rounding.TOWARD_ZERO: "toward zero",
}
GRANULARITIES = {
    Granularity.GLOBAL: "one step for all weights",
    Granularity.PER_NEURON: "a step per neuron",
    Granularity.PER_CHANNEL: "a step per channel",
}


SWEPT = "One tensor at a time is narrowed while all others stay at 16 bit."


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict of the interval on the target: a badge (`met`, `open` or `missed`), its words, and the sentences."""

    kind: str
    badge: str
    text: str


def count_text(n: int) -> str:
    """A whole number with thousands separated: 12,345."""
    return f"{n:,}"


def size_text(bits: float) -> str:
    """A size in bytes (1 kB = 1000 bytes) with three digits; below 100 bytes with its bits: 30.8 kB, 4 B, 3 bit."""
    size = bits / 8
    if size < 1:
        return f"{bits:g} bit"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale * 0.9995:
            return f"{three(size / scale)} {unit}"
    return f"{three(size)} B"


def three(x: float) -> str:
    """Three significant digits without exponent: 1.28, 54.1, 3,581."""
    if x == 0:
        return "0"
    digits = max(0, 2 - _order(x))
    text = f"{x:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text and x == int(x) else text


def _order(x: float) -> int:
    """Exponent of the leading digit after rounding to three digits."""
    return int(f"{abs(x):.2e}".partition("e")[2])


def factor_text(float_bits: int, bits: int) -> str:
    """Factor by which something is smaller: 54.1×."""
    return f"{three(float_bits / bits)}×"


def signed(points: float) -> str:
    """Points with their sign, to hundredths; nothing that rounds to zero has one: +0.30, −0.62, 0.00."""
    text = f"{abs(points):.2f}"
    if float(text) == 0:
        return text
    return ("+" if points > 0 else "−") + text


def percent(share: float, digits: int = 2) -> str:
    """A share in 0..1 as percent: 79.67 %."""
    return f"{share * 100:.{digits}f} %"


def points_text(points: float) -> str:
    """An amount of points with its noun: 1 point, 0.5 points."""
    return f"{points:g} point{'' if points == 1 else 's'}"


def headline(source: Source) -> dict[str, str]:
    """The parts of the one sentence: sizes, factor, accuracy difference on test and its interval."""
    o, d = source.outcome, source.outcome.test_difference
    return {
        "before": size_text(o.float_bits),
        "after": size_text(source.winner.bits),
        "factor": factor_text(o.float_bits, source.winner.bits),
        "points": signed(d.points),
        "low": signed(d.low),
        "high": signed(d.high),
    }


def verdict(d: Difference, n_test: int, allowed: float, noun: str = "images") -> Verdict:
    """Verdict of the 95 % interval of the test difference on a loss of at most `allowed` points."""
    n = f"{count_text(n_test)} test {noun}"
    target, span = f"The target allows a loss of {points_text(allowed)}", f"({signed(d.low)} … {signed(d.high)})"
    if d.low >= -allowed:
        text = f"{target}; the whole interval {span} lies within it. "
        text += (
            "It also lies above zero: on test the integer network is better than float."
            if d.low > 0
            else _about_zero(d.high)
        )
        return Verdict(kind="met", badge="Within the target", text=text)
    if d.high < -allowed:
        return Verdict(
            kind="missed",
            badge="Target missed on test",
            text=f"{target}, but even the favourable end of the interval {span} loses more.",
        )
    side = "is within the target" if d.points >= -allowed else "is larger than that"
    text = f"{target}. The measured difference of {signed(d.points)} points {side}, but the interval {span} reaches "
    text += f"across it: with {n}, neither meeting nor missing the target is shown."
    return Verdict(kind="open", badge="Not decided by this test set", text=text)


def _about_zero(high: float) -> str:
    if high < 0:
        return "It lies below zero: a small loss is certain, and it is small enough."
    return "It contains zero: no difference from float is shown in either direction."


def reward_text(reward: Reward, p: Point, source: Source) -> tuple[str, str]:
    """The formula of the reward, and the same with the winner's numbers."""
    o = source.outcome
    if reward.form == "additive":
        return (
            f"R = A − μ · M / M₀, μ = {reward.mu:g}",
            f"{p.accuracy:.4f} − {reward.mu:g} · {count_text(p.bits)} / {count_text(o.float_bits)} = {p.reward:.4f}",
        )
    lost = max(0.0, o.float_validation - p.accuracy)
    return (
        f"R = (M₀ / M) · exp(−max(0, A₀ − A) / s), s = {reward.softness:g}",
        f"{o.float_bits / p.bits:.2f} · exp(−{lost:.4f} / {reward.softness:g}) = {p.reward:.4f}",
    )


def rejections(o: Outcome) -> list[tuple[str, int]]:
    """Reasons for which candidates were not measured, with how many each."""
    return reasons(o.rejected)


def shared_text(shared: Mapping[str, int], noun: str) -> str:
    """Warning on results of splits that share samples; empty where they share none."""
    if not shared:
        return ""
    pairs = ", ".join(f"{pair} share {count_text(n)}" for pair, n in shared.items())
    return (
        f"The splits are not independent: {pairs} {noun}, as the data set allows. Accuracies on them "
        "say less than they seem to."
    )


def width_text(bits: Sequence[int]) -> str:
    """Width, or the smallest to the largest: 4‑bit, 4‑ to 8‑bit."""
    low, high = min(bits), max(bits)
    return f"{low}‑bit" if low == high else f"{low}‑ to {high}‑bit"


def float_text(f: FloatNetwork) -> str:
    """Accuracy of a float network trained by gradients or locally, and its training, in a sentence."""
    return f"{percent(f.accuracy)} on validation, {f.epochs} epochs, trained in {duration_text(f.seconds)}"


def duration_text(seconds: float) -> str:
    """A duration: 47.7 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

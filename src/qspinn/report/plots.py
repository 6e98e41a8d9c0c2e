"""The figures as inline SVG: front, precision curves, memory. Pure functions on points and curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
from markupsafe import Markup

from qspinn.exploration.names import readable_name
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.sensitivity import Significance
from qspinn.fixedpoint import Rounding
from qspinn.memory import MemoryRow
from qspinn.report import svg
from qspinn.report.source import Point, Source
from qspinn.report.svg import Scale
from qspinn.report.words import ROUNDINGS, SCHEMES, count_text, factor_text, percent, size_text

WIDE, NARROW = 1040, 380


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy (shares) over bits under one rounding, with a tip for each point.

    Attributes:
        ring: the bits that get a ring; 0 for none.
    """

    rounding: Rounding
    bits: tuple[int, ...]
    accuracy: tuple[float, ...]
    tips: tuple[str, ...]
    ring: int = 0


def tip_of(p: Point, float_bits: int) -> str:
    """Text that is shown when a candidate is pointed at."""
    return (
        f"{p.label}\n{readable_name(p.label)}\n"
        f"{percent(p.accuracy)} on validation\n{size_text(p.bits)} ({count_text(p.bits)} bit), "
        f"{factor_text(float_bits, p.bits)} smaller"
    )


# --- Pareto front -----------------------------------------------------------------------------------------------------


def visible_floor(source: Source) -> float:
    """The accuracy (share) at the lower edge of the front's plot: far enough under the target to judge it."""
    o, drop = source.outcome, source.experiment.search.max_drop_points / 100
    front = [p.accuracy for p in source.points if p.admitted] + [o.float_validation]
    floor = o.float_validation - max(0.05, 4 * drop, 0.75 * (max(front) - o.float_validation))
    lowest = min(o.float_validation - drop, *(p.accuracy for p in source.points))
    return max(0.0, min(min(front), floor), lowest - 0.01)


def pareto(source: Source, width: int) -> Markup:
    """Memory reduction (log) against validation accuracy: every candidate, the front, winner, baseline and target."""
    o, height = source.outcome, 540 if width > 600 else 460
    floor, top = visible_floor(source), max(o.float_validation, *(p.accuracy for p in source.points))
    most = max(o.float_bits / p.bits for p in source.points)
    margin = 58 if width > 600 else 46
    x = Scale(
        low=min(0.88, o.float_bits / max(p.bits for p in source.points)),
        high=most * 1.12,
        start=margin,
        end=width - 14,
        log=True,
    )
    y = Scale(low=floor, high=top + 0.06 * max(top - floor, 0.05), start=height - 50, end=46)
    target = o.float_validation - source.experiment.search.max_drop_points / 100
    frame = _axes(
        x,
        y,
        svg.log_ticks(x.low, x.high),
        "memory, times smaller than float",
        lambda v: f"{v:g}×",
        "accuracy on validation",
    )
    marks = sorted(source.points, key=lambda p: (p.on_front, p.key))
    content = [
        frame,
        _limit(x, y, target, f"target {percent(target)}"),
        _front(source, x, y),
        *(_candidate(p, o.float_bits, x, y) for p in marks),
        *_landmarks(source, x, y),
    ]
    return svg.picture(width, height, "Accuracy on validation over memory reduction, one mark per candidate", *content)


def _candidate(p: Point, float_bits: int, x: Scale, y: Scale) -> Markup:
    below = p.accuracy < y.low
    kind = "on-front" if p.on_front else "below" if below else "off-front"
    return svg.mark(
        p.weights.rounding.value,
        x.at(float_bits / p.bits),
        y.at(max(p.accuracy, y.low)),
        f"mark s-{p.candidate.scheme.value} {kind}",
        tip_of(p, float_bits),
    )


def _front(source: Source, x: Scale, y: Scale) -> Markup:
    """The best accuracy to be had at each reduction or more, as a step line."""
    front = sorted((p for p in source.points if p.on_front), key=lambda p: -p.bits)
    place, corner = x.start, []
    for p in front:
        height = y.at(max(p.accuracy, y.low))
        corner += [(place, height), (x.at(source.outcome.float_bits / p.bits), height)]
        place = corner[-1][0]
    return svg.path([*corner, (place, y.start)], "front") if corner else Markup("")


def _landmarks(source: Source, x: Scale, y: Scale) -> list[Markup]:
    """Float baseline and winner with their names."""
    o, w = source.outcome, source.winner
    x_float, y_float = x.at(1.0), y.at(o.float_validation)
    float_tip = (
        f"float baseline\n{percent(o.float_validation)} on validation\n"
        f"{size_text(o.float_bits)} ({count_text(o.float_bits)} bit)"
    )
    x_win, y_win = x.at(o.float_bits / w.bits), y.at(w.accuracy)
    numbers = [percent(w.accuracy), factor_text(o.float_bits, w.bits)]
    lines = ["winner " + ", ".join(numbers)] if x.end - x_win > 190 else ["winner", *numbers]
    beside = x.end - x_win > 68  # above and right of the winner there is nothing, or it would not be on the front
    return [
        svg.mark("nearest", x_float, y_float, "baseline", float_tip),
        svg.text(x_float + 10, y_float - 8, f"float {percent(o.float_validation)}", "strong halo"),
        svg.mark("winner", x_win, y_win, "winner", "winner: " + tip_of(w, o.float_bits)),
        *(
            svg.text(
                x_win + (11 if beside else 8),
                y_win - (9 if beside else 18) - 16 * i,
                name,
                "strong halo",
                "start" if beside else "end",
            )
            for i, name in enumerate(reversed(lines))
        ),
    ]


def _limit(x: Scale, y: Scale, value: float, name: str) -> Markup:
    return svg.line(x.start, y.at(value), x.end, y.at(value), "target") + svg.text(
        x.start + 5, y.at(value) + 16, name, "small halo"
    )


def _axes(x: Scale, y: Scale, x_ticks: Iterable[float], x_name: str, show: object, y_name: str) -> Markup:
    """Grid lines with numbers, and the names of both axes; y is a share shown in percent."""
    parts = []
    for v in svg.nice_ticks(y.low, y.high, 6 if y.start > 300 else 5):
        parts.append(svg.line(x.start, y.at(v), x.end, y.at(v), "grid"))
        parts.append(svg.text(x.start - 7, y.at(v) + 4, f"{v * 100:g}", "tick", "end"))
    free_from = -math.inf
    for v in x_ticks:
        parts.append(svg.line(x.at(v), y.start, x.at(v), y.start + 5, "grid"))
        if abs(x.at(v) - free_from) > 26:
            parts.append(svg.text(x.at(v), y.start + 19, show(v), "tick", "middle"))  # type: ignore[operator]
            free_from = x.at(v)
    parts.append(svg.text((x.start + x.end) / 2, y.start + 40, x_name, "axis", "middle"))
    middle = (y.start + y.end) / 2
    parts.append(
        svg.tag(
            "text",
            f"{y_name} [%]",
            class_="axis",
            text_anchor="middle",
            transform=f"translate(13 {middle:.0f}) rotate(-90)",
        )
    )
    return svg.join(parts)


# --- accuracy over bits -----------------------------------------------------------------------------------------------


def panel(
    title: str, series: list[Series], limits: tuple[float, float], lines: dict[str, float], x_name: str
) -> Markup:
    """One small plot of accuracy over bits (log), a line for each rounding; `lines` are class name → level (share)."""
    width, height = 340, 250
    widths = sorted({b for s in series for b in s.bits})
    x = Scale(low=min(widths) / 1.15, high=max(*widths, 2) * 1.15, start=50, end=width - 8, log=True)
    y = Scale(low=limits[0], high=limits[1], start=height - 48, end=8)
    ticks = [t for t in (1, 2, 4, 8, 16) if x.low <= t <= x.high]
    content = [_axes(x, y, ticks, x_name, lambda v: f"{v:g}", "accuracy")]
    content += [svg.line(x.start, y.at(v), x.end, y.at(v), name) for name, v in lines.items() if y.low <= v <= y.high]
    content += [_curve(s, x, y) for s in series]
    return svg.picture(width, height, f"Accuracy over bits: {title}", *content)


def _curve(s: Series, x: Scale, y: Scale) -> Markup:
    places = [(x.at(b), y.at(a)) for b, a in zip(s.bits, s.accuracy, strict=True)]
    name = s.rounding.value
    rings = [
        svg.tag("circle", cx=px, cy=py, r=8.5, class_=f"ring r-{name}")
        for b, (px, py) in zip(s.bits, places, strict=True)
        if b == s.ring
    ]
    marks = [svg.mark(name, px, py, f"mark r-{name}", tip) for (px, py), tip in zip(places, s.tips, strict=True)]
    return svg.path(places, f"curve r-{name}") + svg.join(rings) + svg.join(marks)


def limits_of(accuracies: Iterable[float]) -> tuple[float, float]:
    """Limits of an accuracy axis that hold all values, on multiples of 5 points."""
    values = list(accuracies)
    low, high = math.floor(min(values) * 20) / 20, math.ceil(max(values) * 20) / 20
    return max(0.0, low - 0.02), min(1.02, max(high, low + 0.05) + 0.02)


def significance_panels(curves: Sequence[Significance], float_accuracy: float) -> list[tuple[str, Markup]]:
    """A plot for each tensor, the most significant first, with rings at the harmless widths."""
    limits = limits_of([a for c in curves for a in c.accuracy] + [float_accuracy])
    panels = []
    for path in dict.fromkeys(c.path for c in curves):
        series = [
            Series(
                rounding=c.rounding,
                bits=c.bits,
                accuracy=c.accuracy,
                ring=c.harmless_bits,
                tips=tuple(
                    f"{path}, {b} bit, {ROUNDINGS[c.rounding]}\n{percent(a)} on validation"
                    + ("\nsmallest harmless width" if b == c.harmless_bits else "")
                    for b, a in zip(c.bits, c.accuracy, strict=True)
                ),
            )
            for c in curves
            if c.path == path
        ]
        panels.append((path, panel(path, series, limits, {"baseline-line": float_accuracy}, "bits of this tensor")))
    return panels


def best_by_bits(points: Iterable[Point], scheme: Scheme, rounding: Rounding) -> dict[int, Point]:
    """The most accurate candidate for each weight width, of the cheapest ones the first; widths ascending."""
    best: dict[int, Point] = {}
    for p in sorted(points, key=lambda p: (-p.accuracy, p.bits, p.key)):
        if p.candidate.scheme is scheme and p.weights.rounding is rounding:
            best.setdefault(p.weights.bits, p)
    return dict(sorted(best.items()))


def precision_panels(source: Source) -> list[tuple[str, Markup]]:
    """A plot for each scheme: the best accuracy for each weight width and rounding."""
    o = source.outcome
    target = o.float_validation - source.experiment.search.max_drop_points / 100
    best_of = {(s, r): best_by_bits(source.points, s, r) for s in Scheme for r in Rounding}
    limits = limits_of([p.accuracy for best in best_of.values() for p in best.values()] + [o.float_validation, target])
    panels = []
    for scheme in Scheme:
        series = [
            Series(
                rounding=r,
                bits=tuple(best),
                accuracy=tuple(p.accuracy for p in best.values()),
                tips=tuple(tip_of(p, o.float_bits) for p in best.values()),
            )
            for (s, r), best in best_of.items()
            if s is scheme and best
        ]
        if series:
            lines = {"baseline-line": o.float_validation, "target": target}
            panels.append((SCHEMES[scheme], panel(SCHEMES[scheme], series, limits, lines, "bits of the weights")))
    return panels


# --- memory -----------------------------------------------------------------------------------------------------------


def merged(
    before: Iterable[MemoryRow], after: Iterable[MemoryRow]
) -> list[tuple[str, str, MemoryRow | None, MemoryRow | None]]:
    """Rows (path, role, float row, winner row) of every tensor that either has, the largest first."""
    old, new = {r.path: r for r in before}, {r.path: r for r in after}
    rows = [(p, (new.get(p) or old[p]).role, old.get(p), new.get(p)) for p in {**old, **new}]
    return sorted(rows, key=lambda r: (-max(m.total_bits for m in r[2:] if m), r[0]))


def memory(source: Source, width: int) -> Markup:
    """Bits of each tensor before and after on a log axis, joined by a line."""
    rows = [
        (path, a.total_bits if a else 0, b.total_bits if b else 0)
        for path, _, a, b in merged(source.float_memory, source.winner.memory)
    ]
    rows = [("total", source.outcome.float_bits, source.winner.bits), *rows]
    step, margin = 30, 128
    height = step * len(rows) + 52
    x = Scale(low=0.75, high=max(max(a, b) for _, a, b in rows) * 1.6, start=margin, end=width - 16, log=True)
    content = [_size_axis(x, height - 40)]
    for i, (path, a, b) in enumerate(rows):
        content.append(_dumbbell(path, a, b, x, step * i + step / 2 + 4))
    return svg.picture(width, height, "Memory of each tensor, float and winner, logarithmic", *content)


def _dumbbell(path: str, before: int, after: int, x: Scale, y: float) -> Markup:
    parts = [svg.text(x.start - 12, y + 4, path, "strong" if path == "total" else "row", "end")]
    if before and after:
        parts.append(svg.line(x.at(before), y, x.at(after), y, "link"))
    for name, bits, class_ in (("float", before, "dot-float"), ("winner", after, "dot-winner")):
        if bits:
            tip = f"{path}, {name}\n{size_text(bits)} ({count_text(bits)} bit)"
            parts.append(svg.tag("circle", cx=x.at(bits), cy=float(y), r=6.5, class_=class_, data_tip=tip))
    return svg.join(parts)


def _size_axis(x: Scale, bottom: float) -> Markup:
    """Decades of size with their names."""
    decades = [1.0, *(8 * 10.0**e for e in range(12))]
    parts, free_from = [], -math.inf
    for bits in decades:
        if bits > x.high:
            break
        parts.append(svg.line(x.at(bits), 2, x.at(bits), bottom, "grid"))
        if x.at(bits) - free_from > 44:
            parts.append(svg.text(x.at(bits), bottom + 18, size_text(bits), "tick", "middle"))
            free_from = x.at(bits)
    return svg.join(parts)

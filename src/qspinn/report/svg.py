"""Small building blocks of inline SVG: escaped tags, scales, ticks. Colours come from the style sheet by class."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
from markupsafe import Markup, escape

SYMBOLS = {
    "truncate": "M0 5.2 L5 -3.6 H-5 Z",
    "nearest": "M0 -4.4 A4.4 4.4 0 1 1 -0.01 -4.4 Z",
    "stochastic": "M0 -5.6 L5.6 0 L0 5.6 L-5.6 0 Z",
    "toward_zero": "M-4 -4 H4 V4 H-4 Z",
    "winner": "M0 -12 L3.1 -4.3 L11.4 -3.7 L5.1 1.6 L7.1 9.7 L0 5.3 L-7.1 9.7 L-5.1 1.6 L-11.4 -3.7 L-3.1 -4.3 Z",
}


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping from values low..high to pixels start..end, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; the middle where the scale holds one value only."""
        if self.low == self.high:
            return (self.start + self.end) / 2
        a, b, x = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (x - a) / (b - a) * (self.end - self.start)


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element; children and attribute values are escaped unless they are Markup; `_` in names stands for `-`."""
    head = "".join(f' {k.rstrip("_").replace("_", "-")}="{_value(v)}"' for k, v in attributes.items() if v is not None)
    return Markup(f"<{name}{head}>{''.join(escape(c) for c in children)}</{name}>")


def _value(value: object) -> str:
    return f"{round(value, 1):g}" if isinstance(value, float) else escape(str(value))


def join(parts: Iterable[Markup]) -> Markup:
    """The parts one after another."""
    return Markup("").join(parts)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    """Text at a place."""
    return tag("text", content, x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Line between two places."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def mark(symbol: str, x: float, y: float, class_: str, tip: str = "") -> Markup:
    """One of SYMBOLS at a place; the tip is shown near the pointer."""
    return tag("use", href=f"#m-{symbol}", x=float(x), y=float(y), class_=class_, data_tip=tip or None)


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """A polyline."""
    return tag("path", d="M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def picture(width: int, height: int, title: str, *content: Markup, class_: str = "") -> Markup:
    """The whole drawing, scaled to the width of its place."""
    return tag("svg", *content, viewBox=f"0 0 {width} {height}", role="img", aria_label=title, class_=class_ or None)


def symbols() -> Markup:
    """The definitions that `mark` refers to; once per page."""
    paths = join(tag("path", id=f"m-{name}", d=d) for name, d in SYMBOLS.items())
    return tag("svg", tag("defs", paths), width=0, height=0, class_="defs", aria_hidden="true")


def nice_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round values within low..high, about n of them, 1, 2 or 5 times a power of ten apart."""
    if not low < high:
        return [low]
    raw = (high - low) / n
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 9) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within low..high."""
    orders = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in orders for m in (1, 2, 5) if low <= m * 10.0**e <= high]

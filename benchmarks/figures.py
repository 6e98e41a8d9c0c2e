"""Figures of the README and the docs. Usage: figures.py pareto [RUN] | rounding | growth. Writes docs/img/*.svg."""

from __future__ import annotations

import json
import re
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

from claims import RESULTS, ROOT
from qspinn.fixedpoint import Rounding, requantize, stream_key
from qspinn.report import plots, svg
from qspinn.report.sections import SECTIONS
from qspinn.report.source import read_run

IMAGES = ROOT / "docs" / "img"
COLOURS = ("truncate", "ptq", "itq", "ptq-adapt")
DASHES = ("none", "7 4", "none", "2 4")


def standalone(picture: str, size: tuple[int, int]) -> str:
    """An SVG file of a figure of the report: style and symbols inside, white or dark with the reader's theme."""
    style = files("qspinn.report").joinpath("style.css").read_text()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
    picture = picture.replace("<svg ", head, 1)
    own = "svg{background:var(--page);font-family:system-ui,sans-serif}"
    return picture.replace(">", f"><style>{style}{own}</style>{svg.symbols()}", 1)


def store(name: str, text: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / f"{name}.svg").write_text(text)


def pareto(run: str = "runs/bench/mnist_stdp-0") -> None:
    """The Pareto plot of a run."""
    picture = str(plots.pareto(read_run(Path(run), SECTIONS), 860))
    box = re.search(r'viewBox="0 0 (\d+) (\d+)"', picture)
    assert box, "the figure has a view box"
    store("pareto", standalone(picture, (int(box[1]), int(box[2]))))


def chart(name: str, series: dict[str, list[tuple[float, float]]], x_name: str, y_name: str, *, log: bool) -> None:
    """A plain line chart with direct labels."""
    width, height = 640, 380
    xs, ys = ([p[i] for line in series.values() for p in line] for i in (0, 1))
    x = svg.Scale(low=min(xs), high=max(xs), start=64, end=width - 150, log=log)
    y = svg.Scale(low=min(ys), high=max(ys), start=height - 52, end=16, log=log)
    ticks = (svg.log_ticks if log else svg.nice_ticks)(y.low, y.high)
    parts = [svg.line(x.start, y.at(v), x.end, y.at(v), "grid") for v in ticks]
    parts += [svg.text(x.start - 7, y.at(v) + 4, f"{v:g}", "tick", "end") for v in ticks]
    parts += [
        svg.text(x.at(v), y.start + 19, f"{v:g}", "tick", "middle")
        for v in (svg.log_ticks if log else svg.nice_ticks)(x.low, x.high)
    ]
    for i, (label, line) in enumerate(series.items()):
        colour = f"var(--{COLOURS[i]})"
        d = "M" + " L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in line)
        parts.append(
            svg.tag("path", d=d, style=f"fill:none;stroke:{colour};stroke-width:2.5", stroke_dasharray=DASHES[i])
        )
        key_y = 30.0 + 22 * i
        parts.append(
            svg.tag(
                "path",
                d=f"M{x.end + 12} {key_y} h24",
                style=f"stroke:{colour};stroke-width:2.5",
                stroke_dasharray=DASHES[i],
            )
        )
        parts.append(svg.text(x.end + 42, key_y + 4, label, "small"))
    parts.append(svg.text((x.start + x.end) / 2, y.start + 42, x_name, "axis", "middle"))
    parts.append(
        svg.tag(
            "text",
            y_name,
            class_="axis",
            text_anchor="middle",
            transform=f"translate(14 {(y.start + y.end) / 2:.0f}) rotate(-90)",
        )
    )
    store(name, standalone(str(svg.picture(width, height, y_name, *parts)), (width, height)))


def rounding() -> None:
    """What each rounding makes of a small weight update: mean applied change over 2,000 updates, in steps."""
    wanted, shift, n = np.linspace(-1, 1, 81), 12, 2000
    series = {}
    for mode in Rounding:
        line = []
        for w in wanted:
            x = np.full(n, round(w * (1 << shift)))
            mean = requantize(x, shift, mode, key=stream_key(0, 3, 1), index=np.arange(n)).mean()
            line.append((float(w), float(mean)))
        series[mode.value.replace("_", " ")] = line
    chart(
        "rounding_stdp",
        series,
        "wanted update, in steps of the weight grid",
        "mean update applied, in steps",
        log=False,
    )


def growth() -> None:
    """Time per image over N, by weight width."""
    series: dict[str, list[tuple[float, float]]] = {}
    for r in json.loads((RESULTS / "growth.json").read_text()):
        found = re.match(r"(\d)-bit inference, one core: N = (\d+), T = 250, 1[23]\.\d inputs", r["claim"])
        if found:
            series.setdefault(f"{found[1]}-bit weights", []).append((float(found[2]), r["value"]))
    chart("growth", series, "neurons N", "time per image [µs], one core, T = 250", log=True)


if __name__ == "__main__":
    {"pareto": pareto, "rounding": rounding, "growth": growth}[sys.argv[1]](*sys.argv[2:])

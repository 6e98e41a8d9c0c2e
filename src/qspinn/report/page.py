"""The page: reads a run, makes figures and tables, fills the template, writes one file that opens offline."""

from __future__ import annotations

import fnmatch
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from qspinn.exploration.names import legend, readable_name
from qspinn.exploration.scheme import Scheme
from qspinn.files import write_atomic
from qspinn.fixedpoint import Rounding
from qspinn.report import plots, svg, words
from qspinn.report.sections import SECTIONS
from qspinn.report.source import Point, Source, read_run

FILTERS = {
    "size": words.size_text,
    "count": words.count_text,
    "percent": words.percent,
    "three": words.three,
    "points": words.points_text,
    "duration": words.duration_text,
}


def write_report(run_folder: str | Path, path: str | Path | None = None) -> Path:
    """Writes the report of a finished run as one self-contained HTML file, and returns its path.

    Args:
        run_folder: the folder given to `qspinn explore --out`.
        path: where to write; `report.html` in the run folder where not given.

    Raises:
        RunError: the folder holds no finished run, or a file of it is damaged.
        ArtifactError: the page cannot be written.
    """
    folder = Path(run_folder)
    target = Path(path) if path is not None else folder / "report.html"
    write_atomic(target, render(read_run(folder, SECTIONS)).encode())
    return target


def render(source: Source) -> str:
    """The page as HTML; everything that comes from files is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    o, allowed, family = source.outcome, source.experiment.search.max_drop_points, SECTIONS[type(source.experiment)]
    family_view = family.view(source, source.family_facts)
    common = {"o": o, "w": source.winner, "data": source.data}
    section = Markup(environment.from_string(_resource(f"sections/{family.TEMPLATE}")).render(**common, **family_view))
    return environment.from_string(_resource("page.html.j2")).render(
        style=Markup(_resource("style.css")),
        symbols=svg.symbols(),
        e=source.experiment,
        allowed=allowed,
        head=words.headline(source),
        verdict=words.verdict(o.test_difference, source.data.n[2], allowed, family_view["noun"]),
        notes=source.notes,
        shared=words.shared_text(source.data.shared, family_view["noun"]),
        winner_scheme=words.SCHEMES[source.winner.candidate.scheme],
        own_section=section,
        schemes=_used(words.SCHEMES, {p.candidate.scheme for p in source.points}),
        roundings=_used(words.ROUNDINGS, {p.weights.rounding for p in source.points}),
        **common,
        **family_view,
        **_search(source),
        **_precision(source),
        **_result(source),
        **_repeat(source),
    )


def _resource(name: str) -> str:
    return resources.files("qspinn.report").joinpath(name).read_text(encoding="utf-8")


def _used(names: dict[Any, str], present: set[Any]) -> list[tuple[str, str]]:
    """(value, name) of the members that occur, in the order of names: a legend."""
    return [(member.value, name) for member, name in names.items() if member in present]


def _search(source: Source) -> dict[str, Any]:
    """The front's figure, the tables of candidates, and the steps of the choice."""
    o = source.outcome
    floor = plots.visible_floor(source)
    ranked = sorted(source.points, key=lambda p: (-p.reward, p.bits, p.key))
    formula, numbers = words.reward_text(source.experiment.reward, source.winner, source)
    return {
        "pareto": _both(plots.pareto, source),
        "floor": floor,
        "n_below": sum(p.accuracy < floor for p in source.points),
        "front": [_row(p, source) for p in sorted(source.points, key=lambda p: p.bits) if p.on_front],
        "legend": legend(p.label for p in source.points),
        "ranking": [_row(p, source) for p in ranked],
        "steps": [
            (len(o.candidates) + len(o.rejected), "candidates tried"),
            (len(o.rejected), "not possible as integers, or failed"),
            (len(o.candidates), "measured on validation"),
            (len(o.admitted), "within the target"),
            (len(o.front), "on the front"),
            (1, "winner: the largest reward"),
        ],
        "formula": formula,
        "numbers": numbers,
        "rejections": words.rejections(o),
    }


def _both(figure: Any, source: Source) -> Markup:
    """A figure drawn for wide and for narrow pages; the style sheet shows one of them."""
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(
        figure(source, plots.WIDE), figure(source, plots.NARROW)
    )


def _row(p: Point, source: Source) -> dict[str, Any]:
    return {
        "label": p.label,
        "name": readable_name(p.label),
        "scheme": words.SCHEMES[p.candidate.scheme],
        "w_bits": p.weights.bits,
        "rounding": words.ROUNDINGS[p.weights.rounding],
        "accuracy": p.accuracy,
        "bits": p.bits,
        "factor": words.factor_text(source.outcome.float_bits, p.bits),
        "reward": p.reward,
        "is_winner": p.key == source.winner.key,
        "admitted": p.admitted,
    }


def _precision(source: Source) -> dict[str, Any]:
    """Significance curves with their table, and accuracy over the precision of the weights."""
    o = source.outcome
    curves = source.curves
    roundings = [r for r in Rounding if any(c.rounding is r for c in curves)]
    table = []
    for path in dict.fromkeys(c.path for c in curves):
        by_rounding = {c.rounding: c for c in curves if c.path == path}
        count = sum(r.count for r in source.float_memory if fnmatch.fnmatchcase(r.path, path))
        table.append(
            {
                "path": path,
                "count": count,
                "harmless": [by_rounding[r].harmless_bits if r in by_rounding else None for r in roundings],
                "worst": max(c.accuracy[0] - min(c.accuracy) for c in by_rounding.values()) * 100,
                "significance": max(c.significance for c in by_rounding.values()),
            }
        )
    best = {scheme: {r: plots.best_by_bits(source.points, scheme, r) for r in Rounding} for scheme in Scheme}
    widths = sorted({b for of in best.values() for points in of.values() for b in points}, reverse=True)
    return {
        "curves": plots.significance_panels(curves, o.float_validation) if curves else [],
        "significance": table,
        "swept": [(r.value, words.ROUNDINGS[r]) for r in roundings],
        "precision": plots.precision_panels(source),
        "widths": widths,
        "best": [
            (words.SCHEMES[s], words.ROUNDINGS[r], [points.get(b) for b in widths])
            for s, of in best.items()
            for r, points in of.items()
            if points
        ],
    }


def _result(source: Source) -> dict[str, Any]:
    """Memory and confusions of the winner."""
    o, labels = source.outcome, source.data.labels
    wrong = [(n, labels[i], labels[j]) for i, row in enumerate(o.confusion) for j, n in enumerate(row) if i != j and n]
    return {
        "memory": _both(plots.memory, source),
        "tensors": plots.merged(source.float_memory, source.winner.memory),
        "float_learning_bits": source.float_learning_bits,
        "labels": labels,
        "confused": sorted(wrong, reverse=True)[:3],
    }


def _repeat(source: Source) -> dict[str, Any]:
    """The configuration as JSON and the command that runs it."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in source.experiment.name) or "experiment"
    config = msgspec.json.format(msgspec.json.encode(source.outcome.experiment), indent=2).decode()
    return {
        "config": config,
        "config_file": f"{name}.json",
        "command": f"qspinn explore {shlex.quote(name + '.json')} --out {shlex.quote('runs/' + name)}",
    }

"""Measured figures in the documentation: every one is read from benchmarks/results/*.json, never typed.

A page marks a figure as ``<!-- value TOPIC @ CLAIM -->...<!-- /value -->`` (or ``spread`` in place of ``value``), TOPIC
being the name of a file of results and CLAIM the text of one of its records. What stands between the marks is rewritten
by ``python docs/measured.py``, compared by ``python docs/measured.py --check``, and filled in anew by every build of
the site, so that a page cannot keep a figure that was measured again. ``<!-- topic TOPIC -->``, ``<!-- missed -->`` and
``<!-- public names -->`` become tables in the site only.

MkDocs loads this file as a hook (mkdocs.yml); it needs nothing but the standard library and benchmarks/table.py.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "benchmarks"))

import table  # noqa: E402  (of benchmarks/)

MARK = re.compile(r"<!-- (value|spread) (\w+) @ (.+?) -->(.*?)<!-- /\1 -->", re.DOTALL)
WHOLE = re.compile(r"<!-- (topic (?P<topic>\w+)|missed|public names) -->(\s*<!-- /\w[\w ]* -->)?")


@cache
def records(topic: str) -> tuple[dict[str, Any], ...]:
    """The records of a file of results.

    Raises:
        KeyError: there is no such file.
    """
    path = table.RESULTS / f"{topic}.json"
    if not path.exists():
        raise KeyError(
            f"no results of the topic {topic!r}; there are {sorted(p.stem for p in table.RESULTS.glob('*'))}"
        )
    return tuple(json.loads(path.read_text()))


def figure(kind: str, topic: str, claim: str) -> str:
    """A measured value with its unit, or the smallest and largest one of its seeds or rounds.

    Raises:
        KeyError: no record of the topic has this claim.
    """
    found = [r for r in records(topic) if r["claim"] == claim]
    if len(found) != 1:
        raise KeyError(f"{len(found)} records of {topic} have the claim {claim!r}")
    (record,) = found
    if kind == "spread":
        return "{:g} to {:g}".format(*record["spread"])
    return f"{record['value']:g} {record['unit']}".strip()


def filled(text: str) -> str:
    """A page with every marked figure as it was measured last."""

    def renewed(mark: re.Match[str]) -> str:
        kind, topic, claim, _ = mark.groups()
        return f"<!-- {kind} {topic} @ {claim} -->{figure(kind, topic, claim)}<!-- /{kind} -->"

    return MARK.sub(renewed, text)


def public_names() -> str:
    """A table of the package's public names with their homes, read from its source."""
    tree = ast.parse((ROOT / "src" / "qspinn" / "__init__.py").read_text())
    (homes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME"
    )
    rows = (f"| `qspinn.{name}` | `qspinn.{home}` |" for name, home in homes.items())
    return "\n".join(["| name | home |", "|---|---|", *rows, ""])


def shown(text: str) -> str:
    """A page as the site shows it: figures filled in, tables written out, marks taken away."""

    def written(mark: re.Match[str]) -> str:
        if mark["topic"]:
            return "\n".join(table.topic_lines(list(records(mark["topic"])))).replace("](../docs/", "](")
        return table.missed() if mark[1] == "missed" else public_names()

    return MARK.sub(r"\4", WHOLE.sub(written, filled(text)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs: called with the text of every page before it is rendered."""
    return shown(markdown)


def pages() -> list[Path]:
    """The pages that may have marked figures."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def main() -> int:
    """Rewrites the figures of all pages; with --check, names the pages that would change and says 1."""
    stale = {path: new for path in pages() if (new := filled(old := path.read_text())) != old}
    for path, new in stale.items():
        print(f"{path.relative_to(ROOT)}: figures differ from benchmarks/results")
        if "--check" not in sys.argv[1:]:
            path.write_text(new)
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

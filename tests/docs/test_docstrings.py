"""First lines of public docstrings: a full noun or verb phrase, which begins with neither a relative word nor a
pronoun."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import qspinn

ROOT = Path(qspinn.__file__).parent
RELATIVE = "What Which How Of That Where Whatever Everything It They This These Those Besides"
FRAGMENT = re.compile(rf"({RELATIVE.replace(' ', '|')}|By how)\b|\((?!x \*)")
APART = {"kernels"}
"""Folders of compiled loops, whose pieces are described by formulas."""


def first_lines(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Name and first line of every public docstring within a module, a class or a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield f"{name}.{child.name}", (ast.get_docstring(child) or "").partition("\n")[0]
            if isinstance(child, ast.ClassDef):
                yield from first_lines(child, f"{name}.{child.name}")


def test_first_lines_are_full_phrases() -> None:
    fragments = []
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT)
        if APART & set(place.parts):
            continue
        tree = ast.parse(path.read_text())
        lines = [(str(place), (ast.get_docstring(tree) or "").partition("\n")[0]), *first_lines(tree, str(place))]
        fragments += [f"{name}: {line}" for name, line in lines if FRAGMENT.match(line)]
    assert fragments == []

"""Doctests in docstrings, shown as code by the site: Markdown would take their `>>>` for quotations.

A Griffe extension, loaded by mkdocstrings (mkdocs.yml).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

BLOCK = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*(?:\n\n>>> .*(?:\n(?!\s*$).+)*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts every block of doctests into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe: called with every object that was read."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = BLOCK.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

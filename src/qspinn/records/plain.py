"""Plain data: JSON in which no key is given twice, and dotted assignments to it."""

from __future__ import annotations

import json
from typing import Any

from qspinn.errors import ConfigError

MAX_DEPTH = 64
"""Levels of tables and lists in a field that may hold anything."""


def read_json(text: str) -> Any:
    """Plain data of JSON in which no key is given twice and every number is finite.

    Raises:
        ValueError: not such JSON.
        RecursionError: tables or lists too deep within one another.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if twice is not None:
        raise ConfigError(twice[:120], "is given twice", fix="leave out one of them")
    return dict(pairs)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def with_override(data: dict, assignment: str) -> dict:
    """A copy of plain data with one dotted assignment applied, e.g. ``network.n_neurons=100``.

    The value is read as JSON where it is JSON, else as text, blanks around it left out. Intermediate tables are made
    when missing; whether the key exists is checked when the record is built.

    Raises:
        ConfigError: no assignment, too deep, or it passes through something that is not a table.
    """
    path, eq, text = assignment.partition("=") if isinstance(assignment, str) else ("", "", "")
    keys = path.strip().split(".")
    if not eq or not path.strip():
        raise ConfigError("--set", "not an assignment", got=assignment, allowed="path.to.key=value")
    if len(keys) > MAX_DEPTH:
        raise ConfigError("--set", "has a key of too many parts", got=path, allowed=f"{MAX_DEPTH} levels")
    try:
        value = read_json(text)
    except RecursionError:
        raise ConfigError(f"--set {path}", "holds tables or lists too deep within one another") from None
    except ValueError:
        value = text.strip()
    return _assign(data, keys, value, path)


def _assign(data: Any, keys: list[str], value: Any, path: str) -> dict:
    if not isinstance(data, dict):
        raise ConfigError(f"--set {path}", "passes through something that is not a table", got=data)
    head, *rest = keys
    copy = dict(data)
    copy[head] = _assign(copy.get(head, {}), rest, value, path) if rest else value
    return copy

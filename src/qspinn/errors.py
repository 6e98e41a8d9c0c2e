"""Errors that say where something is wrong, what was found, what is allowed and how to mend it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any

LONGEST = 400
"""Characters of a value that an error shows."""
DEEPEST = 8
"""Lists and tables within one another that an error shows."""
MOST_ENTRIES = 10_000
"""Of an array that an error shows as a list."""


class _Nothing(enum.Enum):
    """The mark of an error that shows no value; None is a value."""

    NOTHING = "nothing"


class QSpinnError(Exception):
    """Base of all errors raised on purpose; its text names the place, the value, what is allowed and the fix.

    Args:
        where: path of the tensor, config key or file the error is about, e.g. ``"exc.w"`` or ``"plan.rules[2].bits"``.
        problem: what is wrong, one clause.
        got: the offending value, if there is one.
        allowed: what would have been accepted.
        fix: what the reader can do about it.
    """

    def __init__(
        self, where: str, problem: str, *, got: object = _Nothing.NOTHING, allowed: str = "", fix: str = ""
    ) -> None:
        self.where, self.problem, self.got, self.allowed, self.fix = where, problem, got, allowed, fix
        parts = [f"{where}: {problem}"]
        if got is not _Nothing.NOTHING:
            parts.append(f"got {_shown(got)}")
        if allowed:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(f"fix: {fix}")
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.where, self.problem, self.got, self.allowed, self.fix)


def _shown(got: object, depth: int = 0) -> str:
    """The text of a value: NumPy's numbers as plain ones, the middle of long ones left out, and what lies too deep."""
    if type(got).__module__ == "numpy" and getattr(got, "size", 0) <= MOST_ENTRIES:
        got = plain() if callable(plain := getattr(got, "tolist", None)) else got
    if isinstance(got, str | bytes) and len(got) > 4 * LONGEST:
        got = got[:LONGEST] + got[-LONGEST:]  # type: ignore[operator]
    if isinstance(got, tuple | list):
        left, right = "[]" if isinstance(got, list) else "()"
        comma = "," * (isinstance(got, tuple) and len(got) == 1)
        text = f"{left}{_joined(got, lambda item: _shown(item, depth + 1), depth)}{comma}{right}"
    elif type(got) is dict:
        text = f"{{{_joined(got, lambda key: f'{_shown(key, depth + 1)}: {_shown(got[key], depth + 1)}', depth)}}}"
    else:
        try:
            text = repr(got)
        except Exception:  # an integer of over 4,300 digits, an object of another library
            text = f"an integer of {got.bit_length()} bits" if isinstance(got, int) else f"a {type(got).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def _joined(items: Any, shown: Callable[[Any], str], depth: int) -> str:
    """The texts of as many items as an error shows, from the front and from the back; the rest is not looked at."""
    if depth >= DEEPEST and items:
        return "..."
    front = _up_to(LONGEST, items, shown)
    n_left = len(items) - len(front)
    back = _up_to(LONGEST // 4, reversed(items), shown)[:n_left]
    return ", ".join([*front, *reversed(back)])


def _up_to(room: int, items: Iterable[Any], shown: Callable[[Any], str]) -> list[str]:
    """The texts of the first items that together fill so many characters."""
    texts: list[str] = []
    for item in items:
        if room <= 0:
            break
        texts.append(shown(item))
        room -= len(texts[-1]) + 2
    return texts


def _rebuild(kind: type[QSpinnError], where: str, problem: str, got: object, allowed: str, fix: str) -> QSpinnError:
    """The same error on the other side of a process border."""
    return kind(where, problem, got=got, allowed=allowed, fix=fix)


class ConfigError(QSpinnError):
    """A setting, a network declaration or a plan is not valid."""


class DataError(QSpinnError):
    """Error of input data that are missing, damaged or of the wrong shape."""


class LoweringError(QSpinnError):
    """A network cannot be turned into integers as the plan asks."""


class ArtifactError(QSpinnError):
    """A .qspinn file is damaged, foreign or from a newer version."""


class WriteError(ArtifactError):
    """A file cannot be written: the disk is full, or the place does not allow it."""


class RunError(QSpinnError):
    """A run cannot go on: its folder, journal or worker failed."""


class TargetError(RunError):
    """No candidate of a search meets its target; says which come nearest, and why others were not measured.

    Args:
        nearest: the measured candidates by how far they miss the target, the nearest first, as plain data: key, label,
            accuracy, bits, points_lost and points_missing.
        rejected: (reason, how many candidates).
    """

    nearest: tuple[dict[str, object], ...] = ()
    rejected: tuple[tuple[str, int], ...] = ()

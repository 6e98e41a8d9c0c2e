"""Places that a command writes to, checked before its work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qspinn.errors import ConfigError


def output_path(text: str) -> Path:
    """Path that --out names.

    Raises:
        ConfigError: it is empty.
    """
    if not text:
        raise ConfigError("--out", "is empty", allowed="a path", fix="name a place, or leave --out out")
    return Path(text)


def output_folder(path: Path) -> Path:
    """A folder that a command writes to, checked before the work begins.

    Raises:
        ConfigError: there is something else, or nothing can be written there.
    """
    with _named_errors():
        there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
        if not there.is_dir():
            raise ConfigError(
                "--out",
                "is no folder" if there == path.absolute() else f"{there} is no folder",
                got=str(path),
                fix="choose another place",
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError("--out", "cannot be written to", got=str(path), fix="choose another place")
    return path


def output_file(path: Path, *inputs: Path) -> Path:
    """A file that a command writes, checked before the work begins.

    Raises:
        ConfigError: it is one of the command's inputs, there is something else than a file, or nothing can be written.
    """
    with _named_errors():
        if path.is_dir() or not path.name:
            raise ConfigError("--out", "is a folder", got=str(path), allowed="the name of a file")
        if path.exists() and not path.is_file():
            raise ConfigError("--out", "is no regular file", got=str(path), allowed="the name of a file")
        if path.exists() and any(p.exists() and path.samefile(p) for p in inputs):
            raise ConfigError(
                "--out", "is what the command reads, which would be lost", got=str(path), fix="choose another place"
            )
    output_folder(path.parent)
    return path


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turns an error of the system on a place, such as a name that is too long, into an error on --out."""
    try:
        yield
    except OSError as error:
        raise ConfigError("--out", "cannot be written to", got=error.strerror, fix="choose another place") from None

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


def output_file_path(text: str) -> Path:
    """Path of a file that --out names.

    Raises:
        ConfigError: it is empty, or it ends as the name of a folder does.
    """
    path = output_path(text)
    if text.endswith((os.sep, f"{os.sep}.", f"{os.sep}..")):
        raise ConfigError("--out", "is a folder", got=text, allowed="the name of a file")
    return path


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
        for part in path.absolute().relative_to(there).parts:
            _need_length(there, part, part)
    return path


WRITTEN = (".html", ".json", ".qspinn", ".safetensors")
"""Ends of the names of files that commands write and no reader of data takes."""


def output_file(path: Path, *inputs: Path, written: tuple[str, ...] = WRITTEN) -> Path:
    """A file that a command writes, checked before the work begins.

    Args:
        inputs: files and folders that the command reads.
        written: ends of the names of files in these folders that may be replaced, since nothing reads them.

    Raises:
        ConfigError: it is one of the command's inputs, there is something else than a file, or nothing can be written.
    """
    with _named_errors():
        if path.is_dir() or not path.name:
            raise ConfigError("--out", "is a folder", got=str(path), allowed="the name of a file")
        if path.exists() and not path.is_file():
            raise ConfigError("--out", "is no regular file", got=str(path), allowed="the name of a file")
        if path.exists() and any(_is_read(path, place, written) for place in inputs):
            raise ConfigError(
                "--out", "is what the command reads, which would be lost", got=str(path), fix="choose another place"
            )
    output_folder(path.parent)
    with _named_errors():
        there = next(p for p in path.absolute().parents if p.is_dir())
        _need_length(there, f"..{path.name}.training.{os.getpid()}.part", path.name)
    return path


def _is_read(path: Path, place: Path, written: tuple[str, ...]) -> bool:
    """Whether a file is what lies at a place that is read, or lies in that folder and may be read there."""
    if place.is_dir():
        return path.suffix not in written and path.resolve().is_relative_to(place.resolve())
    return place.exists() and path.samefile(place)


def _need_length(folder: Path, longest: str, name: str) -> None:
    """Checks that a name, and the longest one of a file that is written on the way to it, fits the file system.

    Raises:
        ConfigError: it does not.
    """
    most = os.pathconf(folder, "PC_NAME_MAX")
    if (spare := most - len(os.fsencode(longest))) < 0:
        raise ConfigError(
            "--out",
            "cannot be written to: the name is too long",
            got=name,
            allowed=f"up to {len(os.fsencode(name)) + spare} bytes",
            fix="choose a shorter name",
        )


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turns an error of the system on a place, such as a name that is too long, into an error on --out."""
    try:
        yield
    except OSError as error:
        raise ConfigError("--out", "cannot be written to", got=error.strerror, fix="choose another place") from None

"""Experiments that come with the package: found by name, and written out to be edited."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from qspinn import former
from qspinn.errors import ConfigError, WriteError
from qspinn.records.words import nearest

FOLDER = Path(__file__).parents[1] / "experiments"
"""Where they lie; `experiments` of a checkout is this folder."""


def shipped() -> dict[str, Path]:
    """The files of the experiments that come with the package, by name, in order."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.toml"))}


def summary_of(file: Path) -> str:
    """Summary of an experiment: the first sentence of the comment at its top."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<!\bal)\.(?: |$)", text)[0]  # "et al." ends no sentence


def experiment_file(path: Path) -> Path:
    """The file of an experiment: a file that exists, or else the one of this name that comes with the package.

    Raises:
        ConfigError: neither a file nor one of the names; says the nearest.
    """
    if path.name != str(path) or (os.path.exists(path) and not path.is_dir()):
        return path  # names have no folders; what is wrong with a path is said where it is read
    known = shipped()
    name = str(path)
    if name in known:
        return known[name]
    stem = path.stem if path.suffix.lower() == ".toml" else name
    if path.suffix and stem not in known:
        return path
    raise _unknown(name, "is no file, and no experiment that comes with the package", stem)


def _unknown(name: str, problem: str, like: str) -> ConfigError:
    known = shipped()
    fix = f"did you mean {like!r}?" if like in known else nearest(like, known)
    return ConfigError(name, problem, allowed=", ".join(known), fix=fix)


def write_shipped(name: str, out: Path | None = None) -> Path:
    """Writes an experiment that comes with the package as a file to be edited; returns its path.

    Args:
        out: the new file; None: NAME.toml in the current folder.

    Raises:
        ConfigError: there is no experiment of this name; says the nearest.
        WriteError: the file is there already, or cannot be written.
    """
    known = shipped()
    if name not in known:
        raise _unknown(name, "is no experiment that comes with the package", name)
    path = Path(f"{name}.toml") if out is None else out
    try:
        with path.open("xb") as file:
            file.write(known[name].read_bytes())
    except FileExistsError:
        raise WriteError(
            str(path), "is there already, and is not written over", fix="choose another place with --out, or delete it"
        ) from None
    except OSError as error:
        raise WriteError(str(path), "cannot be written", got=error.strerror, fix="choose another place") from None
    return path


__getattr__ = former.names_of(__name__)

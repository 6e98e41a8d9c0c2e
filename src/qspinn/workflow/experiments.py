"""Experiments and data sets as they are read from files and configurations."""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from qspinn import data
from qspinn.errors import ConfigError
from qspinn.exploration.family import AnyDataset, AnyExperiment, kind_of, read_experiment
from qspinn.exploration.shipped import experiment_file
from qspinn.records.plain import MAX_DEPTH, read_json, with_override
from qspinn.records.record import former_keys

SPLITS = ("train", "validation", "test")
MAX_BYTES = 1 << 20
"""Size of the largest experiment file."""
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_DEPTH}}}")
"""A key of so many parts; TOML's reader needs memory for the square of their number."""


def load_data(config: data.DataConfig | data.EventData) -> AnyDataset:
    """The data set of a configuration: images or event recordings.

    Raises:
        ConfigError: neither a DataConfig nor an EventData, or a setting that the set does not have.
        DataError: files are missing or damaged.
    """
    return data.load_recordings(config) if isinstance(config, data.EventData) else data.load(config)


def load_experiment(path: str | Path, overrides: Iterable[str] = ()) -> AnyExperiment:
    """The experiment, of any family, in a TOML or JSON file, with dotted overrides such as
    ``network.n_neurons=100`` applied. A relative `data.file` without a `data.folder` lies beside the experiment file.
    Keys with the names of earlier versions are read, with a DeprecationWarning.

    Args:
        path: the file, or the name of an experiment that comes with the package, such as "digits_stdp"; a file of that
            name wins.

    Raises:
        ConfigError: neither a file nor such a name (the nearest is named), unreadable, not TOML or JSON, a key given
            twice, an unknown key (named with its path and the nearest valid one), or a value out of range.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError("path", "is no path of a file", got=path, allowed="text or a Path")
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ConfigError("overrides", "is no list of assignments", got=overrides, fix='["network.n_neurons=100"]')
    file = experiment_file(Path(path))
    plain = _read_plain(file)
    plain, former = _overridden(plain, list(overrides))
    experiment = _beside(read_experiment(plain), file.parent)
    for old, new in former:
        warnings.warn(f"{path}: {old} is called {new} now", DeprecationWarning, stacklevel=2)
    return experiment


def _overridden(plain: Any, overrides: list[str]) -> tuple[Any, list[tuple[str, str]]]:
    """Plain data with overrides applied, and the former names in either with the present ones.

    Former names are replaced first: an override by the present name is of the same key as an entry by the former one.
    """
    whole = plain
    for assignment in overrides:
        whole = with_override(whole, assignment)
    kind = kind_of(whole)
    plain = _with_present_keys(plain, former_keys(kind, plain))
    for assignment in overrides:
        path, _, value = assignment.partition("=")
        plain = with_override(plain, f"{_present_path(kind, path.strip())}={value}")
    return plain, former_keys(kind, whole)


def _with_present_keys(plain: Any, former: list[tuple[str, str]]) -> Any:
    """Plain data with former names replaced, except where both are given, which reading it refuses."""
    for old, new in former:
        *heads, name = new.split(".")
        place: Any = plain
        for head in heads:
            place = place.get(head, {}) if isinstance(place, dict) else None
        if isinstance(place, dict) and name not in place:
            plain, value = _without(plain, old.split("."))
            plain = _with(plain, new.split("."), value)
    return plain


def _without(table: dict[str, Any], keys: list[str]) -> tuple[dict[str, Any], Any]:
    """A copy of a table without the entry at a path, and that entry."""
    head, *rest = keys
    if not rest:
        return {key: value for key, value in table.items() if key != head}, table[head]
    inner, value = _without(table[head], rest)
    return {**table, head: inner}, value


def _with(table: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """A copy of a table with an entry at a path."""
    head, *rest = keys
    return {**table, head: _with(table.get(head, {}), rest, value) if rest else value}


def _present_path(kind: Any, path: str) -> str:
    """A dotted path in which a former name is replaced by the present one."""
    tree: Any = None
    for key in reversed(path.split(".")):
        tree = {key: tree}
    for old, new in former_keys(kind, tree):
        if path == old or path.startswith(f"{old}."):
            return new + path[len(old) :]
    return path


def _beside(experiment: AnyExperiment, folder: Path) -> AnyExperiment:
    """The experiment with the folder of its file as that of the user's own data file, where none is named."""
    config = experiment.data
    if not config.file or config.folder or folder == Path() or Path(config.file).is_absolute():
        return experiment
    placed = msgspec.structs.replace(config, folder=str(folder))
    return msgspec.structs.replace(experiment, data=placed)


def _read_plain(path: Path) -> Any:
    """What a TOML or JSON file holds."""
    kind, text = ("JSON" if path.suffix.lower() == ".json" else "TOML"), ""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # from a pipe, nothing may ever come
            raise ConfigError(str(path), "is no regular file", fix="name a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(str(path), "is too long for an experiment", allowed=f"up to {MAX_BYTES} bytes")
        text = data.decode("utf-8-sig")
        if kind == "TOML" and _LONG_KEY.search(text):
            raise ConfigError(str(path), "has a key of too many parts", allowed=f"{MAX_DEPTH} levels")
        return read_json(text) if kind == "JSON" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(str(path), "cannot be read", got=error.strerror) from None
    except RecursionError:
        raise ConfigError(str(path), "holds tables or lists too deep within one another") from None
    except ValueError as error:  # of the syntax, the encoding, numbers of thousands of digits, or a path with NUL
        raise ConfigError(str(path), f"is not valid {kind}", got=f"{error}{_key_at(text, error)}") from None


def _key_at(text: str, error: ValueError) -> str:
    """The key that TOML's reader refuses to write over, of which it says the line alone."""
    found = re.search(r"Cannot overwrite a value \(at (?:line (\d+)|end)", str(error))
    if found is None:
        return ""
    lines = text.rstrip().splitlines()
    key = lines[int(found[1]) - 1 if found[1] else -1].partition("=")[0].strip()
    return f": {key[:120]} is given twice"

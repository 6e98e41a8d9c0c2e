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
from qspinn.exploration.family import AnyDataset, AnyExperiment, read_experiment
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
    for assignment in overrides:
        plain = with_override(plain, assignment)
    experiment = _beside(read_experiment(plain), file.parent)
    for old, new in former_keys(type(experiment), plain):
        warnings.warn(f"{path}: {old} is called {new} now", DeprecationWarning, stacklevel=2)
    return experiment


def _beside(experiment: AnyExperiment, folder: Path) -> AnyExperiment:
    """The experiment with the folder of its file as that of the user's own data file, where none is named."""
    config = experiment.data
    if not config.file or config.folder or folder == Path() or Path(config.file).is_absolute():
        return experiment
    placed = msgspec.structs.replace(config, folder=str(folder))
    return msgspec.structs.replace(experiment, data=placed)


def _read_plain(path: Path) -> Any:
    """What a TOML or JSON file holds."""
    kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
    try:
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
        raise ConfigError(str(path), f"is not valid {kind}", got=str(error)) from None

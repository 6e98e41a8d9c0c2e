"""Inputs of a command: the experiment with its overrides, and the data that a model was made for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import qspinn
from qspinn.cli.output import note
from qspinn.errors import ConfigError, DataError


def read_experiment(config: Path, seed: int | None, data: str, sets: list[str] | None, synthetic: bool = False) -> Any:
    """Experiment of a file with the overrides of the command line.

    Args:
        config: experiment file, or the name of one that comes with the package.
        data: value of --data: a folder, or an .npz file of the user's own.
        sets: values of --set, `key=value` each.
        synthetic: take synthetic gestures in place of recordings.

    Raises:
        ConfigError: the file or an override is not valid, or --synthetic does not apply.
    """
    overrides = list(sets or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    if data:
        overrides += [f"data.{key}={json.dumps(text)}" for key, text in _data_keys(data).items()]  # always text
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        experiment = qspinn.load_experiment(config, overrides)
    for warning in caught:
        note(str(warning.message))
    if not synthetic:
        return experiment
    if data:
        raise ConfigError(
            "--synthetic", "takes no data, so --data would not be read", got=data, fix="leave one of the two out"
        )
    if isinstance(experiment, qspinn.LayeredExperiment | qspinn.LocalExperiment):
        return experiment.on_synthetic_data()
    raise ConfigError("--synthetic", "is for experiments on events", got=experiment.data.title, fix="leave it out")


def data_of_model(provenance: dict[str, Any], events: bool, name: str, folder: str) -> Any:
    """Configuration of the data that a model was made for, or of those that are named.

    Args:
        provenance: the model's; its experiment gives numbers of samples, bins and limits.
        events: the model takes recordings of events, not images.
        name: value of --dataset; "" for the model's own.
        folder: value of --data; "" for the model's own.

    Raises:
        ConfigError: no data set is named, or one that does not exist or is not of the model's kind.
    """
    from qspinn.data.catalog import names
    from qspinn.records.record import from_plain

    experiment = provenance.get("experiment")
    stored = experiment.get("data") if isinstance(experiment, dict) else None
    stored = stored if isinstance(stored, dict) else {}
    known = names("events" if events else "images")
    place = _data_keys(folder) if folder else {}
    name = name or ("npz" if "file" in place else stored.get("name", ""))
    if not name:
        raise ConfigError("--dataset", "the model does not say which data it was made for", allowed=", ".join(known))
    if name not in known:
        raise ConfigError(
            "--dataset", "unknown data set, or not of the model's kind", got=name, allowed=", ".join(known)
        )
    same = stored if name == stored.get("name") else {}
    return from_plain(qspinn.EventData if events else qspinn.DataConfig, {**same, "name": name, **place}, "data")


def check_own_data(loaded: Any, provenance: dict[str, Any], labels: tuple[str, ...]) -> None:
    """Compares data of the user's own with a model's; a note says where it was made from others.

    Raises:
        DataError: the classes are not those of the model, where it names them.
    """
    if labels and loaded.labels != labels:
        raise DataError(
            loaded.name,
            "has other classes than the model",
            got=list(loaded.labels),
            allowed=", ".join(labels),
            fix="give the file the model's classes, in its order, as class_names",
        )
    if provenance.get("data") not in (None, loaded.checksum()):
        note(f"{loaded.name} holds other data than the model was made from")


def _data_keys(data: str) -> dict[str, str]:
    """Keys of a configuration that --data stands for: a folder, or a file of the user's own and its folder."""
    path = Path(data)
    return {"folder": str(path.parent), "file": path.name} if path.suffix.lower() == ".npz" else {"folder": data}

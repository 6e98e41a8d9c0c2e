"""Inputs of a command: the experiment with its overrides, and the data that a model was made for."""

from __future__ import annotations

import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import qspinn
from qspinn.cli.output import note
from qspinn.errors import ArtifactError, ConfigError, DataError


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

    stored = data_of_provenance(provenance)
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


def data_places(config: Any) -> list[Path]:
    """Files and folders that the data of a configuration are read from.

    Args:
        config: a record, or the plain form of one as files hold it.
    """
    if not isinstance(config, dict):
        config = {"folder": config.folder, "file": config.file}
    folder, file = (config.get(key) if isinstance(config.get(key), str) else "" for key in ("folder", "file"))
    if file:
        return [Path(folder) / file]
    return [Path(place) for place in (folder or os.environ.get("QSPINN_DATA", ""),) if place]


def data_of_provenance(provenance: Any) -> Any:
    """The plain configuration of the data that a model was made from; empty where it does not say."""
    experiment = provenance.get("experiment") if isinstance(provenance, dict) else None
    data = experiment.get("data") if isinstance(experiment, dict) else None
    return data if isinstance(data, dict) else {}


def run_places(run: Path) -> list[Path]:
    """Files and folders that a report is made from: those of the run, and the data that it names."""
    import msgspec

    plain: Any = None
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        if (run / "result.json").is_file():
            plain = msgspec.json.decode((run / "result.json").read_bytes())
    files = [run / name for name in ("result.json", "journal", "model.qspinn", "model.safetensors")]
    return [run, *files, *data_places(data_of_provenance(plain))]


def model_family(model: Path) -> str | None:
    """The family of the trained network in a file; None where it holds something else, such as a program.

    Raises:
        ArtifactError: not a file, such as a pipe, from which nothing may ever come.
    """
    from qspinn.networks.checkpoint import family_in

    if model.exists() and not model.is_file() and not model.is_dir():
        raise ArtifactError(str(model), "is no regular file", fix="name a file")
    return family_in(model)


def need_program(model: Path) -> None:
    """Checks that a file holds no trained network where a program is asked for.

    Raises:
        ArtifactError: it holds one.
    """
    family = model_family(model)
    if family == "local":
        raise ArtifactError(
            str(model), "holds layers that learn locally, and no program", fix="qspinn evaluate measures them"
        )
    if family is not None:
        raise ArtifactError(
            str(model), "is a float network, and no integer program", fix="quantize it first: qspinn explore"
        )


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

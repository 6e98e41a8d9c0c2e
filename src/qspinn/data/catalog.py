"""The data sets that are known by name: one table, and the functions that load what it names."""

from __future__ import annotations

import importlib
import os
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import need_kind
from qspinn.data.events.dataset import EventData, EventDataset, EventName, need_of_each, some_of_each
from qspinn.data.images.dataset import DataConfig, Dataset, Split
from qspinn.data.shared import lacking
from qspinn.errors import ConfigError, DataError

Kind = Literal["events", "images"]
Source = Literal["folder", "cache", "own folder", "file", "none"]


class Entry(NamedTuple):
    """A data set of the table.

    Attributes:
        name: what configurations call it.
        kind: event recordings (`EventData`) or images (`DataConfig`).
        loader: module within `qspinn.data` and its function, loaded when first asked for.
        settings: fields of the configuration that this set has beside name, folder and the numbers of samples.
        source: "folder": given, else $QSPINN_DATA; "cache": the same, else downloaded; "own folder": given; "file": a
            file of the user's own; "none": no files.
        subfolder: where the files are within $QSPINN_DATA.
        bin_ms: usual length of a step [ms]; 0 where steps have none, or the user says it.
        sized: the loader takes n_train, n_validation and n_test itself.
        synthetic: the synthetic set of the same shape; empty where there is none.
    """

    name: str
    kind: Kind
    loader: str
    settings: tuple[str, ...] = ()
    source: Source = "folder"
    subfolder: str = ""
    bin_ms: float = 0.0
    sized: bool = False
    synthetic: str = ""


SIDE = 128
"""Rows and columns of the cameras whose sensor can be reduced."""
BINS = ("bin_ms", "n_bins")
OWN_SETTINGS = ("file", "scale", "allow_shared")
TABLE: tuple[Entry, ...] = (
    Entry("braille7", "events", "events.tactile.braille", ("bin_ms", "fine"), bin_ms=5.0),
    Entry(
        "cifar10_dvs",
        "events",
        "events.cifar10_dvs.load",
        (*BINS, "size", "allow_shared"),
        subfolder="cifar10_dvs",
        bin_ms=10.0,
    ),
    Entry(
        "dvs_gesture",
        "events",
        "events.dvs_gesture.load",
        (*BINS, "size", "on_error"),
        subfolder="dvs_gesture",
        bin_ms=10.0,
        synthetic="synthetic_gestures",
    ),
    Entry("ev_containers", "events", "events.tactile.containers", ("bin_ms",), bin_ms=20.0),
    Entry("mnist_frames", "events", "events.frames.mnist_frames", ("n_bins",), source="cache", sized=True),
    Entry("ncars", "events", "events.ncars.load", (*BINS, "allow_shared"), subfolder="ncars", bin_ms=5.0),
    Entry("nmnist", "events", "events.nmnist.load", BINS, subfolder="nmnist", bin_ms=5.0),
    Entry("nmnist8", "events", "events.nmnist.load_packed", ("bin_ms",), bin_ms=5.0),
    Entry("npz", "events", "own.npz.load_events", (*BINS, *OWN_SETTINGS), source="file"),
    Entry("shd", "events", "events.spoken.load_shd", (*BINS, "allow_shared"), bin_ms=10.0),
    Entry("ssc", "events", "events.spoken.load_ssc", (*BINS, "allow_shared"), bin_ms=10.0),
    Entry(
        "synthetic_gestures",
        "events",
        "events.synthetic_gestures.load",
        (*BINS, "size"),
        source="none",
        bin_ms=10.0,
        sized=True,
        synthetic="synthetic_gestures",
    ),
    Entry("digits", "images", "images.digits.load", source="none"),
    Entry("idx", "images", "images.idx.load", ("allow_shared",), source="own folder"),
    Entry("mnist", "images", "images.mnist.load", source="cache"),
    Entry("npz", "images", "own.npz.load_images", OWN_SETTINGS, source="file"),
)
"""Every data set that is known by name; `EventName` and `ImageName` say the same names to type checkers."""
SIZES = ("n_train", "n_validation", "n_test")


def names(kind: Kind) -> tuple[str, ...]:
    """The names of the data sets of a kind."""
    return tuple(entry.name for entry in TABLE if entry.kind == kind)


def entry_of(kind: Kind, name: str) -> Entry:
    """The data set of this kind and name.

    Raises:
        ConfigError: there is none.
    """
    for entry in TABLE:
        if (entry.kind, entry.name) == (kind, name):
            return entry
    raise ConfigError("data.name", "is no data set of this kind", got=name, allowed=", ".join(names(kind)))


def load_events(
    name: EventName, folder: str = "", *, bin_ms: float | None = None, on_error: Literal["stop", "skip"] = "stop"
) -> EventDataset:
    """An event data set with its splits, in its usual bins or in bins of bin_ms; see `load_recordings`."""
    return load_recordings(
        EventData(name=name, folder=folder, bin_ms=0.0 if bin_ms is None else bin_ms, on_error=on_error)
    )


def load_recordings(config: EventData) -> EventDataset:
    """The event data set of a configuration, with its splits.

    "nmnist8", "braille7", "ev_containers" have stored bins that may be merged (multiples of 5, 5 and 20 ms); "nmnist",
    "dvs_gesture", "cifar10_dvs", "ncars", "shd", "ssc" and "synthetic_gestures" take any bins, and the last needs no
    folder; "mnist_frames" has steps without a length; "npz" is the user's own file (docs/own_data.md). Each set has
    more settings in its own module, see `TABLE`. Without a folder it is $QSPINN_DATA, in it the set's subfolder.

    Raises:
        ConfigError: no EventData, a setting that the set does not have, or fewer training recordings than classes.
        DataError: files are missing or damaged.
    """
    need_kind("data", config, EventData)
    entry = entry_of("events", config.name)
    loaded: EventDataset = _loaded(entry, config)
    need_of_each(config.n_train, len(loaded.labels))
    train, validation, test = (some_of_each(events, getattr(config, f"n_{part}")) for part, events in loaded.parts())
    fine = None if loaded.fine is None else some_of_each(loaded.fine, config.n_train)
    return msgspec.structs.replace(loaded, train=train, validation=validation, test=test, fine=fine)


def load(config: DataConfig) -> Dataset:
    """The image data set of a configuration.

    Raises:
        ConfigError: no DataConfig, a setting that the set does not have, or a folder for the digits, which have no
            files, or n_train so few that a class has no training image.
        DataError: files are missing or damaged.
    """
    need_kind("data", config, DataConfig)
    whole: Dataset = _loaded(entry_of("images", config.name), config)
    cut = lacking(whole.train.labels[: config.n_train or None], whole.labels)
    if cut:
        raise ConfigError(
            "data.n_train",
            f"leaves no training image of {len(cut)} of the classes: the first of the split are taken",
            got=config.n_train,
            allowed=f"0 for all, or {_enough(whole.train.labels)} and more",
        )
    return msgspec.structs.replace(
        whole,
        train=_first(whole.train, config.n_train),
        validation=_first(whole.validation, config.n_validation),
        test=_first(whole.test, config.n_test),
    )


def _enough(labels: NDArray[np.int64]) -> int:
    """How many of the first samples hold one of every class."""
    return int(np.unique(labels, return_index=True)[1].max()) + 1


def _first(split: Split, n: int) -> Split:
    return Split(images=split.images[: n or None], labels=split.labels[: n or None], first=split.first)


def _loaded(entry: Entry, config: EventData | DataConfig) -> Any:
    """What the loader of an entry makes of a configuration."""
    given = _changed(entry, config)
    if entry.sized:
        given |= {field: getattr(config, field) for field in SIZES}
    module, _, function = entry.loader.rpartition(".")
    loader = getattr(importlib.import_module(f"qspinn.data.{module}"), function)
    return loader(**_arguments(entry, config, given))


def _changed(entry: Entry, config: EventData | DataConfig) -> dict[str, Any]:
    """The settings of a configuration that are not as usual.

    Raises:
        ConfigError: one that the set does not have.
    """
    special = {"name", "folder", *SIZES}
    changed = {}
    for field in msgspec.structs.fields(type(config)):
        value = getattr(config, field.name)
        if field.name in special or value == field.default:
            continue
        if field.name not in entry.settings:
            raise ConfigError(
                f"data.{field.name}",
                f"{entry.name} does not have this setting",
                got=value,
                allowed=", ".join(entry.settings) or "none",
                fix="leave it out",
            )
        changed[field.name] = value
    return changed


def _arguments(entry: Entry, config: EventData | DataConfig, given: dict[str, Any]) -> dict[str, Any]:
    """The loader's own names for folder, settings and sizes."""
    if "size" in given:
        if SIDE % given["size"]:
            raise ConfigError(
                "data.size",
                "does not divide the sensor",
                got=given["size"],
                allowed=f"0 for the usual, or a divisor of {SIDE}",
            )
        given["to"] = (given["size"], given.pop("size"))
    if entry.source == "none":
        _need_no_folder(entry.name, config.folder)
        return _per_class(given) if entry.sized else given
    if entry.source == "folder":
        return {"folder": _place(config.folder, entry.subfolder), **given}
    return {"folder": config.folder, **given}


def _per_class(given: dict[str, Any]) -> dict[str, Any]:
    """The sizes of synthetic splits as numbers of recordings of each class."""
    from qspinn.data.events.synthetic_gestures import N_CLASSES

    return {k: -(-v // N_CLASSES) if k in SIZES else v for k, v in given.items() if v}


def _need_no_folder(name: str, folder: str) -> None:
    if folder:
        raise ConfigError("data.folder", f"{name} has no files", got=folder, allowed="none", fix="leave it out")


def _place(folder: str, subfolder: str) -> str:
    """The folder as given, else that of the set within $QSPINN_DATA."""
    base = folder or os.environ.get("QSPINN_DATA", "")
    if not base:
        raise DataError("data.folder", "is not given", fix="name the folder of the data, or set QSPINN_DATA")
    return folder or os.path.join(base, subfolder)

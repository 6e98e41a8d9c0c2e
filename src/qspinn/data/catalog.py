"""The data sets that are known by name, and their loaders."""

from __future__ import annotations

import importlib
import os
from typing import Any, Literal, NamedTuple

import msgspec

from qspinn.arrays import need_kind
from qspinn.data.events.dataset import EventData, EventDataset, EventName, need_of_each, some_of_each
from qspinn.data.images import digits, mnist
from qspinn.data.images.dataset import DataConfig, Dataset, Split
from qspinn.errors import ConfigError, DataError


class _Loader(NamedTuple):
    """Module and function of a set, its own folder within $QSPINN_DATA, and the settings it has besides."""

    module: str
    function: str
    own: str = ""
    settings: tuple[str, ...] = ("bin_ms",)


SIDE = 128
"""Rows and columns of the cameras whose sensor can be reduced."""
_LOADERS: dict[str, _Loader] = {
    "braille7": _Loader("events.tactile", "braille", "", ("bin_ms", "fine")),
    "dvs_gesture": _Loader("events.dvs_gesture", "load", "dvs_gesture", ("bin_ms", "n_bins", "size", "on_error")),
    "ev_containers": _Loader("events.tactile", "containers"),
    "mnist_frames": _Loader("events.frames", "mnist_frames", "", ("n_bins", "n_train", "n_validation", "n_test")),
    "nmnist": _Loader("events.nmnist", "load", "nmnist", ("bin_ms", "n_bins")),
    "nmnist8": _Loader("events.nmnist", "load_packed"),
    "synthetic_gestures": _Loader(
        "events.synthetic_gestures", "load", "", ("bin_ms", "n_bins", "size", "n_train", "n_validation", "n_test")
    ),
}
"""Modules are loaded when first asked for."""


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
    "dvs_gesture" and "synthetic_gestures" take any bins, and the latter needs no folder; "mnist_frames" has steps
    without a length. Each set has more settings in its own module: `nmnist`, `dvs_gesture`, `tactile`, `frames`,
    `synthetic_gestures`. Without a folder it is $QSPINN_DATA, in it `nmnist/` and `dvs_gesture/` for these two.

    Raises:
        ConfigError: no EventData, a setting that the set does not have, or fewer training recordings than classes.
        DataError: files are missing or damaged.
    """
    need_kind("data", config, EventData)
    name = config.name
    module, function, own, known = _LOADERS[name]
    plain = EventData(name=name)
    changed = {
        f: getattr(config, f)
        for f in ("bin_ms", "n_bins", "size", "fine", "on_error")
        if getattr(config, f) != getattr(plain, f)
    }
    for field, value in changed.items():
        if field not in known:
            raise ConfigError(
                f"data.{field}",
                f"{name} does not have this setting",
                got=value,
                allowed=", ".join(known),
                fix="leave it out",
            )
    changed |= {f: getattr(config, f) for f in known if f.startswith("n_t") or f.startswith("n_v")}
    loader = getattr(importlib.import_module(f"qspinn.data.{module}"), function)
    loaded: EventDataset = loader(**_arguments(name, config.folder, own, changed))
    need_of_each(config.n_train, len(loaded.labels))
    train, validation, test = (some_of_each(events, getattr(config, f"n_{part}")) for part, events in loaded.parts())
    fine = None if loaded.fine is None else some_of_each(loaded.fine, config.n_train)
    return msgspec.structs.replace(loaded, train=train, validation=validation, test=test, fine=fine)


def _arguments(name: str, folder: str, own: str, changed: dict[str, Any]) -> dict[str, Any]:
    """The loader's own names for folder, settings and sizes."""
    if "size" in changed:
        if SIDE % changed["size"]:
            raise ConfigError(
                "data.size",
                "does not divide the sensor",
                got=changed["size"],
                allowed=f"0 for the usual, or a divisor of {SIDE}",
            )
        changed["to"] = (changed["size"], changed.pop("size"))
    if name == "mnist_frames":
        return {"folder": folder, **changed}  # downloaded where there is none
    if name != "synthetic_gestures":
        return {"folder": _place(folder, own), **changed}
    _need_no_folder(name, folder)
    from qspinn.data.events.synthetic_gestures import N_CLASSES

    return {k: -(-v // N_CLASSES) if k.startswith("n_") and k != "n_bins" else v for k, v in changed.items() if v}


def _need_no_folder(name: str, folder: str) -> None:
    if folder:
        raise ConfigError("data.folder", f"{name} has no files", got=folder, allowed="none", fix="leave it out")


def _place(folder: str, own: str) -> str:
    """The folder as given, else that of the set within $QSPINN_DATA."""
    base = folder or os.environ.get("QSPINN_DATA", "")
    if not base:
        raise DataError("data.folder", "is not given", fix="name the folder of the data, or set QSPINN_DATA")
    return folder or os.path.join(base, own)


def load(config: DataConfig) -> Dataset:
    """The data set of a configuration.

    Raises:
        ConfigError: no DataConfig, or a folder for the digits, which have no files.
        DataError: files are missing or damaged.
    """
    need_kind("data", config, DataConfig)
    if config.name == "digits":
        _need_no_folder("digits", config.folder)
    whole = digits.load() if config.name == "digits" else mnist.load(config.folder)
    return Dataset(
        name=whole.name,
        shape=whole.shape,
        labels=whole.labels,
        split_rule=whole.split_rule,
        train=_first(whole.train, config.n_train),
        validation=_first(whole.validation, config.n_validation),
        test=_first(whole.test, config.n_test),
    )


def _first(split: Split, n: int) -> Split:
    return Split(images=split.images[: n or None], labels=split.labels[: n or None], first=split.first)

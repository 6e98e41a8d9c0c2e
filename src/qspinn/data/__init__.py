"""Data sets, their splits, and encoders."""

from __future__ import annotations

import importlib
import os
from typing import Literal, TypeAlias

from qspinn.data import digits, mnist
from qspinn.data.dataset import DataConfig, Dataset, Split
from qspinn.data.event_dataset import EventDataset
from qspinn.data.event_set import EventSet
from qspinn.errors import ConfigError, DataError

__all__ = ["DataConfig", "Dataset", "EventDataset", "EventName", "EventSet", "Split", "load", "load_events"]

EventName: TypeAlias = Literal["braille7", "dvs_gesture", "ev_containers", "nmnist", "nmnist8", "synthetic_gestures"]


def load_events(name: EventName, folder: str = "", *, bin_ms: float | None = None,
                on_error: Literal["stop", "skip"] = "stop") -> EventDataset:
    """An event data set with its splits, in its usual bins or in bins of bin_ms.

    Each set has more settings in its own module: `nmnist`, `dvs_gesture`, `tactile`, `synthetic_gestures`.

    Args:
        name: "nmnist8", "braille7", "ev_containers" (bins may be merged: multiples of 5, 5 and 20 ms); "nmnist" and
            "dvs_gesture" (any bins); "synthetic_gestures" (needs no folder).
        folder: where the files are; empty: $QSPINN_DATA, in it `nmnist/` and `dvs_gesture/` for these two.
        on_error: "skip" leaves out damaged files of dvs_gesture and names them in `skipped`.

    Raises:
        ConfigError: unknown name, or skipping in a set that is not made of many files.
        DataError: files are missing or damaged.
    """
    if on_error == "skip" and name != "dvs_gesture":
        raise ConfigError("data.on_error", f"{name} has no files that could be skipped", got=on_error, allowed="stop")
    if name not in _LOADERS:
        raise ConfigError("data.name", "unknown event data set", got=name, allowed=", ".join(_LOADERS))
    module, function, own = _LOADERS[name]
    place = {} if name == "synthetic_gestures" else {"folder": _place(folder, own)}
    bins = {} if bin_ms is None else {"bin_ms": bin_ms}
    skip = {"on_error": on_error} if name == "dvs_gesture" else {}
    loader = getattr(importlib.import_module(f"qspinn.data.{module}"), function)
    loaded: EventDataset = loader(**place, **bins, **skip)
    return loaded


_LOADERS = {
    "braille7": ("tactile", "braille", ""),
    "dvs_gesture": ("dvs_gesture", "load", "dvs_gesture"),
    "ev_containers": ("tactile", "containers", ""),
    "nmnist": ("nmnist", "load", "nmnist"),
    "nmnist8": ("nmnist", "load_packed", ""),
    "synthetic_gestures": ("synthetic_gestures", "load", ""),
}
"""Module, function, and the set's own folder within $QSPINN_DATA; modules are loaded when first asked for."""


def _place(folder: str, own: str) -> str:
    """The folder as given, else that of the set within $QSPINN_DATA."""
    base = folder or os.environ.get("QSPINN_DATA", "")
    if not base:
        raise DataError("data.folder", "is not given", fix="name the folder of the data, or set QSPINN_DATA")
    return folder or os.path.join(base, own)


def load(config: DataConfig) -> Dataset:
    """The data set of a configuration."""
    whole = digits.load() if config.name == "digits" else mnist.load(config.folder)
    return Dataset(
        name=whole.name, shape=whole.shape, labels=whole.labels, split_rule=whole.split_rule,
        train=_first(whole.train, config.n_train), validation=_first(whole.validation, config.n_validation),
        test=_first(whole.test, config.n_test),
    )


def _first(split: Split, n: int) -> Split:
    return Split(images=split.images[: n or None], labels=split.labels[: n or None], first=split.first)

"""Recordings or images in memory, from NumPy, torch or tonic, as data sets of this package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer, numbers, real_of
from qspinn.data.events.clock import TimeUnit
from qspinn.data.events.dataset import EventDataset
from qspinn.data.events.recording import LARGEST_SIDE
from qspinn.data.images.dataset import Dataset
from qspinn.data.npz import LONGEST_MS, MOST_BYTES
from qspinn.data.own.arrays import events_of, images_of
from qspinn.data.own.forms import Settings
from qspinn.data.own.splits import PARTS
from qspinn.errors import ConfigError, DataError
from qspinn.files import replacing

Pair = tuple[Any, Any]
MOST_ITEMS = 1 << 22
"""Items that a source is asked for; one that goes on gives them without end."""


class Recordings:
    """Data in memory as a data set: `events()` for layered and local networks, `images()` for competing populations.

    A source is (x, labels), two arrays or tensors; or whatever gives pairs (x, label) one by one: a torch `Dataset`, a
    torch `DataLoader` (batches, with their own axis in front), a tonic data set, a list. Events are structured arrays
    with the fields x, y, t, p, as in tonic; they need `sensor_size`. Shapes, labels and splits are those of an .npz
    file, see docs/own_data.md; `save` writes one, which an experiment names by `data.file`.

    Args:
        train: the source; of training recordings where validation and test are given, too, else of all.
        validation, test: sources of the other splits; without them the recordings are split by a rule.
        split: "train", "validation" or "test" of each recording of the one source.
        sensor_size: (width, height) or (width, height, 2) of events, as in tonic.
        time_unit: of the events' t: "us", "ms" or "s"; None for integers in microseconds.
        bin_ms: length of a step [ms]. n_bins: steps of events; 0: as the longest recording needs.
        class_names: names of the classes, label k is class_names[k]; None: the numbers, or texts in sorted order.
        scale: values times this, rounded, are counts or pixels; 0: they are.
        allow_shared: splits may hold recordings of the same content.

    Raises:
        ConfigError: an argument is of another kind, or contradicts another.
        DataError: names the place, the value, what is allowed and the fix.
    """

    def __init__(
        self,
        train: Any,
        *,
        validation: Any = None,
        test: Any = None,
        split: Any = None,
        sensor_size: tuple[int, ...] | None = None,
        time_unit: TimeUnit | None = None,
        bin_ms: float = 0.0,
        n_bins: int = 0,
        class_names: Iterable[str] | None = None,
        scale: float = 0.0,
        allow_shared: bool = False,
        name: str = "recordings",
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError("Recordings.name", "is no name", got=name, allowed="text")
        self._settings = Settings(
            where=name,
            name=name,
            bin_ms=_number("bin_ms", bin_ms),
            n_bins=integer("Recordings.n_bins", n_bins, low=0),
            scale=_number("scale", scale),
            allow_shared=allow_shared,
        )
        self._arrays: dict[str, NDArray] = {}
        for part, source in _parts(train, validation, test, split).items():
            suffix = f"_{part}" if part else ""
            self._arrays |= {f"{k}{suffix}": v for k, v in _columns(f"{name}{suffix}", source).items()}
        if split is not None:
            self._arrays["split"] = _array("split", split)
        if class_names is not None:
            self._arrays["class_names"] = _array("class_names", _in_order("Recordings.class_names", class_names))
        self._about_events(sensor_size, time_unit)

    def _about_events(self, sensor_size: Any, time_unit: str | None) -> None:
        """Adds what events need besides their columns."""
        is_events = any(name.partition("_")[0] == "t" for name in self._arrays)
        if is_events != (sensor_size is not None):
            raise ConfigError(
                "Recordings.sensor_size",
                "is needed for events" if is_events else "is for events, and here are arrays",
                got=sensor_size,
                allowed="(width, height) or (width, height, 2)",
                fix="the data set's sensor_size" if is_events else "leave it out",
            )
        if sensor_size is not None:
            self._arrays["sensor"] = np.array(_sensor(sensor_size))
        if time_unit is not None:
            if not is_events:
                raise ConfigError("Recordings.time_unit", "is for events", got=time_unit, fix="leave it out")
            self._arrays["time_unit"] = np.array(time_unit)

    def events(self) -> EventDataset:
        """The recordings as an event data set with three splits, for networks of layers and for local learning."""
        return events_of(self._arrays, self._settings)

    def images(self) -> Dataset:
        """The images as a data set with three splits, for competing populations."""
        return images_of(self._arrays, self._settings)

    def save(self, path: str | Path) -> None:
        """Writes the arrays as an .npz file that an experiment can name by `data.file`; whole or not at all.

        `scale` and `allow_shared` are not stored: they are settings of `[data]`, too.

        Raises:
            DataError: the arrays are neither recordings nor images, as `events` and `images` say.
            WriteError: the file cannot be written.
        """
        self._need_readable()
        stored = dict(self._arrays)
        if self._settings.bin_ms:
            stored["bin_ms"] = np.array(self._settings.bin_ms)
        if self._settings.n_bins:
            stored["n_bins"] = np.array(self._settings.n_bins)
        with replacing(path) as file:
            np.savez_compressed(file, **stored)  # type: ignore[arg-type]

    def _need_readable(self) -> None:
        """Refuses arrays that a reader of the file would refuse, whatever it takes them for."""
        settings = msgspec.structs.replace(self._settings, allow_shared=True)
        ranks = {x.ndim for name, x in self._arrays.items() if name.partition("_")[0] == "x"}
        if not (settings.bin_ms or settings.n_bins) and ranks <= {2, 3} and "sensor" not in self._arrays:
            try:
                images_of(self._arrays, settings)
                return
            except DataError:  # then they are recordings, or neither
                pass
        events_of(self._arrays, settings if settings.bin_ms else msgspec.structs.replace(settings, bin_ms=LONGEST_MS))


def _number(field: str, value: Any) -> float:
    number = real_of(value)
    if not 0 <= number < 1e15:
        raise ConfigError(
            f"Recordings.{field}", "is no number of 0 or more", got=value, allowed="0 for none, or over 0"
        )
    return number


def _in_order(where: str, words: Any) -> list[Any]:
    """Several words in an order that means something."""
    if isinstance(words, str | bytes | set | frozenset | Mapping) or not isinstance(words, Iterable):
        raise ConfigError(where, "are no list of names", got=words, allowed='("a", "b", ...), in the order of classes')
    return list(words)


def _parts(train: Any, validation: Any, test: Any, split: Any) -> dict[str, Any]:
    """The sources by split; the one of all under ""."""
    if validation is None and test is None:
        return {"": train}
    if split is not None or validation is None or test is None:
        raise ConfigError(
            "Recordings",
            "takes all three splits as sources, or one source with or without split",
            got=[p for p, s in zip((*PARTS, "split"), (train, validation, test, split), strict=True) if s is not None],
            allowed="train, validation, test; or train, split; or train",
        )
    return {"train": train, "validation": validation, "test": test}


def _sensor(sensor_size: Any) -> tuple[int, int]:
    """(height, width) of a sensor size as tonic has it."""
    known = isinstance(sensor_size, tuple | list) and len(sensor_size) in (2, 3)
    if not known or tuple(sensor_size[2:]) not in ((), (2,)):
        raise ConfigError(
            "Recordings.sensor_size",
            "is no size of a sensor with two polarities",
            got=sensor_size,
            allowed="(width, height) or (width, height, 2)",
        )
    width, height = (
        integer(f"Recordings.sensor_size[{i}]", side, low=1, high=LARGEST_SIDE)
        for i, side in enumerate(sensor_size[:2])
    )
    return height, width


def _array(where: str, values: Any) -> NDArray:
    """A NumPy array of an array, a tensor of torch on any device, or a list: a copy, since others may write to theirs.

    Raises:
        DataError: Python objects other than text, or text and numbers in one list.
    """
    if type(values).__module__.partition(".")[0] == "torch" and hasattr(values, "detach"):
        try:
            values = values.detach().cpu().numpy()
        except (TypeError, RuntimeError) as error:  # sparse, or of a type that NumPy lacks
            raise DataError(where, "is no tensor that NumPy can hold", got=str(error)[:120]) from None
    if isinstance(values, list | tuple):
        _need_one_kind(where, values)
    array = numbers(where, values, None, DataError)
    if array.dtype.kind != "O":
        return np.array(array)
    words = array.ravel().tolist()
    if not words or not all(isinstance(word, str) for word in words):  # as pandas holds text
        kinds = sorted({type(word).__name__ for word in words})
        raise DataError(where, "holds Python objects", got=kinds[:4], allowed="an array of numbers or of text")
    _need_one_kind(where, words)
    return array.astype(str)


def _need_one_kind(where: str, values: Sequence[Any]) -> None:
    """Refuses what NumPy makes the same text: numbers and text in one list, and text that ends in NUL."""
    kinds = {next((k for k in (str, bytes) if isinstance(value, k)), object) for value in values}
    if len(kinds) > 1:
        raise DataError(
            where,
            "holds text and numbers, or text and bytes",
            got=sorted({type(value).__name__ for value in values}),
            allowed="one kind",
            fix=f"{where.rpartition(' ')[2]} = [str(k) for k in ...], where all are meant as text",
        )
    for i, value in enumerate(values if kinds <= {str, bytes} else ()):
        if value.endswith("\0" if isinstance(value, str) else b"\0"):
            raise DataError(
                f"{where}[{i}]", "ends in a NUL, which arrays of text do not keep", got=value, allowed="text"
            )


def _columns(where: str, source: Any) -> dict[str, NDArray]:
    """The arrays of a source: x and labels, or x, y, t, p, offsets and labels."""
    if _is_two_arrays(where, source):
        return {"x": _array(f"{where}: x", source[0]), "labels": _array(f"{where}: labels", source[1])}
    xs, labels, size = [], [], 0
    for x, label in _items(where, source):
        xs.append(x)
        labels.append(label)
        size += x.nbytes
        if size > MOST_BYTES:
            raise DataError(
                where, "holds too much, or does not end", got=f"over {size:,} bytes", allowed=f"{MOST_BYTES:,}"
            )
    if not xs:
        raise DataError(where, "holds no recordings", got=0, allowed="one or more")
    classes = _array(f"{where}: labels", labels)
    if _has_fields(xs[0]):
        return _of_events(where, xs) | {"labels": classes}
    kinds = sorted({f"{x.dtype} {x.shape}" for x in xs})
    if len(kinds) > 1:
        raise DataError(
            where,
            "holds recordings of several shapes or types",
            got=kinds[:4],
            allowed="one shape and type",
            fix="pad or cut them to one length",
        )
    return {"x": np.stack(xs), "labels": classes}


def _is_two_arrays(where: str, source: Any) -> bool:
    """Whether a source is (x, labels), and no collection of two pairs."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    if getattr(source[0], "is_nested", False) is True:
        raise DataError(where, "is a nested tensor", allowed="recordings of one shape", fix="pad or cut them")
    return hasattr(source[0], "shape") and not _has_fields(source[0])


def _plain(label: Any) -> Any:
    """A label as a Python number or text."""
    label = _array("label", label) if not isinstance(label, int | str | bytes) else label
    return label.item() if isinstance(label, np.ndarray) and label.ndim == 0 else label


def _items(where: str, source: Any) -> Iterator[Pair]:
    """Pairs of a recording and its label, one by one; batches are taken apart."""
    batched = _is_loader(source)
    for i, pair in enumerate(_each(where, source)):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(f"{where}[{i}]", "is no pair", got=type(pair).__name__, allowed="(x, label), of each item")
        if batched:
            x, labels = _array(f"{where}[{i}]", pair[0]), _array(f"{where}[{i}]: labels", pair[1])
            if labels.shape != x.shape[:1]:
                raise DataError(
                    f"{where}[{i}]",
                    "labels are not as many as the recordings",
                    got=labels.shape,
                    allowed=f"{x.shape[:1]}",
                )
            yield from zip(x, labels.tolist(), strict=True)
        else:
            yield _recording(f"{where}[{i}]", pair[0]), _plain(pair[1])


def _recording(where: str, x: Any) -> NDArray:
    """A recording or image as an array of its own: a source may write the next one into the same memory."""
    if not _has_fields(x):
        return _array(where, x)
    if isinstance(x, np.ma.MaskedArray):
        raise DataError(
            where, "is a masked array", allowed="a plain array of events", fix="leave out the masked events"
        )
    return np.array(x)


def _has_fields(x: Any) -> bool:
    """Whether x is a structured array."""
    return bool(getattr(getattr(x, "dtype", None), "names", None))


def _is_loader(source: Any) -> bool:
    """Whether a source gives batches, as torch's DataLoader does."""
    loaders = [k for k in type(source).__mro__ if k.__name__ == "DataLoader" and k.__module__.startswith("torch.")]
    return bool(loaders) and getattr(source, "batch_sampler", None) is not None


def _each(where: str, source: Any) -> Iterator[Any]:
    """The items of a source: by number where it has a length and no own way to be gone through, as torch's Dataset."""
    # of a class that says that it can be iterated over, items by number need not exist (torch's IterableDataset)
    if isinstance(source, Mapping | str | bytes) or hasattr(source, "shape"):
        raise DataError(
            where, "is no source of pairs", got=type(source).__name__, allowed="(x, labels), or pairs (x, label)"
        )
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not hasattr(source, "__iter__"):
        yield from (source[i] for i in range(_length(where, source)))
    elif isinstance(source, Iterable):
        for i, item in enumerate(source):
            if i >= MOST_ITEMS:
                raise DataError(where, "does not end", got=f"over {i:,} items", allowed=f"up to {MOST_ITEMS:,}")
            yield item
    else:
        raise ConfigError(
            where,
            "is no source of recordings",
            got=type(source).__name__,
            allowed="(x, labels), or whatever gives pairs (x, label)",
        )


def _length(where: str, source: Any) -> int:
    """How many items a source says that it has."""
    try:
        n = len(source)
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise DataError(where, "does not know its length", got=str(error)[:120]) from None
    if n > MOST_ITEMS:
        raise DataError(where, "has too many items", got=n, allowed=f"up to {MOST_ITEMS:,}")
    return n


def _of_events(where: str, recordings: list[NDArray]) -> dict[str, NDArray]:
    """The columns of events of all recordings, and where each starts."""
    for i, events in enumerate(recordings):
        if not {"x", "y", "t", "p"} <= {*(events.dtype.names or ())}:
            raise DataError(
                f"{where}[{i}]", "is no array of events", got=str(events.dtype), allowed="fields x, y, t, p"
            )
    columns = {name: np.concatenate([events[name] for events in recordings]) for name in ("x", "y", "t", "p")}
    return columns | {"offsets": np.cumsum([0, *(len(events) for events in recordings)])}

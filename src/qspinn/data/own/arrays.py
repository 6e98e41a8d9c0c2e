"""Arrays of the user's own, of whatever origin, as data sets: dense rasters, packed events, event columns, images.

The names of the arrays and their meaning are those of an .npz file, see docs/own_data.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integers, numbers, real_of, reals, whole
from qspinn.data.events.clock import Remedies
from qspinn.data.events.dataset import EventDataset, alike_once_merged, largest_count, recordings
from qspinn.data.events.dvs_gesture import microseconds
from qspinn.data.events.event_set import EventSet, from_dense, pack, shape_of
from qspinn.data.events.recording import MOST_BINS, bin_events, checked, make, sensor_of
from qspinn.data.images.dataset import Dataset, Split
from qspinn.data.npz import multiple
from qspinn.data.own.labels import Classes, absences, classes_of
from qspinn.data.own.splits import PARTS, Numbers, by_content, by_name, need_parts, rule_of
from qspinn.data.shared import hashes
from qspinn.errors import DataError, QSpinnError
from qspinn.records.words import nearest
from qspinn.spikes import MAX_COUNT, index_dtype

Arrays = Mapping[str, NDArray]


class Form(NamedTuple):
    """A form in which recordings are stored.

    Attributes:
        needed: arrays that there must be, for each split where there are splits.
        possible: arrays that there may be, likewise.
        common: arrays that hold for all splits.
    """

    needed: tuple[str, ...]
    possible: tuple[str, ...]
    common: tuple[str, ...]


FORMS = {
    "dense": Form(("x", "labels"), (), ("class_names", "bin_ms")),
    "packed": Form(("offsets", "index", "labels"), ("count",), ("class_names", "bin_ms", "shape")),
    "columns": Form(("x", "y", "t", "p", "offsets", "labels"), (), ("class_names", "bin_ms", "sensor", "time_unit")),
    "images": Form(("x", "labels"), (), ("class_names", "shape")),
}
AS_STORED = "splits as the file says"
TIMES = Remedies("sort the events of each recording by time", "add {} us from here on, or sort the events by time")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the arrays besides what they hold.

    Attributes:
        where: the file or object named in errors. name: of the data set.
        bin_ms: length of a step [ms]; 0: as the arrays say. n_bins: steps of event columns; 0: as the longest needs.
        scale: dense values times this, rounded, are counts or pixels; 0: they are.
        allow_shared: splits may hold recordings of the same content.
    """

    where: str
    name: str
    bin_ms: float = 0.0
    n_bins: int = 0
    scale: float = 0.0
    allow_shared: bool = False


class Sorted(NamedTuple):
    """The arrays of a set in their order: their form, the ones that hold for all, and those of each split or of "", all
    recordings together; `suffix` makes the full name of an array."""

    form: str
    common: dict[str, NDArray]
    parts: dict[str, dict[str, NDArray]]

    def suffix(self, part: str) -> str:
        return f"_{part}" if part else ""


def events_of(arrays: Arrays, told: Settings) -> EventDataset:
    """The event data set in arrays.

    Raises:
        DataError: names the place, the value, what is allowed and the fix.
    """
    given = _sorted(arrays, told.where, "index" in _bases(arrays), "t" in _bases(arrays))
    classes = _classes(given, told.where)
    stored, bin_ms, factor = _STORES[given.form](given, classes, told)
    sets, rule = _three(given, stored, classes, told, lambda s: hashes(recordings(s)), lambda s, which: s.take(which))
    merged = [s.rebinned(factor) for s in sets]
    alike = factor > 1 and not told.allow_shared and alike_once_merged(told.name, merged, lambda: sets)
    train, validation, test = merged
    return EventDataset(
        name=told.name,
        shape=train.shape,
        n_steps=train.n_steps,
        bin_ms=bin_ms,
        labels=classes.names,
        train=train,
        validation=validation,
        test=test,
        split_rule=rule,
        max_count=largest_count(*merged),
        allow_shared=told.allow_shared or alike,
    )


def images_of(arrays: Arrays, told: Settings) -> Dataset:
    """The image data set in arrays.

    Raises:
        DataError: names the place, the value, what is allowed and the fix.
    """
    given = _sorted(arrays, told.where, images=True)
    classes = _classes(given, told.where)
    pixels = {
        part: _images(f"{told.where}: x{given.suffix(part)}", own["x"], told.scale) for part, own in given.parts.items()
    }
    shape = _image_shape(told.where, pixels, given.common.get("shape"))
    stored = {
        part: Split(images=x.reshape(len(x), -1), labels=classes.labels[f"labels{given.suffix(part)}"], first=0)
        for part, x in pixels.items()
    }
    splits, rule = _three(
        given,
        stored,
        classes,
        told,
        lambda s: hashes([(image,) for image in s.images]),
        lambda s, which: Split(images=s.images[which], labels=s.labels[which], first=0),
    )
    starts = np.cumsum([0, *(len(s.labels) for s in splits)])
    train, validation, test = (
        msgspec.structs.replace(s, first=int(start)) for s, start in zip(splits, starts[:-1], strict=True)
    )
    return Dataset(
        name=told.name,
        shape=shape,
        labels=classes.names,
        train=train,
        validation=validation,
        test=test,
        split_rule=rule,
        allow_shared=told.allow_shared,
    )


def _bases(arrays: Arrays) -> set[str]:
    """Names of arrays without those of splits."""
    return {
        next((name.removesuffix(f"_{part}") for part in PARTS if name.endswith(f"_{part}")), name) for name in arrays
    }


def _sorted(arrays: Arrays, where: str, packed: bool = False, columns: bool = False, images: bool = False) -> Sorted:
    """The arrays by what they are for.

    Raises:
        DataError: one is missing, or is not understood.
    """
    form = "images" if images else "packed" if packed else "columns" if columns else "dense"
    rules = FORMS[form]
    parts = {
        part: {
            name.removesuffix(f"_{part}"): array
            for name, array in arrays.items()
            if name.endswith(f"_{part}") and name.removesuffix(f"_{part}") in (*rules.needed, *rules.possible)
        }
        for part in PARTS
    }
    fixed = any(parts.values())
    known = [*rules.common, *(() if fixed else (*rules.needed, *rules.possible, "split"))]
    used = {f"{name}_{part}" for part, own in parts.items() for name in own}
    for name in arrays:
        if name not in used and name not in known:
            allowed = [*known, *(f"{base}_{part}" for base in rules.needed for part in PARTS if fixed)]
            raise DataError(
                where,
                "holds an array that is not understood",
                got=name,
                allowed=", ".join(allowed),
                fix=nearest(name, allowed) or f"leave {name} out",
            )
    if fixed:
        need_parts(where, parts)
    else:
        parts = {"": {name: arrays[name] for name in arrays if name not in rules.common}}
    found = Sorted(form, {name: arrays[name] for name in rules.common if name in arrays}, parts)
    for part, own in parts.items():
        for name in rules.needed:
            if name not in own:
                raise DataError(
                    where,
                    f"holds no array {name + found.suffix(part)!r}",
                    got=sorted(arrays),
                    allowed=", ".join(known if not fixed else [f"{n}_{part}" for n in rules.needed]),
                    fix=f"add {name + found.suffix(part)} to the file",
                )
    return found


def _classes(given: Sorted, where: str) -> Classes:
    labels = {f"labels{given.suffix(part)}": own["labels"] for part, own in given.parts.items()}
    return classes_of(where, labels, given.common.get("class_names"))


def _three(
    given: Sorted,
    stored: dict[str, Any],
    classes: Classes,
    told: Settings,
    contents: Callable[[Any], list[bytes]],
    take: Callable[[Any, NDArray[np.int64]], Any],
) -> tuple[list[Any], str]:
    """(training, validation, test; the rule that made them, for the report) of what is stored."""
    if "" in stored:
        chosen, rule = _chosen(given, stored[""], classes, told, contents)
        absent = absences(told.where, {p: stored[""].labels[which] for p, which in chosen.items()}, classes.names)
        sets = [take(stored[""], chosen[part]) for part in PARTS]
    else:
        rule = AS_STORED
        absent = absences(told.where, {p: stored[p].labels for p in PARTS}, classes.names)
        sets = [stored[part] for part in PARTS]
    return sets, "; ".join([f"{told.name}, {rule}", *([classes.rule] if classes.rule else []), *absent])


def _chosen(
    given: Sorted, whole_set: Any, classes: Classes, told: Settings, contents: Callable[[Any], list[bytes]]
) -> tuple[Numbers, str]:
    """(numbers of the recordings of each split, the rule that chose them)."""
    if "split" in given.parts[""]:
        return by_name(f"{told.where}: split", given.parts[""]["split"], len(whole_set.labels)), AS_STORED
    return by_content(told.where, whole_set.labels, contents(whole_set), classes.names), rule_of()


def _need_as_many(where: str, name: str, n: int, labels: NDArray) -> None:
    if n != len(labels):
        raise DataError(
            f"{where}: labels",
            "are not as many as the recordings",
            got=len(labels),
            allowed=f"{n}, as {name}",
            fix="one label for each recording",
        )


def counts_of(where: str, x: Any, scale: float, *, pixels: bool = False) -> NDArray[np.uint8]:
    """Values 0..255 as bytes: counts as they are, anything else only where a scale says what it means.

    Raises:
        DataError: names the array and the first value that is none, with its position.
    """
    array = numbers(where, x, None, DataError)
    if scale:
        high = MAX_COUNT / scale
        return np.floor(reals(where, array, low=0.0, high=high) * scale + 0.5).astype(np.uint8)
    if array.dtype.kind == "f":
        reals(where, array, low=0.0)
        if pixels or (array != np.floor(array)).any():
            noun, usual = ("pixels 0..255", 255.0) if pixels else ("counts", 1.0)
            raise DataError(
                where,
                f"holds floats where {noun} are asked",
                got=str(array.dtype),
                allowed="integers 0..255",
                fix=f"round them yourself, or say what one is worth: scale = {usual:g} takes x * {usual:g}, rounded",
            )
    return whole(where, array, low=0, high=MAX_COUNT, whole_floats=True).astype(np.uint8)


def _images(where: str, x: Any, scale: float) -> NDArray[np.uint8]:
    """Images [N, H, W] or [N, n]."""
    pixels = counts_of(where, x, scale, pixels=True)
    if pixels.ndim not in (2, 3) or 0 in pixels.shape[1:]:
        raise DataError(where, "has the wrong shape", got=pixels.shape, allowed="[N, H, W] or [N, n_pixels]")
    return pixels


def _image_shape(where: str, pixels: dict[str, NDArray[np.uint8]], shape: NDArray | None) -> tuple[int, int]:
    """Rows and columns of the images of all splits."""
    sizes = sorted({x.shape[1:] for x in pixels.values()})
    if len(sizes) > 1:
        raise DataError(f"{where}: x", "is of another size from split to split", got=sizes, allowed="one size")
    (size,) = sizes
    if shape is None:
        return size if len(size) == 2 else (1, size[0])
    found = tuple(integers(f"{where}: shape", shape, shape=(2,), low=1).tolist())
    if found[0] * found[1] != int(np.prod(size)) or (len(size) == 2 and size != found):
        raise DataError(f"{where}: shape", "does not fit x", got=found, allowed=f"rows and columns of {size}")
    return found[0], found[1]


def _bin_of(given: Sorted, told: Settings) -> tuple[float, float]:
    """(length of a stored bin, length asked for) [ms].

    Raises:
        DataError: neither the arrays nor the settings say it.
    """
    stored = 0.0
    if "bin_ms" in given.common:
        value = numbers(f"{told.where}: bin_ms", given.common["bin_ms"], (), DataError)
        stored = real_of(value.item())
        if not stored > 0:
            raise DataError(f"{told.where}: bin_ms", "is no length", got=value.item(), allowed="over 0 ms")
    if not (stored or told.bin_ms):
        raise DataError(
            f"{told.where}: bin_ms",
            "is not given: nobody knows how long a step is",
            allowed="over 0 ms",
            fix="data.bin_ms = 5.0 (of your data), or an array bin_ms in the file",
        )
    return stored or told.bin_ms, told.bin_ms or stored


def _merging(given: Sorted, told: Settings) -> tuple[float, int]:
    """(length of a step [ms], how many stored bins make one) of recordings in bins."""
    if told.n_bins:
        raise DataError(
            "data.n_bins", "is for event columns; here the file says the steps", got=told.n_bins, fix="leave it out"
        )
    stored, asked = _bin_of(given, told)
    return asked, multiple(asked, stored, f"{told.where}: bin_ms")


Stored = tuple[dict[str, EventSet], float, int]
"""Recordings of each split, the length of a step [ms], and how many of their bins make one."""


def _named(where: str, make_set: Callable[[], EventSet]) -> EventSet:
    """An event set, errors of which name the file."""
    try:
        return make_set()
    except QSpinnError as error:
        raise DataError(
            f"{where}: {error.where.removeprefix('events.')}",
            error.problem,
            got=error.got,
            allowed=error.allowed,
            fix=error.fix,
        ) from None


def _dense(given: Sorted, classes: Classes, told: Settings) -> Stored:
    """Rasters [N, T, C, H, W], [N, T, H, W] or [N, T, C]."""
    bin_ms, factor = _merging(given, told)
    sets = {}
    for part, own in given.parts.items():
        name = f"x{given.suffix(part)}"
        x = counts_of(f"{told.where}: {name}", own["x"], told.scale)
        if x.ndim not in (3, 4, 5) or 0 in x.shape[1:]:
            raise DataError(
                f"{told.where}: {name}",
                "has the wrong shape",
                got=x.shape,
                allowed="[N, T, C], [N, T, H, W] or [N, T, C, H, W]: recordings, steps, channels, rows, columns",
            )
        labels = classes.labels[f"labels{given.suffix(part)}"]
        _need_as_many(told.where, name, len(x), labels)
        x = x[..., None, None] if x.ndim == 3 else x[:, :, None] if x.ndim == 4 else x
        sets[part] = from_dense(x, labels, order="BT")
    return sets, bin_ms, factor


def _packed(given: Sorted, classes: Classes, told: Settings) -> Stored:
    """Recordings as `EventSet` stores them."""
    bin_ms, factor = _merging(given, told)
    if "shape" not in given.common:
        raise DataError(
            told.where,
            "holds no array 'shape'",
            allowed="(channels, height, width)",
            fix="shape = numpy.array([channels, height, width])",
        )
    shape = shape_of(integers(f"{told.where}: shape", given.common["shape"], shape=(3,)).tolist(), told.where)
    sets = {}
    for part, own in given.parts.items():
        labels = classes.labels[f"labels{given.suffix(part)}"]
        sets[part] = _named(told.where, lambda own=own, labels=labels: _event_set(own, shape, labels))  # type: ignore[misc]
    return sets, bin_ms, factor


def _event_set(own: dict[str, NDArray], shape: tuple[int, int, int], labels: NDArray[np.int64]) -> EventSet:
    n = int(np.prod(shape, dtype=np.int64))
    offsets = integers("offsets", own["offsets"], shape=(None, None), low=0)
    if offsets.shape[1] < 2 or offsets.shape[1] > MOST_BINS:
        raise DataError("offsets", "has the wrong shape", got=offsets.shape, allowed="[N, T + 1], one step or more")
    if len(offsets) != len(labels):
        raise DataError("labels", "are not as many as the recordings", got=len(labels), allowed=f"{len(offsets)}")
    count = own.get("count")
    return EventSet(
        offsets=offsets,
        index=integers("index", own["index"], shape=(None,), low=0, high=n - 1).astype(index_dtype(n)),
        count=None if count is None else integers("count", count, low=1, high=MAX_COUNT).astype(np.uint8),
        shape=shape,
        labels=labels,
    )


def _columns(given: Sorted, classes: Classes, told: Settings) -> Stored:
    """Events of a sensor as columns x, y, t, p, of all recordings one after the other."""
    bin_ms = _bin_of(given, told)[1]
    if "sensor" not in given.common:
        raise DataError(
            told.where,
            "holds no array 'sensor'",
            allowed="(height, width)",
            fix="sensor = numpy.array([height, width])",
        )
    sensor = sensor_of(integers(f"{told.where}: sensor", given.common["sensor"], shape=(2,)).tolist(), told.where)
    unit = str(given.common["time_unit"]) if "time_unit" in given.common else None
    recs = {
        part: _recordings(own, f"{told.where}: ", given.suffix(part), sensor, unit) for part, own in given.parts.items()
    }
    for part, own in recs.items():
        _need_as_many(
            told.where, f"offsets{given.suffix(part)}", len(own), classes.labels[f"labels{given.suffix(part)}"]
        )
    bin_us = microseconds(bin_ms)
    last = max((int(e["t"][-1]) for own in recs.values() for e in own if e.size), default=0)
    n_bins = told.n_bins or last // bin_us + 1
    if n_bins > MOST_BINS:
        raise DataError(
            f"{told.where}: t",
            "needs too many steps",
            got=n_bins,
            allowed=f"1..{MOST_BINS}",
            fix="subtract the time at which each recording starts, or take longer steps",
        )
    sets = {}
    for part, own in recs.items():
        labels = classes.labels[f"labels{given.suffix(part)}"].tolist()
        binned = ((bin_events(e, sensor, bin_us, n_bins), k) for e, k in zip(own, labels, strict=True))
        sets[part] = pack(binned, n_bins, sensor)
    return sets, bin_ms, 1


def _recordings(
    own: dict[str, NDArray], where: str, suffix: str, sensor: tuple[int, int], unit: str | None
) -> list[NDArray[np.void]]:
    """The events of each recording, in order of time and on the sensor."""
    starts = integers(f"{where}offsets{suffix}", own["offsets"], shape=(None,), low=0)
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(own["t"]) or (np.diff(starts) < 0).any():
        raise DataError(
            f"{where}offsets{suffix}",
            "does not say where recordings start and end",
            got=starts[:3].tolist(),
            allowed=f"[N + 1], ascending from 0 to {len(own['t'])}",
        )
    events = make(own["x"], own["y"], own["t"], own["p"], time_unit=unit)  # type: ignore[arg-type]
    return [
        checked(events[a:b], sensor, "reject", None, f"{where}recording {i}{suffix}", TIMES)
        for i, (a, b) in enumerate(itertools.pairwise(starts))
    ]


_STORES: dict[str, Callable[[Sorted, Classes, Settings], Stored]] = {
    "dense": _dense,
    "packed": _packed,
    "columns": _columns,
}

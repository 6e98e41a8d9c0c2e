"""A user's recordings, in any form of arrays, as event sets: dense rasters, packed events, event columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integers, numbers, real_of
from qspinn.data.events.clock import Remedies
from qspinn.data.events.dvs_gesture import microseconds
from qspinn.data.events.event_set import EventSet, from_dense, pack, shape_of
from qspinn.data.events.recording import MOST_BINS, bin_events, checked, make, sensor_of
from qspinn.data.npz import multiple
from qspinn.data.own.forms import ArraySet, Settings, counts_of, need_as_many
from qspinn.data.own.labels import Classes
from qspinn.errors import DataError, QSpinnError
from qspinn.spikes import MAX_COUNT, index_dtype

T = TypeVar("T")
TIMES = Remedies("sort the events of each recording by time", "add {} us from here on, or sort the events by time")
MOST_ROWS = 1 << 27
"""Steps of all recordings together: a gigabyte of where each starts."""
Binned = tuple[dict[str, EventSet], float, int]
"""Recordings of each split, the length of a step [ms], and how many of their bins make one."""


def event_sets(arrays: ArraySet, classes: Classes, settings: Settings) -> Binned:
    """The recordings of each split in the bins in which they are stored, or asked for.

    Raises:
        DataError: names the place, the value, what is allowed and the fix.
    """
    forms = {"dense": _dense, "packed": _packed, "columns": _columns}
    return forms[arrays.form](arrays, classes, settings)


def _bin_of(arrays: ArraySet, settings: Settings) -> tuple[float, float]:
    """(length of a stored bin, length asked for) [ms].

    Raises:
        DataError: neither the arrays nor the settings say it.
    """
    stored = 0.0
    if "bin_ms" in arrays.common:
        value = numbers(f"{settings.where}: bin_ms", arrays.common["bin_ms"], (), DataError)
        stored = real_of(value.item())
        if not stored > 0:
            raise DataError(f"{settings.where}: bin_ms", "is no length", got=value.item(), allowed="over 0 ms")
    if not (stored or settings.bin_ms):
        raise DataError(
            f"{settings.where}: bin_ms",
            "is not given: nobody knows how long a step is",
            allowed="over 0 ms",
            fix="data.bin_ms = 5.0 (of your data), or an array bin_ms in the file",
        )
    return stored or settings.bin_ms, settings.bin_ms or stored


def _merging(arrays: ArraySet, settings: Settings) -> tuple[float, int]:
    """(length of a step [ms], how many stored bins make one) of recordings in bins."""
    if settings.n_bins:
        raise DataError(
            "data.n_bins", "is for event columns; here the file says the steps", got=settings.n_bins, fix="leave it out"
        )
    stored, asked = _bin_of(arrays, settings)
    return asked, multiple(asked, stored, f"{settings.where}: bin_ms")


def _named(where: str, made: Callable[[], T]) -> T:
    """What a call makes of arrays; its errors name the file."""
    try:
        return made()
    except QSpinnError as error:
        raise DataError(
            f"{where}: {error.where.removeprefix('events.')}",
            error.problem,
            got=error.got,
            allowed=error.allowed,
            fix=error.fix,
        ) from None


def _dense(arrays: ArraySet, classes: Classes, settings: Settings) -> Binned:
    """Rasters [N, T, C, H, W], [N, T, H, W] or [N, T, C]."""
    bin_ms, factor = _merging(arrays, settings)
    sets = {}
    for part, own in arrays.parts.items():
        name = f"x{arrays.suffix(part)}"
        x = counts_of(f"{settings.where}: {name}", own["x"], settings.scale)
        if x.ndim not in (3, 4, 5) or 0 in x.shape[1:]:
            raise DataError(
                f"{settings.where}: {name}",
                "has the wrong shape",
                got=x.shape,
                allowed="[N, T, C], [N, T, H, W] or [N, T, C, H, W]: recordings, steps, channels, rows, columns",
            )
        labels = classes.labels[f"labels{arrays.suffix(part)}"]
        need_as_many(settings.where, name, len(x), labels)
        x = x[..., None, None] if x.ndim == 3 else x[:, :, None] if x.ndim == 4 else x
        sets[part] = from_dense(x, labels, order="BT")
    return sets, bin_ms, factor


def _packed(arrays: ArraySet, classes: Classes, settings: Settings) -> Binned:
    """Recordings as `EventSet` stores them."""
    bin_ms, factor = _merging(arrays, settings)
    if "shape" not in arrays.common:
        raise DataError(
            settings.where,
            "holds no array 'shape'",
            allowed="(channels, height, width)",
            fix="shape = numpy.array([channels, height, width])",
        )
    place = f"{settings.where}: shape"
    shape = shape_of(integers(place, arrays.common["shape"], shape=(3,)).tolist(), place)
    sets = {}
    for part, own in arrays.parts.items():
        labels = classes.labels[f"labels{arrays.suffix(part)}"]
        sets[part] = _named(settings.where, lambda own=own, labels=labels: _event_set(own, shape, labels))  # type: ignore[misc]
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


def _columns(arrays: ArraySet, classes: Classes, settings: Settings) -> Binned:
    """Events of a sensor as columns x, y, t, p, of all recordings one after the other."""
    bin_ms = _bin_of(arrays, settings)[1]
    if "sensor" not in arrays.common:
        raise DataError(
            settings.where,
            "holds no array 'sensor'",
            allowed="(height, width)",
            fix="sensor = numpy.array([height, width])",
        )
    sensor = sensor_of(
        integers(f"{settings.where}: sensor", arrays.common["sensor"], shape=(2,)).tolist(), f"{settings.where}: sensor"
    )
    unit = str(arrays.common["time_unit"]) if "time_unit" in arrays.common else None
    recs = {
        part: _recordings(own, f"{settings.where}: ", arrays.suffix(part), sensor, unit)
        for part, own in arrays.parts.items()
    }
    for part, own in recs.items():
        need_as_many(
            settings.where, f"offsets{arrays.suffix(part)}", len(own), classes.labels[f"labels{arrays.suffix(part)}"]
        )
    bin_us = microseconds(bin_ms)
    last = max((int(e["t"][-1]) for own in recs.values() for e in own if e.size), default=0)
    n_bins = settings.n_bins or _stored_steps(arrays, settings.where) or last // bin_us + 1
    if n_bins > min(MOST_BINS, MOST_ROWS // max(1, sum(map(len, recs.values())))):
        raise DataError(
            f"{settings.where}: t",
            "needs too many steps",
            got=n_bins,
            allowed=f"1..{MOST_BINS}, and {MOST_ROWS:,} of all recordings together",
            fix="subtract the time at which each recording starts, or take longer steps",
        )
    sets = {}
    for part, own in recs.items():
        labels = classes.labels[f"labels{arrays.suffix(part)}"].tolist()
        binned = ((bin_events(e, sensor, bin_us, n_bins), k) for e, k in zip(own, labels, strict=True))
        sets[part] = pack(binned, n_bins, sensor)
    return sets, bin_ms, 1


def _stored_steps(arrays: ArraySet, where: str) -> int:
    """The number of steps that the arrays say; 0 where they do not."""
    if "n_bins" not in arrays.common:
        return 0
    return int(integers(f"{where}: n_bins", arrays.common["n_bins"], shape=(), low=1, high=MOST_BINS))


def _recordings(
    own: dict[str, NDArray], where: str, suffix: str, sensor: tuple[int, int], unit: str | None
) -> list[NDArray[np.void]]:
    """The events of each recording, in order of time and on the sensor."""
    columns = [own[name] for name in ("x", "y", "t", "p")]
    events = _named(where.removesuffix(": "), lambda: make(*columns, time_unit=unit))  # type: ignore[arg-type]
    starts = integers(f"{where}offsets{suffix}", own["offsets"], shape=(None,), low=0)
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(events) or (np.diff(starts) < 0).any():
        raise DataError(
            f"{where}offsets{suffix}",
            "does not say where recordings start and end",
            got=starts[:3].tolist(),
            allowed=f"[N + 1], ascending from 0 to {len(events)}",
        )
    return [
        checked(events[a:b], sensor, "reject", None, f"{where}recording {i}{suffix}", TIMES)
        for i, (a, b) in enumerate(itertools.pairwise(starts))
    ]

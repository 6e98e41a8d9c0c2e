"""A user's recordings, in any form of arrays, as event sets: dense rasters, packed events, event columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integers, numbers, real_of
from qspinn.data.events.clock import FACTORS, Remedies
from qspinn.data.events.dataset import Kept, recordings
from qspinn.data.events.dvs_gesture import microseconds
from qspinn.data.events.event_set import EventSet, from_dense, pack, shape_of
from qspinn.data.events.recording import MOST_BINS, bin_events, checked, make, sensor_of
from qspinn.data.npz import multiple
from qspinn.data.own.forms import ArraySet, Settings, counts_of, need_as_many, need_no_scale
from qspinn.data.own.labels import Classes, text_of
from qspinn.data.shared import hashes
from qspinn.errors import DataError, QSpinnError
from qspinn.spikes import MAX_COUNT, index_dtype

T = TypeVar("T")
TIMES = Remedies(
    "sort the events of each recording by time",
    "add {} us from here on, or sort the events by time",
    "add the counter's period from here on, or sort the events by time",
)
MOST_ROWS = 1 << 27
"""Steps of all recordings together: a gigabyte of where each starts."""
FEWEST_ROWS, ROWS_PER_EVENT = 1 << 24, 64
"""So many steps are held whatever is in them; more, where there is an event in every 64 of them: a file of a few bytes
could otherwise ask for gigabytes."""


class Held(NamedTuple):
    """Recordings in bins, and a hash of the events of each before they were binned, where they were."""

    events: EventSet
    raw: tuple[bytes, ...] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.events.labels

    def contents(self) -> list[bytes]:
        """Bytes that tell the recordings apart, empty for one without events."""
        return hashes(recordings(self.events)) if self.raw is None else list(self.raw)

    def take(self, which: NDArray[np.int64]) -> Held:
        return Held(self.events.take(which), None if self.raw is None else tuple(self.raw[i] for i in which))


class Binned(NamedTuple):
    """Recordings of a set in bins.

    Attributes:
        parts: those of each split. bin_ms: length of a step. factor: how many of their bins make a step.
        counted: entries are numbers of events, which add up where bins are merged; else only their presence is known.
        notes: sentences for the report.
    """

    parts: dict[str, Held]
    bin_ms: float
    factor: int = 1
    counted: bool = False
    notes: tuple[str, ...] = ()

    def merged(self, part: EventSet) -> EventSet:
        """Recordings with `factor` bins made one, with counts where an address has several events in a step."""
        if self.factor == 1 or not self.counted or part.count is not None:
            return part.rebinned(self.factor)
        return part.counted().rebinned(self.factor).least()


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


def named(where: str, made: Callable[[], T], suffix: str = "") -> T:
    """Result of a call with arrays; errors name the file, and the array with the suffix of its split."""
    try:
        return made()
    except QSpinnError as error:
        array, bracket, position = error.where.removeprefix("events.").partition("[")
        raise DataError(
            f"{where}: {array}{suffix}{bracket}{position}",
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
        sets[part] = Held(from_dense(x, labels, order="BT"))
    return Binned(sets, bin_ms, factor, any(own["x"].dtype.kind != "b" for own in arrays.parts.values()))


def _packed(arrays: ArraySet, classes: Classes, settings: Settings) -> Binned:
    """Recordings as `EventSet` stores them."""
    bin_ms, factor = _merging(arrays, settings)
    need_no_scale(settings, "packed events")
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
        made = named(
            settings.where,
            lambda own=own, labels=labels: _event_set(own, shape, labels),  # type: ignore[misc]
            arrays.suffix(part),
        )
        sets[part] = Held(made)
    return Binned(sets, bin_ms, factor, any("count" in own for own in arrays.parts.values()))


def _event_set(own: dict[str, NDArray], shape: tuple[int, int, int], labels: NDArray[np.int64]) -> EventSet:
    n = int(np.prod(shape, dtype=np.int64))
    offsets = integers("offsets", own["offsets"], shape=(None, None), low=0)
    if offsets.shape[1] < 2 or offsets.shape[1] > MOST_BINS:
        raise DataError("offsets", "has the wrong shape", got=offsets.shape, allowed="[N, T + 1], one step or more")
    if len(offsets) != len(labels):
        raise DataError("labels", "are not as many as the recordings", got=len(labels), allowed=f"{len(offsets)}")
    if offsets.size and (offsets[0, 0], offsets[-1, -1]) != (0, len(own["index"])):
        raise DataError(
            "offsets",
            "leave out entries of index, which nobody would miss",
            got=(int(offsets[0, 0]), int(offsets[-1, -1])),
            allowed=f"from 0 to {len(own['index'])}, all of index",
            fix="store the entries of the recordings alone",
        )
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
    stored_ms, bin_ms = _bin_of(arrays, settings)
    need_no_scale(settings, "event columns")
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
    unit = (
        str(text_of(f"{settings.where}: time_unit", arrays.common["time_unit"]))
        if "time_unit" in arrays.common
        else None
    )
    bin_us = microseconds(bin_ms)
    recs = {}
    for part, own in arrays.parts.items():
        suffix = arrays.suffix(part)
        _need_exact(f"{settings.where}: t{suffix}", own["t"], unit, bin_us)
        recs[part] = _recordings(own, f"{settings.where}: ", suffix, sensor, unit)
        need_as_many(settings.where, f"offsets{suffix}", len(recs[part]), classes.labels[f"labels{suffix}"])
    last = max((int(e["t"][-1]) for own in recs.values() for e in own if e.size), default=0)
    n_bins = settings.n_bins or _stored_steps(arrays, settings, stored_ms, bin_us) or last // bin_us + 1
    _need_room(settings.where, n_bins, [e.size for own in recs.values() for e in own])
    sets, notes = {}, []
    for part, found in recs.items():
        labels = classes.labels[f"labels{arrays.suffix(part)}"].tolist()
        binned = ((bin_events(e, sensor, bin_us, n_bins), k) for e, k in zip(found, labels, strict=True))
        sets[part] = Held(pack(binned, n_bins, sensor), tuple(hashes([_content(e) for e in found])))
        kept = Kept(bin_us, n_bins)
        for e in found:
            kept.add(e["t"])
        notes += kept.notes(settings.where, part)
    return Binned(sets, bin_ms, notes=tuple(notes))


def _need_exact(where: str, t: NDArray, unit: str | None, bin_us: int) -> None:
    """Refuses times in floats too small to tell the steps apart: those of 16 bits are 0.98 ms apart at one second."""
    if t.dtype.kind != "f" or t.dtype.itemsize > 4 or not t.size or unit not in FACTORS:
        return
    largest = np.abs(t[np.isfinite(t)]).max(initial=0)
    apart = float(np.spacing(largest)) * FACTORS[unit]
    if apart > bin_us:
        raise DataError(
            where,
            f"holds floats of {8 * t.dtype.itemsize} bits, which are further apart than a step is long",
            got=f"{apart / 1000:.3g} ms at {float(largest):g} {unit}",
            allowed=f"{bin_us / 1000:g} ms",
            fix="store the times as integers in microseconds, or take longer steps",
        )


def _need_room(where: str, n_bins: int, sizes: list[int]) -> None:
    """Refuses more steps than memory is taken for."""
    most = min(MOST_ROWS, max(FEWEST_ROWS, ROWS_PER_EVENT * sum(sizes)))
    if n_bins > min(MOST_BINS, most // max(1, len(sizes))):
        raise DataError(
            f"{where}: t",
            "needs too many steps",
            got=n_bins,
            allowed=f"1..{MOST_BINS}, and {most:,} of all recordings together",
            fix="subtract the time at which each recording starts, or take longer steps",
        )


def _content(events: NDArray[np.void]) -> tuple[NDArray, ...]:
    """Events of a recording in an order of their own: those of one time may be stored in any."""
    pixel = (events["p"].astype(np.int64) << 32) + (events["y"].astype(np.int64) << 16) + events["x"]
    rank = np.lexsort((pixel, events["t"]))
    return pixel[rank], events["t"][rank], np.ones(len(rank), np.uint8)


def _stored_steps(arrays: ArraySet, settings: Settings, stored_ms: float, bin_us: int) -> int:
    """The number of steps that the arrays say, for steps of the length asked for; 0 where they do not."""
    if "n_bins" not in arrays.common:
        return 0
    n_bins = int(integers(f"{settings.where}: n_bins", arrays.common["n_bins"], shape=(), low=1, high=MOST_BINS))
    if "bin_ms" not in arrays.common:
        return n_bins
    whole_us = n_bins * microseconds(stored_ms)
    if whole_us % bin_us:
        raise DataError(
            f"{settings.where}: n_bins",
            "makes no whole number of steps of data.bin_ms",
            got=f"{n_bins} of {stored_ms:g} ms",
            allowed=f"steps of which {whole_us / 1000:g} ms is a multiple",
            fix=f"data.n_bins = {-(-whole_us // bin_us)} (or another number of your choice)",
        )
    return whole_us // bin_us


def _made(columns: list[NDArray], unit: str | None) -> NDArray[np.void]:
    """The events of some columns.

    Raises:
        DataError: as `make`, with the fix for a file.
    """
    if columns[2].dtype.kind == "f" and columns[2].size and unit is None:
        raise DataError(
            "t",
            "holds floats, whose unit is not known",
            got=str(columns[2].dtype),
            allowed="integers, in microseconds",
            fix='time_unit = "s" (or "ms", "us"): an array of the file, or an argument of Recordings',
        )
    return make(*columns, time_unit=unit)  # type: ignore[arg-type]


def _recordings(
    own: dict[str, NDArray], where: str, suffix: str, sensor: tuple[int, int], unit: str | None
) -> list[NDArray[np.void]]:
    """The events of each recording, in order of time and on the sensor."""
    columns = [own[name] for name in ("x", "y", "t", "p")]
    events = named(where.removesuffix(": "), lambda: _made(columns, unit), suffix)
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

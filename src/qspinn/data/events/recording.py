"""Events of an event camera in memory, and what is done to them before they become spikes.

Events are a NumPy structured array with the fields x, y (pixel), t (microseconds) and p (True: brighter), the form
tonic uses. Every function takes events whose fields bear these names, whatever their integer types, and returns
`EVENT`; polarities may also be -1 and 1 (darker, brighter). What is given is never changed. A sensor is (height,
width), as in the shape (channels, height, width) of what the events are binned into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import HIGHEST, flag, integer, integers, whole
from qspinn.data.events.clock import LONGEST_US, Order, Remedies, TimeUnit, in_order, microseconds_of
from qspinn.data.events.rows import distinct
from qspinn.errors import ConfigError, DataError

EVENT = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
LARGEST_SIDE = 1 << 15
MOST_BINS = 1 << 24

Events: TypeAlias = NDArray[np.void]
Sensor: TypeAlias = tuple[int, int]


class Binned(NamedTuple):
    """Events of one recording in bins, sorted by (bin, address), each pair once.

    Attributes:
        bin: int64 [n].
        address: int64 [n], p * height * width + y * width + x.
        counts: int64 [n], events that fell together; None where binary.
    """

    bin: NDArray[np.int64]
    address: NDArray[np.int64]
    counts: NDArray[np.int64] | None


def make(x: NDArray, y: NDArray, t: NDArray, p: NDArray, *, time_unit: TimeUnit | None = None) -> Events:
    """Events from their columns [n].

    Args:
        time_unit: of t; None for integers in microseconds. Floats need a unit, and are rounded to microseconds.

    Raises:
        DataError: columns of different lengths, coordinates outside 0..32767, polarities other than 0 and 1 (or -1 and
            1), or values of another kind.
    """
    columns: list[NDArray[Any]] = [
        integers(f"events.{name}", column, shape=(None,), low=0, high=LARGEST_SIDE - 1)
        for name, column in (("x", x), ("y", y))
    ]
    columns += [microseconds_of("events.t", t, time_unit, HIGHEST), _polarity("events.p", p)]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise DataError("events", "columns have different lengths", got=lengths, allowed="x, y, t, p of one length")
    return assembled(*columns)


def assembled(x: NDArray, y: NDArray, t: NDArray, p: NDArray) -> Events:
    """Events from columns that are known to be right."""
    out = np.empty(len(t), dtype=EVENT)
    out["x"], out["y"], out["t"], out["p"] = x, y, t, p
    return out


def join(blocks: Iterable[Events]) -> Events:
    """All events of some blocks, in their order.

    Raises:
        DataError: a block that is no array of events, see `make`.
    """
    named = enumerate(each("blocks", blocks))
    return np.concatenate([np.empty(0, dtype=EVENT), *(_plain(block, f"block {i}") for i, block in named)])


def each(where: str, several: Any) -> Iterator[Any]:
    """Iterates over the blocks of several readers, one after the other.

    Raises:
        DataError: there is nothing to go through.
    """
    if not isinstance(several, Iterable):
        raise DataError(
            where, "are not several", got=type(several).__name__, allowed="a list, or whatever can be gone through"
        )
    return iter(several)


def _plain(events: Events, where: str) -> Events:
    """The events as `EVENT`."""
    if _fields(events, where).dtype == EVENT:
        for name in ("x", "y"):
            if events[name].min(initial=0) < 0:
                _within(events[name], LARGEST_SIDE, f"{where}.{name}")
        return events
    return make(*(events[name] for name in ("x", "y", "t", "p")))


def check(
    events: Events,
    sensor: Sensor,
    *,
    order: Order = "reject",
    time_unit: TimeUnit | None = None,
    where: str = "events",
    clock_bits: int | None = None,
) -> Events:
    """The events, in order of time and all on the sensor; an error names the first that is not.

    Args:
        sensor: (height, width).
        order: what to do where time goes back. "reject" refuses. "sort" puts events into order of time (events of one
            time keep theirs). "unwrap" adds the period of a clock of 16 to 40 bits that started again at 0 (a fall from
            the last to the first 32nd of its period); what remains must be in order. A wrapped clock is never sorted,
            since that would mix late events with early ones.
        time_unit: see `make`.
        where: the file or array named in errors.
        clock_bits: bits of the clock, 16..40; 0 for one that did not wrap (two streams, one after the other, look like
            a clock that did). None: those of the largest time.

    Raises:
        DataError: not an event array, an event outside the sensor, a polarity other than 0 and 1 (or -1 and 1), floats
            as times without a unit, disorder, a wrapped clock.
    """
    return checked(events, sensor, order, time_unit, where, Remedies(), clock_bits)


def checked(
    events: Events,
    sensor: Sensor,
    order: Order,
    time_unit: TimeUnit | None,
    where: str,
    remedies: Remedies,
    clock_bits: int | None = None,
) -> Events:
    """`check` with other advice in its errors."""
    x, y = _on_sensor(events, sensor, where)
    p = _polarity(f"{where}.p", events["p"])
    t = microseconds_of(f"{where}.t", events["t"], time_unit)
    t, rank = in_order(t, order, f"{where}.t", remedies, clock_bits)
    return assembled(x[rank], y[rank], t[rank], p[rank])


def _fields(events: Any, where: str) -> Events:
    """The events, if they are an array of events at all."""
    names = (events.dtype.names or ()) if isinstance(events, np.ndarray) else ()
    if not isinstance(events, np.ndarray) or events.ndim != 1 or {*(EVENT.names or ())} - {*names}:
        got = f"{events.dtype} {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
        raise DataError(
            where, "is not an array of events", got=got, allowed="structured array [n] with fields x, y, t, p"
        )
    if isinstance(events, np.ma.MaskedArray):
        raise DataError(
            where,
            "is a masked array",
            allowed="structured array [n] with fields x, y, t, p",
            fix="leave out the masked events",
        )
    return events


def _on_sensor(events: Events, sensor: Sensor, where: str = "events") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns x and y.

    Raises:
        DataError: not an event array, or an event outside the sensor.
    """
    height, width = sensor_of(sensor)
    _fields(events, where)
    return tuple(
        _within(events[name], limit, f"{where}.{name}")  # type: ignore[return-value]
        for name, limit in (("x", width), ("y", height))
    )


def _within(values: NDArray, limit: int, where: str) -> NDArray[np.int64]:
    values = integers(where, values, shape=(None,))
    bad = np.flatnonzero((values < 0) | (values >= limit))
    if bad.size:
        from_one = int(values.max()) == limit and int(values.min()) >= 1
        raise DataError(
            f"{where}[{bad[0]}]",
            f"is outside the sensor ({bad.size} such events)",
            got=int(values[bad[0]]),
            allowed=f"0..{limit - 1}",
            fix="subtract 1 if pixels are counted from 1" if from_one else "",
        )
    return values


def _polarity(where: str, p: Any) -> NDArray[np.bool_]:
    """True where brighter: of 0 and 1, or of -1 and 1 where there is no 0."""
    values = whole(where, p, shape=(None,), whole_floats=True)
    if values.dtype.kind == "b":
        return values
    off = 0 if (values == 0).any() else -1
    bad = np.flatnonzero((values != 1) & (values != off))
    if bad.size:
        raise DataError(
            f"{where}[{bad[0]}]",
            f"is no polarity ({bad.size} such events)",
            got=int(values[bad[0]]),
            allowed="0, 1, or -1, 1 throughout",
        )
    return values == 1


def sensor_of(sensor: Sensor, where: str = "sensor") -> Sensor:
    """Size (height, width) of a sensor as given, checked.

    Raises:
        ConfigError: no two integers of 1..32768.
    """
    if not isinstance(sensor, (tuple, list)) or len(sensor) != 2:
        raise ConfigError(where, "is no size of a sensor", got=sensor, allowed="(height, width)")
    height, width = (integer(f"{where}[{i}]", side, low=1, high=LARGEST_SIDE) for i, side in enumerate(sensor))
    return height, width


def crop_time(events: Events, start_us: int, stop_us: int) -> Events:
    """Events with start_us <= t < stop_us; times stay as they are."""
    start_us, stop_us = integer("crop_time.start_us", start_us), integer("crop_time.stop_us", stop_us)
    t = whole("events.t", _fields(events, "events")["t"], shape=(None,))
    return _plain(events[(t >= start_us) & (t < stop_us)], "events")


def downsample(events: Events, sensor: Sensor, to: Sensor) -> Events:
    """The same events on a coarser sensor: pixels of one block become one pixel, and no event is lost.

    Raises:
        ConfigError: `to` does not divide the sensor.
        DataError: an event outside the sensor.
    """
    factors = block_of(sensor, to)
    x, y = _on_sensor(events, sensor)
    return _moved(events, x // factors[1], y // factors[0])


def block_of(sensor: Sensor, to: Sensor) -> Sensor:
    """Rows and columns of the sensor that make one pixel of `to`."""
    height, width = sensor_of(sensor)
    rows, columns = sensor_of(to, "downsample.to")
    if height % rows or width % columns:
        raise ConfigError("downsample.to", "does not divide the sensor", got=to, allowed=f"divisors of {sensor}")
    return height // rows, width // columns


def flip(events: Events, sensor: Sensor) -> Events:
    """The mirror image: left and right exchanged.

    Raises:
        DataError: an event outside the sensor.
    """
    x, y = _on_sensor(events, sensor)
    return _moved(events, sensor_of(sensor)[1] - 1 - x, y)


def shift(events: Events, sensor: Sensor, dx: int, dy: int) -> Events:
    """Events moved dx pixels to the right and dy down; those that leave the sensor are dropped.

    Raises:
        DataError: an event outside the sensor.
    """
    x, y = _on_sensor(events, sensor)
    x, y = x + _step("shift.dx", dx), y + _step("shift.dy", dy)
    height, width = sensor_of(sensor)
    stays = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return _moved(events[stays], x[stays], y[stays])


def _step(where: str, pixels: int) -> int:
    """A number of pixels; what leaves any sensor leaves this one."""
    return max(-LARGEST_SIDE, min(LARGEST_SIDE, integer(where, pixels)))


def _moved(events: Events, x: NDArray, y: NDArray) -> Events:
    """The events at other pixels."""
    return assembled(x, y, microseconds_of("events.t", events["t"], None, HIGHEST), _polarity("events.p", events["p"]))


def bin_events(
    events: Events, sensor: Sensor, bin_us: int, n_bins: int, *, start_us: int = 0, binary: bool = True
) -> Binned:
    """Events in bins of bin_us from start_us on; those before the first or after the last bin are dropped.

    bin = floor((t - start_us) / bin_us), address = p * H * W + y * W + x. Events of one bin and address become one
    entry, counted unless binary. Times may be in any order and are taken as they are: put recordings through `check`
    first, which finds clocks that wrapped.

    Raises:
        ConfigError: a bin length or number that is no integer of 1 or more, `binary` neither true nor false.
        DataError: no array of events, an event outside the sensor, polarities other than 0 and 1 (or -1 and 1).
    """
    binary = flag("bin_events.binary", binary)
    bin_us = integer("bin_events.bin_us", bin_us, low=1, high=LONGEST_US)
    n_bins = integer("bin_events.n_bins", n_bins, low=1, high=MOST_BINS)
    start_us = integer("bin_events.start_us", start_us, low=-LONGEST_US, high=LONGEST_US)
    x, y = _on_sensor(events, sensor)
    t, p = microseconds_of("events.t", events["t"], None), _polarity("events.p", events["p"])
    height, width = sensor_of(sensor)
    step = (t - start_us) // bin_us
    kept = (step >= 0) & (step < n_bins)
    n = 2 * height * width
    key = ((step[kept] * 2 + p[kept]) * height + y[kept]) * width + x[kept]
    key, counts = distinct(key, None if binary else np.ones(len(key), np.int64))
    return Binned(key // n, key % n, counts)

"""Events of an event camera in memory, and what is done to them before they become spikes.

Events are a NumPy structured array with the fields x, y (pixel), t (microseconds) and p (True: brighter), the form
tonic uses. Every function takes events whose fields bear these names, whatever their integer types, and returns
`EVENT`. A sensor is (height, width), as in the shape (channels, height, width) of what the events are binned into.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError, DataError

EVENT = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
WRAP_US = 1 << 30
"""A fall of the time by more than this (18 minutes) is a counter that wrapped, not disorder."""

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


def make(x: NDArray, y: NDArray, t: NDArray, p: NDArray) -> Events:
    """Events from their columns."""
    out = np.empty(len(t), dtype=EVENT)
    out["x"], out["y"], out["t"], out["p"] = x, y, t, p
    return out


def join(blocks: Iterable[Events]) -> Events:
    """All events of some blocks, in their order."""
    return np.concatenate([np.empty(0, dtype=EVENT), *blocks])


def check(events: Events, sensor: Sensor, *, order: Literal["reject", "sort"] = "reject",
          where: str = "events") -> Events:
    """The events, in order of time and all on the sensor; an error names the first that is not.

    Args:
        sensor: (height, width).
        order: "sort" puts events into order of time (events of one time keep theirs); "reject" refuses disorder.
            Timestamps that wrapped are refused either way, since sorting would mix late events with early ones.
        where: the file or array named in errors.

    Raises:
        DataError: not an event array, an event outside the sensor, a polarity other than 0 and 1, disorder.
    """
    missing = set(EVENT.names or ()) - set(events.dtype.names or ())
    if events.ndim != 1 or missing:
        raise DataError(where, "is not an array of events", got=f"{events.dtype} {events.shape}",
                        allowed="structured array [n] with fields x, y, t, p")
    for field, limit in (("x", sensor[1]), ("y", sensor[0]), ("p", 2)):
        _within(events[field], limit, f"{where}.{field}")
    t = events["t"].astype(np.int64)
    rank = _in_order(t, order, f"{where}.t")
    return make(events["x"][rank], events["y"][rank], t[rank], events["p"][rank])


def _within(values: NDArray, limit: int, where: str) -> None:
    bad = np.flatnonzero((values < 0) | (values >= limit))
    if bad.size:
        raise DataError(f"{where}[{bad[0]}]", f"is outside the sensor ({bad.size} such events)",
                        got=int(values[bad[0]]), allowed=f"0..{limit - 1}")


def _in_order(t: NDArray[np.int64], order: str, where: str) -> NDArray[np.int64] | slice:
    """What puts t into order."""
    falls = np.flatnonzero(t[1:] < t[:-1]) + 1
    wraps = falls[t[falls - 1] - t[falls] > WRAP_US]
    if wraps.size or (t.size and t.min() < 0):
        i = int(wraps[0]) if wraps.size else int(np.argmax(t < 0))
        raise DataError(f"{where}[{i}]", "timestamps wrapped around", got=int(t[i]),
                        allowed=f"{int(t[i - 1]) if i else 0} us or later", fix="add the counter's period from here on")
    if falls.size and order == "reject":
        i = int(falls[0])
        raise DataError(f"{where}[{i}]", f"events are not in order of time ({falls.size} steps back)", got=int(t[i]),
                        allowed=f"{int(t[i - 1])} us or later", fix='order="sort"')
    return np.argsort(t, kind="stable") if falls.size else slice(None)


def crop_time(events: Events, start_us: int, stop_us: int) -> Events:
    """Events with start_us <= t < stop_us; times stay as they are."""
    return events[(events["t"] >= start_us) & (events["t"] < stop_us)]


def downsample(events: Events, sensor: Sensor, to: Sensor) -> Events:
    """The same events on a coarser sensor: pixels of one block become one pixel, and no event is lost.

    Raises:
        ConfigError: `to` does not divide the sensor.
    """
    factors = block_of(sensor, to)
    return make(events["x"] // factors[1], events["y"] // factors[0], events["t"], events["p"])


def block_of(sensor: Sensor, to: Sensor) -> Sensor:
    """How many rows and columns of the sensor make one pixel of `to`."""
    if min(to) < 1 or any(a % b for a, b in zip(sensor, to, strict=True)):
        raise ConfigError("downsample.to", "does not divide the sensor", got=to, allowed=f"divisors of {sensor}")
    return sensor[0] // to[0], sensor[1] // to[1]


def flip(events: Events, sensor: Sensor) -> Events:
    """The mirror image: left and right exchanged."""
    return make(sensor[1] - 1 - events["x"].astype(np.int64), events["y"], events["t"], events["p"])


def shift(events: Events, sensor: Sensor, dx: int, dy: int) -> Events:
    """Events moved dx pixels to the right and dy down; those that leave the sensor are dropped."""
    x, y = events["x"].astype(np.int64) + dx, events["y"].astype(np.int64) + dy
    stays = (x >= 0) & (x < sensor[1]) & (y >= 0) & (y < sensor[0])
    return make(x[stays], y[stays], events["t"][stays], events["p"][stays])


def bin_events(events: Events, sensor: Sensor, bin_us: int, n_bins: int, *, start_us: int = 0,
               binary: bool = True) -> Binned:
    """Events in bins of bin_us from start_us on; those before the first or after the last bin are dropped.

    bin = floor((t - start_us) / bin_us), address = p * H * W + y * W + x. Events of one bin and address become one
    entry, counted unless binary.

    Raises:
        ConfigError: a bin length or number under 1.
        DataError: an event outside the sensor.
    """
    if bin_us < 1 or n_bins < 1:
        raise ConfigError("bin_events", "wrong bins", got=(bin_us, n_bins), allowed="bin_us >= 1, n_bins >= 1")
    height, width = sensor
    _within(events["x"], width, "events.x")
    _within(events["y"], height, "events.y")
    t = (events["t"].astype(np.int64) - start_us) // bin_us
    n = 2 * height * width
    key = ((t * 2 + (events["p"] != 0)) * height + events["y"]) * width + events["x"]
    key = key[(t >= 0) & (t < n_bins)]
    key, counts = distinct(key, None if binary else np.ones(len(key), np.int64))
    return Binned(key // n, key % n, counts)


def distinct(key: NDArray[np.int64], counts: NDArray | None) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """The different keys, ascending, and the sum of the counts of each (None without counts)."""
    rank = slice(None) if counts is None else np.argsort(key, kind="stable")
    ordered = np.sort(key) if counts is None else key[rank]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    if counts is None or not key.size:
        return ordered[first], counts
    return ordered[first], np.add.reduceat(counts[rank], first, dtype=np.int64)

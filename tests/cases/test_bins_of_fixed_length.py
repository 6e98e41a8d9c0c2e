"""Bins of a fixed duration over gaps, disorder and single events.

Reported: a gap merged two bins into one; a single event was an IndexError; unsorted times all fell into one bin; each
window opened at the next event, so that empty bins vanished. Right: bin = floor((t - start) / duration), whatever the
order, and empty bins stay.
"""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events.event_set import pack
from qspinn.data.events.recording import bin_events, make
from qspinn.errors import ConfigError


@pytest.mark.parametrize(
    ("times", "bin_us", "expected"),
    [
        ((0, 5, 10, 20, 30), 10, [2, 1, 1, 1]),
        ((42,), 100, [1]),
        ((0, 12, 9, 25, 3), 10, [3, 1, 1]),
        ((0, 1, 2, 90, 99), 34, [3, 0, 2]),
        ((0, 4, 18, 19, 35, 36), 10, [2, 2, 0, 2]),
        ((), 10, [0, 0]),
    ],
)
@pytest.mark.parametrize("start", [0, 1000, 2**31 - 5, 2**40])
def test_bins(times: tuple[int, ...], bin_us: int, expected: list[int], start: int) -> None:
    z = np.zeros(len(times), int)
    events = make(z, z, np.array(times, int) + start, z)
    binned = bin_events(events, (1, 1), bin_us, len(expected), start_us=start, binary=False)
    recordings = pack([(binned, 0)], len(expected), (1, 1))
    assert recordings.dense()[:, 0, 0].ravel().tolist() == expected
    assert recordings.n_steps == len(expected)


@pytest.mark.parametrize("bin_us", [0, -1, 2.5, 2.0, np.nan, "10", None, True])
def test_a_bin_is_a_whole_number_of_microseconds(bin_us: object) -> None:
    z = np.zeros(2, int)
    with pytest.raises(ConfigError, match=r"bin_events\.bin_us: is (no integer|out of range)"):
        bin_events(make(z, z, z, z), (1, 1), bin_us, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_bins", [0, -3, 2.0, "2", 2**40])
def test_a_number_of_bins_is_an_integer(n_bins: object) -> None:
    z = np.zeros(2, int)
    with pytest.raises(ConfigError, match=r"bin_events\.n_bins: is (no integer|out of range)"):
        bin_events(make(z, z, z, z), (1, 1), 10, n_bins)  # type: ignore[arg-type]

"""Durations that are multiples of a step only up to the last bit of a float.

Reported: 0.3 ms / 0.1 ms cut to 2 steps; bins of 2.01 ms refused as no whole number of microseconds, since 2.01 * 1000
is not 2010 in floats. Right: rounded, within a millionth; what is no multiple is refused.
"""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events.dvs_gesture import bins_of, microseconds
from qspinn.data.npz import multiple
from qspinn.errors import ConfigError, DataError


def test_every_thousandth_of_a_millisecond() -> None:
    assert [microseconds(n / 1000) for n in range(1, 100_001)] == [*range(1, 100_001)]


@pytest.mark.parametrize(
    ("ms", "us"),
    [
        (2.01, 2010),
        (4.02, 4020),
        (1.001, 1001),
        (0.1 + 0.2, 300),
        (5, 5000),
        (np.float32(0.5), 500),
        (np.int16(7), 7000),
    ],
)
def test_lengths_of_bins(ms: float, us: int) -> None:
    assert microseconds(ms) == us
    assert bins_of(300, ms) == -(-300_000 // us)


@pytest.mark.parametrize("ms", [0.0, -1.0, 0.0005, 2.0005, 1.0001, 1e-12, np.nan, np.inf, "2", None, True, 1e300])
def test_other_lengths_are_refused(ms: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.bin_ms: is not a whole number of microseconds"):
        microseconds(ms)  # type: ignore[arg-type]


def test_stored_bins_are_merged_by_whole_factors() -> None:
    assert multiple(0.1 + 0.2, 0.1, "x") == 3
    assert multiple(15.0000000001, 5.0, "x") == 3
    for bad in (7.0, 2.5, 0.0, -5.0, 15.001, np.nan, np.inf, "5", True):
        with pytest.raises(DataError, match="not a multiple of the stored bins"):
            multiple(bad, 5.0, "x")  # type: ignore[arg-type]

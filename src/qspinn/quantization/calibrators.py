"""Calibrators: choice of the real value of the largest code, for weights, and for potentials by the histogram in their
ranges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError
from qspinn.quantization.plan import Calibrator, QuantRule
from qspinn.quantization.ranges import BINS, LayerRanges

Floats = NDArray[np.float64]
SHARES = np.linspace(0.02, 1.0, 99)  # of the largest size, tried for the least squared error


def potential_top(ranges: LayerRanges, name: str, rule: QuantRule) -> float:
    """The size of a layer's potential that the largest code stands for, where the threshold is not larger.

    Raises:
        ConfigError: the calibrator needs a histogram that the ranges do not have.
    """
    if rule.calibrator is Calibrator.MAX:
        if name not in ranges.v:
            raise ConfigError(
                f"ranges.v.{name}",
                "is missing: no potentials of this layer were observed",
                got=sorted(ranges.v),
                fix="take ranges from layer_ranges",
            )
        return ranges.v[name] * rule.clip
    if rule.calibrator is Calibrator.THRESHOLD:
        return 0.0
    if name not in ranges.sizes:
        raise ConfigError(
            f"{name}.v",
            "this calibrator needs the histogram of the potentials",
            got=rule.calibrator.value,
            fix="take ranges from layer_ranges, or calibrator = 'max'",
        )
    sizes = ranges.sizes[name]
    if rule.calibrator is Calibrator.PERCENTILE:
        return sizes.quantile(rule.quantile) * rule.clip
    centres = ((np.arange(BINS) + 0.5) * (sizes.limit / BINS)).astype(np.float64)
    return float(_least_squares(centres[None], sizes.counts[None], 1 << rule.bits - 1, exact=False)[0]) * rule.clip


def weight_tops(w: Floats, rule: QuantRule, code_max: int) -> Floats:
    """The size of a weight that the largest code stands for, for every row of w [C, n]."""
    size = np.abs(w)
    top = size.max(axis=1)
    if rule.calibrator is Calibrator.PERCENTILE:
        top = np.quantile(size, rule.quantile, axis=1)
    elif rule.calibrator is Calibrator.MEAN_ABS:
        top = np.minimum(top, 2 * size.mean(axis=1) * np.sqrt(code_max))
    elif rule.calibrator is Calibrator.MSE:
        top = _least_squares(size, np.ones((1, 1)), code_max, exact=True)
    return top * rule.clip


def _least_squares(size: Floats, count: NDArray, code_max: int, *, exact: bool) -> Floats:
    """The largest value, for every row of size [C, n], that makes the squared error of quantization to nearest least.

    exact: each value's own rounding error; otherwise what it is on average, step**2 / 12, where sizes are binned.
    """
    tops = size.max(axis=1, initial=0.0, where=count > 0)[:, None] * SHARES  # [C, shares]
    error = np.empty_like(tops)
    for k in range(len(SHARES)):
        top = np.where(tops[:, k] > 0, tops[:, k], 1.0)[:, None]
        step = top / code_max
        off = size - step * np.minimum(np.floor(size / step + 0.5), code_max) if exact else np.maximum(size - top, 0.0)
        noise = 0.0 if exact else np.where(size <= top, step**2 / 12, 0.0)
        error[:, k] = ((off**2 + noise) * count).sum(axis=1)
    best: Floats = np.take_along_axis(tops, error.argmin(axis=1)[:, None], axis=1)[:, 0]
    return best

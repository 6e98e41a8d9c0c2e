"""Which real value the largest code stands for: for weights, and for potentials by a histogram."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError
from qspinn.plan import Calibrator, QuantRule

Floats = NDArray[np.float64]
BINS = 2048
SHARES = np.linspace(0.02, 1.0, 99)  # of the largest size, tried for the least squared error


class Sizes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A histogram of the sizes |x| of a tensor: BINS bins of equal width over 0..limit.

    Attributes:
        top: the largest size, exactly.
        limit: a power of two, so that histograms merge without splitting bins.
    """

    top: float
    limit: float
    counts: NDArray[np.int64]

    def merged(self, other: Sizes) -> Sizes:
        """The histogram of both."""
        limit = max(self.limit, other.limit)
        return Sizes(top=max(self.top, other.top), limit=limit,
                     counts=_widened(self, limit) + _widened(other, limit))

    def quantile(self, share: float) -> float:
        """The size that `share` of the values do not exceed, to the width of a bin; the largest one for 1."""
        if share >= 1.0:
            return self.top
        at = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return min(self.top, (at + 1) * self.limit / BINS)


def sizes_of(x: NDArray) -> Sizes:
    """The histogram of the entries of x."""
    size = np.abs(x).ravel()
    top = float(size.max(initial=0.0))
    limit = 2.0 ** np.ceil(np.log2(top)) if top > 0 else 1.0
    bins = np.minimum((size * (BINS / limit)).astype(np.int64), BINS - 1)
    return Sizes(top=top, limit=float(limit), counts=np.bincount(bins, minlength=BINS))


def _widened(sizes: Sizes, limit: float) -> NDArray[np.int64]:
    """Counts over 0..limit."""
    factor = min(round(limit / sizes.limit), BINS)
    merged = sizes.counts.reshape(-1, factor).sum(axis=1)
    return np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])


class LayerRanges(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Observed on calibration data, by layer: the largest size of potentials and of synaptic currents.

    Attributes:
        sizes: histograms of the potentials' sizes, for the calibrators that need them.
    """

    v: dict[str, float]
    i: dict[str, float] = {}
    sizes: dict[str, Sizes] = {}


def potential_top(ranges: LayerRanges, name: str, rule: QuantRule) -> float:
    """The size of a layer's potential that the largest code stands for, where the threshold is not larger.

    Raises:
        ConfigError: the calibrator needs a histogram that the ranges do not have.
    """
    if rule.calibrator is Calibrator.MAX:
        return ranges.v[name] * rule.clip
    if rule.calibrator is Calibrator.THRESHOLD:
        return 0.0
    if name not in ranges.sizes:
        raise ConfigError(f"{name}.v", "this calibrator needs the histogram of the potentials",
                          got=rule.calibrator.value, fix="take ranges from layer_ranges, or calibrator = 'max'")
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
    found: Floats = np.take_along_axis(tops, error.argmin(axis=1)[:, None], axis=1)[:, 0]
    return found

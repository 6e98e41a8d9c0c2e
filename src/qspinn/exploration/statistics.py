"""Paired comparison of two classifiers on the same samples."""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.arrays import booleans, integer
from qspinn.errors import ConfigError, DataError


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy of b minus accuracy of a, in points (hundredths), with a 95 % interval [low, high]."""

    points: float
    low: float
    high: float


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike, level: float = 0.95) -> Difference:
    """The difference of two paired proportions with Agresti and Min's interval.

    With n samples, c right only in b, d right only in a: the adjusted estimate is (c* - d*) / n* with c* = c + 1/2,
    d* = d + 1/2, n* = n + 2, and its half width z * sqrt(c* + d* - (c* - d*)**2 / n*) / n*.
    Source: Agresti & Min (2005), Statistics in Medicine 24, "simple improved confidence intervals for comparing
    matched proportions". The point estimate is the plain one.

    Args:
        correct_a, correct_b: whether each sample was classified right, bool [n].
        level: share of intervals that hold the true difference.

    Raises:
        DataError: other arrays, or of different lengths, or empty.
        ConfigError: a level that is not between 0 and 1.
    """
    a, b = booleans("correct_a", correct_a), booleans("correct_b", correct_b)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise DataError("paired_difference", "needs two equal, non-empty vectors", got=(a.shape, b.shape))
    n, z = a.size, _normal_quantile(level)
    gained, lost = int(np.count_nonzero(b & ~a)), int(np.count_nonzero(a & ~b))
    c, d, m = gained + 0.5, lost + 0.5, n + 2
    middle = (c - d) / m
    half = z * math.sqrt(c + d - (c - d) ** 2 / m) / m
    return Difference(points=100 * (gained - lost) / n, low=100 * (middle - half), high=100 * (middle + half))


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) of a proportion of hits among n. Source: Wilson (1927), score interval.

    Raises:
        DataError: no samples, or more hits than samples.
        ConfigError: a level that is not between 0 and 1.
    """
    if integer("n", n, error=DataError) <= 0:
        raise DataError("wilson_interval", "needs at least one sample", got=n)
    integer("hits", hits, low=0, high=n, error=DataError)
    z = _normal_quantile(level)
    p, z2 = hits / n, z * z / n
    middle = (p + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * math.sqrt(p * (1 - p) / n + z2 / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _normal_quantile(level: float) -> float:
    """How many standard deviations a two-sided interval of this level reaches."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1 or 0.5 + level / 2 == 1:
        raise ConfigError("level", "is no share", got=level, allowed="above 0, below 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy (share) on n samples of a split with a 95 % interval [low, high], and spikes per sample."""

    split: str
    n: int
    accuracy: float
    low: float
    high: float
    spikes_per_sample: float


def summary(name: str, right: NDArray[np.bool_], counts: NDArray[np.int64]) -> Accuracy:
    """Accuracy record of a split."""
    return share(name, right, float(counts.sum(axis=1).mean()))


def share(name: str, right: NDArray[np.bool_], spikes_per_sample: float) -> Accuracy:
    """Accuracy record of a split whose mean spikes per sample are known."""
    low, high = wilson_interval(int(right.sum()), right.size)
    return Accuracy(
        split=name, n=right.size, accuracy=float(right.mean()), low=low, high=high, spikes_per_sample=spikes_per_sample
    )

"""Calibrators: histograms that merge, and which value the largest code stands for, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.quantization.calibrators import SHARES, potential_top, weight_tops
from qspinn.quantization.plan import Calibrator, QuantRule
from qspinn.quantization.ranges import BINS, LayerRanges, Sizes, sizes_of


def rule(calibrator: Calibrator, **settings: float) -> QuantRule:
    return QuantRule(tensor="*", bits=4, calibrator=calibrator, **settings)


def test_histograms_merge_whatever_their_limits() -> None:
    rng = np.random.default_rng(1)
    small, large = rng.normal(0, 0.01, 500), rng.normal(0, 30.0, 300)
    both, direct = sizes_of(small).merged(sizes_of(large)), sizes_of(np.concatenate([small, large]))
    assert both.limit == direct.limit
    assert both.top == direct.top == np.abs(large).max()
    assert np.array_equal(both.counts, direct.counts)
    assert both.counts.sum() == 800
    assert np.array_equal(sizes_of(large).merged(sizes_of(small)).counts, direct.counts)


def test_nothing_but_zeros() -> None:
    zeros = sizes_of(np.zeros(5))
    assert (zeros.top, zeros.quantile(0.5), zeros.quantile(1.0)) == (0.0, 0.0, 0.0)
    assert zeros.merged(sizes_of(np.array([3.0]))).counts.sum() == 6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_quantiles_are_right_to_the_width_of_a_bin(share: float) -> None:
    x = np.random.default_rng(2).normal(0, 1, 20_000)
    sizes = sizes_of(x)
    assert sizes.quantile(share) == pytest.approx(np.quantile(np.abs(x), share), abs=1.5 * sizes.limit / BINS)
    assert sizes.quantile(1.0) == np.abs(x).max()


def test_weights_by_every_calibrator() -> None:
    w = np.random.default_rng(3).normal(0, 1, (3, 400)) * np.array([[0.1], [1.0], [7.0]])
    size = np.abs(w)
    tops = {c: weight_tops(w, rule(c, quantile=0.9), 7) for c in Calibrator}
    assert np.array_equal(tops[Calibrator.MAX], size.max(axis=1))
    assert np.allclose(tops[Calibrator.PERCENTILE], np.quantile(size, 0.9, axis=1))
    assert np.allclose(tops[Calibrator.MEAN_ABS], np.minimum(2 * size.mean(axis=1) * 7**0.5, size.max(axis=1)))
    for row, top in zip(w, tops[Calibrator.MSE], strict=True):
        tried = np.abs(row).max() * SHARES
        errors = [((row - t / 7 * np.clip(np.floor(row / t * 7 + 0.5), -7, 7)) ** 2).sum() for t in tried]
        assert top == pytest.approx(tried[int(np.argmin(errors))])
    assert np.all(tops[Calibrator.MSE] < tops[Calibrator.MAX])


def test_clip_is_a_share_of_what_the_calibrator_finds() -> None:
    w = np.array([[1.0, -4.0, 2.0]])
    assert weight_tops(w, rule(Calibrator.MAX, clip=0.5), 7).tolist() == [2.0]


def test_potentials_by_every_calibrator() -> None:
    x = np.random.default_rng(4).normal(0, 1, 50_000)
    sizes = sizes_of(x)
    ranges = LayerRanges(v={"a": sizes.top}, sizes={"a": sizes})
    assert potential_top(ranges, "a", rule(Calibrator.MAX)) == sizes.top
    assert potential_top(ranges, "a", rule(Calibrator.PERCENTILE, quantile=0.5)) == sizes.quantile(0.5)
    size = np.abs(x)
    errors = [(np.maximum(size - t, 0) ** 2).sum() + (size <= t).sum() * (t / 8) ** 2 / 12 for t in sizes.top * SHARES]
    best = (sizes.top * SHARES)[int(np.argmin(errors))]
    assert potential_top(ranges, "a", rule(Calibrator.MSE)) == pytest.approx(best, rel=0.05)


def test_a_histogram_is_asked_for_where_there_is_none() -> None:
    ranges = LayerRanges(v={"a": 1.0})
    assert potential_top(ranges, "a", rule(Calibrator.MAX)) == 1.0
    with pytest.raises(ConfigError, match=r"a\.v: .*histogram.*percentile.*layer_ranges"):
        potential_top(ranges, "a", rule(Calibrator.PERCENTILE))


def test_sizes_hold_what_they_are_given() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[[10, 20]] = 1, 3
    sizes = Sizes(top=21.0, limit=float(BINS), counts=counts)
    assert sizes.quantile(0.2) == 11.0
    assert sizes.quantile(0.9) == 21.0

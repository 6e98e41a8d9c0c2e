"""Codes and steps of binary and ternary weights, by hand; what cannot be standardized; gradients of both estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, LoweringError
from qspinn.learning.gradients.codes import coded_weights, sharpness_at
from qspinn.quantization.plan import Granularity, Levels, QuantRule
from qspinn.quantization.weights import channel_tops, nearest_power, weight_codes, weight_format

W = np.array([[1.0, 2.0, 3.0, 6.0], [-0.5, 0.5, -1.5, 1.5]])
"""Channel 0 has mean 3, so its third weight is exactly the mean; channel 1 has mean 0."""


def rule_of(levels: Levels = Levels.BINARY, **settings: Any) -> QuantRule:
    bits = {Levels.BINARY: 1, Levels.TERNARY: 2, Levels.UNIFORM: 8}[levels]
    return QuantRule(
        **{"tensor": "a.w", "bits": bits, "levels": levels, "granularity": Granularity.PER_CHANNEL} | settings
    )


def test_binary_codes_and_steps_by_hand() -> None:
    rule = rule_of()
    assert weight_codes("a.w", W, rule, np.ones(2)).tolist() == [[-1, -1, 1, 1], [-1, 1, -1, 1]]  # 0 becomes +1
    assert channel_tops("a.w", W, rule, 2).tolist() == [1.5, 1.0]
    assert (weight_format(rule).bits, weight_format(rule).code_min, weight_format(rule).code_max) == (1, -1, 1)


def test_without_standardization_the_sign_is_that_of_the_weight() -> None:
    rule = rule_of(standardize=False)
    assert weight_codes("a.w", W, rule, np.ones(2)).tolist() == [[1, 1, 1, 1], [-1, 1, -1, 1]]
    assert channel_tops("a.w", W, rule, 2).tolist() == [3.0, 1.0]


def test_ternary_codes_and_steps_by_hand() -> None:
    """Channel 0, less its mean: -2 -1 0 3, mean size 1.5, limit 1.05; channel 1: limit 0.7."""
    rule = rule_of(Levels.TERNARY)
    assert weight_codes("a.w", W, rule, np.ones(2)).tolist() == [[-1, 0, 0, 1], [0, 0, -1, 1]]
    assert channel_tops("a.w", W, rule, 2).tolist() == [2.5, 1.5]


def test_steps_as_powers_of_two_and_for_all_channels() -> None:
    assert channel_tops("a.w", W, rule_of(power_of_two=True), 2).tolist() == [2.0, 1.0]
    assert channel_tops("a.w", W, rule_of(granularity=Granularity.GLOBAL), 2).tolist() == [1.25]
    assert nearest_power(np.array([0.0, 1.4, 1.42, 0.7, 3.0])).tolist() == [0.0, 1.0, 2.0, 0.5, 4.0]


def test_the_step_makes_the_squared_error_least() -> None:
    w = np.random.default_rng(0).normal(0.1, 1.0, (1, 500))
    rule = rule_of()
    codes, (step,) = weight_codes("a.w", w, rule, np.ones(1)), channel_tops("a.w", w, rule, 1)
    less = w - w.mean()
    errors = [((less - s * codes) ** 2).sum() for s in (step * 0.99, step, step * 1.01)]
    assert errors[1] == min(errors)


def test_neurons_of_a_grid_share_their_channel() -> None:
    """Four neurons in two channels: both rows of a channel are standardized together."""
    w = np.array([[0.0, 1.0], [4.0, 3.0], [1.0, -1.0], [2.0, -2.0]])
    assert weight_codes("a.w", w, rule_of(), np.ones(2)).tolist() == [[-1, -1], [1, 1], [1, -1], [1, -1]]


@pytest.mark.parametrize("levels", [Levels.BINARY, Levels.TERNARY], ids=lambda x: x.value)
@pytest.mark.parametrize(
    ("w", "message"),
    [
        (np.array([[1.0, 2.0], [0.3, 0.3]]), "variance zero in output channel 1"),
        (np.array([[1.0], [2.0]]), "one weight per output channel"),
        (np.ones(3), "one weight per output channel"),
    ],
)
def test_what_cannot_be_standardized_is_named_with_a_fix(w: np.ndarray, message: str, levels: Levels) -> None:
    for call in (
        lambda: weight_codes("conv2.w", w, rule_of(levels), np.ones(len(w))),
        lambda: channel_tops("conv2.w", w, rule_of(levels), len(w)),
    ):
        with pytest.raises(LoweringError, match=rf"conv2\.w: has {message}.*fix: .*standardize = false"):
            call()
    assert weight_codes("conv2.w", w, rule_of(levels, standardize=False), np.ones(len(w))).shape == w.shape


@pytest.mark.parametrize(("levels", "bits"), [(Levels.BINARY, 2), (Levels.TERNARY, 3), (Levels.TERNARY, 1)])
def test_levels_have_their_width(levels: Levels, bits: int) -> None:
    with pytest.raises(ConfigError, match=f"'a.w': bits.*{levels.value}"):
        rule_of(levels, bits=bits)


def gradient(rule: QuantRule, sharpness: float | None, seen: np.ndarray) -> np.ndarray:
    """Of sum(codes * seen)."""
    w = torch.tensor(W, requires_grad=True)
    codes = coded_weights("a.w", w, rule, torch.ones(2, dtype=torch.float64), 0, sharpness)
    assert codes.tolist() == weight_codes("a.w", W, rule, np.ones(2)).tolist()
    torch.autograd.backward((codes * torch.from_numpy(seen)).sum())
    assert w.grad is not None
    return w.grad.numpy()


def test_gradients_go_straight_through_the_standardization() -> None:
    seen = np.array([[1.0, 0.0, 2.0, -1.0], [0.5, 0.0, 0.0, 0.0]])
    found, less, std = gradient(rule_of(), None, seen), W - W.mean(1, keepdims=True), W.std(1, ddof=1, keepdims=True)
    hat = less / std
    through = seen - seen.mean(1, keepdims=True) - hat * (seen * hat).sum(1, keepdims=True) / 3
    np.testing.assert_allclose(found, through / std, rtol=1e-12)


def test_the_annealed_estimator_by_formula() -> None:
    """k t (1 - tanh(t w)**2), k = max(1 / t, 1), of the weight in units of the mean size."""
    rule, size, seen = rule_of(standardize=False), np.abs(W).mean(), np.array([[1.0, 2.0, 0.0, 1.0], [1.0, 1, 1, 1]])
    for progress, t in ((0.0, 0.1), (0.5, 1.0), (1.0, 10.0)):
        assert sharpness_at(progress) == pytest.approx(t)
        expected = seen * max(1 / t, 1) * t * (1 - np.tanh(t * W / size) ** 2) / size
        np.testing.assert_allclose(gradient(rule, t, seen), expected, rtol=1e-9)

"""Codes of real numbers as torch tensors, made by the functions that lowering calls, with gradients that pass through.

Source: straight-through gradients (Bengio et al. 2013); the annealed estimator of binary weights (Qin et al. 2020,
IR-Net), which the code of Q-SNN (Wei et al. 2024) uses.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from qspinn.fixedpoint import QFormat, Rounding, encode
from qspinn.quantization.plan import Levels, QuantRule
from qspinn.quantization.weights import nearest_power, weight_codes

Estimator = Literal["straight_through", "annealed"]
SHARPEST, SOFTEST = 10.0, 0.1


class _Encode(torch.autograd.Function):
    """Codes of real numbers, by `fixedpoint.encode`; gradients pass straight through where nothing is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, fmt: QFormat, rounding: Rounding, low: int, key: int) -> Tensor:
        codes, _ = encode(x.numpy(), fmt, rounding, scale=scale.numpy(), key=key)
        codes = np.maximum(codes, low)
        ctx.save_for_backward(x, scale)
        ctx.limits = (low, fmt.code_max, 2.0**fmt.frac)
        return torch.from_numpy(codes.astype(np.float64))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, scale = ctx.saved_tensors
        low, high, factor = ctx.limits
        y = x / scale * factor
        through = torch.where((y > low - 0.5) & (y < high + 0.5), grad, 0.0) * factor / scale
        of_scale = -(through * x / scale)
        return through.sum_to_size(x.shape), of_scale.sum_to_size(scale.shape), None, None, None, None


def encoded(x: Tensor, scale: Tensor, fmt: QFormat, rounding: Rounding, *, low: int = 0, key: int = 0) -> Tensor:
    """Codes of x / scale as whole numbers in float64, at least `low`."""
    apply: Any = _Encode.apply
    values: Tensor = apply(x, scale, fmt, rounding, low, key)
    return values


class _Sign(torch.autograd.Function):
    """The given codes of standardized weights; gradients pass straight through, or by the annealed estimator."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, codes: Tensor, sharpness: float | None) -> Tensor:
        ctx.save_for_backward(w)
        ctx.sharpness = sharpness
        return codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        t = ctx.sharpness
        if t is None:
            return grad, None, None
        (w,) = ctx.saved_tensors
        return grad * (max(1 / t, 1.0) * t * (1 - torch.tanh(t * w) ** 2)), None, None


def coded_weights(path: str, w: Tensor, rule: QuantRule, step: Tensor, key: int, sharpness: float | None) -> Tensor:
    """Codes of weights w [C or N_post, ...] as whole numbers in float64.

    Args:
        step: of each channel [C].
        key: of the random bits of stochastic rounding.
        sharpness: of the annealed estimator of binary and ternary weights; None: straight through.

    Raises:
        LoweringError: standardization leaves nothing of the weights.
    """
    if rule.levels is Levels.UNIFORM:
        scale = step.repeat_interleave(len(w) // len(step)).view(-1, *[1] * (w.ndim - 1))
        fmt = QFormat(bits=rule.bits, signed=True)
        return encoded(w, scale, fmt, rule.rounding, low=-fmt.code_max, key=key)
    codes = weight_codes(path, w.detach().numpy(), rule, step.detach().numpy(), key)
    rows = w.reshape(len(step), -1)
    if rule.standardize:
        rows = rows - rows.mean(dim=1, keepdim=True)
    rows = rows / rows.std(dim=1, keepdim=True) if rule.standardize else rows / rows.detach().abs().mean()
    apply: Any = _Sign.apply
    values: Tensor = apply(rows, torch.from_numpy(codes.reshape(rows.shape).astype(np.float64)), sharpness)
    return values.view(w.shape)


class _Power(torch.autograd.Function):
    """The nearest power of two; gradients pass straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(nearest_power(x.numpy()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad


def to_power(x: Tensor) -> Tensor:
    """The powers of two nearest to positive x."""
    apply: Any = _Power.apply
    powers: Tensor = apply(x)
    return powers


def sharpness_at(progress: float) -> float:
    """Sharpness t of the annealed estimator at a share 0..1 of the training: from 0.1 to 10 on a scale of powers."""
    return float(SOFTEST * (SHARPEST / SOFTEST) ** progress)

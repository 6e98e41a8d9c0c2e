"""Gradients of `torch_steps`, back in time; the same as `backward_kernel`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qspinn.learning.gradients.kernels.backward import ARCTAN, FAST_SIGMOID
from qspinn.learning.gradients.scan import Scan
from qspinn.learning.gradients.torch_passes.steps import Constants


def back_in_time(
    scan: Scan,
    k: Constants,
    kept: tuple[Tensor, ...],
    spike_grad: Tensor | None,
    v_after_grad: Tensor | None,
    rate_grad: Tensor | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients back in time by what reaches the neurons [B, T, N], by their thresholds and decays [N]; see
    `backward_kernel.back_in_time`."""
    spikes, gap, v_after, i_after, thetas, rows = kept
    grads = torch.empty_like(gap)
    of_level, of_decay = (torch.zeros(gap.shape[2], device=gap.device) for _ in range(2))
    every = 0.0 if rate_grad is None else rate_grad / gap.numel()
    unit, in_scale = (k.vector(x, torch.float32) for x in (scan.unit, scan.in_scale))
    high, w = k.level.float(), None if rows is None else rows.float()
    decay = k.factor(scan.decay * scan.decay_scale, np.float32)
    i_decay = k.factor(scan.i_decay * scan.i_scale, np.float32)
    kept_by_reset, lowered = float(scan.subtract or scan.delayed), float(scan.subtract and not scan.delayed)
    keep_min, keep_max = scan._kept()
    theta = _BackOfTheta(scan, k, thetas)
    g = g_i = back = torch.zeros_like(gap[:, 0])
    for t in range(gap.shape[1] - 1, -1, -1):
        d, fired = gap[:, t], spikes[:, t]
        resting = d == torch.inf
        high = theta.high(t, high)
        g = g if v_after_grad is None else g + v_after_grad[:, t]
        if k.store is not None:
            whole = d + high * (1 - fired * lowered)  # potential at the end of the step
            g = torch.where((whole >= float(keep_min)) & (whole < float(keep_max)) | resting, g, 0)
        back = back if spike_grad is None else back + spike_grad[:, t]
        of_spike = _slope(scan, d, unit) * (theta.through(back) + every)
        of_high = g * fired * lowered + of_spike
        theta.step(t, of_high)
        if needs[2]:
            of_level -= of_high.sum(dim=0)
        after = g * (1 - fired + fired * kept_by_reset) + of_spike
        g = torch.where((d <= scan.v_max - high) & (d >= scan.v_min - high) | resting, after, 0)
        back = torch.where(resting, 0, g) * in_scale
        if scan.delayed and t > 0:
            before = spikes[:, t - 1]
            if scan.subtract:
                theta.later = g * before
                of_level -= theta.later.sum(dim=0) if needs[2] else 0
            else:
                g = g * (1 - before)
        if needs[4] and t > 0:
            of_decay += (g * v_after[:, t - 1]).sum(dim=0)
        g = g * decay
        if scan.has_current:
            i = i_after[:, t]
            back = torch.where((i > scan.i_min) & (i < scan.i_max), back + g_i, 0)
            g_i = back * i_decay
        grads[:, t] = back
        back = torch.zeros_like(back) if w is None else back @ w
    return grads, of_level, of_decay


class _BackOfTheta:
    """Gradients [B, N] back in time by the adaptive parts of thresholds; nothing where thresholds do not adapt.

    later: the gradient, less, by this step's threshold of a reset that took place in the next one.
    """

    def __init__(self, scan: Scan, k: Constants, thetas: Tensor) -> None:
        self.thetas, self.level, self.unit = thetas, k.level.float(), scan.theta_unit
        self.decay, self.top = k.factor(scan.theta_decay * scan.theta_scale, np.float32), scan.theta_max
        self.rise = None if k.theta_step is None else k.theta_step.float()
        self.grad: Tensor | float = 0.0
        self.later: Tensor | float = 0.0

    def high(self, t: int, constant: Tensor) -> Tensor:
        """The thresholds of a step."""
        return constant if self.rise is None else self.level + self.thetas[:, t] * self.unit

    def through(self, back: Tensor) -> Tensor:
        """The gradient by a step's spikes, with that by the thresholds they raise."""
        return back if self.rise is None else back + self.rise * self.grad

    def step(self, t: int, of_high: Tensor) -> None:
        """One step back; of_high is the gradient, less, by the step's thresholds."""
        if self.rise is not None:
            whole = self.decay * self.grad - self.unit * (self.later + of_high)
            self.grad = torch.where(self.thetas[:, t] < self.top, whole, 0)


def _slope(scan: Scan, gap: Tensor, unit: Tensor) -> Tensor:
    """Derivative of the spike by the code of the potential; see `backward_kernel.slopes`."""
    x = gap * unit * scan.width
    if scan.surrogate == ARCTAN:
        return 0.5 * scan.width * unit / (1 + (torch.pi / 2 * x) ** 2)
    if scan.surrogate == FAST_SIGMOID:
        return unit / (1 + x.abs()) ** 2
    return unit * (1 - x.abs()).clamp(min=0)

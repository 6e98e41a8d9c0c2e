"""The neurons of a layer in torch operations, for devices that the compiled kernels do not know (CUDA).

All steps are one node for autograd; what the backward pass needs of them is kept instead of made again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qspinn import former
from qspinn.compiled.scalars import NEAREST, STOCHASTIC, TOWARD_ZERO, TRUNCATE
from qspinn.errors import ConfigError
from qspinn.learning.gradients.kernels.backward import ARCTAN, FAST_SIGMOID, TRIANGLE
from qspinn.learning.gradients.kernels.forward import PLAIN
from qspinn.learning.gradients.scan import Scan
from qspinn.learning.gradients.torch_passes.back import back_in_time
from qspinn.learning.gradients.torch_passes.steps import Constants, lowered, step

KNOWN = frozenset(
    (
        "kind",
        "decay",
        "decay_scale",
        "in_scale",
        "reset",
        "unit",
        "v_min",
        "v_max",
        "strict",
        "subtract",
        "delayed",
        "n_ref",
        "spiking",
        "has_current",
        "i_decay",
        "i_scale",
        "i_min",
        "i_max",
        "theta_step",
        "theta_decay",
        "theta_scale",
        "theta_max",
        "theta_unit",
        "mode",
        "seed",
        "stream",
        "surrogate",
        "width",
        "store_shift",
        "store_min",
        "store_max",
    )
)
"""Fields of `Scan` that these passes obey."""


def serves(device: torch.device) -> bool:
    """Whether layers on a device are computed here, not by the compiled passes.

    Raises:
        ConfigError: by neither.
    """
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            "device",
            "layers are not computed there",
            got=str(device),
            allowed="cpu, cuda",
            fix="move the module and its input to one of them",
        )
    return device.type == "cuda"


def check(scan: Scan) -> None:
    """Nothing is asked of a layer that these passes would leave out.

    Raises:
        ConfigError: something is; named.
    """
    unlike = [
        name
        for name in set(scan._fields) - KNOWN
        if not np.array_equal(getattr(scan, name), scan._field_defaults.get(name, 0))
    ]
    unlike += [] if scan.mode in (PLAIN, TRUNCATE, NEAREST, STOCHASTIC, TOWARD_ZERO) else ["mode"]
    unlike += [] if scan.surrogate in (ARCTAN, FAST_SIGMOID, TRIANGLE) else ["surrogate"]
    if unlike:
        raise ConfigError(
            "device",
            f"training on CUDA does not know {', '.join(sorted(unlike))} of a layer",
            got=[getattr(scan, name) for name in sorted(unlike)],
            fix="train on the CPU, or leave it out",
        )


class ScanResult(NamedTuple):
    """Results of a layer over all steps, [B, T, N]: spikes, potentials after the step, synaptic currents and adaptive
    thresholds, or nothing; mean of spikes."""

    spikes: Tensor
    v_after: Tensor
    i_after: Tensor
    thetas: Tensor
    rate: Tensor


def neurons(
    scan: Scan, total: Tensor, rows: Tensor | None, level: Tensor, bias: Tensor, decay: Tensor, outer: NDArray[np.int64]
) -> ScanResult:
    """The neurons of a layer over all steps.

    Args:
        total: what reaches them, [B, T, N], channel-last; rows [N, N], feedback by target; level, bias [C].
        decay: the factors as real numbers, for their gradient only: one, [C] or [N] in the program's order.
        outer [N]: the numbers under which neurons draw random words.

    Raises:
        ConfigError: the layer has a switch that is not known here.
    """
    check(scan)
    apply: Any = _Neurons.apply
    return ScanResult(*apply(total, rows, level, bias, decay, scan, outer))


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        total: Tensor,
        rows: Tensor | None,
        level: Tensor,
        bias: Tensor,
        decay: Tensor,
        scan: Scan,
        outer: NDArray[np.int64],
    ) -> Any:
        k = Constants(scan, total, level, bias, outer)
        spikes, v_after, gap = (torch.empty(total.shape, device=k.device) for _ in range(3))
        i_after, thetas = (
            torch.empty(total.shape if there else (0, 0, 0), device=k.device)
            for there in (scan.has_current, scan.adapts)
        )
        back = None if rows is None else rows.T.to(k.product)
        drives = total.to(k.kind)
        v = i = theta = torch.zeros_like(drives[:, 0])
        high = k.level.expand_as(v)
        until = torch.zeros(v.shape, dtype=torch.int32, device=k.device)
        for t in range(total.shape[1]):
            drive = drives[:, t]
            if back is not None and t > 0:
                drive = drive + (spikes[:, t - 1].to(k.product) @ back).to(k.kind)
            if scan.has_current:
                i = (k.round_i(i * k.i_decay, t) + drive + k.bias).clamp_(scan.i_min, scan.i_max)
                i_after[:, t] = drive = i
            v = k.round_decay(v * k.decay, t)
            if scan.delayed and t > 0:
                v = lowered(scan, k, v, spikes[:, t - 1], high)
            if k.theta_step is not None:
                if t > 0:
                    theta = k.round_theta(theta * k.theta_decay, t)
                    theta = (theta + spikes[:, t - 1] * k.theta_step).clamp_(0, float(scan.theta_max))
                    high = k.level + theta * float(scan.kind(scan.theta_unit))
                thetas[:, t] = theta
            v, fired, apart, until = step(scan, k, t, v, drive, high, until)
            spikes[:, t], gap[:, t], v_after[:, t] = fired, apart, v
        ctx.save_for_backward(spikes, gap, v_after, i_after, thetas, rows)
        ctx.rest = scan, k, tuple(decay.shape)
        ctx.types = [None if x is None else (x.dtype, x.device) for x in (total, rows, level, bias, decay)]
        ctx.set_materialize_grads(False)
        rate = ((spikes > 0).sum().double() / spikes.numel()).float()
        return spikes, v_after, i_after, thetas, rate

    @staticmethod
    def backward(
        ctx: Any,
        spike_grad: Tensor | None,
        v_after_grad: Tensor | None,
        i_grad: Tensor | None,
        theta_grad: Tensor | None,
        rate_grad: Tensor | None,
    ) -> Any:
        scan, k, decay_shape = ctx.rest
        needs = ctx.needs_input_grad
        grad, level_grad, decay_grad = back_in_time(
            scan, k, ctx.saved_tensors, spike_grad, v_after_grad, rate_grad, needs
        )
        spikes, rows = ctx.saved_tensors[0], ctx.saved_tensors[5]
        bias_grad = grad.sum(dim=(0, 1))
        if not scan.has_current:
            bias_grad /= k.vector(scan.in_scale, torch.float32)
        rows_grad = None
        if rows is not None:  # the spikes of one step meet the currents of the next
            rows_grad = grad[:, 1:].flatten(0, 1).T @ spikes[:, :-1].flatten(0, 1)
        gradients = (
            grad,
            rows_grad,
            _by_channel(level_grad, k) if needs[2] else None,
            _by_channel(bias_grad, k),
            _by_factor(decay_grad, k, decay_shape) if needs[4] else None,
        )
        return (
            *(
                None if g is None else g.to(device=kind[1], dtype=kind[0])
                for g, kind in zip(gradients, ctx.types, strict=True)
            ),
            None,
            None,
        )


def _by_factor(x: Tensor, k: Constants, shape: tuple[int, ...]) -> Tensor:
    """[N], channel-last, as the gradient of decay factors of some shape: of size 1, C or N."""
    by_channel = x.double().view(k.places, -1).T
    if math.prod(shape) == 1:
        return x.sum(dtype=torch.float64).reshape(shape)
    return (by_channel.sum(dim=1) if math.prod(shape) == len(by_channel) else by_channel).reshape(shape)


def _by_channel(x: Tensor, k: Constants) -> Tensor:
    """[N], channel-last, as sums [C]."""
    return x.double().view(k.places, -1).sum(dim=0)


__getattr__ = former.names_of(__name__)

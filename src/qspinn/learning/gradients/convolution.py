"""Convolutions of torch on the CPU, without oneDNN where it writes beyond its memory.

On CPUs with AVX2 and without AVX-512, the weight gradient of oneDNN (torch 2.13.0) overruns its buffer for a few
channels, and the process dies in a later call. There torch's own convolution is taken, forward and backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, int]
FEW = 16
"""Channels below which oneDNN is left out."""


def convolved(x: Tensor, w: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """Cross-correlation of images x [B, C_in, H, W] with w [C_out, C_in / groups, k_y, k_x], differentiable."""
    if not _is_unsafe(x, w):
        return functional.conv2d(x, w, None, stride, padding, dilation, groups)
    result: Tensor = _Plain.apply(x, w, stride, padding, dilation, groups)  # type: ignore[no-untyped-call]
    return result


def gradients(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of `convolved` by x and w, as far as needed."""
    with _without_onednn() if _is_unsafe(x, w) else contextlib.nullcontext():
        by_x, by_w, _ = torch.ops.aten.convolution_backward(
            grad, x, w, None, stride, padding, dilation, False, (0, 0), groups, (*needed, False)
        )
    return by_x, by_w


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Switches oneDNN off for a block (`mkldnn.flags` would also set TF32, which warns on most builds)."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _is_unsafe(x: Tensor, w: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and min(w.shape[:2]) < FEW
        and torch.backends.cpu.get_cpu_capability() not in ("AVX512", "DEFAULT")
    )


class _Plain(torch.autograd.Function):
    """A convolution by torch's own code."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = stride, padding, dilation, groups
        with _without_onednn():
            return functional.conv2d(x, w, None, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w = ctx.saved_tensors
        needed = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        stride, padding, dilation, groups = ctx.geometry
        by_x, by_w = gradients(grad, x, w, stride, padding, dilation, groups, needed)
        return by_x if needed[0] else None, by_w if needed[1] else None, None, None, None, None

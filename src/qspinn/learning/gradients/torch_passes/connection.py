"""A connection in torch operations, for devices that the compiled kernels do not know: codes as exact products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qspinn.learning.gradients.wiring import Wiring, images
from qspinn.runtime.torch_engine.currents import _single_is_exact

WINDOWS = 1 << 26  # numbers of windows that are made at once


def current(wiring: Wiring, x: Tensor, w: Tensor, *, codes: bool) -> Tensor:
    """Currents [B, T, N] of a signal [T, B, C, H, W]; of codes in whole numbers, which must fit the type of w."""
    if codes:
        apply: Any = _Exact.apply
        sums: Tensor = apply(x, w, wiring)
        return sums
    return wiring.dense(x, w)


class _Exact(torch.autograd.Function):
    """A connection as a product over windows: transformed convolutions (Winograd, FFT) are not exact."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, wiring: Wiring) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.wiring = wiring
        pictures, n = images(x), wiring.target[1] * wiring.target[2]
        kind = product_type(w.dtype)
        filters = w.view(wiring.groups, wiring.target[0] // wiring.groups, -1).to(kind)
        sums = torch.empty((len(pictures), n, wiring.target[0]), dtype=w.dtype, device=w.device)
        size = max(1, WINDOWS // (n * filters.shape[0] * filters.shape[2]))
        for a in range(0, len(pictures), size):
            seen = functional.unfold(
                pictures[a : a + size].to(kind), wiring.kernel, wiring.dilation, wiring.padding, wiring.stride
            )
            y = torch.einsum("gok,mgkl->mlgo", filters, seen.view(len(seen), *filters.shape[::2], n))
            sums[a : a + size] = y.flatten(2)
        return sums.view(x.shape[1], x.shape[0], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w = ctx.saved_tensors
        source, weights = ctx.wiring.dense_gradients(grad.contiguous(), x, w, ctx.needs_input_grad[:2])
        return None if source is None else source.to(x.dtype), weights, None


def product_type(kind: torch.dtype) -> torch.dtype:
    """The type in which products of codes are exact where `kind` holds their sums."""
    return kind if _single_is_exact() else torch.float64

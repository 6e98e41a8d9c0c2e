"""Rounding of the torch engine: shifts of whole tensors, and the random words of stochastic rounding and of winners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qspinn.fixedpoint import INDEX_STRIDE, Rounding, stream_key
from qspinn.program import Program
from qspinn.program.ops import LifOp, Stream

Rounder = Callable[[Tensor, int | slice], Tensor]
WORD = 0xFFFFFFFF


def rounder(
    program: Program, op: LifOp, shift: NDArray, stream: Stream, n_steps: int, dtype: torch.dtype, device: torch.device
) -> Rounder:
    """round(x, shift) of a step t, or of all steps for slice(None); shift [1] or [N], negative shifts multiply.

    Every scheme but TOWARD_ZERO adds something and shifts.
    """

    def each(values: NDArray) -> Any:
        return int(values[0]) if len(values) == 1 else torch.from_numpy(values.astype(np.int64)).to(device, dtype)

    if not shift.any():
        return lambda x, t: x
    left, right = each(np.maximum(-shift, 0)), each(np.maximum(shift, 0))
    if shift.max() <= 0:
        return lambda x, t: x << left
    if op.rounding is Rounding.TOWARD_ZERO:
        return lambda x, t: x.sign() * (x.abs() << left >> right)
    if op.rounding is Rounding.STOCHASTIC:
        words = words_of(program.seed, op.stream + stream, n_steps, op.n, device)
        bits = (words >> (32 - right)).to(dtype)
        return lambda x, t: (x << left) + bits[t] >> right
    half = each((1 << np.maximum(shift, 0)) >> 1 if op.rounding is Rounding.NEAREST else np.zeros_like(shift))
    return lambda x, t: (x << left) + half >> right


def words_of(seed: int, stream: int, n_steps: int, n: int, device: torch.device) -> Tensor:
    """The random words of a stream, one per step and neuron, int64 [T, 1, N] below 2**32."""
    keys = torch.tensor([stream_key(seed, stream, t) for t in range(n_steps)], dtype=torch.int64, device=device)
    h = _times(torch.arange(n, device=device), INDEX_STRIDE) ^ keys.view(-1, 1, 1)
    h = _times(h ^ (h >> 16), 0x7FEB352D)
    h = _times(h ^ (h >> 15), 0x846CA68B)
    return h ^ (h >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    """x * factor modulo 2**32, for 0 <= x < 2**32, in halves that stay within int64."""
    return ((x & 0xFFFF) * factor + (((x >> 16) * factor & 0xFFFF) << 16)) & WORD

"""Signals of the torch engine: integers [T, B, n] over a block of samples, and how large a block may be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qspinn.program.ops import PoolOp, pool_shape
from qspinn.spikes import Spikes

ROOM = 1 << 28  # bytes of signals and currents made at once on the CPU; on CUDA a quarter of what is free


class Signal(NamedTuple):
    """Spikes of one signal over a block of samples: integers x [T, B, n], each at most `most`."""

    x: Tensor
    most: int


def room(device: torch.device) -> int:
    """Bytes that may be used at once."""
    return ROOM if device.type == "cpu" else max(ROOM, torch.cuda.mem_get_info(device)[0] // 4)


def raster(spikes: Spikes, device: torch.device) -> Tensor:
    """Events as numbers, uint8 [T, B, n]."""
    n_samples, n_steps = spikes.n_samples, spikes.n_steps
    raster = torch.zeros((n_steps, n_samples, spikes.n), dtype=torch.uint8, device=device)
    if spikes.n_events == 0:
        return raster
    first, stop = int(spikes.offsets.min()), int(spikes.offsets.max())
    offsets = torch.from_numpy(spikes.offsets - first).to(device)
    index = torch.from_numpy(spikes.index[first:stop].astype(np.int64)).to(device)
    length = offsets.diff(dim=1).ravel()
    cell = torch.arange(n_steps * n_samples, device=device).view(n_steps, n_samples).T.ravel()  # of [b, t]: t * B + b
    skipped = offsets[:, :-1].ravel() - (length.cumsum(0) - length)  # samples need not lie one behind the other
    event = torch.arange(int(length.sum()), device=device) + skipped.repeat_interleave(length)
    place = cell.repeat_interleave(length) * spikes.n + index[event]
    if spikes.count is None:
        raster.view(-1)[place] = 1
    else:
        count = torch.from_numpy(spikes.count[first:stop].astype(np.uint8)).to(device)
        raster.view(-1)[place] = count[event]
    return raster


def pooled(op: PoolOp, source: Signal) -> Signal:
    """Sums or maxima over windows: one pass per place in the window."""
    x, most = source.x.view(*source.x.shape[:2], *op.shape), source.most
    _, height, width = pool_shape(op)
    most = most * op.kernel[0] * op.kernel[1] if op.kind == "sum" else most
    total: Tensor | None = None
    for y in range(op.kernel[0]):
        for z in range(op.kernel[1]):
            seen = x[
                ...,
                y : y + (height - 1) * op.stride[0] + 1 : op.stride[0],
                z : z + (width - 1) * op.stride[1] + 1 : op.stride[1],
            ]
            if total is None:
                total = seen.to(int_type(most))
            else:
                total = total + seen if op.kind == "sum" else torch.maximum(total, seen.to(total.dtype))
    assert total is not None
    return Signal(total.flatten(2), most)


def int_type(bound: int) -> torch.dtype:
    """The type in which integers of at most this size are exact; int64 wraps as NumPy's does."""
    return torch.uint8 if bound < 1 << 8 else torch.int32 if bound < 1 << 31 else torch.int64

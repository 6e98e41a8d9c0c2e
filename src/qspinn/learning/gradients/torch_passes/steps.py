"""One step of a layer's neurons in torch operations: the same as `forward_kernel`, to the bit in codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qspinn.compiled.scalars import NEAREST, STOCHASTIC, TOWARD_ZERO
from qspinn.learning.gradients.kernels.forward import BEYOND, PLAIN
from qspinn.learning.gradients.scan import Factor, Scan, laid
from qspinn.learning.gradients.torch_passes.connection import product_type
from qspinn.program.ops import Stream
from qspinn.runtime.torch_engine.rounding import words_of

DTYPES = {np.float32: torch.float32, np.float64: torch.float64}
Rounder = Callable[[Tensor, int], Tensor]


class Constants:
    """Constants of a layer's steps, on the device of its input currents; vectors [N].

    product: the type of feedback; round_decay, round_in, round_i, round_theta, round_store: roundings of potential,
    input, synaptic current, adaptive threshold and what is kept of the potential; store: its unit, or none where it is
    kept as it is; theta_step: by which a spike raises the threshold, or none.
    """

    def __init__(self, scan: Scan, total: Tensor, level: Tensor, bias: Tensor, outer: NDArray[np.int64]) -> None:
        n_steps, n = total.shape[1:]
        self.places, self.device, self.kind = n // len(level), total.device, DTYPES[scan.kind]
        self.level, self.bias = self.vector(level), self.vector(bias)
        self.reset = self.vector(scan.reset)
        self.decay, self.i_decay = self.factor(scan.decay, scan.kind), self.factor(scan.i_decay, scan.kind)
        self.theta_decay = self.factor(scan.theta_decay, scan.kind)
        self.product = self.kind if scan.mode == PLAIN else product_type(self.kind)
        order = torch.from_numpy(outer).to(self.device)

        def rounder(scale: Any, stream: Stream) -> Rounder:
            if np.all(np.asarray(scale) == 1):
                return lambda x, t: x
            return _rounder(scan, self.vector(np.broadcast_to(scale, len(level))), stream, n_steps, order)

        self.round_decay, self.round_in = rounder(scan.decay_scale, Stream.DECAY), rounder(scan.in_scale, Stream.INPUT)
        self.round_i = rounder(scan.i_scale, Stream.CURRENT) if scan.has_current else self.round_in
        self.theta_step = self.vector(scan.theta_step) if scan.adapts else None
        self.round_theta = rounder(scan.theta_scale, Stream.THETA) if scan.adapts else self.round_in
        self.store = None if scan.store_shift is None else 2.0**scan.store_shift
        self.round_store = self.round_in if self.store is None else rounder(1 / self.store, Stream.STORE)

    def vector(self, x: Any, dtype: torch.dtype | None = None) -> Tensor:
        """A number per channel as one per neuron."""
        each = x.detach() if isinstance(x, Tensor) else torch.tensor(np.asarray(x, np.float64))
        return each.to(self.device, dtype or self.kind).repeat(self.places)

    def factor(self, x: Factor, kind: Any) -> float | Tensor:
        """Decay factors: a number where there is one, else a vector [N], channel-last."""
        if np.size(x) == 1:
            return float(kind(np.ravel(x)[0]))
        return torch.from_numpy(laid(x, len(self.level) // self.places, self.places, kind)).to(self.device)


def _rounder(scan: Scan, scale: Tensor, stream: Stream, n_steps: int, outer: Tensor) -> Rounder:
    """round(x * scale) of a step; see `forward_kernel.round_all`."""
    if scan.mode == PLAIN:
        return lambda x, t: x * scale
    if scan.mode == TOWARD_ZERO:
        return lambda x, t: (x * scale).trunc_()
    if scan.mode == STOCHASTIC:
        words = words_of(scan.seed, scan.stream + stream, n_steps, len(outer), outer.device)[:, 0, outer]
        bits = (words.double() * 2.0**-32 / scale).floor_() * scale  # as many as the shift drops
        return lambda x, t: (x * scale + bits[t]).floor_()
    half = 0.5 if scan.mode == NEAREST else 0.0
    return lambda x, t: (x * scale + half).floor_()


def lowered(scan: Scan, k: Constants, v: Tensor, fired: Tensor, high: Tensor) -> Tensor:
    """Potentials [B, N] after the reset of the neurons that spiked."""
    return torch.where(fired > 0, v - high if scan.subtract else k.reset, v)


def step(
    scan: Scan, k: Constants, t: int, v: Tensor, drive: Tensor, high: Tensor, until: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Potential after a step, spikes, distance from threshold and first step without rest, [B, N] each, given the
    decayed potential and the thresholds; codes, or real numbers where nothing is rounded."""
    constant = torch.zeros_like(k.bias) if scan.has_current else k.bias
    drive = k.round_in(drive, t)
    resting = until > t
    if scan.n_ref:
        drive = torch.where(resting, -constant, drive)
    free = v + drive + constant
    v = free.clamp(scan.v_min, scan.v_max)
    d = (v - high).float()
    apart = d + float(BEYOND) * ((free > scan.v_max).float() - (free < scan.v_min).float())
    crossing = (d > 0 if scan.strict else d >= 0) if scan.spiking else torch.zeros_like(d)
    fired = torch.where(d == d, crossing.float(), d)  # what is no number is passed on, to be noticed
    if scan.n_ref:
        fired, apart = fired.masked_fill_(resting, 0), apart.masked_fill_(resting, torch.inf)
        until = torch.where(fired > 0, t + scan.n_ref + 1, until)
    if not scan.delayed:
        v = lowered(scan, k, v, fired, high)
    if k.store is not None:
        v = k.round_store(v, t).clamp(scan.store_min, scan.store_max) * k.store
    return v, fired, apart, until

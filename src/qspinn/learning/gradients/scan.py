"""Constants of a layer's neurons for a pass over time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.scalars import NEAREST

Factor = float | NDArray


class Scan(NamedTuple):
    """Constants of a layer for a pass over time, besides tensors that carry gradients; see `kernels.forward.advance`.

    Attributes:
        kind: np.float32 or np.float64, in which the forward pass computes.
        decay, decay_scale: factor of the potential, as a code and 2**-shift (a real factor and 1). Factors, this and
            the two below, are a number for all neurons, [C] or, in the program's order, [N].
        in_scale, reset, unit: [C]; unit is the real number a code of the potential stands for.
        delayed: a spike's reset takes place in the next step.
        has_current: a synaptic current with factor i_decay * i_scale within i_min..i_max.
        theta_step: by which a spike raises the threshold's adaptive part, [C], or [0] without one; that has the factor
            theta_decay * theta_scale, stays below theta_max and counts theta_unit codes of the potential.
        mode: rounding mode of `runtime.arithmetic`, or PLAIN.
        store_shift, store_min, store_max: bits dropped from what is kept between steps, and the codes that can be
            kept; no shift where it is kept as it is.
    """

    kind: Any
    decay: Factor
    decay_scale: float
    in_scale: NDArray
    reset: NDArray
    unit: NDArray
    v_min: float
    v_max: float
    strict: bool
    subtract: bool
    delayed: bool
    n_ref: int
    spiking: bool
    has_current: bool
    i_decay: Factor
    i_scale: float
    i_min: float
    i_max: float
    theta_step: NDArray
    theta_decay: Factor
    theta_scale: float
    theta_max: float
    theta_unit: float
    mode: int
    seed: int
    stream: int
    surrogate: int
    width: float
    store_shift: int | None = None
    store_min: int = 0
    store_max: int = 0

    @property
    def adapts(self) -> bool:
        """Whether thresholds adapt."""
        return self.theta_step.size > 0

    @property
    def shares_decay(self) -> bool:
        """Whether the potentials of all neurons decay by one factor."""
        return np.size(self.decay) == 1

    def step(self, level: NDArray, bias: NDArray, places: int) -> tuple:
        """Argument of `advance`; level, bias [C]."""
        f = self.kind
        same = self.in_scale[:1] if np.all(self.in_scale == self.in_scale[0]) else tiled(self.in_scale, places, f)
        return (
            laid(self.decay, len(level), places, f),
            np.array([self.decay_scale], f),
            same.astype(f),
            tiled(level, places, f),
            tiled(bias, places, f),
            tiled(self.reset, places, f),
            f(self.v_min),
            f(self.v_max),
            self.strict,
            self.subtract,
            self.delayed,
            self.n_ref,
            self.spiking,
            laid(self.i_decay, len(level), places, f),
            np.array([self.i_scale], f),
            f(self.i_min),
            f(self.i_max),
            tiled(self.theta_step, places, f),
            laid(self.theta_decay, len(level), places, f),
            np.array([self.theta_scale], f),
            f(self.theta_max),
            f(self.theta_unit),
            self.mode,
            np.uint32(self.seed),
            self.stream,
            np.full(0 if self.store_shift is None else 1, 2.0 ** -(self.store_shift or 0), f),
            f(self.store_min),
            f(self.store_max),
        )

    def factors(self, level: NDArray, places: int) -> tuple:
        """Argument of `back_in_time`; level [C]."""
        f = np.float32
        return (
            laid(self.decay * self.decay_scale, len(level), places, f),
            tiled(self.in_scale, places, f),
            tiled(level, places, f),
            tiled(self.unit, places, f),
            f(self.v_min),
            f(self.v_max),
            self.subtract,
            self.delayed,
            laid(self.i_decay * self.i_scale, len(level), places, f),
            f(self.i_min),
            f(self.i_max),
            tiled(self.theta_step, places, f),
            laid(self.theta_decay * self.theta_scale, len(level), places, f),
            f(self.theta_max),
            f(self.theta_unit),
            self.surrogate,
            f(self.width),
            *self._kept(),
        )

    def fast_step(self, level: NDArray, bias: NDArray, places: int) -> tuple:
        """Argument of `kernels.fast.forward`; level, bias [C]."""
        f = np.float32
        half = f(0.5 if self.mode == NEAREST else 0)
        return (
            f(np.ravel(self.decay)[0]),
            f(self.decay_scale),
            half,
            tiled(self.in_scale, places, f),
            tiled(level, places, f),
            tiled(bias, places, f),
            f(self.v_min),
            f(self.v_max),
            self.strict,
        )

    def fast_factors(self, places: int) -> tuple:
        """Argument of `kernels.fast.backward`."""
        f = np.float32
        return (
            f(np.ravel(self.decay * self.decay_scale)[0]),
            tiled(self.in_scale, places, f),
            tiled(self.unit, places, f),
            self.surrogate,
            f(self.width),
        )

    def _kept(self) -> tuple[np.float32, np.float32]:
        """Potentials from the first up to the second are rounded, not clipped, to what is kept."""
        if self.store_shift is None:
            return np.float32(-np.inf), np.float32(np.inf)
        unit = 2.0**self.store_shift
        return np.float32((self.store_min - 0.5) * unit), np.float32((self.store_max + 0.5) * unit)


def tiled(x: NDArray, places: int, kind: Any) -> NDArray:
    """Numbers by channel, [C], as numbers by neuron, [N], channel-last."""
    tiles = np.empty((places, len(x)), kind)
    tiles[:] = x
    return tiles.reshape(-1)


def laid(x: Factor, n_channels: int, places: int, kind: Any) -> NDArray:
    """Factors, for all neurons alike, [C] or, channel after channel, [N]: as [1], or by neuron [N], channel-last."""
    each = np.atleast_1d(np.asarray(x))
    if each.size == 1:
        return each.reshape(1).astype(kind)
    if each.size == n_channels:
        return tiled(each, places, kind)
    return np.ascontiguousarray(each.reshape(n_channels, places).T, dtype=kind).reshape(-1)


def gathered(x: NDArray, n_channels: int, shape: tuple[int, ...]) -> NDArray:
    """Sums by neuron [N], channel-last, as sums by factor; the inverse of how `laid` hands factors out.

    Args:
        shape: of the factors, of size 1, C or N.
    """
    by_channel = x.astype(np.float64).reshape(-1, n_channels).T
    size = int(np.prod(shape))
    total = by_channel.sum() if size == 1 else by_channel.sum(axis=1) if size == n_channels else by_channel
    return np.reshape(total, shape)


def outer_numbers(n_channels: int, places: int) -> NDArray[np.int64]:
    """Number of each neuron, channel after channel, by its place in channel-last memory."""
    return np.ascontiguousarray(np.arange(n_channels * places).reshape(n_channels, places).T).reshape(-1)

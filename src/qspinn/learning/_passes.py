"""A layer's passes over time, forward and backward: what they need to know, and which kernels compute them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.learning import _scan_kernel as general
from qspinn.learning import _usual_kernel as usual
from qspinn.runtime._vectors import FLOATS
from qspinn.runtime.arithmetic import NEAREST, TRUNCATE


class Scan(NamedTuple):
    """What a pass needs to know of a layer besides tensors that carry gradients; see `_scan_kernel.advance`.

    Attributes:
        kind: np.float32 or np.float64, in which the forward pass computes.
        decay, decay_scale: factor of the potential, as a code and 2**-shift (a real factor and 1).
        in_scale, reset, unit: [C]; unit is the real number a code of the potential stands for.
        has_current: a synaptic current with factor i_decay * i_scale within i_min..i_max.
        mode: rounding mode of `runtime.arithmetic`, or PLAIN.
        store_shift, store_min, store_max: bits dropped from what is kept between steps, and the codes that can be
            kept; no shift where it is kept as it is.
    """

    kind: Any
    decay: float
    decay_scale: float
    in_scale: NDArray
    reset: NDArray
    unit: NDArray
    v_min: float
    v_max: float
    strict: bool
    subtract: bool
    n_ref: int
    spiking: bool
    has_current: bool
    i_decay: float
    i_scale: float
    i_min: float
    i_max: float
    mode: int
    seed: int
    stream: int
    surrogate: int
    width: float
    store_shift: int | None = None
    store_min: int = 0
    store_max: int = 0

    def step(self, level: NDArray, bias: NDArray, places: int) -> tuple:
        """Argument of `advance`; level, bias [N]."""
        f = self.kind
        same = self.in_scale[:1] if np.all(self.in_scale == self.in_scale[0]) else np.tile(self.in_scale, places)
        return (f(self.decay), np.array([self.decay_scale], f), same.astype(f), level, bias,
                np.tile(self.reset, places).astype(f), f(self.v_min), f(self.v_max), self.strict, self.subtract,
                self.n_ref, self.spiking, f(self.i_decay), np.array([self.i_scale], f), f(self.i_min), f(self.i_max),
                self.mode, np.uint32(self.seed), self.stream,
                np.full(0 if self.store_shift is None else 1, 2.0 ** -(self.store_shift or 0), f), f(self.store_min),
                f(self.store_max))

    def factors(self, level: NDArray, places: int) -> tuple:
        """Argument of `back_in_time`."""
        f = np.float32
        return (f(self.decay * self.decay_scale), np.tile(self.in_scale, places).astype(f), level.astype(f),
                np.tile(self.unit, places).astype(f), f(self.v_min), f(self.v_max), self.subtract,
                f(self.i_decay * self.i_scale), f(self.i_min), f(self.i_max), self.surrogate, f(self.width),
                *self._kept())

    def _kept(self) -> tuple[np.float32, np.float32]:
        """Potentials from the first up to the second are rounded, not clipped, to what is kept."""
        if self.store_shift is None:
            return np.float32(-np.inf), np.float32(np.inf)
        unit = 2.0**self.store_shift
        return np.float32((self.store_min - 0.5) * unit), np.float32((self.store_max + 0.5) * unit)


class Passes:
    """The passes of one layer on one input. By `_usual_kernel` where the layer is of that kind.

    Args:
        step: `scan.step`; outer [N]: the numbers under which neurons draw random words.
        current [B, T, N], gain [N] or none, rows [N, N] or none: as `_scan_kernel.codes_forward` takes them.
    """

    def __init__(self, scan: Scan, step: tuple, outer: NDArray, current: NDArray, gain: NDArray, rows: NDArray) -> None:
        self.scan, self.step, self.outer = scan, step, outer
        self.current, self.gain, self.rows = current, gain, rows
        plain = scan.mode == general.PLAIN
        self.codes = not plain
        self.usual = (
            scan.kind is np.float32 and scan.spiking and scan.subtract and scan.n_ref == 0 and not scan.has_current
            and scan.store_shift is None and rows.size == 0 and current.shape[2] % FLOATS == 0
            and scan.mode in (general.PLAIN, NEAREST, TRUNCATE) and not (plain and np.any(scan.in_scale != 1)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.current.shape[1], self.current.shape[2]

    def _step(self) -> tuple:
        """As the usual kernels take it."""
        decay, decay_scale, in_scale, level, bias, _, v_min, v_max, strict, *_ = self.step
        half = np.float32(0.5 if self.scan.mode == NEAREST else 0)
        scale = np.ascontiguousarray(np.broadcast_to(in_scale, level.shape))
        return decay, decay_scale[0], half, scale, level, bias, v_min, v_max, strict

    def forward(self, start: int, stop: int, spikes: NDArray, left: NDArray, i_left: NDArray) -> int:
        """Samples start..stop; see `_scan_kernel.codes_forward`."""
        if not self.usual:
            return general.codes_forward(self.current, self.gain, self.rows, start, stop, self.step, self.outer, spikes,
                                         left, i_left)
        return usual.forward(self.current.reshape(-1), self.gain, start, stop, self.shape, self._step(), self.codes,
                             spikes.reshape(-1), left.reshape(-1))

    def backward(
        self, spike_grad: NDArray, every_spike: np.float32, left_grad: NDArray, by_target: NDArray, normed: NDArray,
        around: NDArray, start: int, stop: int, factors: tuple, current_grad: NDArray, level_grad: NDArray,
        bias_grad: NDArray, decay_grad: NDArray, products: NDArray,
    ) -> None:
        """Samples start..stop; see `_scan_kernel.codes_backward`."""
        if not self.usual:
            general.codes_backward(
                spike_grad, every_spike, left_grad, self.current, self.gain, self.rows, by_target.astype(np.float32),
                normed, around, start, stop, self.step, self.outer, factors, self.scan.has_current, current_grad,
                level_grad, bias_grad, decay_grad, products)
            return
        slope, scale, _, unit, *_, kind, width, _, _ = factors
        usual.backward(
            spike_grad.reshape(-1), every_spike, left_grad.reshape(-1), self.current.reshape(-1), self.gain,
            normed.reshape(-1), around, start, stop, self.shape, self._step(), self.codes,
            (slope, scale, unit, kind, width), current_grad.reshape(-1), level_grad, bias_grad, decay_grad, products)

"""Which kernels compute a layer's passes over time, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.learning.passes import backward_kernel, forward_kernel
from qspinn.learning.passes import usual_kernel as usual
from qspinn.learning.passes.forward_kernel import PLAIN
from qspinn.learning.passes.scan import Scan
from qspinn.runtime._vectors import FLOATS
from qspinn.runtime.arithmetic import NEAREST, TRUNCATE


class Passes:
    """The passes of one layer on one input. By `usual_kernel` where the layer is of that kind.

    Args:
        step: `scan.step`; outer [N]: the numbers under which neurons draw random words.
        current [B, T, N], gain [N] or none, rows [N, N] or none: as `forward_kernel.codes_forward` takes them.
    """

    def __init__(self, scan: Scan, step: tuple, outer: NDArray, current: NDArray, gain: NDArray, rows: NDArray) -> None:
        self.scan, self.step, self.outer = scan, step, outer
        self.current, self.gain, self.rows = current, gain, rows
        plain = scan.mode == PLAIN
        self.codes = not plain
        self.usual = (
            scan.kind is np.float32 and scan.spiking and scan.subtract and scan.n_ref == 0 and not scan.has_current
            and not scan.delayed and not scan.adapts and scan.store_shift is None and rows.size == 0
            and current.shape[2] % FLOATS == 0
            and scan.mode in (PLAIN, NEAREST, TRUNCATE) and not (plain and np.any(scan.in_scale != 1)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.current.shape[1], self.current.shape[2]

    def _step(self) -> tuple:
        """As the usual kernels take it."""
        decay, decay_scale, in_scale, level, bias, _, v_min, v_max, strict, *_ = self.step
        half = np.float32(0.5 if self.scan.mode == NEAREST else 0)
        scale = np.ascontiguousarray(np.broadcast_to(in_scale, level.shape))
        return decay, decay_scale[0], half, scale, level, bias, v_min, v_max, strict

    def forward(self, start: int, stop: int, spikes: NDArray, left: NDArray, i_left: NDArray, thetas: NDArray) -> int:
        """Samples start..stop; see `forward_kernel.codes_forward`."""
        if not self.usual:
            return forward_kernel.codes_forward(self.current, self.gain, self.rows, start, stop, self.step, self.outer,
                                                spikes, left, i_left, thetas)
        return usual.forward(self.current.reshape(-1), self.gain, start, stop, self.shape, self._step(), self.codes,
                             spikes.reshape(-1), left.reshape(-1))

    def backward(
        self, spike_grad: NDArray, every_spike: np.float32, left_grad: NDArray, by_target: NDArray, normed: NDArray,
        around: NDArray, start: int, stop: int, factors: tuple, current_grad: NDArray, level_grad: NDArray,
        bias_grad: NDArray, decay_grad: NDArray, products: NDArray,
    ) -> None:
        """Samples start..stop; see `backward_kernel.codes_backward`."""
        if not self.usual:
            backward_kernel.codes_backward(
                spike_grad, every_spike, left_grad, self.current, self.gain, self.rows, by_target.astype(np.float32),
                normed, around, start, stop, self.step, self.outer, factors, self.scan.has_current,
                self.scan.adapts, current_grad, level_grad, bias_grad, decay_grad, products)
            return
        slope, scale, _, unit, *_, kind, width, _, _ = factors
        usual.backward(
            spike_grad.reshape(-1), every_spike, left_grad.reshape(-1), self.current.reshape(-1), self.gain,
            normed.reshape(-1), around, start, stop, self.shape, self._step(), self.codes,
            (slope, scale, unit, kind, width), current_grad.reshape(-1), level_grad, bias_grad, decay_grad, products)

"""Choice of the kernels that compute a layer's passes over time, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.scalars import NEAREST, TRUNCATE
from qspinn.compiled.vectors import FLOATS, LINE
from qspinn.learning.gradients.kernels import backward as backward_kernel
from qspinn.learning.gradients.kernels import fast
from qspinn.learning.gradients.kernels import forward as forward_kernel
from qspinn.learning.gradients.kernels.forward import PLAIN
from qspinn.learning.gradients.scan import Scan, outer_numbers

PAST = 1 << 22
"""Bytes of an array that is not likely to stay in the caches until the next pass reads it."""


def goes_past(x: NDArray) -> bool:
    """Whether an array is stored past the caches; it must begin at a cache line."""
    return x.nbytes >= PAST and x.ctypes.data % LINE == 0


class Passes:
    """The passes of one layer on one input. By `kernels.fast` where the layer is of that kind.

    Args:
        level, bias [C]: as `Scan.step` takes them.
        current [B, T, N], gain [N] or none, rows [N, N] or none: as `forward_kernel.codes_forward` takes them.
    """

    def __init__(
        self, scan: Scan, level: NDArray, bias: NDArray, current: NDArray, gain: NDArray, rows: NDArray
    ) -> None:
        self.scan, self.level, self.bias = scan, level, bias
        self.current, self.gain, self.rows = current, gain, rows
        self.places = current.shape[2] // len(level)
        plain = scan.mode == PLAIN
        self.codes = not plain
        self.fast = (
            scan.kind is np.float32
            and scan.shares_decay
            and scan.spiking
            and scan.subtract
            and scan.n_ref == 0
            and not scan.has_current
            and not scan.delayed
            and not scan.adapts
            and scan.store_shift is None
            and rows.size == 0
            and current.shape[2] % FLOATS == 0
            and scan.mode in (PLAIN, NEAREST, TRUNCATE)
            and not (plain and (np.any(scan.in_scale != 1) or max(scan.v_min, -scan.v_max) > -np.inf))
        )

    @cached_property
    def _fast_step(self) -> tuple:
        return self.scan.fast_step(self.level, self.bias, self.places)

    @cached_property
    def _step(self) -> tuple:
        return self.scan.step(self.level, self.bias, self.places)

    @cached_property
    def _outer(self) -> NDArray[np.int64]:
        return outer_numbers(len(self.level), self.places)

    def forward(
        self, spikes: NDArray, v_after: NDArray, i_after: NDArray, thetas: NDArray
    ) -> Callable[[int, int, int], int]:
        """Function that computes samples start..stop, given a part's number, start and stop; see
        `kernels.forward.codes_forward`."""
        if not self.fast:
            return lambda _, start, stop: forward_kernel.codes_forward(
                self.current,
                self.gain,
                self.rows,
                start,
                stop,
                self._step,
                self._outer,
                spikes,
                v_after,
                i_after,
                thetas,
            )
        current, shape, step = self.current.reshape(-1), self.current.shape[1:], self._fast_step
        to = spikes.reshape(-1), v_after.reshape(-1)
        return lambda _, start, stop: fast.forward(current, self.gain, start, stop, shape, step, self.codes, *to)

    def backward(
        self,
        spike_grad: NDArray,
        every_spike: np.float32,
        v_after_grad: NDArray,
        by_target: NDArray,
        normed: NDArray,
        around: NDArray,
        current_grad: NDArray,
        level_grad: NDArray,
        bias_grad: NDArray,
        decay_grad: NDArray,
        products: NDArray,
    ) -> Callable[[int, int, int], None]:
        """Likewise; see `backward_kernel.codes_backward`. Of what is added to, every part has a row."""
        sums = level_grad, bias_grad, decay_grad, products
        if not self.fast:
            by_target, factors = by_target.astype(np.float32), self.scan.factors(self.level, self.places)
            return lambda number, start, stop: backward_kernel.codes_backward(
                spike_grad,
                every_spike,
                v_after_grad,
                self.current,
                self.gain,
                self.rows,
                by_target,
                normed,
                around,
                start,
                stop,
                self._step,
                self._outer,
                factors,
                self.scan.has_current,
                self.scan.adapts,
                current_grad,
                *(x[number] for x in sums),
            )
        shape, fixed = (
            self.current.shape[1:],
            (self._fast_step, self.codes, self.scan.fast_factors(self.places), goes_past(current_grad)),
        )
        up, across, current, seen, to = (
            x.reshape(-1) for x in (spike_grad, v_after_grad, self.current, normed, current_grad)
        )
        return lambda number, start, stop: fast.backward(
            up,
            every_spike,
            across,
            current,
            self.gain,
            seen,
            around,
            start,
            stop,
            shape,
            *fixed,
            to,
            *(x[number] for x in sums),
        )

"""A layer of leaky neurons over all steps as one node for autograd, on top of the compiled passes."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qspinn.errors import ConfigError
from qspinn.learning import _scan_kernel as kernels

_POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
_NONE = np.zeros((0, 0, 0), np.float32)
_SMALL = 1 << 14  # numbers under which a second thread costs more than it saves


class Scan(NamedTuple):
    """What a pass needs to know of a layer besides tensors that carry gradients; see `_scan_kernel.codes_forward`.

    Attributes:
        kind: np.float32 or np.float64, in which the forward pass computes.
        decay, decay_scale: factor of the potential, as a code and 2**-shift (a real factor and 1).
        in_scale, reset, unit: [N]; unit is the real number a code of the potential stands for.
        has_current: a synaptic current with factor i_decay * i_scale within i_min..i_max.
        mode: rounding mode of `runtime.arithmetic`, or PLAIN.
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

    def forward_arguments(self, level: NDArray, bias: NDArray) -> tuple:
        f = self.kind
        same = self.in_scale[:1] if np.all(self.in_scale == self.in_scale[0]) else self.in_scale
        return (f(self.decay), np.array([self.decay_scale], f), same.astype(f), level, bias, self.reset.astype(f),
                f(self.v_min), f(self.v_max), self.strict, self.subtract, self.n_ref, self.spiking, f(self.i_decay),
                np.array([self.i_scale], f), f(self.i_min), f(self.i_max), self.mode, np.uint32(self.seed), self.stream)

    def backward_arguments(self, level: NDArray) -> tuple:
        f = np.float32
        return (f(self.decay * self.decay_scale), self.in_scale.astype(f), level.astype(f), self.unit.astype(f),
                f(self.v_min), f(self.v_max), self.subtract, f(self.i_decay * self.i_scale), f(self.i_min),
                f(self.i_max), self.surrogate, f(self.width))


def neurons(current: Tensor, rows: Tensor, level: Tensor, bias: Tensor, decay: Tensor, scan: Scan
            ) -> tuple[Tensor, Tensor, Tensor]:
    """(spikes, potentials left after each step, synaptic currents or nothing), float32 [T, B, N].

    Args:
        current: what reaches each neuron, [T, B, N], without feedback.
        rows: weights [N, N] of the layer's own spikes of the step before, by target; [0, 0] without feedback.
        level, bias: [N]; threshold, and constant input (to the synaptic current where there is one).
        decay: the factor as a real number, for its gradient only.

    Raises:
        ConfigError: the tensors are not on the CPU.
    """
    if current.device.type != "cpu":
        raise ConfigError("device", "training runs on the CPU: its passes over time are compiled for it",
                          got=str(current.device), allowed="cpu", fix="move the module and its input to the CPU")
    apply: Any = _Neurons.apply
    found: tuple[Tensor, Tensor, Tensor] = apply(current.contiguous(), rows, level, bias, decay, scan)
    return found


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, rows: Tensor, level: Tensor, bias: Tensor, decay: Tensor, scan: Scan) -> Any:
        x, w = current.numpy(), np.ascontiguousarray(rows.numpy(), dtype=scan.kind)
        levels, biases = (np.ascontiguousarray(a.numpy(), dtype=scan.kind) for a in (level, bias))
        spikes, gap, left = (np.empty(x.shape, np.float32) for _ in range(3))
        i_left = np.empty(x.shape, np.float32) if scan.has_current else _NONE
        by_source, arguments = np.ascontiguousarray(w.T), scan.forward_arguments(levels, biases)
        _split(x.shape, lambda a, b: kernels.codes_forward(x, by_source, a, b, *arguments, spikes, gap, left, i_left))
        ctx.kept = (spikes, gap, left, i_left, w.astype(np.float32), levels, scan)
        ctx.types = (current.dtype, rows.dtype, level.dtype, bias.dtype, decay.dtype)
        ctx.set_materialize_grads(False)
        return torch.from_numpy(spikes), torch.from_numpy(left), torch.from_numpy(i_left)

    @staticmethod
    def backward(ctx: Any, spike_grad: Tensor | None, left_grad: Tensor | None, i_grad: Tensor | None) -> Any:
        spikes, gap, left, i_left, w, levels, scan = ctx.kept
        up = np.zeros_like(spikes) if spike_grad is None else np.ascontiguousarray(spike_grad.numpy())
        across = _NONE if left_grad is None else np.ascontiguousarray(left_grad.numpy(), dtype=np.float32)
        current_grad = np.empty_like(spikes)
        arguments, sums = scan.backward_arguments(levels), {}

        def work(a: int, b: int) -> None:
            own = np.zeros((2, spikes.shape[2]), np.float32)
            of_decay = np.zeros(spikes.shape[2] if ctx.needs_input_grad[4] else 0, np.float32)
            kernels.codes_backward(up, across, spikes, gap, left, i_left, w, a, b, *arguments, current_grad, *own,
                                   of_decay)
            sums[a] = own, of_decay

        _split(spikes.shape, work)
        parts = [sums[a] for a in sorted(sums)]  # in one order, so that sums repeat
        level_grad, bias_grad = torch.from_numpy(np.sum([own for own, _ in parts], axis=0))
        decay_grad = torch.tensor(float(np.sum([x.sum(dtype=np.float64) for _, x in parts])))
        grad, rows_grad = torch.from_numpy(current_grad), None
        if w.size:  # the spikes of one step meet the currents of the next
            rows_grad = grad[1:].flatten(0, 1).T @ torch.from_numpy(spikes)[:-1].flatten(0, 1)
        found = (grad, rows_grad, level_grad, bias_grad, decay_grad)
        return *(None if g is None else g.to(kind) for g, kind in zip(found, ctx.types, strict=True)), None


def _split(shape: tuple[int, ...], work: Callable[[int, int], None]) -> None:
    """Runs work(start, stop) over parts of the samples of [T, B, N] on all cores."""
    batch = shape[1]
    n = min(os.cpu_count() or 1, batch) if shape[0] * batch * shape[2] > _SMALL else 1
    edges = [batch * i // n for i in range(n + 1)]
    if n == 1:
        work(0, batch)
    else:
        list(_POOL.map(work, edges[:-1], edges[1:]))

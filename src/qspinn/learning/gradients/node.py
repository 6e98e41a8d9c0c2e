"""A layer over all steps as one node for autograd: a connection, its normalization, and the neurons, on top of the
compiled passes. Only the connection's currents are kept for the backward pass, which runs the neurons again. On other
devices than the CPU the same is a few nodes of torch operations, see `torch_neurons`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qspinn import former
from qspinn.compiled.vectors import aligned
from qspinn.learning.gradients.choice import Passes
from qspinn.learning.gradients.kernels import conv as feeding
from qspinn.learning.gradients.kernels import conv_back as returning
from qspinn.learning.gradients.kernels.forward import PLAIN
from qspinn.learning.gradients.scan import Scan, gathered, outer_numbers, tiled
from qspinn.learning.gradients.torch_passes import connection as torch_connection
from qspinn.learning.gradients.torch_passes import neurons as torch_neurons
from qspinn.learning.gradients.wiring import (
    CROWDED,
    NonZeros,
    Scratch,
    Wiring,
    images,
    non_zeros_of,
    parts,
    run,
    shaped,
    taps,
)
from qspinn.networks.layered import Shape

_NONE = np.zeros(0, np.float32)
_NONE_2, _NONE_3 = _NONE.reshape(0, 0), _NONE.reshape(0, 0, 0)


class Plan(NamedTuple):
    """Computation of one layer: shape, neurons, scratch memory.

    Attributes:
        wiring: of the connection that is part of the node, if any.
        norm: normalization of that connection.
        keeps: potentials after the step are returned.
    """

    shape: Shape
    scan: Scan
    scratch: Scratch
    wiring: Wiring | None = None
    norm: nn.BatchNorm2d | None = None
    keeps: bool = True

    @property
    def places(self) -> int:
        """Number of places of a map."""
        return self.shape[1] * self.shape[2]


class LayerResult(NamedTuple):
    """Results of a layer over all steps, [T, B, C, H, W] each.

    Spikes, potentials after the step (if kept), synaptic currents and adaptive thresholds (empty where there are none);
    rate: mean of the spikes.
    """

    spikes: Tensor
    v_after: Tensor | None
    i_after: Tensor
    thetas: Tensor
    rate: Tensor


def advance(
    plan: Plan,
    x: Tensor | None,
    w: Tensor | None,
    extra: Tensor | None,
    rows: Tensor | None,
    level: Tensor,
    bias: Tensor,
    decay: Tensor,
) -> LayerResult:
    """A layer over all steps.

    Args:
        x, w: the signal [T, B, C, H, W] and weights of the plan's connection; None without one.
        extra: what else reaches each neuron, [B, T, N] as it lies in memory; None for nothing.
        rows: weights [N, N] of the layer's own spikes of the step before, by target, channel-last.
        level, bias: [C]; threshold, and constant input (to the synaptic current where there is one).
        decay: the factors as real numbers, for their gradient only: one, [C] or [N] in the program's order.

    Raises:
        ConfigError: the tensors are neither on the CPU nor on a CUDA device, or the latter lacks a switch of the layer.
    """
    if torch_neurons.serves(next(t for t in (x, extra) if t is not None).device):
        return _advance_by_torch(plan, x, w, extra, rows, level, bias, decay)
    gamma, beta = (plan.norm.weight, plan.norm.bias) if plan.norm is not None else (None, None)
    spikes, v_after, i_after, thetas, rate = _apply(x, w, gamma, beta, extra, rows, level, bias, decay, plan)
    return _layer_result(plan, spikes, v_after, i_after, thetas, rate)


def _layer_result(
    plan: Plan, spikes: Tensor, v_after: Tensor, i_after: Tensor, thetas: Tensor, rate: Tensor
) -> LayerResult:
    """From [B, T, N]."""
    i_after, thetas = (shaped(x, plan.shape) if x.numel() else x for x in (i_after, thetas))
    return LayerResult(
        shaped(spikes, plan.shape), shaped(v_after, plan.shape) if plan.keeps else None, i_after, thetas, rate
    )


def _advance_by_torch(
    plan: Plan,
    x: Tensor | None,
    w: Tensor | None,
    extra: Tensor | None,
    rows: Tensor | None,
    level: Tensor,
    bias: Tensor,
    decay: Tensor,
) -> LayerResult:
    """The same in torch operations, on any device."""
    torch_neurons.check(plan.scan)
    received = [] if extra is None else [extra]
    if x is not None and w is not None and plan.wiring is not None:
        current = torch_connection.current(plan.wiring, x, w, codes=plan.scan.mode != PLAIN)
        if plan.norm is not None:
            current = _unshaped(plan.norm(images(shaped(current, plan.shape))), current)
        received.append(current)
    scanned = torch_neurons.neurons(
        plan.scan,
        sum(received[1:], start=received[0]),
        rows,
        level,
        bias,
        decay,
        outer_numbers(plan.shape[0], plan.places),
    )
    return _layer_result(plan, *scanned)


def _unshaped(pictures: Tensor, like: Tensor) -> Tensor:
    """[B * T, C, H, W] as [B, T, N], channel-last."""
    return pictures.permute(0, 2, 3, 1).reshape(like.shape)


class Normal(NamedTuple):
    """Batch normalization by channel, float64: statistics in use, and whether they are the batch's."""

    mean: NDArray
    factor: NDArray
    by_batch: bool


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor | None,
        w: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        extra: Tensor | None,
        rows: Tensor | None,
        level: Tensor,
        bias: Tensor,
        decay: Tensor,
        plan: Plan,
    ) -> Any:
        non_zeros, normal, gain, shift = None, None, _NONE, bias.numpy()
        current: Any = extra
        if x is not None and w is not None:
            non_zeros, current, moments = _fed(plan, x, w)
            if gamma is not None and beta is not None:
                normal = _normal(plan, current, moments)
                factor = normal.factor * gamma.numpy()
                gain = tiled(factor, plan.places, np.float32)
                shift = shift + beta.numpy() - normal.mean * factor
        total = current
        if extra is not None and x is not None:
            total = current * torch.from_numpy(gain) + extra if gain.size else current + extra
            gain = _NONE
        kept = (
            _NONE_2.astype(plan.scan.kind) if rows is None else np.ascontiguousarray(rows.numpy(), dtype=plan.scan.kind)
        )
        shape = tuple(total.shape)
        passing = Passes(plan.scan, level.numpy(), shift, total.numpy(), gain, np.ascontiguousarray(kept.T))
        spikes, v_after = (
            plan.scratch.take(shape),
            plan.scratch.take(shape) if plan.keeps or not passing.fast else _NONE_3,
        )
        i_after = plan.scratch.take(shape) if plan.scan.has_current else _NONE_3
        thetas = plan.scratch.take(shape) if plan.scan.adapts else _NONE_3
        counts = run(parts(shape[0], spikes.size), passing.forward(spikes, v_after, i_after, thetas))
        ctx.save_for_backward(x, w, gamma, current, total, torch.from_numpy(spikes) if kept.size else None)
        ctx.kept = (plan, non_zeros, normal, passing, kept, tuple(decay.shape))
        ctx.types = [None if a is None else a.dtype for a in (x, w, gamma, beta, extra, rows, level, bias, decay)]
        ctx.set_materialize_grads(False)
        rate = torch.tensor(sum(counts) / spikes.size, dtype=torch.float32)
        return *(torch.from_numpy(a) for a in (spikes, v_after, i_after, thetas)), rate

    @staticmethod
    def backward(
        ctx: Any,
        spike_grad: Tensor | None,
        v_after_grad: Tensor | None,
        i_grad: Tensor | None,
        theta_grad: Tensor | None,
        rate_grad: Tensor | None,
    ) -> Any:
        x, w, gamma, current, total, spikes = ctx.saved_tensors
        plan, non_zeros, normal, passing, kept, decay_shape = ctx.kept
        needs = ctx.needs_input_grad
        up, across = (_NONE_3 if g is None else g.contiguous().numpy() for g in (spike_grad, v_after_grad))
        every = np.float32(0 if rate_grad is None else rate_grad.item() / total.numel())
        grad = plan.scratch.take(tuple(total.shape))
        n, ranges = total.shape[2], parts(len(total), total.numel())
        around = _NONE if normal is None else tiled(normal.mean, plan.places, np.float32)
        levels, biases, decays, products = (
            np.zeros((len(ranges), m), np.float32)
            for m in (n if needs[6] else 0, n, n if needs[8] else 0, n if normal is not None else 0)
        )
        run(
            ranges,
            passing.backward(up, every, across, kept, current.numpy(), around, grad, levels, biases, decays, products),
        )
        level_grad, bias_grad, product = (_by_channel(a, plan) for a in (levels, biases, products))
        grads = torch.from_numpy(grad)
        rows_grad = None
        if kept.size:  # the spikes of one step meet the currents of the next
            rows_grad = grads[:, 1:].flatten(0, 1).T @ spikes[:, :-1].flatten(0, 1)
        extra_grad = grads
        by, gamma_grad, beta_grad = _NONE_2, None, None
        if normal is not None:
            gamma_grad, beta_grad = torch.from_numpy(product * normal.factor), torch.from_numpy(bias_grad)
            by = _settling(normal, gamma.numpy(), bias_grad, product, total.numel() // plan.shape[0])
        source_grad, w_grad = (None, None) if x is None else _back(plan, x, w, non_zeros, grads, current, by, needs[:2])
        gradients = (
            source_grad,
            w_grad,
            gamma_grad,
            beta_grad,
            extra_grad if needs[4] else None,
            rows_grad,
            torch.from_numpy(level_grad) if needs[6] else None,
            torch.from_numpy(bias_grad),
            torch.from_numpy(_by_factor(decays, plan, decay_shape)) if needs[8] else None,
        )
        return *(None if g is None else g.to(kind) for g, kind in zip(gradients, ctx.types, strict=True)), None


_apply: Any = _Layer.apply


def _by_channel(sums: NDArray, plan: Plan) -> NDArray[np.float64]:
    """Sums [parts, N], channel-last, as [C]; in one order, so that they repeat."""
    return np.add.reduce(sums.reshape(-1, plan.shape[0]), axis=0, dtype=np.float64) if sums.size else np.zeros(0)


def _by_factor(sums: NDArray, plan: Plan, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums [parts, N], channel-last, as the gradient of decay factors of some shape."""
    if math.prod(shape) == 1:
        return np.full(shape, sums.sum(dtype=np.float64))
    return gathered(sums.sum(axis=0, dtype=np.float64), plan.shape[0], shape)


def _fed(plan: Plan, x: Tensor, w: Tensor) -> tuple[NonZeros | None, Tensor, tuple[NDArray, ...]]:
    """(entries, currents [B, T, N], moments) of the connection; without entries where torch is faster."""
    wiring, scratch = plan.wiring, plan.scratch
    assert wiring is not None
    n_steps, batch = x.shape[:2]
    n = plan.places * plan.shape[0]
    wants = plan.norm is not None and plan.norm.training
    moments = tuple(np.zeros((batch, plan.shape[0]) if wants else (0, 0), np.float32) for _ in range(2))
    ranges = parts(batch, batch * n_steps * n)
    non_zeros = non_zeros_of(x, scratch) if wiring.sparse else None
    if non_zeros is None or non_zeros.ends[:, -1].sum(dtype=np.int64) > CROWDED * x.numel():
        current = wiring.dense(x, w)
        if wants:
            numbers = current.numpy().reshape(-1)
            run(ranges, lambda _, a, b: feeding.moments_of(numbers, n, n_steps, a, b, *moments))
        return None, current, moments
    currents, weights = scratch.take((batch, n_steps, n)), w.numpy()
    start = np.zeros(plan.shape[0], np.float32)
    start[:] = 0 * weights.reshape(len(start), -1).sum(axis=1)  # weights that are no numbers are noticed
    to = currents.reshape(-1), *moments
    if non_zeros.starts.size:
        rows = wiring.rows(weights)
        run(
            ranges,
            lambda _, a, b: feeding.gather(
                non_zeros.which, non_zeros.starts, non_zeros.value.reshape(-1), rows, wiring.geometry, start, a, b, *to
            ),
        )
    else:
        lists = non_zeros.which, non_zeros.ends, non_zeros.value, taps(wiring, non_zeros.by_channel)
        blocks = wiring.weights(weights)
        run(ranges, lambda _, a, b: feeding.feed(*lists, blocks, wiring.frame, plan.shape[1:], start, a, b, *to))
    return non_zeros, torch.from_numpy(currents), moments


def _back(
    plan: Plan,
    x: Tensor,
    w: Tensor,
    non_zeros: NonZeros | None,
    grad: Tensor,
    current: Tensor,
    by: NDArray,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the connection by source and weights, from that of its currents."""
    wiring, scratch = plan.wiring, plan.scratch
    assert wiring is not None
    batch, n_steps, _ = grad.shape
    c, height, width = wiring.source
    sparse = non_zeros is not None
    n_source = c * height * width
    lists = (
        (non_zeros.which, non_zeros.ends, non_zeros.starts, non_zeros.value)
        if non_zeros is not None
        else (np.zeros((0, 0), np.int32), np.zeros((batch, n_steps), np.int32), np.zeros((0, 0, 0), np.int32), _NONE_2)
    )
    source = scratch.take((batch, n_steps, n_source)) if needs[0] and sparse else _NONE
    by_place = non_zeros is not None and non_zeros.starts.size > 0
    n_rows = wiring.n_rows(by_place)
    ranges = parts(batch, grad.numel(), max(2, min(16, (1 << 22) // n_rows)))
    d_rows = aligned((len(ranges), n_rows if sparse and needs[1] else 0), np.float32)
    by_channel = non_zeros is not None and non_zeros.by_channel
    fixed = (
        *lists,
        taps(wiring, by_channel),
        wiring.frame,
        wiring.turned(w.numpy()) if source.size else _NONE,
        wiring.geometry,
        plan.shape[0],
    )
    pair = grad.numpy().reshape(-1), current.numpy().reshape(-1)
    if not sparse:
        settled = scratch.take(tuple(grad.shape)) if by.size else grad.numpy()
        if by.size:
            run(
                ranges,
                lambda _, a, b: returning.settle_samples(
                    *pair, n_steps * grad.shape[2], a, b, by.reshape(-1), settled.reshape(-1)
                ),
            )
        return wiring.dense_gradients(torch.from_numpy(settled), x, w, needs)
    run(ranges, lambda k, a, b: returning.backward(*fixed, a, b, by.reshape(-1), *pair, d_rows[k], source.reshape(-1)))
    source_grad = shaped(torch.from_numpy(source), wiring.source) if needs[0] else None
    if not needs[1]:
        return source_grad, None
    summed = d_rows.sum(axis=0)
    rows = wiring.rows_back(summed) if by_place else wiring.weights_back(summed)
    return source_grad, torch.from_numpy(rows).view(w.shape)


def _normal(plan: Plan, current: Tensor, moments: tuple[NDArray, ...]) -> Normal:
    """The normalization to use; in training, that of the batch, whose statistics are added to the running ones."""
    norm: Any = plan.norm
    if not norm.training:
        mean, var = (a.double().numpy() for a in (norm.running_mean, norm.running_var))
        return Normal(mean, 1 / np.sqrt(var + norm.eps), False)
    means, squares = (a.astype(np.float64) for a in moments)
    each = current.shape[1] * plan.places
    n = each * len(means)
    mean = means.mean(axis=0)
    var = (squares + each * (means - mean) ** 2).sum(axis=0) / n
    with torch.no_grad():
        norm.num_batches_tracked += 1
        share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
        for running, new in ((norm.running_mean, mean), (norm.running_var, var * (n / max(n - 1, 1)))):
            running.lerp_(torch.from_numpy(new.astype(np.float32)), share)
    return Normal(mean, 1 / np.sqrt(var + norm.eps), True)


def _settling(normal: Normal, gamma: NDArray, summed: NDArray, product: NDArray, n: int) -> NDArray[np.float32]:
    """(a, b, c) [3, C]: with them, the gradient of the currents is a * gradient + b * current + c."""
    a = normal.factor * gamma
    b = -a * normal.factor**2 * product / n if normal.by_batch else 0 * a
    c = -a * summed / n - b * normal.mean if normal.by_batch else 0 * a
    return np.ascontiguousarray(np.stack([a, b, c]), dtype=np.float32)


__getattr__ = former.names_of(__name__)

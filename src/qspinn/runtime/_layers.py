"""Layered programs on compiled kernels: population after population, each over all steps of a few samples at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.ops import AddOp, ConvOp, DenseOp, LifOp, PoolOp, conv_shape, pool_shape, spread
from qspinn.program import Program
from qspinn.runtime import _layer_kernel as kernels
from qspinn.runtime.arithmetic import MODE
from qspinn.runtime.reference import thresholds
from qspinn.spikes import Spikes, index_dtype

ROOM = 1 << 22  # bytes of input currents made at once
Feed = DenseOp | ConvOp | AddOp
_NONE = np.zeros(0, np.uint8)


class States(NamedTuple):
    """What is left of a population after its last step, int64 [B, N] each, in the program's order."""

    counts: NDArray
    v: NDArray
    ref: NDArray
    current: NDArray
    v_sum: NDArray


def population(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes], size: tuple[int, int], *, states: bool
) -> tuple[Spikes, States]:
    """(spikes, states) of one population over all samples of its sources' signals; size = (samples, steps)."""
    n_samples, n_steps = size
    inner, outer = orders(program, op, feeds)
    recurrent = np.zeros((0, 0), np.int64)
    adders = []
    for feed in feeds:
        if isinstance(feed, DenseOp) and feed.source == feed.target:
            recurrent = recurrent_rows(recurrent, program.codes(feed.weight), feed.shift, outer)
        else:
            adders.append((signals[feed.source], _adder(program, feed, inner, outer)))
    constants = _constants(program, op, recurrent, outer)
    keep = n_samples if states else 0
    left = States(counts=np.zeros((n_samples, op.n), np.int32),
                  **{k: np.zeros((keep, op.n), np.int64) for k in ("v", "ref", "current")},
                  v_sum=np.zeros((keep, op.n), np.int64))
    parts = []
    block = max(1, ROOM // (n_steps * op.n * 4))
    for a in range(0, n_samples, block):
        b = min(a + block, n_samples)
        total = np.zeros((b - a, n_steps, op.n), np.int32)
        for signal, (kernel, *arguments) in adders:
            kernel(signal.offsets[a:b], *_events(signal), *arguments, total)
        offsets = np.zeros((b - a, n_steps + 1), np.int64)
        index = np.empty((b - a) * n_steps * op.n, index_dtype(op.n))
        kept = tuple(x[a:b] if states else x for x in (left.v, left.ref, left.current, left.v_sum))
        used = kernels.neurons(total, *constants, offsets, index, left.counts[a:b], *kept)
        parts.append((offsets, index[:used].copy()))
    return joined(parts, op.n, n_steps), left


def recurrent_rows(so_far: NDArray, weight: NDArray, shift: int, outer: NDArray) -> NDArray[np.int64]:
    """Rows [N, N] by source, channel-last both ways, added to those of other recurrent connections."""
    rows = weight.astype(np.int64).T[outer][:, outer] << shift
    return np.ascontiguousarray(rows if so_far.size == 0 else so_far + rows)


def orders(program: Program, op: LifOp, feeds: list[Feed]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(inner, outer): place of each neuron in the channel-last order, and the inverse; equal without convolutions."""
    shape = next((conv_shape(f, program.codes(f.weight).shape) for f in feeds if isinstance(f, ConvOp)), (op.n, 1, 1))
    outer = np.arange(op.n).reshape(shape).transpose(1, 2, 0).ravel()
    inner = np.empty(op.n, np.int64)
    inner[outer] = np.arange(op.n)
    return inner, np.ascontiguousarray(outer)


def places(shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(y, x, channel) of each source of a signal."""
    c, y, x = np.unravel_index(np.arange(math.prod(shape)), shape)
    return y.astype(np.int64), x.astype(np.int64), c.astype(np.int64)


def _adder(program: Program, feed: Feed, inner: NDArray, outer: NDArray) -> tuple:
    """The kernel of a connection with its arguments between the events and the currents."""
    w = program.codes(feed.weight)
    if isinstance(feed, DenseOp):
        return kernels.feed_dense, np.ascontiguousarray(w.T[:, outer]), feed.shift
    if isinstance(feed, AddOp):
        return kernels.feed_same, spread(w, len(inner)).astype(np.int32), inner, feed.shift
    c_out, height, width = conv_shape(feed, w.shape)
    run, per_group = c_out // feed.groups, w.shape[1]
    rows = w.reshape(feed.groups, run, *w.shape[1:]).transpose(0, 2, 3, 4, 1)  # group, c_in, ky, kx, c_out
    y, x, c = places(feed.shape)
    return (kernels.feed_conv, np.ascontiguousarray(rows.reshape(feed.shape[0], *w.shape[2:], run)), y, x, c,
            c // per_group * run, feed.stride, feed.padding, feed.dilation, (height, width, c_out), feed.shift)


def _constants(program: Program, op: LifOp, recurrent: NDArray, outer: NDArray) -> tuple:
    """Everything that stays the same between samples, in the order of the kernel's arguments."""
    def each(name: str) -> NDArray[np.int64]:
        return spread(program.codes(name), op.n)[outer] if name else np.zeros(op.n, np.int64)

    fmt = op.current_fmt
    return (
        recurrent, int(program.codes(op.decay)[0]), op.decay_shift, op.in_shift,
        each(op.in_shifts) if op.in_shifts else np.zeros(0, np.int64), op.v_min, op.v_fmt.code_max,
        thresholds(program, op)[outer], op.strict, op.reset == "subtract", each(op.v_reset), each(op.bias), op.spiking,
        op.winner, bool(op.inhibition), each(op.inhibition) << op.inhibition_shift, op.n_ref, MODE[op.rounding],
        fmt is not None, int(program.codes(op.current)[0]) if op.current else 0, op.current_shift,
        fmt.code_min if fmt else 0, fmt.code_max if fmt else 0, outer, np.uint32(program.seed), op.stream,
    )


def _events(signal: Spikes) -> tuple[NDArray, NDArray]:
    """(index, count), count empty where every source spikes once."""
    return signal.index, _NONE if signal.count is None else signal.count


def pooled(op: PoolOp, signal: Spikes) -> Spikes:
    """The pooled signal, with counts."""
    shape = pool_shape(op)
    n = math.prod(shape)
    reach = math.prod(-(-k // s) for k, s in zip(op.kernel, op.stride, strict=True))  # windows that share a source
    room = min(signal.n_events * reach, signal.n_samples * signal.n_steps * n)
    offsets = np.zeros((signal.n_samples, signal.n_steps + 1), np.int64)
    index, count = np.empty(room, index_dtype(n)), np.empty(room, np.int32)
    used = kernels.pool(signal.offsets, *_events(signal), *places(op.shape), op.kernel, op.stride, shape,
                        op.kind == "sum", offsets, index, count)
    return Spikes(offsets=offsets, index=index[:used], n=n, count=count[:used])


def joined(parts: list[tuple[NDArray, NDArray]], n: int, n_steps: int) -> Spikes:
    """The events of consecutive blocks of samples as one signal."""
    if not parts:
        return Spikes(offsets=np.zeros((0, n_steps + 1), np.int64), index=np.zeros(0, index_dtype(n)), n=n)
    starts = np.cumsum([0, *(len(index) for _, index in parts)])
    return Spikes(offsets=np.concatenate([o - o[:1, :1] + s for (o, _), s in zip(parts, starts[:-1], strict=True)]),
                  index=np.concatenate([index for _, index in parts]), n=n)

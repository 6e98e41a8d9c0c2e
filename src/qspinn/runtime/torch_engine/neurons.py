"""Neurons of the torch engine: a population step by step, after its currents from others are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qspinn.program import Program
from qspinn.program.constants import biases, in_shifts, inhibitions, kept_codes, resets, theta_steps, thresholds
from qspinn.program.ops import Feed, LifOp, ReadOp, Stream, spread
from qspinn.program.parts import Adaptation, Current, Leak
from qspinn.runtime.torch_engine.currents import current, weigher
from qspinn.runtime.torch_engine.rounding import Rounder, rounder, words_of
from qspinn.runtime.torch_engine.signals import Signal, int_type


class Left(NamedTuple):
    """Final states of a population, int64 [B, N]: potentials, refractory counters, synaptic currents, adaptive
    thresholds after the last step, and the sum of its potentials after every step (zero unless it is read)."""

    v: Tensor
    ref: Tensor
    i: Tensor
    theta: Tensor
    v_sum: Tensor


class _State(NamedTuple):
    """A population between two steps, [B, N] each: potential, refractory counter, synaptic current, adaptive threshold,
    spikes (bool, or numbers where there may be several)."""

    v: Tensor
    ref: Tensor
    i: Tensor
    theta: Tensor
    s: Tensor


class _Constants(NamedTuple):
    """What a population's step needs besides its state; vectors [N], `words` [T, 1, N] only where one neuron wins."""

    decay: int | Tensor
    decayed: Rounder
    current: int | Tensor
    slowed: Rounder
    scaled: Rounder
    theta_decay: int | Tensor
    calmed: Rounder
    theta_step: Tensor
    stored: Rounder
    bias: Tensor
    level: Tensor
    reset: Tensor
    strength: Tensor
    words: Tensor


def population(program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Signal]) -> tuple[Signal, Left]:
    """Spikes of a population over all steps, and its final states."""
    forward, back = ([f for f in feeds if (f.source == f.target) is own] for own in (False, True))
    known = {**signals, op.name: Signal(torch.empty(0), op.threshold.max_spikes)}
    dtype = int_type(max(1 << 8, _bound(program, op, feeds, known)))
    drive = current(program, op, forward, signals, dtype)
    device = drive.device
    own = [(weigher(program, f, op.threshold.max_spikes, dtype, device), f.shift) for f in back]
    k = _constants(program, op, len(drive), dtype, device)
    ready = not own and op.current is None  # all that reaches the potential is known before the first step
    if ready:
        drive = k.scaled(drive, slice(None)) + k.bias
    zero = torch.zeros_like(drive[0])
    state = _State(v=zero, ref=zero, i=zero, theta=zero, s=zero > 0)
    fired = torch.zeros_like(drive, dtype=torch.uint8)
    summed = any(r.of == "v_sum" and r.source == op.name for r in program.ops_of(ReadOp))
    v_sum = torch.zeros_like(state.v, dtype=torch.int64)
    for t in range(len(drive)):
        received = sum((weigh(state.s) << shift for weigh, shift in own), start=drive[t])
        state = _step(op, k, t, state, received, ready)
        fired[t] = state.s
        if summed:
            v_sum += state.v
    v, ref, i, theta, _ = (x.to(torch.int64) for x in state)
    return Signal(fired, op.threshold.max_spikes), Left(v=v, ref=ref, i=i, theta=theta, v_sum=v_sum)


def _bound(program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Signal]) -> int:
    """A size that no intermediate of a population's steps exceeds: all that may add up, added up."""

    def top(name: str) -> int:
        return int(np.abs(program.codes(name).astype(np.int64)).max())

    lowered = inhibitions(program, op)
    if top(op.leak.decay) > 1 << op.leak.shift or lowered.min() < 0:  # without end while a neuron is refractory
        return 1 << 63
    drive = sum(signals[f.source].most * _row_sum(program.codes(f.weight)) << f.shift for f in feeds)
    level, moved, slow, several = int(np.abs(thresholds(program, op)).max()), 1, 0, op.threshold.max_spikes
    if (adapts := op.adaptation) is not None:
        level += adapts.fmt.code_max << adapts.shift
        moved = adapts.fmt.code_max * (top(adapts.decay) + 1) + (1 << adapts.decay_shift) + top(adapts.step) * several
    level *= several
    if (flow := op.current) is not None:
        slow = max(-flow.fmt.code_min, flow.fmt.code_max) * (top(flow.decay) + 1) + (1 << flow.shift)
    shifts = [op.input.shift] if op.input.shifts is None else program.codes(op.input.shifts).tolist()
    fed = (drive + slow + int(np.abs(biases(program, op)).max()) << max(0, -min(shifts))) + (1 << max(0, *shifts))
    kept = 0 if op.store is None else max(-op.store.min, op.store.fmt.code_max) + 1 << op.store.dropped
    v = max(-op.v_min, op.v_fmt.code_max, top(op.reset.tensor), kept) + level + kept
    others = 1 if op.winner else op.n
    return v * (top(op.leak.decay) + 1) + (1 << op.leak.shift) + fed + op.n_ref + moved + others * int(lowered.max())


def _row_sum(w: NDArray) -> int:
    """The largest sum of |weights| into one neuron."""
    return int(np.abs(w.astype(np.int64)).reshape(len(w), -1).sum(axis=1).max(initial=0))


def _constants(program: Program, op: LifOp, n_steps: int, dtype: torch.dtype, device: torch.device) -> _Constants:
    def vector(codes: NDArray) -> Tensor:
        return torch.from_numpy(codes).to(device, dtype)

    def factor(part: Leak | Current | Adaptation | None) -> int | Tensor:
        """A decay factor: a number where all neurons share it, which is faster, or one for each."""
        found = np.zeros(1, np.int64) if part is None else program.codes(part.decay)
        return int(found[0]) if len(found) == 1 else vector(spread(found, op.n))

    def by_shift(shift: int | NDArray, stream: Stream) -> Rounder:
        return rounder(program, op, np.atleast_1d(shift), stream, n_steps, dtype, device)

    adapts, flow = op.adaptation, op.current
    return _Constants(
        decay=factor(op.leak),
        decayed=by_shift(op.leak.shift, Stream.DECAY),
        current=factor(op.current),
        slowed=by_shift(0 if flow is None else flow.shift, Stream.CURRENT),
        scaled=by_shift(op.input.shift if op.input.shifts is None else in_shifts(program, op), Stream.INPUT),
        theta_decay=factor(adapts),
        calmed=by_shift(0 if adapts is None else adapts.decay_shift, Stream.THETA),
        theta_step=vector(theta_steps(program, op)),
        stored=by_shift(kept_codes(op)[0], Stream.STORE),
        bias=vector(biases(program, op)),
        level=vector(thresholds(program, op)),
        reset=vector(resets(program, op)),
        strength=vector(inhibitions(program, op)),
        words=words_of(program.seed, op.stream + Stream.WINNER, n_steps, op.n, device) if op.winner else torch.empty(0),
    )


def _step(op: LifOp, k: _Constants, t: int, old: _State, received: Tensor, ready: bool) -> _State:
    """One step of docs/numerics.md, section 2; `ready`: what is received is already scaled, with the bias."""
    v, ref, i = k.decayed(old.v * k.decay, t), old.ref, old.i
    level, theta, adapts = k.level, old.theta, op.adaptation
    if op.reset.delayed:
        v = _reset(op, k, v, level if adapts is None else level + (theta << adapts.shift), old.s)
    if adapts is not None:
        theta = (k.calmed(theta * k.theta_decay, t) + old.s * k.theta_step).clamp_(max=adapts.fmt.code_max)
        level = level + (theta << adapts.shift)
    if op.current is not None:
        i = k.slowed(i * k.current, t) + received + k.bias
        received = i = i.clamp_(op.current.fmt.code_min, op.current.fmt.code_max)
    if not ready:
        received = k.scaled(received, t) + (k.bias if op.current is None else 0)
    fed = (v + received).clamp_(op.v_min, op.v_fmt.code_max)
    rests = v.clamp(op.v_min, op.v_fmt.code_max) if op.reset.delayed else v
    v = torch.where(ref == 0, fed, rests) if op.n_ref else fed
    if not op.spiking:
        return _State(_kept(op, k, t, v), ref, i, theta, old.s)
    s = v > level if op.threshold.strict else v >= level
    s = s & (ref == 0) if op.n_ref else s
    s = _winners(s, k.words[t]) if op.winner else s
    ref = torch.where(s, op.n_ref, (ref - 1).clamp_(min=0)) if op.n_ref else ref
    s = _several(op, v, level, s) if op.threshold.max_spikes > 1 else s
    v = v if op.reset.delayed else _reset(op, k, v, level, s)
    v = _inhibited(v, s.to(v.dtype), k.strength, op.v_min) if op.inhibition is not None else v
    return _State(_kept(op, k, t, v), ref, i, theta, s)


def _several(op: LifOp, v: Tensor, level: Tensor, s: Tensor) -> Tensor:
    """How often a potential that spikes (s) reaches its threshold."""
    times = s.to(v.dtype)
    for k in range(2, op.threshold.max_spikes + 1):
        s = s & (v > k * level if op.threshold.strict else v >= k * level)
        times += s
    return times


def _reset(op: LifOp, k: _Constants, v: Tensor, level: Tensor, s: Tensor) -> Tensor:
    """v after the reset that these spikes bring about."""
    if op.threshold.max_spikes > 1:
        return v - s * level
    return torch.where(s, v - level if op.reset.subtracts else k.reset, v)


def _kept(op: LifOp, k: _Constants, t: int, v: Tensor) -> Tensor:
    """What is left of potentials between two steps."""
    if op.store is None:
        return v
    return k.stored(v, t).clamp(op.store.min, op.store.fmt.code_max) << op.store.dropped


def _winners(crossing: Tensor, words: Tensor) -> Tensor:
    """One spike per sample: the crossing neuron with the largest random word."""
    best = torch.where(crossing, words, -1).argmax(dim=1, keepdim=True)
    return torch.zeros_like(crossing).scatter_(1, best, True) & crossing


def _inhibited(v: Tensor, s: Tensor, strength: Tensor, v_min: int) -> Tensor:
    """v lowered by strength for every spike of another neuron, never below v_min."""
    by_others = s.sum(dim=1, keepdim=True, dtype=s.dtype) - s
    return torch.where(by_others > 0, (v - by_others * strength).clamp_(min=v_min), v)

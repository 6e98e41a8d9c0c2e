"""The obvious NumPy executor: the executable form of docs/numerics.md. Slow, and right by reading.

A backend is a table operation -> function; here each function is a few lines of array arithmetic over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import random_words, requantize, stream_key
from qspinn.program import DenseOp, LifOp, PoissonOp, Program, SelectOp, VoteOp
from qspinn.runtime.result import Result, vote
from qspinn.spikes import Spikes

Ints = NDArray[np.int64]
State = dict[str, dict[str, Ints]]


def init(program: Program, batch: int) -> State:
    """State at the start of a sample: v and ref are zero, int64 [B, N], for every population."""
    return {op.name: {"v": np.zeros((batch, op.n), dtype=np.int64), "ref": np.zeros((batch, op.n), dtype=np.int64)}
            for op in program.ops_of(LifOp)}


def step(program: Program, state: State, t: int, spikes_in: NDArray) -> tuple[State, dict[str, Ints]]:
    """(new state, spikes [B, N] of every population) after step t with input spikes 0/1 [B, n_inputs]."""
    signals: dict[str, Ints] = {"input": spikes_in.astype(np.int64)}
    new_state: State = {}
    for op in program.ops:
        _RULES[type(op)](program, op, t, signals, state, new_state)
    return new_state, {op.name: signals[op.name] for op in program.ops_of(LifOp)}


def _select(program: Program, op: SelectOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    signals[op.target] = signals[op.source][:, program.codes(op.kept) == 1]


def _dense(program: Program, op: DenseOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    signals[f"{op.target}.i"] = signals[op.source] @ program.codes(op.weight).astype(np.int64).T


def _lif(program: Program, op: LifOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    def key(offset: int) -> int:
        return stream_key(program.seed, op.stream + offset, t)

    def rounded(x: Ints, shift: int, offset: int) -> Ints:
        return requantize(x, shift, op.rounding, key=key(offset), index=np.broadcast_to(neurons, x.shape))

    neurons = np.arange(op.n)
    v = rounded(old[op.name]["v"] * int(program.codes(op.decay)[0]), op.decay_shift, 1)
    ref = old[op.name]["ref"]
    active, ref = ref == 0, np.maximum(ref - 1, 0)
    fed = np.clip(v + rounded(signals[f"{op.name}.i"], op.in_shift, 2), op.v_min, op.v_fmt.code_max)
    v = np.where(active, fed, v)
    spikes = (active & (v >= thresholds(program, op))).astype(np.int64)
    if op.winner:
        spikes = _winners(spikes, random_words(key(0), neurons))
    v = np.where(spikes == 1, program.codes(op.v_reset), v)
    ref = np.where(spikes == 1, op.n_ref, ref)
    if op.inhibition:
        by_others = spikes.sum(axis=1, keepdims=True) - spikes
        v = inhibited(v, by_others, program.codes(op.inhibition).astype(np.int64) << op.inhibition_shift, op.v_min)
    new[op.name] = {"v": v, "ref": ref}
    signals[op.name] = spikes


def thresholds(program: Program, op: LifOp) -> Ints:
    """The codes a potential is compared with: [N] or [1]."""
    level = program.codes(op.v_th).astype(np.int64) << op.v_th_shift
    return level + (program.codes(op.theta).astype(np.int64) << op.theta_shift) if op.theta else level


def inhibited(v: Ints, times: Ints, strength: Ints, v_min: int) -> Ints:
    """v lowered `times` times by strength, never below v_min; where times is 0, v as it is."""
    return np.where(times > 0, np.maximum(v - times * strength, v_min), v)


def _winners(crossing: Ints, words: NDArray[np.uint32]) -> Ints:
    """One spike per sample: the crossing neuron with the largest random word."""
    draw = np.where(crossing == 1, words.astype(np.int64), -1)
    best = np.zeros_like(crossing)
    best[np.arange(len(best)), draw.argmax(axis=1)] = 1
    return best * crossing


def _outside(program: Program, op: Any, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    """Encoding happens before, voting after the steps."""


_RULES: dict[type, Callable[..., None]] = {
    PoissonOp: _outside, SelectOp: _select, DenseOp: _dense, LifOp: _lif, VoteOp: _outside,
}


def run(program: Program, spikes: Spikes, *, record: bool = False) -> Result:
    """Runs every sample from a fresh state over all its steps."""
    raster = spikes.dense()
    state = init(program, spikes.n_samples)
    history = []
    for t in range(spikes.n_steps):
        state, fired = step(program, state, t, raster[t])
        history.append(fired)
    names = [op.name for op in program.ops_of(LifOp)]
    rasters = {n: np.stack([h[n] for h in history]).astype(np.uint8) for n in names}
    counts = {n: rasters[n].sum(axis=0, dtype=np.int64) for n in names}
    if not record:
        return Result(counts=counts, scores=vote(program, counts))
    return Result(counts=counts, scores=vote(program, counts), v={n: state[n]["v"] for n in names},
                  ref={n: state[n]["ref"] for n in names}, spikes=rasters)

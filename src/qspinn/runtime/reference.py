"""The obvious NumPy executor: the executable form of docs/numerics.md. Slow, and right by reading.

A backend is a table operation -> function; here each function is a few lines of array arithmetic over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import random_words, requantize, saturate, stream_key
from qspinn.program import Program
from qspinn.program.constants import (
    biases,
    current_decays,
    decays,
    in_shifts,
    inhibitions,
    kept_codes,
    resets,
    theta_decays,
    theta_steps,
    thresholds,
)
from qspinn.program.ops import (
    AddOp,
    ConvOp,
    DenseOp,
    EventsOp,
    Feed,
    LifOp,
    PoissonOp,
    PoolOp,
    ReadOp,
    SelectOp,
    Stream,
    VoteOp,
    conv_shape,
    pool_shape,
    spread,
)
from qspinn.runtime.result import Result, vote
from qspinn.spikes import Spikes

Ints = NDArray[np.int64]
State = dict[str, dict[str, Ints]]


def init(program: Program, batch: int) -> State:
    """State at the start of a sample, for every population, int64 [B, N]: potential v, refractory counter ref, synaptic
    current i, the adaptive part theta of the threshold and the spikes s of the step before; all zero."""
    return {
        op.name: {kind: np.zeros((batch, op.n), dtype=np.int64) for kind in ("v", "ref", "i", "theta", "s")}
        for op in program.ops_of(LifOp)
    }


def step(program: Program, state: State, t: int, spikes_in: NDArray) -> tuple[State, dict[str, Ints]]:
    """New state, and spikes [B, N] of every population, after step t with input spikes [B, n_inputs]."""
    signals: dict[str, Ints] = {"input": spikes_in.astype(np.int64)}
    new_state: State = {}
    for op in program.ops:
        _RULES[type(op)](program, op, t, signals, state, new_state)
    return new_state, {op.name: signals[op.name] for op in program.ops_of(LifOp)}


def _select(program: Program, op: SelectOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    signals[op.target] = signals[op.source][:, program.codes(op.kept) == 1]


def _dense(program: Program, op: DenseOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    source = old[op.source]["s"] if op.source == op.target else signals[op.source]
    _feed(signals, op, source @ program.codes(op.weight).astype(np.int64).T)


def _conv(program: Program, op: ConvOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    w = program.codes(op.weight).astype(np.int64)
    c_out, height, width = conv_shape(op, w.shape)
    (dy, dx), (sy, sx) = op.dilation, op.stride
    pads = ((0, 0), (0, 0), (op.padding[0],) * 2, (op.padding[1],) * 2)
    x = np.pad(_maps(signals, op), pads)
    total = np.zeros((len(x), c_out, height, width), dtype=np.int64)
    of_group, per_group = c_out // op.groups, w.shape[1]
    for g in range(op.groups):
        mine, theirs = slice(g * of_group, (g + 1) * of_group), slice(g * per_group, (g + 1) * per_group)
        for ky in range(w.shape[2]):
            for kx in range(w.shape[3]):
                seen = x[
                    :,
                    theirs,
                    ky * dy : ky * dy + (height - 1) * sy + 1 : sy,
                    kx * dx : kx * dx + (width - 1) * sx + 1 : sx,
                ]
                total[:, mine] += np.einsum("bchw,oc->bohw", seen, w[mine, :, ky, kx])
    _feed(signals, op, total.reshape(len(x), c_out * height * width))


def _add(program: Program, op: AddOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    source = signals[op.source]
    _feed(signals, op, source * spread(program.codes(op.weight), source.shape[1]))


def _feed(signals: dict[str, Ints], op: Feed, current: Ints) -> None:
    """Adds to what the target receives in this step."""
    name = f"{op.target}.i"
    signals[name] = signals.get(name, np.zeros_like(current)) + (current << op.shift)


def _pool(program: Program, op: PoolOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    channels, height, width = pool_shape(op)
    x = _maps(signals, op)
    pooled = np.zeros((len(x), channels, height, width), dtype=np.int64)
    for y in range(op.kernel[0]):
        for z in range(op.kernel[1]):
            seen = x[
                :,
                :,
                y : y + (height - 1) * op.stride[0] + 1 : op.stride[0],
                z : z + (width - 1) * op.stride[1] + 1 : op.stride[1],
            ]
            pooled = pooled + seen if op.kind == "sum" else np.maximum(pooled, seen)
    signals[op.target] = pooled.reshape(len(x), channels * height * width)


def _maps(signals: dict[str, Ints], op: ConvOp | PoolOp) -> Ints:
    """The source's spikes [B, channels, height, width]."""
    source = signals[op.source]
    return source.reshape(len(source), *op.shape)


def _lif(program: Program, op: LifOp, t: int, signals: dict[str, Ints], old: State, new: State) -> None:
    def rounded(x: Ints, shift: int, stream: Stream) -> Ints:
        return requantize(
            x,
            shift,
            op.rounding,
            key=stream_key(program.seed, op.stream + stream, t),
            index=np.broadcast_to(neurons, x.shape),
        )

    neurons = np.arange(op.n)
    v = rounded(old[op.name]["v"] * decays(program, op), op.leak.shift, Stream.DECAY)
    i, ref = old[op.name]["i"], old[op.name]["ref"]
    theta, before = old[op.name]["theta"], old[op.name]["s"]
    if op.reset.delayed:
        v = _reset(program, op, v, _level(program, op, theta), before)
    if op.adaptation is not None:
        kept = rounded(theta * theta_decays(program, op), op.adaptation.decay_shift, Stream.THETA)
        theta = saturate(kept + before * theta_steps(program, op), op.adaptation.fmt)
    level = _level(program, op, theta)
    active, ref = ref == 0, np.maximum(ref - 1, 0)
    received = signals.get(f"{op.name}.i", np.zeros_like(v))
    bias = biases(program, op)
    if op.current is not None:
        kept = rounded(i * current_decays(program, op), op.current.shift, Stream.CURRENT)
        received = i = saturate(kept + received + bias, op.current.fmt)
        bias = np.zeros_like(bias)
    fed = v + shifted(program, op, received, lambda x, shift: rounded(x, shift, Stream.INPUT)) + bias
    fed = np.clip(fed, op.v_min, op.v_fmt.code_max)
    v = np.where(active, fed, np.clip(v, op.v_min, op.v_fmt.code_max) if op.reset.delayed else v)
    spikes = _reached(op, v, level) * (active & op.spiking)
    if op.winner:
        spikes = _winners(spikes, random_words(stream_key(program.seed, op.stream + Stream.WINNER, t), neurons))
    if not op.reset.delayed:
        v = _reset(program, op, v, level, spikes)
    ref = np.where(spikes > 0, op.n_ref, ref)
    if op.inhibition is not None:
        by_others = spikes.sum(axis=1, keepdims=True) - spikes
        v = inhibited(v, by_others, inhibitions(program, op), op.v_min)
    if op.store is not None:
        dropped, least, most = kept_codes(op)
        v = np.clip(rounded(v, dropped, Stream.STORE), least, most) << dropped
    new[op.name] = {"v": v, "ref": ref, "i": i, "theta": theta, "s": spikes}
    signals[op.name] = spikes


def _level(program: Program, op: LifOp, theta: Ints) -> Ints:
    """What potentials are compared with while adaptive thresholds have risen by theta."""
    level = thresholds(program, op)
    return level if op.adaptation is None else level + (theta << op.adaptation.shift)


def _reached(op: LifOp, v: Ints, level: Ints) -> Ints:
    """How often v reaches its threshold: the largest s up to max_spikes so that it reaches 1, 2, ... s times that."""
    times = np.zeros_like(v)
    for k in range(op.threshold.max_spikes):
        further = (v > (k + 1) * level) if op.threshold.strict else (v >= (k + 1) * level)
        times += (times == k) & further
    return times


def _reset(program: Program, op: LifOp, v: Ints, level: Ints, spikes: Ints) -> Ints:
    """v after the reset that these spikes bring about."""
    to = v - spikes * level if op.reset.subtracts else resets(program, op)
    return np.where(spikes > 0, to, v)


def shifted(program: Program, op: LifOp, x: Ints, rounded: Callable[[Ints, int], Ints]) -> Ints:
    """The input current in units of the potential: one shift for all neurons, or one per channel."""
    if op.input.shifts is None:
        return rounded(x, op.input.shift)
    shifts = in_shifts(program, op)
    done = np.zeros_like(x)
    for shift in np.unique(shifts):
        done = np.where(shifts == shift, rounded(x, int(shift)), done)
    return done


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
    PoissonOp: _outside,
    EventsOp: _outside,
    SelectOp: _select,
    DenseOp: _dense,
    ConvOp: _conv,
    PoolOp: _pool,
    AddOp: _add,
    LifOp: _lif,
    VoteOp: _outside,
    ReadOp: _outside,
}


def run(program: Program, spikes: Spikes, *, record: bool = False) -> Result:
    """Runs every sample from a fresh state over all its steps."""
    raster = spikes.dense()
    state = init(program, spikes.n_samples)
    ops = program.ops_of(LifOp)
    potentials = {op.name: np.zeros((spikes.n_samples, op.n), dtype=np.int64) for op in ops}
    history = []
    for t in range(spikes.n_steps):
        state, fired = step(program, state, t, raster[t])
        history.append(fired)
        potentials = {name: total + state[name]["v"] for name, total in potentials.items()}
    rasters = {op.name: np.stack([h[op.name] for h in history]).astype(np.uint8) for op in ops}
    counts = {name: x.sum(axis=0, dtype=np.int64) for name, x in rasters.items()}
    last = {op.name: state[op.name]["v"] for op in ops}
    scores = read(program, counts, last, potentials)
    if not record:
        return Result(counts=counts, scores=scores)
    return Result(
        counts=counts,
        scores=scores,
        v=last,
        ref={op.name: state[op.name]["ref"] for op in ops},
        spikes=rasters,
        current={op.name: state[op.name]["i"] for op in ops if op.current is not None},
        theta={op.name: state[op.name]["theta"] for op in ops if op.adaptation is not None},
    )


def read(program: Program, counts: dict[str, Ints], v_last: dict[str, Ints], v_sum: dict[str, Ints]) -> Ints:
    """Class scores of the program's read-out, int64 [B, n_classes]."""
    for op in program.ops_of(ReadOp):
        return {"spikes": counts, "v_last": v_last, "v_sum": v_sum}[op.of][op.source]
    return vote(program, counts)

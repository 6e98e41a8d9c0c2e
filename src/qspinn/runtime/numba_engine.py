"""The compiled engine: event driven, layer by layer over all steps, threads over samples.

Per step and population it adds the weight rows of the sources that spiked, then makes one pass over the potentials
(decay, integrate, compare). Only a step in which something crosses pays for the winner and the inhibition.

Kernels are chosen by proof, never by hope:

- `one_bit`: unsigned potentials, one winner per step, weights of one bit: bit-sliced throughout;
- `narrow`: unsigned potentials with one winner per step; 16-bit lanes where sums and potentials provably fit;
- `_layers`: everything else: convolutions, several connections, feedback, currents; in 16, 32 or 64 bits.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import QFormat, Rounding
from qspinn.ops import (
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
    VoteOp,
    spread,
)
from qspinn.program import Program
from qspinn.runtime import _bits_kernel, _kernels, _layers
from qspinn.runtime._vectors import WORDS, aligned
from qspinn.runtime.arithmetic import MODE
from qspinn.runtime.reference import thresholds
from qspinn.runtime.result import Counts, Result
from qspinn.spikes import Spikes

NEVER = (1 << 31) - 1
COMPETING = ("name", "n", "v_fmt", "v_min", "in_shift", "decay", "decay_shift", "rounding", "v_th", "v_th_shift",
             "v_reset", "n_ref", "winner", "stream", "theta", "theta_shift", "inhibition", "inhibition_shift")
"""What the kernels for competing neurons know of a population; everything else must be at its default."""


def run(program: Program, spikes: Spikes, *, record: bool = False, n_threads: int = 0) -> Result:
    """Runs every sample from a fresh state over all its steps; equal to `reference.run` in every bit.

    Args:
        n_threads: 0 for all cores.
    """
    return run_from(program, spikes, {}, record=record, n_threads=n_threads)[0]


def run_from(
    program: Program, spikes: Spikes, given: Mapping[str, Spikes], *, record: bool = False, n_threads: int = 0
) -> tuple[Result, dict[str, Spikes]]:
    """(result, signals by name), where populations whose spikes are given are not run again.

    Args:
        given: what `run_from` returned for populations that everything up to them leaves as it was; not the one that
            is read out, and not with record.
    """
    signals: dict[str, Spikes] = {"input": spikes}
    kept: dict[str, NDArray] = {}
    feeding: dict[str, list[Feed]] = {}
    n_threads = n_threads or os.cpu_count() or 1
    ops = program.ops_of(LifOp)
    (readout,) = (op for op in program.ops if isinstance(op, VoteOp | ReadOp))
    read = {op.source for op in program.ops if isinstance(op, DenseOp | ConvOp | PoolOp | AddOp | SelectOp)}
    outcome: dict[str, _layers.States] = {}
    for op in program.ops:
        match op:
            case SelectOp():
                signals[op.target] = signals[op.source]
                kept[op.target] = program.codes(op.kept)
            case PoolOp():
                signals[op.target] = _layers.pooled(program, op, _chosen(signals, kept, op.source), n_threads)
            case DenseOp() | ConvOp() | AddOp():
                feeding.setdefault(op.target, []).append(op)
            case LifOp() if op.name in given:
                signals[op.name] = given[op.name]
                outcome[op.name] = _known(given[op.name])
            case LifOp():
                feeds = feeding.get(op.name, [])
                simple = isinstance(readout, VoteOp) and _competing(program, op, feeds, signals, kept)
                if simple:
                    outcome[op.name], raster = _population(op, *simple, record or op.name in read, n_threads)
                    if op.name in read or record:
                        signals[op.name] = _from_raster(raster)
                    continue
                sources = {f.source: _chosen(signals, kept, f.source) for f in feeds if f.source != op.name}
                of = readout.of if isinstance(readout, ReadOp) and readout.source == op.name else "spikes"
                wanted = _layers.Wanted(counts=record or op.name not in read or op.name == readout.source,
                                        spikes=record or op.name in read, states=record or of == "v_last",
                                        v_sum=of == "v_sum")
                outcome[op.name], signals[op.name] = _layers.population(program, op, feeds, sources, spikes, wanted,
                                                                        n_threads)
            case PoissonOp() | EventsOp() | VoteOp() | ReadOp():
                pass
    counts = Counts({name: o.counts.astype(np.int64, copy=False) if len(o.counts)
                     else functools.partial(_layers.counted, signals[name]) for name, o in outcome.items()})
    scores = _scores(program, readout, outcome)
    if not record:
        return Result(counts=counts, scores=scores), signals
    whole = Result(
        counts=counts, scores=scores, v={op.name: outcome[op.name].v for op in ops},
        ref={op.name: outcome[op.name].ref for op in ops}, spikes={op.name: signals[op.name].dense() for op in ops},
        current={op.name: outcome[op.name].current for op in ops if op.current},
    )
    return whole, signals


def _known(spikes: Spikes) -> _layers.States:
    """What is left of a population whose spikes are known: nothing that is asked for but them."""
    return _layers.States(*(np.zeros((0, spikes.n), np.int64) for _ in _layers.States._fields))


def _scores(program: Program, readout: VoteOp | ReadOp, outcome: dict[str, _layers.States]) -> NDArray[np.int64]:
    """Class scores, int64 [B, n_classes]."""
    states = outcome[readout.source]
    if isinstance(readout, VoteOp):
        return _kernels.tally(states.counts, program.codes(readout.votes).astype(np.int64))
    return {"spikes": states.counts, "v_last": states.v, "v_sum": states.v_sum}[readout.of]


def _chosen(signals: dict[str, Spikes], kept: dict[str, NDArray], name: str) -> Spikes:
    """A signal, without the sources that were left out."""
    return signals[name].select(kept[name]) if name in kept else signals[name]


def _competing(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes], kept: dict[str, NDArray]
) -> tuple[Any, Spikes] | None:
    """((kernel, arguments), source) where one of the kernels for competing neurons is proved to do."""
    (feed, *others) = feeds or (None,)
    plain = LifOp(**{f: getattr(op, f) for f in COMPETING})
    if (others or not isinstance(feed, DenseOp) or feed.shift or feed.source == op.name or plain != op
            or signals[feed.source].count is not None):
        return None
    source = signals[feed.source]
    plan = _plan(program, op, _rows(program.codes(feed.weight), kept.get(feed.source)), source)
    return (plan, source) if plan else None


def _rows(w: NDArray, kept: NDArray | None) -> NDArray:
    """Weights as rows [n_pre, N]. Inputs that were left out get rows of zeros: they spike so seldom that adding a zero
    row now and then costs less than renumbering every spike."""
    if kept is None:
        return np.ascontiguousarray(w.T)
    rows = np.zeros((kept.size, len(w)), dtype=w.dtype)
    rows[kept != 0] = w.T
    return rows


def _from_raster(raster: NDArray[np.uint8]) -> Spikes:
    """Event lists of a recorded raster uint8 [B, T, N]."""
    n_samples, n_steps, n = raster.shape
    ends = np.cumsum(raster.sum(axis=2, dtype=np.int64).ravel()).reshape(n_samples, n_steps)
    first = np.concatenate([[0], ends[:-1, -1]])[:n_samples, None]
    return Spikes(offsets=np.concatenate([first, ends], axis=1), index=np.nonzero(raster)[2].astype(np.uint32), n=n)


def _population(
    op: LifOp, plan: tuple, source: Spikes, record: bool, n_threads: int
) -> tuple[_layers.States, NDArray[np.uint8]]:
    """(states, raster [B, T, N] or empty) of one population of competing neurons."""
    kernel, arguments = plan
    n_samples, n_steps = source.n_samples, source.n_steps
    counts = np.zeros((n_samples, op.n), dtype=np.int32)
    v = np.zeros((n_samples if record else 0, op.n), dtype=np.int64)
    ref = np.zeros_like(v)
    raster = np.zeros((n_samples if record else 0, n_steps, op.n), dtype=np.uint8)
    edges = np.linspace(0, n_samples, min(n_threads, max(n_samples, 1)) + 1).astype(int)

    def part(i: int) -> None:
        a, b = edges[i], edges[i + 1]
        kernel(source.offsets[a:b], source.index, *arguments, counts[a:b],
               *((x[a:b] for x in (v, ref, raster)) if record else (v, ref, raster)))

    with concurrent.futures.ThreadPoolExecutor(len(edges) - 1) as pool:
        list(pool.map(part, range(len(edges) - 1)))
    return _layers.States(counts=counts, v=v, ref=ref, current=v[:0], v_sum=v[:0]), raster


def _plan(program: Program, op: LifOp, w: NDArray, source: Spikes) -> tuple | None:
    """The kernel whose conditions hold for this population and these inputs, with its arguments; None if none does."""
    level = thresholds(program, op)
    decay = int(program.codes(op.decay)[0])
    reset = spread(program.codes(op.v_reset), op.n)
    strength = np.zeros(op.n, np.int64)
    if op.inhibition:
        strength = np.minimum(spread(program.codes(op.inhibition), op.n) << op.inhibition_shift, NEVER)
    common = (np.uint32(program.seed), op.stream, op.n_ref, MODE[op.rounding])
    busiest = int(_kernels.busiest_step(source.offsets))
    lanes = lanes_for(op.v_fmt, op.v_min, op.in_shift, op.decay_shift, op.winner, w, busiest)
    if lanes is None:
        return None
    vectors = (padded(np.minimum(level, lanes.never), lanes.v, lanes.never), padded(reset, lanes.v, 0),
               padded(np.minimum(strength, lanes.never), lanes.v, 0))
    slices = bit_slices(op, w, decay, busiest)
    if slices is not None:
        bits, width = packed_rows(w)
        return _bits_kernel.one_bit, (
            bits, width, *slices, packed_planes(np.minimum(level, (2 << op.v_fmt.bits) - 1), op.v_fmt.bits + 1, width),
            packed_planes(np.minimum(strength, op.v_fmt.code_max), op.v_fmt.bits, width),
            packed_planes(reset, op.v_fmt.bits, width), np.uint32(program.seed), op.stream, op.n_ref)
    rows = padded(w.astype(np.int64) << max(0, -op.in_shift), lanes.row, 0)
    settings = narrow_settings(op.v_fmt, op.in_shift, decay, op.decay_shift)
    fused = (rows.dtype == np.uint8 and lanes.v is np.int16 and lanes.total is np.int16 and decay < 1 << op.decay_shift
             and op.rounding is not Rounding.STOCHASTIC)
    return _kernels.narrow, (rows, np.zeros(rows.shape[1], lanes.total), *settings, *vectors, *common, fused)


def packed_rows(w: NDArray) -> tuple[NDArray[np.uint64], int]:
    """(words [(n_pre + 1) * width], width) of one-bit weights [n_pre, N]: bit j % 64 of word j // 64 of a row is neuron
    j. The last row is zeros."""
    width = -(-w.shape[1] // _bits_kernel.GROUP) * WORDS
    bits = np.zeros((len(w) + 1, width * 64), dtype=np.uint8)
    bits[:-1, : w.shape[1]] = w
    words = aligned((bits.size // 64,), np.uint64)
    words[:] = np.packbits(bits, axis=1, bitorder="little").view(np.uint64).ravel()
    return words, width


def packed_planes(x: NDArray, n_planes: int, width: int) -> NDArray[np.uint64]:
    """Bit planes of numbers [N], lowest first, group by group: uint64 [groups * n_planes * 8]. Padded neurons get
    ones: a level that nothing reaches."""
    numbers = np.full(width * 64, -1, dtype=np.int64)
    numbers[: len(x)] = x
    planes = (numbers.reshape(-1, 1, _bits_kernel.GROUP) >> np.arange(n_planes)[:, None] & 1).astype(np.uint8)
    words = aligned((planes.size // 64,), np.uint64)
    words[:] = np.packbits(planes.ravel(), bitorder="little").view(np.uint64)
    return words


def bit_slices(op: LifOp, w: NDArray, decay: int, busiest: int) -> tuple | None:
    """(left, n_counts, n_planes, n_leak, shifts, n_low, decay_shift) of the bit-sliced kernel, or None where it does
    not apply: it takes weights of one bit, inputs that are not scaled down, and decays close to one, or otherwise
    with few bits set in 2**shift - code."""
    k = op.decay_shift
    leak = (1 << k) - decay
    shifts = [s for s in range(k + 1) if leak >> s & 1]
    if (w.max(initial=0) > 1 or op.in_shift > 0 or busiest > _bits_kernel.BUSIEST or not 1 <= len(shifts) <= 4 or k < 1
            or op.rounding is Rounding.STOCHASTIC):
        return None
    n_low = k - (op.rounding is Rounding.NEAREST)
    n_leak = max(0, (leak * op.v_fmt.code_max + (1 << n_low) - 1).bit_length() - k)
    return -op.in_shift, max(busiest.bit_length(), 1), op.v_fmt.bits, n_leak, np.array(shifts) * WORDS, n_low, k


class Lanes(NamedTuple):
    """Array types under which every intermediate of the narrow kernel provably fits."""

    row: type
    total: type
    v: type
    never: int


def lanes_for(
    v_fmt: QFormat, v_min: int, in_shift: int, decay_shift: int, winner: bool, w: NDArray, busiest: int
) -> Lanes | None:
    """Lane types for these weights and at most `busiest` input spikes a step; None where only `wide` is exact."""
    top = int(w.max(initial=0)) << max(0, -in_shift)
    largest_sum = min(busiest * top, int(w.sum(axis=0).max(initial=0)) << max(0, -in_shift))
    if v_fmt.signed or v_min != 0 or not winner or int(w.min(initial=0)) < 0 or top >= 1 << 16:
        return None
    if v_fmt.bits > 16 or not 0 <= decay_shift <= 16 or in_shift > 16:
        return None
    half = 1 << in_shift - 1 if in_shift > 0 else 0  # what rounding to nearest adds
    if largest_sum + half >= 1 << min(16 + max(in_shift, 0), 30):
        return None
    small = v_fmt.bits <= 14  # a threshold that no potential reaches must be representable
    return Lanes(row=np.uint8 if top < 256 else np.uint16, total=np.int16 if largest_sum < 1 << 15 else np.int32,
                 v=np.int16 if small else np.int32, never=32767 if small else NEVER)


def narrow_settings(v_fmt: QFormat, in_shift: int, decay: int, decay_shift: int) -> tuple:
    """(decay, gain, decay_scale, in_shift, v_max) as the narrow kernel takes them, at the common shift of 16."""
    scale = 16 - decay_shift
    right = max(in_shift, 0)
    return np.uint32(decay << scale), np.uint32(1 << (16 - right)), scale, right, np.int32(v_fmt.code_max)


def padded(x: NDArray, kind: type, fill: int) -> NDArray:
    """x with its last axis filled up to whole vector registers, aligned; padded neurons never spike."""
    width = -(-x.shape[-1] // _kernels.CHUNK) * _kernels.CHUNK
    wide = aligned((*x.shape[:-1], width), kind)
    wide[...] = fill
    wide[..., : x.shape[-1]] = x
    return wide

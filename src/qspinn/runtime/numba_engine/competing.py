"""Populations of competing neurons on compiled kernels: which kernel is proved to do, and what it takes.

- `one_bit`: unsigned potentials, one winner per step, weights of one bit: bit-sliced throughout;
- `in_bytes`: unsigned potentials with one winner per step, weights of a byte: explicit 16-bit lanes throughout;
- `narrow`: the same with wider weights or stochastic rounding; 16-bit lanes where sums and potentials provably fit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.competing import narrow_settings, padded
from qspinn.compiled.scalars import MODE
from qspinn.compiled.vectors import WORDS, aligned
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import Program
from qspinn.program.constants import inhibitions, resets, share_factors, thresholds
from qspinn.program.ops import DenseOp, Feed, LifOp
from qspinn.program.parts import InputShift, Reset, Threshold
from qspinn.runtime.numba_engine.kernels import bits, narrow
from qspinn.runtime.numba_engine.layered.populations import States
from qspinn.runtime.once import once
from qspinn.spikes import Spikes, unchecked

NEVER = (1 << 31) - 1
MOST_SHIFT = 16  # of input sums, together with potentials; larger ones are shifted by themselves
COMPETING = ("name", "n", "v_fmt", "v_min", "rounding", "leak", "n_ref", "winner", "stream", "inhibition")
"""What the kernels for competing neurons know of a population beside an input shift, a threshold with a constant offset
and a reset to a value; everything else must be at its default."""


class Weights(NamedTuple):
    """Extent of the weights [n_pre, N] of a population: the smallest, the largest, the largest sum of a neuron's."""

    low: int
    high: int
    most: int


def plan(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes], chosen: dict[str, NDArray]
) -> tuple | None:
    """Kernel and arguments that are proved to serve this population and these inputs; None where no kernel is.

    chosen: of signals from which sources were left out, which ones the weights know.
    """
    (feed, *others) = feeds or (None,)
    plain = once(program, ("plain", op.name), lambda: _is_plain(program, op))
    if (
        others
        or not isinstance(feed, DenseOp)
        or feed.shift
        or feed.source == op.name
        or not plain
        or signals[feed.source].count is not None
    ):
        return None
    busiest = int(narrow.busiest_step(signals[feed.source].offsets))
    w = program.codes(feed.weight)
    weights = once(program, ("extent", op.name), lambda: _extent(w))
    lanes = lanes_for(op.v_fmt, op.v_min, op.input.shift, op.leak.shift, op.winner, weights, busiest)
    if lanes is None:
        return None
    slices = bit_slices(op, weights, int(program.codes(op.leak.decay)[0]), busiest)
    return once(
        program,
        (op.name, lanes, slices),
        lambda: _arguments(program, op, _rows(w, chosen.get(feed.source)), lanes, slices),
    )


def _is_plain(program: Program, op: LifOp) -> bool:
    """Whether the kernels for competing neurons know everything of a population; all its neurons leak alike."""
    known = LifOp(
        **{f: getattr(op, f) for f in COMPETING},
        input=InputShift(shift=op.input.shift),
        threshold=Threshold(tensor=op.threshold.tensor, shift=op.threshold.shift),
        reset=Reset(tensor=op.reset.tensor),
        theta=op.offset,
    )
    return known == op and share_factors(program, op)


def kernel_of(program: Program, spikes: Spikes) -> str | None:
    """Kernel that a program of one population takes for these inputs, with the types it is compiled for; None where it
    is none of those for competing populations."""
    (op,) = program.ops_of(LifOp)
    found = plan(program, op, list(program.ops_of(DenseOp)), {"input": spikes}, {})
    if found is None:
        return None
    kernel, arguments = found
    return " ".join((kernel.__name__, *(x.dtype.name for x in arguments if isinstance(x, np.ndarray))))


def population(op: LifOp, plan: tuple, source: Spikes, left: States, noted: bool) -> Spikes:
    """The spikes of a population; none where they are not to be noted. `left` is filled where it has samples."""
    kernel, arguments = plan
    n_samples, n_steps = source.n_samples, source.n_steps
    counts = np.zeros((n_samples, op.n), dtype=np.int32)
    v = np.zeros((n_samples if noted else 0, op.n), dtype=np.int64)
    ref = np.zeros_like(v)
    raster = np.zeros((n_samples if noted else 0, n_steps, op.n), dtype=np.uint8)
    kernel(source.offsets, source.index, *arguments, counts, v, ref, raster)
    for to, found in ((left.counts, counts), (left.v, v), (left.ref, ref)):
        if len(to):
            to[:] = found
    return _from_raster(raster)


def _extent(w: NDArray) -> Weights:
    """Of weights [N, n_pre]."""
    return Weights(int(w.min(initial=0)), int(w.max(initial=0)), int(w.sum(axis=1, dtype=np.int64).max(initial=0)))


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
    return unchecked(offsets=np.concatenate([first, ends], axis=1), index=np.nonzero(raster)[2].astype(np.uint32), n=n)


def _arguments(program: Program, op: LifOp, w: NDArray, lanes: Lanes, slices: Slices | None) -> tuple:
    """(kernel, arguments) for lanes, or for bit slices where they apply."""
    level, decay = thresholds(program, op), int(program.codes(op.leak.decay)[0])
    reset, strength = resets(program, op), np.minimum(inhibitions(program, op), NEVER)
    if slices is not None:
        packed, width = packed_rows(w)
        fixed = slices._replace(shifts=np.array(slices.shifts) * WORDS)
        return bits.one_bit, (
            packed,
            width,
            *fixed,
            packed_planes(np.minimum(level, (2 << op.v_fmt.bits) - 1), op.v_fmt.bits + 1, width),
            packed_planes(np.minimum(strength, op.v_fmt.code_max), op.v_fmt.bits, width),
            packed_planes(reset, op.v_fmt.bits, width),
            np.uint32(program.seed),
            op.stream,
            op.n_ref,
        )
    vectors = (
        padded(np.minimum(level, lanes.never), lanes.v, lanes.never),
        padded(reset, lanes.v, 0),
        padded(np.minimum(strength, lanes.never), lanes.v, 0),
    )
    rows = padded(w.astype(np.int64) << max(0, -op.input.shift), lanes.row, 0)
    stochastic, far = op.rounding is Rounding.STOCHASTIC, op.input.shift > MOST_SHIFT
    settings = narrow_settings(op.v_fmt, 0 if far else op.input.shift, decay, op.leak.shift)
    fused = (
        rows.dtype == np.uint8
        and lanes.v is np.int16
        and lanes.total is np.int16
        and decay < 1 << op.leak.shift
        and not stochastic
        and not far
    )
    draws = (np.uint32(program.seed), op.stream, op.n_ref, MODE[op.rounding])
    if fused:
        return narrow.in_bytes, (
            rows,
            settings.decay,
            settings.gain,
            settings.in_shift,
            settings.v_max,
            *vectors,
            *draws,
        )
    beyond = (0, 0)
    if far and stochastic:  # random words are added to sums as they are
        settings = settings._replace(in_shift=op.input.shift)
    elif far:
        beyond = (op.input.shift, 1 << op.input.shift - 1 if op.rounding is Rounding.NEAREST else 0)
    return narrow.narrow, (rows, np.zeros(rows.shape[1], lanes.total), *settings, *vectors, *draws, *beyond)


def packed_rows(w: NDArray) -> tuple[NDArray[np.uint64], int]:
    """Words [(n_pre + 1) * width] and width of one-bit weights [n_pre, N]: bit j % 64 of word j // 64 of a row is
    neuron j. The last row is zeros."""
    width = -(-w.shape[1] // bits.GROUP) * WORDS
    flags = np.zeros((len(w) + 1, width * 64), dtype=np.uint8)
    flags[:-1, : w.shape[1]] = w
    words = aligned((flags.size // 64,), np.uint64)
    words[:] = np.packbits(flags, axis=1, bitorder="little").view(np.uint64).ravel()
    return words, width


def packed_planes(x: NDArray, n_planes: int, width: int) -> NDArray[np.uint64]:
    """Bit planes of numbers [N], lowest first, group by group: uint64 [groups * n_planes * 8]. Padded neurons get
    ones: a level that nothing reaches."""
    numbers = np.full(width * 64, -1, dtype=np.int64)
    numbers[: len(x)] = x
    planes = (numbers.reshape(-1, 1, bits.GROUP) >> np.arange(n_planes)[:, None] & 1).astype(np.uint8)
    words = aligned((planes.size // 64,), np.uint64)
    words[:] = np.packbits(planes.ravel(), bitorder="little").view(np.uint64)
    return words


class Slices(NamedTuple):
    """Settings of the bit-sliced kernel."""

    left: int
    n_counts: int
    n_planes: int
    n_leak: int
    shifts: Any
    n_low: int
    decay_shift: int


def bit_slices(op: LifOp, weights: Weights, decay: int, busiest: int) -> Slices | None:
    """Settings of the bit-sliced kernel, or None where it does not apply: it takes weights of one bit, inputs that are
    not scaled down, and decays close to one, or otherwise with few bits set in 2**shift - code."""
    k = op.leak.shift
    leak = (1 << k) - decay
    shifts = tuple(s for s in range(k + 1) if leak >> s & 1)
    if (
        weights.high > 1
        or op.input.shift > 0
        or busiest > bits.BUSIEST
        or not 1 <= len(shifts) <= 4
        or k < 1
        or op.rounding is Rounding.STOCHASTIC
    ):
        return None
    n_low = k - (op.rounding is Rounding.NEAREST)
    n_leak = max(0, (leak * op.v_fmt.code_max + (1 << n_low) - 1).bit_length() - k)
    return Slices(-op.input.shift, max(busiest.bit_length(), 1), op.v_fmt.bits, n_leak, shifts, n_low, k)


class Lanes(NamedTuple):
    """Array types under which every intermediate of the narrow kernel provably fits."""

    row: type
    total: type
    v: type
    never: int


def lanes_for(
    v_fmt: QFormat, v_min: int, in_shift: int, decay_shift: int, winner: bool, weights: Weights, busiest: int
) -> Lanes | None:
    """Lane types for these weights and at most `busiest` input spikes a step; None where only `wide` is exact."""
    top = weights.high << max(0, -in_shift)
    largest_sum = min(busiest * top, weights.most << max(0, -in_shift))
    if v_fmt.signed or v_min != 0 or not winner or weights.low < 0 or top >= 1 << 16:
        return None
    if v_fmt.bits > 16 or not 0 <= decay_shift <= 16 or in_shift > 30:
        return None
    half = 1 << in_shift - 1 if in_shift > 0 else 0  # what rounding to nearest adds
    if largest_sum + half >= 1 << min(16 + max(in_shift, 0), 30):
        return None
    small = v_fmt.bits <= 14  # a threshold that no potential reaches must be representable
    return Lanes(
        row=np.uint8 if top < 256 else np.uint16,
        total=np.int16 if largest_sum < 1 << 15 else np.int32,
        v=np.int16 if small else np.int32,
        never=32767 if small else NEVER,
    )

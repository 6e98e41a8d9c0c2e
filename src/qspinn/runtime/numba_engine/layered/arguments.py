"""Arguments of the kernels of layers: a population's constants, for narrow lanes or 64 bits, and a signal's events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import frozen
from qspinn.compiled.scalars import MODE
from qspinn.compiled.vectors import aligned
from qspinn.fixedpoint import Rounding
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
from qspinn.program.field import Field, up_to
from qspinn.program.ops import LifOp
from qspinn.runtime.numba_engine.kernels import general as general_kernel
from qspinn.runtime.numba_engine.kernels import lanes as lanes_kernel
from qspinn.spikes import Spikes, index_dtype

NONE = np.zeros(0, np.uint8)
ONCE = frozen(np.zeros(0, np.uint8))
"""The counts of a signal without counts: read-only, as the arrays of signals are."""
"""Counts of a signal whose sources spike once."""


class Layout(NamedTuple):
    """The rows of a population in the kernel for narrow lanes: `map_rows` of `width` lanes, `per_group` of them a
    group; where they are in the sums; vectors of so many lanes; a stretch of the tensors for each group or row."""

    map_rows: int
    per_group: int
    width: int
    first: int
    row_pitch: int
    group_pitch: int
    lanes: int
    stretch: int
    run: int
    by_row: bool


class Neuron(NamedTuple):
    """Constants that all neurons of a population have in common, as the kernel for narrow lanes takes them."""

    v_min: int
    v_max: int
    decay: int
    decay_half: int
    decay_low: int
    decay_shift: int
    leaks: bool
    moves: bool
    subtract: bool
    n_ref: int
    has_current: bool
    current: int
    current_half: int
    current_low: int
    current_shift: int
    i_min: int
    i_max: int
    usual: bool
    bounded: bool
    stores: bool
    store_half: int
    store_low: int
    store_shift: int
    store_min: int
    store_max: int


def shifted_weights(program: Program, op: LifOp, field: Field) -> NDArray[np.int64]:
    """Bits by which the weights into each neuron are shifted to the left beforehand, [N], so that sums need not be:
    as far as in_shift says, where sums go to the potential and the shift is the same within a map."""
    left = np.maximum(-in_shifts(program, op), 0)
    by_map = left.reshape(field.groups * field.run, -1)
    return left if op.current is None and (by_map == by_map[:, :1]).all() else np.zeros_like(left)


def narrow(
    program: Program, op: LifOp, field: Field, kind: type, left: NDArray[np.int64], ahead: bool
) -> tuple[Callable, tuple]:
    """The kernel for narrow lanes with its arguments between the sums and the outputs.

    Args:
        left: by how many bits the weights are shifted already.
        ahead: sums may begin with the bias and the half for rounding.
    """
    bits = np.iinfo(kind).bits
    lanes = 512 // bits
    width = up_to(field.width * field.run, lanes)
    after = field.packed(width)
    n_lanes = field.groups * field.height * width
    names = np.zeros(n_lanes, index_dtype(op.n))
    names[after] = np.arange(op.n)
    taken = np.zeros(n_lanes, bool)
    taken[after] = True
    valid = np.packbits(taken, bitorder="little").view(np.uint32 if lanes == 32 else np.uint16).astype(np.uint32)
    shifts = in_shifts(program, op) + left
    tensors, stretch, by_row = _tensors(program, op, field, width, kind, shifts)
    layout = Layout(
        field.groups * field.height,
        field.height,
        width,
        field.first,
        field.row_pitch,
        field.group_pitch,
        lanes,
        stretch,
        field.run,
        by_row,
    )
    neuron = _neuron(program, op, bits, shifts, ahead)
    return lanes_kernel.in_lanes, (tuple(layout), tensors, names, valid, tuple(neuron), after)


def _tensors(
    program: Program, op: LifOp, field: Field, width: int, kind: type, shifts: NDArray[np.int64]
) -> tuple[tuple, int, bool]:
    """((bias, left, half, low, right, level, lowered, begins), stretch, by_row): what differs between neurons, in
    lanes: per group one period of the channels, or per row all of it."""
    level, top = thresholds(program, op), int(np.iinfo(kind).max)
    right = np.maximum(shifts, 0)
    subtract = op.reset.subtracts
    reset = resets(program, op)
    bias = biases(program, op)
    half = np.where(right > 0, 1 << right >> 1, 0) * (op.rounding is Rounding.NEAREST)
    each = [
        bias,
        np.maximum(-shifts, 0),
        half,
        ((1 << right) - 1) * (op.rounding is Rounding.TOWARD_ZERO),
        right,
        np.minimum(level - (not op.threshold.strict), top) if op.spiking else np.full(op.n, top),
        np.minimum(level, top) if subtract else -reset,
        half + (bias << right),
    ]
    channels = [x.reshape(field.groups * field.run, -1) for x in each]
    if all((x == x[:, :1]).all() for x in channels):
        stretch = min(math.lcm(field.run, 512 // np.iinfo(kind).bits), width)
        cycle = np.arange(stretch) % field.run
        made = [x[:, 0].reshape(field.groups, field.run)[:, cycle] for x in channels]
        by_row = False
    else:
        stretch, by_row = width, True
        made = [np.zeros((field.groups * field.height, width), np.int64) for _ in each]
        for room, x in zip(made, each, strict=True):
            room.ravel()[field.packed(width)] = x
    tensors = []
    for x in made:
        tensors.append(aligned((x.size,), kind))
        tensors[-1][:] = x.ravel()
    return tuple(tensors), stretch, by_row


def _neuron(program: Program, op: LifOp, bits: int, shifts: NDArray[np.int64], ahead: bool) -> Neuron:
    """The common settings; products of 16-bit lanes at their shift of 15."""

    def factor(name: str, shift: int) -> tuple[int, int, int, int]:
        to = 15 if bits == 16 else shift
        return (
            int(program.codes(name)[0]) << to - shift,
            (1 << to >> 1) * (op.rounding is Rounding.NEAREST),
            ((1 << to) - 1) * (op.rounding is Rounding.TOWARD_ZERO),
            to,
        )

    fmt = None if op.current is None else op.current.fmt
    decay = factor(op.leak.decay, op.leak.shift)
    current = (0, 0, 0, 0) if op.current is None else factor(op.current.decay, op.current.shift)
    leaks, subtract = int(program.codes(op.leak.decay)[0]) != 1 << op.leak.shift, op.reset.subtracts
    usual = (
        ahead
        and (shifts >= 0).all()
        and leaks
        and subtract
        and fmt is None
        and op.n_ref == 0
        and op.rounding is Rounding.NEAREST
        and op.store is None
    )
    bounded = bits != 16 or (op.v_min, op.v_fmt.code_max) != (-1 << 15, (1 << 15) - 1)
    dropped, kept_min, kept_max = kept_codes(op)
    return Neuron(
        op.v_min,
        op.v_fmt.code_max,
        *decay,
        leaks,
        bool((shifts != 0).any()),
        subtract,
        op.n_ref,
        fmt is not None,
        *current,
        fmt.code_min if fmt else 0,
        fmt.code_max if fmt else 0,
        bool(usual),
        bounded,
        op.store is not None,
        (1 << dropped >> 1) * (op.rounding is Rounding.NEAREST),
        ((1 << dropped) - 1) * (op.rounding is Rounding.TOWARD_ZERO),
        dropped,
        kept_min,
        kept_max,
    )


def general(program: Program, op: LifOp, field: Field) -> tuple[Callable, tuple]:
    """The kernel of 64 bits with its arguments between the sums and the outputs."""
    current, adaptation = op.current, op.adaptation
    neuron = (
        op.leak.shift,
        op.v_min,
        op.v_fmt.code_max,
        op.threshold.strict,
        op.reset.subtracts,
        op.reset.delayed,
        op.spiking,
        op.n_ref,
        MODE[op.rounding],
        *((True, current.shift, current.fmt.code_min, current.fmt.code_max) if current else (False, 0, 0, 0)),
        *(
            (True, adaptation.decay_shift, adaptation.fmt.code_max, adaptation.shift)
            if adaptation
            else (False, 0, 0, 0)
        ),
        op.threshold.max_spikes,
        op.store is not None,
        *kept_codes(op),
    )
    tensors = (
        in_shifts(program, op),
        thresholds(program, op),
        resets(program, op),
        biases(program, op),
        theta_steps(program, op),
        decays(program, op),
        current_decays(program, op),
        theta_decays(program, op),
    )
    return general_kernel.in_general, (
        field.places(),
        neuron,
        tensors,
        op.winner,
        op.inhibition is not None,
        inhibitions(program, op),
        np.uint32(program.seed),
        op.stream,
    )


def events_of(signal: Spikes) -> tuple[NDArray, NDArray]:
    """Index and count of a signal's events; count is empty where every source spikes once."""
    return signal.index, ONCE if signal.count is None else signal.count

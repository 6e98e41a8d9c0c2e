"""Check of a population of neurons: its parts in range and fit for one another, sums of 32 bits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from qspinn.program.faults import MAX_SIZE, Fault, ranges
from qspinn.program.ops import LifOp, spread
from qspinn.program.parts import SIGNED, UNSIGNED, Bound, largest
from qspinn.program.program import Program


def neuron_faults(program: Program, op: LifOp, drive: int) -> Iterable[Fault]:
    """Faults of a population, as sentences.

    Args:
        drive: largest size of its input current: all sources spike as often as they may.
    """
    yield from ranges(op, n=(1, 1 << 31), n_ref=(0, MAX_SIZE), stream=(0, (1 << 31) - 1), v_min=(op.v_fmt.code_min, 0))
    if op.v_fmt.binary or op.v_fmt.bits > 31:
        yield Fault("v_fmt", "holds no potentials", str(op.v_fmt), "1..31 bits, two at least with a sign")
    for place, part in op.parts.items():
        for fault in part.faults(program, op.n):
            yield fault._replace(field=f"{place}.{fault.field}")
    yield from _together(program, op)
    for what, bound, limit in bounds(program, op, drive):
        if bound >= limit:
            yield Fault(
                "v_fmt",
                f"the accumulator of {what} may overflow 32 bits",
                bound,
                f"below {limit}",
                "fewer bits, smaller shifts or a smaller max_count",
            )


def _together(program: Program, op: LifOp) -> Iterable[Fault]:
    """What is wrong between parts: spikes that cannot be several, resets out of range, thresholds out of reach."""
    several = op.threshold.max_spikes
    if several > 1 and (not op.reset.subtracts or op.winner or op.inhibition is not None):
        yield Fault(
            "threshold.max_spikes",
            "several spikes a step need a reset by subtraction and no competition",
            several,
            "1 here",
        )
    reset = program.codes(op.reset.tensor)
    if not op.reset.subtracts and (reset.min() < op.v_min or reset.max() > op.v_fmt.code_max):
        yield Fault(
            "reset.tensor",
            f"tensor {op.reset.tensor!r} resets out of the range of potentials",
            (int(reset.min()), int(reset.max())),
            f"{op.v_min}..{op.v_fmt.code_max}",
        )
    if op.spiking:
        yield from _reached(program, op)


def _reached(program: Program, op: LifOp) -> Iterable[Fault]:
    """Thresholds lie between silence and the largest potential."""
    lengths = [len(program.codes(part.tensor)) for part in op.constant_threshold]
    if max(lengths) % min(lengths):
        yield Fault(
            "theta.tensor",
            "and the threshold speak of different channels",
            tuple(lengths),
            "lengths of which one divides the other",
        )
    level, strict = levels(program, op), op.threshold.strict
    least, top = 1 - strict, op.v_fmt.code_max - strict
    if level.min() < least:
        neuron = int(level.argmin()) * (op.n // len(level))
        yield Fault(
            "threshold.tensor",
            f"neuron {neuron} would spike without any input",
            int(level.min()),
            f"a threshold of {least} at least",
            "more bits for the potential, or a smaller range",
        )
    if level.min() > top:
        yield Fault(
            "threshold.tensor",
            "no neuron can ever reach its threshold",
            int(level.min()),
            f"at most {top}",
            "more bits for the potential, or a lower threshold",
        )


def levels(program: Program, op: LifOp) -> NDArray[np.int64]:
    """The constant part of the thresholds in codes of the potential, int64: one for each of as many equal groups of
    neurons as tensors tell apart (a program that was not checked may name more neurons than memory holds)."""
    codes = [(program.codes(part.tensor), part.shift) for part in op.constant_threshold]
    n_groups = math.lcm(*(len(c) for c, _ in codes))
    return np.sum([spread(c, n_groups) << shift for c, shift in codes], axis=0)


def bounds(program: Program, op: LifOp, drive: int) -> list[Bound]:
    """Bounds of every intermediate of a step: its name, its largest size, and the size that it must stay below.

    Args:
        drive: largest size of the input current.

    Multiples of a threshold are compared one after the other, up to the first beyond the potential.
    """
    shifts = np.array([op.input.shift]) if op.input.shifts is None else program.codes(op.input.shifts)
    left, right = max(0, -int(shifts.min())), max(0, int(shifts.max()))
    v_low, v_high = op.v_min, op.v_fmt.code_max
    if op.store is not None:
        v_low, v_high = op.store.left(v_low, v_high)
    bias = 0 if op.bias is None else largest(program, op.bias.tensor) << op.bias.shift
    level = int(np.abs(levels(program, op)).max()) if op.spiking else 0
    found: list[Bound] = []
    if op.current is not None:
        found += op.current.bounds(program, drive + bias)
        drive, bias = -op.current.fmt.code_min, 0
    moving = 0 if op.adaptation is None else op.adaptation.fmt.code_max << op.adaptation.shift
    found += [
        ("the input current", max(v_high, -v_low) + (drive << left) + (1 << right >> 1) + bias, SIGNED),
        ("decay * v", op.leak.product(program, "decay", v_low, v_high), SIGNED if op.v_fmt.signed else UNSIGNED),
        ("the threshold", level + moving + v_high if op.spiking else 0, SIGNED),
    ]
    for part in (op.adaptation, op.inhibition):
        found += [] if part is None else part.bounds(program)
    return found

"""What engines may rely on of a population of neurons: factors, thresholds and resets in range, and sums of 32 bits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from qspinn.program.faults import MAX_SIZE, Fault, ranges, vector
from qspinn.program.ops import LifOp, spread
from qspinn.program.program import Program

MAX_SHIFT = 31
MAX_COUNT = 255


def neuron_faults(program: Program, op: LifOp, drive: int) -> Iterable[Fault]:
    """What is wrong with a population.

    Args:
        drive: largest size of its input current: all sources spike as often as they may.
    """
    yield from ranges(
        op,
        n=(1, 1 << 31),
        n_ref=(0, MAX_SIZE),
        stream=(0, (1 << 31) - 1),
        v_min=(op.v_fmt.code_min, 0),
        in_shift=(-MAX_SHIFT, MAX_SHIFT),
        max_spikes=(1, MAX_COUNT),
        **dict.fromkeys(
            (
                "decay_shift",
                "current_shift",
                "theta_decay_shift",
                "v_th_shift",
                "theta_shift",
                "inhibition_shift",
                "bias_shift",
            ),
            (0, MAX_SHIFT),
        ),
    )
    if op.v_fmt.binary or op.v_fmt.bits > 31:
        yield Fault("v_fmt", "holds no potentials", str(op.v_fmt), "1..31 bits, two at least with a sign")
    yield from _factors(program, op)
    yield from _vectors(program, op)
    yield from _switches(op)
    yield from _codes(program, op)
    for what, bound, limit in bounds(program, op, drive):
        if bound >= limit:
            yield Fault(
                "v_fmt",
                f"the accumulator of {what} may overflow 32 bits",
                bound,
                f"below {limit}",
                "fewer bits, smaller shifts or a smaller max_count",
            )


def _factors(program: Program, op: LifOp) -> Iterable[Fault]:
    """Decay factors are m / 2**shift within 0..1, never negative: potentials never grow by themselves. There is one for
    all neurons, one per channel, or one for each."""
    pairs = {"decay": op.decay_shift, "current": op.current_shift, "theta_decay": op.theta_decay_shift}
    for field, shift in pairs.items():
        name = getattr(op, field)
        if not name and field != "decay":
            if shift:
                yield Fault(f"{field}_shift", "shifts a factor that is not there", shift, "0")
            continue
        yield from vector(program, field, name, op.n)
        codes = program.codes(name)
        code = int(codes.min()) if codes.min() < 0 else int(codes.max())
        if program.tensors[name].fmt.signed or not 0 <= code <= 1 << shift:
            yield Fault(
                field,
                f"tensor {name!r} is no factor of 0..1",
                f"{code} / 2**{shift}",
                f"an unsigned code of 0..{1 << shift}",
                f"a {field}_shift of {max(code - 1, 0).bit_length()}",
            )


def _vectors(program: Program, op: LifOp) -> Iterable[Fault]:
    there = {
        "theta": bool(op.theta) or op.theta_fmt is not None,
        "inhibition": bool(op.inhibition),
        "bias": bool(op.bias),
    }
    for field, is_there in there.items():
        if getattr(op, f"{field}_shift") and not is_there:
            yield Fault(f"{field}_shift", f"shifts {field}, which is not there", getattr(op, f"{field}_shift"), "0")
    for field in ("v_th", "v_reset", "theta", "inhibition", "bias", "in_shifts", "theta_step"):
        if getattr(op, field) or field in ("v_th", "v_reset"):
            yield from vector(program, field, getattr(op, field), op.n)


def _codes(program: Program, op: LifOp) -> Iterable[Fault]:
    """Thresholds lie between silence and the largest potential; resets and shifts within what engines do."""
    for field, low, high in (
        ("theta", 0, None),
        ("inhibition", 0, None),
        ("theta_step", 0, None),
        ("in_shifts", -MAX_SHIFT, MAX_SHIFT),
    ):
        name = getattr(op, field)
        if name:
            codes = program.codes(name)
            if codes.min() < low or (high is not None and codes.max() > high):
                allowed = f"at least {low}" if high is None else f"{low}..{high}"
                yield Fault(
                    field,
                    f"tensor {name!r} holds a code that has no meaning there",
                    (int(codes.min()), int(codes.max())),
                    allowed,
                )
    reset = program.codes(op.v_reset)
    if op.reset == "value" and (reset.min() < op.v_min or reset.max() > op.v_fmt.code_max):
        yield Fault(
            "v_reset",
            f"tensor {op.v_reset!r} resets out of the range of potentials",
            (int(reset.min()), int(reset.max())),
            f"{op.v_min}..{op.v_fmt.code_max}",
        )
    if not op.spiking:
        return
    lengths = len(program.codes(op.v_th)), len(program.codes(op.theta)) if op.theta else 1
    if max(lengths) % min(lengths):
        yield Fault("theta", "and v_th speak of different channels", lengths, "lengths of which one divides the other")
    level = levels(program, op)
    least, top = 1 - op.strict, op.v_fmt.code_max - op.strict
    if level.min() < least:
        neuron = int(level.argmin()) * (op.n // len(level))
        yield Fault(
            "v_th",
            f"neuron {neuron} would spike without any input",
            int(level.min()),
            f"a threshold of {least} at least",
            "more bits for the potential, or a smaller range",
        )
    if level.min() > top:
        yield Fault(
            "v_th",
            "no neuron can ever reach its threshold",
            int(level.min()),
            f"at most {top}",
            "more bits for the potential, or a lower threshold",
        )


def levels(program: Program, op: LifOp) -> NDArray[np.int64]:
    """The constant part of the thresholds in codes of the potential, int64: one for each of as many equal groups of
    neurons as tensors tell apart (a program that was not checked may name more neurons than memory holds)."""
    v_th = program.codes(op.v_th)
    theta = program.codes(op.theta) if op.theta else np.zeros(1, np.int32)
    n_groups = math.lcm(len(v_th), len(theta))
    return (spread(v_th, n_groups) << op.v_th_shift) + (spread(theta, n_groups) << op.theta_shift)


def bounds(program: Program, op: LifOp, drive: int) -> list[tuple[str, int, int]]:
    """(what, its largest size, the size that it must stay below) of every intermediate of a step.

    Args:
        drive: largest size of the input current.

    Multiples of a threshold are compared one after the other, up to the first beyond the potential.
    """

    def top(name: str) -> int:
        return int(np.abs(program.codes(name).astype(np.int64)).max(initial=0)) if name else 0

    def product(fmt_max: int, fmt_min: int, factor: str, shift: int) -> int:
        """The largest size of a state times a factor, with what rounding adds."""
        return max(fmt_max * top(factor) + (1 << shift) - 1, -fmt_min * top(factor) - 1)

    shifts = program.codes(op.in_shifts) if op.in_shifts else np.array([op.in_shift])
    left, right = max(0, -int(shifts.min())), max(0, int(shifts.max()))
    fmt, (v_low, v_high), signed = op.current_fmt, _left(op), 1 << 31
    v_top = max(v_high, -v_low)
    bias, moving = top(op.bias) << op.bias_shift, op.theta_fmt.code_max if op.theta_fmt is not None else 0
    level = int(np.abs(levels(program, op)).max()) if op.spiking else 0
    found = []
    if fmt is not None:
        found = [
            ("decay * i", product(fmt.code_max, fmt.code_min, op.current, op.current_shift), signed),
            ("the synaptic current", -fmt.code_min + drive + bias, signed),
        ]
        drive, bias = -fmt.code_min, 0
    return [
        *found,
        ("the input current", v_top + (drive << left) + (1 << right >> 1) + bias, signed),
        ("decay * v", product(v_high, v_low, op.decay, op.decay_shift), signed if op.v_fmt.signed else 1 << 32),
        ("the threshold", level + (moving << op.theta_shift) + v_high if op.spiking else 0, signed),
        ("decay * theta", product(moving, 0, op.theta_decay, op.theta_decay_shift) if moving else 0, 1 << 32),
        ("the inhibition", top(op.inhibition) << op.inhibition_shift, signed),
    ]


def _left(op: LifOp) -> tuple[int, int]:
    """(least, largest) potential that a step may leave: a store rounds, also beyond v_min and the largest potential."""
    low, high = op.v_min, op.v_fmt.code_max
    if op.store_fmt is None:
        return low, high
    dropped = -op.store_fmt.frac
    return (
        min(low, max(low >> dropped, op.store_min) << dropped),
        max(high, min((high >> dropped) + 1, op.store_fmt.code_max) << dropped),
    )


def _switches(op: LifOp) -> Iterable[Fault]:
    """Parts of a neuron come together or not at all."""
    fmt, store = op.current_fmt, op.store_fmt
    if bool(op.current) != (fmt is not None):
        yield Fault(
            "current_fmt", "a synaptic current has a decay and a format, or neither", op.current, "both, or none"
        )
    if fmt is not None and (not fmt.signed or fmt.binary or fmt.bits > 31):
        yield Fault("current_fmt", "holds no synaptic currents", str(fmt), "2..31 bits with a sign")
    parts = (bool(op.theta_step), bool(op.theta_decay), op.theta_fmt is not None)
    if len(set(parts)) > 1:
        yield Fault(
            "theta_fmt",
            "an adaptive threshold has a step, a decay and a format, or none of them",
            parts,
            "all, or none",
        )
    if op.theta_fmt is not None and (op.theta or op.theta_fmt.signed or op.theta_fmt.bits > 31):
        yield Fault(
            "theta_fmt",
            "an adaptive threshold is unsigned and has no constant part",
            str(op.theta_fmt),
            "up to 31 unsigned bits, theta = ''",
        )
    if op.max_spikes > 1 and (op.reset != "subtract" or op.winner or op.inhibition):
        yield Fault(
            "max_spikes",
            "several spikes a step need a reset by subtraction and no competition",
            op.max_spikes,
            "1 here",
        )
    if store is None and op.store_min:
        yield Fault("store_min", "bounds a format that is not there", op.store_min, "0")
    if store is not None and not (
        store.signed
        and store.bits > 1
        and 0 <= -store.frac <= MAX_SHIFT
        and store.code_min <= op.store_min <= 0
        and store.bits - store.frac <= 32
    ):
        yield Fault(
            "store_fmt",
            "is no signed part of the potential's format",
            (str(store), op.store_min),
            "2 bits at least, a frac of -31..0, store_min of code_min..0",
        )

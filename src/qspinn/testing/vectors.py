"""Hand-built vectors for engines of layers: both ends, exact thresholds, every remainder, sums at the lanes' limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import CodeTensor, Program
from qspinn.program.ops import AddOp, ConvOp, DenseOp, EventsOp, LifOp, Op, ReadOp, conv_shape
from qspinn.program.parts import Adaptation, Bias, Current, InputShift, Leak, Reset, Store, Threshold
from qspinn.spikes import Spikes, from_dense
from qspinn.testing.programs import ROUNDINGS, Case, Ints, codes


def adversarial_layered() -> Iterator[Case]:
    """Hand-built vectors for engines of layers: potentials and currents at both ends and at their thresholds, what is
    kept of them between steps, binary weights, every remainder of either sign, sums just within and beyond 16 and 32
    bits, maps that fill a register or just do not."""
    for rounding in ROUNDINGS:
        made = itertools.chain(*(f(rounding) for f in (_remainders, _ends, _sums, _kept, _apart)))
        for name, program, spikes in made:
            yield Case(name=f"{name}, {rounding.value}", program=program, spikes=spikes)
    for name, program, spikes in _maps():
        yield Case(name=name, program=program, spikes=spikes)


Vector = tuple[str, Program, Spikes]
SIGNED16 = QFormat(bits=16, signed=True)


def lone(
    weight: ArrayLike,
    *,
    n_steps: int = 5,
    shift: int = 0,
    decay: tuple[ArrayLike, int] = (1, 0),
    v_th: ArrayLike = 32767,
    bias: ArrayLike = 0,
    in_shifts: ArrayLike | None = None,
    v_reset: int = 0,
    current: tuple[ArrayLike, int] | None = None,
    i_bits: int = 16,
    feedback: ArrayLike | None = None,
    theta_step: ArrayLike | None = None,
    theta_decay: tuple[ArrayLike, int] = (1, 0),
    theta_bits: int = 8,
    theta_shift: int = 0,
    v_fmt: QFormat = SIGNED16,
    in_shift: int = 0,
    bias_shift: int = 0,
    strict: bool = False,
    max_spikes: int = 1,
    reset: Literal["value", "subtract"] = "value",
    reset_delay: bool = False,
    store: Store | None = None,
    **settings: Any,
) -> Program:
    """A program of one population that is fed by a matrix; factors are (code or codes, shift)."""
    w = np.atleast_2d(np.asarray(weight))
    wide = QFormat(bits=32, signed=True)
    tensors = {
        "p.w": codes(w, wide),
        "p.decay": codes(decay[0], QFormat(bits=17)),
        "p.v_th": codes(v_th, wide),
        "p.v_reset": codes(v_reset, wide),
        "p.bias": codes(bias, wide),
    }
    ops: list[Op] = [EventsOp(shape=(w.shape[1], 1, 1)), DenseOp(source="input", target="p", weight="p.w", shift=shift)]
    if in_shifts is not None:
        tensors["p.in_shifts"] = codes(in_shifts, QFormat(bits=8, signed=True))
    if current is not None:
        tensors["p.current"] = codes(current[0], QFormat(bits=16))
        fmt = QFormat(bits=i_bits, signed=True)
        settings["current"] = Current(decay="p.current", shift=current[1], fmt=fmt)
    if theta_step is not None:
        tensors |= {"p.theta_step": codes(theta_step, wide), "p.theta_decay": codes(theta_decay[0], QFormat(bits=16))}
        settings["theta"] = Adaptation(
            fmt=QFormat(bits=theta_bits),
            step="p.theta_step",
            decay="p.theta_decay",
            decay_shift=theta_decay[1],
            shift=theta_shift,
        )
    if feedback is not None:
        tensors["p.w_p"] = codes(feedback, wide)
        ops.append(DenseOp(source="p", target="p", weight="p.w_p"))
    plain: dict[str, Any] = {"v_min": v_fmt.code_min, "rounding": ROUNDINGS[0], "n_ref": 0}
    ops += [
        LifOp(
            name="p",
            n=len(w),
            v_fmt=v_fmt,
            leak=Leak(decay="p.decay", shift=decay[1]),
            input=InputShift(shift=in_shift, shifts=None if in_shifts is None else "p.in_shifts"),
            threshold=Threshold(tensor="p.v_th", strict=strict, max_spikes=max_spikes),
            reset=Reset(tensor="p.v_reset", by=reset, delayed=reset_delay),
            winner=False,
            stream=16,
            bias=Bias(tensor="p.bias", shift=bias_shift),
            store=store,
            **(plain | settings),
        ),
        ReadOp(source="p"),
    ]
    return Program(name="lone", n_inputs=w.shape[1], n_steps=n_steps, seed=3, ops=tuple(ops), tensors=tensors)


def _pulses(counts: ArrayLike, n_steps: int = 5) -> Spikes:
    """Each source so many times at the first step, and again at every third one."""
    raster = np.zeros((n_steps, 1, np.size(counts)), np.int64)
    raster[::3] = np.atleast_1d(counts)
    return from_dense(raster, graded=True)


def _remainders(rounding: Rounding) -> Iterator[Vector]:
    """Potentials, currents and inputs of every small size and of the largest, of both signs, divided."""
    once, small = _pulses([1]), [*range(-140, 141), -16385, -16384, 16383, 16384]
    for sizes in (np.array([*small, -32700, 32700]), np.array([*small, -32768, -32767, 32766, 32767])):
        column, end = sizes[:, None], f"up to {sizes.max()}"
        for code, shift in ((1, 1), (3, 2), (205, 8), (255, 8), (0, 4), (32767, 15), (16385, 15), (1, 15), (8, 3)):
            same: dict[str, Any] = {"rounding": rounding, "v_th": 1 << 20}
            yield f"leaks of {code} / 2**{shift}, {end}", lone(column, decay=(code, shift), **same), once
            if code < 1 << shift:
                program = lone(column, current=(code, shift), **same)
                yield f"current's leaks of {code} / 2**{shift}, {end}", program, once
        for s in (1, 2, 7, 13, 14, 15, 16, 17, 30):
            shifted = column if s < 3 else column >> 1  # room for what rounding adds
            yield f"inputs by {s} bits, {end}", lone(shifted, in_shift=s, rounding=rounding, v_th=3), once
        mixed = np.resize([-2, 3, 0, 1, 12, -1, 9], len(sizes))
        for column in (sizes[:, None], np.clip(sizes, -140, 140)[:, None]):
            program = lone(column, in_shifts=mixed, rounding=rounding, v_th=100, bias=-7)
            yield f"shifts by neuron, up to {column.max()}", program, once
            program = lone(
                column, in_shifts=mixed, rounding=rounding, v_th=90, current=(7, 4), i_bits=12, reset="subtract"
            )
            yield f"shifts of currents by neuron, up to {column.max()}", program, once


def _ends(rounding: Rounding) -> Iterator[Vector]:
    """Thresholds met exactly, both ends of potential and current, long rests."""
    always = from_dense(np.ones((5, 2, 1)))
    for end in (0, 1):
        drive = np.resize([9, -9, 3, 32766 + end, -32766 - 2 * end, 16384, 1], 70)[:, None]
        for name, program in _at_ends(rounding, drive):
            yield f"{name}, drive up to {drive.max()}", program, always
    drive = np.resize([9, -9, 3, 30000, -30000, 16384, 1], 70)[:, None]
    for n_ref in (0, 1, 3, 32767, 32768, 65536, 1 << 31):
        yield f"rests of {n_ref} steps", lone(drive, v_th=5, n_ref=n_ref, rounding=rounding), always
    for bias in (-32768, -32767, -2700, 300, 2700, 32767):
        for code in (None, (15, 4), (16, 4), (9, 16)):
            program = lone(drive, bias=bias, current=code, i_bits=15, v_th=9, rounding=rounding)
            yield f"bias {bias}, current's leak {code}", program, always
    for bits in (4, 15, 16, 17, 20, 31):
        for in_shift in (2, 0, -2):
            for i in (drive, drive << bits - 16 if bits > 16 else drive >> 16 - bits):
                program = lone(
                    i, current=(255, 8), i_bits=bits, in_shift=in_shift, v_th=900, rounding=rounding, bias=40
                )
                yield f"currents of {bits} bits at both ends, by {in_shift}", program, always


def _at_ends(rounding: Rounding, drive: Ints) -> Iterator[tuple[str, Program]]:
    """Populations of many thresholds and widths."""
    for strict in (False, True):
        for reset in ("subtract", "value"):
            same: dict[str, Any] = {"rounding": rounding, "strict": strict, "reset": reset}
            yield f"thresholds met, {reset}", lone(drive, v_th=np.resize([9, 18, 6, 32767, 0, 32766], 70), **same)
            for level in (32766, 32767, 32768, 40000):
                yield f"the upper end at {level}, {reset}", lone(drive, v_th=level, **same)
            yield "a negative threshold", lone(drive, v_th=-40000, **same)
            for low in (-200, -32768, -32769):
                yield f"a reset to {low}", lone(drive, v_th=2, v_reset=low, v_min=-5, **same)
        for bits in (8, 15, 17, 24, 31):
            fmt = QFormat(bits=bits, signed=True)
            yield (
                f"both ends of {bits} bits",
                lone(
                    drive << max(0, bits - 16),
                    v_fmt=fmt,
                    v_th=fmt.code_max,
                    decay=(255, 8),
                    rounding=rounding,
                    strict=strict,
                    bias=-1,
                ),
            )
    yield "no potential is negative", lone(drive, v_fmt=QFormat(bits=16), v_min=0, decay=(65535, 16), rounding=rounding)
    for code, shift in ((300, 8), (40001, 16)):
        yield f"a leak of {code} / 2**{shift}", lone(drive >> 2, decay=(code, shift), v_th=1 << 20, rounding=rounding)
    for bits in (17, 24, 31):  # reached by small steps, or by one of more than half the 32 bits
        for i in (drive, np.resize([1700000000, -1700000000], 70)[:, None]):
            same = {"v_th": (1 << 31) - 1, "rounding": rounding}
            for factor in ((1, 0), (32767, 15)):
                program = lone(i, v_fmt=QFormat(bits=bits, signed=True), decay=factor, **same)
                yield f"{bits} bits under {factor} by {i.max()}", program
            for factor in ((1, 1), (32767, 15)):
                yield (
                    f"currents of {bits} bits under {factor} by {i.max()}",
                    lone(i, current=factor, i_bits=bits, v_fmt=QFormat(bits=17, signed=True), **same),
                )


def _kept(rounding: Rounding) -> Iterator[Vector]:
    """Potentials kept in fewer bits than a step computes with: every remainder of either sign, both ends, ternary; and
    binary weights, as many as a 16-bit sum holds and more."""
    once, column = _pulses([1]), np.array([*range(-140, 141), -32768, -32767, -16385, 16384, 32766, 32767])[:, None]
    for bits, dropped in ((2, 1), (2, 4), (3, 0), (8, 3), (4, 12), (2, 14), (12, 20)):
        fmt = QFormat(bits=bits, frac=-dropped, signed=True)
        for low in (fmt.code_min, -fmt.code_max, 0):
            same: dict[str, Any] = {"rounding": rounding, "store": Store(fmt=fmt, min=low), "decay": (3, 2)}
            for v_bits in (12, 16, 24):
                wide = QFormat(bits=v_bits, signed=True)
                name = f"{bits} bits of {v_bits} kept from bit {dropped} on, at least {low}"
                yield name, lone(column, v_fmt=wide, v_th=90, reset="subtract", **same), once
                yield (
                    f"{name}, after rests",
                    lone(column, v_fmt=wide, v_th=90, v_reset=-33, n_ref=1, current=(7, 4), **same),
                    once,
                )
            yield f"{bits} bits kept from bit {dropped} on of an integrator", lone(column, spiking=False, **same), once
    for n in (1, 63, 255, 40000):
        w = np.where(np.arange(n) % 3 > 0, 1, -1) * np.array([[1], [-1]])
        program = lone(w, v_th=n // 5 + 1, reset="subtract", rounding=rounding, in_shift=-1)
        tensors = program.tensors | {"p.w": CodeTensor(codes=w.astype(np.int32), fmt=QFormat(bits=1, signed=True))}
        yield f"{n} binary weights", msgspec.structs.replace(program, tensors=tensors), _pulses(np.ones(n))


def _apart(rounding: Rounding) -> Iterator[Vector]:
    """Decays that differ between neurons, of potentials, currents and thresholds, by neuron and by channel: of every
    remainder of either sign, none at all beside whole ones, at both ends of potentials."""
    once, now_and_then = _pulses([1], 8), from_dense(np.resize([1, 1, 0, 1, 0, 0], (9, 2, 1)))
    column = np.array([*range(-140, 140), -32768, -32767, -16385, 16384, 32766, 32767, 0, 0])[:, None]
    for shift, kinds in ((0, [1, 0]), (2, [3, 4, 0, 1]), (8, [255, 205, 256, 0, 1]), (15, [32767, 1 << 15, 16385, 1])):
        for size in (len(column), len(column) // 2):
            own = (np.resize(kinds, size), shift)
            less = (np.minimum(own[0], max((1 << shift) - 1, 0)), shift)
            same: dict[str, Any] = {"rounding": rounding, "v_th": np.resize([9, 18, 32767, 1, 300], len(column))}
            where = f"of {size} factors / 2**{shift}"
            yield f"leaks {where}", lone(column, n_steps=8, decay=own, reset="subtract", **same), once
            yield (
                f"leaks of currents {where}",
                lone(column, n_steps=8, current=less, decay=own, i_bits=14, **same),
                once,
            )
            moving: dict[str, Any] = {"theta_step": np.resize([1, 3, 90], len(column)), "theta_decay": less}
            for delay in (False, True):
                program = lone(
                    column, n_steps=9, reset_delay=delay, n_ref=1, decay=(3, 2), current=(7, 3), **moving, **same
                )
                yield f"leaks of thresholds {where}, delay {delay}", program, now_and_then
            fmt = QFormat(bits=8, frac=-4, signed=True)
            program = lone(column >> 3, n_steps=8, decay=own, v_min=-900, store=Store(fmt=fmt, min=-100), **same)
            yield f"leaks {where}, and a store", program, once


def _sums(rounding: Rounding) -> Iterator[Vector]:
    """Sums at the ends of 16 and of 32 bits, of weights, counts, shifts, biases and a population's own spikes."""
    for bits in (16, 32):
        top = (1 << bits - 1) - 1
        for excess in (-1, 0, 1, 2):
            # Two weights of about half the range each; every second neuron gets the negative sum.
            row = np.array([top // 2, top - top // 2 + excess])
            w = np.where(np.arange(40)[:, None] % 2, row, -row)
            for back in (0, 1, bits - 12):
                program = lone(w, in_shift=back, v_th=500, rounding=rounding, bias=3)
                yield f"a sum {excess} from the end of {bits} bits, by {back}", program, _pulses([1, 1])
            program = lone(w >> 4, in_shift=-4, v_th=500, rounding=rounding)
            yield f"a sum {excess} from the end of {bits} bits, multiplied", program, _pulses([1, 1])
        share = top // 255
        for weight in (share, share + 1, -share, -share - 2):
            program = lone([[weight]] * 33, in_shift=bits - 12, v_th=9, rounding=rounding)
            yield f"largest counts of {weight}", program, _pulses([255])
        program = lone(np.full((33, 300), top // 200), in_shift=bits - 12, v_th=9, rounding=rounding)
        yield f"many sources into {bits} bits", program, from_dense(np.ones((5, 1, 300)))
        own = np.full((40, 40), top // 40 + 1) * np.where(np.arange(40)[:, None] % 2, 1, -1)
        program = lone([[3]] * 40, feedback=own, v_th=2, in_shift=bits - 12, bias=5, rounding=rounding)
        yield f"a population's own sum beyond {bits} bits", program, _pulses([1])
        v_fmt = QFormat(bits=bits, signed=True)
        program = lone([[top], [-top - 1]] * 20, v_fmt=v_fmt, decay=(15, 4), v_th=top, rounding=rounding)
        yield f"potentials of {bits} bits", program, from_dense(np.ones((6, 1, 1)))
    for shift in (3, 12, 16, 20):
        program = lone([[30000, -30000], [-30000, 29000]], shift=shift, in_shift=shift + 2, v_th=80, rounding=rounding)
        yield f"a connection shifted by {shift}", program, _pulses([200, 100])


def _maps() -> Iterator[Vector]:
    """Convolutions whose rows fill registers, or not; every place driven, so that what falls off the map is seen."""
    rng = np.random.default_rng(8)
    for channels, groups, kernel, stride, padding, dilation in (
        (1, 1, (1, 1), (1, 1), (0, 0), (1, 1)),
        (31, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
        (32, 1, (2, 3), (2, 1), (0, 2), (1, 2)),
        (33, 1, (5, 5), (2, 2), (2, 2), (1, 1)),
        (16, 2, (3, 3), (1, 1), (2, 2), (2, 2)),
        (2, 2, (1, 4), (3, 2), (1, 3), (3, 1)),
        (64, 2, (3, 3), (3, 3), (0, 0), (1, 1)),
        (4, 2, (2, 2), (4, 5), (3, 4), (1, 1)),
        (16, 1, (5, 5), (2, 2), (2, 2), (1, 1)),
        (32, 1, (3, 3), (2, 2), (1, 1), (1, 1)),
        (16, 1, (3, 3), (2, 2), (1, 1), (1, 1)),
        (32, 1, (3, 3), (1, 1), (0, 0), (1, 1)),
        (48, 1, (3, 3), (2, 1), (0, 1), (1, 1)),
        (80, 1, (2, 2), (3, 3), (0, 0), (1, 1)),
    ):
        op = ConvOp(
            source="input",
            target="a",
            weight="a.w",
            shape=(2, 7, 9),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        w = rng.integers(-128, 128, (channels, 2 // groups, *kernel))
        shape = conv_shape(op, w.shape)
        n = math.prod(shape)
        tensors = {
            "a.w": codes(w, QFormat(bits=8, signed=True)),
            "a.decay": codes(13, QFormat(bits=4)),
            "a.v_th": codes(rng.integers(90, 300, channels), QFormat(bits=16)),
            "a.v_reset": codes(0, SIGNED16),
            "a.bias": codes(rng.integers(-9, 40, channels), SIGNED16),
            "a.w_a": codes(rng.integers(-9, 9, (n, n)), QFormat(bits=8, signed=True)),
            "a.w_input": codes(rng.integers(-60, 60, n), QFormat(bits=8, signed=True)),
            "b.w": codes(rng.integers(-60, 60, (5, n)), QFormat(bits=8, signed=True)),
        }
        for kind in ("a", "b"):
            lif = LifOp(
                name="a",
                n=n,
                v_fmt=SIGNED16,
                v_min=-900,
                rounding=Rounding.NEAREST,
                leak=Leak(decay="a.decay", shift=4),
                input=InputShift(shift=1),
                threshold=Threshold(tensor="a.v_th"),
                reset=Reset(tensor="a.v_reset", by="subtract"),
                n_ref=int(kind == "b"),
                winner=False,
                stream=16,
                bias=Bias(tensor="a.bias"),
            )
            own = DenseOp(source="a", target="a", weight="a.w_a")
            more: tuple[Op, ...] = (own,) if kind == "b" else ()
            if kind == "b" and n == 126:
                more = (*more, AddOp(source="input", target="a", weight="a.w_input"))
            ops = (EventsOp(shape=op.shape), op, *more, lif, ReadOp(source="a"))
            program = Program(name="map", n_inputs=126, n_steps=6, seed=1, ops=ops, tensors=tensors)
            yield f"map {shape}, {kind}", program, from_dense(rng.random((6, 2, 126)) < 0.5)
            yield f"map {shape}, {kind}, all once", program, from_dense(np.ones((6, 1, 126)))
            yield f"map {shape}, {kind}, all", program, from_dense(np.full((6, 1, 126), 255), graded=True)

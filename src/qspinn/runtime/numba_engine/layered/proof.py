"""The proof that narrow lanes are exact: bounds of what reaches a population, and what must hold within them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qspinn.fixedpoint import Rounding
from qspinn.program import Program
from qspinn.program.constants import biases, in_shifts, kept_codes, share_factors, thresholds
from qspinn.program.ops import AddOp, Feed, LifOp
from qspinn.runtime.numba_engine.kernels import feed as feed_kernel
from qspinn.runtime.numba_engine.layered.arguments import events_of
from qspinn.runtime.once import once
from qspinn.spikes import Spikes


def reach(program: Program, feed: Feed, signal: Spikes | None, n: int) -> tuple[int, int]:
    """Bounds of what a connection brings any neuron in one step of a signal; None: the population's own."""
    events, most = feed_kernel.busiest(signal.offsets, events_of(signal)[1]) if signal is not None else (n, 1)
    low, high = (
        min(largest * int(events), fan_in) * int(most) << feed.shift
        for largest, fan_in in once(program, ("weights", feed), lambda: _largest(program, feed))
    )
    return -low, high


def _largest(program: Program, feed: Feed) -> list[tuple[int, int]]:
    """(largest, largest sum of all of a neuron) of the absolute values of negative weights; the same of positive."""
    w = program.codes(feed.weight).astype(np.int64)
    per_target = w.reshape(-1, 1) if isinstance(feed, AddOp) else w.reshape(len(w), -1)
    parts = [np.abs(part) for part in (np.minimum(per_target, 0), np.maximum(per_target, 0))]
    return [(int(part.max(initial=0)), int(part.sum(axis=1).max(initial=0))) for part in parts]


def lanes_for(program: Program, op: LifOp, low: int, high: int) -> type | None:
    """The narrowest lanes in which every intermediate provably fits if inputs are within low..high, or None."""
    if op.winner or op.inhibition is not None or op.looks_back:
        return None
    if op.threshold.max_spikes > 1 or op.rounding is Rounding.STOCHASTIC:
        return None
    if not share_factors(program, op):  # lanes multiply all neurons by one factor
        return None
    most = max(-low, high)
    return next(
        (kind for kind in (np.int16, np.int32) if all(proof(program, op, most, np.iinfo(kind).bits).values())), None
    )


class Sizes(NamedTuple):
    """The largest absolute values of what a population computes with: biases; shifts to the left and to the right;
    potentials to which neurons are reset. And the lowest threshold."""

    bias: int
    left: int
    right: int
    reset: int
    level: int


def _sizes(program: Program, op: LifOp) -> Sizes:
    shifts = in_shifts(program, op)
    reset = 0 if op.reset.subtracts else int(np.abs(program.codes(op.reset.tensor).astype(np.int64)).max(initial=0))
    return Sizes(
        int(np.abs(biases(program, op)).max(initial=0)),
        max(0, -int(shifts.min())),
        max(0, int(shifts.max())),
        reset,
        int(thresholds(program, op).min()),
    )


def proof(program: Program, op: LifOp, drive: int, bits: int) -> dict[str, bool]:
    """Proof that lanes of so many bits hold every intermediate for inputs of at most `drive`: its conditions, and
    whether they hold.

    Lanes of 16 bits multiply and add potentials without overflow (a product's high half, a saturated sum): only the
    results must fit. Lanes of 32 bits must hold products and sums.
    """
    top, wide = (1 << bits - 1) - 1, bits > 16
    bias, left, right, reset, level = once(program, ("sizes", op.name), lambda: _sizes(program, op))
    decay = int(program.codes(op.leak.decay)[0])
    dropped, kept_min, kept_max = kept_codes(op)
    v = max(abs(op.v_min), abs(op.v_fmt.code_max), reset, kept_max << dropped, -kept_min << dropped)
    holds = {
        "potential": op.v_min >= -top - 1 and op.v_fmt.code_max <= top,
        "reset": reset <= top,
        "threshold": level >= 0,
        "rest": op.n_ref <= top,
        "shift": right <= bits - 2 and left <= bits - 2,
        "decay": 0 <= decay <= 1 << op.leak.shift and 0 <= op.leak.shift <= bits - 1,
        "store": op.store is None or (v + (1 << dropped) <= top and dropped <= bits - 2),
    }
    if op.current is not None:
        i_min, i_max, shift = op.current.fmt.code_min, op.current.fmt.code_max, op.current.shift
        factor, i = int(program.codes(op.current.decay)[0]), max(-i_min, i_max)  # bounded as what drives the potential
        holds |= {"input": drive + bias <= top, "current decay": 0 <= factor < 1 << shift and shift <= bits - 1}
        if wide:
            holds |= {"current product": i * factor + (1 << shift) <= top, "current sum": i + drive + bias <= top}
        drive, bias = i, 0
    drive = (drive << left) + (1 << right >> 1) + bias
    holds["drive"] = drive <= top
    if wide:
        holds |= {"product": v * decay + (1 << op.leak.shift) <= top, "sum": v + drive <= top}
    return holds


def begins_ahead(program: Program, op: LifOp, low: int, high: int, kind: type) -> bool:
    """Whether sums of inputs within low..high may begin with the bias and the half for rounding: then they are shifted
    together, which is the same in integers, and must fit together."""
    bias, left, right, *_ = once(program, ("sizes", op.name), lambda: _sizes(program, op))
    return (max(-low, high) << left) + (bias << right) + (1 << right >> 1) <= np.iinfo(kind).max

"""Compiled local learning in integers: one step of one layer for a range of samples, and the update of its weights.

Everything is laid out channel-last and in whole registers: `wide` is the number of output channels filled up to 16,
and rows of inputs are filled up to 16 numbers. A sample of P is [y + margins, line], margins of zeros all round, so no
kernel needs clipping. No number here is a float, and no sum can overflow: `formats` proves it.
"""

from __future__ import annotations

from typing import NamedTuple

from qspinn.compiled.jit import kernel
from qspinn.learning.local.kernels.backward import blame, flush, gather, list_events, shape_errors, sum_bias
from qspinn.learning.local.kernels.forward import convolve, decide, follow, look_up, pool, read


class Sizes(NamedTuple):
    """Geometry of a layer, in numbers of elements.

    in_row, in_sample: of Q and of input spikes; line, p_sample: of P; run: of a kernel's row (k * C_in); pairs: of
    such a row; strips: registers of 32 for it. rows, cols: before pooling; p_rows, p_cols after it.
    out_row, out_sample: of the spikes that the next layer gets. n_wide: pooled outputs in whole registers.
    """

    c_in: int
    height: int
    width: int
    in_row: int
    in_sample: int
    pad: int
    line: int
    p_sample: int
    kernel: int
    stride: int
    run: int
    pairs: int
    strips: int
    c_out: int
    wide: int
    rows: int
    cols: int
    pool: int
    p_rows: int
    p_cols: int
    n_wide: int
    out_row: int
    out_sample: int


class Numbers(NamedTuple):
    """Shifts, limits and constants of a layer's arithmetic; `*_half` is what is added before a shift.

    Attributes:
        p_up, q_up: shifts that bring P and Q to a common unit before they are added.
        r_unit: what a spike adds to R; r_shift: R in units of the sums.
        e_down, e_up: shifts from read-out to error; e_rounds: whether errors are rounded to nearest; one: code of a
            wanted 1.
        push, pull: codes of the two regularizers; least: sum of activities below which the second acts.
    """

    p_up: int
    q_up: int
    p_shift: int
    p_half: int
    p_max: int
    q_half: int
    q_max: int
    r_decay: int
    r_half: int
    r_unit: int
    r_max: int
    r_shift: int
    u_shift: int
    u_half: int
    u_max: int
    read_shift: int
    read_half: int
    read_max: int
    one: int
    e_down: int
    e_half: int
    e_up: int
    e_max: int
    e_rounds: int
    push: int
    pull: int
    least: int
    p_one: int
    n_safe: int


@kernel
def advance(
    size,
    c,
    tables,
    weights,
    bias,
    state,
    spikes,
    spikes_from,
    out,
    room,
    readouts,
    labels,
    learn,
    e_shift,
    top,
    grads,
    part,
    start,
    stop,
):
    """One step of samples start..stop.

    Args:
        tables: (alpha, gain, beta, jump [in_row] int32, activity, slope [2 u_max + 1] int16, readout, feedback
            [n_classes, n_wide] int16).
        weights, bias: forward codes, int16 [k, pairs, wide, 2] flat and int32 [wide].
        state: (q, p, r), int16, int16, uint8, flat.
        spikes, spikes_from: input spikes, uint8 flat, and where this step's first sample is.
        out: pooled spikes, uint8 flat.
        room: (sums int32, u, top_u, act, gate, delta int16, where int32, error int32, count int64,
            list_at int32, list_d int16): room for one sample.
        readouts: int16 [B, n_classes].
        learn: whether gradients are added up; e_shift: right shift of errors; top [parts] int64: the largest error
            before that shift.
        grads: (grad int32, total int64 [parts, c_out, k, 32 strips], bias int64 [parts, c_out]).
    """
    q, p, r = state
    sums, u, top_u, act, gate, delta, where, error, count, list_at, list_d = room
    activity, slope, readout, feedback = tables[4], tables[5], tables[6], tables[7]
    grad, total, total_bias = grads[0][part], grads[1][part], grads[2][part]
    held = 0
    for s in range(start, stop):
        follow(size, c, tables[0], tables[1], tables[2], tables[3], q, p, s, spikes, spikes_from)
        for y in range(size.rows):
            convolve(size, weights, p, s * size.p_sample + y * size.stride * size.line, sums)
            decide(size, c, sums, bias, r, (s * size.rows + y) * size.cols * size.wide, u, y * size.cols * size.wide)
        pool(size, u, top_u, where, out, s)
        lit = look_up(size, c, top_u, activity, slope, act, gate)
        read(size, c, readout, act, readouts, s)
        if learn:
            blame(size, c, readouts, s, labels[s], error)
            top[part] = max(top[part], shape_errors(size, c, feedback, error, gate, top_u, lit, e_shift, delta))
            list_events(size, delta, where, count, list_at, list_d)
            gather(size, p, s * size.p_sample, count, list_at, list_d, grad)
            sum_bias(size, c, count, list_d, total_bias)
            held += 1
            if held == c.n_safe or s == stop - 1:
                flush(grad, total)
                held = 0

"""Connections of every kind as strips of weights, each added to the sums at a place of its own."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.lanes import STRIP
from qspinn.compiled.vectors import aligned
from qspinn.program import Program
from qspinn.program.field import Field, grid, span, up_to
from qspinn.program.ops import AddOp, ConvOp, DenseOp, Feed, conv_shape, spread
from qspinn.runtime import reference


class Strips(NamedTuple):
    """A connection: source i adds `n_rows` rows of `n_strips` strips, `pitch` apart, from table[2 i] on, taken from
    rows[table[2 i + 1]] on. pitch 0: all sources have one row, at the same place."""

    table: NDArray[np.int32]
    rows: NDArray
    n_rows: int
    n_strips: int
    pitch: int


NOTHING = Strips(np.zeros(0, np.int32), np.zeros(0, np.int8), 0, 0, 0)


def strips(program: Program, feed: Feed, field: Field, lane: type, left: NDArray[np.int64]) -> Strips:
    """A connection for the kernels; left [N]: weights into a neuron are shifted so far, besides what the connection
    says. Within a map it is the same for all neurons."""
    w = program.codes(feed.weight).astype(np.int64) << feed.shift
    if isinstance(feed, DenseOp):
        return matrix(w.T << left, field, lane)
    if isinstance(feed, AddOp):
        values, number = np.unique(spread(w, len(left)) << left, return_inverse=True)
        rows = np.zeros((len(values), STRIP), np.int64)
        rows[:, 0] = values
        return _strips(field.places(), number * STRIP, rows, (1, 1, 1), lane)
    if conv_shape(feed, w.shape) == field.shape:
        return taps(feed, w << left.reshape(len(w), -1)[:, 0].reshape(-1, 1, 1, 1), field, lane)
    signals = {feed.source: np.eye(math.prod(feed.shape), dtype=np.int64)}  # not this population's maps: as a matrix
    reference._conv(program, feed, 0, signals, {}, {})
    return matrix(signals[f"{feed.target}.i"] << left, field, lane)


def matrix(w: NDArray, field: Field, lane: type) -> Strips:
    """Rows of weights [n_pre, N], in the program's order."""
    places = field.places() - field.first
    rows = np.zeros((len(w), up_to(int(places.max(initial=0)) + 1, STRIP)), np.int64)
    rows[:, places] = w
    sizes = (1, rows.shape[1] // STRIP, 0)
    return _strips(np.full(len(w), field.first), np.arange(len(w)) * rows.shape[1], rows, sizes, lane)


def own_strips(program: Program, feeds: list[Feed], field: Field, lane: type, left: NDArray[np.int64]) -> Strips:
    """All connections of a population with itself as one; left as for `strips`."""
    if not feeds:
        return NOTHING
    w = np.sum([program.codes(f.weight).astype(np.int64).T << f.shift for f in feeds], axis=0)
    return matrix(w << left, field, lane)


def taps(op: ConvOp, w: NDArray, field: Field, lane: type) -> Strips:
    """A convolution: sources of one channel and one place within the stride add the same strips, each at its place."""
    rows_of, further, phases = [], [], []
    for axis in (0, 1):
        _, _, more = span(op, w.shape, axis)
        further.append(more)
        phases.append(np.unique((np.arange(op.shape[1 + axis]) + op.padding[axis]) % op.stride[axis]))  # that there are
        away = phases[axis][:, None] + (more - np.arange(more + 1)) * op.stride[axis]  # [phase, place]
        tap, between = np.divmod(away, op.dilation[axis])
        rows_of.append(np.where((between == 0) & (tap < w.shape[2 + axis]), tap, -1))
    by_source = _by_source(op, w, field)
    padded = np.concatenate([by_source, np.zeros_like(by_source[:, :1])], axis=1)  # tap -1: nothing
    padded = np.concatenate([padded, np.zeros_like(padded[:, :, :1])], axis=2)
    taken = padded[:, rows_of[0][:, None, :, None], rows_of[1][None, :, None, :]]  # c, phase y, x, place y, x, channel
    flat = taken.reshape(*taken.shape[:4], -1)
    rows = np.zeros((*flat.shape[:4], up_to(flat.shape[4], STRIP)), np.int64)
    rows[..., : flat.shape[4]] = flat
    c, y, x = grid(op.shape)
    place, phase = zip(*(np.divmod(at + op.padding[i], op.stride[i]) for i, at in enumerate((y, x))), strict=True)
    group = c // (op.shape[0] // field.groups)
    target = (
        field.first
        + group * field.group_pitch
        + (place[0] - further[0]) * field.row_pitch
        + (place[1] - further[1]) * field.run
    )
    which = [np.searchsorted(phases[axis], phase[axis]) for axis in (0, 1)]
    number = (c * len(phases[0]) + which[0]) * len(phases[1]) + which[1]
    sizes = (rows.shape[3], rows.shape[4] // STRIP, field.row_pitch)
    return _strips(target, number * math.prod(rows.shape[3:]), rows, sizes, lane)


def _by_source(op: ConvOp, w: NDArray, field: Field) -> NDArray[np.int64]:
    """Weights [C_in, k_y, k_x, channels of the group of the field that the source feeds]."""
    run, per_group = len(w) // op.groups, w.shape[1]
    grouped = w.reshape(op.groups, run, *w.shape[1:]).transpose(0, 2, 3, 4, 1)
    if field.groups == op.groups:
        return grouped.reshape(op.shape[0], *w.shape[2:], run)
    whole = np.zeros((op.shape[0], *w.shape[2:], len(w)), np.int64)
    for g in range(op.groups):
        whole[g * per_group : (g + 1) * per_group, ..., g * run : (g + 1) * run] = grouped[g]
    return whole


def _strips(target: NDArray, row: NDArray, rows: NDArray, sizes: tuple[int, int, int], lane: type) -> Strips:
    """Bytes where they hold the weights; else the lanes' type, in which weights that do not fit never count."""
    small = rows.min(initial=0) >= -128 and rows.max(initial=0) < 128
    flat = aligned((rows.size,), np.int8 if small else lane)
    flat[:] = rows.ravel().astype(flat.dtype)
    table = np.stack([target, row], axis=1).astype(np.int32)
    return Strips(np.ascontiguousarray(table).ravel(), flat, *sizes)

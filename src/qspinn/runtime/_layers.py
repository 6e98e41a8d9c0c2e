"""Layered programs on compiled kernels: population after population, each over all steps of a few samples at a time.

`in_lanes` computes in 16 or 32 bits where `lanes_for` proves from the program and the busiest step of the given input
that every intermediate fits; `in_general` computes everything else in 64 bits.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import Rounding
from qspinn.ops import AddOp, ConvOp, DenseOp, LifOp, PoolOp, conv_shape, pool_shape, spread
from qspinn.program import Program
from qspinn.runtime import _layer_kernel as kernels
from qspinn.runtime import reference
from qspinn.runtime._lanes import STRIP
from qspinn.runtime._vectors import aligned
from qspinn.runtime.arithmetic import MODE
from qspinn.runtime.reference import biases, thresholds
from qspinn.spikes import Spikes, index_dtype

SMALL = 1 << 18  # bytes of events at most: less is not worth waking other threads
ROOM = 1 << 24  # bytes of events and sums made at once by a thread
MARGIN = 32  # rows of sums are multiples of this long: the widest vector's lanes
Feed = DenseOp | ConvOp | AddOp
_NONE = np.zeros(0, np.uint8)
Made = TypeVar("Made")
_made: weakref.WeakKeyDictionary[Program, dict[Any, Any]] = weakref.WeakKeyDictionary()


class States(NamedTuple):
    """What is left of a population after its last step, int64 [B, N] each, in the program's order; without samples
    where nobody asked."""

    counts: NDArray
    v: NDArray
    ref: NDArray
    current: NDArray
    v_sum: NDArray


class Wanted(NamedTuple):
    """What is wanted of a population: its counts, its spikes, its final states, the sum of its potentials."""

    counts: bool
    spikes: bool
    states: bool
    v_sum: bool


class Field(NamedTuple):
    """How a population lies in an array of sums: groups of maps with margins, rows of pixels, `run` channels a pixel.

    Element (group, y, x, channel of the group) is at first + group * group_pitch + y * row_pitch + x * run + channel.
    """

    groups: int
    height: int
    width: int
    run: int
    first: int
    row_pitch: int
    group_pitch: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.groups * self.run, self.height, self.width

    def places(self) -> NDArray[np.int64]:
        """The place of each neuron, in the program's order."""
        return self._at(self.first, self.row_pitch, self.group_pitch)

    def packed(self, width: int) -> NDArray[np.int64]:
        """The place of each neuron where rows are `width` long, without margins."""
        return self._at(0, width, self.height * width)

    def _at(self, first: int, row_pitch: int, group_pitch: int) -> NDArray[np.int64]:
        c, y, x = grid(self.shape)
        return first + c // self.run * group_pitch + y * row_pitch + x * self.run + c % self.run


class Strips(NamedTuple):
    """A connection: source i adds `n_rows` rows of `n_strips` strips, `pitch` apart, from table[2 i] on, taken from
    rows[table[2 i + 1]] on. pitch 0: all sources have one row, at the same place."""

    table: NDArray[np.int32]
    rows: NDArray
    n_rows: int
    n_strips: int
    pitch: int


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
    """What all neurons of a population have in common, as the kernel for narrow lanes takes it."""

    v_min: int
    v_max: int
    decay: int
    decay_half: int
    decay_low: int
    decay_shift: int
    leaks: bool
    nearest: bool
    moves_left: bool
    moves_right: bool
    subtract: bool
    n_ref: int
    has_current: bool
    current: int
    current_half: int
    current_low: int
    current_shift: int
    i_min: int
    i_max: int
    stores: bool
    store_half: int
    store_low: int
    store_shift: int
    store_min: int
    store_max: int


def grid(shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(channel, y, x) of each source of a signal."""
    c, y, x = np.unravel_index(np.arange(math.prod(shape)), shape)
    return c, y, x


def up_to(n: int, unit: int) -> int:
    """The smallest multiple of unit that is not below n."""
    return -(-n // unit) * unit


class Plan(NamedTuple):
    """What a population takes whatever its input is: the size of its sums, its connections with others and with
    itself, the kernel with its arguments between the sums and the outputs."""

    size: int
    fed: list[Strips]
    again: Strips
    kernel: Callable
    arguments: tuple


def once(program: Program, key: tuple, make: Callable[[], Made]) -> Made:
    """What `make` returned when it was first asked for under this key; programs never change."""
    made = _made.setdefault(program, {})
    if key not in made:
        made[key] = make()
    return made[key]


def plan(program: Program, op: LifOp, feeds: list[Feed], kind: type | None) -> Plan:
    """The plan of a population in lanes of some type, or in 64 bits."""
    field, lane = field_of(program, op, feeds), kind or np.int64
    fed = [strips(program, f, field, lane) for f in feeds if f.source != op.name]
    again = own_strips(program, [f for f in feeds if f.source == op.name], field, lane)
    return Plan(field.size, fed, again, *(_narrow(program, op, field, kind) if kind else _general(program, op, field)))


def population(
    program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Spikes], like: Spikes, wanted: Wanted,
    n_threads: int,
) -> tuple[States, Spikes]:
    """(states, spikes) of one population over all samples of its sources' signals; like: any signal of that size.

    Spikes are in no particular order within a step.
    """
    n_samples, n_steps = like.n_samples, like.n_steps
    low, high = np.sum([reach(program, f, signals.get(f.source), op.n) for f in feeds] or [(0, 0)], axis=0)
    kind = lanes_for(program, op, int(low), int(high))
    lane = kind or np.int64
    size, all_strips, again, kernel, arguments = once(program, (op.name, kind), lambda: plan(program, op, feeds, kind))
    fed = list(zip([signals[f.source] for f in feeds if f.source != op.name], all_strips, strict=True))
    source, feed = fed[0] if fed else (silent(like), NOTHING)
    left = States(*(np.zeros((n_samples if wish else 0, op.n), np.int64)
                    for wish in (wanted.counts, *(wanted.states,) * 3, wanted.v_sum)))
    per_sample = n_steps * max(op.n * 2, size * np.dtype(lane).itemsize if len(fed) > 1 else 0)
    room = threading.local()  # of a thread, for the spikes of one block after the other

    def part(a: int, b: int) -> tuple[NDArray, NDArray]:
        totals = aligned((b - a, n_steps, size) if len(fed) > 1 else (1, 1, size), lane)
        for signal, more in fed[1:]:
            kernels.add_all(signal.offsets[a:b], *_events(signal), *more, totals)
        offsets = np.zeros((b - a, n_steps + 1), np.int64)
        longest = (b - a) * n_steps * op.n + MARGIN
        if len(getattr(room, "index", ())) < longest:
            room.index = np.empty(longest, index_dtype(op.n))
        out = [x[a:b] if len(x) else x for x in left]
        used = kernel(source.offsets[a:b], *_events(source), feed, again, totals, *arguments, offsets,
                      room.index, *out)
        return offsets, room.index[: used if wanted.spikes else 0].copy()

    return left, joined(in_parts(part, n_samples, per_sample, n_threads), op.n, n_steps)


def in_parts(part: Callable[[int, int], tuple], n_samples: int, per_sample: int, n_threads: int) -> list[tuple]:
    """What `part(start, stop)` makes of consecutive blocks of samples, in order: enough blocks to keep all threads busy
    to the end, few enough that starting them costs nothing, small enough for memory."""
    block = max(1, min(-(-n_samples // (4 * n_threads)), ROOM // max(per_sample, 1)))
    starts = range(0, n_samples, block)
    if n_threads == 1 or n_samples * per_sample < SMALL:
        return [part(a, min(a + block, n_samples)) for a in starts]
    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda a: part(a, min(a + block, n_samples)), starts))


def silent(like: Spikes) -> Spikes:
    """A signal of one source that never spikes."""
    return Spikes(offsets=np.zeros_like(like.offsets), index=np.zeros(0, np.uint16), n=1)


NOTHING = Strips(np.zeros(0, np.int32), np.zeros(0, np.int8), 0, 0, 0)


def field_of(program: Program, op: LifOp, feeds: list[Feed]) -> Field:
    """The field of a population: maps as its convolutions make them, with margins that take whatever falls off the map;
    one row where there are none."""
    convs = [f for f in feeds if isinstance(f, ConvOp)]
    (channels, height, width), *_ = [*(conv_shape(f, program.codes(f.weight).shape) for f in convs), (op.n, 1, 1)]
    groups = convs[0].groups if convs and len({f.groups for f in convs}) == 1 else 1
    run = channels // groups
    fits = [f for f in convs if conv_shape(f, program.codes(f.weight).shape) == (channels, height, width)]
    spans = [[_span(f, program.codes(f.weight).shape, axis) for f in fits] or [(0, 0, 0)] for axis in (0, 1)]
    top, x_left = (max(0, *(-low for low, _, _ in s)) for s in spans)
    bottom, x_right = (max(0, *(high - size + 1 for _, high, _ in s))
                       for s, size in zip(spans, (height, width), strict=True))
    margin = up_to(x_left * run, MARGIN)
    row_pitch = up_to((width + max(x_left, x_right)) * run, MARGIN)
    group_pitch = (top + height + bottom) * row_pitch
    size = groups * group_pitch + margin + row_pitch + 2 * MARGIN
    return Field(groups=groups, height=height, width=width, run=run, first=top * row_pitch + margin,
                 row_pitch=row_pitch, group_pitch=group_pitch, size=size)


def _span(op: ConvOp, weight: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """(lowest, highest) place that sources reach along an axis, and how many places each source reaches, less one."""
    stride, padding = op.stride[axis], op.padding[axis]
    further = (weight[2 + axis] - 1) * op.dilation[axis] // stride
    return padding // stride - further, (padding + op.shape[1 + axis] - 1) // stride, further


def strips(program: Program, feed: Feed, field: Field, lane: type) -> Strips:
    """A connection for the kernels."""
    w = program.codes(feed.weight).astype(np.int64) << feed.shift
    if isinstance(feed, DenseOp):
        return matrix(w.T, field, lane)
    if isinstance(feed, AddOp):
        values, number = np.unique(w, return_inverse=True)
        rows = np.zeros((len(values), STRIP), np.int64)
        rows[:, 0] = values
        each = spread(number, math.prod(field.shape))
        return _strips(field.places(), each * STRIP, rows, (1, 1, 1), lane)
    if conv_shape(feed, w.shape) == field.shape:
        return taps(feed, w, field, lane)
    signals = {feed.source: np.eye(math.prod(feed.shape), dtype=np.int64)}  # not this population's maps: as a matrix
    reference._conv(program, feed, 0, signals, {}, {})
    return matrix(signals[f"{feed.target}.i"], field, lane)


def matrix(w: NDArray, field: Field, lane: type) -> Strips:
    """Rows of weights [n_pre, N], in the program's order."""
    places = field.places() - field.first
    rows = np.zeros((len(w), up_to(int(places.max(initial=0)) + 1, STRIP)), np.int64)
    rows[:, places] = w
    sizes = (1, rows.shape[1] // STRIP, 0)
    return _strips(np.full(len(w), field.first), np.arange(len(w)) * rows.shape[1], rows, sizes, lane)


def own_strips(program: Program, feeds: list[Feed], field: Field, lane: type) -> Strips:
    """All connections of a population with itself as one."""
    if not feeds:
        return NOTHING
    return matrix(np.sum([program.codes(f.weight).astype(np.int64).T << f.shift for f in feeds], axis=0), field, lane)


def taps(op: ConvOp, w: NDArray, field: Field, lane: type) -> Strips:
    """A convolution: sources of one channel and one place within the stride add the same strips, each at its place."""
    rows_of, further = [], []
    for axis in (0, 1):
        _, _, more = _span(op, w.shape, axis)
        further.append(more)
        away = np.arange(op.stride[axis])[:, None] + (more - np.arange(more + 1)) * op.stride[axis]  # [phase, place]
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
    target = (field.first + group * field.group_pitch + (place[0] - further[0]) * field.row_pitch
              + (place[1] - further[1]) * field.run)
    number = (c * op.stride[0] + phase[0]) * op.stride[1] + phase[1]
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


def reach(program: Program, feed: Feed, signal: Spikes | None, n: int) -> tuple[int, int]:
    """Bounds of what a connection brings any neuron in one step of a signal; None: the population's own."""
    events, most = kernels.busiest(signal.offsets, _events(signal)[1]) if signal is not None else (n, 1)
    low, high = (min(largest * int(events), fan_in) * int(most) << feed.shift
                 for largest, fan_in in once(program, ("weights", feed), lambda: _largest(program, feed)))
    return -low, high


def _largest(program: Program, feed: Feed) -> list[tuple[int, int]]:
    """(largest, largest sum of all of a neuron) of the absolute values of negative weights; the same of positive."""
    w = program.codes(feed.weight).astype(np.int64)
    per_target = w.reshape(-1, 1) if isinstance(feed, AddOp) else w.reshape(len(w), -1)
    parts = [np.abs(part) for part in (np.minimum(per_target, 0), np.maximum(per_target, 0))]
    return [(int(part.max(initial=0)), int(part.sum(axis=1).max(initial=0))) for part in parts]


def lanes_for(program: Program, op: LifOp, low: int, high: int) -> type | None:
    """The narrowest lanes in which every intermediate provably fits if inputs are within low..high, or None."""
    if op.winner or op.inhibition or op.rounding is Rounding.STOCHASTIC:
        return None
    most = max(-low, high)
    return next((kind for kind in (np.int16, np.int32) if all(proof(program, op, most, np.iinfo(kind).bits).values())),
                None)


def proof(program: Program, op: LifOp, drive: int, bits: int) -> dict[str, bool]:
    """What must hold for lanes of so many bits to hold everything that becomes of inputs of at most `drive`, and
    whether it does.

    Lanes of 16 bits multiply and add potentials without overflow (a product's high half, a saturated sum): only the
    results must fit. Lanes of 32 bits must hold products and sums.
    """
    top, wide = (1 << bits - 1) - 1, bits > 16
    bias = int(np.abs(biases(program, op)).max(initial=0))
    shifts, level = shifts_of(program, op), thresholds(program, op)
    reset = int(np.abs(program.codes(op.v_reset).astype(np.int64)).max(initial=0)) if op.reset == "value" else 0
    decay, left, right = int(program.codes(op.decay)[0]), max(0, -int(shifts.min())), max(0, int(shifts.max()))
    dropped, kept_min, kept_max = stored(op)
    v = max(abs(op.v_min), abs(op.v_fmt.code_max), reset, kept_max << dropped, -kept_min << dropped)
    holds = {
        "potential": op.v_min >= -top - 1 and op.v_fmt.code_max <= top, "reset": reset <= top,
        "threshold": bool(level.min() >= 0), "rest": op.n_ref <= top, "shift": right <= bits - 2 and left <= bits - 2,
        "decay": 0 <= decay <= 1 << op.decay_shift and 0 <= op.decay_shift <= bits - 1,
        "store": op.store_fmt is None or (v + (1 << dropped) <= top and dropped <= bits - 2),
    }
    if op.current_fmt is not None:
        i_min, i_max = op.current_fmt.code_min, op.current_fmt.code_max
        factor, i = int(program.codes(op.current)[0]), max(-i_min, i_max)  # bounded as what drives the potential
        holds |= {"input": drive + bias <= top,
                  "current decay": 0 <= factor < 1 << op.current_shift and op.current_shift <= bits - 1}
        if wide:
            holds |= {"current product": i * factor + (1 << op.current_shift) <= top,
                      "current sum": i + drive + bias <= top}
        drive, bias = i, 0
    drive = (drive << left) + (1 << right >> 1) + bias
    holds["drive"] = drive <= top
    if wide:
        holds |= {"product": v * decay + (1 << op.decay_shift) <= top, "sum": v + drive <= top}
    return holds


def stored(op: LifOp) -> tuple[int, int, int]:
    """(bits dropped between steps, smallest, largest code kept); zeros where potentials stay as they are."""
    return (0, 0, 0) if op.store_fmt is None else (-op.store_fmt.frac, op.store_min, op.store_fmt.code_max)


def shifts_of(program: Program, op: LifOp) -> NDArray[np.int64]:
    """in_shift of every neuron."""
    return spread(program.codes(op.in_shifts), op.n) if op.in_shifts else np.full(op.n, op.in_shift)


def _narrow(program: Program, op: LifOp, field: Field, kind: type) -> tuple[Callable, tuple]:
    """The kernel for narrow lanes with its arguments between the sums and the outputs."""
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
    tensors, stretch, by_row = _tensors(program, op, field, width, kind)
    layout = Layout(field.groups * field.height, field.height, width, field.first, field.row_pitch, field.group_pitch,
                    lanes, stretch, field.run, by_row)
    return kernels.in_lanes, (tuple(layout), tensors, names, valid, tuple(_neuron(program, op, bits)), after)


def _tensors(program: Program, op: LifOp, field: Field, width: int, kind: type) -> tuple[tuple, int, bool]:
    """((bias, left, half, low, right, level, lowered), stretch, by_row): what differs between neurons, in lanes: per
    group one period of the channels, or per row all of it."""
    shifts, level, top = shifts_of(program, op), thresholds(program, op), int(np.iinfo(kind).max)
    right = np.maximum(shifts, 0)
    subtract = op.reset == "subtract"
    reset = spread(program.codes(op.v_reset), op.n)
    bias = biases(program, op)
    each = [
        bias, np.maximum(-shifts, 0), np.where(right > 0, 1 << right >> 1, 0) * (op.rounding is Rounding.NEAREST),
        ((1 << right) - 1) * (op.rounding is Rounding.TOWARD_ZERO), right,
        np.minimum(level - (not op.strict), top) if op.spiking else np.full(op.n, top),
        np.minimum(level, top) if subtract else -reset,
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


def _neuron(program: Program, op: LifOp, bits: int) -> Neuron:
    """The common settings; products of 16-bit lanes at their shift of 15."""
    def factor(name: str, shift: int) -> tuple[int, int, int, int]:
        to = 15 if bits == 16 else shift
        return (int(program.codes(name)[0]) << to - shift, (1 << to >> 1) * (op.rounding is Rounding.NEAREST),
                ((1 << to) - 1) * (op.rounding is Rounding.TOWARD_ZERO), to)

    shifts, fmt = shifts_of(program, op), op.current_fmt
    dropped, kept_min, kept_max = stored(op)
    decay = factor(op.decay, op.decay_shift)
    current = factor(op.current, op.current_shift) if op.current else (0, 0, 0, 0)
    return Neuron(
        op.v_min, op.v_fmt.code_max, *decay, int(program.codes(op.decay)[0]) != 1 << op.decay_shift,
        op.rounding is Rounding.NEAREST, bool((shifts < 0).any()), bool((shifts > 0).any()), op.reset == "subtract",
        op.n_ref, fmt is not None, *current, fmt.code_min if fmt else 0, fmt.code_max if fmt else 0,
        op.store_fmt is not None, (1 << dropped >> 1) * (op.rounding is Rounding.NEAREST),
        ((1 << dropped) - 1) * (op.rounding is Rounding.TOWARD_ZERO), dropped, kept_min, kept_max)


def _general(program: Program, op: LifOp, field: Field) -> tuple[Callable, tuple]:
    """The kernel of 64 bits with its arguments between the sums and the outputs."""
    def each(name: str) -> NDArray[np.int64]:
        return spread(program.codes(name), op.n) if name else np.zeros(op.n, np.int64)

    fmt = op.current_fmt
    neuron = (int(program.codes(op.decay)[0]), op.decay_shift, op.v_min, op.v_fmt.code_max, op.strict,
              op.reset == "subtract", op.spiking, op.n_ref, MODE[op.rounding], fmt is not None,
              int(program.codes(op.current)[0]) if op.current else 0, op.current_shift,
              fmt.code_min if fmt else 0, fmt.code_max if fmt else 0, op.store_fmt is not None, *stored(op))
    tensors = (shifts_of(program, op), thresholds(program, op), each(op.v_reset), biases(program, op))
    return kernels.in_general, (field.places(), neuron, tensors, op.winner, bool(op.inhibition),
                                each(op.inhibition) << op.inhibition_shift, np.uint32(program.seed), op.stream)


def _events(signal: Spikes) -> tuple[NDArray, NDArray]:
    """(index, count), count empty where every source spikes once."""
    return signal.index, _NONE if signal.count is None else signal.count


def pooled(program: Program, op: PoolOp, signal: Spikes, n_threads: int) -> Spikes:
    """The pooled signal, with counts; in no particular order within a step."""
    n, n_steps = math.prod(pool_shape(op)), signal.n_steps
    first, windows = once(program, ("windows", op), lambda: windows_of(op))
    largest = int(np.diff(first).max(initial=0))

    def part(a: int, b: int) -> tuple[NDArray, NDArray, NDArray]:
        room = min(int(signal.offsets[b - 1, -1] - signal.offsets[a, 0]) * largest, (b - a) * n_steps * n)
        offsets = np.zeros((b - a, n_steps + 1), np.int64)
        index, count = np.empty(room, index_dtype(n)), np.empty(room, np.int32)
        used = kernels.pool(signal.offsets[a:b], *_events(signal), first, windows, op.kind == "sum",
                            np.zeros(n, np.int64), offsets, index, count)
        return offsets, index[:used], count[:used]

    return joined(in_parts(part, signal.n_samples, n_steps * n * 6, n_threads), n, n_steps, graded=True)


def counted(signal: Spikes) -> NDArray[np.int64]:
    """How often each source spikes, [B, n], of a signal without counts of its own."""
    counts = np.zeros((signal.n_samples, signal.n), np.int64)
    kernels.count_spikes(signal.offsets, signal.index, counts)
    return counts


def windows_of(op: PoolOp) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, windows): source i is in the windows windows[first[i] : first[i + 1]]."""
    channels, height, width = pool_shape(op)
    c, y, x = grid((channels, height, width))
    sources = np.concatenate([
        (c * op.shape[1] + y * op.stride[0] + ky) * op.shape[2] + x * op.stride[1] + kx
        for ky in range(op.kernel[0]) for kx in range(op.kernel[1])])
    windows = np.tile(np.arange(len(c)), op.kernel[0] * op.kernel[1])
    first = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=math.prod(op.shape)))])
    return first, windows[np.argsort(sources, kind="stable")]


def joined(parts: list[tuple], n: int, n_steps: int, *, graded: bool = False) -> Spikes:
    """The events (offsets, index, count) of consecutive blocks of samples as one signal."""
    parts = parts or [(np.zeros((0, n_steps + 1), np.int64), np.zeros(0, index_dtype(n)), np.zeros(0, np.int32))]
    if len(parts) == 1:
        (offsets, index, *count), = parts
        return Spikes(offsets=offsets, index=index, n=n, count=count[0] if graded else None)
    starts = np.cumsum([0, *(len(p[1]) for p in parts)])
    offsets = np.concatenate([p[0] + start for p, start in zip(parts, starts[:-1], strict=True)])
    return Spikes(offsets=offsets, index=np.concatenate([p[1] for p in parts]), n=n,
                  count=np.concatenate([p[2] for p in parts]) if graded else None)

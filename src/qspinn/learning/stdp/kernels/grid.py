"""Compiled STDP on the grid: the float kernel's order of operations, in integers throughout."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.competing import Settings, advance, advance_lanes, clear_resting, draw_winner, sum_rows
from qspinn.compiled.drive import drive_bytes, find_places, steps_at_once
from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.scalars import _U, STOCHASTIC, random_word, requantize, step_key, stream_base
from qspinn.compiled.vectors import (
    aligned_zeros,
    ints_add,
    ints_max,
    ints_min,
    ints_mul,
    ints_shift,
    ints_shift_unsigned,
    ints_splat,
    ints_sub,
    ints_xor,
    load_ints,
    store_ints,
)
from qspinn.fixedpoint import INDEX_STRIDE
from qspinn.learning.stdp.kernels.active import LANES, LOG, find_lit, hot_stride, refresh, refresh_all, stronger
from qspinn.learning.stdp.kernels.floats import HARD, SOFT, TWO_SIDED
from qspinn.program.ops import Stream

_I32 = np.int32
WINNER, DECAY, INPUT, THETA = int(Stream.WINNER), int(Stream.DECAY), int(Stream.INPUT), int(Stream.THETA)
POST_UPDATE, PRE_UPDATE = int(Stream.POST_UPDATE), int(Stream.PRE_UPDATE)
X_PRE, X_POST, N_STREAMS = int(Stream.X_PRE), int(Stream.X_POST), int(Stream.LOWERING)


class Neurons(NamedTuple):
    """Constants of the forward step of a population.

    Attributes:
        settings: leak, input shift and largest potential; mode: rounding of potentials.
        left: left shift of input sums.
        n_ref: refractory steps; reset: potential after a spike.
        strength: how much a spike takes from the potentials of all others.
    """

    settings: Settings
    mode: int
    left: int
    n_ref: int
    reset: np.int32
    strength: np.int32


class Thresholds(NamedTuple):
    """Constants of the thresholds; see `neuron_level`.

    Attributes:
        never: code of the potential that no threshold exceeds.
        theta_max: largest code of theta; step: increase of theta at a spike, over 2**step_shift; mode: its rounding.
    """

    v_th: int
    never: int
    per_neuron: bool
    pre_shift: int
    post_shift: int
    theta_shift: int
    theta_max: int
    step: int
    step_shift: int
    mode: int


class Rule(NamedTuple):
    """Constants of STDP, see `grid_rates.Rates`.

    Attributes:
        learns: whether weights change; bound: HARD, SOFT or TWO_SIDED; c_max: largest code of a weight; mode: rounding.
        norm: code of the sum of weights that a sample's spiking neurons are rescaled to, or 0.
    """

    learns: bool
    post: int
    pre: int
    shift: int
    fine: int
    offset: int
    bound: int
    c_max: int
    mode: int
    norm: int


class Decaying(NamedTuple):
    """Trace after a spike: `top`, then each step requantize(x * m, shift, mode); table has it by age."""

    table: NDArray[np.int64]
    top: int
    m: int
    shift: int
    mode: int


class Draws(NamedTuple):
    """Where random words come from: the seed, the first stream, and the number of samples that were trained before."""

    seed: np.uint32
    stream: int
    first: int


class Paths(NamedTuple):
    """Fast paths that the caller has proved to give the same codes, and element types of scratch arrays.

    Attributes:
        v, total: arrays of one element of the types of potentials and of input sums.
        fused: the forward step runs in explicit 16-bit lanes; small: updates run in 32-bit lanes.
    """

    v: NDArray[Any]
    total: NDArray[Any]
    fused: bool
    small: bool


class Lit(NamedTuple):
    """Inputs that spike in the present sample, in ascending order, and scratch for them.

    Attributes:
        inputs, inputs32: their numbers; place: of each input among them, or -1; last: step of their last spike.
        trace: of each; codes, part: scratch of `update_lit`; all_traces: of every input, by its number.
        spiking: inputs that spike in the present step; rows: where their rows of the hot table begin.
        seen: how much of the log the rows of each input hold.
    """

    inputs: NDArray[np.int64]
    inputs32: NDArray[np.int32]
    place: NDArray[np.int64]
    last: NDArray[np.int64]
    trace: NDArray[np.int32]
    codes: NDArray[np.int32]
    part: NDArray[np.int32]
    all_traces: NDArray[np.int32]
    spiking: NDArray[np.int64]
    rows: NDArray[np.int64]
    seen: NDArray[np.int64]


class Hot(NamedTuple):
    """Neurons that spiked in the present sample, in the order of their first spikes, and their state.

    Attributes:
        table: weights [lit input, hot neuron], rows `stride` apart; neurons, neurons32: their numbers.
        v, total, level: potentials, input sums, thresholds; until: last refractory step, exclusive; fired: step of the
            last spike; resting: places of refractory neurons.
        changes: of their column sums by presynaptic updates; pull: push of a presynaptic update.
    """

    table: NDArray[np.int32]
    neurons: NDArray[np.int64]
    neurons32: NDArray[np.int32]
    v: NDArray[np.int32]
    total: NDArray[np.int32]
    level: NDArray[np.int32]
    until: NDArray[np.int64]
    fired: NDArray[np.int64]
    resting: NDArray[np.int64]
    changes: NDArray[np.int32]
    pull: NDArray[np.int32]


@piece
def redrawn_trace(age, top, m, shift, keys_base, spike_clock, source):
    """Trace code `age` steps after a spike under stochastic rounding; other roundings have a table."""
    x = np.int64(top)
    for a in range(age):
        if x == 0:
            break
        x = requantize(x * m, shift, STOCHASTIC, step_key(keys_base, spike_clock + a + 1), source)
    return x


@piece
def grid_bound(c, c_max, rule, up):
    """Integer twin of `float_bound`; HARD counts as c_max, which stands for w_max = 1."""
    if rule == HARD:
        return np.int64(c_max)
    if rule == TWO_SIDED and not up:
        return np.int64(c)
    return np.int64(c_max) - np.int64(c)


@piece
def neuron_level(threshold, theta, total):
    """Threshold code of one neuron from its learned codes; per neuron it is proportional to the sum of its weights."""
    if threshold.per_neuron:
        level = (np.int64(threshold.v_th) + np.int64(theta)) * (total >> threshold.pre_shift)
        level = level >> threshold.post_shift if threshold.post_shift >= 0 else level << -threshold.post_shift
    else:
        level = np.int64(threshold.v_th) + (np.int64(theta) << threshold.theta_shift)
    return min(level, np.int64(threshold.never))


@piece
def random_words(key, index):
    """`random_word` in sixteen lanes."""
    h = ints_xor(key, ints_mul(index, ints_splat(np.int64(INDEX_STRIDE))))
    h = ints_xor(h, ints_shift_unsigned(h, ints_splat(np.int64(16))))
    h = ints_mul(h, ints_splat(np.int64(0x7FEB352D)))
    h = ints_xor(h, ints_shift_unsigned(h, ints_splat(np.int64(15))))
    h = ints_mul(h, ints_splat(np.int64(0x846CA68B)))
    return ints_xor(h, ints_shift_unsigned(h, ints_splat(np.int64(16))))


@piece
def depress(table, places, n_places, q, pull, first, names, n, shift, key, c_max, rule, total):
    """The presynaptic update of the sixteen weights at q of every row, rounded stochastically; adds what they change
    to total. first[e] is the number of the input; products are below 2**30, 0 < shift < 31."""
    low = ints_splat(np.int64(0))
    high = ints_splat(np.int64(c_max))
    back = ints_splat(np.int64(32 - shift))
    right = ints_splat(np.int64(shift))
    salt = ints_splat(np.int64(key))
    changed = load_ints(total, q)
    push = ints_mul(pull, high) if rule == HARD else pull
    for e in range(n_places):
        at = places[e] + q
        c = load_ints(table, at)
        r = ints_shift_unsigned(random_words(salt, ints_add(names, ints_splat(first[e] * n))), back)
        if rule == SOFT:
            push = ints_mul(pull, ints_sub(high, c))
        elif rule == TWO_SIDED:
            push = ints_mul(pull, c)
        new = ints_max(ints_min(ints_add(c, ints_shift(ints_add(push, r), right)), high), low)
        changed = ints_add(changed, ints_sub(new, c))
        store_ints(table, at, new)
    store_ints(total, q, changed)


@piece
def update_column(col, x_pre, x_offset, eta, shift, key, c_max, rule):
    """The postsynaptic update of one column in 32-bit lanes with stochastic rounding; the products are below 2**30 and
    shift below 31. Returns the new column sum."""
    back = _U(32 - shift) & _U(31)
    right = shift & 31
    total = np.int64(0)
    for i in range(col.size):
        d = _I32(x_pre[i] - x_offset)
        c = _I32(col[i])
        up = _I32(c_max - c)
        bound = up if rule == SOFT else (_I32(c_max) if rule == HARD else (up if d > 0 else c))
        r = _I32(random_word(key, i) >> back) if shift > 0 else _I32(0)
        push = _I32(_I32(_I32(eta) * d) * bound)
        new = _I32(c + _I32(_I32(push + r) >> right))
        new = min(max(new, _I32(0)), _I32(c_max))
        total += new
        col[i] = new
    return total


@piece
def update_lit(table, q, stride, lit, n_lit, x, eta, shift, key, c_max, rule, codes, room):
    """`update_column` for the lit inputs of one hot neuron, the only ones that change without an offset; 0 < shift.
    codes and room are scratch, as long as lit. Returns by how much the column sum changes."""
    low = ints_splat(np.int64(0))
    high = ints_splat(np.int64(c_max))
    back = ints_splat(np.int64(32 - shift))
    right = ints_splat(np.int64(shift))
    rate = ints_splat(np.int64(eta))
    salt = ints_splat(np.int64(key))
    change = low
    at = q
    for a in range(n_lit):
        codes[a] = table[at]
        at += stride
    for a in range(0, n_lit, LANES):
        c = load_ints(codes, a)
        bound = high if rule == HARD else ints_sub(high, c)
        push = ints_mul(ints_mul(rate, load_ints(x, a)), bound)
        r = ints_shift_unsigned(random_words(salt, load_ints(lit, a)), back)
        new = ints_min(ints_max(ints_add(c, ints_shift(ints_add(push, r), right)), low), high)
        change = ints_add(change, ints_sub(new, c))
        store_ints(codes, a, new)
    at = q
    for a in range(n_lit):
        table[at] = codes[a]
        at += stride
    store_ints(room, 0, change)
    total = np.int64(0)
    for a in range(LANES):
        total += room[a]
    return total


@piece
def begin_sample(rows, cols, spikes, n_steps, log, n_log, lit):
    """Notes the lit inputs of a sample, whose spikes are given, and brings their rows up to date; returns how many."""
    n_lit = find_lit(spikes, 0, spikes.size, lit.place, lit.inputs)
    for a in range(n_lit):
        refresh(rows, cols, lit.inputs[a], log, n_log, lit.seen)
        lit.last[a] = -1 - n_steps
        lit.inputs32[a] = lit.inputs[a]
    lit.trace[n_lit : n_lit + LANES] = 0
    return n_lit


@piece
def sum_inputs(rows, index, offsets, begin, end, width, left, drive):
    """Input sums of steps begin..end of a sample, one row of drive each; offsets are the sample's."""
    for step in range(begin, end):
        total = drive[(step - begin) * width : (step - begin + 1) * width]
        sum_rows(rows, index, offsets[step], offsets[step + 1], total)
        if left > 0:
            for j in range(width):
                total[j] = total[j] << left


@piece
def note_spikes(spikes, t, stride, lit):
    """Notes the inputs that spike in step t."""
    for e in range(spikes.size):
        i = np.int64(spikes[e])
        lit.spiking[e] = i
        lit.rows[e] = lit.place[i] * stride
        lit.last[lit.place[i]] = t


@piece
def sum_hot(hot, rows, n_spikes, lanes, left):
    """Input sums of the hot neurons in whole registers, from the rows of the table that begin at `rows`."""
    for q in range(0, lanes, LANES):
        one = ints_splat(np.int64(0))
        two = ints_splat(np.int64(0))
        for e in range(0, n_spikes - 1, 2):
            one = ints_add(one, load_ints(hot.table, rows[e] + q))
            two = ints_add(two, load_ints(hot.table, rows[e + 1] + q))
        if n_spikes % 2 == 1:
            one = ints_add(one, load_ints(hot.table, rows[n_spikes - 1] + q))
        store_ints(hot.total, q, ints_add(one, two))
    if left > 0:
        for q in range(lanes):
            hot.total[q] = hot.total[q] << left


@piece
def inhibit(v, hot, lanes, strength):
    """A spike takes from every potential, which stays at rest or above."""
    for j in range(v.size):
        v[j] = max(_I32(_I32(v[j]) - strength), _I32(0))
    for j in range(lanes):
        hot.v[j] = max(_I32(hot.v[j] - strength), _I32(0))


@piece
def become_hot(k, n_hot, cols, level, until, n_steps, stride, n_lit, lit, hot):
    """Neuron k spikes for the first time in this sample: its state moves to the hot ones, whose last it is."""
    hot.neurons[n_hot] = k
    hot.neurons32[n_hot] = k
    until[k] = n_steps
    level[k] = np.iinfo(level.dtype).max
    hot.changes[n_hot] = 0
    for a in range(n_lit):
        hot.table[a * stride + n_hot] = cols[k, lit.inputs[a]]


@piece
def depress_all(lit, hot, n_spikes, n_hot, t, clock, n, post_push, trace, rule, small, trace_base, key):
    """Presynaptic updates of step t: weights from the inputs that spike to the hot neurons, by the neurons' traces."""
    for p in range(n_hot):
        hot.pull[p] = post_push[t - hot.fired[p]]
    if trace.mode == STOCHASTIC:
        for p in range(n_hot):
            age = t - hot.fired[p]
            x = redrawn_trace(age, trace.top, trace.m, trace.shift, trace_base, clock + hot.fired[p], hot.neurons[p])
            hot.pull[p] = -rule.pre * (x << rule.fine)
    if small:
        for p in range(0, n_hot, LANES):
            pull = load_ints(hot.pull, p)
            names = load_ints(hot.neurons32, p)
            depress(
                hot.table,
                lit.rows,
                n_spikes,
                p,
                pull,
                lit.spiking,
                names,
                n,
                rule.shift,
                key,
                rule.c_max,
                rule.bound,
                hot.changes,
            )
        return
    for e in range(n_spikes):
        for p in range(n_hot):
            at = lit.rows[e] + p
            c = np.int64(hot.table[at])
            push = hot.pull[p] * grid_bound(c, rule.c_max, rule.bound, False)
            c_new = c + requantize(push, rule.shift, rule.mode, key, lit.spiking[e] * n + hot.neurons[p])
            new = min(max(c_new, 0), rule.c_max)
            hot.changes[p] += new - c
            hot.table[at] = new


@piece
def trace_inputs(lit, n_lit, t, clock, pre_codes, trace, fine, trace_base):
    """Traces of the lit inputs at step t."""
    for a in range(n_lit):
        lit.trace[a] = pre_codes[t - lit.last[a]]
    if trace.mode == STOCHASTIC:
        for a in range(n_lit):
            last = lit.last[a]
            lit.trace[a] = (
                0
                if last < 0
                else redrawn_trace(t - last, trace.top, trace.m, trace.shift, trace_base, clock + last, lit.inputs[a])
                << fine
            )


@piece
def potentiate(q, col, total, lit, n_lit, hot, stride, rule, small, key):
    """Postsynaptic update of the hot neuron at q, whose weights are also in column col; returns their new sum."""
    if rule.offset == 0 and small:
        return total + update_lit(
            hot.table,
            q,
            stride,
            lit.inputs32,
            n_lit,
            lit.trace,
            rule.post,
            rule.shift,
            key,
            rule.c_max,
            rule.bound,
            lit.codes,
            lit.part,
        )
    for a in range(n_lit):
        lit.all_traces[lit.inputs[a]] = lit.trace[a]
        col[lit.inputs[a]] = hot.table[a * stride + q]
    if small:
        total = update_column(col, lit.all_traces, rule.offset, rule.post, rule.shift, key, rule.c_max, rule.bound)
    else:
        total = np.int64(0)
        for i in range(col.size):
            d = np.int64(lit.all_traces[i]) - rule.offset
            c = np.int64(col[i])
            push = rule.post * d * grid_bound(c, rule.c_max, rule.bound, d > 0)
            new = min(max(c + requantize(push, rule.shift, rule.mode, key, i), 0), rule.c_max)
            total += new
            col[i] = new
    for a in range(n_lit):
        hot.table[a * stride + q] = col[lit.inputs[a]]
    return total


@piece
def normalize(col, total, rule, key, first):
    """Rescales a column of weights to the declared sum; returns the sum that rounding left. `first` numbers the random
    words of weight 0."""
    factor = (rule.norm << 12) // total
    new_sum = np.int64(0)
    for i in range(col.size):
        c = min(requantize(np.int64(col[i]) * factor, 12, rule.mode, key, first + i), rule.c_max)
        col[i] = c
        new_sum += c
    return new_sum


@kernel
def run_grid(offsets, index, order, rows, cols, theta, sums, neuron, threshold, rule, pre, post, draws, path):
    """Trains samples `order` on the grid: weights, potentials, thresholds and traces are integers throughout; see
    `active` for the data structures.

    rows uint8 / uint16 [n_pre, width], their transpose cols [N, n_pre], theta int64 [N] and sums int64 [N] (column
    sums) change in place. The forward step is that of `numba_engine.kernels.narrow`. Random streams: those of learning
    on the grid in `Stream`; their step is the clock (first + m) * T + t.
    """
    n_steps, n_pre, width, n = offsets.shape[1] - 1, rows.shape[0], rows.shape[1], theta.size
    stride = hot_stride(n, n_steps)
    block = steps_at_once(width, path.total.itemsize, n_steps)
    drive = aligned_zeros(block * width, path.total.dtype)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre if path.fused else 0, np.int64)
    v = aligned_zeros(width, path.v.dtype)
    level = aligned_zeros(width, path.v.dtype)
    level[:] = np.iinfo(path.v.dtype).max
    until = np.zeros(width, np.int64)  # of neurons that are not hot: zero; hot ones never cross there
    names = np.arange(width)
    lit = Lit(
        np.empty(n_pre, np.int64),
        aligned_zeros(n_pre + LANES, np.int32),
        np.full(n_pre, -1, np.int64),
        np.empty(n_pre, np.int64),
        aligned_zeros(n_pre + LANES, np.int32),
        aligned_zeros(n_pre + LANES, np.int32),
        aligned_zeros(LANES, np.int32),
        np.zeros(n_pre, np.int32),
        np.empty(n_pre, np.int64),
        np.empty(n_pre, np.int64),
        np.zeros(n_pre, np.int64),
    )
    hot = Hot(
        aligned_zeros(n_pre * stride + LANES, np.int32),
        np.zeros(stride + 32, np.int64),
        aligned_zeros(stride + 32, np.int32),
        aligned_zeros(stride + 32, np.int32),
        aligned_zeros(stride + 32, np.int32),
        aligned_zeros(stride + 32, np.int32),
        np.zeros(stride + 32, np.int64),
        np.zeros(stride + 32, np.int64),
        np.empty(neuron.n_ref + 1, np.int64),
        aligned_zeros(stride + 32, np.int32),
        aligned_zeros(stride + 32, np.int32),
    )
    hot.level[:] = np.iinfo(np.int32).max
    pre_codes = np.zeros(2 * n_steps + 2, np.int32)  # trace by age; none for inputs that did not spike yet
    post_push = np.zeros(n_steps + 1, np.int32)
    for age in range(n_steps + 1):
        pre_codes[age] = pre.table[age] << rule.fine
        post_push[age] = -rule.pre * (post.table[age] << rule.fine)
    log = np.empty(LOG + n_steps, np.int64)
    n_log = 0
    for j in range(n):
        level[j] = neuron_level(threshold, theta[j], sums[j])
    base = np.empty(N_STREAMS, np.uint32)
    for b in range(N_STREAMS):
        base[b] = stream_base(draws.seed, draws.stream + b)
    decay, gain, decay_scale, in_shift, v_max = neuron.settings
    mode, left, small = neuron.mode, neuron.left, path.small
    for m in range(order.size):
        s = order[m]
        n_lit = begin_sample(rows, cols, index[offsets[s, 0] : offsets[s, n_steps]], n_steps, log, n_log, lit)
        v[:] = 0
        n_hot = 0
        n_resting = 0
        clock = (draws.first + m) * n_steps
        for t in range(n_steps):
            now = clock + t
            start, stop = offsets[s, t], offsets[s, t + 1]
            begin = t - t % block
            if t == begin:
                end = min(begin + block, n_steps)
                if path.fused:
                    find_places(index, offsets[s, begin], offsets[s, end], width, places)
                    drive_bytes(flat, places, offsets[s, begin : end + 1], width, drive)
                else:
                    sum_inputs(rows, index, offsets[s], begin, end, width, left, drive)
            note_spikes(index[start:stop], t, stride, lit)
            total = drive[(t - begin) * width : (t - begin + 1) * width]
            k1 = step_key(base[DECAY], now)
            k2 = step_key(base[INPUT], now)
            if path.fused:
                crossed = advance_lanes(v, total, level, decay, gain, in_shift, v_max, mode)
            else:
                crossed = advance(v, total, level, names, decay, gain, decay_scale, in_shift, v_max, mode, k1, k2)
            lanes = -(-n_hot // LANES) * LANES
            sum_hot(hot, lit.rows, stop - start, lanes, left)
            n_resting = clear_resting(hot.resting, n_resting, hot.until, t, hot.total)
            crossed |= advance(
                hot.v[:lanes],
                hot.total,
                hot.level,
                hot.neurons,
                decay,
                gain,
                decay_scale,
                in_shift,
                v_max,
                mode,
                k1,
                k2,
            )
            k = np.int64(-1)
            q = np.int64(-1)
            if crossed:
                key = step_key(base[WINNER], now)
                k = draw_winner(v, level, until, t, key)
                k, q = stronger(k, hot.v, hot.level, hot.neurons, n_hot, hot.until, t, key)
            if k >= 0:
                inhibit(v, hot, lanes, neuron.strength)
                key = step_key(base[THETA], now)
                raised = theta[k] + requantize(threshold.step, threshold.step_shift, threshold.mode, key, k)
                theta[k] = min(raised, threshold.theta_max)
                if q < 0:
                    q = n_hot
                    become_hot(k, n_hot, cols, level, until, n_steps, stride, n_lit, lit, hot)
                    n_hot += 1
                hot.v[q] = neuron.reset
                hot.until[q] = t + neuron.n_ref + 1
                if neuron.n_ref > 0:
                    hot.resting[n_resting] = q
                    n_resting += 1
                hot.fired[q] = t
            if rule.learns and rule.pre > 0:
                key = step_key(base[PRE_UPDATE], now)
                depress_all(lit, hot, stop - start, n_hot, t, clock, n, post_push, post, rule, small, base[X_POST], key)
            if k < 0:
                continue
            if rule.learns:
                key = step_key(base[POST_UPDATE], now)
                sums[k] += hot.changes[q]
                hot.changes[q] = 0
                trace_inputs(lit, n_lit, t, clock, pre_codes, pre, rule.fine, base[X_PRE])
                sums[k] = potentiate(q, cols[k], sums[k], lit, n_lit, hot, stride, rule, small, key)
            hot.level[q] = neuron_level(threshold, theta[k], sums[k])
        for q in range(n_hot):
            k = hot.neurons[q]
            if rule.learns:
                col = cols[k]
                sums[k] += hot.changes[q]
                hot.changes[q] = 0
                for a in range(n_lit):
                    col[lit.inputs[a]] = hot.table[a * stride + q]
                if rule.norm > 0 and sums[k] > 0:
                    sums[k] = normalize(col, sums[k], rule, step_key(base[PRE_UPDATE], clock + n_steps - 1), n_pre * n)
                log[n_log] = k
                n_log += 1
            level[k] = neuron_level(threshold, theta[k], sums[k])
            hot.level[q] = np.iinfo(np.int32).max
            until[k] = 0
            hot.until[q] = 0
        for a in range(n_lit):
            lit.place[lit.inputs[a]] = -1
            lit.all_traces[lit.inputs[a]] = 0
        if n_log >= LOG or m + 1 == order.size:
            refresh_all(rows, cols, log, n_log, lit.seen)
            n_log = 0

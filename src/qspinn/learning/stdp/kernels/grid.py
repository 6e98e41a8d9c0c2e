"""Compiled STDP on the grid: the float kernel's order of operations, in integers throughout."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.competing import advance, advance_lanes, clear_resting, draw_winner, sum_rows
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
def neuron_level(v_th, theta, total, per_neuron, pre_shift, post_shift, theta_shift, never):
    """Threshold code of one neuron from its learned codes, at least 1, so that silence does not reach it; per neuron it
    is proportional to the sum of its weights."""
    if per_neuron:
        level = (np.int64(v_th) + np.int64(theta)) * (total >> pre_shift)
        level = level >> post_shift if post_shift >= 0 else level << -post_shift
    else:
        level = np.int64(v_th) + (np.int64(theta) << theta_shift)
    return max(min(level, np.int64(never)), np.int64(1))


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


@kernel
def run_grid(
    offsets,
    index,
    order,
    rows,
    room,
    cols,
    theta,
    sums,
    v_th,
    reset,
    strength,
    v_kind,
    decay,
    gain,
    decay_scale,
    in_shift,
    v_max,
    n_ref,
    v_mode,
    per_neuron,
    pre_shift,
    post_shift,
    theta_shift,
    theta_max,
    never,
    theta_step,
    theta_step_shift,
    theta_mode,
    seed,
    stream,
    first,
    eta_post,
    eta_pre,
    eta_shift,
    x_fine,
    x_offset,
    rule,
    c_max,
    w_mode,
    pre_table,
    pre_top,
    pre_m,
    pre_k,
    pre_mode,
    post_table,
    post_top,
    post_m,
    post_k,
    post_mode,
    norm_code,
    learn_weights,
    left,
    fused,
    small,
):
    """Trains samples `order` on the grid: weights, potentials, thresholds and traces are integers throughout; see
    `_active` for the data structures.

    rows uint8 / uint16 [n_pre, width], their transpose cols [N, n_pre], theta int64 [N] and sums int64 [N] (column
    sums) change in place. The forward step is that of `runtime._kernels.narrow`; with `fused` it runs in explicit
    16-bit lanes, with `small` updates run in 32-bit lanes: the caller has proved that both give the same codes.
    Random streams: those of learning on the grid in `Stream`; their step is the clock (first + m) * T + t.
    """
    n_steps, n_pre, width, n = offsets.shape[1] - 1, rows.shape[0], rows.shape[1], theta.size
    stride = hot_stride(n, n_steps)
    block = steps_at_once(width, room.itemsize, n_steps)
    drive = aligned_zeros(block * width, room.dtype)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre if fused else 0, np.int64)
    v = aligned_zeros(width, v_kind.dtype)
    level = aligned_zeros(width, v_kind.dtype)
    level[:] = np.iinfo(v_kind.dtype).max
    until = np.zeros(width, np.int64)  # of neurons that are not hot: zero; hot ones never cross there
    names = np.arange(width)
    lit = np.empty(n_pre, np.int64)
    place = np.full(n_pre, -1, np.int64)
    last = np.empty(n_pre, np.int64)
    x_pre = aligned_zeros(n_pre + LANES, np.int32)  # of lit inputs, by their place
    lit32 = aligned_zeros(n_pre + LANES, np.int32)
    codes = aligned_zeros(n_pre + LANES, np.int32)
    part = aligned_zeros(LANES, np.int32)
    pre_codes = np.zeros(2 * n_steps + 2, np.int32)  # trace by age; none for inputs that did not spike yet
    post_push = np.zeros(n_steps + 1, np.int32)
    for age in range(n_steps + 1):
        pre_codes[age] = pre_table[age] << x_fine
        post_push[age] = -eta_pre * (post_table[age] << x_fine)
    x_all = np.zeros(n_pre, np.int32)
    log = np.empty(LOG + n_steps, np.int64)
    seen = np.zeros(n_pre, np.int64)
    n_log = 0
    table = aligned_zeros(n_pre * stride + LANES, np.int32)
    hot_places = np.empty(n_pre, np.int64)
    inputs = np.empty(n_pre, np.int64)
    hot = np.zeros(stride + 32, np.int64)
    hot_names = aligned_zeros(stride + 32, np.int32)
    v_hot = aligned_zeros(stride + 32, np.int32)
    total_hot = aligned_zeros(stride + 32, np.int32)
    level_hot = aligned_zeros(stride + 32, np.int32)
    level_hot[:] = np.iinfo(np.int32).max
    until_hot = np.zeros(stride + 32, np.int64)
    fired_at = np.zeros(stride + 32, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    pull = aligned_zeros(stride + 32, np.int32)
    changes = aligned_zeros(stride + 32, np.int32)
    for j in range(n):
        level[j] = neuron_level(v_th, theta[j], sums[j], per_neuron, pre_shift, post_shift, theta_shift, never)
    base = np.empty(N_STREAMS, np.uint32)
    for b in range(N_STREAMS):
        base[b] = stream_base(seed, stream + b)
    for m in range(order.size):
        s = order[m]
        n_lit = find_lit(index, offsets[s, 0], offsets[s, n_steps], place, lit)
        for a in range(n_lit):
            refresh(rows, cols, lit[a], log, n_log, seen)
            last[a] = -1 - n_steps
            lit32[a] = lit[a]
        x_pre[n_lit : n_lit + LANES] = 0
        v[:] = 0
        n_hot = 0
        n_resting = 0
        clock = (first + m) * n_steps
        for t in range(n_steps):
            now = clock + t
            start, stop = offsets[s, t], offsets[s, t + 1]
            begin = t - t % block
            if t == begin:
                end = min(begin + block, n_steps)
                if fused:
                    find_places(index, offsets[s, begin], offsets[s, end], width, places)
                    drive_bytes(flat, places, offsets[s, begin : end + 1], width, drive)
                else:
                    for step in range(begin, end):
                        total = drive[(step - begin) * width : (step - begin + 1) * width]
                        sum_rows(rows, index, offsets[s, step], offsets[s, step + 1], total)
                        if left > 0:
                            for j in range(width):
                                total[j] = total[j] << left
            for e in range(start, stop):
                i = np.int64(index[e])
                inputs[e - start] = i
                hot_places[e - start] = place[i] * stride
                last[place[i]] = t
            total = drive[(t - begin) * width : (t - begin + 1) * width]
            k1 = step_key(base[DECAY], now)
            k2 = step_key(base[INPUT], now)
            if fused:
                crossed = advance_lanes(v, total, level, decay, gain, in_shift, v_max, v_mode)
            else:
                crossed = advance(v, total, level, names, decay, gain, decay_scale, in_shift, v_max, v_mode, k1, k2)
            lanes = -(-n_hot // LANES) * LANES
            for q in range(0, lanes, LANES):
                one = ints_splat(np.int64(0))
                two = ints_splat(np.int64(0))
                for e in range(0, stop - start - 1, 2):
                    one = ints_add(one, load_ints(table, hot_places[e] + q))
                    two = ints_add(two, load_ints(table, hot_places[e + 1] + q))
                if (stop - start) % 2 == 1:
                    one = ints_add(one, load_ints(table, hot_places[stop - start - 1] + q))
                store_ints(total_hot, q, ints_add(one, two))
            if left > 0:
                for q in range(lanes):
                    total_hot[q] = total_hot[q] << left
            n_resting = clear_resting(resting, n_resting, until_hot, t, total_hot)
            crossed |= advance(
                v_hot[:lanes], total_hot, level_hot, hot, decay, gain, decay_scale, in_shift, v_max, v_mode, k1, k2
            )
            k = np.int64(-1)
            q = np.int64(-1)
            if crossed:
                key = step_key(base[WINNER], now)
                k, q = stronger(draw_winner(v, level, until, t, key), v_hot, level_hot, hot, n_hot, until_hot, t, key)
            if k >= 0:
                for j in range(width):
                    v[j] = max(_I32(_I32(v[j]) - strength), _I32(0))
                for j in range(lanes):
                    v_hot[j] = max(_I32(v_hot[j] - strength), _I32(0))
                raised = theta[k] + requantize(theta_step, theta_step_shift, theta_mode, step_key(base[THETA], now), k)
                theta[k] = min(raised, theta_max)
                if q < 0:
                    q = n_hot
                    n_hot += 1
                    hot[q] = k
                    hot_names[q] = k
                    until[k] = n_steps
                    level[k] = np.iinfo(level.dtype).max
                    changes[q] = 0
                    for a in range(n_lit):
                        table[a * stride + q] = cols[k, lit[a]]
                v_hot[q] = reset
                until_hot[q] = t + n_ref + 1
                if n_ref > 0:
                    resting[n_resting] = q
                    n_resting += 1
                fired_at[q] = t
            if learn_weights and eta_pre > 0:
                key = step_key(base[PRE_UPDATE], now)
                for p in range(n_hot):
                    pull[p] = post_push[t - fired_at[p]]
                if post_mode == STOCHASTIC:
                    for p in range(n_hot):
                        x = redrawn_trace(
                            t - fired_at[p], post_top, post_m, post_k, base[X_POST], clock + fired_at[p], hot[p]
                        )
                        pull[p] = -eta_pre * (x << x_fine)
                if small:
                    for p in range(0, n_hot, LANES):
                        depress(
                            table,
                            hot_places,
                            stop - start,
                            p,
                            load_ints(pull, p),
                            inputs,
                            load_ints(hot_names, p),
                            n,
                            eta_shift,
                            key,
                            c_max,
                            rule,
                            changes,
                        )
                for e in range(start, start if small else stop):
                    i = np.int64(index[e])
                    for p in range(n_hot):
                        at = hot_places[e - start] + p
                        c = np.int64(table[at])
                        push = pull[p] * grid_bound(c, c_max, rule, False)
                        new = min(max(c + requantize(push, eta_shift, w_mode, key, i * n + hot[p]), 0), c_max)
                        changes[p] += new - c
                        table[at] = new
            if k < 0:
                continue
            if learn_weights:
                key = step_key(base[POST_UPDATE], now)
                col = cols[k]
                sums[k] += changes[q]
                changes[q] = 0
                for a in range(n_lit):
                    x_pre[a] = pre_codes[t - last[a]]
                if pre_mode == STOCHASTIC:
                    for a in range(n_lit):
                        x_pre[a] = (
                            0
                            if last[a] < 0
                            else redrawn_trace(t - last[a], pre_top, pre_m, pre_k, base[X_PRE], clock + last[a], lit[a])
                            << x_fine
                        )
                if x_offset == 0 and small:
                    sums[k] += update_lit(
                        table, q, stride, lit32, n_lit, x_pre, eta_post, eta_shift, key, c_max, rule, codes, part
                    )
                else:
                    for a in range(n_lit):
                        x_all[lit[a]] = x_pre[a]
                        col[lit[a]] = table[a * stride + q]
                    if small:
                        sums[k] = update_column(col, x_all, x_offset, eta_post, eta_shift, key, c_max, rule)
                    else:
                        sums[k] = 0
                        for i in range(n_pre):
                            d = np.int64(x_all[i]) - x_offset
                            c = np.int64(col[i])
                            push = eta_post * d * grid_bound(c, c_max, rule, d > 0)
                            new = min(max(c + requantize(push, eta_shift, w_mode, key, i), 0), c_max)
                            sums[k] += new
                            col[i] = new
                    for a in range(n_lit):
                        table[a * stride + q] = col[lit[a]]
            level_hot[q] = neuron_level(v_th, theta[k], sums[k], per_neuron, pre_shift, post_shift, theta_shift, never)
        for q in range(n_hot):
            k = hot[q]
            if learn_weights:
                col = cols[k]
                sums[k] += changes[q]
                changes[q] = 0
                for a in range(n_lit):
                    col[lit[a]] = table[a * stride + q]
                if norm_code > 0 and sums[k] > 0:
                    factor = (norm_code << 12) // sums[k]
                    key = step_key(base[PRE_UPDATE], clock + n_steps - 1)
                    new_sum = np.int64(0)
                    for i in range(n_pre):
                        c = min(requantize(np.int64(col[i]) * factor, 12, w_mode, key, n_pre * n + i), c_max)
                        col[i] = c
                        new_sum += c
                    sums[k] = new_sum
                log[n_log] = k
                n_log += 1
            level[k] = neuron_level(v_th, theta[k], sums[k], per_neuron, pre_shift, post_shift, theta_shift, never)
            level_hot[q] = np.iinfo(np.int32).max
            until[k] = 0
            until_hot[q] = 0
        for a in range(n_lit):
            place[lit[a]] = -1
            x_all[lit[a]] = 0
        if n_log >= LOG or m + 1 == order.size:
            refresh_all(rows, cols, log, n_log, seen)
            n_log = 0

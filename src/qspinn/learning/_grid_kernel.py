"""Compiled STDP on the grid: the float kernel's order of operations, in integers throughout."""

from __future__ import annotations

import numba as nb
import numpy as np

from qspinn.learning._float_kernel import HARD, SOFT, TWO_SIDED, light
from qspinn.runtime._kernels import advance, clear_resting, draw_winner, hold_resting, step_bytes, sum_rows
from qspinn.runtime.arithmetic import _U, STOCHASTIC, random_word, requantize, step_key, stream_base

_I32 = np.int32


@nb.njit(inline="always")
def trace_at(age, table, top, m, shift, mode, keys_base, spike_clock, source):
    """Trace code `age` steps after a spike: from the table, or redrawn step by step under stochastic rounding."""
    if mode != STOCHASTIC:
        return table[age]
    x = np.int64(top)
    for a in range(age):
        if x == 0:
            break
        x = requantize(x * m, shift, mode, step_key(keys_base, spike_clock + a + 1), source)
    return x


@nb.njit(inline="always")
def grid_bound(c, c_max, rule, up):
    """Integer twin of `float_bound`; HARD counts as c_max, which stands for w_max = 1."""
    if rule == HARD:
        return np.int64(c_max)
    if rule == TWO_SIDED and not up:
        return np.int64(c)
    return np.int64(c_max) - np.int64(c)


@nb.njit(inline="always")
def neuron_level(v_th, theta, total, per_neuron, pre_shift, post_shift, theta_shift, never):
    """Threshold code of one neuron from its learned codes; per neuron it is proportional to the sum of its weights."""
    if per_neuron:
        level = (np.int64(v_th) + np.int64(theta)) * (total >> pre_shift)
        level = level >> post_shift if post_shift >= 0 else level << -post_shift
    else:
        level = np.int64(v_th) + (np.int64(theta) << theta_shift)
    return min(level, np.int64(never))


@nb.njit(inline="always")
def draw_changes(push, n_fired, fired, first, shift, key, change):
    """change[q] = push[q] / 2**shift rounded stochastically with index first + fired[q]; |push| < 2**30, shift < 31."""
    back = _U(32 - shift) & _U(31)
    right = shift & 31
    for q in range(n_fired):
        r = _I32(random_word(key, first + fired[q]) >> back) if shift > 0 else _I32(0)
        change[q] = _I32(_I32(push[q] + r) >> right)


@nb.njit(inline="always")
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


@nb.njit(nogil=True, cache=True)
def run_grid(offsets, index, order, rows, room, cols, theta, sums, v_th, reset, strength, decay, gain, decay_scale,
             in_shift, v_max, n_ref, v_mode, per_neuron, pre_shift, post_shift, theta_shift, theta_max, never,
             theta_step, theta_step_shift, theta_mode, seed, stream, first, eta_post, eta_pre, eta_shift, x_fine,
             x_offset, rule, c_max, w_mode, pre_table, pre_top, pre_m, pre_k, pre_mode, post_table, post_top, post_m,
             post_k, post_mode, norm_code, learn_weights, left, fused, small, counts):
    """Trains samples `order` on the grid: weights, potentials, thresholds and traces are integers throughout.

    rows uint8 / uint16 [n_pre, width], their transpose cols [N, n_pre], theta int64 [N] and sums int64 [N] (column
    sums) change in place. The forward step is that of `runtime._kernels.narrow`; with `fused` it is `step_bytes`, with
    `small` updates run in 32-bit lanes: the caller has proved that both give the same codes.
    Random streams: +0 winner, +1 decay, +2 input, +3 post update, +4 pre update and normalization, +5 theta, +6 x_pre,
    +7 x_post; their step is the clock (first + m) * T + t.
    """
    n_steps, n_pre, width, n = offsets.shape[1] - 1, rows.shape[0], rows.shape[1], theta.size
    v = np.zeros_like(reset)
    total = np.zeros_like(room)
    level = np.full_like(reset, np.iinfo(reset.dtype).max)
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    last = np.empty(n_pre, np.int64)
    lit = np.empty(n_pre, np.int64)
    fired_at = np.full(n, -1, np.int64)
    fired = np.empty(n, np.int64)
    pull = np.empty(n, np.int64)
    push32 = np.empty(n, np.int32)
    change = np.empty(n, np.int32)
    flat = rows.reshape(rows.size)
    places = np.empty(n_pre, np.int64)
    held = np.empty(n_ref + 1, np.int64)
    x_pre = np.zeros(n_pre, np.int32)
    for j in range(n):
        level[j] = neuron_level(v_th, theta[j], sums[j], per_neuron, pre_shift, post_shift, theta_shift, never)
    base = np.empty(8, np.uint32)
    for b in range(8):
        base[b] = stream_base(seed, stream + b)
    for m in range(order.size):
        s = order[m]
        v[:] = 0
        until[:] = 0
        last[:] = -1
        n_resting = 0
        n_fired = 0
        n_lit = 0
        clock = (first + m) * n_steps
        for t in range(n_steps):
            now = clock + t
            start, stop = offsets[s, t], offsets[s, t + 1]
            n_lit = light(index, start, stop, t, last, lit, n_lit, rows, cols, fired, n_fired)
            if fused:
                for e in range(start, stop):
                    places[e - start] = np.int64(index[e]) * width
                n_resting = hold_resting(resting, n_resting, until, t, v, decay, v_mode, held)
                crossed = step_bytes(flat, places, stop - start, v, level, decay, gain, in_shift, v_max, v_mode)
                for q in range(n_resting):
                    v[resting[q]] = held[q]
            else:
                sum_rows(rows, index, start, stop, total)
                if left > 0:
                    for j in range(width):
                        total[j] = total[j] << left
                n_resting = clear_resting(resting, n_resting, until, t, total)
                crossed = advance(v, total, level, decay, gain, decay_scale, in_shift, v_max, v_mode,
                                  step_key(base[1], now), step_key(base[2], now))
            k = draw_winner(v, level, until, t, step_key(base[0], now)) if crossed else -1
            if k >= 0:
                for j in range(width):
                    v[j] = max(_I32(_I32(v[j]) - strength[j]), _I32(0))
                v[k] = reset[k]
                until[k] = t + n_ref + 1
                if n_ref > 0:
                    resting[n_resting] = k
                    n_resting += 1
                counts[m, k] += 1
                raised = theta[k] + requantize(theta_step, theta_step_shift, theta_mode, step_key(base[5], now), k)
                theta[k] = min(raised, theta_max)
                if fired_at[k] < 0:
                    fired[n_fired] = k
                    n_fired += 1
                    for a in range(n_lit):
                        rows[lit[a], k] = cols[k, lit[a]]
                fired_at[k] = t
            if learn_weights and eta_pre > 0:
                key = step_key(base[4], now)
                for q in range(n_fired):
                    j = fired[q]
                    x = trace_at(t - fired_at[j], post_table, post_top, post_m, post_k, post_mode, base[7],
                                 clock + fired_at[j], j)
                    pull[q] = -eta_pre * (x << x_fine)
                if small and rule == HARD:
                    for q in range(n_fired):
                        push32[q] = pull[q] * c_max
                for e in range(start, stop):
                    i = np.int64(index[e])
                    row = rows[i]
                    if small and rule == HARD:
                        draw_changes(push32, n_fired, fired, i * n, eta_shift, key, change)
                        for q in range(n_fired):
                            if change[q] != 0:
                                c = np.int64(row[fired[q]])
                                new = min(max(c + change[q], 0), c_max)
                                sums[fired[q]] += new - c
                                row[fired[q]] = new
                        continue
                    for q in range(n_fired):
                        j = fired[q]
                        if pull[q] == 0:
                            continue  # a trace that has decayed to zero changes nothing under any rounding
                        c = np.int64(row[j])
                        push = pull[q] * grid_bound(c, c_max, rule, False)
                        new = min(max(c + requantize(push, eta_shift, w_mode, key, i * n + j), 0), c_max)
                        sums[j] += new - c
                        row[j] = new
            if k >= 0 and learn_weights:
                key = step_key(base[3], now)
                col = cols[k]
                for a in range(n_lit):
                    i = lit[a]
                    x_pre[i] = trace_at(t - last[i], pre_table, pre_top, pre_m, pre_k, pre_mode, base[6],
                                        clock + last[i], i) << x_fine
                if eta_pre > 0:
                    for a in range(n_lit):
                        col[lit[a]] = rows[lit[a], k]
                new_sum = update_column(col, x_pre, x_offset, eta_post, eta_shift, key, c_max, rule) if small else (
                    np.int64(0))
                for i in range(0 if small else n_pre):
                    d = np.int64(x_pre[i]) - x_offset
                    c = np.int64(col[i])
                    push = eta_post * d * grid_bound(c, c_max, rule, d > 0)
                    new = min(max(c + requantize(push, eta_shift, w_mode, key, i), 0), c_max)
                    new_sum += new
                    col[i] = new
                sums[k] = new_sum
                for a in range(n_lit):
                    rows[lit[a], k] = col[lit[a]]
            if k >= 0:
                level[k] = neuron_level(v_th, theta[k], sums[k], per_neuron, pre_shift, post_shift, theta_shift, never)
        for a in range(n_lit):
            x_pre[lit[a]] = 0
        for q in range(n_fired if learn_weights else 0):
            k = fired[q]
            col = cols[k]
            if eta_pre > 0:
                for a in range(n_lit):
                    col[lit[a]] = rows[lit[a], k]
            if norm_code > 0 and sums[k] > 0:
                factor = (norm_code << 12) // sums[k]
                key = step_key(base[4], clock + n_steps - 1)
                new_sum = np.int64(0)
                for i in range(n_pre):
                    c = min(requantize(np.int64(col[i]) * factor, 12, w_mode, key, n_pre * n + i), c_max)
                    col[i] = c
                    new_sum += c
                sums[k] = new_sum
            level[k] = neuron_level(v_th, theta[k], sums[k], per_neuron, pre_shift, post_shift, theta_shift, never)
        for q in range(n_fired):
            fired_at[fired[q]] = -1
        if learn_weights and n_fired > 0:
            for i in range(n_pre):
                for q in range(n_fired):
                    rows[i, fired[q]] = cols[fired[q], i]

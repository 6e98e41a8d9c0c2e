"""Compiled STDP in float32.

Presynaptic traces are kept as the step of the last spike: a trace that is set to its maximum by a spike is a function
of its age. Weights are stored twice: as rows [n_pre, width], since every input spike reads one row, and as columns
[N, n_pre], since a postsynaptic spike updates one column. An update works on the contiguous column and writes only the
rows of inputs that have spiked in this sample; the rest of a changed column reaches the rows when its input spikes for
the first time, or at the end of the sample.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from qspinn.runtime._kernels import draw_winner
from qspinn.runtime._vectors import (
    FLOATS,
    floats_add,
    floats_mul,
    floats_reach,
    floats_splat,
    load_floats,
    store_floats,
)
from qspinn.runtime.arithmetic import step_key, stream_base

SOFT, HARD, TWO_SIDED = 0, 1, 2
_F32 = np.float32


@nb.njit(inline="always")
def step_float(flat, places, n_places, v, level, decay):
    """v <- decay * v + sum of the weight rows that start at flat[places]; returns whether anything reached its level.

    Sixty-four neurons at a time stay in registers over all rows, so every weight is read once and nothing is written
    but v. The width is a multiple of 32.
    """
    width = v.size
    leak = floats_splat(decay)
    crossing = np.uint16(0)
    j = 0
    while j + 4 * FLOATS <= width:
        a = floats_mul(load_floats(v, j), leak)
        b = floats_mul(load_floats(v, j + FLOATS), leak)
        c = floats_mul(load_floats(v, j + 2 * FLOATS), leak)
        d = floats_mul(load_floats(v, j + 3 * FLOATS), leak)
        for e in range(n_places):
            at = places[e] + j
            a = floats_add(a, load_floats(flat, at))
            b = floats_add(b, load_floats(flat, at + FLOATS))
            c = floats_add(c, load_floats(flat, at + 2 * FLOATS))
            d = floats_add(d, load_floats(flat, at + 3 * FLOATS))
        store_floats(v, j, a)
        store_floats(v, j + FLOATS, b)
        store_floats(v, j + 2 * FLOATS, c)
        store_floats(v, j + 3 * FLOATS, d)
        crossing |= floats_reach(a, load_floats(level, j)) | floats_reach(b, load_floats(level, j + FLOATS))
        crossing |= (floats_reach(c, load_floats(level, j + 2 * FLOATS))
                     | floats_reach(d, load_floats(level, j + 3 * FLOATS)))
        j += 4 * FLOATS
    while j < width:
        a = floats_mul(load_floats(v, j), leak)
        for e in range(n_places):
            a = floats_add(a, load_floats(flat, places[e] + j))
        store_floats(v, j, a)
        crossing |= floats_reach(a, load_floats(level, j))
        j += FLOATS
    return crossing != 0


@nb.njit(inline="always")
def float_bound(w, w_max, rule, up):
    """The factor that keeps weights in range: see `network.Stdp.bound`."""
    if rule == HARD:
        return _F32(1)
    if rule == TWO_SIDED and not up:
        return w
    return _F32(w_max - w)


@nb.njit(inline="always")
def light(index, start, stop, t, last, lit, n_lit, rows, cols, fired, n_fired):
    """Notes the spikes of step t; an input that spikes for the first time in this sample gets its row brought up to
    date with the columns that changed since. Returns the number of inputs lit so far."""
    for e in range(start, stop):
        i = np.int64(index[e])
        if last[i] < 0:
            lit[n_lit] = i
            n_lit += 1
            for q in range(n_fired):
                rows[i, fired[q]] = cols[fired[q], i]
        last[i] = t
    return n_lit


@nb.njit(nogil=True, cache=True)
def run_float(offsets, index, order, rows, cols, theta, v_th, v_reset, v_min, strength, decay, n_ref, theta_plus, seed,
              first, learn, eta_post, eta_pre, x_offset, rule, w_max, pre_table, post_table, norm, counts):
    """Runs (and, with learn, trains) samples `order` of a winner-take-all population in float32.

    rows float32 [n_pre, width], their transpose cols [N, n_pre] and theta float32 [N] are changed in place; counts
    int32 [len(order), N] are filled. `first` numbers the first sample for the winner's random draws.
    """
    n_steps, n_pre, width, n = offsets.shape[1] - 1, rows.shape[0], rows.shape[1], theta.size
    flat = rows.reshape(rows.size)
    places = np.empty(n_pre, np.int64)
    v = np.zeros(width, _F32)
    level = np.full(width, _F32(np.inf))
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    held = np.empty(n_ref + 1, _F32)
    pull = np.empty(n, _F32)
    last = np.empty(n_pre, np.int64)
    lit = np.empty(n_pre, np.int64)
    x_pre = np.zeros(n_pre, _F32)
    fired_at = np.full(n, -1, np.int64)
    fired = np.empty(n, np.int64)
    part = np.empty(16, _F32)
    for j in range(n):
        level[j] = v_th + theta[j]
    base = stream_base(seed, 0)
    for m in range(order.size):
        s = order[m]
        v[:] = 0
        until[:] = 0
        last[:] = -1
        n_resting = 0
        n_fired = 0
        n_lit = 0
        clock = (first + m) * n_steps if learn else 0
        for t in range(n_steps):
            start, stop = offsets[s, t], offsets[s, t + 1]
            if learn:
                n_lit = light(index, start, stop, t, last, lit, n_lit, rows, cols, fired, n_fired)
            for e in range(start, stop):
                places[e - start] = np.int64(index[e]) * width
            still = 0
            for q in range(n_resting):  # refractory neurons only decay: their potential is put back after the pass
                j = resting[q]
                if until[j] > t:
                    resting[still] = j
                    held[still] = _F32(v[j] * decay)
                    still += 1
            n_resting = still
            crossed = step_float(flat, places, stop - start, v, level, decay)
            for q in range(n_resting):
                v[resting[q]] = held[q]
            k = draw_winner(v, level, until, t, step_key(base, clock + t)) if crossed else -1
            if k >= 0:
                for j in range(width):
                    v[j] = max(_F32(v[j] - strength), v_min)
                v[k] = v_reset
                until[k] = t + n_ref + 1
                if n_ref > 0:
                    resting[n_resting] = k
                    n_resting += 1
                counts[m, k] += 1
            if not learn:
                continue
            if k >= 0:
                theta[k] += theta_plus
                level[k] = v_th + theta[k]
                if fired_at[k] < 0:
                    fired[n_fired] = k
                    n_fired += 1
                    for a in range(n_lit):
                        rows[lit[a], k] = cols[k, lit[a]]
                fired_at[k] = t
            if eta_pre > 0:
                for q in range(n_fired):
                    pull[q] = _F32(eta_pre * post_table[t - fired_at[fired[q]]])
                for e in range(start, stop):
                    row = rows[index[e]]
                    for q in range(n_fired):
                        w = row[fired[q]]
                        row[fired[q]] = max(_F32(w - pull[q] * float_bound(w, w_max, rule, False)), _F32(0))
            if k >= 0:
                col = cols[k]
                for a in range(n_lit):
                    x_pre[lit[a]] = pre_table[t - last[lit[a]]]
                if eta_pre > 0:
                    for a in range(n_lit):
                        col[lit[a]] = rows[lit[a], k]
                for i in range(n_pre):
                    w = col[i]
                    d = _F32(x_pre[i] - x_offset)
                    w = _F32(w + _F32(eta_post * d) * float_bound(w, w_max, rule, d > 0))
                    col[i] = min(max(w, _F32(0)), w_max)
                for a in range(n_lit):
                    rows[lit[a], k] = col[lit[a]]
        for a in range(n_lit):
            x_pre[lit[a]] = 0
        for q in range(n_fired):
            k = fired[q]
            fired_at[k] = -1
            col = cols[k]
            if eta_pre > 0:
                for a in range(n_lit):
                    col[lit[a]] = rows[lit[a], k]
            if norm > 0:
                part[:] = 0  # sixteen partial sums: a fixed order that vectorizes
                whole = n_pre - n_pre % 16
                for i in range(0, whole, 16):
                    for p in range(16):
                        part[p] += col[i + p]
                total_w = _F32(0)
                for i in range(whole, n_pre):
                    total_w += col[i]
                for p in range(16):
                    total_w += part[p]
                if total_w > 0:
                    scale = _F32(norm / total_w)
                    for i in range(n_pre):
                        col[i] = min(_F32(col[i] * scale), w_max)
        if n_fired > 0:
            for i in range(n_pre):
                for q in range(n_fired):
                    rows[i, fired[q]] = cols[fired[q], i]

"""Compiled STDP in float32."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.competing import clear_resting, draw_winner
from qspinn.compiled.drive import drive_floats, find_places, steps_at_once
from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.scalars import step_key, stream_base
from qspinn.compiled.vectors import (
    FLOATS,
    aligned_zeros,
    any_of,
    floats_add,
    floats_max,
    floats_mul,
    floats_none,
    floats_reach,
    floats_splat,
    floats_sub,
    load_floats,
    store_floats,
)
from qspinn.learning.stdp.kernels.active import LANES, LOG, find_lit, hot_stride, refresh, refresh_all, stronger

SOFT, HARD, TWO_SIDED = 0, 1, 2
_F32 = np.float32


@piece
def sum_hot(table, places, n_places, total):
    """total[q] = sum of table[places + q] over all places."""
    for q in range(0, total.size, FLOATS):
        one = floats_splat(_F32(0))
        two = floats_splat(_F32(0))
        for e in range(0, n_places - 1, 2):
            one = floats_add(one, load_floats(table, places[e] + q))
            two = floats_add(two, load_floats(table, places[e + 1] + q))
        if n_places % 2 == 1:
            one = floats_add(one, load_floats(table, places[n_places - 1] + q))
        store_floats(total, q, floats_add(one, two))


@piece
def integrate_floats(v, total, level, decay):
    """v <- decay * v + total; returns whether anything reached its level."""
    leak = floats_splat(decay)
    crossing = floats_none()
    for j in range(0, v.size, FLOATS):
        a = floats_add(floats_mul(load_floats(v, j), leak), load_floats(total, j))
        store_floats(v, j, a)
        crossing = floats_reach(crossing, a, load_floats(level, j))
    return any_of(crossing)


@piece
def float_bound(w, w_max, rule, up):
    """The factor that keeps weights in range: see `network.Stdp.bound`."""
    if rule == HARD:
        return _F32(1)
    if rule == TWO_SIDED and not up:
        return w
    return _F32(w_max - w)


@piece
def inhibit(v, strength, v_min):
    """v <- max(v - strength, v_min)."""
    push = floats_splat(_F32(-strength))
    least = floats_splat(v_min)
    for j in range(0, v.size, FLOATS):
        store_floats(v, j, floats_max(floats_add(load_floats(v, j), push), least))


@piece
def scale_floats(x, factor):
    """x <- x * factor."""
    by = floats_splat(factor)
    for j in range(0, x.size, FLOATS):
        store_floats(x, j, floats_mul(load_floats(x, j), by))


@piece
def depress(table, places, n_places, q, pull, w_max, rule):
    """w <- max(w - pull * bound(w), 0) for the sixteen weights at q of every row: the presynaptic update."""
    zero = floats_splat(_F32(0))
    if rule == HARD:
        for e in range(n_places):
            at = places[e] + q
            store_floats(table, at, floats_max(floats_sub(load_floats(table, at), pull), zero))
    else:
        top = floats_splat(w_max)
        for e in range(n_places):
            at = places[e] + q
            w = load_floats(table, at)
            bound = floats_sub(top, w) if rule == SOFT else w
            store_floats(table, at, floats_max(floats_sub(w, floats_mul(pull, bound)), zero))


@piece
def potentiate(table, q, stride, x, n_lit, eta, w_max, rule):
    """w <- min(w + eta * x * bound(w), w_max) for the weights from all lit inputs to one neuron."""
    at = q
    for a in range(n_lit):
        w = table[at]
        bound = _F32(1) if rule == HARD else _F32(w_max - w)
        w = _F32(w + _F32(eta * x[a]) * bound)
        table[at] = w if w < w_max else w_max
        at += stride


@kernel
def respond_float(offsets, index, rows, theta, v_th, v_reset, v_min, strength, decay, n_ref, seed, counts):
    """Runs all samples of a winner-take-all population in float32 without learning.

    rows float32 [n_pre, width], theta float32 [N]; counts int32 [B, N] are filled.
    """
    n_steps, n_pre, width = offsets.shape[1] - 1, rows.shape[0], rows.shape[1]
    block = steps_at_once(width, rows.itemsize, n_steps)
    drive = aligned_zeros(block * width, _F32)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre, np.int64)
    v = aligned_zeros(width, _F32)
    level = aligned_zeros(width, _F32)
    level[:] = _F32(np.inf)
    for j in range(theta.size):  # not by slices: their errors' texts take seconds to compile
        level[j] = v_th + theta[j]
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    base = stream_base(seed, 0)
    for s in range(offsets.shape[0]):
        v[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            begin = t - t % block
            if t == begin:
                end = min(begin + block, n_steps)
                find_places(index, offsets[s, begin], offsets[s, end], width, places)
                drive_floats(flat, places, offsets[s, begin : end + 1], width, theta.size, drive)
            total = drive[(t - begin) * width : (t - begin + 1) * width]
            n_resting = clear_resting(resting, n_resting, until, t, total)
            if not integrate_floats(v, total, level, decay):
                continue
            k = draw_winner(v, level, until, t, step_key(base, t))
            if k < 0:
                continue
            inhibit(v, strength, v_min)
            v[k] = v_reset
            until[k] = t + n_ref + 1
            if n_ref > 0:
                resting[n_resting] = k
                n_resting += 1
            counts[s, k] += 1


@kernel
def train_float(
    offsets,
    index,
    order,
    rows,
    cols,
    theta,
    v_th,
    v_reset,
    v_min,
    strength,
    decay,
    n_ref,
    theta_plus,
    seed,
    first,
    eta_post,
    eta_pre,
    x_offset,
    rule,
    w_max,
    pre_decay,
    post_decay,
    norm,
):
    """Trains samples `order` of a winner-take-all population in float32; see `_active` for the data structures.

    rows float32 [n_pre, width], their transpose cols [N, n_pre] and theta float32 [N] are changed in place. `first`
    numbers the first sample for the winner's random draws.
    """
    n_steps, n_pre, width, n = offsets.shape[1] - 1, rows.shape[0], rows.shape[1], theta.size
    stride = hot_stride(n, n_steps)
    block = steps_at_once(width, rows.itemsize, n_steps)
    drive = aligned_zeros(block * width, _F32)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre, np.int64)
    hot_places = np.empty(n_pre, np.int64)
    v = aligned_zeros(width, _F32)
    level = aligned_zeros(width, _F32)
    level[:] = _F32(np.inf)
    until = np.zeros(width, np.int64)  # of neurons that are not hot: never refractory
    for j in range(n):
        level[j] = v_th + theta[j]
    lit = np.empty(n_pre, np.int64)
    place = np.full(n_pre, -1, np.int64)
    x_pre = aligned_zeros(n_pre + FLOATS, _F32)  # of lit inputs, by their place
    x_all = np.zeros(n_pre, _F32)
    table = aligned_zeros(n_pre * stride + LANES, _F32)
    hot = np.empty(stride + 32, np.int64)
    v_hot = aligned_zeros(stride + 32, _F32)
    level_hot = aligned_zeros(stride + 32, _F32)
    level_hot[:] = _F32(np.inf)
    until_hot = np.zeros(stride + 32, np.int64)
    total_hot = aligned_zeros(stride + 32, _F32)
    x_post = aligned_zeros(stride + 32, _F32)
    resting = np.empty(n_ref + 1, np.int64)
    log = np.empty(LOG + n_steps, np.int64)
    seen = np.zeros(n_pre, np.int64)
    n_log = 0
    part = np.empty(16, _F32)
    base = stream_base(seed, 0)
    for m in range(order.size):
        s = order[m]
        n_lit = find_lit(index, offsets[s, 0], offsets[s, n_steps], place, lit)
        for a in range(n_lit):
            refresh(rows, cols, lit[a], log, n_log, seen)
            x_pre[a] = 0
        v[:] = 0
        n_hot = 0
        n_resting = 0
        clock = (first + m) * n_steps
        for t in range(n_steps):
            start, stop = offsets[s, t], offsets[s, t + 1]
            begin = t - t % block
            if t == begin:
                end = min(begin + block, n_steps)
                find_places(index, offsets[s, begin], offsets[s, end], width, places)
                drive_floats(flat, places, offsets[s, begin : end + 1], width, n, drive)
            scale_floats(x_pre[: -(-n_lit // FLOATS) * FLOATS], pre_decay)
            for e in range(start, stop):
                i = np.int64(index[e])
                hot_places[e - start] = place[i] * stride
                x_pre[place[i]] = 1
            lanes = -(-n_hot // LANES) * LANES
            sum_hot(table, hot_places, stop - start, total_hot[:lanes])
            n_resting = clear_resting(resting, n_resting, until_hot, t, total_hot)
            crossed = integrate_floats(v, drive[(t - begin) * width : (t - begin + 1) * width], level, decay)
            crossed |= integrate_floats(v_hot[:lanes], total_hot, level_hot, decay)
            k = -1
            if crossed:
                key = step_key(base, clock + t)
                k, q = stronger(draw_winner(v, level, until, t, key), v_hot, level_hot, hot, n_hot, until_hot, t, key)
            if eta_pre > 0:
                scale_floats(x_post[:lanes], post_decay)
            if k >= 0:
                inhibit(v, strength, v_min)
                inhibit(v_hot[:lanes], strength, v_min)
                theta[k] += theta_plus
                if q < 0:
                    q = n_hot
                    n_hot += 1
                    hot[q] = k
                    level[k] = _F32(np.inf)
                    for a in range(n_lit):
                        table[a * stride + q] = cols[k, lit[a]]
                level_hot[q] = v_th + theta[k]
                v_hot[q] = v_reset
                until_hot[q] = t + n_ref + 1
                if n_ref > 0:
                    resting[n_resting] = q
                    n_resting += 1
                x_post[q] = eta_pre
            if eta_pre > 0:
                for p in range(0, n_hot, LANES):
                    depress(table, hot_places, stop - start, p, load_floats(x_post, p), w_max, rule)
            if k >= 0:
                if x_offset == 0:  # unlit inputs keep their weights
                    potentiate(table, q, stride, x_pre, n_lit, eta_post, w_max, rule)
                    continue
                col = cols[k]
                for a in range(n_lit):
                    x_all[lit[a]] = x_pre[a]
                    col[lit[a]] = table[a * stride + q]
                for i in range(n_pre):
                    w = col[i]
                    d = _F32(x_all[i] - x_offset)
                    w = _F32(w + _F32(eta_post * d) * float_bound(w, w_max, rule, d > 0))
                    col[i] = min(max(w, _F32(0)), w_max)
                for a in range(n_lit):
                    table[a * stride + q] = col[lit[a]]
        for q in range(n_hot):
            k = hot[q]
            col = cols[k]
            for a in range(n_lit):
                col[lit[a]] = table[a * stride + q]
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
            level[k] = level_hot[q]
            level_hot[q] = _F32(np.inf)
            until_hot[q] = 0
            v_hot[q] = 0
            x_post[q] = 0
            log[n_log] = k
            n_log += 1
        for a in range(n_lit):
            place[lit[a]] = -1
            x_all[lit[a]] = 0
        if n_log >= LOG or m + 1 == order.size:
            refresh_all(rows, cols, log, n_log, seen)
            n_log = 0

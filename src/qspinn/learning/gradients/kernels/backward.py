"""Compiled gradients of `forward_kernel`, back in time: a sample's steps are run again, then walked from the last on.

Backward goes straight through all rounding.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, part, piece
from qspinn.learning.gradients.kernels.forward import _F32, CHUNK, RESTING, advance, fade

ARCTAN, FAST_SIGMOID, TRIANGLE = 0, 1, 2


@piece
def slopes(gap, unit, kind, width, found):
    """found[j] <- derivative of the spike by the code of the potential, at a distance of gap[j] codes from threshold;
    zero where refractory."""
    if kind == ARCTAN:
        for j in range(gap.size):
            y = _F32(1.5707964) * width * (gap[j] * unit[j])
            found[j] = _F32(0.5) * width / (_F32(1) + y * y) * unit[j]
    elif kind == FAST_SIGMOID:
        for j in range(gap.size):
            y = _F32(1) + width * abs(gap[j] * unit[j])
            found[j] = unit[j] / (y * y)
    else:
        for j in range(gap.size):
            y = _F32(1) - width * abs(gap[j] * unit[j])
            found[j] = (y if y > 0 else _F32(0)) * unit[j]


@kernel
def codes_backward(
    spike_grad,
    every_spike,
    left_grad,
    current,
    gain,
    rows,
    by_target,
    normed,
    around,
    start,
    stop,
    step,
    outer,
    factors,
    has_current,
    adapts,
    current_grad,
    level_grad,
    bias_grad,
    decay_grad,
    products,
):
    """Gradients of `codes_forward` for samples start..stop, which are run again.

    spike_grad [B, T, N] or [0, 0, 0], to which every_spike is added; left_grad likewise; by_target: the feedback of the
    forward pass, by target. factors: see `back_in_time`. Written: current_grad [B, T, N], of currents after the gain.
    Added to: level_grad, bias_grad, decay_grad [N], of which those without entries are left out; products [N], the sum
    over samples and steps of current_grad times (normed - around), normed [B, T, N].
    """
    n_steps, n = current.shape[1:]
    size = n if rows.size > 0 else min(n, CHUNK)
    spikes, gap = np.empty((n_steps, size), _F32), np.empty((n_steps, size), _F32)
    left, thetas = np.empty((n_steps, size), _F32), np.empty((n_steps if adapts else 0, size), _F32)
    i_left = np.empty((n_steps if has_current else 0, size), _F32)
    none = left[:0]
    for s in range(start, stop):
        for low in range(0, n, size):
            m = min(size, n - low)
            advance(current[s], gain, rows, step, outer, low, m, 0, spikes, gap, left, i_left, thetas)
            back_in_time(
                spike_grad[s] if spike_grad.size > 0 else none,
                every_spike,
                left_grad[s] if left_grad.size > 0 else none,
                spikes,
                gap,
                left,
                i_left,
                thetas,
                by_target,
                factors,
                low,
                m,
                current_grad[s],
                level_grad,
                bias_grad,
                decay_grad,
            )
            for t in range(n_steps - 1 if products.size > 0 else -1, -1, -1):
                multiply(
                    normed[s, t, low : low + m],
                    around[low : low + m],
                    current_grad[s, t, low : low + m],
                    products[low : low + m],
                )


@piece
def multiply(x, around, factor, total):
    """total += factor * (x - around)."""
    for j in range(x.size):
        total[j] += factor[j] * (x[j] - around[j])


@part
def back_in_time(
    spike_grad,
    every_spike,
    left_grad,
    spikes,
    gap,
    left,
    i_left,
    thetas,
    w,
    factors,
    low,
    m,
    current_grad,
    level_grad,
    bias_grad,
    decay_grad,
):
    """Gradients of neurons low..low + m of one sample, as `advance` left them; others are [T, N], or without entries.

    factors holds: decay [N] or [1], as the decays of i and theta; in_scale, level [N]; unit [N], the real number a code
    of the potential stands for; limits and switches; theta_step [N] or [0], the rest of
    theta's. Rounding is passed straight through, saturation not at all; the reset's spike is taken as given (Zenke &
    Ganguli 2018), the one that raises a threshold is not (Bellec et al. 2018).
    """
    (
        decay,
        in_scale,
        level,
        unit,
        v_min,
        v_max,
        subtract,
        delayed,
        i_decay,
        i_min,
        i_max,
        theta_step,
        theta_decay,
        theta_max,
        theta_unit,
        kind,
        width,
        keep_min,
        keep_max,
    ) = factors
    in_scale, level, unit = in_scale[low : low + m], level[low : low + m], unit[low : low + m]
    of_bias = bias_grad[low : low + m]
    of_level = level_grad[low : low + m] if level_grad.size > 0 else level_grad
    g, g_i, back, of_spike = np.zeros(m, _F32), np.zeros(m, _F32), np.zeros(m, _F32), np.zeros(m, _F32)
    has_current, kept_by_reset = i_left.size > 0, _F32(1) if subtract or delayed else _F32(0)
    lowered = _F32(1) if subtract and not delayed else _F32(0)
    adapts, high = thetas.size > 0, level.copy()
    g_theta, of_high = np.zeros(m if adapts else 0, _F32), np.zeros(m if adapts else 0, _F32)
    decay = decay[low : low + m] if decay.size > 1 else decay
    falls, fades = np.empty(g_theta.size, _F32), np.empty(m if has_current else 0, _F32)
    for j in range(falls.size):
        falls[j] = theta_decay[low + j] if theta_decay.size > 1 else theta_decay[0]
    for j in range(fades.size):
        fades[j] = i_decay[low + j] if i_decay.size > 1 else i_decay[0]
    for t in range(gap.shape[0] - 1, -1, -1):
        apart, fired, found = gap[t, :m], spikes[t, :m], current_grad[t, low : low + m]
        slopes(apart, unit, kind, width, of_spike)
        if left_grad.size > 0:
            add(left_grad[t, low : low + m], g)
        for j in range(g_theta.size):
            high[j] = level[j] + thetas[t, j] * theta_unit
        if keep_max < np.inf:
            for j in range(m):
                whole = apart[j] + high[j] * (_F32(1) - fired[j] * lowered)  # potential at the end of the step
                g[j] = g[j] if ((keep_min <= whole) & (whole < keep_max)) | (apart[j] == RESTING) else _F32(0)
        if spike_grad.size > 0:
            add(spike_grad[t, low : low + m], back)
        for j in range(g_theta.size):
            back[j] += theta_step[low + j] * g_theta[j]
        for j in range(m):
            of_spike[j] *= back[j] + every_spike
        for j in range(g_theta.size):
            theta = thetas[t, j]
            whole = falls[j] * g_theta[j] - theta_unit * (of_high[j] + g[j] * fired[j] * lowered + of_spike[j])
            g_theta[j] = whole if theta < theta_max else _F32(0)
        for j in range(of_level.size):
            of_level[j] -= g[j] * fired[j] * lowered + of_spike[j]
        for j in range(m):
            after = g[j] * (_F32(1) - fired[j] + fired[j] * kept_by_reset) + of_spike[j]
            d = apart[j]
            inside = (d <= v_max - high[j]) & (d >= v_min - high[j])
            g[j] = after if inside | (d == RESTING) else _F32(0)
        for j in range(m):
            back[j] = _F32(0) if apart[j] == RESTING else g[j]
        if not has_current:
            add(back, of_bias)
        for j in range(m):
            back[j] *= in_scale[j]
        if delayed and t > 0:
            reset_before(g, spikes[t - 1, :m], of_level, of_high, subtract)
        if t > 0 and decay_grad.size > 0:
            of_decay = decay_grad[low : low + m]
            for j in range(m):
                of_decay[j] += g[j] * left[t - 1, j]
        fade(g, decay)
        if has_current:
            for j in range(m):
                whole = i_left[t, j]
                back[j] = back[j] + g_i[j] if i_min < whole and whole < i_max else _F32(0)
            add(back, of_bias)
            for j in range(m):
                g_i[j] = fades[j] * back[j]
        for j in range(m):
            found[j] = back[j]
        back[:] = 0
        for j in range(m if w.size > 0 else 0):
            through = found[j]
            if through != 0:
                for q in range(m):
                    back[q] += w[j, q] * through


@piece
def reset_before(g, fired, of_level, of_high, subtract):
    """Gradients through the reset of the spikes of the step before, given g after it: of thresholds, less in of_high of
    those of that step, and in g of what was there before it."""
    if subtract:
        for j in range(of_level.size):
            of_level[j] -= g[j] * fired[j]
        for j in range(of_high.size):
            of_high[j] = g[j] * fired[j]
    else:
        for j in range(g.size):
            g[j] *= _F32(1) - fired[j]


@piece
def add(x, to):
    for j in range(x.size):
        to[j] += x[j]

"""Compiled passes over time for layers whose numbers are the codes of an integer program.

Codes are whole numbers held in floats (float32 where every intermediate stays below 2**24, else float64), so that
rounding is a floor of an exactly scaled number and one rule serves shifts in both directions. Arrays are [T, B, N]; a
call handles samples start..stop. Forward is LifOp's step to the bit; backward goes straight through all rounding.
"""

from __future__ import annotations

import numpy as np

from qspinn.learning._scan_kernel import slope
from qspinn.runtime._jit import kernel, piece
from qspinn.runtime.arithmetic import NEAREST, STOCHASTIC, TOWARD_ZERO, random_word, step_key, stream_base

_F32 = np.float32
RESTING = _F32(np.inf)
"""The distance from the threshold that stands for a refractory neuron."""
BEYOND = _F32(0.25)
"""Added to the distance of a potential that saturated, outwards: codes are whole, so it marks the spot."""


@piece
def round_all(x, scale, mode, key):
    """x[j] <- x[j] * scale[j] as whole numbers; scale[j] is 2**-shift (one entry for all, or one each)."""
    n = x.size
    own = scale.size > 1
    if mode == STOCHASTIC:
        for j in range(n):
            by = scale[j] if own else scale[0]
            word = np.float64(random_word(key, j)) * 2.0**-32
            x[j] = np.floor(x[j] * by + np.floor(word / by) * by)  # as many random bits as the shift drops
        return
    half = _F32(0.5) if mode == NEAREST else _F32(0)
    if mode == TOWARD_ZERO:
        for j in range(n):
            x[j] = np.trunc(x[j] * (scale[j] if own else scale[0]))
    elif own:
        for j in range(n):
            x[j] = np.floor(x[j] * scale[j] + half)
    else:
        by = scale[0]
        for j in range(n):
            x[j] = np.floor(x[j] * by + half)


@piece
def clip(x, low, high):
    return min(max(x, low), high)


@kernel
def codes_forward(current, rows, start, stop, decay, decay_scale, in_scale, level, bias, reset, v_min, v_max, strict,
                  subtract, n_ref, spiking, i_decay, i_scale, i_min, i_max, mode, seed, stream, spikes, gap, left,
                  i_left):
    """Samples start..stop of a layer over all steps.

    current [T, B, N]: weight codes times spikes, without feedback; rows [N, N] (or [0, 0]): weight codes of the layer's
    own spikes, by source. decay_scale [1] is the factor of the decay code, in_scale [N] or [1] that of the input,
    i_scale [1] that of the current's decay code. level, bias, reset [N]: codes. i_left [T, B, N] where the layer has a
    synaptic current (else [0, 0, 0]), to which the bias then belongs. Written: spikes, gap (distance from the threshold
    when the spike was decided), left (potential after the step), i_left.
    """
    n_steps, _, n = current.shape
    v, i_syn, drive = np.zeros_like(level), np.zeros_like(level), np.zeros_like(level)
    until, fired = np.zeros(n, np.int32), np.zeros(n, np.int32)
    none = np.zeros_like(bias)
    has_current = i_left.size > 0
    constant = none if has_current else bias
    base_decay, base_in = stream_base(seed, stream + 1), stream_base(seed, stream + 2)
    base_i = stream_base(seed, stream + 6)
    for s in range(start, stop):
        v[:] = 0
        i_syn[:] = 0
        until[:] = 0
        n_fired = 0
        for t in range(n_steps):
            for j in range(n):
                drive[j] = current[t, s, j]
            for q in range(n_fired if rows.size > 0 else 0):
                row = rows[fired[q]]
                for j in range(n):
                    drive[j] += row[j]
            if has_current:
                for j in range(n):
                    i_syn[j] *= i_decay
                round_all(i_syn, i_scale, mode, step_key(base_i, t))
                for j in range(n):
                    i_syn[j] = clip(i_syn[j] + drive[j] + bias[j], i_min, i_max)
                    drive[j] = i_syn[j]
                    i_left[t, s, j] = i_syn[j]
            for j in range(n):
                v[j] *= decay
            round_all(v, decay_scale, mode, step_key(base_decay, t))
            round_all(drive, in_scale, mode, step_key(base_in, t))
            if n_ref > 0:
                resting(v, drive, constant, until, t)
            for j in range(n):
                x = v[j] + drive[j] + constant[j]
                v[j] = clip(x, v_min, v_max)
                d = _F32(v[j] - level[j])
                gap[t, s, j] = d + (BEYOND if x > v_max else (-BEYOND if x < v_min else _F32(0)))
                crosses = spiking and (d > 0 if strict else d >= 0)
                spikes[t, s, j] = _F32(1) if crosses else _F32(0)
            if n_ref > 0:
                withheld(spikes[t, s], gap[t, s], until, t, n_ref)
            n_fired = 0
            if rows.size > 0:
                for j in range(n):
                    if spikes[t, s, j] > 0:
                        fired[n_fired] = j
                        n_fired += 1
            for j in range(n):
                after = v[j] - level[j] if subtract else reset[j]
                v[j] = after if spikes[t, s, j] > 0 else v[j]
                left[t, s, j] = v[j]


@piece
def resting(v, drive, constant, until, t):
    """Nothing reaches refractory neurons: what they would receive is taken back beforehand."""
    for j in range(v.size):
        if until[j] > t:
            drive[j] = -constant[j]


@piece
def withheld(spikes, gap, until, t, n_ref):
    """Refractory neurons do not spike; those that do become refractory."""
    for j in range(spikes.size):
        if until[j] > t:
            spikes[j] = 0
            gap[j] = RESTING
        elif spikes[j] > 0:
            until[j] = t + n_ref + 1


@kernel
def codes_backward(spike_grad, left_grad, spikes, gap, left, i_left, w, start, stop, decay, in_scale, level, unit,
                   v_min, v_max, subtract, i_decay, i_min, i_max, kind, width, current_grad, level_grad, bias_grad,
                   decay_grad):
    """Gradients of `codes_forward` for samples start..stop.

    w [N, N] (or [0, 0]): the rows of the forward pass, by target. unit [N]: the real number a code of the potential
    stands for; decay, i_decay: real factors. left_grad may be [0, 0, 0]. Written: current_grad [T, B, N]; added to:
    level_grad, bias_grad, decay_grad [N]. Rounding is passed straight through, saturation not at all; the reset's spike
    is taken as given (Zenke & Ganguli 2018).
    """
    n_steps, _, n = gap.shape
    g, g_i, back = np.zeros(n, _F32), np.zeros(n, _F32), np.zeros(n, _F32)
    has_current, own = i_left.size > 0, in_scale.size > 1
    for s in range(start, stop):
        g[:] = 0
        g_i[:] = 0
        back[:] = 0
        for t in range(n_steps - 1, -1, -1):
            for j in range(n):
                d = gap[t, s, j]
                after = g[j] + left_grad[t, s, j] if left_grad.size > 0 else g[j]
                spiked = spikes[t, s, j] > 0
                through = after if (spiked and subtract) else _F32(0)
                after = _F32(0) if (spiked and not subtract) else after
                active = d < RESTING
                up = (spike_grad[t, s, j] + back[j]) * slope(d * unit[j], kind, width) * unit[j] if active else _F32(0)
                level_grad[j] -= through + up
                after = after + up
                inside = d <= v_max - level[j] and d >= v_min - level[j]
                after = after if inside or not active else _F32(0)
                fed = after if active else _F32(0)
                g[j] = decay * after
                if t > 0:
                    decay_grad[j] += after * left[t - 1, s, j]
                if not has_current:
                    bias_grad[j] += fed
                back[j] = fed * (in_scale[j] if own else in_scale[0])
                current_grad[t, s, j] = back[j]
            if has_current:
                for j in range(n):
                    whole = i_left[t, s, j]
                    through = back[j] + g_i[j] if i_min < whole and whole < i_max else _F32(0)
                    current_grad[t, s, j] = through
                    bias_grad[j] += through
                    g_i[j] = i_decay * through
            back[:] = 0
            for j in range(n if w.size > 0 else 0):
                through = current_grad[t, s, j]
                if through != 0:
                    for q in range(n):
                        back[q] += w[j, q] * through

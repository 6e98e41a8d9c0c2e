"""Compiled passes over time for gradient training: one call per layer and direction instead of a dozen per step.

Arrays are [B, T, N], channel-last within N; a call handles samples start..stop. One step is LifOp's, either in real numbers (mode PLAIN) or,
to the bit, in the codes of an integer program: whole numbers held in floats (float32 where every intermediate stays
below 2**24, else float64), so that rounding is a floor of an exactly scaled number and one rule serves shifts in both
directions. Backward goes straight through all rounding.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from qspinn.runtime._jit import kernel, piece
from qspinn.runtime.arithmetic import NEAREST, STOCHASTIC, TOWARD_ZERO, random_word, step_key, stream_base

ARCTAN, FAST_SIGMOID, TRIANGLE = 0, 1, 2
_F32 = np.float32
PLAIN = -1  # beside the rounding modes: real numbers, nothing is rounded

RESTING = _F32(np.inf)
"""The distance from the threshold that stands for a refractory neuron."""
BEYOND = _F32(0.25)
"""Added to the distance of a potential that saturated, outwards: codes are whole, so it marks the spot."""


@piece
def slope(x, kind, width):
    """The surrogate derivative of the spike at distance x from the threshold."""
    if kind == ARCTAN:
        y = _F32(_F32(1.5707964) * width * x)
        return _F32(_F32(0.5) * width / (_F32(1) + y * y))
    if kind == FAST_SIGMOID:
        y = _F32(_F32(1) + width * abs(x))
        return _F32(_F32(1) / (y * y))
    y = _F32(_F32(1) - width * abs(x))
    return y if y > 0 else _F32(0)


@piece
def round_all(x, scale, mode, key, outer):
    """x[j] <- x[j] * scale[j] as whole numbers; scale[j] is 2**-shift (one entry for all, or one each; of real
    numbers one entry is 1). outer[j]: the number under which j draws random words."""
    n = x.size
    own = scale.size > 1
    if mode == PLAIN:
        for j in range(n if own else 0):
            x[j] *= scale[j]
        return
    if mode == STOCHASTIC:
        for j in range(n):
            by = scale[j] if own else scale[0]
            word = np.float64(random_word(key, outer[j])) * 2.0**-32
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
def codes_forward(current, gain, rows, start, stop, step, outer, spikes, left, i_left, keep):
    """Samples start..stop of a layer over all steps.

    current [B, T, N]: weight codes times spikes, without feedback, to be multiplied by gain [N] where that has entries;
    rows [N, N] (or [0, 0]): weight codes of the layer's own spikes, by source. step: see `advance`; outer [N]: the
    numbers under which neurons draw random words. Written, [B, T, N]: spikes, left (potential after the step) if keep,
    i_left where the layer has a synaptic current (else [0, 0, 0]).
    """
    n_steps, n = current.shape[1:]
    gap, none = np.empty((1, n), _F32), np.empty((1, n), _F32)
    for s in range(start, stop):
        advance(current[s], gain, rows, step, outer, spikes[s], gap, left[s] if keep else none,
                i_left[s] if i_left.size > 0 else none[:0])


@nb.njit(nogil=True, error_model="numpy")
def advance(current, gain, rows, step, outer, spikes, gap, left, i_left):
    """One sample over all steps; arrays [T, N] as in `codes_forward`. Also written: gap, distance from the threshold
    when the spike was decided; gap and left may have one row, for the latest step.

    step holds: decay; decay_scale [1], the factor of the decay code; in_scale [N] or [1], that of the input; level,
    bias, reset [N]: codes, bias of the synaptic current where there is one; limits and switches; i_scale [1], the
    factor of the current's decay code.
    """
    (decay, decay_scale, in_scale, level, bias, reset, v_min, v_max, strict, subtract, n_ref, spiking, i_decay, i_scale,
     i_min, i_max, mode, seed, stream) = step
    n_steps, n = current.shape
    v, i_syn, drive = np.zeros_like(level), np.zeros_like(level), np.zeros_like(level)
    until, fired = np.zeros(n if n_ref > 0 else 0, np.int32), np.zeros(n if rows.size > 0 else 0, np.int32)
    has_current = i_left.size > 0
    constant = np.zeros_like(bias) if has_current else bias
    base_decay, base_in = stream_base(seed, stream + 1), stream_base(seed, stream + 2)
    base_i = stream_base(seed, stream + 6)
    n_fired = 0
    for t in range(n_steps):
        here, spike = current[t], spikes[t]
        apart, rest = gap[t % gap.shape[0]], left[t % left.shape[0]]
        if gain.size > 0:
            for j in range(n):
                drive[j] = here[j] * gain[j]
        else:
            for j in range(n):
                drive[j] = here[j]
        for q in range(n_fired):
            row = rows[fired[q]]
            for j in range(n):
                drive[j] += row[j]
        if has_current:
            for j in range(n):
                i_syn[j] *= i_decay
            round_all(i_syn, i_scale, mode, step_key(base_i, t), outer)
            for j in range(n):
                i_syn[j] = clip(i_syn[j] + drive[j] + bias[j], i_min, i_max)
                drive[j] = i_syn[j]
                i_left[t, j] = i_syn[j]
        for j in range(n):
            v[j] *= decay
        round_all(v, decay_scale, mode, step_key(base_decay, t), outer)
        round_all(drive, in_scale, mode, step_key(base_in, t), outer)
        if n_ref > 0:
            resting(v, drive, constant, until, t)
        for j in range(n):
            x = v[j] + drive[j] + constant[j]
            v[j] = clip(x, v_min, v_max)
            d = _F32(v[j] - level[j])
            apart[j] = d + (BEYOND if x > v_max else (-BEYOND if x < v_min else _F32(0)))
            crosses = spiking and (d > 0 if strict else d >= 0)
            spike[j] = d if d != d else (_F32(1) if crosses else _F32(0))  # not a number: be noticed
        if n_ref > 0:
            withheld(spike, apart, until, t, n_ref)
        n_fired = 0
        for j in range(fired.size):
            fired[n_fired] = j
            n_fired += spike[j] > 0
        for j in range(n):
            after = v[j] - level[j] if subtract else reset[j]
            v[j] = after if spike[j] > 0 else v[j]
            rest[j] = v[j]


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


@piece
def slopes(gap, unit, kind, width, found):
    """found[j] <- derivative of the spike by the code of the potential, at a distance of gap[j] codes from threshold;
    zero where refractory."""
    for j in range(gap.size):
        found[j] = slope(gap[j] * unit[j], kind, width) * unit[j]


@kernel
def codes_backward(spike_grad, every_spike, left_grad, current, gain, rows, by_target, normed, around, start, stop,
                   step, outer, factors, has_current, current_grad, level_grad, bias_grad, decay_grad, products):
    """Gradients of `codes_forward` for samples start..stop, which are run again.

    spike_grad [B, T, N] or [0, 0, 0], to which every_spike is added; left_grad likewise; by_target: the feedback of the
    forward pass, by target. factors: see `back_in_time`. Written: current_grad [B, T, N], of currents after the gain.
    Added to: level_grad, bias_grad, decay_grad [N], of which those without entries are left out; products [N], the sum
    over samples and steps of current_grad times (normed - around), normed [B, T, N].
    """
    n_steps, n = current.shape[1:]
    spikes, gap, left = np.empty((n_steps, n), _F32), np.empty((n_steps, n), _F32), np.empty((n_steps, n), _F32)
    i_left = np.empty((n_steps if has_current else 0, n), _F32)
    for s in range(start, stop):
        advance(current[s], gain, rows, step, outer, spikes, gap, left if decay_grad.size > 0 else left[:1], i_left)
        back_in_time(spike_grad[s] if spike_grad.size > 0 else left[:0], every_spike,
                     left_grad[s] if left_grad.size > 0 else left[:0], spikes, gap, left, i_left, by_target, factors,
                     current_grad[s], level_grad, bias_grad, decay_grad)
        for t in range(n_steps if products.size > 0 else 0):
            here, found = normed[s, t], current_grad[s, t]
            for j in range(n):
                products[j] += found[j] * (here[j] - around[j])


@nb.njit(nogil=True, error_model="numpy")
def back_in_time(spike_grad, every_spike, left_grad, spikes, gap, left, i_left, w, factors, current_grad, level_grad,
                 bias_grad, decay_grad):
    """Gradients of one sample; arrays [T, N], or without entries.

    factors holds: decay; in_scale, level [N]; unit [N], the real number a code of the potential stands for; limits and
    switches. Rounding is passed straight through, saturation not at all; the reset's spike is taken as given (Zenke &
    Ganguli 2018).
    """
    decay, in_scale, level, unit, v_min, v_max, subtract, i_decay, i_min, i_max, kind, width = factors
    n_steps, n = gap.shape
    g, g_i, back, of_spike = np.zeros(n, _F32), np.zeros(n, _F32), np.zeros(n, _F32), np.zeros(n, _F32)
    has_current, kept_by_reset = i_left.size > 0, _F32(1) if subtract else _F32(0)
    bias_share = _F32(0) if has_current else _F32(1)
    for t in range(n_steps - 1, -1, -1):
        apart, fired, found = gap[t], spikes[t], current_grad[t]
        slopes(apart, unit, kind, width, of_spike)
        if left_grad.size > 0:
            for j in range(n):
                g[j] += left_grad[t, j]
        if spike_grad.size > 0:
            of_t = spike_grad[t]
            for j in range(n):
                of_spike[j] *= of_t[j] + every_spike + back[j]
        else:
            for j in range(n):
                of_spike[j] *= every_spike + back[j]
        for j in range(n):
            lowered = g[j] * fired[j] * kept_by_reset
            if level_grad.size > 0:
                level_grad[j] -= lowered + of_spike[j]
            after = lowered + g[j] * (_F32(1) - fired[j]) + of_spike[j]
            d = apart[j]
            resting = d == RESTING
            after = after if resting or (d <= v_max - level[j] and d >= v_min - level[j]) else _F32(0)
            fed = _F32(0) if resting else after
            g[j] = after
            bias_grad[j] += fed * bias_share
            back[j] = fed * in_scale[j]
            found[j] = back[j]
        if t > 0 and decay_grad.size > 0:
            for j in range(n):
                decay_grad[j] += g[j] * left[t - 1, j]
        for j in range(n):
            g[j] *= decay
        if has_current:
            for j in range(n):
                whole = i_left[t, j]
                through = back[j] + g_i[j] if i_min < whole and whole < i_max else _F32(0)
                found[j] = through
                bias_grad[j] += through
                g_i[j] = i_decay * through
        back[:] = 0
        for j in range(n if w.size > 0 else 0):
            through = found[j]
            if through != 0:
                for q in range(n):
                    back[q] += w[j, q] * through

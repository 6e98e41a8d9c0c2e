"""Compiled forward pass over time for gradient training: one call per layer instead of a dozen per step.

Arrays are [B, T, N], channel-last within N; a call handles samples start..stop. One step is LifOp's, either in real
numbers (mode PLAIN) or, to the bit, in the codes of an integer program: whole numbers held in floats (float32 where
every intermediate stays below 2**24, else float64), so that rounding is a floor of an exactly scaled number and one
rule serves shifts in both directions.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel, part, piece
from qspinn.compiled.scalars import NEAREST, STOCHASTIC, TOWARD_ZERO, random_word, step_key, stream_base
from qspinn.program.ops import Stream

_F32 = np.float32
DECAY, INPUT, CURRENT = int(Stream.DECAY), int(Stream.INPUT), int(Stream.CURRENT)
THETA, STORE = int(Stream.THETA), int(Stream.STORE)
PLAIN = -1  # beside the rounding modes: real numbers, nothing is rounded

RESTING = _F32(np.inf)
"""The distance from the threshold that stands for a refractory neuron."""
CHUNK = 1024
"""Neurons advanced through all steps at once, so that everything about them stays close."""
BEYOND = _F32(0.25)
"""Added to the distance of a potential that saturated, outwards: codes are whole, so it marks the spot."""


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
def fade(x, factor):
    """x[j] <- x[j] times its factor, of which there is one for all, or one each."""
    if factor.size > 1:
        for j in range(x.size):
            x[j] *= factor[j]
    else:
        by = factor[0]
        for j in range(x.size):
            x[j] *= by


@piece
def clip(x, low, high):
    """x within low..high; what is no number stays so."""
    x = low if x < low else x
    return high if x > high else x


@kernel
def codes_forward(current, gain, rows, start, stop, step, outer, spikes, left, i_left, thetas):
    """Samples start..stop of a layer over all steps; returns how many spikes there are.

    current [B, T, N]: weight codes times spikes, without feedback, to be multiplied by gain [N] where that has entries;
    rows [N, N] (or [0, 0]): weight codes of the layer's own spikes, by source. step: see `advance`; outer [N]: the
    numbers under which neurons draw random words. Written, [B, T, N]: spikes, left (potential after the step), i_left
    where the layer has a synaptic current, thetas where its thresholds are adaptive (else [0, 0, 0]).
    """
    n = current.shape[2]
    size = n if rows.size > 0 else min(n, CHUNK)
    gap = np.empty((1, size), _F32)
    none = gap[:0]
    count = 0
    for s in range(start, stop):
        for low in range(0, n, size):
            m = min(size, n - low)
            count += advance(
                current[s],
                gain,
                rows,
                step,
                outer,
                low,
                m,
                low,
                spikes[s],
                gap,
                left[s],
                i_left[s] if i_left.size > 0 else none,
                thetas[s] if thetas.size > 0 else none,
            )
    return count


@part
def advance(current, gain, rows, step, outer, low, m, to, spikes, gap, left, i_left, thetas):
    """Neurons low..low + m of one sample over all steps (with feedback, all of them); returns their spikes' number.

    current [T, N]. Written, [T, .] from column `to` on: spikes, left, i_left, thetas as in `codes_forward`, and from
    column 0 on gap, the distance from the threshold when the spike was decided; gap may have one row, for the latest
    step.

    step holds: decay [N] or [1]; decay_scale [1], the factor of the decay code; in_scale [N] or [1], that of the input;
    level, bias, reset [N]: codes, bias of the synaptic current where there is one; limits and switches; i_decay [N] or
    [1]; i_scale [1], the factor of the current's decay code; theta_step [N], by which a spike raises theta, theta_decay
    and theta_scale as those of i, and theta_unit, the potential that theta counts in; store_scale [1] (or without
    entries), 2**-shift of what is kept, with its limits. Loops write to one array each: of more, LLVM
    does not prove that they are apart, and goes from number to number.
    """
    (
        decay,
        decay_scale,
        in_scale,
        level,
        bias,
        reset,
        v_min,
        v_max,
        strict,
        subtract,
        delayed,
        n_ref,
        spiking,
        i_decay,
        i_scale,
        i_min,
        i_max,
        theta_step,
        theta_decay,
        theta_scale,
        theta_max,
        theta_unit,
        mode,
        seed,
        stream,
        store_scale,
        store_min,
        store_max,
    ) = step
    level, bias, reset, outer = level[low : low + m], bias[low : low + m], reset[low : low + m], outer[low : low + m]
    in_scale = in_scale[low : low + m] if in_scale.size > 1 else in_scale
    decay = decay[low : low + m] if decay.size > 1 else decay
    i_decay = i_decay[low : low + m] if i_decay.size > 1 else i_decay
    theta_decay = theta_decay[low : low + m] if theta_decay.size > 1 else theta_decay
    gain = gain[low : low + m] if gain.size > 0 else gain
    v, i_syn, drive = np.zeros_like(level), np.zeros_like(level), np.zeros_like(level)
    until, fired = np.zeros(m if n_ref > 0 else 0, np.int32), np.zeros(m if rows.size > 0 else 0, np.int32)
    has_current, adapts = i_left.size > 0, thetas.size > 0
    high, theta = level.copy(), np.zeros_like(level)
    theta_step = theta_step[low : low + m] if adapts else theta_step
    constant = np.zeros_like(bias) if has_current else bias
    base_decay, base_in = stream_base(seed, stream + DECAY), stream_base(seed, stream + INPUT)
    base_i, base_theta = stream_base(seed, stream + CURRENT), stream_base(seed, stream + THETA)
    base_store = stream_base(seed, stream + STORE)
    n_fired, count = 0, 0
    for t in range(current.shape[0]):
        here, spike, rest = current[t, low : low + m], spikes[t, to : to + m], left[t, to : to + m]
        apart = gap[t % gap.shape[0], :m]
        if gain.size > 0:
            for j in range(m):
                drive[j] = here[j] * gain[j]
        else:
            for j in range(m):
                drive[j] = here[j]
        for q in range(n_fired):
            row = rows[fired[q]]
            for j in range(m):
                drive[j] += row[j]
        if has_current:
            fade(i_syn, i_decay)
            round_all(i_syn, i_scale, mode, step_key(base_i, t), outer)
            for j in range(m):
                i_syn[j] = clip(i_syn[j] + drive[j] + bias[j], i_min, i_max)
            i_left[t, to : to + m] = i_syn
            drive[:] = i_syn
        fade(v, decay)
        round_all(v, decay_scale, mode, step_key(base_decay, t), outer)
        if delayed and t > 0:
            lower(v, spikes[t - 1, to : to + m], high, reset, subtract)
        if adapts and t > 0:
            fade(theta, theta_decay)
            round_all(theta, theta_scale, mode, step_key(base_theta, t), outer)
            raise_by(theta, spikes[t - 1, to : to + m], theta_step, theta_max)
            for j in range(m):
                high[j] = level[j] + theta[j] * theta_unit
        if adapts:
            thetas[t, to : to + m] = theta
        round_all(drive, in_scale, mode, step_key(base_in, t), outer)
        if n_ref > 0:
            resting(v, drive, constant, until, t)
        for j in range(m):
            drive[j] = v[j] + drive[j] + constant[j]
        for j in range(m):
            v[j] = clip(drive[j], v_min, v_max)
        decide(v, drive, high, v_min, v_max, strict, spiking, apart, spike)
        if n_ref > 0:
            withheld(spike, apart, until, t, n_ref)
        n_fired = 0
        for j in range(fired.size):
            fired[n_fired] = j
            n_fired += spike[j] > 0
        if not delayed:
            lower(v, spike, high, reset, subtract)
        if store_scale.size > 0:
            round_all(v, store_scale, mode, step_key(base_store, t), outer)
            for j in range(m):
                v[j] = clip(v[j], store_min, store_max) / store_scale[0]
        for j in range(m):
            rest[j] = v[j]
        for j in range(m):
            count += spike[j] > 0
    return count


@piece
def decide(v, unclipped, level, v_min, v_max, strict, spiking, apart, spike):
    """Distances from the threshold, and spikes; what is no number is passed on, to be noticed."""
    for j in range(v.size):
        x = unclipped[j]
        apart[j] = _F32(v[j] - level[j]) + (BEYOND if x > v_max else (-BEYOND if x < v_min else _F32(0)))
    if not spiking:
        for j in range(v.size):
            d = _F32(v[j] - level[j])
            spike[j] = d if d != d else _F32(0)
    elif strict:
        for j in range(v.size):
            d = _F32(v[j] - level[j])
            spike[j] = d if d != d else (_F32(1) if d > 0 else _F32(0))
    else:
        for j in range(v.size):
            d = _F32(v[j] - level[j])
            spike[j] = d if d != d else (_F32(1) if d >= 0 else _F32(0))


@piece
def lower(v, spike, level, reset, subtract):
    """The reset of the neurons that spiked."""
    if subtract:
        for j in range(v.size):
            v[j] = v[j] - level[j] if spike[j] > 0 else v[j]
    else:
        for j in range(v.size):
            v[j] = reset[j] if spike[j] > 0 else v[j]


@piece
def raise_by(theta, spike, step, top):
    """Thresholds rise by the spikes of the step before, up to a limit; what is no number is passed on."""
    for j in range(theta.size):
        theta[j] = clip(theta[j] + spike[j] * step[j], 0, top)


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

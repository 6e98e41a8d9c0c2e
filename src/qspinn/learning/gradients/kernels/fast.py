"""Passes over time of layers of the most frequent kind, in whole registers.

To the bit what `forward_kernel` computes for every layer, for those without feedback, synaptic current and refractory
time, that spike and are lowered by their threshold, in float32, and that round nothing, or downwards or to nearest.

There a step is a dozen loops over small arrays; here it is one. Arrays are flat, [B, T, N] as in `forward_kernel`.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.float_vectors import (
    count_set,
    floats_above,
    floats_abs,
    floats_below,
    floats_div,
    floats_floor,
    floats_from,
    floats_to,
    floats_unlike,
    floats_where,
    masks_and,
)
from qspinn.compiled.jit import kernel, piece
from qspinn.compiled.vectors import (
    FLOATS,
    aligned_zeros,
    fence,
    floats_add,
    floats_mul,
    floats_splat,
    floats_sub,
    load_floats,
    store_floats,
    stream_floats,
)
from qspinn.learning.gradients.kernels.backward import ARCTAN, FAST_SIGMOID
from qspinn.learning.gradients.kernels.forward import BEYOND, CHUNK

_F32 = np.float32

CLOSE = 512
"""Neurons whose steps are run again and walked back at once."""


@piece
def rounded(x, scale, half):
    """x * scale as a whole number."""
    return floats_floor(floats_add(floats_mul(x, scale), half))


@piece
def distance(x, v, level, v_min, v_max):
    """How far v is from the threshold, with a mark where it was limited: x is v before that."""
    zero, beyond = floats_splat(_F32(0)), floats_splat(BEYOND)
    mark = floats_where(
        floats_above(x, v_max), beyond, floats_where(floats_below(x, v_min), floats_sub(zero, beyond), zero)
    )
    return floats_add(floats_sub(v, level), mark)


@piece
def advance(current, at, gain, scale, level, bias, j, v, decay, decay_scale, half, v_min, v_max, strict, codes):
    """(potential before it is limited, and after) of 16 neurons in a step, before they spike."""
    drive = load_floats(current, at)
    if gain.size > 0:
        drive = floats_mul(drive, load_floats(gain, j))
    x = floats_mul(v, decay)
    if codes:
        x = rounded(x, decay_scale, half)
        drive = rounded(drive, load_floats(scale, j), half)
    return floats_add(floats_add(x, drive), load_floats(bias, j))


@piece
def limited(x, v_min, v_max):
    """x within v_min..v_max; what is no number stays so."""
    x = floats_where(floats_below(x, v_min), v_min, x)
    return floats_where(floats_above(x, v_max), v_max, x)


@kernel
def forward(current, gain, start, stop, shape, step, codes, spikes, left):
    """`codes_forward` for samples start..stop; returns how many spikes there are.

    shape: (T, N), N a multiple of 16. step: (decay, decay_scale, half, scale [N], level [N], bias [N], v_min, v_max,
    strict). codes: whether anything is rounded or limited. left may have no
    entries.
    """
    n_steps, n = shape
    decay, decay_scale, half, scale, level, bias, v_min, v_max, strict = step
    decays, scales, halves = floats_splat(decay), floats_splat(decay_scale), floats_splat(half)
    low, high = floats_splat(v_min), floats_splat(v_max)
    zero, one = floats_splat(_F32(0)), floats_splat(_F32(1))
    v = aligned_zeros(CHUNK, np.float32)
    count = 0
    for s in range(start, stop):
        for first in range(0, n, CHUNK):
            m = min(CHUNK, n - first)
            v[:] = 0
            for t in range(n_steps):
                base = (s * n_steps + t) * n + first
                for j in range(0, m, FLOATS):
                    threshold = load_floats(level, first + j)
                    x = limited(
                        advance(
                            current,
                            base + j,
                            gain,
                            scale,
                            level,
                            bias,
                            first + j,
                            load_floats(v, j),
                            decays,
                            scales,
                            halves,
                            low,
                            high,
                            strict,
                            codes,
                        ),
                        low,
                        high,
                    )
                    gap = floats_sub(x, threshold)
                    fires = floats_above(gap, zero) if strict else floats_from(gap, zero)
                    count += count_set(fires)
                    spike = floats_where(fires, one, floats_where(floats_unlike(gap, gap), gap, zero))
                    store_floats(spikes, base + j, spike)
                    x = floats_where(fires, gap, x)
                    store_floats(v, j, x)
                    if left.size > 0:
                        store_floats(left, base + j, x)
    return count


@kernel
def backward(
    spike_grad,
    every_spike,
    left_grad,
    current,
    gain,
    normed,
    around,
    start,
    stop,
    shape,
    step,
    codes,
    factors,
    past,
    current_grad,
    level_grad,
    bias_grad,
    decay_grad,
    products,
):
    """`codes_backward` for samples start..stop, which are run again; arguments as there and for `forward`.

    factors: (decay, scale [N], unit [N], surrogate, width). past: current_grad, which begins at a cache line, is stored
    past the caches.
    """
    n_steps, n = shape
    gaps = aligned_zeros(n_steps * CLOSE, np.float32)
    fired = aligned_zeros(n_steps * CLOSE if level_grad.size > 0 else 0, np.float32)
    kept = aligned_zeros(n_steps * CLOSE if decay_grad.size > 0 else 0, np.float32)
    state = aligned_zeros(CLOSE, np.float32)
    for s in range(start, stop):
        for first in range(0, n, CLOSE):
            m, at = min(CLOSE, n - first), s * n_steps * n + first
            again(current, at, gain, first, m, shape, step, codes, state, gaps, fired, kept)
            back(
                spike_grad,
                every_spike,
                left_grad,
                normed,
                around,
                at,
                first,
                m,
                shape,
                step,
                codes,
                factors,
                past,
                state,
                gaps,
                fired,
                kept,
                current_grad,
                level_grad,
                bias_grad,
                decay_grad,
                products,
            )
    if past:
        fence()


@piece
def again(current, at, gain, first, m, shape, step, codes, v, gaps, fired, kept):
    """Runs neurons first..first + m of a sample whose currents begin at `at`; writes, [T, CLOSE], their distances from
    the threshold, and where these have entries whether they fired and what is left."""
    n_steps, n = shape
    decay, decay_scale, half, scale, level, bias, v_min, v_max, strict = step
    decays, scales, halves = floats_splat(decay), floats_splat(decay_scale), floats_splat(half)
    low, high = floats_splat(v_min), floats_splat(v_max)
    zero, one = floats_splat(_F32(0)), floats_splat(_F32(1))
    for j in range(0, m, FLOATS):
        store_floats(v, j, zero)
    for t in range(n_steps):
        base, row = at + t * n, t * CLOSE
        for j in range(0, m, FLOATS):
            threshold = load_floats(level, first + j)
            x = advance(
                current,
                base + j,
                gain,
                scale,
                level,
                bias,
                first + j,
                load_floats(v, j),
                decays,
                scales,
                halves,
                low,
                high,
                strict,
                codes,
            )
            if codes:
                free, x = x, limited(x, low, high)
                store_floats(gaps, row + j, distance(free, x, threshold, low, high))
            gap = floats_sub(x, threshold)
            if not codes:
                store_floats(gaps, row + j, gap)
            fires = floats_above(gap, zero) if strict else floats_from(gap, zero)
            x = floats_where(fires, gap, x)
            store_floats(v, j, x)
            if fired.size > 0:
                store_floats(fired, row + j, floats_where(fires, one, zero))
            if kept.size > 0:
                store_floats(kept, row + j, x)


@piece
def back(
    spike_grad,
    every_spike,
    left_grad,
    normed,
    around,
    at,
    first,
    m,
    shape,
    step,
    codes,
    factors,
    past,
    g,
    gaps,
    fired,
    kept,
    current_grad,
    level_grad,
    bias_grad,
    decay_grad,
    products,
):
    """The gradients of what `again` has run."""
    n_steps, n = shape
    slope, in_scale, unit, kind, width = factors
    zero, one, every = floats_splat(_F32(0)), floats_splat(_F32(1)), floats_splat(every_spike)
    steepness = floats_splat(_F32(1.5707964) * width if kind == ARCTAN else width)
    half_width, slopes = floats_splat(_F32(0.5) * width), floats_splat(slope)
    low, high = floats_splat(step[6]), floats_splat(step[7])
    for j in range(0, m, FLOATS):
        store_floats(g, j, zero)
    for t in range(n_steps - 1, -1, -1):
        base, row = at + t * n, t * CLOSE
        for j in range(0, m, FLOATS):
            k = first + j
            gap, of_code = load_floats(gaps, row + j), load_floats(unit, k)
            y = floats_mul(gap, of_code)
            if kind == ARCTAN:
                y = floats_mul(steepness, y)
                d = floats_mul(floats_div(half_width, floats_add(one, floats_mul(y, y))), of_code)
            elif kind == FAST_SIGMOID:
                y = floats_add(one, floats_mul(steepness, floats_abs(y)))
                d = floats_div(of_code, floats_mul(y, y))
            else:
                y = floats_sub(one, floats_mul(steepness, floats_abs(y)))
                d = floats_mul(floats_where(floats_above(y, zero), y, zero), of_code)
            up = every
            if spike_grad.size > 0:
                up = floats_add(load_floats(spike_grad, base + j), every)
            of_spike = floats_mul(d, up)
            after = load_floats(g, j)
            if left_grad.size > 0:
                after = floats_add(after, load_floats(left_grad, base + j))
            if level_grad.size > 0:
                lost = floats_add(floats_mul(after, load_floats(fired, row + j)), of_spike)
                store_floats(level_grad, k, floats_sub(load_floats(level_grad, k), lost))
            after = floats_add(after, of_spike)
            if codes:
                threshold = load_floats(step[4], k)
                inside = masks_and(
                    floats_to(gap, floats_sub(high, threshold)), floats_from(gap, floats_sub(low, threshold))
                )
                after = floats_where(inside, after, zero)
            store_floats(bias_grad, k, floats_add(load_floats(bias_grad, k), after))
            found = floats_mul(after, load_floats(in_scale, k))
            if past:
                stream_floats(current_grad, base + j, found)
            else:
                store_floats(current_grad, base + j, found)
            if products.size > 0:
                offset = floats_sub(load_floats(normed, base + j), load_floats(around, k))
                store_floats(products, k, floats_add(load_floats(products, k), floats_mul(found, offset)))
            if t > 0 and decay_grad.size > 0:
                part = floats_mul(after, load_floats(kept, row - CLOSE + j))
                store_floats(decay_grad, k, floats_add(load_floats(decay_grad, k), part))
            store_floats(g, j, floats_mul(after, slopes))

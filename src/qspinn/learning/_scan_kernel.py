"""Compiled passes over time for gradient training: one call per layer and direction instead of a dozen per step.

Arrays are float32 [T, M] with the samples and neurons of a layer flattened into M; a pass touches every element once.
"""

from __future__ import annotations

import numpy as np

from qspinn.runtime._jit import kernel, piece

ARCTAN, FAST_SIGMOID, TRIANGLE = 0, 1, 2
_F32 = np.float32


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


@kernel
def leaky_forward(current, start, stop, decay, v_th, strict, subtract, v_reset, n_ref, spikes, gap, left):
    """Elements start..stop of a layer of leaky neurons over all steps: spikes, the distance v - v_th when they were
    decided (infinite where refractory), and the potential left after each step. A potential that is not a number gives
    a spike that is not a number, so that it is noticed."""
    n_steps = current.shape[0]
    u = np.zeros(stop - start, _F32)
    until = np.zeros(stop - start, np.int32)
    for t in range(n_steps):
        for j in range(stop - start):
            v = _F32(decay * u[j])
            s = _F32(0)
            d = _F32(np.inf)
            if n_ref == 0 or until[j] <= t:
                v = _F32(v + current[t, start + j])
                d = _F32(v - v_th)
                if d > 0 or (d == 0 and not strict):
                    s = _F32(1)
                    v = d if subtract else v_reset
                    until[j] = t + n_ref + 1
                elif d != d:
                    s = d
            u[j] = v
            spikes[t, start + j] = s
            gap[t, start + j] = d
            left[t, start + j] = v


@kernel
def leaky_backward(spike_grad, left_grad, spikes, gap, start, stop, decay, subtract, kind, width, current_grad):
    """Gradient of the currents: through the surrogate of each spike, and through the potential; the reset itself is
    taken as given (Zenke & Ganguli 2018)."""
    g = np.zeros(stop - start, _F32)
    for t in range(spikes.shape[0] - 1, -1, -1):
        for j in range(stop - start):
            d = gap[t, start + j]
            after = _F32(g[j] + left_grad[t, start + j])
            if not subtract and spikes[t, start + j] > 0:
                after = _F32(0)
            if d != _F32(np.inf):
                after = _F32(after + spike_grad[t, start + j] * slope(d, kind, width))
                current_grad[t, start + j] = after
            else:
                current_grad[t, start + j] = _F32(0)
            g[j] = _F32(decay * after)


@kernel
def decay_forward(x, start, stop, decay, y):
    """y[t] = decay * y[t - 1] + x[t]."""
    for t in range(x.shape[0]):
        for j in range(start, stop):
            y[t, j] = _F32((decay * y[t - 1, j] if t > 0 else _F32(0)) + x[t, j])


@kernel
def decay_backward(grad, start, stop, decay, x_grad):
    """Gradient of `decay_forward`."""
    n_steps = grad.shape[0]
    for t in range(n_steps - 1, -1, -1):
        for j in range(start, stop):
            x_grad[t, j] = _F32((decay * x_grad[t + 1, j] if t < n_steps - 1 else _F32(0)) + grad[t, j])

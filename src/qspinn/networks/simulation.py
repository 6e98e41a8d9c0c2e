"""Layered networks in float64, step by step in NumPy: the executable form of what `Leaky` and the connections declare.

Slow, and right by reading. Imported networks are compared with it, and float modules that train are measured by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qspinn.arrays import reals
from qspinn.errors import DataError
from qspinn.networks.layer_arrays import decay_of, layer_arrays, thresholds_of
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork, Linear, Pool2d, Skip

Floats = NDArray[np.float64]


class Signals(NamedTuple):
    """Outcome of a simulation.

    Attributes:
        spikes: of every population, by name, [T, B, N]; neurons that never spike give zeros.
        potentials: after every step, likewise.
        margins: the potential less the threshold when the spike was decided, likewise; refractory neurons have -inf,
            neurons that never spike as well.
        currents: synaptic currents of the populations that have one, likewise.
        thetas: adaptive parts of the thresholds that move, as they were compared, likewise.
        scores: of the classes, [B, n_classes]: spike counts, final potentials, or sums of potentials over all steps.
    """

    spikes: dict[str, Floats]
    potentials: dict[str, Floats]
    margins: dict[str, Floats]
    currents: dict[str, Floats]
    thetas: dict[str, Floats]
    scores: Floats


class Population(NamedTuple):
    """A population over all steps: its part of `Signals`, each [T, B, N]; currents and thetas are 0 without them."""

    spikes: Floats
    potentials: Floats
    margins: Floats
    currents: Floats
    thetas: Floats


def simulate(network: LayeredNetwork, params: Mapping[str, NDArray], spikes: NDArray) -> Signals:
    """Runs every sample from a fresh state over all its steps.

    Args:
        params: arrays by path, as `layer_arrays` takes them; batch normalization is folded.
        spikes: of the input, counts [T, B, n_inputs].

    Raises:
        LoweringError: names the array that is missing, unknown or out of its range.
        DataError: spikes of another shape, or values that are not finite.
    """
    arrays = layer_arrays(network, params)
    shape = (network.n_steps, None, network.input.n)
    x = reals("spikes", spikes, shape=shape, low=0.0, high=float(network.input.max_count))
    if x.shape[1] == 0:
        raise DataError("spikes", "hold no samples", got=x.shape, allowed="[T, B, n_inputs] with B >= 1")
    signals = {"input": x}
    populations: dict[str, Population] = {}
    for layer in network.layers:
        populations[layer.name] = _advance(network, arrays, layer, signals)
        signals[layer.name] = populations[layer.name].spikes
    read = network.readout
    source = populations[read.source]
    scores = {
        "spikes": lambda: source.spikes.sum(0),
        "v_last": lambda: source.potentials[-1],
        "v_sum": lambda: source.potentials.sum(0),
    }[read.of]()
    return Signals(
        spikes={name: p.spikes for name, p in populations.items()},
        potentials={name: p.potentials for name, p in populations.items()},
        margins={name: p.margins for name, p in populations.items()},
        currents={x.name: populations[x.name].currents for x in network.layers if x.neuron.current_decay is not None},
        thetas={x.name: populations[x.name].thetas for x in network.layers if x.neuron.adapts},
        scores=scores,
    )


def simulate_layer(
    network: LayeredNetwork, params: Mapping[str, NDArray], layer: Layer, signals: Mapping[str, Floats]
) -> Population:
    """One layer over all steps, given the spikes [T, B, N] of the input and of the layers that feed it, by name."""
    return _advance(network, layer_arrays(network, params), layer, dict(signals))


def _advance(
    network: LayeredNetwork, arrays: Mapping[str, Floats], layer: Layer, signals: dict[str, Floats]
) -> Population:
    """A population over all steps, as `Leaky` says it."""
    _pool(network, signals)
    received = _received(network, arrays, layer, signals)
    neuron, size = layer.neuron, layer.n
    decay, i_decay, theta_decay = (
        _each(decay_of(layer, arrays, kind), size) for kind in ("decay", "i_decay", "theta_decay")
    )
    v_th = _each(thresholds_of(layer, arrays), size)
    recurrent = [arrays[network.weight_path(c)] for c in network.into(layer.name) if c.source == layer.name]
    done = Population(*(np.zeros_like(received) for _ in Population._fields))
    v, i, theta, fired = (np.zeros(received.shape[1:]) for _ in range(4))
    level, rest = np.broadcast_to(v_th, v.shape), np.zeros(v.shape, np.int64)
    for t, x in enumerate(received):
        x = x + sum(fired @ w.T for w in recurrent)
        if neuron.current_decay is not None:
            i = i_decay * i + x
            x = i
        v = decay * v
        if neuron.reset_delay:
            v = _reset(layer, v, level, fired)
        if neuron.adapts:
            theta = theta_decay * theta + neuron.theta_step * fired
            level = v_th + theta
        active, rest = rest == 0, np.maximum(rest - 1, 0)
        v = np.where(active, v + x, v)
        fired = _reached(layer, v, level) * (active & neuron.spiking)
        done.margins[t] = np.where(active & neuron.spiking, v - level, -np.inf)
        if not neuron.reset_delay:
            v = _reset(layer, v, level, fired)
        rest = np.where(fired > 0, neuron.n_ref_steps, rest)
        done.spikes[t], done.potentials[t], done.currents[t], done.thetas[t] = fired, v, i, theta
    return done


def _reached(layer: Layer, v: Floats, level: Floats) -> Floats:
    """How often potentials reach their thresholds: the largest s up to max_spikes so that v reaches 1, 2, ... s times
    it."""
    times = np.zeros_like(v)
    for k in range(layer.neuron.max_spikes):
        further = v > (k + 1) * level if layer.neuron.strict else v >= (k + 1) * level
        times += (times == k) & further
    return times


def _reset(layer: Layer, v: Floats, level: Floats, spikes: Floats) -> Floats:
    """Potentials after the reset that these spikes bring about."""
    to = v - spikes * level if layer.neuron.reset == "subtract" else layer.neuron.v_reset
    return np.where(spikes > 0, to, v)


def _each(x: Floats, n: int) -> Floats:
    """One value per neuron [N] of one for all [1], one per channel [C] or [N]."""
    return np.repeat(x, n // len(x))


def _received(
    network: LayeredNetwork, arrays: Mapping[str, Floats], layer: Layer, signals: Mapping[str, Floats]
) -> Floats:
    """Input [T, B, N] of a layer by other layers, with its bias."""
    bias = _each(arrays.get(f"{layer.name}.bias", np.zeros(1)), layer.n)
    forward = [c for c in network.into(layer.name) if c.source != layer.name]
    parts = [_by(network, arrays, c, signals[c.source]) for c in forward]
    return np.sum(parts, axis=0) + bias


def _by(network: LayeredNetwork, arrays: Mapping[str, Floats], c: Linear | Conv2d | Skip, x: Floats) -> Floats:
    """Input [T, B, N] by one connection."""
    if isinstance(c, Skip):
        return x * c.weight
    w = arrays[network.weight_path(c)]
    if isinstance(c, Linear):
        return x @ w.T
    maps = x.reshape(-1, *network.shape_of(c.source))
    pads = ((0, 0), (0, 0), (c.padding[0],) * 2, (c.padding[1],) * 2)
    windows = _windows(np.pad(maps, pads), c.kernel, c.stride, c.dilation)
    of_group, per_group = len(w) // c.groups, w.shape[1]
    done = [
        np.einsum(
            "bchwyx,ocyx->bohw",
            windows[:, g * per_group : (g + 1) * per_group],
            w[g * of_group : (g + 1) * of_group],
            optimize=True,
        )
        for g in range(c.groups)
    ]
    return np.concatenate(done, axis=1).reshape(*x.shape[:2], -1)


def _windows(maps: Floats, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Floats:
    """Every window [B, C, H, W, kernel_y, kernel_x] of pictures [B, C, height, width]."""
    spans = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    windows = sliding_window_view(maps, spans, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _pool(network: LayeredNetwork, signals: dict[str, Floats]) -> None:
    """Adds the pooled signals whose sources exist by now."""
    for c in network.connections:
        if isinstance(c, Pool2d) and c.source in signals and c.target not in signals:
            x = signals[c.source]
            windows = _windows(x.reshape(-1, *network.shape_of(c.source)), c.kernel, c.stride, (1, 1))
            pooled: Floats = getattr(windows, {"average": "mean"}.get(c.of, c.of))(axis=(4, 5))
            signals[c.target] = pooled.reshape(*x.shape[:2], -1)

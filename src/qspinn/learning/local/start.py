"""What float and integer local learning both start from: weights, read-outs, decays and scales, as real numbers."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qspinn.data.event_set import EventSet
from qspinn.errors import DataError
from qspinn.layers import Shape
from qspinn.learning.local import LayerSize, LocalNetwork, sizes_of

Reals = NDArray[np.float64]
CALIBRATION = 16
"""Samples that the scales are chosen by."""


class LayerStart(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One layer before training; arrays are channel-last.

    Attributes:
        w: [C_out, k, k, C_in]; readout, feedback: [n_classes, H, W, C_out] of the pooled outputs, within +-1.
        alpha, beta: decays of P and Q per step [C_in].
        scale: U = 2^scale conv(P, W) + ...; readout_shift: r = 2^-readout_shift G a.
    """

    size: LayerSize
    w: Reals
    readout: Reals
    feedback: Reals
    alpha: Reals
    beta: Reals
    scale: int
    readout_shift: int


def raster_of(data: EventSet) -> NDArray[np.uint8]:
    """Whether there was an event, uint8 [T, B, height, width, channels]."""
    return np.ascontiguousarray((data.dense() > 0).transpose(0, 1, 3, 4, 2)).view(np.uint8)


def start_of(
    network: LocalNetwork, data: EventSet, n_classes: int, *, step_ms: float, burn_in: int = 0, seed: int = 0
) -> tuple[LayerStart, ...]:
    """Fresh layers; scales come from the first recordings of the training data.

    A layer's scale is the power of two that brings the standard deviation of its
    potentials nearest to `network.spread` (after DECOLLE's layer-sequential initialization); it never changes again.
    Decays are exp(-step / tau).

    Raises:
        DataError: there are no samples, or nothing ever reaches a layer.
    """
    if data.n_samples == 0:
        raise DataError("training data", "holds no samples")
    spikes = raster_of(data.slice(0, min(CALIBRATION, data.n_samples))).astype(bool)
    found = []
    for layer in drawn_layers(network, data.shape, n_classes, step_ms, seed):
        drive = _drive(layer, network, spikes)
        spread = float(drive[min(burn_in, len(drive) - 1):].std())
        if spread == 0.0:
            raise DataError(layer.size.name, "nothing reaches this layer on the first recordings", got="U = 0",
                            fix="data with events, or fewer steps of burn-in")
        layer = msgspec.structs.replace(layer, scale=round(math.log2(network.spread / spread)))
        spikes = _spikes(layer, network, drive)
        found.append(layer)
    return tuple(found)


def drawn_layers(network: LocalNetwork, shape: Shape, n_classes: int, step_ms: float, seed: int
                 ) -> tuple[LayerStart, ...]:
    """What is random in fresh layers, by the seed alone; all scales are 0."""
    return tuple(_drawn(size, network, n_classes, step_ms, np.random.default_rng([seed, 41, number]))
                 for number, size in enumerate(sizes_of(network, shape)))


def _drawn(size: LayerSize, network: LocalNetwork, n_classes: int, step_ms: float, rng: np.random.Generator
           ) -> LayerStart:
    """A layer whose scale is still 0."""
    c_out, height, width = size.pooled
    readout = rng.uniform(-1, 1, (n_classes, height, width, c_out))
    feedback = np.copysign(rng.uniform(0, 1, readout.shape), readout)
    tau_mem, tau_syn = (rng.uniform(*span, size.source[0]) for span in (network.tau_mem_ms, network.tau_syn_ms))
    shape = (c_out, size.layer.kernel, size.layer.kernel, size.source[0])
    return LayerStart(
        size=size, w=rng.uniform(-network.reach, network.reach, shape),
        readout=readout, feedback=feedback, alpha=np.exp(-step_ms / tau_mem), beta=np.exp(-step_ms / tau_syn), scale=0,
        readout_shift=round(math.log2(math.sqrt(size.n_outputs) / network.amplitude)))


def gains(decay: Reals, cap: float) -> Reals:
    """What one input adds to a trace: under constant input the trace tends to 1 / cap."""
    return (1.0 - decay) / cap


def _drive(layer: LayerStart, network: LocalNetwork, spikes: NDArray[np.bool_]) -> Reals:
    """conv(P, W) at every step, [T, B, y, x, C_out], of spikes [T, B, y, x, C_in]."""
    geometry = layer.size.layer
    p, q = np.zeros(spikes.shape[1:]), np.zeros(spikes.shape[1:])
    kernel, edge, found = geometry.kernel, geometry.padding, []
    for now in spikes:
        p = np.minimum(layer.alpha * p + gains(layer.alpha, network.cap) * q, 1.0)
        q = np.minimum(layer.beta * q + gains(layer.beta, network.cap) * now, 1.0)
        padded = np.pad(p, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
        patches = sliding_window_view(padded, (kernel, kernel), axis=(1, 2))[:, :: geometry.stride, :: geometry.stride]
        found.append(np.tensordot(patches, layer.w, axes=((3, 4, 5), (3, 1, 2))))
    return np.stack(found)


def _spikes(layer: LayerStart, network: LocalNetwork, drive: Reals) -> NDArray[np.bool_]:
    """The max-pooled spikes [T, B, y, x, C_out] that the drive causes."""
    r, found = np.zeros(drive.shape[1:]), []
    c_out, height, width = layer.size.pooled
    pool = layer.size.layer.pool
    for now in drive:
        fired = 2.0**layer.scale * now - r >= 0
        r = network.refractory * r + fired
        whole = fired[:, : height * pool, : width * pool]
        found.append(whole.reshape(-1, height, pool, width, pool, c_out).any(axis=(2, 4)))
    return np.stack(found)

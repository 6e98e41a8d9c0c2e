"""Start of float and integer local learning: weights, read-outs, decays and scales, as real numbers."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from qspinn.arrays import integer, integers
from qspinn.data.events.dataset import largest_count
from qspinn.data.events.event_set import EventSet
from qspinn.errors import ConfigError, DataError
from qspinn.networks.layered import Shape
from qspinn.networks.local import LayerSize, LocalNetwork, sizes_of

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
    """Whether there was an event, uint8 [T, B, height, width, channels]; errors as of `need_presence`."""
    need_presence(data, "recordings")
    return np.ascontiguousarray((data.dense() > 0).transpose(0, 1, 3, 4, 2)).view(np.uint8)


def need_presence(data: EventSet, where: str) -> None:
    """Checks that no address occurs several times in a step, which these layers could not tell from once.

    Raises:
        DataError: one does.
    """
    if (most := largest_count(data)) > 1:
        raise DataError(
            where,
            "hold several events of an address in a step, and local learning takes whether there was one",
            got=most,
            allowed="0 and 1",
            fix="store presence: x > 0 as booleans, or packed events without count",
        )


def need_raster(raster: NDArray[np.uint8], shape: Shape) -> None:
    """Checks that spikes are uint8 [T, B, height, width, channels] of 0 and 1, in C order, with a step and a recording.

    Raises:
        DataError: they are not.
    """
    allowed = f"uint8 [T, B, {shape[1]}, {shape[2]}, {shape[0]}] of 0 and 1, C order"
    kind = f"{raster.dtype} {raster.shape}" if isinstance(raster, np.ndarray) else type(raster).__name__
    if (
        not isinstance(raster, np.ndarray)
        or raster.dtype != np.uint8
        or not raster.flags.c_contiguous
        or (raster.ndim != 5 or raster.shape[2:] != (shape[1], shape[2], shape[0]) or 0 in raster.shape[:2])
    ):
        raise DataError("raster", "does not fit the layers", got=kind, allowed=allowed)
    if int(raster.max()) > 1:
        raise DataError("raster", "holds a value that is no spike", got=int(raster.max()), allowed=allowed)


def need_labels(labels: ArrayLike, raster: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """Labels [B] of the recordings in a raster, each a class.

    Raises:
        DataError: they are not.
    """
    n = raster.shape[1] if isinstance(raster, np.ndarray) and raster.ndim > 1 else None
    return np.array(integers("labels", labels, shape=(n,), low=0, high=n_classes - 1))


def start_of(
    network: LocalNetwork, data: EventSet, n_classes: int, *, step_ms: float, burn_in: int = 0, seed: int = 0
) -> tuple[LayerStart, ...]:
    """Fresh layers; scales come from the first recordings of the training data.

    A layer's scale is the power of two that brings the standard deviation of its
    potentials nearest to `network.spread` (after DECOLLE's layer-sequential initialization); it never changes again.
    Decays are exp(-step / tau).

    Raises:
        ConfigError: a number of classes, a seed or a length of a step that is none.
        DataError: there are no samples, or nothing ever reaches a layer.
    """
    integer("burn_in", burn_in, low=0, high=1 << 15)
    if not isinstance(data, EventSet):
        raise DataError("training data", "are no recordings", got=type(data).__name__, allowed="an EventSet")
    if data.n_samples == 0:
        raise DataError("training data", "holds no samples")
    need_presence(data, "training data")
    spikes = raster_of(data.slice(0, min(CALIBRATION, data.n_samples))).astype(bool)
    layers = []
    for layer in drawn_layers(network, data.shape, n_classes, step_ms, seed):
        drive = _drive(layer, network, spikes)
        spread = float(drive[min(burn_in, len(drive) - 1) :].std())
        if spread == 0.0:
            raise DataError(
                layer.size.name,
                "nothing reaches this layer on the first recordings",
                got="U = 0",
                fix="data with events, or fewer steps of burn-in",
            )
        layer = msgspec.structs.replace(layer, scale=round(math.log2(network.spread / spread)))
        spikes = _spikes(layer, network, drive)
        layers.append(layer)
    return tuple(layers)


def drawn_layers(
    network: LocalNetwork, shape: Shape, n_classes: int, step_ms: float, seed: int
) -> tuple[LayerStart, ...]:
    """Random arrays of fresh layers, by the seed alone; all scales are 0."""
    integer("n_classes", n_classes, low=2, high=1 << 16)
    integer("seed", seed, low=0, high=(1 << 64) - 1)
    if isinstance(step_ms, bool) or not isinstance(step_ms, int | float) or not 0 < step_ms < math.inf:
        raise ConfigError("step_ms", "is no length of a step", got=step_ms, allowed="a number above 0")
    return tuple(
        _drawn(size, network, n_classes, step_ms, np.random.default_rng([seed, 41, number]))
        for number, size in enumerate(sizes_of(network, shape))
    )


def _drawn(
    size: LayerSize, network: LocalNetwork, n_classes: int, step_ms: float, rng: np.random.Generator
) -> LayerStart:
    """A layer whose scale is still 0."""
    c_out, height, width = size.pooled
    readout = rng.uniform(-1, 1, (n_classes, height, width, c_out))
    feedback = np.copysign(rng.uniform(0, 1, readout.shape), readout)
    tau_mem, tau_syn = (rng.uniform(*span, size.source[0]) for span in (network.tau_mem_ms, network.tau_syn_ms))
    shape = (c_out, size.layer.kernel, size.layer.kernel, size.source[0])
    return LayerStart(
        size=size,
        w=rng.uniform(-network.reach, network.reach, shape),
        readout=readout,
        feedback=feedback,
        alpha=np.exp(-step_ms / tau_mem),
        beta=np.exp(-step_ms / tau_syn),
        scale=0,
        readout_shift=round(math.log2(math.sqrt(size.n_outputs) / network.amplitude)),
    )


def gains(decay: Reals, cap: float) -> Reals:
    """Amount that one input adds to a trace: under constant input the trace tends to 1 / cap."""
    return (1.0 - decay) / cap


def _drive(layer: LayerStart, network: LocalNetwork, spikes: NDArray[np.bool_]) -> Reals:
    """conv(P, W) at every step, [T, B, y, x, C_out], of spikes [T, B, y, x, C_in]."""
    geometry = layer.size.layer
    p, q = np.zeros(spikes.shape[1:]), np.zeros(spikes.shape[1:])
    kernel, edge, drives = geometry.kernel, geometry.padding, []
    for now in spikes:
        p = np.minimum(layer.alpha * p + gains(layer.alpha, network.cap) * q, 1.0)
        q = np.minimum(layer.beta * q + gains(layer.beta, network.cap) * now, 1.0)
        padded = np.pad(p, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
        patches = sliding_window_view(padded, (kernel, kernel), axis=(1, 2))[:, :: geometry.stride, :: geometry.stride]
        drives.append(np.tensordot(patches, layer.w, axes=((3, 4, 5), (3, 1, 2))))
    return np.stack(drives)


def _spikes(layer: LayerStart, network: LocalNetwork, drive: Reals) -> NDArray[np.bool_]:
    """The max-pooled spikes [T, B, y, x, C_out] that the drive causes."""
    r, spikes = np.zeros(drive.shape[1:]), []
    c_out, height, width = layer.size.pooled
    pool = layer.size.layer.pool
    for now in drive:
        fired = 2.0**layer.scale * now - r >= 0
        r = network.refractory * r + fired
        whole = fired[:, : height * pool, : width * pool]
        spikes.append(whole.reshape(-1, height, pool, width, pool, c_out).any(axis=(2, 4)))
    return np.stack(spikes)

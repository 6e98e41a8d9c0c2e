"""Layers that learn locally (DECOLLE), declared: shapes and constants.

Settings only, so that reading an experiment needs neither torch nor compiled kernels.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from qspinn.errors import ConfigError
from qspinn.networks.layered import Shape
from qspinn.networks.names import need_size
from qspinn.records.record import Record, need

Span = tuple[float, float]


class LocalLayer(Record, frozen=True):
    """Layer that learns locally: a zero-padded convolution with square kernels, and square max-pooling (1: none)."""

    channels: int
    kernel: int = 5
    padding: int = 2
    stride: int = 1
    pool: int = 1

    def check(self) -> None:
        for name, low, high in (
            ("channels", 1, 1024),
            ("kernel", 1, 31),
            ("padding", 0, 30),
            ("stride", 1, 8),
            ("pool", 1, 8),
        ):
            need(low <= getattr(self, name) <= high, f"network.layers.{name}", getattr(self, name), f"{low}..{high}")


class LocalNetwork(Record, frozen=True):
    """The layers and what they have in common.

    Attributes:
        bias: every output channel has a learned bias.
        tau_mem_ms, tau_syn_ms: time constants of P and Q, drawn uniformly from this span for every input channel.
        refractory: gamma, the share of R that is left after a step.
        cap: the share of the largest possible trace (of a source that spikes in every step) that counts as 1; integer
            traces saturate there.
        reach: weights start uniform within +-reach; integer weights end at +-1.
        spread: standard deviation of U before training that the scale of each layer aims at.
        amplitude: read-out weights are uniform in about +-amplitude / sqrt(number of outputs).
        prediction: the class is the most frequent arg-max of the last layer's read-out over time ("mode"), or the
            arg-max of its sum ("sum").
    """

    layers: tuple[LocalLayer, ...]
    bias: bool = True
    tau_mem_ms: Span = (5.0, 35.0)
    tau_syn_ms: Span = (5.0, 10.0)
    refractory: float = 0.65
    cap: float = 0.75
    reach: float = 0.5
    spread: float = 1.0
    amplitude: float = 2.0
    prediction: Literal["mode", "sum"] = "mode"

    def check(self) -> None:
        need(1 <= len(self.layers) <= 16, "network.layers", len(self.layers), "1..16 layers")
        for name in ("tau_mem_ms", "tau_syn_ms"):
            low, high = getattr(self, name)
            need(0 < low <= high < math.inf, f"network.{name}", [low, high], "two numbers, 0 < low <= high")
        need(0 <= self.refractory < 1, "network.refractory", self.refractory, "0 <= gamma < 1")
        need(0 < self.cap <= 1, "network.cap", self.cap, "above 0, at most 1")
        need(0 < self.reach <= 1, "network.reach", self.reach, "above 0, at most 1")
        need(self.spread > 0, "network.spread", self.spread, "> 0")
        need(self.amplitude > 0, "network.amplitude", self.amplitude, "> 0")
        for name in ("cap", "reach", "spread", "amplitude"):
            need_size(f"network.{name}", getattr(self, name))


class LayerSize(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a layer in its network: `source`, `target` before, `pooled` after pooling, as (C, height, width)."""

    name: str
    layer: LocalLayer
    source: Shape
    target: Shape
    pooled: Shape

    @property
    def fan_in(self) -> int:
        """Number of inputs of a neuron."""
        return self.source[0] * self.layer.kernel**2

    @property
    def n_weights(self) -> int:
        """Number of weights of the forward pass."""
        return self.target[0] * self.fan_in

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the layer."""
        return math.prod(self.source)

    @property
    def n_outputs(self) -> int:
        """Outputs after pooling: what the read-out sees."""
        return math.prod(self.pooled)


def sizes_of(network: LocalNetwork, shape: Shape) -> tuple[LayerSize, ...]:
    """The sizes of all layers, named conv1, conv2, ..., for inputs of this shape (channels, height, width).

    Raises:
        ConfigError: a kernel or a pooling window does not fit; names the layer.
    """
    sizes: list[LayerSize] = []
    source = shape
    for number, layer in enumerate(network.layers, 1):
        name = f"conv{number}"
        reach = [(n + 2 * layer.padding - layer.kernel) // layer.stride + 1 for n in source[1:]]
        if min(source[1:]) + 2 * layer.padding < layer.kernel:
            raise ConfigError(
                f"{name}.kernel",
                "is larger than its padded input",
                got=layer.kernel,
                allowed=f"up to {min(source[1:]) + 2 * layer.padding}",
                fix="more padding or less pooling",
            )
        if min(reach) < layer.pool:
            raise ConfigError(f"{name}.pool", "is larger than the layer", got=layer.pool, allowed=f"up to {min(reach)}")
        target = (layer.channels, reach[0], reach[1])
        pooled = (layer.channels, reach[0] // layer.pool, reach[1] // layer.pool)
        sizes.append(LayerSize(name=name, layer=layer, source=source, target=target, pooled=pooled))
        source = pooled
    return tuple(sizes)

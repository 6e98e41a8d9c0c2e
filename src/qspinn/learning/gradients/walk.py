"""Forward pass of a layered network over all steps, layer after layer: signals, pooling, read-out.

The float module and the one on the grid differ in how a layer advances; the order and the names are those here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from qspinn.learning.gradients.node import LayerResult
from qspinn.learning.gradients.wiring import images
from qspinn.networks.layered import Layer, LayeredNetwork, Pool2d


class Output(NamedTuple):
    """Result of a forward pass.

    scores [B, n_classes]: spikes per step, final potential, or mean potential of the read-out neurons.
    rates: mean spikes per neuron and step of every spiking layer, by name, as tensors that carry gradients.
    spikes: of every layer, [T, B, C, H, W].
    potentials: potentials after each step, [T, B, C, H, W]: of every layer where asked for, otherwise
        of those that are read out.
    currents: the synaptic currents of the layers that have one, likewise.
    thetas: the adaptive parts of the thresholds that move, as they were compared, likewise.
    """

    scores: Tensor
    rates: dict[str, Tensor]
    spikes: dict[str, Tensor]
    potentials: dict[str, Tensor]
    currents: dict[str, Tensor]
    thetas: dict[str, Tensor]


def walk(
    network: LayeredNetwork,
    spikes: Tensor,
    advance: Callable[[Layer, dict[str, Tensor], bool], LayerResult],
    *,
    potentials: bool,
    averages: bool = True,
) -> Output:
    """A forward pass over all steps, layer by layer; `advance` runs one layer, given the signals made before, and
    whether to keep its potentials.

    Args:
        spikes: of the input, [T, B, n_inputs], any numeric type.
        potentials: all are kept.
        averages: average pooling divides (otherwise it adds up, and the division is the next weights').
    """
    n_steps, batch = spikes.shape[:2]
    spikes = spikes if spikes.dtype is torch.uint8 else spikes.to(torch.float32)
    signals = {"input": spikes.view(n_steps, batch, *network.input.shape)}
    rates: dict[str, Tensor] = {}
    potentials_of: dict[str, Tensor] = {}
    currents: dict[str, Tensor] = {}
    thetas: dict[str, Tensor] = {}
    read = network.readout
    for layer in network.layers:
        _pool(network, signals, averages)
        result = advance(layer, signals, potentials or (layer.name == read.source and read.of != "spikes"))
        signals[layer.name] = result.spikes
        if result.v_after is not None:
            potentials_of[layer.name] = result.v_after
        if layer.neuron.current_decay is not None:
            currents[layer.name] = result.i_after
        if layer.neuron.adapts:
            thetas[layer.name] = result.thetas
        if layer.neuron.spiking:
            rates[layer.name] = result.rate
    scores = {
        "spikes": lambda: signals[read.source].mean(0),
        "v_last": lambda: potentials_of[read.source][-1],
        "v_sum": lambda: potentials_of[read.source].mean(0),
    }[read.of]()
    spikes_of = {layer.name: signals[layer.name] for layer in network.layers}
    return Output(
        scores=scores.flatten(1),
        rates=rates,
        spikes=spikes_of,
        potentials=potentials_of,
        currents=currents,
        thetas=thetas,
    )


def _pool(network: LayeredNetwork, signals: dict[str, Tensor], averages: bool) -> None:
    """Adds the pooled signals whose sources exist by now."""
    for c in network.connections:
        if isinstance(c, Pool2d) and c.source in signals and c.target not in signals:
            x = signals[c.source]
            pictures = images(x).to(torch.float32)
            if c.of == "max":
                y = functional.max_pool2d(pictures, c.kernel, c.stride)
            else:
                adds = c.of == "sum" or not averages
                y = functional.avg_pool2d(pictures, c.kernel, c.stride, divisor_override=1 if adds else None)
            signals[c.target] = y.view(x.shape[1], x.shape[0], *y.shape[1:]).transpose(0, 1)

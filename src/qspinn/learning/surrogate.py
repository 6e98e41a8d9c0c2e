"""Layered networks as torch modules: backpropagation through time with surrogate gradients.

A layer runs over all steps at once, as a single node for autograd: its first connection goes from spike to spike, its
normalization and its neurons follow in compiled passes. On a CUDA device (`net.to("cuda")`) the same is torch
operations. Needs the `torch` extra.
Source: Neftci, Mostafa & Zenke (2019); surrogates: arctan (Fang et al. 2021), fast sigmoid (Zenke & Ganguli 2018),
triangle (Bellec et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qspinn.checkpoint import TrainedLayers
from qspinn.errors import ConfigError
from qspinn.layers import Conv2d, Layer, LayeredNetwork, Linear, Pool2d, Skip, Weighted
from qspinn.learning._device import device_of, need_together
from qspinn.learning.passes.backward_kernel import ARCTAN, FAST_SIGMOID, TRIANGLE
from qspinn.learning.passes.forward_kernel import PLAIN
from qspinn.learning.passes.node import Found, Plan, advance
from qspinn.learning.passes.scan import Scan
from qspinn.learning.passes.wiring import Room, flat, images, wiring_of

Surrogate = Literal["arctan", "fast_sigmoid", "triangle"]
KINDS = {"arctan": ARCTAN, "fast_sigmoid": FAST_SIGMOID, "triangle": TRIANGLE}


class Output(NamedTuple):
    """What a forward pass returns.

    scores [B, n_classes]: spikes per step, final potential, or mean potential of the read-out neurons.
    rates: mean spikes per neuron and step of every spiking layer, by name, as tensors that carry gradients.
    spikes: of every layer, [T, B, C, H, W].
    potentials: what is left of potentials after each step, [T, B, C, H, W]: of every layer where asked for, otherwise
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


def walk(network: LayeredNetwork, spikes: Tensor, advance: Callable[[Layer, dict[str, Tensor], bool], Found], *,
         potentials: bool, averages: bool = True) -> Output:
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
    left: dict[str, Tensor] = {}
    currents: dict[str, Tensor] = {}
    thetas: dict[str, Tensor] = {}
    read = network.readout
    for layer in network.layers:
        _pool(network, signals, averages)
        found = advance(layer, signals, potentials or (layer.name == read.source and read.of != "spikes"))
        signals[layer.name] = found.spikes
        if found.left is not None:
            left[layer.name] = found.left
        if layer.neuron.current_decay is not None:
            currents[layer.name] = found.i_left
        if layer.neuron.adapts:
            thetas[layer.name] = found.thetas
        if layer.neuron.spiking:
            rates[layer.name] = found.rate
    scores = {"spikes": lambda: signals[read.source].mean(0), "v_last": lambda: left[read.source][-1],
              "v_sum": lambda: left[read.source].mean(0)}[read.of]()
    made = {layer.name: signals[layer.name] for layer in network.layers}
    return Output(scores=scores.flatten(1), rates=rates, spikes=made, potentials=left, currents=currents, thetas=thetas)


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


class _Way(NamedTuple):
    """What is always the same about a layer: its plan, the connection that is part of its node, those beside it and
    those from itself, thresholds and zeros [C], decay."""

    plan: Plan
    main: Linear | Conv2d | None
    beside: tuple[Linear | Conv2d | Skip, ...]
    loops: tuple[Linear | Conv2d, ...]
    level: Tensor
    zeros: Tensor
    decay: Tensor


class SurrogateNet(nn.Module):
    """A layered network that trains in any torch loop.

    Parameters are named by tensor path with dots as double underscores: `a__w`, `a__bias`; batch normalization lives in
    `norms`. Weights start uniform in ±sqrt(gain / fan-in).

    With OMP_WAIT_POLICY=PASSIVE in the environment before torch is imported, a step is up to a quarter shorter: torch's
    idle threads then do not spin on the cores that the compiled passes use.

    Args:
        surrogate, width: shape of the derivative that stands for the spike's, and its steepness.
    """

    def __init__(self, network: LayeredNetwork, *, seed: int = 0, surrogate: Surrogate = "arctan", width: float = 2.0,
                 gain: float = 3.0) -> None:
        super().__init__()
        check_trainable(network)
        self.network, self.kind, self.width = network, KINDS[surrogate], width
        self.norms, self._room = nn.ModuleDict(), Room()
        self._ways: dict[tuple[str, int, float], _Way] = {}
        generator = torch.Generator().manual_seed(seed)
        for layer in network.layers:
            for c in network.into(layer.name):
                if isinstance(c, Skip):
                    continue
                shape = network.weight_shape(c)
                bound = (gain / int(np.prod(shape[1:]))) ** 0.5
                w = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                self.register_parameter(network.weight_path(c).replace(".", "__"), nn.Parameter(w))
                if c.bias:
                    self.register_parameter(f"{layer.name}__bias", nn.Parameter(torch.zeros(shape[0])))
                if c.norm:
                    self.norms[network.weight_path(c).replace(".", "__")] = nn.BatchNorm2d(shape[0])

    def weight(self, c: Weighted) -> Tensor:
        return getattr(self, self.network.weight_path(c).replace(".", "__"))

    def params(self) -> dict[str, np.ndarray]:
        """Arrays by tensor path, batch normalization folded: w <- w * g / s, bias <- bias + (beta - mean * g / s)."""
        found: dict[str, np.ndarray] = {}
        for layer in self.network.layers:
            bias = np.zeros(layer.shape[0])
            for c in self.network.into(layer.name):
                if isinstance(c, Skip):
                    continue
                path = self.network.weight_path(c)
                w = self.weight(c).detach().cpu().double().numpy()
                if c.norm:
                    norm: Any = self.norms[path.replace(".", "__")]
                    mean, var, g, beta = (x.detach().cpu().double().numpy() for x in (
                        norm.running_mean, norm.running_var, norm.weight, norm.bias))
                    factor = g / np.sqrt(var + norm.eps)
                    w, bias = w * factor.reshape(-1, *[1] * (w.ndim - 1)), bias + beta - mean * factor
                if c.bias:
                    bias = bias + getattr(self, f"{layer.name}__bias").detach().cpu().double().numpy()
                found[path] = w
            found[f"{layer.name}.bias"] = bias
        return found

    def forward(self, spikes: Tensor, *, potentials: bool = False) -> Output:
        """spikes [T, B, n_inputs] (any numeric type), on the module's device -> scores, rates and signals; potentials:
        those of every layer, too."""
        need_together(self, spikes)
        return walk(self.network, spikes, self._advance, potentials=potentials)

    def _advance(self, layer: Layer, signals: dict[str, Tensor], keeps: bool) -> Found:
        """One layer over all steps: the first connection is part of the layer's node, others add to it."""
        key = layer.name, self.kind, self.width
        if key not in self._ways:
            self._ways[key] = self._way(layer)
        way, device = self._ways[key], device_of(self)
        main, plan, bias = way.main, way.plan._replace(keeps=keeps), way.zeros.to(device)
        if main is not None and main.norm:
            plan = plan._replace(norm=self._norm(main))
        if main is not None and main.bias:
            bias = getattr(self, f"{layer.name}__bias")
        extra = [flat(self._current(c, signals[c.source], layer)) for c in way.beside]
        rows = [feedback(self.weight(c), layer) for c in way.loops]
        return advance(plan, signals[main.source] if main else None, self.weight(main) if main else None, total(extra),
                       total(rows), way.level.to(device), bias, way.decay)

    def _way(self, layer: Layer) -> _Way:
        """The first connection that can be part of the layer's node is; see `joins`."""
        into, neuron = self.network.into(layer.name), layer.neuron
        forward = [c for c in into if c.source != layer.name]
        main = next((c for c in forward if not isinstance(c, Skip) and joins(c, layer)), None)
        plan = Plan(layer.shape, real_scan(layer, self.kind, self.width), self._room)
        if main is not None:
            plan = plan._replace(wiring=wiring_of(main, self.network.shape_of(main.source), layer.shape))
        level = torch.full((layer.shape[0],), neuron.v_th if neuron.spiking else 0.0)
        return _Way(plan, main, tuple(c for c in forward if c is not main),
                    tuple(c for c in into if c.source == layer.name and not isinstance(c, Skip)), level,
                    torch.zeros(layer.shape[0]), torch.tensor(neuron.decay))

    def _norm(self, c: Weighted) -> Any:
        return self.norms[self.network.weight_path(c).replace(".", "__")]

    def _current(self, c: Linear | Conv2d | Skip, x: Tensor, layer: Layer) -> Tensor:
        """Input currents [T, B, C, H, W] by a connection beside the first."""
        if isinstance(c, Skip):
            return x * c.weight
        w, pictures = self.weight(c), images(x).to(torch.float32)
        if isinstance(c, Linear):
            y = functional.linear(pictures.flatten(1), w).view(-1, *layer.shape)
        else:
            y = functional.conv2d(pictures, w, None, c.stride, c.padding, c.dilation, c.groups)
        if c.norm:
            y = self._norm(c)(y)
        if c.bias:
            y = y + getattr(self, f"{layer.name}__bias").view(-1, 1, 1)
        return y.view(x.shape[1], x.shape[0], *layer.shape).transpose(0, 1)


def check_trainable(network: LayeredNetwork) -> None:
    """Raises:
        ConfigError: names a layer whose neurons have no gradient here.
    """
    for layer in network.layers:
        if layer.neuron.spiking and layer.neuron.max_spikes > 1:
            raise ConfigError(f"network.{layer.name}.neuron.max_spikes",
                              "neurons that spike several times in a step cannot be trained by gradients",
                              got=layer.neuron.max_spikes, allowed="1",
                              fix="train with max_spikes = 1, and lower the arrays under the network with more")


def joins(c: Linear | Conv2d | Skip, layer: Layer) -> bool:
    """Whether a connection can be part of the layer's node; all-to-all ones make no places."""
    return isinstance(c, Conv2d) or (isinstance(c, Linear) and layer.n == layer.shape[0])


def feedback(w: Tensor, layer: Layer) -> Tensor:
    """Weights [N, N] of a layer's own spikes, channel-last both ways."""
    outer = torch.arange(layer.n, device=w.device).view(layer.shape).permute(1, 2, 0).flatten()
    return w[outer][:, outer]


def total(tensors: list[Tensor]) -> Tensor | None:
    """Their sum, None of nothing."""
    return sum(tensors[1:], start=tensors[0]) if tensors else None


def real_scan(layer: Layer, surrogate: int, width: float) -> Scan:
    """How a layer of the float network steps: real numbers, nothing rounded or clipped."""
    neuron, one = layer.neuron, np.ones(layer.shape[0], np.float32)
    return Scan(
        kind=np.float32, decay=neuron.decay, decay_scale=1.0, in_scale=one, reset=one * neuron.v_reset, unit=one,
        v_min=-np.inf, v_max=np.inf, strict=neuron.strict, subtract=neuron.reset == "subtract",
        delayed=neuron.reset_delay, n_ref=neuron.n_ref_steps, spiking=neuron.spiking,
        has_current=neuron.current_decay is not None, i_decay=neuron.current_decay or 0.0, i_scale=1.0, i_min=-np.inf,
        i_max=np.inf, theta_step=one * neuron.theta_step if neuron.adapts else one[:0],
        theta_decay=neuron.theta_decay, theta_scale=1.0, theta_max=np.inf, theta_unit=1.0, mode=PLAIN, seed=0, stream=0,
        surrogate=surrogate, width=width)


def frozen(net: SurrogateNet) -> TrainedLayers:
    """The module's declaration and state as plain arrays, for `checkpoint.save`."""
    state = {name: t.detach().cpu().numpy().copy() for name, t in net.state_dict().items()}
    return TrainedLayers(network=net.network, params=state)


def restored(trained: TrainedLayers) -> SurrogateNet:
    """The module of a checkpoint, ready to answer or to learn on."""
    net = SurrogateNet(trained.network)
    net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in trained.params.items()})
    return net.eval()

"""Layered networks as torch modules: backpropagation through time with surrogate gradients.

A layer runs over all steps at once: one convolution over [T * B] images, then one compiled pass over time that is a
single node for autograd. Only layers with feedback go step by step. Runs on the CPU; needs the `torch` extra.
Source: Neftci, Mostafa & Zenke (2019); surrogates: arctan (Fang et al. 2021), fast sigmoid (Zenke & Ganguli 2018),
triangle (Bellec et al. 2018).
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qspinn.checkpoint import TrainedLayers
from qspinn.layers import Conv2d, Layer, LayeredNetwork, Leaky, Linear, Pool2d, Skip, Weighted
from qspinn.learning import _scan_kernel as scan

Surrogate = Literal["arctan", "fast_sigmoid", "triangle"]
KINDS = {"arctan": scan.ARCTAN, "fast_sigmoid": scan.FAST_SIGMOID, "triangle": scan.TRIANGLE}
_POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)


class Output(NamedTuple):
    """What a forward pass returns.

    scores [B, n_classes]: spikes per step, final potential, or mean potential of the read-out neurons.
    rates: mean spikes per neuron and step of every spiking layer, by name, as tensors that carry gradients.
    spikes: of every layer, [T, B, C, H, W].
    potentials: what is left of every layer's potentials after each step, [T, B, C, H, W].
    currents: the synaptic currents of the layers that have one, likewise.
    """

    scores: Tensor
    rates: dict[str, Tensor]
    spikes: dict[str, Tensor]
    potentials: dict[str, Tensor]
    currents: dict[str, Tensor]


def _split(size: int, work: Callable[[int, int], None]) -> None:
    """Runs work(start, stop) over parts of 0..size on all cores; the compiled passes release the interpreter."""
    n = min(os.cpu_count() or 1, max(1, size // 4096))
    edges = [size * i // n for i in range(n + 1)]
    if n == 1:
        work(0, size)
    else:
        list(_POOL.map(work, edges[:-1], edges[1:]))


def _flat(x: Tensor) -> Any:
    """A float32 tensor [T, ...] as an array [T, M] that shares its memory."""
    return x.detach().contiguous().view(x.shape[0], -1).numpy()


class _Spiking(torch.autograd.Function):
    """Currents [T, ...] -> (spikes, potentials left) [T, ...] of leaky neurons."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, neuron: Leaky, kind: int, width: float) -> tuple[Tensor, Tensor]:
        x = _flat(current)
        spikes, gap, left = (np.empty_like(x) for _ in range(3))
        f = np.float32
        constants = (f(neuron.decay), f(neuron.v_th), neuron.strict, neuron.reset == "subtract", f(neuron.v_reset),
                     neuron.n_ref_steps)
        _split(x.shape[1], lambda a, b: scan.leaky_forward(x, a, b, *constants, spikes, gap, left))
        ctx.kept = (spikes, gap, neuron, kind, width)
        return torch.from_numpy(spikes).view(current.shape), torch.from_numpy(left).view(current.shape)

    @staticmethod
    def backward(ctx: Any, spike_grad: Tensor, left_grad: Tensor) -> Any:
        spikes, gap, neuron, kind, width = ctx.kept
        up, across = _flat(spike_grad), _flat(left_grad)
        grad = np.empty_like(gap)
        f = np.float32
        _split(gap.shape[1], lambda a, b: scan.leaky_backward(
            up, across, spikes, gap, a, b, f(neuron.decay), neuron.reset == "subtract", kind, f(width), grad))
        return torch.from_numpy(grad).view(spike_grad.shape), None, None, None


class _Decaying(torch.autograd.Function):
    """y[t] = decay * y[t - 1] + x[t]: a synaptic current, or a neuron that does not spike."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: float) -> Tensor:
        source, y = _flat(x), np.empty((x.shape[0], x[0].numel()), np.float32)
        _split(y.shape[1], lambda a, b: scan.decay_forward(source, a, b, np.float32(decay), y))
        ctx.decay = decay
        return torch.from_numpy(y).view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        up = _flat(grad)
        x_grad = np.empty_like(up)
        _split(up.shape[1], lambda a, b: scan.decay_backward(up, a, b, np.float32(ctx.decay), x_grad))
        return torch.from_numpy(x_grad).view(grad.shape), None


Advance = tuple[Tensor, Tensor, Tensor]
"""Of one layer over all steps, [T, B, C, H, W]: spikes, potentials left, synaptic currents."""


def walk(network: LayeredNetwork, spikes: Tensor, advance: Callable[[Layer, dict[str, Tensor]], Advance], *,
         averages: bool = True) -> Output:
    """A forward pass over all steps, layer by layer; `advance` runs one layer, given the signals made before.

    Args:
        spikes: of the input, [T, B, n_inputs], any numeric type.
        averages: average pooling divides (otherwise it adds up, and the division is the next weights').
    """
    n_steps, batch = spikes.shape[:2]
    signals = {"input": spikes.to(torch.float32).view(n_steps, batch, *network.input.shape)}
    rates: dict[str, Tensor] = {}
    left: dict[str, Tensor] = {}
    currents: dict[str, Tensor] = {}
    for layer in network.layers:
        _pool(network, signals, averages)
        signals[layer.name], left[layer.name], current = advance(layer, signals)
        if layer.neuron.current_decay is not None:
            currents[layer.name] = current
        if layer.neuron.spiking:
            rates[layer.name] = signals[layer.name].mean()
    read = network.readout
    scores = {"spikes": lambda: signals[read.source].mean(0), "v_last": lambda: left[read.source][-1],
              "v_sum": lambda: left[read.source].mean(0)}[read.of]()
    made = {layer.name: signals[layer.name] for layer in network.layers}
    return Output(scores=scores.flatten(1), rates=rates, spikes=made, potentials=left, currents=currents)


def _pool(network: LayeredNetwork, signals: dict[str, Tensor], averages: bool) -> None:
    """Adds the pooled signals whose sources exist by now."""
    for c in network.connections:
        if isinstance(c, Pool2d) and c.source in signals and c.target not in signals:
            x = signals[c.source]
            images = x.flatten(0, 1)
            if c.kind == "max":
                y = functional.max_pool2d(images, c.kernel, c.stride)
            else:
                adds = c.kind == "sum" or not averages
                y = functional.avg_pool2d(images, c.kernel, c.stride, divisor_override=1 if adds else None)
            signals[c.target] = y.view(*x.shape[:2], *y.shape[1:])


class SurrogateNet(nn.Module):
    """A layered network that trains in any torch loop.

    Parameters are named by tensor path with dots as double underscores: `a__w`, `a__bias`; batch normalization lives in
    `norms`. Weights start uniform in ±sqrt(gain / fan-in).

    Args:
        surrogate, width: shape of the derivative that stands for the spike's, and its steepness.
    """

    def __init__(self, network: LayeredNetwork, *, seed: int = 0, surrogate: Surrogate = "arctan", width: float = 2.0,
                 gain: float = 3.0) -> None:
        super().__init__()
        self.network, self.kind, self.width = network, KINDS[surrogate], width
        self.norms = nn.ModuleDict()
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
                w = self.weight(c).detach().double().numpy()
                if c.norm:
                    norm: Any = self.norms[path.replace(".", "__")]
                    mean, var, g, beta = (x.detach().double().numpy() for x in (
                        norm.running_mean, norm.running_var, norm.weight, norm.bias))
                    factor = g / np.sqrt(var + norm.eps)
                    w, bias = w * factor.reshape(-1, *[1] * (w.ndim - 1)), bias + beta - mean * factor
                if c.bias:
                    bias = bias + getattr(self, f"{layer.name}__bias").detach().double().numpy()
                found[path] = w
            found[f"{layer.name}.bias"] = bias
        return found

    def forward(self, spikes: Tensor) -> Output:
        """spikes [T, B, n_inputs] (any numeric type) -> scores and rates."""
        return walk(self.network, spikes, self._advance)

    def _advance(self, layer: Layer, signals: dict[str, Tensor]) -> Advance:
        """One layer over all steps."""
        forward = [c for c in self.network.into(layer.name) if c.source != layer.name]
        back = [c for c in self.network.into(layer.name) if c.source == layer.name]
        current = sum((self._current(c, signals[c.source], layer) for c in forward), start=torch.zeros(()))
        if back:
            return self._stepwise(layer, current, back)
        if layer.neuron.current_decay is not None:
            current = _Decaying.apply(current, layer.neuron.current_decay)
        return *self._neurons(layer.neuron, current), current

    def _current(self, c: Linear | Conv2d | Skip, x: Tensor, layer: Layer) -> Tensor:
        """Input currents [T, B, C, H, W] by one connection."""
        if isinstance(c, Skip):
            return x * c.weight
        w, n_steps, batch = self.weight(c), x.shape[0], x.shape[1]
        if isinstance(c, Linear):
            y = functional.linear(x.flatten(0, 1).flatten(1), w).view(-1, *layer.shape)
        else:
            y = functional.conv2d(x.flatten(0, 1), w, None, c.stride, c.padding, c.dilation, c.groups)
        if c.norm:
            y = self.norms[self.network.weight_path(c).replace(".", "__")](y)
        if c.bias:
            y = y + getattr(self, f"{layer.name}__bias").view(-1, 1, 1)
        return y.view(n_steps, batch, *layer.shape)

    def _neurons(self, neuron: Leaky, current: Tensor) -> tuple[Tensor, Tensor]:
        """(spikes, potentials left) of a layer without feedback, given what reaches its potentials."""
        if not neuron.spiking:
            v = _Decaying.apply(current, neuron.decay)
            return torch.zeros_like(v), v
        return _Spiking.apply(current, neuron, self.kind, self.width)

    def _stepwise(self, layer: Layer, current: Tensor, back: list[Any]) -> Advance:
        """A layer whose spikes come back to it one step later."""
        neuron = layer.neuron
        w = sum((self.weight(c) for c in back), start=torch.zeros(()))
        v = i = s = torch.zeros_like(current[0])
        rest = torch.zeros_like(current[0])
        spikes, left, currents = [], [], []
        for t in range(current.shape[0]):
            total = current[t] + functional.linear(s.flatten(1), w).view_as(v)
            i = total if neuron.current_decay is None else neuron.current_decay * i + total
            active = (rest <= 0).to(v.dtype)
            v = neuron.decay * v + i * active
            s = _Step.apply(v - neuron.v_th, neuron.strict, self.kind, self.width) * active if neuron.spiking else s
            kept = s.detach()
            v = v - kept * neuron.v_th if neuron.reset == "subtract" else v * (1 - kept) + kept * neuron.v_reset
            rest = torch.where(kept > 0, float(neuron.n_ref_steps), (rest - 1).clamp(min=0))
            spikes.append(s)
            left.append(v)
            currents.append(i)
        return torch.stack(spikes), torch.stack(left), torch.stack(currents)


class _Step(torch.autograd.Function):
    """A single comparison with the threshold."""

    @staticmethod
    def forward(ctx: Any, gap: Tensor, strict: bool, kind: int, width: float) -> Tensor:
        ctx.save_for_backward(gap)
        ctx.kind, ctx.width = kind, width
        spikes = ((gap > 0) if strict else (gap >= 0)).to(gap.dtype)
        return torch.where(gap.isnan(), gap, spikes)  # what is not a number shall be noticed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (gap,) = ctx.saved_tensors
        x = gap * ctx.width
        slopes = {scan.ARCTAN: lambda: 0.5 * ctx.width / (1 + (torch.pi / 2 * x) ** 2),
                  scan.FAST_SIGMOID: lambda: 1 / (1 + x.abs()) ** 2, scan.TRIANGLE: lambda: (1 - x.abs()).clamp(min=0)}
        return grad * slopes[ctx.kind](), None, None, None


def frozen(net: SurrogateNet) -> TrainedLayers:
    """The module's declaration and state as plain arrays, for `checkpoint.save`."""
    state = {name: t.detach().cpu().numpy().copy() for name, t in net.state_dict().items()}
    return TrainedLayers(network=net.network, params=state)


def restored(trained: TrainedLayers) -> SurrogateNet:
    """The module of a checkpoint, ready to answer or to learn on."""
    net = SurrogateNet(trained.network)
    net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in trained.params.items()})
    return net.eval()

"""Layered networks as torch modules: backpropagation through time with surrogate gradients.

A layer runs over all steps at once, as a single node for autograd: its first connection goes from spike to spike, its
normalization and its neurons follow in compiled passes. On a CUDA device (`net.to("cuda")`) the same is torch
operations. Needs the `torch` extra.
Source: Neftci, Mostafa & Zenke (2019); surrogates: arctan (Fang et al. 2021), fast sigmoid (Zenke & Ganguli 2018),
triangle (Bellec et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qspinn.arrays import LARGEST_FACTOR, integer, need_kind, real_of
from qspinn.errors import ConfigError, LoweringError
from qspinn.learning.device import device_of, need_single, need_together
from qspinn.learning.gradients.convolution import convolved
from qspinn.learning.gradients.inputs import need_counts, need_shape
from qspinn.learning.gradients.kernels.backward import ARCTAN, FAST_SIGMOID, TRIANGLE
from qspinn.learning.gradients.kernels.forward import PLAIN
from qspinn.learning.gradients.node import LayerResult, Plan, advance
from qspinn.learning.gradients.scan import Scan
from qspinn.learning.gradients.walk import Output, walk
from qspinn.learning.gradients.wiring import Scratch, flat, images, wiring_of
from qspinn.networks.checkpoint import TrainedLayers
from qspinn.networks.layer_arrays import DECAYS, decay_arrays, decay_of, decay_paths, has_bias
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork, Linear, Skip, Weighted
from qspinn.networks.tensors import TensorPath

Surrogate = Literal["arctan", "fast_sigmoid", "triangle"]
KINDS = {"arctan": ARCTAN, "fast_sigmoid": FAST_SIGMOID, "triangle": TRIANGLE}


class _LayerPlan(NamedTuple):
    """Parts of a layer's forward pass that every call reuses.

    Attributes:
        plan: shape, neurons, wiring and scratch memory of the layer's node.
        main: connection whose product is part of the node; None where there is none.
        others: further connections from other layers; their currents are added.
        feedback: connections of the layer to itself.
        level, zeros: declared threshold and a bias of 0, float32 [C].
        decay: declared decay, one number.
    """

    plan: Plan
    main: Linear | Conv2d | None
    others: tuple[Linear | Conv2d | Skip, ...]
    feedback: tuple[Linear | Conv2d, ...]
    level: Tensor
    zeros: Tensor
    decay: Tensor


class SurrogateNet(nn.Module):
    """A layered network that trains in any torch loop.

    Parameters are named by tensor path with dots as double underscores: `a__w`, `a__bias`; batch normalization lives in
    `norms`. Weights start uniform in ±sqrt(gain / fan-in).

    The bias is one parameter of a layer, however many connections with `bias = True` feed it: it is added once to what
    the layer receives in a step, here, in `params()`, on the grid and in the integer program.

    With OMP_WAIT_POLICY=PASSIVE in the environment before torch is imported, a step is up to a quarter shorter: torch's
    idle threads then do not spin on the cores that the compiled passes use.

    Args:
        surrogate, width: shape of the derivative that stands for the spike's, and its steepness.
        decays: `<layer>.decay`, `<layer>.i_decay`, `<layer>.theta_decay` by path, in place of the declared ones: one
            for all neurons [1], one per channel [C] or one per neuron [N]. They are not trained; `params()` holds them.

    Raises:
        ConfigError: no network of layers, neurons without a gradient, an unknown surrogate, or a number out of range.
        LoweringError: an array is no decay of the network, of the wrong shape or out of range.
    """

    def __init__(
        self,
        network: LayeredNetwork,
        *,
        seed: int = 0,
        surrogate: Surrogate = "arctan",
        width: float = 2.0,
        gain: float = 3.0,
        decays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        check_trainable(network)
        seed = integer("seed", seed, low=0, high=(1 << 32) - 1)
        need_positive("gain", gain)
        self.network, self.kind, self.width = network, kind_of(surrogate), need_positive("width", width)
        self.norms, self._scratch = nn.ModuleDict(), Scratch()
        self._layer_plans: dict[tuple[str, int, float], _LayerPlan] = {}
        for path, x in in_single(decay_arrays(network, {} if decays is None else decays)).items():
            self.register_buffer(path.replace(".", "__"), torch.tensor(x, dtype=torch.float32))
        generator = torch.Generator().manual_seed(seed)
        for layer in network.layers:
            for c in network.into(layer.name):
                if isinstance(c, Skip):
                    continue
                shape = network.weight_shape(c)
                bound = (gain / int(np.prod(shape[1:]))) ** 0.5
                w = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                self.register_parameter(network.weight_path(c).replace(".", "__"), nn.Parameter(w))
                if c.bias and self._bias(layer) is None:
                    self.register_parameter(f"{layer.name}__bias", nn.Parameter(torch.zeros(layer.shape[0])))
                if c.norm:
                    self.norms[network.weight_path(c).replace(".", "__")] = nn.BatchNorm2d(layer.shape[0])

    def weight(self, c: Weighted) -> Tensor:
        """Weights of a connection, as the parameter that is trained."""
        return getattr(self, self.network.weight_path(c).replace(".", "__"))

    def params(self) -> dict[str, np.ndarray]:
        """Arrays by tensor path, batch normalization folded: w <- w * g / s, bias <- bias + (beta - mean * g / s) for
        each normalized connection."""
        arrays: dict[str, np.ndarray] = {}
        for layer in self.network.layers:
            declared = self._bias(layer)
            bias = np.zeros(layer.shape[0]) if declared is None else declared.detach().cpu().double().numpy()
            for c in self.network.into(layer.name):
                if isinstance(c, Skip):
                    continue
                path = self.network.weight_path(c)
                w = self.weight(c).detach().cpu().double().numpy()
                if c.norm:
                    norm: Any = self.norms[path.replace(".", "__")]
                    mean, var, g, beta = (
                        x.detach().cpu().double().numpy()
                        for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
                    )
                    factor = g / np.sqrt(var + norm.eps)
                    of_rows = np.repeat(factor, len(w) // len(factor))  # of neurons, where a channel has several
                    w, bias = w * of_rows.reshape(-1, *[1] * (w.ndim - 1)), bias + beta - mean * factor
                arrays[path] = w
            if has_bias(self.network, layer.name):
                arrays[f"{layer.name}.bias"] = bias
        return arrays | self._decays()

    def _decays(self) -> dict[str, np.ndarray]:
        """The decays that are not the declared ones, float64, by path."""
        buffers = {path: self._buffers.get(path.replace(".", "__")) for path in decay_paths(self.network)}
        return {path: x.detach().cpu().double().numpy() for path, x in buffers.items() if x is not None}

    def forward(self, spikes: Tensor, *, potentials: bool = False) -> Output:
        """spikes [T, B, n_inputs], whole numbers of any type, on the module's device -> scores, rates and signals;
        potentials: those of every layer, too.

        Raises:
            ConfigError: the module and the spikes lie on different devices.
            DataError: spikes of another shape, none, or values that are no counts up to the input's max_count.
        """
        need_shape(self.network, spikes)
        need_together(self, spikes)
        need_counts(self.network, spikes)
        return self.run(spikes, potentials=potentials)

    def run(self, spikes: Tensor, *, potentials: bool = False) -> Output:
        """`forward` of spikes whose values are known to be counts."""
        need_shape(self.network, spikes)
        return walk(self.network, spikes, self._advance, potentials=potentials)

    def _advance(self, layer: Layer, signals: dict[str, Tensor], keeps: bool) -> LayerResult:
        """One layer over all steps: the first connection is part of the layer's node, others add to it."""
        key = layer.name, self.kind, self.width
        if key not in self._layer_plans:
            self._layer_plans[key] = self._layer_plan(layer)
        layer_plan, device = self._layer_plans[key], device_of(self)
        main, plan, bias = layer_plan.main, layer_plan.plan._replace(keeps=keeps), self._bias(layer)
        if self._buffers:  # decays, as they are now: a state may have been loaded since
            plan = plan._replace(scan=plan.scan._replace(**decays_of(layer, self._decays())))
        if bias is None:
            bias = layer_plan.zeros.to(device)
        if main is not None and main.norm:
            plan = plan._replace(norm=self._norm(main))
        extra = [flat(self._current(c, signals[c.source], layer)) for c in layer_plan.others]
        rows = [feedback(self.weight(c), layer) for c in layer_plan.feedback]
        return advance(
            plan,
            signals[main.source] if main else None,
            self.weight(main) if main else None,
            total(extra),
            total(rows),
            layer_plan.level.to(device),
            bias,
            layer_plan.decay,
        )

    def _layer_plan(self, layer: Layer) -> _LayerPlan:
        """The first connection that can be part of the layer's node is; see `joins`."""
        into, neuron = self.network.into(layer.name), layer.neuron
        forward = [c for c in into if c.source != layer.name]
        main = next((c for c in forward if not isinstance(c, Skip) and joins(c, layer)), None)
        plan = Plan(layer.shape, real_scan(layer, self.kind, self.width), self._scratch)
        if main is not None:
            plan = plan._replace(wiring=wiring_of(main, self.network.shape_of(main.source), layer.shape))
        level = torch.full((layer.shape[0],), neuron.v_th if neuron.spiking else 0.0)
        return _LayerPlan(
            plan,
            main,
            tuple(c for c in forward if c is not main),
            tuple(c for c in into if c.source == layer.name and not isinstance(c, Skip)),
            level,
            torch.zeros(layer.shape[0]),
            torch.tensor(neuron.decay),
        )

    def _bias(self, layer: Layer) -> Tensor | None:
        """The constant input to a layer, [C]; None where no connection into it has a bias."""
        return self._parameters.get(f"{layer.name}__bias")

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
            y = convolved(pictures, w, c.stride, c.padding, c.dilation, c.groups)
        if c.norm:
            y = self._norm(c)(y)
        return y.view(x.shape[1], x.shape[0], *layer.shape).transpose(0, 1)


def check_trainable(network: LayeredNetwork) -> None:
    """Raises:
    ConfigError: no network of layers, or a layer whose neurons have no gradient here; named.
    """
    if not isinstance(network, LayeredNetwork):
        raise ConfigError(
            "network", "is no network of layers", got=type(network).__name__, allowed="qspinn.LayeredNetwork"
        )
    for layer in network.layers:
        if layer.neuron.spiking and layer.neuron.max_spikes > 1:
            raise ConfigError(
                f"network.{layer.name}.neuron.max_spikes",
                "neurons that spike several times in a step cannot be trained by gradients",
                got=layer.neuron.max_spikes,
                allowed="1",
                fix="train with max_spikes = 1, and lower the arrays under the network with more",
            )


def kind_of(surrogate: Surrogate) -> int:
    """The number of a surrogate in compiled code.

    Raises:
        ConfigError: there is no such surrogate.
    """
    if not isinstance(surrogate, str) or surrogate not in KINDS:
        raise ConfigError("surrogate", "unknown surrogate", got=surrogate, allowed=", ".join(KINDS))
    return KINDS[surrogate]


def need_positive(where: str, value: float) -> float:
    """A number above 0 of which products stay numbers in float32.

    Raises:
        ConfigError: it is none, or out of range.
    """
    number = real_of(value)
    if not 1 / LARGEST_FACTOR <= number <= LARGEST_FACTOR:
        raise ConfigError(
            where, "is out of range", got=value, allowed=f"a number of {1 / LARGEST_FACTOR:g} to {LARGEST_FACTOR:g}"
        )
    return number


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
    """Constants of a layer of the float network: real numbers, nothing rounded or clipped."""
    neuron, one = layer.neuron, np.ones(layer.shape[0], np.float32)
    return Scan(
        kind=np.float32,
        **decays_of(layer, {}),
        decay_scale=1.0,
        in_scale=one,
        reset=one * neuron.v_reset,
        unit=one,
        v_min=-np.inf,
        v_max=np.inf,
        strict=neuron.strict,
        subtract=neuron.reset == "subtract",
        delayed=neuron.reset_delay,
        n_ref=neuron.n_ref_steps,
        spiking=neuron.spiking,
        has_current=neuron.current_decay is not None,
        i_scale=1.0,
        i_min=-np.inf,
        i_max=np.inf,
        theta_step=one * neuron.theta_step if neuron.adapts else one[:0],
        theta_scale=1.0,
        theta_max=np.inf,
        theta_unit=1.0,
        mode=PLAIN,
        seed=0,
        stream=0,
        surrogate=surrogate,
        width=width,
    )


def decays_of(layer: Layer, decays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The decay factors of a layer as `Scan` takes them, as given or as declared."""
    return {kind: decay_of(layer, decays, kind) for kind in ("decay", "i_decay", "theta_decay")}


def in_single(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, in which training computes with float32; a decay below 1 stays below 1 there.

    Raises:
        LoweringError: a value is too large or too small for float32.
    """
    arrays, limits, below = {}, np.finfo(np.float32), float(np.nextafter(np.float32(1), np.float32(0)))
    for path, x in params.items():
        sizes = np.abs(x)
        beyond = (sizes > limits.max) | ((sizes > 0) & (sizes < limits.tiny))
        if beyond.any():
            raise LoweringError(
                path,
                "does not fit float32, in which networks are trained",
                got=float(x[beyond].flat[0]),
                allowed=f"0, or sizes from {limits.tiny:.3g} to {limits.max:.3g}",
            )
        arrays[path] = np.where(x < 1.0, np.minimum(x, below), x) if TensorPath.of(path).kind in DECAYS else x
    return arrays


def frozen(net: SurrogateNet) -> TrainedLayers:
    """The module's declaration and state as plain arrays, for `checkpoint.save`.

    Raises:
        ConfigError: not a SurrogateNet, or one that does not compute in float32.
    """
    need_kind("net", net, SurrogateNet)
    need_single(net)
    state = {name: t.detach().cpu().numpy().copy() for name, t in net.state_dict().items()}
    return TrainedLayers(network=net.network, params=state)


def restored(trained: TrainedLayers) -> SurrogateNet:
    """The module of a checkpoint, ready to answer or to learn on.

    Raises:
        ConfigError: not a checkpoint of layers.
    """
    need_kind("trained", trained, TrainedLayers)
    decays = {path: trained.params.get(path.replace(".", "__")) for path in decay_paths(trained.network)}
    net = SurrogateNet(trained.network, decays={path: x for path, x in decays.items() if x is not None})
    net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in trained.params.items()})
    return net.eval()

"""In-training quantization of layered networks: the forward pass is the integer program, the gradients pass through.

`prepare` turns a trained float network and a plan into a torch module that trains in any loop; `convert` gives its
Program. Each forward pass makes the codes that lowering makes (by the same functions) and computes with them exactly
as LifOp does, so spikes and potentials are those of the engine, bit for bit; `tests/test_quantized.py` holds this.
Source: straight-through gradients (Bengio et al. 2013); learned steps (Esser et al. 2020), here as a factor exp(s) per
channel on the calibrated step, so that one learning rate suits all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from qspinn.arrays import integer, need_kind, reals
from qspinn.compiled.scalars import MODE
from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding, encode, stream_key
from qspinn.learning.device import device_of, need_together
from qspinn.learning.gradients.codes import Estimator, coded_weights, encoded, sharpness_at, to_power
from qspinn.learning.gradients.convolution import convolved
from qspinn.learning.gradients.inputs import need_counts, need_shape
from qspinn.learning.gradients.node import LayerResult, Plan, advance
from qspinn.learning.gradients.scan import Scan
from qspinn.learning.gradients.surrogate import (
    Surrogate,
    SurrogateNet,
    check_trainable,
    feedback,
    in_single,
    joins,
    kind_of,
    need_positive,
    total,
)
from qspinn.learning.gradients.torch_passes import connection as torch_connection
from qspinn.learning.gradients.torch_passes import neurons as torch_neurons
from qspinn.learning.gradients.walk import Output, walk
from qspinn.learning.gradients.wiring import Scratch, flat, images, shaped, wiring_of
from qspinn.networks.layer_arrays import decay_of, layer_arrays, most_spikes
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork, Linear, Skip
from qspinn.program import Program
from qspinn.quantization.grid import (
    LayerGrid,
    average_factor,
    bias_shift,
    layer_grids,
    lower_bound,
    potential_format,
    steps_are_powers,
    store_format,
    theta_shift,
    threshold_limits,
    threshold_shift,
)
from qspinn.quantization.layered import layer_rules, lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.quantization.units import LOWERING_STREAM, STREAMS_PER_POPULATION, decay_codes

EXACT = 1 << 23
"""Whole numbers below this, and halves of them, are exact in float32."""


def prepare(
    network: LayeredNetwork,
    plan: QuantPlan,
    params: Mapping[str, NDArray] | None = None,
    ranges: LayerRanges | None = None,
    *,
    seed: int = 0,
    learn_steps: bool = True,
    surrogate: Surrogate = "arctan",
    width: float = 2.0,
    estimator: Estimator = "straight_through",
) -> QuantNet:
    """A torch module that trains on the integer grid of a plan; its forward pass is that of `SurrogateNet`, with
    potentials and currents as codes.

    Args:
        params: arrays to start from, batch normalization folded (`SurrogateNet.params`); without them fresh weights.
        ranges: of the float network (`layer_ranges`); without them potentials reach to twice the threshold.
        learn_steps: weight steps are trained too; otherwise they stay as calibrated. Steps that are to be powers of two
            are the nearest ones to what is trained.
        estimator: the gradient of binary and ternary weights; the annealed one sharpens while `fit` trains.

    Raises:
        ConfigError, LoweringError: as `lower_layers`; also where an array is unknown, missing, misshapen or not finite,
            or a word or number out of range. All by path.
    """
    check_trainable(network)
    if not isinstance(estimator, str) or estimator not in ("straight_through", "annealed"):
        raise ConfigError("estimator", "unknown estimator", got=estimator, allowed="straight_through, annealed")
    if not isinstance(learn_steps, bool):
        raise ConfigError("learn_steps", "is no switch", got=learn_steps, allowed="True, False")
    if params is not None:
        params = in_single(layer_arrays(network, params))
    seed = integer("seed", seed, low=0, high=(1 << 32) - 1)
    if params is None:
        params = SurrogateNet(network, seed=seed).params()
    if ranges is None:
        ranges = LayerRanges(v={layer.name: 2 * layer.neuron.v_th for layer in network.layers})
    return QuantNet(network, plan, params, ranges, seed, learn_steps, surrogate, width, estimator)


def convert(module: QuantNet, *, labels: tuple[str, ...] = (), provenance: dict[str, Any] | None = None) -> Program:
    """The integer program that the module computes.

    Constants that training moved out of their range are held at its ends, as in the forward pass; the program's notes
    say which.

    Raises:
        ConfigError: not a module of `prepare`.
        LoweringError: as `lower_layers`.
    """
    need_kind("module", module, QuantNet)
    with torch.no_grad():
        grids = {layer.name: module.grid(layer.name) for layer in module.network.layers}
    params = module.params()
    for layer in module.network.layers:
        if layer.neuron.spiking:
            params[f"{layer.name}.v_th"] = np.maximum(params[f"{layer.name}.v_th"], np.finfo(np.float32).tiny)
        params[f"{layer.name}.decay"] = np.clip(params[f"{layer.name}.decay"], 0.0, 1.0)
    return lower_layers(
        module.network,
        params,
        module.plan,
        module.ranges,
        seed=module.seed,
        labels=labels,
        provenance=provenance,
        grids=grids,
        learned=True,
    )


class QuantNet(nn.Module):
    """A layered network on an integer grid; see `prepare`.

    Parameters are named by tensor path with dots as double underscores: `a__w`, `a__bias`, `a__log_step`, and fixed
    unless their `requires_grad` is switched on, `a__v_th` [C] and `a__decay` (one, [C] or [N]). Decays of currents and
    adaptive thresholds that are not the declared ones are buffers: `a__i_decay`, `a__theta_decay`.
    """

    def __init__(
        self,
        network: LayeredNetwork,
        plan: QuantPlan,
        params: Mapping[str, NDArray],
        ranges: LayerRanges,
        seed: int,
        learn_steps: bool,
        surrogate: Surrogate,
        width: float,
        estimator: Estimator,
    ) -> None:
        super().__init__()
        check_trainable(network)
        self.network, self.plan, self.ranges, self.seed = network, plan, ranges, seed
        self._scratch = Scratch()
        self.kind, self.width = kind_of(surrogate), need_positive("width", width)
        self.estimator, self.sharpness = estimator, sharpness_at(0.0) if estimator == "annealed" else None
        self.rules = layer_rules(network, plan)
        self.grids = layer_grids(network, params, self.rules, ranges)
        lower_layers(network, params, plan, ranges, seed=seed, grids=self.grids)  # what cannot be lowered fails now
        for layer in network.layers:
            self._declare(layer, params, learn_steps)

    def _declare(self, layer: Layer, params: Mapping[str, NDArray], learn_steps: bool) -> None:
        """Registers the parameters of a layer."""

        def put(path: str, value: Any, *, learned: bool = True) -> None:
            tensor = torch.tensor(np.asarray(value), dtype=torch.float32)
            self.register_parameter(path.replace(".", "__"), nn.Parameter(tensor, requires_grad=learned))

        name, n_channels = layer.name, layer.shape[0]
        for c in self.network.into(name):
            if not isinstance(c, Skip):
                put(self.network.weight_path(c), params[self.network.weight_path(c)])
        if f"{name}.bias" in self.rules:
            put(f"{name}.bias", params.get(f"{name}.bias", np.zeros(n_channels)))
        by_channel = np.unique(self.grids[name].step).size > 1
        put(f"{name}.log_step", np.zeros(n_channels if by_channel else 1), learned=learn_steps)
        v_th = np.broadcast_to(params.get(f"{name}.v_th", layer.neuron.v_th), n_channels)
        put(f"{name}.v_th", v_th, learned=False)
        put(f"{name}.decay", params.get(f"{name}.decay", layer.neuron.decay), learned=False)
        for path in (f"{name}.i_decay", f"{name}.theta_decay"):
            if path in params:
                self.register_buffer(path.replace(".", "__"), torch.tensor(params[path], dtype=torch.float32))

    def anneal(self, progress: float) -> None:
        """Sharpens the annealed estimator for a share 0..1 of the training done; the other has nothing to sharpen.

        Raises:
            ConfigError: no share.
        """
        progress = float(reals("progress", progress, shape=(), low=0.0, high=1.0, error=ConfigError))
        self.sharpness = sharpness_at(progress) if self.estimator == "annealed" else None

    def _real(self, path: str) -> Tensor:
        """A parameter, or a buffer, in float64 on the CPU, where codes are made: they must not depend on a device."""
        parameter: Tensor = getattr(self, path.replace(".", "__"))
        return parameter.cpu().double()

    def params(self) -> dict[str, NDArray]:
        """Arrays by tensor path, float64, as `lower_layers` takes them."""
        silent = {f"{layer.name}__v_th" for layer in self.network.layers if not layer.neuron.spiking}
        return {
            name.replace("__", "."): p.detach().cpu().double().numpy()
            for name, p in (*self.named_parameters(), *self.named_buffers())
            if not name.endswith("__log_step") and name not in silent
        }

    def _steps(self, name: str) -> Tensor:
        """Weight step of each channel, [C]."""
        step = torch.tensor(self.grids[name].step) * torch.exp(self._real(f"{name}.log_step"))
        return to_power(step) if steps_are_powers(name, self.rules) else step

    def grid(self, name: str) -> LayerGrid:
        """Steps and shifts of a layer as they are now.

        Raises:
            ConfigError: there is no such layer.
        """
        if name not in self.grids:
            raise ConfigError("name", "is no layer of this network", got=name, allowed=", ".join(self.grids))
        return LayerGrid(step=self._steps(name).detach().numpy().copy(), shifts=self.grids[name].shifts)

    def forward(self, spikes: Tensor, *, potentials: bool = False) -> Output:
        """Scores, rates and signals of spikes, as `SurrogateNet.forward`; potentials, currents and thresholds are
        codes."""
        need_shape(self.network, spikes)
        need_together(self, spikes)
        need_counts(self.network, spikes)
        return self.run(spikes, potentials=potentials)

    def run(self, spikes: Tensor, *, potentials: bool = False) -> Output:
        """`forward` of spikes whose values are known to be counts."""
        need_shape(self.network, spikes)
        out = walk(self.network, spikes, self._advance, potentials=potentials, averages=False)
        read = self.network.readout
        if read.of == "spikes":
            return out
        potential = out.potentials[read.source].double()  # sums of codes must not collapse: classes are compared
        unit = self._steps(read.source)[0] * 2.0 ** int(self.grids[read.source].shifts[0])
        scores = (potential[-1] if read.of == "v_last" else potential.mean(0)) * unit.to(potential.device)
        return out._replace(scores=scores.flatten(1))

    def _advance(self, layer: Layer, signals: dict[str, Tensor], keeps: bool) -> LayerResult:
        """One layer over all steps, in codes; as in `SurrogateNet`, the first connection is part of the node."""
        name, step, device = layer.name, self._steps(layer.name), device_of(self)
        unit = step * 2.0 ** torch.tensor(self.grids[name].shifts)
        into = self.network.into(name)
        weights = [self._weights(c, layer, step, number) for number, c in enumerate(into)]
        reach = sum(_reach(w) * most_spikes(self.network, c.source) for c, w in zip(into, weights, strict=True))
        exact32 = reach < EXACT
        main = next((k for k, c in enumerate(into) if exact32 and c.source != name and joins(c, layer)), None)
        kind = torch.float32 if exact32 else torch.float64
        extra = [
            flat(_fed(c, w.to(device, kind), signals[c.source].to(kind), layer))
            for k, (c, w) in enumerate(zip(into, weights, strict=True))
            if k != main and c.source != name
        ]
        rows = [feedback(w.to(device), layer) for c, w in zip(into, weights, strict=True) if c.source == name]
        level, bias = self._thresholds(layer, unit), self._bias(layer, step, unit)
        scan = self._scan(layer, unit, float(reach) + bias.abs().max().item(), level.max().item())
        plan, x, w = Plan(layer.shape, scan, self._scratch, keeps=keeps), None, None
        if main is not None:
            c, x, w = into[main], signals[into[main].source], weights[main].to(device, kind)
            assert not isinstance(c, Skip)
            plan = plan._replace(wiring=wiring_of(c, self.network.shape_of(c.source), layer.shape))
        return advance(
            plan, x, w, total(extra), total(rows), level.to(device), bias.to(device), self._real(f"{name}.decay")
        )

    def _weights(self, c: Linear | Conv2d | Skip, layer: Layer, step: Tensor, number: int) -> Tensor:
        """Codes of a connection's weights, whole numbers in float64; one per channel for a residual connection."""
        path = self.network.weight_path(c)
        rule = self.rules[path]
        factor = average_factor(self.network, c)
        if isinstance(c, Skip):
            w = torch.full((layer.shape[0],), c.weight * factor, dtype=torch.float64)
        else:
            w = self._real(path) * factor
        key = stream_key(self.seed, self._stream(layer) + LOWERING_STREAM, number)
        return coded_weights(path, w, rule, step, key, self.sharpness)

    def _thresholds(self, layer: Layer, unit: Tensor) -> Tensor:
        """Codes that potentials are compared with, [C]."""
        if not layer.neuron.spiking:
            return torch.zeros(layer.shape[0], dtype=torch.float64)
        rule, v_th = self.rules[f"{layer.name}.v_th"], self._real(f"{layer.name}.v_th")
        shift = threshold_shift(v_th.detach().numpy(), unit.detach().numpy(), rule.bits)
        fmt = potential_format(self.rules[f"{layer.name}.v"])
        least, largest = threshold_limits(layer.neuron, fmt, shift, layer.name)
        codes = encoded(v_th, unit, QFormat(bits=rule.bits, frac=-shift), rule.rounding, low=least)
        return codes.clamp(max=largest) * 2.0**shift

    def _bias(self, layer: Layer, step: Tensor, unit: Tensor) -> Tensor:
        """Codes of the bias, [C]: in weight steps where it goes to a synaptic current."""
        path = f"{layer.name}.bias"
        if path not in self.rules:
            return torch.zeros(layer.shape[0], dtype=torch.float64)
        bias, rule, scale = self._real(path), self.rules[path], unit if layer.neuron.current_decay is None else step
        shift = bias_shift(bias.detach().numpy(), scale.detach().numpy(), rule.bits)
        fmt = QFormat(bits=max(rule.bits, 2), frac=-shift, signed=True)
        return encoded(bias, scale, fmt, rule.rounding, low=fmt.code_min) * 2.0**shift

    def _theta(self, layer: Layer, unit: Tensor) -> tuple[NDArray, NDArray, int, int, int]:
        """(step codes [C] or [0], decay codes, their shift, largest code, shift) of adaptive thresholds."""
        name, neuron = layer.name, layer.neuron
        if not neuron.adapts:
            return np.zeros(0), np.zeros(1, np.int32), 0, 0, 0
        rule, real = self.rules[f"{name}.theta_step"], unit.detach().numpy() * np.ones(layer.shape[0])
        factors = self._factors(layer, "theta_decay")
        shift = theta_shift(layer, self.ranges, real, self.rules, factors)
        step, _ = encode(neuron.theta_step / real, QFormat(bits=rule.bits, frac=-shift), rule.rounding)
        decay = self.rules[f"{name}.theta_decay"]
        top = QFormat(bits=self.rules[f"{name}.theta"].bits).code_max
        return step, decay_codes(factors, decay).codes, decay.bits, top, shift

    def _factors(self, layer: Layer, kind: str) -> NDArray[np.float64]:
        """Decay factors of a layer, real: its own, or the declared ones; see `decay_of`."""
        path = f"{layer.name}.{kind}"
        if hasattr(self, path.replace(".", "__")):
            return np.atleast_1d(self._real(path).detach().numpy())
        return decay_of(layer, {}, kind)

    def _scan(self, layer: Layer, unit: Tensor, reach: float, level: float) -> Scan:
        """How a layer steps in codes; reach bounds its input currents, level its thresholds before they rise."""
        neuron, name, v = layer.neuron, layer.name, self.rules[f"{layer.name}.v"]
        channels, has_current = np.ones(layer.shape[0]), neuron.current_decay is not None
        fmt, i_fmt = potential_format(v), QFormat(bits=2, signed=True)
        low = lower_bound(v)
        in_scale = 2.0 ** -self.grids[name].shifts * channels
        real = unit.detach().numpy() * channels
        reset, _ = encode(neuron.v_reset / real, fmt)
        factor, shift = _decay_of(self._factors(layer, "decay"), self.rules[f"{name}.decay"])
        i_factor, i_shift = np.zeros(1, np.int32), 0
        if neuron.current_decay is not None:
            i_factor, i_shift = _decay_of(self._factors(layer, "i_decay"), self.rules[f"{name}.i_decay"])
            i_fmt = QFormat(bits=self.rules[f"{name}.i"].bits, signed=True)
        theta_step, theta_factor, theta_decay_shift, theta_max, theta_unit = self._theta(layer, unit)
        high = level + (theta_max << theta_unit) if neuron.looks_back else 0.0  # by which a sum may begin lower
        largest = (
            max(
                -fmt.code_min * int(factor.max()),
                -i_fmt.code_min * int(i_factor.max()),
                reach * max(1.0, float(in_scale.max())),
                reach - i_fmt.code_min,
                theta_max * int(theta_factor.max()) + float(theta_step.max(initial=0.0)),
            )
            + fmt.code_max
            + high
        )
        exact32 = largest < EXACT and v.rounding is not Rounding.STOCHASTIC
        return Scan(
            kind=np.float32 if exact32 else np.float64,
            decay=factor,
            decay_scale=2.0**-shift,
            in_scale=in_scale,
            reset=reset,
            unit=real,
            v_min=low,
            v_max=fmt.code_max,
            strict=neuron.strict,
            subtract=neuron.reset == "subtract",
            delayed=neuron.reset_delay,
            n_ref=neuron.n_ref_steps,
            spiking=neuron.spiking,
            has_current=has_current,
            i_decay=i_factor,
            i_scale=2.0**-i_shift,
            i_min=i_fmt.code_min,
            i_max=i_fmt.code_max,
            theta_step=theta_step,
            theta_decay=theta_factor,
            theta_scale=2.0**-theta_decay_shift,
            theta_max=theta_max,
            theta_unit=2.0**theta_unit,
            mode=MODE[v.rounding],
            seed=self.seed,
            stream=self._stream(layer),
            surrogate=self.kind,
            width=self.width,
            **self._store(v),
        )

    def _store(self, rule: QuantRule) -> dict[str, int]:
        """What is kept of potentials between steps, as `Scan` takes it."""
        fmt, low = store_format(rule)
        return {} if fmt is None else {"store_shift": -fmt.frac, "store_min": low, "store_max": fmt.code_max}

    def _stream(self, layer: Layer) -> int:
        """Number of the layer's first random stream, as in `lower_layers`."""
        return STREAMS_PER_POPULATION * (self.network.layers.index(layer) + 1)


def _reach(w: Tensor) -> float:
    """The largest sum of weight codes that one target can receive when every source spikes once."""
    return float(w.detach().abs().reshape(len(w), -1).sum(1).max())


def _fed(c: Linear | Conv2d | Skip, w: Tensor, x: Tensor, layer: Layer) -> Tensor:
    """Input currents [T, B, C, H, W] by one connection, in weight codes."""
    if isinstance(c, Skip):
        return x * w.view(-1, 1, 1)
    if torch_neurons.serves(x.device):
        n_channels, height, width = x.shape[2:]
        y = torch_connection.current(wiring_of(c, (n_channels, height, width), layer.shape), x, w, codes=True)
        if isinstance(c, Conv2d):
            return shaped(y, layer.shape)
        return y.transpose(0, 1).reshape(*x.shape[:2], *layer.shape)
    pictures = images(x)
    if isinstance(c, Linear):
        y = functional.linear(pictures.flatten(1), w)
    else:
        y = convolved(pictures, w, c.stride, c.padding, c.dilation, c.groups)
    return y.view(x.shape[1], x.shape[0], *layer.shape).transpose(0, 1)


def _decay_of(decay: NDArray[np.float64], rule: QuantRule) -> tuple[NDArray[np.int32], int]:
    """(codes, shift) of decay factors; no leak is a factor of one."""
    if np.all(decay >= 1.0):
        return np.ones(1, np.int32), 0
    tensor = decay_codes(decay, rule)
    return tensor.codes, tensor.fmt.frac

"""Lowering of a trained layered network, with plan and ranges, to an integer program.

Each channel counts its potential in units of its own weight step times a power of two; thresholds, biases and resets
are divided by that unit here, once, so a step per channel costs no multiplier at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer, need_kind
from qspinn.errors import ConfigError, LoweringError
from qspinn.fixedpoint import QFormat, Rounding, encode, stream_key
from qspinn.networks.layer_arrays import decay_of, layer_arrays, most_spikes, thresholds_of
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork, Linear, Pool2d, Skip
from qspinn.networks.tensors import TensorPath
from qspinn.program import CodeTensor, Note, Program
from qspinn.program.ops import AddOp, ConvOp, DenseOp, EventsOp, LifOp, Op, PoolOp, ReadOp, spread
from qspinn.program.parts import Adaptation, Bias, Current, InputShift, Leak, Reset, Store, Threshold
from qspinn.quantization.assembly import Parts
from qspinn.quantization.calibrators import Floats
from qspinn.quantization.grid import (
    LayerGrid,
    bias_shift,
    check_grids,
    layer_grids,
    lower_bound,
    potential_format,
    real_weights,
    store_format,
    theta_shift,
    threshold_limits,
    threshold_shift,
)
from qspinn.quantization.paths import is_weight, layer_paths
from qspinn.quantization.plan import SHIFT_BITS, Granularity, QuantPlan, QuantRule, chosen_rules, need_no_options
from qspinn.quantization.ranges import LayerRanges
from qspinn.quantization.units import LOWERING_STREAM, STREAMS_PER_POPULATION, decay_codes
from qspinn.quantization.weights import n_clipped, weight_codes, weight_format

GLOBAL = Granularity.GLOBAL
SHIFT_FMT = QFormat(bits=SHIFT_BITS, signed=True)


def lower_layers(
    network: LayeredNetwork,
    params: Mapping[str, NDArray],
    plan: QuantPlan,
    ranges: LayerRanges,
    *,
    seed: int = 0,
    labels: tuple[str, ...] = (),
    provenance: dict[str, Any] | None = None,
    grids: Mapping[str, LayerGrid] | None = None,
    learned: bool = False,
) -> Program:
    """The integer program of a trained layered network under a plan.

    Args:
        params: `<layer>.w…` and `<layer>.bias` by path, batch normalization folded (`SurrogateNet.params`). Optional:
            `<layer>.v_th` [C] and the decays `<layer>.decay`, `<layer>.i_decay` and `<layer>.theta_decay` ([1], one per
            channel [C] or one per neuron [N]), in place of the declared ones.
        grids: steps and shifts by layer, where they were learned; otherwise they follow from weights and ranges.
        learned: training on the grid moved steps and constants: those that left their format are held at its ends, as
            while training, and noted; otherwise they are refused.

    Raises:
        ConfigError: the plan does not fit the network's tensors.
        LoweringError: an accumulator could overflow, a tensor is missing or not finite, or a read-out by potential
            would compare unlike units.
    """
    integer("seed", seed, low=0, high=(1 << 32) - 1)
    need_kind("ranges", ranges, LayerRanges)
    rules = layer_rules(network, plan)
    arrays = layer_arrays(network, params)
    grids = grids if grids is not None else layer_grids(network, arrays, rules, ranges)
    check_grids(network, grids)
    _check_units(network, grids)
    parts = Parts.beginning(EventsOp(shape=network.input.shape, max_count=network.input.max_count))
    signals = {"input"}
    for number, layer in enumerate(network.layers):
        _add_pools(network, signals, parts)
        stream = STREAMS_PER_POPULATION * (number + 1)
        try:
            lowering = _Lowering(network, arrays, rules, ranges, seed, stream, learned, parts)
            tensors, ops = lowering.layer(layer, grids[layer.name])
        except ConfigError as error:  # of a format or a scale, which do not know whose they are
            raise LoweringError(
                f"{layer.name}: {error.where}",
                error.problem,
                got=error.got,
                allowed=error.allowed,
                fix="look at the sizes of this layer's arrays beside one another",
            ) from None
        parts.add(tensors, ops)
        for path, w in real_weights(network, arrays, layer).items():
            parts.add_clipped(path, n_clipped(w, rules[path], grids[layer.name].step), w.size)
            parts.notes += _unused_notes(path, w, tensors[path], alone=len(network.into(layer.name)) == 1)
        if layer.neuron.current_decay is not None and layer.name not in ranges.i:
            parts.notes += _current_notes(network, tensors, next(op for op in ops if isinstance(op, LifOp)))
        signals.add(layer.name)
    _add_pools(network, signals, parts)
    parts.add({}, [ReadOp(source=network.readout.source, of=network.readout.of)])
    return parts.program(network, seed=seed, labels=labels, provenance=provenance)


def _check_units(network: LayeredNetwork, grids: Mapping[str, LayerGrid]) -> None:
    """A read-out by potential compares neurons in one unit.

    Raises:
        LoweringError: channels of its layer have different ones.
    """
    unit = grids[network.readout.source].unit
    if network.readout.of != "spikes" and np.any(unit != unit[0]):
        raise LoweringError(
            f"grids.{network.readout.source}",
            "a read-out by potential compares neurons, which needs one unit for all",
            got=f"units from {unit.min():.4g} to {unit.max():.4g}",
            fix="one step and one shift for all channels of this layer",
        )


def _current_notes(network: LayeredNetwork, tensors: dict[str, CodeTensor], op: LifOp) -> list[Note]:
    """How many channels' synaptic currents may exceed their format, where no range of currents was measured.

    A current gains at most the sum of the sizes of its weights and its bias in a step, one more by rounding, and decays
    by a factor d: it stays below that gain / (1 - d).
    """
    assert op.current is not None
    gain = np.ones(1, np.int64)
    for c in network.into(op.name):
        gain = _added(gain, _row_sums(tensors[network.weight_path(c)]) * most_spikes(network, c.source))
    if op.bias is not None:
        gain = _added(gain, np.abs(tensors[op.bias.tensor].codes.astype(np.int64)) << op.bias.shift)
    kept = (1 << op.current.shift) - tensors[op.current.decay].codes.astype(np.int64)
    gain, kept = _added(gain, 0 * kept), _added(kept, 0 * gain)
    above = (gain << op.current.shift) > op.current.fmt.code_max * kept
    problem = "no range of synaptic currents was given, so the format may cut off"
    return [Note(path=f"{op.name}.i", problem=problem, count=int(above.sum()), total=above.size)] if above.any() else []


def _unused_notes(path: str, w: Floats, tensor: CodeTensor, *, alone: bool) -> list[Note]:
    """Whether half the width of a connection's weights or more is unused, or all codes are 0, since it shares a step
    with others."""
    if alone or not w.any():
        return []
    if not tensor.codes.any():
        problem = "the step shared by the connections into a layer is too large, so all codes are 0 for"
        return [Note(path=path, problem=problem, count=w.size, total=w.size)]
    if not is_weight(path) or tensor.fmt.bits < 3:
        return []
    used = int(np.abs(tensor.codes).max()).bit_length() + 1
    if 2 * used > tensor.fmt.bits:
        return []
    problem = f"the step shared by the connections into a layer leaves {used} of {tensor.fmt.bits} bits to"
    return [Note(path=path, problem=problem, count=w.size, total=w.size)]


def _added(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two constants of neurons, each [1], [C] or [N]."""
    size = max(len(a), len(b))
    return spread(a, size) + spread(b, size)


def _row_sums(tensor: CodeTensor) -> NDArray[np.int64]:
    """The sum of the sizes of the weights into each channel."""
    return np.abs(tensor.codes.astype(np.int64)).reshape(len(tensor.codes), -1).sum(axis=1)


def layer_rules(network: LayeredNetwork, plan: QuantPlan) -> dict[str, QuantRule]:
    """The rule of every tensor of a layered network.

    Raises:
        ConfigError: the plan does not fit the network's tensors, or speaks of what only competing populations have.
        LoweringError: a read-out by potential would compare unlike units, or connections into one layer, which share
            their steps, have rules for them that differ.
    """
    need_kind("network", network, LayeredNetwork)
    need_no_options(plan, "layers")
    paths = layer_paths(network)
    rules = chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL)
    for layer in network.layers:
        _check_alike({path: rules[path] for path in map(network.weight_path, network.into(layer.name))})
    read = network.readout
    by_channel = [
        path
        for path, rule in rules.items()
        if (tensor := TensorPath.of(path)).layer == read.source and tensor.is_weight and rule.granularity is not GLOBAL
    ]
    if read.of != "spikes" and by_channel:
        raise LoweringError(
            by_channel[0],
            "a read-out by potential compares neurons, which needs one unit for all",
            fix="use granularity = 'global' for the weights into this layer",
        )
    return rules


def _check_alike(rules: dict[str, QuantRule]) -> None:
    """Connections into one layer share their steps, so what their rules say of steps is one thing. Residual connections
    follow the others: they have one weight.

    Raises:
        LoweringError: names the connection whose rule differs from that of the first.
    """
    first, *others = [path for path in rules if is_weight(path)] or [""]
    for path in others:
        for key in ("granularity", "power_of_two"):
            mine, theirs = getattr(rules[path], key), getattr(rules[first], key)
            if mine != theirs:
                raise LoweringError(
                    f"{path}: {key}",
                    f"is not that of {first}: the connections into a layer share their steps",
                    got=getattr(mine, "value", mine),
                    allowed=str(getattr(theirs, "value", theirs)),
                    fix=f"the same {key} for both",
                )


def _add_pools(network: LayeredNetwork, signals: set[str], parts: Parts) -> None:
    """Adds the pooled signals whose sources exist by now, and the operations that compute them."""
    for c in network.connections:
        if isinstance(c, Pool2d) and c.source in signals and c.target not in signals:
            pool = PoolOp(
                source=c.source,
                target=c.target,
                kind="max" if c.of == "max" else "sum",
                shape=network.shape_of(c.source),
                kernel=c.kernel,
                stride=c.stride,
            )
            parts.add({}, [pool])
            signals.add(c.target)


class _Lowering(msgspec.Struct, frozen=True):
    """What lowering one layer needs to know."""

    network: LayeredNetwork
    arrays: Mapping[str, Floats]
    rules: dict[str, QuantRule]
    ranges: LayerRanges
    seed: int
    stream: int
    learned: bool
    parts: Parts

    def layer(self, layer: Layer, grid: LayerGrid) -> tuple[dict[str, CodeTensor], list[Op]]:
        """(tensors, operations) of one layer and the connections into it."""
        into = self.network.into(layer.name)
        weights = real_weights(self.network, self.arrays, layer)
        tensors = {path: self._encoded(path, w, grid.step, number) for number, (path, w) in enumerate(weights.items())}
        neurons, op = self._neurons(layer, grid)
        _prove(layer.name, op, [tensors[path] for path in weights], neurons, self.network)
        return tensors | neurons, [*(self._connection(c) for c in into), op]

    def _encoded(self, path: str, w: Floats, step: Floats, number: int) -> CodeTensor:
        rule = self.rules[path]
        codes = weight_codes(path, w, rule, step, stream_key(self.seed, self.stream + LOWERING_STREAM, number))
        return CodeTensor(codes=codes.astype(np.int32), fmt=weight_format(rule))

    def _neurons(self, layer: Layer, grid: LayerGrid) -> tuple[dict[str, CodeTensor], LifOp]:
        name, neuron = layer.name, layer.neuron
        v = self.rules[f"{name}.v"]
        v_fmt, (store_fmt, store_min) = potential_format(v), store_format(v)
        step, shifts, unit = grid.step, grid.shifts, grid.unit
        tensors: dict[str, CodeTensor] = {}

        def put(
            kind: str,
            value: Any,
            fmt: QFormat,
            rounding: Rounding = Rounding.NEAREST,
            limits: tuple[int, int] | None = None,
        ) -> str:
            codes, outside = encode(np.broadcast_to(value, unit.shape) / unit, fmt, rounding)
            if self.learned:
                self.parts.add_note(f"{name}.{kind}", "training left the format, which cuts off", outside, codes.size)
            elif outside:
                raise LoweringError(
                    f"{name}.{kind}",
                    "does not fit its format",
                    got=np.max(value),
                    allowed=str(fmt),
                    fix="more bits, or a larger range of potentials",
                )
            codes = np.clip(codes, *limits) if limits else codes
            codes = codes[:1] if np.all(codes == codes[0]) else codes
            tensors[f"{name}.{kind}"] = CodeTensor(codes=codes.astype(np.int32), fmt=fmt)
            return f"{name}.{kind}"

        input_shift = InputShift(shift=int(shifts[0]))
        if np.any(shifts != shifts[0]):
            tensors[f"{name}.in_shifts"] = CodeTensor(codes=shifts.astype(np.int32), fmt=SHIFT_FMT)
            input_shift = InputShift(shift=int(shifts[0]), shifts=f"{name}.in_shifts")
        threshold = self._threshold(layer, unit, v_fmt, put)
        adaptation = self._adaptation(layer, unit, put, tensors) if neuron.adapts else None
        leak = self._leak(layer, tensors)
        current = self._current(layer, step, tensors) if neuron.current_decay is not None else None
        scale = unit / step if neuron.current_decay is not None else np.ones(1)  # a current counts in weight steps
        bias = self._bias(layer, unit, scale, put)
        v_reset = put("v_reset", neuron.v_reset, v_fmt)
        if neuron.spiking and neuron.reset == "value":
            _check_reset(name, tensors[v_reset].codes, tensors[threshold.tensor].codes << threshold.shift)
        return tensors, LifOp(
            name=name,
            n=layer.n,
            v_fmt=v_fmt,
            v_min=lower_bound(v),
            rounding=v.rounding,
            leak=leak,
            input=input_shift,
            threshold=threshold,
            reset=Reset(tensor=v_reset, by=neuron.reset, delayed=neuron.reset_delay),
            n_ref=neuron.n_ref_steps,
            winner=False,
            stream=self.stream,
            theta=adaptation,
            bias=bias,
            current=current,
            store=None if store_fmt is None else Store(fmt=store_fmt, min=store_min),
            spiking=neuron.spiking,
        )

    def _threshold(self, layer: Layer, unit: Floats, v_fmt: QFormat, put: Callable[..., str]) -> Threshold:
        """The threshold in units of the potential; of neurons that never spike, a code of 0."""
        neuron = layer.neuron
        if not neuron.spiking:
            return Threshold(tensor=put("v_th", 0.0, QFormat(bits=1)), strict=neuron.strict)
        rule, v_th = self.rules[f"{layer.name}.v_th"], thresholds_of(layer, self.arrays)
        shift = threshold_shift(v_th, unit, rule.bits)
        limits = threshold_limits(neuron, v_fmt, shift, layer.name)
        path = put("v_th", v_th, QFormat(bits=rule.bits, frac=-shift), rule.rounding, limits)
        return Threshold(tensor=path, shift=shift, strict=neuron.strict, max_spikes=neuron.max_spikes)

    def _bias(self, layer: Layer, unit: Floats, scale: Floats, put: Callable[..., str]) -> Bias | None:
        """The bias in units of what it is added to: of the potential, times `scale`."""
        bias = self.arrays.get(f"{layer.name}.bias", np.zeros(1))
        if not bias.any():
            return None
        rule = self.rules[f"{layer.name}.bias"]
        shift = bias_shift(bias, unit / scale, rule.bits)
        fmt = QFormat(bits=max(rule.bits, 2), frac=-shift, signed=True)
        return Bias(tensor=put("bias", bias * scale, fmt, rule.rounding), shift=shift)

    def _adaptation(
        self, layer: Layer, unit: Floats, put: Callable[..., str], tensors: dict[str, CodeTensor]
    ) -> Adaptation:
        """The moving part of the threshold, in units of the potential times a power of two that lets it fit."""
        name, neuron = layer.name, layer.neuron
        width, step, decay = (self.rules[f"{name}.{kind}"] for kind in ("theta", "theta_step", "theta_decay"))
        factors = decay_of(layer, self.arrays, "theta_decay")
        shift = theta_shift(layer, self.ranges, unit, self.rules, factors)
        tensors[f"{name}.theta_decay"] = decay_codes(factors, decay)
        path = put("theta_step", neuron.theta_step, QFormat(bits=step.bits, frac=-shift), step.rounding)
        still = int(np.count_nonzero(tensors[path].codes < 1))
        if self.learned:
            self.parts.add_note(path, "rounds to 0, so thresholds do not move, in", still, tensors[path].codes.size)
        elif still:
            raise LoweringError(
                path,
                "rounds to 0, so thresholds would never move",
                got=neuron.theta_step,
                allowed=f"from about {float(unit.max()) * 2.0**shift / 2:.3g}",
                fix="more bits for v, or a smaller range of potentials",
            )
        return Adaptation(
            fmt=QFormat(bits=width.bits, frac=-shift),
            shift=shift,
            step=path,
            decay=f"{name}.theta_decay",
            decay_shift=decay.bits,
        )

    def _leak(self, layer: Layer, tensors: dict[str, CodeTensor]) -> Leak:
        """Decay of the potential; no leak is a factor of one."""
        name = layer.name
        rule = self.rules[f"{name}.decay"]
        decay = decay_of(layer, self.arrays)
        whole = bool(np.all(decay == 1.0))
        tensors[f"{name}.decay"] = (
            CodeTensor(codes=np.ones(1, np.int32), fmt=QFormat(bits=1)) if whole else decay_codes(decay, rule)
        )
        return Leak(decay=f"{name}.decay", shift=tensors[f"{name}.decay"].fmt.frac)

    def _current(self, layer: Layer, step: Floats, tensors: dict[str, CodeTensor]) -> Current:
        """The synaptic current, in weight steps."""
        name = layer.name
        own, width = self.rules[f"{name}.i_decay"], self.rules[f"{name}.i"]
        fmt = QFormat(bits=width.bits, signed=True)
        if name in self.ranges.i and self.ranges.i[name] / float(step.min()) > fmt.code_max:
            raise LoweringError(
                f"{name}.i",
                "the synaptic current does not fit",
                got=float(self.ranges.i[name] / step.min()),
                allowed=f"at most {fmt.code_max} weight steps",
                fix="more bits for i, fewer for w",
            )
        tensors[f"{name}.i_decay"] = decay_codes(decay_of(layer, self.arrays, "i_decay"), own)
        return Current(decay=f"{name}.i_decay", shift=own.bits, fmt=fmt)

    def _connection(self, c: Linear | Conv2d | Skip) -> Op:
        path = self.network.weight_path(c)
        if isinstance(c, Linear):
            return DenseOp(source=c.source, target=c.target, weight=path)
        if isinstance(c, Skip):
            return AddOp(source=c.source, target=c.target, weight=path)
        return ConvOp(
            source=c.source,
            target=c.target,
            weight=path,
            shape=self.network.shape_of(c.source),
            stride=c.stride,
            padding=c.padding,
            dilation=c.dilation,
            groups=c.groups,
        )


def _check_reset(name: str, reset: NDArray, level: NDArray) -> None:
    """A spike brings the potential below its threshold.

    Raises:
        LoweringError: rounding brought both to the same code.
    """
    if np.any(reset >= level):
        raise LoweringError(
            f"{name}.v_reset",
            "is as high as the threshold: a neuron would spike again at once",
            got=int(reset.max()),
            allowed=f"below {int(level.min())}",
            fix="more bits for v, or a lower v_reset",
        )


_MEND = {
    "the synaptic current": ("i", "fewer bits for i, i_decay or the weights"),
    "decay * theta": ("theta", "fewer bits for theta or theta_decay"),
}
"""By sum that may overflow: the tensor to name, and what helps."""


def _prove(
    name: str, op: LifOp, weights: list[CodeTensor], neurons: dict[str, CodeTensor], network: LayeredNetwork
) -> None:
    """Every intermediate fits 31 bits even if all sources spike at once, as often as they may; theta * decay, which is
    unsigned, 32. Multiples of a threshold are compared one after the other, up to the first beyond the potential.

    Raises:
        LoweringError: with the bound that failed.
    """
    current = 0
    for c, tensor in zip(network.into(name), weights, strict=True):
        current += int(_row_sums(tensor).max()) * most_spikes(network, c.source)

    def top(path: str) -> int:
        return int(neurons[path].codes.max())

    level, slow, theta = top(op.threshold.tensor) << op.threshold.shift, 0, 0
    if op.current is not None:
        slow = -op.current.fmt.code_min * top(op.current.decay) + current
    if op.adaptation is not None:
        level += op.adaptation.fmt.code_max << op.adaptation.shift
        theta = op.adaptation.fmt.code_max * top(op.adaptation.decay)
    bounds = {
        "the input current": current << max(0, -op.input.shift),
        "decay * v": -op.v_fmt.code_min * top(op.leak.decay),
        "the synaptic current": slow,
        "the threshold": level + op.v_fmt.code_max,
        "decay * theta": theta,
    }
    for what, bound in bounds.items():
        limit = 1 << 32 if what == "decay * theta" else 1 << 31
        if bound >= limit:
            kind, fix = _MEND.get(what, ("v", "fewer bits for v, decay or the weights"))
            raise LoweringError(
                f"{name}.{kind}",
                f"the accumulator of {what} may overflow 32 bits",
                got=bound,
                allowed=f"below {limit}",
                fix=fix,
            )

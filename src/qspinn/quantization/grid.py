"""Steps, units and formats of layers: what turns their real numbers into codes and back.

Each channel counts its potential in units of its own weight step times a power of two. Calibrated here from weights and
ranges; training with quantization in the loop learns the steps on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import LARGEST_SIZE, frozen, integers, need_kind, reals
from qspinn.errors import LoweringError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.networks.layer_arrays import has_bias, layer_arrays, thresholds_of
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork, Leaky, Linear, Pool2d, Skip
from qspinn.networks.tensors import TensorPath
from qspinn.quantization.calibrators import Floats, potential_top
from qspinn.quantization.plan import Calibrator, Levels, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.quantization.units import fitting_shift
from qspinn.quantization.weights import channel_tops, nearest_power, weight_format

MOST_SHIFT = 31
"""Bits by which an input current may be shifted on its way to the potential."""


class LayerGrid(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Scales that turn the real numbers of a layer into codes and back.

    Attributes:
        step: weight step of each channel, float64 [C].
        shifts: potentials count in units of step * 2**shifts, int64 [C].

    Raises:
        LoweringError: a step is not above 0, a shift out of range, or there is not one of each for every channel.
    """

    step: Floats
    shifts: NDArray[np.int64]

    def __post_init__(self) -> None:
        step = reals(
            "grid.step", self.step, shape=(None,), low=1 / LARGEST_SIZE, high=LARGEST_SIZE, error=LoweringError
        )
        shifts = integers(
            "grid.shifts", self.shifts, shape=step.shape, low=-MOST_SHIFT, high=MOST_SHIFT, error=LoweringError
        )
        msgspec.structs.force_setattr(self, "step", frozen(np.array(step)))
        msgspec.structs.force_setattr(self, "shifts", frozen(np.array(shifts)))

    @property
    def unit(self) -> Floats:
        unit: Floats = self.step * 2.0**self.shifts
        return unit


def layer_grids(
    network: LayeredNetwork, params: Mapping[str, NDArray], rules: dict[str, QuantRule], ranges: LayerRanges
) -> dict[str, LayerGrid]:
    """Steps and shifts of every layer, calibrated by its rules.

    Raises:
        LoweringError: arrays or ranges do not belong to the network, or a layer has no grid that holds it.
    """
    arrays = layer_arrays(network, params)
    _check_ranges(network, ranges)
    return {layer.name: _layer_grid(network, arrays, layer, rules, ranges) for layer in network.layers}


def _layer_grid(
    network: LayeredNetwork,
    arrays: Mapping[str, Floats],
    layer: Layer,
    rules: dict[str, QuantRule],
    ranges: LayerRanges,
) -> LayerGrid:
    """Step and shift of every channel: what enters a step, what is reset to and the threshold at its highest observed
    value are in range, whatever the calibrator leaves out; one unit for all channels where the potential is read out.
    """
    step = _step(layer, real_weights(network, arrays, layer), rules)
    rule, neuron = rules[f"{layer.name}.v"], layer.neuron
    fmt = potential_format(rule)
    _check_rules(network, layer, rules)
    bias = 0.0 if neuron.current_decay is not None else np.abs(arrays.get(f"{layer.name}.bias", np.zeros(1)))
    reset = abs(neuron.v_reset) if neuron.reset == "value" else 0.0
    tops = np.maximum(max(potential_top(ranges, layer.name, rule), reset), bias) / step
    v_th = 0.0 * step
    if neuron.spiking:
        v_th = (thresholds_of(layer, arrays) + ranges.theta.get(layer.name, 0.0)) / step
    if rule.shared_step:
        if v_th.max() > fmt.code_max + 0.5 - neuron.strict:
            raise LoweringError(
                f"{layer.name}.v",
                "in steps of the weights the potential never reaches its threshold",
                got=float(v_th.max()),
                allowed=f"at most {fmt.code_max - neuron.strict} steps",
                fix="more accumulator_bits (or bits), or fewer bits for the weights",
            )
        return LayerGrid(step=step, shifts=np.zeros(len(step), np.int64))
    shifts = np.array(
        [_fitting(top, level, fmt, neuron.strict) for top, level in zip(np.maximum(tops, v_th), v_th, strict=True)]
    )
    if network.readout.source == layer.name and network.readout.of != "spikes":
        shifts = np.full_like(shifts, shifts.max())
    return _within_shifts(layer, step, shifts)


def _check_rules(network: LayeredNetwork, layer: Layer, rules: dict[str, QuantRule]) -> None:
    """The rules of a layer's states and bias have a meaning for its neurons.

    Raises:
        LoweringError: names the tensor.
    """
    name, rule = layer.name, rules[f"{layer.name}.v"]
    if rule.bits < 2:
        raise LoweringError(
            f"{name}.v",
            "signed potentials need two bits at least",
            got=rule.bits,
            allowed="2..16",
            fix=f'a rule of its own: tensor = "{name}.v", bits = 2',
        )
    if has_bias(network, name) and rules[f"{name}.bias"].bits < 2:
        raise LoweringError(
            f"{name}.bias",
            "signed biases need two bits at least",
            got=rules[f"{name}.bias"].bits,
            allowed="2..16",
            fix=f'a rule of its own: tensor = "{name}.bias", bits = 2',
        )
    if rule.calibrator is Calibrator.THRESHOLD and not layer.neuron.spiking:
        raise LoweringError(
            f"{name}.v",
            "has no threshold that could set the range of the potential",
            got=rule.calibrator.value,
            allowed="max, percentile, mse",
            fix=f'a rule of its own: tensor = "{name}.v", calibrator = "max"',
        )


def _fitting(top: float, v_th: float, fmt: QFormat, strict: bool) -> int:
    """The smallest shift at which the largest potential fits its format; and some potential above the threshold, where
    the threshold must be exceeded."""
    shift = fitting_shift(top, fmt.bits - 1)
    while strict and np.floor(v_th / 2.0**shift + 0.5) > fmt.code_max - 1:
        shift += 1
    return shift


def _within_shifts(layer: Layer, step: Floats, shifts: NDArray[np.int64]) -> LayerGrid:
    """The grid with shifts of at most MOST_SHIFT: a channel whose weights are smaller gets a larger step, in which they
    are what they are beside its threshold, nothing.

    Raises:
        LoweringError: the weights of all channels are so small, or those of one so large that no shift fits.
    """
    if shifts.min() > MOST_SHIFT or shifts.min() < -MOST_SHIFT:
        channel = int(shifts.argmin())
        raise LoweringError(
            f"{layer.name}.w",
            f"weights and potentials of channel {channel} are too far apart",
            got=f"a shift of {int(shifts[channel])}",
            allowed=f"-{MOST_SHIFT}..{MOST_SHIFT}",
            fix="look at the scale of the weights beside the threshold and the calibrated range",
        )
    far = np.maximum(shifts - MOST_SHIFT, 0)
    return LayerGrid(step=step * 2.0**far, shifts=shifts - far)


def _check_ranges(network: LayeredNetwork, ranges: LayerRanges) -> None:
    """The ranges speak of layers of this network.

    Raises:
        LoweringError: names a layer that the network does not have.
    """
    need_kind("ranges", ranges, LayerRanges)
    names = [layer.name for layer in network.layers]
    for field in ("v", "i", "theta", "sizes"):
        for name in getattr(ranges, field):
            if name not in names:
                raise LoweringError(
                    f"ranges.{field}.{name}",
                    "is no layer of this network",
                    allowed=", ".join(names),
                    fix="take the ranges of this network, from layer_ranges",
                )


def potential_format(rule: QuantRule) -> QFormat:
    """The format in which a step computes potentials."""
    return QFormat(bits=rule.accumulator_bits or rule.bits, signed=True)


def lower_bound(rule: QuantRule) -> int:
    """The least code of a potential within a step."""
    fmt = potential_format(rule)
    return -fmt.code_max if rule.levels is Levels.TERNARY and not rule.accumulator_bits else fmt.code_min


def store_format(rule: QuantRule) -> tuple[QFormat | None, int]:
    """Format of potentials between steps and its least code, where they have one of their own; else (None, 0)."""
    if not rule.accumulator_bits:
        return None, 0
    dropped = 0 if rule.shared_step else rule.accumulator_bits - rule.bits
    fmt = QFormat(bits=rule.bits, frac=-dropped, signed=True)
    return fmt, -fmt.code_max if rule.levels is Levels.TERNARY else fmt.code_min


def real_weights(network: LayeredNetwork, arrays: Mapping[str, Floats], layer: Layer) -> dict[str, Floats]:
    """The real weights of the connections into a layer, by path; the factor of an average is theirs.

    Args:
        arrays: from `layer_params.layer_arrays`.
    """
    weights = {}
    for c in network.into(layer.name):
        path, factor = network.weight_path(c), average_factor(network, c)
        weights[path] = np.full(layer.shape[0], c.weight * factor) if isinstance(c, Skip) else arrays[path] * factor
    return weights


def average_factor(network: LayeredNetwork, c: Linear | Conv2d | Skip) -> float:
    """Factor on the weights of a connection whose source is an average (perhaps of averages) where a sum is
    computed."""
    factor, source = 1.0, c.source
    while pool := next((p for p in network.connections if isinstance(p, Pool2d) and p.target == source), None):
        factor /= pool.kernel[0] * pool.kernel[1] if pool.of == "average" else 1
        source = pool.source
    return factor


def _step(layer: Layer, weights: dict[str, Floats], rules: dict[str, QuantRule]) -> Floats:
    """Weight step of each channel [C], shared by all connections into the layer: the largest that one of them needs,
    and a power of two where one needs that."""
    n_channels = layer.shape[0]
    steps: dict[str, Floats] = {}
    for path, w in weights.items():
        rule = rules[path]
        if rule.bits < 2 and rule.levels is not Levels.BINARY:
            raise LoweringError(
                path, "signed weights need two bits at least", got=rule.bits, fix='levels = "binary" for one bit'
            )
        # a channel is [N // C] neurons of a dense layer in a grid, or one row of a convolution
        _check_sizes(path, w.reshape(n_channels, -1))
        tops = channel_tops(path, w, rule, n_channels)
        _check_tops(path, np.abs(w.reshape(len(tops), -1)).max(axis=1), tops, rule)
        steps[path] = np.broadcast_to(tops / weight_format(rule).code_max, n_channels)
    step = np.max(list(steps.values()), axis=0)
    if steps_are_powers(layer.name, rules):
        step = nearest_power(step)
    if 0 < step.max() < 1 / LARGEST_SIZE:
        raise LoweringError(path, "a clip this small leaves no step", got=rules[path].clip, fix="a larger clip")
    return np.where(step > 0, step, step.max() if step.max() > 0 else 1.0)


def steps_are_powers(name: str, rules: Mapping[str, QuantRule]) -> bool:
    """Whether the weight steps of a layer are powers of two: lowering and training ask here."""
    return any(rule.power_of_two for path, rule in rules.items() if TensorPath.of(path)[:2] == (name, "w"))


def _check_tops(path: str, largest: Floats, tops: Floats, rule: QuantRule) -> None:
    """Weights that are not all 0 have a step, whichever of them the calibrator looks at.

    Raises:
        LoweringError: the calibrator's quantile of the weights is 0.
    """
    lost = (largest > 0) & (tops == 0)
    if lost.any():
        raise LoweringError(
            path,
            "most weights are 0, so this calibrator gives them no step",
            got=(f"{rule.calibrator.value} {rule.quantile:g}, largest weight {float(largest[lost][0]):.4g}"),
            allowed="a quantile above the share of zeros",
            fix='calibrator = "max", or a larger quantile',
        )


def _check_sizes(path: str, rows: Floats) -> None:
    """The weights of every channel are 0, or large enough to be divided by.

    Raises:
        LoweringError: names the channel.
    """
    tops = np.abs(rows).max(axis=1, initial=0.0)
    tiny = (tops > 0) & (tops < 1 / LARGEST_SIZE)
    if tiny.any():
        raise LoweringError(
            path,
            f"the weights of channel {int(tiny.argmax())} are too small to have a step",
            got=float(tops[tiny][0]),
            allowed=f"0, or sizes from {1 / LARGEST_SIZE:g}",
        )


def check_grids(network: LayeredNetwork, grids: Mapping[str, LayerGrid]) -> None:
    """Checks that every layer of a network has a grid, with a step for every channel.

    Raises:
        LoweringError: names the layer.
    """
    if not isinstance(grids, Mapping) or any(not isinstance(grid, LayerGrid) for grid in grids.values()):
        raise LoweringError(
            "grids", "is no table of grids by layer", got=type(grids).__name__, allowed="a dict of LayerGrid"
        )
    channels = {layer.name: layer.shape[0] for layer in network.layers}
    if grids.keys() != channels.keys():
        raise LoweringError(
            "grids",
            "does not have the layers of this network",
            got=", ".join(map(str, grids)),
            allowed=", ".join(channels),
        )
    for name, n in channels.items():
        if len(grids[name].step) != n:
            raise LoweringError(
                f"grids.{name}", "does not have a step for every channel", got=len(grids[name].step), allowed=str(n)
            )


def threshold_shift(v_th: Floats, unit: Floats, bits: int) -> int:
    """The shift that lets the largest threshold of a layer fit its codes."""
    return max(0, fitting_shift(float((v_th / unit).max()), bits))


def threshold_limits(neuron: Leaky, fmt: QFormat, shift: int, name: str) -> tuple[int, int]:
    """Least and largest code of a threshold: silence does not reach it, and some potential of the format does.

    Args:
        fmt: of the potentials.
        shift: from codes of the threshold to codes of the potential.

    Raises:
        LoweringError: there is no such code.
    """
    least, largest = int(not neuron.strict), (fmt.code_max - neuron.strict) >> shift
    if largest < least:
        raise LoweringError(
            f"{name}.v_th",
            "has no code that a potential reaches and silence does not",
            got=f"a shift of {shift} into {fmt.bits} bits",
            allowed=f"codes from {least}",
            fix="more bits for v_th, or for v",
        )
    return least, largest


def theta_shift(
    layer: Layer, ranges: LayerRanges, unit: Floats, rules: dict[str, QuantRule], theta_decay: Floats
) -> int:
    """The shift that lets the adaptive part of a layer's thresholds fit its codes, and one step fit its own: as far as
    it was seen to rise; without ranges, as far as it rises where a neuron spikes in every step. It is never so large
    that a step would round to 0.

    Args:
        theta_decay: decay factors of the thresholds, any shape.
    """
    neuron, rule = layer.neuron, rules[f"{layer.name}.theta_step"]
    step = np.asarray(neuron.theta_step)
    top = max(
        ranges.theta.get(layer.name, neuron.max_spikes * neuron.theta_step / (1 - float(theta_decay.max()))), step
    )
    shift = max(
        threshold_shift(np.asarray(top), unit, rules[f"{layer.name}.theta"].bits),
        threshold_shift(step, unit, rule.bits),
    )
    least = 0.5 if rule.rounding is Rounding.NEAREST else 1.0
    while shift > 0 and float(step) / float(unit.max()) / 2.0**shift < least:
        shift -= 1
    return shift


def bias_shift(bias: Floats, unit: Floats, bits: int) -> int:
    """The shift that lets the largest bias of a layer fit its signed codes."""
    return max(0, fitting_shift(float((np.abs(bias) / unit).max()), max(bits, 2) - 1))

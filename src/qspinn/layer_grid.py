"""Steps, units and formats of layers: what turns their real numbers into codes and back.

Each channel counts its potential in units of its own weight step times a power of two. Calibrated here from weights and
ranges; training with quantization in the loop learns the steps on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.calibrators import Floats, potential_top
from qspinn.errors import LoweringError
from qspinn.fixedpoint import QFormat
from qspinn.layers import Conv2d, Layer, LayeredNetwork, Linear, Pool2d, Skip
from qspinn.lower import fitting_shift
from qspinn.plan import Levels, QuantRule
from qspinn.ranges import LayerRanges
from qspinn.weight_codes import channel_tops, weight_format


class LayerGrid(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What turns the real numbers of a layer into codes and back.

    Attributes:
        step: weight step of each channel, float64 [C].
        shifts: potentials count in units of step * 2**shifts, int64 [C].
    """

    step: Floats
    shifts: NDArray[np.int64]

    @property
    def unit(self) -> Floats:
        unit: Floats = self.step * 2.0**self.shifts
        return unit


def layer_grids(
    network: LayeredNetwork, params: Mapping[str, NDArray], rules: dict[str, QuantRule], ranges: LayerRanges
) -> dict[str, LayerGrid]:
    """Steps and shifts of every layer, calibrated by its rules."""
    found = {}
    for layer in network.layers:
        weights = real_weights(network, params, layer)
        step = _step(layer, weights, rules)
        rule = rules[f"{layer.name}.v"]
        if rule.bits < 2:
            raise LoweringError(f"{layer.name}.v", "signed potentials need two bits at least", got=rule.bits)
        top = max(potential_top(ranges, layer.name, rule), layer.neuron.v_th if layer.neuron.spiking else 0.0)
        bias = 0.0 if layer.neuron.current_decay is not None else np.abs(params.get(f"{layer.name}.bias", 0.0))
        tops = np.maximum(top, bias) / step  # what enters in every step is in range, whatever the calibrator leaves out
        fmt = potential_format(rule)
        shifts = np.array([0 if rule.shared_step else fitting_shift(t, fmt.bits - 1) for t in tops])
        if layer.neuron.spiking and rule.shared_step and (layer.neuron.v_th / step).max() > fmt.code_max + 0.5:
            raise LoweringError(f"{layer.name}.v", "in steps of the weights the potential never reaches its threshold",
                                got=float((layer.neuron.v_th / step).max()), allowed=f"at most {fmt.code_max} steps",
                                fix="more accumulator_bits (or bits), or fewer bits for the weights")
        found[layer.name] = LayerGrid(step=step, shifts=shifts)
    return found


def potential_format(rule: QuantRule) -> QFormat:
    """The format in which a step computes potentials."""
    return QFormat(bits=rule.accumulator_bits or rule.bits, signed=True)


def lower_bound(rule: QuantRule) -> int:
    """The least code of a potential within a step."""
    fmt = potential_format(rule)
    return -fmt.code_max if rule.levels is Levels.TERNARY and not rule.accumulator_bits else fmt.code_min


def store_format(rule: QuantRule) -> tuple[QFormat | None, int]:
    """(format of potentials between steps, least code), where they have one of their own; else (None, 0)."""
    if not rule.accumulator_bits:
        return None, 0
    dropped = 0 if rule.shared_step else rule.accumulator_bits - rule.bits
    fmt = QFormat(bits=rule.bits, frac=-dropped, signed=True)
    return fmt, -fmt.code_max if rule.levels is Levels.TERNARY else fmt.code_min


def real_weights(network: LayeredNetwork, params: Mapping[str, NDArray], layer: Layer) -> dict[str, Floats]:
    """The real weights of the connections into a layer, by path; the factor of an average is theirs.

    Raises:
        LoweringError: an array is missing, not finite, or of the wrong shape.
    """
    found = {}
    for c in network.into(layer.name):
        path, factor = network.weight_path(c), average_factor(network, c)
        if isinstance(c, Skip):
            found[path] = np.full(layer.shape[0], c.weight * factor)
            continue
        if path not in params:
            raise LoweringError(path, "is not among the trained arrays", allowed=", ".join(sorted(params)))
        w = np.asarray(params[path], dtype=np.float64) * factor
        if w.shape != network.weight_shape(c):
            raise LoweringError(path, "has the wrong shape", got=w.shape, allowed=str(network.weight_shape(c)))
        if not np.isfinite(w).all():
            raise LoweringError(path, "holds NaN or infinity", fix="train again with a smaller learning rate")
        found[path] = w
    return found


def average_factor(network: LayeredNetwork, c: Linear | Conv2d | Skip) -> float:
    """What the weights of a connection are multiplied by because its source is an average (perhaps of averages) and a
    sum is computed."""
    factor, source = 1.0, c.source
    while (pool := next((p for p in network.connections if isinstance(p, Pool2d) and p.target == source), None)):
        factor /= pool.kernel[0] * pool.kernel[1] if pool.of == "average" else 1
        source = pool.source
    return factor


def _step(layer: Layer, weights: dict[str, Floats], rules: dict[str, QuantRule]) -> Floats:
    """Weight step of each channel [C], shared by all connections into the layer."""
    n_channels = layer.shape[0]
    steps = []
    for path, w in weights.items():
        rule = rules[path]
        if rule.bits < 2 and rule.levels is not Levels.BINARY:
            raise LoweringError(path, "signed weights need two bits at least", got=rule.bits,
                                fix='levels = "binary" for one bit')
        # a channel is [N // C] neurons of a dense layer in a grid, or one row of a convolution
        tops = channel_tops(path, w, rule, n_channels)
        steps.append(np.broadcast_to(tops / weight_format(rule).code_max, n_channels))
    step = np.max(steps, axis=0)
    found: Floats = np.where(step > 0, step, step.max() if step.max() > 0 else 1.0)
    return found


def threshold_shift(v_th: Floats, unit: Floats, bits: int) -> int:
    """The shift that lets the largest threshold of a layer fit its codes."""
    return max(0, fitting_shift(float((v_th / unit).max()), bits))


def theta_shift(layer: Layer, ranges: LayerRanges, unit: Floats, rules: dict[str, QuantRule]) -> int:
    """The shift that lets the adaptive part of a layer's thresholds fit its codes, and one step fit its own: as far as
    it was seen to rise; without ranges, as far as it rises where a neuron spikes in every step."""
    neuron = layer.neuron
    step = np.asarray(neuron.theta_step)
    top = max(ranges.theta.get(layer.name, neuron.max_spikes * neuron.theta_step / (1 - neuron.theta_decay)), step)
    return max(threshold_shift(np.asarray(top), unit, rules[f"{layer.name}.theta"].bits),
               threshold_shift(step, unit, rules[f"{layer.name}.theta_step"].bits))


def bias_shift(bias: Floats, unit: Floats, bits: int) -> int:
    """The shift that lets the largest bias of a layer fit its signed codes."""
    return max(0, fitting_shift(float((np.abs(bias) / unit).max()), max(bits, 2) - 1))

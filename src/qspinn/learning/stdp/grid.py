"""In-training quantization (ITQ): STDP on the grid. Weights, potentials, thresholds and traces are integers all along.

What the training loop computes in its forward step is what the resulting Program computes, code for code.

Two grids are offered by the plan's granularity of the weights:

- GLOBAL: weights on one power-of-two step; after each sample the weights into a neuron that spiked are rescaled to
  the declared sum, and rounded (one integer division per neuron and sample).
- PER_NEURON: weights are counts 0..2**bits - 1 in a unit of the neuron's own, norm / (sum of its codes). Rescaling the
  weights then only changes that unit, that is the neuron's threshold code: threshold * sum >> shift. No weight is ever
  rounded by normalization, which is what makes one and two bits trainable.

What each rounding does to STDP is shown in docs/numerics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import arrays
from qspinn.errors import ConfigError, DataError, LoweringError
from qspinn.fixedpoint import QFormat, Rounding, encode, requantize, stream_key
from qspinn.learning.stdp.grid_rates import THETA_SHIFT, Rates, need_constants, rates_of
from qspinn.learning.stdp.grid_rates import learning_rate_codes as learning_rate_codes
from qspinn.learning.stdp.training import (
    BLOCK,
    BOUNDS,
    Progress,
    StdpTraining,
    init_params,
    need_fit,
    plastic,
    sample_order,
)
from qspinn.networks import parameters
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Network, decay_factor
from qspinn.program import CodeTensor, Note, Program
from qspinn.program.ops import DenseOp, LifOp, Op, SelectOp, VoteOp
from qspinn.program.parts import Inhibition, InputShift, Leak, Reset, Threshold
from qspinn.quantization.competing import inhibition_code, kept_inputs, need_ranges, poisson_op, resolve, unsigned_codes
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.quantization.units import LOWERING_STREAM, STREAMS_PER_POPULATION, decay_codes, fitting_shift
from qspinn.spikes import Spikes

Codes = NDArray[np.int64]
TYPICAL_FILL = 0.3  # share of the largest possible column sum that thresholds are laid out for
HEADROOM = 1.2  # thresholds on the grid may end this much above those of the float network
ROUNDING = 1e-6
"""Share by which ranges may lie below what they were measured from: thresholds may have been floats of 32 bits."""
STREAM = STREAMS_PER_POPULATION


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One trace on the grid: set to `top`, then each step requantize(x * m, shift, mode)."""

    top: int
    m: int
    shift: int
    rounding: Rounding
    table: Codes


class GridModel(msgspec.Struct, kw_only=True, eq=False):
    """A population that learns on the grid. Arrays w, theta and sums change while training; the rest is fixed.

    Attributes:
        w: codes [N_post, N_pre]; theta: codes [N]; sums: column sums of w, [N].
        kept: 1 for the inputs that take part, [n_inputs].
        v_th: code of the fixed threshold in the unit in which theta counts (PER_NEURON) or v counts (GLOBAL).
        pre_shift, post_shift: right shifts in threshold * sum (PER_NEURON; a negative post_shift goes left).
        theta_shift: left shift of theta (GLOBAL).
        theta_delta: mV of one theta code.
    """

    network: Network
    plan: QuantPlan
    rules: dict[str, QuantRule]
    kept: NDArray[np.bool_]
    seed: int
    w: Codes
    theta: Codes
    sums: Codes
    per_neuron: bool
    c_max: int
    v_fmt: QFormat
    in_shift: int
    decay: int
    decay_shift: int
    inhibition: Codes
    inhibition_shift: int
    reset: Codes
    v_th: int
    pre_shift: int
    post_shift: int
    theta_shift: int
    theta_delta: float
    norm_code: int
    x_pre: Trace
    x_post: Trace
    samples_seen: int = 0

    def levels(self) -> Codes:
        """Threshold codes [N] that potentials are compared with now."""
        if self.per_neuron:
            level = requantize(
                (self.v_th + self.theta) * (self.sums >> self.pre_shift), self.post_shift, Rounding.TRUNCATE
            )
        else:
            level = self.v_th + (self.theta << self.theta_shift)
        # a code of at least 1: a neuron whose weights have all become 0 is silent, not above its threshold at rest
        return np.clip(level, 1, self.v_fmt.code_max)


def prepare(
    network: Network, plan: QuantPlan, ranges: Ranges, *, seed: int = 0, start: Trained | None = None
) -> GridModel:
    """The integer model before training: fresh weights, or those of a trained float network put on the grid.

    Raises:
        ConfigError: the plan misses a tensor (traces count) or asks for units per neuron that do not keep the sums of
            weights, the network is not one STDP trains, the seed is no 32-bit
            number, or `start` is another network.
        DataError: an array of `start` is missing, misshapen or not finite.
        LoweringError: potentials are signed, widths do not fit together, or the ranges are those of another network.
    """
    seed = arrays.integer("seed", seed, low=0, high=(1 << 32) - 1)
    arrays.need_kind("ranges", ranges, Ranges)
    arrays.need_kind("start", start, Trained | None)
    if start is not None and parameters.of_competing(start.network) != parameters.of_competing(network):
        raise ConfigError(
            "start.network",
            "is not of the network's size",
            got=start.network.name,
            fix="start from the network that was trained as this one is declared",
        )
    population, dense, lateral, stdp = plastic(network)
    rules = resolve(plan, network, learning=True)
    if plan.fold_theta:
        raise ConfigError(
            "plan.fold_theta",
            "makes one tensor of thresholds that no longer move: possible once learning is over",
            got=True,
            allowed="False while learning",
        )
    name, neuron = population.name, population.neuron
    need_ranges(network, ranges)
    rule = {kind: rules[f"{name}.{kind}"] for kind in ("w", "v", "v_th", "theta", "decay", "inhibition")}
    if neuron.v_min_mv < 0:
        raise LoweringError(
            f"{name}.v",
            "learning on the grid needs unsigned potentials",
            got=neuron.v_min_mv,
            fix="set neuron.v_min_mv = 0",
        )
    kept = kept_inputs(plan, ranges)
    params = start.need_whole().params if start else init_params(network, seed)
    w_float = np.asarray(params[f"{name}.w"], dtype=np.float64)[:, kept]
    theta_float = np.asarray(params[f"{name}.theta"], dtype=np.float64)
    _need_reach(name, ranges, neuron.v_th_mv + float(theta_float.max()))
    per_neuron = rule["w"].granularity is Granularity.PER_NEURON
    if per_neuron and not plan.keep_sum:
        raise ConfigError(
            "plan.keep_sum",
            "learning on the grid with a unit per neuron keeps the sums of weights",
            got=False,
            allowed="True",
        )
    if per_neuron and stdp.norm == 0:
        raise ConfigError(
            f"network.{name}.stdp.norm",
            "a unit per neuron keeps the sum of a neuron's weights what it is, and 0 asks for sums that move",
            got=stdp.norm,
            allowed="above 0",
            fix=f"norm above 0, or granularity = 'global' for {name}.w",
        )
    if rule["w"].clip != 1.0 and not (per_neuron and start is not None):
        raise ConfigError(
            f"plan: {name}.w: clip",
            "has no meaning for weights that learn on the grid: their largest code stands for w_max, or for all that "
            "a fresh neuron may have",
            got=rule["w"].clip,
            allowed="1.0; less for trained weights with a unit per neuron",
            fix="leave it out",
        )
    w = _initial_codes(w_float, rule["w"], dense.w_max, fresh=start is None, seed=seed)
    c_max = (1 << rule["w"].bits) - 1
    reach = ranges.threshold_max_mv[name] * HEADROOM
    norm = stdp.norm if stdp.norm > 0 else float(w_float.sum(axis=1).mean())
    delta_w = dense.w_max / (1 << rule["w"].bits)
    fill = (TYPICAL_FILL if start is None else float(w.sum(axis=1).max()) / (c_max * w.shape[1])) * c_max * w.shape[1]
    in_shift = fitting_shift(reach * fill / norm if per_neuron else reach / delta_w, rule["v"].bits)
    v_fmt = QFormat(bits=rule["v"].bits)
    layout = _threshold_layout(
        rule, reach, neuron.v_th_mv, norm * 2.0**in_shift, delta_w * 2.0**in_shift, per_neuron, c_max * w.shape[1]
    )
    theta, _ = encode(
        theta_float,
        QFormat(bits=rule["theta"].bits),
        rule["theta"].rounding,
        scale=layout["theta_delta"],
        key=stream_key(seed, STREAM + LOWERING_STREAM + 1, 0),
    )
    decay = decay_codes(decay_factor(neuron.tau_ms, network.dt_ms), rule["decay"])
    # One potential code is worth a different voltage in every neuron and while it learns, so inhibition and reset
    # that depend on it are only representable where a spike clears everybody to the resting potential.
    cleared = lateral.strength_mv >= reach
    if per_neuron and (neuron.v_reset_mv != 0 or not cleared):
        raise LoweringError(
            f"{name}.inhibition",
            "a unit per neuron that changes while learning needs reset to 0 and inhibition above every threshold",
            got=(neuron.v_reset_mv, lateral.strength_mv),
            allowed=f"v_reset_mv = 0, strength_mv >= {reach:.4g}",
        )
    unit = delta_w * 2.0**in_shift
    ratio = v_fmt.code_max if cleared else min(lateral.strength_mv / unit, float(v_fmt.code_max))
    code, inhibition_shift = inhibition_code(ratio, v_fmt.code_max, rule["inhibition"])
    dt = network.dt_ms
    norm_code = 0 if per_neuron or stdp.norm == 0 else round(stdp.norm / delta_w)
    if norm_code == 0 and stdp.norm > 0 and not per_neuron:
        raise LoweringError(
            f"network.{name}.stdp.norm",
            "vanishes: the sum is less than one step of the weights",
            got=stdp.norm,
            allowed=f"0, or at least {delta_w:.3g}",
            fix=f"more bits for {name}.w",
        )
    return GridModel(
        network=network,
        plan=plan,
        rules=rules,
        kept=kept,
        seed=seed,
        w=w,
        theta=theta,
        sums=w.sum(axis=1),
        per_neuron=per_neuron,
        c_max=c_max,
        v_fmt=v_fmt,
        in_shift=in_shift,
        decay=int(decay.codes[0]),
        decay_shift=rule["decay"].bits,
        inhibition=np.array([code << inhibition_shift]),
        inhibition_shift=inhibition_shift,
        reset=np.array([0 if per_neuron else round(neuron.v_reset_mv / unit)]),
        norm_code=norm_code,
        x_pre=_trace(stdp.tau_pre_ms, dt, network.n_steps, rules[f"{name}.x_pre"], rule["decay"]),
        x_post=_trace(stdp.tau_post_ms, dt, network.n_steps, rules[f"{name}.x_post"], rule["decay"]),
        **layout,
    )


def _need_reach(name: str, ranges: Ranges, threshold_mv: float) -> None:
    """Checks that ranges reach to the thresholds that learning starts from: formats are laid out for them, and lower
    ones would leave every threshold at its largest code.

    Raises:
        LoweringError: they do not, as those of another network.
    """
    reach = ranges.threshold_max_mv[name]
    if reach < threshold_mv * (1 - ROUNDING):
        raise LoweringError(
            f"ranges.threshold_max_mv.{name}",
            "lies below a threshold of the network",
            got=reach,
            allowed=f"{threshold_mv:.6g} mV or more",
            fix="calibrate this network on samples of its own",
        )


def _initial_codes(w: NDArray, rule: QuantRule, w_max: float, *, fresh: bool, seed: int) -> Codes:
    """Weights on the grid: trained ones as lowering would put them, fresh ones by stochastic rounding."""
    key = stream_key(seed, STREAM + LOWERING_STREAM, 0)
    if not fresh and rule.granularity is Granularity.PER_NEURON:
        return unsigned_codes(w, rule, keep_sum=True, key=key)[0].codes.astype(np.int64)
    c_max = (1 << rule.bits) - 1
    fmt = QFormat(bits=rule.bits)
    if rule.granularity is Granularity.PER_NEURON:
        return encode(w, fmt, Rounding.STOCHASTIC, scale=2 * float(w.max()) / c_max, key=key)[0]
    rounding = Rounding.STOCHASTIC if fresh else rule.rounding
    return encode(w, fmt, rounding, scale=w_max / (1 << rule.bits), key=key)[0]


def _threshold_layout(
    rule: Mapping[str, QuantRule],
    reach: float,
    v_th_mv: float,
    drive: float,
    v_unit: float,
    per_neuron: bool,
    largest_sum: int,
) -> dict[str, Any]:
    """Codes and shifts of v_th and theta; see `GridModel`. `drive` is norm * 2**in_shift."""
    bits = rule["theta"].bits
    top = (1 << bits) - 1
    if not per_neuron:
        shift = max(0, fitting_shift(reach / v_unit, bits))
        v_th_shift = max(0, fitting_shift(v_th_mv / v_unit, rule["v_th"].bits))
        code, _ = encode([v_th_mv / v_unit], QFormat(bits=rule["v_th"].bits, frac=-v_th_shift), rule["v_th"].rounding)
        return {
            "v_th": int(code[0]) << v_th_shift,
            "pre_shift": 0,
            "post_shift": 0,
            "theta_shift": shift,
            "theta_delta": v_unit * 2.0**shift,
        }
    pre_shift = max(0, largest_sum.bit_length() + bits + 1 - 31)
    exponent = math.floor(math.log2(drive * top / reach))
    delta = drive * 2.0**-exponent
    v_th_shift = max(0, fitting_shift(v_th_mv / delta, rule["v_th"].bits))
    code, _ = encode([v_th_mv / delta], QFormat(bits=rule["v_th"].bits, frac=-v_th_shift), rule["v_th"].rounding)
    return {
        "v_th": int(code[0]) << v_th_shift,
        "pre_shift": pre_shift,
        "post_shift": exponent - pre_shift,
        "theta_shift": 0,
        "theta_delta": delta,
    }


def _trace(tau_ms: float, dt_ms: float, n_steps: int, rule: QuantRule, decay_rule: QuantRule) -> Trace:
    """Trace of a rule; the table holds its value by age for the deterministic roundings."""
    top = (1 << rule.bits) - 1
    m = int(decay_codes(decay_factor(tau_ms, dt_ms), decay_rule).codes[0])
    table = np.empty(n_steps + 1, dtype=np.int64)
    table[0] = top
    deterministic = Rounding.TRUNCATE if rule.rounding is Rounding.STOCHASTIC else rule.rounding
    for age in range(n_steps):
        table[age + 1] = requantize(table[age] * m, decay_rule.bits, deterministic)
    return Trace(top=top, m=m, shift=decay_rule.bits, rounding=rule.rounding, table=table)


def fit(
    model: GridModel,
    spikes: Spikes,
    training: StdpTraining,
    *,
    learn_weights: bool = True,
    progress: Progress | None = None,
) -> None:
    """Trains the model in place on encoded samples of all inputs; deterministic by the model's seed.

    Args:
        learn_weights: off re-adapts only the thresholds (homeostasis) and leaves every weight as it is.

    Raises:
        DataError: there are no samples, or they are not what the network takes.
        LoweringError: a learning constant vanishes or grows on the grid, no update could ever change a weight or a
            threshold, or the input sum of a step could overflow; names the constant and what would fit.
    """
    arrays.need_kind("model", model, GridModel)
    arrays.need_kind("training", training, StdpTraining)
    need_fit(model.network, spikes)
    if spikes.n_samples == 0:
        raise DataError("training data", "hold no samples")
    rates = [_rates(model, training.rate(number)) for number in range(training.n_passes)]
    if rates:
        need_constants(rates[0], learn_weights)
    selected = spikes if model.kept.all() else spikes.select(model.kept)
    n, total = spikes.n_samples, spikes.n_samples * training.n_passes
    rows = _grid_rows(model)
    cols = model.w.astype(rows.dtype, order="C")  # another layout would be compiled apart, and be slower
    try:
        for number in range(training.n_passes):
            order = sample_order(n, model.seed, number)
            for at in range(0, n, BLOCK):
                block = order[at : at + BLOCK]
                _call(model, selected, block, rows, cols, rates[number], learn_weights)
                model.samples_seen += len(block)
                if progress:
                    progress(number * n + at + len(block), total)
    finally:  # theta and sums have moved along: what is interrupted keeps the weights that belong to them
        model.w = cols.astype(np.int64)


def _rates(model: GridModel, factor: float) -> Rates:
    """The learning constants of a pass as codes; factor is that of annealing."""
    population, dense, _, stdp = plastic(model.network)
    rule = {kind: model.rules[f"{population.name}.{kind}"] for kind in ("w", "theta", "x_pre")}
    reach = dense.w_max if stdp.bound == "hard" else 1.0  # hard bounds count in weights, others in shares of w_max
    return rates_of(
        population,
        stdp,
        factor,
        reach=reach,
        tops=(model.x_pre.top, model.x_post.top),
        rules=rule,
        theta_delta=model.theta_delta,
    )


def _grid_rows(model: GridModel) -> NDArray:
    """Weight codes as rows in the narrowest unsigned type."""
    from qspinn.compiled.competing import padded

    return padded(model.w.T, np.uint8 if model.c_max < 256 else np.uint16, 0)


def _call(
    model: GridModel, spikes: Spikes, order: Codes, rows: NDArray, cols: NDArray, rates: Rates, learn_weights: bool
) -> None:
    """One call of the compiled kernel."""
    from qspinn.compiled.competing import narrow_settings
    from qspinn.compiled.scalars import MODE
    from qspinn.learning.stdp.kernels.grid import run_grid

    population, _, _, stdp = plastic(model.network)
    name = population.name
    busiest = int(np.diff(spikes.offsets, axis=1).max(initial=0))
    left = max(0, -model.in_shift)
    if (busiest * model.c_max) << left >= 1 << min(16 + max(model.in_shift, 0), 30):
        raise LoweringError(
            f"{name}.v",
            "the input sum of one step may overflow",
            got=busiest * model.c_max << left,
            allowed=f"below {1 << min(16 + max(model.in_shift, 0), 30)}",
            fix="fewer bits for v",
        )
    v_kind = np.int16 if model.v_fmt.bits <= 15 else np.int32
    total_kind = np.int16 if (busiest * model.c_max) << left < 1 << 15 else np.int32
    settings = narrow_settings(model.v_fmt, model.in_shift, model.decay, model.decay_shift)
    v_rounding, w_rounding = (model.rules[f"{name}.{kind}"].rounding for kind in ("v", "w"))
    fused = (
        model.c_max < 256
        and v_kind is np.int16
        and total_kind is np.int16
        and left == 0
        and v_rounding is not Rounding.STOCHASTIC
    )
    largest = max(rates.post, rates.pre) * (max(model.x_pre.top, model.x_post.top) << rates.fine) * model.c_max
    small = w_rounding is Rounding.STOCHASTIC and largest < 1 << 30 and 1 <= rates.shift <= 30
    run_grid(
        spikes.offsets,
        spikes.index,
        order,
        rows,
        np.zeros(1, total_kind),
        cols,
        model.theta,
        model.sums,
        model.v_th,
        np.int32(model.reset[0]),
        np.int32(min(int(model.inhibition[0]), model.v_fmt.code_max)),
        np.zeros(1, v_kind),
        *settings,
        population.neuron.n_ref_steps,
        MODE[model.rules[f"{name}.v"].rounding],
        model.per_neuron,
        model.pre_shift,
        model.post_shift,
        model.theta_shift,
        (1 << model.rules[f"{name}.theta"].bits) - 1,
        model.v_fmt.code_max,
        rates.theta,
        THETA_SHIFT,
        MODE[model.rules[f"{name}.theta"].rounding],
        np.uint32(model.seed),
        STREAM,
        model.samples_seen,
        rates.post,
        rates.pre,
        rates.shift,
        rates.fine,
        rates.offset,
        BOUNDS[stdp.bound],
        model.c_max,
        MODE[model.rules[f"{name}.w"].rounding],
        *_trace_arguments(model.x_pre),
        *_trace_arguments(model.x_post),
        model.norm_code,
        learn_weights,
        left,
        fused,
        small,
    )


def _trace_arguments(trace: Trace) -> tuple:
    from qspinn.compiled.scalars import MODE

    return trace.table, trace.top, trace.m, trace.shift, MODE[trace.rounding]


def to_program(
    model: GridModel, votes: CodeTensor, *, labels: tuple[str, ...] = (), provenance: dict[str, Any] | None = None
) -> Program:
    """The Program that the model has become; its forward step is the one that training ran."""
    population, _, _, _ = plastic(model.network)
    name = population.name
    rule = model.rules
    tensors: dict[str, CodeTensor] = {
        f"{name}.w": CodeTensor(codes=model.w.astype(np.int32), fmt=QFormat(bits=rule[f"{name}.w"].bits)),
        f"{name}.decay": CodeTensor(
            codes=np.array([model.decay], dtype=np.int32), fmt=QFormat(bits=model.decay_shift, frac=model.decay_shift)
        ),
        f"{name}.v_reset": CodeTensor(codes=model.reset.astype(np.int32), fmt=model.v_fmt),
        "readout.votes": votes,
    }
    tensors[f"{name}.inhibition"] = CodeTensor(
        codes=(model.inhibition >> model.inhibition_shift).astype(np.int32),
        fmt=QFormat(bits=rule[f"{name}.inhibition"].bits, frac=-model.inhibition_shift),
    )
    tensors[f"{name}.v_th"] = CodeTensor(codes=model.levels().astype(np.int32), fmt=model.v_fmt)
    ops: list[Op] = [poisson_op(model.network, model.seed)]
    source = "input"
    if not model.kept.all():
        tensors["input.kept"] = CodeTensor(codes=model.kept.astype(np.int32), fmt=QFormat(bits=1))
        ops.append(SelectOp(source="input", target="kept", kept="input.kept"))
        source = "kept"
    ops += [
        DenseOp(source=source, target=name, weight=f"{name}.w"),
        LifOp(
            name=name,
            n=population.n,
            v_fmt=model.v_fmt,
            v_min=0,
            rounding=rule[f"{name}.v"].rounding,
            leak=Leak(decay=f"{name}.decay", shift=model.decay_shift),
            input=InputShift(shift=model.in_shift),
            threshold=Threshold(tensor=f"{name}.v_th"),
            reset=Reset(tensor=f"{name}.v_reset"),
            n_ref=population.neuron.n_ref_steps,
            winner=True,
            stream=STREAM,
            inhibition=Inhibition(tensor=f"{name}.inhibition", shift=model.inhibition_shift),
        ),
        VoteOp(source=name, votes="readout.votes"),
    ]
    return Program(
        name=model.network.name,
        n_inputs=model.network.input.n,
        n_steps=model.network.n_steps,
        seed=model.seed,
        ops=tuple(ops),
        tensors=tensors,
        labels=labels,
        provenance={} if provenance is None else provenance,
        notes=_silent_notes(model, name),
    )


def _silent_notes(model: GridModel, name: str) -> tuple[Note, ...]:
    """Notes of neurons with a unit of their own whose weights have all become 0: they never spike."""
    silent = int(np.count_nonzero(model.sums == 0)) if model.per_neuron else 0
    n_inputs = model.w.shape[1]
    problem = "STDP (eta_post, eta_pre, x_offset) took all weights from neurons, which never spike:"
    return (Note(path=f"{name}.w", problem=problem, count=silent * n_inputs, total=model.w.size),) if silent else ()

"""Lowering of a trained network of competing populations, with plan and ranges, to an integer program.

Each population counts its potential in units of its own weight step times a power of two, so a step per neuron costs
no multiplier at run time: thresholds, inhibition and reset are divided by that unit here, once.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import LARGEST_SIZE, integer, need_kind, reals
from qspinn.errors import LoweringError
from qspinn.fixedpoint import MAX_BITS, QFormat, Rounding, encode, stream_key
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Lif, Network, Population, decay_factor
from qspinn.program import CodeTensor, Program
from qspinn.program.ops import DenseOp, LifOp, PoissonOp, SelectOp, VoteOp, spread
from qspinn.program.parts import Inhibition, InputShift, Leak, Offset, Reset, Threshold
from qspinn.quantization.assembly import Parts
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import WIDE_BITS, Granularity, QuantPlan, QuantRule, chosen_rules
from qspinn.quantization.ranges import Ranges, calibrate
from qspinn.quantization.units import LOWERING_STREAM, STREAMS_PER_POPULATION, decay_codes, fitting_shift
from qspinn.spikes import Spikes

Floats = NDArray[np.float64]


def poisson_op(network: Network, seed: int) -> PoissonOp:
    """The integer encoder of the declared Poisson input.

    Raises:
        LoweringError: rate and step would need a spike probability above 1.
    """
    need_kind("network", network, Network)
    integer("seed", seed, low=0, high=(1 << 32) - 1)
    per_level = round(network.input.rate_hz * network.dt_ms / 1000 / 255 * 2**32)
    if per_level < 1:
        least = 1000 / network.dt_ms * 255 / 2**32
        raise LoweringError(
            "network.input.rate_hz",
            "is so small that no input ever spikes",
            got=network.input.rate_hz,
            allowed=f"from {least:.3g} Hz at dt = {network.dt_ms:g} ms",
        )
    if per_level * 255 >= 1 << 32:
        raise LoweringError(
            "network.input.rate_hz",
            "more than one spike per step",
            got=network.input.rate_hz,
            allowed=f"below {1000 / network.dt_ms:g} Hz at dt = {network.dt_ms:g} ms",
        )
    return PoissonOp(per_level=per_level, seed=seed)


def lower(
    trained: Trained,
    plan: QuantPlan,
    ranges: Ranges,
    *,
    seed: int = 0,
    labels: tuple[str, ...] = (),
    provenance: dict[str, Any] | None = None,
) -> Program:
    """The integer program of a trained network under a plan.

    Raises:
        ConfigError: the plan does not fit the network's tensors.
        LoweringError: an accumulator could overflow 32 bits, or a tensor is missing or not finite.
    """
    for where, x, kind in (("trained", trained, Trained), ("plan", plan, QuantPlan), ("ranges", ranges, Ranges)):
        need_kind(where, x, kind)
    integer("seed", seed, low=0, high=(1 << 32) - 1)
    network, rules = trained.network, resolve(plan, trained.network)
    need_ranges(network, ranges)
    parts = Parts.beginning(poisson_op(network, seed))
    source = "input"
    kept = kept_inputs(plan, ranges)
    if not kept.all():
        mask = CodeTensor(codes=kept.astype(np.int32), fmt=QFormat(bits=1))
        parts.add({"input.kept": mask}, [SelectOp(source="input", target="kept", kept="input.kept")])
        source = "kept"
    for number, population in enumerate(network.populations):
        dense = network.dense_into(population.name)
        path = f"{population.name}.w"
        w = _array(trained, path, (population.n, network.size_of(dense.source)))
        from_input = dense.source == "input"
        w = w[:, kept] if from_input and source == "kept" else w
        stream = STREAMS_PER_POPULATION * (number + 1)
        tensors, op = _lower_population(trained, population, w, rules, plan, seed, stream)
        whole = tensors[op.threshold.tensor].codes
        tensors = _reachable(op, tensors)
        parts.add_note(
            op.threshold.tensor,
            "brought to a threshold that silence does not reach and a potential does",
            int(np.count_nonzero(whole != tensors[op.threshold.tensor].codes)),
            whole.size,
        )
        _prove_accumulator(op, tensors)
        connection = DenseOp(source=source if from_input else dense.source, target=population.name, weight=path)
        parts.add(tensors, [connection, op])
        parts.add_clipped(path, _n_clipped(w, rules[path], tensors[path].fmt), w.size)
    votes = _unit_interval_codes(readout_votes(trained), rules["readout.votes"])
    parts.add({"readout.votes": votes}, [VoteOp(source=network.readout.source, votes="readout.votes")])
    return parts.program(network, seed=seed, labels=labels, provenance=provenance)


def quantize(trained: Trained, plan: QuantPlan, spikes: Spikes, *, seed: int = 0) -> Program:
    """The integer program of a trained network: calibrated on encoded samples, then lowered.

    This is post-training quantization in one call; see `lower` for the errors.
    """
    return lower(trained, plan, calibrate(trained, spikes), seed=seed)


def need_ranges(network: Network, ranges: Ranges) -> None:
    """Checks that ranges speak of the inputs and the populations of a network, and of all of them.

    Raises:
        LoweringError: names the entry that is not there, or too many.
    """
    fix = "calibrate this network on samples of its own"
    if len(ranges.input_rate) != network.input.n:
        raise LoweringError(
            "ranges.input_rate",
            "does not match the network's inputs",
            got=len(ranges.input_rate),
            allowed=str(network.input.n),
            fix=fix,
        )
    names = [p.name for p in network.populations]
    given = ranges.threshold_max_mv.keys()
    for strange in sorted(given ^ set(names)):
        raise LoweringError(
            f"ranges.threshold_max_mv.{strange}",
            "is no population of this network" if strange in given else "is missing",
            got=sorted(given),
            allowed=", ".join(names),
            fix=fix,
        )


def kept_inputs(plan: QuantPlan, ranges: Ranges) -> NDArray[np.bool_]:
    """Mask of the inputs that spike often enough to take part, bool [n_inputs].

    Raises:
        LoweringError: none does.
    """
    need_kind("plan", plan, QuantPlan)
    need_kind("ranges", ranges, Ranges)
    kept = np.asarray(ranges.input_rate) >= plan.min_input_rate
    if not kept.any():
        raise LoweringError(
            "plan.min_input_rate",
            "leaves no input",
            got=plan.min_input_rate,
            allowed=f"below {float(np.max(ranges.input_rate)):.3g}",
        )
    return kept


def _array(trained: Trained, path: str, shape: tuple[int, ...]) -> Floats:
    """The array at path, checked for shape and finiteness."""
    if path not in trained.params:
        raise LoweringError(path, "is not among the trained arrays", allowed=", ".join(sorted(trained.params)))
    array = np.asarray(trained.params[path], dtype=np.float64)
    if array.shape != shape:
        raise LoweringError(path, "has the wrong shape", got=array.shape, allowed=str(shape))
    if not np.isfinite(array).all():
        raise LoweringError(path, "holds NaN or infinity", fix="train again with a smaller learning rate")
    return reals(path, array, low=-LARGEST_SIZE, high=LARGEST_SIZE, error=LoweringError)


def unsigned_codes(
    w: Floats, rule: QuantRule, *, keep_sum: bool, key: int = 0, path: str = "w"
) -> tuple[CodeTensor, Floats]:
    """Codes [N_post, N_pre] of non-negative weights, and unit [N_post] in mV per code.

    GLOBAL: one power-of-two step, 2**-bits of the smallest power of two that clip * max does not exceed; the largest
    code is one step below that power. PER_NEURON: levels 0..clip * max of the neuron's weights;
    with keep_sum the unit is then sum(w) / sum(codes), so the neuron's total drive is what it was. Where all weights of
    a neuron are 0, its unit is the largest one of the others.
    """
    if w.min(initial=0.0) < 0:
        raise LoweringError(
            path,
            "negative weights are not covered by unsigned formats",
            got=float(w.min()),
            allowed="weights of 0 and above",
        )
    tops = w.max(axis=1, initial=0.0)
    tiny = (tops > 0) & (tops * rule.clip < 1 / LARGEST_SIZE)
    if tiny.any():
        raise LoweringError(
            path,
            f"the weights of neuron {int(tiny.argmax())} are too small to have a step",
            got=float(tops[tiny][0]),
            allowed=f"0, or sizes from {1 / LARGEST_SIZE:g} (times clip)",
        )
    if rule.granularity is Granularity.GLOBAL:
        top = float(w.max(initial=0.0)) * rule.clip or 1.0
        fmt = QFormat(bits=rule.bits, frac=rule.bits - math.ceil(math.log2(top)))
        codes, _ = encode(w, fmt, rule.rounding, key=key)
        return CodeTensor(codes=codes.astype(np.int32), fmt=fmt), np.full(len(w), fmt.delta)
    fmt = QFormat(bits=rule.bits)
    top_of = w.max(axis=1) * rule.clip
    unit = np.where(top_of > 0, top_of, top_of.max(initial=0.0) or 1.0) / fmt.code_max
    codes, _ = encode(w, fmt, rule.rounding, scale=unit[:, None], key=key)
    total = codes.sum(axis=1)
    if keep_sum:
        unit = np.where((total > 0) & (w.sum(axis=1) > 0), w.sum(axis=1) / np.maximum(total, 1), unit)
    return CodeTensor(codes=codes.astype(np.int32), fmt=fmt), unit


def _without_faint(weights: CodeTensor, unit: Floats, reach: Floats, threshold: Floats) -> tuple[CodeTensor, Floats]:
    """Codes and units of neurons that have units of their own, in which the thresholds of neurons that can never reach
    them take no more room than those of the others.

    One shift serves all potentials, so without this the threshold of a nearly dead neuron, huge in its tiny unit, would
    leave no code for those of the others. Its unit is enlarged by a power of two, and its weights lose these bits:
    it stays silent as it was.

    Args:
        reach: the largest potential that the weights of each neuron can bring about, every input spiking in every step.
    """
    ratio, faint = threshold / unit, reach < threshold
    if not faint.any() or faint.all():
        return weights, unit
    factor = ratio / ratio[~faint].max()
    by = np.where(faint & (factor > 1), np.ceil(np.log2(factor)), 0.0).astype(np.int64)
    codes = weights.codes >> np.minimum(by, MAX_BITS - 1)[:, None]
    return CodeTensor(codes=codes.astype(np.int32), fmt=weights.fmt), unit * 2.0**by


def _n_clipped(w: Floats, rule: QuantRule, fmt: QFormat) -> int:
    """How many weights lie more than half a step beyond the value of the largest code."""
    step = w.max(axis=1, keepdims=True) * rule.clip / fmt.code_max
    step = np.full_like(step, fmt.delta) if rule.granularity is Granularity.GLOBAL else step
    return int(np.count_nonzero(w > (fmt.code_max + 0.5) * step))


class _Coder(msgspec.Struct):
    """Encodes a population's potentials: real mV over the unit of each neuron, at a common power-of-two shift."""

    unit: Floats
    uniform: bool
    seed: int
    stream: int

    def potential(self, mv: Floats, rule: QuantRule) -> tuple[CodeTensor, int]:
        """(codes, left shift) of a potential that must fit rule.bits; [1] where all neurons share one value."""
        ratio = np.broadcast_to(mv, self.unit.shape) / self.unit
        if self.uniform and np.all(ratio == ratio[0]):
            ratio = ratio[:1]
        shift = max(0, fitting_shift(float(ratio.max(initial=0.0)), rule.bits))
        self.stream += 1
        codes, _ = encode(
            ratio, QFormat(bits=rule.bits, frac=-shift), rule.rounding, key=stream_key(self.seed, self.stream, 0)
        )
        return CodeTensor(codes=codes.astype(np.int32), fmt=QFormat(bits=rule.bits, frac=-shift)), shift


def _lower_population(
    trained: Trained,
    population: Population,
    w: Floats,
    rules: dict[str, QuantRule],
    plan: QuantPlan,
    seed: int,
    stream: int,
) -> tuple[dict[str, CodeTensor], LifOp]:
    """The tensors and the operation of one population of LIF neurons."""
    name, neuron = population.name, population.neuron
    rule = {kind: rules.get(f"{name}.{kind}") for kind in ("w", "v", "v_th", "theta", "decay", "inhibition")}
    w_rule, v_rule = rules[f"{name}.w"], rules[f"{name}.v"]
    weights, w_unit = unsigned_codes(
        w, w_rule, keep_sum=plan.keep_sum, key=stream_key(seed, stream + LOWERING_STREAM, 0), path=f"{name}.w"
    )
    theta = _array(trained, f"{name}.theta", (population.n,))
    if theta.min() < 0:
        raise LoweringError(f"{name}.theta", "holds a negative value", got=float(theta.min()), allowed="0 and above")
    threshold = neuron.v_th_mv + theta
    if w_rule.granularity is not Granularity.GLOBAL:
        leak = 1.0 - decay_factor(neuron.tau_ms, trained.network.dt_ms)
        reach = w.sum(axis=1) / max(leak, 1.0 / trained.network.n_steps)
        weights, w_unit = _without_faint(weights, w_unit, reach, threshold)
    v_fmt, in_shift = _potential_format(neuron, threshold / w_unit, v_rule.bits, w_unit)
    unit = w_unit * 2.0**in_shift
    uniform = w_rule.granularity is Granularity.GLOBAL
    coder = _Coder(unit=unit, uniform=uniform, seed=seed, stream=stream + LOWERING_STREAM)
    tensors = {f"{name}.w": weights}

    def put(kind: str, mv: Floats, own: QuantRule | None) -> int:
        assert own is not None
        tensors[f"{name}.{kind}"], shift = coder.potential(mv, own)
        return shift

    v_th_shift = put("v_th", threshold if plan.fold_theta else np.full(population.n, neuron.v_th_mv), rule["v_th"])
    offset = None
    if not plan.fold_theta:
        offset = Offset(tensor=f"{name}.theta", shift=put("theta", theta, rule["theta"]))
    lateral = trained.network.lateral_of(name)
    inhibition_shift = 0
    if lateral is not None:
        span = v_fmt.code_max - v_fmt.code_min
        if np.all(lateral.strength_mv >= span * unit):
            own = rules[f"{name}.inhibition"]
            code, inhibition_shift = inhibition_code(float(span), span, own)
            tensors[f"{name}.inhibition"] = CodeTensor(
                codes=np.array([code], dtype=np.int32), fmt=QFormat(bits=own.bits, frac=-inhibition_shift)
            )
        else:  # more than the whole range clears v all the same
            inhibition_shift = put("inhibition", np.minimum(lateral.strength_mv, span * unit), rule["inhibition"])
    reset, outside = encode(np.full(population.n, neuron.v_reset_mv), v_fmt, scale=unit)
    if outside:
        raise LoweringError(
            f"{name}.v_reset",
            "does not fit the potential's format",
            got=neuron.v_reset_mv,
            allowed=str(v_fmt),
            fix="more bits for v, or v_min_mv <= v_reset_mv < v_th_mv",
        )
    tensors[f"{name}.v_reset"] = CodeTensor(
        codes=(reset[:1] if np.all(reset == reset[0]) else reset).astype(np.int32), fmt=v_fmt
    )
    decay_rule = rules[f"{name}.decay"]
    tensors[f"{name}.decay"] = decay_codes(decay_factor(neuron.tau_ms, trained.network.dt_ms), decay_rule)
    op = LifOp(
        name=name,
        n=population.n,
        v_fmt=v_fmt,
        v_min=_lower_bound(name, neuron, unit, v_fmt),
        rounding=v_rule.rounding,
        leak=Leak(decay=f"{name}.decay", shift=decay_rule.bits),
        input=InputShift(shift=in_shift),
        threshold=Threshold(tensor=f"{name}.v_th", shift=v_th_shift),
        reset=Reset(tensor=f"{name}.v_reset"),
        n_ref=neuron.n_ref_steps,
        winner=lateral is not None,
        stream=stream,
        theta=offset,
        inhibition=None if lateral is None else Inhibition(tensor=f"{name}.inhibition", shift=inhibition_shift),
    )
    return tensors, op


def _lower_bound(name: str, neuron: Lif, unit: Floats, v_fmt: QFormat) -> int:
    """The least code of a potential: the declared bound in potential units, where the format reaches so far.

    Raises:
        LoweringError: neurons with units of their own would need different codes.
    """
    if neuron.v_min_mv >= 0:
        return 0
    codes = np.maximum(np.floor(neuron.v_min_mv / unit + 0.5), v_fmt.code_min)
    if codes.min() != codes.max():
        raise LoweringError(
            f"{name}.v",
            "v_min_mv is another code for every neuron, as each has a unit of its own",
            got=f"codes {int(codes.min())} to {int(codes.max())}",
            allowed="one code for all",
            fix="granularity = 'global' for w, or v_min_mv = 0",
        )
    return int(codes[0])


def inhibition_code(ratio: float, span: int, rule: QuantRule) -> tuple[int, int]:
    """Code and left shift of an inhibition of `ratio` potential codes; the top code where it spans the whole range: a
    spike then clears everybody."""
    top = (1 << rule.bits) - 1
    if ratio >= span:
        return top, max(0, (span // top).bit_length())
    shift = max(0, fitting_shift(ratio, rule.bits))
    code, _ = encode([ratio], QFormat(bits=rule.bits, frac=-shift), rule.rounding)
    return int(code[0]), shift


def _potential_format(neuron: Lif, threshold: Floats, bits: int, w_unit: Floats) -> tuple[QFormat, int]:
    """(format of v, in_shift): as many guard bits as the largest threshold, and the lower bound, leave room for."""
    if neuron.v_min_mv >= 0:
        return QFormat(bits=bits), fitting_shift(float(threshold.max()), bits)
    if bits < 2:
        raise LoweringError(
            "v",
            "a potential with negative values needs 2 bits at least",
            got=bits,
            fix="raise the bits of v, or set v_min_mv = 0",
        )
    reach = max(float(threshold.max()), float((-neuron.v_min_mv / w_unit).max()))
    return QFormat(bits=bits, signed=True), fitting_shift(reach, bits - 1)


def readout_votes(trained: Trained) -> Floats:
    """Votes [N, n_classes] in [0, 1] from the mean responses, by the declared rule; silent neurons have none."""
    need_kind("trained", trained, Trained)
    readout = trained.network.readout
    n = trained.network.population(readout.source).n
    responses = _array(trained, "readout.responses", (n, readout.n_classes))
    if responses.min() < 0:
        raise LoweringError(
            "readout.responses",
            "holds a negative response",
            got=float(responses.min()),
            allowed="mean spike counts: 0 and above",
        )
    total = responses.sum(axis=1, keepdims=True)
    if readout.rule == "proportion":
        return np.divide(responses, total, out=np.zeros_like(responses), where=total > 0)
    best = np.zeros_like(responses)
    best[np.arange(n), responses.argmax(axis=1)] = total[:, 0] > 0
    return best / np.maximum(best.sum(axis=0), 1)


def _unit_interval_codes(x: Floats, rule: QuantRule) -> CodeTensor:
    """Non-negative x scaled so that the largest value takes the largest code; scores keep their order."""
    fmt = QFormat(bits=rule.bits)
    top = float(x.max(initial=0.0)) * rule.clip or 1.0
    codes, _ = encode(x, fmt, rule.rounding, scale=top / fmt.code_max)
    return CodeTensor(codes=codes.astype(np.int32), fmt=fmt)


def _reachable(op: LifOp, tensors: dict[str, CodeTensor]) -> dict[str, CodeTensor]:
    """The tensors with thresholds that silence does not reach and some potential does: rounding of v_th and theta may
    have brought a code to 0, or their sum above the largest potential.

    Raises:
        LoweringError: there are no such codes, or a neuron would spike again at once after a spike.
    """
    top, v_th = op.v_fmt.code_max, tensors[op.threshold.tensor]
    most = top >> op.threshold.shift
    if most < 1:
        raise LoweringError(
            f"{op.name}.v_th",
            "has no code that a potential reaches and silence does not",
            got=f"a shift of {op.threshold.shift} into {op.v_fmt}",
            allowed="codes from 1",
            fix="more bits for v_th, or for v",
        )
    changed = {op.threshold.tensor: np.clip(v_th.codes, 1, most)}
    level = spread(changed[op.threshold.tensor], op.n) << op.threshold.shift
    if op.offset is not None:
        theta = spread(tensors[op.offset.tensor].codes, op.n)
        changed[op.offset.tensor] = np.minimum(theta, top - level >> op.offset.shift)
        level = level + (changed[op.offset.tensor] << op.offset.shift)
    reset = spread(tensors[op.reset.tensor].codes, op.n)
    if np.any(level <= reset):
        raise LoweringError(
            f"{op.name}.v_reset",
            "is as high as the threshold: a neuron would spike again at once",
            got=int(reset.max()),
            allowed=f"below {int(level[(level <= reset).argmax()])}",
            fix="more bits for v, or a lower v_reset",
        )
    return tensors | {
        name: CodeTensor(codes=codes.astype(np.int32), fmt=tensors[name].fmt)
        for name, codes in changed.items()
        if np.any(codes != tensors[name].codes)
    }


def _prove_accumulator(op: LifOp, tensors: dict[str, CodeTensor]) -> None:
    """Every intermediate of the step fits 32 bits even if all inputs spike at once: the decay product unsigned where
    potentials are unsigned, everything else signed.

    Raises:
        LoweringError: with the bound that failed.
    """
    signed_limit = (1 << 31) - 1
    decay = int(tensors[op.leak.decay].codes.max())
    current = int(np.abs(tensors[f"{op.name}.w"].codes.astype(np.int64)).sum(axis=1).max())
    bounds = {
        "decay * v": max(op.v_fmt.code_max, -op.v_fmt.code_min) * decay + (1 << op.leak.shift) - 1,
        "input current": (current << max(0, -op.input.shift)) + (1 << max(0, op.input.shift)) + op.v_fmt.code_max,
        "threshold": sum(int(tensors[part.tensor].codes.max()) << part.shift for part in op.constant_threshold),
    }
    for what, bound in bounds.items():
        limit = (1 << 32) - 1 if what == "decay * v" and not op.v_fmt.signed else signed_limit
        if bound > limit:
            raise LoweringError(
                f"{op.name}.v",
                f"the accumulator of {what} may overflow 32 bits",
                got=bound,
                allowed=f"at most {limit}",
                fix="fewer bits for v, decay or the weights",
            )
    if max(op.input.shift, op.leak.shift) > 31:
        raise LoweringError(
            f"{op.name}.v",
            "input is shifted out of the potential",
            got=op.input.shift,
            allowed="<= 31",
            fix="more bits for v",
        )


def resolve(plan: QuantPlan, network: Network, *, learning: bool = False) -> dict[str, QuantRule]:
    """The rule of every tensor path of a network of competing populations; see `chosen_rules` for the errors."""
    return chosen_rules(
        plan, tensor_paths(network, learning=learning), tensor_paths(network, learning=True), Granularity.PER_NEURON
    )


def wide_plan(network: Network, *, rounding: Rounding = Rounding.NEAREST) -> QuantPlan:
    """Every tensor at 16 bits: the integer stand-in for the float network in single-group sweeps."""
    rules = tuple(QuantRule(tensor=p, bits=WIDE_BITS, rounding=rounding) for p in tensor_paths(network, learning=True))
    return QuantPlan(rules=rules)

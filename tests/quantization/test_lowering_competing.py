"""The border between floats and integers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from qspinn.errors import ConfigError, DataError, LoweringError
from qspinn.fixedpoint import QFormat, Rounding, decode
from qspinn.learning.stdp.training import respond
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lif, Network, PoissonInput, Population, VoteReadout
from qspinn.networks.models import diehl_cook
from qspinn.program.constants import thresholds
from qspinn.program.ops import DenseOp, LifOp, PoissonOp, SelectOp, VoteOp
from qspinn.quantization.competing import lower, poisson_op, readout_votes, unsigned_codes
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges, calibrate
from qspinn.quantization.units import decay_codes, fitting_shift
from qspinn.runtime import reference
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.spikes import Spikes
from qspinn.testing.contract import check_equal

PER_NEURON = Granularity.PER_NEURON
Make = Callable[..., Trained]


def plan_of(*rules: QuantRule, bits: int = 16, **settings: object) -> QuantPlan:
    return QuantPlan(rules=(*rules, QuantRule(tensor="*", bits=bits)), **settings)


@pytest.mark.parametrize(
    "tensor", ["exc.w", "exc.v", "exc.v_th", "exc.theta", "exc.decay", "exc.inhibition", "readout.votes", "*"]
)
@pytest.mark.parametrize("per_neuron", [False, True])
def test_every_width_of_every_tensor_lowers_and_runs(
    tensor: str,
    per_neuron: bool,
    tiny: Network,
    make_trained: Make,
    make_ranges: Callable[[Network], Ranges],
    make_spikes: Callable[..., Spikes],
) -> None:
    trained, spikes = make_trained(tiny), make_spikes(12)
    for bits in range(1, 17):
        weight = (
            ()
            if not per_neuron
            else (QuantRule(tensor="exc.w", bits=bits if tensor in ("exc.w", "*") else 16, granularity=PER_NEURON),)
        )
        one = () if tensor == "exc.w" and per_neuron else (QuantRule(tensor=tensor, bits=bits),)
        plan = (
            QuantPlan(rules=(*weight, *one), fold_theta=per_neuron)
            if tensor == "*"
            else plan_of(*weight, *one, fold_theta=per_neuron)
        )
        if per_neuron and tensor == "exc.theta":
            plan = msgspec.structs.replace(plan, fold_theta=False)
        program = lower(trained, plan, make_ranges(tiny))
        for path, stored in program.tensors.items():
            assert stored.fmt.code_min <= stored.codes.min()
            assert stored.codes.max() <= stored.fmt.code_max
            if path == tensor or tensor == "*":
                assert stored.fmt.bits == bits
        check_equal(
            numba_engine.run(program, spikes, record=True),
            reference.run(program, spikes, record=True),
            f"{tensor} at {bits} bits",
        )


def test_operations_and_their_order(
    two_layers: Network, make_trained: Make, make_ranges: Callable[[Network], Ranges]
) -> None:
    program = lower(make_trained(two_layers), plan_of(), make_ranges(two_layers), seed=9, labels=("x", "y", "z"))
    assert [type(op) for op in program.ops] == [PoissonOp, DenseOp, LifOp, DenseOp, LifOp, VoteOp]
    a, b = program.ops_of(LifOp)
    assert (a.stream, b.stream) == (16, 32)
    assert (a.winner, a.inhibition) == (False, None)
    assert a.v_fmt.signed
    assert not b.v_fmt.signed
    assert a.v_min * 4 == -6 * int(program.codes("a.v_th")[0]) << a.threshold.shift, "-6 mV beside a threshold of 4 mV"
    assert (program.seed, program.labels, program.n_steps) == (9, ("x", "y", "z"), 20)


def test_signed_potentials_of_every_width_run(
    two_layers: Network,
    make_trained: Make,
    make_spikes: Callable[..., Spikes],
    make_ranges: Callable[[Network], Ranges],
) -> None:
    trained, spikes = make_trained(two_layers), make_spikes(12, 20)
    for bits in range(2, 17):
        for rounding in Rounding:
            program = lower(
                trained, plan_of(QuantRule(tensor="*.v", bits=bits, rounding=rounding), bits=8), make_ranges(two_layers)
            )
            check_equal(
                numba_engine.run(program, spikes, record=True),
                reference.run(program, spikes, record=True),
                f"{bits} bits, {rounding.value}",
            )
    with pytest.raises(LoweringError, match=r"a\.v|v: a potential with negative values needs 2 bits"):
        lower(trained, plan_of(QuantRule(tensor="a.v", bits=1)), make_ranges(two_layers))


def test_sixteen_bits_answer_like_float(
    tiny: Network, make_trained: Make, make_spikes: Callable[..., Spikes], make_ranges: Callable[[Network], Ranges]
) -> None:
    """Wide integers spike almost as often as the float network (which draws other winners)."""
    trained, spikes = make_trained(tiny), make_spikes(12, 30, 40)
    wide = reference.run(lower(trained, plan_of(), make_ranges(tiny)), spikes).counts["exc"]
    floats = respond(trained, spikes)
    assert floats.sum() > 200
    assert abs(wide.sum() - floats.sum()) < 0.03 * floats.sum()


def test_thresholds_are_the_declared_ones_in_the_unit_of_v(
    tiny: Network, make_trained: Make, make_ranges: Callable[[Network], Ranges]
) -> None:
    trained = make_trained(tiny)
    wanted = 6.0 + trained.params["exc.theta"].astype(float)
    for fold in (False, True):
        program = lower(trained, plan_of(fold_theta=fold), make_ranges(tiny))
        (op,) = program.ops_of(LifOp)
        unit = program.tensors["exc.w"].fmt.delta * 2.0**op.input.shift
        np.testing.assert_allclose(thresholds(program, op) * unit, wanted, rtol=1e-3)
        assert ("exc.theta" in program.tensors) == (not fold)


def test_global_step_is_the_power_of_two_that_covers_the_weights() -> None:
    w = np.array([[0.0, 0.3, 0.74, 0.75]])
    codes, unit = unsigned_codes(w, QuantRule(tensor="exc.w", bits=3), keep_sum=True)
    assert codes.fmt == QFormat(bits=3, frac=3)
    assert codes.codes.tolist() == [[0, 2, 6, 6]]
    assert unit.tolist() == [0.125]
    clipped, _ = unsigned_codes(w, QuantRule(tensor="exc.w", bits=3, clip=0.5), keep_sum=True)
    assert clipped.codes.tolist() == [[0, 5, 7, 7]]


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 16])
def test_keep_sum_keeps_each_neurons_drive(bits: int) -> None:
    w = np.random.default_rng(1).random((7, 50))
    codes, unit = unsigned_codes(w, QuantRule(tensor="exc.w", bits=bits, granularity=PER_NEURON), keep_sum=True)
    np.testing.assert_allclose(codes.codes.sum(axis=1) * unit, w.sum(axis=1), rtol=1e-12)
    assert codes.codes.max(axis=1).tolist() == [(1 << bits) - 1] * 7
    _, plain = unsigned_codes(w, QuantRule(tensor="exc.w", bits=bits, granularity=PER_NEURON), keep_sum=False)
    np.testing.assert_allclose(plain, w.max(axis=1) / ((1 << bits) - 1), rtol=1e-12)


def test_neurons_without_weights_stay_silent(
    tiny: Network, make_trained: Make, make_spikes: Callable[..., Spikes], make_ranges: Callable[[Network], Ranges]
) -> None:
    trained = make_trained(tiny)
    w = trained.params["exc.w"].copy()
    w[2] = 0
    for rule in (QuantRule(tensor="exc.w", bits=4), QuantRule(tensor="exc.w", bits=4, granularity=PER_NEURON)):
        program = lower(trained.with_params(exc__w=w), plan_of(rule), make_ranges(tiny))
        counts = reference.run(program, make_spikes(12)).counts["exc"]
        assert not counts[:, 2].any()
        assert counts.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("path", ["exc__w", "exc__theta", "readout__responses"])
def test_values_that_are_not_finite_are_refused_by_path(
    bad: float, path: str, tiny: Network, make_trained: Make, make_ranges: Callable[[Network], Ranges]
) -> None:
    trained = make_trained(tiny)
    array = trained.params[path.replace("__", ".")].copy()
    array.flat[0] = bad
    with pytest.raises(LoweringError, match=f"{path.replace('__', '.')}: holds NaN or infinity"):
        lower(trained.with_params(**{path: array}), plan_of(), make_ranges(tiny))


def test_missing_and_misshaped_arrays_are_named(
    tiny: Network, make_trained: Make, make_ranges: Callable[[Network], Ranges]
) -> None:
    trained = make_trained(tiny)
    without = Trained(network=tiny, params={k: v for k, v in trained.params.items() if k != "exc.theta"})
    with pytest.raises(LoweringError, match=r"exc\.theta: is not among the trained arrays; allowed: exc\.w, readout"):
        lower(without, plan_of(), make_ranges(tiny))
    with pytest.raises(LoweringError, match=r"exc\.w: has the wrong shape; got \(5, 11\); allowed: \(5, 12\)"):
        lower(trained.with_params(exc__w=trained.params["exc.w"][:, 1:]), plan_of(), make_ranges(tiny))
    with pytest.raises(LoweringError, match="negative"):
        lower(trained.with_params(exc__w=-trained.params["exc.w"]), plan_of(), make_ranges(tiny))


def wide_network(n_inputs: int, **neuron: float) -> Network:
    return Network(
        name="wide",
        input=PoissonInput(n=n_inputs),
        n_steps=2,
        populations=(Population(name="p", n=1, neuron=Lif(**neuron)),),
        connections=(Dense(source="input", target="p"),),
        readout=VoteReadout(source="p", n_classes=2),
    )


def test_accumulators_that_could_overflow_are_refused_with_the_bound(make_ranges: Callable[[Network], Ranges]) -> None:
    network = wide_network(40_000)
    params = {"p.w": np.full((1, 40_000), 0.9), "p.theta": np.zeros(1), "readout.responses": np.ones((1, 2))}
    trained = Trained(network=network, params=params)
    with pytest.raises(
        LoweringError,
        match=r"p\.v: the accumulator of input current may overflow 32 bits; got (\d+); "
        r"allowed: at most 2147483647; fix: fewer bits",
    ):
        lower(trained, plan_of(QuantRule(tensor="*.v", bits=8)), make_ranges(network))
    lower(trained, plan_of(QuantRule(tensor="p.w", bits=8)), make_ranges(network))


def test_the_decay_product_of_signed_potentials_is_proved_too(make_ranges: Callable[[Network], Ranges]) -> None:
    network = wide_network(4, tau_ms=1e9, v_min_mv=-5.0)
    trained = Trained(
        network=network,
        params={"p.w": np.full((1, 4), 0.9), "p.theta": np.zeros(1), "readout.responses": np.ones((1, 2))},
    )
    with pytest.raises(LoweringError, match="accumulator of decay"):
        lower(trained, plan_of(), make_ranges(network))
    lower(trained, plan_of(QuantRule(tensor="p.decay", bits=15)), make_ranges(network))


def test_inputs_below_the_rate_are_left_out(
    tiny: Network, make_trained: Make, make_spikes: Callable[..., Spikes]
) -> None:
    trained, spikes = make_trained(tiny), make_spikes(12)
    ranges = Ranges(input_rate=np.linspace(0, 0.5, 12), busiest_step=12, threshold_max_mv={"exc": 10.0})
    program = lower(trained, plan_of(min_input_rate=0.2), ranges)
    kept = program.codes("input.kept")
    assert kept.tolist() == [int(r >= 0.2) for r in ranges.input_rate]
    assert [type(op) for op in program.ops][:2] == [PoissonOp, SelectOp]
    assert program.codes("exc.w").shape == (5, kept.sum())
    check_equal(numba_engine.run(program, spikes), reference.run(program, spikes), "selected")
    silenced = trained.with_params(exc__w=trained.params["exc.w"] * kept.astype(np.float32))
    whole = lower(silenced, plan_of(), ranges)
    np.testing.assert_array_equal(
        reference.run(whole, spikes).counts["exc"], reference.run(program, spikes).counts["exc"]
    )
    with pytest.raises(LoweringError, match=r"plan\.min_input_rate: leaves no input; got 0\.9; allowed: below 0\.5"):
        lower(trained, plan_of(min_input_rate=0.9), ranges)


def test_lowering_is_deterministic_and_seeded(
    tiny: Network, make_trained: Make, make_ranges: Callable[[Network], Ranges]
) -> None:
    rule = QuantRule(tensor="*", bits=3, rounding=Rounding.STOCHASTIC)
    first, again, other = (
        lower(make_trained(tiny), QuantPlan(rules=(rule,)), make_ranges(tiny), seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.codes("exc.w"), again.codes("exc.w"))
    assert (first.codes("exc.w") != other.codes("exc.w")).any()


def test_reset_is_rounded_to_nearest_with_ties_up() -> None:
    """The contract's rounding, not Python's: 2.5 codes are 3."""
    network = wide_network(2, v_th_mv=12.0, v_reset_mv=2.5)
    trained = Trained(
        network=network,
        params={"p.w": np.array([[15.0, 1.0]]), "p.theta": np.zeros(1), "readout.responses": np.ones((1, 2))},
    )
    ranges = Ranges(input_rate=np.ones(2), busiest_step=2, threshold_max_mv={"p": 12.0})
    program = lower(trained, plan_of(QuantRule(tensor="p.w", bits=4), QuantRule(tensor="p.v", bits=4)), ranges)
    assert program.ops_of(LifOp)[0].input.shift == 0
    assert program.codes("p.v_reset").tolist() == [3]


def test_inhibition_beyond_the_range_clears(make_trained: Make, make_ranges: Callable[[Network], Ranges]) -> None:
    network = diehl_cook(12, 5, n_steps=30, n_classes=3, inhibition_mv=1e4)
    for bits in (1, 3, 16):
        program = lower(
            make_trained(network), plan_of(QuantRule(tensor="exc.inhibition", bits=bits)), make_ranges(network)
        )
        (op,) = program.ops_of(LifOp)
        assert int(program.codes("exc.inhibition")[0]) << op.inhibition.shift >= op.v_fmt.code_max


@pytest.mark.parametrize(
    ("largest", "bits", "shift"),
    [
        (0.0, 8, 0),
        (255.0, 8, 0),
        (255.4, 8, 0),
        (255.5, 8, 1),
        (256.0, 8, 1),
        (127.0, 8, -1),
        (1.0, 1, 0),
        (1.5, 1, 1),
        (0.01, 8, -14),
    ],
)
def test_fitting_shift_by_hand(largest: float, bits: int, shift: int) -> None:
    assert fitting_shift(largest, bits) == shift


def test_decay_codes() -> None:
    stored = decay_codes(0.99, QuantRule(tensor="*", bits=16))
    assert decode(stored.codes, stored.fmt)[0] == pytest.approx(0.99, abs=2**-17)
    assert decay_codes(0.99, QuantRule(tensor="*", bits=2)).codes.tolist() == [3]
    assert decay_codes(0.01, QuantRule(tensor="*", bits=2)).codes.tolist() == [0]


def test_votes_follow_the_declared_rule(tiny: Network) -> None:
    responses = np.array([[4.0, 0.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 1.0], [3.0, 0.0, 1.0]])
    trained = Trained(network=tiny, params={"readout.responses": responses})
    np.testing.assert_allclose(
        readout_votes(trained), [[1, 0, 0], [0.25, 0.75, 0], [0, 0, 0], [0.5, 0.25, 0.25], [0.75, 0, 0.25]]
    )
    highest = msgspec.structs.replace(tiny, readout=msgspec.structs.replace(tiny.readout, rule="highest"))
    np.testing.assert_allclose(
        readout_votes(Trained(network=highest, params=trained.params)),
        [[1 / 3, 0, 0], [0, 1, 0], [0, 0, 0], [1 / 3, 0, 0], [1 / 3, 0, 0]],
    )


def test_poisson_rates(tiny: Network) -> None:
    op = poisson_op(tiny, 5)
    assert op.per_level * 255 / 2**32 == pytest.approx(tiny.input.rate_hz / 1000, rel=1e-6)
    fast = msgspec.structs.replace(tiny, input=PoissonInput(n=12, rate_hz=1001.0))
    with pytest.raises(LoweringError, match=r"network\.input\.rate_hz: more than one spike per step.*below 1000 Hz"):
        poisson_op(fast, 0)


def test_calibration(tiny: Network, make_trained: Make, make_spikes: Callable[..., Spikes]) -> None:
    trained, spikes = make_trained(tiny), make_spikes(12)
    raster = spikes.dense()
    for part in (spikes, spikes.slice(2, 5)):
        dense = raster if part is spikes else raster[:, 2:5]
        ranges = calibrate(trained, part)
        np.testing.assert_allclose(ranges.input_rate, dense.mean(axis=(0, 1)))
        assert ranges.busiest_step == dense.sum(axis=2).max()
    assert ranges.threshold_max_mv == {"exc": pytest.approx(6.0 + trained.params["exc.theta"].max())}
    with pytest.raises(DataError, match="holds no samples"):
        calibrate(trained, spikes.slice(0, 0))


def test_a_plan_that_misses_a_tensor_is_refused(
    tiny: Network, make_trained: Make, make_ranges: Callable[[Network], Ranges]
) -> None:
    assert "exc.decay" in tensor_paths(tiny)
    rules = tuple(QuantRule(tensor=p, bits=8) for p in tensor_paths(tiny) if p != "exc.decay")
    with pytest.raises(ConfigError, match=r"exc\.decay: no rule matches"):
        lower(make_trained(tiny), QuantPlan(rules=rules), make_ranges(tiny))

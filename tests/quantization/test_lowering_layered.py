"""Lowering layers: at wide formats the integers do what the float network does; units, shifts and bounds by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, DataError, LoweringError
from qspinn.fixedpoint import QFormat
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.memory import plan_account, program_account
from qspinn.networks.layered import (
    Conv2d,
    EventInput,
    Layer,
    LayeredNetwork,
    Leaky,
    Linear,
    NeuronReadout,
    Pool2d,
    Skip,
)
from qspinn.program import from_bytes, to_bytes
from qspinn.program.ops import LifOp
from qspinn.program.parts import Store
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Granularity, Levels, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.runtime import run
from qspinn.spikes import from_dense
from samples import with_parts

T, B = 12, 16


def plan_of(
    w: int = 8, v: int = 16, *, others: int = 16, granularity: Granularity = Granularity.PER_CHANNEL
) -> QuantPlan:
    return QuantPlan(
        rules=(
            QuantRule(tensor="*.w*", bits=w, granularity=granularity),
            QuantRule(tensor="*.v", bits=v),
            QuantRule(tensor="*", bits=others),
        )
    )


def network_of(neuron: Leaky, *, pool: str = "average", feedback: bool = False) -> LayeredNetwork:
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 6, 6)),
        n_steps=T,
        readout=NeuronReadout(source="out"),
        layers=(
            Layer(name="a", shape=(4, 4, 4), neuron=neuron),
            Layer(name="b", shape=(4, 2, 2), neuron=neuron),
            Layer(name="out", shape=(3, 1, 1), neuron=neuron),
        ),
        connections=(
            Conv2d(source="input", target="a", norm=True),
            Pool2d(source="a", target="p", of=pool),
            Conv2d(source="p", target="b", padding=(1, 1), groups=2, bias=True),
            Skip(source="p", target="b", weight=0.6),
            Linear(source="b", target="out", norm=True),
            *([Linear(source="b", target="b")] if feedback else []),
        ),
    )


@pytest.mark.parametrize("granularity", [Granularity.GLOBAL, Granularity.PER_CHANNEL], ids=lambda g: g.value)
@pytest.mark.parametrize(
    ("settings", "feedback", "pool"),
    [
        ({}, False, "average"),
        ({"decay": 1.0, "strict": True}, False, "sum"),
        pytest.param({"reset": "value", "v_reset": 0.2}, True, "max", marks=pytest.mark.soak),
        pytest.param({"current_decay": 0.6, "n_ref_steps": 1}, True, "average", marks=pytest.mark.soak),
        pytest.param({"theta_step": 0.3, "theta_decay": 0.8}, True, "average", marks=pytest.mark.soak),
        ({"reset_delay": True, "strict": True}, True, "sum"),
    ],
    ids=str,
)
def test_wide_integers_answer_like_the_float_network(
    settings: dict[str, Any], feedback: bool, pool: str, granularity: Granularity
) -> None:
    net = SurrogateNet(network_of(Leaky(**{"v_th": 0.8, **settings}), pool=pool, feedback=feedback), seed=1)
    raster = (np.random.default_rng(4).random((T, B, 72)) < 0.3).astype(np.uint8)
    for _ in range(20):
        net(torch.from_numpy(raster))  # statistics of the normalizations
    net.eval()
    out = net(torch.from_numpy(raster), potentials=True)
    ranges = LayerRanges(
        v={n: v.detach().abs().max().item() * 2 for n, v in out.potentials.items()},
        i=dict.fromkeys(out.potentials, 20.0),
        theta={n: x.max().item() for n, x in out.thetas.items()},
    )
    w_bits, least = (10, 0.8) if "current_decay" in settings else (14, 0.95)  # currents count in weight steps: 16 bits
    program = lower_layers(net.network, net.params(), plan_of(w_bits, 16, granularity=granularity), ranges)
    result = run(program, from_dense(raster), record=True)
    assert all(result.counts[name].sum() > 20 for name in ("a", "b", "out"))
    expected = (out.scores.detach().numpy() * T).round().astype(int)
    assert np.mean(result.scores == expected) > least, "rounding may move a spike now and then"
    for name in ("a", "b"):
        assert result.counts[name].mean() / T == pytest.approx(out.rates[name].item(), rel=0.02)


def tiny(w: list[list[float]], **settings: Any) -> tuple[LayeredNetwork, dict[str, np.ndarray]]:
    neuron = Leaky(**{"decay": 0.5, **settings})
    network = LayeredNetwork(
        name="t",
        input=EventInput(shape=(len(w[0]), 1, 1)),
        n_steps=3,
        readout=NeuronReadout(source="out"),
        layers=(Layer(name="out", shape=(len(w), 1, 1), neuron=neuron),),
        connections=(Linear(source="input", target="out", bias=True),),
    )
    return network, {"out.w": np.array(w), "out.bias": np.full(len(w), 0.125)}


def test_decays_of_channels_by_hand() -> None:
    """One code for each channel where they differ, one for all where they do not; no leak takes the highest bit."""
    network, params = tiny([[0.5], [0.5]], current_decay=0.5, theta_step=0.5, v_th=0.3)
    ranges, plan = LayerRanges(v={"out": 2.0}, i={"out": 1.0}), plan_of(4, 8, others=8)

    def lowered(**decays: Any) -> tuple[LifOp, list[list[int]]]:
        program = lower_layers(network, params | {f"out.{k}": np.array(x) for k, x in decays.items()}, plan, ranges)
        (op,) = program.ops_of(LifOp)
        return op, [program.codes(f"out.{kind}").tolist() for kind in ("decay", "i_decay", "theta_decay")]

    assert lowered()[1] == [[128], [128], [243]]
    op, codes = lowered(decay=[0.5, 0.25], i_decay=[0.0, 0.75], theta_decay=[0.5, 0.999])
    assert [op.leak.shift, op.current.shift, op.theta.decay_shift] == [8, 8, 8]
    assert codes == [[128, 64], [0, 192], [128, 255]]
    assert lowered(decay=[0.25, 0.25], i_decay=[0.75], theta_decay=0.5)[1] == [[64], [192], [128]]
    op, codes = lowered(decay=[1.0, 0.999])
    assert (op.leak.shift, codes[0]) == (7, [128, 127])
    op, codes = lowered(decay=[1.0, 1.0])
    assert (op.leak.shift, codes[0]) == (0, [1])
    for kind, decay, allowed in (("decay", [0.5, 1.1], "0..1"), ("i_decay", [1.0, 0.5], "decay < 1")):
        with pytest.raises(
            LoweringError, match=rf"^out\.{kind}: is no decay factor; got 1\.[01]; allowed: .*{allowed}"
        ):
            lowered(**{kind: decay})


@pytest.mark.parametrize(
    "sizes", [{"a": 4, "b": 4, "out": 3}, {"a": 64, "b": 16, "out": 1}], ids=["channels", "neurons"]
)
def test_wide_integers_with_decays_of_their_own_answer_like_the_float_network(sizes: dict[str, int]) -> None:
    neuron = Leaky(v_th=0.8, theta_step=0.3)
    decays = {
        f"{name}.{kind}": np.linspace(low, high, n)
        for name, n in sizes.items()
        for kind, low, high in (("decay", 1.0, 0.5), ("theta_decay", 0.5, 0.95))
    }
    net = SurrogateNet(network_of(neuron, pool="average", feedback=True), seed=1, decays=decays)
    raster = (np.random.default_rng(4).random((T, B, 72)) < 0.3).astype(np.uint8)
    for _ in range(20):
        net(torch.from_numpy(raster))  # statistics of the normalizations
    net.eval()
    out = net(torch.from_numpy(raster), potentials=True)
    ranges = LayerRanges(
        v={n: v.detach().abs().max().item() * 2 for n, v in out.potentials.items()},
        theta={n: x.max().item() for n, x in out.thetas.items()},
    )
    program = lower_layers(net.network, net.params(), plan_of(14, 16), ranges)
    result = run(program, from_dense(raster), record=True)
    expected = (out.scores.detach().numpy() * T).round().astype(int)
    assert result.counts["out"].sum() > 20
    assert np.mean(result.scores == expected) > 0.95, "rounding may move a spike now and then"


def test_units_by_hand() -> None:
    """Channel 0: step 0.875 / 7 = 1/8, reach 2.0 = 16 steps into 3 bits: shift 2, unit 1/2. Channel 1: step 1/32."""
    network, params = tiny([[0.875, -0.5], [0.21875, 0.0625]])
    program = lower_layers(network, params, plan_of(4, 4, others=8), LayerRanges(v={"out": 2.0}))
    (op,) = program.ops_of(LifOp)
    assert program.codes("out.w").tolist() == [[7, -4], [7, 2]]
    assert program.codes("out.in_shifts").tolist() == [2, 4] if op.input.shifts else op.input.shift == 2
    assert (program.codes("out.v_th") << op.threshold.shift).tolist() == [2]
    assert (op.leak.shift, program.codes("out.decay").tolist()) == (8, [128])
    assert (op.v_fmt.bits, op.v_min) == (4, -8)


def test_adaptive_thresholds_by_hand() -> None:
    """Unit 1/2 and 1/32 * 2**4 = 1/2: a rise to 0.9 / (1 - 0.75) = 3.6 is 7.2 units, into 2 bits by 2 more (theta),
    but a step of 0.9, 1.8 units, would then be nearest to 0: by 1 more it is 1, by none 2. Ranges tell how far it
    really rises."""
    network, params = tiny([[0.875, -0.5], [0.21875, 0.0625]], theta_step=0.9, theta_decay=0.75)
    few = QuantRule(tensor="*.theta", bits=2)
    plan = msgspec.structs.replace(plan_of(4, 4, others=8), rules=(few, *plan_of(4, 4, others=8).rules))
    for seen, shift, code in (({}, 1, 1), ({"out": 1.4}, 0, 2), ({"out": 0.1}, 0, 2)):
        program = lower_layers(network, params, plan, LayerRanges(v={"out": 2.0}, theta=seen))
        (op,) = program.ops_of(LifOp)
        assert (op.theta.fmt, op.theta.shift) == (QFormat(bits=2, frac=-shift), shift)
        assert program.codes("out.theta_step").tolist() == [code]
        assert (op.theta.decay_shift, program.codes("out.theta_decay").tolist()) == (8, [192])


def test_thresholds_that_could_overflow() -> None:
    network, params = tiny([[1.0]], theta_step=1.0, theta_decay=0.9, max_spikes=255)
    plan, seen = plan_of(2, 16), LayerRanges(v={"out": 1.0})
    assert lower_layers(network, params, plan, seen).ops_of(LifOp)[0].threshold.max_spikes == 255
    wide = msgspec.structs.replace(network.layers[0].neuron, theta_step=900.0)
    layer = msgspec.structs.replace(network.layers[0], neuron=wide)
    with pytest.raises(LoweringError, match=r"out\.v: the accumulator of the threshold may overflow 32 bits"):
        lower_layers(msgspec.structs.replace(network, layers=(layer,)), params, plan, seen)


def test_several_spikes_count_downstream() -> None:
    """A source that spikes up to 9 times makes the next layer's largest sum nine times as large; read-outs do not
    spike."""
    network = LayeredNetwork(
        name="s",
        input=EventInput(shape=(1, 1, 1)),
        n_steps=3,
        readout=NeuronReadout(source="out", of="v_last"),
        layers=(
            Layer(name="a", shape=(70_000, 1, 1), neuron=Leaky(max_spikes=9)),
            Layer(name="out", shape=(1, 1, 1), neuron=Leaky(spiking=False, max_spikes=9)),
        ),
        connections=(Linear(source="input", target="a"), Linear(source="a", target="out")),
    )
    params = {"a.w": np.ones((70_000, 1)), "out.w": np.ones((1, 70_000))}
    plan = plan_of(13, 16, granularity=Granularity.GLOBAL)
    ranges = LayerRanges(v={"a": 2.0, "out": 2.0})
    with pytest.raises(LoweringError, match="accumulator of the input current"):
        lower_layers(network, params, plan, ranges)
    once = msgspec.structs.replace(network, layers=(Layer(name="a", shape=(70_000, 1, 1)), network.layers[1]))
    assert [op.threshold.max_spikes for op in lower_layers(once, params, plan, ranges).ops_of(LifOp)] == [1, 1]


def test_binary_weights_and_kept_potentials_by_hand() -> None:
    """Mean 1/4, so codes + - and step 1/2; reach 2 = 4 steps: shift -2 gives 16 codes within 5 bits, of which the
    lowest 4 bits drop before the next step."""
    network, params = tiny([[0.75, -0.25]])
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="*.w*", bits=1, levels=Levels.BINARY, granularity=Granularity.PER_CHANNEL),
            QuantRule(tensor="*.v", bits=2, accumulator_bits=6),
            QuantRule(tensor="*", bits=10),
        )
    )
    program = lower_layers(network, params, plan, LayerRanges(v={"out": 2.0}))
    (op,) = program.ops_of(LifOp)
    assert program.codes("out.w").tolist() == [[1, -1]]
    assert program.tensors["out.w"].fmt == QFormat(bits=1, signed=True)
    assert (op.input.shift, op.v_fmt.bits) == (-2, 6)
    assert op.store == Store(fmt=QFormat(bits=2, frac=-4, signed=True), min=-2)
    assert program.codes("out.v_th").tolist() == [8]
    rows = {r.path: r.total_bits for r in program_account(program).rows}
    assert (rows["out.w"], rows["out.v"]) == (2, 2)
    ahead = {r.path: r.total_bits for r in plan_account(network, plan).rows}
    assert rows == {path: ahead[path] for path in rows}
    # the bias, 1 code, and 4 codes of input: 5, then 5 / 2 + 5 = 8 crosses; in two bits, 5 is kept as 0
    spikes = from_dense(np.array([[[1, 0]], [[1, 0]], [[1, 0]]]))
    result = run(program, spikes, record=True)
    assert result.counts["out"].tolist() == [[0]]
    assert run(with_parts(program, store=None), spikes).counts["out"].tolist() == [[1]]
    again = from_bytes(to_bytes(program))
    assert to_bytes(again) == to_bytes(program)
    assert np.array_equal(again.codes("out.w"), program.codes("out.w"))


def test_potentials_in_the_steps_of_the_weights() -> None:
    network, params = tiny([[0.875, -0.5], [0.4375, 0.25]])
    rules = (
        QuantRule(tensor="*.w*", bits=4, granularity=Granularity.PER_CHANNEL),
        QuantRule(tensor="*.v", bits=6, shared_step=True),
        QuantRule(tensor="*", bits=10),
    )
    program = lower_layers(network, params, QuantPlan(rules=rules), LayerRanges(v={"out": 9.0}))
    assert program.ops_of(LifOp)[0].input.shift == 0
    assert program.codes("out.v_th").tolist() == [8, 16]
    narrow = QuantPlan(rules=(rules[0], QuantRule(tensor="*.v", bits=5, shared_step=True), rules[2]))
    with pytest.raises(LoweringError, match=r"out\.v.*never reaches its threshold.*accumulator_bits"):
        lower_layers(network, params, narrow, LayerRanges(v={"out": 9.0}))


def test_residual_connections_cannot_be_standardized() -> None:
    net = SurrogateNet(network_of(Leaky()), seed=1)
    plan = QuantPlan(rules=(QuantRule(tensor="b.skip_p", bits=1, levels=Levels.BINARY), *plan_of().rules))
    with pytest.raises((ConfigError, LoweringError), match=r"b\.skip_p"):
        lower_layers(net.network, net.params(), plan, LayerRanges(v=dict.fromkeys(("a", "b", "out"), 1.0)))


def test_no_leak_is_exact() -> None:
    network, params = tiny([[1.0]], decay=1.0)
    program = lower_layers(network, params, plan_of(), LayerRanges(v={"out": 1.0}))
    assert (program.ops_of(LifOp)[0].leak.shift, program.codes("out.decay").tolist()) == (0, [1])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (plan_of(1), "signed weights need two bits"),
        (plan_of(8, 1), "signed potentials need two bits"),
        (plan_of(granularity=Granularity.PER_NEURON), "only weights can have a step per channel"),
        (QuantPlan(rules=(QuantRule(tensor="out.w", bits=4),)), "no rule matches"),
        (QuantPlan(rules=(QuantRule(tensor="hidden.w", bits=4),)), "hidden.w"),
    ],
)
def test_plans_that_do_not_fit(plan: QuantPlan, message: str) -> None:
    network, params = tiny([[1.0]])
    with pytest.raises((ConfigError, LoweringError), match=message):
        lower_layers(network, params, plan, LayerRanges(v={"out": 1.0}))


@pytest.mark.parametrize("option", [{"fold_theta": True}, {"min_input_rate": 0.1}, {"keep_sum": False}], ids=str)
def test_options_that_layers_do_not_have_are_refused(option: dict[str, Any]) -> None:
    network, params = tiny([[1.0]])
    plan = msgspec.structs.replace(plan_of(), **option)
    with pytest.raises(ConfigError, match=f"plan.{next(iter(option))}"):
        lower_layers(network, params, plan, LayerRanges(v={"out": 1.0}))


def test_arrays_that_do_not_fit() -> None:
    network, params = tiny([[1.0, 2.0]])
    for bad, message in ((np.zeros((2, 2)), "wrong shape"), (np.array([[1.0, np.nan]]), "NaN")):
        with pytest.raises(LoweringError, match=message):
            lower_layers(network, params | {"out.w": bad}, plan_of(), LayerRanges(v={"out": 1.0}))
    with pytest.raises(LoweringError, match="not among the trained arrays"):
        lower_layers(network, {}, plan_of(), LayerRanges(v={"out": 1.0}))


def test_unlike_units_are_not_compared() -> None:
    network, params = tiny([[1.0], [2.0]])
    layer = msgspec.structs.replace(network.layers[0], neuron=Leaky(decay=0.5, spiking=False))
    readout = NeuronReadout(source="out", of="v_last")
    network = msgspec.structs.replace(network, layers=(layer,), readout=readout)
    with pytest.raises(LoweringError, match="one unit for all"):
        lower_layers(network, params, plan_of(), LayerRanges(v={"out": 1.0}))
    program = lower_layers(network, params, plan_of(granularity=Granularity.GLOBAL), LayerRanges(v={"out": 9.0}))
    assert run(program, from_dense(np.ones((3, 1, 1)))).predictions().tolist() == [1]


def test_wide_biases_are_shifted() -> None:
    network, params = tiny([[1.0], [0.5]])
    network = msgspec.structs.replace(network, connections=(Linear(source="input", target="out", bias=True),))
    params |= {"out.bias": np.array([0.5, -0.25])}
    program = lower_layers(network, params, plan_of(4, 12, others=8), LayerRanges(v={"out": 1.0}))
    op, grid = program.ops_of(LifOp)[0], 2.0**-11 * np.array([8 / 7, 8 / 7])
    real = (program.codes("out.bias").astype(int) << op.bias.shift) * grid
    assert op.bias.shift == 3
    assert np.abs(real - params["out.bias"]).max() <= grid.max() * 2 ** (op.bias.shift - 1)


def test_currents_that_do_not_fit() -> None:
    network, params = tiny([[1.0]], current_decay=0.5)
    with pytest.raises(LoweringError, match="the synaptic current does not fit"):
        lower_layers(network, params, plan_of(16, others=8), LayerRanges(v={"out": 1.0}, i={"out": 4.0}))


def test_sums_that_could_overflow() -> None:
    network = LayeredNetwork(
        name="big",
        input=EventInput(shape=(70_000, 1, 1), max_count=2),
        n_steps=3,
        readout=NeuronReadout(source="out"),
        layers=(Layer(name="out", shape=(1, 1, 1)),),
        connections=(Linear(source="input", target="out"),),
    )
    with pytest.raises(LoweringError, match="accumulator of the input current"):
        lower_layers(network, {"out.w": np.ones((1, 70_000))}, plan_of(16), LayerRanges(v={"out": 1.0}))


def test_more_events_than_declared_are_refused() -> None:
    network, params = tiny([[1.0]])
    program = lower_layers(network, params, plan_of(), LayerRanges(v={"out": 1.0}))
    with pytest.raises(DataError, match="got 2; allowed: at most 1"):
        run(program, from_dense(np.full((3, 1, 1), 2), graded=True))


def test_averages_of_averages() -> None:
    """2 x 2 after 2 x 2 is 4 x 4: the weights behind carry both factors."""

    def lowered(*pools: Pool2d) -> int:
        network = LayeredNetwork(
            name="p",
            input=EventInput(shape=(1, 4, 4)),
            n_steps=2,
            readout=NeuronReadout(source="out", of="v_last"),
            layers=(Layer(name="out", shape=(1, 1, 1), neuron=Leaky(spiking=False, decay=1.0)),),
            connections=(*pools, Linear(source=pools[-1].target, target="out")),
        )
        program = lower_layers(
            network,
            {"out.w": np.array([[16.0]])},
            plan_of(granularity=Granularity.GLOBAL),
            LayerRanges(v={"out": 64.0}),
        )
        return run(program, from_dense(np.ones((2, 1, 16), np.uint8))).scores.item()

    once = lowered(Pool2d(source="input", target="p", of="average", kernel=(4, 4), stride=(4, 4)))
    twice = lowered(Pool2d(source="input", target="p", of="average"), Pool2d(source="p", target="q", of="average"))
    largest = lowered(Pool2d(source="input", target="p", of="average"), Pool2d(source="p", target="q", of="max"))
    assert twice == once == largest, "the mean of ones is one, in units that fit the same range"
    assert 0 < once < (1 << 15) - 1

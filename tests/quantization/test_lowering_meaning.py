"""Float network and 16-bit integers mean the same: thresholds that move, lower bounds, units that are compared, steps
of sparse weights; what has no such meaning is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qspinn import memory
from qspinn.data.events.event_set import EventSet
from qspinn.data.events.event_set import from_dense as recordings
from qspinn.errors import ConfigError, DataError, LoweringError, QSpinnError
from qspinn.learning.gradients.quantized import convert, prepare
from qspinn.learning.gradients.surrogate import SurrogateNet, frozen
from qspinn.learning.gradients.training import layer_ranges
from qspinn.learning.stdp.training import respond
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lateral, Lif, Network, PoissonInput, Population, Stdp, VoteReadout
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.quantization.competing import quantize
from qspinn.quantization.grid import LayerGrid
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Calibrator, Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.quantization.rates import measured_rates, restore_rates
from qspinn.runtime import run
from qspinn.spikes import from_dense

Rule = QuantRule


def plan_of(*rules: QuantRule, rest: int = 16) -> QuantPlan:
    return QuantPlan(rules=(*rules, Rule(tensor="*", bits=rest)))


def net(
    neuron: Leaky, n: int = 1, m: int = 1, n_steps: int = 60, bias: bool = False, of: Any = "spikes"
) -> LayeredNetwork:
    """m neurons fed by n inputs."""
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(n, 1, 1)),
        n_steps=n_steps,
        readout=NeuronReadout(source="p", of=of),
        layers=(Layer(name="p", shape=(m, 1, 1), neuron=neuron),),
        connections=(Linear(source="input", target="p", bias=bias),),
    )


def recorded(x: np.ndarray) -> EventSet:
    """A raster [T, 1, n] as a recording of n channels."""
    return recordings(x.transpose(1, 0, 2)[..., None, None], [0], order="BT")


def both(network: LayeredNetwork, w: Any, x: np.ndarray, plan: QuantPlan) -> tuple[list[int], list[int], list[int]]:
    """Spikes of every neuron in the float network, in the module on the grid and in the lowered program."""
    module = SurrogateNet(network)
    with torch.no_grad():
        module.p__w.copy_(torch.as_tensor(np.asarray(w, np.float32)))
    ranges = layer_ranges(module, recorded(x))
    program = lower_layers(network, module.params(), plan, ranges)
    grid = prepare(network, plan, module.params(), ranges)
    raster = torch.from_numpy(x)
    found = [out(raster).spikes["p"].sum(0).flatten().int().tolist() for out in (module, grid)]
    return found[0], found[1], run(program, from_dense(x)).counts["p"][0].tolist()


@pytest.mark.parametrize(
    ("neuron", "w"),
    [
        (Leaky(decay=0.5, reset="value", theta_step=0.5, theta_decay=0.9), 20.0),
        (Leaky(decay=0.5, reset="value", theta_step=2.0, theta_decay=0.5), 9.0),
        (Leaky(decay=0.9, reset="value", v_reset=0.3, theta_step=0.25, theta_decay=0.95), 8.0),
        (Leaky(decay=0.0, strict=True, reset="value", theta_step=1.0, theta_decay=0.75), 15.0),
    ],
)
def test_potentials_reach_thresholds_that_have_risen(neuron: Leaky, w: float) -> None:
    """After a reset potentials are low, so their observed range alone says nothing about the highest threshold."""
    real, on_grid, integer = both(net(neuron, n_steps=200), [[w]], np.ones((200, 1, 1), np.uint8), plan_of())
    assert real == on_grid == integer
    assert real[0] > 50


def test_a_threshold_that_could_never_move_is_refused() -> None:
    network = net(Leaky(decay=0.9, theta_step=0.004, theta_decay=0.999), n_steps=300)
    x = np.ones((300, 1, 1), np.uint8)
    with pytest.raises(LoweringError, match=r"p\.theta_step: rounds to 0, so thresholds would never move.*more bits"):
        both(network, [[0.3]], x, plan_of(rest=8))
    real, on_grid, integer = both(network, [[0.3]], x, plan_of())
    assert on_grid == integer
    assert abs(real[0] - integer[0]) <= 1


def competing(v_min: float) -> Trained:
    network = Network(
        name="c",
        input=PoissonInput(n=12),
        n_steps=100,
        populations=(Population(name="e", n=6, neuron=Lif(v_min_mv=v_min)),),
        connections=(Dense(source="input", target="e", stdp=Stdp()), Lateral(target="e")),
        readout=VoteReadout(source="e", n_classes=2),
    )
    rng = np.random.default_rng(0)
    params = {
        "e.w": rng.random((6, 12)).astype("f4") * 2,
        "e.theta": np.zeros(6, "f4"),
        "readout.responses": np.ones((6, 2)),
    }
    return Trained(network=network, params=params)


@pytest.mark.parametrize("v_min", [-1.0, -3.0, -13.0])
def test_the_lower_bound_of_potentials_is_the_declared_one(v_min: float) -> None:
    trained = competing(v_min)
    spikes = from_dense(np.random.default_rng(0).random((100, 8, 12)) < 0.3)
    every = (Rule(tensor="*.w", bits=16, granularity=Granularity.GLOBAL), Rule(tensor="*.decay", bits=15))
    program = quantize(trained, plan_of(*every), spikes)
    op = program.ops[-2]
    assert op.v_min * 13 / (int(program.codes("e.v_th")[0]) << op.threshold.shift) == pytest.approx(v_min, rel=1e-3)
    real, integer = respond(trained, spikes).sum(), run(program, spikes).counts["e"].sum()
    assert abs(real - integer) <= 0.03 * real
    if v_min == -1.0:
        with pytest.raises(LoweringError, match=r"e\.v: v_min_mv is another code for every neuron.*'global' for w"):
            quantize(trained, plan_of(Rule(tensor="*.w", bits=8, granularity=Granularity.PER_NEURON)), spikes)


def test_potentials_that_are_compared_have_one_unit() -> None:
    network = net(Leaky(decay=0.9), m=3, n_steps=10, of="v_last")
    params = {"p.w": np.array([[0.1], [0.13], [0.2]]), "p.v_th": np.array([1.0, 30.0, 2.0])}
    program = lower_layers(network, params, plan_of(), LayerRanges(v={"p": 1.4}))
    scores = run(program, from_dense(np.ones((10, 1, 1)))).scores[0]
    assert scores.argmax() == 2
    np.testing.assert_allclose(scores / scores[2], np.array([0.65, 0.85, 1.3]) / 1.3, rtol=0.01)
    for step, shifts in (([0.001, 0.01, 0.01], [0, 0, 0]), ([0.01] * 3, [0, 1, 0])):
        with pytest.raises(LoweringError, match=r"grids\.p: a read-out by potential .* needs one unit for all"):
            lower_layers(
                network, params, plan_of(), LayerRanges(v={"p": 1.4}), grids={"p": LayerGrid(step=step, shifts=shifts)}
            )


def test_sparse_weights_have_a_step_or_are_refused() -> None:
    w = np.zeros((2, 50))
    w[:, :4] = [[0.3, 0.4, 0.45, 0.2], [3.0, 4.0, 4.5, 2.0]]
    for granularity in Granularity.GLOBAL, Granularity.PER_CHANNEL:
        rule = Rule(tensor="*.w", bits=8, calibrator=Calibrator.PERCENTILE, quantile=0.9, granularity=granularity)
        with pytest.raises(LoweringError, match=r"p\.w: most weights are 0, so this calibrator gives them no step"):
            lower_layers(net(Leaky(), n=50, m=2), {"p.w": w}, plan_of(rule), LayerRanges(v={"p": 2.0}))
    enough = Rule(tensor="*.w", bits=8, calibrator=Calibrator.PERCENTILE, quantile=0.99)
    program = lower_layers(net(Leaky(), n=50, m=2), {"p.w": w}, plan_of(enough), LayerRanges(v={"p": 2.0}))
    assert program.codes("p.w")[:, :4].all()
    silent = lower_layers(net(Leaky(), n=50, m=2), {"p.w": 0 * w}, plan_of(enough), LayerRanges(v={"p": 2.0}))
    assert not silent.codes("p.w").any()


def test_currents_that_fit_are_taken_and_the_right_tensor_is_named() -> None:
    network, params = net(Leaky(current_decay=0.4), n=40), {"p.w": np.ones((1, 40))}
    ranges = LayerRanges(v={"p": 5.0}, i={"p": 20.0})
    lower_layers(network, params, plan_of(Rule(tensor="*.w", bits=11)), ranges)
    slow = net(Leaky(current_decay=0.99999), n=40)
    with pytest.raises(LoweringError, match=r"p\.i: the accumulator of the synaptic current .* i_decay or the weights"):
        lower_layers(slow, params, plan_of(Rule(tensor="*.w", bits=11)), ranges)


@pytest.mark.parametrize(
    ("rules", "where"),
    [
        ((Rule(tensor="*.v", bits=8, calibrator=Calibrator.THRESHOLD),), r"p\.v: has no threshold"),
        ((Rule(tensor="*.bias", bits=1),), r"p\.bias: signed biases need two bits"),
        ((Rule(tensor="*.v", bits=1),), r"p\.v: signed potentials need two bits .* fix: a rule of its own"),
    ],
)
def test_rules_without_a_meaning_for_the_layer_are_refused(rules: tuple[QuantRule, ...], where: str) -> None:
    network, params = net(Leaky(spiking=False), bias=True, of="v_last"), {"p.w": np.ones((1, 1)), "p.bias": np.ones(1)}
    for call in (
        lambda: lower_layers(network, params, plan_of(*rules), LayerRanges(v={"p": 2.0})),
        lambda: prepare(network, plan_of(*rules), params),
    ):
        with pytest.raises(LoweringError, match=where):
            call()


def test_sizes_that_no_format_spans_name_the_layer() -> None:
    params = {"p.w": np.ones((1, 1)), "p.bias": np.array([1e30])}
    network = net(Leaky(current_decay=0.5), bias=True)
    with pytest.raises(LoweringError, match=r"^p: format\.frac: fraction bits out of range"):
        lower_layers(network, params, plan_of(Rule(tensor="*.w", bits=8)), LayerRanges(v={"p": 1.0}, i={"p": 0.1}))


def test_restored_rates_leave_silence_silent_and_thresholds_within_reach() -> None:
    w = np.abs(np.random.default_rng(0).normal(size=(2, 3)))
    spikes = from_dense(np.random.default_rng(3).random((10, 4, 3)) < 0.5)
    once = from_dense(np.concatenate([np.ones((1, 1, 3)), np.zeros((9, 1, 3))]))
    plan = plan_of(Rule(tensor="*.v", bits=8), rest=12)
    program = lower_layers(
        net(Leaky(reset="value", v_reset=0.5), n=3, m=2, n_steps=10), {"p.w": w}, plan, LayerRanges(v={"p": 1.0})
    )
    eager = restore_rates(program, spikes, {"p": [1.0, 1.0]})
    assert run(eager, once).counts["p"].max() <= 2, "a reset as high as the threshold would spike for ever"
    program = lower_layers(net(Leaky(), n=3, m=2, n_steps=10), {"p.w": w}, plan, LayerRanges(v={"p": 1.0}))
    calm = restore_rates(program, spikes, {"p": [0.0, 0.0]})
    assert measured_rates(calm, "p", spikes, 2).sum() < measured_rates(program, "p", spikes, 2).sum()
    busy = lower_layers(
        net(Leaky(max_spikes=5), n=3, m=2, n_steps=10), {"p.w": w * 4}, plan_of(rest=8), LayerRanges(v={"p": 9.0})
    )
    rates = measured_rates(busy, "p", spikes, 2)
    assert rates.max() > 1
    assert np.array_equal(restore_rates(busy, spikes, {"p": rates}).codes("p.v_th"), busy.codes("p.v_th"))
    with pytest.raises(DataError, match=r"allowed: 0\.\.5"):
        restore_rates(busy, spikes, {"p": [1.0, 6.0]})


def test_what_training_moved_out_of_range_is_held_as_in_the_forward_pass() -> None:
    x = torch.ones(6, 1, 1)
    for name, value in (("p__v_th", -1.0), ("p__decay", 1.2), ("p__decay", -0.2)):
        module = prepare(net(Leaky(), n_steps=6), plan_of(rest=8), {"p.w": np.ones((1, 1))})
        with torch.no_grad():
            getattr(module, name).fill_(value)
        expected = module(x).spikes["p"].flatten().int().tolist()
        found = run(convert(module), from_dense(np.ones((6, 1, 1))), record=True).spikes["p"].ravel().tolist()
        assert found == expected, name


def test_training_takes_what_float32_holds() -> None:
    network = net(Leaky())
    with pytest.raises(LoweringError, match=r"p\.v_th: does not fit float32"):
        prepare(network, plan_of(), {"p.w": np.ones((1, 1)), "p.v_th": np.array([1e50])}, LayerRanges(v={"p": 1e50}))
    leak = {"p.w": np.ones((1, 1)), "p.decay": np.array([1 - 1e-8])}
    shifts = [
        program.ops[2].leak.shift
        for program in (
            lower_layers(network, leak, plan_of(), LayerRanges(v={"p": 1.0})),
            convert(prepare(network, plan_of(), leak, LayerRanges(v={"p": 1.0}))),
        )
    ]
    assert shifts == [16, 16]
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        module = SurrogateNet(network).to(kind)
        for call in (lambda: frozen(module), lambda: module(torch.ones(60, 1, 1))):  # noqa: B023
            with pytest.raises(ConfigError, match=r"computed and trained in float32.*net\.float\(\)"):
                call()


def test_modules_within_autocast_are_refused() -> None:
    network = net(Leaky(), n_steps=4)
    for module in SurrogateNet(network), prepare(network, plan_of()):
        with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ConfigError, match=r"^autocast: .*float32"):
            module(torch.ones(4, 1, 1))


NET, ONES = net(Leaky()), {"p.w": np.ones((1, 1))}
PROGRAM = lower_layers(NET, ONES, plan_of(), LayerRanges(v={"p": 1.0}))
SPIKES = from_dense(np.ones((60, 1, 1)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: convert("x"),
        lambda: layer_ranges("x", 1),
        lambda: frozen("x"),
        lambda: restore_rates("x", SPIKES, {}),
        lambda: restore_rates(PROGRAM, np.ones(2), {}),
        lambda: measured_rates(PROGRAM, ["p"], SPIKES, 1),
        lambda: memory.plan_account(NET, "x"),
        lambda: memory.program_account("x"),
        lambda: memory.float_layers_account("x"),
        lambda: memory.float_account(NET),
        lambda: memory.published_account(NET, np.ones(2)),
        lambda: memory.published_account(NET, states=np.ones(2)),
        lambda: memory.MemoryAccount(rows=[1]),
        lambda: prepare(NET, plan_of()).grid("q"),
        lambda: prepare(NET, plan_of()).anneal(np.nan),
        lambda: prepare(NET, plan_of()).anneal(2),
        lambda: prepare(NET, plan_of(), learn_steps=1),
        lambda: prepare(NET, plan_of(), estimator=np.ones(2)),
        lambda: SurrogateNet(NET, surrogate=["arctan"]),
        lambda: lower_layers(NET, ONES, plan_of(), LayerRanges(v={"p": 1.0}), provenance=np.ones(2)),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(call: Callable[[], Any]) -> None:
    with pytest.raises(QSpinnError):
        call()


def test_grids_keep_what_was_checked() -> None:
    step = np.array([0.1, 0.1])
    grid = LayerGrid(step=step, shifts=np.zeros(2, int))
    step[0] = np.nan
    assert grid.step.tolist() == [0.1, 0.1]

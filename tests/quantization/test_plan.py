"""Plans: first match wins, nothing is silently ignored."""

from __future__ import annotations

import pytest

from qspinn.errors import ConfigError
from qspinn.fixedpoint import Rounding
from qspinn.networks.competing import Network
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Linear, NeuronReadout
from qspinn.networks.models import diehl_cook
from qspinn.quantization.competing import resolve, wide_plan
from qspinn.quantization.paths import layer_paths, tensor_paths
from qspinn.quantization.plan import Calibrator, Granularity, Levels, QuantPlan, QuantRule, chosen_rules, with_rule

EVERY = QuantRule(tensor="*", bits=8)


def test_paths_in_execution_order(tiny: Network, two_layers: Network) -> None:
    assert tensor_paths(tiny) == [
        "exc.w",
        "exc.v",
        "exc.v_th",
        "exc.theta",
        "exc.decay",
        "exc.inhibition",
        "readout.votes",
    ]
    assert tensor_paths(tiny, learning=True) == [*tensor_paths(tiny)[:-1], "exc.x_pre", "exc.x_post", "readout.votes"]
    assert tensor_paths(two_layers, learning=True) == [
        f"{p}.{k}" for p in "ab" for k in ("w", "v", "v_th", "theta", "decay")
    ] + ["readout.votes"]


def test_the_first_match_wins(tiny: Network) -> None:
    rules = (QuantRule(tensor="exc.w", bits=3), QuantRule(tensor="exc.*", bits=5), EVERY)
    chosen = resolve(QuantPlan(rules=rules), tiny)
    assert (chosen["exc.w"].bits, chosen["exc.v"].bits, chosen["readout.votes"].bits) == (3, 5, 8)
    front = resolve(with_rule(QuantPlan(rules=rules), QuantRule(tensor="*.v", bits=7)), tiny)
    assert (front["exc.v"].bits, front["exc.w"].bits) == (7, 3)


def test_with_rule_keeps_the_rest() -> None:
    plan = QuantPlan(rules=(EVERY,), fold_theta=True, keep_sum=False, min_input_rate=0.25)
    more = with_rule(plan, QuantRule(tensor="exc.w", bits=1))
    assert (more.fold_theta, more.keep_sum, more.min_input_rate) == (True, False, 0.25)


def test_a_rule_that_matches_nothing_is_an_error(tiny: Network) -> None:
    with pytest.raises(
        ConfigError,
        match=r"plan\.rules\[1\]\.tensor: unknown key; got 'exc\.thetta'.*"
        r"did you mean 'exc\.theta'\?",
    ):
        resolve(QuantPlan(rules=(EVERY, QuantRule(tensor="exc.thetta", bits=4))), tiny)
    with pytest.raises(ConfigError, match="unknown key"):
        resolve(QuantPlan(rules=(EVERY, QuantRule(tensor="EXC.w", bits=4))), tiny)


def test_a_rule_for_traces_is_no_error_where_nothing_learns(tiny: Network) -> None:
    assert "exc.x_pre" not in resolve(QuantPlan(rules=(QuantRule(tensor="*.x_pre", bits=4), EVERY)), tiny)


def test_a_tensor_without_a_rule_is_an_error(tiny: Network) -> None:
    with pytest.raises(ConfigError, match=r"plan: readout\.votes: no rule matches this tensor.*a last rule for '\*'"):
        resolve(QuantPlan(rules=(QuantRule(tensor="exc.*", bits=4),)), tiny)
    rules = tuple(QuantRule(tensor=p, bits=4) for p in tensor_paths(tiny))
    with pytest.raises(ConfigError, match=r"exc\.x_pre: no rule"):
        resolve(QuantPlan(rules=rules), tiny, learning=True)


def test_only_weights_have_a_step_per_neuron(tiny: Network) -> None:
    weights = QuantRule(tensor="exc.w", bits=4, granularity=Granularity.PER_NEURON)
    assert resolve(QuantPlan(rules=(weights, EVERY)), tiny)["exc.w"] is weights
    with pytest.raises(ConfigError, match=r"exc\.v: only weights can have a step per neuron"):
        resolve(QuantPlan(rules=(QuantRule(tensor="exc.*", bits=4, granularity=Granularity.PER_NEURON), EVERY)), tiny)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, r"'\*': bits.*got 0; allowed: 1\.\.16"),
        ({"bits": 17}, "17"),
        ({"bits": 4, "clip": 0.0}, "clip"),
        ({"bits": 4, "accumulator_bits": 3}, r"'\*': accumulator_bits.*got 3; .*no shift may be negative"),
        ({"bits": 4, "accumulator_bits": 17}, "accumulator_bits"),
        ({"bits": 4, "clip": 1.1}, "clip"),
        ({"bits": 4, "clip": float("nan")}, "clip"),
    ],
)
def test_rules_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantRule(tensor="*", **settings)


def test_plans_out_of_range() -> None:
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="min_input_rate"):
            QuantPlan(rules=(EVERY,), min_input_rate=rate)
    with pytest.raises(ConfigError, match=r"plan\.version: unknown version; got 2"):
        QuantPlan(rules=(EVERY,), version=2)


def test_the_wide_plan_covers_everything(two_layers: Network, tiny: Network) -> None:
    for network in (tiny, two_layers):
        chosen = resolve(wide_plan(network, rounding=Rounding.TRUNCATE), network, learning=True)
        assert {(r.bits, r.rounding) for r in chosen.values()} == {(16, Rounding.TRUNCATE)}


@pytest.mark.parametrize(
    ("tensor", "calibrator", "allowed"),
    [
        ("out.v_th", Calibrator.MSE, "max"),
        ("out.decay", Calibrator.PERCENTILE, "max"),
        ("out.v", Calibrator.MEAN_ABS, "max, mse, percentile, threshold"),
        ("out.w", Calibrator.THRESHOLD, "max, mean_abs, mse, percentile"),
    ],
)
def test_calibrators_only_where_they_mean_something(tensor: str, calibrator: Calibrator, allowed: str) -> None:
    layer = Layer(name="out", shape=(2, 1, 1))
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(3, 1, 1)),
        layers=(layer,),
        connections=(Linear(source="input", target="out"),),
        readout=NeuronReadout(source="out"),
    )
    paths = layer_paths(network)
    for own in (Calibrator.MAX, calibrator):
        plan = QuantPlan(rules=(QuantRule(tensor=tensor, bits=4, calibrator=own), QuantRule(tensor="*", bits=8)))
        if own is Calibrator.MAX:
            chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL)
            continue
        with pytest.raises(ConfigError, match=f"plan: {tensor}: this calibrator does not apply.*allowed: {allowed}"):
            chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL)


@pytest.mark.parametrize(
    ("tensor", "settings", "says"),
    [
        ("out.v_th", {"bits": 2, "levels": Levels.TERNARY}, "these levels do not apply.*allowed: uniform"),
        ("out.v", {"bits": 1, "levels": Levels.BINARY}, "these levels do not apply.*allowed: ternary, uniform"),
        ("out.w", {"bits": 4, "accumulator_bits": 8}, "has no accumulator"),
        ("out.v_th", {"bits": 4, "shared_step": True}, "has no accumulator and no step to share"),
    ],
)
def test_levels_and_accumulators_only_where_they_mean_something(tensor: str, settings: dict, says: str) -> None:
    paths = ["out.w", "out.v", "out.v_th", "out.decay"]
    plan = QuantPlan(rules=(QuantRule(tensor=tensor, **settings), QuantRule(tensor="*", bits=8)))
    with pytest.raises(ConfigError, match=f"plan: {tensor}: {says}"):
        chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL)


def test_competing_populations_have_no_binary_weights() -> None:
    rules = (QuantRule(tensor="exc.w", bits=1, levels=Levels.BINARY), QuantRule(tensor="*", bits=8))
    with pytest.raises(ConfigError, match=r"plan: exc\.w: these levels do not apply"):
        resolve(QuantPlan(rules=rules), diehl_cook(4, 3))


def test_competing_populations_have_no_calibrators() -> None:
    rules = (QuantRule(tensor="exc.w", bits=4, calibrator=Calibrator.MSE), QuantRule(tensor="*", bits=8))
    with pytest.raises(ConfigError, match=r"plan: exc\.w: this calibrator does not apply"):
        resolve(QuantPlan(rules=rules), diehl_cook(4, 3))

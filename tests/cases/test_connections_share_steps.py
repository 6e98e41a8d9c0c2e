"""Connections into one layer share the steps of its weights: what one needs must not wipe out another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qspinn.data.events.event_set import from_dense
from qspinn.errors import LoweringError
from qspinn.learning.gradients.quantized import convert, prepare
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Linear, NeuronReadout, Skip
from qspinn.networks.models import DenseLink, chain
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Granularity, Levels, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.runtime import run

RECURRENT = chain((4, 1, 1), (DenseLink(n=2, recurrent=True), DenseLink()), n_classes=2, n_steps=4)
PARAMS = {"fc1.w_input": np.full((2, 4), 0.4), "fc1.w_fc1": np.array([[0, 2.0], [2.0, 0]]), "out.w": np.eye(2) * 2}
RANGES = LayerRanges(v={"fc1": 2.0, "out": 2.0})
REST = QuantRule(tensor="*", bits=8)


def plan_of(**feedback: Any) -> QuantPlan:
    return QuantPlan(rules=(QuantRule(tensor="fc1.w_fc1", **feedback), REST))


def test_a_connection_that_keeps_no_code_is_noted() -> None:
    """One and two bits do so to weak connections, which training may bring back: no error, but never silent."""
    lowered = lower_layers(RECURRENT, PARAMS, plan_of(bits=2), RANGES)
    trained = convert(prepare(RECURRENT, plan_of(bits=2), PARAMS, RANGES))
    for program in (lowered, trained):
        assert not program.codes("fc1.w_input").any()
        (note,) = program.notes
        assert (note.path, note.count, note.total) == ("fc1.w_input", 8, 8)
        assert "all codes are 0" in note.problem


def test_a_residual_connection_that_keeps_no_code_is_noted() -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 1, 1)),
        layers=(Layer(name="p", shape=(2, 1, 1)),),
        connections=(Linear(source="input", target="p"), Skip(source="input", target="p", weight=0.4)),
        readout=NeuronReadout(source="p"),
    )
    plan, ranges = QuantPlan(rules=(QuantRule(tensor="p.w", bits=2), REST)), LayerRanges(v={"p": 1.0})
    (note,) = lower_layers(network, {"p.w": np.eye(2)}, plan, ranges).notes
    assert note.path == "p.skip_input"
    assert "all codes are 0" in note.problem
    weak = lower_layers(network, {"p.w": np.eye(2) * 0.5}, plan, ranges)
    assert (weak.codes("p.skip_input").tolist(), weak.notes) == ([1, 1], ())


def test_a_connection_that_keeps_few_bits_is_noted() -> None:
    (note,) = lower_layers(RECURRENT, PARAMS, plan_of(bits=4), RANGES).notes
    assert (note.path, note.count, note.total) == ("fc1.w_input", 8, 8)
    assert "leaves 2 of 8 bits" in note.problem
    assert lower_layers(RECURRENT, PARAMS, plan_of(bits=8), RANGES).notes == ()


@pytest.mark.parametrize(
    ("key", "feedback"),
    [
        ("granularity", {"bits": 8, "granularity": Granularity.PER_CHANNEL}),
        ("power_of_two", {"bits": 1, "levels": Levels.BINARY, "standardize": False, "power_of_two": True}),
    ],
)
def test_rules_of_one_step_that_differ_are_refused(key: str, feedback: dict[str, Any]) -> None:
    message = rf"fc1\.w_fc1: {key}: is not that of fc1\.w_input.*the same {key} for both"
    params = PARAMS | {"fc1.w_fc1": np.array([[1.0, 2.0], [2.0, 1.0]])}
    with pytest.raises(LoweringError, match=message):
        lower_layers(RECURRENT, params, plan_of(**feedback), RANGES)
    with pytest.raises(LoweringError, match=message):
        prepare(RECURRENT, plan_of(**feedback), params, RANGES)


def test_a_step_that_is_to_be_a_power_of_two_is_one_beside_a_residual_connection() -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(4, 1, 1)),
        layers=(Layer(name="p", shape=(4, 1, 1)),),
        connections=(Linear(source="input", target="p"), Skip(source="input", target="p", weight=3.0)),
        readout=NeuronReadout(source="p"),
        n_steps=6,
    )
    binary = QuantRule(tensor="p.w", bits=1, levels=Levels.BINARY, power_of_two=True)
    plan = QuantPlan(rules=(binary, QuantRule(tensor="p.skip_*", bits=3), REST))
    rng = np.random.default_rng(3)
    params, ranges = {"p.w": rng.normal(size=(4, 4)) * 0.2}, LayerRanges(v={"p": 3.0})
    lowered = lower_layers(network, params, plan, ranges)
    trained = convert(prepare(network, plan, params, ranges))
    assert {k: lowered.codes(k).tolist() for k in lowered.tensors} == {
        k: trained.codes(k).tolist() for k in trained.tensors
    }
    events = from_dense(rng.random((3, 6, 4, 1, 1)) < 0.5, [0, 1, 2], order="BT")
    assert np.array_equal(run(lowered, events.graded()).counts["p"], run(trained, events.graded()).counts["p"])


@pytest.mark.parametrize("granularity", [Granularity.GLOBAL, Granularity.PER_CHANNEL])
def test_binary_weights_of_a_dead_channel_are_refused(granularity: Granularity) -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(4, 1, 1)),
        layers=(Layer(name="p", shape=(3, 1, 1)),),
        connections=(Linear(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
    )
    rule = QuantRule(tensor="p.w", bits=1, levels=Levels.BINARY, standardize=False, granularity=granularity)
    plan, ranges, w = QuantPlan(rules=(rule, REST)), LayerRanges(v={"p": 2.0}), np.ones((3, 4))
    lower_layers(network, {"p.w": w}, plan, ranges)
    w[1] = 0.0
    with pytest.raises(LoweringError, match=r"p\.w: all weights of output channel 1 are 0.*ternary"):
        lower_layers(network, {"p.w": w}, plan, ranges)


def test_normalization_of_a_dense_layer_with_places_is_of_channels_and_folds() -> None:
    def network(**c: Any) -> LayeredNetwork:
        return LayeredNetwork(
            name="n",
            input=EventInput(shape=(6, 1, 1)),
            layers=(Layer(name="p", shape=(2, 2, 1)),),
            connections=(Linear(source="input", target="p", **c),),
            readout=NeuronReadout(source="p"),
            n_steps=5,
        )

    spikes = (torch.rand(5, 8, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    net, plain = SurrogateNet(network(norm=True)), SurrogateNet(network(bias=True))
    net.train()(spikes)
    net.eval()
    with torch.no_grad():
        for path, array in net.params().items():
            getattr(plain, path.replace(".", "__")).copy_(torch.from_numpy(array))
    expected = net(spikes, potentials=True)
    assert expected.spikes["p"].any()
    torch.testing.assert_close(plain(spikes, potentials=True).potentials["p"], expected.potentials["p"])

"""Test sets with classes that a model has no output for: every such sample would silently count as a mistake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qspinn.data import Split
from qspinn.data.events.event_set import from_dense
from qspinn.errors import DataError
from qspinn.networks.checkpoint import Trained
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.networks.models import diehl_cook
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.workflow.verbs import evaluate


@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
def test_a_layered_program_names_the_class(backend: str) -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 2, 2)),
        n_steps=3,
        readout=NeuronReadout(source="p"),
        layers=(Layer(name="p", shape=(3, 1, 1), neuron=Leaky()),),
        connections=(Linear(source="input", target="p"),),
    )
    program = lower_layers(
        network, {"p.w": np.ones((3, 4))}, QuantPlan(rules=(QuantRule(tensor="*", bits=8),)), LayerRanges(v={"p": 5.0})
    )
    spikes = np.ones((4, 3, 1, 2, 2), np.uint8)
    accuracy, said = evaluate(program, from_dense(spikes, [0, 1, 2, 0], order="BT"), "test", backend=backend)
    assert (accuracy.accuracy, said.tolist()) == (0.5, [0, 0, 0, 0])
    with pytest.raises(DataError, match=r"test: labels: has classes .* got 3; allowed: 0\.\.2"):
        evaluate(program, from_dense(spikes, [0, 1, 2, 3], order="BT"), "test", backend=backend)


def test_a_competing_network_names_the_class(make_trained: Callable[..., Trained]) -> None:
    trained = make_trained(diehl_cook(n_inputs=4, n_neurons=5, n_classes=3, n_steps=5))
    images = np.full((2, 4), 200, np.uint8)
    assert evaluate(trained, Split(images=images, labels=np.array([0, 2]), first=0), "test")[0].n == 2
    with pytest.raises(DataError, match=r"test: labels: has classes .* got 3; allowed: 0\.\.2"):
        evaluate(trained, Split(images=images, labels=np.array([0, 3]), first=0), "test")

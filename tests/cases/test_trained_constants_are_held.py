"""Constants that training on the grid moved out of their formats are held at their ends, there and in the program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qspinn.data.events.event_set import from_dense
from qspinn.errors import LoweringError
from qspinn.learning.gradients.quantized import convert, prepare
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.runtime import reference

RASTER = np.random.default_rng(2).random((4, 8, 6, 1, 1)) < 0.5
EVENTS = from_dense(RASTER, np.arange(4) % 2, order="BT")
PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=6),))


@pytest.mark.parametrize(
    ("neuron", "log_step", "tensor"),
    [
        ({"reset": "value", "v_reset": -0.9}, -4.0, "p.v_reset"),
        ({"theta_step": 0.5, "theta_decay": 0.5}, 4.0, "p.theta_step"),
    ],
)
def test_a_program_holds_what_training_holds(neuron: dict[str, Any], log_step: float, tensor: str) -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(6, 1, 1)),
        layers=(Layer(name="p", shape=(2, 1, 1), neuron=Leaky(**neuron)),),
        connections=(Linear(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
        n_steps=8,
    )
    params = {"p.w": np.random.default_rng(1).uniform(0.1, 0.5, (2, 6))}
    module = prepare(network, PLAN, params, LayerRanges(v={"p": 2.0}))
    module.p__log_step.data.fill_(log_step)
    program = convert(module)
    assert tensor in [note.path for note in program.notes]
    spikes = torch.from_numpy(RASTER.reshape(4, 8, 6).transpose(1, 0, 2).copy())
    with torch.no_grad():
        counts = module(spikes).spikes["p"].sum(0).flatten(1).numpy()
    assert np.array_equal(reference.run(program, EVENTS.graded()).counts["p"], counts)
    with pytest.raises(LoweringError, match=tensor.replace(".", r"\.")):
        lower_layers(network, module.params(), PLAN, module.ranges, grids={"p": module.grid("p")})

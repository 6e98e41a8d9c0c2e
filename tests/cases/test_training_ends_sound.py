"""Training ends with a network that answers: finite, with its own settings; or with the epoch that went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from qspinn.data.events.event_set import from_dense
from qspinn.errors import ConfigError, DataError, RunError
from qspinn.learning.gradients.quantized import prepare
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.gradients.training import channel_rates, fit, layer_ranges, responses
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Skip
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges

ONE = Supervision(n_epochs=1, batch=20)
RASTER = np.random.default_rng(0).random((20, 6, 6, 1, 1)) < 0.5
EVENTS = from_dense(RASTER, np.arange(20) % 2, order="BT")


def network(n: int = 2, n_inputs: int = 6, n_steps: int = 6, **neuron: Any) -> LayeredNetwork:
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(n_inputs, 1, 1)),
        layers=(Layer(name="p", shape=(n, 1, 1), neuron=Leaky(**neuron)),),
        connections=(Linear(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
        n_steps=n_steps,
    )


def plan(bits: int = 8) -> QuantPlan:
    return QuantPlan(rules=(QuantRule(tensor="*.w", bits=bits), QuantRule(tensor="*", bits=8)))


RANGES = LayerRanges(v={"p": 2.0})
QUANTIZED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plan": ({}, {"plan": plan(2)}),
    "ranges": ({}, {"ranges": LayerRanges(v={"p": 9.0})}),
    "seed": ({}, {"seed": 5}),
    "estimator": ({}, {"estimator": "annealed"}),
    "learn_steps": ({}, {"learn_steps": False}),
    "surrogate": ({}, {"surrogate": "triangle"}),
}


@pytest.mark.parametrize("change", QUANTIZED)
def test_training_of_another_model_is_not_gone_on_from(change: str, tmp_path: Path) -> None:
    params = SurrogateNet(network()).params()

    def model(**options: Any) -> Any:
        given = {"plan": plan(), "ranges": RANGES} | options
        return prepare(network(), given.pop("plan"), params, given.pop("ranges"), **given)

    path = tmp_path / "training"
    fit(model(), EVENTS, ONE, checkpoint=path)
    fit(model(), EVENTS, ONE, checkpoint=path)
    with pytest.raises(RunError, match="is of another training"):
        fit(model(**QUANTIZED[change][1]), EVENTS, ONE, checkpoint=path)


@pytest.mark.parametrize("options", [{"network": network(decay=0.5)}, {"surrogate": "triangle"}, {"width": 9.0}])
def test_training_of_another_network_is_not_gone_on_from(options: dict[str, Any], tmp_path: Path) -> None:
    path, declared = tmp_path / "training", network(decay=0.9)
    fit(SurrogateNet(declared), EVENTS, ONE, checkpoint=path)
    given = {"network": declared} | options
    with pytest.raises(RunError, match="is of another training"):
        fit(SurrogateNet(given.pop("network"), **given), EVENTS, ONE, checkpoint=path)


def test_the_last_update_is_checked_too() -> None:
    hidden = LayeredNetwork(
        name="n",
        input=EventInput(shape=(6, 1, 1)),
        layers=(Layer(name="h", shape=(4, 1, 1)), Layer(name="p", shape=(2, 1, 1))),
        connections=(Linear(source="input", target="h"), Linear(source="h", target="p")),
        readout=NeuronReadout(source="p"),
        n_steps=6,
    )
    net = SurrogateNet(hidden)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    wild = replace(ONE, learning_rate=1e30, spike_regulation=1e30)
    with pytest.raises(RunError, match=r"epoch 1: .*__?w|epoch 1: .*is not finite.*epoch before"):
        fit(net, EVENTS, wild)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_training_that_leaves_the_grid_names_the_epoch_and_keeps_the_weights() -> None:
    net = prepare(network(), plan(), SurrogateNet(network()).params(), RANGES)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(RunError, match=r"epoch 1: .*the weights are those of the epoch before"):
        fit(net, EVENTS, Supervision(n_epochs=5, batch=5, learning_rate=1e3))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not net.training
    responses(net, EVENTS)


def test_a_width_beyond_float32_is_refused() -> None:
    with pytest.raises(ConfigError, match="width: is out of range"):
        prepare(network(), plan(), None, RANGES, width=1e300)
    with pytest.raises(ConfigError, match="width: is out of range"):
        SurrogateNet(network(), width=1e300)


def test_the_width_of_a_training_is_its_own() -> None:
    net = SurrogateNet(network(), width=2.0)
    fit(net, EVENTS, replace(ONE, width=50.0))
    assert net.width == 2.0

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(net, EVENTS, replace(ONE, width=50.0), progress=stop)
    assert net.width == 2.0
    assert not net.training


def test_a_network_with_arrays_that_are_not_finite_is_not_measured() -> None:
    net = SurrogateNet(network())
    net.p__w.data[0, 0] = float("nan")
    for measured in (responses, layer_ranges, channel_rates):
        with pytest.raises(DataError, match="p__w: holds NaN or infinity"):
            measured(net, EVENTS)
    with pytest.raises(DataError, match="p__w: holds NaN or infinity"):
        fit(net, EVENTS, ONE)


@pytest.mark.parametrize(
    ("teacher", "where"),
    [
        (network(n=5), "teacher: classes"),
        (network(n_inputs=7), "teacher: input.shape"),
        (network(n_steps=7), "teacher: n_steps"),
    ],
)
def test_a_teacher_of_other_classes_or_inputs_is_refused(teacher: LayeredNetwork, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(SurrogateNet(network()), EVENTS, replace(ONE, distillation=0.5), teacher=SurrogateNet(teacher))
    assert caught.value.where == where


def test_a_teacher_that_nothing_is_asked_of_is_refused() -> None:
    with pytest.raises(ConfigError, match="teacher: is not listened to"):
        fit(SurrogateNet(network()), EVENTS, ONE, teacher=SurrogateNet(network()))
    net = SurrogateNet(network())
    with pytest.raises(ConfigError, match="teacher: is the network that learns"):
        fit(net, EVENTS, replace(ONE, distillation=0.5), teacher=net)


def test_a_teacher_stays_in_its_mode() -> None:
    teacher = SurrogateNet(network(), seed=3)
    teacher.train()
    fit(SurrogateNet(network()), EVENTS, replace(ONE, distillation=0.5), teacher=teacher)
    assert teacher.training


def test_what_training_cannot_compute_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"p__w: networks are computed and trained in float32"):
        fit(SurrogateNet(network()).half(), EVENTS, ONE)
    with pytest.raises(ConfigError, match=r"p__w: networks are computed and trained in float32"):
        responses(SurrogateNet(network()).double(), EVENTS)
    with pytest.raises(ConfigError, match="has no parameter that learns"):
        fit(SurrogateNet(network()).requires_grad_(False), EVENTS, ONE)
    with torch.no_grad(), pytest.raises(ConfigError, match="training needs gradients"):
        fit(SurrogateNet(network()), EVENTS, ONE)
    with torch.autocast("cpu"), pytest.raises(ConfigError, match="autocast"):
        responses(SurrogateNet(network()), EVENTS)


def test_residual_connections_alone_answer_and_do_not_train() -> None:
    through = LayeredNetwork(
        name="n",
        input=EventInput(shape=(6, 1, 1)),
        layers=(Layer(name="p", shape=(6, 1, 1)),),
        connections=(Skip(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
        n_steps=6,
    )
    net = SurrogateNet(through)
    assert responses(net, EVENTS)[0].shape == (20, 6)
    with pytest.raises(ConfigError, match="has no parameter that learns"):
        fit(net, EVENTS, ONE)

"""Functions say which argument is of the wrong class, before they look into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, LoweringError
from qspinn.learning.gradients.inputs import need_counts
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.stdp import grid
from qspinn.learning.stdp import training as stdp
from qspinn.networks import published as architectures
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d
from qspinn.quantization.competing import lower, resolve
from qspinn.quantization.paths import layer_paths, tensor_paths
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.spikes import from_dense
from samples import COMPETING, ONE_LAYER, trained_competing

SPIKES = from_dense(np.ones((4, 2, 5), np.uint8))
PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=8),))
RANGES = Ranges(input_rate=np.full(5, 0.1), busiest_step=5, threshold_max_mv={"exc": 20.0})


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: architectures.resnet19(0.5), "variant"),
        (lambda: architectures.vgg16({}), "variant"),
        (lambda: architectures.vggsnn(None), "variant"),
        (lambda: stdp.train(ONE_LAYER, SPIKES, stdp.StdpTraining()), "network"),
        (lambda: stdp.train(COMPETING, SPIKES, 3), "training"),
        (lambda: grid.prepare(ONE_LAYER, PLAN, RANGES), "network"),
        (lambda: grid.prepare(COMPETING, PLAN, {}), "ranges"),
        (lambda: grid.prepare(COMPETING, PLAN, RANGES, start=COMPETING), "start"),
        (lambda: grid.prepare(COMPETING, "8 bits", RANGES), "plan"),
        (lambda: grid.fit(COMPETING, SPIKES, stdp.StdpTraining()), "model"),
        (lambda: grid.fit(grid.prepare(COMPETING, PLAN, RANGES), SPIKES, {}), "training"),
        (lambda: resolve(PLAN, ONE_LAYER), "network"),
        (lambda: tensor_paths(ONE_LAYER), "network"),
        (lambda: layer_paths(COMPETING), "network"),
    ],
)
def test_arguments_of_another_class_are_named(call: Callable[[], Any], where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{where}: is of the wrong type"):
        call()


def test_thresholds_that_learn_are_no_single_tensor() -> None:
    with pytest.raises(ConfigError, match=r"^plan\.fold_theta: .*once learning is over.*allowed: False while learning"):
        grid.prepare(COMPETING, QuantPlan(rules=PLAN.rules, fold_theta=True), RANGES)


@pytest.mark.parametrize("n", [7, 1 << 16, (1 << 17) + 3])
def test_counts_as_floats_are_looked_at_to_the_last(n: int) -> None:
    net = SurrogateNet(ONE_LAYER)
    x = torch.zeros(1, n, 2)
    need_counts(net.network, x)
    x[-1, -1, -1] = 0.5
    with pytest.raises(Exception, match=r"holds a value that is no whole number; got 0\.5"):
        need_counts(net.network, x)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold_max_mv": {}}, r"^ranges\.threshold_max_mv\.exc: is missing; .*calibrate this network"),
        ({"threshold_max_mv": {"exc": 20.0, "inh": 1.0}}, r"^ranges\.threshold_max_mv\.inh: is no population"),
        ({"input_rate": np.ones(3)}, r"^ranges\.input_rate: does not match the network's inputs; got 3; allowed: 5"),
    ],
)
def test_ranges_of_another_network_are_refused(changes: dict[str, Any], words: str) -> None:
    ranges = Ranges(**{"input_rate": np.full(5, 0.1), "busiest_step": 5, "threshold_max_mv": {"exc": 20.0}, **changes})
    with pytest.raises(LoweringError, match=words):
        grid.prepare(COMPETING, PLAN, ranges)
    with pytest.raises(LoweringError, match=words):
        lower(trained_competing(), PLAN, ranges)


@pytest.mark.parametrize("reach", [0.0, 5e-324, 1.0, -0.001])
def test_ranges_below_the_thresholds_are_refused(reach: float) -> None:
    """They would leave all thresholds at their largest code, whatever the neurons learn."""
    start = trained_competing()
    v_th = COMPETING.population("exc").neuron.v_th_mv
    largest = v_th + float(start.params["exc.theta"].max())
    for model, least in ((None, v_th), (start, largest)):
        low = {"exc": reach if reach >= 0 else least + reach}
        with pytest.raises(LoweringError, match=r"^ranges\.threshold_max_mv\.exc: lies below a threshold"):
            grid.prepare(COMPETING, PLAN, msgspec.structs.replace(RANGES, threshold_max_mv=low), start=model)
        ranges = msgspec.structs.replace(RANGES, threshold_max_mv={"exc": least})
        assert (grid.prepare(COMPETING, PLAN, ranges, start=model).levels() > 0).all()


def layered(neurons: dict[str, Leaky], *connections: Linear | Pool2d, of: Any) -> LayeredNetwork:
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 1, 1)),
        layers=tuple(Layer(name=name, shape=(2, 1, 1), neuron=neuron) for name, neuron in neurons.items()),
        connections=connections,
        readout=NeuronReadout(source=[*neurons][-1], of=of),
    )


def test_spikes_are_taken_from_layers_that_spike() -> None:
    still, a, b = Leaky(spiking=False), Linear(source="input", target="a"), Linear(source="a", target="b")
    for of in ("v_last", "v_sum"):
        assert layered({"a": Leaky(), "b": still}, a, b, of=of).readout.of == of
    with pytest.raises(ConfigError, match=r"^network\.readout\.of: counts spikes of a, which does not spike; .*v_last"):
        layered({"a": still}, a, of="spikes")
    pooled = Pool2d(source="a", target="p", kernel=(1, 1), stride=(1, 1))
    for more in ((b,), (Linear(source="input", target="b"), Linear(source="a", target="a")), (pooled, b)):
        with pytest.raises(ConfigError, match=r"^network\.connections: a -> .: takes spikes from a, which does not"):
            layered({"a": still, "b": Leaky()}, a, *more, of="spikes")

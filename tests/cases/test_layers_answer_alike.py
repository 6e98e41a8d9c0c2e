"""The same samples give the same answers, whatever ran before and however they are cut; inputs that are none say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import qspinn
from qspinn.data.events import event_set
from qspinn.data.events.event_set import EventSet
from qspinn.errors import ConfigError, DataError, QSpinnError
from qspinn.learning.gradients.quantized import QuantNet, prepare
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.gradients.training import channel_rates, fit, layer_ranges, responses, scores
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Skip
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.runtime import run

PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=12),))
NEURON = Leaky(decay=0.9, v_th=1.0, reset="value", strict=True)


def from_dense(raster: np.ndarray, labels: Any) -> EventSet:
    """Recordings of [B, T, channels, height, width]."""
    return event_set.from_dense(raster, labels, order="BT")


def single(n_steps: int = 10, max_count: int = 1, n: int = 1) -> LayeredNetwork:
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1), max_count=max_count),
        n_steps=n_steps,
        layers=(Layer(name="p", shape=(n, 1, 1), neuron=NEURON),),
        connections=(Linear(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
    )


def module(network: LayeredNetwork, weight: float = 0.3) -> SurrogateNet:
    net = SurrogateNet(network)
    with torch.no_grad():
        net.p__w.fill_(weight)
    return net


def test_states_do_not_last_from_sample_to_sample() -> None:
    """Decay 0.9, threshold 1, input 0.3 in every step: spikes at 4 and 8, in every sample and in every call."""
    net = module(single())
    plain = torch.ones(10, 3, 1)
    for _ in range(3):
        steps = net(plain).spikes["p"].flatten(1).nonzero()[:, 0] + 1
        assert steps.tolist() == [4, 4, 4, 8, 8, 8]
    program = program_of(net)
    for engine in ("reference", "numba", "torch"):
        for _ in range(2):
            raster = run(program, from_dense(np.ones((3, 10, 1, 1, 1)), [0] * 3).graded(), backend=engine, record=True)
            assert (np.nonzero(raster.spikes["p"][:, :, 0])[0] + 1).tolist() == [4, 4, 4, 8, 8, 8]


def test_answers_do_not_depend_on_batches_order_or_history() -> None:
    net = SurrogateNet(single(n=3), gain=12.0)
    data = from_dense(np.random.default_rng(0).random((65, 10, 1, 1, 1)) < 0.6, np.arange(65) % 3)
    whole = scores(net, data)
    assert whole.std() > 0
    np.testing.assert_array_equal(scores(net, data), whole)
    np.testing.assert_array_equal(scores(net, data.take(np.arange(64, -1, -1))), whole[::-1])
    for size in (1, 7, 64):
        parts = [scores(net, data.slice(a, min(a + size, 65))) for a in range(0, 65, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def none() -> EventSet:
    return from_dense(np.ones((1, 10, 1, 1, 1)), [0]).slice(0, 0)


def program_of(net: SurrogateNet) -> Any:
    return lower_layers(net.network, net.params(), PLAN, layer_ranges(net, from_dense(np.ones((1, 10, 1, 1, 1)), [0])))


@pytest.mark.parametrize(
    "call",
    [
        lambda net: scores(net, none()),
        lambda net: responses(net, none()),
        lambda net: channel_rates(net, none()),
        lambda net: layer_ranges(net, none()),
        lambda net: fit(net, none(), qspinn.Supervision()),
        lambda net: qspinn.evaluate(program_of(net), none(), "test"),
        lambda net: net(torch.zeros(10, 0, 1)),
        lambda net: prepare(net.network, PLAN)(torch.zeros(10, 0, 1)),
    ],
)
def test_nothing_to_do_is_said(call: Callable[[SurrogateNet], Any]) -> None:
    with pytest.raises(DataError, match=r"hold no samples|holds no recordings"):
        call(module(single()))


WRONG = {
    "fewer steps": (torch.ones(9, 2, 1), "wrong shape"),
    "more steps": (torch.ones(11, 2, 1), "wrong shape"),
    "samples first": (torch.ones(2, 10, 1), r"wrong shape.*fix: steps come before samples: spikes\.transpose\(0, 1\)"),
    "other sources": (torch.ones(10, 2, 2), "wrong shape"),
    "no axis of sources": (torch.ones(10, 2), "wrong shape"),
    "a place too many": (torch.ones(10, 2, 1, 1), "wrong shape"),
    "halves": (torch.full((10, 2, 1), 0.5), "no whole number; got 0.5"),
    "negative": (-torch.ones(10, 2, 1), r"no count; got -1\.0"),
    "negative integers": (-torch.ones(10, 2, 1, dtype=torch.int16), "no count; got -1"),
    "NaN": (torch.full((10, 2, 1), torch.nan), "no count; got nan"),
    "infinity": (torch.full((10, 2, 1), torch.inf), "no count; got inf"),
    "two where one is declared": (2 * torch.ones(10, 2, 1, dtype=torch.uint8), r"no count; got 2.*0\.\.1"),
    "complex": (torch.ones(10, 2, 1, dtype=torch.complex64), "no dense tensor of real numbers"),
    "sparse": (torch.ones(10, 2, 1).to_sparse(), "no dense tensor of real numbers"),
    "an array": (np.ones((10, 2, 1), np.float32), "are no tensor; got 'ndarray'"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", [SurrogateNet, QuantNet], ids=lambda k: k.__name__)
def test_inputs_that_the_declaration_does_not_allow_are_refused(name: str, kind: type) -> None:
    net: Any = module(single())
    if kind is QuantNet:
        net = prepare(net.network, PLAN, net.params())
    spikes, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        net(spikes)
    assert net(torch.ones(10, 2, 1, dtype=torch.bool)).scores.shape == (2, 1)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32, torch.float64], ids=str
)
def test_counts_of_any_type_are_the_same_counts(dtype: torch.dtype) -> None:
    net = module(single(max_count=3))
    counts = torch.tensor([0, 1, 3, 2, 0, 1, 1, 0, 3, 1]).view(10, 1, 1)
    left = net(counts.to(dtype), potentials=True).potentials["p"]
    torch.testing.assert_close(left, net(counts.to(torch.uint8), potentials=True).potentials["p"], rtol=0, atol=0)


@pytest.mark.parametrize(("labels", "bad"), [([0, 3], 3), ([-1, 0], -1)])
def test_labels_beyond_the_classes_are_refused(labels: list[int], bad: int) -> None:
    net = SurrogateNet(single(n=3))
    message = rf"events\.labels\[\d\]: (is no class of the network|holds a value out of range); got {bad}; allowed: 0"
    with pytest.raises(DataError, match=message):
        fit(net, from_dense(np.ones((2, 10, 1, 1, 1)), labels), qspinn.Supervision())


def test_recordings_of_another_kind_are_refused() -> None:
    net = module(single())
    for raster in (np.ones((2, 9, 1, 1, 1)), np.ones((2, 10, 1, 1, 2)), np.ones((2, 10, 2, 1, 1))):
        for call in (scores, channel_rates, layer_ranges, lambda n, d: fit(n, d, qspinn.Supervision())):
            with pytest.raises(DataError, match="do not fit the network's input"):
                call(net, from_dense(raster, [0, 0]))
    with pytest.raises(DataError, match="events: are no recordings; got 'ndarray'"):
        scores(net, np.ones((10, 2, 1)))  # type: ignore[arg-type]


def fed_twice(second: Linear | Conv2d, first: Linear | None = None) -> LayeredNetwork:
    """Layer p, fed by the input and by another connection; both say that it has a bias."""
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 1, 1)),
        n_steps=12,
        layers=(
            Layer(name="a", shape=(2, 1, 1), neuron=Leaky(decay=0.5)),
            Layer(name="p", shape=(2, 1, 1), neuron=Leaky(decay=0.9)),
        ),
        connections=(
            Linear(source="input", target="a"),
            first or Linear(source="input", target="p", bias=True),
            second,
        ),
        readout=NeuronReadout(source="p"),
    )


@pytest.mark.parametrize(
    "second",
    [
        Linear(source="p", target="p", bias=True),
        Linear(source="a", target="p", bias=True),
        Conv2d(source="a", target="p", kernel=(1, 1), bias=True),
        Linear(source="a", target="p"),
        Linear(source="a", target="p", bias=True, norm=True),
    ],
    ids=["recurrent", "linear", "conv", "one only", "normalized"],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_bias_of_a_layer_counts_once(second: Linear | Conv2d, first: bool) -> None:
    """In the float net, in its parameters, on the grid and in the program: a constant input of 0.3 to p."""
    net = SurrogateNet(fed_twice(second, Linear(source="input", target="p", bias=first or not second.bias))).eval()
    with torch.no_grad():
        for name, x in net.named_parameters():
            x.fill_(0.3 if name == "p__bias" else 1.0 if name.endswith("weight") else 0.0)
    silent = torch.zeros(12, 1, 2)
    assert net.params()["p.bias"].tolist() == pytest.approx([0.3, 0.3])
    expected = net(silent, potentials=True)
    v, steps = 0.0, []
    for _ in range(12):
        v = 0.9 * v + 0.3
        steps.append(v >= 1)
        v -= v >= 1
    assert expected.spikes["p"].flatten(1)[:, 0].bool().tolist() == steps
    data = from_dense(np.zeros((1, 12, 2, 1, 1)), [0])
    params = {k: np.where(x == 0, 1e-3, x) if ".w" in k else x for k, x in net.params().items()}
    quantized = prepare(net.network, PLAN, params, layer_ranges(net, data))
    program = lower_layers(net.network, params, PLAN, layer_ranges(net, data))
    assert quantized(silent).spikes["p"].flatten(1)[:, 0].bool().tolist() == steps
    for engine in ("reference", "numba", "torch"):
        result = run(program, data.graded(), backend=engine, record=True)
        assert result.spikes["p"][:, 0, 0].astype(bool).tolist() == steps


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"p.ww": np.ones((1, 1))}, "p.ww"),
        ({"p.w": np.ones((1, 2))}, "p.w"),
        ({"p.w": np.array([[np.nan]])}, "p.w"),
        ({"p.w": None}, "p.w"),
        ({"p.bias": np.ones(2)}, "p.bias"),
        ({"p.decay": np.array(1.5)}, "p.decay"),
        ({"p.decay": np.array([0.5, 0.5])}, "p.decay"),
        ({"p.v_th": np.ones(3)}, "p.v_th"),
        ({"q.w": np.ones(1)}, "q.w"),
        ({"p.w": np.array([["a"]])}, "p.w"),
        ({"p.w": np.array([[1j]])}, "p.w"),
        ({"p.v_th": np.array(np.inf)}, "p.v_th"),
    ],
)
def test_arrays_that_do_not_belong_to_the_network_are_refused_by_path(change: dict, path: str) -> None:
    net = module(single())
    params = {k: v for k, v in (net.params() | change).items() if v is not None}
    with pytest.raises(QSpinnError) as caught:
        prepare(net.network, PLAN, params)
    assert caught.value.where.partition("[")[0] == path


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"surrogate": "arctangent"}, "surrogate"),
        ({"width": 0.0}, "width"),
        ({"width": float("nan")}, "width"),
        ({"gain": -1.0}, "gain"),
        ({"gain": "3"}, "gain"),
        ({"seed": 0.5}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_words_and_numbers_of_a_module_are_checked(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SurrogateNet(single(), **settings)
    assert caught.value.where == where
    with pytest.raises(ConfigError, match="network: is no network of layers"):
        SurrogateNet(Skip(source="a", target="b"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="estimator: unknown estimator"):
        prepare(single(), PLAN, estimator="straight")  # type: ignore[arg-type]

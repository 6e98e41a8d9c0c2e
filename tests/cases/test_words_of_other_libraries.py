"""Words, names and connections that nearly say what is said here: each has its one meaning or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.fixedpoint import Rounding
from qspinn.networks.competing import Lif
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
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.records.record import from_plain
from qspinn.runtime import run
from qspinn.testing.programs import constant


def network(*connections: Any) -> LayeredNetwork:
    """Layers a and b of 2 x 4 x 4 neurons, fed one by the other, and further connections."""
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 4, 4)),
        n_steps=4,
        readout=NeuronReadout(source="b"),
        layers=tuple(Layer(name=name, shape=(2, 4, 4), neuron=Leaky()) for name in "ab"),
        connections=(Linear(source="input", target="a"), Linear(source="a", target="b"), *connections),
    )


@pytest.mark.parametrize(
    ("again", "fix"),
    [
        (lambda: Skip(source="a", target="a"), r"fix: Linear\(source='a', target='a'\)"),
        (lambda: Skip(source="b", target="b"), r"fix: Linear\(source='b', target='b'\)"),
        (
            lambda: Conv2d(source="a", target="a", kernel=(3, 3), padding=(1, 1)),
            r"fix: Linear\(source='a', target='a'\)",
        ),
        (lambda: Conv2d(source="b", target="b", kernel=(1, 1)), r"fix: Linear\(source='b', target='b'\)"),
        (lambda: Conv2d(source="a", target="b", kernel=(1, 1)), "two connections join the same ends"),
        (lambda: Linear(source="input", target="a", bias=True), "two connections join the same ends"),
        (lambda: Skip(source="b", target="a"), "unknown source, or one that comes later"),
    ],
)
def test_connections_that_engines_would_read_differently_are_refused(again: Callable[[], Any], fix: str) -> None:
    with pytest.raises(ConfigError, match=fix):
        network(again())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Leaky(beta=0.9), r"Leaky\.beta: unknown key; .* did you mean 'decay'"),
        (lambda: Leaky(threshold=1.0), r"Leaky\.threshold: .* did you mean 'v_th'"),
        (lambda: Leaky(reset="zero"), "did you mean 'value' with v_reset = 0"),
        (lambda: Leaky(decay=np.array([0.5, 0.6])), r"Leaky\.decay: .*allowed: a finite number"),
        (lambda: Leaky(v_th=np.ones(3)), r"Leaky\.v_th: .*allowed: a finite number"),
        (lambda: Conv2d(source="a", target="b", kernel_size=3), r"Conv2d\.kernel_size: .* did you mean 'kernel'"),
        (lambda: Conv2d(source="a", target="b", kernel=5), r"fix: write \[5, 5\]"),
        (lambda: Conv2d(source="a", target="b", kernel=(3, 3), padding="same"), r"Conv2d\.padding: .*\[an integer, an"),
        (lambda: Conv2d(source="a"), "a required key is missing; .* fix: add target"),
        (lambda: Pool2d(source="a", target="b", of="avg"), "did you mean 'average'"),
        (lambda: Pool2d(source="a", target="b", of="max", kind="max"), "is the former name of of"),
        (lambda: QuantRule(name="*", bits=4), r"QuantRule\.name: .* did you mean 'tensor'"),
        (lambda: QuantRule(tensor="*", bits=4, rounding="round"), "did you mean 'nearest'"),
        (lambda: Lif(v_th=1.0), r"Lif\.v_th: unknown key; .* did you mean 'v_th_mv'"),
        (lambda: from_plain(Leaky, {"beta": 0.9}), "did you mean 'decay'"),
    ],
)
def test_words_of_other_libraries_are_refused_with_the_one_of_this(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_former_name_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="Pool2d: kind is called of now"):
        assert Pool2d(source="a", target="b", kind="max").of == "max"
    assert from_plain(Pool2d, {"source": "a", "target": "b", "kind": "max"}).of == "max"


def test_every_weight_of_a_layer_follows_one_rule() -> None:
    """`*.w` covers `b.w_a`, of the layer before, and `b.w_b`, of the layer itself; so does no rule after it."""
    params = {
        path: np.full(shape, 0.1) for path, shape in (("a.w", (32, 32)), ("b.w_a", (32, 32)), ("b.w_b", (32, 32)))
    }
    net = network(Linear(source="b", target="b"))
    plan = QuantPlan(rules=(QuantRule(tensor="*.w", bits=3), QuantRule(tensor="*", bits=16)))
    program = lower_layers(net, params, plan, LayerRanges(v={"a": 2.0, "b": 2.0}))
    assert {path: program.tensors[path].fmt.bits for path in params} == dict.fromkeys(params, 3)
    late = QuantPlan(rules=(QuantRule(tensor="*.w", bits=3), QuantRule(tensor="*.w_b", bits=8), plan.rules[-1]))
    with pytest.raises(ConfigError, match=r"plan\.rules\[1\]: changes nothing"):
        lower_layers(net, params, late, LayerRanges(v={"a": 2.0, "b": 2.0}))


@pytest.mark.parametrize("engine", ["reference", "numba", "torch"])
@pytest.mark.parametrize("rounding", [Rounding.NEAREST, "nearest"])
def test_a_rounding_given_as_a_word_is_its_member_in_every_engine(rounding: Any, engine: str) -> None:
    """Reported: the word gave 23 spikes in one engine and 20 in two others. Right: the 24 of `Rounding.NEAREST`."""
    one = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1)),
        n_steps=60,
        layers=(Layer(name="p", shape=(1, 1, 1), neuron=Leaky(decay=0.9)),),
        connections=(Linear(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
    )
    plan = QuantPlan(rules=(QuantRule(tensor="*.v", bits=6, rounding=rounding), QuantRule(tensor="*", bits=8)))
    program = lower_layers(one, {"p.w": np.array([[0.45]])}, plan, LayerRanges(v={"p": 1.5}))
    assert run(program, constant(1, 60, 1), backend=engine).counts["p"].tolist() == [[24]]

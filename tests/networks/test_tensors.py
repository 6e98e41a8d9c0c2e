"""What layers hold: paths taken apart and put together again; every tensor and state by hand, once and in one order."""

from __future__ import annotations

import msgspec
import pytest

from qspinn.networks.competing import Dense
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Skip
from qspinn.networks.models import diehl_cook
from qspinn.networks.tensors import TensorPath, layer_tensors, population_tensors
from qspinn.quantization.paths import layer_paths, tensor_paths


@pytest.mark.parametrize(
    ("text", "parts", "is_weight"),
    [
        ("a.w", ("a", "w", ""), True),
        ("a.w_b", ("a", "w", "b"), True),
        ("a_1.w_b_2", ("a_1", "w", "b_2"), True),
        ("b.skip_input", ("b", "skip", "input"), False),
        ("a.v", ("a", "v", ""), False),
        ("a.v_th", ("a", "v_th", ""), False),
        ("exc.x_pre", ("exc", "x_pre", ""), False),
        ("readout.votes", ("readout", "votes", ""), False),
        ("*.w_*", ("*", "w", "*"), True),
    ],
)
def test_paths_are_taken_apart_and_put_together(text: str, parts: tuple[str, str, str], is_weight: bool) -> None:
    path = TensorPath.of(text)
    assert path == parts
    assert path.is_weight is is_weight
    assert (str(path), path.name) == (text, text.partition(".")[2])
    assert TensorPath.of(path.name) == ("", *parts[1:])


def test_a_layer_with_everything_by_hand() -> None:
    neuron = Leaky(n_ref_steps=2, current_decay=0.5, theta_step=0.1, theta_decay=0.5)
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 1, 1)),
        n_steps=3,
        readout=NeuronReadout(source="out", of="v_last"),
        layers=(
            Layer(name="a", shape=(3, 1, 1)),
            Layer(name="b", shape=(3, 1, 1), neuron=neuron),
            Layer(name="out", shape=(4, 1, 1), neuron=Leaky(spiking=False)),
        ),
        connections=(
            Linear(source="input", target="a"),
            Linear(source="a", target="b", bias=True),
            Linear(source="b", target="b"),
            Skip(source="a", target="b"),
            Linear(source="b", target="out"),
        ),
    )
    held = {str(h.path): (h.role, h.count) for layer in network.layers for h in layer_tensors(network, layer)}
    of_b = [f"b.{name}" for name in ("w_a", "w_b", "skip_a", "bias", "v_th", "decay", "v_reset", "i_decay")]
    of_b += ["b.theta_step", "b.theta_decay", "b.v", "b.ref", "b.i", "b.theta", "b.s"]
    assert [path for path in held if path.startswith("b.")] == of_b
    assert held["b.w_a"] == ("parameter", 9)
    assert held["b.bias"] == ("parameter", 3)
    assert held["b.s"] == ("state", 3)
    assert [path for path in held if path.startswith("out.")] == ["out.w", "out.decay", "out.v"]
    assert layer_paths(network) == [
        *("a.w", "a.v", "a.decay", "a.v_th"),
        *("b.w_a", "b.w_b", "b.skip_a", "b.v", "b.decay", "b.v_th", "b.bias", "b.i", "b.i_decay"),
        *("b.theta", "b.theta_step", "b.theta_decay", "out.w", "out.v", "out.decay"),
    ]


def test_a_population_by_hand() -> None:
    network = diehl_cook(7, 5)
    (exc,) = network.populations
    held = population_tensors(network, exc, learning=True)
    n_pre = network.size_of("input")
    assert [(h.path.kind, h.count) for h in held if h.role == "learning"] == [("x_pre", n_pre), ("x_post", exc.n)]
    kinds = ["w", "v_th", "theta", "decay", "v_reset", "inhibition", "v", "ref"]
    assert [h.path.kind for h in population_tensors(network, exc)] == kinds
    assert tensor_paths(network) == [
        *(f"exc.{kind}" for kind in ("w", "v", "v_th", "theta", "decay", "inhibition")),
        "readout.votes",
    ]
    alone = msgspec.structs.replace(network, connections=tuple(c for c in network.connections if isinstance(c, Dense)))
    assert "exc.inhibition" not in tensor_paths(alone)

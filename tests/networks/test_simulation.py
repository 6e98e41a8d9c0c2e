"""Layered networks in float64: trains by hand, and equality with the module that trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qspinn.errors import DataError, LoweringError
from qspinn.learning.gradients.surrogate import SurrogateNet
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
from qspinn.networks.simulation import simulate


def alone(neuron: Leaky, n_steps: int, *, most: int = 1) -> LayeredNetwork:
    return LayeredNetwork(
        name="alone",
        input=EventInput(shape=(1, 1, 1), max_count=most),
        layers=(Layer(name="a", shape=(1, 1, 1), neuron=neuron),),
        connections=(Linear(source="input", target="a"),),
        readout=NeuronReadout(source="a", of="v_sum"),
        n_steps=n_steps,
    )


def train(neuron: Leaky, weight: float, n_steps: int) -> list[int]:
    """Steps, from 1, of the spikes of a neuron that receives the weight in every step; as often as it spikes."""
    signals = simulate(alone(neuron, n_steps), {"a.w": np.array([[weight]])}, np.ones((n_steps, 1, 1)))
    return [t + 1 for t, s in enumerate(signals.spikes["a"][:, 0, 0]) for _ in range(int(s))]


@pytest.mark.parametrize(
    ("neuron", "weight", "n_steps", "expected"),
    [
        (Leaky(decay=1.0, strict=True, reset="value"), 0.0625, 100, [17, 34, 51, 68, 85]),
        (Leaky(decay=1.0, reset="value"), 0.0625, 100, [16, 32, 48, 64, 80, 96]),
        (Leaky(decay=1.0, strict=True), 0.0625, 100, [17, 33, 49, 65, 81, 97]),
        (Leaky(decay=0.9, strict=True, reset_delay=True), 0.45, 20, [3, 6, 8, 11, 14, 17, 19]),
        (Leaky(decay=0.9, strict=True), 0.45, 20, [3, 5, 8, 10, 13, 15, 18, 20]),
        (Leaky(decay=0.9, strict=True, reset="value"), 0.45, 20, [3, 6, 9, 12, 15, 18]),
        (Leaky(decay=1.0, max_spikes=3), 1.25, 4, [1, 2, 3, 4, 4]),
        (Leaky(decay=1.0, n_ref_steps=1, reset="value"), 1.0, 5, [1, 3, 5]),
        (Leaky(decay=0.0, current_decay=0.5), 0.625, 5, [3, 4, 5]),
        (Leaky(decay=0.0, theta_step=1.0, theta_decay=0.5), 1.5, 6, [1, 3, 6]),
    ],
)
def test_trains_by_hand(neuron: Leaky, weight: float, n_steps: int, expected: list[int]) -> None:
    assert train(neuron, weight, n_steps) == expected


def branched(neuron: Leaky, pool: str) -> LayeredNetwork:
    return LayeredNetwork(
        name="branched",
        input=EventInput(shape=(2, 4, 6), max_count=2),
        layers=(
            Layer(name="a", shape=(4, 3, 4), neuron=neuron),
            Layer(name="b", shape=(4, 1, 2), neuron=neuron),
            Layer(name="out", shape=(3, 1, 1), neuron=neuron),
        ),
        connections=(
            Conv2d(source="input", target="a", kernel=(2, 3), bias=True),
            Pool2d(source="a", target="p", of=pool, kernel=(2, 2)),
            Conv2d(source="p", target="b", kernel=(1, 3), padding=(0, 1), groups=2),
            Skip(source="p", target="b", weight=0.5),
            Linear(source="b", target="out", bias=True),
            Linear(source="out", target="out"),
        ),
        readout=NeuronReadout(source="out", of="v_sum"),
        n_steps=6,
    )


@pytest.mark.parametrize("pool", ["sum", "average", "max"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strict": True, "reset_delay": True},
        {"reset": "value", "v_reset": 0.25, "n_ref_steps": 1},
        {"current_decay": 0.5},
        {"theta_step": 0.25, "theta_decay": 0.5, "reset_delay": True},
    ],
    ids=str,
)
def test_the_module_computes_the_same(settings: dict[str, Any], pool: str) -> None:
    network = branched(Leaky(**{"decay": 0.5, **settings}), pool)
    net = SurrogateNet(network)
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):  # sums of a few binary digits are exact in float32
            p.copy_(torch.from_numpy(np.random.default_rng(number).integers(-6, 12, p.shape) / 16))
    x = np.random.default_rng(9).integers(0, 3, (6, 5, 48))
    mine, out = simulate(network, net.params(), x), net(torch.from_numpy(x), potentials=True)
    for name in ("a", "b", "out"):
        assert mine.spikes[name].any()
        np.testing.assert_array_equal(mine.spikes[name], out.spikes[name].flatten(2).detach().numpy())
        np.testing.assert_array_equal(mine.potentials[name], out.potentials[name].flatten(2).detach().numpy())
    for theirs, ours in ((out.currents, mine.currents), (out.thetas, mine.thetas)):
        assert theirs.keys() == ours.keys()
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values.flatten(2).detach().numpy())
    np.testing.assert_allclose(mine.scores / 6, out.scores.detach().numpy(), rtol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    network, params = alone(Leaky(), 4), {"a.w": np.ones((1, 1))}
    for x in (np.ones((4, 1, 2)), np.ones((3, 1, 1)), np.full((4, 1, 1), 2.0), np.full((4, 1, 1), np.nan)):
        with pytest.raises(DataError, match="spikes"):
            simulate(network, params, x)
    with pytest.raises(DataError, match="no samples"):
        simulate(network, params, np.ones((4, 0, 1)))
    with pytest.raises(LoweringError, match="is not an array"):
        simulate(network, params | {"b.w": np.ones(1)}, np.ones((4, 1, 1)))

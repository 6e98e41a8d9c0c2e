"""Connections by entries, and a layer's node for autograd, against torch's convolutions and normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from qspinn.learning.gradients import node
from qspinn.learning.gradients.node import Plan, advance
from qspinn.learning.gradients.surrogate import KINDS, SurrogateNet, real_scan
from qspinn.learning.gradients.wiring import Scratch, Wiring, flat, parts, shaped
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout

T, B = 6, 5
WIRINGS = {
    "3x3": ((3, 9, 8), 16, (3, 3), {}),
    "stride": ((2, 11, 12), 32, (5, 5), {"stride": (2, 2)}),
    "stride and padding": ((16, 9, 9), 32, (3, 4), {"stride": (2, 3), "padding": (1, 2)}),
    "padding": ((16, 5, 6), 16, (3, 3), {"padding": (2, 1)}),
    "stride over kernel": ((16, 9, 9), 8, (2, 1), {"stride": (3, 2)}),
    "odd channels": ((5, 7, 7), 21, (3, 3), {"padding": (1, 1)}),
    "many channels": ((48, 5, 5), 49, (3, 3), {"padding": (1, 1)}),
    "one target": ((32, 4, 3), 10, (4, 3), {}),
    "dilation": ((16, 9, 9), 16, (3, 3), {"dilation": (2, 1)}),
    "groups": ((16, 6, 6), 32, (3, 3), {"groups": 4}),
}


def case_of(
    name: str, density: float, *, graded: bool, channel_last: bool
) -> tuple[Wiring, torch.Tensor, torch.Tensor]:
    """(wiring, signal, weights)."""
    source, channels, kernel, rest = WIRINGS[name]
    c = Conv2d(source="a", target="b", kernel=kernel, **rest)
    wiring = Wiring(
        source, (channels, *c.shape_after(*source[1:])), kernel, c.stride, c.padding, c.dilation, c.groups
    ).alone
    rng = np.random.default_rng(len(name))
    x = (rng.random((T, B, *source)) < density).astype(np.float32)
    if graded:
        x *= rng.normal(size=x.shape).astype(np.float32)
    w = torch.from_numpy(rng.normal(size=(channels, source[0] // c.groups, *kernel)).astype(np.float32))
    signal = torch.from_numpy(x)
    return wiring, shaped(flat(signal), source) if channel_last else signal, w


def plain(c: dict[str, Any], x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = functional.conv2d(x.flatten(0, 1).double(), w.double(), **c)
    return y.view(T, B, *y.shape[1:])


def integrator(wiring: Wiring, norm: torch.nn.BatchNorm2d | None = None) -> Plan:
    """A layer whose potentials are its input currents."""
    layer = Layer(name="b", shape=wiring.target, neuron=Leaky(decay=0.0, spiking=False))
    return Plan(wiring.target, real_scan(layer, KINDS["arctan"], 2.0), Scratch(), wiring, norm)


def currents(plan: Plan, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(plan.shape[0])
    return advance(plan, x, w, None, None, zeros, zeros, torch.tensor(0.0)).v_after


@pytest.mark.parametrize("channel_last", [False, True])
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.15, 0.6])
@pytest.mark.parametrize("name", WIRINGS)
def test_currents_and_gradients_equal_a_convolution(
    name: str, density: float, graded: bool, channel_last: bool
) -> None:
    wiring, x, w = case_of(name, density, graded=graded, channel_last=channel_last)
    rest = WIRINGS[name][3]
    x, w = x.requires_grad_(), w.requires_grad_()
    mine = currents(integrator(wiring), x, w)
    expected = plain(rest, x, w)
    assert mine.shape == expected.shape
    np.testing.assert_allclose(mine.detach(), expected.detach(), rtol=1e-5, atol=2e-5)
    aim = torch.randn(mine.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((mine * aim).sum(), (x, w))
    for a, b in zip(found, torch.autograd.grad((expected * aim).sum(), (x, w)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("density", [0.1, 0.6])
@pytest.mark.parametrize("training", [True, False])
def test_normalization_equals_torch(training: bool, density: float) -> None:
    wiring, x, w = case_of("stride and padding", density, graded=False, channel_last=True)
    x, w = x.requires_grad_(), w.requires_grad_()
    mine, theirs = (torch.nn.BatchNorm2d(32) for _ in range(2))
    for norm in (mine, theirs.double()):
        torch.nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
        torch.nn.init.uniform_(norm.bias, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            norm.running_mean.fill_(0.3)
            norm.running_var.fill_(2.5)
        norm.train(training)
    with torch.no_grad():
        theirs.weight.copy_(mine.weight)
        theirs.bias.copy_(mine.bias)
    found = currents(integrator(wiring, mine), x, w)
    convolved = plain(WIRINGS["stride and padding"][3], x, w)
    expected = theirs(convolved.flatten(0, 1)).view(convolved.shape)
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-5, atol=2e-5)
    aim = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    mine_grads = torch.autograd.grad((found * aim).sum(), (x, w, mine.weight, mine.bias))
    for a, b in zip(
        mine_grads, torch.autograd.grad((expected * aim).sum(), (x, w, theirs.weight, theirs.bias)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[key], value, rtol=1e-5, err_msg=key)


def network() -> LayeredNetwork:
    neuron = Leaky(decay=0.8)
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 16, 16)),
        n_steps=T,
        readout=NeuronReadout(source="out"),
        layers=(
            Layer(name="a", shape=(16, 7, 7), neuron=neuron),
            Layer(name="b", shape=(32, 3, 3), neuron=neuron),
            Layer(name="out", shape=(4, 1, 1), neuron=neuron),
        ),
        connections=(
            Conv2d(source="input", target="a", kernel=(3, 3), stride=(2, 2), norm=True),
            Conv2d(source="a", target="b", stride=(2, 2), norm=True),
            Linear(source="b", target="out", norm=True),
        ),
    )


def gradients(threads: int) -> list[torch.Tensor]:
    """Of a whole network whose signals are not crowded, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net = SurrogateNet(network(), seed=0)
        x = (torch.rand(T, 64, 512, generator=torch.Generator().manual_seed(0)) < 0.1).to(torch.uint8)
        loss = functional.cross_entropy(net(x).scores, torch.arange(64) % 4)
        torch.autograd.backward(loss)
        return [loss.detach(), *(p.grad.clone() for p in net.parameters())]
    finally:
        torch.set_num_threads(before)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "parts", lambda batch, size, most=16: parts(batch, 1 << 30, most))
    one, two = gradients(1), gradients(2)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(g.abs().sum() > 0 for g in one[1:])


def test_weights_that_are_no_numbers_are_noticed_without_spikes() -> None:
    wiring, x, w = case_of("3x3", 0.0, graded=False, channel_last=False)
    w[0, 0, 0, 0] = torch.nan
    assert torch.isnan(currents(integrator(wiring), x, w)).any()


def test_memory_in_use_is_not_given_away() -> None:
    scratch = Scratch()
    first = scratch.take((100,))
    held = torch.from_numpy(first[10:20])
    first[:] = 1
    place = first.ctypes.data
    del first
    assert scratch.take((100,)).ctypes.data != place
    assert held.sum() == 10
    del held
    assert scratch.take((100,)).ctypes.data == place


@pytest.mark.parametrize("n", [100, 1 << 20, 1 << 21])
def test_memory_begins_at_a_cache_line(n: int) -> None:
    scratch = Scratch()
    first, second = scratch.take((n,)), scratch.take((n,))
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    first[:], second[:] = 1, 2
    assert first.size == n
    assert first.sum() == n

"""Batch normalization folded before weights get their step and scales below one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qspinn.fixedpoint import QFormat, Rounding, requantize
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, NeuronReadout
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges


def normalized(bias: bool, gamma: float = 2.0, w: float = 1.5) -> SurrogateNet:
    """A convolution with one weight; gamma as given, beta 0.5, mean 0.3, variance 0.25."""
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1)),
        n_steps=4,
        readout=NeuronReadout(source="a"),
        layers=(Layer(name="a", shape=(1, 1, 1), neuron=Leaky(v_th=1.0)),),
        connections=(Conv2d(source="input", target="a", kernel=(1, 1), bias=bias, norm=True),),
    )
    net = SurrogateNet(network)
    norm = net.norms["a__w"]
    norm.eps = 0.0
    with torch.no_grad():
        for tensor, value in (
            (norm.weight, gamma),
            (norm.bias, 0.5),
            (norm.running_mean, 0.3),
            (norm.running_var, 0.25),
            (net.a__w, w),
        ):
            tensor.fill_(value)
        if bias:
            net.a__bias.fill_(0.4)
    return net


@pytest.mark.parametrize(("bias", "expected"), [(False, -0.7), (True, -0.3)])
def test_normalization_makes_a_bias(bias: bool, expected: float) -> None:
    """(1.5 x - 0.3) * 2 / 0.5 + 0.5 = 6 x - 0.7. A bias of 0.4 is the layer's and added after that; one
    added before the normalization would be 0.9 in all."""
    params = normalized(bias).params()
    assert params["a.w"].item() == pytest.approx(6.0)
    assert params["a.bias"].item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [2.0, 0.05])
def test_the_step_is_that_of_the_folded_weights(gamma: float) -> None:
    """The largest folded weight gets the top code, however much normalization shrank it: 127, not 127 / 10."""
    plan = QuantPlan(rules=(QuantRule(tensor="*.w", bits=8), QuantRule(tensor="*", bits=16)))
    net = normalized(False, gamma)
    program = lower_layers(net.network, net.params(), plan, LayerRanges(v={"a": 4.0}))
    assert abs(int(program.codes("a.w").item())) == 127


def test_a_scale_below_one_is_a_shift_to_the_right() -> None:
    """Scale 1/2: 2000 -> 1000 and -300 -> -150; a scale that is stored as a whole number would give 0."""
    assert requantize(np.array([2000, -300]), 1, Rounding.NEAREST).tolist() == [1000, -150]
    fmt = QFormat(bits=8, frac=-4)
    assert fmt.delta == 16

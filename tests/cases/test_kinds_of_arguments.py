"""Functions say which argument is of the wrong class, before they look into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError
from qspinn.learning.gradients.surrogate import SurrogateNet, need_counts
from qspinn.learning.stdp import grid
from qspinn.learning.stdp import training as stdp
from qspinn.networks import published as architectures
from qspinn.quantization.competing import resolve
from qspinn.quantization.paths import layer_paths, tensor_paths
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.spikes import from_dense
from samples import COMPETING, ONE_LAYER

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

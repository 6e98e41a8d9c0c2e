"""Inputs of a network in floats are whole numbers up to the declared count, wherever in a tensor they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qspinn.errors import DataError
from qspinn.learning.gradients.kernels.counts import holds_counts
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.networks.models import DenseLink, chain

SIZE = 2600
"""More than two blocks of the compiled check."""


@pytest.mark.parametrize("place", [0, 7, 1023, 1024, 2048, SIZE - 1])
@pytest.mark.parametrize("value", [-1.0, -1e-9, 0.5, 3.0, 1e30, np.nan, np.inf, -np.inf])
def test_a_single_number_that_is_no_count_is_seen(place: int, value: float) -> None:
    x = np.zeros(SIZE, np.float32)
    x[place] = value
    assert not holds_counts(x, np.float32(2))


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 2.0])
def test_counts_up_to_the_declared_one_pass(value: float) -> None:
    assert holds_counts(np.full(SIZE, value, np.float32), np.float32(2))
    assert holds_counts(np.zeros(0, np.float32), np.float32(2))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("value", "text"), [(0.5, "whole"), (2.0, "count"), (float("nan"), "count")])
def test_a_network_refuses_them_however_they_lie(turned: bool, value: float, text: str) -> None:
    net = SurrogateNet(chain((1, 4, 5), (DenseLink(),), n_classes=2, n_steps=3), seed=0)
    x = torch.zeros(3, 6, 20)
    x[2, 4, 19] = value
    if turned:  # the same numbers in another order of memory, which the compiled check does not read
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(DataError, match=text):
        net(x)

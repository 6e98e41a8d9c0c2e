"""Rewards by hand."""

from __future__ import annotations

import math

import pytest

from qspinn.errors import ConfigError
from qspinn.exploration.reward import Reward


def test_additive() -> None:
    assert Reward(mu=0.2).value(0.9, 25, 0.95, 100) == pytest.approx(0.9 - 0.2 * 0.25)
    assert Reward(mu=0.0).value(0.9, 25, 0.95, 100) == 0.9


def test_multiplicative() -> None:
    reward = Reward(form="multiplicative", softness=0.01)
    assert reward.value(0.95, 25, 0.95, 100) == 4.0
    assert reward.value(0.99, 25, 0.95, 100) == 4.0  # no bonus for being better than float
    assert reward.value(0.94, 25, 0.95, 100) == pytest.approx(4.0 / math.e)


@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_more_accuracy_and_less_memory_are_never_worse(form: str) -> None:
    reward = Reward(form=form)
    for a in (0.8, 0.9, 0.95):
        for bits in (10, 20, 50):
            assert reward.value(a + 0.01, bits, 0.95, 100) >= reward.value(a, bits, 0.95, 100)
            assert reward.value(a, bits - 5, 0.95, 100) > reward.value(a, bits, 0.95, 100)


def test_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"reward\.mu"):
        Reward(mu=-0.1)
    with pytest.raises(ConfigError, match=r"reward\.mu"):
        Reward(mu=1e308)  # every reward would be minus infinity
    for numbers in ((10**400, 1, 0.5, 1), (0.5, 10**400, 0.5, 1), (0.5, 1, 0.5, 10**400), (0.5, 1e300, 0.5, 1)):
        with pytest.raises(ConfigError, match="has no reward"):
            Reward(mu=1e9).value(*numbers)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"reward\.softness"):
        Reward(softness=0.0)

"""Local learning goes on only from a training of its own, and names the setting that leaves the integers no room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.data.events.event_set import from_dense
from qspinn.errors import LoweringError, RunError
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.model import trained_from
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import start_of
from qspinn.learning.local.training import layers_of
from qspinn.networks.local import LocalLayer, LocalNetwork

NETWORK = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1, pool=2),))
LEARNING = LocalLearning(n_epochs=1, batch=8, burn_in=1)
EVENTS = from_dense(np.random.default_rng(1).random((25, 4, 2, 7, 6)) < 0.3, np.arange(25) % 2, order="BT")


def test_training_of_another_length_of_a_step_is_not_gone_on_from(tmp_path: Path) -> None:
    start = start_of(NETWORK, EVENTS, 2, step_ms=5.0)

    def train(step_ms: float) -> None:
        trained_from(start, EVENTS, step_ms, NETWORK, LEARNING, DEFAULT_PLAN, resume=tmp_path / "training")

    train(5.0)
    train(5.0)
    with pytest.raises(RunError, match="is of another training"):
        train(6.0)


def test_training_of_another_scale_is_not_gone_on_from(tmp_path: Path) -> None:
    start = start_of(NETWORK, EVENTS, 2, step_ms=5.0)
    other = tuple(msgspec.structs.replace(layer, scale=layer.scale - 1) for layer in start)
    trained_from(start, EVENTS, 5.0, NETWORK, LEARNING, DEFAULT_PLAN, resume=tmp_path / "training")
    with pytest.raises(RunError, match="is of another training"):
        trained_from(other, EVENTS, 5.0, NETWORK, LEARNING, DEFAULT_PLAN, resume=tmp_path / "training")


@pytest.mark.parametrize(
    ("network", "learning", "where"),
    [({}, {"l1": 1e30}, "learning.l1"), ({}, {"l2": 1e30}, "learning.l2"), ({"spread": 1e30}, {}, "network.spread")],
)
def test_a_setting_without_room_in_the_integers_is_named(
    network: dict[str, Any], learning: dict[str, Any], where: str
) -> None:
    declared = msgspec.structs.replace(NETWORK, **network)
    start = start_of(declared, EVENTS, 2, step_ms=5.0)
    with pytest.raises(LoweringError) as caught:
        layers_of(declared, msgspec.structs.replace(LEARNING, **learning), start, DEFAULT_PLAN)
    assert caught.value.where == where
    assert "a smaller" in str(caught.value)

"""An experiment is what it is declared to be before a worker starts; local layers take what they were made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import qspinn
from qspinn.data.events import event_set
from qspinn.data.events.event_set import EventSet
from qspinn.errors import ConfigError, DataError, QSpinnError
from qspinn.exploration.competing.space import Experiment, NetworkConfig
from qspinn.exploration.family import checked
from qspinn.exploration.search import explore, sweep
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import start_of
from qspinn.learning.local.training import answers, fit, layers_of
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Linear, NeuronReadout
from qspinn.networks.local import LocalLayer, LocalNetwork
from qspinn.networks.models import diehl_cook

NETWORK = LayeredNetwork(
    name="n",
    input=EventInput(shape=(1, 1, 1)),
    layers=(Layer(name="p", shape=(2, 1, 1)),),
    connections=(Linear(source="input", target="p"),),
    readout=NeuronReadout(source="p"),
)


def forged(**change: Any) -> Experiment:
    """An experiment with a part of another type, whatever its constructor would say."""
    experiment = Experiment(name="e")
    for name, value in change.items():
        msgspec.structs.force_setattr(experiment, name, value)
    return experiment


@pytest.mark.parametrize(
    "network",
    [NETWORK, diehl_cook(4, 3), {"n_neurons": 3, "nodes": 1}, 3, None, object()],
    ids=lambda n: type(n).__name__,
)
@pytest.mark.parametrize("call", [explore, sweep, lambda e, out: qspinn.train(e), lambda e, out: checked(e)])
def test_another_network_is_refused_before_a_worker_starts(
    network: Any, call: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="experiment"):
        call(forged(network=network), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("experiment", [{}, "e.toml", None, NETWORK, NetworkConfig()], ids=lambda e: type(e).__name__)
def test_what_is_no_experiment_is_refused(experiment: Any, tmp_path: Path) -> None:
    for call in (explore, sweep):
        with pytest.raises(ConfigError, match="experiment: is no experiment; got"):
            call(experiment, tmp_path / "run")
    with pytest.raises(QSpinnError, match=r"^(train: does not take such an object|data: is not data that)"):
        qspinn.train(experiment)


@pytest.mark.parametrize("n_workers", [-1, 1.5, True, "2"])
def test_numbers_of_workers_are_whole(n_workers: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_workers"):
        explore(Experiment(name="e"), tmp_path / "run", n_workers=n_workers)


LOCAL = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1, pool=2),))


def recordings(n: int = 4, shape: tuple[int, int, int] = (2, 6, 6), n_steps: int = 5, n_classes: int = 3) -> EventSet:
    raster = np.random.default_rng(0).random((n, n_steps, *shape)) < 0.3
    return event_set.from_dense(raster, np.arange(n) % n_classes, order="BT")


@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_local_layers_take_what_they_were_made_for(arithmetic: Any) -> None:
    learning = LocalLearning(arithmetic=arithmetic, n_epochs=1, batch=2, burn_in=1)
    start = start_of(LOCAL, recordings(), 3, step_ms=1.0)
    layers = layers_of(LOCAL, learning, start, DEFAULT_PLAN)
    before = {name: x.copy() for name, x in layers.state().items()}
    for bad, message in (
        (recordings(shape=(2, 6, 7)), "do not fit the layers"),
        (recordings(shape=(1, 6, 6)), "do not fit the layers"),
        (recordings(n_classes=4), r"events\.labels\[3\]: is no class of the layers; got 3"),
        (recordings(n_steps=1), "leave n"),
        (np.ones((2, 2)), "are no recordings"),
    ):
        with pytest.raises(DataError, match=message):
            fit(layers, bad, learning)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=message):
            answers(layers, bad, "mode", 1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="leave nothing to learn from"):
        fit(layers, recordings().slice(0, 0), learning)
    assert answers(layers, recordings().slice(0, 0), "mode", 1)[0].shape == (0,)
    for name, x in layers.state().items():
        np.testing.assert_array_equal(x, before[name])


RASTER = np.zeros((3, 2, 6, 6, 2), np.uint8)


@pytest.mark.parametrize(
    "raster",
    [
        RASTER.astype(float),
        RASTER.astype(bool),
        RASTER[..., 0],
        RASTER[:, :, :5],
        RASTER[:0],
        RASTER[:, :0],
        RASTER + 2,
        RASTER.transpose(1, 0, 2, 3, 4),
        np.asfortranarray(RASTER),
        RASTER.tolist(),
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_rasters_of_local_layers_are_checked(raster: Any, arithmetic: Any) -> None:
    learning = LocalLearning(arithmetic=arithmetic, burn_in=0)
    layers = layers_of(LOCAL, learning, start_of(LOCAL, recordings(), 3, step_ms=1.0), DEFAULT_PLAN)
    with pytest.raises(DataError, match="raster"):
        layers.readouts(raster)
    for labels in ([0, 3], [-1, 0], [0], [0.0, 1.0], ["a", "b"], [[0, 1]], None):
        with pytest.raises(DataError, match="labels"):
            layers.learn(RASTER, labels, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"n_classes": 1}, "n_classes"),
        ({"n_classes": 2.0}, "n_classes"),
        ({"step_ms": 0.0}, "step_ms"),
        ({"step_ms": np.nan}, "step_ms"),
        ({"seed": -1}, "seed"),
        ({"burn_in": -1}, "burn_in"),
    ],
)
def test_settings_of_a_start_are_checked(settings: dict[str, Any], where: str) -> None:
    arguments: dict[str, Any] = {"n_classes": 3, "step_ms": 1.0} | settings
    n_classes = arguments.pop("n_classes")
    with pytest.raises(QSpinnError) as caught:
        start_of(LOCAL, recordings(), n_classes, **arguments)
    assert caught.value.where == where

"""Arrays of trained networks are checked by path wherever they enter: made by hand, changed, or read from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from qspinn.errors import ArtifactError, ConfigError, DataError
from qspinn.learning.local.model import TrainedLocal, load_local
from qspinn.networks import checkpoint
from qspinn.networks.checkpoint import Trained, TrainedLayers
from samples import COMPETING, ONE_LAYER, changed, trained_competing, trained_layers, trained_local

SAVED = [
    (trained_competing, checkpoint.load),
    (trained_layers, checkpoint.load_layers),
    (trained_local, load_local),
    (lambda **change: trained_local("float", **change), load_local),
]
BAD: list[tuple[int, dict[str, Any], str]] = [
    (0, {"exc___w": np.ones((3, 4))}, "exc.w"),
    (0, {"exc___w": np.full((3, 5), np.nan)}, "exc.w[0, 0]"),
    (0, {"exc___theta": None}, "exc.theta"),
    (0, {"exc___theta": np.array([0, np.inf, 0])}, "exc.theta[1]"),
    (0, {"readout___responses": np.ones((2, 3))}, "readout.responses"),
    (1, {"p__w": np.ones((2, 3))}, "p__w"),
    (1, {"p__w": None}, "p__w"),
    (1, {"p__w": np.full((3, 2), np.inf)}, "p__w[0, 0]"),
    (1, {"q__w": np.ones(3)}, "q__w"),
    (1, {"p__bias": np.zeros(4)}, "p__bias"),
    (1, {"norms___p__w___running_var": np.array([1.0, -1.0, 1.0])}, "norms.p__w.running_var[1]"),
    (1, {"norms___p__w___num_batches_tracked": np.array(0.5)}, "norms.p__w.num_batches_tracked"),
    (1, {"norms___p__w___bias": None}, "norms.p__w.bias"),
    (2, {"conv1___w": np.ones((4, 2, 3, 2), int)}, "conv1.w"),
    (2, {"conv1___b": np.ones(1, int)}, "conv1.b"),
    (2, {"conv1___w": np.full((4, 2, 3, 3), 512)}, "conv1.w[0, 0, 0, 0]"),
    (2, {"conv1___b": np.ones(4)}, "conv1.b"),
    (2, {"conv2___w": np.ones(1, int)}, "conv2.w"),
    (2, {"n_updates": np.array([-1])}, "n_updates[0]"),
    (2, {"n_updates": None}, "n_updates"),
    (2, {"conv1___e_exponent": np.array([1 << 20])}, "conv1.e_exponent[0]"),
    (3, {"conv1___w": np.full((4, 2, 3, 3), np.nan)}, "conv1.w[0, 0, 0, 0]"),
    (3, {"n_updates": np.array([1])}, "n_updates"),
    (3, {"conv1___b_size": None}, "conv1.b_size"),
    (3, {"conv1___w_size": -np.ones((4, 2, 3, 3))}, "conv1.w_size[0, 0, 0, 0]"),
]


@pytest.mark.parametrize("which", range(len(SAVED)))
def test_what_is_saved_is_read_again(which: int, tmp_path: Path) -> None:
    make, load = SAVED[which]
    trained = make()
    checkpoint.save(trained, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert again.key() == trained.key()
    assert again.network == trained.network


@pytest.mark.parametrize(("which", "change", "where"), BAD)
def test_arrays_that_do_not_belong_are_refused_where_they_enter(
    which: int, change: dict[str, Any], where: str, tmp_path: Path
) -> None:
    make, _ = SAVED[which]
    with pytest.raises(DataError) as caught:
        checkpoint.save(make(**change), tmp_path / "a.safetensors")
    assert caught.value.where == where
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(("which", "change", "where"), BAD)
def test_a_signed_file_with_such_arrays_is_no_checkpoint(
    which: int, change: dict[str, Any], where: str, tmp_path: Path
) -> None:
    make, load = SAVED[which]
    good, path = make(), tmp_path / "a.safetensors"
    checkpoint.save(good, path)
    with safetensors.safe_open(path, framework="np") as file:
        entry = msgspec.json.decode(file.metadata()["qspinn_float"])
    forged = msgspec.structs.replace(good)
    msgspec.structs.force_setattr(forged, "params", changed(good.params, change))
    entry["sha256"] = forged.key()
    arrays = {k: np.ascontiguousarray(v) for k, v in forged.params.items()}
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"qspinn_float": msgspec.json.encode(entry).decode()}))
    with pytest.raises(ArtifactError, match="cannot be read as a float checkpoint") as caught:
        load(path)
    assert where.partition("[")[0] in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        [[1.0]],
        None,
        "w",
        1.0,
        np.array([["a"]]),
        np.array([[1j]]),
        np.array([[None]]),
        np.ma.masked_array([[1.0]], [[True]]),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda x: Trained(network=COMPETING, params={"exc.w": x}),
        lambda x: TrainedLayers(network=ONE_LAYER, params={"p__w": x}),
    ],
)
def test_arrays_of_other_kinds_are_refused(value: Any, make: Callable[[Any], Any]) -> None:
    with pytest.raises(DataError, match=r"(exc\.w|p__w): is no NumPy array of real numbers"):
        make(value)


@pytest.mark.parametrize("kind", [Trained, TrainedLayers, TrainedLocal])
def test_another_network_is_refused(kind: Any) -> None:
    wrong = ONE_LAYER if kind is Trained else COMPETING
    with pytest.raises(ConfigError, match="network: is no "):
        kind(network=wrong, params={})
    with pytest.raises(ConfigError, match="params: is no mapping"):
        kind(
            network={Trained: COMPETING, TrainedLayers: ONE_LAYER, TrainedLocal: trained_local().network}[kind],
            params=[],
        )

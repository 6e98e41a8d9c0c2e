"""Networks, formats and ranges say which field is unknown, which array is none, and what no file would keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, DataError
from qspinn.fixedpoint import QFormat
from qspinn.learning.local.model import LocalDeclaration, TrainedLocal
from qspinn.networks.checkpoint import Trained, TrainedLayers, load_layers, save
from qspinn.networks.competing import Network
from qspinn.networks.layer_arrays import most_spikes
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d
from qspinn.networks.models import DenseLink, PoolLink, chain
from qspinn.quantization.ranges import LayerRanges, Ranges, Sizes
from samples import trained_competing, trained_layers, trained_local


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (QFormat, {"bits": 3, "foo": 1}, r"^QFormat\.foo: unknown key; got 'foo'; allowed: bits, frac, signed"),
        (QFormat, {}, r"^QFormat: a required key is missing; .*fix: add bits"),
        (Trained, {"network": trained_competing().network}, r"^Trained: a required key is missing.*with params"),
        (TrainedLayers, {"network": trained_layers().network, "parms": {}}, r"^TrainedLayers\.parms: .*'params'"),
        (TrainedLocal, {"parms": {}}, r"^TrainedLocal\.parms: .*'params'"),
        (LayerRanges, {"V": {}}, r"^LayerRanges\.V: unknown key.*'v'"),
        (Ranges, {}, r"^Ranges: a required key is missing"),
        (Sizes, {"topp": 1}, r"^Sizes\.topp: unknown key"),
    ],
)
def test_names_that_are_no_fields_are_named(kind: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kind(**values)
    with pytest.raises(
        ConfigError, match=rf"^{kind.__name__}: takes its values by name; got \(8,\); fix: {kind.__name__}"
    ):
        kind(8)


class Fifty(Network, frozen=True):
    """Competing populations with one more field."""

    taste: int = 3


class Layers(LayeredNetwork, frozen=True):
    """A network of layers with one more field."""

    taste: int = 3


class Local(LocalDeclaration, frozen=True):
    """A declaration of local layers with one more field."""

    taste: int = 3


@pytest.mark.parametrize(
    ("trained", "kind"), [(trained_competing(), Fifty), (trained_layers(), Layers), (trained_local(), Local)]
)
def test_networks_of_derived_classes_which_files_do_not_know_are_refused(trained: Any, kind: Any) -> None:
    fields = {name: getattr(trained.network, name) for name in trained.network.__struct_fields__}
    with pytest.raises(ConfigError, match=rf"^network: is no .*; got '{kind.__name__}'"):
        msgspec.structs.replace(trained, network=kind(**fields))


@pytest.mark.parametrize(
    ("weights", "fix"),
    [
        (np.ma.masked_array([[1.0], [2.0]], [[True], [False]]), "fill or leave out the masked entries of a__w"),
        (np.ones((2, 1), bool), "np.asarray(a__w, np.float32)"),
        (np.ones((2, 1), np.longdouble), "np.asarray(a__w, np.float64)"),
        (np.ones((2, 1), object), "np.asarray(a__w, np.float32)"),
        (np.ones((2, 1), complex), "give real numbers"),
        (torch.ones((2, 1), requires_grad=True), "a__w.detach().cpu().numpy()"),
        ([[1.0], [2.0]], "np.asarray(a__w)"),
    ],
    ids=["masked", "bool", "longdouble", "object", "complex", "torch", "list"],
)
def test_the_advice_for_arrays_makes_arrays(weights: Any, fix: str, tmp_path: Path) -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1)),
        layers=(Layer(name="a", shape=(2, 1, 1)),),
        connections=(Linear(source="input", target="a"),),
        readout=NeuronReadout(source="a"),
    )
    with pytest.raises(DataError) as caught:
        TrainedLayers(network=network, params={"a__w": weights})
    assert caught.value.fix == fix
    if fix.startswith(("np", "a__w")):
        array = eval(fix, {"np": np, "a__w": weights})
        save(TrainedLayers(network=network, params={"a__w": array}), tmp_path / "n")
        assert load_layers(tmp_path / "n").params["a__w"].shape == (2, 1)


def test_long_chains_of_pooled_signals_are_followed() -> None:
    links = (PoolLink(kernel=2), *(PoolLink(kernel=1) for _ in range(1200)), PoolLink(of="max"), DenseLink())
    network = chain((1, 8, 8), links, n_classes=2, n_steps=1, max_count=3)
    assert most_spikes(network, network.connections[-1].source) == 4 * 3
    pools = [c for c in network.connections if isinstance(c, Pool2d)]
    assert most_spikes(network, pools[0].source) == 3
    alone = chain((1, 1, 1), (DenseLink(),), n_classes=2, n_steps=1, neuron=Leaky(max_spikes=5))
    assert most_spikes(alone, "out") == 5

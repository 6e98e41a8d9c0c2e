"""Published networks: sizes by hand, a batch at full size, narrow ones in integers, and that they train."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.data.events.nmnist import read_packed
from qspinn.errors import ConfigError
from qspinn.exploration.layered.space import LayersConfig
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.gradients.training import fit, layer_ranges
from qspinn.memory import plan_account, program_account
from qspinn.networks.layered import Conv2d, LayeredNetwork, Leaky, Linear, Pool2d, Skip
from qspinn.networks.models import DenseLink, chain
from qspinn.networks.published import ARCHITECTURES, Variant, resnet19, vgg16, vggsnn
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.records.record import from_plain
from qspinn.runtime import run

DATA = Path(os.environ.get("QSPINN_DATA", ""))
NAMES = list(ARCHITECTURES)
PLAN = QuantPlan(
    rules=(
        QuantRule(tensor="out.w", bits=8),
        QuantRule(tensor="*.w*", bits=2, granularity=Granularity.PER_CHANNEL),
        QuantRule(tensor="*.v", bits=8),
        QuantRule(tensor="*", bits=12),
    )
)


def sizes(network: LayeredNetwork) -> dict[str, int]:
    """Weights of the first layer, of the hidden ones, of the read-out with its bias; parameters of normalization."""
    found = dict.fromkeys(("first", "hidden", "last", "norm"), 0)
    for layer in network.layers:
        kind = {"conv1": "first", "out": "last"}.get(layer.name, "hidden")
        for c in network.into(layer.name):
            if not isinstance(c, Skip):
                found[kind] += int(np.prod(network.weight_shape(c))) + layer.shape[0] * c.bias
                found["norm"] += 2 * layer.shape[0] * c.norm
    return found


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (resnet19(), (3_456, 12_550_144, 5_130, 10_496)),
        (vgg16(), (1_728, 14_708_736, 5_130, 8_448)),
        (vggsnn(), (1_152, 9_216_000, 5_130, 5_504)),
        (vggsnn(Variant()), (1_728, 9_216_000, 5_130, 5_504)),
    ],
)
def test_published_sizes(network: LayeredNetwork, expected: tuple[int, ...]) -> None:
    assert tuple(sizes(network).values()) == expected


def test_blocks_of_the_residual_network() -> None:
    """Blocks 4 and 7 halve the picture and convolve past themselves; the others hand their spikes on as they are."""
    network = resnet19()
    shapes = {layer.name: layer.shape for layer in network.layers}
    assert len(shapes) == 18
    assert [shapes[f"block{n}_2"] for n in range(1, 9)] == [(128, 32, 32)] * 3 + [(256, 16, 16)] * 3 + [(512, 8, 8)] * 2
    before = ["conv1", *(f"block{n}_2" for n in range(1, 8))]
    for n, source in enumerate(before, 1):
        past = next(c for c in network.into(f"block{n}_2") if c.source == source)
        if n in (4, 7):
            assert past == Conv2d(source=source, target=f"block{n}_2", kernel=(1, 1), stride=(2, 2), norm=True)
        else:
            assert past == Skip(source=source, target=f"block{n}_2")
    assert Pool2d(source="block8_2", target="mean", of="average", kernel=(8, 8), stride=(8, 8)) in network.connections
    assert Linear(source="mean", target="out", bias=True) in network.connections
    assert all(layer.neuron == Leaky(decay=0.5, reset="value") for layer in network.layers[:-1])
    assert network.layers[-1].neuron == Leaky(decay=1.0, reset="value", spiking=False)


@pytest.mark.parametrize(
    ("network", "expected"),
    [(vgg16(), [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]), (vggsnn(), [48, 48, 24, 24, 12, 12, 6, 6])],
    ids=["vgg16", "vggsnn"],
)
def test_stages_of_the_plain_networks(network: LayeredNetwork, expected: list[int]) -> None:
    assert [layer.shape[1] for layer in network.layers[:-1]] == expected
    pools = [c for c in network.connections if isinstance(c, Pool2d)]
    assert {p.of for p in pools} == {"average"}
    assert network.shape_of(pools[-1].target) == (512, 1, 1), "all places that are left"


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_at_full_size(name: str) -> None:
    """An image as currents, the same at both steps."""
    net = SurrogateNet(ARCHITECTURES[name](Variant(n_steps=2)))
    image = torch.randint(0, 256, (1, 2, 3 * 32 * 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        out = net(image.expand(2, -1, -1))
    assert out.scores.shape == (2, 10)
    assert out.scores.abs().sum() > 0
    assert min(float(rate) for rate in out.rates.values()) > 0.05, "spikes reach every layer"


@pytest.mark.parametrize("name", NAMES)
def test_narrow_ones_in_integers(name: str) -> None:
    """Pixels as currents, 2-bit weights: both engines agree to the bit, and the plan told how much memory it takes."""
    network = ARCHITECTURES[name](Variant(shape=(3, 16, 16), width=1 / 32, n_steps=2))
    net, rng = SurrogateNet(network, seed=2), np.random.default_rng(1)
    pixels = np.repeat(rng.integers(1, 256, (3, 1, 3 * 16 * 16), np.uint8), 2, axis=1)
    ones = from_dense(np.ones((3, 2, 3, 16, 16)), np.arange(3), order="BT")
    data = msgspec.structs.replace(ones, count=pixels.ravel())
    with torch.no_grad():
        for norm in net.norms.values():
            norm.momentum = 1.0  # the statistics of this batch
        net(torch.from_numpy(data.dense().reshape(2, 3, -1)))
    program = lower_layers(network, net.params(), PLAN, layer_ranges(net, data))
    spikes = data.spikes()
    compiled, plain = (run(program, spikes, backend=backend, record=True) for backend in ("numba", "reference"))
    for layer in network.layers:
        np.testing.assert_array_equal(compiled.v[layer.name], plain.v[layer.name])
        np.testing.assert_array_equal(compiled.counts[layer.name], plain.counts[layer.name])
    np.testing.assert_array_equal(compiled.scores, plain.scores)
    assert sum(counts.sum() for counts in compiled.counts.values()) > 100
    told = {row.path: row for row in plan_account(network, PLAN).rows}
    for row in program_account(program).rows:
        assert (row.role, row.bits) == (told[row.path].role, told[row.path].bits)
        assert row.count in (told[row.path].count, 1), "values that turned out alike are stored once"
        assert row.count == told[row.path].count or row.path.split(".")[1] in ("v_th", "bias", "in_shifts")
    assert told.keys() - {row.path for row in program_account(program).rows} <= {
        f"{layer.name}.{kind}" for layer in network.layers for kind in ("in_shifts", "bias")
    }


def losses(network: LayeredNetwork, data: EventSet, n_epochs: int) -> list[float]:
    found: list[float] = []
    net = SurrogateNet(network, seed=0, surrogate="triangle", width=1.0)
    fit(
        net,
        data,
        Supervision(n_epochs=n_epochs, batch=16, learning_rate=1e-2, gain=1.0),
        progress=lambda done, total, loss: found.append(loss),
    )
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_small_ones_train(name: str) -> None:
    """Two channels; the one that is busier is the class."""
    rng, labels = np.random.default_rng(3), np.arange(64) % 2
    busy = np.where(np.arange(2) == labels[:, None], 0.3, 0.05)
    data = from_dense(rng.random((64, 2, 2, 16, 16)) < busy[:, None, :, None, None], labels, order="BT")
    network = ARCHITECTURES[name](Variant(shape=(2, 16, 16), n_classes=2, width=1 / 16, n_steps=2, max_count=1))
    found = losses(network, data, 8)
    assert found[-1] < 0.6 * found[0], found


@pytest.mark.skipif(
    not (DATA.parts and (DATA / "nmnist8_train.npz").exists()),
    reason="QSPINN_DATA does not name a folder with nmnist8_train.npz",
)
@pytest.mark.soak
def test_small_residual_network_trains_on_recordings(tmp_path: Path) -> None:
    with np.load(DATA / "nmnist8_train.npz") as file:
        fields = {k: file[k] for k in ("delta", "offsets", "n_bins", "label")}
    chosen = np.concatenate([np.flatnonzero(fields["label"] == digit)[:32] for digit in (0, 1)])
    events = [fields["delta"][fields["offsets"][i] : fields["offsets"][i + 1]] for i in chosen]
    np.savez(
        tmp_path / "few.npz",
        delta=np.concatenate(events),
        offsets=np.cumsum([0, *map(len, events)]),
        n_bins=fields["n_bins"][chosen],
        label=fields["label"][chosen],
    )
    data = read_packed(tmp_path / "few.npz", 32)
    assert (data.n_samples, data.n_steps, data.shape) == (64, 2, (2, 34, 34))
    found = losses(resnet19(Variant(shape=data.shape, n_classes=2, width=1 / 32, n_steps=2, max_count=1)), data, 6)
    assert found[-1] < 0.8 * found[0], found


def test_named_in_an_experiment() -> None:
    config = from_plain(LayersConfig, {"architecture": "vggsnn", "width": 0.125})
    network = config.build((2, 34, 34), 5, 8, max_count=1, step_ms=20.0, name="n")
    assert network == vggsnn(
        Variant(shape=(2, 34, 34), n_classes=8, width=0.125, n_steps=5, max_count=1, step_ms=20.0, name="n")
    )
    other = msgspec.structs.replace(config, neuron=Leaky(decay=0.9), readout="spikes")
    network = other.build((2, 34, 34), 5, 8, max_count=1, step_ms=20.0, name="n")
    assert network.layers[0].neuron == Leaky(decay=0.9)
    assert network.layers[-1].neuron == Leaky(decay=1.0)
    assert network.readout.of == "spikes"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayersConfig(), r'network\.layers.*at least one layer for architecture = "chain"'),
        (lambda: chain((2, 8, 8), (), n_classes=2, n_steps=2), r"network\.layers.*at least one layer"),
        (lambda: LayersConfig(layers=(DenseLink(),), architecture="vgg16"), r"network\.layers.*none for the others"),
        (lambda: LayersConfig(layers=(DenseLink(),), width=0.5), r"network\.width.*1 in a chain"),
        (lambda: Variant(width=0.0), r"network\.width.*above 0"),
        (lambda: Variant(n_classes=1), r"network\.n_classes"),
        (lambda: vgg16(Variant(shape=(3, 15, 40))), r"network\.shape: is too small for vgg16.*16 x 16"),
    ],
    ids=range(7),
)
def test_what_cannot_be_built(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

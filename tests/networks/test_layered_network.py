"""Declarations of layered networks: shapes follow, and what does not fit is named at both ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qspinn.errors import ConfigError
from qspinn.networks.layered import (
    Conv2d,
    EventInput,
    Layer,
    LayeredNetwork,
    Leaky,
    Linear,
    NeuronReadout,
    Pool2d,
    Skip,
    conv1d,
)
from qspinn.networks.models import Conv1dLink, ConvLink, DenseLink, Link, chain
from qspinn.records.record import from_plain, to_plain

CAMERA = EventInput(shape=(2, 10, 8))


def network(*layers: Layer, connections: tuple[Any, ...], **settings: Any) -> LayeredNetwork:
    return LayeredNetwork(
        name="n",
        input=CAMERA,
        layers=layers,
        connections=connections,
        readout=NeuronReadout(source=layers[-1].name),
        **settings,
    )


def small() -> LayeredNetwork:
    """conv -> pool -> conv with a residual connection -> dense with feedback."""
    return network(
        Layer(name="a", shape=(4, 5, 4)),
        Layer(name="b", shape=(6, 2, 2)),
        Layer(name="c", shape=(6, 2, 2)),
        Layer(name="out", shape=(3, 1, 1), neuron=Leaky(decay=1.0, current_decay=0.5)),
        connections=(
            Conv2d(source="input", target="a", stride=(2, 2), padding=(1, 1)),
            Pool2d(source="a", target="small", kernel=(2, 2), stride=(2, 2)),
            Conv2d(source="small", target="b", kernel=(1, 1), groups=2),
            Conv2d(source="b", target="c", padding=(1, 1)),
            Skip(source="b", target="c"),
            Linear(source="c", target="out"),
            Linear(source="out", target="out"),
        ),
    )


def test_shapes_and_paths() -> None:
    net = small()
    assert [net.shape_of(s) for s in ("input", "a", "small", "b", "out")] == [
        (2, 10, 8),
        (4, 5, 4),
        (4, 2, 2),
        (6, 2, 2),
        (3, 1, 1),
    ]
    convs = [net.into(name)[0] for name in ("a", "b", "c", "out")]
    assert [net.weight_shape(c) for c in convs] == [(4, 2, 3, 3), (6, 2, 1, 1), (6, 6, 3, 3), (3, 24)]
    assert [net.weight_path(c) for n in ("a", "c", "out") for c in net.into(n)] == [
        "a.w",
        "c.w",
        "c.skip_b",
        "out.w_c",
        "out.w_out",
    ]


def test_records_survive_plain_data() -> None:
    assert from_plain(LayeredNetwork, to_plain(small())) == small()


@pytest.mark.parametrize(
    ("layer", "connection", "message"),
    [
        (
            (4, 5, 4),
            Conv2d(source="input", target="a", stride=(2, 2)),
            r"input \(2, 10, 8\) does not convolve to a \(4, 5, 4\); got \(5, 4\); allowed: \(4, 3\)",
        ),
        ((3, 10, 8), Conv2d(source="input", target="a", padding=(1, 1), groups=2), r"groups; got \(2, 3\)"),
        ((4, 10, 8), Skip(source="input", target="a"), r"input \(2, 10, 8\) and a \(4, 10, 8\) differ"),
        ((4, 1, 1), Linear(source="later", target="a"), "unknown source, or one that comes later; allowed: a, input"),
        ((4, 1, 1), Linear(source="a", target="a"), "nothing that comes before feeds this layer"),
        ((4, 1, 1), Linear(source="input", target="other"), "nothing that comes before feeds this layer"),
    ],
)
def test_what_does_not_fit_is_named(layer: Any, connection: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(Layer(name="a", shape=layer), connections=(connection,))


def test_other_bad_declarations() -> None:
    out = Layer(name="a", shape=(4, 1, 1))
    fine = Linear(source="input", target="a")
    with pytest.raises(ConfigError, match=r"unknown source or target; got \['a -> nowhere'\]"):
        network(out, connections=(fine, Linear(source="a", target="nowhere")))
    with pytest.raises(ConfigError, match="window does not fit into input"):
        network(out, connections=(fine, Pool2d(source="input", target="p", kernel=(11, 1))))
    with pytest.raises(ConfigError, match="must differ"):
        network(out, connections=(fine, Pool2d(source="input", target="a")))
    with pytest.raises(ConfigError, match="unknown layer"):
        msgspec.structs.replace(small(), readout=NeuronReadout(source="input"))


@pytest.mark.parametrize(
    "settings",
    [
        {"decay": 1.1},
        {"decay": float("nan")},
        {"v_th": 0.0},
        {"v_reset": 1.0},
        {"n_ref_steps": -1},
        {"current_decay": 1.0},
        {"theta_step": -0.1},
        {"theta_decay": 1.0},
        {"max_spikes": 0},
        {"max_spikes": 256},
        {"max_spikes": 2, "reset": "value"},
    ],
)
def test_neurons_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Leaky(**settings)


def test_conv1d_is_a_convolution_of_height_one() -> None:
    assert conv1d("input", "a", 5, stride=2, padding=3, dilation=4, groups=2, bias=True, norm=True) == Conv2d(
        source="input",
        target="a",
        kernel=(1, 5),
        stride=(1, 2),
        padding=(0, 3),
        dilation=(1, 4),
        groups=2,
        bias=True,
        norm=True,
    )


def test_chains_along_sequences() -> None:
    """TOML's `kind = "conv1d"`; sizes by hand: 20 + 2 * 2 - 2 * 2 = 20, of which every second; pooled to 5; 3 fewer."""
    plain = [
        {"kind": "conv1d", "channels": 6, "stride": 2, "padding": 2, "dilation": 2, "groups": 2, "norm": True},
        {"kind": "pool", "kernel": [1, 2]},
        {"kind": "conv1d", "channels": 8, "kernel": 4},
        {"kind": "dense"},
    ]
    links = tuple(from_plain(Link, x) for x in plain)
    net = chain((2, 1, 20), links, n_classes=3, n_steps=4)
    assert [(x.name, x.shape) for x in net.layers] == [("conv1", (6, 1, 10)), ("conv2", (8, 1, 2)), ("out", (3, 1, 1))]
    assert net.weight_shape(net.into("conv1")[0]) == (6, 1, 1, 3)
    with pytest.raises(ConfigError, match=r"layers\[0\].*is no sequence; got \(2, 4, 20\)"):
        chain((2, 4, 20), links, n_classes=3, n_steps=4)
    with pytest.raises(ConfigError, match=r"layers\[0\].*does not fit what comes before it"):
        chain((2, 1, 2), (Conv1dLink(channels=4, kernel=4), DenseLink()), n_classes=3, n_steps=4)


def test_chains_take_dilation_and_groups() -> None:
    links = (ConvLink(channels=4, dilation=(2, 1), groups=2), DenseLink())
    (conv, _) = chain((2, 8, 8), links, n_classes=3, n_steps=4).connections
    assert conv == Conv2d(source="input", target="conv1", dilation=(2, 1), groups=2)

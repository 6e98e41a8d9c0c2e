"""The memory account, computed by hand to the bit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from qspinn.memory import (
    Widths,
    counter_bits,
    float_account,
    float_layers_account,
    learning_account,
    plan_account,
    program_account,
    published_account,
)
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Lif, Network
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Skip
from qspinn.networks.models import ConvLink, DenseLink, PoolLink, chain, diehl_cook
from qspinn.networks.published import Variant, resnet19, vgg16, vggsnn
from qspinn.program import to_bytes
from qspinn.program.ops import LifOp
from qspinn.quantization.competing import lower
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.paths import layer_paths
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges, Ranges
from qspinn.testing.programs import single

NET = diehl_cook(784, 400, neuron=Lif(n_ref_steps=5))


def test_float_784_by_400() -> None:
    """w 313,600 + v_th 1 + theta 400 + decay 1 + reset 1 + inhibition 1 + votes 4,000; v and ref 400 each."""
    account = float_account(NET)
    parameters = 313_600 + 1 + 400 + 1 + 1 + 1 + 4_000
    assert sum(r.count for r in account.rows if r.role == "parameter") == parameters == 318_004
    assert account.total_bits == 32 * (parameters + 800) == 10_201_728
    assert account.total_bytes == 1_275_216
    assert float_account(NET, batch=16).total_bits == 32 * (parameters + 16 * 800)
    assert float_account(NET, learning=True).total_bits == 32 * (parameters + 800 + 784 + 400)
    no_ref = diehl_cook(784, 400, neuron=Lif(n_ref_steps=0))
    assert float_account(no_ref).total_bits == 32 * (parameters + 400)


def test_quantized_784_by_400(make_trained: Callable[..., Trained]) -> None:
    """Weights of 1 bit with a unit per neuron, so a threshold per neuron; 100 inputs left out."""
    plan = QuantPlan(
        fold_theta=True,
        min_input_rate=0.05,
        rules=(
            QuantRule(tensor="exc.w", bits=1, granularity=Granularity.PER_NEURON),
            QuantRule(tensor="exc.v", bits=7),
            QuantRule(tensor="exc.v_th", bits=6),
            QuantRule(tensor="readout.votes", bits=3),
            QuantRule(tensor="exc.x_*", bits=4),
            QuantRule(tensor="*", bits=9),
        ),
    )
    rates = np.where(np.arange(784) < 100, 0.0, 0.1)
    program = lower(make_trained(NET), plan, Ranges(input_rate=rates, busiest_step=400, threshold_max_mv={"exc": 20.0}))
    account = program_account(program)
    kept, weights, thresholds, votes = 784 * 1, 684 * 400 * 1, 400 * 6, 4_000 * 3
    decay, inhibition, reset = 9, 9, 7
    states = 400 * 7 + 400 * 3  # v, and a counter that holds 0..5
    assert {r.path: r.total_bits for r in account.rows} == {
        "input.kept": kept,
        "exc.w": weights,
        "exc.v_th": thresholds,
        "readout.votes": votes,
        "exc.decay": decay,
        "exc.inhibition": inhibition,
        "exc.v_reset": reset,
        "exc.v": 2_800,
        "exc.ref": 1_200,
    }
    assert account.total_bits == kept + weights + thresholds + votes + decay + inhibition + reset + states == 292_809
    assert program_account(program, batch=3).total_bits == account.total_bits + 2 * states
    learning = learning_account(NET, program, {"exc.x_pre": 4, "exc.x_post": 4})
    assert learning.total_bits == account.total_bits + 4 * (784 + 400)


@pytest.mark.parametrize(("n_ref", "bits"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (255, 8)])
def test_counter_bits(n_ref: int, bits: int) -> None:
    assert counter_bits(n_ref) == bits


def test_parameters_are_what_the_file_packs(
    two_layers: Network, make_trained: Callable[..., Trained], make_ranges: Callable[[Network], Ranges]
) -> None:
    for bits in (2, 5, 16):
        program = lower(
            make_trained(two_layers), QuantPlan(rules=(QuantRule(tensor="*", bits=bits),)), make_ranges(two_layers)
        )
        rows = [r for r in program_account(program).rows if r.role == "parameter"]
        packed = sum(-(-r.total_bits // 8) for r in rows)
        data = to_bytes(program)
        assert len(data) == 8 + int.from_bytes(data[:8], "little") + packed


def test_learning_counts_only_plastic_connections(two_layers: Network) -> None:
    assert float_account(two_layers, learning=True) == float_account(two_layers)


def test_every_decay_counts() -> None:
    """Of each layer, one number for all neurons, one per channel or one per neuron."""
    network = planned()
    name, channels = network.layers[0].name, network.layers[0].shape[0]
    before = {r.path: r.count for r in float_layers_account(network).rows}
    for size in (1, channels, network.layers[0].n):
        rows = {
            r.path: r.count for r in float_layers_account(network, decays={f"{name}.decay": np.full(size, 0.5)}).rows
        }
        assert rows == before | {f"{name}.decay": size}
    program = single([[3], [1], [2]], decay=[3, 1, 2], decay_shift=2)
    (row,) = (r for r in program_account(program).rows if r.path == "p0.decay")
    assert (row.count, row.total_bits) == (3, 6)


@pytest.mark.parametrize(
    ("settings", "states"),
    [
        ({"reset_delay": True}, {"v": (5, 8), "s": (5, 1)}),
        ({"theta_step": 0.1}, {"v": (5, 8), "theta": (5, 6), "s": (5, 1)}),
        ({"theta_step": 0.1, "max_spikes": 9}, {"v": (5, 8), "theta": (5, 6), "s": (5, 4)}),
        ({"max_spikes": 9}, {"v": (5, 8)}),
        ({"n_ref_steps": 2}, {"v": (5, 8), "ref": (5, 2)}),
    ],
    ids=str,
)
def test_states_of_every_switch(settings: dict, states: dict) -> None:
    network = chain((3, 1, 1), (DenseLink(),), n_classes=5, n_steps=3, neuron=Leaky(**settings))
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="*.v", bits=8),
            QuantRule(tensor="*.w", bits=4),
            *([QuantRule(tensor="*.theta", bits=6)] if "theta_step" in settings else []),
            QuantRule(tensor="*", bits=7),
        )
    )
    program = lower_layers(network, {"out.w": np.ones((5, 3))}, plan, LayerRanges(v={"out": 2.0}))
    rows = program_account(program).rows
    assert {r.path: (r.count, r.bits) for r in rows if r.role == "state"} == {
        f"out.{k}": size for k, size in states.items()
    }
    constants = {"theta_step": 1, "theta_decay": 1} if "theta_step" in settings else {}
    expected = {"w": 15, "v_th": 1, "decay": 1, "v_reset": 1, **constants, **{k: n for k, (n, _) in states.items()}}
    assert {r.path: r.count for r in float_layers_account(network).rows} == {f"out.{k}": n for k, n in expected.items()}
    assert {r.path for r in rows if r.role == "parameter"} == {
        f"out.{k}" for k in ("w", "v_th", "decay", "v_reset", *constants)
    }


def test_neurons_that_never_spike_have_no_state_that_spikes_change() -> None:
    """A refractory counter, an adaptive threshold or the spikes of the step before stay 0."""
    settings: dict = {"n_ref_steps": 7, "reset_delay": True, "theta_step": 0.1, "max_spikes": 9, "spiking": False}
    network = chain((3, 1, 1), (DenseLink(),), n_classes=5, n_steps=3)
    silent = msgspec.structs.replace(network.layers[0], neuron=Leaky(**settings))
    readout = NeuronReadout(source="out", of="v_last")
    network = msgspec.structs.replace(network, layers=(silent,), readout=readout)
    rules = (QuantRule(tensor="*.v", bits=8), QuantRule(tensor="*.w", bits=4), QuantRule(tensor="*", bits=7))
    program = lower_layers(network, {"out.w": np.ones((5, 3))}, QuantPlan(rules=rules), LayerRanges(v={"out": 2.0}))
    for account in (
        program_account(program),
        float_layers_account(network),
        plan_account(network, QuantPlan(rules=rules)),
    ):
        assert [r.path for r in account.rows if r.role == "state"] == ["out.v"]
    op = msgspec.structs.replace(program.ops_of(LifOp)[0], n_ref=7)
    assert op.states(fed_back=True) == {"v": 8}


def test_layers_count_every_parameter_and_state() -> None:
    """conv 2 -> 3 channels of 3 x 3, 4 x 4 neurons; pooled to 2 x 2; 5 recurrent neurons with currents; 2 classes."""
    current = Leaky(current_decay=0.5, n_ref_steps=2)
    network = chain(
        (2, 6, 6),
        (
            ConvLink(channels=3, norm=True),
            PoolLink(),
            DenseLink(n=5, recurrent=True, bias=True, neuron=current),
            DenseLink(),
        ),
        n_classes=2,
        n_steps=3,
        readout="v_last",
    )
    conv = {"w": 3 * 2 * 9, "bias": 3, "v_th": 1, "decay": 1, "v_reset": 1, "v": 48}
    hidden = {
        "w_pool1": 5 * 12,
        "w_fc1": 25,
        "bias": 5,
        "v_th": 1,
        "decay": 1,
        "v_reset": 1,
        "i_decay": 1,
        "v": 5,
        "ref": 5,
        "i": 5,
        "s": 5,
    }
    expected = (
        {f"conv1.{k}": n for k, n in conv.items()}
        | {f"fc1.{k}": n for k, n in hidden.items()}
        | {"out.w": 10, "out.decay": 1, "out.v": 2}
    )
    account = float_layers_account(network)
    assert {r.path: r.count for r in account.rows} == expected
    assert account.total_bits == 32 * sum(expected.values())
    states = sum(r.count for r in account.rows if r.role == "state")
    assert float_layers_account(network, batch=3).total_bits == account.total_bits + 2 * 32 * states


TABLE_2 = [  # network, bits of the read-out where weights are binary, (32/32, 1w-8u, 1w-4u, 1w-2u) in MB by batch
    (resnet19(), 8, {1: "50.80 1.75 1.68 1.65", 64: "83.83 10.0 5.81 3.72", 256: "184.49 35.17 18.40 10.01"}),
    (vgg16(), 32, {1: "59.16 1.96 1.93 1.91", 64: "75.67 6.09 3.99 2.94", 256: "126.01 18.67 10.28 6.09"}),
    (vggsnn(Variant()), 8, {1: "37.44 1.31 1.25 1.21", 64: "70.47 9.57 5.38 3.28", 256: "171.13 34.74 17.96 9.57"}),
]


@pytest.mark.parametrize(("network", "last", "printed"), TABLE_2, ids=["resnet19", "vgg16", "vggsnn"])
def test_table_2_of_the_qsnn_paper(network: LayeredNetwork, last: int, printed: dict[int, str]) -> None:
    """Wei et al. (2024), to the printed digit."""
    for batch, line in printed.items():
        for figure, v in zip(line.split(), (32, 8, 4, 2), strict=True):
            widths = Widths(first=8, hidden=1, last=last, v=v) if v < 32 else None
            found = published_account(network, widths, batch=batch).total_bytes / 1e6
            assert f"{found:.{len(figure) - figure.index('.') - 1}f}" == figure, (batch, v, found)


def test_published_account_by_hand() -> None:
    """Q-SNN's ResNet-19 to the byte; the same with the states of all 18 layers."""
    widths = Widths(first=8, hidden=1, last=8, v=2)
    parameters = 12_550_144 // 8 + 3_456 + 5_130 + 4 * 10_496
    buffer, all_neurons = 128 * 32 * 32, 7 * 128 * 32 * 32 + 6 * 256 * 16 * 16 + 4 * 512 * 8 * 8 + 10
    assert published_account(resnet19(), widths).total_bytes == parameters + buffer / 4 == 1_652_106
    assert published_account(resnet19(), widths, batch=3).total_bytes == parameters + 3 * buffer / 4
    every = published_account(resnet19(), widths, states="all layers")
    assert every.total_bytes == parameters + all_neurons / 4
    assert sum(row.role == "state" for row in every.rows) == 18
    half = Widths(first=8, hidden=1, last=8, v=2, norm=16)
    assert published_account(resnet19(), half).total_bytes == parameters - 2 * 10_496 + buffer / 4


def planned() -> LayeredNetwork:
    """conv 1 -> 2 channels of 3 x 3 neurons with moving thresholds and several spikes, a residual connection, currents,
    refractory feedback, integrators."""
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 5, 5)),
        readout=NeuronReadout(source="out", of="v_last"),
        layers=(
            Layer(name="a", shape=(2, 3, 3), neuron=Leaky(theta_step=0.3, reset_delay=True, max_spikes=5)),
            Layer(name="b", shape=(2, 3, 3), neuron=Leaky(v_reset=0.1, reset="value")),
            Layer(name="c", shape=(4, 1, 1), neuron=Leaky(current_decay=0.5, n_ref_steps=2, decay=1.0)),
            Layer(name="out", shape=(2, 1, 1), neuron=Leaky(spiking=False)),
        ),
        connections=(
            Conv2d(source="input", target="a", norm=True),
            Skip(source="a", target="b", weight=0.7),
            Conv2d(source="a", target="b", padding=(1, 1)),
            Linear(source="b", target="c", bias=True),
            Linear(source="c", target="c"),
            Linear(source="c", target="out"),
        ),
    )


@pytest.mark.parametrize("granularity", [Granularity.GLOBAL, Granularity.PER_CHANNEL], ids=lambda g: g.value)
def test_plan_tells_what_the_program_takes(granularity: Granularity) -> None:
    network, rng = planned(), np.random.default_rng(2)
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="out.w", bits=7),
            QuantRule(tensor="*.w*", bits=3, granularity=granularity),
            QuantRule(tensor="*.skip*", bits=5),
            QuantRule(tensor="*.v_th", bits=9),
            QuantRule(tensor="*.v", bits=6),
            QuantRule(tensor="*.bias", bits=4),
            QuantRule(tensor="*.decay", bits=10),
            QuantRule(tensor="c.i", bits=12),
            QuantRule(tensor="*", bits=11),
        )
    )
    params = {}
    for layer in network.layers:
        scale = 16.0 ** np.arange(layer.shape[0])  # channels so unlike that no two shifts or thresholds are alike
        if f"{layer.name}.bias" in layer_paths(network):
            params[f"{layer.name}.bias"] = 0.01 * scale
        for c in network.into(layer.name):
            if not isinstance(c, Skip):
                w = rng.standard_normal(network.weight_shape(c))
                params[network.weight_path(c)] = w * scale.reshape(-1, *[1] * (w.ndim - 1)) / scale.max()
    program = lower_layers(network, params, plan, LayerRanges(v=dict.fromkeys("abc", 1.0) | {"out": 1.0}))
    told, found = plan_account(network, plan, batch=2), program_account(program, batch=2)
    assert {r.path: (r.role, r.bits) for r in told.rows} == {r.path: (r.role, r.bits) for r in found.rows}
    assert {r.path: r.count for r in told.rows} == {r.path: r.count for r in found.rows}
    assert told.total_bits == found.total_bits

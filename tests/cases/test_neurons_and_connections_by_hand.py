"""Spike trains and sums worked out by hand or with fractions: resets, comparisons, pools, kernels, rounding, states."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d
from qspinn.program import CodeTensor, Program
from qspinn.program.ops import DenseOp
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.runtime import run
from qspinn.spikes import Spikes, from_dense
from qspinn.testing.programs import constant, single
from samples import with_parts

ENGINES = ("reference", "numba", "torch")
PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=16),))
replace = msgspec.structs.replace


def layer(neuron: Leaky, w: Any, n_steps: int, v: float = 3.0, **params: Any) -> Program:
    """One layer with weights w [N, 1]."""
    weights = np.reshape(np.asarray(w, float), (-1, 1))
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1)),
        layers=(Layer(name="p", shape=(len(weights), 1, 1), neuron=neuron),),
        connections=(Linear(source="input", target="p"),),
        readout=NeuronReadout(source="p"),
        n_steps=n_steps,
    )
    arrays = {"p.w": weights} | {f"p.{k}": np.asarray(x, float) for k, x in params.items()}
    return lower_layers(network, arrays, PLAN, LayerRanges(v={"p": v}))


def train(program: Program, engine: str, neuron: int = 0, spikes: Spikes | None = None, name: str = "p") -> list[int]:
    """Steps, counted from 1, in which a neuron spikes; the input spikes in every step."""
    spikes = spikes or constant(program.n_inputs, program.n_steps, 1)
    return (np.flatnonzero(run(program, spikes, backend=engine, record=True).spikes[name][:, 0, neuron]) + 1).tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"strict": True, "reset": "value"}, [17, 34, 51, 68, 85]),
        ({"reset": "value"}, [16, 32, 48, 64, 80, 96]),
        ({"strict": True}, [17, 33, 49, 65, 81, 97]),
    ],
)
def test_integrators_add_without_a_leak(settings: dict[str, Any], expected: list[int], engine: str) -> None:
    """Threshold 1, input 1/16: exact in binary, so the first spike tells > from >=; in codes of 1/32768 of the weight's
    top, weights 16 and threshold 256 of a hand-built program say the same."""
    strict, by = settings.get("strict", False), settings.get("reset", "subtract")
    program = single([[16]], v_bits=10, v_th=256, winner=False, n_steps=100)
    program = with_parts(program, threshold={"strict": strict}, reset={"by": by})
    assert train(program, engine, name="p0") == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reset_delay": True}, [3, 6, 8, 11, 14, 17, 19]),
        ({}, [3, 5, 8, 10, 13, 15, 18, 20]),
        ({"reset": "value"}, [3, 6, 9, 12, 15, 18]),
    ],
)
def test_every_reset_has_its_own_spike_train(settings: dict[str, Any], expected: list[int], engine: str) -> None:
    """Decay 0.9, threshold 1 to be exceeded, input 0.45."""
    assert train(layer(Leaky(**({"decay": 0.9, "strict": True} | settings)), [0.45], 20, 2.0), engine) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_neurons_of_a_layer_have_thresholds_of_their_own(engine: str) -> None:
    """Thresholds 10 and 50, input 3, decays 0.9 and 0.98 in layers of their own; strict, reset to 0."""
    first = layer(Leaky(decay=0.9, strict=True, reset="value"), [3.0, 3.0], 100, v_th=[10.0, 50.0])
    assert train(first, engine, 0) == list(range(4, 101, 4))
    assert train(first, engine, 1) == []
    second = layer(Leaky(decay=0.98, strict=True, reset="value"), [3.0, 3.0], 100, v_th=[10.0, 50.0])
    assert train(second, engine, 1) == [21, 42, 63, 84]


def pooled(of: str, padding: int) -> Program:
    """2 x 2 inputs, padded by a convolution of kernel 1, pooled 2 x 2 and fed on one to one."""
    side = 2 + 2 * padding
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 2, 2)),
        n_steps=1,
        readout=NeuronReadout(source="p"),
        layers=(
            Layer(name="a", shape=(1, side, side), neuron=Leaky(decay=1.0)),
            Layer(name="p", shape=(1, side // 2, side // 2), neuron=Leaky(decay=1.0)),
        ),
        connections=(
            Conv2d(source="input", target="a", kernel=(1, 1), padding=(padding, padding)),
            Pool2d(source="a", target="q", of=of),  # type: ignore[arg-type]
            Conv2d(source="q", target="p", kernel=(1, 1)),
        ),
    )
    one = np.ones((1, 1, 1, 1))
    return lower_layers(network, {"a.w": one, "p.w": one}, PLAN, LayerRanges(v={"a": 4.0, "p": 4.0}))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("of", "padding", "total"), [("sum", 1, 4), ("sum", 0, 1), ("average", 0, 1), ("average", 1, 0), ("max", 1, 4)]
)
def test_padding_before_a_pool_counts(of: str, padding: int, total: int, engine: str) -> None:
    """Four ones, padded, lie in four windows, each of sum 1 and average 1/4; otherwise in one of sum 4, average 1."""
    counts = run(pooled(of, padding), constant(4, 1, 1), backend=engine).counts["p"]
    assert int(counts.sum()) == total


@pytest.mark.parametrize("engine", ENGINES)
def test_kernels_are_not_turned(engine: str) -> None:
    """Kernel [[1, 2], [3, 4]] over a single one at row 0, column 1 gives [[2, 1], [0, 0]]; a kernel 1 x 3 likewise."""
    for kernel, shape, at, expected in (
        ([[1, 2], [3, 4]], (1, 3, 3), 1, [2, 1, 0, 0]),
        ([[1, 2, 4]], (1, 2, 4), 2, [4, 2, 0, 0]),
        ([[1], [2], [4]], (1, 4, 2), 4, [4, 0, 2, 0]),
    ):
        w = np.array(kernel, float)[None, None]
        after = (1, shape[1] - w.shape[2] + 1, shape[2] - w.shape[3] + 1)
        network = LayeredNetwork(
            name="n",
            input=EventInput(shape=shape),
            n_steps=1,
            readout=NeuronReadout(source="p", of="v_last"),
            layers=(Layer(name="p", shape=after, neuron=Leaky(decay=1.0, spiking=False)),),
            connections=(Conv2d(source="input", target="p", kernel=w.shape[2:]),),
        )  # type: ignore[arg-type]
        program = lower_layers(network, {"p.w": w}, PLAN, LayerRanges(v={"p": 4.0}))
        raster = np.zeros((1, 1, shape[1] * shape[2]))
        raster[0, 0, at] = 1
        v = run(program, from_dense(raster), backend=engine, record=True).v["p"][0]
        assert np.round(v / v.max() * max(expected)).astype(int).tolist() == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_a_soft_reset_takes_the_threshold_from_the_new_potential(engine: str) -> None:
    """Half of the potential stays, threshold 200. Input 115: 10 spikes in 30 steps. Input 120: 10 is left, not -20."""
    for drive, expected, left in ((115, list(range(3, 31, 3)), None), (120, [3], 10)):
        program = single(
            [[drive]],
            v_bits=9,
            v_th=200,
            decay=64,
            decay_shift=7,
            rounding=Rounding.TRUNCATE,
            winner=False,
            n_steps=30 if left is None else 3,
        )
        program = with_parts(program, reset={"by": "subtract"})
        assert train(program, engine, name="p0") == expected
        if left is not None:
            v = run(program, constant(1, 3, 1), backend=engine, record=True).v["p0"]
            assert v.tolist() == [[left]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("strict", "pulse", "constantly"), [(True, [], [2, 3, 4, 5, 6, 7]), (False, [1], [1, 3, 4, 5, 6, 7, 8])]
)
def test_a_potential_that_equals_its_threshold(
    strict: bool, pulse: list[int], constantly: list[int], engine: str
) -> None:
    """Threshold 8192, decay 115/128 rounded down, reset by subtraction one step later; weights of 8192."""
    program = single(
        [[8192]],
        v_bits=16,
        signed=True,
        v_min=-(1 << 15),
        w_bits=14,
        v_th=8192,
        decay=115,
        decay_shift=7,
        rounding=Rounding.TRUNCATE,
        winner=False,
        n_steps=8,
    )
    program = with_parts(program, threshold={"strict": strict}, reset={"by": "subtract", "delayed": True})
    once = np.zeros((8, 1, 1))
    once[0] = 1
    assert train(program, engine, spikes=from_dense(once), name="p0") == pulse
    assert train(program, engine, name="p0") == constantly


@pytest.mark.parametrize("engine", ENGINES)
def test_a_potential_below_its_threshold_is_kept(engine: str) -> None:
    """Without a leak: 0.5 does not spike and stays, 2.0 spikes and falls to 0."""
    program = single([[1, 3]], v_th=2, winner=False, n_steps=2)
    raster = np.array([[[1, 0]], [[0, 1]]])
    assert train(program, engine, spikes=from_dense(raster), name="p0") == [2]
    first = replace(program, n_steps=1)
    assert run(first, from_dense(raster[:1]), backend=engine, record=True).v["p0"].tolist() == [[1]]
    assert run(program, from_dense(raster), backend=engine, record=True).v["p0"].tolist() == [[0]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(10))
def test_rounding_at_random_resets_as_often_as_it_spikes(seed: int, engine: str) -> None:
    """One draw a step: the potential is what the spikes account for, step by step, and the same in every engine."""
    program = single(
        [[2]],
        v_bits=8,
        v_th=3,
        decay=1,
        decay_shift=1,
        rounding=Rounding.STOCHASTIC,
        winner=False,
        seed=seed,
        n_steps=200,
    )
    fired = train(program, engine, name="p0")
    assert fired == train(program, "reference", name="p0")
    assert 0 < len(fired) < 200
    for n in (fired[0], fired[-1]):  # a spike leaves 0 behind, in its own step
        short = replace(program, n_steps=n)
        assert run(short, constant(1, n, 1), backend=engine, record=True).v["p0"].tolist() == [[0]]


@pytest.mark.parametrize("engine", ENGINES)
def test_shifts_of_connections_are_applied(engine: str) -> None:
    """Three sources of weight 1, shifted by 4 bits: 48, not 3."""
    program = single([[1, 1, 1]], v_th=200, winner=False, n_steps=1)
    program = replace(program, ops=tuple(replace(op, shift=4) if isinstance(op, DenseOp) else op for op in program.ops))
    assert run(program, constant(3, 1, 1), backend=engine, record=True).v["p0"].tolist() == [[48]]


@pytest.mark.parametrize("engine", ENGINES)
def test_averages_of_many_sums_do_not_wrap(engine: str) -> None:
    """64 sources of 144 into one neuron are 9216, far beyond the 10 bits of each: accumulators are as wide as needed;
    shifted by 6 bits the mean is 144 again."""
    program = single([[144] * 64], w_bits=10, in_shift=6, v_bits=8, v_th=200, winner=False, n_steps=1)
    assert run(program, constant(64, 1, 1), backend=engine, record=True).v["p0"].tolist() == [[144]]
    wide = CodeTensor(codes=np.full((1, 64), 1 << 26), fmt=QFormat(bits=27))
    program = replace(program, tensors=program.tensors | {"p0.w": wide})
    with pytest.raises(ConfigError, match="the input current may overflow 32 bits"):
        run(program, constant(64, 1, 1), backend=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("weight", "bits", "kept"), [(-100, 8, -12), (100, 8, 13), (-4, 8, 0), (-5, 8, -1)])
def test_sums_below_zero_shift_with_their_sign_in_engines(weight: int, bits: int, kept: int, engine: str) -> None:
    program = single([[weight]], v_bits=bits, signed=True, v_min=-128, in_shift=3, v_th=100, winner=False, n_steps=1)
    assert run(program, constant(1, 1, 1), backend=engine, record=True).v["p0"].tolist() == [[kept]]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_that_only_feeds_itself_is_refused(engine: str) -> None:
    """As a declaration, and as a program; the whole chain of weight 2 and threshold 1 spikes in step 1."""
    good = layer(Leaky(decay=1.0), [2.0], 1)
    assert train(good, engine) == [1]
    with pytest.raises(ConfigError, match="nothing that comes before feeds this layer"):
        LayeredNetwork(
            name="n",
            input=EventInput(shape=(1, 1, 1)),
            layers=(Layer(name="p", shape=(1, 1, 1)),),
            connections=(Linear(source="p", target="p"),),
            readout=NeuronReadout(source="p"),
        )
    alone = replace(good, ops=tuple(replace(op, source="p") if isinstance(op, DenseOp) else op for op in good.ops))
    with pytest.raises(ConfigError, match="nothing before it feeds"):
        run(alone, constant(1, 1, 1), backend=engine)

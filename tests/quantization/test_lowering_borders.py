"""From floats to integers at the edges: thresholds, resets, ranges, arrays, grids and rules, in three engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, LoweringError, QSpinnError
from qspinn.learning.gradients.quantized import convert, prepare
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lateral, Lif, Network, PoissonInput, Population, VoteReadout
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Skip
from qspinn.program import Program, from_bytes, to_bytes
from qspinn.program.ops import LifOp
from qspinn.quantization.competing import lower, poisson_op, quantize
from qspinn.quantization.grid import LayerGrid
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Calibrator, Granularity, Levels, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges, Ranges, Sizes, calibrate, sizes_of
from qspinn.runtime import run
from qspinn.spikes import from_dense

ENGINES = ("reference", "numba", "torch")
REST = QuantRule(tensor="*", bits=8)


def net(neuron: Leaky, n: int = 1, m: int = 1, *, bias: bool = False, n_steps: int = 40) -> LayeredNetwork:
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(n, 1, 1)),
        layers=(Layer(name="p", shape=(m, 1, 1), neuron=neuron),),
        connections=(Linear(source="input", target="p", bias=bias),),
        readout=NeuronReadout(source="p"),
        n_steps=n_steps,
    )


def low(
    w: Any = 1.0, neuron: Leaky | None = None, v: float = 1.0, rules: tuple[QuantRule, ...] = (REST,), **params: Any
) -> Program:
    """A layer with weights w [N, n_inputs]; `params` are its further arrays."""
    weights = np.atleast_2d(np.asarray(w, float))
    arrays = {"p.w": weights} | {f"p.{kind}": np.asarray(x) for kind, x in params.items()}
    network = net(neuron or Leaky(decay=0.9), *weights.shape[::-1], bias="bias" in params)
    return lower_layers(network, arrays, QuantPlan(rules=rules), LayerRanges(v={"p": v}))


def counts(program: Program, x: float = 1.0) -> list[int]:
    """Spikes of every neuron, the same in every engine and from its file."""
    spikes = from_dense(np.full((program.n_steps, 1, program.n_inputs), x))
    found = [
        run(p, spikes, backend=e).counts["p"][0].tolist()
        for e in ENGINES
        for p in (program, from_bytes(to_bytes(program)))
    ]
    assert all(f == found[0] for f in found), found
    return found[0]


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3, 2])
@pytest.mark.parametrize("strict", [False, True])
def test_silence_stays_silent(bits: int, strict: bool) -> None:
    rules = (QuantRule(tensor="*.v", bits=bits), REST)
    assert counts(low([[0.9, -3.0]], Leaky(decay=0.95, strict=strict), 35.3, rules), 0.0) == [0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("trained", [False, True])
def test_strict_thresholds_can_be_exceeded(bits: int, trained: bool) -> None:
    """In every channel, lowered and trained on the grid; both give the same program."""
    w = np.random.default_rng(0).normal(size=(200, 20))
    rules = (
        QuantRule(tensor="*.w", bits=8, granularity=Granularity.PER_CHANNEL),
        QuantRule(tensor="*.v", bits=bits, calibrator=Calibrator.THRESHOLD),
        REST,
    )
    network, plan = net(Leaky(decay=0.9, strict=True), 20, 200), QuantPlan(rules=rules)
    ranges = LayerRanges(v={"p": 3.0})
    program = lower_layers(network, {"p.w": w}, plan, ranges)
    if trained:
        program = convert(prepare(network, plan, {"p.w": w}, ranges))
    op = program.ops_of(LifOp)[0]
    level = program.codes("p.v_th") << op.threshold.shift
    assert level.max() <= op.v_fmt.code_max - 1
    assert min(counts(low([[3.0]], Leaky(strict=True), 1.0, rules))) > 0


@pytest.mark.parametrize(("given", "expected"), [([10.0, 50.0], [25, 5]), ([50.0, 10.0], [5, 25])])
def test_thresholds_given_as_arrays_count(given: list[float], expected: list[int]) -> None:
    """Input 3 without a leak, in 100 steps: a spike in every fourth step at 10, in every 17th at 50."""
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1)),
        n_steps=100,
        readout=NeuronReadout(source="p"),
        layers=(Layer(name="p", shape=(2, 1, 1), neuron=Leaky(decay=1.0, strict=True, reset="value")),),
        connections=(Linear(source="input", target="p"),),
    )
    program = lower_layers(
        network,
        {"p.w": np.full((2, 1), 3.0), "p.v_th": np.array(given)},
        QuantPlan(rules=(QuantRule(tensor="*", bits=16),)),
        LayerRanges(v={"p": 2.0}),
    )
    assert counts(program) == expected


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"v_th {x}": ({"v_th": np.array(x)}, r"^p\.v_th")
        for x in ([0.0], [-5.0], [np.nan], [np.inf], [1.0, 2.0, 3.0], [], ["a"], [None], [1j], [1e300], [[1.0]] * 2)
    },
    **{
        f"decay {x}": ({"decay": np.array(x)}, r"^p\.decay")
        for x in (-99.0, 1.5, np.nan, [0.9, 0.8], np.inf, -0.001, 1.0001, "a", [])
    },
    **{
        f"bias {x}": ({"bias": np.array(x)}, r"^p\.bias") for x in ([np.nan], [np.inf], [1.0, 2.0], 1.0, [1e300], ["a"])
    },
    **{f"{path}": ({path: np.ones(1)}, rf"^p\.{path}") for path in ("ww", "w_input", "theta", "i_decay", "v")},
    "w of NaN": ({"w": np.array([[np.nan]])}, r"^p\.w"),
    "w of ones": ({"w": np.ones((2, 1))}, r"^p\.w"),
    "w of text": ({"w": np.array([["a"]])}, r"^p\.w"),
    "w too small": ({"w": np.array([[1e-320]])}, r"^p\.w"),
    "w too large": ({"w": np.array([[1e308]])}, r"^p\.w"),
    "w far from v": ({"w": np.array([[1e-12]])}, r"^p\.w"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.parametrize("trained", [False, True])
def test_arrays_of_no_meaning_are_refused_by_path(name: str, trained: bool) -> None:
    changes, where = BAD_ARRAYS[name]
    network = net(Leaky(decay=0.9), bias="bias" in changes)
    params = {"p.w": np.ones((1, 1))} | {f"p.{kind}": x for kind, x in changes.items()}
    plan, ranges = QuantPlan(rules=(REST,)), LayerRanges(v={"p": 1.0})
    with pytest.raises(QSpinnError, match=where):
        prepare(network, plan, params, ranges) if trained else lower_layers(network, params, plan, ranges)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("trained", [False, True])
def test_weights_of_residual_connections_are_looked_at(value: float, trained: bool) -> None:
    """Reported: NaN became the largest code. Right: refused by the path of the weights."""
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 1, 1)),
        layers=tuple(Layer(name=name, shape=(1, 1, 1)) for name in "ab"),
        connections=(
            Linear(source="input", target="a"),
            Linear(source="a", target="b"),
            Skip(source="input", target="b"),
        ),
        readout=NeuronReadout(source="b"),
    )
    one = np.ones((1, 1))
    params = {"a.w": one, "b.w": one, "b.skip_input": np.array([value])}
    plan, ranges = QuantPlan(rules=(REST,)), LayerRanges(v={"a": 1.0, "b": 1.0})
    with pytest.raises(QSpinnError, match=r"^b\.skip_input"):
        prepare(network, plan, params, ranges) if trained else lower_layers(network, params, plan, ranges)


def test_a_bias_that_is_not_declared_is_refused_and_zeros_are_none() -> None:
    plan, ranges, w = QuantPlan(rules=(REST,)), LayerRanges(v={"p": 1.0}), {"p.w": np.ones((1, 1))}
    with pytest.raises(QSpinnError, match=r"^p\.bias: is not an array of this network; .*declare it \(bias = True"):
        lower_layers(net(Leaky()), w | {"p.bias": np.ones(1)}, plan, ranges)
    same = lower_layers(net(Leaky()), w | {"p.bias": np.zeros(1)}, plan, ranges)
    assert to_bytes(same) == to_bytes(lower_layers(net(Leaky()), w, plan, ranges))
    assert counts(low(0.5, Leaky(decay=1.0), bias=[1.0]), 0.0) == [40]


@pytest.mark.parametrize(("reset", "spikes"), [(0.0, 40), (-5.0, 7), (-1.0, 20), (-2.0, 14)])
def test_resets_far_below_the_range_are_kept(reset: float, spikes: int) -> None:
    """A spike in the first step, then in every 1 - reset steps of input 1."""
    assert counts(low(1.0, Leaky(decay=1.0, reset="value", v_reset=reset))) == [spikes]


@pytest.mark.parametrize(
    ("rules", "v", "reset"), [((QuantRule(tensor="*.v", bits=2), REST), 1.0, 0.9), ((REST,), 1.0, 0.9999999)]
)
def test_resets_as_high_as_the_threshold_are_refused(rules: tuple[QuantRule, ...], v: float, reset: float) -> None:
    with pytest.raises(QSpinnError, match=r"^p\.v_reset: is as high as the threshold"):
        low(1.0, Leaky(reset="value", v_reset=reset), v, rules)


@pytest.mark.parametrize("field", ["v", "i", "theta"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, "a", None, [1.0, 2.0], True, 1e300])
def test_ranges_of_no_meaning_name_the_layer(field: str, value: Any) -> None:
    with pytest.raises(QSpinnError, match=rf"^ranges\.{field}\.p"):
        LayerRanges(**({"v": {"p": 1.0}} | {field: {"p": value}}))


@pytest.mark.parametrize("field", ["v", "i", "theta"])
def test_ranges_of_another_network_are_refused(field: str) -> None:
    ranges = LayerRanges(**({"v": {"p": 1.0}} | {field: {"q": 1.0}}))
    with pytest.raises(QSpinnError, match=rf"ranges\.{field}\.q: is no layer|ranges\.v\.p: is missing"):
        lower_layers(net(Leaky()), {"p.w": np.ones((1, 1))}, QuantPlan(rules=(REST,)), ranges)


@pytest.mark.parametrize("x", [[1.0, np.nan, 3.0], [np.inf], [1e308], "a", [1j]], ids=str)
def test_histograms_of_no_numbers_are_refused(x: Any) -> None:
    with pytest.raises(QSpinnError, match=r"^potentials"):
        sizes_of(x)
    assert sizes_of(np.array([1e-320, 0.0])).merged(sizes_of(np.array([3.0]))).counts.sum() == 3
    zeros = np.zeros(2048, int)
    for top, limit, counts_ in (
        (np.nan, 1.0, zeros),
        (1.0, 0.0, zeros),
        (1.0, 3.0, zeros),
        (2.0, 1.0, zeros),
        (1.0, 1.0, zeros[:5]),
        (1.0, 1.0, zeros - 1),
        (1.0, 1.0, zeros + 0.5),
    ):
        with pytest.raises(QSpinnError, match=r"^sizes\."):
            Sizes(top=top, limit=limit, counts=counts_)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda a: lower_layers(None, *a[1:]), "network"),
        (lambda a: lower_layers(*a[:2], None, a[3]), "plan"),
        (lambda a: lower_layers(*a[:3], {"v": {"p": 1.0}}), "ranges"),
        (lambda a: lower_layers(*a, seed=1.5), "seed"),
        (lambda a: lower_layers(*a, seed=-1), "seed"),
        (lambda a: lower_layers(*a, seed=True), "seed"),
        (lambda a: lower_layers(*a, labels="ab"), "program.labels"),
        (lambda a: lower_layers(*a, grids={}), "grids"),
        (lambda a: lower_layers(*a, grids={"p": None}), "grids"),
        (lambda a: lower_layers(*a, grids={"p": grid([1.0, 1.0], [0, 0])}), r"grids\.p"),
        (lambda a: lower_layers(*a, grids={"p": grid([1.0], [0]), "q": grid([1.0], [0])}), "grids"),
        (lambda a: grid([np.nan], [0]), r"grid\.step"),
        (lambda a: grid([0.0], [0]), r"grid\.step"),
        (lambda a: grid([-1.0], [0]), r"grid\.step"),
        (lambda a: grid([1.0], [40]), r"grid\.shifts"),
        (lambda a: grid([1.0], [0.5]), r"grid\.shifts"),
        (lambda a: grid([1.0], [0, 1]), r"grid\.shifts"),
    ],
)
def test_arguments_of_another_kind_are_refused(call: Callable[[tuple], Any], where: str) -> None:
    arguments = net(Leaky()), {"p.w": np.ones((1, 1))}, QuantPlan(rules=(REST,)), LayerRanges(v={"p": 1.0})
    with pytest.raises(QSpinnError, match=rf"^{where}"):
        call(arguments)


def grid(step: Any, shifts: Any) -> LayerGrid:
    return LayerGrid(step=np.array(step), shifts=np.array(shifts))


@pytest.mark.parametrize("calibrator", [c for c in Calibrator if c is not Calibrator.THRESHOLD])
@pytest.mark.parametrize("w", [1e-320, 1e-200, 1e200, 1e308])
def test_weights_beyond_all_scales_are_refused(calibrator: Calibrator, w: float) -> None:
    with pytest.raises(QSpinnError, match=r"^p\."):
        low([[w, w / 2]], rules=(QuantRule(tensor="*.w", bits=8, calibrator=calibrator), REST))
    for levels, bits in ((Levels.BINARY, 1), (Levels.TERNARY, 2)):
        with pytest.raises(QSpinnError, match=r"^p\."):
            low([[w, w / 2]], rules=(QuantRule(tensor="*.w", bits=bits, levels=levels), REST))


@pytest.mark.parametrize("small", [1e-12, 1e-30, 1e-100])
def test_shifts_of_channels_that_differ_by_more_than_31_bits_are_held(small: float) -> None:
    """Reported: a shift of 36 was -28 in the file, so that a silent neuron spiked in every step; 1e-30 stopped an
    engine. Right: the small weight never reaches the threshold, in every engine and from the file."""
    rules = (QuantRule(tensor="*.w", bits=4, granularity=Granularity.PER_CHANNEL), REST)
    program = low([[1.0], [small]], rules=rules)
    assert program.codes("p.in_shifts").max() <= 31
    assert counts(program) == [40, 0]


@pytest.mark.parametrize(
    ("rules", "where"),
    [
        ((REST, QuantRule(tensor="p.w", bits=2)), r"plan\.rules\[1\]: changes nothing.*'p\.w'"),
        ((QuantRule(tensor="*.w", bits=4, power_of_two=True), REST), r"plan\.rules\[0\]\.power_of_two"),
        ((QuantRule(tensor="*.w", bits=4, standardize=False), REST), r"plan\.rules\[0\]\.standardize"),
        ((QuantRule(tensor="*.w", bits=4, quantile=0.5), REST), r"plan\.rules\[0\]\.quantile"),
        ((QuantRule(tensor="*.v_th", bits=8, clip=0.5), REST), r"plan\.rules\[0\]\.clip"),
        ((QuantRule(tensor="*.decay", bits=8, clip=0.5), REST), r"plan\.rules\[0\]\.clip"),
        ((QuantRule(tensor="*.v", bits=8, calibrator=Calibrator.THRESHOLD, clip=0.5), REST), r"plan\.rules\[0\]\.clip"),
        ((QuantRule(tensor="*.decay", bits=8, shared_step=True), REST), r"plan: p\.decay"),
        ((QuantRule(tensor="p.u", bits=8), REST), r"plan\.rules\[0\]\.tensor"),
        ((QuantRule(tensor="p.w", bits=8),), r"plan: p\.v: no rule"),
    ],
)
def test_rules_and_keys_that_decide_nothing_are_refused(rules: tuple[QuantRule, ...], where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{where}"):
        low(rules=rules)


def test_clipped_weights_are_noted() -> None:
    program = low([[1.0, 0.1, -0.9, 0.2]], rules=(QuantRule(tensor="*.w", bits=4, clip=0.5), REST))
    (note,) = program.notes
    assert (note.path, note.problem, note.count, note.total) == ("p.w", "clipped", 2, 4)
    assert from_bytes(to_bytes(program)).notes == program.notes
    assert low([[1.0, 0.1, -0.9, 0.2]]).notes == ()


@pytest.mark.parametrize(
    ("w", "bias", "count"), [(1.0, None, 1), ([[1.0], [0.01]], None, 1), (1.0, 0.5, 1), (0.0, None, 0)]
)
def test_currents_that_no_range_was_given_for_are_noted(w: Any, bias: float | None, count: int) -> None:
    """A current of decay 0.9 reaches ten times its input, its format of 8 bits 127 steps of a weight's 127."""
    neuron, w = Leaky(decay=0.9, current_decay=0.9, v_th=5.0), np.atleast_2d(w)
    n = len(w)
    network = net(neuron, 1, n, bias=bias is not None)
    arrays = {"p.w": w} | ({} if bias is None else {"p.bias": np.full(n, bias)})

    def lowered_with(**ranges: Any) -> Program:
        return lower_layers(
            network,
            arrays,
            QuantPlan(rules=(QuantRule(tensor="*.i", bits=8), REST)),
            LayerRanges(v={"p": 9.0}, **ranges),
        )

    notes = lowered_with().notable()
    assert [(note.path, note.count, note.total) for note in notes] == ([("p.i", count, n)] if count else [])
    if count:
        assert "no range of synaptic currents" in str(notes[0])
        with pytest.raises(LoweringError, match=r"^p\.i: the synaptic current does not fit"):
            lowered_with(i={"p": 10.0})
    assert lowered_with(i={"p": 0.5}).notes == ()


CORNERS = {
    "threshold far below the range": ({}, {}, 35.3, 4),
    "strict at the top": ({"strict": True}, {}, 0.1, 3),
    "thresholds of channels": ({}, {"v_th": np.array([0.5, 4.0])}, 2.0, 6),
    "bias": ({}, {"bias": np.array([0.3, -0.2])}, 2.0, 8),
    "reset below": ({"reset": "value", "v_reset": -3.0}, {}, 1.0, 8),
    "a given decay": ({}, {"decay": np.array(0.5)}, 2.0, 8),
}


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("granularity", [Granularity.GLOBAL, Granularity.PER_CHANNEL], ids=lambda g: g.value)
def test_training_on_the_grid_agrees_with_lowering(name: str, granularity: Granularity) -> None:
    settings, params, top, bits = CORNERS[name]
    rng = np.random.default_rng(1)
    network = net(Leaky(**({"decay": 0.9} | settings)), 3, 2, bias="bias" in params)
    arrays = {"p.w": rng.normal(size=(2, 3))} | {f"p.{k}": x for k, x in params.items()}
    plan = QuantPlan(
        rules=(QuantRule(tensor="*.w", bits=6, granularity=granularity), QuantRule(tensor="*.v", bits=bits), REST)
    )
    ranges = LayerRanges(v={"p": top})
    module = prepare(network, plan, arrays, ranges)
    lowered, converted = lower_layers(network, arrays, plan, ranges), convert(module)
    raster = rng.random((40, 4, 3)) < 0.6
    seen = module(torch.from_numpy(raster.astype(np.uint8)), potentials=True)
    for program in (lowered, converted):
        for engine in ENGINES:
            result = run(program, from_dense(raster), backend=engine, record=True)
            np.testing.assert_array_equal(result.spikes["p"], seen.spikes["p"].flatten(2).detach().numpy())
            np.testing.assert_array_equal(result.v["p"], seen.potentials["p"][-1].flatten(1).detach().numpy())


def competing(neuron: Lif | None = None, rate: float = 128.0, dt: float = 1.0) -> Network:
    return Network(
        name="n",
        input=PoissonInput(n=2, rate_hz=rate),
        n_steps=6,
        dt_ms=dt,
        readout=VoteReadout(source="p", n_classes=2),
        populations=(Population(name="p", n=2, neuron=neuron or Lif()),),
        connections=(Dense(source="input", target="p"), Lateral(target="p")),
    )


def lowered(
    network: Network | None = None,
    w: Any = 0.5,
    theta: Any = 0.0,
    responses: Any = 1.0,
    rules: tuple[QuantRule, ...] = (REST,),
    ranges: Any = None,
    **settings: Any,
) -> Program:
    params = {
        path: np.broadcast_to(np.asarray(x, float), shape).copy()
        for path, x, shape in (("p.w", w, (2, 2)), ("p.theta", theta, (2,)), ("readout.responses", responses, (2, 2)))
    }
    ranges = ranges or Ranges(input_rate=np.full(2, 0.1), busiest_step=2, threshold_max_mv={"p": 13.0})
    return lower(Trained(network=network or competing(), params=params), QuantPlan(rules=rules), ranges, **settings)


PER_NEURON = (QuantRule(tensor="*.w", bits=8, granularity=Granularity.PER_NEURON), REST)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        *[(lambda x=x: lowered(theta=[0.0, x]), r"^p\.theta") for x in (-1.0, -1e-9, np.nan, np.inf, 1e308)],
        *[
            (lambda x=x: lowered(responses=[[x, 1.0], [1.0, 1.0]]), r"^readout\.responses")
            for x in (-1.0, np.nan, 1e308)
        ],
        *[(lambda x=x: lowered(w=[[0.5, x], [0.5, 0.5]]), r"^p\.w") for x in (-0.1, np.nan, np.inf, 1e308)],
        *[(lambda x=x, r=r: lowered(w=x, rules=r), r"^p\.w") for x in (1e-320, 1e-200) for r in ((REST,), PER_NEURON)],
        (lambda: lowered(seed=1.5), "^seed"),
        (lambda: lowered(ranges={"v": 1}), "^ranges"),
        (
            lambda: lowered(ranges=ranges_of(threshold_max_mv={"p": 1.0, "q": 1.0})),
            r"^ranges\.threshold_max_mv\.q: is no population",
        ),
        (lambda: lowered(ranges=ranges_of(input_rate=np.full(3, 0.1))), r"^ranges\.input_rate: does not match"),
        (lambda: ranges_of(input_rate=np.array([0.1, np.nan])), r"^ranges\.input_rate"),
        (lambda: ranges_of(input_rate=np.array([0.1, 2.0])), r"^ranges\.input_rate"),
        (lambda: ranges_of(busiest_step=1.5), r"^ranges\.busiest_step"),
        (lambda: ranges_of(threshold_max_mv={"p": np.nan}), r"^ranges\.threshold_max_mv\.p"),
        (lambda: calibrate(None, from_dense(np.ones((6, 1, 2)))), "^trained"),  # type: ignore[arg-type]
        (lambda: calibrate(bare(), np.ones((6, 1, 2))), "^spikes"),  # type: ignore[arg-type]
        (lambda: calibrate(bare(), from_dense(np.ones((6, 1, 5)))), r"^spikes\.n"),
        (lambda: calibrate(bare(), from_dense(np.ones((7, 1, 2)))), r"^spikes\.n_steps"),
        (lambda: calibrate(bare(), from_dense(np.ones((6, 1, 2)))), r"^p\.theta: is not among"),
        (lambda: calibrate(bare(np.zeros(0)), from_dense(np.ones((6, 1, 2)))), r"^p\.theta"),
        (lambda: calibrate(bare(np.array([np.nan, 0.0])), from_dense(np.ones((6, 1, 2)))), r"^p\.theta"),
        *[
            (lambda r=r, d=d: poisson_op(competing(rate=r, dt=d), 0), r"^network\.(input\.rate_hz|dt_ms)")
            for r, d in ((1e-300, 1.0), (1e-7, 1.0), (1001.0, 1.0), (1e5, 1e308), (128.0, 1e-300), (128.0, 1e9))
        ],
    ],
)
def test_what_competing_networks_cannot_be_lowered_from(call: Callable[[], Any], where: str) -> None:
    with pytest.raises(QSpinnError, match=where):
        call()


def ranges_of(**changes: Any) -> Ranges:
    return Ranges(**({"input_rate": np.full(2, 0.1), "busiest_step": 2, "threshold_max_mv": {"p": 13.0}} | changes))


def bare(theta: Any = None) -> Trained:
    return Trained(network=competing(), params={} if theta is None else {"p.theta": theta})


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_spikes_of_other_inputs_are_refused_whether_or_not_rare_inputs_are_left_out(rate: float) -> None:
    """Reported: 5 inputs were taken for 2, and with a least rate stopped in NumPy. Right: `spikes.n` is named."""
    params = {"p.w": np.full((2, 2), 0.5), "p.theta": np.zeros(2), "readout.responses": np.ones((2, 2))}
    raster = np.ones((6, 1, 5))
    raster[:, :, -1] = 0
    with pytest.raises(QSpinnError, match=r"^spikes\.n: .*got 5; allowed: 2"):
        quantize(
            Trained(network=competing(), params=params),
            QuantPlan(rules=(REST,), min_input_rate=rate),
            from_dense(raster),
        )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("theta", [0.0, [0.0, 500.0]])
def test_competing_thresholds_are_above_silence_and_within_reach(bits: int, theta: Any) -> None:
    for v_th in (13.0, 0.01):
        program = lowered(
            competing(Lif(v_th_mv=v_th)),
            theta=theta,
            rules=(QuantRule(tensor="*.v_th", bits=bits), QuantRule(tensor="*.v", bits=max(bits, 3)), REST),
        )
        op = program.ops_of(LifOp)[0]
        level = (program.codes("p.v_th") << op.threshold.shift) + (program.codes("p.theta") << op.theta.shift)
        assert 1 <= level.min() <= level.max() <= op.v_fmt.code_max
        assert counts(program, 0.0) == [0, 0]

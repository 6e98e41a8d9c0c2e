"""Arrays as strangers pass them to lowering: the program of the same numbers in float64, or a refusal by name.

Parameters of networks, ranges, histograms and codes in every type, shape, layout and content; the input never changes.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hostile import answered, arrays, scalars
from qspinn.errors import QSpinnError
from qspinn.fixedpoint import QFormat
from qspinn.networks.checkpoint import Trained
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Linear, NeuronReadout
from qspinn.networks.models import diehl_cook
from qspinn.program import CodeTensor, Program, from_bytes, to_bytes
from qspinn.program.ops import LifOp
from qspinn.quantization.competing import lower, quantize
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Calibrator, Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import BINS, LayerRanges, Ranges, Sizes, calibrate, sizes_of
from qspinn.quantization.rates import measured_rates
from qspinn.runtime import reference, run
from qspinn.spikes import from_dense
from qspinn.testing.programs import constant, single

REST = QuantRule(tensor="*", bits=12)
PLANS = st.sampled_from(
    [
        QuantPlan(rules=(REST,)),
        QuantPlan(rules=(QuantRule(tensor="*.w", bits=3, granularity=Granularity.PER_CHANNEL), REST)),
        QuantPlan(rules=(QuantRule(tensor="*.w", bits=4, calibrator=Calibrator.MSE), REST)),
        QuantPlan(rules=(QuantRule(tensor="*.w", bits=2, calibrator=Calibrator.PERCENTILE, quantile=0.9), REST)),
    ]
)
LAYERS = LayeredNetwork(
    name="n",
    input=EventInput(shape=(3, 1, 1), max_count=3),
    n_steps=4,
    layers=(Layer(name="p", shape=(2, 1, 1)),),
    connections=(Linear(source="input", target="p", bias=True),),
    readout=NeuronReadout(source="p"),
)
COMPETING = diehl_cook(3, 2, n_steps=4, n_classes=2)
COMPETING_PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=8),))
SPIKES = from_dense(np.ones((4, 2, 3)))


def refused(x: Any) -> bool:
    return isinstance(x, QSpinnError)


def plain(x: Any) -> Any:
    """The same numbers as float64 in C order."""
    return x if np.isscalar(x) or x is None else np.array(np.asarray(x).tolist(), np.float64)


def runs(program: Program) -> bytes:
    """The bytes of a program, which is saved, loaded and run like any other."""
    content = to_bytes(program)
    again = from_bytes(content)
    spikes = constant(program.n_inputs, program.n_steps)
    np.testing.assert_array_equal(run(again, spikes, backend="reference").scores, reference.run(program, spikes).scores)
    return content


@settings(max_examples=300)
@given(
    arrays(shape=(2, 3)),
    st.one_of(arrays(shape=(2,)), st.just(np.zeros(2))),
    st.one_of(st.just(np.ones(2)), st.just(np.ones(2)), arrays(shape=(2,)), arrays(n_dims=(0, 1))),
    st.one_of(st.just(3.0), scalars()),
    PLANS,
)
def test_arrays_of_layers(w: Any, bias: Any, v_th: Any, top: Any, plan: QuantPlan) -> None:
    def lowered(*arrays: Any) -> Any:
        params = dict(zip(("p.w", "p.bias", "p.v_th"), arrays, strict=True))
        return lower_layers(LAYERS, params, plan, LayerRanges(v={"p": top}))

    program = answered(lowered, w, bias, v_th)
    event("refused" if refused(program) else "lowered")
    if not refused(program):
        assert runs(program) == to_bytes(lowered(plain(w), plain(bias), plain(v_th)))


@settings(max_examples=150)
@given(
    arrays(shape=(2, 3)),
    st.one_of(arrays(shape=(2,)), st.just(np.zeros(2))),
    st.one_of(arrays(shape=(2, 2)), st.just(np.eye(2))),
)
def test_arrays_of_competing_populations(w: Any, theta: Any, responses: Any) -> None:
    def made(*arrays: Any) -> Any:
        params = dict(zip(("exc.w", "exc.theta", "readout.responses"), arrays, strict=True))
        return quantize(Trained(network=COMPETING, params=params), COMPETING_PLAN, SPIKES)

    program = answered(made, w, theta, responses)
    event("refused" if refused(program) else "lowered")
    if not refused(program):
        assert runs(program) == to_bytes(made(*map(plain, (w, theta, responses))))


TRAINED = Trained(
    network=COMPETING,
    params={
        "exc.w": np.full((2, 3), 0.5, np.float32),
        "exc.theta": np.zeros(2, np.float32),
        "readout.responses": np.eye(2),
    },
)


@settings(max_examples=200)
@given(
    st.one_of(arrays(shape=(3,)), st.just(np.ones(3))),
    st.one_of(st.just(3), scalars()),
    st.one_of(st.just(-50.0), scalars()),
)
def test_ranges_of_competing_populations(rates: Any, busiest: Any, threshold: Any) -> None:
    def made(rates: Any) -> Any:
        return lower(
            TRAINED, COMPETING_PLAN, Ranges(input_rate=rates, busiest_step=busiest, threshold_max_mv={"exc": threshold})
        )

    program = answered(made, rates)
    if not refused(program):
        assert runs(program) == to_bytes(made(plain(rates)))


@settings(max_examples=200)
@given(arrays(), arrays(shape=(BINS,)), scalars(), scalars())
def test_histograms(x: Any, counts: Any, top: Any, limit: Any) -> None:
    sizes = answered(sizes_of, x)
    if not refused(sizes):
        assert sizes.counts.sum() == np.size(x)
        assert sizes.top == np.abs(plain(np.asarray(x))).max(initial=0.0)
    other = answered(Sizes, top=top, limit=limit, counts=counts)
    if not refused(other) and not refused(sizes):
        merged = other.merged(sizes)
        assert merged.counts.sum() == other.counts.sum() + np.size(x)
        assert 0 <= merged.quantile(0.5) <= merged.top


@settings(max_examples=200)
@given(arrays(shape=(2, 3)), st.sampled_from([QFormat(bits=8), QFormat(bits=1), QFormat(bits=16, signed=True)]))
def test_codes_of_programs(codes: Any, fmt: QFormat) -> None:
    program = single([[1, 2, 3], [3, 2, 1]], w_bits=8, v_bits=10, v_th=9)
    path = "p0.w"
    assert path in program.tensors

    def made(codes: Any) -> Program:
        tensors = dict(program.tensors) | {path: CodeTensor(codes=codes, fmt=fmt)}
        return msgspec.structs.replace(program, tensors=tensors)

    changed = answered(made, codes)
    if refused(changed):
        return
    content = answered(to_bytes, changed)
    assert refused(content) == refused(answered(run, changed, constant(3, program.n_steps)))
    if not refused(content):
        assert content == to_bytes(made(np.array(np.asarray(codes).tolist(), np.int32)))


@settings(max_examples=50)
@given(scalars(), scalars(), scalars())
def test_calibration_and_rates_take_what_they_understand(trained: Any, spikes: Any, channels: Any) -> None:
    program = single([[1, 2, 3]], v_th=2)
    assert refused(answered(calibrate, trained, SPIKES))
    assert refused(answered(calibrate, TRAINED, spikes))
    assert refused(answered(measured_rates, program, "nobody", SPIKES, 1))
    name = program.ops_of(LifOp)[0].name
    found = answered(measured_rates, program, name, constant(3, 4), channels)
    assert refused(found) or found.shape == (int(channels),)

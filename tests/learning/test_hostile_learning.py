"""Whatever is passed to arithmetic, learning, comparison and accounts is answered or refused by name, and left as it
is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import answered, arrays, scalars
from qspinn.errors import QSpinnError
from qspinn.exploration.pareto import dominates, pareto_front
from qspinn.exploration.reward import Reward
from qspinn.exploration.statistics import paired_difference, wilson_interval
from qspinn.fixedpoint import (
    Overflow,
    QFormat,
    Rounding,
    decode,
    encode,
    mix32,
    random_words,
    requantize,
    saturate,
    sr_bits,
    wrap,
)
from qspinn.learning.gradients.quantized import prepare
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.memory import local_account
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import drawn_layers
from qspinn.learning.local.training import layers_of
from qspinn.learning.stdp.grid_rates import learning_rate_codes
from qspinn.learning.stdp.training import mean_responses, respond
from qspinn.memory import MemoryAccount, MemoryRow, Widths, float_account, float_layers_account, published_account
from qspinn.networks.checkpoint import Trained, TrainedLayers
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Linear, NeuronReadout
from qspinn.networks.local import LocalLayer, LocalNetwork
from qspinn.networks.models import diehl_cook
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.rates import restore_rates
from qspinn.spikes import from_dense
from qspinn.testing.programs import single

FORMATS = st.sampled_from(
    [
        QFormat(bits=8),
        QFormat(bits=4, frac=2, signed=True),
        QFormat(bits=1, signed=True),
        QFormat(bits=32, frac=-20),
        QFormat(bits=16, frac=64),
    ]
)
ROUNDINGS = st.sampled_from(list(Rounding))
PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=10),))
NETWORK = diehl_cook(3, 2, n_steps=4, n_classes=2)
LAYERS = LayeredNetwork(
    name="n",
    input=EventInput(shape=(3, 1, 1), max_count=3),
    n_steps=4,
    layers=(Layer(name="p", shape=(2, 1, 1)),),
    connections=(Linear(source="input", target="p", bias=True),),
    readout=NeuronReadout(source="p"),
)
SPIKES = from_dense(np.ones((4, 2, 3)))


@settings(max_examples=300)
@given(arrays(), st.one_of(scalars(), st.integers(-70, 70)), ROUNDINGS, st.one_of(st.none(), arrays()), scalars())
def test_requantize(x: Any, shift: Any, rounding: Rounding, index: Any, key: Any) -> None:
    found = answered(requantize, x, shift, rounding, index=index, key=key)
    if isinstance(found, QSpinnError):
        return
    assert found.dtype == np.int64
    if rounding is not Rounding.STOCHASTIC:
        factor = 2 ** abs(int(shift))
        for a, b in zip(np.asarray(x).ravel().tolist(), found.ravel().tolist(), strict=True):
            a = int(a)
            right = (
                a * factor
                if shift <= 0
                else {
                    Rounding.TRUNCATE: a // factor,
                    Rounding.NEAREST: (2 * a + factor) // (2 * factor),
                    Rounding.TOWARD_ZERO: abs(a) // factor * (1 if a >= 0 else -1),
                }[rounding]
            )
            assert b == right


@settings(max_examples=200)
@given(arrays(), FORMATS)
def test_codes(x: Any, fmt: QFormat) -> None:
    for call in (saturate, wrap, decode):
        answered(call, x, fmt)
    for found in (answered(saturate, x, fmt), answered(wrap, x, fmt)):
        if not isinstance(found, QSpinnError) and found.size:
            assert fmt.code_min <= found.min() <= found.max() <= fmt.code_max or fmt.binary
    for call in (mix32, lambda x: random_words(5, x), lambda x: sr_bits(5, x, 7)):
        answered(call, x)


@settings(max_examples=300)
@given(arrays(), st.one_of(st.just(1.0), arrays(), scalars()), FORMATS, ROUNDINGS, st.sampled_from(list(Overflow)))
def test_encode(x: Any, scale: Any, fmt: QFormat, rounding: Rounding, overflow: Overflow) -> None:
    found = answered(encode, x, fmt, rounding, scale=scale, overflow=overflow)
    if not isinstance(found, QSpinnError) and found[0].size:
        assert fmt.code_min <= found[0].min() <= found[0].max() <= fmt.code_max
    answered(decode, x, fmt, scale=scale)


@settings(max_examples=200)
@given(arrays(), arrays())
def test_comparisons(a: Any, b: Any) -> None:
    mask = answered(pareto_front, a)
    if not isinstance(mask, QSpinnError):
        rows = np.asarray(a, float)
        assert not mask[~np.isfinite(rows).all(axis=1)].any()
    answered(dominates, a, b)
    answered(paired_difference, a, b)
    answered(mean_responses, a, b, 2)


@settings(max_examples=200)
@given(scalars(), scalars(), scalars())
def test_single_numbers(a: Any, b: Any, c: Any) -> None:
    answered(wilson_interval, a, b, c)
    answered(wilson_interval, a, b)
    answered(lambda: Reward(form="multiplicative").value(a, b, c, a))
    answered(lambda: MemoryAccount(rows=(MemoryRow(path="a", role="state", count=a, bits=b),), batch=c).total_bits)
    answered(lambda: float_account(NETWORK, batch=a))
    answered(lambda: float_layers_account(LAYERS, batch=a))
    answered(lambda: published_account(LAYERS, Widths(first=b), batch=a, states=c))
    answered(lambda: local_account(LocalNetwork(layers=(LocalLayer(channels=2),)), (1, 8, 8), a, outputs={"conv1": b}))
    answered(lambda: QFormat(bits=a, frac=b, signed=c))
    answered(learning_rate_codes, a, b)


@settings(max_examples=150)
@given(arrays(shape=(2, 3)), arrays(shape=(2,)), arrays(shape=(2, 2)))
def test_arrays_of_competing_populations(w: Any, theta: Any, responses: Any) -> None:
    def made() -> Any:
        trained = Trained(network=NETWORK, params={"exc.w": w, "exc.theta": theta, "readout.responses": responses})
        return respond(trained, SPIKES, n_threads=1)

    found = answered(made)
    if not isinstance(found, QSpinnError):
        assert found.shape == (2, 2)


@settings(max_examples=100)
@given(arrays(shape=(2, 3)), arrays(shape=(2,)), st.one_of(arrays(shape=(2,)), arrays(n_dims=(0, 1))))
def test_arrays_of_layers(w: Any, bias: Any, v_th: Any) -> None:
    answered(TrainedLayers, network=LAYERS, params={"p__w": w, "p__bias": bias})
    before = [np.array(x, copy=True) if isinstance(x, np.ndarray) else x for x in (w, bias)]
    answered(lambda: prepare(LAYERS, PLAN, {"p.w": w, "p.bias": bias, "p.v_th": v_th}))
    for x, old in zip((w, bias), before, strict=True):
        if isinstance(x, np.ndarray) and x.dtype.kind in "iub" and not isinstance(x, np.ma.MaskedArray):
            np.testing.assert_array_equal(x, old)


NET = SurrogateNet(LAYERS).eval()
QUANTIZED = prepare(LAYERS, PLAN, NET.params()).eval()


@settings(max_examples=200)
@given(st.one_of(arrays(shape=(4, 2, 3)), arrays()))
def test_rasters_of_layers(x: Any) -> None:
    try:
        spikes: Any = torch.from_numpy(x)
    except (TypeError, ValueError, RuntimeError, UserWarning, AttributeError):
        spikes = x
    kept = spikes.clone() if isinstance(spikes, torch.Tensor) else None
    for net in (NET, QUANTIZED):
        try:
            with torch.no_grad():
                scores = net(spikes).scores
        except QSpinnError:
            continue
        assert scores.shape == (2, 2)
        assert torch.isfinite(scores).all()
        values = spikes.double()
        assert bool(((values >= 0) & (values <= 3) & (values == values.round())).all())
    if kept is not None:
        inexact = kept.is_floating_point() or kept.is_complex()
        assert torch.equal(*(x.nan_to_num(7.0) if inexact else x for x in (kept, spikes)))


PROGRAM = single([[5, 7]], v_th=10, winner=False, n_steps=4)
INPUT = from_dense(np.ones((4, 2, 2)))


@settings(max_examples=100)
@given(st.one_of(arrays(shape=(1,)), arrays()), scalars())
def test_target_rates(rates: Any, n_rounds: Any) -> None:
    if isinstance(n_rounds, int | np.integer) and not 1 <= n_rounds <= 4:
        n_rounds = -1 if n_rounds < 1 else 2
    answered(restore_rates, PROGRAM, INPUT, {"p0": rates}, n_rounds=n_rounds, backend="reference")
    answered(restore_rates, PROGRAM, INPUT, rates, backend="reference")


LOCAL = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1),))
MADE = {
    kind: layers_of(
        LOCAL, LocalLearning(arithmetic=kind, burn_in=0), drawn_layers(LOCAL, (1, 4, 4), 2, 1.0, 0), DEFAULT_PLAN
    )
    for kind in ("integer", "float")
}


@settings(max_examples=100)
@given(st.one_of(arrays(shape=(3, 2, 4, 4, 1)), arrays()), st.one_of(arrays(shape=(2,)), arrays()))
def test_rasters_and_labels_of_local_layers(raster: Any, labels: Any) -> None:
    for layers in MADE.values():
        found = answered(layers.readouts, raster)
        if not isinstance(found, QSpinnError):
            assert found[0].shape[:2] == raster.shape[:2]
        answered(layers.learn, raster, labels, 0)
        assert all(math.isfinite(float(np.abs(x.astype(float)).max())) for x in layers.state().values())

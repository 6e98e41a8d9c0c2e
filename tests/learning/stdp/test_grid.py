"""Integer training against a plain integer implementation, code for code, and its Program against the reference."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from qspinn.errors import LoweringError
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.grid import fit, learning_rate_codes, prepare, to_program
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Lif, Network, Stdp
from qspinn.networks.models import diehl_cook
from qspinn.quantization.plan import Granularity, QuantPlan
from qspinn.quantization.ranges import Ranges
from qspinn.runtime import reference
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.spikes import Spikes, from_dense
from stdp_oracle import GLOBAL, PER_NEURON, VOTES, Plain, both, check_same, network_of, plan_of, ranges_of


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize("granularity", [GLOBAL, PER_NEURON], ids=lambda g: g.value)
@pytest.mark.parametrize(("bound", "eta_pre"), [("soft", 0.0), ("hard", 0.08), ("two_sided", 0.08)])
@pytest.mark.parametrize("x_offset", [0.0, 0.3])
def test_training_equals_a_plain_implementation(
    rounding: Rounding,
    granularity: Granularity,
    bound: str,
    eta_pre: float,
    x_offset: float,
    make_spikes: Callable[..., Spikes],
) -> None:
    network = network_of(bound, eta_pre, x_offset=x_offset)
    before = prepare(network, plan_of(4, granularity, rounding), ranges_of(network), seed=3).w
    model, plain, n_spikes = both(network, plan_of(4, granularity, rounding), make_spikes(13, 40, 7))
    check_same(model, plain)
    assert n_spikes > 10  # truncation takes all weights from some neurons, which are then silent
    assert (model.w != before).any()


@pytest.mark.parametrize("granularity", [GLOBAL, PER_NEURON], ids=lambda g: g.value)
@pytest.mark.parametrize(("w", "v", "x", "others"), [(1, 8, 8, 8), (2, 5, 1, 4), (8, 14, 10, 16), (12, 14, 8, 12)])
@pytest.mark.soak
def test_widths(
    granularity: Granularity, w: int, v: int, x: int, others: int, make_spikes: Callable[..., Spikes]
) -> None:
    plan = plan_of(w, granularity, Rounding.STOCHASTIC, v=v, x=x, others=others)
    model, plain, n_spikes = both(network_of("two_sided", 0.03), plan, make_spikes(13, 40, 5))
    check_same(model, plain)
    assert n_spikes > 5


@pytest.mark.parametrize(
    "settings",
    [{"n_ref_steps": 0}, {"n_ref_steps": 5}, {"v_reset_mv": 0.7}, {"strength": 0.6}, {"strength": 0.0}, {"norm": 0.0}],
    ids=str,
)
def test_declared_constants(settings: dict[str, float], make_spikes: Callable[..., Spikes]) -> None:
    model, plain, n_spikes = both(network_of(**settings), plan_of(5), make_spikes(13, 40, 6))
    check_same(model, plain)
    assert n_spikes > 20


def test_thresholds_that_outgrow_the_potential_stay_at_its_upper_end(make_spikes: Callable[..., Spikes]) -> None:
    """With a unit per neuron thresholds follow the sum of the weights, here beyond what v can hold: a neuron then
    spikes where its potential saturates."""
    network = network_of("hard", eta_post=2.0, theta_plus_mv=0.5, v_th_mv=4.0)
    model, plain, n_spikes = both(network, plan_of(4, PER_NEURON, v=15), make_spikes(13, 40, 20, 0.6))
    check_same(model, plain)
    assert n_spikes > 20
    assert model.levels().max() == model.v_fmt.code_max


def test_left_out_inputs_and_adapting_thresholds_only(make_spikes: Callable[..., Spikes]) -> None:
    network, plan = network_of(), plan_of(4, PER_NEURON, rate=0.2)
    before = prepare(network, plan, ranges_of(network), seed=3)
    model, plain, _ = both(network, plan, make_spikes(13, 40, 6), learn=False)
    check_same(model, plain)
    assert 0 < model.w.shape[1] < 13
    np.testing.assert_array_equal(model.w, before.w)
    assert (model.theta > before.theta).any()


@pytest.mark.parametrize("x_offset", [0.0, 0.3])
def test_samples_that_light_few_inputs(x_offset: float, make_spikes: Callable[..., Spikes]) -> None:
    """Which inputs spike differs from sample to sample, and their number from register to register."""
    network = diehl_cook(
        60,
        40,
        n_steps=40,
        n_classes=3,
        neuron=Lif(v_th_mv=0.3, theta_plus_mv=0.01, n_ref_steps=1),
        stdp=Stdp(eta_post=0.2, eta_pre=0.03, bound="hard", x_offset=x_offset, norm=12.0),
    )
    plan = plan_of(6, GLOBAL, Rounding.STOCHASTIC, v=12)
    model, plain, n_spikes = both(network, plan, make_spikes(60, 40, 30, 0.01))
    check_same(model, plain)
    assert n_spikes > 100


def test_training_goes_on_where_it_stopped(make_spikes: Callable[..., Spikes]) -> None:
    """Random bits are numbered by the samples seen, so a second call continues and does not repeat."""
    network, spikes = network_of(), make_spikes(13, 40, 4)
    model, plain, _ = both(network, plan_of(rounding=Rounding.STOCHASTIC), spikes, StdpTraining(n_passes=1))
    fit(model, spikes, StdpTraining(n_passes=1))
    plain.fit(spikes, StdpTraining(n_passes=1))
    check_same(model, plain)
    assert model.samples_seen == plain.seen == 8


def test_blocks_of_samples_change_nothing(make_spikes: Callable[..., Spikes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows follow columns by a log that is longer than a block, and shorter than a pass."""
    network, spikes, training = network_of("two_sided", 0.03), make_spikes(13, 40, 1200), StdpTraining(n_passes=1)
    plan = plan_of(rounding=Rounding.STOCHASTIC)
    whole, parts = (prepare(network, plan, ranges_of(network), seed=1) for _ in range(2))
    monkeypatch.setattr("qspinn.learning.stdp.grid.BLOCK", 5000)
    fit(whole, spikes, training)
    monkeypatch.setattr("qspinn.learning.stdp.grid.BLOCK", 3)
    fit(parts, spikes, training)
    np.testing.assert_array_equal(parts.w, whole.w)
    np.testing.assert_array_equal(parts.theta, whole.theta)


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize("granularity", [GLOBAL, PER_NEURON], ids=lambda g: g.value)
def test_the_program_runs_as_training_did(
    rounding: Rounding, granularity: Granularity, make_spikes: Callable[..., Spikes]
) -> None:
    """After training, with learning frozen, the plain forward step (equal to the compiled one by the tests above) and
    the program on both engines give the same spikes."""
    network = network_of("two_sided", v_reset_mv=0.4 if granularity is GLOBAL else 0.0)
    check_program(network, plan_of(5, granularity, rounding, rate=0.1), make_spikes)


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.7])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_the_program_inhibits_as_training_did(strength: float, bits: int, make_spikes: Callable[..., Spikes]) -> None:
    check_program(network_of(strength=strength), plan_of(5, inhibition=bits), make_spikes)


def check_program(network: Network, plan: QuantPlan, make_spikes: Callable[..., Spikes]) -> None:
    model = prepare(network, plan, ranges_of(network), seed=3)
    fit(model, make_spikes(13, 40, 6), StdpTraining(n_passes=1))
    program = to_program(model, VOTES)
    frozen = msgspec.structs.replace(
        model,
        network=msgspec.structs.replace(
            network,
            populations=(
                msgspec.structs.replace(
                    network.populations[0],
                    neuron=msgspec.structs.replace(network.populations[0].neuron, theta_plus_mv=0.0),
                ),
            ),
        ),
    )
    fresh = make_spikes(13, 40, 8, seed=9)
    raster = fresh.dense()[:, :, model.kept]
    expected = np.stack(
        [
            Plain(model=frozen, w=model.w.copy(), theta=model.theta.copy()).sample(raster[:, b], 1.0, learn=False)
            for b in range(8)
        ],
        axis=1,
    )
    assert expected.sum() > 25
    for engine in (reference.run, numba_engine.run):
        np.testing.assert_array_equal(engine(program, fresh, record=True).spikes["exc"], expected)


def test_training_is_deterministic_by_seed(make_spikes: Callable[..., Spikes]) -> None:
    spikes, plan = make_spikes(13, 40, 6), plan_of(rounding=Rounding.STOCHASTIC)
    first, again, other = (both(network_of(), plan, spikes, StdpTraining(n_passes=1), seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first.w, again.w)
    assert (first.w != other.w).any()


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
def test_updates_below_half_a_step(rounding: Rounding, make_spikes: Callable[..., Spikes]) -> None:
    """Only stochastic rounding learns from them: it moves weights both ways. The others would never raise a weight, so
    they are refused before anything changes."""
    network, plan = network_of(eta_post=0.01, v_th_mv=1.0), plan_of(2, PER_NEURON, rounding)
    start = prepare(network, plan, ranges_of(network), seed=3)
    spikes, training = make_spikes(13, 40, 30, 0.1), StdpTraining(n_passes=3, anneal=False)
    if rounding is Rounding.STOCHASTIC:
        model, _, n_spikes = both(network, plan, spikes, training)
        moved = model.w - start.w
        assert n_spikes > 20
        assert moved.min() < 0 < moved.max()
        return
    before = start.w.copy()
    with pytest.raises(LoweringError, match=r"network\.exc\.stdp\.eta_post: can never change a weight") as caught:
        fit(start, spikes, training)
    assert f"0.01 on 2 bits rounded {rounding.value}" in str(caught.value)
    np.testing.assert_array_equal(start.w, before)
    assert start.samples_seen == 0
    fit(start, spikes, training, learn_weights=False)  # thresholds alone need no rate


def test_truncation_that_can_raise_a_weight_still_lowers_more(make_spikes: Callable[..., Spikes]) -> None:
    network, plan = network_of(eta_post=0.5, v_th_mv=1.0), plan_of(2, PER_NEURON, Rounding.TRUNCATE)
    start = prepare(network, plan, ranges_of(network), seed=3).w
    model, plain, _ = both(network, plan, make_spikes(13, 40, 30, 0.1), StdpTraining(n_passes=3, anneal=False))
    check_same(model, plain)
    assert (model.w - start).mean() < 0


@pytest.mark.parametrize("eta_post", [0.02, 0.3])
def test_stochastic_updates_are_unbiased(eta_post: float) -> None:
    """One postsynaptic spike over 1,000 inputs, half of them lit, by 12 seeds: the mean change is the exact one."""
    network = diehl_cook(
        1000, 1, n_steps=1, n_classes=2, neuron=Lif(v_th_mv=20.0), stdp=Stdp(eta_post=eta_post, x_offset=0.4)
    )
    ranges = Ranges(input_rate=np.ones(1000), busiest_step=1000, threshold_max_mv={"exc": 21.0})
    lit, exact, moved = np.arange(1000) % 2 == 0, [], []
    e_post, _, shift = learning_rate_codes(eta_post / (63 << 2), 0.0)
    d = np.where(lit, 63 << 2, 0) - round(0.4 * (63 << 2))
    for seed in range(12):
        model = prepare(network, plan_of(4, PER_NEURON, Rounding.STOCHASTIC, v=12), ranges, seed=seed)
        start = model.w[0].copy()
        fit(model, from_dense(lit[None, None]), StdpTraining(n_passes=1))
        inside = (start > 2) & (start < 13)  # where clipping cannot bend the mean
        exact.append(np.where(inside, e_post * d * (model.c_max - start) / 2.0**shift, np.nan))
        moved.append(np.where(inside, model.w[0] - start, np.nan))
    assert np.nanmax(np.abs(moved)) > 0
    for group in (lit, ~lit):
        x, got = (np.array(a)[:, group].ravel() for a in (exact, moved))
        x, got = x[~np.isnan(x)], got[~np.isnan(got)]
        spread = math.sqrt(((x - np.floor(x)) * (np.floor(x) + 1 - x)).sum()) / len(x)
        assert abs((got - x).mean()) < 4 * spread
        assert set(np.unique(got - np.floor(x))) <= {0.0, 1.0}


def test_unit_per_neuron_keeps_weights_and_moves_thresholds(make_spikes: Callable[..., Spikes]) -> None:
    """Normalization in a unit per neuron is exact: the threshold in codes follows the sum of the codes."""
    network, plan = network_of(theta_plus_mv=0.0), plan_of(6, PER_NEURON, v=16, others=16)
    model, _, _ = both(network, plan, make_spikes(13, 40, 6))
    norm = network.dense_into("exc").stdp.norm
    mv_per_code = norm / model.sums * 2.0**model.in_shift
    np.testing.assert_allclose(model.levels() * mv_per_code, 2.0, rtol=2e-3)


def test_starting_from_a_trained_network(
    make_trained: Callable[..., Trained], make_spikes: Callable[..., Spikes]
) -> None:
    network = network_of()
    trained = make_trained(network)
    wide = msgspec.structs.replace(ranges_of(network), threshold_max_mv={"exc": 6.0})
    model = prepare(network, plan_of(8, GLOBAL), wide, start=trained)
    np.testing.assert_array_equal(model.w, np.minimum(np.floor(trained.params["exc.w"] * 256.0 + 0.5), 255))
    theta = model.theta * model.theta_delta
    np.testing.assert_allclose(theta, trained.params["exc.theta"], atol=0.51 * model.theta_delta)
    fit(model, make_spikes(13, 40, 3), StdpTraining(n_passes=1))

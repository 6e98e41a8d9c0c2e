"""Integer STDP training refuses rates, constants, samples and plans that its integers cannot carry, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from qspinn.errors import ConfigError, DataError, LoweringError
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.grid import fit, learning_rate_codes, prepare
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Lif
from qspinn.networks.models import diehl_cook
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.spikes import Spikes, from_dense
from stdp_oracle import GLOBAL, PER_NEURON, network_of, plan_of, ranges_of


@pytest.mark.parametrize(
    ("post", "pre"),
    [(0.01, 0.0), (0.01, 1e-4), (0.5, 0.9), (3.0, 0.05), (4e-10, 0.0), (255.0, 1.0), (0.0, 0.2), (255.4, 0.0)],
)
def test_learning_rate_codes(post: float, pre: float) -> None:
    e_post, e_pre, shift = learning_rate_codes(post, pre)
    assert 0 <= shift <= 31
    assert max(e_post, e_pre) <= 255
    for code, rate in ((e_post, post), (e_pre, pre)):
        assert abs(code / 2.0**shift - rate) <= rate / 3
    if 1e-7 < max(post, pre) < 255:
        assert max(e_post, e_pre) >= 127
        assert math.isclose(max(e_post, e_pre) / 2.0**shift, max(post, pre), rel_tol=1 / 127)
    assert learning_rate_codes(0.0, 0.0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("post", "pre", "name"),
    [
        (0.1, 1e-8, "eta_pre"),
        (1e-8, 0.1, "eta_post"),
        (1e-12, 0.0, "eta_post"),
        (0.0, 1e-12, "eta_pre"),
        (3.0, 0.001, "eta_pre"),
        (0.1, 0.00036, "eta_pre"),
        (5e-324, 0.0, "eta_post"),
    ],
)
def test_rates_that_vanish_are_refused_with_the_smallest_that_fits(post: float, pre: float, name: str) -> None:
    with pytest.raises(LoweringError, match=rf"network\.stdp\.{name}: vanishes") as caught:
        learning_rate_codes(post, pre)
    assert caught.value.got == pytest.approx(min(x for x in (post, pre) if x > 0), abs=1e-300)
    least = float(caught.value.allowed.split()[-1])
    fits = {"eta_post": post, "eta_pre": pre} | {name: least}
    codes = learning_rate_codes(fits["eta_post"], fits["eta_pre"])
    assert codes[0 if name == "eta_post" else 1] == 1
    with pytest.raises(LoweringError, match=name):
        learning_rate_codes(*(0.99 * x if k == name else x for k, x in fits.items()))


@pytest.mark.parametrize(
    ("post", "pre", "name"), [(256.0, 0.0, "eta_post"), (1.0, 1e6, "eta_pre"), (1e300, 1e300, "eta_post")]
)
def test_rates_that_outgrow_8_bits_are_refused(post: float, pre: float, name: str) -> None:
    with pytest.raises(LoweringError, match=rf"{name}: is too large for its 8 bits.*allowed: at most 255"):
        learning_rate_codes(post, pre)


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf, -math.inf])
def test_rates_that_are_no_rates_are_refused(rate: float) -> None:
    for pair in ((rate, 0.1), (0.1, rate)):
        with pytest.raises(ConfigError, match="is no rate"):
            learning_rate_codes(*pair)


@pytest.mark.parametrize("granularity", [GLOBAL, PER_NEURON], ids=lambda g: g.value)
@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize(
    ("constants", "place"),
    [
        (
            {"eta_pre": 1e-6, "eta_post": 0.3},
            r"network\.exc\.stdp\.eta_pre: vanishes on the grid beside eta_post.*got 1e-06",
        ),
        ({"eta_post": 1e-9}, r"network\.exc\.stdp\.eta_post: (vanishes|can never change a weight)"),
        ({"theta_plus_mv": 1e-9}, r"network\.exc\.neuron\.theta_plus_mv: can never raise a threshold"),
        ({"theta_plus_mv": 500.0}, r"network\.exc\.neuron\.theta_plus_mv: is more than theta can hold; got 500"),
        ({"x_offset": 1e-4, "eta_post": 0.3}, r"network\.exc\.stdp\.x_offset: vanishes.*at least 0\.0029"),
        ({"eta_post": 1e5, "bound": "hard"}, r"network\.exc\.stdp\.eta_post: is too large for its 8 bits; got 100000"),
    ],
    ids=lambda x: "" if isinstance(x, str) else "-".join(x),
)
def test_constants_that_vanish_or_grow_stop_the_training(
    constants: dict, place: str, rounding: Rounding, granularity: Granularity, make_spikes: Callable[..., Spikes]
) -> None:
    network = network_of(**constants)
    model = prepare(network, plan_of(6, granularity, rounding), ranges_of(network))
    before = (model.w.copy(), model.theta.copy())
    with pytest.raises(LoweringError, match=place):
        fit(model, make_spikes(13, 40, 3), StdpTraining(n_passes=1, anneal=False))
    np.testing.assert_array_equal(model.w, before[0])
    np.testing.assert_array_equal(model.theta, before[1])


@pytest.mark.parametrize("bits", [4, 7])
def test_a_rate_that_no_update_can_carry_names_the_width_and_the_rate_that_do(
    bits: int, make_spikes: Callable[..., Spikes]
) -> None:
    """eta_post of 0.0005 on a grid of 4 or 7 bits rounds to nothing; on 11 bits, or at the rate that is named, it does
    not."""
    spikes, training = make_spikes(13, 40, 3), StdpTraining(n_passes=1)
    network = network_of(eta_post=0.0005, x_offset=0.0)
    with pytest.raises(LoweringError, match="can never change a weight") as caught:
        fit(prepare(network, plan_of(bits), ranges_of(network)), spikes, training)
    assert caught.value.got == f"0.0005 on {bits} bits rounded nearest"
    assert caught.value.fix.startswith("10 bits or more for exc.w")
    fit(prepare(network, plan_of(10), ranges_of(network)), spikes, training)
    with pytest.raises(LoweringError):
        fit(prepare(network, plan_of(9), ranges_of(network)), spikes, training)
    enough = network_of(eta_post=1.01 * float(caught.value.allowed.split()[-1]), x_offset=0.0)
    fit(prepare(enough, plan_of(bits), ranges_of(enough)), spikes, training)


@pytest.mark.parametrize("rounding", [Rounding.NEAREST, Rounding.TRUNCATE, Rounding.TOWARD_ZERO])
def test_thresholds_that_never_rise_are_refused(rounding: Rounding, make_spikes: Callable[..., Spikes]) -> None:
    network = network_of(theta_plus_mv=0.1)
    model = prepare(network, plan_of(8, GLOBAL, rounding, others=4), ranges_of(network))
    message = rf"got '0\.1 mV on 4 bits rounded {rounding.value}'.*more bits for exc\.theta"
    with pytest.raises(LoweringError, match=message):
        fit(model, make_spikes(13, 40, 3), StdpTraining(n_passes=1))
    fixed = network_of(theta_plus_mv=0.0)
    fit(
        prepare(fixed, plan_of(8, GLOBAL, rounding, others=4), ranges_of(fixed)),
        make_spikes(13, 40, 3),
        StdpTraining(n_passes=1),
    )


def test_a_norm_that_vanishes_is_refused() -> None:
    network = network_of(norm=0.1)
    with pytest.raises(LoweringError, match=r"network\.exc\.stdp\.norm: vanishes.*at least 0\.25"):
        prepare(network, plan_of(2), ranges_of(network))
    assert prepare(network_of(norm=0.0), plan_of(2), ranges_of(network)).norm_code == 0


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((40, 3, 12), "spikes.n"),
        ((40, 3, 14), "spikes.n"),
        ((39, 3, 13), "spikes.offsets"),
        ((41, 3, 13), "spikes.offsets"),
        ((3, 40, 13), "spikes.offsets"),
    ],
)
def test_samples_of_another_shape_are_refused(shape: tuple[int, int, int], where: str) -> None:
    network = network_of()
    model = prepare(network, plan_of(), ranges_of(network))
    with pytest.raises(DataError) as caught:
        fit(model, from_dense(np.ones(shape)), StdpTraining(n_passes=1))
    assert caught.value.where == where
    with pytest.raises(DataError, match="hold no samples"):
        fit(model, from_dense(np.ones((40, 0, 13))), StdpTraining(n_passes=1))


def test_what_the_grid_cannot_do_is_refused() -> None:
    signed = network_of(v_min_mv=-1.0)
    with pytest.raises(LoweringError, match=r"exc\.v: learning on the grid needs unsigned potentials"):
        prepare(signed, plan_of(), ranges_of(signed))
    weak = network_of(strength=1.0)
    with pytest.raises(LoweringError, match=r"exc\.inhibition.*strength_mv >= "):
        prepare(weak, plan_of(4, PER_NEURON), ranges_of(weak))
    network = network_of()
    rules = tuple(QuantRule(tensor=p, bits=8) for p in tensor_paths(network))
    other = diehl_cook(12, 6, n_steps=40, n_classes=3)
    start = Trained(network=other, params={"exc.w": np.zeros((6, 12)), "exc.theta": np.zeros(6)})
    with pytest.raises(ConfigError, match=r"start\.network: is not of the network's size"):
        prepare(network, plan_of(), ranges_of(network), start=start)
    for seed in (-1, 1 << 32, 0.5, True):
        with pytest.raises(ConfigError, match=r"seed: is (no integer|out of range)"):
            prepare(network, plan_of(), ranges_of(network), seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"exc\.x_pre: no rule matches"):
        prepare(network, QuantPlan(rules=rules), ranges_of(network))


def test_a_plan_that_leaves_no_input_is_refused() -> None:
    network = network_of()
    with pytest.raises(LoweringError, match="leaves no input"):
        prepare(network, plan_of(rate=0.9), ranges_of(network))


def test_input_sums_that_could_overflow_are_refused() -> None:
    network = diehl_cook(70_000, 2, n_steps=2, n_classes=2, neuron=Lif(v_th_mv=1.0))
    ranges = Ranges(input_rate=np.ones(70_000), busiest_step=70_000, threshold_max_mv={"exc": 2.0})
    model = prepare(network, plan_of(16, GLOBAL, v=16), ranges)
    with pytest.raises(LoweringError, match=r"the input sum of one step may overflow.*fix: fewer bits for v"):
        fit(model, from_dense(np.ones((2, 1, 70_000), bool)), StdpTraining(n_passes=1))

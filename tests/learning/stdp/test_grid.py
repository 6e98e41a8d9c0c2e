"""Integer training against a plain integer implementation, code for code, and its Program against the reference."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from qspinn.errors import ConfigError, DataError, LoweringError
from qspinn.fixedpoint import QFormat, Rounding, random_words, requantize, stream_key
from qspinn.learning.stdp.grid import GridModel, fit, learning_rate_codes, prepare, to_program
from qspinn.learning.stdp.training import StdpTraining, sample_order
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Lif, Network, Stdp
from qspinn.networks.models import diehl_cook
from qspinn.program import CodeTensor
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.runtime import reference
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.spikes import Spikes, from_dense

GLOBAL, PER_NEURON = Granularity.GLOBAL, Granularity.PER_NEURON
STREAM = 16
VOTES = CodeTensor(codes=np.ones((6, 3), np.int32), fmt=QFormat(bits=1))


def network_of(
    bound: str = "soft",
    eta_pre: float = 0.0,
    *,
    strength: float = 1000.0,
    norm: float = 78.4,
    eta_post: float = 0.1,
    x_offset: float = 0.3,
    **neuron: float,
) -> Network:
    stdp = Stdp(
        eta_post=eta_post, eta_pre=eta_pre, bound=bound, x_offset=x_offset, tau_pre_ms=8.0, tau_post_ms=5.0, norm=norm
    )
    lif = Lif(**{"v_th_mv": 2.0, "theta_plus_mv": 0.1, **neuron})
    return diehl_cook(13, 6, n_steps=40, n_classes=3, neuron=lif, stdp=stdp, inhibition_mv=strength)


def plan_of(
    w: int = 4,
    granularity: Granularity = GLOBAL,
    rounding: Rounding = Rounding.NEAREST,
    *,
    v: int = 10,
    x: int = 6,
    others: int = 8,
    inhibition: int = 8,
    rate: float = 0.0,
) -> QuantPlan:
    rules = (
        QuantRule(tensor="exc.w", bits=w, rounding=rounding, granularity=granularity),
        QuantRule(tensor="exc.v", bits=v, rounding=rounding),
        QuantRule(tensor="*.x_*", bits=x, rounding=rounding),
        QuantRule(tensor="exc.inhibition", bits=inhibition, rounding=rounding),
        QuantRule(tensor="*", bits=others, rounding=rounding),
    )
    return QuantPlan(rules=rules, min_input_rate=rate)


def ranges_of(network: Network) -> Ranges:
    return Ranges(
        input_rate=np.linspace(0.0, 0.6, network.input.n),
        busiest_step=network.input.n,
        threshold_max_mv={"exc": network.population("exc").neuron.v_th_mv + 3.0},
    )


@dataclasses.dataclass
class Plain:
    """The integer model written down from the docstrings: one loop over steps, whole vectors, traces that decay."""

    model: GridModel
    w: np.ndarray
    theta: np.ndarray
    seen: int = 0

    def rounded(self, x: np.ndarray, shift: int, kind: str, stream: int, now: int, index: np.ndarray) -> np.ndarray:
        rounding = self.model.rules[f"exc.{kind}"].rounding
        key = stream_key(self.model.seed, STREAM + stream, now)
        return requantize(x, shift, rounding, key=key, index=np.broadcast_to(index, np.shape(x)))

    def level(self) -> np.ndarray:
        m = self.model
        if m.per_neuron:
            exact = (m.v_th + self.theta) * (self.w.sum(axis=1) >> m.pre_shift)
            level = exact >> m.post_shift if m.post_shift >= 0 else exact << -m.post_shift
        else:
            level = m.v_th + (self.theta << m.theta_shift)
        return np.clip(level, 1, m.v_fmt.code_max)  # silence never reaches a threshold

    def bound(self, c: np.ndarray, up: np.ndarray | bool) -> np.ndarray:
        rule, top = self.model.network.dense_into("exc").stdp.bound, self.model.c_max
        return {"soft": top - c, "hard": np.full_like(c, top), "two_sided": np.where(up, top - c, c)}[rule]

    def sample(self, raster: np.ndarray, rate: float, *, learn: bool = True) -> np.ndarray:
        """Spikes [T, N] of one sample [T, n_pre], learning as it goes."""
        m, stdp = self.model, self.model.network.dense_into("exc").stdp
        lif = m.network.population("exc").neuron
        n, n_pre = self.w.shape
        every, inputs = np.arange(n), np.arange(n_pre)
        fine = max(0, 8 - m.rules["exc.x_pre"].bits)
        top_pre, top_post = ((1 << m.rules[f"exc.{x}"].bits) - 1 for x in ("x_pre", "x_post"))
        e_post, e_pre, e_shift = learning_rate_codes(
            stdp.eta_post * rate / (top_pre << fine), stdp.eta_pre * rate / (top_post << fine)
        )
        offset = round(stdp.x_offset * top_pre * (1 << fine))
        theta_step = round(lif.theta_plus_mv * rate / m.theta_delta * 65536)
        theta_max = (1 << m.rules["exc.theta"].bits) - 1
        v, ref, level = np.zeros(n, int), np.zeros(n, int), self.level()
        x_pre, x_post, fired = np.zeros(n_pre, int), np.zeros(n, int), np.zeros(n, bool)
        out = np.zeros((len(raster), n), int)
        for t, spikes in enumerate(raster.astype(bool)):
            now = self.seen * len(raster) + t
            x_pre = self.rounded(x_pre * m.x_pre.m, m.x_pre.shift, "x_pre", 6, now, inputs)
            x_post = self.rounded(x_post * m.x_post.m, m.x_post.shift, "x_post", 7, now, every)
            x_pre[spikes] = top_pre
            v = self.rounded(v * m.decay, m.decay_shift, "v", 1, now, every)
            drive = self.rounded(self.w @ spikes, m.in_shift, "v", 2, now, every)
            active, ref = ref == 0, np.maximum(ref - 1, 0)
            v = np.where(active, np.minimum(v + drive, m.v_fmt.code_max), v)
            crossing = active & (v >= level)
            k = -1
            if crossing.any():
                words = random_words(stream_key(m.seed, STREAM, now), every).astype(np.int64)
                k = int(np.where(crossing, words, -1).argmax())
                v = np.maximum(v - m.inhibition[0], 0)
                v[k], ref[k], x_post[k], fired[k], out[t, k] = m.reset[0], lif.n_ref_steps, top_post, True, 1
                step = self.rounded(np.full(n, theta_step), 16, "theta", 5, now, every)[k]
                self.theta[k] = min(self.theta[k] + step, theta_max)
            if learn and e_pre > 0:
                for i, j in itertools.product(np.flatnonzero(spikes), np.flatnonzero(fired)):
                    change = -e_pre * (x_post[j] << fine) * self.bound(self.w[j, i], False)
                    change = self.rounded(np.array([change]), e_shift, "w", 4, now, np.array([i * n + j]))[0]
                    self.w[j, i] = np.clip(self.w[j, i] + change, 0, m.c_max)
            if k >= 0:
                if learn:
                    d = (x_pre << fine) - offset
                    change = self.rounded(e_post * d * self.bound(self.w[k], d > 0), e_shift, "w", 3, now, inputs)
                    self.w[k] = np.clip(self.w[k] + change, 0, m.c_max)
                level[k] = self.level()[k]
        last = self.seen * len(raster) + len(raster) - 1
        for k in np.flatnonzero(fired):
            total = self.w[k].sum()
            if learn and m.norm_code > 0 and total > 0:
                scaled = self.rounded(self.w[k] * ((m.norm_code << 12) // total), 12, "w", 4, last, n_pre * n + inputs)
                self.w[k] = np.minimum(scaled, m.c_max)
        self.seen += 1
        return out

    def fit(self, spikes: Spikes, training: StdpTraining, *, learn: bool = True) -> int:
        """Number of spikes of a whole training."""
        raster, count = spikes.dense()[:, :, self.model.kept], 0
        for number in range(training.n_passes):
            for s in sample_order(spikes.n_samples, self.model.seed, number):
                count += int(self.sample(raster[:, s], training.rate(number), learn=learn).sum())
        return count


def both(
    network: Network,
    plan: QuantPlan,
    spikes: Spikes,
    training: StdpTraining | None = None,
    *,
    seed: int = 3,
    learn: bool = True,
) -> tuple[GridModel, Plain, int]:
    """The compiled and the plain model after the same training, and how often neurons spiked."""
    training = training or StdpTraining(n_passes=2)
    model = prepare(network, plan, ranges_of(network), seed=seed)
    plain = Plain(
        model=prepare(network, plan, ranges_of(network), seed=seed), w=model.w.copy(), theta=model.theta.copy()
    )
    fit(model, spikes, training, learn_weights=learn)
    return model, plain, plain.fit(spikes, training, learn=learn)


def check_same(model: GridModel, plain: Plain) -> None:
    np.testing.assert_array_equal(model.w, plain.w)
    np.testing.assert_array_equal(model.theta, plain.theta)
    np.testing.assert_array_equal(model.sums, plain.w.sum(axis=1))
    np.testing.assert_array_equal(model.levels(), plain.level())


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

"""A plain integer implementation of STDP training on the grid, to compare kernels with, and small networks for it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from qspinn.fixedpoint import QFormat, Rounding, random_words, requantize, stream_key
from qspinn.learning.stdp.grid import GridModel, fit, learning_rate_codes, prepare
from qspinn.learning.stdp.training import StdpTraining, sample_order
from qspinn.networks.competing import Lif, Network, Stdp
from qspinn.networks.models import diehl_cook
from qspinn.program import CodeTensor
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.spikes import Spikes

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

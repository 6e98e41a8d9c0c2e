"""Rules of plasticity with values computed by hand: bounds, order of spikes, cuts of a run, thresholds at rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp import grid
from qspinn.learning.stdp import training as stdp
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lateral, Lif, Network, PoissonInput, Population, Stdp, VoteReadout
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.spikes import Spikes, from_dense

HALVING = 1 / math.log(2)  # ms: a trace that halves in every step of 1 ms
ONCE = StdpTraining(n_passes=1)
NEVER_FORGETS = 1e9


def network(n_in: int, n_steps: int, *, neuron: dict[str, Any] | None = None, n: int = 1, **rule: Any) -> Network:
    lif = Lif(**{"tau_ms": 0.05, "v_th_mv": 0.9, "n_ref_steps": 0, "theta_plus_mv": 0.0, **(neuron or {})})
    plastic = Stdp(
        **{
            "eta_post": 0.0,
            "eta_pre": 0.0,
            "x_offset": 0.0,
            "norm": 0.0,
            "bound": "hard",
            "tau_pre_ms": HALVING,
            "tau_post_ms": HALVING,
            **rule,
        }
    )
    return Network(
        name="n",
        input=PoissonInput(n=n_in),
        populations=(Population(name="exc", n=n, neuron=lif),),
        connections=(Dense(source="input", target="exc", stdp=plastic), Lateral(target="exc")),
        readout=VoteReadout(source="exc", n_classes=2),
        n_steps=n_steps,
    )


def spikes_of(*samples: list[list[int]], n_in: int, n_steps: int) -> Spikes:
    """Samples as lists: for each source the steps, from 1, in which it spikes."""
    raster = np.zeros((n_steps, len(samples), n_in))
    for b, sources in enumerate(samples):
        for i, steps in enumerate(sources):
            raster[[t - 1 for t in steps], b, i] = 1
    return from_dense(raster)


def in_floats(net: Network, w: list[float], spikes: Spikes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Weights after training from w, in float."""
    n = net.populations[0].n
    start = {"exc.w": np.tile(np.float32(w), (n, 1)), "exc.theta": np.zeros(n, np.float32)}
    monkeypatch.setattr(stdp, "init_params", lambda network, seed: {k: v.copy() for k, v in start.items()})
    return stdp.train(net, spikes, ONCE).params["exc.w"][0]


def model_of(net: Network, w: list[float], bits: int = 12, rounding: Rounding = Rounding.NEAREST) -> grid.GridModel:
    """The network on the grid, weights starting from w."""
    n = net.populations[0].n
    start = Trained(network=net, params={"exc.w": np.tile(w, (n, 1)), "exc.theta": np.zeros(n)})
    rules = (
        QuantRule(tensor="exc.w", bits=bits, rounding=rounding),
        QuantRule(tensor="exc.v", bits=12),
        QuantRule(tensor="*.x_*", bits=12),
        QuantRule(tensor="*", bits=16),
    )
    ranges = Ranges(
        input_rate=np.ones(net.input.n),
        busiest_step=net.input.n,
        threshold_max_mv={"exc": net.populations[0].neuron.v_th_mv + 1.0},
    )
    return grid.prepare(net, QuantPlan(rules=rules), ranges, start=start)


def on_the_grid(net: Network, w: list[float], spikes: Spikes, bits: int = 12) -> np.ndarray:
    """Weights after training from w, in integers, as real numbers."""
    model = model_of(net, w, bits)
    grid.fit(model, spikes, ONCE)
    return model.w[0] / 2.0**bits


def test_a_soft_bound_scales_every_step_by_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """w 0.2, rate 0.1, trace 1, ten spikes: 1 - 0.8 * 0.9**10 = 0.7211; a constant factor would have reached 1."""
    net = network(1, 10, bound="soft", eta_post=0.1, neuron={"v_th_mv": 0.01})
    spikes = spikes_of([list(range(1, 11))], n_in=1, n_steps=10)
    assert in_floats(net, [0.2], spikes, monkeypatch)[0] == pytest.approx(0.7211, abs=5e-5)
    assert on_the_grid(net, [0.2], spikes)[0] == pytest.approx(0.7211, abs=2e-3)
    model = model_of(net, [0.2], bits=8)
    grid.fit(model, spikes, ONCE)
    assert abs(int(model.w[0, 0]) - 184) <= 2  # each of ten steps is rounded


def test_no_weight_falls_below_zero_or_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.2 less eight depressions of 0.03 is -0.04: the weight ends at 0. On the grid 3 - 7 is 0, not 251."""
    driver = network(2, 9, eta_pre=0.03, tau_post_ms=NEVER_FORGETS)
    spikes = spikes_of([list(range(2, 10)), [1]], n_in=2, n_steps=9)
    assert in_floats(driver, [0.2, 1.0], spikes, monkeypatch)[0] == 0.0
    assert in_floats(driver, [0.25, 1.0], spikes, monkeypatch)[0] == pytest.approx(0.01, abs=1e-6)
    assert on_the_grid(driver, [0.2, 1.0], spikes)[0] == 0.0
    assert on_the_grid(driver, [0.25, 1.0], spikes)[0] == pytest.approx(0.01, abs=2e-3)
    strong = network(2, 2, eta_pre=0.5, tau_post_ms=NEVER_FORGETS)
    assert on_the_grid(strong, [3 / 16, 1.0], spikes_of([[2], [1]], n_in=2, n_steps=2), bits=4)[0] == 0.0


def test_weights_end_at_the_largest_code(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(1, 10, eta_post=0.3, neuron={"v_th_mv": 0.01})
    spikes = spikes_of([list(range(1, 11))], n_in=1, n_steps=10)
    assert in_floats(net, [0.2], spikes, monkeypatch)[0] == 1.0
    assert on_the_grid(net, [0.2], spikes, bits=4)[0] == 15 / 16


@pytest.mark.parametrize(("source", "driver", "right"), [([1], [3], 0.525), ([3], [1], 0.47)])
def test_each_trace_belongs_to_its_spike(
    source: list[int], driver: list[int], right: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """w 0.5, traces that halve, rates 0.1 up and 0.12 down: before the spike 0.5 + 0.1 / 4, after it 0.5 - 0.12 / 4."""
    net = network(2, 4, eta_post=0.1, eta_pre=0.12)
    spikes = spikes_of([source, driver], n_in=2, n_steps=4)
    assert in_floats(net, [0.5, 1.0], spikes, monkeypatch)[0] == pytest.approx(right, abs=1e-6)
    assert on_the_grid(net, [0.5, 1.0], spikes)[0] == pytest.approx(right, abs=1e-3)


@pytest.mark.parametrize("block", [1, 2, 500])
def test_learning_does_not_depend_on_blocks_and_traces_end_with_a_sample(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input at 1 and 4, spikes at 2 and 5: each adds 0.1 / 2, as a spike sets its trace to 1. A sample begins with
    traces of 0: what spiked at the end of one is no cause in the next."""
    net = network(2, 5, eta_post=0.1)
    one = spikes_of([[1, 4], [2, 5]], n_in=2, n_steps=5)
    for module in (stdp, grid):
        monkeypatch.setattr(module, "BLOCK", block)
    assert in_floats(net, [0.5, 1.0], one, monkeypatch)[0] == pytest.approx(0.6, abs=1e-6)
    assert on_the_grid(net, [0.5, 1.0], one)[0] == pytest.approx(0.6, abs=1e-3)
    cut = spikes_of([[5], []], [[], [1]], [[5], []], [[], [1]], n_in=2, n_steps=5)
    assert in_floats(net, [0.5, 1.0], cut, monkeypatch)[0] == 0.5
    assert on_the_grid(net, [0.5, 1.0], cut)[0] == 0.5
    model, parts = (
        model_of(net, [0.5, 1.0], rounding=Rounding.STOCHASTIC),
        model_of(net, [0.5, 1.0], rounding=Rounding.STOCHASTIC),
    )
    many = spikes_of(*[[[1, 4], [2, 5]]] * 6, n_in=2, n_steps=5)
    grid.fit(model, many, ONCE)
    monkeypatch.setattr(grid, "sample_order", lambda n, seed, number: np.arange(n))
    for b in range(6):
        grid.fit(parts, many.slice(b, b + 1), ONCE)
    np.testing.assert_array_equal(model.w, parts.w)


def test_nothing_is_learned_while_answering() -> None:
    """Counts repeat, forwards and backwards and for every size of a batch; weights and thresholds stay."""
    net = network(3, 20, n=4, neuron={"v_th_mv": 0.5, "tau_ms": 20.0, "theta_plus_mv": 0.5})
    rng = np.random.default_rng(1)
    trained = Trained(
        network=net,
        params={"exc.w": rng.random((4, 3), dtype=np.float32), "exc.theta": rng.random(4, dtype=np.float32)},
    )
    spikes = from_dense(rng.random((20, 65, 3)) < 0.4)
    before, whole = trained.key(), stdp.respond(trained, spikes)
    assert whole.sum() > 100
    np.testing.assert_array_equal(stdp.respond(trained, spikes), whole)
    for size in (1, 7, 64):
        parts = [stdp.respond(trained, part) for part in spikes.batches(size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    backwards = from_dense(spikes.dense()[:, ::-1])
    np.testing.assert_array_equal(stdp.respond(trained, backwards), whole[::-1])
    assert trained.key() == before


def test_of_two_above_their_threshold_one_spikes_and_its_threshold_alone_rises() -> None:
    net = network(1, 1, n=3, neuron={"v_th_mv": 0.01, "theta_plus_mv": 0.5})
    spikes = spikes_of([[1]], n_in=1, n_steps=1)
    theta = stdp.train(net, spikes, ONCE).params["exc.theta"]
    assert sorted(theta.tolist()) == [0.0, 0.0, 0.5]
    model = model_of(net, [0.9])
    grid.fit(model, spikes, ONCE, learn_weights=False)
    assert sorted(np.round(model.theta * model.theta_delta, 3).tolist()) == [0.0, 0.0, 0.5]

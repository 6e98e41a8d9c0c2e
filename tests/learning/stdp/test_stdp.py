"""The compiled float training against a plain NumPy one, written down from the docstrings."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from qspinn.errors import ConfigError, DataError
from qspinn.fixedpoint import random_words, stream_key
from qspinn.learning.stdp.training import (
    StdpTraining,
    init_params,
    mean_responses,
    plastic,
    respond,
    sample_order,
    train,
)
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Lif, Network, Stdp, decay_factor
from qspinn.networks.models import diehl_cook
from qspinn.spikes import Spikes, from_dense


def network_of(
    bound: str, eta_pre: float = 0.0, *, norm: float = 78.4, x_offset: float = 0.3, **neuron: float
) -> Network:
    stdp = Stdp(
        eta_post=0.05, eta_pre=eta_pre, bound=bound, norm=norm, x_offset=x_offset, tau_pre_ms=8.0, tau_post_ms=5.0
    )
    lif = Lif(**{"v_th_mv": 2.0, "theta_plus_mv": 0.125, **neuron})
    return diehl_cook(13, 6, n_steps=40, n_classes=3, neuron=lif, stdp=stdp)


def plain_train(network: Network, spikes: Spikes, training: StdpTraining, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(w [N, n_pre], number of spikes per neuron) after training, step by step with traces that decay."""
    population, dense, lateral, stdp = plastic(network)
    lif, raster = population.neuron, spikes.dense().astype(bool)
    w = init_params(network, seed)["exc.w"].astype(np.float64)
    theta, n_spikes = np.zeros(population.n), np.zeros(population.n, int)
    decay, pre, post = (decay_factor(tau, network.dt_ms) for tau in (lif.tau_ms, stdp.tau_pre_ms, stdp.tau_post_ms))

    def bound(x: np.ndarray, up: np.ndarray | bool) -> np.ndarray:
        if stdp.bound == "hard":
            return np.ones_like(x)
        return np.where((stdp.bound == "soft") | up, dense.w_max - x, x)

    clock = 0
    for number in range(training.n_passes):
        rate = training.rate(number)
        for s in sample_order(spikes.n_samples, seed, number):
            v, ref = np.zeros(population.n), np.zeros(population.n, int)
            x_pre, x_post, fired = np.zeros(network.input.n), np.zeros(population.n), np.zeros(population.n, bool)
            for t in range(spikes.n_steps):
                now, active = raster[t, s], ref == 0
                ref = np.maximum(ref - 1, 0)
                x_pre, x_post = np.where(now, 1.0, x_pre * pre), x_post * post
                v = v * decay + np.where(active, w @ now, 0.0)
                crossing = active & (v >= lif.v_th_mv + theta)
                k = -1
                if crossing.any():
                    words = random_words(stream_key(seed, 0, clock + t), np.arange(population.n)).astype(np.int64)
                    k = int(np.where(crossing, words, -1).argmax())
                    v = np.maximum(v - lateral.strength_mv, lif.v_min_mv)
                    v[k], ref[k], x_post[k], fired[k] = lif.v_reset_mv, lif.n_ref_steps, 1.0, True
                    theta[k] += lif.theta_plus_mv * rate
                    n_spikes[k] += 1
                if stdp.eta_pre > 0:
                    for j in np.flatnonzero(fired):
                        w[j, now] -= stdp.eta_pre * rate * x_post[j] * bound(w[j, now], False)
                        w[j] = np.maximum(w[j], 0)
                if k >= 0:
                    d = x_pre - stdp.x_offset
                    w[k] = np.clip(w[k] + stdp.eta_post * rate * d * bound(w[k], d > 0), 0, dense.w_max)
            for k in np.flatnonzero(fired):
                if stdp.norm > 0:
                    w[k] = np.minimum(w[k] * stdp.norm / w[k].sum(), dense.w_max)
            clock += spikes.n_steps
    return w, n_spikes


@pytest.mark.parametrize("bound", ["soft", "hard", "two_sided"])
@pytest.mark.parametrize("eta_pre", [0.0, 0.02])
@pytest.mark.parametrize("norm", [78.4, 0.0])
@pytest.mark.parametrize("x_offset", [0.3, 0.0])
def test_training_equals_a_plain_implementation(
    bound: str, eta_pre: float, norm: float, x_offset: float, make_spikes: Callable[..., Spikes]
) -> None:
    network, training = network_of(bound, eta_pre, norm=norm, x_offset=x_offset), StdpTraining(n_passes=2, anneal=False)
    spikes = make_spikes(13, 40, 9)
    got = train(network, spikes, training, seed=4)
    w, n_spikes = plain_train(network, spikes, training, 4)
    assert n_spikes.sum() > 50
    np.testing.assert_array_equal(np.rint(got.params["exc.theta"] / 0.125).astype(int), n_spikes)
    np.testing.assert_allclose(got.params["exc.w"], w, atol=2e-5)


@pytest.mark.parametrize(
    "neuron", [{"n_ref_steps": 0}, {"n_ref_steps": 4}, {"v_reset_mv": 0.5}, {"v_min_mv": -3.0, "v_reset_mv": -1.0}]
)
def test_training_honours_the_neuron(neuron: dict[str, float], make_spikes: Callable[..., Spikes]) -> None:
    network, training = network_of("soft", **neuron), StdpTraining(n_passes=1)
    spikes = make_spikes(13, 40, 5)
    w, n_spikes = plain_train(network, spikes, training, 1)
    got = train(network, spikes, training, seed=1)
    np.testing.assert_array_equal(np.rint(got.params["exc.theta"] / 0.125).astype(int), n_spikes)
    np.testing.assert_allclose(got.params["exc.w"], w, atol=2e-5)


def test_many_neurons_learn_in_stretches_of_steps(make_spikes: Callable[..., Spikes]) -> None:
    """Input sums are made for as many steps as fit into a buffer: here for a part of them."""
    network = diehl_cook(
        13,
        3000,
        n_steps=40,
        n_classes=3,
        neuron=Lif(v_th_mv=2.0, theta_plus_mv=0.125),
        stdp=Stdp(eta_post=0.05, x_offset=0.1),
    )
    spikes, training = make_spikes(13, 40, 3), StdpTraining(n_passes=1)
    w, n_spikes = plain_train(network, spikes, training, 1)
    got = train(network, spikes, training, seed=1)
    assert n_spikes.sum() > 20
    np.testing.assert_array_equal(np.rint(got.params["exc.theta"] / 0.125).astype(int), n_spikes)
    np.testing.assert_allclose(got.params["exc.w"], w, atol=2e-5)


def test_blocks_of_samples_change_nothing(make_spikes: Callable[..., Spikes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows follow columns by a log that is longer than a block, and shorter than a pass."""
    network, spikes, training = network_of("soft", 0.01), make_spikes(13, 40, 1200), StdpTraining(n_passes=1)
    monkeypatch.setattr("qspinn.learning.stdp.training.BLOCK", 5000)
    whole = train(network, spikes, training, seed=1)
    monkeypatch.setattr("qspinn.learning.stdp.training.BLOCK", 7)
    assert train(network, spikes, training, seed=1).key() == whole.key()


def test_annealing_divides_rates_by_the_pass(make_spikes: Callable[..., Spikes]) -> None:
    network, spikes = network_of("soft"), make_spikes(13, 40, 6)
    got = train(network, spikes, StdpTraining(n_passes=3), seed=2)
    w, _ = plain_train(network, spikes, StdpTraining(n_passes=3), 2)
    np.testing.assert_allclose(got.params["exc.w"], w, atol=2e-5)
    assert [StdpTraining().rate(p) for p in range(3)] == [1.0, 0.5, 1 / 3]
    assert StdpTraining(anneal=False).rate(7) == 1.0


def test_training_is_deterministic_by_seed(make_spikes: Callable[..., Spikes]) -> None:
    network, spikes = network_of("two_sided", 0.01), make_spikes(13, 40, 6)
    first, again, other = (train(network, spikes, StdpTraining(), seed=s) for s in (1, 1, 2))
    assert first.key() == again.key() != other.key()


def test_weights_stay_in_range_and_sum_to_the_norm(make_spikes: Callable[..., Spikes]) -> None:
    network = network_of("hard", 0.01)
    w = train(network, make_spikes(13, 40, 20), StdpTraining(n_passes=3), seed=0).params["exc.w"]
    norm = network.dense_into("exc").stdp.norm
    assert w.min() >= 0
    assert w.max() <= 1
    np.testing.assert_allclose(w.sum(axis=1), norm, rtol=1e-4)


def test_progress_and_no_passes(make_spikes: Callable[..., Spikes]) -> None:
    network, spikes, seen = network_of("soft"), make_spikes(13, 40, 4), []
    train(network, spikes, StdpTraining(n_passes=2), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 8), (8, 8)]
    fresh = train(network, spikes, StdpTraining(n_passes=0), seed=3)
    np.testing.assert_array_equal(fresh.params["exc.w"], init_params(network, 3)["exc.w"])


def test_responses_do_not_depend_on_threads_or_batch(
    make_spikes: Callable[..., Spikes], make_trained: Callable[..., Trained]
) -> None:
    trained, spikes = make_trained(network_of("soft")), make_spikes(13, 40, 7)
    whole = respond(trained, spikes, n_threads=1)
    assert whole.sum() > 20
    np.testing.assert_array_equal(respond(trained, spikes, n_threads=3), whole)
    for b in range(7):
        np.testing.assert_array_equal(respond(trained, spikes.slice(b, b + 1)), whole[b : b + 1])


def test_responses_learn_nothing(make_spikes: Callable[..., Spikes], make_trained: Callable[..., Trained]) -> None:
    trained = make_trained(network_of("soft"))
    before = trained.key()
    respond(trained, make_spikes(13, 40))
    assert trained.key() == before


def test_frozen_float_interval_is_closed_form() -> None:
    """Without competition from others a neuron under constant drive spikes every ceil(v_th / I) + n_ref steps."""
    network = diehl_cook(1, 1, n_steps=200, n_classes=2, neuron=Lif(tau_ms=1e9, v_th_mv=10.0, n_ref_steps=3))
    trained = Trained(
        network=network, params={"exc.w": np.full((1, 1), 0.75, np.float32), "exc.theta": np.zeros(1, np.float32)}
    )
    spikes = Spikes(offsets=np.arange(201)[None], index=np.zeros(200, np.uint16), n=1)
    expected = len(range(13, 200, 14 + 3))  # ceil(10 / 0.75) = 14
    assert respond(trained, spikes).tolist() == [[expected]]


def test_mean_responses() -> None:
    counts, labels = np.array([[1, 0], [3, 2], [5, 5]]), np.array([0, 0, 1])
    np.testing.assert_array_equal(mean_responses(counts, labels, 2), [[2, 5], [1, 5]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2], r"no sample of a class; got \[1\]"),
        ([0, 1, 3], "class out of range; got 3"),
        ([0, 1], "do not match the samples"),
        ([0, 1, -1], "class out of range; got -1"),
        ([0.0, 1.0, 2.0], "holds no integers"),
        ([[0, 1, 2]], "has the wrong shape"),
    ],
)
def test_bad_labels_are_named(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mean_responses(np.ones((3, 2)), np.array(labels), 3)


def test_networks_that_stdp_cannot_train_are_refused(tiny: Network, two_layers: Network) -> None:
    with pytest.raises(ConfigError, match="one population"):
        plastic(two_layers)
    alone = msgspec.structs.replace(tiny, connections=tiny.connections[:1])
    with pytest.raises(ConfigError, match="needs a plastic dense and a lateral connection"):
        plastic(alone)


@pytest.mark.parametrize(
    ("shape", "where", "message"),
    [
        ((40, 3, 12), "spikes.n", "got 12; allowed: 13"),
        ((40, 3, 60_000), "spikes.n", "got 60000; allowed: 13"),
        ((39, 3, 13), "spikes.offsets", "got 39; allowed: 40 steps"),
        ((41, 3, 13), "spikes.offsets", "got 41"),
        ((3, 40, 13), "spikes.offsets", "got 3; allowed: 40 steps"),
    ],
)
def test_samples_of_another_network_are_refused(
    shape: tuple[int, int, int], where: str, message: str, make_trained: Callable[..., Trained]
) -> None:
    network, spikes = network_of("soft"), from_dense(np.ones(shape))
    for call in (lambda: respond(make_trained(network), spikes), lambda: train(network, spikes, StdpTraining())):
        with pytest.raises(DataError, match=message) as caught:
            call()
        assert caught.value.where == where


def test_a_source_that_spikes_several_times_in_a_step_is_refused(make_trained: Callable[..., Trained]) -> None:
    raster = np.zeros((40, 1, 13), int)
    raster[3, 0, 5] = 2
    graded = from_dense(raster, graded=True)
    with pytest.raises(DataError, match=r"spikes\.count: a source spikes several times in a step.*got 2; allowed: 1"):
        respond(make_trained(network_of("soft")), graded)
    once = from_dense((raster > 0).astype(int), graded=True)
    assert respond(make_trained(network_of("soft")), once).shape == (1, 6)


def test_nothing_to_do(make_trained: Callable[..., Trained]) -> None:
    """No samples: training has nothing to learn from, an answer is an empty one."""
    none, trained = from_dense(np.zeros((40, 0, 13))), make_trained(network_of("soft"))
    assert respond(trained, none).shape == (0, 6)
    with pytest.raises(DataError, match="training data: hold no samples"):
        train(trained.network, none, StdpTraining())
    with pytest.raises(DataError, match="no sample of a class"):
        mean_responses(np.zeros((0, 6)), np.zeros(0, int), 3)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"exc.w": np.ones((6, 12))}, "exc.w"),
        ({"exc.w": np.full((6, 13), np.nan)}, "exc.w"),
        ({"exc.theta": np.ones(7)}, "exc.theta"),
        ({"exc.theta": np.array([0, 1, 2, 3, 4, np.inf])}, "exc.theta"),
        ({"exc.w": None}, "exc.w"),
        ({"readout.responses": np.ones((6, 4))}, "readout.responses"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_path(
    change: dict, where: str, make_trained: Callable[..., Trained], make_spikes: Callable[..., Spikes]
) -> None:
    trained = make_trained(network_of("soft"))
    params = {k: v for k, v in (trained.params | change).items() if v is not None}
    with pytest.raises(DataError) as caught:
        respond(Trained(network=trained.network, params=params), make_spikes(13, 40))
    assert caught.value.where.partition("[")[0] == where


def test_unknown_arrays_are_refused_where_they_enter(make_trained: Callable[..., Trained]) -> None:
    trained = make_trained(network_of("soft"))
    with pytest.raises(DataError, match=r"exc\.thetta: is no array of this network.*did you mean 'exc\.theta'"):
        trained.with_params(exc__thetta=np.zeros(6))
    with pytest.raises(DataError, match=r"exc\.w: is no NumPy array of real numbers; got 'list'"):
        trained.with_params(exc__w=[[1.0]])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"exc\.w: is no NumPy array"):
        trained.with_params(exc__w=np.array([["a"]]))
    with pytest.raises(ConfigError, match="network: is no network of competing populations; got 'dict'"):
        Trained(network={}, params={})  # type: ignore[arg-type]


@pytest.mark.parametrize("n_threads", [-1, 1.5, True, "2"])
def test_numbers_of_threads_are_whole(
    n_threads: object, make_trained: Callable[..., Trained], make_spikes: Callable[..., Spikes]
) -> None:
    with pytest.raises(ConfigError, match="n_threads"):
        respond(make_trained(network_of("soft")), make_spikes(13, 40), n_threads=n_threads)  # type: ignore[arg-type]

"""Unsupervised STDP training in float32, and the float network's responses: the baseline of every comparison."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn import arrays
from qspinn.errors import ConfigError, DataError
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lateral, Network, Population, Stdp, decay_factor
from qspinn.networks.parameters import Parameters
from qspinn.records.record import Record, need
from qspinn.spikes import Spikes

BLOCK = 500  # samples between two progress reports
BOUNDS = {"soft": 0, "hard": 1, "two_sided": 2}
Progress = Callable[[int, int], None]


class StdpTraining(Record, frozen=True):
    """Settings of training by STDP: passes over the data and their learning rates.

    Attributes:
        n_passes: times every sample is shown, in an order drawn anew for each pass.
        anneal: in pass p (from 0) learning rates and theta_plus are divided by 1 + p, so that late passes settle.
    """

    n_passes: int = 3
    anneal: bool = True

    def check(self) -> None:
        need(0 <= self.n_passes <= 1000, "training.n_passes", self.n_passes, "0..1000")

    def rate(self, number: int) -> float:
        """Factor on learning rates and theta_plus in a pass."""
        return 1.0 / (1 + number) if self.anneal else 1.0


def plastic(network: Network) -> tuple[Population, Dense, Lateral, Stdp]:
    """The one population that STDP trains, with its connections.

    Raises:
        ConfigError: the network is not a single plastic winner-take-all population on unsigned potentials.
    """
    arrays.need_kind("network", network, Network)
    if len(network.populations) != 1:
        raise ConfigError(
            "network.populations", "STDP trains networks of one population", got=[p.name for p in network.populations]
        )
    population = network.populations[0]
    dense, lateral = network.dense_into(population.name), network.lateral_of(population.name)
    if dense.stdp is None or lateral is None:
        raise ConfigError(
            f"network.{population.name}",
            "needs a plastic dense and a lateral connection",
            fix="give the dense connection an stdp record and add a lateral connection",
        )
    return population, dense, lateral, dense.stdp


def init_params(network: Network, seed: int) -> Parameters:
    """Weights uniform in [0, 0.3 * w_max], scaled to the declared sum; theta zero. Source: Diehl & Cook (2015)."""
    population, dense, _, stdp = plastic(network)
    arrays.integer("seed", seed, low=0, high=(1 << 32) - 1)
    rng = np.random.default_rng([seed, 1])
    w = rng.random((population.n, network.input.n)) * 0.3 * dense.w_max
    if stdp.norm > 0:
        w *= stdp.norm / w.sum(axis=1, keepdims=True)
    return {
        f"{population.name}.w": np.minimum(w, dense.w_max).astype(np.float32),
        f"{population.name}.theta": np.zeros(population.n, dtype=np.float32),
    }


def train(
    network: Network, spikes: Spikes, training: StdpTraining, *, seed: int = 0, progress: Progress | None = None
) -> Trained:
    """The network after STDP on the encoded samples; deterministic by seed.

    Args:
        spikes: encoded training samples.
        progress: called with (samples done, samples in all).

    Raises:
        ConfigError: the network is not one STDP trains, or the seed is no 32-bit number.
        DataError: there are no samples, they are not what the network takes, or weights became NaN or infinite.
    """
    arrays.need_kind("training", training, StdpTraining)
    population, _, _, _ = plastic(network)
    need_fit(network, spikes)
    if spikes.n_samples == 0:
        raise DataError("training data", "hold no samples")
    start = Trained(network=network, params=init_params(network, seed))
    rows, cols = _rows(start), start.params[f"{population.name}.w"].copy()
    theta = start.params[f"{population.name}.theta"].copy()
    n, total = spikes.n_samples, spikes.n_samples * training.n_passes
    for number in range(training.n_passes):
        order = sample_order(n, seed, number)
        for at in range(0, n, BLOCK):
            block = order[at : at + BLOCK]
            _learn(
                network, spikes, block, rows, cols, theta, seed=seed, first=number * n + at, rate=training.rate(number)
            )
            if progress:
                progress(number * n + at + len(block), total)
    if not np.isfinite(cols).all():
        raise DataError(f"{population.name}.w", "became NaN or infinite in training", fix="lower eta_post")
    return Trained(network=network, params={f"{population.name}.w": cols, f"{population.name}.theta": theta})


def sample_order(n: int, seed: int, number: int) -> NDArray[np.int64]:
    """The order of the samples in a pass."""
    return np.random.default_rng([seed, 2, number]).permutation(n)


def respond(trained: Trained, spikes: Spikes, *, n_threads: int = 0) -> NDArray[np.int64]:
    """Spike counts int64 [B, N] of the frozen float network.

    Args:
        n_threads: 0 for all cores; counts do not depend on it.

    Raises:
        ConfigError: the network is not one STDP trains.
        DataError: the samples are not what the network takes, or an array is missing, misshapen or not finite.
    """
    from qspinn.learning.stdp.kernels.floats import respond_float

    population, _, lateral, _ = plastic(trained.network)
    arrays.integer("n_threads", n_threads, low=0, high=1 << 16)
    need_fit(trained.network, spikes)
    trained.need_whole()
    neuron = population.neuron
    rows, theta = _rows(trained), np.ascontiguousarray(trained.params[f"{population.name}.theta"], dtype=np.float32)
    counts = np.zeros((spikes.n_samples, population.n), dtype=np.int32)
    n_threads = n_threads or os.cpu_count() or 1
    edges = np.linspace(0, spikes.n_samples, n_threads + 1).astype(int)

    f = np.float32

    def part(i: int) -> None:
        respond_float(
            spikes.offsets[edges[i] : edges[i + 1]],
            spikes.index,
            rows,
            theta,
            f(neuron.v_th_mv),
            f(neuron.v_reset_mv),
            f(neuron.v_min_mv),
            f(lateral.strength_mv),
            f(decay_factor(neuron.tau_ms, trained.network.dt_ms)),
            neuron.n_ref_steps,
            np.uint32(0),
            counts[edges[i] : edges[i + 1]],
        )

    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(part, range(n_threads)))
    return counts.astype(np.int64)


def need_fit(network: Network, spikes: Spikes) -> None:
    """Checks that encoded samples are what a network of competing populations takes, before compiled code reads them.

    Raises:
        DataError: no spikes, another number of sources or steps, or a source that spikes several times in a step.
    """
    if not isinstance(spikes, Spikes):
        raise DataError(
            "spikes",
            "are no spikes",
            got=type(spikes).__name__,
            allowed="qspinn.Spikes",
            fix="qspinn.spikes.from_dense makes them of an array [T, B, n]",
        )
    if spikes.n != network.input.n:
        raise DataError("spikes.n", "does not match the network's sources", got=spikes.n, allowed=str(network.input.n))
    if spikes.n_steps != network.n_steps:
        raise DataError(
            "spikes.offsets",
            "hold another number of steps than the network has",
            got=spikes.n_steps,
            allowed=f"{network.n_steps} steps",
            fix="encode the samples over network.n_steps steps",
        )
    if spikes.count is not None and int(spikes.count.max(initial=1)) > 1:
        raise DataError(
            "spikes.count",
            "a source spikes several times in a step: competing populations take one spike",
            got=int(spikes.count.max()),
            allowed="1",
        )


def mean_responses(counts: ArrayLike, labels: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Mean spike count per sample of every class, [N, n_classes], from counts [B, N] and labels [B].

    Raises:
        DataError: counts are no real numbers, labels are no classes, or a class has no sample; it is named.
    """
    arrays.integer("n_classes", n_classes, low=1, high=1 << 16)
    counts = arrays.reals("counts", counts, shape=(None, None))
    labels = arrays.integers("labels", labels, shape=(None,))
    if len(counts) != len(labels):
        raise DataError("labels", "do not match the samples", got=len(labels), allowed=str(len(counts)))
    if labels.size and not 0 <= labels.min() <= labels.max() < n_classes:
        raise DataError(
            "labels",
            "class out of range",
            got=int(labels.max() if labels.min() >= 0 else labels.min()),
            allowed=f"0..{n_classes - 1}",
        )
    per_class = np.bincount(labels, minlength=n_classes)
    if not per_class.all():
        raise DataError(
            "labels",
            "no sample of a class",
            got=np.flatnonzero(per_class == 0).tolist(),
            fix="use more training samples, or lower readout.n_classes",
        )
    return np.stack([counts[labels == c].mean(axis=0) for c in range(n_classes)], axis=1)


def _rows(trained: Trained) -> NDArray[np.float32]:
    """Weights as rows [n_pre, width], width filled up to whole vector registers with zeros."""
    population = trained.network.populations[0]
    w = trained.params[f"{population.name}.w"]
    from qspinn.compiled.competing import padded

    return padded(w.T, np.float32, 0)


def _learn(
    network: Network,
    spikes: Spikes,
    order: NDArray[np.int64],
    rows: NDArray[np.float32],
    cols: NDArray[np.float32],
    theta: NDArray[np.float32],
    *,
    seed: int,
    first: int,
    rate: float,
) -> None:
    """One call of the compiled training kernel with the declared constants."""
    from qspinn.learning.stdp.kernels.floats import train_float

    population, dense, lateral, stdp = plastic(network)
    neuron = population.neuron
    f = np.float32
    pre_decay, post_decay = (decay_factor(tau, network.dt_ms) for tau in (stdp.tau_pre_ms, stdp.tau_post_ms))
    train_float(
        spikes.offsets,
        spikes.index,
        order,
        rows,
        cols,
        theta,
        f(neuron.v_th_mv),
        f(neuron.v_reset_mv),
        f(neuron.v_min_mv),
        f(lateral.strength_mv),
        f(decay_factor(neuron.tau_ms, network.dt_ms)),
        neuron.n_ref_steps,
        f(neuron.theta_plus_mv * rate),
        np.uint32(seed),
        first,
        f(stdp.eta_post * rate),
        f(stdp.eta_pre * rate),
        f(stdp.x_offset),
        BOUNDS[stdp.bound],
        f(dense.w_max),
        f(pre_decay),
        f(post_decay),
        f(stdp.norm),
    )

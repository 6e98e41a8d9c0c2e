"""Shared settings and small networks of the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lif, Network, PoissonInput, Population, VoteReadout
from qspinn.networks.models import diehl_cook
from qspinn.quantization.ranges import Ranges
from qspinn.spikes import Spikes, from_dense

# Some test modules run themselves in a process that dies; it finds the modules that they share, as pytest does.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small sums: torch's threads only wait for busy cores
settings.register_profile("qspinn", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("qspinn")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked cuda where there is no such device."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


def _trained(network: Network, seed: int = 0) -> Trained:
    rng = np.random.default_rng([seed, 5])
    params = {}
    for p in network.populations:
        n_pre = network.size_of(network.dense_into(p.name).source)
        params[f"{p.name}.w"] = rng.random((p.n, n_pre), dtype=np.float32)
        params[f"{p.name}.theta"] = rng.random(p.n, dtype=np.float32) * 4
    n = network.population(network.readout.source).n
    params["readout.responses"] = rng.random((n, network.readout.n_classes))
    return Trained(network=network, params=params)


@pytest.fixture
def make_trained() -> Callable[..., Trained]:
    """(network, seed) -> random parameters of the right shapes: weights in 0..1, theta in 0..4 mV."""
    return _trained


@pytest.fixture
def make_ranges() -> Callable[[Network], Ranges]:
    """Ranges under which every input spikes in every tenth step."""

    def make(network: Network) -> Ranges:
        return Ranges(
            input_rate=np.full(network.input.n, 0.1),
            busiest_step=network.input.n,
            threshold_max_mv={p.name: p.neuron.v_th_mv + 4.0 for p in network.populations},
        )

    return make


@pytest.fixture
def tiny() -> Network:
    """12 inputs, 5 competing neurons, 30 steps."""
    return diehl_cook(12, 5, n_steps=30, n_classes=3, neuron=Lif(v_th_mv=6.0))


@pytest.fixture
def two_layers() -> Network:
    """Two populations in a row, the first with negative potentials; nothing lateral."""
    signed = Lif(v_th_mv=4.0, v_reset_mv=-2.0, v_min_mv=-6.0, n_ref_steps=1)
    return Network(
        name="two",
        input=PoissonInput(n=12),
        n_steps=20,
        readout=VoteReadout(source="b", n_classes=3),
        populations=(Population(name="a", n=8, neuron=signed), Population(name="b", n=4, neuron=Lif(v_th_mv=3.0))),
        connections=(Dense(source="input", target="a"), Dense(source="a", target="b")),
    )


@pytest.fixture
def make_spikes() -> Callable[..., Spikes]:
    """(n, n_steps, n_samples, density, seed) -> random spikes."""

    def make(n: int, n_steps: int = 30, n_samples: int = 6, density: float = 0.3, seed: int = 0) -> Spikes:
        return from_dense(np.random.default_rng([seed, 6]).random((n_steps, n_samples, n)) < density)

    return make

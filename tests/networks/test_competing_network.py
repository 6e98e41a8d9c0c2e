"""Declarations are checked when they are built."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from qspinn.errors import ConfigError
from qspinn.networks.competing import (
    Dense,
    Lateral,
    Lif,
    Network,
    PoissonInput,
    Population,
    Stdp,
    VoteReadout,
    decay_factor,
)
from qspinn.networks.models import diehl_cook, lif_for

A, B = Population(name="a", n=2), Population(name="b", n=3)
INTO_A, A_TO_B = Dense(source="input", target="a"), Dense(source="a", target="b")


def network(
    populations: tuple = (A, B), connections: tuple = (INTO_A, A_TO_B), readout: str = "b", **settings: float
) -> Network:
    return Network(
        name="x",
        input=PoissonInput(n=4),
        populations=populations,
        connections=connections,
        readout=VoteReadout(source=readout),
        **settings,
    )


def test_look_ups() -> None:
    net = network(connections=(INTO_A, A_TO_B, Lateral(target="b")))
    assert net.population("b") is B
    assert net.dense_into("b") is A_TO_B
    assert net.lateral_of("a") is None
    assert net.lateral_of("b") == Lateral(target="b")
    assert [net.size_of(n) for n in ("input", "a", "b")] == [4, 2, 3]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: network(populations=(A, A)), "names must differ"),
        (lambda: network(populations=(Population(name="input", n=1),)), "other than input"),
        (lambda: network(connections=(INTO_A,)), r"network\.b: needs exactly one dense connection"),
        (lambda: network(connections=(INTO_A, A_TO_B, Dense(source="input", target="b"))), "exactly one dense"),
        (lambda: network(populations=(B, A)), r"network\.b: .*allowed: input"),
        (lambda: network(connections=(INTO_A, Dense(source="b", target="b"))), "from an earlier population"),
        (lambda: network(connections=(INTO_A, A_TO_B, Lateral(target="c"))), "unknown target; got 'c'; allowed: a, b"),
        (
            lambda: network(connections=(INTO_A, A_TO_B, Lateral(target="a"), Lateral(target="a"))),
            "more than one lateral",
        ),
        (lambda: network(readout="c"), r"network\.readout\.source: unknown population; got 'c'"),
        (lambda: network(dt_ms=0.0), r"network\.dt_ms"),
        (lambda: network(n_steps=0), r"network\.n_steps"),
        (lambda: network(n_steps=40_000), r"1\.\.32768"),
        (lambda: PoissonInput(n=0), r"network\.input\.n"),
        (lambda: PoissonInput(n=1, rate_hz=0.0), r"rate_hz"),
        (lambda: PoissonInput(n=1, rate_hz=math.nan), r"rate_hz"),
        (lambda: Population(name="1a", n=1), "letters, digits and single _"),
        (lambda: Population(name="a", n=0), r"network\.a\.n"),
        (lambda: Population(name="a", n=70_000), r"1\.\.65536"),
        (lambda: Lif(tau_ms=0.0), "tau_ms"),
        (lambda: Lif(v_th_mv=0.0), r"v_th_mv.*allowed: > v_reset_mv"),
        (lambda: Lif(v_reset_mv=-1.0), "v_min_mv"),
        (lambda: Lif(v_min_mv=1.0), "v_min_mv"),
        (lambda: Lif(n_ref_steps=256), r"0\.\.255"),
        (lambda: Lif(n_ref_steps=-1), "n_ref_steps"),
        (lambda: Lif(theta_plus_mv=-0.1), "theta_plus_mv"),
        (lambda: Lif(v_th_mv=math.nan), "v_th_mv"),
        (lambda: Stdp(eta_post=-1.0), "eta_post"),
        (lambda: Stdp(tau_pre_ms=0.0), "tau_pre_ms"),
        (lambda: Stdp(norm=math.nan), "norm"),
        (lambda: Dense(source="a", target="b", w_max=0.0), r"connections\.b\.w_max"),
        (lambda: Lateral(target="a", strength_mv=-1.0), r"connections\.a\.strength_mv"),
        (lambda: VoteReadout(source="a", n_classes=1), "n_classes"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(
    "build",
    [
        lambda x: Lif(tau_ms=x),
        lambda x: Lif(v_th_mv=x),
        lambda x: Lif(theta_plus_mv=x),
        lambda x: Stdp(tau_post_ms=x),
        lambda x: Dense(source="input", target="a", w_max=x),
        lambda x: Lateral(target="a", strength_mv=x),
        lambda x: Lif(v_min_mv=-x),
        lambda x: network(dt_ms=x),
    ],
)
def test_constants_must_be_finite(build: Callable[[float], object], value: float) -> None:
    with pytest.raises(ConfigError):
        build(value)


def test_decay_factor() -> None:
    assert decay_factor(100.0, 1.0) == pytest.approx(0.990049833749168)
    assert decay_factor(10.0, 20.0) == pytest.approx(math.exp(-2))


def test_diehl_cook() -> None:
    net = diehl_cook(100, 50, n_classes=7)
    assert (net.input.n, net.population("exc").n, net.readout.n_classes) == (100, 50, 7)
    assert net.dense_into("exc").stdp == Stdp(norm=10.0)
    assert net.population("exc").neuron == lif_for(50)
    assert lif_for(400).theta_plus_mv == 0.05
    assert diehl_cook(neuron=Lif(v_th_mv=5.0)).population("exc").neuron.v_th_mv == 5.0

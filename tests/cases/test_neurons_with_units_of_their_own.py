"""Competing populations whose neurons have units of their own: a dead neuron harms no other; what learns is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.learning.stdp.grid import fit, prepare, to_program
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Dense, Lateral, Lif, Network, PoissonInput, Population, Stdp, VoteReadout
from qspinn.program import CodeTensor
from qspinn.quantization.competing import lower
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges
from qspinn.runtime import reference
from qspinn.spikes import from_dense

GLOBAL, PER_NEURON = Granularity.GLOBAL, Granularity.PER_NEURON
N, INPUTS, STEPS = 4, 8, 30
ONE = StdpTraining(n_passes=1)
SPIKES = from_dense(np.random.default_rng(5).random((STEPS, 6, INPUTS)) < 0.4)
VOTES = CodeTensor(codes=np.ones((N, 2), np.int32), fmt=QFormat(bits=1))


def network(unit: float = 1.0, **stdp: float) -> Network:
    """The same network in volts, millivolts, ...: `unit` millivolts are what is 1 mV in another."""
    rule = Stdp(**({"norm": 1.6 * unit} | stdp))
    return Network(
        name="n",
        input=PoissonInput(n=INPUTS, rate_hz=300.0),
        populations=(Population(name="exc", n=N, neuron=Lif(v_th_mv=3.0 * unit, theta_plus_mv=0.05 * unit)),),
        connections=(
            Dense(source="input", target="exc", w_max=unit, stdp=rule),
            Lateral(target="exc", strength_mv=1000.0 * unit),
        ),
        readout=VoteReadout(source="exc", n_classes=2),
        n_steps=STEPS,
    )


def plan(granularity: Granularity = PER_NEURON, *, learns: bool = True, **w: Any) -> QuantPlan:
    rounding = Rounding.STOCHASTIC if learns else Rounding.NEAREST
    rules = (
        QuantRule(tensor="exc.w", bits=w.pop("bits", 8), granularity=granularity, rounding=rounding, **w),
        QuantRule(tensor="*", bits=10, rounding=rounding),
    )
    return QuantPlan(rules=rules, fold_theta=not learns)


def trained(w: np.ndarray, unit: float = 1.0) -> Trained:
    return Trained(
        network=network(unit),
        params={
            "exc.w": (w * unit).astype(np.float32),
            "exc.theta": np.zeros(N, np.float32),
            "readout.responses": np.ones((N, 2)),
        },
    )


def ranges(unit: float = 1.0) -> Ranges:
    return Ranges(input_rate=np.full(INPUTS, 0.4), busiest_step=INPUTS, threshold_max_mv={"exc": 5.0 * unit})


WEIGHTS = np.random.default_rng(1).uniform(0.05, 0.9, (N, INPUTS))


def test_a_nearly_dead_neuron_leaves_the_thresholds_of_the_others() -> None:
    faint = WEIGHTS.copy()
    faint[0] = 0.0
    faint[0, 3] = 1e-5
    whole, harmed = (lower(trained(w), plan(learns=False), ranges()) for w in (WEIGHTS, faint))
    others = [1, 2, 3]
    assert harmed.codes("exc.v_th")[others].tolist() == whole.codes("exc.v_th")[others].tolist()
    assert harmed.codes("exc.w")[others].tolist() == whole.codes("exc.w")[others].tolist()
    counts = [reference.run(program, SPIKES).counts["exc"] for program in (whole, harmed)]
    assert counts[0].any()
    assert not counts[1][:, 0].any()
    assert harmed.notes == ()


def test_a_neuron_without_weights_does_not_depend_on_the_unit_of_voltage() -> None:
    dead = WEIGHTS.copy()
    dead[1] = 0.0
    here, there = (lower(trained(dead, unit), plan(learns=False), ranges(unit)) for unit in (1.0, 1024.0))
    for path in here.tensors:
        assert here.codes(path).tolist() == there.codes(path).tolist(), path


def test_a_norm_of_zero_is_refused_for_units_per_neuron() -> None:
    with pytest.raises(ConfigError, match=r"network\.exc\.stdp\.norm: .*granularity = 'global'"):
        prepare(network(norm=0.0), plan(), ranges())
    assert prepare(network(norm=0.0), plan(GLOBAL), ranges()).norm_code == 0


def test_a_clip_that_learning_would_not_look_at_is_refused() -> None:
    start = trained(WEIGHTS)
    for granularity, of in ((GLOBAL, None), (GLOBAL, start), (PER_NEURON, None)):
        with pytest.raises(ConfigError, match=r"plan: exc\.w: clip"):
            prepare(network(), plan(granularity, clip=0.3), ranges(), start=of)
    cut = [prepare(network(), plan(clip=clip), ranges(), start=start).w for clip in (1.0, 0.3)]
    assert not np.array_equal(*cut)


def test_an_interrupted_training_keeps_the_weights_of_its_sums() -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    model, whole = (prepare(network(), plan(bits=4), ranges()) for _ in range(2))
    fit(whole, SPIKES, ONE)
    with pytest.raises(KeyboardInterrupt):
        fit(model, SPIKES, ONE, progress=stop)
    assert np.array_equal(model.sums, model.w.sum(axis=1))
    assert np.array_equal(model.w, whole.w)


def test_a_neuron_that_lost_all_weights_is_silent_and_noted() -> None:
    model = prepare(network(), plan(bits=4), ranges())
    model.w[1], model.sums[1] = 0, 0
    fit(model, SPIKES, ONE)
    assert model.sums[1] == 0
    assert model.levels()[1] == 1
    program = to_program(model, VOTES)
    assert not reference.run(program, SPIKES).counts["exc"][:, 1].any()
    (note,) = program.notes
    assert (note.path, note.count, note.total) == ("exc.w", INPUTS, N * INPUTS)

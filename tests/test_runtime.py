"""The engines against the contract, and the contract against broken engines."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given

from qspinn.errors import ConfigError, DataError
from qspinn.program import LifOp
from qspinn.runtime import _bits_kernel, _kernels, numba_engine, reference, run
from qspinn.spikes import from_dense
from qspinn.testing import BackendContract, BrokenBackend, Fault, adversarial, build, observed, random_case, recipes
from qspinn.testing.contract import check_equal
from qspinn.testing.programs import Recipe, constant, single

FAULTS = [f for f in Fault if f is not Fault.NONE]


class TestNumba(BackendContract):
    backend = staticmethod(numba_engine.run)


class TestReference(BackendContract):
    """Holds the reference against physics and itself."""

    backend = staticmethod(reference.run)
    n_random = 2


class Small(BackendContract):
    n_random = 80


def failures(fault: Fault) -> list[str]:
    """The contract's tests that a broken backend fails."""
    contract = type("Contract", (Small,), {"backend": staticmethod(BrokenBackend(fault).run)})()
    failed = []
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)()
            except AssertionError:
                failed.append(name)
    return failed


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name.lower())
def test_contract_catches_a_broken_backend(fault: Fault) -> None:
    assert {"test_adversarial_vectors", "test_random_programs"} <= set(failures(fault))


def test_contract_passes_a_slow_but_right_backend() -> None:
    assert failures(Fault.NONE) == []


@given(recipes())
def test_numba_equals_reference(recipe: Recipe) -> None:
    case = build(recipe)
    check_equal(numba_engine.run(case.program, case.spikes, record=True),
                reference.run(case.program, case.spikes, record=True), case.name)


def test_random_programs_are_lively_and_use_every_kernel() -> None:
    cases = [random_case(seed) for seed in range(80)]
    alive = [all(c.any() for c in reference.run(c.program, c.spikes).counts.values()) for c in cases]
    assert np.mean(alive) > 0.6
    assert {len(c.program.ops_of(LifOp)) for c in cases} == {1, 2, 3}
    everything = frozenset().union(*(observed(c.program, c.spikes) for c in cases))
    assert {"equal", "upper", "lower", "tie", "negative_tie", "negative_remainder", "crowd", "joint",
            "refractory_drive", "unreachable", "zero_threshold"} <= everything
    for case in [*cases, *adversarial()]:
        numba_engine.run(case.program, case.spikes)
    assert len(_kernels.narrow.signatures) >= 7, "row, sum and potential types of 16 and 32 bits"
    assert _kernels.wide.signatures
    assert _bits_kernel.one_bit.signatures


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_threads_change_nothing(n_threads: int) -> None:
    case = random_case(6)
    check_equal(numba_engine.run(case.program, case.spikes, record=True, n_threads=n_threads),
                reference.run(case.program, case.spikes, record=True), "threads")


def test_states_start_fresh_for_every_sample() -> None:
    program = single([[5]], v_th=12, n_ref=3)
    for engine in (reference.run, numba_engine.run):
        result = engine(program, constant(1, n_samples=3), record=True)
        assert (result.spikes["p0"] == result.spikes["p0"][:, :1]).all()


def test_a_spike_reaches_the_next_population_in_the_same_step() -> None:
    case = build(Recipe(layers=Recipe().layers * 2))
    tensors = dict(case.program.tensors)
    for name in ("p0", "p1"):
        tensors[f"{name}.w"] = msgspec.structs.replace(tensors[f"{name}.w"],
                                                       codes=np.ones_like(tensors[f"{name}.w"].codes))
        tensors[f"{name}.v_th"] = msgspec.structs.replace(tensors[f"{name}.v_th"], codes=np.zeros(1, np.int32))
    program = msgspec.structs.replace(case.program, tensors=tensors)
    for engine in (reference.run, numba_engine.run):
        spikes = engine(program, from_dense(np.ones((1, 1, program.n_inputs))), record=True).spikes
        assert spikes["p0"][0].any()
        assert spikes["p1"][0].any()


def test_predictions_take_the_lowest_class_of_a_tie() -> None:
    program = single([[9], [9]], v_th=5, winner=False)
    result = run(program, constant(1, n_samples=1))
    assert result.scores[0, 0] == result.scores[0, 1] > 0
    assert result.predictions().tolist() == [0]


def test_wrong_input_width_and_backend_are_named() -> None:
    program = single([[1, 2]])
    with pytest.raises(DataError, match=r"spikes\.n: .*got 3; allowed: 2"):
        run(program, constant(3))
    with pytest.raises(ConfigError, match="numba, reference"):
        run(program, constant(2), backend="cuda")

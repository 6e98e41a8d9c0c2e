"""The contract of every backend, as a class of tests to inherit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qspinn.program import Program
from qspinn.runtime import reference
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes, from_dense
from qspinn.testing.layered import random_layered
from qspinn.testing.neurons import adversarial_neurons
from qspinn.testing.programs import Case, adversarial, constant, observed, random_case, single
from qspinn.testing.vectors import adversarial_layered


def check_equal(got: Result, expected: Result, where: str) -> None:
    """Compares everything a backend returns, entry by entry.

    Raises:
        AssertionError: names the case, the array, the first entry that differs, and both values.
    """
    for field in ("spikes", "counts", "v", "ref", "current", "theta"):
        mine, theirs = getattr(got, field), getattr(expected, field)
        if mine.keys() != theirs.keys():
            raise AssertionError(f"{where}: {field} of {sorted(mine)}, expected {sorted(theirs)}")
        for name in theirs:
            _same_array(mine[name], theirs[name], f"{where}: {field}[{name!r}]")
    _same_array(got.scores, expected.scores, f"{where}: scores")


def _same_array(got: NDArray, expected: NDArray, where: str) -> None:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise AssertionError(f"{where}: {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}")
    if not np.array_equal(got, expected):
        at = tuple(int(i) for i in np.argwhere(got != expected)[0])
        raise AssertionError(f"{where}: at {at} got {got[at]}, expected {expected[at]}")


class BackendContract:
    """Contract of backends as tests. A subclass gives ``backend``; pytest runs the tests it inherits::

        class TestMine(BackendContract):
            backend = staticmethod(my_engine.run)

    Attributes:
        backend: ``run(program, spikes, *, record) -> Result``.
        n_random: how many random programs are tried.
        signed_weights: whether random programs may have negative weights.
        layered: whether layered programs (convolutions, feedback, ...) are tried as well.
    """

    backend: ClassVar[Callable[..., Result]]
    n_random: ClassVar[int] = 150
    signed_weights: ClassVar[bool] = True
    layered: ClassVar[bool] = True

    def _hold(self, case: Case) -> None:
        expected = reference.run(case.program, case.spikes, record=True)
        check_equal(self.backend(case.program, case.spikes, record=True), expected, case.name)

    def test_adversarial_vectors(self) -> None:
        for case in adversarial():
            missing = case.hits - observed(case.program, case.spikes)
            if missing:
                raise AssertionError(f"{case.name}: does not hit {sorted(missing)}")
            self._hold(case)

    def test_random_programs(self) -> None:
        for seed in range(self.n_random):
            self._hold(random_case(seed, signed_weights=self.signed_weights))

    def _some(self, n: int) -> list[Case]:
        """The first random programs of both kinds."""
        competing = [random_case(seed, signed_weights=self.signed_weights) for seed in range(n)]
        return competing + [random_layered(seed) for seed in range(n if self.layered else 0)]

    def test_adversarial_layered_vectors(self) -> None:
        for case in itertools.chain(adversarial_layered(), adversarial_neurons()) if self.layered else ():
            self._hold(case)

    def test_random_layered_programs(self) -> None:
        for seed in range(self.n_random if self.layered else 0):
            self._hold(random_layered(seed))

    def test_without_recording(self) -> None:
        for case in self._some(12):
            got = self.backend(case.program, case.spikes, record=False)
            check_equal(got, reference.run(case.program, case.spikes), f"not recording, {case.name}")

    def test_batch_split_changes_nothing(self) -> None:
        for case in self._some(8):
            whole = self.backend(case.program, case.spikes, record=True)
            for b in range(case.spikes.n_samples):
                one = self.backend(case.program, case.spikes.slice(b, b + 1), record=True)
                check_equal(one, _sample(whole, b), f"sample {b} alone, {case.name}")

    def test_rerun_is_identical(self) -> None:
        case = random_case(3, signed_weights=self.signed_weights)
        first = self.backend(case.program, case.spikes, record=True)
        check_equal(self.backend(case.program, case.spikes, record=True), first, "second run")

    def test_no_samples(self) -> None:
        for case in self._some(12):
            program = case.program
            self._hold(
                Case(
                    name=f"no samples, {case.name}",
                    program=program,
                    spikes=from_dense(np.zeros((program.n_steps, 0, program.n_inputs))),
                )
            )

    def test_interspike_interval(self) -> None:
        """Without leak and under constant drive I the intervals are ceil(v_th / I) + n_ref steps exactly."""
        for drive in (1, 3, 7, 50):
            for n_ref in (0, 2):
                rise = -(-100 // drive)
                expected = np.arange(rise - 1, 300, rise + n_ref)
                program = single([[drive]], v_th=100, n_ref=n_ref, n_steps=300)
                got = _spike_times(self.backend, program, constant(1, 300))
                if not np.array_equal(got, expected):
                    raise AssertionError(f"drive {drive}, n_ref {n_ref}: spikes at {got}, expected {expected}")

    def test_refractory_limit(self) -> None:
        """However strong the drive, spikes are n_ref + 1 steps apart and no closer."""
        for n_ref in range(6):
            got = _spike_times(self.backend, single([[255]], v_th=1, n_ref=n_ref, n_steps=60), constant(1, 60))
            if not np.array_equal(got, np.arange(0, 60, n_ref + 1)):
                raise AssertionError(f"n_ref {n_ref}: spikes at {got}")


def _sample(result: Result, b: int) -> Result:
    """Sample b of a result, as a batch of one."""
    counts, v, ref, current, theta = (
        {n: x[b : b + 1] for n, x in part.items()}
        for part in (result.counts, result.v, result.ref, result.current, result.theta)
    )
    return Result(
        counts=counts,
        scores=result.scores[b : b + 1],
        v=v,
        ref=ref,
        current=current,
        theta=theta,
        spikes={n: x[:, b : b + 1] for n, x in result.spikes.items()},
    )


def _spike_times(backend: Callable[..., Result], program: Program, spikes: Spikes) -> NDArray[np.int64]:
    """The steps at which the only neuron of the first sample spikes."""
    return np.flatnonzero(backend(program, spikes, record=True).spikes["p0"][:, 0, 0])

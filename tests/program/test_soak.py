"""Changed program files: refused by name or alike in every engine; and that a trial counts what goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import time

import msgspec
import numpy as np
import pytest

from qspinn.errors import ArtifactError
from qspinn.program import Program, from_bytes, to_bytes
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.testing import random_case, soak
from qspinn.testing.layered import random_layered
from qspinn.testing.mutants import mutant, parts_of, signed
from qspinn.testing.soak import Outcome, Verdict, counted, judged

SEED, TOTAL = 20, 300


@pytest.mark.slow
def test_changed_files_are_refused_or_run_alike() -> None:
    verdicts = [judged(SEED, number) for number in range(TOTAL)]
    assert [v for v in verdicts if v.outcome.fault] == []
    counts = counted(verdicts)
    assert counts["refused"] >= TOTAL // 3
    assert counts["equal in all engines"] >= TOTAL // 10


def test_a_mutant_is_a_function_of_its_seed_and_number() -> None:
    assert mutant(3, 17) == mutant(3, 17)
    made = [mutant(seed, number).data for seed, number in ((3, 17), (3, 18), (4, 17))]
    assert len(set(made)) == 3


@pytest.mark.parametrize("program", [random_case(2).program, random_layered(2).program], ids=["competing", "layered"])
def test_what_is_not_changed_is_signed_as_it_was(program: Program) -> None:
    parts = parts_of(program)
    assert to_bytes(from_bytes(signed(parts.header, parts.streams))) == to_bytes(program)


@pytest.mark.parametrize("tag", [{}, [], [1], {"lif": 1}, None, 3, True, 0.5])
def test_an_operation_whose_kind_is_no_word_is_refused(tag: object) -> None:
    """Tables and lists have no hash, so that looking them up must not be tried."""
    parts = parts_of(random_layered(1).program)
    parts.header["ops"][1]["type"] = tag
    with pytest.raises(ArtifactError, match=r"ops\[1\]\.type: names no kind of record"):
        from_bytes(signed(parts.header, parts.streams))


def test_an_engine_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = numba_engine.run

    def wrong(*arguments: object, **settings: object) -> object:
        result = run(*arguments, **settings)
        return msgspec.structs.replace(result, scores=result.scores + 1)

    monkeypatch.setattr(numba_engine, "run", wrong)
    outcomes = {judged(SEED, number).outcome for number in range(20)}
    assert outcomes == {Outcome.REFUSED, Outcome.DIFFERENT}


def test_exceptions_of_other_kinds_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, outcome in ((KeyError("p0"), Outcome.FOREIGN), (MemoryError(), Outcome.MEMORY)):

        def fails(*arguments: object, _error: Exception = error, **settings: object) -> Program:
            raise _error

        monkeypatch.setattr(soak, "from_bytes", fails)
        verdict = judged(SEED, 0)
        assert verdict.outcome is outcome
        assert type(error).__name__ in verdict.detail


def judge(seed: int, number: int) -> Verdict:
    """Kills its process at 3, never ends at 5, takes too much memory at 7."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        time.sleep(600)
    if number == 7:
        try:
            np.ones(soak.HEADROOM // 8 + (1 << 27))
        except MemoryError:
            return Verdict(number, Outcome.MEMORY)
    return Verdict(number, Outcome.EQUAL)


def bounded() -> None:
    soak.limit_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of address space are Linux's")
@pytest.mark.slow
def test_a_trial_outlives_crashes_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "STUCK_S", 2.0)
    verdicts = sorted(soak.soak(0, mutations=12, n_workers=1, judge=judge, prepare=bounded))
    assert [v.number for v in verdicts] == list(range(12))
    assert {v.number: v.outcome for v in verdicts if v.outcome.fault} == {
        3: Outcome.CRASH,
        5: Outcome.HANG,
        7: Outcome.MEMORY,
    }
    assert f"exit code {-signal.SIGSEGV}" in verdicts[3].detail


def test_a_trial_ends_in_time() -> None:
    started = time.monotonic()
    verdicts = list(soak.soak(0, seconds=0.01, n_workers=1, judge=judge, prepare=bounded))
    assert verdicts == []
    assert time.monotonic() - started < 30

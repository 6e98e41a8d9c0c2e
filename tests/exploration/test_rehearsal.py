"""Kernels that are compiled ahead: one piece for each, none a second time, and nothing that changes a run."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qspinn.exploration import tasks as ev
from qspinn.exploration.competing import measurement as at_work
from qspinn.exploration.competing import rehearsal
from qspinn.exploration.journal import Journal
from qspinn.exploration.tasks import open_worker
from qspinn.exploration.workers import Event, Precompilation, Workers
from qspinn.workflow.experiments import load_experiment

SMALL = ("data.n_train=120", "data.n_validation=60", "data.n_test=60", "network.n_neurons=12", "network.n_steps=20")


@pytest.fixture
def measurement(tmp_path: Path) -> Any:
    experiment: Any = load_experiment("digits_stdp", SMALL)
    dataset = at_work.load(experiment)
    return open_worker(tmp_path, experiment, dataset.labels, at_work.store(tmp_path, experiment, dataset)).measurement


def test_a_piece_for_every_kernel_that_the_run_takes(measurement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "is_missing", lambda kernel: True)
    pieces = dict(rehearsal.rehearsals(measurement))
    assert {key.split()[0] for key in pieces} >= {"learning", "responses", "narrow", "in_bytes", "one_bit"}
    assert len(pieces) < 15
    run: list[Any] = []
    monkeypatch.setattr(at_work, "build", lambda measurement, candidate: run.append(candidate.label))
    monkeypatch.setattr(rehearsal, "respond", lambda *arguments, **words: run.append("responses"))
    for piece in pieces.values():
        rehearsal.rehearse(measurement, msgspec.json.decode(msgspec.json.encode(piece)))
    assert len(run) == len(pieces)


def test_nothing_is_rehearsed_where_kernels_are_kept(measurement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "is_missing", lambda kernel: False)
    assert list(rehearsal.rehearsals(measurement)) == []


def test_pieces_follow_the_first_tasks_and_leave_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def work(kind: str, key: str, argument: bytes, inputs: bytes) -> dict[str, Any]:
        order.append(key)
        if key == "bad":
            raise ZeroDivisionError
        return {"kind": kind, "key": key} if kind != "rehearsal" else {}

    monkeypatch.setattr(ev, "work", work)
    told: list[Event] = []
    with Journal(tmp_path / "journal") as journal, concurrent.futures.ThreadPoolExecutor(1) as pool:
        precompilation = Precompilation(lambda: [("good", b"1"), ("bad", b"2")])
        workers = Workers(
            journal=journal, pool=pool, inputs=b"", report=told.append, max_running=1, precompilation=precompilation
        )
        workers.run("float training", "float", [("first", b"0")])
        workers.run("significance", "sensitivity", [("second", b"0"), ("third", b"0")])
        assert order == ["first", "good", "bad", "second", "third"]
        assert [r["key"] for r in journal.records] == ["first", "second", "third"]
    compiled = [(e.done, e.total) for e in told if e.stage == Precompilation.STAGE]
    assert compiled == [(0, 2), (1, 2), (2, 2)]

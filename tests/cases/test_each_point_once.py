"""Parallel workers evaluate every point of a search once; a point whose worker died is taken up again, once."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qspinn.errors import ConfigError, RunError
from qspinn.exploration import tasks as ev
from qspinn.exploration.journal import Journal
from qspinn.exploration.workers import Workers

TASKS = [(f"bits-{n}", str(n).encode()) for n in (2, 4, 8)]


def run(path: Path, n_workers: int = 3, tasks: Any = TASKS) -> dict[str, dict[str, Any]]:
    with Journal(path) as journal, concurrent.futures.ThreadPoolExecutor(n_workers) as pool:
        workers = Workers(journal=journal, pool=pool, inputs=b"", report=lambda event: None, max_running=2 * n_workers)
        return workers.run("candidates", "candidate", tasks)


@pytest.mark.parametrize("n_workers", [1, 3, 8])
def test_three_points_and_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_workers: int) -> None:
    calls: Counter[str] = Counter()
    together = threading.Barrier(3, timeout=20)

    def work(kind: str, key: str, argument: bytes, inputs: bytes) -> dict[str, Any]:
        calls[key] += 1
        if n_workers >= 3:
            together.wait()  # all three at the same time
        return {"kind": kind, "key": key, "bits": int(argument)}

    monkeypatch.setattr(ev, "work", work)
    assert {r["bits"] for r in run(tmp_path / "journal", n_workers, [*TASKS, *TASKS]).values()} == {2, 4, 8}
    assert calls == {key: 1 for key, _ in TASKS}
    assert len(run(tmp_path / "journal", n_workers)) == 3
    assert calls == {key: 1 for key, _ in TASKS}


def test_a_point_whose_worker_died_is_taken_up_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def work(kind: str, key: str, argument: bytes, inputs: bytes) -> dict[str, Any]:
        calls[key] += 1
        if key == "bits-8" and calls[key] == 1:
            raise concurrent.futures.BrokenExecutor("killed")
        return {"kind": kind, "key": key, "bits": int(argument)}

    monkeypatch.setattr(ev, "work", work)
    with pytest.raises(RunError, match="a worker process died"):
        run(tmp_path / "journal", 1)
    assert calls == {"bits-2": 1, "bits-4": 1, "bits-8": 1}
    assert set(run(tmp_path / "journal", 1)) == {key for key, _ in TASKS}
    assert calls == {"bits-2": 1, "bits-4": 1, "bits-8": 2}


def test_a_failed_point_is_not_tried_again_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def work(kind: str, key: str, argument: bytes, inputs: bytes) -> dict[str, Any]:
        calls[key] += 1
        if key == "bits-4":
            return {"kind": kind, "key": key, **ev.rejection(ValueError("nan"), None)}
        return {"kind": kind, "key": key, "bits": int(argument), "accuracy": 0.5}

    def rejection(error: Exception, folder: Path | None) -> dict[str, str]:
        try:
            raise error
        except Exception as raised:
            return real(raised, folder)

    real = ev.rejection
    monkeypatch.setattr(ev, "rejection", rejection)
    monkeypatch.setattr(ev, "work", work)
    for _ in range(2):
        found = run(tmp_path / "journal")
        assert found["bits-4"]["rejected"].startswith("ValueError: nan (")
        assert {k for k, r in found.items() if "accuracy" in r} == {"bits-2", "bits-8"}
    assert set(calls.values()) == {1}


def test_a_worker_that_could_not_be_opened_says_why(tmp_path: Path) -> None:
    """Its initializer must not die: the pool would only know that a process is gone."""
    before = ev._worker
    try:
        ev.start_worker(str(tmp_path), b'{"name": "x", "family": "nonsense"}')
        with pytest.raises(ConfigError, match=r"family: unknown family of networks; got 'nonsense'"):
            ev.work("candidate", "k", b"{}", b'[["a"], {}]')
        ev.start_worker(str(tmp_path), b'{"name": "x"}')
        with pytest.raises(RunError, match=r"worker: could not be started; got .KeyError"):
            ev.work("float", "k", b"{}", b'[["a"], {}]')
    finally:
        ev._worker = before

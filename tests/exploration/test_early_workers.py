"""Workers of a run start while its data are read, and end with it where the data cannot be read."""

from __future__ import annotations

import multiprocessing.connection
from pathlib import Path
from typing import Any

import pytest

from qspinn import Experiment, explore
from qspinn.errors import DataError
from qspinn.exploration.competing import measurement
from qspinn.exploration.workers import LocalProcesses


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[LocalProcesses]:
    """The executors that are made; the data cannot be read, which is noted with the processes that run by then."""

    def load(experiment: Experiment) -> Any:
        started.append(made[0].context.runs)
        raise DataError("digits", "cannot be read")

    made: list[LocalProcesses] = []
    started.clear()
    monkeypatch.setattr(measurement, "load", load)
    return made


started: list[bool] = []


def run(folder: Path, pools: list[LocalProcesses]) -> None:
    def executors(*arguments: Any) -> LocalProcesses:
        pools.append(LocalProcesses(*arguments))
        return pools[-1]

    with pytest.raises(DataError, match="cannot be read"):
        explore(Experiment(name="e"), folder, n_workers=2, executors=executors)


def test_processes_start_before_the_data_are_there(tmp_path: Path, pools: list[LocalProcesses]) -> None:
    run(tmp_path / "run", pools)
    assert started == [True]
    assert not pools[0].context.runs
    for process in pools[0].context.made:  # is_alive() stays true where a thread of the executor has reaped it
        assert multiprocessing.connection.wait([process.sentinel], timeout=10)


def test_a_run_that_is_continued_starts_none_before_it_has_a_task(tmp_path: Path, pools: list[LocalProcesses]) -> None:
    (tmp_path / "journal").write_bytes(b"")
    run(tmp_path, pools)
    assert started == [False]
    assert pools[0].context.made == []

"""Workers of a run start while its data are read, and end with it where the data cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qspinn import Experiment, explore
from qspinn.errors import DataError
from qspinn.exploration.competing import measurement
from qspinn.exploration.workers import LocalProcesses


def test_processes_start_before_the_data_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[LocalProcesses] = []
    started: list[int] = []

    class Watched(LocalProcesses):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pools.append(self)

    def load(experiment: Experiment) -> Any:
        started.append(len(pools[0].context.made))
        raise DataError("digits", "cannot be read")

    monkeypatch.setattr(measurement, "load", load)
    with pytest.raises(DataError, match="cannot be read"):
        explore(Experiment(name="e"), tmp_path / "run", n_workers=2, executors=Watched)
    assert started == [2]
    for process in pools[0].context.made:
        process.join(10)  # it was ended; the system may take a moment to say so
        assert not process.is_alive()


def test_a_run_that_is_continued_starts_none_before_it_has_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[LocalProcesses] = []

    class Watched(LocalProcesses):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pools.append(self)

    def load(experiment: Experiment) -> Any:
        raise DataError("digits", "cannot be read")

    monkeypatch.setattr(measurement, "load", load)
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        explore(Experiment(name="e"), tmp_path, n_workers=2, executors=Watched)
    assert pools[0].context.made == []

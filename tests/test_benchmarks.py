"""The runner of all measurements: every command exists, what was measured is listed, and failures do not stop it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
TARGETS_OF_THEIR_OWN = {"by_turns.py", "gpu.py", "soak.py"}
"""Scripts that are not on the list: they need a checkout of an earlier version, a GPU or hours."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module benchmarks/run.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "run", raising=False)
    import run

    yield run
    monkeypatch.delitem(sys.modules, "run", raising=False)


def test_every_command_exists_with_its_arguments(run: ModuleType) -> None:
    for m in run.MEASUREMENTS:
        script, *arguments = m.command.split()
        source = (BENCHMARKS / script).read_text()
        assert "__main__" in source, script
        for word in arguments:
            assert f'"{word}"' in source or (ROOT / "experiments" / f"{word}.toml").exists(), m


def test_everything_that_was_measured_is_on_the_list(run: ModuleType) -> None:
    listed = {f"python benchmarks/{m.command}".split(" --")[0] for m in run.MEASUREMENTS}
    for path in (BENCHMARKS / "results").glob("*.json"):
        for record in json.loads(path.read_text()):
            command = record["command"].split(" --")[0]
            assert command in listed or command.split("/")[-1].split()[0] in TARGETS_OF_THEIR_OWN, (path.stem, command)


def test_names_are_distinct_and_may_be_shortened(run: ModuleType) -> None:
    assert len({m.name for m in run.MEASUREMENTS}) == len(run.MEASUREMENTS)
    assert [m.name for m in run.chosen(["speed-g", "borders"])] == ["borders", "speed-growth"]
    assert run.chosen([]) == list(run.MEASUREMENTS)
    with pytest.raises(SystemExit, match="no measurement is called 'nonsense'"):
        run.chosen(["nonsense"])


def test_a_failure_does_not_stop_the_others(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "bad.py").write_text("raise SystemExit(3)")
    (folder / "good.py").write_text("open('done', 'w').close()")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    states = run.make([run.Measurement("bad", "bad.py", ""), run.Measurement("good", "good.py", "")])
    assert states == {"bad": 3, "good": 0}
    assert (tmp_path / "done").exists()


def test_the_list_is_shown_without_running_anything() -> None:
    script = str(BENCHMARKS / "run.py")
    done = subprocess.run([sys.executable, script, "--list", "decolle"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all("python benchmarks/decolle.py " in line for line in lines)

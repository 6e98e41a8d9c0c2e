"""The script that checks a GPU runs to its end on the CPU, and reads what pytest prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.soak
def test_the_check_of_a_gpu_runs_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "gpu.py"),
        "--device",
        "cpu",
        "--quick",
        "--out",
        str(out),
        "--seconds",
        "600",
        "--commit",
        "abc1234",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *records = json.loads(out.read_text())
    assert first["environment"]["card"] == "none"
    assert first["skipped"]["tests marked cuda"] == "--quick"
    assert {r["commit"] for r in records} == {"abc1234"}
    equal = [r for r in records if "differences" in r]
    assert len(equal) == 5
    assert all(r["cases"] > 2 and r["differences"] == 0 and r["met"] is True for r in equal)
    said = {r["claim"]: r["value"] for r in records}
    for name in ("integer inference", "float inference", "training step", "quantized training step, CPU"):
        assert said[f"cpu, batches of 4: {name}"] > 0
    assert said["cpu, batch of 8: the program of the speed check differs from the compiled engine"] == 0


@pytest.mark.soak
def test_the_check_of_a_gpu_leaves_out_what_its_budget_does_not_hold(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "gpu.py"),
        "--device",
        "cpu",
        "--quick",
        "--out",
        str(out),
        "--seconds",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (first,) = json.loads(out.read_text())
    assert {"equality of random layered programs", "speed"} <= first["skipped"].keys()


def test_outcomes_of_tests_are_read_from_what_pytest_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    number, bad = gpu.outcomes("""collecting ... collected 4 items

tests/test_a.py::TestX::test_one PASSED                              [ 25%]
tests/test_a.py::test_two[a b-nearest] FAILED                        [ 50%]
tests/test_a.py::test_three SKIPPED (no CUDA device)                 [ 75%]
tests/test_a.py::test_four ERROR                                     [100%]
FAILED tests/test_a.py::test_two[a b-nearest] - assert 1 == 2
ERROR tests/test_a.py::test_four - OSError
ERROR tests/test_b.py - ImportError: no module
""")
    assert number == {"passed": 1, "failed": 1, "skipped": 1, "error": 1}
    assert bad == ["tests/test_a.py::test_two[a b-nearest]", "tests/test_a.py::test_four", "tests/test_b.py"]

"""Figures in the documentation are those of benchmarks/results, and the README has the table it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module docs/measured.py."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import measured

    yield measured
    measured.records.cache_clear()


def test_no_page_has_a_figure_of_before() -> None:
    done = subprocess.run([sys.executable, "docs/measured.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_changed_figure_is_found_and_renewed(measured: ModuleType) -> None:
    right = "<!-- value decolle @ the same: memory of learning saved -->80.62 %<!-- /value -->"
    wrong = right.replace("80.62", "99")
    assert measured.filled(right) == measured.filled(wrong) == right
    assert measured.shown(f"saves {wrong}.") == "saves 80.62 %."


def test_a_spread_is_smallest_to_largest(measured: ModuleType) -> None:
    record = next(r for r in measured.records("decolle") if r["claim"] == "the same: memory of learning saved")
    low, high = record["spread"]
    assert measured.figure("spread", "decolle", record["claim"]) == f"{low:g} to {high:g}"


@pytest.mark.parametrize("mark", ["value decolle @ nonsense", "value nonsense @ nonsense"])
def test_a_figure_that_was_not_measured_is_an_error(measured: ModuleType, mark: str) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        measured.filled(f"<!-- {mark} -->1<!-- /value -->")


def test_tables_are_written_out_for_the_site(measured: ModuleType) -> None:
    marks = "<!-- topic qsnn -->\n\n## A\n\n<!-- missed -->\n\n## B\n\n<!-- public names -->\n<!-- /public names -->\n"
    shown = measured.shown(marks)
    assert [line for line in shown.splitlines() if "##" in line] == ["## A", "## B"]
    assert "<!--" not in shown
    for record in json.loads((ROOT / "benchmarks" / "results" / "qsnn.json").read_text()):
        assert f"| {record['claim']} | {record['value']:g} {record['unit']} |" in shown
    assert "1-bit engine against 8-bit engine" in shown
    assert "| `qspinn.Spikes` | `qspinn.spikes` |" in shown


def test_every_topic_of_results_is_on_the_page_of_measurements() -> None:
    page = (ROOT / "docs" / "measurements.md").read_text()
    topics = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert set(re.findall(r"<!-- topic (\w+) -->", page)) == topics


def test_the_readme_has_the_short_table_of_today(measured: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    table = measured.table
    own = readme.partition(table.START)[2].partition(table.END)[0].strip()
    everything = [r for path in sorted(table.RESULTS.glob("*.json")) for r in json.loads(path.read_text())]
    assert own == table.short_table(everything).strip()
    assert len(re.findall(r"^\| (?!what)[^-|]", own, re.MULTILINE)) == 5

"""A candidate that fails is a record with its reason; what is wrong with the run itself stops it."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.errors import ArtifactError, ConfigError, DataError, LoweringError, QSpinnError, RunError
from qspinn.exploration import tasks as ev
from qspinn.exploration.artifacts import Stored
from qspinn.memory import MemoryAccount, MemoryRow

ACCOUNT = MemoryAccount(rows=(MemoryRow(path="a.w", role="parameter", count=10, bits=4),))


class Candidate(msgspec.Struct, frozen=True):
    """What travels: anything with a key and a label."""

    label: str = "c"

    def key(self) -> str:
        return f"key-{self.label}"


class Family:
    """Building and measuring do what is asked for."""

    def __init__(
        self, fails: Exception | None = None, *, where: str = "build", right: Any = (True, False), facts: Any = None
    ) -> None:
        self.fails, self.where, self.right, self.facts = fails, where, right, facts or {}
        self.STORED = Stored(suffix=".x", save=self._save, load=lambda path: None, account=lambda built: ACCOUNT)

    def _at(self, where: str) -> None:
        if self.fails is not None and self.where == where:
            raise self.fails

    def _save(self, built: Any, path: Path) -> None:
        self._at("save")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"built")

    def build(self, measurement: Any, candidate: Any) -> tuple[Any, None]:
        self._at("build")
        return object(), None

    def measure(self, measurement: Any, candidate: Any, built: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self._at("measure")
        return np.array(self.right, bool), self.facts

    def sweep_accuracy(self, measurement: Any, candidate: Any) -> Any:
        self._at("build")
        return self.facts.get("accuracy", 0.5)


def record_of(family: Family, folder: Path = Path("/run")) -> dict[str, Any]:
    worker: Any = ev.Worker(folder=folder, experiment=None, family=family, measurement=None)
    return ev.evaluate(worker, Candidate())  # type: ignore[arg-type]


FAILURES = {
    "diverged": (
        RunError("epoch 3", "the loss is not finite", got=math.nan),
        "epoch 3: the loss is not finite; got nan",
        "RunError",
    ),
    "not lowered": (LoweringError("a.w", "too wide"), "a.w: too wide", "LoweringError"),
    "not encoded": (ConfigError("encode", "values must be finite"), "encode: values must be finite", "ConfigError"),
    "no data": (DataError("spikes", "hold nothing"), "spikes: hold nothing", "DataError"),
    "own file": (ArtifactError("a.w", "codes do not fit"), "a.w: codes do not fit", "ArtifactError"),
    "mistake": (KeyError("theta"), "KeyError: 'theta' (test_failed_candidates.py:", "KeyError"),
    "foreign": (struct.error("bad char"), "error: bad char (test_failed_candidates.py:", "error"),
    "overflow": (OverflowError("too large"), "OverflowError: too large (", "OverflowError"),
    "recursion": (RecursionError("deep"), "RecursionError: deep (", "RecursionError"),
    "assertion": (AssertionError(), "AssertionError:  (", "AssertionError"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("where", ["build", "measure", "save"])
def test_a_candidate_that_fails_is_recorded_with_its_reason(name: str, where: str) -> None:
    error, reason, kind = FAILURES[name]
    record = record_of(Family(error, where=where))
    assert (record["key"], record["candidate"]) == ("key-c", {"label": "c"})
    assert record["rejected"].startswith(reason)
    assert record["error"] == kind
    assert not {"accuracy", "bits"} & set(record)
    assert msgspec.json.decode(msgspec.json.encode(record)) == record


@pytest.mark.parametrize("name", FAILURES)
def test_so_is_a_point_of_the_sweep(name: str) -> None:
    error, reason, _ = FAILURES[name]
    worker: Any = ev.Worker(folder=Path("/run"), experiment=None, family=Family(error), measurement=None)
    record = ev.sensitivity_point(worker, Candidate("p"))  # type: ignore[arg-type]
    assert record["label"] == "p"
    assert record["rejected"].startswith(reason)
    assert "accuracy" not in record


@pytest.mark.parametrize(
    ("facts", "right", "path"),
    [
        ({"rates": {"a": math.nan}}, [True], "rates.a"),
        ({"spikes": math.inf}, [True], "spikes"),
        ({"trained_rates": {"a": [0.1, -math.inf]}}, [True], "trained_rates.a"),
        ({}, [], "accuracy"),
    ],
)
def test_numbers_that_are_none_reject_the_candidate(facts: dict, right: list, path: str) -> None:
    record = record_of(Family(facts=facts, right=right))
    assert record["rejected"].startswith(f"{path}: is not finite")
    assert "accuracy" not in record


def test_a_candidate_that_succeeds_is_measured(tmp_path: Path) -> None:
    record = record_of(Family(facts={"rates": {"a": 0.25}}), tmp_path)
    assert (record["accuracy"], record["bits"], record["rates"]) == (0.5, 40, {"a": 0.25})
    assert not {"rejected", "error"} & set(record)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "cannot be read or written; got 'No space left on device'"),
        (FileNotFoundError(2, "No such file", "/run/cache/x.npy"), "/run/cache/x.npy: cannot be read or written"),
        (MemoryError("18 GiB"), "worker: there is not enough memory; got '18 GiB'"),
        (
            ArtifactError("/run/float/n5.safetensors", "cannot be read as a float checkpoint"),
            "/run/float/n5.safetensors",
        ),
        (ArtifactError("/run/candidates/k.qspinn", "cannot be written"), "cannot be written"),
    ],
)
@pytest.mark.parametrize("where", ["build", "measure", "save"])
def test_what_is_wrong_with_the_run_stops_it(error: Exception, message: str, where: str) -> None:
    with pytest.raises(QSpinnError) as caught:
        record_of(Family(error, where=where))
    assert message in str(caught.value)


def test_interruptions_are_no_failures() -> None:
    class Interrupted(Family):
        def build(self, measurement: Any, candidate: Any) -> tuple[Any, None]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_of(Interrupted())

"""Twenty random programs of version 0.1.0 as files: they load and run to the same bits in every engine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from qspinn.program import load, to_bytes
from qspinn.runtime import BACKENDS, run
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes

FOLDER = Path(__file__).parents[1] / "golden" / "programs"
RESULTS = json.loads((FOLDER / "results.json").read_text())


def digest(result: Result) -> str:
    """The sha256 of scores, spike counts, rasters and final states."""
    sha = hashlib.sha256(np.ascontiguousarray(result.scores, "<i8").tobytes())
    for field in ("counts", "v", "ref", "spikes", "current", "theta"):
        for name, array in sorted(getattr(result, field).items()):
            sha.update(f"{field}.{name}".encode() + np.ascontiguousarray(array, "<i8").tobytes())
    return sha.hexdigest()


def spikes_of(name: str) -> Spikes:
    """The stored input of a program."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        count = arrays["count"] if "count" in arrays.files else None
        return Spikes(offsets=arrays["offsets"], index=arrays["index"], n=int(arrays["n"]), count=count)


@pytest.mark.parametrize("name", RESULTS)
def test_stored_programs_run_to_the_same_bits(name: str) -> None:
    program = load(FOLDER / f"{name}.qspinn")
    assert to_bytes(program) == (FOLDER / f"{name}.qspinn").read_bytes()
    for backend in BACKENDS:
        assert digest(run(program, spikes_of(name), backend=backend, record=True)) == RESULTS[name], backend


def test_there_are_twenty() -> None:
    assert len(RESULTS) == 20

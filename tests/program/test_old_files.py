"""Files that version 0.1.0 wrote before its borders were closed still load, and say what they said."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qspinn.data.images.encoders import poisson
from qspinn.exploration.journal import scan
from qspinn.networks import checkpoint
from qspinn.networks.layered import Pool2d
from qspinn.program import load, to_bytes
from qspinn.program.ops import PoissonOp
from qspinn.runtime import run
from qspinn.spikes import from_dense

SPIKES_CONV1 = [58, 58, 65, 38]
SCORES_DIGITS = [[6, 0, 0, 0, 0, 0, 0, 0, 0, 3], [0, 0, 0, 0, 0, 3, 0, 0, 0, 6], [3, 0, 0, 0, 0, 0, 0, 0, 2, 3]]
FOLDER = Path(__file__).parents[1] / "golden" / "0.1.0"


def test_programs_are_read_and_written_byte_for_byte() -> None:
    for name in ("digits_stdp.qspinn", "chain.qspinn"):
        assert to_bytes(load(FOLDER / name)) == (FOLDER / name).read_bytes()


def test_programs_compute_what_they_computed() -> None:
    """Scores and spikes computed by the version that wrote the files."""
    layers = load(FOLDER / "chain.qspinn")
    raster = np.random.default_rng(0).random((5, 4, 128)) < 0.4
    digits = load(FOLDER / "digits_stdp.qspinn")
    (op,) = digits.ops_of(PoissonOp)
    images = np.random.default_rng(0).integers(0, 256, (3, 64)).astype(np.uint8)
    for backend in ("numba", "reference"):
        assert run(layers, from_dense(raster), backend=backend).counts["conv1"].sum(axis=1).tolist() == SPIKES_CONV1
        assert run(digits, poisson(images, op, digits.n_steps), backend=backend).scores.tolist() == SCORES_DIGITS


def test_checkpoints_load_although_a_field_of_pools_got_another_name() -> None:
    trained = checkpoint.load_layers(FOLDER / "chain.safetensors")
    (pool,) = [c for c in trained.network.connections if isinstance(c, Pool2d)]
    assert pool.of == "average"
    assert checkpoint.load(FOLDER / "n100.safetensors").network.population("exc").n == 100


def test_the_records_of_a_journal_are_read() -> None:
    records, end = scan((FOLDER / "journal").read_bytes(), "journal")
    assert len(records) > 5
    assert end > 10_000

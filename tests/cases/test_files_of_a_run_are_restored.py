"""A run that is continued makes again what its folder lacks or holds under a wrong name, and comes to the same end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from qspinn import __version__
from qspinn.data import DataConfig
from qspinn.errors import ArtifactError
from qspinn.exploration import outcome, search
from qspinn.exploration.artifacts import PROGRAM
from qspinn.exploration.competing.space import Candidate, Experiment, NetworkConfig, SearchConfig, label_of
from qspinn.exploration.layered import measurement as layered
from qspinn.exploration.local import measurement as local
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.search import explore
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks import checkpoint
from qspinn.quantization.plan import Granularity
from qspinn.records.record import from_plain
from running import inline, lasting

EXPERIMENT = Experiment(
    name="tiny",
    data=DataConfig(name="digits", n_train=80, n_validation=40, n_test=40),
    network=NetworkConfig(n_neurons=10, n_steps=20, rate_hz=200.0),
    training=StdpTraining(n_passes=1),
    search=SearchConfig(
        schemes=(Scheme.PTQ,),
        n_neurons=(8,),
        max_drop_points=100.0,
        ptq={
            "roundings": (Rounding.NEAREST,),
            "weight_bits": (4, 2),
            "state_bits": (),
            "granularities": (Granularity.PER_NEURON,),
            "input_rates": (0.0,),
        },
        sweep={"bits": (8,)},
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    explore(EXPERIMENT, folder, executors=inline)
    return folder


def swap(a: Path, b: Path) -> None:
    mine, theirs = a.read_bytes(), b.read_bytes()
    a.write_bytes(theirs)
    b.write_bytes(mine)


def candidates(folder: Path) -> list[Path]:
    return sorted((folder / "candidates").iterdir())


CHANGES: dict[str, Callable[[Path], object]] = {
    "swapped": lambda run: swap(*candidates(run)[:2]),
    "missing": lambda run: [path.unlink() for path in candidates(run)],
    "damaged": lambda run: candidates(run)[0].write_bytes(b"damaged"),
    "floats missing": lambda run: (run / "float" / "n10.safetensors").unlink(),
    "floats swapped": lambda run: swap(run / "float" / "n10.safetensors", run / "float" / "n8.safetensors"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_continued_run_restores_its_files(run: Path, change: str) -> None:
    before = lasting(run)
    CHANGES[change](run)
    explore(EXPERIMENT, run, executors=inline)
    assert lasting(run) == before


def test_a_file_is_kept_for_its_candidate_alone(run: Path, tmp_path: Path) -> None:
    program = PROGRAM.load(candidates(run)[0])
    candidate, bits = from_plain(Candidate, program.provenance["candidate"]), PROGRAM.account(program).total_bits
    assert PROGRAM.kept(run, candidate, bits).provenance == program.provenance
    with pytest.raises(ArtifactError, match="is not the candidate that it is named after"):
        PROGRAM.kept(run, candidate, bits + 1)


@pytest.mark.parametrize("family", [layered, local])
def test_float_networks_of_other_families_are_looked_for(family: ModuleType, run: Path, tmp_path: Path) -> None:
    assert not family.has_float(tmp_path, None)
    place = family.float_path(tmp_path)
    checkpoint.save(checkpoint.load(run / "float" / "n10.safetensors"), place)
    assert not family.has_float(tmp_path, None)


def test_a_result_names_every_version_that_worked_on_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (search, outcome):
        monkeypatch.setattr(module, "__version__", "99.0")
    for _ in range(2):
        found = explore(EXPERIMENT, run, executors=inline)
        assert found.versions["qspinn"] == f"{__version__} and 99.0"
        assert PROGRAM.load(run / found.model).provenance["qspinn"] == found.versions["qspinn"]


def test_labels_tell_rates_apart_and_stay_short_where_they_can() -> None:
    def label(rate: float, *rates: float) -> str:
        return label_of(Scheme.PTQ, 4, Granularity.GLOBAL, Rounding.NEAREST, "lean", rate, 8, rates)

    assert label(0.003, 0.0, 0.003) == label(0.003) == "ptq w4 global nearest lean inputs>0.003 N8"
    assert label(0.00300000001, 0.0, 0.003) == label(0.00300000001, 0.003)
    assert label(0.00300000001, 0.003, 0.00300000001) != label(0.003, 0.003, 0.00300000001)

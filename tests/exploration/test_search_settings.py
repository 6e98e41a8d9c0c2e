"""Keys of `[search]` with the names of earlier versions are read as the present ones, and said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from qspinn.errors import ConfigError
from qspinn.exploration.competing.space import Experiment, SearchConfig
from qspinn.exploration.family import read_experiment
from qspinn.exploration.journal import scan
from qspinn.exploration.layered.space import ItqBits, LayeredSearch
from qspinn.exploration.local.space import LocalSearch
from qspinn.exploration.search import _reads_as
from qspinn.records.record import from_plain, to_plain
from qspinn.workflow.experiments import load_experiment
from samples import command_line

JOURNAL = Path(__file__).parents[1] / "golden" / "0.1.0" / "journal"
FORMER: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
    (
        SearchConfig,
        {"sensitivity_bits": [8, 4], "sensitivity_images": 7, "harmless_points": 2.0, "weight_bits": [3],
         "itq_passes": 5, "state_bits": [9], "input_rates": [0.0], "adapt_images": 6, "assign_images": 8,
         "itq_stdp": {"eta_post": 0.5}},
        {"sweep": {"bits": [8, 4], "samples": 7, "harmless_points": 2.0}, "assign_samples": 8,
         "ptq": {"weight_bits": [3], "state_bits": [9], "input_rates": [0.0], "adapt_samples": 6},
         "itq": {"passes": 5, "stdp": {"eta_post": 0.5}}},
    ),
    (
        LayeredSearch,
        {"sensitivity_samples": 7, "weight_calibrator": "max", "quantile": 0.5, "itq_quantile": 0.2, "itq_epochs": 3,
         "itq_bits": [[3, 6], {"weights": 1, "states": 3}], "first_bits": 8},
        {"sweep": {"samples": 7}, "ptq": {"weight_calibrator": "max", "quantile": 0.5}, "first_bits": 8,
         "itq": {"quantile": 0.2, "epochs": 3, "bits": [[3, 6], {"weights": 1, "states": 3}]}},
    ),
    (
        LocalSearch,
        {"sensitivity_bits": [4], "sensitivity_epochs": 2, "sensitivity_samples": 3, "harmless_points": 1.0},
        {"sweep": {"bits": [4], "epochs": 2, "samples": 3, "harmless_points": 1.0}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "former", "present"), FORMER, ids=lambda x: getattr(x, "__name__", ""))
def test_former_keys_are_the_present_ones(kind: Any, former: dict[str, Any], present: dict[str, Any]) -> None:
    assert from_plain(kind, former) == from_plain(kind, present)
    assert from_plain(kind, to_plain(from_plain(kind, former))) == from_plain(kind, present)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert kind(**former) == kind(**present)
    said = [str(w.message) for w in caught]
    assert len(said) == len(set(said)) == len(former) - ("first_bits" in former)
    assert all(w.category is DeprecationWarning for w in caught)


@pytest.mark.parametrize(("kind", "former", "present"), FORMER, ids=lambda x: getattr(x, "__name__", ""))
def test_a_key_is_not_given_twice(kind: Any, former: dict[str, Any], present: dict[str, Any]) -> None:
    for name in former:
        if name == "first_bits":
            continue
        with pytest.raises(ConfigError, match=rf"{name}: is the former name of .*fix: leave out {name}"):
            from_plain(kind, present | {name: former[name]})


def test_the_message_names_file_key_and_present_key(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text('name = "e"\n[search]\nitq_passes = 3\n[search.ptq]\nweight_bits = [2]\n')
    with pytest.warns(DeprecationWarning, match=r"e\.toml: search\.itq_passes is called search\.itq\.passes now$"):
        read: Any = load_experiment(file)
    assert (read.search.itq.passes, read.search.ptq.weight_bits) == (3, (2,))
    done = command_line("train", "e.toml", "--set", "search.sensitivity_images=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert "config.search.sweep.samples: value out of range" in done.stderr
    done = command_line("train", "e.toml", "--data", "nowhere", cwd=tmp_path)
    assert "note: e.toml: search.itq_passes is called search.itq.passes now" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("key", "near"), [("itq_pases", "itq.passes"), ("weight_bit", "ptq.weight_bits"), ("ptqq", "ptq")]
)
def test_misspelt_keys_of_either_kind_are_told_the_present_one(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"config\.search\.{key}: unknown key.*did you mean '{near}'"):
        read_experiment({"name": "e", "search": {key: 3}})


def test_runs_of_experiments_with_former_keys_go_on() -> None:
    records, _ = scan(JOURNAL.read_bytes(), "journal")
    stored = records[0]["experiment"]
    assert "sensitivity_bits" in stored["search"]
    experiment = read_experiment(stored)
    assert isinstance(experiment, Experiment)
    assert _reads_as(stored, experiment)
    assert not _reads_as(stored | {"seed": 77}, experiment)
    assert not _reads_as({"nonsense": 1}, experiment)
    assert not _reads_as(None, experiment)


def test_widths_of_one_candidate_stand_in_for_those_of_all() -> None:
    search = LayeredSearch(first_bits=8, last_bits=4)
    own = ItqBits(weights=1, states=3, first_bits=2).within(search)
    assert (own.first_bits, own.last_bits, own.itq) == (2, 4, search.itq)

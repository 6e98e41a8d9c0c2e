"""Experiments that come with the package: found by name, one file for the package and the checkout, written to edit."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import qspinn
from qspinn.errors import ConfigError, WriteError
from qspinn.exploration.shipped import experiment_file, shipped, summary_of, write_shipped

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_checkout_and_the_package_have_the_same_files() -> None:
    files = sorted((ROOT / "experiments").glob("*.toml"))
    assert [file.stem for file in files] == list(shipped())
    for file in files:
        assert file.samefile(shipped()[file.stem]), "a copy, which can drift apart"


def test_the_files_are_put_into_the_wheel() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["qspinn"]
    package = Path(qspinn.__file__).parent
    assert {file.resolve() for pattern in told for file in package.glob(pattern)} >= {
        file.resolve() for file in shipped().values()
    }


@pytest.mark.parametrize("name", shipped())
def test_every_experiment_is_read_by_its_name_and_says_what_it_is(name: str) -> None:
    assert qspinn.load_experiment(name).name
    assert 10 < len(summary_of(shipped()[name])) < 200


def test_a_file_wins_over_a_name(tmp_path: Path) -> None:
    assert experiment_file(Path("digits_stdp")) == shipped()["digits_stdp"]
    (tmp_path / "digits_stdp").mkdir()
    assert experiment_file(Path("digits_stdp")) == shipped()["digits_stdp"], "a folder is no experiment"
    (tmp_path / "digits_stdp").rmdir()
    (tmp_path / "digits_stdp").write_text("version = 1\nname = 'mine'\n")
    assert qspinn.load_experiment("digits_stdp").name == "mine"


@pytest.mark.parametrize("name", ["digit_stdp", "digits-stdp", "digits_stdp.toml", "digits"])
def test_an_unknown_name_is_told_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits_stdp'"):
        qspinn.load_experiment(name)
    with pytest.raises(ConfigError, match="did you mean 'digits_stdp'"):
        write_shipped(name)


@pytest.mark.parametrize("path", ["missing.toml", "folder/digits_stdp", "x" * 300 + ".toml"])
def test_paths_are_no_names(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        qspinn.load_experiment(path)


def test_an_experiment_is_written_once(tmp_path: Path) -> None:
    written = write_shipped("digits_stdp")
    assert written == Path("digits_stdp.toml")
    assert written.read_bytes() == shipped()["digits_stdp"].read_bytes()
    (tmp_path / "digits_stdp.toml").write_text("edited")
    with pytest.raises(WriteError, match="is there already"):
        write_shipped("digits_stdp")
    assert (tmp_path / "digits_stdp.toml").read_text() == "edited"
    assert write_shipped("digits_stdp", Path("mine.toml")).exists()
    with pytest.raises(WriteError, match="cannot be written"):
        write_shipped("digits_stdp", Path("no folder/mine.toml"))

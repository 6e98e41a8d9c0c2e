"""A stranger's .npz file goes through the whole command line by one short experiment file, for every family."""

from __future__ import annotations

import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import qspinn
from qspinn import cli
from qspinn.cli import inputs
from qspinn.errors import ConfigError
from samples import command_line, read

DOCS = Path(__file__).parents[2] / "docs" / "own_data.md"
LOCAL = """
name = "mine"
family = "local"
[data]
file = "mine.npz"
bin_ms = 5.0
[network]
layers = [{channels = 4, kernel = 1, padding = 0}]
[learning]
n_epochs = 1
batch = 30
[search]
weight_bits = []
trace_bits = []
max_drop_points = 100.0
sweep = {bits = [6]}
"""
IMAGES = """
name = "mine"
[data]
file = "mine.npz"
[network]
n_neurons = 12
n_steps = 30
rate_hz = 400.0
[training]
n_passes = 1
[search]
schemes = ["ptq"]
max_drop_points = 100.0
sweep = {bits = [8]}
ptq = {weight_bits = [4], granularities = ["global"], roundings = ["nearest"], input_rates = [0.0]}
"""


def rasters(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Spikes [n, 20, 8] of three classes: one of three groups of channels is busy; and the classes as text."""
    rng = np.random.default_rng(3)
    classes = np.arange(n) % 3
    busy = np.zeros((n, 1, 8))
    for k in range(3):
        busy[classes == k, :, 2 * k : 2 * k + 3] = 0.5
    spikes = rng.random((n, 20, 8)) < 0.05 + busy
    return spikes.astype(np.uint8), np.array(["low", "middle", "high"])[classes]


def experiment_of_docs() -> str:
    """The experiment file of the documentation."""
    return next(
        block for block in re.findall(r"```toml[^\n]*\n(.*?)```", DOCS.read_text(), re.DOTALL) if "family" in block
    )


@pytest.mark.slow
def test_a_strangers_file_goes_through_the_command_line(tmp_path: Path) -> None:
    x, labels = rasters()
    place = tmp_path / "project"
    place.mkdir()
    np.savez(place / "mine.npz", x=x, labels=labels)
    text = experiment_of_docs()
    assert len(text.splitlines()) <= 20
    (place / "mine.toml").write_text(text)
    trained = command_line("train", "project/mine.toml", "--out", "float.safetensors", cwd=tmp_path, QSPINN_DATA="")
    assert trained.returncode == 0, trained.stderr
    assert "mine.npz" in trained.stdout
    assert float(re.search(r"validation: ([\d.]+) %", trained.stdout)[1]) > 80  # type: ignore[index]
    explored = command_line(
        "explore", "project/mine.toml", "--out", "run", "--json", "--workers", 1, cwd=tmp_path, QSPINN_DATA=""
    )
    assert explored.returncode == 0, explored.stderr
    result = json.loads(explored.stdout)
    assert result["data"] == "mine.npz"
    assert result["winner_test"] > 0.8
    assert command_line("report", "run", cwd=tmp_path).returncode == 0
    page = read((tmp_path / "run" / "report.html").read_text()).text
    assert "classes follow its sorted order: 0 = high, 1 = low, 2 = middle" in page
    assert "of each class, recordings in the order of a hash of their content" in page
    found = command_line("evaluate", "run/model.qspinn", "--json", cwd=tmp_path, QSPINN_DATA="")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["accuracy"] == result["winner_test"]
    assert found.stderr == ""
    _evaluated_elsewhere(tmp_path, result["winner_test"], x, labels)


def evaluated(*arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of `qspinn evaluate` in this process and folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["qspinn", "evaluate", "../run/model.qspinn", *arguments])
        patch.delenv("QSPINN_DATA", raising=False)
        with pytest.raises(SystemExit) as left:
            cli.main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def _evaluated_elsewhere(folder: Path, expected: float, x: np.ndarray, labels: np.ndarray) -> None:
    """From another folder the file is asked for by name; it, or another one, may be named."""
    other = folder / "elsewhere"
    other.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(other)
        code, _, said = evaluated()
        assert code == 2
        for word in ("data.file", "project/mine.npz", "--data"):
            assert word in said
        for named in ("../project", "../project/mine.npz"):
            code, found, said = evaluated("--data", named, "--json")
            assert (code, json.loads(found)["accuracy"], said) == (0, expected, "")
        np.savez("new.npz", x=x[::-1], labels=labels[::-1], split=np.repeat(["test", "train", "validation"], 100))
        code, _, said = evaluated("--data", "new.npz", "--json")
        assert code == 0, said
        assert "new.npz holds other data than the model was made from" in said
        np.savez("less.npz", x=x[labels != "low"], labels=labels[labels != "low"])
        code, _, said = evaluated("--data", "less.npz")
        assert (code, "has other classes than the model" in said) == (2, True)


def test_a_file_may_be_named_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(LOCAL)
    for given, place in (("a/b.npz", ("a", "b.npz")), ("b.npz", (".", "b.npz")), ("a", ("a", "mine.npz"))):
        data = inputs.read_experiment(tmp_path / "mine.toml", None, given, None).data
        assert (data.folder, data.file, data.name) == (*place, "npz")
    with pytest.raises(ConfigError, match=r"data\.file: is for data of your own, and nmnist8"):
        inputs.read_experiment(tmp_path / "mine.toml", None, "", ["data.name=nmnist8"])
    with pytest.raises(ConfigError, match=r"--synthetic: there are no synthetic data.*mine\.npz"):
        inputs.read_experiment(tmp_path / "mine.toml", None, "", None, synthetic=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "text"), [pytest.param("local", LOCAL, marks=pytest.mark.soak), ("competing", IMAGES)]
)
def test_every_family_takes_a_file(family: str, text: str, tmp_path: Path) -> None:
    x, labels = rasters(120)
    if family == "competing":
        np.savez(tmp_path / "mine.npz", x=x.sum(axis=1).astype(np.uint8) * 12, labels=labels)
    else:
        np.savez(tmp_path / "mine.npz", x=x[..., None, None], labels=labels)
    (tmp_path / "mine.toml").write_text(text)
    done = command_line("explore", "mine.toml", "--out", "run", "--json", "--workers", 1, cwd=tmp_path, QSPINN_DATA="")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    found = command_line("evaluate", result["model"], "--json", cwd=tmp_path, QSPINN_DATA="")
    assert json.loads(found.stdout)["accuracy"] == result["winner_test"]
    assert qspinn.load_experiment(tmp_path / "mine.toml").data.name == "npz"

"""A stranger's .npz file goes through the whole command line by one short experiment file, for every family."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import qspinn
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
    return next(block for block in re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL) if "family" in block)


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


def _evaluated_elsewhere(folder: Path, expected: float, x: np.ndarray, labels: np.ndarray) -> None:
    """From another folder the file is asked for by name; it, or another one, may be named."""
    other = folder / "elsewhere"
    other.mkdir()
    lost = command_line("evaluate", "../run/model.qspinn", cwd=other, QSPINN_DATA="")
    assert lost.returncode == 2
    for word in ("data.file", "project/mine.npz", "--data"):
        assert word in lost.stderr
    for named in ("../project", "../project/mine.npz"):
        found = command_line("evaluate", "../run/model.qspinn", "--data", named, "--json", cwd=other)
        assert json.loads(found.stdout)["accuracy"] == expected
        assert found.stderr == ""
    np.savez(other / "new.npz", x=x[::-1], labels=labels[::-1], split=np.repeat(["test", "train", "validation"], 100))
    found = command_line("evaluate", "../run/model.qspinn", "--data", "new.npz", "--json", cwd=other)
    assert found.returncode == 0, found.stderr
    assert "new.npz holds other data than the model was made from" in found.stderr
    np.savez(other / "less.npz", x=x[labels != "low"], labels=labels[labels != "low"])
    found = command_line("evaluate", "../run/model.qspinn", "--data", "less.npz", cwd=other)
    assert found.returncode == 2
    assert "has other classes than the model" in found.stderr


@pytest.mark.parametrize(("family", "text"), [("local", LOCAL), ("competing", IMAGES)])
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

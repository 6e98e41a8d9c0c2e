"""Layers that learned locally are evaluated on data of the same classes, in their order, and of the same steps."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import msgspec
import numpy as np
import pytest

import qspinn
from qspinn import cli
from qspinn.learning.local.model import load_local

LOCAL = """
name = "mine"
family = "local"
[data]
file = "mine.npz"
[network]
layers = [{channels = 4, kernel = 1, padding = 0}]
[learning]
n_epochs = 1
batch = 30
"""
WORDS = np.array(["low", "high"])[np.arange(60) % 2]


def write(path: Path, bin_ms: float = 5.0, **arrays: np.ndarray) -> None:
    x = (
        np.random.default_rng(3).random((60, 10, 4, 1, 1))
        < np.where(WORDS == "low", 0.1, 0.4)[:, None, None, None, None]
    )
    np.savez(path, **{"x": x, "labels": WORDS, "bin_ms": np.array(bin_ms)} | arrays)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a trained model and its data, the working directory while these tests run."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("QSPINN_DATA", raising=False)
        write(folder / "mine.npz")
        (folder / "mine.toml").write_text(LOCAL)
        qspinn.save(qspinn.train(qspinn.load_experiment("mine.toml"))[0], "model.safetensors")
        yield folder


def evaluated(*arguments: str) -> tuple[int, str]:
    """(exit code, standard error) of `qspinn evaluate` in this process."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()), redirect_stderr(said):
        patch.setattr(sys, "argv", ["qspinn", "evaluate", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
    return int(left.value.code or 0), said.getvalue()


def test_its_own_data_are_taken_without_a_word(place: Path) -> None:
    assert evaluated("model.safetensors") == (0, "")
    assert load_local(place / "model.safetensors").provenance["labels"] == ["high", "low"]


def test_other_data_of_the_same_classes_are_named(place: Path) -> None:
    write(place / "other.npz", labels=WORDS[::-1].copy(), x=np.load(place / "mine.npz")["x"][::-1][:, :, ::-1])
    code, said = evaluated("model.safetensors", "--data", "other.npz")
    assert (code, "other.npz holds other data than the model was made from" in said) == (0, True)


def test_other_classes_or_another_order_are_refused(place: Path) -> None:
    write(place / "order.npz", class_names=np.array(["low", "high"]))
    write(place / "names.npz", labels=np.where(WORDS == "low", "slow", "high"))
    for name in ("order.npz", "names.npz"):
        code, said = evaluated("model.safetensors", "--data", name)
        assert (code, "has other classes than the model" in said) == (2, True)


def test_steps_of_another_length_are_refused(place: Path) -> None:
    write(place / "short.npz", 2.5)
    code, said = evaluated("model.safetensors", "--data", "short.npz")
    assert code == 2
    assert "is not the length of a step that the model learned with" in said


def test_a_model_that_does_not_say_its_classes_is_noted(place: Path) -> None:
    known = load_local(place / "model.safetensors")
    kept = {"experiment": known.provenance["experiment"]}
    qspinn.save(msgspec.structs.replace(known, provenance=kept), place / "old.safetensors")
    code, said = evaluated("old.safetensors")
    assert (code, "does not say the names of its classes" in " ".join(said.split())) == (0, True)

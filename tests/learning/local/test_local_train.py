"""Local learning from the command line, interrupted, resumed, stored and restored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import qspinn
from qspinn.data import EventDataset
from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.errors import ArtifactError, ConfigError, DataError, LoweringError, RunError
from qspinn.exploration.local.space import LocalExperiment
from qspinn.learning.local import model as local_model
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.learning.local.model import TrainedLocal, load_local
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import start_of
from qspinn.learning.local.training import fit, layers_of
from qspinn.networks import checkpoint
from qspinn.networks.local import LocalLayer, LocalNetwork

NETWORK = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1, pool=2), LocalLayer(channels=5, kernel=2)))
LEARNING = LocalLearning(n_epochs=3, batch=8, burn_in=1, learning_rate=2.0**-6, shift=1, halve_every=1)
EXPERIMENT = """
version = 1
name = "tiny"
family = "local"
[data]
name = "synthetic_gestures"
size = 16
n_bins = 6
n_train = 44
n_validation = 22
n_test = 11
[network]
[[network.layers]]
channels = 4
stride = 2
[[network.layers]]
channels = 8
pool = 2
[learning]
n_epochs = 2
batch = 8
"""


class Stop(Exception):
    """The interruption."""


def events(n: int = 25, seed: int = 1) -> EventSet:
    rng = np.random.default_rng(seed)
    return from_dense(rng.random((n, 4, 2, 7, 6)) < 0.3, np.arange(n) % 2, order="BT")


def dataset() -> EventDataset:
    return EventDataset(
        name="noise",
        shape=(2, 7, 6),
        n_steps=4,
        bin_ms=5.0,
        labels=("a", "b"),
        train=events(),
        validation=events(9, 2),
        test=events(9, 3),
        split_rule="noise",
    )


def fresh(arithmetic: Any = "integer") -> Any:
    learning = msgspec.structs.replace(LEARNING, arithmetic=arithmetic)
    start = start_of(NETWORK, events(), 2, step_ms=5.0)
    return layers_of(NETWORK, learning, start, DEFAULT_PLAN, seed=7, n_threads=2)


def same(a: Any, b: Any) -> bool:
    mine, theirs = a.state(), b.state()
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k]) for k in mine)


def stop_after(n: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == n:
            raise Stop

    return progress


@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_interrupted_and_resumed_equals_uninterrupted(arithmetic: str, tmp_path: Path) -> None:
    whole, path, seen = fresh(arithmetic), tmp_path / "training", []
    fit(whole, events(), LEARNING, seed=7)
    for n in (1, 2):
        with pytest.raises(Stop):
            fit(fresh(arithmetic), events(), LEARNING, seed=7, progress=stop_after(n), checkpoint=path)
    again = fresh(arithmetic)
    fit(again, events(), LEARNING, seed=7, progress=lambda done, total: seen.append((done, total)), checkpoint=path)
    assert seen == [(3, 3)]
    assert same(again, whole)
    assert not same(fresh(arithmetic), whole)


@pytest.mark.parametrize("change", ["seed", "data", "learning", "origin"])
def test_another_training_is_named_and_kept(change: str, tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit(fresh(), events(), LEARNING, seed=7, checkpoint=path)
    data = events(seed=9) if change == "data" else events()
    learning = msgspec.structs.replace(LEARNING, shift=0) if change == "learning" else LEARNING
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"training: is of another training, which was interrupted.*delete it"):
        fit(
            fresh(),
            data,
            learning,
            seed=8 if change == "seed" else 7,
            checkpoint=path,
            origin="other" if change == "origin" else "",
        )
    assert path.read_bytes() == before


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit(fresh(), events(), LEARNING, seed=7, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="cannot be read as an interrupted training"):
        fit(fresh(), events(), LEARNING, seed=7, checkpoint=path)


def test_weights_that_are_not_finite_stop_the_training() -> None:
    layers = fresh("float")
    layers.layers[0].w[:] = float("nan")
    with pytest.raises(RunError, match="epoch 1: weights are not finite"):
        fit(layers, events(), LEARNING)


@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_stored_and_restored_says_the_same(arithmetic: Any, tmp_path: Path) -> None:
    learning = msgspec.structs.replace(LEARNING, arithmetic=arithmetic)
    layers, told = local_model.trained_layers(dataset(), NETWORK, learning, DEFAULT_PLAN, 3)
    before, n_spikes = local_model.predictions(layers, dataset().test, told)
    checkpoint.save(TrainedLocal(network=told, params=layers.state()), tmp_path / "a.safetensors")
    read = load_local(tmp_path / "a.safetensors")
    assert read.network == told
    if arithmetic == "integer":
        assert {a.dtype.kind for a in read.params.values()} == {"i"}
    after, again = local_model.predictions(local_model.restored(read), dataset().test, told)
    assert np.array_equal(before, after)
    assert n_spikes == again > 0
    with pytest.raises(DataError, match="do not fit the layers"):
        local_model.predictions(layers, from_dense(np.ones((2, 4, 1, 3, 3), bool), [0, 1], order="BT"), told)
    with pytest.raises(DataError, match=r"conv1\.w: is not among the arrays"):
        msgspec.structs.replace(read, params={k: v for k, v in read.params.items() if k != "conv1.w"})
    for scales in ((0,), (0, 0, 0), (0, 5000)):
        with pytest.raises((ArtifactError, ConfigError, LoweringError)):
            local_model.restored(msgspec.structs.replace(read, network=msgspec.structs.replace(told, scales=scales)))


def test_the_experiment_in_the_repository_is_read() -> None:
    path = Path(__file__).parents[3] / "experiments" / "integer_decolle.toml"
    experiment = qspinn.load_experiment(path, ["learning.arithmetic=float", "learning.n_epochs=1"])
    assert isinstance(experiment, LocalExperiment)
    assert experiment.learning.arithmetic == "float"
    assert experiment.plan.rules[0].bits == 8
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        qspinn.load_experiment(path, ["learning.learnig_rate=1"])
    assert len(experiment.search.weight_bits) > 0


def qspinn_command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "qspinn", "train", "tiny.toml", "--out", str(folder / "out.safetensors"), *arguments]


@pytest.mark.slow
def test_train_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    said = []
    for arithmetic in ("integer", "float"):
        done = subprocess.run(
            qspinn_command(tmp_path, "--json", "--set", f"learning.arithmetic={arithmetic}"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
        trained = load_local(tmp_path / "out.safetensors")
        assert trained.network.learning.arithmetic == arithmetic
        assert trained.params["conv1.w"].dtype == (np.int16 if arithmetic == "integer" else np.float32)
    assert {s["split"] for s in said} == {"validation"}
    assert all(s["n"] == 22 and s["spikes_per_sample"] > 0 for s in said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.safetensors", "tiny.toml"]


@pytest.mark.soak
def test_a_killed_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    more = ("--set", "learning.n_epochs=60")
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run(qspinn_command(whole, *more), cwd=tmp_path, check=True, capture_output=True)
    broken = tmp_path / "broken"
    broken.mkdir()
    process = subprocess.Popen(
        qspinn_command(broken, *more), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    resume = broken / ".out.safetensors.training"
    end = time.monotonic() + 120
    while not resume.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert resume.exists()
    assert not (broken / "out.safetensors").exists()
    subprocess.run(qspinn_command(broken, *more), cwd=tmp_path, check=True, capture_output=True)
    assert (broken / "out.safetensors").read_bytes() == (whole / "out.safetensors").read_bytes()

"""Training that is interrupted ends bit for bit where it would have ended, and a foreign or damaged file is noticed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.errors import ArtifactError, RunError
from qspinn.learning.gradients import quantized
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet, frozen, restored
from qspinn.learning.gradients.training import fit, layer_ranges
from qspinn.networks import checkpoint
from qspinn.networks.models import ConvLink, DenseLink, chain
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from running import die_at

TRAINING = Supervision(n_epochs=4, batch=8, learning_rate=1e-2, shift=1, flip=True)
NETWORK = chain((1, 6, 6), (ConvLink(channels=3, norm=True), DenseLink(norm=True, bias=True)), n_classes=2, n_steps=4)


class Stop(Exception):
    """The interruption."""


def events(seed: int = 1) -> EventSet:
    rng = np.random.default_rng(seed)
    return from_dense(rng.random((24, 4, 1, 6, 6)) < 0.3, np.arange(24) % 2, order="BT")


def float_net() -> SurrogateNet:
    return SurrogateNet(NETWORK, seed=3)


def quant_net() -> quantized.QuantNet:
    plan = QuantPlan(
        rules=(QuantRule(tensor="*.w", bits=3, granularity=Granularity.PER_CHANNEL), QuantRule(tensor="*", bits=8))
    )
    return quantized.prepare(NETWORK, plan, float_net().params(), layer_ranges(float_net(), events()), seed=2)


def stop_after(n: int) -> Any:
    def progress(done: int, total: int, loss: float) -> None:
        if done == n:
            raise Stop

    return progress


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("make", [float_net, quant_net])
def test_interrupted_and_resumed_equals_uninterrupted(make: Any, tmp_path: Path) -> None:
    whole, path = make(), tmp_path / "training"
    told = fit(whole, events(), TRAINING, seed=7)
    for stop in (1, 3):
        with pytest.raises(Stop):
            fit(make(), events(), TRAINING, seed=7, progress=stop_after(stop), checkpoint=path)
    net, seen = make(), []
    fit(net, events(), TRAINING, seed=7, progress=lambda done, total, loss: seen.append(done), checkpoint=path)
    assert seen == [4]
    assert same(net, whole)
    assert not same(make(), whole)
    again = make()
    assert fit(again, events(), TRAINING, seed=7, checkpoint=path) == told
    assert same(again, whole)
    assert len(told) == 4


@pytest.mark.parametrize("change", ["seed", "data", "training", "weights"])
def test_a_file_of_another_training_is_named_and_kept(change: str, tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit(float_net(), events(), TRAINING, seed=7, checkpoint=path)
    training = msgspec.structs.replace(TRAINING, learning_rate=2e-2) if change == "training" else TRAINING
    data, seed = events(2 if change == "data" else 1), 8 if change == "seed" else 7
    start, before = SurrogateNet(NETWORK, seed=4) if change == "weights" else float_net(), path.read_bytes()
    with pytest.raises(RunError, match=r"training: is of another training, which was interrupted.*delete it"):
        fit(start, data, training, seed=seed, checkpoint=path)
    assert path.read_bytes() == before


def test_a_file_of_another_teacher_is_not_gone_on_from(tmp_path: Path) -> None:
    path, training = tmp_path / "training", msgspec.structs.replace(TRAINING, distillation=0.5)
    first, second = (SurrogateNet(NETWORK, seed=seed) for seed in (4, 5))
    fit(float_net(), events(), training, checkpoint=path, teacher=first)
    with pytest.raises(RunError, match="is of another training"):
        fit(float_net(), events(), training, checkpoint=path, teacher=second)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "training"
    fit(float_net(), events(), TRAINING, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"training: cannot be read as an interrupted training.*delete it"):
        fit(float_net(), events(), TRAINING, checkpoint=path)


def test_a_loss_that_is_not_finite_leaves_the_last_good_epoch(tmp_path: Path) -> None:
    path, net = tmp_path / "training", float_net()

    def spoil(done: int, total: int, loss: float) -> None:
        if done == 2:
            with torch.no_grad():
                net.out__bias[0] = torch.nan

    good = float_net()
    with pytest.raises(Stop):
        fit(good, events(), TRAINING, seed=7, progress=stop_after(2))
    with pytest.raises(RunError, match="epoch 3"):
        fit(net, events(), TRAINING, seed=7, progress=spoil, checkpoint=path)
    stored = float_net()
    with pytest.raises(Stop):
        fit(stored, events(), TRAINING, seed=7, progress=stop_after(3), checkpoint=path)
    whole = float_net()
    with pytest.raises(Stop):
        fit(whole, events(), TRAINING, seed=7, progress=stop_after(3))
    assert same(stored, whole)


def test_the_global_generator_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(1)
    fit(float_net(), events(), TRAINING, checkpoint=tmp_path / "training")
    mine = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(mine, torch.rand(3))


@pytest.mark.soak
def test_killed_training_loses_the_running_epoch_only(tmp_path: Path) -> None:
    """Processes die at a later write or renaming each, until one comes through; 0, 0, 1, 2, 4 epochs are kept."""
    path, out, told = tmp_path / "training", tmp_path / "done.safetensors", []
    for moment in range(10):
        done = subprocess.run(
            [sys.executable, __file__, str(path), str(out), str(moment)], stdout=subprocess.PIPE, text=True, check=False
        )
        told.append([int(epoch) for epoch in done.stdout.split()])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert told == [[], [], [1], [2], [3, 4], []]
    whole = float_net()
    fit(whole, events(), TRAINING, seed=7)
    assert same(restored(checkpoint.load_layers(out)), whole)


def test_a_checkpoint_keeps_everything_that_was_learned(tmp_path: Path) -> None:
    net = float_net()
    fit(net, events(), TRAINING)
    checkpoint.save(frozen(net), tmp_path / "net.safetensors")
    again = restored(checkpoint.load_layers(tmp_path / "net.safetensors"))
    assert same(again, net)
    assert again.norms["conv1__w"].running_mean.abs().sum() > 0
    data = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="checksum"):
        checkpoint.load_layers(tmp_path / "net.safetensors")
    with pytest.raises(ArtifactError, match="holds a network of layers; allowed: competing populations"):
        checkpoint.load(tmp_path / "net.safetensors")


if __name__ == "__main__":
    kept, out, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    module = float_net()
    die_at(moment, 9 * moment, kept.parent)
    fit(module, events(), TRAINING, seed=7, checkpoint=kept, progress=lambda done, total, loss: print(done, flush=True))
    checkpoint.save(frozen(module), out)

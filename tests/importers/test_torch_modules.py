"""Modules of torch without neurons, read in order: folds, sizes, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qspinn.errors import ConfigError, DataError, QSpinnError
from qspinn.importers import from_torch
from qspinn.importers.model import counts_of
from qspinn.networks.simulation import simulate

T, B = 5, 3


def filled(module: Any, seed: int) -> Any:
    """The module with parameters and statistics that are not what they begin with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in [*module.named_parameters(), *module.named_buffers()]:
            if x.is_floating_point():
                x.copy_(torch.rand(x.shape, generator=generator) + (0.5 if "var" in name else -0.4))
    return module


def counts(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).binomial(2, 0.4, (T, B, *shape)).astype(np.float64)


@pytest.mark.parametrize(
    ("modules", "shape"),
    [
        ([nn.Linear(4, 3)], (4,)),
        ([nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3)], (4,)),
        ([nn.Dropout(0.3), nn.Flatten(), nn.Linear(18, 3), nn.BatchNorm1d(3, affine=False), nn.Identity()], (2, 3, 3)),
        ([nn.Linear(18, 3)], (2, 3, 3)),
        ([nn.MaxPool2d(2, 1), nn.AvgPool2d((1, 2)), nn.Flatten(), nn.Linear(6, 3)], (2, 4, 3)),
        ([nn.Sequential(nn.AvgPool2d(2), nn.Sequential(nn.Flatten(), nn.Linear(2, 2)))], (2, 3, 2)),
        ([nn.Conv2d(2, 4, (2, 3), stride=(2, 1), padding=(1, 0), groups=2)], (2, 4, 3)),
        ([nn.Conv2d(2, 4, 3, padding="same", dilation=(1, 2)), nn.BatchNorm2d(4)], (2, 4, 3)),
    ],
    ids=str,
)
def test_weights_that_no_neurons_follow_add_up(modules: list[Any], shape: tuple[int, ...]) -> None:
    modules = [filled(m, seed).double() for seed, m in enumerate(modules)]
    model = from_torch(modules, shape=shape, n_steps=T, max_count=2)
    x = counts(*shape)
    given = torch.from_numpy(x).flatten(0, 1)
    for m in modules:
        if isinstance(m, nn.Linear):
            given = given.flatten(1)
        given = m.eval()(given)
    expected = given.unflatten(0, (T, B)).sum(0).flatten(1).detach().numpy()
    scores = simulate(model.network, model.params, x.reshape(T, B, -1)).scores
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    assert any("added up" in note.text for note in model.notes)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 3), nn.Linear(3, 2)


def not_finite() -> nn.Linear:
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight[1, 2] = float("nan")
    return linear


def hooked() -> nn.Linear:
    linear = nn.Linear(4, 3)
    linear.register_forward_hook(lambda *given: None)
    return linear


def hooked_before() -> nn.Linear:
    linear = nn.Linear(4, 3)
    linear.register_forward_pre_hook(lambda module, given: (given[0] * 3,))
    return linear


def replaced() -> nn.Linear:
    linear = nn.Linear(4, 3)
    linear.forward = lambda x: x[..., :3]  # type: ignore[method-assign]
    return linear


class Sequential(nn.Sequential):
    """A class of torch's name that computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (Branches(), ("modules", "[net.fc1, net.fc2]")),
        ([], ("modules", "hold no neurons")),
        ("fc", ("modules[0]", "no torch module")),
        (7, ("modules", "are no modules")),
        ([nn.Linear(5, 3)], ("modules[0] (Linear).in_features", "5", "4 = 4 * 1 * 1")),
        ([nn.Linear(4, 3), nn.Linear(3, 2)], ("modules[1] (Linear)", "without neurons", "modules[0] (Linear)")),
        ([nn.Linear(4, 3), nn.MaxPool2d(1)], ("modules[1] (MaxPool2d)", "without neurons")),
        ([nn.BatchNorm1d(4)], ("modules[0] (BatchNorm1d)", "normalizes spikes")),
        ([nn.Linear(4, 3), nn.BatchNorm1d(2)], ("modules[1] (BatchNorm1d)", "other channels", "2")),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)], ("track_running_stats",)),
        ([nn.Linear(4, 3), nn.ReLU()], ("modules[1] (ReLU)", "cannot be imported", "torch.nn")),
        ([nn.Conv2d(1, 2, 1)], ("modules[0] (Conv2d).in_channels", "1", "4")),
        ([nn.Conv2d(4, 2, 2)], ("modules[0] (Conv2d)", "(2, 2)")),
        ([nn.Conv2d(4, 2, 1, padding_mode="circular")], ("padding_mode", "circular", "zeros")),
        ([nn.Conv2d(4, 2, 2, padding="same")], ("padding", "odd kernels")),
        ([nn.AvgPool2d(2)], ("modules[0] (AvgPool2d)", "(2, 2)")),
        ([nn.MaxPool2d(1, padding=0, ceil_mode=True)], ("ceil_mode", "True", "False")),
        ([nn.Flatten(0)], ("start_dim", "(0, -1)")),
        ([not_finite()], ("modules[0] (Linear).weight", "nan")),
        ([hooked()], ("modules[0] (Linear)", "hooks")),
        ([hooked_before()], ("modules[0] (Linear)", "hooks")),
        ([replaced()], ("modules[0] (Linear)", "forward pass of its own")),
        (Sequential(nn.Linear(4, 3)), ("modules", "Sequential", "order")),
        ([Sequential(nn.Linear(4, 3))], ("modules[0] (Sequential)", "cannot be imported")),
        ([nn.Linear(4, 3, dtype=torch.complex64)], ("modules[0] (Linear).weight", "complex")),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_by_its_place(modules: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        from_torch(modules, shape=(4,), n_steps=T)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("shape", [(), (2, 3), (0,), (2.5,), "4"])
def test_shapes_of_inputs(shape: Any) -> None:
    with pytest.raises(QSpinnError, match="shape"):
        from_torch([nn.Linear(4, 3)], shape=shape, n_steps=T)


def test_names_of_a_dict_are_those_of_messages() -> None:
    with pytest.raises(ConfigError, match=r"modules\['fc'\] \(Linear\)"):
        from_torch({"fc": nn.Linear(5, 3)}, shape=(4,), n_steps=T)


def test_inputs_to_verify_are_counts_with_steps_first() -> None:
    modules = [nn.Linear(4, 3)]
    model = from_torch(modules, shape=(4,), n_steps=T)
    for x, words in (
        (np.zeros((B, T, 4)), "steps come before samples"),
        (np.zeros((T, B, 5)), r"\[T, B"),
        (np.full((T, B, 4), 0.5), "no count"),
        (np.full((T, B, 4), 2.0), "inputs"),
        (np.full((T, B, 4), np.nan), "inputs"),
    ):
        with pytest.raises(DataError, match=words):
            counts_of(model.network, x)
    with pytest.raises(ConfigError, match="not what the model was read from"):
        model.verify([filled(nn.Linear(4, 3), 9)], np.zeros((T, B, 4)))
    with pytest.raises(ConfigError, match="no neurons"):
        model.verify(modules, np.zeros((T, B, 4)))

"""Supervised training on events: it learns, repeats by seed, refuses what does not fit, and leads to integers."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch

from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.errors import ConfigError, DataError
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.learning.gradients.training import (
    Supervision,
    channel_rates,
    distilled,
    fit,
    layer_ranges,
    regulation,
    scores,
)
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.quantization.layered import lower_layers
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.rates import measured_rates, restore_rates
from qspinn.runtime import run


def bars(n: int, seed: int) -> EventSet:
    """Horizontal and vertical bars that move by a pixel a step, with noise: classes 0 and 1."""
    rng = np.random.default_rng(seed)
    raster, labels = np.zeros((n, 8, 1, 8, 8), np.uint8), np.arange(n) % 2
    for b in range(n):
        start = rng.integers(8)
        for t in range(8):
            place = (start + t) % 8
            raster[b, t, 0, place] = 1
            raster[b, t, 0] = raster[b, t, 0].T if labels[b] else raster[b, t, 0]
    raster |= rng.random(raster.shape) < 0.05
    return from_dense(raster, labels, order="BT")


def network(**neuron: float) -> LayeredNetwork:
    n = Leaky(**{"decay": 0.7, **neuron})
    return LayeredNetwork(
        name="bars",
        input=EventInput(shape=(1, 8, 8)),
        n_steps=8,
        readout=NeuronReadout(source="out"),
        layers=(Layer(name="a", shape=(6, 3, 3), neuron=n), Layer(name="out", shape=(2, 1, 1), neuron=n)),
        connections=(
            Conv2d(source="input", target="a", kernel=(4, 4), stride=(2, 2), norm=True),
            Linear(source="a", target="out", norm=True),
        ),
    )


def trained(seed: int = 0, **neuron: float) -> SurrogateNet:
    net = SurrogateNet(network(**neuron), seed=seed)
    fit(net, bars(256, 1), Supervision(n_epochs=16, batch=32, learning_rate=1e-2, shift=1, flip=True), seed=seed)
    return net


@pytest.mark.parametrize("neuron", [{}, {"current_decay": 0.5}], ids=str)
def test_from_events_to_integers(neuron: dict[str, float]) -> None:
    net, test = trained(**neuron), bars(200, 2)
    right = scores(net, test).argmax(axis=1) == test.labels
    assert right.mean() > 0.95
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="*.w*", bits=6, granularity=Granularity.PER_CHANNEL),
            QuantRule(tensor="*.v", bits=10),
            QuantRule(tensor="*", bits=12),
        )
    )
    program = lower_layers(net.network, net.params(), plan, layer_ranges(net, bars(100, 3)))
    agree = run(program, test.spikes()).predictions() == test.labels
    assert agree.mean() > 0.93


@pytest.mark.slow
def test_training_repeats_by_seed() -> None:
    first, again, other = (trained(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["a__w"], other["a__w"])


def test_progress_is_told() -> None:
    seen: list[tuple[int, int, float]] = []
    fit(
        SurrogateNet(network()),
        bars(40, 1),
        Supervision(n_epochs=2, batch=16),
        progress=lambda done, total, loss: seen.append((done, total, loss)),
    )
    assert [s[:2] for s in seen] == [(1, 2), (2, 2)]
    assert all(0 < s[2] < 10 for s in seen)


def test_spike_regulation_by_hand() -> None:
    rates = {"a": torch.tensor(0.1), "b": torch.tensor(0.75), "out": torch.tensor(0.0)}
    layers = tuple(Layer(name=n, shape=(2, 1, 1)) for n in ("a", "b", "out"))
    pairs = (("input", "a"), ("a", "b"), ("b", "out"))
    net = LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 1, 1)),
        layers=layers,
        readout=NeuronReadout(source="out"),
        connections=tuple(Linear(source=s, target=t) for s, t in pairs),
    )
    assert regulation(net, rates, 0.5).item() == pytest.approx(0.5 * (0.16 + 0.0625))


def test_spike_regulation_moves_rates_to_one_half() -> None:
    """And every epoch says how often each layer spiked."""
    rates = []
    for strength in (0.0, 30.0):
        net = SurrogateNet(network(), seed=1)
        seen = fit(net, bars(128, 1), Supervision(n_epochs=8, batch=32, learning_rate=1e-2, spike_regulation=strength))
        assert len(seen) == 8
        assert set(seen[0].rates) == {"a", "out"}
        assert seen[-1].rates["a"] != seen[0].rates["a"]
        rates.append(seen[-1].rates["a"])
    assert abs(rates[1] - 0.5) < 0.75 * abs(rates[0] - 0.5)


def test_distillation_by_hand() -> None:
    logits, answers = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 2.0], [0.5, 0.5]])
    p, q = torch.tensor([1.0, math.e]) / (1 + math.e), torch.tensor([math.e**0.5, 1.0]) / (1 + math.e**0.5)  # T = 2
    assert distilled(logits, answers, 2.0).item() == pytest.approx((p * (p / q).log()).sum().item() / 2 * 4, rel=1e-5)
    assert distilled(answers, answers, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_distillation_follows_the_teacher_instead_of_the_labels() -> None:
    teacher, data = trained(), bars(128, 1)
    wrong = msgspec.structs.replace(data, labels=1 - data.labels)
    agreement = []
    for share in (0.0, 1.0):
        net = SurrogateNet(network(), seed=1)
        training = Supervision(n_epochs=8, batch=32, learning_rate=1e-2, distillation=share)
        fit(net, wrong, training, teacher=teacher if share else None)
        agreement.append((scores(net, data).argmax(1) == scores(teacher, data).argmax(1)).mean())
    assert agreement[0] < 0.5 < 0.8 < agreement[1]


def test_distillation_needs_a_teacher() -> None:
    with pytest.raises(ConfigError, match=r"training.distillation: there is no trained network.*got 0.5"):
        fit(SurrogateNet(network()), bars(8, 1), Supervision(distillation=0.5))


def test_events_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"do not fit the network's input; got \(\(1, 8, 8\), 4\)"):
        fit(SurrogateNet(network()), bars(8, 1).rebinned(2), Supervision())


def test_events_are_moved_in_finer_bins() -> None:
    fine = bars(64, 1)
    halved = msgspec.structs.replace(network(), n_steps=4)

    def weights(data: EventSet, per_step: int, jitter: float = 0.0) -> torch.Tensor:
        net = SurrogateNet(halved)
        training = Supervision(n_epochs=1, batch=32, learning_rate=1e-2, jitter=jitter)
        fit(net, data, training, per_step=per_step)
        return net.a__w.detach()

    assert torch.equal(weights(fine, 2), weights(fine.rebinned(2), 1))
    assert torch.equal(weights(fine, 2, 0.5), weights(fine, 2, 0.5))
    assert not torch.equal(weights(fine, 2, 0.5), weights(fine, 2))
    with pytest.raises(DataError, match=r"do not fit the network's input; got \(\(1, 8, 8\), 3\)"):
        weights(fine, 3)


def test_the_derivative_may_be_flatter() -> None:
    data, training = bars(32, 1), Supervision(n_epochs=1, batch=32, learning_rate=1e-2)
    made, told, plain = SurrogateNet(network(), width=0.5), SurrogateNet(network()), SurrogateNet(network())
    fit(made, data, training)
    fit(told, data, msgspec.structs.replace(training, width=0.5))
    fit(plain, data, training)
    assert made.a__w.grad is not None
    assert torch.equal(made.a__w.grad, told.a__w.grad)
    assert not torch.equal(made.a__w.grad, plain.a__w.grad)


def test_long_gradients_are_shortened() -> None:
    data, training = bars(32, 1), Supervision(n_epochs=1, batch=32)
    plain, long, short = (SurrogateNet(network()) for _ in range(3))
    fit(plain, data, training)
    fit(long, data, msgspec.structs.replace(training, clip=1e6))
    assert torch.equal(plain.a__w, long.a__w), "one short enough stays as it is"
    fit(short, data, msgspec.structs.replace(training, clip=1e-3))
    assert plain.a__w.grad is not None
    assert plain.a__w.grad.norm() > 1e-3
    lengths = [p.grad.norm() for p in short.parameters() if p.grad is not None]
    assert torch.stack(lengths).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_weights_that_are_not_finite_are_not_trained() -> None:
    net = SurrogateNet(network())
    with torch.no_grad():
        net.out__w[0, 0] = torch.nan
    before = net.a__w.clone()
    with pytest.raises(DataError, match="out__w: holds NaN or infinity"):
        fit(net, bars(64, 1), Supervision(n_epochs=2, batch=32))
    assert torch.equal(net.a__w, before)


def test_ranges_are_the_largest_sizes() -> None:
    net, data = trained(current_decay=0.5), bars(30, 4)
    whole = layer_ranges(net, data)
    out = net(torch.from_numpy(data.dense().reshape(8, 30, -1)), potentials=True)
    for name in ("a", "out"):
        assert whole.v[name] == pytest.approx(out.potentials[name].abs().max().item())
        assert whole.i[name] == pytest.approx(out.currents[name].abs().max().item())
        sizes = out.potentials[name].abs().flatten().detach().numpy()
        assert whole.sizes[name].quantile(0.9) == pytest.approx(np.quantile(sizes, 0.9), abs=float(sizes.max()) / 500)


def test_channel_rates_are_those_of_the_spikes_and_come_back_after_quantization() -> None:
    net, data = SurrogateNet(network(), gain=12.0), bars(250, 5)  # more than one batch
    wanted = channel_rates(net, data)
    with torch.no_grad():
        spikes = net(torch.from_numpy(data.dense().reshape(8, 250, -1))).spikes
    for name in ("a", "out"):
        assert wanted[name] == pytest.approx(spikes[name].numpy().mean(axis=(0, 1, 3, 4)), abs=1e-6)
    coarse = QuantPlan(
        rules=(QuantRule(tensor="*.w*", bits=2), QuantRule(tensor="*.v", bits=8), QuantRule(tensor="*", bits=10))
    )
    program = lower_layers(net.network, net.params(), coarse, layer_ranges(net, data))
    restored = restore_rates(program, data.spikes(), wanted)
    for name in ("a", "out"):
        before, after = (
            np.abs(measured_rates(p, name, data.spikes(), len(wanted[name])) - wanted[name]).sum()
            for p in (program, restored)
        )
        assert after < before / 4, name
    with pytest.raises(DataError, match="holds no recordings"):
        channel_rates(net, data.slice(0, 0))

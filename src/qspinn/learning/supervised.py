"""Supervised training of layered networks on event sets, and the ranges that lowering needs; needs the torch extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qspinn.calibrators import LayerRanges, Sizes, sizes_of
from qspinn.data.event_set import EventSet
from qspinn.errors import DataError, RunError
from qspinn.learning.quantized import QuantNet
from qspinn.learning.surrogate import SurrogateNet
from qspinn.network import _need
from qspinn.records import Record

Progress = Callable[[int, int, float], None]
BATCH = 200  # samples at once where nothing is learned


class Supervision(Record, frozen=True):
    """How a network is trained: Adam with a cosine schedule on the cross-entropy of gain * scores.

    Attributes:
        n_epochs, batch: passes over the data, samples per update.
        learning_rate: at the start; it falls to zero along half a cosine.
        gain: what scores (spikes or potential per step) are multiplied by before the softmax.
        shift: events are moved by up to so many pixels in x and y, anew in every epoch; 0 for none.
        flip: half of the samples are mirrored left to right, anew in every epoch.
    """

    n_epochs: int = 8
    batch: int = 64
    learning_rate: float = 3e-3
    gain: float = 10.0
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        _need(0 <= self.n_epochs <= 10_000, "training.n_epochs", self.n_epochs, "0..10000")
        _need(1 <= self.batch <= 1 << 16, "training.batch", self.batch, "1..65536")
        _need(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "> 0")
        _need(self.gain > 0, "training.gain", self.gain, "> 0")
        _need(0 <= self.shift <= 64, "training.shift", self.shift, "0..64")


def fit(
    net: SurrogateNet | QuantNet, data: EventSet, training: Supervision, *, seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Trains the module in place; deterministic by seed on one machine and torch version.

    Args:
        progress: called after every epoch with (epochs done, epochs in all, mean loss).

    Raises:
        DataError: the events do not fit the network's input.
        RunError: the loss became NaN or infinite; names the epoch. The module keeps the weights of the epoch before.
    """
    if data.shape != net.network.input.shape or data.n_steps != net.network.n_steps:
        raise DataError("events", "do not fit the network's input", got=(data.shape, data.n_steps),
                        allowed=f"{net.network.input.shape} over {net.network.n_steps} steps")
    rng = np.random.default_rng([seed, 21])
    optimizer = torch.optim.Adam(net.parameters(), training.learning_rate)
    per_epoch = max(1, data.n_samples // training.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, training.n_epochs * per_epoch))
    net.train()
    for epoch in range(training.n_epochs):
        good, total = {k: v.clone() for k, v in net.state_dict().items()}, 0.0
        for raster, labels in _batches(data, training, rng):
            loss = functional.cross_entropy(net(raster).scores * training.gain, labels)
            if not torch.isfinite(loss):
                net.load_state_dict(good)
                raise RunError(f"epoch {epoch + 1}", "the loss is not finite", got=float(loss.detach()),
                               fix="lower training.learning_rate; the weights are those of the epoch before")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if progress:
            progress(epoch + 1, training.n_epochs, total / per_epoch)
    net.eval()


def _batches(data: EventSet, training: Supervision, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of an epoch in an order drawn anew, augmented; a rest smaller than a batch is left out."""
    order = rng.permutation(data.n_samples)
    size = min(training.batch, data.n_samples)
    for at in range(0, data.n_samples - size + 1, size):
        part = data.take(order[at : at + size])
        if training.shift:
            dx, dy = rng.integers(-training.shift, training.shift + 1, (2, size))
            part = part.shifted(dx, dy)
        if training.flip:
            part = part.flipped(rng.random(size) < 0.5)
        yield _raster(part), torch.from_numpy(part.labels)


def _raster(data: EventSet) -> Tensor:
    """Events as numbers, uint8 [T, B, n]."""
    return torch.from_numpy(data.dense().reshape(data.n_steps, data.n_samples, -1))


def scores(net: SurrogateNet | QuantNet, data: EventSet) -> NDArray[np.float32]:
    """Class scores of the float network, [B, n_classes]."""
    net.eval()
    with torch.no_grad():
        parts = [net(_raster(data.slice(a, min(a + BATCH, data.n_samples)))).scores.numpy()
                 for a in range(0, data.n_samples, BATCH)]
    return np.concatenate(parts)


def layer_ranges(net: SurrogateNet, data: EventSet) -> LayerRanges:
    """The ranges of potentials and synaptic currents on calibration data.

    Raises:
        DataError: there are no samples.
    """
    if data.n_samples == 0:
        raise DataError("calibration data", "holds no samples")
    net.eval()
    v: dict[str, Sizes] = {}
    i: dict[str, float] = {}
    with torch.no_grad():
        for a in range(0, data.n_samples, BATCH):
            out = net(_raster(data.slice(a, min(a + BATCH, data.n_samples))))
            for name, x in out.potentials.items():
                new = sizes_of(x.numpy())
                v[name] = v[name].merged(new) if name in v else new
            for name, x in out.currents.items():
                i[name] = max(i.get(name, 0.0), x.abs().max().item())
    return LayerRanges(v={name: sizes.top for name, sizes in v.items()}, i=i, sizes=v)


def channel_rates(net: SurrogateNet | QuantNet, data: EventSet) -> dict[str, NDArray[np.float64]]:
    """Mean spikes per neuron and step of each channel [C] of every spiking layer, by name: the targets of
    `qspinn.rebalance.restore_rates`.

    Raises:
        DataError: there are no samples.
    """
    if data.n_samples == 0:
        raise DataError("calibration data", "holds no samples")
    net.eval()
    total: dict[str, NDArray[np.float64]] = {}
    with torch.no_grad():
        for a in range(0, data.n_samples, BATCH):
            out = net(_raster(data.slice(a, min(a + BATCH, data.n_samples))))
            for name in out.rates:
                of_samples = out.spikes[name].double().mean(dim=(0, 3, 4)).sum(dim=0).numpy()
                total[name] = total.get(name, 0.0) + of_samples
    return {name: x / data.n_samples for name, x in total.items()}

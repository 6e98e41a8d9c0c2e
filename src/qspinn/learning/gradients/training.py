"""Supervised training of layered networks on event sets, and the ranges that lowering needs; needs the torch extra."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qspinn.arrays import integer, need_kind
from qspinn.data.events.event_set import EventSet
from qspinn.errors import ConfigError, DataError, LoweringError, RunError
from qspinn.learning.device import device_of, need_gradients, need_ready, not_finite, repeatable
from qspinn.learning.gradients import resume
from qspinn.learning.gradients.inputs import need_events
from qspinn.learning.gradients.quantized import QuantNet
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.networks.layered import LayeredNetwork, Shape
from qspinn.quantization.ranges import LayerRanges, Sizes, sizes_of

Progress = Callable[[int, int, float], None]
BATCH = 200  # samples at once where nothing is learned


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """Means over the batches of an epoch: the loss, and spikes per neuron and step of every spiking layer."""

    loss: float
    rates: dict[str, float]


def fit(
    net: SurrogateNet | QuantNet,
    data: EventSet,
    training: Supervision,
    *,
    seed: int = 0,
    per_step: int = 1,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    teacher: SurrogateNet | None = None,
) -> list[Epoch]:
    """Trains the module in place, on the device it lies on, and says what was seen of every epoch; deterministic by
    seed on one machine and torch version.

    Args:
        per_step: so many bins of the data make one step of the network, once events have been moved about in them.
        progress: called after every epoch with (epochs done, epochs in all, mean loss).
        checkpoint: file written after every epoch. Where it is there already, training goes on
            from it, and ends bit for bit where it would have ended uninterrupted.
        teacher: the network whose answers `training.distillation` follows; it is evaluated, not trained.

    Raises:
        ConfigError: distillation is asked for without a teacher, or there is a teacher that nothing is asked of, of
            other inputs or classes, or the module itself; the module does not compute in float32, or has nothing to
            learn, or gradients are switched off.
        DataError: the events do not fit the network's input, there are none, a label is no class of the network, or an
            array of the module is not finite to begin with.
        RunError: the loss or an array became NaN or infinite, or left the integer grid; the epoch is named, and the
            module keeps the weights of the epoch before; or the checkpoint is of another training.
        ArtifactError: the checkpoint is damaged, or cannot be written.
    """
    integer("seed", seed, low=0, high=(1 << 32) - 1)
    integer("per_step", per_step, low=1, high=1 << 15)
    need_kind("net", net, SurrogateNet | QuantNet)
    need_kind("training", training, Supervision)
    need_kind("teacher", teacher, SurrogateNet | None)
    need_events(net.network, data, per_step)
    _need_labels(net.network, data)
    need_ready(net)
    need_gradients(net)
    _need_teacher(net, training, teacher)
    per_epoch = max(1, data.n_samples // training.batch)
    optimizer = torch.optim.Adam(net.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, training.n_epochs * per_epoch))
    state = resume.Training(net, optimizer, schedule, np.random.default_rng([seed, 21]), [])
    with _training(net, training.width, teacher), repeatable(device_of(net), seed):
        key = resume.key_of(net, data, training, seed, per_step, teacher) if checkpoint else ""
        done = resume.restore(checkpoint, key, state) if checkpoint else 0
        for epoch in range(done, training.n_epochs):
            loss = _whole_epoch(state, data, training, epoch, per_step, teacher)
            if checkpoint:
                resume.store(checkpoint, key, epoch + 1, state)
            if progress:
                progress(epoch + 1, training.n_epochs, loss)
    return [Epoch(loss=e["loss"], rates=e["rates"]) for e in state.seen]


@contextlib.contextmanager
def _training(net: SurrogateNet | QuantNet, width: float, teacher: SurrogateNet | None) -> Iterator[None]:
    """Gives a module the width of a training's derivative, and puts a teacher into evaluation. However training ends,
    the module has its own width again and is ready to answer, and the teacher is in the mode that it was in."""
    own, mode = net.width, teacher is not None and teacher.training
    net.width = width or own
    if teacher is not None:
        teacher.eval()
    try:
        yield
    finally:
        net.width = own
        net.eval()
        if teacher is not None:
            teacher.train(mode)


def _need_teacher(net: SurrogateNet | QuantNet, training: Supervision, teacher: SurrogateNet | None) -> None:
    """Checks that there is a teacher where distillation is asked for, and only there, which can answer for this module.

    Raises:
        ConfigError: there is none, nothing is asked of it, it is the module itself, or takes or answers something else.
        DataError: an array of the teacher is not finite.
    """
    if teacher is None:
        if training.distillation:
            raise ConfigError(
                "training.distillation",
                "there is no trained network to learn from",
                got=training.distillation,
                fix="search.itq.distillation, for training that goes on from one",
            )
        return
    if not training.distillation:
        raise ConfigError(
            "teacher",
            "is not listened to",
            got="training.distillation = 0",
            fix="training.distillation above 0, or no teacher",
        )
    if teacher is net:
        raise ConfigError("teacher", "is the network that learns", fix="copy.deepcopy(net), or another network")
    need_ready(teacher)
    mine, theirs = _ends(net.network), _ends(teacher.network)
    for what, got, allowed in zip(("input.shape", "n_steps", "classes"), theirs, mine, strict=True):
        if got != allowed:
            raise ConfigError(
                f"teacher: {what}", "is not that of the network that learns", got=got, allowed=str(allowed)
            )
    if device_of(teacher) != device_of(net):
        raise ConfigError(
            "teacher",
            "lies on another device than the network that learns",
            got=str(device_of(teacher)),
            allowed=str(device_of(net)),
            fix=f'teacher.to("{device_of(net)}")',
        )


def _ends(network: LayeredNetwork) -> tuple[Shape, int, int]:
    """Shape of the input, number of steps, and number of classes of a network."""
    return network.input.shape, network.n_steps, _n_classes(network)


def _n_classes(network: LayeredNetwork) -> int:
    """The number of neurons that are read out, one for each class."""
    return next(x.n for x in network.layers if x.name == network.readout.source)


def _need_labels(network: LayeredNetwork, data: EventSet) -> None:
    """Checks that every label is one of the classes that are read out, one for each neuron of the last layer."""
    n_classes = _n_classes(network)
    bad = (data.labels < 0) | (data.labels >= n_classes)
    if bad.any():
        at = int(bad.argmax())
        raise DataError(
            f"events.labels[{at}]",
            "is no class of the network",
            got=int(data.labels[at]),
            allowed=f"0..{n_classes - 1}",
            fix="give the layer that is read a neuron for each class",
        )


def regulation(network: LayeredNetwork, rates: dict[str, Tensor], strength: float) -> Tensor:
    """strength * sum of (rate - 1/2)**2 over the spiking layers that are not read."""
    hidden = [rate for name, rate in rates.items() if name != network.readout.source]
    return strength * sum(((rate - 0.5) ** 2 for rate in hidden), start=torch.zeros(()))


def distilled(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """T**2 * KL(softmax(answers / T) || softmax(logits / T)), the mean over samples [B, n_classes]."""
    mine, theirs = (functional.log_softmax(x / temperature, dim=1) for x in (logits, answers))
    return functional.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature**2


def _whole_epoch(
    state: resume.Training,
    data: EventSet,
    training: Supervision,
    epoch: int,
    per_step: int,
    teacher: SurrogateNet | None,
) -> float:
    """Mean loss of one pass over the data, after which the module is sound; else it is as it was before.

    Raises:
        RunError: names the epoch.
    """
    net = state.net
    good = {k: v.clone() for k, v in net.state_dict().items()}
    try:
        loss = _epoch(state, data, training, epoch, per_step, teacher)
        _need_sound(net)  # the last update shows in no loss of this epoch
    except _Diverged as error:
        net.load_state_dict(good)
        raise RunError(
            f"epoch {epoch + 1}",
            error.problem,
            got=error.got,
            fix="lower training.learning_rate; the weights are those of the epoch before",
        ) from None
    return loss


class _Diverged(RunError):
    """Training that left the numbers that a network can have."""


def _need_sound(net: SurrogateNet | QuantNet) -> None:
    """Checks that the arrays of a module are finite, and that those on the grid still have steps.

    Raises:
        _Diverged: names the array or the layer.
    """
    if (name := not_finite(net)) is not None:
        raise _Diverged(name, f"{name.replace('__', '.')} is not finite", got="NaN or infinity")
    if isinstance(net, QuantNet):
        with torch.no_grad(), _leaving_the_grid():
            for layer in net.network.layers:
                net.grid(layer.name)


@contextlib.contextmanager
def _leaving_the_grid() -> Iterator[None]:
    """Errors of codes that cannot be made, as what they mean while training."""
    try:
        yield
    except (ConfigError, LoweringError) as error:
        raise _Diverged(error.where, f"weights or steps left the integer grid ({error})") from None


def _epoch(
    state: resume.Training,
    data: EventSet,
    training: Supervision,
    epoch: int,
    per_step: int,
    teacher: SurrogateNet | None,
) -> float:
    """Mean loss of one pass over the data."""
    net, losses, place = state.net, [], device_of(state.net)
    totals = dict.fromkeys((x.name for x in net.network.layers if x.neuron.spiking), 0.0)
    net.train()
    if isinstance(net, QuantNet):
        net.anneal(epoch / training.n_epochs)
    for raster, labels in _batches(data, training, state.rng, per_step, net.network.input.max_count):
        with _leaving_the_grid():
            out = net.run(raster.to(place))
        logits = out.scores * training.gain
        loss = functional.cross_entropy(logits, labels.to(place))
        if training.distillation and teacher is not None:
            with torch.no_grad():
                answers = teacher.run(raster.to(place)).scores * training.gain
            loss = torch.lerp(loss, distilled(logits, answers, training.temperature), training.distillation)
        if training.spike_regulation:
            loss = loss + regulation(net.network, out.rates, training.spike_regulation)
        if not torch.isfinite(loss):
            raise _Diverged("loss", "the loss is not finite", got=float(loss.detach()))
        state.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if training.clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), training.clip)
        state.optimizer.step()
        state.schedule.step()
        losses.append(loss.item())
        for name in totals:
            totals[name] += out.rates[name].item()
    n = max(1, len(losses))
    state.seen.append({"loss": sum(losses) / n, "rates": {name: total / n for name, total in totals.items()}})
    return sum(losses) / n


def _batches(
    data: EventSet, training: Supervision, rng: np.random.Generator, per_step: int, most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of an epoch in an order drawn anew, augmented; a rest smaller than a batch is left out. Where moved
    events meet, their count is held at `most`, which is all that the input takes."""
    order = rng.permutation(data.n_samples)
    size = min(training.batch, data.n_samples)
    for at in range(0, data.n_samples - size + 1, size):
        part = data.take(order[at : at + size])
        if training.shift:
            dx, dy = rng.integers(-training.shift, training.shift + 1, (2, size))
            part = part.shifted(dx, dy)
        if training.flip:
            part = part.flipped(rng.random(size) < 0.5)
        if training.delay:
            part = part.delayed(rng.integers(-training.delay, training.delay + 1, size))
        if training.jitter:
            by = np.rint(rng.normal(0.0, training.jitter, part.n_events)).astype(np.int64)
            part = part.jittered(by, most=most)
        if training.drop:
            part = part.thinned(rng.random(part.n_events) >= training.drop)
        yield _raster(part.rebinned(per_step, most=most)), torch.tensor(part.labels)


def _raster(data: EventSet) -> Tensor:
    """Events as numbers, uint8 [T, B, n]."""
    return torch.from_numpy(data.dense().reshape(data.n_steps, data.n_samples, -1))


def scores(net: SurrogateNet | QuantNet, data: EventSet) -> NDArray[np.float32]:
    """Class scores of the float network, [B, n_classes]; errors as for `responses`."""
    return responses(net, data)[0]


def responses(net: SurrogateNet | QuantNet, data: EventSet) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Class scores [B, n_classes] of the float network, and mean spikes per neuron and step of every spiking layer.

    Raises:
        DataError: the recordings do not fit the network's input, or there are none, or an array is not finite.
    """
    need_events(net.network, data)
    need_ready(net)
    net.eval()
    parts, totals = [], dict.fromkeys((x.name for x in net.network.layers if x.neuron.spiking), 0.0)
    with torch.no_grad():
        for a in range(0, data.n_samples, BATCH):
            block = data.slice(a, min(a + BATCH, data.n_samples))
            out = net.run(_raster(block).to(device_of(net)))
            parts.append(out.scores.cpu().numpy())
            for name in totals:
                totals[name] += float(out.rates[name]) * block.n_samples
    return np.concatenate(parts), {name: total / data.n_samples for name, total in totals.items()}


def layer_ranges(net: SurrogateNet, data: EventSet) -> LayerRanges:
    """The ranges of potentials, synaptic currents and adaptive thresholds on calibration data.

    Raises:
        ConfigError: not a SurrogateNet.
        DataError: the recordings do not fit the network's input, or there are none, or an array is not finite.
    """
    need_kind("net", net, SurrogateNet)
    need_events(net.network, data)
    need_ready(net)
    net.eval()
    v: dict[str, Sizes] = {}
    i: dict[str, float] = {}
    theta: dict[str, float] = {}
    with torch.no_grad():
        for a in range(0, data.n_samples, BATCH):
            block = _raster(data.slice(a, min(a + BATCH, data.n_samples))).to(device_of(net))
            out = net.run(block, potentials=True)
            for name, x in out.potentials.items():
                new = sizes_of(x.cpu().numpy())
                v[name] = v[name].merged(new) if name in v else new
            for largest, seen in ((i, out.currents), (theta, out.thetas)):
                for name, x in seen.items():
                    largest[name] = max(largest.get(name, 0.0), x.abs().max().item())
    return LayerRanges(v={name: sizes.top for name, sizes in v.items()}, i=i, theta=theta, sizes=v)


def channel_rates(net: SurrogateNet | QuantNet, data: EventSet) -> dict[str, NDArray[np.float64]]:
    """Mean spikes per neuron and step of each channel [C] of every spiking layer, by name: the targets of
    `qspinn.quantization.rates.restore_rates`.

    Raises:
        DataError: the recordings do not fit the network's input, or there are none, or an array is not finite.
    """
    need_events(net.network, data)
    need_ready(net)
    net.eval()
    total: dict[str, NDArray[np.float64]] = {}
    with torch.no_grad():
        for a in range(0, data.n_samples, BATCH):
            out = net.run(_raster(data.slice(a, min(a + BATCH, data.n_samples))).to(device_of(net)))
            for name in out.rates:
                of_samples = out.spikes[name].double().mean(dim=(0, 3, 4)).sum(dim=0).cpu().numpy()
                total[name] = total.get(name, 0.0) + of_samples
    return {name: x / data.n_samples for name, x in total.items()}

"""Training of local layers in either arithmetic: epochs, the file an interrupted training goes on from, predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qspinn import former
from qspinn.arrays import integer, need_kind
from qspinn.data.events.event_set import EventSet
from qspinn.errors import ArtifactError, DataError, RunError
from qspinn.files import entry_of, write_atomic
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, raster_of
from qspinn.networks.layered import Shape
from qspinn.networks.local import LocalNetwork
from qspinn.optional import module
from qspinn.quantization.plan import QuantPlan
from qspinn.records.record import canonical_json

Progress = Callable[[int, int], None]
BATCH = 100
"""Samples at once where nothing is learned."""


class Layers(Protocol):
    """Layers that learn; see `floats.FloatLayers` and `integers.IntegerLayers`."""

    def learn(self, raster: NDArray[np.uint8], labels: NDArray[np.int64], epoch: int) -> None:
        """Trains on a batch: raster uint8 [T, B, y, x, C] of 0 and 1, labels [B]; one update per step."""

    def readouts(self, raster: NDArray[np.uint8]) -> tuple[NDArray, int]:
        """Read-out of the last layer at every step [T, B, n_classes], and spikes of all layers after pooling."""

    @property
    def fits(self) -> tuple[Shape, int]:
        """Shape (channels, height, width) of the recordings, and number of classes, that the layers were made for."""

    def state(self) -> dict[str, NDArray]:
        """Every array that learning changes."""

    def put_back(self, state: dict[str, NDArray]) -> None:
        """Goes on from what `state` returned."""


def layers_of(
    network: LocalNetwork,
    learning: LocalLearning,
    start: tuple[LayerStart, ...],
    plan: QuantPlan,
    *,
    seed: int = 0,
    n_threads: int = 0,
) -> Layers:
    """The layers before training, in the arithmetic that `learning` asks for; float needs torch and no plan.

    Raises:
        ConfigError, LoweringError: the plan does not fit, see `formats`.
    """
    need_kind("learning", learning, LocalLearning)
    if learning.arithmetic == "float":
        floats = module("qspinn.learning.local.floats", "local learning in float arithmetic")
        layers: Layers = floats.FloatLayers(network, learning, start)
        return layers
    from qspinn.learning.local.integers import IntegerLayers

    return IntegerLayers(network, learning, start, plan, seed=seed, n_threads=n_threads)


def fit(
    layers: Layers,
    data: EventSet,
    learning: LocalLearning,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    origin: str = "",
) -> None:
    """Trains the layers in place, deterministic by seed; integers on any machine and any number of threads.

    Args:
        progress: called after every epoch with (epochs done, epochs in all).
        checkpoint: file written after every epoch. Where it is there already, training goes on
            from it, and ends bit for bit where it would have ended uninterrupted.
        origin: content key of what else the training depends on: the network and its plan.

    Raises:
        DataError: there are no samples, no steps after burn-in, recordings of another shape, or a label that is no
            class of the layers.
        RunError: weights became NaN or infinite (float), the epoch is named; or the checkpoint is of another training.
        ArtifactError: the checkpoint is damaged, or cannot be written.
    """
    need_kind("learning", learning, LocalLearning)
    need_recordings(layers, data)
    if data.n_samples == 0 or data.n_steps <= learning.burn_in:
        raise DataError(
            "training data",
            "leave nothing to learn from",
            got=f"{data.n_samples} samples of {data.n_steps} steps",
            allowed=f"samples of more than learning.burn_in = {learning.burn_in} steps",
        )
    key = _key(layers, data, [learning, seed, origin]) if checkpoint else ""
    done = _restored(checkpoint, key, layers) if checkpoint else 0
    for epoch in range(done, learning.n_epochs):
        for raster, labels in _batches(data, learning, np.random.default_rng([seed, 31, epoch])):
            layers.learn(raster, labels, epoch)
        state = layers.state()
        if not all(np.isfinite(x).all() for x in state.values()):
            raise RunError(
                f"epoch {epoch + 1}",
                "weights are not finite",
                got="NaN or infinity",
                fix="lower learning.float_learning_rate",
            )
        if checkpoint:
            _store(checkpoint, key, epoch + 1, state)
        if progress:
            progress(epoch + 1, learning.n_epochs)


def need_recordings(layers: Layers, data: EventSet) -> None:
    """Checks that recordings are what the layers were made for.

    Raises:
        DataError: no recordings, of another shape, or a label that is no class.
    """
    if not isinstance(data, EventSet):
        raise DataError("events", "are no recordings", got=type(data).__name__, allowed="an EventSet")
    shape, n_classes = layers.fits
    if data.shape != shape:
        raise DataError("events", "do not fit the layers", got=data.shape, allowed=str(shape))
    if data.n_samples and not 0 <= data.labels.min() <= data.labels.max() < n_classes:
        at = int(((data.labels < 0) | (data.labels >= n_classes)).argmax())
        raise DataError(
            f"events.labels[{at}]", "is no class of the layers", got=int(data.labels[at]), allowed=f"0..{n_classes - 1}"
        )


def _batches(
    data: EventSet, learning: LocalLearning, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Batches of an epoch, shifted; a rest smaller than a batch is left out."""
    order, size = rng.permutation(data.n_samples), min(learning.batch, data.n_samples)
    for at in range(0, data.n_samples - size + 1, size):
        part = data.take(order[at : at + size])
        if learning.shift:
            part = part.shifted(*rng.integers(-learning.shift, learning.shift + 1, (2, size)))
        yield raster_of(part), part.labels


def answers(layers: Layers, data: EventSet, rule: str, burn_in: int) -> tuple[NDArray[np.int64], float]:
    """Class of every recording [B], by a rule of `predicted_classes` from the steps after burn_in, and spikes per
    recording.

    Raises:
        DataError: recordings that the layers were not made for, or with no step after burn_in.
    """
    need_recordings(layers, data)
    if data.n_steps <= burn_in:
        raise DataError(
            "events",
            "leave no step to answer from",
            got=f"{data.n_steps} steps",
            allowed=f"more than learning.burn_in = {burn_in}",
        )
    predicted, n_spikes = [np.zeros(0, np.int64)], 0
    for at in range(0, data.n_samples, BATCH):
        values, spikes = layers.readouts(raster_of(data.slice(at, min(at + BATCH, data.n_samples))))
        predicted.append(predicted_classes(values[burn_in:], rule))
        n_spikes += spikes
    return np.concatenate(predicted), n_spikes / max(1, data.n_samples)


def predicted_classes(values: NDArray, rule: str) -> NDArray[np.int64]:
    """The classes [B] that read-outs [T, B, n_classes] stand for; the first of equals wins."""
    if rule == "sum":
        return values.sum(axis=0).argmax(axis=1)
    n_classes = values.shape[2]
    votes = (values.argmax(axis=2)[..., None] == np.arange(n_classes)).sum(axis=0)
    return votes.argmax(axis=1)


def _key(layers: Layers, data: EventSet, settings: list[Any]) -> str:
    """sha256 (hex) of what a training starts from."""
    sha = hashlib.sha256(canonical_json(settings))
    for name, array in layers.state().items():
        sha.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    data.feed(sha)
    return sha.hexdigest()


def _store(path: Path, key: str, n_done: int, state: dict[str, NDArray]) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
    entry = json.dumps({"key": key, "n_done": n_done})
    write_atomic(path, safetensors.numpy.save(arrays, metadata={"qspinn_local": entry}))


def _restored(path: Path, key: str, layers: Layers) -> int:
    """The number of epochs done, everything put back; 0 where there is no file."""
    if not path.exists():
        return 0
    try:
        data = path.read_bytes()
        entry, state = entry_of(data, "qspinn_local"), safetensors.numpy.load(data)
        if entry["key"] != key:
            raise RunError(
                str(path),
                "is of another training, which was interrupted",
                fix="choose another place, or delete it to train from the start",
            )
        _need_state(state, layers.state())
        layers.put_back(state)
        return integer("n_done", entry["n_done"], low=0, error=ArtifactError)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            str(path),
            "cannot be read as an interrupted training",
            got=str(error)[:120],
            fix="delete it to train from the start",
        ) from None


def _need_state(stored: dict[str, NDArray], expected: dict[str, NDArray]) -> None:
    """Raises ValueError where a stored state is not that of the layers: arrays missing or too many, of another type or
    shape; assigning them would cut or repeat values."""
    kinds = [{name: (str(x.dtype), x.shape) for name, x in state.items()} for state in (stored, expected)]
    if kinds[0] != kinds[1]:
        wrong = sorted(name for name in kinds[0].keys() | kinds[1].keys() if kinds[0].get(name) != kinds[1].get(name))
        raise ValueError(f"{wrong[0]} is not an array of these layers")


__getattr__ = former.names_of(__name__)

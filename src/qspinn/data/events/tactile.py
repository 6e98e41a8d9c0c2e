"""Event recordings of touch: Braille letters under a fingertip, and containers grasped by a robot hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer
from qspinn.data.events.dataset import EventDataset, alike_once_merged, split_off
from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.data.npz import column, find, multiple, need, read_npz
from qspinn.errors import ConfigError

BRAILLE_BIN_MS, CONTAINERS_BIN_MS = 5.0, 20.0
SPLIT_SEED = 0
N_CONTAINERS = 20
LETTERS = ("space", "A", "E", "I", "O", "U", "Y")


def braille(folder: str | Path = "", *, bin_ms: float = BRAILLE_BIN_MS, fine: int = 1) -> EventDataset:
    """Seven Braille letters felt by 12 taxels, 256 steps of 5 ms; shape (12, 1, 1); 1,158 recordings.

    Source: Mueller-Cleve et al. 2022, "Braille letter reading", in the form of Pedersen et al. 2024 (NIR), which has
    its own split; the split here is our own.

    Args:
        bin_ms: a multiple of 5; stored bins are merged.
        fine: the training recordings are there in bins so many times shorter, too.

    Raises:
        ConfigError: shorter bins than those stored.
        DataError: braille7.npz is missing or damaged.
    """
    factor = multiple(bin_ms, BRAILLE_BIN_MS, "braille7")
    path = find(folder, "braille7.npz")
    packed, shape, labels = read_npz(path, ("x", "shape", "y"))
    raster, classes = _unpacked(path, packed, shape, labels, (256, 12), len(LETTERS))
    if integer("data.fine", fine, low=1) and factor % fine:
        raise ConfigError(
            "data.fine",
            "does not divide a step into stored bins",
            got=fine,
            allowed=f"divisors of {factor}, {bin_ms} ms in bins of {BRAILLE_BIN_MS} ms",
        )
    stored = from_dense(raster[..., None, None], classes, order="BT")
    whole = stored.rebinned(factor)
    test = split_off(whole.labels, fraction=0.2, seed=SPLIT_SEED)
    rest = whole.take(~test)
    validation = split_off(rest.labels, fraction=0.1, seed=SPLIT_SEED + 1)
    parts = rest.take(~validation), rest.take(validation), whole.take(test)
    alike = factor > 1 and alike_once_merged(
        "braille7",
        parts,
        lambda: (stored.take(~test).take(~validation), stored.take(~test).take(validation), stored.take(test)),
    )
    dataset = _dataset(
        "braille7",
        bin_ms,
        LETTERS,
        parts,
        alike,
        f"Braille, 7 letters, drawn letter by letter (seed {SPLIT_SEED}): a fifth for test, a tenth of "
        "the rest for validation, the others for training; not the split of the NIR paper",
    )
    if fine == 1:
        return dataset
    learned = stored.take(~test).take(~validation).rebinned(factor // fine)
    return msgspec.structs.replace(dataset, fine=learned, per_step=fine)


def containers(folder: str | Path = "", *, bin_ms: float = CONTAINERS_BIN_MS) -> EventDataset:
    """Twenty containers and fillings felt by 39 taxels (NeuTouch), 325 steps of 20 ms; shape (2, 39, 1).

    Source: Taunyazov et al. 2020, "Event-Driven Visual-Tactile Sensing and Learning for Robots"; bins as in Gu et al.
    2020 (TactileSGNet). Official split of 240 and 60; a sixth of each class's training recordings validates.

    Args:
        bin_ms: a multiple of 20; stored bins are merged.

    Raises:
        DataError: ev_containers.npz is missing or damaged.
    """
    factor = multiple(bin_ms, CONTAINERS_BIN_MS, "ev_containers")
    path = find(folder, "ev_containers.npz")
    stored = tuple(_containers(path, part) for part in ("train", "test"))
    whole, test = (events.rebinned(factor) for events in stored)
    chosen = split_off(whole.labels, fraction=1 / 6, seed=SPLIT_SEED)
    parts = whole.take(~chosen), whole.take(chosen), test
    alike = factor > 1 and alike_once_merged(
        "ev_containers", parts, lambda: (stored[0].take(~chosen), stored[0].take(chosen), stored[1])
    )
    return _dataset(
        "ev_containers",
        bin_ms,
        tuple(f"class {k}" for k in range(N_CONTAINERS)),
        parts,
        alike,
        f"EvTouch containers: the official test part for test; a sixth of the official training part, "
        f"drawn class by class (seed {SPLIT_SEED}), for validation, the others for training",
    )


def _containers(path: Path, part: str) -> EventSet:
    packed, shape, labels = read_npz(path, tuple(f"{part}_{kind}" for kind in ("x", "shape", "y")))
    raster, classes = _unpacked(path, packed, shape, labels, (39, 2, 325), N_CONTAINERS)
    return from_dense(raster.transpose(0, 3, 2, 1)[..., None], classes, order="BT")


def _unpacked(
    path: Path, packed: NDArray, shape: NDArray, labels: NDArray, sample: tuple[int, ...], n_classes: int
) -> tuple[NDArray, NDArray[np.int64]]:
    """Zeros and ones [B, *sample] of bits packed along the last axis, and labels [B]."""
    labels = column(path, "y", labels)
    need(labels.size > 0, path, "holds no recordings", 0, "one or more")
    need(int(labels.max()) < n_classes, path, "unknown class", int(labels.max()), f"0..{n_classes - 1}")
    need(
        tuple(np.ravel(shape).tolist()) == (len(labels), *sample),
        path,
        "wrong shape",
        shape.tolist(),
        f"{(len(labels), *sample)}",
    )
    expected = (len(labels), *sample[:-1], -(-sample[-1] // 8))
    need(
        packed.shape == expected and packed.dtype == np.uint8,
        path,
        "wrong shape or type of bits",
        f"{packed.dtype} {packed.shape}",
        f"uint8 {expected}",
    )
    return np.unpackbits(packed, axis=-1, count=sample[-1]), labels


def _dataset(
    name: str,
    bin_ms: float,
    labels: tuple[str, ...],
    parts: tuple[EventSet, EventSet, EventSet],
    allow_shared: bool,
    rule: str,
) -> EventDataset:
    train, validation, test = parts
    return EventDataset(
        name=name,
        shape=train.shape,
        n_steps=train.n_steps,
        bin_ms=bin_ms,
        labels=labels,
        train=train,
        validation=validation,
        test=test,
        split_rule=rule,
        allow_shared=allow_shared,
    )

"""MNIST as graded events: the same frame in every step, each pixel spiking as often as it is bright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer
from qspinn.data.events.dataset import EventDataset, first_of_each, need_of_each
from qspinn.data.events.event_set import EventSet, concatenate
from qspinn.data.images import mnist
from qspinn.data.images.dataset import Split

LEVEL_SHIFT = 4
MAX_COUNT = 255 >> LEVEL_SHIFT
CHUNK = 1000


def mnist_frames(
    folder: str | Path = "", *, n_bins: int = 8, n_train: int = 0, n_validation: int = 0, n_test: int = 0
) -> EventDataset:
    """MNIST for direct coding: pixel >> 4 spikes (0..15) of every pixel in each of n_bins steps; shape (1, 28, 28).

    Args:
        n_train, n_validation, n_test: only so many of a split, of all classes alike; 0 for all.

    Raises:
        DataError: files are missing or damaged.
    """
    n_bins = integer("data.n_bins", n_bins, low=1)
    for field, n in (("n_train", n_train), ("n_validation", n_validation), ("n_test", n_test)):
        integer(f"data.{field}", n, low=0)
    whole = mnist.load(folder)
    need_of_each(n_train, len(whole.labels))
    train, validation, test = (
        _steps(split, n, n_bins)
        for split, n in ((whole.train, n_train), (whole.validation, n_validation), (whole.test, n_test))
    )
    return EventDataset(
        name="mnist_frames",
        shape=(1, 28, 28),
        n_steps=n_bins,
        bin_ms=1.0,
        labels=whole.labels,
        train=train,
        validation=validation,
        test=test,
        max_count=MAX_COUNT,
        allow_shared=True,  # a few images differ in their low bits only
        split_rule=f"{whole.split_rule}; every frame is shown for {n_bins} steps, a pixel spiking 0 to {MAX_COUNT} "
        "times in each",
    )


def _steps(split: Split, n: int, n_steps: int) -> EventSet:
    """About n images (0: all), of all classes alike, as events."""
    chosen = first_of_each(split.labels, n)
    blocks = (chosen[a : a + CHUNK] for a in range(0, len(chosen), CHUNK))
    return concatenate(_chunk(split.images[block], split.labels[block], n_steps) for block in blocks)


def _chunk(images: NDArray[np.uint8], labels: NDArray[np.int64], n_steps: int) -> EventSet:
    frames = np.repeat((images >> LEVEL_SHIFT).astype(np.uint8), n_steps, axis=0)  # one row for every image and step
    row, address = np.nonzero(frames)
    ends = np.cumsum(np.bincount(row, minlength=len(frames))).reshape(-1, n_steps)
    first = np.concatenate([[0], ends[:-1, -1]])[:, None]
    return EventSet(
        offsets=np.concatenate([first, ends], axis=1),
        index=address.astype(np.uint16),
        count=frames[row, address],
        shape=(1, 28, 28),
        labels=labels,
    )

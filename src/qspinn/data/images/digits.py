"""The 8 x 8 digits that come with scikit-learn: small, offline, good for a demonstration."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qspinn.data.images.dataset import Dataset, Split

N_TRAIN, N_VALIDATION = 1197, 300
TABLE = "datasets/data/digits.csv.gz"
"""Where scikit-learn keeps the images, in the folder of its package."""


def load() -> Dataset:
    """1,197 training, 300 validation and 300 test images, in an order drawn once by seed 0."""
    pixels, labels = read_table()
    order = np.random.default_rng(0).permutation(len(labels))
    images = np.floor(pixels[order] * (255 / 16) + 0.5).astype(np.uint8)
    targets = labels[order].astype(np.int64)

    def part(start: int, stop: int) -> Split:
        return Split(images=images[start:stop], labels=targets[start:stop], first=start)

    edge = N_TRAIN + N_VALIDATION
    return Dataset(
        name="digits",
        shape=(8, 8),
        labels=tuple(str(d) for d in range(10)),
        train=part(0, N_TRAIN),
        validation=part(N_TRAIN, edge),
        test=part(edge, len(labels)),
        split_rule="scikit-learn digits in a fixed random order: 1,197 training, 300 validation, 300 test",
    )


def read_table() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels of 0..16, [1797, 64], and labels. The table is read as a file where it is: importing scikit-learn, with
    SciPy, takes longer than training on these images."""
    package = importlib.util.find_spec("sklearn")
    table = Path(package.origin).parent / TABLE if package is not None and package.origin else None
    if table is not None and table.is_file():
        rows = np.loadtxt(table, delimiter=",")
        return rows[:, :-1], rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels.astype(np.int64)

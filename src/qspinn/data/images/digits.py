"""The 8 x 8 digits that come with scikit-learn: small, offline, good for a demonstration."""

from __future__ import annotations

import numpy as np

from qspinn.data.images.dataset import Dataset, Split

N_TRAIN, N_VALIDATION = 1197, 300


def load() -> Dataset:
    """1,197 training, 300 validation and 300 test images, in an order drawn once by seed 0."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
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

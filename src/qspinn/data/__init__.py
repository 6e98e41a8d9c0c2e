"""Data sets, their splits, and encoders."""

from __future__ import annotations

from qspinn.data import digits, mnist
from qspinn.data.dataset import DataConfig, Dataset, Split

__all__ = ["DataConfig", "Dataset", "Split", "load"]


def load(config: DataConfig) -> Dataset:
    """The data set of a configuration."""
    whole = digits.load() if config.name == "digits" else mnist.load(config.folder)
    return Dataset(
        name=whole.name, shape=whole.shape, labels=whole.labels, split_rule=whole.split_rule,
        train=_first(whole.train, config.n_train), validation=_first(whole.validation, config.n_validation),
        test=_first(whole.test, config.n_test),
    )


def _first(split: Split, n: int) -> Split:
    return Split(images=split.images[: n or None], labels=split.labels[: n or None], first=split.first)

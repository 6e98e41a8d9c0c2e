"""Labelled images with fixed splits: training, validation (for every choice), test (for one report)."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.errors import DataError
from qspinn.network import _need
from qspinn.records import Record


class Split(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """images uint8 [n, n_pixels], labels int64 [n], and the number of the first sample within the whole set."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    first: int

    def __post_init__(self) -> None:
        if self.images.ndim != 2 or self.images.dtype != np.uint8:
            raise DataError("images", "wrong shape or type", got=f"{self.images.dtype} {self.images.shape}",
                            allowed="uint8 [n, n_pixels]")
        if self.labels.shape != (len(self.images),):
            raise DataError("labels", "do not match the images", got=self.labels.shape,
                            allowed=f"({len(self.images)},)")


class Dataset(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A data set with its three splits.

    Attributes:
        shape: rows and columns of an image.
        split_rule: in words, for the report.
    """

    name: str
    shape: tuple[int, int]
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    split_rule: str

    def checksum(self) -> str:
        """sha256 (hex) of all pixels and labels."""
        sha = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            sha.update(split.images.tobytes())
            sha.update(split.labels.tobytes())
        return sha.hexdigest()


class DataConfig(Record, frozen=True):
    """Which data, and how much of them.

    Attributes:
        name: "digits" (1,797 images of 8 x 8, embedded in scikit-learn) or "mnist".
        folder: where MNIST's idx files are; empty: $QSPINN_DATA, then the user's cache, then download.
        n_train, n_validation, n_test: use only the first so many of a split; 0 for all.
    """

    name: Literal["digits", "mnist"] = "digits"
    folder: str = ""
    n_train: int = 0
    n_validation: int = 0
    n_test: int = 0

    def check(self) -> None:
        for field in ("n_train", "n_validation", "n_test"):
            _need(getattr(self, field) >= 0, f"data.{field}", getattr(self, field), ">= 0")

"""Labelled images with fixed splits: training, validation (for every choice), test (for one report)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from qspinn.arrays import integer, need_kind, need_words, numbers, sealed
from qspinn.data.events.recording import sensor_of
from qspinn.data.own.naming import need_file, own_name, title_of
from qspinn.data.shared import check_classes, check_shared, class_counts, hashes, refuse_shared, shared
from qspinn.errors import DataError
from qspinn.records.record import Record, need

ImageName: TypeAlias = Literal["digits", "idx", "mnist", "npz"]
"""Names of the image sets in the table of `data.catalog`."""


class Split(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """images uint8 [n, n_pixels], labels int64 [n], and the number of the first sample within the whole set. The arrays
    are read-only; those given are copied unless nobody can write to them.

    Raises:
        DataError: images of another type or shape, labels that are not one integer of 0 or more for each image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    first: int

    def __post_init__(self) -> None:
        images = numbers("images", self.images, None, DataError)
        if images.ndim != 2 or images.dtype != np.uint8:
            raise DataError(
                "images", "wrong shape or type", got=f"{images.dtype} {images.shape}", allowed="uint8 [n, n_pixels]"
            )
        labels = sealed("labels", self.labels, np.int64, low=0)
        if labels.shape != (len(images),):
            raise DataError("labels", "do not match the images", got=labels.shape, allowed=f"({len(images)},)")
        force_setattr(self, "images", sealed("images", self.images, np.uint8))
        force_setattr(self, "labels", labels)
        force_setattr(self, "first", integer("first", self.first, low=0, error=DataError))


class Dataset(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A data set with its three splits.

    Attributes:
        shape: rows and columns of an image.
        labels: names of the classes; label k of a split is labels[k].
        split_rule: in words, for the report.
        allow_shared: splits may hold images of the same content; see `shared`.

    Raises:
        DataError: images of another size, a label that is no class, an image that is in two splits.
    """

    name: str
    shape: tuple[int, int]
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    split_rule: str
    allow_shared: bool = False

    def __post_init__(self) -> None:
        for field in ("name", "split_rule"):
            need_kind(f"dataset.{field}", getattr(self, field), str, DataError)
        need_words(f"{self.name}.labels", self.labels, distinct=True)
        for part, split in self.parts():
            need_kind(f"{self.name}.{part}", split, Split, DataError)
        check_shared(self.name, self.allow_shared)
        shape = sensor_of(self.shape, f"{self.name}.shape")
        for part, split in self.parts():
            place = f"{self.name}.{part}"
            if split.images.shape[1] != shape[0] * shape[1]:
                raise DataError(
                    f"{place}.images",
                    "wrong number of pixels",
                    got=split.images.shape[1],
                    allowed=f"{shape[0]} x {shape[1]}",
                )
            check_classes(place, split.labels, len(self.labels))
        refuse_shared(self.name, {} if self.allow_shared else self.shared())

    def parts(self) -> tuple[tuple[str, Split], ...]:
        """The three splits with their names."""
        return ("train", self.train), ("validation", self.validation), ("test", self.test)

    def shared(self) -> dict[tuple[str, str], int]:
        """Number of images of a later split that are in an earlier one, by pair of splits; pairs without any are left
        out."""
        return shared([(name, hashes([(image,) for image in split.images])) for name, split in self.parts()])

    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """Number of images of each class in each split."""
        return class_counts([(name, split.labels) for name, split in self.parts()], len(self.labels))

    def checksum(self) -> str:
        """sha256 (hex) of all pixels and labels."""
        sha = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            sha.update(split.images.tobytes())
            sha.update(split.labels.tobytes())
        return sha.hexdigest()


class DataConfig(Record, frozen=True):
    """Configuration of a set of images: which, and how many.

    Attributes:
        name: "digits" (1,797 images of 8 x 8, embedded in scikit-learn), "mnist", "idx" (the user's own images in
            MNIST's format, of any size and number of classes) or "npz" (the user's own `file`).
        folder: where the files are; empty, for "mnist": $QSPINN_DATA, then the user's cache, then download.
        n_train, n_validation, n_test: use only the first so many of a split; 0 for all.
        file: the user's own .npz file (docs/own_data.md), relative to `folder`; the name "npz" may then be left out.
        scale: pixels times this, rounded, are bytes 0..255 (npz); 0: they are bytes.
        allow_shared: splits may hold images of the same content (idx, npz).
    """

    LATER: ClassVar[tuple[str, ...]] = ("file", "scale", "allow_shared")

    name: ImageName = "digits"
    folder: str = ""
    n_train: int = 0
    n_validation: int = 0
    n_test: int = 0
    file: str = ""
    scale: float = 0.0
    allow_shared: bool = False

    @property
    def title(self) -> str:
        """Name of the data in reports: the set's, or that of the user's own file."""
        return title_of(self.name, self.file)

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return own_name(given)

    def check(self) -> None:
        for field in ("n_train", "n_validation", "n_test", "scale"):
            need(getattr(self, field) >= 0, f"data.{field}", getattr(self, field), ">= 0")
        need_file(self.name, self.file)

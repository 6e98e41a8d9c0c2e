"""Images of the user's own in a folder of idx files, the format of MNIST, of any size and number of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qspinn.data.images.dataset import Dataset, Split
from qspinn.data.images.mnist import read_idx
from qspinn.data.own.labels import absences, classes_of
from qspinn.data.own.splits import SEED, by_content, need_one_label
from qspinn.data.paths import exists, path_of
from qspinn.data.shared import hashes
from qspinn.errors import DataError

VALIDATION_SHARE = 0.15
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def load(folder: str | Path, *, allow_shared: bool = False) -> Dataset:
    """The images in `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte` (each plain or .gz); of each class, 15 % of the training file validate.

    Raises:
        DataError: a file is missing or damaged, images and labels do not belong together, or a class has no training
            image.
    """
    if folder == "":
        raise DataError("data.folder", "is not given", fix="name the folder of the idx files")
    place = path_of("data.folder", folder)
    stored = {part: _pair(place, part) for part in ("train", "t10k")}
    classes = classes_of(str(place), {part: labels for part, (_, labels) in stored.items()}, None)
    (images, _), (test_images, _) = stored.values()
    if images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            str(place),
            "test images are of another size",
            got=test_images.shape[1:],
            allowed=f"{images.shape[1:]}, as in training",
        )
    flat = images.reshape(len(images), -1)
    labels, test_labels = classes.labels.values()
    shares = {"train": 1 - VALIDATION_SHARE, "validation": VALIDATION_SHARE}
    known = hashes([(image,) for image in flat])
    if not allow_shared:
        need_one_label(str(place), labels, known, classes.names, "training images")
    chosen = by_content(str(place), labels, known, classes.names, shares)
    found = {part: labels[which] for part, which in chosen.items()} | {"test": test_labels}
    edge = len(chosen["train"])
    return Dataset(
        name=f"idx ({place.name})",
        shape=images.shape[1:],
        labels=classes.names,
        train=Split(images=flat[chosen["train"]], labels=found["train"], first=0),
        validation=Split(images=flat[chosen["validation"]], labels=found["validation"], first=edge),
        test=Split(images=test_images.reshape(len(test_images), -1), labels=test_labels, first=len(images)),
        split_rule="; ".join(
            [
                f"idx files in {place.name}: the t10k file for test; of each class of the training file, in the order "
                f"of a hash of the content (seed {SEED}), the last {VALIDATION_SHARE * 100:.0f} % for validation, "
                "the others for training",
                *absences(str(place), found, classes.names),
            ]
        ),
        allow_shared=allow_shared,
    )


def _pair(place: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [N, H, W] and labels [N] of a part."""
    images, labels = (read_idx(_file(place, f"{part}-{kind}")) for kind in (IMAGES, LABELS))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or 0 in images.shape:
        raise DataError(
            f"{place}: {part}",
            "images and labels do not belong together",
            got=(images.shape, labels.shape),
            allowed="[N, H, W] and [N]",
        )
    return images, labels


def _file(place: Path, name: str) -> Path:
    for path in (place / name, place / f"{name}.gz"):
        if exists(path):
            return path
    raise DataError(str(place / name), "is missing (plain or .gz)", fix="copy it into the folder")

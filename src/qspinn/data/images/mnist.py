"""MNIST from a folder of idx files (plain or gzip) or, where there is none, downloaded with checksums.

Source: LeCun, Cortes, Burges (1998); format: http://yann.lecun.com/exdb/mnist (big-endian header, then bytes).
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qspinn.data.images.dataset import Dataset, Split
from qspinn.data.paths import exists, path_of
from qspinn.errors import DataError

FILES = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""MD5 of the gzip files as published."""
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
N_VALIDATION = 10_000
MOST_AXES = 8
"""Of an idx file; images have three, with colours four."""
MOST_BYTES = 1 << 30
"""Of an idx file, unpacked: 1.3 million images of 28 x 28. A small damaged gzip file can unpack to any length."""


def load(folder: str | Path = "") -> Dataset:
    """50,000 training, 10,000 validation (the last of the training file) and 10,000 test images.

    Raises:
        DataError: files are missing, damaged, or of other images than 28 x 28.
    """
    place = find(folder)
    images, labels = (read_idx(_file(place, f"train-{k}")) for k in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    test_images, test_labels = (read_idx(_file(place, f"t10k-{k}")) for k in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    train, edge = _split(images, labels, 0, place), len(images) - N_VALIDATION
    if edge <= 0:
        raise DataError(
            str(place), "training file is too short", got=len(images), allowed=f"over {N_VALIDATION} images"
        )
    return Dataset(
        name="mnist",
        shape=(28, 28),
        labels=tuple(str(d) for d in range(10)),
        train=Split(images=train.images[:edge], labels=train.labels[:edge], first=0),
        validation=Split(images=train.images[edge:], labels=train.labels[edge:], first=edge),
        test=_split(test_images, test_labels, len(images), place),
        split_rule=f"MNIST: training file without its last {N_VALIDATION:,} images for training, those for validation, "
        "the test file for test",
    )


def _split(images: NDArray, labels: NDArray, first: int, place: Path) -> Split:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(str(place), "images and labels do not belong together", got=(images.shape, labels.shape))
    if images.shape[1:] != (28, 28):
        raise DataError(str(place), "images are of another size", got=images.shape[1:], allowed="(28, 28)")
    return Split(images=images.reshape(len(images), 28 * 28), labels=labels.astype(np.int64), first=first)


def find(folder: str | Path = "") -> Path:
    """The folder that holds the idx files: as given, $QSPINN_DATA (or its mnist/), else the download cache."""
    if folder != "":
        return _with_files(path_of("data.folder", folder))
    if os.environ.get("QSPINN_DATA"):
        return _with_files(Path(os.environ["QSPINN_DATA"]))
    return _download()


def _with_files(folder: Path) -> Path:
    for place in (folder, folder / "mnist"):
        if any(exists(place / f"train-images-idx3-ubyte{end}") for end in ("", ".gz")):
            return place
    raise DataError(
        str(folder),
        "holds no MNIST idx files",
        allowed=", ".join(FILES) + " (each plain or .gz)",
        fix="point --data or QSPINN_DATA to the folder that holds them",
    )


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if exists(path):
            return path
    raise DataError(str(folder / name), "is missing (plain or .gz)", fix="copy it into the folder")


def _download() -> Path:
    import pooch

    cache = pooch.create(
        path=pooch.os_cache("qspinn"),
        base_url=MIRROR,
        registry={f"{name}.gz": f"md5:{md5}" for name, md5 in FILES.items()},
    )
    try:
        paths = [cache.fetch(name) for name in cache.registry]
    except Exception as error:
        raise DataError(
            "mnist",
            "could not be downloaded",
            got=str(error)[:200],
            fix="put the four idx files into a folder and name it with --data or QSPINN_DATA",
        ) from None
    return Path(paths[0]).parent


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, plain or gzip.

    Raises:
        DataError: truncated, corrupted, or not such a file; names the file and the byte.
    """
    path = path_of("read_idx.path", path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(str(path), "cannot be read", got=str(error), fix="copy the file anew") from None
    if len(data) > MOST_BYTES:
        raise DataError(str(path), "is too long, once unpacked", allowed=f"up to {MOST_BYTES:,} bytes")
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(
            str(path), "is not an idx file of unsigned bytes", got=data[:4], allowed="b'\\x00\\x00\\x08' + rank"
        )
    rank = data[3]
    header = 4 + 4 * rank
    if rank > MOST_AXES:
        raise DataError(str(path), "byte 3: announces too many axes", got=rank, allowed=f"1..{MOST_AXES}")
    if rank == 0 or len(data) < header:
        raise DataError(str(path), "header is cut short", got=f"{len(data)} bytes", allowed=f"{header} bytes or more")
    shape = struct.unpack(f">{rank}I", data[4:header])
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise DataError(
            str(path),
            "has the wrong length",
            got=f"{len(data)} bytes",
            allowed=f"{expected} bytes",
            fix="copy the file anew",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)

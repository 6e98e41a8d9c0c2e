"""Arrays of .npz files, never pickled ones, with errors that name the file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integers, real_of
from qspinn.data.paths import exists, path_of
from qspinn.errors import DataError

LONGEST_MS = 1_000_000
"""Longest bin: beyond, floats no longer hold a millionth of a microsecond."""


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray]:
    """The named arrays.

    Raises:
        DataError: missing or damaged file, an array that is missing or holds Python objects.
    """
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return [_array(file, name, path) for name in names]
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        SyntaxError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(str(path), "cannot be read", got=str(error)[:200], fix="copy the file anew") from None


def _array(file: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray:
    if name not in file:
        raise DataError(str(path), f"holds no array {name!r}", got=file.files)
    return np.asarray(file[name])


def column(path: Path, name: str, array: NDArray) -> NDArray[np.int64]:
    """An array [n] of integers of 0 or more.

    Raises:
        DataError: names the file.
    """
    try:
        return integers(name, array, shape=(None,), low=0)
    except DataError as error:
        raise DataError(
            str(path), f"{error.where}: {error.problem}", got=error.got, allowed=error.allowed, fix="copy the file anew"
        ) from None


def find(folder: str | Path, name: str) -> Path:
    """A file in a folder; an empty folder is $QSPINN_DATA.

    Raises:
        DataError: no such file.
    """
    import os

    given = path_of("data.folder", folder) if folder != "" else None
    place = os.environ.get("QSPINN_DATA", "") if given is None else str(given)
    path = Path(place) / name
    if not place or not exists(path):
        raise DataError(str(path), "is missing", fix="name the folder that holds it, or set QSPINN_DATA")
    return path


def multiple(bin_ms: float, base_ms: float, where: str) -> int:
    """How many stored bins make one of bin_ms."""
    length = real_of(bin_ms)
    factor = round(length / base_ms) if 0 < length <= LONGEST_MS else 0
    if factor < 1 or abs(factor * base_ms - length) > 1e-6:
        raise DataError(
            where,
            "bin_ms is not a multiple of the stored bins",
            got=bin_ms,
            allowed=f"{base_ms} ms, twice, ..., up to {LONGEST_MS:,} ms",
        )
    return factor


def need(ok: bool, path: Path, problem: str, got: object, allowed: str) -> None:
    """Refuses the content of a file."""
    if not ok:
        raise DataError(str(path), problem, got=got, allowed=allowed, fix="copy the file anew")

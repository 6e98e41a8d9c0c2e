"""Arrays of .npz files, never pickled ones, with errors that name the file."""

from __future__ import annotations

import lzma
import math
import tokenize
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
MOST_BYTES = 1 << 32
"""Of all arrays of a user's file, unpacked: 4 GiB. A small damaged file can announce any size."""
MOST_PACKED = 1 << 28
"""Of the arrays of a published set, unpacked: 256 MiB, several times the largest."""
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    LookupError,
    ArithmeticError,
    SystemError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file raises."""
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray]:
    """The named arrays.

    Raises:
        DataError: missing or damaged file, an array that is missing or holds Python objects, over `MOST_PACKED` bytes.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = {info.filename: info for info in file.infolist()}
            for name in names:
                if f"{name}.npy" not in members:
                    raise DataError(str(path), f"holds no array {name!r}", got=sorted(members))
            found = [members[f"{name}.npy"] for name in names]
            _need_size(path, found, MOST_PACKED)
            return [_checked_array(path, file, info) for info in found]
    except DAMAGED as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(str(path), "cannot be read", got=str(error)[:200], fix="copy the file anew")


def read_all(path: Path) -> dict[str, NDArray]:
    """All arrays of a user's file, whose types and sizes are looked at before memory is taken for them.

    Raises:
        DataError: no .npz file or a damaged one, arrays of Python objects or of several fields, sizes that are not
            those of the file, or over `MOST_BYTES` in all.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            _need_members(path, members)
            return {info.filename.removesuffix(".npy"): _checked_array(path, file, info) for info in members}
    except zipfile.BadZipFile as error:
        raise DataError(
            str(path), "is no .npz file, or a damaged one", got=str(error)[:200], fix="write it with numpy.savez"
        ) from None
    except DAMAGED as error:
        raise _unreadable(path, error) from None


def _need_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuses an archive of other things than arrays, each once, or of too much."""
    found: set[str] = set()
    for name in (info.filename for info in members):
        if not name.endswith(".npy") or name in found:
            raise DataError(
                str(path),
                "holds something else than arrays, or an array twice",
                got=name,
                allowed="arrays (.npy), each once",
                fix="write it with numpy.savez",
            )
        found.add(name)
    _need_size(path, members, MOST_BYTES)


def _need_size(path: Path, members: list[zipfile.ZipInfo], most: int) -> None:
    """Refuses arrays of over so many bytes in all, before any is unpacked."""
    if (size := sum(info.file_size for info in members)) > most:
        raise DataError(
            str(path),
            "is too large, once unpacked",
            got=f"{size:,} bytes",
            allowed=f"up to {most:,} bytes",
            fix="store events packed (offsets, index) instead of a dense raster",
        )


def _checked_array(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray:
    """An array, once its header agrees with the size that the archive says."""
    name = info.filename.removesuffix(".npy")
    with file.open(info) as raw:
        version = np.lib.format.read_magic(raw)
        if version not in HEADERS:
            raise DataError(f"{path}: {name}", "is stored in a form that is not read", got=version, allowed="1.0, 2.0")
        shape, _, dtype = HEADERS[version](raw)
        start = raw.tell()
    if dtype.kind not in "biufcUSmM" or dtype.hasobject:
        raise DataError(
            f"{path}: {name}",
            "holds Python objects or fields, which are not read" if dtype.hasobject else "is no plain array",
            got=str(dtype),
            allowed="numbers or text",
            fix=f"{name} = numpy.array({name}, dtype=str) for text, or one array of numbers",
        )
    if not dtype.itemsize and 0 not in shape:
        raise DataError(f"{path}: {name}", "holds texts of no characters", got=f"{shape} of {dtype}", allowed="text")
    if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise DataError(
            f"{path}: {name}",
            "announces another size than it has",
            got=f"{shape} of {dtype}",
            allowed=f"{info.file_size - start:,} bytes",
            fix="copy the file anew",
        )
    with file.open(info) as raw:
        return np.asarray(np.lib.format.read_array(raw))


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
    """Number of stored bins that make one of bin_ms."""
    length = real_of(bin_ms)
    factor = round(length / base_ms) if 0 < length <= LONGEST_MS else 0
    if factor < 1 or abs(factor * base_ms - length) > 1e-6 * min(1.0, length):
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

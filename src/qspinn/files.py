"""Files that are written whole or not at all, and the entry that a safetensors file has beside its arrays."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError, WriteError
from qspinn.records.plain import read_json


def remove_parts(folder: Path, names: Iterable[str] = ("*",)) -> None:
    """Removes the half files that `replacing` left in a folder when it was killed, and nothing else.

    Args:
        names: of the files that were being written, as patterns: half files of others are kept.
    """
    for part in folder.glob(".*.part"):
        whole = re.fullmatch(r"\.(.+)\.\d+\.part", part.name)
        if whole and any(fnmatch.fnmatchcase(whole[1], name) for name in names) and part.is_file():
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name beside path, synced and renamed to it at the end of the block; the old
    file stays whole if anything fails. Where path is a link, the file that it leads to is replaced.

    Raises:
        WriteError: the disk is full, the place is not writable, or the name is none, or something else than a
            file stands there.
    """
    where = str(path)
    try:
        path = _target(Path(path))
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
    except (TypeError, ValueError, OSError) as error:
        raise _unwritable(where, error) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise _unwritable(where, error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _unwritable(where: str, error: Exception) -> WriteError:
    return WriteError(
        where,
        "cannot be written",
        got=getattr(error, "strerror", None) or str(error),
        fix="free some space or choose another place with --out",
    )


def _target(path: Path) -> Path:
    """Where a file is written: the end of a link; renaming over anything but a file would take that away."""
    if "\0" in str(path):
        raise ValueError("a name with a null character")
    if path.is_symlink():
        try:
            path = path.resolve()
        except RuntimeError as error:  # links in a circle
            raise ValueError(str(error)) from None
    if path.exists() and not path.is_file():
        raise ValueError("a folder" if path.is_dir() else "no regular file")
    return path


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes bytes, all or nothing; see `replacing`, also for errors."""
    with replacing(path) as file:
        file.write(data)


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata of the bytes of a safetensors file, texts by tag; empty where there is none.

    Raises:
        ValueError: cut short, no JSON, or a key is given twice: readers would differ in which they take.
        RecursionError: tables or lists too deep within one another.
    """
    if len(data) < 8:
        raise ValueError("shorter than its header")
    size = struct.unpack("<Q", data[:8])[0]
    try:
        metadata = read_json(data[8 : 8 + size].decode()).get("__metadata__", {})
    except AttributeError:
        raise ValueError("has a header that is no table") from None
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("has metadata that are no texts")
    return metadata


def entry_of(data: bytes, tag: str) -> Any:
    """The plain data that the bytes of a safetensors file hold under a tag of their metadata.

    Raises:
        ValueError: no such entry, or as `metadata_of`.
        RecursionError: tables or lists too deep within one another.
    """
    metadata = metadata_of(data)
    if tag not in metadata:
        raise ValueError(f"has no entry {tag!r} in its metadata")
    try:
        return read_json(metadata[tag])
    except ConfigError as error:
        raise ValueError(str(error)) from None


def store_array(path: Path, array: NDArray) -> None:
    """Writes an array as .npy, all or nothing; see `program.replacing`, also for errors."""
    with replacing(path) as file:
        np.save(file, array)

"""Files that are written whole or not at all, and the entry that a safetensors file has beside its arrays."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ArtifactError, ConfigError, WriteError
from qspinn.records.plain import read_json

LONGEST_HEADER = 100_000_000
"""Bytes of the longest header that a safetensors file has."""

LONGEST_NAME = 200
"""Bytes of a name that leave room for the rest of a temporary name: 255 is what file systems have."""


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
    file stays whole if anything fails. Where path is a link, the file that it leads to is replaced; the new file has
    the permissions of the old one. Writers of one path do not disturb each other: the last one stays.

    Raises:
        WriteError: the disk is full, the place is not writable, or the name is none, or something else than a
            file stands there.
    """
    where = str(path)
    try:
        target = _target(Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        file, part = _part_beside(target)
    except (TypeError, ValueError, OSError) as error:
        raise _unwritable(where, error) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise _unwritable(where, error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _part_beside(target: Path) -> tuple[BinaryIO, Path]:
    """A new file that nobody else writes to, with the permissions of the file that it will replace. Its name holds the
    target's, by which `remove_parts` knows it, unless that is nearly as long as names can be."""
    name = target.name if len(os.fsencode(target.name)) <= LONGEST_NAME else target.name[:20]
    while True:
        part = target.with_name(f".{name}.{secrets.randbits(64)}.part")
        with contextlib.suppress(FileExistsError):
            file = part.open("xb")
            break
    try:
        if target.exists() and (mode := _mode(target)) != _mode(part):
            part.chmod(mode)
    except OSError:
        file.close()
        part.unlink(missing_ok=True)
        raise
    return file, part


def _mode(path: Path) -> int:
    """Who may read, write and execute a file."""
    return path.stat().st_mode & 0o777


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


def read_file(path: str | Path, *, most: int = 0) -> bytes:
    """The bytes of a file, after a look at what it is: reading a pipe would wait, and what is larger than memory would
    end the process.

    Args:
        most: bytes that the file may have, where that is more than half of the machine's memory.

    Raises:
        ArtifactError: it cannot be read, is no regular file, or is too large.
    """
    with _regular(path) as file:
        size, most = os.fstat(file.fileno()).st_size, max(most, half_of_memory())
        if size > most:
            raise ArtifactError(
                str(path), "is larger than may be read into memory", got=f"{size} bytes", allowed=f"up to {most} bytes"
            )
        return file.read()


def read_head(path: str | Path) -> bytes:
    """The bytes of a safetensors file up to the end of its header, where it has one.

    Raises:
        ArtifactError: it cannot be read, or is no regular file.
    """
    with _regular(path) as file:
        size = file.read(8)
        return size + file.read(min(struct.unpack("<Q", size)[0], LONGEST_HEADER) if len(size) == 8 else 0)


@contextlib.contextmanager
def _regular(path: str | Path) -> Iterator[BinaryIO]:
    """A file to read from."""
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ArtifactError(str(path), "cannot be read", got="no regular file", allowed="a file")
        with Path(path).open("rb") as file:
            yield file
    except (OSError, TypeError, ValueError, MemoryError) as error:
        raise ArtifactError(str(path), "cannot be read", got=getattr(error, "strerror", None) or str(error)) from None


@functools.cache
def half_of_memory() -> int:
    """Half of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


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

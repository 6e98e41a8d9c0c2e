"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from qspinn.errors import WriteError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name beside path, synced and renamed to it at the end of the block; the old
    file stays whole if anything fails. Where path is a link, the file that it leads to is replaced.

    Raises:
        WriteError: the disk is full, the place is not writable, or something else than a file stands there.
    """
    path, part = Path(path), None
    try:
        path = _target(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ValueError) as error:
        if part is not None:
            with contextlib.suppress(OSError, ValueError):
                part.unlink()
        raise WriteError(str(path), "cannot be written", got=getattr(error, "strerror", None) or str(error),
                            fix="free some space or choose another place with --out") from None


def _target(path: Path) -> Path:
    """Where a file is written: the end of a link; renaming over anything but a file would take that away."""
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

"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from qspinn.errors import ArtifactError


def need_file_name(path: Path) -> None:
    """Refuses what cannot be the name of a file to write, before anything has been computed for it.

    Raises:
        ArtifactError: a folder, or no name.
    """
    if not path.name or path.name == ".." or path.is_dir():
        raise ArtifactError(str(path), "is a folder", fix="name the file to write")


def remove_parts(folder: Path) -> None:
    """Removes the half files that `replacing` left in a folder when it was killed, and nothing else."""
    for part in folder.glob(".*.part"):
        if re.fullmatch(r"\..+\.\d+\.part", part.name) and part.is_file():
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name beside path, synced and renamed to it at the end of the block; the old
    file stays whole if anything fails.

    Raises:
        ArtifactError: the disk is full, the place is not writable, or a folder.
    """
    path = Path(path)
    need_file_name(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            part.unlink()
        raise ArtifactError(str(path), "cannot be written", got=getattr(error, "strerror", None) or str(error),
                            fix="free some space or choose another place with --out") from None


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes bytes, all or nothing; see `replacing`, also for errors."""
    with replacing(path) as file:
        file.write(data)

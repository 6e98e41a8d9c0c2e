"""Places of data files, as users name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qspinn import arrays
from qspinn.errors import DataError


def path_of(where: str, path: Any) -> Path:
    """A path given as text or as a `Path`.

    Raises:
        DataError: neither, or one with a null character.
    """
    return arrays.path_of(where, path, DataError)


def files_in(place: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names are as the pattern says, by name; none where there is no such folder.

    Raises:
        DataError: as `exists`.
    """
    return sorted(place.glob(pattern)) if exists(place) else []


def exists(path: Path) -> bool:
    """Whether there is such a file or folder.

    Raises:
        DataError: nobody can say: a folder that may not be looked into, a name too long or with a NUL.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise DataError(
            str(path),
            "cannot be looked for",
            got=getattr(error, "strerror", None) or str(error),
            fix="name a folder that may be read",
        ) from None
    return True

"""A user's own .npz file as a data set; what it may hold is in docs/own_data.md."""

from __future__ import annotations

from pathlib import Path

from qspinn.data.events.dataset import EventDataset
from qspinn.data.images.dataset import Dataset
from qspinn.data.npz import read_all
from qspinn.data.own.arrays import events_of, images_of
from qspinn.data.own.forms import Settings
from qspinn.data.paths import exists
from qspinn.errors import DataError


def path_in(folder: str, file: str) -> Path:
    """The place of a user's file: in the folder, where its own path is relative.

    Raises:
        DataError: there is no such file, or a folder is named that an absolute path would not be looked for in.
    """
    path = Path(folder) / file
    if folder and Path(file).is_absolute() and path.parent != Path(folder):
        raise DataError(
            "data.file",
            "is an absolute path, so that nothing is looked for in data.folder (--data)",
            got=file,
            allowed=f"a path in {folder}, or no folder",
            fix=f"name the file itself: --data {Path(folder) / path.name}",
        )
    if not exists(path):
        raise DataError(
            "data.file",
            "is missing",
            got=str(path),
            fix="name the file, or the folder that it is in, with --data (data.file, data.folder)",
        )
    return path


def load_events(
    folder: str, *, file: str, bin_ms: float = 0.0, n_bins: int = 0, scale: float = 0.0, allow_shared: bool = False
) -> EventDataset:
    """The recordings of a file: a dense raster, packed events or event columns.

    Args:
        folder: where a relative `file` is. The others: as in `EventData`.

    Raises:
        DataError: the file is missing or damaged, or an array is not as it must be.
    """
    path = path_in(folder, file)
    settings = Settings(
        where=str(path), name=path.name, bin_ms=bin_ms, n_bins=n_bins, scale=scale, allow_shared=allow_shared
    )
    return events_of(read_all(path), settings)


def load_images(folder: str, *, file: str, scale: float = 0.0, allow_shared: bool = False) -> Dataset:
    """The images of a file.

    Args, Raises: as `load_events`, settings as in `DataConfig`.
    """
    path = path_in(folder, file)
    return images_of(read_all(path), Settings(where=str(path), name=path.name, scale=scale, allow_shared=allow_shared))

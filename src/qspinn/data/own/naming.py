"""Names of data files of the user's own in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from qspinn.errors import ConfigError

OWN = "npz"
"""Name of the data set that is the user's own file."""


def own_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """The name of the data set, where a configuration has a file and no name."""
    file = given.get("file")
    return {"name": OWN} if isinstance(file, str) and file and "name" not in given else {}


def need_file(name: str, file: str) -> None:
    """Checks that a file is given with the name "npz", and with no other.

    Raises:
        ConfigError: one without the other.
    """
    if name == OWN and not file:
        raise ConfigError("data.file", "is not given", allowed="an .npz file of your own", fix='file = "my.npz"')
    if file and name != OWN:
        raise ConfigError(
            "data.file",
            f"is for data of your own, and {name} is a set with a name",
            got=file,
            fix="leave out data.name or data.file",
        )


def title_of(name: str, file: str) -> str:
    """Name of the data in reports: the user's own file, else the name of the set."""
    return PurePath(file).name if name == OWN else name

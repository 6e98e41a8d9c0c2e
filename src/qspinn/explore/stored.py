"""What a candidate is kept as: how it is written, read and counted. Most candidates are integer programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from qspinn import program
from qspinn.memory import MemoryAccount, program_account


class Keyed(Protocol):
    """A candidate of any family."""

    def key(self) -> str: ...


class Stored(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How a family keeps what it builds, a record with a `provenance`.

    Attributes:
        suffix: of the files, with its dot.
        save, load: (built, path), (path) -> built.
        account: memory of what was built, which candidates are compared by.
    """

    suffix: str
    save: Callable[[Any, Path], object]
    load: Callable[[Path], Any]
    account: Callable[[Any], MemoryAccount]

    def path(self, folder: Path, candidate: Keyed) -> Path:
        """The file of a candidate in a run's folder."""
        return folder / "candidates" / f"{candidate.key()}{self.suffix}"

    @property
    def model(self) -> str:
        """The name of the winner's file in a run's folder."""
        return f"model{self.suffix}"


PROGRAM = Stored(suffix=".qspinn", save=program.save, load=program.load, account=program_account)

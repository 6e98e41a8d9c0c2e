"""Storage of candidates: how they are written, read and counted. Most candidates are integer programs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from qspinn import program
from qspinn.errors import ArtifactError, ConfigError, RunError
from qspinn.memory import MemoryAccount, program_account
from qspinn.records.record import from_plain

T = TypeVar("T")


class Keyed(Protocol):
    """A candidate of any family."""

    def key(self) -> str:
        """Key of the candidate: the hash of its content."""


class Stored(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Storage of the candidates of a family; a built candidate is a record with a `provenance`.

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

    def kept(self, folder: Path, candidate: Keyed, bits: int, sha256: str | None = None) -> Any:
        """Built candidate, read from a run's folder.

        Args:
            sha256: of the file that was measured; None where the run was made before it was noted.

        Raises:
            ArtifactError: the file is missing or damaged, what is in it is another candidate or takes other bits, or it
                is not the file that was measured.
        """
        path = self.path(folder, candidate)
        built = self.load(path)
        need_digest(path, sha256)
        stored = built.provenance.get("candidate")
        try:
            same = from_plain(type(candidate), stored, "candidate") == candidate
        except ConfigError:
            same = False
        if not same or self.account(built).total_bits != bits:
            raise ArtifactError(
                str(path),
                "is not the candidate that it is named after",
                got=stored.get("label") if isinstance(stored, dict) else stored,
            )
        return built

    @property
    def model(self) -> str:
        """The name of the winner's file in a run's folder."""
        return f"model{self.suffix}"


def digest(path: Path) -> str:
    """sha256 (hex) of a file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ArtifactError(str(path), "cannot be read", got=error.strerror) from None


def need_digest(path: Path, sha256: str | None) -> None:
    """Checks that a file is the one that was noted; with None, nothing was noted.

    Raises:
        ArtifactError: it is another, such as one of another run, or cannot be read.
    """
    if sha256 is not None and (found := digest(path)) != sha256:
        raise ArtifactError(str(path), "is not the file that this run wrote", got=found, allowed=sha256)


def from_start_if_damaged(interrupted: Path, train: Callable[[], T]) -> T:
    """Result of a training: going on from the file of an interrupted one, or from the start where that file is damaged
    or of another training. It costs time and nothing else, so that it need not stop a whole run."""
    try:
        return train()
    except (ArtifactError, RunError) as error:
        if error.where not in (str(interrupted), "n_done") or not interrupted.exists():
            raise
    interrupted.unlink()
    return train()


def readable(load: Callable[[Path], T], path: Path) -> T | None:
    """The content of a file as `load` reads it; None where the file is missing or damaged."""
    try:
        return load(path)
    except ArtifactError:
        return None


PROGRAM = Stored(suffix=".qspinn", save=program.save, load=program.load, account=program_account)

"""Records of a run's journal as they are understood: the kinds that there are, with the fields that each must have."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from qspinn.errors import RunError
from qspinn.fixedpoint import Rounding

Number = int | float
POINT = rf"^(plan|[^|]+\|({'|'.join(rounding.value for rounding in Rounding)})\|[0-9]{{1,2}})$"
"""Names of the points of a sweep."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Record of any kind; fields that are not named here are kept as they are."""

    key: str


class RunEntry(_Entry, frozen=True, kw_only=True, tag="run"):
    """First record of a journal: the experiment and the data that the run is about."""

    labels: list[str] | None = None
    shape: list[int] | None = None


class FloatEntry(_Entry, frozen=True, kw_only=True, tag="float"):
    """A trained float network."""

    accuracy: Number
    sha256: str | None = None


class SensitivityEntry(_Entry, frozen=True, kw_only=True, tag="sensitivity"):
    """Point of the significance sweep, named ``path|rounding|bits``, or `plan` for the one where all curves begin."""

    label: Annotated[str, msgspec.Meta(pattern=POINT)]
    accuracy: Number | None = None
    rejected: str | None = None


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate in a record, of which only the name is looked at here."""

    label: str


class CandidateEntry(_Entry, frozen=True, kw_only=True, tag="candidate"):
    """A measured candidate, or one that was not possible and why."""

    candidate: Labelled
    accuracy: Number | None = None
    bits: Annotated[int, msgspec.Meta(gt=0)] | Annotated[float, msgspec.Meta(gt=0)] | None = None
    rejected: str | None = None
    sha256: str | None = None


def check_entries(records: list[dict[str, Any]], where: str) -> None:
    """Checks that the records of a journal can be understood: the first says what the run is about, and each is of a
    known kind with the fields of its kind.

    Raises:
        RunError: names the record by its number in the journal, from 1.
    """
    kinds = RunEntry | FloatEntry | SensitivityEntry | CandidateEntry
    for number, record in enumerate(records, 1):
        try:
            entry = msgspec.convert(record, kinds)
        except msgspec.ValidationError as error:
            raise _not_understood(where, number, str(error)) from None
        if number == 1 and not isinstance(entry, RunEntry):
            raise _not_understood(where, number, f"the first record is of kind {record['kind']!r}, not 'run'")


def _not_understood(where: str, number: int, problem: str) -> RunError:
    return RunError(
        where,
        "holds a record that is not understood: it is damaged, or of another version of qspinn",
        got=f"record {number}: {problem}",
        fix="choose another folder with --out, or delete this one",
    )

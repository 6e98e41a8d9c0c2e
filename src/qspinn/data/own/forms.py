"""The forms in which a user's arrays hold recordings or images, and what is checked of all of them.

The names of the arrays and their meaning are those of an .npz file, see docs/own_data.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import numbers, reals, whole
from qspinn.data.own.labels import Classes, classes_of
from qspinn.data.own.splits import PARTS, need_parts
from qspinn.errors import DataError
from qspinn.records.words import nearest
from qspinn.spikes import MAX_COUNT

Arrays = Mapping[str, NDArray]
BLOCK = 1 << 20
"""Values that are scaled at once."""


class Form(NamedTuple):
    """A form in which recordings are stored.

    Attributes:
        needed: arrays that there must be, for each split where there are splits.
        possible: arrays that there may be, likewise.
        common: arrays that hold for all splits.
    """

    needed: tuple[str, ...]
    possible: tuple[str, ...]
    common: tuple[str, ...]


FORMS = {
    "dense": Form(("x", "labels"), (), ("class_names", "bin_ms")),
    "packed": Form(("offsets", "index", "labels"), ("count",), ("class_names", "bin_ms", "shape")),
    "columns": Form(
        ("x", "y", "t", "p", "offsets", "labels"), (), ("class_names", "bin_ms", "n_bins", "sensor", "time_unit")
    ),
    "images": Form(("x", "labels"), (), ("class_names", "shape")),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of arrays of the user's own: all that their values do not say.

    Attributes:
        where: the file or object named in errors. name: of the data set.
        bin_ms: length of a step [ms]; 0: as the arrays say. n_bins: steps of event columns; 0: as the longest needs.
        scale: dense values times this, rounded, are counts or pixels; 0: they are.
        allow_shared: splits may hold recordings of the same content.
    """

    where: str
    name: str
    bin_ms: float = 0.0
    n_bins: int = 0
    scale: float = 0.0
    allow_shared: bool = False


class ArraySet(NamedTuple):
    """The arrays of a set in their order: their form, the ones that hold for all, and those of each split or of "", all
    recordings together; `suffix` makes the full name of an array."""

    form: str
    common: dict[str, NDArray]
    parts: dict[str, dict[str, NDArray]]

    def suffix(self, part: str) -> str:
        return f"_{part}" if part else ""


def _bases(arrays: Arrays) -> set[str]:
    """Names of arrays without those of splits."""
    return {
        next((name.removesuffix(f"_{part}") for part in PARTS if name.endswith(f"_{part}")), name) for name in arrays
    }


def arranged(arrays: Arrays, where: str, *, images: bool = False) -> ArraySet:
    """The arrays of a set by what they are for.

    Raises:
        DataError: one is missing, or is not understood.
    """
    bases = _bases(arrays)
    form = "images" if images else "packed" if "index" in bases else "columns" if "t" in bases else "dense"
    rules = FORMS[form]
    parts = {
        part: {
            name.removesuffix(f"_{part}"): array
            for name, array in arrays.items()
            if name.endswith(f"_{part}") and name.removesuffix(f"_{part}") in (*rules.needed, *rules.possible)
        }
        for part in PARTS
    }
    if any(parts.values()):
        each = [f"{name}_{part}" for part in PARTS for name in (*rules.needed, *rules.possible)]
        _need_known(arrays, where, [*rules.common, *each])
        need_parts(where, parts)
    else:
        _need_known(arrays, where, [*rules.needed, *rules.possible, "split", *rules.common])
        parts = {"": {name: arrays[name] for name in arrays if name not in rules.common}}
    for part, own in parts.items():
        missing = [f"{name}_{part}" if part else name for name in rules.needed if name not in own]
        if missing:
            raise DataError(
                where,
                f"holds no array {missing[0]!r}",
                got=sorted(arrays),
                allowed=f"with {', '.join(rules.needed)} of {part or 'all recordings'}",
                fix=f"add {missing[0]}",
            )
    return ArraySet(form, {name: arrays[name] for name in rules.common if name in arrays}, parts)


def _need_known(arrays: Arrays, where: str, known: list[str]) -> None:
    """Refuses an array whose name has no meaning."""
    for name in arrays:
        if name not in known:
            raise DataError(
                where,
                "holds an array that is not understood",
                got=name,
                allowed=", ".join(known),
                fix=nearest(name, known) or f"leave {name} out",
            )


def classes_in(arrays: ArraySet, where: str) -> Classes:
    """The labels of all splits as numbers of one list of classes."""
    labels = {f"labels{arrays.suffix(part)}": own["labels"] for part, own in arrays.parts.items()}
    return classes_of(where, labels, arrays.common.get("class_names"))


def need_no_scale(settings: Settings, noun: str) -> None:
    """Refuses a scale where there are no values to scale."""
    if settings.scale:
        raise DataError(
            "data.scale",
            f"is for dense rasters and images, and {settings.where} holds {noun}",
            got=settings.scale,
            fix="leave it out",
        )


def need_as_many(where: str, name: str, n: int, labels: NDArray) -> None:
    """Refuses labels that are not one for each recording."""
    if n != len(labels):
        raise DataError(
            f"{where}: labels",
            "are not as many as the recordings",
            got=len(labels),
            allowed=f"{n}, as {name}",
            fix="one label for each recording",
        )


def _scaled(where: str, x: NDArray, scale: float) -> NDArray[np.uint8]:
    """Values times the scale, rounded, block by block: floats of 64 bits of all of them would take many times the
    memory of what is stored."""
    out = np.empty(x.shape, np.uint8)
    rows = max(1, BLOCK // max(1, x[:1].size)) if x.ndim else 1
    for start in range(0, len(x) if x.ndim else 0, rows):
        block = x[start : start + rows]
        try:
            values = reals(where, block, low=0.0, high=MAX_COUNT / scale)
        except DataError as error:  # which names the place within the block
            first, comma, others = error.where.removeprefix(f"{where}[").partition("," if x.ndim > 1 else "]")
            place = f"{where}[{start + int(first)}{comma}{others}" if first.isdigit() else error.where
            raise DataError(place, error.problem, got=error.got, allowed=error.allowed, fix=error.fix) from None
        out[start : start + rows] = np.floor(values * scale + 0.5)
    return out


def counts_of(where: str, x: Any, scale: float, *, pixels: bool = False) -> NDArray[np.uint8]:
    """Values 0..255 as bytes: counts as they are, anything else only where a scale says what it means.

    Raises:
        DataError: names the array and the first value that is none, with its position.
    """
    array = numbers(where, x, None, DataError)
    if scale:
        return _scaled(where, array.view(np.uint8) if array.dtype.kind == "b" else array, scale)
    if pixels and array.dtype.kind == "b":
        raise DataError(
            where,
            "holds booleans where pixels 0..255 are asked",
            got=str(array.dtype),
            allowed="integers 0..255",
            fix="say what True is worth: scale = 255 takes x * 255",
        )
    if array.dtype.kind == "f":
        reals(where, array, low=0.0)
        if pixels or (array != np.floor(array)).any():
            noun, usual = ("pixels 0..255", 255.0) if pixels else ("counts", 1.0)
            raise DataError(
                where,
                f"holds floats where {noun} are asked",
                got=str(array.dtype),
                allowed="integers 0..255",
                fix=f"round them yourself, or say what one is worth: scale = {usual:g} takes x * {usual:g}, rounded",
            )
    return whole(where, array, low=0, high=MAX_COUNT, whole_floats=True).astype(np.uint8)

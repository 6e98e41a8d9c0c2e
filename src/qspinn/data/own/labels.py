"""Labels of the user's own data as numbers of classes: integers as they are, text by its sorted order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integers, numbers
from qspinn.errors import DataError
from qspinn.records.words import nearest

MOST_CLASSES = 4096
"""A larger number is a measured quantity or a running number, not a class."""
LAST_CODE, SURROGATES = 0x10FFFF, range(0xD800, 0xE000)
"""Code points of text: up to the last, without those that stand for halves of others."""
SHOWN = 20
"""Classes that a report names one by one."""


class Classes(NamedTuple):
    """Labels as numbers of classes.

    Attributes:
        labels: int64 [N] of every part.
        names: of the classes; label k is names[k].
        rule: how text became numbers, for the report; empty where labels were numbers.
    """

    labels: dict[str, NDArray[np.int64]]
    names: tuple[str, ...]
    rule: str


def classes_of(where: str, labels: Mapping[str, NDArray], names: NDArray | None) -> Classes:
    """The labels of all parts as numbers of one list of classes.

    Args:
        labels: [N] by name of the array: integers of 0 or more, or text.
        names: of the classes [K]; None: the numbers, or the texts in sorted order.

    Raises:
        DataError: labels that are neither numbers nor text, of another shape, no class, or of too many classes.
    """
    flat = {array: _flat(f"{where}: {array}", given) for array, given in labels.items()}
    known = None if names is None else _names(f"{where}: class_names", names)
    is_text = [given.dtype.kind == "U" for given in flat.values()]
    if any(is_text) and not all(is_text):
        raise DataError(f"{where}: labels", "are text in one split and numbers in another", allowed="one kind")
    if all(is_text):
        return _of_text(where, flat, known)
    numbered = {array: integers(f"{where}: {array}", given, shape=(None,)) for array, given in flat.items()}
    return _of_numbers(where, numbered, known)


def text_of(where: str, array: NDArray) -> NDArray[np.str_]:
    """An array of text, of text in bytes (UTF-8), or as it is.

    Raises:
        DataError: bytes that are no text, or code points that no character has.
    """
    if array.dtype.kind == "U" and array.dtype.itemsize and array.size:
        codes = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.str[0]}u4")
        if ((codes > LAST_CODE) | ((codes >= SURROGATES[0]) & (codes <= SURROGATES[-1]))).any():
            raise DataError(where, "holds code points that no character has", allowed="text (Unicode)")
    if array.dtype.kind != "S":
        return array
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError:
        raise DataError(where, "holds bytes that are no text", allowed="UTF-8") from None


def _flat(where: str, given: Any) -> NDArray:
    array = numbers(where, given, None, DataError)
    if array.ndim != 1:
        one_hot = array.ndim == 2 and array.dtype.kind != "U"
        raise DataError(
            where,
            "has the wrong shape",
            got=array.shape,
            allowed="[N], one class for each recording",
            fix="labels.argmax(axis=1), where each row marks its class" if one_hot else "",
        )
    return text_of(where, array)


def _names(where: str, names: NDArray) -> tuple[str, ...]:
    """Names of classes as text, each once."""
    array = text_of(where, numbers(where, names, (None,), DataError))
    if array.dtype.kind != "U" or not 1 <= len(array) <= MOST_CLASSES:
        raise DataError(
            where,
            "are no names of classes",
            got=f"{array.dtype} {array.shape}",
            allowed=f"text [K], 1..{MOST_CLASSES} classes",
        )
    found = tuple(array.tolist())
    if len(set(found)) != len(found):
        raise DataError(where, "name a class twice", got=sorted({n for n in found if found.count(n) > 1})[:SHOWN])
    return found


def _of_text(where: str, labels: dict[str, NDArray], known: tuple[str, ...] | None) -> Classes:
    texts = {array: given.tolist() for array, given in labels.items()}
    names = known or tuple(sorted({text for given in texts.values() for text in given}))
    _need_few(f"{where}: labels", len(names))
    numbers_of = {name: k for k, name in enumerate(names)}
    for array, given in texts.items():
        for i, text in enumerate(given):
            if text not in numbers_of:
                raise DataError(
                    f"{where}: {array}[{i}]",
                    "is none of class_names",
                    got=text,
                    allowed=", ".join(names[:SHOWN]),
                    fix=nearest(text, names),
                )
    numbered = {array: np.array([numbers_of[t] for t in given], np.int64) for array, given in texts.items()}
    order = "labels are text, and classes follow " + ("class_names" if known else "its sorted order")
    return Classes(numbered, names, f"{order}: {listed([f'{k} = {name}' for k, name in enumerate(names)])}")


def _of_numbers(where: str, labels: dict[str, NDArray[np.int64]], known: tuple[str, ...] | None) -> Classes:
    for array, given in labels.items():
        integers(f"{where}: {array}", given, low=0)
    largest = max((int(given.max(initial=0)) for given in labels.values()), default=0)
    if known is None:
        _need_few(f"{where}: labels", largest + 1)
    for array, given in labels.items():
        if known is not None and given.size and given.max() >= len(known):
            i = int(np.argmax(given >= len(known)))
            raise DataError(
                f"{where}: {array}[{i}]",
                "has no name",
                got=int(given[i]),
                allowed=f"0..{len(known) - 1}, as class_names",
            )
    return Classes(labels, known or tuple(str(k) for k in range(largest + 1)), "")


def _need_few(where: str, n: int) -> None:
    if n > MOST_CLASSES:
        raise DataError(
            where,
            "are of too many classes",
            got=n,
            allowed=f"1..{MOST_CLASSES} classes, numbered from 0",
            fix="a label is the number of a class, not a measured value or the number of a recording",
        )


def listed(words: Sequence[str]) -> str:
    """Words one after the other, not more than a reader looks through."""
    rest = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def absences(where: str, parts: Mapping[str, NDArray[np.int64]], names: tuple[str, ...]) -> list[str]:
    """Sentences of a report on classes that validation or test lack.

    Raises:
        DataError: a split without recordings, or training without one of a class.
    """
    notes = []
    for part, labels in parts.items():
        if not labels.size:
            raise DataError(
                f"{where}: {part}", "holds no recordings", got=0, allowed="one or more", fix=f"put some into {part}"
            )
        present = set(labels.tolist())
        missing = [name for k, name in enumerate(names) if k not in present]
        if missing and part == "train":
            raise DataError(
                f"{where}: train",
                "holds no recording of some classes",
                got=missing[:SHOWN],
                fix="number the classes from 0" if missing[0] == "0" else "add recordings of these classes to training",
            )
        if missing:
            notes.append(f"{part} holds no recording of {listed(missing)}")
    return notes

"""Training, validation and test splits of a set without published parts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import numbers
from qspinn.data.own.labels import SHOWN, text_of
from qspinn.errors import DataError
from qspinn.records.words import nearest

PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)
SEED = 0
Numbers = dict[str, NDArray[np.int64]]
"""For each split the numbers of its recordings."""


def by_name(where: str, split: NDArray, n: int) -> Numbers:
    """The numbers of the recordings of each split, from the name of the split of each recording [N].

    Raises:
        DataError: another shape, or a name of no split.
    """
    names = text_of(where, numbers(where, split, None, DataError))
    if names.shape != (n,) or names.dtype.kind != "U":
        raise DataError(
            where, "does not name a split of each recording", got=f"{names.dtype} {names.shape}", allowed=f"text [{n}]"
        )
    bad = np.flatnonzero(~np.isin(names, PARTS))
    if bad.size:
        word = str(names[bad[0]])
        raise DataError(
            f"{where}[{bad[0]}]", "names no split", got=word, allowed=", ".join(PARTS), fix=nearest(word, PARTS)
        )
    return {part: np.flatnonzero(names == part) for part in PARTS}


def by_content(
    where: str,
    labels: NDArray[np.int64],
    contents: Sequence[bytes],
    names: Sequence[str],
    shares: dict[str, float] | None = None,
) -> Numbers:
    """The numbers of the recordings of each split, of every class the same share, in the order of a hash of their
    content: whatever the order of the recordings in their file, each is in the same split, and recordings of the same
    content and class stay together.

    Args:
        labels: class of each recording [N].
        contents: a hash of each recording; empty where it holds nothing. Those are told apart by their number within
            the class, and are spread over the splits like the others.
        shares: of each split, in 0..1; the first takes what remains.

    Raises:
        DataError: a class of fewer recordings than there are splits.
    """
    shares = shares or dict(zip(PARTS, SHARES, strict=True))
    ranks = [
        hashlib.blake2b(SEED.to_bytes(8, "little") + known, digest_size=16).digest()
        for known in _distinct(labels, contents)
    ]
    chosen: dict[str, list[int]] = {part: [] for part in shares}
    for label in np.unique(labels):
        own = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: ranks[i])
        if len(own) < len(shares):
            raise DataError(
                f"{where}: labels",
                f"class {names[label]} has too few recordings to be in every split",
                got=len(own),
                allowed=f"{len(shares)} or more",
                fix="add recordings, or say which are in which split",
            )
        _deal(own, ranks, shares, chosen)
    return {part: np.array(sorted(own, key=lambda i: ranks[i]), np.int64) for part, own in chosen.items()}


def _distinct(labels: NDArray[np.int64], contents: Sequence[bytes]) -> list[bytes]:
    """The hash of each recording; of one without content its class and its number within the class, so that it does not
    matter where in the file it is."""
    seen: dict[int, int] = {}
    named = []
    for label, content in zip(labels.tolist(), contents, strict=True):
        if not content:
            seen[label] = seen.get(label, 0) + 1
        named.append(content or f"{label} {seen[label]}".encode())
    return named


def need_one_label(
    where: str, labels: NDArray[np.int64], contents: Sequence[bytes], names: Sequence[str], noun: str = "recordings"
) -> None:
    """Refuses recordings of the same content and different labels, which no split by content can keep together.

    Args: as `by_content`.

    Raises:
        DataError: names the first two and their labels.
    """
    known: dict[bytes, int] = {}
    for i, content in enumerate(contents):
        first = known.setdefault(content, i) if content else i
        if labels[first] != labels[i]:
            raise DataError(
                f"{where}: labels",
                f"{noun} {first} and {i} are the same and have different labels",
                got=[names[labels[first]], names[labels[i]]],
                allowed="one label for each content",
                fix="leave one of them out, or pass allow_shared=True (for data of your own data.allow_shared)",
            )


def _deal(own: list[int], ranks: list[bytes], shares: dict[str, float], chosen: dict[str, list[int]]) -> None:
    """Puts the recordings of a class, in their order, into the splits; those of one rank into one split."""
    first, *others = shares
    sizes = {part: max(1, math.floor(shares[part] * len(own) + 0.5)) for part in others}
    sizes = {first: max(1, len(own) - sum(sizes.values())), **sizes}
    places = [part for part, size in sizes.items() for _ in range(size)]
    place: dict[bytes, str] = {}
    for at, i in enumerate(own):
        chosen[place.setdefault(ranks[i], places[at])].append(i)


def rule_of(shares: Sequence[float] = SHARES, noun: str = "recordings") -> str:
    """Rule by which `by_content` splits, as a sentence of a report."""
    train, validation, test = (f"{share * 100:.0f} %" for share in shares)
    return (
        f"without a split of its own: of each class, {noun} in the order of a hash of their content (seed {SEED}), the "
        f"first {train} for training, the next {validation} for validation, the last {test} for test, {noun} of the "
        "same content together"
    )


def need_parts(where: str, found: dict[str, Any]) -> None:
    """Refuses some splits without the others."""
    missing = [part for part in PARTS if not found.get(part)]
    if missing:
        raise DataError(
            where,
            f"holds no split for {missing[0]}",
            got=[part for part in PARTS if found.get(part)][:SHOWN],
            allowed=", ".join(f"x_{part}, labels_{part}" for part in PARTS),
            fix="store all three, or x and labels without splits, which are then split by a rule",
        )

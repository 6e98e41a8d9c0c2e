"""Overlap of the splits of a data set: shared recordings, compared by a hash of their content, and classes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import DataError

Contents = Sequence[tuple[str, list[bytes]]]
"""Name of each split and the hashes of its recordings."""


def hashes(rows: Sequence[Sequence[NDArray]]) -> list[bytes]:
    """A hash of the arrays of each recording, empty where the last of them holds nothing but zeros: a recording without
    events has no content that could be known from another split."""
    digests = []
    for arrays in rows:
        if not arrays[-1].any():
            digests.append(b"")
            continue
        sha = hashlib.blake2b(digest_size=16)
        for array in arrays:
            sha.update(np.ascontiguousarray(array).data if array.size else b"")
        digests.append(sha.digest())
    return digests


def shared(contents: Contents) -> dict[tuple[str, str], int]:
    """Number of recordings with events of a later split that are in an earlier one, by pair of splits that share any;
    all, where both are the same from end to end."""
    counts = {}
    for (first, a), (second, b) in itertools.combinations(contents, 2):
        known = set(a)
        counts[first, second] = len(b) if a == b and any(b) else sum(content in known for content in b if content)
    return {pair: n for pair, n in counts.items() if n}


def refuse_shared(name: str, counts: dict[tuple[str, str], int]) -> None:
    """Raises where splits share recordings."""
    if counts:
        pairs = ", ".join(f"{a} and {b} share {n}" for (a, b), n in counts.items())
        raise DataError(
            name,
            "splits share recordings (of the same content), so that results on them say nothing",
            got=pairs,
            allowed="0",
            fix="keep each recording in one split, or pass allow_shared=True to the data set (for data of your own "
            "data.allow_shared), which is stored with it",
        )


def check_shared(name: str, allow_shared: object) -> None:
    """Raises where `allow_shared` is no boolean."""
    if not isinstance(allow_shared, bool):
        raise DataError(f"{name}.allow_shared", "is neither True nor False", got=allow_shared, allowed="True, False")


def check_classes(where: str, labels: NDArray[np.int64], n_classes: int) -> None:
    """Raises where a label is no class."""
    if labels.size and not 0 <= labels.min() <= labels.max() < n_classes:
        unknown = sorted({k for k in labels.tolist() if not 0 <= k < n_classes})
        raise DataError(f"{where}.labels", "unknown class", got=unknown[:20], allowed=f"0..{n_classes - 1}")


def lacking(labels: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """The names of the classes that no recording with these labels is of."""
    present = set(labels.tolist())
    return [name for k, name in enumerate(names) if k not in present]


def class_counts(splits: Sequence[tuple[str, NDArray[np.int64]]], n_classes: int) -> dict[str, tuple[int, ...]]:
    """Number of recordings of each class in each split."""
    return {name: tuple(np.bincount(labels, minlength=n_classes).tolist()) for name, labels in splits}

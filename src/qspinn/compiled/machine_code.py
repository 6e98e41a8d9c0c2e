"""Where compiled kernels are kept on disk, so that no process ever loads one that was compiled for anything else.

Numba keeps a list for each function and numbers the files of its signatures. Two processes that compile different
signatures at a time can give them the same number; one of them then runs machine code made for other types. Numba also
compares only the file that defines a function, so a function stays as it was where a part of it that another file
defines has changed. Here a file bears the digest of its signature and of all sources that the function is made of:
there is no list that could be out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from numba.core.caching import IndexDataCacheFile


class MachineCode(IndexDataCacheFile):
    """The files of one function, in place of Numba's: `BASE.SOURCES.SIGNATURE.nbc`, digests in hexadecimal digits."""

    def __init__(self, function: Callable[..., Any], folder: str, base: str) -> None:
        super().__init__(folder, base, None)  # type: ignore[no-untyped-call]
        self.base, self.sources = base, sources_digest(function)

    def name(self, key: tuple[Any, ...]) -> str:
        """The file of one signature, processor and Numba's version."""
        return f"{self.base}.{self.sources}.{_digest(repr((self._version, key)).encode())}.nbc"

    def load(self, key: tuple[Any, ...]) -> Any:
        """What was saved for a signature, or None; a file that cannot be read counts as none."""
        try:
            return self._load_data(self.name(key))  # type: ignore[no-untyped-call]
        except Exception:  # a damaged pickle raises anything
            return None

    def save(self, key: tuple[Any, ...], data: Any) -> None:
        """Keeps a signature's code, whole or not at all, and removes files of sources that are no more."""
        self._save_data(self.name(key), data)  # type: ignore[no-untyped-call]
        for file in Path(self._cache_path).glob(f"{self.base}.*.nb[ic]"):
            if not file.name.startswith(f"{self.base}.{self.sources}."):
                file.unlink(missing_ok=True)

    def flush(self) -> None:
        """Removes what is kept of the function."""
        for file in Path(self._cache_path).glob(f"{self.base}.*.nb[ic]"):
            file.unlink(missing_ok=True)


def keep(dispatcher: Any) -> None:
    """Has a function, jitted with `cache=True`, keep its machine code in such files."""
    cache = dispatcher._cache
    cache._cache_file = MachineCode(dispatcher.py_func, cache._cache_path, cache._impl.filename_base)


def sources_digest(function: Callable[..., Any]) -> str:
    """A digest of all that a function is compiled from.

    Of the function's module, and of each module whose jitted functions it can call, these are the file and the numbers
    that the module knows by name, which Numba compiles in as constants.
    """
    known: dict[str, bytes] = {}
    _collect(function, known)
    return _digest(b"".join(known[file] for file in sorted(known)))


def _collect(function: Callable[..., Any], known: dict[str, bytes]) -> None:
    file = function.__code__.co_filename
    if file in known:
        return
    names = {name: value for name, value in function.__globals__.items() if not name.startswith("__")}
    constants = sorted((name, repr(value)) for name, value in names.items() if isinstance(value, int | float))
    known[file] = hashlib.sha256(Path(file).read_bytes() + repr(constants).encode()).digest()
    modules = [value for value in names.values() if isinstance(value, ModuleType) and _of_package(value)]
    for value in chain(names.values(), *(vars(module).values() for module in modules)):
        called: Any = getattr(value, "py_func", None) or getattr(value, "_defn", None)  # dispatchers, intrinsics
        if hasattr(called, "__code__"):
            _collect(called, known)


def _of_package(module: ModuleType) -> bool:
    return module.__name__.split(".")[0] == __name__.split(".")[0]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

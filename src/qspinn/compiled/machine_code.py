"""Store of compiled kernels on disk, from which no process loads one that was compiled for anything else.

Numba keeps a list for each function and numbers the files of its signatures. Two processes that compile different
signatures at a time can give them the same number; one of them then runs machine code made for other types. Numba also
compares only the file that defines a function, so a function stays as it was where a part of it that another file
defines has changed. Here a file bears the digest of its signature and of all sources that the function is made of:
there is no list that could be out of date.

Files lie beside the source, or where nothing can be written there (a system's installation, a read-only container) in
the user's cache folder; where that cannot be written to either, kernels are compiled in every process. Of processes
that need the same machine code at a time, one compiles it and the others wait for its file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numba.core.config
from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock
from numba.misc.appdirs import AppDirs

from qspinn.compiled.one_at_a_time import alone

HOW = tuple(Path(__file__).with_name(name) for name in ("jit.py", "parts.py"))
"""Source files that set the options and the steps of compiling."""


class MachineCode(IndexDataCacheFile):
    """The files of one function, in place of Numba's: `BASE.SOURCES.SIGNATURE.nbc`, digests in hexadecimal digits."""

    def __init__(self, function: Callable[..., Any], folder: str, base: str) -> None:
        super().__init__(folder, base, None)  # type: ignore[no-untyped-call]
        self.base, self.sources = base, sources_digest(function)

    def name(self, key: tuple[Any, ...]) -> str:
        """The file of one signature, processor and Numba's version."""
        return f"{self.base}.{self.sources}.{_digest(repr((self._version, key)).encode())}.nbc"

    def load(self, key: tuple[Any, ...]) -> Any:
        """Machine code that was saved for a signature; None where there is none or its file cannot be read."""
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


class _Place:
    """The folder of a function's files, as Numba asks for it."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self.function, self.folder = function, folder

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Place | None:
        folder = folder_of(file)
        return None if folder is None else cls(function, folder)

    def ensure_cache_path(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self.folder)

    def get_source_stamp(self) -> str:
        return ""  # files bear the digest of their sources

    def get_disambiguator(self) -> str:
        return str(self.function.__code__.co_firstlineno)


class _Result(CompileResultCacheImpl):
    _locator_classes = (_Place,)


class _Kept(FunctionCache):
    """Numba's driver, with files of ours in a folder of ours; a file that cannot be written is none."""

    _impl_class = _Result

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = MachineCode(function, self._cache_path, self._impl.filename_base)

    def _save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # the disk is full, or the folder is gone
            super()._save_overload(sig, data)  # type: ignore[no-untyped-call]

    def file(self, signature: Any, codegen: Any) -> Path:
        """File of a signature's machine code, which need not exist yet."""
        return Path(self._cache_path, self._cache_file.name(self._index_key(signature, codegen)))  # type: ignore[no-untyped-call]


def keep(dispatcher: Any) -> None:
    """Has a jitted function keep its machine code in such files, where a folder can be written to."""
    if folder_of(dispatcher.py_func.__code__.co_filename) is None:
        return
    dispatcher._cache = _Kept(dispatcher.py_func)
    dispatcher.compile = functools.partial(_compile_once, dispatcher, dispatcher.compile)


def is_missing(dispatcher: Any) -> bool:
    """Whether a kernel's machine code can be kept, and none of its present sources is."""
    if not isinstance(dispatcher._cache, _Kept):
        return False
    file = dispatcher._cache._cache_file
    return not any(Path(file._cache_path).glob(f"{file.base}.{file.sources}.*.nbc"))


def _compile_once(dispatcher: Any, compile_now: Callable[[Any], Any], signature: Any) -> Any:
    """`Dispatcher.compile`, which compiles or loads what is kept; while another process compiles the same, it waits."""
    with global_compiler_lock:  # first, as compiling asks for it: no thread holds a file and waits for the compiler
        arguments, _ = sigutils.normalize_signature(signature)
        if tuple(arguments) in dispatcher.overloads:
            return compile_now(signature)
        file = dispatcher._cache.file(signature, dispatcher.targetctx.codegen())
        with contextlib.nullcontext() if file.exists() else alone(file.with_suffix(".lock")):
            return compile_now(signature)


def folder_of(file: str) -> Path | None:
    """Folder for the machine code of a source file's kernels: the one that NUMBA_CACHE_DIR names, else beside
    the source, else the user's cache folder; None where none of them can be written to."""
    source = Path(file).absolute()
    beside, own = source.parent / "__pycache__", f"{source.parent.name}_{_digest(str(source.parent).encode())}"
    named = numba.core.config.CACHE_DIR  # type: ignore[attr-defined]
    places = [beside, *([user_folder() / own] if user_folder() else [])]
    if named:
        places.insert(0, Path(named) / own)
    return next((place for place in places if _can_be_written(place)), None)


def user_folder() -> Path | None:
    """The user's folder of compiled kernels: $XDG_CACHE_HOME/qspinn/kernels, or what the system has in its place."""
    folder = Path(AppDirs(appname="qspinn", appauthor=False).user_cache_dir) / "kernels"  # type: ignore[no-untyped-call]
    return folder if folder.is_absolute() else None  # a user without a home


@functools.cache
def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def sources_digest(function: Callable[..., Any]) -> str:
    """A digest of all that a function is compiled from.

    Of the function's module, and of each module whose jitted functions it can call, these are the file and the numbers
    that the module knows by name, which Numba compiles in as constants. The files that say how Numba compiles belong to
    it, too.
    """
    known = {str(file): hashlib.sha256(file.read_bytes()).digest() for file in HOW}
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

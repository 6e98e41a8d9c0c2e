"""Arrays from outside: accepted as numbers of one kind, in native byte order, as a copy; or refused by name.

Every constructor and function that takes arrays of a user passes them through here before any compiled code sees them.
A refusal names the array, the value that does not fit (with its position), what is allowed and the mend.
"""

from __future__ import annotations

import math
import mmap
import os
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError, DataError, QSpinnError

Shape = tuple[int | None, ...]
"""A shape that is asked for; None stands for any length."""
DEEPEST = 64
"""Most axes that NumPy's arrays have."""
LOWEST, HIGHEST = -(2**63), 2**63 - 1
LARGEST_SIZE = 1e100
"""Largest size of a real parameter, and with 1 / LARGEST_SIZE for the least one that is not 0: quotients and squares of
two stay numbers of 64 bits."""

LARGEST_FACTOR = 1e30
"""Largest size of a declared constant, and with 1 / LARGEST_FACTOR the least that is not 0: networks compute in
floats of 32 bits."""


def integers(
    where: str,
    x: Any,
    *,
    shape: Shape | None = None,
    low: int = LOWEST,
    high: int = HIGHEST,
    whole_floats: bool = False,
    error: type[QSpinnError] = DataError,
) -> NDArray[np.int64]:
    """x as int64, C order, within low..high; a copy unless x is such an array already.

    Args:
        where: name of the array, for the message.
        shape: what its shape must be; None leaves it open, as a length that is None does.
        whole_floats: also take floats whose values are whole numbers (rasters of 0.0 and 1.0).
        error: the kind of error that is raised.

    Raises:
        QSpinnError: of kind `error`: no rectangular array, masked, of another kind (floats, text, objects, complex), of
            another shape, or with a value outside low..high.
    """
    array = whole(where, x, shape=shape, low=low, high=high, whole_floats=whole_floats, error=error)
    return np.ascontiguousarray(array).astype(np.int64, copy=False).reshape(array.shape)


def whole(
    where: str,
    x: Any,
    *,
    shape: Shape | None = None,
    low: int = LOWEST,
    high: int = HIGHEST,
    whole_floats: bool = False,
    error: type[QSpinnError] = DataError,
) -> NDArray[Any]:
    """x of the type that it has (booleans, integers, or floats without fractions), in native byte order; not copied
    where it is so already. For rasters and columns that would be large as int64.

    Args, Raises: as `integers`.
    """
    array = numbers(where, x, shape, error)
    kind = array.dtype.kind
    if kind == "f" and whole_floats:
        _reject(where, array, ~np.isfinite(array), "holds a value that is no number", "whole numbers", error)
        _reject(where, array, array != np.floor(array), "holds a value that is no whole number", "whole numbers", error)
    elif kind not in "biu" and (array.size or kind != "f"):
        fix = f"round {where} yourself if its values are meant as integers" if kind == "f" else ""
        raise error(where, "holds no integers", got=str(array.dtype), allowed="an array of integers", fix=fix)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    _within(where, array, low, high, _span(low, high), error)
    return array


def reals(
    where: str,
    x: Any,
    *,
    shape: Shape | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    error: type[QSpinnError] = DataError,
) -> NDArray[np.float64]:
    """x as float64, C order, finite and within low..high; a copy unless x is such an array already.

    Raises:
        QSpinnError: of kind `error`; as in `integers`, and for NaN and infinity.
    """
    array = numbers(where, x, shape, error)
    if array.dtype.kind not in "iuf":
        raise error(where, "holds no real numbers", got=str(array.dtype), allowed="an array of integers or floats")
    with np.errstate(over="ignore"):  # floats of over 64 bits may become infinite, which is refused below
        result = np.ascontiguousarray(array).astype(np.float64, copy=False).reshape(array.shape)
    _reject(where, result, ~np.isfinite(result), "holds NaN or infinity", "finite values", error)
    _within(where, result, low, high, f"{low:g}..{high:g}", error)
    return result


def booleans(
    where: str, x: Any, *, shape: Shape | None = None, error: type[QSpinnError] = DataError
) -> NDArray[np.bool_]:
    """x as an array of True and False; numbers are refused, since they may be meant as positions.

    Raises:
        QSpinnError: of kind `error`: no array of booleans, or of another shape.
    """
    array = numbers(where, x, shape, error)
    if array.dtype.kind != "b":
        raise error(where, "holds no booleans", got=str(array.dtype), allowed="an array of True and False")
    return array


def need_kind(where: str, x: Any, kind: Any, error: type[QSpinnError] = ConfigError) -> None:
    """Checks that x, which a caller passed, is of a class of this package, or of one of several (`A | None`).

    Raises:
        QSpinnError: of kind `error`.
    """
    if not isinstance(x, kind):
        raise error(where, "is of the wrong type", got=type(x).__name__, allowed=f"a {getattr(kind, '__name__', kind)}")


def flag(where: str, x: Any, error: type[QSpinnError] = ConfigError) -> bool:
    """True or False as given; texts and numbers are refused, since "no" would count as true.

    Raises:
        QSpinnError: of kind `error`.
    """
    if not isinstance(x, bool | np.bool_):
        raise error(where, "is neither true nor false", got=x, allowed="True, False")
    return bool(x)


def text(where: str, x: Any, error: type[QSpinnError] = ConfigError) -> str:
    """Text as given.

    Raises:
        QSpinnError: of kind `error`.
    """
    if not isinstance(x, str):
        raise error(where, "is of the wrong type", got=type(x).__name__, allowed="text")
    return str(x)


def path_of(where: str, x: Any, error: type[QSpinnError] = ConfigError) -> Path:
    """The path of a file or folder, given as text or as a path.

    Raises:
        QSpinnError: of kind `error`: neither, or one with a null character, which no file has.
    """
    if not isinstance(x, str | os.PathLike) or not isinstance(os.fspath(x), str):
        raise error(where, "is no path", got=x, allowed="text, or a pathlib.Path")
    if "\0" in os.fspath(x):
        raise error(where, "is no path", got=x, allowed="a name without a null character")
    return Path(x)


def need_call(where: str, x: Any, error: type[QSpinnError] = ConfigError) -> None:
    """Checks that x, which a caller passed to be called later, is a function or None.

    Raises:
        QSpinnError: of kind `error`.
    """
    if x is not None and not callable(x):
        raise error(where, "is no function", got=x, allowed="a function, or None")


def real_of(x: Any) -> float:
    """The value of a single real number; NaN for anything else (a boolean, too), infinity beyond 64 bits."""
    if isinstance(x, bool) or not isinstance(x, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(x)
    except OverflowError:
        return math.inf


def need_words(where: str, x: Any, *, distinct: bool) -> None:
    """Checks that x is a tuple of texts and, with `distinct`, that none is there twice.

    Raises:
        DataError: it is not.
    """
    if not isinstance(x, tuple) or not all(isinstance(word, str) for word in x):
        raise DataError(where, "is no tuple of texts", got=x, allowed='("a", "b", ...)')
    if distinct and len({*x}) < len(x):
        raise DataError(
            where, "holds a name twice", got=sorted({word for word in x if x.count(word) > 1}), allowed="each once"
        )


def integer(
    where: str, x: Any, *, low: int = LOWEST, high: int = HIGHEST, error: type[QSpinnError] = ConfigError
) -> int:
    """A single whole number within low..high; booleans and floats are refused.

    Raises:
        QSpinnError: of kind `error`.
    """
    if isinstance(x, (bool, np.bool_)) or not isinstance(x, (int, np.integer)):
        raise error(where, "is no integer", got=x, allowed=_span(low, high))
    if not low <= int(x) <= high:
        raise error(where, "is out of range", got=int(x), allowed=_span(low, high) if x < low else f"{low}..{high}")
    return int(x)


def sealed(
    where: str,
    x: Any,
    kind: type[np.generic],
    *,
    shape: Shape | None = None,
    low: int = LOWEST,
    high: int = HIGHEST,
    error: type[QSpinnError] = DataError,
) -> NDArray[Any]:
    """Read-only array of the integers of x, so that checked values stay as they are.

    An array of this type whose memory is that of `bytes`, or of a file mapped for reading, is taken as it is. Anything
    else is copied into `bytes`: a flag "read-only" can be taken back by whoever has the memory.

    Args, Raises: as `integers`; kind: the type of the result, wide enough for low..high.
    """
    array = whole(where, x, shape=shape, low=low, high=high, error=error)
    if array is x and array.dtype == kind and array.flags.c_contiguous and _is_sealed(array):
        return array
    return np.ndarray(array.shape, kind, np.asarray(array, dtype=kind, order="C").tobytes())


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, from now on read-only."""
    array.flags.writeable = False
    return array


def _is_sealed(array: NDArray[Any]) -> bool:
    """Whether nobody can write to the memory of an array: that of bytes, or of a file mapped for reading."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    if isinstance(base, mmap.mmap):
        with memoryview(base) as view:
            return view.readonly
    return isinstance(base, bytes)


def _hides_entries(x: Any, depth: int = 0) -> bool:
    """Whether x, or an array within its lists, has masked entries."""
    if isinstance(x, np.ma.MaskedArray):
        return bool(np.ma.is_masked(x))
    return (
        isinstance(x, list | tuple | deque)
        and depth < DEEPEST
        and any(
            _hides_entries(entry, depth + 1)
            for entry in x
            if isinstance(entry, list | tuple | deque | np.ma.MaskedArray)
        )
    )


def numbers(where: str, x: Any, shape: Shape | None, error: type[QSpinnError]) -> NDArray[Any]:
    """x as an array of the shape asked for, of whatever type it has.

    Raises:
        QSpinnError: of kind `error`: no rectangular array, masked, or of another shape.
    """
    if _hides_entries(x):
        raise error(
            where,
            "is masked: the values under the mask have no meaning here",
            allowed="a plain array",
            fix=f"fill or leave out the masked entries of {where}",
        )
    try:
        array = x if type(x) is np.memmap else np.asarray(x)
    except Exception as problem:  # lists of unequal length, tensors that need a gradient, objects of other libraries
        raise error(
            where, "is no rectangular array of numbers", got=type(x).__name__, fix=str(problem).split("\n")[0][:120]
        ) from None
    if array.dtype.kind not in "biufcOSUVmM":
        raise error(where, "is no array of numbers", got=str(array.dtype))
    if shape is not None and (
        array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True))
    ):
        raise error(where, "has the wrong shape", got=array.shape, allowed=_shape_text(shape))
    return array


def _within(where: str, array: NDArray[Any], low: float, high: float, span: str, error: type[QSpinnError]) -> None:
    """Raises where a value is outside low..high; two passes over the array, no memory."""
    if array.size and not low <= array.min().item() <= array.max().item() <= high:
        with np.errstate(over="ignore"):
            exact = array.astype(np.float64) if array.dtype.kind == "f" else array
        _reject(where, array, (exact < low) | (exact > high), "holds a value out of range", span, error)


def _reject(
    where: str, array: NDArray[Any], bad: NDArray[np.bool_], problem: str, allowed: str, error: type[QSpinnError]
) -> None:
    """Raises where a value is bad, naming the first one and its position."""
    if not bad.any():
        return
    position = np.unravel_index(int(bad.argmax()), bad.shape)
    place = where + (f"[{', '.join(str(int(i)) for i in position)}]" if array.ndim else "")
    raise error(place, problem, got=array[position].item(), allowed=allowed)


def _shape_text(shape: Shape) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def _span(low: int, high: int) -> str:
    if high == HIGHEST and low != LOWEST:
        return f"{low} or more"
    return f"{low}..{high}"

"""Arrays from outside: accepted as numbers of one kind, in native byte order, as a copy; or refused by name.

Every constructor and function that takes arrays of a user passes them through here before any compiled code sees them.
A refusal names the array, the value that does not fit (with its position), what is allowed and the mend.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import DataError, QSpinnError

Shape = tuple[int | None, ...]
"""A shape that is asked for; None stands for any length."""


def integers(
    where: str, x: Any, *, shape: Shape | None = None, low: int = -(2**63), high: int = 2**63 - 1,
    whole_floats: bool = False, error: type[QSpinnError] = DataError,
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
    array = _array(where, x, shape, error)
    if array.dtype.kind == "f" and whole_floats:
        _reject(where, array, ~np.isfinite(array), "holds a value that is no number", "whole numbers", error)
        _reject(where, array, array != np.floor(array), "holds a value that is no whole number", "whole numbers", error)
        _reject(where, array, np.abs(array) >= 2.0**63, "holds a value out of range", _span(low, high), error)
    elif array.dtype.kind not in "biu" and array.size:
        fix = f"round {where} yourself if its values are meant as integers" if array.dtype.kind == "f" else ""
        raise error(where, "holds no integers", got=str(array.dtype), allowed="an array of integers", fix=fix)
    if array.dtype.kind == "u" and array.itemsize == 8:
        _reject(where, array, array > np.uint64(2**63 - 1), "holds a value out of range", _span(low, high), error)
    result = np.ascontiguousarray(array).astype(np.int64, copy=False).reshape(array.shape)
    _reject(where, result, (result < low) | (result > high), "holds a value out of range", _span(low, high), error)
    return result


def reals(
    where: str, x: Any, *, shape: Shape | None = None, low: float = -math.inf, high: float = math.inf,
    error: type[QSpinnError] = DataError,
) -> NDArray[np.float64]:
    """x as float64, C order, finite and within low..high; a copy unless x is such an array already.

    Raises:
        QSpinnError: of kind `error`; as in `integers`, and for NaN and infinity.
    """
    array = _array(where, x, shape, error)
    if array.dtype.kind not in "iuf" and array.size:
        raise error(where, "holds no real numbers", got=str(array.dtype), allowed="an array of integers or floats")
    result = np.ascontiguousarray(array).astype(np.float64, copy=False).reshape(array.shape)
    _reject(where, result, ~np.isfinite(result), "holds NaN or infinity", "finite values", error)
    span = f"{low:g}..{high:g}"
    _reject(where, result, (result < low) | (result > high), "holds a value out of range", span, error)
    return result


def _array(where: str, x: Any, shape: Shape | None, error: type[QSpinnError]) -> NDArray[Any]:
    """x as an array of the shape asked for, of any kind of number."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise error(where, "is masked: the values under the mask have no meaning here", allowed="a plain array",
                    fix=f"fill or leave out the masked entries of {where}")
    try:
        array = np.asarray(x)
    except Exception as problem:  # lists of unequal length, tensors that need a gradient, objects of other libraries
        raise error(where, "is no rectangular array of numbers", got=type(x).__name__,
                    fix=str(problem).split("\n")[0][:120]) from None
    if array.dtype.kind not in "biufcOSUVmM":
        raise error(where, "is no array of numbers", got=str(array.dtype))
    if shape is not None and (array.ndim != len(shape) or any(
            n is not None and n != m for n, m in zip(shape, array.shape, strict=True))):
        raise error(where, "has the wrong shape", got=array.shape, allowed=_told(shape))
    return array


def _reject(where: str, array: NDArray[Any], bad: NDArray[np.bool_], problem: str, allowed: str,
            error: type[QSpinnError]) -> None:
    """Raises where a value is bad, naming the first one and its position."""
    if not bad.any():
        return
    position = np.unravel_index(int(bad.argmax()), bad.shape)
    place = where + (f"[{', '.join(str(int(i)) for i in position)}]" if array.ndim else "")
    raise error(place, problem, got=array[position].item(), allowed=allowed)


def _told(shape: Shape) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def _span(low: int, high: int) -> str:
    return f"{low}..{high}"

"""How kernels are compiled.

Numba counts references to arrays, by calls that it cannot always prove superfluous; in parts of kernels that run in
every step they would cost more than the step. So these are inlined by LLVM instead of Numba, do without counting, and
nothing raises on division by zero, which would end the proof as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function that Python calls; it is kept on disk and releases the interpreter."""
    return nb.njit(nogil=True, cache=True, error_model="numpy")(function)


def piece(function: Callable[..., Any]) -> Any:
    """Compiles a part of kernels; it may not make arrays."""
    options: dict[str, Any] = {"forceinline": True, "error_model": "numpy", "_nrt": False}
    return nb.njit(**options)(function)

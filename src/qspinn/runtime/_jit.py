"""How kernels are compiled.

Numba counts references to arrays, by calls that it cannot always prove superfluous; in parts of kernels that run in
every step they would cost more than the step. So these are inlined by LLVM instead of Numba, do without counting, and
nothing raises on division by zero, which would end the proof as well.

With the environment variable QSPINN_BOUNDSCHECK=1 every index is checked: kernels are then slow, compiled anew in every
process (what is kept on disk knows nothing of the switch), and raise IndexError where they would read or write beyond
an array. Whole registers (`_vectors`) are checked as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba as nb

from qspinn.errors import ConfigError

BOUNDS_KEY = "QSPINN_BOUNDSCHECK"


def _switch(text: str) -> bool:
    """Whether indices are checked.

    Raises:
        ConfigError: the environment variable is neither 0 nor 1.
    """
    if text not in ("", "0", "1"):
        raise ConfigError(BOUNDS_KEY, "is no switch", got=text, allowed="0, 1")
    return text == "1"


BOUNDS_CHECKED = _switch(os.environ.get(BOUNDS_KEY, ""))


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function that Python calls; it is kept on disk and releases the interpreter."""
    return nb.njit(nogil=True, cache=not BOUNDS_CHECKED, error_model="numpy", boundscheck=BOUNDS_CHECKED)(function)


def part(function: Callable[..., Any]) -> Any:
    """Compiles a part of kernels that may make arrays."""
    return nb.njit(nogil=True, error_model="numpy", boundscheck=BOUNDS_CHECKED)(function)


def piece(function: Callable[..., Any]) -> Any:
    """Compiles a part of kernels that is inlined; it may not make arrays."""
    options: dict[str, Any] = {"forceinline": True, "error_model": "numpy", "_nrt": False}
    return nb.njit(boundscheck=BOUNDS_CHECKED, **options)(function)

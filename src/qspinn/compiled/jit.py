"""Compilation of kernels by Numba: options, inlined pieces, and the cache on disk.

Numba counts references to arrays, by calls that it cannot always prove superfluous; in parts of kernels that run in
every step they would cost more than the step. So these are inlined by LLVM instead of Numba, do without counting, and
nothing raises on division by zero, which would end the proof as well.

With the environment variable QSPINN_BOUNDSCHECK=1 every index is checked: kernels are then slow and raise IndexError
where they would read or write beyond an array. Whole registers (`_vectors`) are checked as well. Such kernels are kept
on disk in a folder apart, as Numba does not tell them from the usual ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba as nb
import numba.core.config

from qspinn.compiled.machine_code import keep
from qspinn.compiled.parts import KERNEL_OPTIONS, OPTIONS
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


def _kept_apart() -> bool:
    """Has kernels kept in a folder apart; false, and nothing kept, where it cannot be written to."""
    beside = Path(__file__).parent / "__pycache__"
    numba.core.config.CACHE_DIR = str(beside / "bounds")  # type: ignore[attr-defined]
    return os.access(beside if beside.exists() else beside.parent, os.W_OK)


BOUNDS_CHECKED = _switch(os.environ.get(BOUNDS_KEY, ""))
KEPT = _kept_apart() if BOUNDS_CHECKED else True


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function that Python calls; it is kept on disk and releases the interpreter."""
    compiled = nb.njit(nogil=True, error_model="numpy", boundscheck=BOUNDS_CHECKED, **KERNEL_OPTIONS)(function)
    if KEPT:
        keep(compiled)
    return compiled


def part(function: Callable[..., Any]) -> Any:
    """Compiles a part of kernels that may make arrays."""
    return nb.njit(nogil=True, error_model="numpy", boundscheck=BOUNDS_CHECKED, **OPTIONS)(function)


def piece(function: Callable[..., Any]) -> Any:
    """Compiles a part of kernels that is inlined; it may not make arrays."""
    options: dict[str, Any] = {"forceinline": True, "error_model": "numpy", "_nrt": False, **OPTIONS}
    return nb.njit(boundscheck=BOUNDS_CHECKED, **options)(function)

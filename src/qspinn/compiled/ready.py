"""Numba ready to load kernels: importing this module fills its tables of types, which takes most of a second.

A server that forks worker processes imports it once for all of them.
"""

from __future__ import annotations

from numba.core.registry import cpu_target

cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()

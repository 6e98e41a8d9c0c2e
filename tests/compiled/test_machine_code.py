"""Kernels on disk: a process never runs machine code that was made for other types or from other sources."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from qspinn.compiled import jit as _jit
from qspinn.compiled.machine_code import MachineCode, sources_digest
from qspinn.runtime.numba_engine.kernels import narrow as _kernels

KERNEL = """
from qspinn.compiled.jit import kernel
from parts_of_kernels import BIAS, raised

@kernel
def total(x):
    return raised(x[0]) + BIAS
"""
PARTS = """
from qspinn.compiled.jit import piece
BIAS = {bias}

@piece
def raised(x):
    return x + {more}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_jit, "KEPT", True)
    return tmp_path


def compiled(folder: Path, bias: int = 10, more: int = 1) -> ModuleType:
    """A module as a new process would import it, its parts written anew with the same time and size."""
    (folder / "parts_of_kernels.py").write_text(PARTS.format(bias=bias, more=more))
    (folder / "kernels_in_test.py").write_text(KERNEL)
    for file in folder.glob("*.py"):
        os.utime(file, (1e9, 1e9))
    for name in ("parts_of_kernels", "kernels_in_test"):
        sys.modules.pop(name, None)
        for kept in folder.glob(f"__pycache__/{name}*.pyc"):
            kept.unlink()
    importlib.invalidate_caches()
    return importlib.import_module("kernels_in_test")


def test_code_is_found_again(folder: Path) -> None:
    assert compiled(folder).total(np.array([5])) == 16
    again = compiled(folder)
    assert again.total(np.array([5])) == 16
    assert again.total.stats.cache_hits, "the second process compiled again"
    assert not again.total.stats.cache_misses


@pytest.mark.parametrize("changed", [{"bias": 20}, {"more": 2}])
def test_a_part_of_another_file_that_changed_is_compiled_anew(folder: Path, changed: dict[str, int]) -> None:
    assert compiled(folder).total(np.array([5])) == 16
    right = 5 + changed.get("more", 1) + changed.get("bias", 10)
    assert compiled(folder, **changed).total(np.array([5])) == right
    assert len(list(folder.glob("__pycache__/*.nbc"))) == 1, "code of sources that are no more is removed"


def test_two_processes_that_compile_at_a_time_never_share_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = compiled(folder), compiled(folder)
    with monkeypatch.context() as at_a_time:  # Numba's list, had it been used, as it was before either saved
        at_a_time.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
        one.total(np.array([5], np.int32))
        other.total(np.array([5], np.uint32))
    third = compiled(folder)
    assert third.total(np.array([4_000_000_000], np.uint32)) == 4_000_000_011
    assert third.total(np.array([-5], np.int32)) == 6
    assert sum(third.total.stats.cache_hits.values()) == 2


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_file_is_compiled_anew(folder: Path, damage: bytes | None) -> None:
    compiled(folder).total(np.array([5]))
    (file,) = folder.glob("__pycache__/*.nbc")
    file.write_bytes(file.read_bytes()[:1000] if damage is None else damage)
    again = compiled(folder)
    assert again.total(np.array([5])) == 16
    assert again.total.stats.cache_misses


def test_the_engines_keep_their_code_so() -> None:
    kept = _kernels.narrow._cache._cache_file
    assert isinstance(kept, MachineCode)
    assert sources_digest(_kernels.narrow.py_func) == kept.sources

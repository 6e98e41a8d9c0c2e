"""Kernels on disk: a process never runs machine code that was made for other types or from other sources."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba.core.config
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from qspinn.compiled import jit as _jit
from qspinn.compiled.machine_code import MachineCode, is_missing, sources_digest
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
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", "")
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


TOGETHER = """
import sys, time, pathlib
import numpy as np
sys.path.insert(0, sys.argv[1])
from kernels_in_test import total
print("ready", flush=True)
sys.stdin.readline()
total(np.array([5]))
print(sum(total.stats.cache_misses.values()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_one_of_three_processes_compiles_and_the_others_wait(folder: Path) -> None:
    compiled(folder)
    environment = {**os.environ, "NUMBA_CACHE_DIR": ""}
    command = [sys.executable, "-c", TOGETHER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    three = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(3)]
    for process in three:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in three:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(int(process.communicate(timeout=120)[0]) for process in three) == [0, 0, 1]
    assert len(list(folder.glob("__pycache__/*.nbc"))) == 1
    assert not list(folder.glob("__pycache__/*.lock"))


def test_where_the_package_cannot_be_written_to_the_users_folder_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    (folder / "__pycache__").write_text("no folder: nothing can be kept here, whoever asks")
    assert compiled(folder).total(np.array([5])) == 16
    (kept,) = (folder / "home" / "qspinn" / "kernels").rglob("*.nbc")
    again = compiled(folder)
    assert again.total(np.array([5])) == 16
    assert again.total.stats.cache_hits
    assert kept.exists()


def test_where_nothing_can_be_written_kernels_still_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    for name in ("__pycache__", "home"):
        (folder / name).write_text("no folder")
    module = compiled(folder)
    assert module.total(np.array([5])) == 16
    assert not is_missing(module.total), "nothing is compiled ahead that no other process could load"


def test_a_full_disk_stops_no_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: MachineCode, name: str, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MachineCode, "_save_data", full)
    module = compiled(folder)
    assert is_missing(module.total)
    assert module.total(np.array([5])) == 16
    assert is_missing(module.total)


def test_kernels_are_known_to_be_kept(folder: Path) -> None:
    module = compiled(folder)
    assert is_missing(module.total)
    module.total(np.array([5]))
    assert not is_missing(module.total)
    assert is_missing(compiled(folder, bias=20).total), "other sources"


def test_the_engines_keep_their_code_so() -> None:
    kept = _kernels.narrow._cache._cache_file
    assert isinstance(kept, MachineCode)
    assert sources_digest(_kernels.narrow.py_func) == kept.sources

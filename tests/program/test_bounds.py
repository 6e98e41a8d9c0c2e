"""Kernels compiled with bounds checks: what they notice that the usual ones do not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BEYOND = """
import numpy as np
from qspinn.compiled.jit import kernel, part, piece
from qspinn.compiled.vectors import load_words, store_words

@piece
def looked_up(x, at):
    return x[at]

@kernel
def element(x, at):
    return looked_up(x, at)

@part
def plain(x, at):
    return x[at]

@kernel
def register(x, at):
    store_words(x, 0, load_words(x, at))
    return 0

words = np.zeros(16, np.uint64)
for function, within, beyond in ((element, 15, 16), (plain, 15, 16), (register, 8, 9), (register, 0, -1)):
    if beyond < 0 and function is not register:
        continue
    function(words, within)
    try:
        function(words, beyond)
    except IndexError:
        print(function.__name__, beyond)
"""

pytestmark = pytest.mark.skipif(not os.environ.get("QSPINN_SOAK"), reason="minutes of compilation: QSPINN_SOAK=1")


def ran(code: str, switch: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"QSPINN_BOUNDSCHECK": switch},
    )


def test_elements_and_registers_beyond_an_array_are_noticed() -> None:
    code = BEYOND.replace("@kernel", "@nb.njit(boundscheck=True)").replace(
        "import numpy", "import numba as nb\nimport numpy"
    )  # no file to keep a cache beside
    done = ran(code, "1")
    assert done.stdout.split("\n")[:-1] == ["element 16", "plain 16", "register 9", "register -1"], done.stderr


@pytest.mark.parametrize("text", ["yes", "2", "-1", "true"])
def test_the_switch_is_one_or_zero(text: str) -> None:
    done = ran("import qspinn.compiled.jit", text)
    assert done.returncode != 0
    assert "QSPINN_BOUNDSCHECK: is no switch" in done.stderr


@pytest.mark.parametrize(("text", "checked"), [("", False), ("0", False), ("1", True)])
def test_caches_are_not_mixed(text: str, checked: bool) -> None:
    """Kernels with bounds checks are kept in another folder than those without."""
    code = (
        "from pathlib import Path; from qspinn.runtime import _jit, _kernels; kernel = _kernels.tally;"
        "print(kernel.targetoptions['boundscheck'], 'bounds' in Path(kernel._cache.cache_path).parts)"
    )
    done = ran(code, text)
    assert done.stdout.split() == [str(checked)] * 2, done.stderr

"""Locks of files: one process at a time, and nobody waits for one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qspinn.compiled.one_at_a_time import alone

HOLDER = """
import sys, time
from pathlib import Path
from qspinn.compiled.one_at_a_time import alone
with alone(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")


@contextmanager
def held_by_another(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "True\n"
            yield other
        finally:
            other.kill()


def test_a_lock_is_held_and_its_file_removed(tmp_path: Path) -> None:
    file = tmp_path / "one.lock"
    with alone(file) as held:
        assert held
        assert file.exists()
    assert not file.exists()
    with pytest.raises(ZeroDivisionError), alone(file):
        raise ZeroDivisionError
    assert not file.exists()


def test_patience_ends(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "one.lock"), alone(tmp_path / "one.lock", patience_s=0.2) as held:
        assert not held
    with alone(tmp_path / "other.lock", patience_s=0.0) as held:
        assert held, "nobody has it"


def test_nobody_waits_for_a_process_that_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "one.lock"
    with held_by_another(file) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert file.exists(), "a killed process removes nothing"
        start = time.monotonic()
        with alone(file, patience_s=60.0) as held:
            assert held
        assert time.monotonic() - start < 30
    assert not file.exists()


def test_work_is_done_where_files_cannot_be_locked(tmp_path: Path) -> None:
    with alone(tmp_path / "no folder" / "one.lock") as held:
        assert not held

"""Work that one process at a time does on a machine: locks of files that end with the process that holds them.

The system takes a lock back when its holder ends, however it ends, so nobody waits for a process that was killed.
Where files cannot be locked (some network folders, Windows), or the holder takes too long, work is done all the same:
what it makes is written whole or not at all, and doing it twice costs time only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE_S = 600.0
"""Seconds after which a holder counts as stuck: the slowest kernel takes a tenth of it to compile."""
PAUSE_S = 0.02


@contextlib.contextmanager
def alone(file: Path, patience_s: float | None = None) -> Iterator[bool]:
    """Waits until no other process holds the lock of this name, and holds it within the block; the file is removed at
    the end. Yields whether the lock is held.

    Args:
        patience_s: seconds to wait at most; None: `PATIENCE_S`.
    """
    handle = _locked(file, PATIENCE_S if patience_s is None else patience_s)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            file.unlink(missing_ok=True)  # before it is let go: whoever opened it meanwhile sees that it is gone
            os.close(handle)


def _locked(file: Path, patience_s: float) -> int | None:
    """The open, locked file; None where that is not possible."""
    if fcntl is None:
        return None
    last = time.monotonic() + patience_s
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            if _taken(handle, last) and _is(file, handle):
                return handle
        except OSError:
            os.close(handle)
            return None
        os.close(handle)  # its last holder removed it, or it is not let go
        if time.monotonic() >= last:
            return None


def _taken(handle: int, last: float) -> bool:
    """Whether the lock of an open file was got before a time.

    Raises:
        OSError: files of this folder cannot be locked.
    """
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= last:
                return False
            time.sleep(PAUSE_S)
        else:
            return True


def _is(file: Path, handle: int) -> bool:
    """Whether an open file still bears its name."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False

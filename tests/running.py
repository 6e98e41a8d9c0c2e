"""Explorations in this process, processes that die at a known place, what a run leaves, changed configurations."""

from __future__ import annotations

import concurrent.futures
import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Inline(concurrent.futures.Executor):
    """Does the work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future:
        future: concurrent.futures.Future = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def inline(n_workers: int, initializer: Callable[..., None], arguments: tuple) -> Inline:
    """An executor for `explore` that keeps this process as it is."""
    before = signal.getsignal(signal.SIGINT)
    initializer(*arguments)
    signal.signal(signal.SIGINT, before)
    return Inline()


def die_at(moment: int, lost: int, folder: Path) -> None:
    """This process kills itself at that moment (see `at`); where it is a sync, the last lost bytes never land."""

    def die(file: int | None) -> None:
        if file is not None:
            os.ftruncate(file, max(os.fstat(file).st_size - lost, 0))
        os.kill(os.getpid(), signal.SIGKILL)

    at(moment, folder, die)


def at(moment: int, folder: Path, act: Callable[[int | None], None]) -> None:
    """Has act called before the moment-th (from 0) sync of a file, which it is given, or renaming into the folder.

    Counted, not timed: a slow machine comes to the same place as a fast one.
    """
    left = iter(range(moment, -1, -1))

    def sync(file: int, call: Callable[[int], None] = os.fsync) -> None:
        if next(left, None) == 0:
            act(file)
        call(file)

    def rename(source: Path, target: Path, call: Callable[[Path, Path], None] = os.replace) -> None:
        if Path(target).is_relative_to(folder) and next(left, None) == 0:
            act(None)
        call(source, target)

    os.fsync, os.replace = sync, rename


def lasting(folder: Path) -> dict[str, Any]:
    """What a run leaves behind, without its times."""
    result = json.loads((folder / "result.json").read_text())
    timeless = {k: v for k, v in result.items() if k not in ("seconds", "floats", "candidates")}
    for kind in ("floats", "candidates"):
        timeless[kind] = [{k: v for k, v in r.items() if k != "seconds"} for r in result[kind]]
    files = {p.name: p.read_bytes() for p in sorted(folder.rglob("*.qspinn")) + sorted(folder.rglob("*.safetensors"))}
    return {**timeless, **files}


def with_value(plain: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a plain configuration with another value at a dotted path."""
    found = copy.deepcopy(plain)
    *heads, last = path.split(".")
    place = found
    for head in heads:
        place = place[head]
    place[last] = value
    return found

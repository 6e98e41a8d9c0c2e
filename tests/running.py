"""Explorations in this process, what they leave behind, and changed configurations."""

from __future__ import annotations

import concurrent.futures
import copy
import json
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

"""Work on consecutive parts of a batch, by a few threads that are kept: starting them takes as long as small runs."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")


@functools.cache
def _pool(n_threads: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(n_threads, thread_name_prefix="qspinn")


if hasattr(os, "register_at_fork"):  # the threads of a parent do not exist in its child
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_parts(part: Callable[[int, int], Made], n: int, n_parts: int, n_threads: int) -> list[Made]:
    """Results of part(start, stop) for so many parts of range(n), in order, on several threads.

    Parts differ in length by one at most, and none is empty. The calling thread works too. Not for calls from within a
    part.

    Raises:
        Exception: what a part raised; no other part is still at work then.
    """
    n_parts = max(1, min(n_parts, n))
    edges = [n * k // n_parts for k in range(n_parts + 1)]
    todo, made = iter(range(n_parts)), {}

    def work() -> None:
        for k in todo:
            made[k] = part(edges[k], edges[k + 1])

    others = [_pool(n_threads - 1).submit(work) for _ in range(min(n_threads, n_parts) - 1)]
    try:
        work()
    finally:
        concurrent.futures.wait(others)
    for other in others:
        other.result()
    return [made[k] for k in range(n_parts)]

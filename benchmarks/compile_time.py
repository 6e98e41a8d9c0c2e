"""What a first run compiles: every kernel and part with its signatures and the seconds of processor time they take.

    python benchmarks/compile_time.py digits_stdp --write

The experiment is explored in one process and in a new folder of kernels, so that everything is compiled once. Time is
that of the process, as other programs may run beside it; a function's own time is without the functions it calls.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from numba.core import event

from claims import ROOT, claim, write

COMMAND = "python benchmarks/compile_time.py"


class Specialization(NamedTuple):
    """One function compiled for one signature; own: seconds without those of the functions it calls."""

    file: str
    name: str
    signature: str
    total: float
    own: float
    inner: bool


class Listener(event.Listener):
    """Listens to Numba and times each compilation with those within it."""

    def __init__(self) -> None:
        self.found: list[Specialization] = []
        self._open: list[list[float]] = []

    def on_start(self, event: Any) -> None:
        self._open.append([time.process_time(), 0.0])

    def on_end(self, event: Any) -> None:
        start, inner = self._open.pop()
        total = time.process_time() - start
        if self._open:
            self._open[-1][1] += total
        function = event.data["dispatcher"].py_func
        file = os.path.relpath(function.__code__.co_filename, ROOT)
        arguments = ", ".join(map(str, event.data["args"]))
        self.found.append(Specialization(file, function.__name__, arguments, total, total - inner, bool(self._open)))


def in_this_process(n_workers: int, initializer: Callable[..., None], arguments: tuple) -> Any:
    """An executor of one thread: what workers compile is compiled here."""
    return concurrent.futures.ThreadPoolExecutor(1, initializer=initializer, initargs=arguments)


def measure(experiment: Path, listener: Listener) -> float:
    """Explores in this process; returns the seconds of processor time of everything."""
    import qspinn

    event.register("numba:compile", listener)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        qspinn.explore(qspinn.load_experiment(experiment), Path(out) / "run", n_workers=1, executors=in_this_process)
    return time.process_time() - start


def show(found: list[Specialization], most: int, signatures: bool) -> None:
    """Functions by the time they take, and where it is asked for the signatures of each."""
    by_function: dict[tuple[str, str], list[Specialization]] = defaultdict(list)
    for one in found:
        by_function[one.file, one.name].append(one)
    ranked = sorted(by_function.items(), key=lambda item: -sum(s.own for s in item[1]))
    print(f"{'own s':>7} {'total s':>7} {'times':>5}  function")
    for (file, name), group in ranked[:most]:
        own, total = sum(s.own for s in group), sum(s.total for s in group)
        print(f"{own:7.2f} {total:7.2f} {len(group):5}  {name} ({file})")
        for s in group if signatures else []:
            print(f"{s.own:15.2f}        {'  in a kernel' if s.inner else ''} {s.signature}")


def records(experiment: Path, found: list[Specialization], seconds: float) -> list[dict[str, Any]]:
    command = f"{COMMAND} {experiment.stem} --write"
    outer = [s for s in found if not s.inner]
    name = experiment.stem
    return [
        claim(
            f"processor time of compiling in a first exploration of {name}, one process",
            [sum(s.total for s in outer)],
            "s",
            "none",
            None,
            command=command,
            note=f"{len(outer)} kernels' signatures, {len(found)} specializations with their parts; "
            f"{seconds:.0f} s with the exploration",
        ),
        claim(
            f"kernels' signatures that a first exploration of {name} compiles",
            [len(outer)],
            "signatures",
            "none",
            None,
            command=command,
            digits=0,
            note=", ".join(sorted({s.name for s in outer})),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--most", type=int, default=25, help="functions to list")
    parser.add_argument("--signatures", action="store_true", help="list the signatures of each")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/compile_time.json")
    args = parser.parse_args()
    if "NUMBA_CACHE_DIR" not in os.environ:  # read when Numba is imported: in a new process with a folder of its own
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(
                subprocess.run([sys.executable, *sys.argv], env=os.environ | {"NUMBA_CACHE_DIR": folder}).returncode
            )
    listener = Listener()
    seconds = measure(args.experiment, listener)
    found = listener.found
    outer = [s for s in found if not s.inner]
    show(found, args.most, args.signatures)
    print(
        f"{sum(s.total for s in outer):.1f} of {seconds:.1f} s compile {len(outer)} signatures of kernels, "
        f"{len(found)} specializations in all"
    )
    if args.write:
        print(write("compile_time", records(args.experiment, found, seconds)))


if __name__ == "__main__":
    main()

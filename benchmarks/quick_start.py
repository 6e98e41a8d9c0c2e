"""Seconds that a newcomer waits: help, first and second exploration from a wheel, `make demo` and `make test`.

    python benchmarks/quick_start.py [--demo] [--tests] [--write]

A wheel is installed into a new environment without torch, where no kernel is compiled yet; first and second exploration
take turns, and kernels are deleted before each first one. `--demo` clones the repository into an empty folder and runs
`make demo` with an empty pip cache; `--tests` runs `make test` in a clone, with QSPINN_DATA where it is set, from
compiling the first kernel on. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from claims import RESULTS, ROOT, claim, write

COMMAND = "python benchmarks/quick_start.py"
HELP_RUNS, EXPLORATIONS = 7, 3
SHOWN = 60
"""Lines of the output of a command that failed."""


def seconds(arguments: list[str], place: Path, environment: dict[str, str] | None = None) -> float:
    """Wall-clock seconds of a command that must succeed; the end of its output is shown where it does not."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        done = subprocess.run(arguments, cwd=place, env=environment, stdout=output)
        taken = time.perf_counter() - start
        if done.returncode:
            output.seek(0)
            print(*output.readlines()[-SHOWN:], sep="")
            raise subprocess.CalledProcessError(done.returncode, arguments)
    return taken


def from_wheel(place: Path) -> list[dict[str, Any]]:
    """Claims about help, first and second exploration."""
    source = place / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    venv.create(place / "venv", with_pip=True)
    bin_ = place / "venv" / "bin"
    pip = [
        str(bin_ / "pip"),
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(source / "constraints.txt"),
    ]
    seconds([*pip, str(source)], place)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    environment["XDG_CACHE_HOME"] = str(place / "cache")
    qspinn = str(bin_ / "qspinn")
    helps = [seconds([qspinn, "--help"], place, environment) for _ in range(HELP_RUNS + 1)][1:]
    first, second = [], []
    for number in range(EXPLORATIONS):
        for kernel in (*place.rglob("*.nbi"), *place.rglob("*.nbc")):
            kernel.unlink()
        for times, name in ((first, f"first{number}"), (second, f"second{number}")):
            times.append(seconds([qspinn, "explore", "digits_stdp", "--out", name], place, environment))
    return [
        limited("seconds of `qspinn --help`", helps, 0.4),
        limited("first exploration of digits_stdp from a wheel, every kernel compiled", first, 40),
        limited("second exploration of digits_stdp", second, 12),
    ]


def from_clone(place: Path, target: str, most: float, text: str) -> dict[str, Any]:
    """Claim about a target of the Makefile in a fresh clone, pip's cache empty."""
    clone, home = place / target, place / f"home_{target}"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = os.environ | {"PIP_NO_CACHE_DIR": "1", "HOME": str(home)}
    environment = {k: v for k, v in environment.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR", "VIRTUAL_ENV")}
    if target == "test":
        seconds(["make", "install"], clone, environment)
    return limited(text, [seconds(["make", target], clone, environment)], most)


def limited(text: str, values: list[float], most: float) -> dict[str, Any]:
    """Claim of seconds that must not exceed a limit."""
    middle = sorted(values)[len(values) // 2]
    return claim(text, values, "s", f"<= {most:g}", middle <= most, command=f"{COMMAND} --demo --tests --write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="time make demo in a fresh clone, too")
    parser.add_argument("--tests", action="store_true", help="time make test in a fresh clone, too")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}/quick_start.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = from_wheel(Path(folder))
        if args.demo:
            records.append(from_clone(Path(folder), "demo", 100, "`make demo` in a fresh clone, empty pip cache"))
        if args.tests:
            records.append(from_clone(Path(folder), "test", 600, "`make test` in a fresh clone after `make install`"))
    for record in records:
        print(f"{record['value']:8.2f} s (target {record['target']}): {record['claim']}")
    if args.write:
        print(write("quick_start", records))


if __name__ == "__main__":
    sys.exit(main())

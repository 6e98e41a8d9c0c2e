"""All measurements, one after the other; a failure does not keep the others from being made.

Usage: run.py [NAME ...] [--list]

Names are those that --list shows, or the beginning of some of them (`supervised`). Each command is a script of this
folder that can be called alone, stores its own records and continues where it was interrupted; several need QSPINN_DATA
or the environments of `make peers`, as their own help says. The exit status is 1 where a command failed. Afterwards
`make bench-table` renders what was stored.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from typing import NamedTuple

from claims import ROOT


class Measurement(NamedTuple):
    """A command of this folder: its name, script and arguments, and about how long it takes on two cores."""

    name: str
    command: str
    duration: str

    @property
    def words(self) -> list[str]:
        script, *arguments = shlex.split(self.command)
        return [sys.executable, str(ROOT / "benchmarks" / script), *arguments]

    def __str__(self) -> str:
        return f"{self.name:28} {self.duration:10} python benchmarks/{self.command}"


MEASUREMENTS = (
    Measurement("memory", "qsnn_memory.py", "seconds"),
    Measurement("decolle-cost", "decolle.py cost", "seconds"),
    Measurement("borders", "borders.py", "minutes"),
    Measurement("quick-start", "quick_start.py --demo --tests --write", "minutes"),
    Measurement("compile-time", "compile_time.py digits_stdp --write", "minutes"),
    Measurement("accuracy-float", "accuracy.py float", "hours"),
    Measurement("accuracy-search", "accuracy.py search", "hours"),
    Measurement("accuracy-sizes", "accuracy.py sizes", "hours"),
    Measurement("supervised-braille", "supervised.py search braille", "hours"),
    Measurement("supervised-gestures", "supervised.py search dvs_gesture", "hours"),
    Measurement("supervised-nmnist8", "supervised.py search nmnist8", "hours"),
    Measurement("supervised-identity", "supervised.py identity", "minutes"),
    Measurement("qsnn-widths", "qsnn.py widths qsnn_nmnist8", "hours"),
    Measurement("qsnn-regulation-nmnist8", "qsnn.py regulation qsnn_nmnist8", "hours"),
    Measurement("qsnn-regulation-braille", "qsnn.py regulation qsnn_braille", "hours"),
    Measurement("decolle-error", "decolle.py error", "hours"),
    Measurement("decolle-precision", "decolle.py precision", "hours"),
    Measurement("decolle-gestures", "decolle.py gestures", "hours"),
    Measurement("decolle-speed", "decolle.py speed", "minutes"),
    Measurement("speed-peers", "speed.py peers", "an hour"),
    Measurement("speed-growth", "speed.py growth", "an hour"),
    Measurement("speed-supervised", "supervised_speed.py", "an hour"),
)
"""In the order in which they run: what is quick first. `gpu.py` has a target of its own, as it needs a card."""


def chosen(names: list[str]) -> list[Measurement]:
    """The measurements whose names begin with one of these, in their usual order; all where there are none.

    Raises:
        SystemExit: a name that no measurement begins with.
    """
    for name in names:
        if not any(m.name.startswith(name) for m in MEASUREMENTS):
            raise SystemExit(f"no measurement is called {name!r}; there are {', '.join(m.name for m in MEASUREMENTS)}")
    return [m for m in MEASUREMENTS if not names or m.name.startswith(tuple(names))]


def make(measurements: list[Measurement]) -> dict[str, int]:
    """Runs the measurements and returns the exit status of each, by name."""
    states = {}
    for i, m in enumerate(measurements, 1):
        print(f"[{i}/{len(measurements)}] {m}", flush=True)
        start = time.monotonic()
        states[m.name] = subprocess.run(m.words, cwd=ROOT, check=False).returncode
        print(f"{m.name}: exit status {states[m.name]} after {time.monotonic() - start:.0f} s", flush=True)
    return states


def main() -> int:
    """Command line; 1 where a measurement failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which measurements; default: all")
    parser.add_argument("--list", action="store_true", help="show the commands, run none")
    arguments = parser.parse_args()
    measurements = chosen(arguments.names)
    if arguments.list:
        print("\n".join(map(str, measurements)))
        return 0
    failed = [name for name, state in make(measurements).items() if state]
    told = f"; failed: {', '.join(failed)}" if failed else ""
    print(f"{len(measurements) - len(failed)} of {len(measurements)} done{told}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

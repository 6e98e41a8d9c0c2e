"""A check on a machine with a CUDA card within a budget of time: the same bits as the reference, and how fast.

Usage: gpu.py [--device cuda] [--seconds 420] [--out FILE] [--commit HASH] [--quick]

Steps, in this order: what is installed; every case of `qspinn.testing` in the torch engine on the device against the
reference, while processes of their own run the tests marked cuda and compile the kernels of the last step; speed (see
gpu_speed.py), smallest and largest batches early. After every step the records are in FILE, so that a run that is ended
early loses nothing but the step at work; what the tests print lies beside it. What the budget does not hold is left
out, and the first record's `skipped` names it.

`--quick` shows in seconds, on the CPU too, that everything runs: few cases, no tests, small batches; it stores nothing
unless FILE is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from claims import RESULTS, ROOT, claim, machine
from gpu_speed import speed
from qspinn.files import write_atomic
from qspinn.runtime import backend_run, reference
from qspinn.testing import Case, adversarial, random_case
from qspinn.testing.contract import check_equal
from qspinn.testing.layered import random_layered
from qspinn.testing.neurons import adversarial_neurons
from qspinn.testing.vectors import adversarial_layered

COMMAND = "python benchmarks/gpu.py"
N_RANDOM, SHOWN = 300, 10
"""Random programs of either family; differences that are written out."""
EQUALITY_SHARE, TESTS_SHARE, SPEED_SHARE = 0.5, 0.6, 0.97
"""Shares of the budget by which equality, the tests and speed end."""
OUTCOME = re.compile(r"^(tests/.+?::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
BROKEN_FILE = re.compile(r"^ERROR (tests/\S+\.py)(?!::)")


class Check:
    """A run of this script: its clock, its records, and where they are stored.

    Attributes:
        skipped: reasons by what was left out.
        environment: the card, and versions of everything that takes part.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.device, self.quick, self.seconds = chosen.device, chosen.quick, chosen.seconds
        self.out, self.commit, self.start = chosen.out, chosen.commit, time.perf_counter()
        self.records: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}
        self.environment: dict[str, str] = {}

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is used."""
        return self.start + share * self.seconds - time.perf_counter()

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.start:5.0f} s] {text}", flush=True)

    def skip(self, what: str, why: str) -> None:
        """Notes what is left out."""
        self.skipped[what] = why
        self.say(f"left out: {what}: {why}")
        self.store()

    def add(
        self,
        text: str,
        values: list[float],
        unit: str,
        target: str = "",
        met: bool | None = None,
        *,
        peer: str | None = None,
        note: str | None = None,
        **more: Any,
    ) -> None:
        """Stores one more record, as `claim` makes it."""
        record = claim(text, values, unit, target, met, command=COMMAND, peer=peer, note=note)
        self.records.append(record | more)
        self.say(f"{text}: {record['value']:g} {unit}" + (f" ({note})" if note else ""))
        self.store()

    def store(self) -> None:
        """Writes everything so far, whole or not at all."""
        if self.out is None:
            return
        took = time.perf_counter() - self.start
        note = "; ".join(
            [
                *(f"{k} {v}" for k, v in self.environment.items()),
                *(f"left out: {k} ({v})" for k, v in self.skipped.items()),
            ]
        )
        first = claim(
            f"check on {self.device}",
            [took],
            "s",
            f"at most {self.seconds:g}",
            took <= self.seconds,
            command=COMMAND,
            digits=0,
            note=note,
        )
        first |= {"environment": self.environment, "skipped": self.skipped}
        where = f"{self.environment.get('card', self.device)}; {machine()}"
        everything = [r | {"machine": where, "commit": self.commit or r["commit"]} for r in [first, *self.records]]
        write_atomic(self.out, (json.dumps(everything, indent=1, ensure_ascii=False) + "\n").encode())


def look_around(check: Check) -> None:
    """Notes the card, its driver and the versions of what takes part."""
    found = {"card": "none"}
    if torch.device(check.device).type == "cuda":
        about = torch.cuda.get_device_properties(check.device)
        found = {
            "card": f"{about.name}, {about.total_memory / 2**30:.0f} GiB",
            "driver": driver(),
            "multiprocessors": str(about.multi_processor_count),
            "CUDA of torch": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
        }
    found |= {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("numpy", "numba", "msgspec", "triton", "snntorch", "spikingjelly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    check.environment = found
    check.say(str(found))
    check.store()


def driver() -> str:
    """Version of the card's driver."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return asked.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def groups(quick: bool) -> Iterator[tuple[str, list[Case]]]:
    """All cases by kind, those of many kinds of programs first; `quick`: a few of each."""
    n, few = (3, 40) if quick else (N_RANDOM, None)
    yield "hand-built competing programs", list(islice(adversarial(), 0, None, few))
    yield "random competing programs", [random_case(seed) for seed in range(n)]
    yield "random layered programs", [random_layered(seed) for seed in range(n)]
    yield "hand-built populations", list(islice(adversarial_neurons(), 0, None, few))
    yield "hand-built layered programs", list(islice(adversarial_layered(), 0, None, few and few * 3))


def equality(check: Check) -> None:
    """Runs every case on the device and counts those that differ from the reference in any bit."""
    run = backend_run("torch", check.device)
    for kind, cases in groups(check.quick):
        if check.left(EQUALITY_SHARE) <= 0:
            check.skip(f"equality of {kind}", "no time left")
            continue
        wrong, done = [], 0
        for case in cases:
            if check.left(EQUALITY_SHARE) <= 0:
                check.skip(f"equality of {len(cases) - done} of the {len(cases)} {kind}", "no time left")
                break
            done += 1
            wrong += difference(run, case)
        check.add(
            f"{kind} that differ between torch on {check.device} and the reference",
            [len(wrong)],
            f"of {done} cases",
            "0",
            not wrong,
            note="; ".join(wrong[:SHOWN]) or None,
            cases=done,
            differences=len(wrong),
        )


def difference(run: Any, case: Case) -> list[str]:
    """What is wrong about a case on the device: a sentence, or nothing."""
    expected = reference.run(case.program, case.spikes, record=True)
    try:
        check_equal(run(case.program, case.spikes, record=True), expected, case.name)
    except AssertionError as error:
        return [str(error)]
    except Exception as error:  # whatever a driver may raise: the cases after it still count
        return [f"{case.name}: {type(error).__name__}: {str(error)[:200]}"]
    return []


def start_tests(folder: Path) -> dict[Path, subprocess.Popen[bytes]]:
    """The tests marked cuda, a process for every file of them, by log; warnings of other versions of libraries are no
    failures."""
    paths = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.cuda" not in path.read_text():
            continue
        log = folder / f"gpu.{path.stem}.log"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(path.relative_to(ROOT)),
            "-m",
            "cuda",
            "-vv",
            "-rfEs",
            "--tb=short",
            "-W",
            "default",
            "-p",
            "no:cacheprovider",
            "--durations=10",
        ]
        with log.open("wb") as file:
            found[log] = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, stdout=file, stderr=subprocess.STDOUT
            )
    return found


def end_tests(check: Check, tests: dict[Path, subprocess.Popen[bytes]]) -> None:
    """Waits for the tests as long as the budget allows, and records how they ended."""
    for log, process in tests.items():
        if not ended(process, check.left(TESTS_SHARE)):
            check.skip(f"the rest of the tests in {log.name}", "no time left")
        number, bad = outcomes(log.read_text(errors="replace"))
        text = ", ".join(f"{n} {kind}" for kind, n in number.items()) or "none ran"
        check.add(
            f"tests marked cuda that fail, {log.stem.partition('.')[2]}",
            [len(bad)],
            f"of {sum(number.values())} tests",
            "0",
            not bad and number["passed"] > 0 and process.returncode == 0,
            note="; ".join([text, *bad]),
            tests=dict(number),
            failed=bad,
            status=process.returncode,
        )


def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ends by itself in so many seconds; else it is ended."""
    try:
        process.wait(max(0.1, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def outcomes(log: str) -> tuple[Counter[str], list[str]]:
    """(number of tests by outcome, names of those that failed and of files that could not be read) from what pytest
    prints with -v."""
    number: Counter[str] = Counter()
    bad = []
    for line in log.splitlines():
        if seen := OUTCOME.match(line):
            number[seen[2].lower()] += 1
            if seen[2] in ("FAILED", "ERROR"):
                bad.append(seen[1])
        elif broken := BROKEN_FILE.match(line):
            bad.append(broken[1])
    return number, list(dict.fromkeys(bad))


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<i>, or cpu to see that the script runs")
    parser.add_argument("--seconds", type=float, default=420, help="budget of the whole check (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu.json, with --quick none")
    parser.add_argument("--commit", default="", help="what is measured, where the checkout has no history")
    parser.add_argument("--quick", action="store_true", help="few cases, no tests, small batches")
    chosen = parser.parse_args()
    if chosen.out is None and not chosen.quick:
        chosen.out = RESULTS / "gpu.json"
    if torch.device(chosen.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --device cpu --quick shows that the script runs")
    return chosen


def main() -> None:
    """All steps."""
    if "OMP_WAIT_POLICY" not in os.environ:  # as the command line does; libgomp reads it when torch is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    check = Check(arguments())
    look_around(check)
    kernels = None if check.quick else subprocess.Popen([sys.executable, str(ROOT / "benchmarks" / "gpu_speed.py")])
    tests = {} if check.quick else start_tests(check.out.parent)
    try:
        equality(check)
    finally:
        end_tests(check, tests)
        if kernels is not None and not ended(kernels, check.left(TESTS_SHARE)):
            check.say("kernels are not all compiled yet")
    if not tests:
        check.skip("tests marked cuda", "--quick" if check.quick else "there are none")
    speed(check, lambda: check.left(SPEED_SHARE))
    check.say("done" if check.out is None else f"done: {check.out}")
    if any(r["met"] is False for r in check.records):
        raise SystemExit("something differs or failed: see above")


if __name__ == "__main__":
    main()

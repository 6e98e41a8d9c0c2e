"""Speed of this version beside an earlier one: every engine and training that speed.py and supervised_speed.py measure.

    python benchmarks/by_turns.py --before ../before [--work NAME ...] [--rounds N]

`--before` is a checkout of the version to compare with. Each piece of work lives in a process of its own per version,
with the package and the benchmark cases of that version; the two processes answer in turn, call by call, on one core,
so that both see the machine as it is at that moment. Every round is a pair of new processes, since where a process
finds its memory moves its times by several per cent; a round's ratio is the median processor time of this version's
calls, divided by the earlier version's. Needs QSPINN_DATA; run it on a machine that does nothing else.
Stores benchmarks/results/by_turns.json; with --work the records of that work are replaced and the others stay.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from claims import RESULTS, ROOT, claim, write

COMMAND = "python benchmarks/by_turns.py --before CHECKOUT"
ROUNDS, ROUND_S, FEWEST_CALLS = 5, 4.0, 3
SLOWER = 1.02
COMPETING = ("float32 training", "8-bit training", "8-bit inference", "1-bit inference")
LAYERED = ("8-bit integers", "training step", "quantized training step")
Work = dict[str, Callable[[], Any]]


def competing() -> Work:
    """Networks that learn by STDP, as speed.py measures them: 400 neurons, 250 steps, here 3,000 images of MNIST."""
    import qspinn
    import speed

    network = speed.network_of()
    spikes = speed.poisson(speed.images(3000), speed.poisson_op(network, 0), speed.T)
    once = qspinn.StdpTraining(n_passes=1)
    ranges = speed.calibrate(speed.stdp.train(network, spikes.slice(0, 500), once), spikes)
    learned = speed.stdp.train(speed.network_of(rule=speed.Stdp(eta_post=0.015)), spikes, once)
    programs = {bits: speed.program_of(learned, speed.calibrate(learned, spikes), bits) for bits in (8, 1)}
    works = (
        lambda: speed.stdp.train(network, spikes, once),
        lambda: speed.grid.fit(speed.grid.prepare(network, speed.grid_plan(8), ranges), spikes, once),
        lambda: qspinn.run(programs[8], spikes),
        lambda: qspinn.run(programs[1], spikes),
    )
    return dict(zip(COMPETING, works, strict=True))


def layered(case: str) -> Work:
    """Networks in layers, a case of supervised_speed.py: inference of 128 samples, training steps of 64."""
    import qspinn
    import supervised_speed_cases as cases

    job = cases.ready(next(c for c in cases.CASES if c.name == case), quick=False)
    spikes = job.events.spikes()
    on_grid = cases.quantized_step(job)
    assert on_grid is not None
    works = (lambda: qspinn.run(job.program, spikes), cases.training_step(copy.deepcopy(job.net), job.events), on_grid)
    return dict(zip(LAYERED, works, strict=True))


def answer(name: str) -> None:
    """Says that all work is ready, then does the piece that each line names and prints its seconds."""
    works = competing() if name == "competing" else layered(name)
    for work in works.values():
        work()  # compiles
    print("ready", flush=True)
    for line in sys.stdin:
        work = works[line.strip()]
        start = time.process_time()
        work()
        print(time.process_time() - start, flush=True)


class Version(NamedTuple):
    """The process of one version."""

    process: subprocess.Popen[str]

    def line(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        while answer.startswith("left out"):
            answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError("a version ended before it answered; its message stands above")
        return answer

    def seconds(self, work: str) -> float:
        """Processor seconds of one call."""
        assert self.process.stdin is not None
        print(work, file=self.process.stdin, flush=True)
        return float(self.line())


@contextmanager
def versions(name: str, checkouts: tuple[Path, Path]) -> Iterator[tuple[Version, Version]]:
    """Both versions, ready to work, with one thread each."""
    started = []
    for checkout in checkouts:
        paths = os.pathsep.join(str(checkout / folder) for folder in ("src", "benchmarks"))
        env = os.environ | {"PYTHONPATH": paths, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        script = f"import runpy; runpy.run_path({__file__!r}, run_name='by_turns')['answer']({name!r})"
        command = [sys.executable, "-P", "-c", script]
        process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(Version(process))
        started[-1].line()  # one after the other, so that nothing is timed while the other compiles
    try:
        yield started[0], started[1]
    finally:
        for version in started:
            version.process.communicate()


def ratio(both: tuple[Version, Version], work: str) -> float:
    """Processor time of the second version / the first, call by call by turns."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + ROUND_S
    while time.perf_counter() < end or len(times[0]) < FEWEST_CALLS:
        for version, seconds in zip(both, times, strict=True):
            seconds.append(version.seconds(work))
    return median(times[1]) / median(times[0])


def main() -> None:
    """Measures and writes."""
    from supervised_speed_cases import CASES

    names = ["competing", *(case.name for case in CASES)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the version to compare with")
    parser.add_argument(
        "--work", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names).replace("%", "%%")
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    before = arguments.before.resolve()
    git = ["git", "-C", str(before), "rev-parse", "--short", "HEAD"]
    old = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    for name in arguments.work:
        ratios: dict[str, list[float]] = {work: [] for work in (COMPETING if name == "competing" else LAYERED)}
        for _ in range(arguments.rounds):
            with versions(name, (before, ROOT)) as both:
                for work, values in ratios.items():
                    values.append(ratio(both, work))
        made = []
        for work, values in ratios.items():
            text = f"{name}: {work}, processor time of this version / {old}"
            made.append(claim(text, values, "x", f"<= {SLOWER}", median(values) <= SLOWER, command=COMMAND, digits=3))
            print(f"{text}: {made[-1]['value']} {made[-1]['spread']}", flush=True)
        print(write("by_turns", merged(made)))  # work by work: the whole takes more than an hour


def merged(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of now, in place of those that were stored of the same work."""
    path = RESULTS / "by_turns.json"
    stored = json.loads(path.read_text()) if path.exists() else []
    now = {record["claim"]: record for record in made}
    return [now.pop(record["claim"], record) for record in stored] + list(now.values())


if __name__ == "__main__":
    main()

"""What the checks at the borders cost: records, programs, and engines and training beside a version without them.

    python benchmarks/borders.py --before ../before    # a checkout of the version to compare with; figures by turns

Writes benchmarks/results/borders.json. Without --before only records and programs are measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from claims import claim, write

HERE = Path(__file__).resolve().parent
ROUNDS = 5
RECORD_US = 20.0
CHECK_S = 0.3
ROUND_S = 10.0
SLOWER = 1.02


def competing() -> Callable[[], Any]:
    """400 neurons, 784 inputs, 8-bit weights, 250 steps, 64 samples, on one core."""
    from qspinn.runtime import run
    from qspinn.spikes import from_dense
    from qspinn.testing.programs import single

    rng = np.random.default_rng(0)
    program = single(
        rng.integers(0, 256, (400, 784)),
        v_bits=14,
        in_shift=3,
        decay=253,
        decay_shift=8,
        v_th=6000,
        inhibition=16000,
        n_ref=2,
        n_steps=250,
    )
    spikes = from_dense((rng.random((250, 64, 784)) < 0.02).astype(np.uint8))
    return lambda: run(program, spikes)


def _chain() -> Any:
    from qspinn.networks.models import ConvLink, DenseLink, chain

    return chain(
        (2, 34, 34),
        (
            ConvLink(channels=16, kernel=5, stride=2, norm=True),
            ConvLink(channels=32, kernel=3, stride=2, norm=True),
            DenseLink(norm=True),
        ),
        n_classes=8,
        n_steps=15,
    )


def layers() -> Callable[[], Any]:
    """The N-MNIST network of the README, 8-bit weights, 256 recordings at 5 % input."""
    import qspinn
    from qspinn.quantization.layered import lower_layers
    from qspinn.quantization.plan import Granularity
    from qspinn.quantization.ranges import LayerRanges
    from qspinn.spikes import from_dense

    network, rng = _chain(), np.random.default_rng(0)
    plan = qspinn.QuantPlan(
        rules=(
            qspinn.QuantRule(tensor="*.w", bits=8, granularity=Granularity.PER_CHANNEL),
            qspinn.QuantRule(tensor="*", bits=12),
        )
    )
    net = qspinn.SurrogateNet(network, seed=0)
    program = lower_layers(network, net.params(), plan, LayerRanges(v={x.name: 2.0 for x in network.layers}))
    spikes = from_dense((rng.random((15, 256, network.input.n)) < 0.05).astype(np.uint8))
    return lambda: qspinn.run(program, spikes)


def training() -> Callable[[], Any]:
    """One step of gradient training of the same network, batch 64."""
    import torch

    import qspinn

    net, rng = qspinn.SurrogateNet(_chain(), seed=0), np.random.default_rng(0)
    x = torch.from_numpy((rng.random((15, 64, 2 * 34 * 34)) < 0.05).astype(np.uint8))
    labels, optimizer = torch.arange(64) % 8, torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x).scores, labels).backward()
        optimizer.step()

    return step


def stdp() -> Callable[[], Any]:
    """STDP training of 400 neurons on 784 inputs, 250 steps, 100 samples."""
    from qspinn.learning.stdp.training import StdpTraining, train
    from qspinn.networks.models import diehl_cook
    from qspinn.spikes import from_dense

    network, rng = diehl_cook(784, 400, n_steps=250), np.random.default_rng(0)
    spikes = from_dense((rng.random((250, 100, 784)) < 0.02).astype(np.uint8))
    return lambda: train(network, spikes, StdpTraining(n_passes=1))


def reference() -> Callable[[], Any]:
    """Sixty random programs in the reference engine."""
    from qspinn.runtime import reference
    from qspinn.testing import random_case
    from qspinn.testing.layered import random_layered

    cases = [make(seed) for make in (random_case, random_layered) for seed in range(30)]
    return lambda: [reference.run(case.program, case.spikes) for case in cases]


WORK = {f.__name__: f for f in (competing, layers, training, stdp, reference)}


def best(work: Callable[[], Any], seconds: float = 2.0) -> float:
    """CPU seconds of one call: the smallest of those that fit, after a warm-up."""
    work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


class Version:
    """A process that does a piece of work with the package in a source folder, as often as it is asked to."""

    def __init__(self, name: str, source: Path) -> None:
        env = os.environ | {"PYTHONPATH": str(source), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", name],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def seconds(self) -> float:
        """CPU seconds of one call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def end(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def answer(work: Callable[[], Any]) -> None:
    """Does the work once for every line that comes in, and prints the CPU seconds."""
    for _ in sys.stdin:
        start = time.process_time()
        work()
        print(time.process_time() - start, flush=True)


def records() -> dict[str, float]:
    """Microseconds to construct each kind of record with its usual values."""
    from qspinn.fixedpoint import QFormat, Rounding
    from qspinn.networks.layered import Conv2d, Leaky
    from qspinn.program.ops import LifOp
    from qspinn.program.parts import InputShift, Leak, Reset, Threshold
    from qspinn.quantization.plan import QuantRule

    fmt = QFormat(bits=8, signed=True)
    makes: dict[str, Callable[[], Any]] = {
        "LifOp": lambda: LifOp(
            name="p",
            n=3,
            v_fmt=fmt,
            v_min=0,
            rounding=Rounding.NEAREST,
            leak=Leak(decay="d", shift=8),
            input=InputShift(shift=0),
            threshold=Threshold(tensor="t"),
            reset=Reset(tensor="r"),
            n_ref=0,
            winner=False,
            stream=16,
        ),
        "Leaky": Leaky,
        "QuantRule": lambda: QuantRule(tensor="*", bits=8),
        "QuantRule, rounding as a word": lambda: QuantRule(tensor="*", bits=8, rounding="nearest"),  # type: ignore[arg-type]
        "Conv2d": lambda: Conv2d(source="a", target="b"),
    }
    return {name: best(lambda make=make: [make() for _ in range(1000)], 0.5) * 1e3 for name, make in makes.items()}


def program_check() -> dict[str, float]:
    """Seconds to check a program of the size of ResNet-19, the first and the second time."""
    import qspinn
    from qspinn.networks.published import resnet19
    from qspinn.program import check
    from qspinn.quantization.layered import lower_layers
    from qspinn.quantization.ranges import LayerRanges

    network = resnet19()
    rng, params = np.random.default_rng(0), {}
    for layer in network.layers:
        for c in network.into(layer.name):
            if hasattr(c, "bias"):
                params[network.weight_path(c)] = rng.standard_normal(network.weight_shape(c)) * 0.05
                if c.bias or c.norm:
                    params[f"{layer.name}.bias"] = np.zeros(layer.shape[0])
    program = lower_layers(
        network,
        params,
        qspinn.QuantPlan(rules=(qspinn.QuantRule(tensor="*", bits=8),)),
        LayerRanges(v={x.name: 2.0 for x in network.layers}),
    )
    import msgspec

    fresh = msgspec.structs.replace(program)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        check(fresh)
        times.append(time.perf_counter() - start)
    return {"codes": sum(t.codes.size for t in program.tensors.values()), "first_s": times[0], "second_s": times[1]}


def check_claims(command: str) -> list[dict[str, Any]]:
    """Claims of checking a program."""
    found = program_check()
    text = f"checking a program of the size of ResNet-19, {found['codes']:,} codes, "
    return [
        claim(
            text + "the first time",
            [found["first_s"]],
            "s",
            "<= 0.3",
            found["first_s"] <= CHECK_S,
            command=command,
            digits=3,
        ),
        claim(text + "the second time", [found["second_s"] * 1e6], "us", "", None, command=command, digits=1),
    ]


def ratios(name: str, before: Path, rounds: int) -> list[float]:
    """CPU time of a piece of work after / before, call by call by turns, so that both see the machine as it is."""
    versions = [Version(name, source / "src") for source in (before, HERE.parent)]
    for version in versions:
        version.seconds()  # compiles
    found = []
    for _ in range(rounds):
        times: list[list[float]] = [[], []]
        end = time.perf_counter() + ROUND_S
        while time.perf_counter() < end or len(times[0]) < 5:
            for version, own in zip(versions, times, strict=True):
                own.append(version.seconds())
        found.append(statistics.median(times[1]) / statistics.median(times[0]))
    for version in versions:
        version.end()
    return found


def ratio_claim(name: str, found: list[float], command: str) -> dict[str, Any]:
    """The claim that a piece of work is not slower than before."""
    target, met = ("<= 1.02", statistics.median(found) <= SLOWER) if name != "reference" else ("", None)
    return claim(
        f"checks at every border, CPU time after / before: {WORK[name].__doc__}",
        found,
        "x",
        target,
        met,
        command=command,
        digits=3,
    )


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--work", choices=sorted(WORK), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if arguments.work:
        answer(WORK[arguments.work]())
        return
    command = "python benchmarks/borders.py" + (" --before CHECKOUT" if arguments.before else "")
    made = [
        claim(f"constructing a record: {name}", [us], "us", "<= 20", us <= RECORD_US, command=command)
        for name, us in records().items()
    ]
    made += check_claims(command)
    for record in made:
        print(record["claim"], record["value"], record["unit"], flush=True)
    if arguments.before:
        for name in WORK:
            made.append(ratio_claim(name, ratios(name, arguments.before, arguments.rounds), command))
            print(name, made[-1]["value"], made[-1]["spread"], flush=True)
    write("borders", made)


if __name__ == "__main__":
    main()

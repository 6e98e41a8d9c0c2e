"""Speed of training and inference against BindsNET, in one run: the same spikes, steps and neurons; and how cost grows.

Usage: speed.py peers | growth. `peers` needs make peers. Run it on an idle machine: figures are medians of rounds in
which ours and the peer take turns, ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

import qspinn
from claims import ROOT, claim, write
from qspinn.data.images.encoders import poisson
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp import grid
from qspinn.learning.stdp import training as stdp
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Network, Stdp
from qspinn.program import Program
from qspinn.quantization.competing import lower, poisson_op
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.quantization.ranges import Ranges, calibrate
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.spikes import Spikes

PEER = ROOT / ".venv-peers" / "bin" / "python"
PEER_RULE = Stdp(eta_post=1e-2, eta_pre=1e-4, x_offset=0.0, bound="hard")
"""BindsNET's PostPre with the constants of its DiehlAndCook2015: no target trace, hard bounds, both updates."""
COMMAND = "python benchmarks/speed.py peers"
ONE_BIT = (
    "a step of the 1-bit kernel costs 68 ns at N = 400 even with 3.3 inputs (17.0 us for 250 steps, see growth): "
    "decay, compare and draw in bit planes, so fewer bytes of weights save less than their share; the 8-bit engine it "
    "is measured against became 1.4 times faster as well (docs/adr/0008)"
)
N, T = 400, 250
PROTOCOL = (
    "the peer as DiehlAndCook2015 builds it; the line with its sparse_compute option is the stricter comparison. "
    "Networks for inference are trained by this project's rule, those for training start fresh. "
)


def network_of(n: int = N, n_steps: int = T, rule: Stdp = PEER_RULE) -> Network:
    return qspinn.diehl_cook(784, n, n_steps=n_steps, stdp=rule)


def images(n: int) -> NDArray[np.uint8]:
    """MNIST training images from QSPINN_DATA."""
    return qspinn.load_data(qspinn.DataConfig(name="mnist")).train.images[:n]


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def grid_plan(bits: int) -> QuantPlan:
    """Learning on the grid: stochastic weight updates, 15-bit potentials."""
    return QuantPlan(
        rules=(
            QuantRule(tensor="exc.w", bits=bits, rounding=Rounding.STOCHASTIC),
            QuantRule(tensor="exc.v", bits=15),
            QuantRule(tensor="exc.x_*", bits=8, rounding=Rounding.TRUNCATE),
            QuantRule(tensor="exc.decay", bits=12),
            QuantRule(tensor="*", bits=16),
        )
    )


def inference_plan(bits: int) -> QuantPlan:
    return QuantPlan(
        fold_theta=True,
        rules=(
            QuantRule(tensor="exc.w", bits=bits, granularity=Granularity.PER_NEURON),
            QuantRule(tensor="exc.v", bits=12),
            QuantRule(tensor="exc.decay", bits=8),
            QuantRule(tensor="*", bits=12),
        ),
    )


def program_of(trained: Trained, ranges: Ranges, bits: int) -> Program:
    n = trained.network.populations[0].n
    return lower(trained.with_params(readout__responses=np.ones((n, 10))), inference_plan(bits), ranges)


def peer(spikes_file: Path, mode: str, batch: int, n: int, threads: int, *, sparse: bool = False) -> float:
    """Images per second of BindsNET in its own environment; `sparse` switches its sparse_compute option on."""
    call = [
        str(PEER),
        str(ROOT / "benchmarks/peers/bindsnet_stdp.py"),
        "--spikes",
        str(spikes_file),
        "--mode",
        mode,
        "--batch",
        str(batch),
        "--images",
        str(n),
        "--threads",
        str(threads),
        "--neurons",
        str(N),
        *(["--sparse-compute"] if sparse else []),
    ]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["results"][0]["images_per_second"]


def peers(rounds: int) -> None:
    """All comparisons with BindsNET."""
    network = network_of()
    spikes = poisson(images(12_000), poisson_op(network, 0), T)
    ranges = calibrate(stdp.train(network, spikes.slice(0, 2000), qspinn.StdpTraining(n_passes=1)), spikes)
    trained = stdp.train(network_of(rule=Stdp(eta_post=0.015)), spikes, qspinn.StdpTraining(n_passes=2))
    programs = {bits: program_of(trained, calibrate(trained, spikes), bits) for bits in (8, 1)}  # as a search runs them

    def learn_grid(part: Spikes) -> None:
        grid.fit(grid.prepare(network, grid_plan(8), ranges), part, qspinn.StdpTraining(n_passes=1))

    learn_grid(spikes.slice(0, 50))
    ours: dict[str, Callable[[], Any]] = {
        "float32 training": lambda: stdp.train(network, spikes, qspinn.StdpTraining(n_passes=1)),
        "8-bit training": lambda: learn_grid(spikes),
        "8-bit inference, both cores": lambda: numba_engine.run(programs[8], spikes),
        "1-bit inference, both cores": lambda: numba_engine.run(programs[1], spikes),
    }
    for work in ours.values():
        work()
    own: dict[str, list[float]] = {name: [] for name in ours}
    other: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spikes.npz"
        part = spikes.slice(0, 256)
        np.savez(file, offsets=part.offsets, index=part.index[: part.offsets[-1, -1]])
        threads = max((1, 2), key=lambda k: peer(file, "train", 1, 20, k))
        for _ in range(rounds):
            for name, work in ours.items():
                own[name].append(spikes.n_samples / seconds(work))
            for mode, batch, n in (
                ("train", 1, 30),
                ("train", 32, 64),
                ("train", 128, 128),
                ("train", 256, 256),
                ("infer", 1, 40),
            ):
                other.setdefault((mode, batch), []).append(peer(file, mode, batch, n, threads))
            for mode in ("train", "infer"):
                rate = peer(file, mode, 1, 30, threads, sparse=True)
                other.setdefault((f"{mode}, sparse_compute", 1), []).append(rate)
            print({k: round(v[-1]) for k, v in own.items()}, {k: round(v[-1], 2) for k, v in other.items()}, flush=True)
    write("speed", speed_records(own, other, threads))


def speed_records(
    own: dict[str, list[float]], other: dict[tuple[str, int], list[float]], threads: int
) -> list[dict[str, Any]]:
    """Claims from the rates of all rounds."""
    name = f"bindsnet 0.3.4, torch 2.13.0, {threads} thread(s), the faster of 1 and 2"
    best_batch = max((b for m, b in other if m == "train"), key=lambda b: median(other["train", b]))

    def ratio(ours: str, mode: str, batch: int) -> list[float]:
        return [a / b for a, b in zip(own[ours], other[mode, batch], strict=True)]

    def record(text: str, ours: str, mode: str, batch: int, least: int) -> dict[str, Any]:
        values = ratio(ours, mode, batch)
        return claim(
            text, values, "times", f"at least {least:,}", median(values) >= least, command=COMMAND, peer=name, digits=0
        )

    records = [
        claim(f"{what}, N = {N}, T = {T}", values, "images/s", "", None, command=COMMAND, digits=0)
        for what, values in own.items()
    ]
    records += [
        claim(
            f"BindsNET DiehlAndCook2015 {mode}, batch {batch}",
            values,
            "images/s",
            "",
            None,
            command=COMMAND,
            peer=name,
            digits=2,
        )
        for (mode, batch), values in other.items()
    ]
    for mode, ours in (
        ("train", "float32 training"),
        ("train", "8-bit training"),
        ("infer", "8-bit inference, both cores"),
    ):
        values = ratio(ours, f"{mode}, sparse_compute", 1)
        records.append(
            claim(
                f"{ours} against BindsNET batch 1 with its sparse_compute option on",
                values,
                "times",
                "",
                None,
                command=COMMAND,
                peer=name,
                digits=0,
            )
        )
    for kind in ("float32", "8-bit"):
        records.append(
            record(f"{kind} training, one core, against BindsNET batch 1", f"{kind} training", "train", 1, 1000)
        )
        records.append(
            record(
                f"{kind} training, one core, against BindsNET's best batch ({best_batch})",
                f"{kind} training",
                "train",
                best_batch,
                30,
            )
        )
    records.append(
        record("8-bit inference, both cores, against BindsNET batch 1", "8-bit inference, both cores", "infer", 1, 2000)
    )
    records[-1]["note"] = PROTOCOL
    one, eight = own["1-bit inference, both cores"], own["8-bit inference, both cores"]
    gain = [a / b for a, b in zip(one, eight, strict=True)]
    records.append(
        claim(
            "1-bit engine against 8-bit engine, both cores",
            gain,
            "times",
            "at least 3",
            median(gain) >= 3,
            command=COMMAND,
            note=ONE_BIT,
        )
    )
    records.append(
        claim(
            "one PTQ candidate (8 bit) on 10,000 images",
            [10_000 / r for r in eight],
            "s",
            "at most 1",
            10_000 / median(eight) <= 1,
            command=COMMAND,
        )
    )
    return records


@nb.njit(nogil=True)
def _read(data, passes):
    """Sums a buffer of 64-bit words again and again: the time of moving it once through the core."""
    total = 0
    for _ in range(passes):
        for i in range(data.size):
            total += data[i]
    return total


def bandwidth(n_bytes: int) -> float:
    """Bytes per second at which one core reads a buffer of this size."""
    data = np.ones(max(n_bytes // 8, 512), dtype=np.int64)
    passes = max(1, int(2e8 / data.nbytes))
    _read(data, 1)
    return data.nbytes * passes / min(seconds(lambda: _read(data, passes)) for _ in range(3))


def growth() -> None:
    """Inference time per image over N, T and input density, and over the floor of moving rows and states once."""
    rng = np.random.default_rng(0)
    source = images(2000)
    records = []
    command = "python benchmarks/speed.py growth"
    cases = [(n, T, 1.0) for n in (100, 200, 400, 800, 1600, 3200, 6400)]
    cases += [(N, t, 1.0) for t in (50, 100, 500)] + [(N, T, d) for d in (0.25, 0.5, 2.0, 4.0)]
    for n, t, density in cases:
        network = qspinn.diehl_cook(784, n, n_steps=t, rate_hz=128.0 * density)
        count = max(100, int(2000 * 400 / n * 250 / t / density) // 4)
        spikes = poisson(source[np.arange(count) % len(source)], poisson_op(network, 0), t)
        w = rng.random((n, 784), dtype=np.float32) ** 6
        trained = Trained(
            network=network,
            params={
                "exc.w": w * (78.4 / w.sum(axis=1, keepdims=True)),
                "exc.theta": np.full(n, 110 * density, np.float32),
            },
        )
        ranges = calibrate(trained, spikes)
        for bits in (8, 1):
            program = program_of(trained, ranges, bits)
            numba_engine.run(program, spikes.slice(0, 2), n_threads=1)
            took = [seconds(lambda p=program, s=spikes: numba_engine.run(p, s, n_threads=1)) / count for _ in range(3)]
            row_bytes = -(-n // 32) * 32 if bits == 8 else -(-n // 512) * 64
            moved = spikes.n_events / count * row_bytes + t * n * 2 * 4  # v in and out, input sum, threshold
            floor = moved / bandwidth(row_bytes * 784 + n * 8)
            records.append(
                claim(
                    f"{bits}-bit inference, one core: N = {n}, T = {t}, "
                    f"{spikes.n_events / count / t:.1f} inputs a step",
                    [1e6 * s for s in took],
                    "µs/image",
                    "",
                    None,
                    command=command,
                    digits=1,
                    note=f"{median(took) / floor:.1f} times the floor of moving {moved / 1e3:.0f} kB once",
                )
            )
            print(records[-1]["claim"], records[-1]["value"], records[-1]["note"], flush=True)
    write("growth", records)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=["peers", "growth"])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.topic == "peers":
        peers(chosen.rounds)
    else:
        growth()


if __name__ == "__main__":
    main()

"""What the checks at the borders cost: constructing records, and checking a program once.

    python benchmarks/borders.py

Stores benchmarks/results/borders.json. Engines and training beside a version without the checks: by_turns.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from claims import claim, write

COMMAND = "python benchmarks/borders.py"
RECORD_US = 20.0
CHECK_S = 0.3


def best(work: Callable[[], Any], seconds: float = 2.0) -> float:
    """CPU seconds of one call: the smallest of those that fit, after a warm-up."""
    work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def records() -> dict[str, float]:
    """Microseconds to construct each kind of record with its usual values."""
    from qspinn.fixedpoint import QFormat, Rounding
    from qspinn.networks.layered import Conv2d, Leaky
    from qspinn.program.ops import LifOp
    from qspinn.program.parts import InputShift, Leak, Reset, Threshold
    from qspinn.quantization.plan import QuantRule

    fmt = QFormat(bits=8, signed=True)
    leak, shift = Leak(decay="d", shift=8), InputShift(shift=0)
    threshold, reset = Threshold(tensor="t"), Reset(tensor="r")

    def lif(leak: Leak, shift: InputShift, threshold: Threshold, reset: Reset) -> LifOp:
        return LifOp(
            name="p",
            n=3,
            v_fmt=fmt,
            v_min=0,
            rounding=Rounding.NEAREST,
            leak=leak,
            input=shift,
            threshold=threshold,
            reset=reset,
            n_ref=0,
            winner=False,
            stream=16,
        )

    makes: dict[str, Callable[[], Any]] = {
        "LifOp": lambda: lif(leak, shift, threshold, reset),
        "Leak, a part of LifOp": lambda: Leak(decay="d", shift=8),
        "Threshold, a part of LifOp": lambda: Threshold(tensor="t"),
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


def check_claims() -> list[dict[str, Any]]:
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
            command=COMMAND,
            digits=3,
        ),
        claim(text + "the second time", [found["second_s"] * 1e6], "us", "", None, command=COMMAND, digits=1),
    ]


def main() -> None:
    """Measures and writes."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    made = [
        claim(f"constructing a record: {name}", [us], "us", "<= 20", us <= RECORD_US, command=COMMAND)
        for name, us in records().items()
    ]
    made += check_claims()
    for record in made:
        print(record["claim"], record["value"], record["unit"], flush=True)
    write("borders", made)


if __name__ == "__main__":
    main()

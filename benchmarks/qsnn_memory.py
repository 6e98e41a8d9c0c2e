"""Memory of Q-SNNs: table 2 of Wei et al. (2024) to its printed digits, what its VGG columns assume, and beside it the
account of what a program keeps: states of all layers, normalization folded.

Usage: qsnn_memory.py

Nothing is trained or measured: the figures follow from the declared networks, in seconds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from claims import claim, write
from qspinn.memory import MemoryAccount, MemoryRow, Widths, float_layers_account, plan_account, published_account
from qspinn.networks.layered import LayeredNetwork
from qspinn.networks.published import Variant, resnet19, vgg16, vggsnn
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule

COMMAND = "python benchmarks/qsnn_memory.py"
MB = 1e6
V_BITS = (8, 4, 2)
PUBLISHED: dict[str, dict[int, tuple[str, ...]]] = {
    "resnet19": {
        1: ("50.80", "1.75", "1.68", "1.65"),
        64: ("83.83", "10.0", "5.81", "3.72"),
        256: ("184.49", "35.17", "18.40", "10.01"),
    },
    "vgg16": {
        1: ("59.16", "1.96", "1.93", "1.91"),
        64: ("75.67", "6.09", "3.99", "2.94"),
        256: ("126.01", "18.67", "10.28", "6.09"),
    },
    "vggsnn": {
        1: ("37.44", "1.31", "1.25", "1.21"),
        64: ("70.47", "9.57", "5.38", "3.28"),
        256: ("171.13", "34.74", "17.96", "9.57"),
    },
}
"""MB by network and batch: 32-bit weights and potentials, then binary weights with potentials of V_BITS."""
CONSTANT_BITS = 8
"""Of thresholds, biases and decays in the account of a program."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One way to read a column of the table.

    Attributes:
        inputs_of_readout: in place of the network's; 0 for those.
        scales: further parameters of 32 bits, counted where weights are binary.
    """

    text: str
    network: LayeredNetwork
    first: int = 8
    last: int = 8
    inputs_of_readout: int = 0
    scales: int = 0


IMAGES = Variant(shape=(3, 32, 32))
READINGS: dict[str, tuple[Reading, ...]] = {
    "resnet19": (Reading(text="3 x 32 x 32, 10 classes; buffer of 131,072 neurons: conv1", network=resnet19(IMAGES)),),
    "vgg16": (
        Reading(
            text="3 x 32 x 32, 10 classes, read-out at 32 bits; buffer of 65,536 neurons: conv1",
            network=vgg16(IMAGES),
            last=32,
        ),
        Reading(text="read-out at 8 bits, a 32-bit scale per hidden channel", network=vgg16(IMAGES), scales=4_160),
        Reading(text="read-out at 8 bits", network=vgg16(IMAGES)),
        Reading(text="first layer at 32 bits, read-out at 8", network=vgg16(IMAGES), first=32),
        Reading(text="first layer and read-out at 32 bits", network=vgg16(IMAGES), first=32, last=32),
        Reading(
            text="200 classes (TinyImageNet), read-out at 8 bits",
            network=vgg16(msgspec.structs.replace(IMAGES, n_classes=200)),
        ),
        Reading(
            text="3 x 64 x 64, as trained", network=vgg16(msgspec.structs.replace(IMAGES, shape=(3, 64, 64))), last=32
        ),
    ),
    "vggsnn": (
        Reading(text="3 x 32 x 32, 10 classes; buffer of 131,072 neurons: conv2", network=vggsnn(IMAGES)),
        Reading(text="2 x 32 x 32, 11 classes", network=vggsnn(Variant(shape=(2, 32, 32), n_classes=11))),
        Reading(text="2 x 32 x 32, 10 classes", network=vggsnn(Variant(shape=(2, 32, 32)))),
        Reading(text="read-out at 32 bits", network=vggsnn(IMAGES), last=32),
        Reading(text="a 32-bit scale per hidden channel", network=vggsnn(IMAGES), scales=2_688),
        Reading(text="read-out of all 2 x 2 places that are left", network=vggsnn(IMAGES), inputs_of_readout=2_048),
        Reading(text="2 x 48 x 48, as trained", network=vggsnn(Variant(shape=(2, 48, 48)))),
    ),
}
"""The first of each column is the one that is used."""


def read_as(reading: Reading, v_bits: int, batch: int) -> MemoryAccount:
    """The account of a column read in one way; v_bits = 32 is the float network."""
    binary = v_bits < 32
    widths = Widths(first=reading.first, hidden=1, last=reading.last, v=v_bits) if binary else Widths()
    found = published_account(reading.network, widths, batch=batch)
    n_classes = reading.network.layers[-1].n
    rows = [
        msgspec.structs.replace(row, count=reading.inputs_of_readout * n_classes)
        if row.path == "out.w" and reading.inputs_of_readout
        else row
        for row in found.rows
    ]
    rows += [MemoryRow(path="scales", role="parameter", count=reading.scales, bits=32)] if binary else []
    return MemoryAccount(rows=tuple(rows), batch=batch)


def column(reading: Reading) -> dict[int, tuple[float, ...]]:
    """MB by batch, in the order of PUBLISHED."""
    return {batch: tuple(read_as(reading, v, batch).total_bytes / MB for v in (32, *V_BITS)) for batch in (1, 64, 256)}


def printed(value: float, like: str) -> str:
    """The value with as many decimals as a printed figure."""
    return f"{value:.{len(like.partition('.')[2])}f}"


def compared(name: str, reading: Reading) -> tuple[int, float]:
    """(how many of the 12 figures come out to the printed digit, largest difference from a printed figure in MB)."""
    pairs = [
        (value, like)
        for batch, values in column(reading).items()
        for value, like in zip(values, PUBLISHED[name][batch], strict=True)
    ]
    return (
        sum(printed(value, like) == like for value, like in pairs),
        max(abs(value - float(like)) for value, like in pairs),
    )


def binary_plan(v_bits: int) -> QuantPlan:
    """1-bit weights with a step per channel, first and last layer at 8 bits; the read-out's potentials too."""
    channel = Granularity.PER_CHANNEL
    return QuantPlan(
        rules=(
            QuantRule(tensor="conv1.w", bits=8, granularity=channel),
            QuantRule(tensor="out.w", bits=8),
            QuantRule(tensor="*.w*", bits=1, granularity=channel),
            QuantRule(tensor="out.v", bits=16),
            QuantRule(tensor="*.v", bits=v_bits),
            QuantRule(tensor="*", bits=CONSTANT_BITS),
        )
    )


def program_column(network: LayeredNetwork) -> dict[int, tuple[float, ...]]:
    """MB by batch of what inference keeps: all at 32 bits, then by `binary_plan`."""
    return {
        batch: (
            float_layers_account(network, batch=batch).total_bytes / MB,
            *(plan_account(network, binary_plan(v), batch=batch).total_bytes / MB for v in V_BITS),
        )
        for batch in (1, 64, 256)
    }


def records(name: str) -> list[dict[str, Any]]:
    """The claims about one network; the first carries the whole column for the table."""
    first, *others = READINGS[name]
    hits, _ = compared(name, first)
    tried = [
        f"{reading.text}: {n} of 12, off by up to {off:.3f} MB"
        for reading in others
        for n, off in (compared(name, reading),)
    ]
    note = f"Read as: {first.text}." + (f" Also tried: {'; '.join(tried)}." if tried else "")
    own, program = column(first), program_column(first.network)
    table = [
        {
            "network": name,
            "batch": batch,
            "published": list(PUBLISHED[name][batch]),
            "account": [round(x, 4) for x in own[batch]],
            "program": [round(x, 4) for x in program[batch]],
        }
        for batch in own
    ]
    found = [
        claim(
            f"{name}: figures of the Q-SNN paper's table 2 that come out to the printed digit",
            [hits],
            "of 12",
            "12 of 12",
            hits == 12,
            command=COMMAND,
            note=note,
        )
        | {"memory": table}
    ]
    for batch in (1, 256):
        whole, *_, least = program[batch]
        found.append(
            claim(
                f"{name}, batch {batch}: how many times less memory with 1-bit weights and 2-bit potentials, "
                "states of all layers counted",
                [whole / least],
                "×",
                "",
                None,
                command=COMMAND,
                note=f"Their account, one buffer for all layers: {own[batch][0] / own[batch][-1]:.2f} times.",
            )
        )
    return found


def main() -> None:
    """Writes benchmarks/results/qsnn_memory.json."""
    found = [record for name in PUBLISHED for record in records(name)]
    for record in found:
        print(record["claim"], record["value"], record["note"], sep="\n  ")
    write("qsnn_memory", found)


if __name__ == "__main__":
    main()

"""The first thing that is wrong with an operation, and the checks that all operations share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from qspinn.records.record import Record

if TYPE_CHECKING:
    from qspinn.program.program import Program

MAX_SHIFT = 31
MAX_COUNT = 255
"""Most spikes of one neuron, or of one source, in a step."""
MAX_SIZE = 1 << 15
"""Largest kernel, stride, padding or dilation, and longest refractory period in steps."""


class Fault(NamedTuple):
    """The first thing of an operation that no engine, or not every engine, would read alike.

    Attributes:
        field: where it is, within the operation or the program.
        op: the operation, with a dot; empty where it is the program itself.
    """

    field: str
    problem: str
    got: object
    allowed: str
    fix: str = ""
    op: str = ""


def shaped(program: Program, field: str, name: str, shape: tuple[int, ...]) -> Iterable[Fault]:
    yield from named_tensor(program, field, name)
    if program.codes(name).shape != shape:
        yield Fault(field, f"tensor {name!r} has the wrong shape", program.codes(name).shape, str(shape))


def named_tensor(program: Program, field: str, name: str) -> Iterable[Fault]:
    if name not in program.tensors:
        yield Fault(field, "names no tensor of this program", name, ", ".join(sorted(program.tensors)))


def vector(program: Program, field: str, name: str, n: int) -> Iterable[Fault]:
    """One value for all n neurons, one per channel, or one for each."""
    yield from named_tensor(program, field, name)
    shape = program.codes(name).shape
    if len(shape) != 1 or shape[0] == 0 or n % shape[0]:
        yield Fault(
            field, f"tensor {name!r} does not give one value to each neuron", shape, f"a length that divides {n}"
        )


def ranges(op: Record, **limits: tuple[int, int]) -> Iterable[Fault]:
    for field, (low, high) in limits.items():
        if not low <= getattr(op, field) <= high:
            yield Fault(field, "is out of range", getattr(op, field), f"{low}..{high}")


def pairs(op: Record, **least: int) -> Iterable[Fault]:
    for field, low in least.items():
        pair = getattr(op, field)
        if min(pair) < low or max(pair) > MAX_SIZE:
            yield Fault(field, "is out of range", pair, f"{low}..{MAX_SIZE} each")

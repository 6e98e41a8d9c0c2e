"""The parts of a population of neurons: what each computes with, and what every engine may rely on of it.

A neuron is a leak, an input, a threshold and a reset, and where it has them a constant or adaptive rise of the
threshold, inhibition, a bias, a synaptic current, and fewer bits between steps. A part that is absent is None in its
`LifOp`; one that is there is whole. `LifOp` says in which order they compute.

Tensors have shape [N], [C] with the N neurons in C channels one after the other, or [1] for all neurons alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from qspinn.fixedpoint import QFormat
from qspinn.program.faults import MAX_COUNT, MAX_SHIFT, Fault, ranges, vector
from qspinn.records.record import Record

if TYPE_CHECKING:
    from qspinn.program.program import Program

SIGNED, UNSIGNED = 1 << 31, 1 << 32
"""What an intermediate of 32 bits with a sign stays below, and one without."""

Names = Mapping[str, str]
Codes = Mapping[str, tuple[int | None, int | None]]
Bound = tuple[str, int, int]
"""(an intermediate of a step, its largest size, the size that it must stay below)."""


class Part(Record, frozen=True):
    """Base of the parts of a population: the checks that all of them share.

    FLAT has the name of every field in the file of a program, where a population is one table without tables within.
    SHIFTS are the fields that say by how many bits something is shifted. CODES has the fields that name tensors, each
    with the least and the largest code that have a meaning there (None: any). FACTORS has those of decay factors, each
    with the field of its shift: a code m stands for m / 2**shift, within 0..1.
    """

    FLAT: ClassVar[Names] = {}
    SHIFTS: ClassVar[tuple[str, ...]] = ()
    CODES: ClassVar[Codes] = {}
    FACTORS: ClassVar[Names] = {}

    @property
    def tensors(self) -> dict[str, str]:
        """The names of this part's tensors, by field."""
        names = {field: getattr(self, field) for field in (*self.CODES, *self.FACTORS)}
        return {field: name for field, name in names.items() if name is not None}

    def faults(self, program: Program, n: int) -> Iterable[Fault]:
        """Faults of this part of a population of n neurons, apart from the others."""
        yield from ranges(self, **dict.fromkeys(self.SHIFTS, (0, MAX_SHIFT)))
        for field, name in self.tensors.items():
            yield from vector(program, field, name, n)
            codes = program.codes(name)
            low, high = int(codes.min()), int(codes.max())
            if field in self.FACTORS:
                yield from _no_factor(field, name, program.tensors[name].fmt.signed, low, high, self._shift(field))
            else:
                yield from _no_meaning(field, name, low, high, *self.CODES[field])
        yield from self.misfits()

    def misfits(self) -> Iterable[Fault]:
        """Faults in how the values of this part fit together."""
        return ()

    def product(self, program: Program, field: str, low: int, high: int) -> int:
        """The largest size of a state of low..high times this part's factor, with what rounding adds."""
        factor, shift = largest(program, getattr(self, field)), self._shift(field)
        return max(high * factor + (1 << shift) - 1, -low * factor - 1)

    def _shift(self, field: str) -> int:
        """The shift of a decay factor."""
        return int(getattr(self, self.FACTORS[field]))


def largest(program: Program, name: str) -> int:
    """The largest size of a code of a tensor."""
    return int(np.abs(program.codes(name).astype(np.int64)).max())


def _no_factor(field: str, name: str, signed: bool, low: int, high: int, shift: int) -> Iterable[Fault]:
    """Decay factors are m / 2**shift within 0..1, never negative: nothing grows by itself."""
    code = low if low < 0 else high
    if signed or not 0 <= code <= 1 << shift:
        yield Fault(
            field,
            f"tensor {name!r} is no factor of 0..1",
            f"{code} / 2**{shift}",
            f"an unsigned code of 0..{1 << shift}",
            f"a shift of {max(code - 1, 0).bit_length()}",
        )


def _no_meaning(field: str, name: str, low: int, high: int, least: int | None, most: int | None) -> Iterable[Fault]:
    if (least is not None and low < least) or (most is not None and high > most):
        allowed = f"at least {least}" if most is None else f"{least}..{most}"
        yield Fault(field, f"tensor {name!r} holds a code that has no meaning there", (low, high), allowed)


class Leak(Part, frozen=True):
    """The leak of a potential: v <- requantize(v * decay, shift). decay names the tensor of factors."""

    FLAT: ClassVar[Names] = {"decay": "decay", "shift": "decay_shift"}
    SHIFTS = ("shift",)
    FACTORS: ClassVar[Names] = {"decay": "shift"}

    decay: str
    shift: int


class InputShift(Part, frozen=True):
    """The shift between the unit of weights and that of potentials: requantize(I, shift), negative to the left.

    shifts, where given, names the tensor with one shift per channel in place of the one of all.
    """

    FLAT: ClassVar[Names] = {"shift": "in_shift", "shifts": "in_shifts"}
    CODES: ClassVar[Codes] = {"shifts": (-MAX_SHIFT, MAX_SHIFT)}

    shift: int
    shifts: str | None = None

    def misfits(self) -> Iterable[Fault]:
        yield from ranges(self, shift=(-MAX_SHIFT, MAX_SHIFT))


class Threshold(Part, frozen=True):
    """The threshold that every neuron has, codes << shift: a spike where v >= it, v > it with `strict`; with
    max_spikes > 1 as many spikes as multiples of it are reached, up to so many a step."""

    FLAT: ClassVar[Names] = {"tensor": "v_th", "shift": "v_th_shift", "strict": "strict", "max_spikes": "max_spikes"}
    SHIFTS = ("shift",)
    CODES: ClassVar[Codes] = {"tensor": (None, None)}

    tensor: str
    shift: int = 0
    strict: bool = False
    max_spikes: int = 1

    def misfits(self) -> Iterable[Fault]:
        yield from ranges(self, max_spikes=(1, MAX_COUNT))


class Reset(Part, frozen=True):
    """Reset of the potential by a spike: to the code in `tensor`, or with by = "subtract" the potential without the
    threshold; with `delayed` in the next step, by the threshold that was reached."""

    FLAT: ClassVar[Names] = {"tensor": "v_reset", "by": "reset", "delayed": "reset_delay"}
    CODES: ClassVar[Codes] = {"tensor": (None, None)}

    tensor: str
    by: Literal["value", "subtract"] = "value"
    delayed: bool = False

    @property
    def subtracts(self) -> bool:
        """Whether the threshold is subtracted."""
        return self.by == "subtract"


class Offset(Part, frozen=True, tag="offset"):
    """A constant rise of the threshold, codes << shift: what learning made of an adaptive one."""

    FLAT: ClassVar[Names] = {"tensor": "theta", "shift": "theta_shift"}
    SHIFTS = ("shift",)
    CODES: ClassVar[Codes] = {"tensor": (0, None)}

    tensor: str
    shift: int = 0


class Adaptation(Part, frozen=True, tag="adaptation"):
    """A rise of the threshold, theta << shift, by a state theta that begins at 0:
    theta <- saturate(requantize(theta * decay, decay_shift) + s * step), s how often the neuron spiked in the step
    before. fmt is its format, without a sign."""

    FLAT: ClassVar[Names] = {
        "fmt": "theta_fmt",
        "step": "theta_step",
        "decay": "theta_decay",
        "decay_shift": "theta_decay_shift",
        "shift": "theta_shift",
    }
    SHIFTS = ("decay_shift", "shift")
    CODES: ClassVar[Codes] = {"step": (0, None)}
    FACTORS: ClassVar[Names] = {"decay": "decay_shift"}

    fmt: QFormat
    step: str
    decay: str
    decay_shift: int = 0
    shift: int = 0

    def misfits(self) -> Iterable[Fault]:
        if self.fmt.signed or self.fmt.bits > 31:
            yield Fault("fmt", "holds no adaptive thresholds", str(self.fmt), "up to 31 unsigned bits")

    def bounds(self, program: Program) -> list[Bound]:
        """Bounds of its intermediates."""
        return [("decay * theta", self.product(program, "decay", self.fmt.code_min, self.fmt.code_max), UNSIGNED)]


class Inhibition(Part, frozen=True):
    """Lateral inhibition: for each spike, v of all other neurons <- max(v_min, v - (codes << shift))."""

    FLAT: ClassVar[Names] = {"tensor": "inhibition", "shift": "inhibition_shift"}
    SHIFTS = ("shift",)
    CODES: ClassVar[Codes] = {"tensor": (0, None)}

    tensor: str
    shift: int = 0

    def bounds(self, program: Program) -> list[Bound]:
        """Bounds of its intermediates."""
        return [("the inhibition", largest(program, self.tensor) << self.shift, SIGNED)]


class Bias(Part, frozen=True):
    """A constant input, codes << shift: to the synaptic current where there is one, else to the potential."""

    FLAT: ClassVar[Names] = {"tensor": "bias", "shift": "bias_shift"}
    SHIFTS = ("shift",)
    CODES: ClassVar[Codes] = {"tensor": (None, None)}

    tensor: str
    shift: int = 0


class Current(Part, frozen=True):
    """A synaptic current, a state i that begins at 0: i <- saturate(requantize(i * decay, shift) + I + bias), which
    potentials receive in place of I. fmt is its format, with a sign."""

    FLAT: ClassVar[Names] = {"decay": "current", "shift": "current_shift", "fmt": "current_fmt"}
    SHIFTS = ("shift",)
    FACTORS: ClassVar[Names] = {"decay": "shift"}

    decay: str
    shift: int
    fmt: QFormat

    def misfits(self) -> Iterable[Fault]:
        if not self.fmt.signed or self.fmt.binary or self.fmt.bits > 31:
            yield Fault("fmt", "holds no synaptic currents", str(self.fmt), "2..31 bits with a sign")

    def bounds(self, program: Program, received: int) -> list[Bound]:
        """Bounds of its intermediates where it receives up to so much in a step."""
        product = self.product(program, "decay", self.fmt.code_min, self.fmt.code_max)
        return [("decay * i", product, SIGNED), ("the synaptic current", received - self.fmt.code_min, SIGNED)]


class Store(Part, frozen=True):
    """Store of a potential between two steps: v <- max(min, saturate(requantize(v, dropped))) << dropped, where
    dropped = -fmt.frac bits."""

    FLAT: ClassVar[Names] = {"fmt": "store_fmt", "min": "store_min"}

    fmt: QFormat
    min: int = 0

    @property
    def dropped(self) -> int:
        """Number of the lowest bits that are not kept."""
        return -self.fmt.frac

    def left(self, low: int, high: int) -> tuple[int, int]:
        """Least and largest potential that is left of low..high; rounding may go beyond either."""
        return (
            min(low, max(low >> self.dropped, self.min) << self.dropped),
            max(high, min((high >> self.dropped) + 1, self.fmt.code_max) << self.dropped),
        )

    def misfits(self) -> Iterable[Fault]:
        fmt = self.fmt
        if not (
            fmt.signed
            and fmt.bits > 1
            and 0 <= self.dropped <= MAX_SHIFT
            and fmt.code_min <= self.min <= 0
            and fmt.bits + self.dropped <= 32
        ):
            yield Fault(
                "fmt",
                "is no signed part of the potential's format",
                (str(fmt), self.min),
                "2 bits at least, a frac of -31..0, min of code_min..0",
            )

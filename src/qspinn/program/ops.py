"""The operations that a Program is made of: records without behaviour, and the shapes of what they make.

What each one computes is stated in its docstring; `runtime/reference.py` is the same as code.
"""

from __future__ import annotations

import enum
import warnings
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program.parts import (
    Adaptation,
    Bias,
    Current,
    Inhibition,
    InputShift,
    Leak,
    Offset,
    Part,
    Reset,
    Store,
    Threshold,
)
from qspinn.records.record import Record

STREAMS_PER_POPULATION = 16
"""Random streams that belong to a population: population p (from 0) has those from 16 * (p + 1) on."""


class Stream(enum.IntEnum):
    """The random streams of a population, counted from `LifOp.stream`: what draws random words, and where.

    At run time: WINNER, which of the neurons that cross their thresholds spikes; DECAY, INPUT, THETA, CURRENT, STORE,
    stochastic rounding of the decay of potentials, of the input current, of adaptive thresholds, of synaptic currents,
    and of potentials kept between steps.
    While competing populations learn on the grid: POST_UPDATE and PRE_UPDATE, weights at post- and presynaptic spikes
    (PRE_UPDATE normalization as well); THETA, the rise of thresholds; X_PRE and X_POST, the decay of traces. They have
    the numbers of CURRENT and STORE, which competing populations lack.
    While a network is lowered: from LOWERING on, stochastic encoding of real numbers.
    """

    WINNER = 0
    DECAY = 1
    INPUT = 2
    POST_UPDATE = 3
    PRE_UPDATE = 4
    THETA = 5
    CURRENT = 6
    STORE = 7
    X_PRE = 6
    X_POST = 7
    LOWERING = 8


class PoissonOp(Record, frozen=True, tag="poisson"):
    """Draws input spikes: source i spikes at step t when hash(seed, stream 0, t; i) < pixel_i * per_level.

    per_level = round(rate * dt / 1000 / 255 * 2**32), so the product is the spike probability in units of 2**-32.
    """

    per_level: int
    seed: int


POISSON_BOUNDS = {"per_level": (1, ((1 << 32) - 1) // 255), "seed": (0, (1 << 32) - 1)}
"""Lowest and highest value of each field of a PoissonOp: beyond, products leave 32 bits."""


class SelectOp(Record, frozen=True, tag="select"):
    """Keeps the sources of `source` whose bit in tensor `kept` [n] is 1, renumbered without gaps, as `target`."""

    source: str
    target: str
    kept: str


class EventsOp(Record, frozen=True, tag="events"):
    """Input spikes are given, one channel after the other: source = (channel * height + y) * width + x; a source spikes
    at most max_count times a step."""

    shape: tuple[int, int, int]
    max_count: int = 255


class DenseOp(Record, frozen=True, tag="dense"):
    """Adds to the input current of `target`, at a step, the weight columns of the spiking sources, times 2**shift
    (exact integers; a source that spikes several times counts as often). weight [N_post, N_pre].

    A source that is the target itself is recurrent: its spikes of the step before count.
    """

    source: str
    target: str
    weight: str
    shift: int = 0


class ConvOp(Record, frozen=True, tag="conv"):
    """Adds to the input current of `target` the convolution of the sources' spikes with the weights, times 2**shift.

    weight [C_out, C_in / groups, kernel_y, kernel_x], as a cross-correlation; pairs are (y, x); `shape` is that of the
    source (C_in, height, width).
    """

    source: str
    target: str
    weight: str
    shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    shift: int = 0


class PoolOp(Record, frozen=True, tag="pool"):
    """The spikes of `source` summed, or their maximum, over windows (y, x), as signal `target`. Windows that do not fit
    whole are left out. An average is a sum whose factor is part of the next weights' unit."""

    source: str
    target: str
    kind: Literal["sum", "max"]
    shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]


class AddOp(Record, frozen=True, tag="add"):
    """Adds to the input current of neuron i of `target` the spikes of source i times weight [1], [C] or [N], times
    2**shift: a residual connection."""

    source: str
    target: str
    weight: str
    shift: int = 0


class LifOp(Record, frozen=True, tag="lif"):
    """One step of a population, in this order (all integers; the normative text is docs/numerics.md):

    1. v <- requantize(v * leak, rounding); with a delayed reset then the reset (see 7) of the neurons that spiked in
       the step before. With an `Adaptation`: theta <- saturate(requantize(theta * decay, rounding) + s * step), s how
       often the neuron spiked in the step before
    2. active = (ref == 0); ref <- max(ref - 1, 0)
    3. with `current`: i <- saturate(requantize(i * decay, rounding) + I + bias), in place of I
    4. where active: v <- saturate(v + requantize(I, input shift, rounding) + bias), the bias without `current` only;
       lower bound v_min; with a delayed reset refractory neurons are held to the same bounds
    5. crossing = spiking and active and v >= threshold + theta; v > ... with a strict threshold
    6. spikes = crossing, or with max_spikes > 1 the largest s up to it for which v reaches 1, 2, ... s times the
       threshold; with `winner` only the crossing neuron with the largest random word of (seed, stream, t)
    7. v of spiking neurons <- the reset's value, or lowered by the threshold for each spike (with a delayed reset only
       in the next step, by the threshold that was reached); their ref <- n_ref
    8. for each spike, v of all other neurons <- max(v_min, v - inhibition)
    9. with `store`: v <- what is kept of it: between steps a potential has fewer bits than the step computes with

    Parts that are absent are None; `parts` describes each of them. The factors of leak, current and adaptation are
    codes that are divided by the one 2**shift of their kind. theta is a constant `Offset`, or a state that begins at 0.
    Random streams: `stream` plus the numbers of `Stream`.
    """

    name: str
    n: int
    v_fmt: QFormat
    v_min: int
    rounding: Rounding
    leak: Leak
    input: InputShift
    threshold: Threshold
    reset: Reset
    n_ref: int
    winner: bool
    stream: int
    theta: Offset | Adaptation | None = None
    inhibition: Inhibition | None = None
    bias: Bias | None = None
    current: Current | None = None
    store: Store | None = None
    spiking: bool = True

    @classmethod
    def present(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The parts of a population that is described by the fields of former versions, which files still have."""
        if "decay" not in given:
            return given
        from qspinn.program.flat import FlatLif, from_flat

        warnings.warn("LifOp takes parts now: leak=Leak(decay=...), ...", DeprecationWarning, stacklevel=3)
        return msgspec.structs.asdict(from_flat(FlatLif(**given)))

    @property
    def offset(self) -> Offset | None:
        """The constant rise of the thresholds, where there is one."""
        return self.theta if isinstance(self.theta, Offset) else None

    @property
    def constant_threshold(self) -> list[Threshold | Offset]:
        """The parts whose sum is what potentials are compared with, apart from adaptation."""
        return [self.threshold, *([] if self.offset is None else [self.offset])]

    @property
    def adaptation(self) -> Adaptation | None:
        """The adaptive rise of the thresholds, where there is one."""
        return self.theta if isinstance(self.theta, Adaptation) else None

    @property
    def looks_back(self) -> bool:
        """Whether a step needs to know which neurons spiked in the step before."""
        return self.reset.delayed or self.adaptation is not None

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that are there, by field."""
        values = ((field, getattr(self, field)) for field in self.__struct_fields__)
        return {field: part for field, part in values if isinstance(part, Part)}

    @property
    def tensors(self) -> dict[str, str]:
        """The names of all tensors of a population, by part and field (`leak.decay`)."""
        return {f"{place}.{field}": name for place, part in self.parts.items() for field, name in part.tensors.items()}

    @property
    def factors(self) -> tuple[str, ...]:
        """Tensors of decay factors: of potentials, and where they are there of currents and adaptive thresholds."""
        return tuple(part.tensors[field] for part in self.parts.values() for field in part.FACTORS)

    @property
    def kept_fmt(self) -> QFormat:
        """The format of a potential between two steps."""
        return self.v_fmt if self.store is None else self.store.fmt

    def states(self, *, fed_back: bool = False) -> dict[str, int]:
        """Bits of every state that a neuron keeps between two steps, by kind: potential v, refractory counter ref,
        synaptic current i, adaptive threshold theta, how often it spiked s.

        Args:
            fed_back: the population feeds itself.
        """
        found = {"v": self.kept_fmt.bits}
        if self.n_ref:
            found["ref"] = self.n_ref.bit_length()
        if self.current is not None:
            found["i"] = self.current.fmt.bits
        if self.adaptation is not None:
            found["theta"] = self.adaptation.fmt.bits
        if self.looks_back or fed_back:
            found["s"] = self.threshold.max_spikes.bit_length()
        return found


class VoteOp(Record, frozen=True, tag="vote"):
    """Class scores = spike counts of `source` times tensor `votes` [N, C]; argmax, ties to the lowest class."""

    source: str
    votes: str


class ReadOp(Record, frozen=True, tag="read"):
    """Class scores = the spike counts of the neurons of `source`, their final potentials, or the sum of their
    potentials after every step; argmax, ties to the lowest class."""

    source: str
    of: Literal["spikes", "v_last", "v_sum"] = "spikes"


Feed = DenseOp | ConvOp | AddOp
"""What adds to the input of a population."""
Op = PoissonOp | EventsOp | SelectOp | DenseOp | ConvOp | PoolOp | AddOp | LifOp | VoteOp | ReadOp


def conv_shape(op: ConvOp, weight: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape (C_out, height, width) of a convolution's target; not positive where the kernel does not fit."""
    height, width = (
        (op.shape[1 + i] + 2 * op.padding[i] - op.dilation[i] * (weight[2 + i] - 1) - 1) // op.stride[i] + 1
        for i in range(2)
    )
    return weight[0], height, width


def pool_shape(op: PoolOp) -> tuple[int, int, int]:
    """Shape (channels, height, width) of a pooled signal."""
    height, width = ((op.shape[1 + i] - op.kernel[i]) // op.stride[i] + 1 for i in range(2))
    return op.shape[0], height, width


def spread(codes: NDArray, n: int) -> NDArray[np.int64]:
    """One value per neuron [n] from [1], one per channel, or [n]."""
    return np.repeat(codes.astype(np.int64), n // len(codes))

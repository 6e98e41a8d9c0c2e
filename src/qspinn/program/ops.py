"""The operations that a Program is made of: records without behaviour, and the shapes of what they make.

What each one computes is stated in its docstring; `runtime/reference.py` is the same as code.
"""

from __future__ import annotations

import enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import QFormat, Rounding
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

    1. v <- requantize(v * decay, decay_shift, rounding); with `reset_delay` then the reset (see 7) of the neurons that
       spiked in the step before. Where theta is a state: theta <- saturate(requantize(theta * theta_decay,
       theta_decay_shift, rounding) + s * theta_step), s how often the neuron spiked in the step before
    2. active = (ref == 0); ref <- max(ref - 1, 0)
    3. with `current`: i <- saturate(requantize(i * current, current_shift, rounding) + I + (bias << bias_shift)), in
       place of I
    4. where active: v <- saturate(v + requantize(I, in_shift, rounding) + (bias << bias_shift)), the bias without
       `current` only; lower bound v_min; with `reset_delay` refractory neurons are held to the same bounds
    5. crossing = spiking and active and v >= (v_th << v_th_shift) + (theta << theta_shift); v > ... with `strict`
    6. spikes = crossing, or with max_spikes > 1 the largest s up to it for which v reaches 1, 2, ... s times the
       threshold; with `winner` only the crossing neuron with the largest random word of (seed, stream, t)
    7. v of spiking neurons <- v_reset, or lowered by the threshold for each spike where reset is "subtract" (with
       `reset_delay` only in the next step, by the threshold that was reached); their ref <- n_ref
    8. for each spike, v of all other neurons <- max(v_min, v - (inhibition << inhibition_shift))
    9. with `store_fmt`: v <- max(store_min, saturate(requantize(v, s, rounding))) << s, s = -store_fmt.frac: between
       steps a potential has fewer bits than the step computes with

    Tensor names are empty where a quantity is absent. Tensors have shape [N], [C] with the N neurons in C channels one
    after the other, or [1] for all neurons alike; so have the factors decay, current and theta_decay, whose codes are
    divided by the one 2**shift of its kind. in_shifts, where given, is one in_shift per channel. theta is a
    tensor, or with theta_fmt a state that begins at 0.
    Random streams: `stream` plus the numbers of `Stream`.
    """

    name: str
    n: int
    v_fmt: QFormat
    v_min: int
    in_shift: int
    decay: str
    decay_shift: int
    rounding: Rounding
    v_th: str
    v_th_shift: int
    v_reset: str
    n_ref: int
    winner: bool
    stream: int
    theta: str = ""
    theta_shift: int = 0
    inhibition: str = ""
    inhibition_shift: int = 0
    bias: str = ""
    bias_shift: int = 0
    in_shifts: str = ""
    strict: bool = False
    reset: Literal["value", "subtract"] = "value"
    spiking: bool = True
    current: str = ""
    current_shift: int = 0
    current_fmt: QFormat | None = None
    store_fmt: QFormat | None = None
    store_min: int = 0
    reset_delay: bool = False
    theta_fmt: QFormat | None = None
    theta_step: str = ""
    theta_decay: str = ""
    theta_decay_shift: int = 0
    max_spikes: int = 1

    @property
    def looks_back(self) -> bool:
        """Whether a step needs to know which neurons spiked in the step before."""
        return self.reset_delay or self.theta_fmt is not None

    @property
    def factors(self) -> tuple[str, ...]:
        """Tensors of decay factors: of potentials, and where they are there of currents and adaptive thresholds."""
        return tuple(name for name in (self.decay, self.current, self.theta_decay) if name)

    @property
    def kept_fmt(self) -> QFormat:
        """The format of a potential between two steps."""
        return self.store_fmt or self.v_fmt


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

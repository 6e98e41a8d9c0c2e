"""The widths of integer local learning, and the shifts and constants that follow from them for each layer.

Formats of a layer's tensors, n being the bits that the plan gives (defaults of Schaefer and Joshi 2020 in brackets):

=============  ==========================  =====================================================================
tensor         code range                  stands for
=============  ==========================  =====================================================================
w [8]          +-(2^(n-1) - 1)             forward weights, code * 2^(1-n)
gradient [10]  +-(2^(n-1) - 1)             learned weights and their updates, code * 2^(1-n); rounded stochastically
q_trace [10]   0 .. 2^n - 1                Q, code * 2^-n
p_trace [12]   0 .. 2^n - 1                P, code * 2^-n
r [2]          0 .. 2^n - 1                R, code * 2^-n
u [6]          +-(2^(n-1) - 1)             U, code * 2^(4-n): within +-8
activation [6] 0 .. 2^n - 1                sigmoid(U), code * 2^-n; its slope, code * 2^(-n-2)
readout [6]    +-(2^(n-1) - 1)             both random matrices, code * 2^(1-n)
read [6]       +-(2^(n-1) - 1)             the values read out, code * 2^(1-n)
error [6]      +-(2^(n-1) - 1)             errors at the read-out, code * 2^(1-n), and at U, over a power of two
=============  ==========================  =====================================================================
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError, LoweringError
from qspinn.fixedpoint import QFormat, Rounding, encode
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, gains
from qspinn.networks.local import LayerSize, LocalNetwork
from qspinn.networks.tensors import TensorPath
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule, chosen_rules, need_no_options

DEFAULTS = {
    "w": 8,
    "q_trace": 10,
    "p_trace": 12,
    "r": 2,
    "u": 6,
    "readout": 6,
    "read": 6,
    "activation": 6,
    "error": 6,
    "gradient": 10,
}
SPANS = {
    "w": (2, 12),
    "q_trace": (1, 15),
    "p_trace": (1, 15),
    "r": (1, 8),
    "u": (2, 10),
    "readout": (2, 12),
    "read": (2, 12),
    "activation": (1, 12),
    "error": (2, 12),
    "gradient": (2, 16),
}
"""Widths that the kernels have room for."""
_DROPPED = {"w": (Rounding.NEAREST, Rounding.TRUNCATE), "gradient": tuple(Rounding)}
U_INTEGER_BITS = 4
"""Sign and integer bits of U."""
DECAY_BITS, RATE_BITS, PART_BITS = 8, 8, 16
"""Decays are multiples of 2^-8; learning rates have 8 bits; gradients are divided to 16 bits after the point."""
MOST_SHIFT = 30
ROOM = 1 << 31


def default_rules(**bits: int) -> tuple[QuantRule, ...]:
    """Rules with the published widths, those given replaced, e.g. ``default_rules(p_trace=9)``."""
    rounding = {"gradient": Rounding.STOCHASTIC, "r": Rounding.TRUNCATE}
    return tuple(
        QuantRule(tensor=f"*.{kind}", bits=bits.get(kind, n), rounding=rounding.get(kind, Rounding.NEAREST))
        for kind, n in DEFAULTS.items()
    )


DEFAULT_PLAN = QuantPlan(rules=default_rules())


def local_paths(names: list[str]) -> list[str]:
    """Paths of all tensors of layers that a plan must speak of."""
    return [f"{name}.{kind}" for name in names for kind in DEFAULTS]


def local_rules(plan: QuantPlan, names: list[str]) -> dict[str, QuantRule]:
    """The rule of every tensor; errors as for `plan.chosen_rules`.

    Raises:
        ConfigError: also where a width or a rounding is not possible for a tensor, or an option for competing
            populations is set; names it.
    """
    need_no_options(plan, "local learning")
    paths = local_paths(names)
    rules = chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL, keys=lambda path, rule: frozenset({"rounding"}))
    for path, rule in rules.items():
        kind = TensorPath.of(path).kind
        low, high = SPANS[kind]
        if not low <= rule.bits <= high:
            raise ConfigError(f"plan: {path}", "width is not possible here", got=rule.bits, allowed=f"{low}..{high}")
        allowed = _DROPPED.get(kind, (Rounding.NEAREST, Rounding.TRUNCATE))
        if rule.rounding not in allowed:
            raise ConfigError(
                f"plan: {path}",
                "rounding is not possible here",
                got=rule.rounding.value,
                allowed=", ".join(r.value for r in allowed),
            )
        if rule.granularity is not Granularity.GLOBAL or rule.clip != 1.0:
            raise ConfigError(
                f"plan: {path}", "has one fixed step here", got=rule.tensor, fix="leave granularity and clip out"
            )
    return rules


class LayerGrid(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One layer in integers: `bits` by kind of tensor, constants, tables and starting codes (int64, channel-last).

    Attributes:
        learned: [C_out, k, k, C_in] on the gradient grid.
        readout, feedback: [n_classes, y, x, C_out]; alpha, gain, beta, jump: [C_in].
        activity, slope: by code of U, the lowest first.
        rate, rate_shift: the learning rate in codes, rate * 2^-rate_shift per gradient of 2^PART_BITS.
    """

    size: LayerSize
    bits: dict[str, int]
    rounding: dict[str, Rounding]
    learned: NDArray[np.int64]
    readout: NDArray[np.int64]
    feedback: NDArray[np.int64]
    alpha: NDArray[np.int64]
    gain: NDArray[np.int64]
    beta: NDArray[np.int64]
    jump: NDArray[np.int64]
    activity: NDArray[np.int64]
    slope: NDArray[np.int64]
    r_decay: int
    r_shift: int
    b_shift: int
    u_shift: int
    read_shift: int
    push: int
    pull: int
    rate: int
    rate_shift: int

    def top(self, kind: str) -> int:
        """The largest code of a kind of tensor."""
        return (1 << self.bits[kind]) - 1 if kind in UNSIGNED else (1 << (self.bits[kind] - 1)) - 1

    def half(self, kind: str, shift: int) -> int:
        """Number that is added before a shift by so many bits, under the rounding of a kind of tensor."""
        return (1 << shift) >> 1 if self.rounding[kind] is Rounding.NEAREST else 0


UNSIGNED = ("q_trace", "p_trace", "r", "activation")


def grid_of(
    start: LayerStart, network: LocalNetwork, learning: LocalLearning, rules: dict[str, QuantRule]
) -> LayerGrid:
    """The integers of a layer.

    Raises:
        LoweringError: a shift would be negative, a sum could overflow 32 bits, a trace is too narrow for an input to
            change it, or the gradient too narrow to ever move a weight; names the tensor and the width that would do.
    """
    size, name = start.size, start.size.name
    bits = {kind: rules[f"{name}.{kind}"].bits for kind in DEFAULTS}
    rounding = {kind: rules[f"{name}.{kind}"].rounding for kind in DEFAULTS}
    point = bits["p_trace"] + bits["w"] - 1 - start.scale  # bits after the point of the sums conv(P, W)
    shifts = {
        "r": point - bits["r"],
        "w": bits["p_trace"] - start.scale,
        "u": point - (bits["u"] - U_INTEGER_BITS),
        "read": bits["readout"] - bits["read"] + bits["activation"] + start.readout_shift,
        "gradient": bits["gradient"] - bits["w"],
    }
    _check_shifts(name, shifts, bits)
    rate, rate_shift = rate_codes(name, learning.learning_rate, bits["gradient"], rounding["gradient"])
    middle = 0.5 if rounding["u"] is Rounding.TRUNCATE else 0.0
    u_max = (1 << (bits["u"] - 1)) - 1
    activity = 1 / (1 + np.exp(-(np.arange(-u_max, u_max + 1) + middle) * 2.0 ** (U_INTEGER_BITS - bits["u"])))
    n = bits["activation"]
    # of the squared error, 2 / n_classes * 2^-readout_shift are left out of the errors: the regularizers count in that
    unit = 2.0 ** (bits["error"] + bits["readout"] - 2) * len(start.readout) * 2.0 ** (start.readout_shift - 1)
    grid = LayerGrid(
        size=size,
        bits=bits,
        rounding=rounding,
        learned=_symmetric(start.w, bits["gradient"]),
        readout=_symmetric(start.readout, bits["readout"]),
        feedback=_symmetric(start.feedback, bits["readout"]),
        alpha=_unsigned(start.alpha, DECAY_BITS, DECAY_BITS),
        beta=_unsigned(start.beta, DECAY_BITS, DECAY_BITS),
        gain=_unsigned(gains(start.alpha, network.cap), DECAY_BITS, 15),
        jump=_unsigned(gains(start.beta, network.cap), bits["q_trace"], bits["q_trace"]),
        activity=_unsigned(activity, n, n),
        slope=_unsigned(activity * (1 - activity), n + 2, n),
        r_decay=int(_unsigned(np.array([network.refractory]), DECAY_BITS, DECAY_BITS)[0]),
        r_shift=shifts["r"],
        b_shift=shifts["w"],
        u_shift=shifts["u"],
        read_shift=shifts["read"],
        push=math.floor(20 * learning.l1 / size.n_outputs * unit * 2.0 ** (n + 2) + 0.5),
        pull=math.floor(0.1 * learning.l2 / size.n_outputs * unit + 0.5),
        rate=rate,
        rate_shift=rate_shift,
    )
    _check_traces(grid, gains(start.beta, network.cap).min(), gains(start.alpha, network.cap).min())
    _check_sums(grid, len(start.readout))
    return grid


def _symmetric(x: NDArray[np.float64], bits: int) -> NDArray[np.int64]:
    """Codes of numbers within +-1, as many negative as positive ones."""
    fmt = QFormat(bits=bits, frac=bits - 1, signed=True)
    return np.maximum(encode(x, fmt)[0], -fmt.code_max)


def _unsigned(x: NDArray[np.float64], frac: int, bits: int) -> NDArray[np.int64]:
    return encode(x, QFormat(bits=bits, frac=frac))[0]


def _check_shifts(name: str, shifts: dict[str, int], bits: dict[str, int]) -> None:
    """No shift to the right is by a negative number of bits."""
    for kind, shift in shifts.items():
        other = {"r": "p_trace", "w": "p_trace", "u": "p_trace", "read": "activation", "gradient": "gradient"}[kind]
        if shift < 0:
            raise LoweringError(
                f"{name}.{kind}",
                "the shift that rounds to this width would be negative",
                got=f"{bits[kind]} bits beside {other} of {bits[other]}"
                if kind != "gradient"
                else f"gradient of {bits['gradient']} bits under w of {bits['w']}",
                allowed=f"{name}.{other} of at least {bits[other] - shift} bits",
                fix=f"widen {name}.{other}",
            )


def rate_codes(name: str, rate: float, bits: int, rounding: Rounding) -> tuple[int, int]:
    """Code and shift of a learning rate on a gradient grid: an update is code * (gradient * 2^16) >> shift.

    Raises:
        LoweringError: even the largest gradient would be rounded to no change; says the smallest width that moves one.
    """
    fraction, exponent = math.frexp(rate * 2.0 ** (bits - 1))
    code, shift = math.floor(fraction * (1 << RATE_BITS) + 0.5), PART_BITS + RATE_BITS - exponent
    if not _moves(rate, bits, rounding):
        enough = [n for n in range(bits, SPANS["gradient"][1] + 1) if _moves(rate, n, rounding)]
        fix = f"{enough[0]} bits or more" if enough else "a larger learning.learning_rate"
        raise LoweringError(
            f"{name}.gradient",
            "is too narrow to ever move a weight",
            got=f"{bits} bits rounded {rounding.value} at a learning rate of {rate:g}",
            allowed=f"{enough[0]}..{SPANS['gradient'][1]} bits" if enough else "",
            fix=fix,
        )
    return code, shift


def _moves(rate: float, bits: int, rounding: Rounding) -> bool:
    """Whether the largest possible update (gradient sqrt 2) is ever rounded to something."""
    largest = math.sqrt(2) * rate * 2.0 ** (bits - 1)
    if rounding is Rounding.STOCHASTIC:
        return math.frexp(rate * 2.0 ** (bits - 1))[1] >= PART_BITS + RATE_BITS - MOST_SHIFT
    return largest >= (0.5 if rounding is Rounding.NEAREST else 1.0)


def _check_traces(grid: LayerGrid, jump: float, gain: float) -> None:
    """An input changes Q, and the largest Q changes P."""
    name = grid.size.name
    if grid.jump.min() == 0:
        raise LoweringError(
            f"{name}.q_trace",
            "is too narrow: an input spike would not change it",
            got=grid.bits["q_trace"],
            fix=f"{math.ceil(-math.log2(2 * jump))} bits or more",
        )
    if grid.gain.min() == 0 or gain * 2.0 ** grid.bits["p_trace"] < 0.5:
        raise LoweringError(
            f"{name}.p_trace",
            "is too narrow, or its time constant too long: nothing would change it",
            got=grid.bits["p_trace"],
            fix="more bits, or a shorter network.tau_mem_ms",
        )


def _check_sums(grid: LayerGrid, n_classes: int) -> None:
    """Every sum fits 32 bits, from the largest codes and the numbers of terms."""
    name, size = grid.size.name, grid.size
    filled = -(-size.target[0] // 16) * 16 * math.prod(size.pooled[1:])
    common = max(grid.bits["p_trace"], grid.bits["q_trace"])
    bounds = {
        "w": size.fan_in * grid.top("p_trace") * grid.top("w")
        + (grid.top("w") << grid.b_shift)
        + (grid.top("r") << grid.r_shift)
        + (1 << grid.u_shift),
        "readout": filled * grid.top("readout") * grid.top("activation"),
        "error": (n_classes * grid.top("error") * grid.top("readout") + grid.pull) * grid.top("activation") + grid.push,
        "gradient": (math.prod(size.pooled[1:]) + 1) * grid.top("error") * grid.top("p_trace"),
        "p_trace": (1 << (common + DECAY_BITS + 2)) * 2,
    }
    for kind, bound in bounds.items():
        if bound >= ROOM // 2:
            raise LoweringError(
                f"{name}.{kind}",
                "a sum could overflow 32 bits",
                got=f"up to {bound:,}",
                allowed=f"below {ROOM // 2:,}",
                fix="fewer bits, or a smaller layer",
            )

"""Random streams, shifts and decays that the lowerings of all families share."""

from __future__ import annotations

import math

import numpy as np

from qspinn.fixedpoint import QFormat, encode
from qspinn.program import CodeTensor
from qspinn.program.ops import STREAMS_PER_POPULATION, Stream
from qspinn.quantization.plan import QuantRule

LOWERING_STREAM = int(Stream.LOWERING)
"""First of a population's streams that stochastic encoding uses."""

__all__ = ["LOWERING_STREAM", "STREAMS_PER_POPULATION", "decay_codes", "fitting_shift"]


def fitting_shift(largest: float, bits: int) -> int:
    """The smallest shift s with largest / 2**s, rounded to nearest, within 0..2**bits - 1 (negative: guard bits)."""
    if largest <= 0:
        return 0
    top = (1 << bits) - 1
    shift = math.floor(math.log2(largest / top)) - 1
    while math.floor(largest / 2.0**shift + 0.5) > top:
        shift += 1
    return shift


def decay_codes(decay: float, rule: QuantRule) -> CodeTensor:
    """The decay factor as m / 2**bits, m in 0..2**bits - 1."""
    fmt = QFormat(bits=rule.bits, frac=rule.bits)
    codes, _ = encode([decay], fmt, rule.rounding)
    return CodeTensor(codes=codes.astype(np.int32), fmt=fmt)

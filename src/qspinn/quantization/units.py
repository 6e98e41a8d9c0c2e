"""Random streams, shifts and decays that the lowerings of all families share."""

from __future__ import annotations

import math

import numpy as np

from qspinn.fixedpoint import QFormat, encode
from qspinn.program import CodeTensor
from qspinn.quantization.plan import QuantRule

STREAMS_PER_POPULATION = 16

LOWERING_STREAM = 8  # first of the streams that stochastic encoding uses; 0..7 belong to run time and learning


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

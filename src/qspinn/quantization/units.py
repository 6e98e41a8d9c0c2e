"""Random streams, shifts and decays that the lowerings of all families share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

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


def decay_codes(decay: float | NDArray[np.float64], rule: QuantRule) -> CodeTensor:
    """Decay factors as m / 2**shift, shift = fmt.frac = bits, m in 0..2**bits - 1; [1] where all have one code.

    Where some of several neurons do not leak at all (a factor of 1), shift is bits - 1, so that their code fits, too,
    and what leaks has codes below it.
    """
    each = np.atleast_1d(np.asarray(decay, np.float64))
    whole = each >= 1.0 if each.size > 1 else np.zeros(1, np.bool_)
    fmt = QFormat(bits=rule.bits, frac=rule.bits - bool(whole.any()))
    codes, _ = encode(each, fmt, rule.rounding)
    codes = np.where(whole, 1 << fmt.frac, np.minimum(codes, (1 << fmt.frac) - 1))
    codes = codes[:1] if np.all(codes == codes[0]) else codes
    return CodeTensor(codes=codes.astype(np.int32), fmt=fmt)

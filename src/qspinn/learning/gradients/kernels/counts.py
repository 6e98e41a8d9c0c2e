"""Compiled check of a network's input: whole numbers up to the declared count, read once."""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import kernel

_BLOCK = 1024
_F32, _I32 = np.float32, np.int32


@kernel
def holds_counts(x, most):
    """Whether every number of x [n], float32, is whole and within 0..most (float32, below 2^31).

    Numbers are looked at block by block, as a loop that may end at any number would not use whole registers. They are
    brought within the bounds before they are converted, since the conversion of others, NaN too, is not defined.
    """
    for start in range(0, x.size, _BLOCK):
        bad = False
        for i in range(start, min(start + _BLOCK, x.size)):
            number = x[i] if x[i] > _F32(0) else _F32(0)
            number = number if number < most else most
            bad |= _F32(_I32(number)) != x[i]
        if bad:
            return False
    return True

"""Compiled Poisson encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.jit import kernel
from qspinn.compiled.scalars import _U, random_word, step_key, stream_base


def capacity(images: NDArray[np.uint8], per_level: int, n_steps: int) -> int:
    """Room for the drawn events: the expected number and ten standard deviations, or every pixel at every step."""
    expected = float(images.sum(dtype=np.float64)) * per_level / 2**32 * n_steps
    return int(min(expected + 10 * np.sqrt(expected) + images.shape[1], np.count_nonzero(images) * n_steps)) + 1


@kernel
def draw(images, per_level, seed, first_stream, n_steps, offsets, index):
    """Fills offsets [B, T + 1] and index; returns the number of events."""
    n = images.shape[1]
    lit = np.empty(n, np.uint32)
    level = np.empty(n, np.uint32)
    total = 0
    for s in range(images.shape[0]):
        n_lit = 0
        for i in range(n):
            if images[s, i] > 0:
                lit[n_lit] = i
                level[n_lit] = _U(np.int64(images[s, i]) * per_level)
                n_lit += 1
        base = stream_base(seed, first_stream + s)
        for t in range(n_steps):
            offsets[s, t] = total
            if total + n_lit > index.size:  # ten standard deviations above the mean were not enough
                raise ValueError("encoder ran out of room")
            key = step_key(base, t)
            for a in range(n_lit):
                index[total] = lit[a]
                total += random_word(key, lit[a]) < level[a]
        offsets[s, n_steps] = total
    return total

"""The pixels of the simulated camera, frame by frame; see `synthetic_gestures`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.compiled.jit import kernel


@kernel
def draw(frame: NDArray[np.float32], down: Any, across: Any) -> None:
    """Adds the blobs down[i, y] * across[i, x] to a frame, one after the other."""
    for i in range(len(down)):
        left, right = 0, across.shape[1]
        while left < right and across[i, left] == 0:
            left += 1
        while right > left and across[i, right - 1] == 0:
            right -= 1
        for y in range(down.shape[1]):
            if down[i, y] != 0:
                for x in range(left, right):
                    frame[y, x] += down[i, y] * across[i, x]


@kernel
def fire(now: Any, last: Any, level: Any, threshold: Any, start_us: float, frame_us: float) -> Any:
    """Events between two frames as (pixel, time [us], brighter), by pixel; moves `level`.

    A pixel fires at the times at which the straight line from last to now crosses level + k * threshold, k = 1, 2, ...
    """
    fired, steps, counts = np.empty(len(now), np.int64), np.empty(len(now)), np.empty(len(now), np.int64)
    m = 0
    for i in range(len(now)):
        if now[i] != last[i]:
            change = now[i] - level[i]
            step = threshold[1, i] if change > 0 else -threshold[0, i]
            if change / step >= 1:
                fired[m], steps[m], counts[m] = i, step, np.int64(np.floor(change / step))
                m += 1
    n = counts[:m].sum()
    pixel, time, brighter = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.bool_)
    at = 0
    for j in range(m):
        i = fired[j]
        for k in range(1, counts[j] + 1):
            share = (level[i] + k * steps[j] - last[i]) / (now[i] - last[i])
            pixel[at], brighter[at] = i, steps[j] > 0
            time[at] = np.int64(np.floor(start_us + min(max(share, 0.0), 1.0) * frame_us))
            at += 1
        level[i] = np.float32(level[i] + counts[j] * steps[j])
    return pixel, time, brighter

"""Compiled kernels of `numba_engine`: one call runs a block of samples of one population over all steps.

`until[j]` is the first step at which neuron j is active again; `resting` lists the neurons that are refractory now.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.competing import advance, advance_lanes, clear_resting, draw_winner, sum_rows
from qspinn.compiled.drive import drive_bytes, find_places, steps_at_once
from qspinn.compiled.jit import kernel
from qspinn.compiled.scalars import step_key, stream_base
from qspinn.compiled.vectors import aligned_zeros
from qspinn.program.ops import Stream

_I32 = np.int32
WINNER, DECAY, INPUT = int(Stream.WINNER), int(Stream.DECAY), int(Stream.INPUT)


@kernel
def busiest_step(offsets):
    """The largest number of spikes in one step."""
    most = np.int64(0)
    for s in range(offsets.shape[0]):
        for t in range(offsets.shape[1] - 1):
            most = max(most, offsets[s, t + 1] - offsets[s, t])
    return most


@kernel
def tally(counts, votes):
    """Class scores [B, C]: counts [B, N] times votes [N, C]; most counts are zero. (A matrix product would wake the
    linear algebra library's threads, which then spin on the cores the next run needs.)"""
    scores = np.zeros((counts.shape[0], votes.shape[1]), np.int64)
    for s in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            if counts[s, j] != 0:
                for c in range(votes.shape[1]):
                    scores[s, c] += counts[s, j] * votes[j, c]
    return scores


@kernel
def narrow(
    offsets,
    index,
    rows,
    room,
    decay,
    gain,
    decay_scale,
    in_shift,
    v_max,
    level,
    reset,
    strength,
    seed,
    stream,
    n_ref,
    mode,
    fused,
    counts,
    v_out,
    ref_out,
    raster,
):
    """Winner-take-all population of unsigned potentials. rows [n_pre, width] unsigned; outputs [B, N].

    The types of `level` and `room` set the lanes of potentials and of input sums: 16 bits where proved, else 32. With
    `fused`, both run in explicit 16-bit lanes: byte weights, no stochastic rounding.
    """
    n_samples, n_steps, n = offsets.shape[0], offsets.shape[1] - 1, counts.shape[1]
    n_pre, width = rows.shape
    block = steps_at_once(width, room.itemsize, n_steps)
    drive = aligned_zeros(block * width, room.dtype)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre if fused else 0, np.int64)
    v = np.zeros_like(level)
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    names = np.arange(width)
    record = raster.shape[0] > 0
    base_winner, base_decay = stream_base(seed, stream + WINNER), stream_base(seed, stream + DECAY)
    base_in = stream_base(seed, stream + INPUT)
    for s in range(n_samples):
        v[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            first = t - t % block
            if t == first:
                last = min(first + block, n_steps)
                if fused:
                    find_places(index, offsets[s, first], offsets[s, last], width, places)
                    drive_bytes(flat, places, offsets[s, first : last + 1], width, drive)
                else:
                    for step in range(first, last):
                        sum_rows(
                            rows,
                            index,
                            offsets[s, step],
                            offsets[s, step + 1],
                            drive[(step - first) * width : (step - first + 1) * width],
                        )
            total = drive[(t - first) * width : (t - first + 1) * width]
            n_resting = clear_resting(resting, n_resting, until, t, total)
            if fused:
                crossed = advance_lanes(v, total, level, decay, gain, in_shift, v_max, mode)
            else:
                k1 = step_key(base_decay, t)
                k2 = step_key(base_in, t)
                crossed = advance(v, total, level, names, decay, gain, decay_scale, in_shift, v_max, mode, k1, k2)
            if not crossed:
                continue
            k = draw_winner(v, level, until, t, step_key(base_winner, t))
            if k < 0:
                continue
            for j in range(width):
                v[j] = max(_I32(_I32(v[j]) - strength[j]), _I32(0))
            v[k] = reset[k]
            until[k] = t + n_ref + 1
            if n_ref > 0:
                resting[n_resting] = k
                n_resting += 1
            counts[s, k] += 1
            if record:
                raster[s, t, k] = 1
        for j in range(n if record else 0):
            v_out[s, j] = v[j]
            ref_out[s, j] = max(until[j] - n_steps, 0)

"""Compiled kernels of `numba_engine`: one call runs a block of samples of one population over all steps.

`until[j]` is the first step at which neuron j is active again; `resting` lists the neurons that are refractory now.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.competing import advance, advance_lanes, clear_resting, draw_winner, sum_rows
from qspinn.compiled.drive import drive_bytes, find_places, steps_at_once
from qspinn.compiled.jit import kernel, piece
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


@piece
def settle(v, level, until, t, key, strength, reset, n_ref):
    """Ends a step in which a neuron reached its level: the winner inhibits all others, is reset and rests. Returns the
    winner, or -1 where none was active."""
    k = draw_winner(v, level, until, t, key)
    if k >= 0:
        for j in range(v.size):
            v[j] = max(_I32(_I32(v[j]) - strength[j]), _I32(0))
        v[k] = reset[k]
        until[k] = t + n_ref + 1
    return k


@piece
def note_states(v, until, n_steps, v_out, ref_out):
    """What is left of a sample after its last step."""
    for j in range(v_out.size):
        v_out[j] = v[j]
        ref_out[j] = max(until[j] - n_steps, 0)


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
    beyond,
    beyond_half,
    counts,
    v_out,
    ref_out,
    raster,
):
    """Winner-take-all population of unsigned potentials. rows [n_pre, width] unsigned; outputs [B, N].

    The types of `level` and `room` set the lanes of potentials and of input sums: 16 bits where proved, else 32.
    Where sums are shifted to the right by more than `advance` can, this is done first: beyond is then that shift, and
    in_shift 0.
    """
    n_samples, n_steps, width = offsets.shape[0], offsets.shape[1] - 1, rows.shape[1]
    block = steps_at_once(width, room.itemsize, n_steps)
    drive = aligned_zeros(block * width, room.dtype)
    v = np.zeros(level.size, level.dtype)
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
                for step in range(first, min(first + block, n_steps)):
                    total = drive[(step - first) * width : (step - first + 1) * width]
                    sum_rows(rows, index, offsets[s, step], offsets[s, step + 1], total)
                    if beyond > 0:
                        for j in range(width):
                            total[j] = (total[j] + beyond_half) >> beyond
            total = drive[(t - first) * width : (t - first + 1) * width]
            n_resting = clear_resting(resting, n_resting, until, t, total)
            k1 = step_key(base_decay, t)
            k2 = step_key(base_in, t)
            if not advance(v, total, level, names, decay, gain, decay_scale, in_shift, v_max, mode, k1, k2):
                continue
            k = settle(v, level, until, t, step_key(base_winner, t), strength, reset, n_ref)
            if k < 0:
                continue
            if n_ref > 0:
                resting[n_resting] = k
                n_resting += 1
            counts[s, k] += 1
            if record:
                raster[s, t, k] = 1
        if record:
            note_states(v, until, n_steps, v_out[s], ref_out[s])


@kernel
def in_bytes(
    offsets,
    index,
    rows,
    decay,
    gain,
    in_shift,
    v_max,
    level,
    reset,
    strength,
    seed,
    stream,
    n_ref,
    mode,
    counts,
    v_out,
    ref_out,
    raster,
):
    """`narrow` in explicit 16-bit lanes for both potentials and sums: byte weights, no stochastic rounding."""
    n_samples, n_steps = offsets.shape[0], offsets.shape[1] - 1
    n_pre, width = rows.shape
    block = steps_at_once(width, level.itemsize, n_steps)
    drive = aligned_zeros(block * width, level.dtype)
    flat = rows.reshape(rows.size)
    places = np.empty(block * n_pre, np.int64)
    v = np.zeros(level.size, level.dtype)
    until = np.zeros(width, np.int64)
    resting = np.empty(n_ref + 1, np.int64)
    record = raster.shape[0] > 0
    base = stream_base(seed, stream + WINNER)
    for s in range(n_samples):
        v[:] = 0
        until[:] = 0
        n_resting = 0
        for t in range(n_steps):
            first = t - t % block
            if t == first:
                last = min(first + block, n_steps)
                find_places(index, offsets[s, first], offsets[s, last], width, places)
                drive_bytes(flat, places, offsets[s, first : last + 1], width, drive)
            total = drive[(t - first) * width : (t - first + 1) * width]
            n_resting = clear_resting(resting, n_resting, until, t, total)
            if not advance_lanes(v, total, level, decay, gain, in_shift, v_max, mode):
                continue
            k = settle(v, level, until, t, step_key(base, t), strength, reset, n_ref)
            if k < 0:
                continue
            if n_ref > 0:
                resting[n_resting] = k
                n_resting += 1
            counts[s, k] += 1
            if record:
                raster[s, t, k] = 1
        if record:
            note_states(v, until, n_steps, v_out[s], ref_out[s])

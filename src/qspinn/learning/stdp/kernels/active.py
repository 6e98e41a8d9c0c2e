"""What is active in one training sample, for both compiled kernels.

Of all inputs and neurons only few matter to one sample: the inputs that spike in it are *lit*, the neurons that spiked
in it are *hot*. Only hot neurons have a postsynaptic trace, a refractory time and changing weights. While a sample
runs, the weights from lit inputs to hot neurons live in a small table of their own, one row per place of a lit input
and one column per place of a hot neuron, so that every update is a short contiguous pass; the neurons' state moves
there as well, and the main pass over all potentials ignores them (nothing reaches their level).

Weights are stored twice beside it: columns [N, n_pre] are always complete between samples, since updates and
normalization go by neuron; rows [n_pre, width], which the forward step adds up, are brought up to date when their input
is lit again, from a log of the neurons that changed.
"""

from __future__ import annotations

import numpy as np

from qspinn.compiled.jit import piece
from qspinn.compiled.scalars import _U, random_word
from qspinn.compiled.vectors import lowest_bit, reach_bits

LANES = 16  # hot neurons are counted in whole vector registers
LOG = 4096  # changed columns remembered before all rows are brought up to date


@piece
def hot_stride(n_neurons, n_steps):
    """Row length of the hot table: room for every neuron that may spike, an odd number of cache lines."""
    lines = -(-min(n_neurons, n_steps) // LANES)
    return (lines + 1 - lines % 2) * LANES


@piece
def find_lit(index, start, stop, place, lit):
    """lit[:n] = the inputs that spike in index[start:stop], ascending; place[input], -1 before, is its place there.
    Returns n."""
    for e in range(start, stop):
        place[index[e]] = 0
    n_lit = 0
    for i in range(place.size):  # in ascending order: neighbours share cache lines of the columns
        if place[i] == 0:
            place[i] = n_lit
            lit[n_lit] = i
            n_lit += 1
    return n_lit


@piece
def refresh(rows, cols, i, log, n_log, seen):
    """Row i takes the weights of the columns that changed since it was last brought up to date."""
    if n_log - seen[i] < cols.shape[0]:
        for p in range(seen[i], n_log):
            rows[i, log[p]] = cols[log[p], i]
    else:
        for k in range(cols.shape[0]):
            rows[i, k] = cols[k, i]
    seen[i] = n_log


@piece
def refresh_all(rows, cols, log, n_log, seen):
    """All rows are brought up to date, and the log starts anew."""
    for i in range(rows.shape[0]):
        refresh(rows, cols, i, log, n_log, seen)
        seen[i] = 0


@piece
def stronger(k, v_hot, level_hot, hot, n_hot, until, t, key):
    """(neuron, its place among the hot ones or -1) with the largest random word: of the winner k of all others (or -1)
    and the hot neurons that reach their level and are not refractory. Arrays have room for 32 more."""
    best_word = random_word(key, k) if k >= 0 else _U(0)
    place = np.int64(-1)
    for start in range(0, n_hot, 32):
        crossing = reach_bits(v_hot, level_hot, start)
        while crossing != 0:
            q = start + lowest_bit(crossing)
            crossing = _U(crossing & _U(crossing - _U(1)))
            if until[q] <= t:
                word = random_word(key, hot[q])
                if k < 0 or word > best_word:
                    k = hot[q]
                    place = q
                    best_word = word
    return k, place

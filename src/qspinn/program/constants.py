"""The constants of every neuron that the fields of a population stand for: what a target needs beside its operations.

Tensors of a `LifOp` hold one code for all neurons, one per channel, or one per neuron, with shifts of their own; here
they are spread to int64 [N] in the units in which `docs/numerics.md`, section 2, computes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.program.ops import LifOp, spread
from qspinn.program.program import Program

Ints = NDArray[np.int64]


def thresholds(program: Program, op: LifOp) -> Ints:
    """The constant part of what potentials are compared with, in codes of the potential, [N]."""
    level = spread(program.codes(op.v_th), op.n) << op.v_th_shift
    return level + (spread(program.codes(op.theta), op.n) << op.theta_shift) if op.theta else level


def decays(program: Program, op: LifOp) -> Ints:
    """The decay factors of potentials, in units of 2**-decay_shift, [N]."""
    return spread(program.codes(op.decay), op.n)


def current_decays(program: Program, op: LifOp) -> Ints:
    """The decay factors of synaptic currents, in units of 2**-current_shift, [N]; zeros where there are none."""
    return _each(program, op.current, op.n)


def theta_decays(program: Program, op: LifOp) -> Ints:
    """The decay factors of adaptive thresholds, in units of 2**-theta_decay_shift, [N]; zeros without."""
    return _each(program, op.theta_decay, op.n)


def share_factors(program: Program, op: LifOp) -> bool:
    """Whether every decay factor is one number for all neurons of a population."""
    return all(len(program.codes(name)) == 1 for name in op.factors)


def resets(program: Program, op: LifOp) -> Ints:
    """The codes that potentials are set to after a spike where the reset is to a value, [N]."""
    return spread(program.codes(op.v_reset), op.n)


def biases(program: Program, op: LifOp) -> Ints:
    """The codes that are added to every input (to the synaptic current, where there is one), [N]."""
    return _each(program, op.bias, op.n) << op.bias_shift


def inhibitions(program: Program, op: LifOp) -> Ints:
    """The codes by which a spike of another neuron lowers potentials, [N]; zeros without inhibition."""
    return _each(program, op.inhibition, op.n) << op.inhibition_shift


def in_shifts(program: Program, op: LifOp) -> Ints:
    """By how many bits the input current of every neuron is shifted to the right (negative: to the left), [N]."""
    return spread(program.codes(op.in_shifts), op.n) if op.in_shifts else np.full(op.n, op.in_shift)


def theta_steps(program: Program, op: LifOp) -> Ints:
    """The codes by which a spike raises adaptive thresholds, [N]; zeros where they do not adapt."""
    return _each(program, op.theta_step, op.n)


def kept_codes(op: LifOp) -> tuple[int, int, int]:
    """(bits dropped between steps, least, largest code kept); zeros where potentials stay as they are."""
    return (0, 0, 0) if op.store_fmt is None else (-op.store_fmt.frac, op.store_min, op.store_fmt.code_max)


def _each(program: Program, name: str, n: int) -> Ints:
    """The codes of a tensor for every neuron, [N]; zeros where the name says that there is none."""
    return spread(program.codes(name), n) if name else np.zeros(n, dtype=np.int64)

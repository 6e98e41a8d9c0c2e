"""The constants of every neuron that the fields of a population stand for: what a target needs beside its operations.

Tensors of a `LifOp` hold one code for all neurons, one per channel, or one per neuron, with shifts of their own; here
they are spread to int64 [N] in the units in which `docs/numerics.md`, section 2, computes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.program.ops import LifOp, spread
from qspinn.program.parts import Bias, Inhibition, Offset, Threshold
from qspinn.program.program import Program

Ints = NDArray[np.int64]


def thresholds(program: Program, op: LifOp) -> Ints:
    """The constant part of what potentials are compared with, in codes of the potential, [N]."""
    return np.sum([_shifted(program, part, op.n) for part in op.constant_threshold], axis=0)


def decays(program: Program, op: LifOp) -> Ints:
    """The decay factors of potentials, in units of 2**-leak.shift, [N]."""
    return spread(program.codes(op.leak.decay), op.n)


def current_decays(program: Program, op: LifOp) -> Ints:
    """The decay factors of synaptic currents, in units of 2**-current.shift, [N]; zeros where there are none."""
    return _none(op) if op.current is None else spread(program.codes(op.current.decay), op.n)


def theta_decays(program: Program, op: LifOp) -> Ints:
    """The decay factors of adaptive thresholds, in units of 2**-theta.decay_shift, [N]; zeros without."""
    return _none(op) if op.adaptation is None else spread(program.codes(op.adaptation.decay), op.n)


def theta_steps(program: Program, op: LifOp) -> Ints:
    """The codes by which a spike raises adaptive thresholds, [N]; zeros where they do not adapt."""
    return _none(op) if op.adaptation is None else spread(program.codes(op.adaptation.step), op.n)


def share_factors(program: Program, op: LifOp) -> bool:
    """Whether every decay factor is one number for all neurons of a population."""
    return all(len(program.codes(name)) == 1 for name in op.factors)


def resets(program: Program, op: LifOp) -> Ints:
    """The codes that potentials are set to after a spike where the reset is to a value, [N]."""
    return spread(program.codes(op.reset.tensor), op.n)


def biases(program: Program, op: LifOp) -> Ints:
    """The codes that are added to every input (to the synaptic current, where there is one), [N]."""
    return _shifted(program, op.bias, op.n)


def inhibitions(program: Program, op: LifOp) -> Ints:
    """The codes by which a spike of another neuron lowers potentials, [N]; zeros without inhibition."""
    return _shifted(program, op.inhibition, op.n)


def in_shifts(program: Program, op: LifOp) -> Ints:
    """Bits by which the input current of every neuron is shifted to the right (negative: to the left), [N]."""
    shifts = op.input.shifts
    return np.full(op.n, op.input.shift) if shifts is None else spread(program.codes(shifts), op.n)


def kept_codes(op: LifOp) -> tuple[int, int, int]:
    """Bits dropped between steps, and least and largest code kept; zeros where potentials stay as they are."""
    return (0, 0, 0) if op.store is None else (op.store.dropped, op.store.min, op.store.fmt.code_max)


def _shifted(program: Program, part: Threshold | Offset | Inhibition | Bias | None, n: int) -> Ints:
    """The codes of a part's tensor in units of the potential, [N]; zeros where the part is absent."""
    return np.zeros(n, dtype=np.int64) if part is None else spread(program.codes(part.tensor), n) << part.shift


def _none(op: LifOp) -> Ints:
    """The constant of a part that is absent, [N]."""
    return np.zeros(op.n, dtype=np.int64)

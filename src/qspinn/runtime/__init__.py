"""Executors of integer programs. All backends give the same spikes and states, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

from qspinn.errors import ConfigError, DataError
from qspinn.ops import EventsOp
from qspinn.program import Program
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes

BACKENDS = ("numba", "reference")


def run(program: Program, spikes: Spikes, *, backend: str = "numba", record: bool = False) -> Result:
    """Runs a batch of samples; see `Result` for what comes back.

    Args:
        backend: "numba" (compiled, event driven, all cores) or "reference" (plain NumPy).
        record: also return spike rasters and final states of every population.

    Raises:
        DataError: the spikes do not fit the program's inputs.
    """
    if spikes.n != program.n_inputs:
        raise DataError("spikes.n", "does not match the program's inputs", got=spikes.n, allowed=str(program.n_inputs))
    largest = int(spikes.index[spikes.offsets[0, 0] : spikes.offsets[-1, -1]].max(initial=0)) if spikes.n_samples else 0
    if largest >= spikes.n:
        raise DataError("spikes.index", "names a source that does not exist", got=largest, allowed=f"0..{spikes.n - 1}")
    most = int(spikes.count.max(initial=0)) if spikes.count is not None else 1
    for op in program.ops_of(EventsOp):
        if most > op.max_count:
            raise DataError("spikes.count", "a source spikes more often in a step than was declared", got=most,
                            allowed=f"at most {op.max_count}", fix="bin into more steps, or declare a larger max_count")
    return backend_run(backend)(program, spikes, record=record)


def backend_run(name: str) -> Callable[..., Result]:
    """The run function of a backend, imported on first use."""
    if name == "numba":
        from qspinn.runtime import numba_engine

        return numba_engine.run
    if name == "reference":
        from qspinn.runtime import reference

        return reference.run
    raise ConfigError("backend", "unknown backend", got=name, allowed=", ".join(BACKENDS))

"""Executors of integer programs. All backends give the same spikes and states, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable

from qspinn import optional
from qspinn.arrays import flag
from qspinn.errors import ConfigError, DataError
from qspinn.program import Program, check
from qspinn.program.ops import EventsOp
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes, largest

BACKENDS = ("numba", "reference", "torch")


def run(
    program: Program,
    spikes: Spikes,
    *,
    backend: str = "numba",
    record: bool = False,
    device: str = "cpu",
    memory_limit: int | None = None,
) -> Result:
    """Runs a batch of samples; see `Result` for what comes back.

    Args:
        backend: "numba" (compiled, event driven, all cores), "reference" (plain NumPy) or "torch" (batched).
        record: also return spike rasters and final states of every population.
        device: where the torch backend runs: "cpu", "cuda" or "cuda:<i>"; the others run on the CPU only.
        memory_limit: bytes that one sample may take; None: half of the machine's memory (`program.check`).

    Raises:
        DataError: the spikes do not fit the program's inputs.
        ConfigError: there is no such backend or device, torch is not installed, or the program is none that every
            engine runs alike.
    """
    execute = backend_run(backend, device)
    record = flag("record", record)
    check(program, memory_limit=memory_limit)
    if not isinstance(spikes, Spikes):
        raise DataError(
            "spikes", "are no spikes", got=type(spikes).__name__, allowed="Spikes, e.g. from spikes.from_dense"
        )
    if spikes.n != program.n_inputs:
        raise DataError("spikes.n", "does not match the program's inputs", got=spikes.n, allowed=str(program.n_inputs))
    if spikes.n_steps != program.n_steps:
        raise DataError(
            "spikes.n_steps",
            "does not match the program's steps",
            got=spikes.n_steps,
            allowed=str(program.n_steps),
            fix="bin the samples into as many steps as were declared",
        )
    most = largest(spikes)
    limit = next((op.max_count for op in program.ops_of(EventsOp)), 1)
    if most > limit:
        raise DataError(
            "spikes.count",
            "a source spikes more often in a step than was declared",
            got=most,
            allowed=f"at most {limit}",
            fix="bin into more steps, or declare a larger max_count",
        )
    return execute(program, spikes, record=record)


def backend_run(name: str, device: str = "cpu") -> Callable[..., Result]:
    """The run function of a backend on a device, imported on first use.

    Raises:
        ConfigError: there is no such backend or device, or torch is not installed.
    """
    for what, word in (("backend", name), ("device", device)):
        if not isinstance(word, str):
            raise ConfigError(what, "is of the wrong type", got=type(word).__name__, allowed="text")
    if name == "torch":
        return _torch_run(device)
    if name in BACKENDS and device != "cpu":
        raise ConfigError(
            "device",
            f"the {name} backend runs on the CPU only",
            got=device,
            allowed="cpu",
            fix="choose the torch backend",
        )
    if name == "numba":
        from qspinn.runtime.numba_engine import engine

        return engine.run
    if name == "reference":
        from qspinn.runtime import reference

        return reference.run
    raise ConfigError("backend", "unknown backend", got=name, allowed=", ".join(BACKENDS))


def _torch_run(device: str) -> Callable[..., Result]:
    """The run function of the torch backend.

    Raises:
        ConfigError: torch is not installed.
    """
    torch_engine = optional.module("qspinn.runtime.torch_engine.engine", "backend 'torch'")
    return functools.partial(torch_engine.run, device=device)

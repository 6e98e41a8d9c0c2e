"""Compilation beforehand of the kernels that a run of competing populations calls, in pieces for idle workers.

The first run on a machine compiles for longer than it computes, and most of it while one worker trains the float
network and all others wait. So the rest is rehearsed meanwhile, on the network before training and a few samples: each
piece compiles one kernel for the types that the run will call it with. Nothing that a rehearsal computes is kept, and
what it does not foresee is compiled when it is met.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from qspinn.compiled.machine_code import is_missing
from qspinn.errors import QSpinnError
from qspinn.exploration.competing import measurement as at_work
from qspinn.exploration.competing.measurement import Measurement
from qspinn.exploration.competing.proposal import learning_widths, sweep_points
from qspinn.exploration.competing.space import Candidate, candidate_plan
from qspinn.exploration.scheme import Scheme
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.training import init_params, respond
from qspinn.networks.checkpoint import Trained
from qspinn.quantization.competing import lower
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import Granularity
from qspinn.quantization.ranges import calibrate
from qspinn.records.record import from_plain, to_plain
from qspinn.runtime.numba_engine.competing import kernel_of

SAMPLES = 64
RESPONSES = "responses of the float network"


def rehearsals(measurement: Measurement) -> Iterator[tuple[str, Any]]:
    """Pieces to compile as (key, argument of `rehearse`), the longest first; none where the kernels are compiled
    already, or where they cannot be kept for other processes."""
    from qspinn.learning.stdp.kernels.floats import respond_float
    from qspinn.learning.stdp.kernels.grid import run_grid

    learns = set(measurement.experiment.search.schemes) - {Scheme.PTQ}
    if not is_missing(respond_float) and not (learns and is_missing(run_grid)):
        return
    measurement = before_training(measurement)
    if learns:
        yield "learning on the grid", to_plain(_learner(measurement, Scheme.ITQ))
    yield RESPONSES, None
    kernels = set()
    for candidate in (*_candidates(measurement), *_points(measurement)):
        with contextlib.suppress(QSpinnError):  # a width that is not possible here
            program = lower(
                measurement.float_network(candidate.n_neurons), candidate.plan, measurement.ranges(candidate.n_neurons)
            )
            kernel = kernel_of(program, measurement.validation.spikes)
            if kernel is not None and kernel not in kernels:
                kernels.add(kernel)
                yield kernel, to_plain(candidate)


def rehearse(measurement: Measurement, piece: Any) -> None:
    """Does a piece on the network before training and a few samples, so that what it needs is compiled and kept."""
    measurement = before_training(measurement)
    with contextlib.suppress(QSpinnError):  # few samples may lack a class, or a width may not be possible
        if piece is None:
            respond(
                measurement.float_network(measurement.experiment.network.n_neurons),
                measurement.train.spikes,
                n_threads=1,
            )
        else:
            at_work.build(measurement, from_plain(Candidate, piece, "piece"))


def before_training(measurement: Measurement) -> Measurement:
    """Measurement with a few samples and a network that is not trained yet."""
    experiment, n = measurement.experiment, measurement.experiment.network.n_neurons
    network = experiment.network.build(measurement.train.spikes.n, len(measurement.labels))
    params = init_params(network, experiment.seed) | {"readout.responses": np.ones((n, len(measurement.labels)))}
    trained = Trained(network=network, params=params)
    few = msgspec.structs.replace(
        measurement, train=measurement.train.first(SAMPLES), validation=measurement.validation.first(SAMPLES)
    )
    return msgspec.structs.replace(
        few, float_cache={n: trained}, ranges_cache={n: calibrate(trained, few.train.spikes)}
    )


def _points(measurement: Measurement) -> list[Candidate]:
    """The sweep, under one rounding of each kind that kernels tell apart."""
    network, roundings = (
        measurement.float_network(measurement.experiment.network.n_neurons).network,
        _roundings(measurement),
    )
    return [c for c in sweep_points(measurement.experiment, network) if c.plan.rules[-1].rounding in roundings]


def _candidates(measurement: Measurement) -> Iterator[Candidate]:
    """Candidates of all widths of weights, with the other tensors at a width of the search."""
    search = measurement.experiment.search
    for bits, rounding, states in itertools.product(
        search.ptq.weight_bits, _roundings(measurement), search.ptq.state_bits or (12,)
    ):
        yield _candidate(measurement, Scheme.PTQ, bits, rounding, states)


def _learner(measurement: Measurement, scheme: Scheme) -> Candidate:
    search = measurement.experiment.search
    return _candidate(measurement, scheme, max(search.ptq.weight_bits), search.ptq.roundings[0], 12)


def _candidate(measurement: Measurement, scheme: Scheme, bits: int, rounding: Rounding, states: int) -> Candidate:
    n, seed = measurement.experiment.network.n_neurons, measurement.experiment.seed
    paths = tensor_paths(measurement.float_network(n).network)
    widths = dict.fromkeys((p for p in paths if p != "exc.w"), states)
    if scheme is Scheme.ITQ:
        widths = learning_widths(widths)
    plan = candidate_plan(bits, Granularity.GLOBAL, rounding, widths, 0.0)
    return Candidate(scheme=scheme, plan=plan, n_neurons=n, seed=seed, label="rehearsal")


def _roundings(measurement: Measurement) -> set[Rounding]:
    """One rounding that draws random words and one that does not, of those that are searched."""
    by_kind = {rounding is Rounding.STOCHASTIC: rounding for rounding in measurement.experiment.search.ptq.roundings}
    return set(by_kind.values())

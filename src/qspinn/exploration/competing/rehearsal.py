"""Compiling ahead: what a run of competing populations will compile, in pieces that idle workers do.

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
from qspinn.exploration.competing import bench as at_work
from qspinn.exploration.competing.bench import Bench
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


def rehearsals(bench: Bench) -> list[tuple[str, Any]]:
    """(key, argument of `rehearse`) of all pieces, the longest first; none where the kernels are compiled already, or
    where they cannot be kept for other processes."""
    from qspinn.learning.stdp.kernels.floats import respond_float
    from qspinn.learning.stdp.kernels.grid import run_grid

    learns = set(bench.experiment.search.schemes) - {Scheme.PTQ}
    if not is_missing(respond_float) and not (learns and is_missing(run_grid)):
        return []
    bench = before_training(bench)
    pieces: dict[str, Any] = {}
    if learns:
        pieces["learning on the grid"] = to_plain(_learner(bench, Scheme.ITQ))
    pieces[RESPONSES] = None
    for candidate in (*_candidates(bench), *_points(bench)):
        with contextlib.suppress(QSpinnError):  # a width that is not possible here
            program = lower(bench.float_network(candidate.n_neurons), candidate.plan, bench.ranges(candidate.n_neurons))
            kernel = kernel_of(program, bench.validation.spikes)
            if kernel is not None:
                pieces.setdefault(kernel, to_plain(candidate))
    return list(pieces.items())


def rehearse(bench: Bench, piece: Any) -> None:
    """Does a piece on the network before training and a few samples, so that what it needs is compiled and kept."""
    bench = before_training(bench)
    with contextlib.suppress(QSpinnError):  # few samples may lack a class, or a width may not be possible
        if piece is None:
            respond(bench.float_network(bench.experiment.network.n_neurons), bench.train.spikes, n_threads=1)
        else:
            at_work.build(bench, from_plain(Candidate, piece, "piece"))


def before_training(bench: Bench) -> Bench:
    """The bench with a few samples, on which the network is not trained yet."""
    experiment, n = bench.experiment, bench.experiment.network.n_neurons
    network = experiment.network.build(bench.train.spikes.n, len(bench.labels))
    params = init_params(network, experiment.seed) | {"readout.responses": np.ones((n, len(bench.labels)))}
    trained = Trained(network=network, params=params)
    few = msgspec.structs.replace(bench, train=bench.train.first(SAMPLES), validation=bench.validation.first(SAMPLES))
    return msgspec.structs.replace(
        few, float_cache={n: trained}, ranges_cache={n: calibrate(trained, few.train.spikes)}
    )


def _points(bench: Bench) -> list[Candidate]:
    """The sweep, under one rounding of each kind that kernels tell apart."""
    network, roundings = bench.float_network(bench.experiment.network.n_neurons).network, _roundings(bench)
    return [c for c in sweep_points(bench.experiment, network) if c.plan.rules[-1].rounding in roundings]


def _candidates(bench: Bench) -> Iterator[Candidate]:
    """Candidates of all widths of weights, with the other tensors at a width of the search."""
    search = bench.experiment.search
    for bits, rounding, states in itertools.product(
        search.ptq.weight_bits, _roundings(bench), search.ptq.state_bits or (12,)
    ):
        yield _candidate(bench, Scheme.PTQ, bits, rounding, states)


def _learner(bench: Bench, scheme: Scheme) -> Candidate:
    search = bench.experiment.search
    return _candidate(bench, scheme, max(search.ptq.weight_bits), search.ptq.roundings[0], 12)


def _candidate(bench: Bench, scheme: Scheme, bits: int, rounding: Rounding, states: int) -> Candidate:
    n, seed = bench.experiment.network.n_neurons, bench.experiment.seed
    paths = tensor_paths(bench.float_network(n).network)
    widths = dict.fromkeys((p for p in paths if p != "exc.w"), states)
    if scheme is Scheme.ITQ:
        widths = learning_widths(widths)
    plan = candidate_plan(bits, Granularity.GLOBAL, rounding, widths, 0.0)
    return Candidate(scheme=scheme, plan=plan, n_neurons=n, seed=seed, label="rehearsal")


def _roundings(bench: Bench) -> set[Rounding]:
    """One rounding that draws random words and one that does not, of those that are searched."""
    found = {rounding is Rounding.STOCHASTIC: rounding for rounding in bench.experiment.search.ptq.roundings}
    return set(found.values())

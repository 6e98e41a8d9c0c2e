"""Candidates that are worth trying, given the significance curves."""

from __future__ import annotations

import itertools

from qspinn.exploration.competing.space import Candidate, Experiment, candidate_plan, label_of, sensitivity_plan
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.sensitivity import Significance, sweep_bits
from qspinn.fixedpoint import Rounding
from qspinn.networks.competing import Network
from qspinn.networks.tensors import TensorPath
from qspinn.quantization.competing import wide_plan
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import Granularity

TRACE_BITS = 8
LEARNING_BITS = {"v": 12, "decay": 12, "theta": 16, "v_th": 16}
"""Least widths while learning: small increments and slow decays that inference may round away must be kept here."""


def propose(experiment: Experiment, curves: list[Significance]) -> list[Candidate]:
    """The candidates in the order in which they are tried, from most to fewest weight bits.

    The tensors other than the weights get either the widths that significance found harmless under the same rounding
    ("lean") or one of the fixed `state_bits`. Left out as hopeless: PTQ with a global step where quantizing the
    weights alone already loses more than `hopeless_points`. ITQ is tried lean and with all inputs; network sizes other
    than the baseline's by PTQ with a step per neuron.
    """
    search, n0 = experiment.search, experiment.network.n_neurons
    candidates: list[Candidate] = []

    def add(
        scheme: Scheme,
        bits: int,
        granularity: Granularity,
        rounding: Rounding,
        states: str,
        widths: dict[str, int],
        rate: float,
        n: int,
    ) -> None:
        plan = candidate_plan(bits, granularity, rounding, widths, rate)
        label = label_of(scheme, bits, granularity, rounding, states, rate, n, search.ptq.input_rates)
        candidates.append(Candidate(scheme=scheme, plan=plan, n_neurons=n, seed=experiment.seed, label=label))

    for bits, rounding, granularity in itertools.product(
        sorted(search.ptq.weight_bits, reverse=True), search.ptq.roundings, search.ptq.granularities
    ):
        curve_of = {s.path: s for s in curves if s.rounding is rounding}
        per_neuron = granularity is Granularity.PER_NEURON
        if Scheme.ITQ in search.schemes:
            add(Scheme.ITQ, bits, granularity, rounding, "lean", learning_widths(lean_widths(curve_of)), 0.0, n0)
        if not per_neuron and curve_of["exc.w"].drop_at(bits) * 100 > search.ptq.hopeless_points:
            continue
        levels = {"lean": lean_widths(curve_of)} | {
            f"s{b}": dict.fromkeys(lean_widths(curve_of), b) for b in search.ptq.state_bits
        }
        for (states, widths), rate in itertools.product(levels.items(), search.ptq.input_rates):
            for scheme in search.schemes:
                if scheme is not Scheme.ITQ:
                    add(scheme, bits, granularity, rounding, states, widths, rate, n0)
            for n in search.n_neurons:
                if per_neuron and Scheme.PTQ in search.schemes and n != n0:
                    add(Scheme.PTQ, bits, granularity, rounding, states, widths, rate, n)
    return candidates


def lean_widths(curve_of: dict[str, Significance]) -> dict[str, int]:
    """The harmless width of everything but the weights."""
    return {path: s.harmless_bits for path, s in curve_of.items() if path != "exc.w"}


def learning_widths(lean: dict[str, int]) -> dict[str, int]:
    """Lean widths, raised to what learning on the grid needs, and traces."""
    raised = {path: max(bits, LEARNING_BITS.get(TensorPath.of(path).kind, 0)) for path, bits in lean.items()}
    raised["exc.v"] = min(raised["exc.v"], 15)  # up to 15 bits the engine keeps potentials in 16-bit lanes
    return raised | {"exc.x_pre": TRACE_BITS, "exc.x_post": TRACE_BITS}


def sweep_points(experiment: Experiment, network: Network) -> list[Candidate]:
    """Points of the significance sweep as candidates: every (tensor, rounding, width)."""
    search = experiment.search
    candidates = []
    for rounding in search.ptq.roundings:
        base = wide_plan(network, rounding=rounding)
        for path in tensor_paths(network):
            for bits in sweep_bits(search.sweep):
                candidates.append(
                    Candidate(
                        scheme=Scheme.PTQ,
                        plan=sensitivity_plan(base, path, bits, rounding),
                        n_neurons=experiment.network.n_neurons,
                        seed=experiment.seed,
                        label=f"{path}|{rounding.value}|{bits}",
                    )
                )
    return candidates

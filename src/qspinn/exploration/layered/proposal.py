"""Candidates for a layered network that are worth trying: the sweep's points, and the grid given their curves."""

from __future__ import annotations

import itertools

import msgspec

from qspinn.exploration.layered.space import (
    LayeredCandidate,
    LayeredExperiment,
    Widths,
    label_of,
    layers_plan,
    state_widths,
    weight_widths,
    wide_weights,
)
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.sensitivity import Significance, sweep_bits
from qspinn.fixedpoint import Rounding
from qspinn.networks.layered import LayeredNetwork
from qspinn.networks.tensors import TensorPath
from qspinn.quantization.paths import is_weight, layer_paths, state_paths
from qspinn.quantization.plan import WIDE_BITS, Granularity


def points(experiment: LayeredExperiment, network: LayeredNetwork) -> list[LayeredCandidate]:
    """Every (tensor, rounding, width) of the sweep, all other tensors wide, as PTQ candidates."""
    search, candidates = experiment.search, []
    wide, states = wide_weights(network), dict.fromkeys(state_paths(network), WIDE_BITS)
    for rounding, path, bits in itertools.product(search.ptq.roundings, layer_paths(network), sweep_bits(search.sweep)):
        weights = wide | {path: bits} if path in wide else wide
        plan = layers_plan(
            network,
            weights,
            states if path in wide else states | {path: bits},
            rounding,
            search.ptq.granularities[0],
            search,
        )
        candidates.append(
            LayeredCandidate(
                scheme=Scheme.PTQ, plan=plan, seed=experiment.seed, label=f"{path}|{rounding.value}|{bits}"
            )
        )
    return candidates


def propose(
    experiment: LayeredExperiment, network: LayeredNetwork, curves: list[Significance]
) -> list[LayeredCandidate]:
    """The candidates in the order in which they are tried, from most to fewest weight bits, ITQ last.

    PTQ takes the grid of the search, states at the widths that significance found harmless under the same rounding
    ("lean") or at each of `state_bits`, and leaves out what is hopeless: where quantizing some weights alone loses more
    than `hopeless_points`.
    """
    search = experiment.search
    candidates = _ptq(experiment, network, curves) if Scheme.PTQ in search.schemes else []
    wanted = search.itq.points if Scheme.ITQ in search.schemes else ()
    for point, rounding in itertools.product(wanted, search.itq.roundings):
        with_point = msgspec.structs.replace(experiment, search=point.within(search))
        level = (f"s{point.states}", _states(with_point, network, point.weights, point.states))
        candidates.append(
            _candidate(with_point, network, Scheme.ITQ, point.weights, level, rounding, search.ptq.granularities[0])
        )
    return candidates


def _ptq(experiment: LayeredExperiment, network: LayeredNetwork, curves: list[Significance]) -> list[LayeredCandidate]:
    search, candidates = experiment.search, []
    for bits, rounding, granularity in itertools.product(
        sorted(search.ptq.weight_bits, reverse=True), search.ptq.roundings, search.ptq.granularities
    ):
        curve_of = {s.path: s for s in curves if s.rounding is rounding}
        weights = weight_widths(network, bits, search)
        if _hopeless(curve_of, weights, search.ptq.hopeless_points) and _as_swept(experiment, granularity):
            continue
        levels = {"lean": lean_widths(curve_of, _states(experiment, network, bits, WIDE_BITS))}
        levels |= {f"s{b}": _states(experiment, network, bits, b) for b in search.ptq.state_bits}
        candidates += [
            _candidate(experiment, network, Scheme.PTQ, bits, level, rounding, granularity) for level in levels.items()
        ]
    return candidates


def _states(experiment: LayeredExperiment, network: LayeredNetwork, weight_bits: int, bits: int) -> Widths:
    search = experiment.search
    return state_widths(network, bits, weight_widths(network, weight_bits, search), search.constant_bits)


def _hopeless(curve_of: dict[str, Significance], weights: Widths, limit: float) -> bool:
    return any(
        curve_of[path].drop_at(bits) * 100 > limit
        for path, bits in weights.items()
        if path in curve_of and is_weight(path)
    )


def _as_swept(experiment: LayeredExperiment, granularity: Granularity) -> bool:
    """Whether the sweep's losses hold for this granularity: one step for all is not better than one per channel."""
    return granularity in (experiment.search.ptq.granularities[0], Granularity.GLOBAL)


def lean_widths(curve_of: dict[str, Significance], known: Widths) -> Widths:
    """The harmless width of everything but the weights; currents stay as wide as their sums need."""
    return {
        path: bits if TensorPath.of(path).kind == "i" or path not in curve_of else curve_of[path].harmless_bits
        for path, bits in known.items()
    }


def _candidate(
    experiment: LayeredExperiment,
    network: LayeredNetwork,
    scheme: Scheme,
    bits: int,
    level: tuple[str, Widths],
    rounding: Rounding,
    granularity: Granularity,
) -> LayeredCandidate:
    states, widths = level
    search = experiment.search
    plan = layers_plan(network, weight_widths(network, bits, search), widths, rounding, granularity, search, scheme)
    return LayeredCandidate(
        scheme=scheme,
        plan=plan,
        seed=experiment.seed,
        label=label_of(scheme, bits, states, rounding, granularity, search),
    )

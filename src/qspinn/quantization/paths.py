"""Paths of the tensors of a network that a plan gives formats to."""

from __future__ import annotations

from qspinn.arrays import need_kind
from qspinn.networks.competing import Network
from qspinn.networks.layered import LayeredNetwork
from qspinn.networks.tensors import BY_SOURCE, Held, TensorPath, layer_tensors, population_tensors

INFERENCE_KINDS = ("w", "v", "v_th", "theta", "decay", "inhibition")

LEARNING_KINDS = ("x_pre", "x_post")

LAYER_KINDS = ("w", "skip", "v", "decay", "v_th", "bias", "i", "i_decay", "theta", "theta_step", "theta_decay")
"""Kinds of a layer's tensors and states that a plan gives a format, in the order of plans; reset values follow the
potential, counters hold what they count."""


def tensor_paths(network: Network, *, learning: bool = False) -> list[str]:
    """Paths of all tensors a plan must speak of, in execution order."""
    need_kind("network", network, Network)
    paths: list[str] = []
    for population in network.populations:
        paths += _planned(population_tensors(network, population, learning=learning), INFERENCE_KINDS + LEARNING_KINDS)
    return [*paths, "readout.votes"]


def layer_paths(network: LayeredNetwork) -> list[str]:
    """Paths of all tensors that a plan for a layered network must speak of, in execution order."""
    need_kind("network", network, LayeredNetwork)
    paths: list[str] = []
    for layer in network.layers:
        paths += _planned(layer_tensors(network, layer), LAYER_KINDS)
    return paths


def _planned(held: list[Held], kinds: tuple[str, ...]) -> list[str]:
    """Paths of what a layer holds, of these kinds and in their order, weights and skips in that of connections."""
    place = {kind: 0 if kind in BY_SOURCE else 1 + i for i, kind in enumerate(kinds)}
    found = [h.path for h in held if h.path.kind in place]
    return [str(path) for path in sorted(found, key=lambda path: place[path.kind])]


def is_weight(path: str) -> bool:
    """Whether a path is that of weights of a connection (`w`, `w_<source>`); skips are not."""
    return TensorPath.of(path).is_weight


def weight_paths(network: LayeredNetwork) -> list[str]:
    """Paths of all weights, in execution order."""
    return [network.weight_path(c) for layer in network.layers for c in network.into(layer.name)]


def state_paths(network: LayeredNetwork) -> list[str]:
    """Paths of everything else that a plan speaks of."""
    weights = set(weight_paths(network))
    return [path for path in layer_paths(network) if path not in weights]

"""Names (paths) of the tensors of a network, and which of them are weights."""

from __future__ import annotations

from qspinn.arrays import need_kind
from qspinn.networks.competing import Network
from qspinn.networks.layered import LayeredNetwork, Skip

INFERENCE_KINDS = ("w", "v", "v_th", "theta", "decay", "inhibition")

LEARNING_KINDS = ("x_pre", "x_post")


def tensor_paths(network: Network, *, learning: bool = False) -> list[str]:
    """Paths of all tensors a plan must speak of, in execution order."""
    need_kind("network", network, Network)
    paths: list[str] = []
    for population in network.populations:
        kinds = [k for k in INFERENCE_KINDS if k != "inhibition" or network.lateral_of(population.name)]
        if learning and network.dense_into(population.name).stdp is not None:
            kinds += LEARNING_KINDS
        paths += [f"{population.name}.{kind}" for kind in kinds]
    return [*paths, "readout.votes"]


def layer_paths(network: LayeredNetwork) -> list[str]:
    """Paths of all tensors that a plan for a layered network must speak of, in execution order."""
    need_kind("network", network, LayeredNetwork)
    paths: list[str] = []
    for layer in network.layers:
        into = network.into(layer.name)
        paths += [network.weight_path(c) for c in into]
        kinds = ["v", "decay"] + (["v_th"] if layer.neuron.spiking else [])
        kinds += ["bias"] if any(not isinstance(c, Skip) and (c.bias or c.norm) for c in into) else []
        kinds += ["i", "i_decay"] if layer.neuron.current_decay is not None else []
        kinds += ["theta", "theta_step", "theta_decay"] if layer.neuron.adapts else []
        paths += [f"{layer.name}.{kind}" for kind in kinds]
    return paths


def is_weight(path: str) -> bool:
    """Whether a path is that of weights of a connection (`w`, `w_<source>`); skips are not."""
    return path.split(".")[-1].split("_")[0] == "w"


def is_matrix(path: str) -> bool:
    """Whether a path is that of a connection's weights, skips apart."""
    return path.split(".")[-1].split("_")[0] == "w"


def weight_paths(network: LayeredNetwork) -> list[str]:
    """Paths of all weights, in execution order."""
    return [network.weight_path(c) for layer in network.layers for c in network.into(layer.name)]


def state_paths(network: LayeredNetwork) -> list[str]:
    """Paths of everything else that a plan speaks of."""
    weights = set(weight_paths(network))
    return [path for path in layer_paths(network) if path not in weights]

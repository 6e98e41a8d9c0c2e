"""Content of the layers of a network: paths, roles and sizes of their tensors and of their neurons' states.

The one account of it: plans, memory, lowering and reports take from here what there is of a layer.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from qspinn.networks.competing import Network, Population
from qspinn.networks.layered import Layer, LayeredNetwork, Skip
from qspinn.networks.local import LayerSize

Role = Literal["parameter", "state", "learning"]
"""What numbers are for: kept from training, kept between steps, needed only while a network learns."""
BY_SOURCE = ("w", "skip")
"""Kinds of tensors of which a layer may have several, one for each source (`w_input`, `skip_a`)."""


class TensorPath(NamedTuple):
    """The path of a tensor, or a pattern for paths, taken apart: `a.w_b` is of layer a, kind w, from source b.

    Attributes:
        layer: a layer, a population or "readout"; empty where the text had none.
        kind: what it is (w, v, v_th, theta, ...).
        source: of weights, where several connections feed a layer, and of residual connections; else empty.
    """

    layer: str
    kind: str
    source: str = ""

    @classmethod
    def of(cls, text: str) -> TensorPath:
        """The parts of a path; every text has some."""
        layer, _, name = text.rpartition(".")
        kind, _, source = name.partition("_")
        return cls(layer, kind, source) if kind in BY_SOURCE else cls(layer, name)

    @property
    def name(self) -> str:
        """The path without its layer (`w_b`)."""
        return f"{self.kind}_{self.source}" if self.source else self.kind

    @property
    def is_weight(self) -> bool:
        """Whether it is that of a connection's weights; factors of residual connections (skip) are none."""
        return self.kind == "w"

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}"


class Held(msgspec.Struct, frozen=True):
    """A tensor, or a state of all neurons, that a layer holds: how many numbers it has, and what they are for."""

    path: TensorPath
    role: Role
    count: int


def layer_tensors(network: LayeredNetwork, layer: Layer) -> list[Held]:
    """Tensors and states of a layer of a layered network, batch normalization folded into weights and biases as it is
    for inference, constants of a layer once: weights, constants, then states."""
    into, neuron = network.into(layer.name), layer.neuron
    sizes = {network.weight_path(c): 1 if isinstance(c, Skip) else math.prod(network.weight_shape(c)) for c in into}
    has_bias = any(not isinstance(c, Skip) and (c.bias or c.norm) for c in into)
    constants = {
        "bias": layer.shape[0] * has_bias,
        "v_th": neuron.spiking,
        "decay": True,
        "v_reset": neuron.spiking,
        "i_decay": neuron.current_decay is not None,
        "theta_step": neuron.adapts,
        "theta_decay": neuron.adapts,
    }
    states = {
        "v": True,
        "ref": neuron.n_ref_steps > 0,
        "i": neuron.current_decay is not None,
        "theta": neuron.adapts,
        "s": neuron.looks_back or any(c.source == layer.name for c in into),
    }
    return [
        *(Held(TensorPath.of(path), "parameter", n) for path, n in sizes.items()),
        *(Held(TensorPath(layer.name, kind), "parameter", int(n)) for kind, n in constants.items() if n),
        *(Held(TensorPath(layer.name, kind), "state", layer.n) for kind, there in states.items() if there),
    ]


def population_tensors(network: Network, population: Population, *, learning: bool = False) -> list[Held]:
    """Tensors and states of a population of competing neurons: weights, constants, states, and with `learning` the
    traces of STDP where its weights learn."""
    dense, n = network.dense_into(population.name), population.n
    n_pre = network.size_of(dense.source)
    parameters = {"w": n_pre * n, "v_th": 1, "theta": n, "decay": 1, "v_reset": 1}
    if network.lateral_of(population.name):
        parameters["inhibition"] = 1
    states = {"v": n} | ({"ref": n} if population.neuron.n_ref_steps else {})
    traces = {"x_pre": n_pre, "x_post": n} if learning and dense.stdp is not None else {}
    by_role: dict[Role, dict[str, int]] = {"parameter": parameters, "state": states, "learning": traces}
    return [
        Held(TensorPath(population.name, kind), role, count)
        for role, counts in by_role.items()
        for kind, count in counts.items()
    ]


def local_tensors(size: LayerSize, n_classes: int, n_outputs: int, n_states: int, *, bias: bool) -> list[Held]:
    """Tensors and states of a layer that learns by its own classifier, with those of learning.

    Args:
        n_outputs: numbers that the classifier sees; n_states: neurons that keep a potential.
    """
    n_weights = size.n_weights + (size.target[0] if bias else 0)
    found: tuple[tuple[str, Role, int], ...] = (
        ("w", "parameter", n_weights),
        ("gradient", "learning", n_weights),
        ("q_trace", "state", size.n_inputs),
        ("p_trace", "state", size.n_inputs),
        ("r", "state", n_states),
        ("u", "state", n_states),
        ("readout", "parameter", 2 * n_classes * n_outputs),
        ("read", "learning", n_classes),
        ("error", "learning", n_classes + n_outputs),
    )
    return [Held(TensorPath(size.name, kind), role, count) for kind, role, count in found]

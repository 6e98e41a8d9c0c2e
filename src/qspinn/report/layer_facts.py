"""What the page shows of layers: their widths, rates and memory, and the kernels of the first one before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.checkpoint import TrainedLayers
from qspinn.layers import Conv2d, Layer, LayeredNetwork
from qspinn.memory import MemoryRow
from qspinn.plan import Granularity as Step
from qspinn.plan import QuantPlan, chosen_rules, layer_paths
from qspinn.program import Program


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the winner beside the float network.

    Attributes:
        widths: bits of every kind of tensor (w, v, v_th, ...) in the winner's plan.
        float_rate, rate: spikes per neuron and step on validation; None where nothing spikes.
        float_bits, bits: memory of all its tensors and states.
    """

    name: str
    shape: tuple[int, int, int]
    widths: dict[str, int]
    float_rate: float | None
    rate: float | None
    float_bits: int
    bits: int

    @property
    def drift(self) -> float | None:
        """How far the winner's rate is from float's (share of float's)."""
        if not self.float_rate or self.rate is None:
            return None
        return self.rate / self.float_rate - 1


class Layers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All layers, and first-layer kernels as numbers [n, height, width], float and codes; empty without a convolution.

    Attributes:
        names: of the kernels.
    """

    network: LayeredNetwork
    facts: tuple[LayerFacts, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    names: tuple[str, ...]

    @property
    def n_neurons(self) -> int:
        return sum(layer.n for layer in self.network.layers)


def layers_of(
    trained: TrainedLayers, program: Program, plan: QuantPlan, rates: Mapping[str, float],
    float_rates: Mapping[str, float], float_memory: Iterable[MemoryRow], memory: Iterable[MemoryRow],
) -> Layers:
    """The facts of a run's winner.

    Raises:
        LookupError, ValueError: the parts do not fit each other.
    """
    network = trained.network
    paths = layer_paths(network)
    rules = chosen_rules(plan, paths, paths, Step.PER_CHANNEL)
    old, new = _by_layer(float_memory), _by_layer(memory)
    facts = tuple(LayerFacts(
        name=layer.name, shape=layer.shape, float_bits=old[layer.name], bits=new[layer.name],
        widths={path.partition(".")[2]: rule.bits for path, rule in rules.items() if path.startswith(f"{layer.name}.")},
        float_rate=float_rates[layer.name] if layer.neuron.spiking else None,
        rate=rates[layer.name] if layer.neuron.spiking else None) for layer in network.layers)
    return Layers(network=network, facts=facts, **_kernels(trained, program))


def _by_layer(rows: Iterable[MemoryRow]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in rows:
        name = row.path.partition(".")[0]
        totals[name] = totals.get(name, 0) + row.total_bits
    return totals


def _kernels(trained: TrainedLayers, program: Program) -> dict[str, Any]:
    """Kernels of the first layer: one for each pair of output and input channel."""
    layer: Layer = trained.network.layers[0]
    first = [c for c in trained.network.into(layer.name) if isinstance(c, Conv2d) and c.source == "input"]
    if not first:
        return {"before": np.zeros((0, 1, 1)), "after": np.zeros((0, 1, 1)), "names": ()}
    path = trained.network.weight_path(first[0])
    before, after = _folded(trained, path), program.codes(path).astype(np.float64)
    names = tuple(f"channel {o} from {i}" for o in range(before.shape[0]) for i in range(before.shape[1]))
    return {"before": before.reshape(-1, *before.shape[2:]), "after": after.reshape(-1, *after.shape[2:]),
            "names": names}


def _folded(trained: TrainedLayers, path: str) -> NDArray[np.float64]:
    """Weights times the factor of their batch normalization, where they have one."""
    key = path.replace(".", "__")
    w = trained.params[key].astype(np.float64)
    gain = trained.params.get(f"norms.{key}.weight")
    if gain is None:
        return w
    factor = gain / np.sqrt(trained.params[f"norms.{key}.running_var"] + 1e-5)
    return w * factor.reshape(-1, 1, 1, 1)

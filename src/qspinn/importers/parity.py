"""Proof of import: the original and the imported network on the same inputs, spike for spike.

Every layer is compared on the spikes that the original gave it, so that a difference stands where it arises. A neuron
whose potential lies within rounding of its threshold may spike in one of the two only: such a tie is told apart from a
difference, and what the neuron does after it is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.networks.layered import LayeredNetwork
from qspinn.networks.simulation import Population, simulate_layer
from qspinn.records.record import Record

Floats = NDArray[np.float64]
TIE = 16.0
"""Distance from the threshold that rounding explains, in units of the last place of the original's type: sums of a few
dozen inputs in another order differ by as much."""


class First(Record, frozen=True):
    """The first place where two networks part, and the potential there, less the threshold."""

    step: int
    sample: int
    neuron: int
    margin: float


class LayerParity(Record, frozen=True):
    """Comparison of one layer.

    Attributes:
        spikes: number of spikes of the original.
        equal: neuron-steps in which both spiked alike.
        ties: neurons of a sample that parted where the potential lay within rounding of the threshold.
        differences: neurons of a sample that parted elsewhere.
        after_tie: neuron-steps that were not compared, after a tie.
        potential: largest difference of potentials while spikes were equal; None where the original shows none.
        first: the first difference; None where there is none.
    """

    name: str
    spikes: int
    equal: int
    ties: int
    differences: int
    after_tie: int
    potential: float | None
    first: First | None

    def __str__(self) -> str:
        text = f"{self.name}: {self.spikes:,} spikes, {self.differences:,} neurons differ, {self.ties:,} ties"
        if self.first is not None:
            f = self.first
            text += f"; first at step {f.step}, sample {f.sample}, neuron {f.neuron} ({f.margin:+.3g} from threshold)"
        return text


class Parity(Record, frozen=True):
    """Comparison of an imported network with its original, by layer."""

    layers: tuple[LayerParity, ...]

    @property
    def equal(self) -> bool:
        """Whether no neuron differs but by ties."""
        return all(layer.differences == 0 for layer in self.layers)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


class Recorded(NamedTuple):
    """Record of a layer of the original.

    Attributes:
        spikes: [T, B, N].
        potentials: likewise; None where the original does not show them.
        eps: unit of the last place of its numbers, at 1.
    """

    spikes: Floats
    potentials: Floats | None
    eps: float


def parity(
    network: LayeredNetwork, params: Mapping[str, NDArray], inputs: Floats, recorded: Mapping[str, Recorded]
) -> Parity:
    """Compares every layer on the spikes that the original gave it.

    Args:
        inputs: spike counts [T, B, n_inputs].
        recorded: what each layer of the original did, by name.
    """
    signals = {"input": inputs} | {name: layer.spikes for name, layer in recorded.items()}
    layers = []
    for layer in network.layers:
        if not layer.neuron.spiking:
            continue
        mine = simulate_layer(network, params, layer, signals)
        layers.append(_layer(layer.name, mine, recorded[layer.name]))
    return Parity(layers=tuple(layers))


def _layer(name: str, mine: Population, theirs: Recorded) -> LayerParity:
    spikes, potentials, margins = mine.spikes, mine.potentials, mine.margins
    differ = spikes != theirs.spikes
    parted = differ.any(axis=0)
    step = np.where(parted, differ.argmax(axis=0), len(differ))  # [B, N]: the first, or none
    at = np.take_along_axis(margins, np.minimum(step, len(differ) - 1)[None], axis=0)[0]
    near = TIE * theirs.eps * np.maximum(1.0, np.abs(potentials).max(initial=0.0))
    tie = parted & (np.abs(at) <= near)
    wrong = parted & ~tie
    before = np.arange(len(differ))[:, None, None] < step[None]
    largest = None
    if theirs.potentials is not None:
        largest = float(np.abs((potentials - theirs.potentials)[before]).max(initial=0.0))
    first = None
    if wrong.any():
        sample, neuron = np.unravel_index(np.where(wrong, step, len(differ)).argmin(), wrong.shape)
        first = First(
            step=int(step[sample, neuron]), sample=int(sample), neuron=int(neuron), margin=float(at[sample, neuron])
        )
    return LayerParity(
        name=name,
        spikes=int(theirs.spikes.sum()),
        equal=int(before.sum()),
        ties=int(tie.sum()),
        differences=int(wrong.sum()),
        after_tie=int((~before & tie[None]).sum()),
        potential=largest,
        first=first,
    )

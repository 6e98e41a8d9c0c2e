"""Modules in order -> a layered network with its arrays: connections, normalization, pooling, neurons.

A list of modules is read from first to last. A weighted module waits for the neurons that it feeds; normalization is
folded into it; pooling stands on spikes. Everything that is done beyond copying becomes a note.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from qspinn.errors import ConfigError
from qspinn.importers.model import ImportNote, Model
from qspinn.importers.neuron import Floats, Neurons, Place, of_layer
from qspinn.networks.layered import (
    Connection,
    Conv2d,
    EventInput,
    Layer,
    LayeredNetwork,
    Leaky,
    Linear,
    NeuronReadout,
    Pool2d,
    Shape,
    Skip,
)

INTEGRATOR = Leaky(decay=1.0, spiking=False)
"""Read-out of a network that ends in weights: it adds up what they give."""


class Weights(NamedTuple):
    """A weighted module that waits for its neurons.

    Attributes:
        place: of the module.
        declared: the connection, but for its ends; None where spikes are added one to one.
        w: weights; empty of one-to-one connections.
        bias: [C] or None.
        shape: of what it gives.
    """

    place: Place
    declared: Linear | Conv2d | None
    w: Floats
    bias: Floats | None
    shape: Shape


class Reading:
    """A network while its modules are read, in order.

    Attributes:
        source, shape: the signal that the next module takes, and its shape.
        waiting: weights without neurons yet.
    """

    def __init__(self, shape: Shape) -> None:
        self.source, self.shape = "input", shape
        self.waiting: Weights | None = None
        self.layers: list[Layer] = []
        self.connections: list[Connection] = []
        self.params: dict[str, Floats] = {}
        self.notes: list[ImportNote] = []

    def note(self, place: Place, text: str) -> None:
        """Keeps a sentence on what was done with a module."""
        self.notes.append(ImportNote(module=place.where, text=text))

    def spikes(self, place: Place) -> None:
        """Checks that the module takes spikes, not weighted input.

        Raises:
            ConfigError: weights wait for neurons.
        """
        if self.waiting is not None:
            raise ConfigError(
                place.where,
                f"takes what {self.waiting.place.where} gives, without neurons between them",
                allowed="neurons after every weighted module",
                fix="put it behind the neurons, where it takes spikes, or merge the two modules",
            )

    def weigh(self, weights: Weights) -> None:
        """Keeps a weighted module until its neurons come."""
        self.spikes(weights.place)
        self.waiting = weights

    def normalize(self, place: Place, factor: Floats, offset: Floats) -> None:
        """Folds a normalization x * factor + offset, [C] each, into the weights before it.

        Raises:
            ConfigError: there are none, or they have other channels.
        """
        weights = self.waiting
        if weights is None or weights.declared is None:
            raise ConfigError(place.where, "normalizes spikes", allowed="a weighted module before it")
        if len(factor) != weights.shape[0]:
            raise ConfigError(
                place.where, "has other channels than what it takes", got=len(factor), allowed=str(weights.shape[0])
            )
        w = weights.w * factor.reshape(-1, *[1] * (weights.w.ndim - 1))
        bias = offset + (0.0 if weights.bias is None else weights.bias * factor)
        self.waiting = weights._replace(w=w, bias=bias)
        self.note(place, f"its running statistics are folded into {weights.place.where}, whose bias comes before it")

    def pool(
        self, place: Place, of: Literal["sum", "average", "max"], kernel: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        """Pools spikes."""
        self.spikes(place)
        name = f"pool{sum(isinstance(c, Pool2d) for c in self.connections) + 1}"
        self.connections.append(Pool2d(source=self.source, target=name, of=of, kernel=kernel, stride=stride))
        channels, *sizes = self.shape
        after = [(size - k) // s + 1 for size, k, s in zip(sizes, kernel, stride, strict=True)]
        if min(after) < 1:
            raise ConfigError(
                place.where, "has a window larger than what it takes", got=kernel, allowed=str(self.shape)
            )
        lost = [(n - 1) * s + k < size for n, s, k, size in zip(after, stride, kernel, sizes, strict=True)]
        if any(lost):
            self.note(place, "the last rows or columns, which fill no whole window, are left out, as there")
        self.source, self.shape = name, (channels, after[0], after[1])

    def populate(self, place: Place, neurons: Neurons, name: str) -> None:
        """Adds a layer of neurons and the connections into it."""
        if neurons.weights is not None:
            self._weigh_within(place, neurons.weights)
        weights = self.waiting or self._one_to_one(place)
        layer = Layer(name=name, shape=weights.shape, neuron=neurons.declared)
        gain = np.broadcast_to(np.asarray(neurons.gain, np.float64).reshape(-1), layer.n)
        feedback, bias = neurons.feedback, weights.bias
        total = None if bias is None else bias * _by_channel(place, gain, layer)
        if feedback is not None and feedback.bias is not None:
            total = (np.zeros(layer.shape[0]) if total is None else total) + feedback.bias * gain
        declared = weights.declared
        if declared is None:
            if np.any(gain != gain[0]):
                raise place.refuse("gain", "differs between neurons that take spikes one to one", "several", "one")
            self.connections.append(Skip(source=self.source, target=name, weight=float(gain[0])))
        else:
            self.connections.append(
                msgspec.structs.replace(declared, source=self.source, target=name, bias=total is not None)
            )
        if feedback is not None:
            if layer.shape[1:] != (1, 1):
                raise place.refuse("recurrent", "feeds back neurons that have places", layer.shape, "(n, 1, 1)")
            self.connections.append(Linear(source=name, target=name))
        path = f"{name}.w" if feedback is None or declared is None else f"{name}.w_{self.source}"
        if declared is not None:
            by = gain if isinstance(declared, Linear) else _by_channel(place, gain, layer)
            self.params[path] = weights.w * by.reshape(-1, *[1] * (weights.w.ndim - 1))
        if feedback is not None:
            self.params[f"{name}.w" if declared is None else f"{name}.w_{name}"] = feedback.weight * gain[:, None]
        if total is not None:
            self.params[f"{name}.bias"] = total
        self.params |= of_layer(layer, neurons)
        for text in neurons.notes:
            self.note(place, text)
        self.layers.append(layer)
        self.waiting, self.source, self.shape = None, name, layer.shape

    def close(self) -> None:
        """Lets weights that no neurons follow feed an integrator, whose potential adds up what they give.

        Raises:
            ConfigError: there are neither neurons nor weights.
        """
        if self.waiting is not None:
            place = self.waiting.place
            self.populate(place, Neurons(INTEGRATOR), "out")
            self.note(place, "no neurons follow: its outputs are added up")
        if not self.layers:
            raise ConfigError("modules", "hold no neurons", allowed="at least one layer of neurons")

    def _weigh_within(self, place: Place, w: Floats) -> None:
        """Keeps the weights of a module that weighs its input itself.

        Raises:
            ConfigError: they do not fit what the module takes.
        """
        self.spikes(place)
        if w.shape[1] != int(np.prod(self.shape)):
            raise place.refuse("input_weights", "do not fit what it takes", w.shape, f"[N, {int(np.prod(self.shape))}]")
        self.waiting = Weights(place, Linear(source="input", target="next"), w, None, (len(w), 1, 1))

    def _one_to_one(self, place: Place) -> Weights:
        self.note(place, f"takes {self.source} one to one")
        return Weights(place, None, np.zeros(0), None, self.shape)


def _by_channel(place: Place, gain: Floats, layer: Layer) -> Floats:
    """A factor per neuron as one per channel [C].

    Raises:
        ConfigError: it differs within a channel, whose weights are shared.
    """
    rows = gain.reshape(layer.shape[0], -1)
    if np.any(rows != rows[:, :1]):
        raise place.refuse("gain", "differs within a channel, whose weights are shared", "several", "one per channel")
    return rows[:, 0]


Read = Literal["spikes", "v_last", "v_sum"]
Reader = Callable[[Reading, Place], None]


def finished(
    reading: Reading,
    *,
    name: str,
    shape: Shape,
    max_count: int,
    n_steps: int,
    step_ms: float,
    readout: Read | None,
    source: str,
) -> Model:
    """The model of what was read.

    Args:
        readout: what the classes are compared by; None for the spikes of the last layer, and for the sum over time of
            weights that no neurons follow.
    """
    last = reading.layers[-1]
    network = LayeredNetwork(
        name=name,
        input=EventInput(shape=shape, max_count=max_count),
        layers=tuple(reading.layers),
        connections=tuple(reading.connections),
        readout=NeuronReadout(source=last.name, of=readout or ("spikes" if last.neuron.spiking else "v_last")),
        step_ms=step_ms,
        n_steps=n_steps,
    )
    return Model(network=network, params=reading.params, notes=tuple(reading.notes), source=source)

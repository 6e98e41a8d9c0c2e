"""Declarations of layered spiking networks, as gradient training uses them: frozen records without behaviour.

Populations lie in grids (channels, height, width), sources and neurons numbered channel after channel:
(channel * height + y) * width + x. Quantities are dimensionless, time is counted in steps. Competing populations that
learn by STDP are declared in `qspinn.networks.competing`; both families are lowered to the same programs.

Tensor paths are `<population>.<kind>`: `hidden.w` (weights of the only connection into it; `hidden.w_<source>` where
several feed it, `hidden.skip_<source>` of residual ones), `hidden.bias`, `hidden.v`, `hidden.v_th`, `hidden.decay`, and
with a synaptic current `hidden.i` and `hidden.i_decay`, with an adaptive threshold `hidden.theta`, `hidden.theta_step`
and `hidden.theta_decay`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from qspinn.errors import ConfigError
from qspinn.networks.names import need_name, need_size, need_steps
from qspinn.records.record import Record, need

Shape = tuple[int, int, int]
Pair = tuple[int, int]
MAX_SIZE = 1 << 15
"""Largest kernel, stride, padding, dilation or number of groups that a connection may have."""


class EventInput(Record, frozen=True):
    """Events of a camera or another sensor, binned into steps: source = (channel * height + y) * width + x.

    Attributes:
        shape: (channels, height, width); (n, 1, 1) for a sensor without places.
        max_count: how often a source may spike in one step; 1 where only the first event of a bin counts.
    """

    shape: Shape
    max_count: int = 1

    def check(self) -> None:
        need(
            min(self.shape) >= 1 and math.prod(self.shape) <= 1 << 20,
            "network.input.shape",
            self.shape,
            "positive, at most 2**20 sources",
        )
        need(1 <= self.max_count <= 255, "network.input.max_count", self.max_count, "1..255")

    @property
    def n(self) -> int:
        """Number of inputs."""
        return math.prod(self.shape)


class Leaky(Record, frozen=True):
    """Leaky integrate-and-fire neurons as gradient training uses them: dimensionless, decay per step.

    One step, the input with its bias: with current_decay, i <- current_decay * i + input, and i takes the place of the
    input; v <- decay * v; where the neuron is not refractory, v <- v + input; it spikes when v >= v_th (v > v_th with
    strict); a spike lowers v by v_th ("subtract") or sets it to v_reset ("value"), in the same step or, with
    reset_delay, in the next one between the decay and the input (v then stays above the threshold for a step).
    decay = 1 is an integrate-and-fire neuron; spiking = False an integrator, for read-outs. Decays are declared for a
    layer; arrays may give each channel or neuron its own (`<layer>.decay`, `.i_decay`, `.theta_decay`).

    theta_step makes the threshold adaptive: it is v_th + theta, and from one step to the next
    theta <- theta_decay * theta + theta_step * spikes. max_spikes lets a neuron spike several times in a step: as often
    as v reaches a multiple of the threshold, each spike lowering v by one.
    Source: Neftci, Mostafa & Zenke (2019), discrete LIF; the switches cover snnTorch's Leaky and Synaptic (strict, and
    reset_delay as there by default), Norse's and SpikingJelly's LIF; adaptive threshold: Bellec et al. (2018), with
    theta_step for beta * (1 - rho), and reset_delay as there; several spikes: Sinabs' and Rockpool's.
    """

    decay: float = 0.8
    v_th: float = 1.0
    reset: Literal["subtract", "value"] = "subtract"
    v_reset: float = 0.0
    reset_delay: bool = False
    strict: bool = False
    n_ref_steps: int = 0
    current_decay: float | None = None
    spiking: bool = True
    theta_step: float = 0.0
    theta_decay: float = 0.95
    max_spikes: int = 1

    @property
    def adapts(self) -> bool:
        """Whether spikes raise the threshold."""
        return self.spiking and self.theta_step > 0

    @property
    def looks_back(self) -> bool:
        """Whether a step needs to know which neurons spiked in the step before."""
        return self.reset_delay or self.adapts

    def check(self) -> None:
        for name in ("v_th", "v_reset", "theta_step"):
            need_size(f"layers.neuron.{name}", getattr(self, name))
        need(0.0 <= self.decay <= 1.0, "layers.neuron.decay", self.decay, "0..1")
        need(self.v_th > 0, "layers.neuron.v_th", self.v_th, "> 0")
        need(self.v_reset < self.v_th, "layers.neuron.v_reset", self.v_reset, "< v_th")
        need(
            self.reset == "value" or self.v_reset == 0.0,
            "layers.neuron.v_reset",
            self.v_reset,
            '0 with reset = "subtract", which has no potential to reset to',
        )
        need(0 <= self.n_ref_steps <= 255, "layers.neuron.n_ref_steps", self.n_ref_steps, "0..255")
        need(
            self.current_decay is None or 0 <= self.current_decay < 1,
            "layers.neuron.current_decay",
            self.current_decay,
            "0 <= decay < 1, or none",
        )
        need(self.theta_step >= 0, "layers.neuron.theta_step", self.theta_step, ">= 0, 0 for a fixed threshold")
        need(0 <= self.theta_decay < 1, "layers.neuron.theta_decay", self.theta_decay, "0 <= decay < 1")
        most = 255 if self.reset == "subtract" else 1
        need(
            1 <= self.max_spikes <= most,
            "layers.neuron.max_spikes",
            self.max_spikes,
            '1..255, above 1 with reset = "subtract" only',
        )


class Linear(Record, frozen=True, tag="linear"):
    """All-to-all connection with signed weights w [N_post, N_pre]. With source = target it is recurrent: the spikes of
    the step before.

    Attributes:
        bias: a constant input to each target neuron: one parameter of the target layer, however many connections with
            `bias = True` feed it; it is added once per step.
        norm: batch normalization of the weighted input, folded into weights and bias when lowered. The bias, which is
            the layer's, is added after it.
    """

    source: str
    target: str
    bias: bool = False
    norm: bool = False


class Conv2d(Record, frozen=True, tag="conv2d"):
    """Convolution with signed weights w [C_out, C_in / groups, k_y, k_x]; pairs are (y, x). Bias and norm are per
    channel, as in `Linear`."""

    source: str
    target: str
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    norm: bool = False

    def check(self) -> None:
        ok = min(self.kernel + self.stride + self.dilation) >= 1 and min(self.padding) >= 0 and self.groups >= 1
        need(ok, f"network.connections.{self.target}", (self.kernel, self.stride, self.padding), "positive sizes")
        largest = max(*self.kernel, *self.stride, *self.padding, *self.dilation, self.groups)
        need(largest <= MAX_SIZE, f"network.connections.{self.target}", largest, f"sizes up to {MAX_SIZE}")
        if self.source == self.target:
            raise ConfigError(
                f"network.connections: {self.source} -> {self.target}",
                "a convolution of a layer's spikes onto the layer itself is not supported",
                got="Conv2d",
                allowed="Linear for feedback within a layer",
                fix=f"Linear(source={self.source!r}, target={self.target!r})",
            )

    def shape_after(self, height: int, width: int) -> Pair:
        """Size (height, width) of the target."""
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        after = [
            (size + 2 * p - span) // s + 1
            for size, p, span, s in zip((height, width), self.padding, spans, self.stride, strict=True)
        ]
        return after[0], after[1]


def conv1d(
    source: str,
    target: str,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    norm: bool = False,
) -> Conv2d:
    """A convolution along a sequence: of signals of shape (channels, 1, length), weights w [C_out, C_in / groups, 1,
    k]."""
    return Conv2d(
        source=source,
        target=target,
        kernel=(1, kernel),
        stride=(1, stride),
        padding=(0, padding),
        dilation=(1, dilation),
        groups=groups,
        bias=bias,
        norm=norm,
    )


class Pool2d(Record, frozen=True, tag="pool2d"):
    """The spikes of `source` pooled over windows (y, x), as a signal named `target`.

    Attributes:
        of: what a window gives: the sum of its spikes, their average, or their maximum (called `kind` before).
    """

    RENAMED: ClassVar[tuple[tuple[str, str], ...]] = (("kind", "of"),)

    source: str
    target: str
    of: Literal["sum", "average", "max"] = "sum"
    kernel: Pair = (2, 2)
    stride: Pair = (2, 2)

    def check(self) -> None:
        need_name("network.connections.target", self.target, "input")
        need(self.source != self.target, f"network.connections.{self.target}", self.source, "another source")
        need(
            min(self.kernel + self.stride) >= 1 and max(self.kernel + self.stride) <= MAX_SIZE,
            f"network.connections.{self.target}",
            (self.kernel, self.stride),
            f"sizes of 1..{MAX_SIZE}",
        )


class Skip(Record, frozen=True, tag="skip"):
    """Residual connection: the spikes of source i, times `weight`, to neuron i of the target."""

    source: str
    target: str
    weight: float = 1.0

    def check(self) -> None:
        need_size(f"network.connections.{self.target}.weight", self.weight)
        if self.source == self.target:
            raise ConfigError(
                f"network.connections: {self.source} -> {self.target}",
                "a residual connection from a layer to itself is not supported",
                got="Skip",
                allowed="an earlier layer as source, or Linear for feedback",
                fix=f"Linear(source={self.source!r}, target={self.target!r})",
            )


class Layer(Record, frozen=True):
    """A population: its neurons lie in `shape` (channels, height, width); (n, 1, 1) where they have no place."""

    name: str
    shape: Shape
    neuron: Leaky = Leaky()

    def check(self) -> None:
        need_name("layers.name", self.name, "input")
        need(
            min(self.shape) >= 1 and self.n <= 1 << 20,
            f"layers.{self.name}.shape",
            self.shape,
            "positive, at most 2**20 neurons",
        )

    @property
    def n(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


class NeuronReadout(Record, frozen=True):
    """Read-out with one neuron of `source` per class; the class with the most spikes, or the largest final or summed
    potential."""

    source: str
    of: Literal["spikes", "v_last", "v_sum"] = "spikes"


Connection = Linear | Conv2d | Pool2d | Skip
Weighted = Linear | Conv2d


class LayeredNetwork(Record, frozen=True):
    """A network of layers in execution order; connections go forward, or from a layer to itself.

    Attributes:
        step_ms: length of a step [ms]: the bin of the events.
        n_steps: steps per sample, T.
    """

    name: str
    input: EventInput
    layers: tuple[Layer, ...]
    connections: tuple[Connection, ...]
    readout: NeuronReadout
    step_ms: float = 1.0
    n_steps: int = 16

    def check(self) -> None:
        need_steps("step_ms", self.step_ms, self.n_steps)
        if not self.layers:
            raise ConfigError("network.layers", "is empty", got=(), allowed="at least one layer")
        names = [x.name for x in self.layers] + [c.target for c in self.connections if isinstance(c, Pool2d)]
        if len(set(names)) != len(names):
            raise ConfigError("network.layers", "names of layers and pooled signals must differ", got=names)
        if self.readout.source not in [x.name for x in self.layers]:
            raise ConfigError(
                "network.readout.source",
                "unknown layer",
                got=self.readout.source,
                allowed=", ".join(x.name for x in self.layers),
            )
        self._check_twins()
        self._check_silent()
        shapes: dict[str, Shape] = {"input": self.input.shape}
        for layer in self.layers:
            self._add_pools(shapes)
            incoming = self.into(layer.name)
            if all(c.source == layer.name for c in incoming):
                raise ConfigError(
                    f"network.{layer.name}",
                    "nothing that comes before feeds this layer",
                    allowed=", ".join(sorted(shapes)),
                )
            for c in incoming:
                _check_fit(c, shapes | {layer.name: layer.shape}, layer.shape)
            shapes[layer.name] = layer.shape
        self._add_pools(shapes)
        lost = [f"{c.source} -> {c.target}" for c in self.connections if c.target not in shapes]
        if lost:
            raise ConfigError(
                "network.connections", "unknown source or target", got=lost, allowed=", ".join(sorted(shapes))
            )

    def _check_twins(self) -> None:
        """Every tensor path belongs to one connection."""
        ends = [(isinstance(c, Skip), c.source, c.target) for c in self.connections if not isinstance(c, Pool2d)]
        twins = sorted({f"{source} -> {target}" for _, source, target in ends if ends.count((_, source, target)) > 1})
        if twins:
            raise ConfigError(
                "network.connections",
                "two connections join the same ends and would share their weights",
                got=twins,
                allowed="one weighted and one residual connection between two layers",
                fix="add their weights up, or give the second one a layer of its own",
            )

    def _check_silent(self) -> None:
        """Spikes are taken from layers that spike: others would be read as the first class for ever, and feed nothing.

        Raises:
            ConfigError: names the read-out, or the connection.
        """
        silent = {layer.name for layer in self.layers if not layer.neuron.spiking}
        if self.readout.of == "spikes" and self.readout.source in silent:
            raise ConfigError(
                "network.readout.of",
                f"counts spikes of {self.readout.source}, which does not spike",
                got=self.readout.of,
                allowed="v_last, v_sum",
                fix='of = "v_last", or spiking = true',
            )
        for c in self.connections:
            if c.source in silent:
                raise ConfigError(
                    f"network.connections: {c.source} -> {c.target}",
                    f"takes spikes from {c.source}, which does not spike",
                    got=f"{c.source}.neuron.spiking = false",
                    allowed="a source that spikes",
                    fix=f"spiking = true for {c.source}, or leave the connection out",
                )

    def _add_pools(self, shapes: dict[str, Shape]) -> None:
        """Notes the pooled signals whose sources are known by now."""
        for c in self.connections:
            if isinstance(c, Pool2d) and c.source in shapes and c.target not in shapes:
                channels, *sizes = shapes[c.source]
                height, width = ((x - k) // s + 1 for x, k, s in zip(sizes, c.kernel, c.stride, strict=True))
                if min(height, width) < 1:
                    raise ConfigError(
                        f"network.{c.target}",
                        f"the window does not fit into {c.source}",
                        got=c.kernel,
                        allowed=f"at most {tuple(sizes)}",
                    )
                shapes[c.target] = (channels, height, width)

    def shape_of(self, signal: str) -> Shape:
        """Shape (channels, height, width) of the input, a population or a pooled signal."""
        shapes: dict[str, Shape] = {"input": self.input.shape}
        for layer in self.layers:
            self._add_pools(shapes)
            shapes[layer.name] = layer.shape
        self._add_pools(shapes)
        return shapes[signal]

    def into(self, name: str) -> list[Weighted | Skip]:
        """The connections of a population of layers, in the order of declaration."""
        return [c for c in self.connections if isinstance(c, Linear | Conv2d | Skip) and c.target == name]

    def weight_shape(self, c: Weighted) -> tuple[int, ...]:
        """Shape of the weights of a connection."""
        theirs, mine = self.shape_of(c.source), self.shape_of(c.target)
        if isinstance(c, Conv2d):
            return mine[0], theirs[0] // c.groups, *c.kernel
        return math.prod(mine), math.prod(theirs)

    def weight_path(self, c: Weighted | Skip) -> str:
        """Path of a connection's weights: `<target>.w`, or `<target>.w_<source>` where several feed the target;
        `<target>.skip_<source>` for a residual connection."""
        if isinstance(c, Skip):
            return f"{c.target}.skip_{c.source}"
        alone = sum(isinstance(o, Linear | Conv2d) for o in self.into(c.target)) == 1
        return f"{c.target}.w" if alone else f"{c.target}.w_{c.source}"


def _check_fit(c: Linear | Conv2d | Skip, shapes: dict[str, Shape], mine: Shape) -> None:
    """The connection comes from what exists and fits in shape; both ends are named where it does not."""
    where = f"network.connections: {c.source} -> {c.target}"
    if c.source not in shapes:
        raise ConfigError(
            where,
            "unknown source, or one that comes later",
            allowed=", ".join(sorted(shapes)),
            fix="declare layers, and pooled signals, in the order in which they are made",
        )
    theirs = shapes[c.source]
    if isinstance(c, Conv2d):
        if theirs[0] % c.groups or mine[0] % c.groups:
            raise ConfigError(
                where,
                "channels do not divide into groups",
                got=(theirs[0], mine[0]),
                allowed=f"multiples of {c.groups}",
            )
        if c.shape_after(*theirs[1:]) != mine[1:]:
            raise ConfigError(
                where,
                f"{c.source} {theirs} does not convolve to {c.target} {mine}",
                got=mine[1:],
                allowed=str(c.shape_after(*theirs[1:])),
            )
    if isinstance(c, Skip) and theirs != mine:
        raise ConfigError(where, f"{c.source} {theirs} and {c.target} {mine} differ in shape")

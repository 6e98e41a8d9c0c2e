"""Named architectures: functions that return a Network or a LayeredNetwork."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from qspinn.arrays import integer, need_kind
from qspinn.errors import ConfigError
from qspinn.networks.competing import Dense, Lateral, Lif, Network, PoissonInput, Population, Stdp, VoteReadout
from qspinn.networks.layered import (
    Connection,
    Conv2d,
    EventInput,
    Layer,
    LayeredNetwork,
    Leaky,
    Linear,
    NeuronReadout,
    Pair,
    Pool2d,
    Shape,
    conv1d,
)
from qspinn.records.record import Record, from_plain, need


def lif_for(n_neurons: int) -> Lif:
    """LIF constants for N competing neurons: theta_plus_mv = 0.0025 * sqrt(N).

    A neuron of a larger population wins less often, so each win must raise its threshold more for the same balance
    (Diehl & Cook 2015 use 0.05 mV for every N; the two agree at N = 400). Chosen on the validation split of MNIST.

    Raises:
        ConfigError: n_neurons is no integer of 1..65536.
    """
    integer("n_neurons", n_neurons, low=1, high=1 << 16)
    return Lif(theta_plus_mv=round(0.0025 * n_neurons**0.5, 6))


def diehl_cook(
    n_inputs: int = 784,
    n_neurons: int = 400,
    *,
    n_steps: int = 250,
    rate_hz: float = 128.0,
    n_classes: int = 10,
    neuron: Lif | None = None,
    stdp: Stdp | None = None,
    inhibition_mv: float = 1000.0,
) -> Network:
    """The unsupervised digit network: Poisson inputs, N excitatory LIF neurons, direct lateral inhibition, STDP.

    Without `neuron` its constants follow N: see `lif_for`.
    `stdp.norm` is meant for 784 inputs and is scaled with n_inputs, so the mean weight stays the same.
    Source: Diehl & Cook (2015); direct lateral inhibition after FSpiNN (2020).

    Raises:
        ConfigError: names the value that is out of range or of another type.

    >>> diehl_cook(64, 100).dense_into("exc").stdp.norm
    6.4
    """
    integer("n_inputs", n_inputs, low=1, high=1 << 20)
    stdp = Stdp() if stdp is None else stdp
    need_kind("stdp", stdp, Stdp)
    exact = stdp.norm * n_inputs / 784
    norm = round(exact, 6) if exact >= 1e-3 else exact  # of smaller ones, six digits would be too few
    plastic = Stdp(**{**{f: getattr(stdp, f) for f in stdp.__struct_fields__}, "norm": norm})
    return Network(
        name="diehl_cook",
        input=PoissonInput(n=n_inputs, rate_hz=rate_hz),
        populations=(Population(name="exc", n=n_neurons, neuron=lif_for(n_neurons) if neuron is None else neuron),),
        connections=(
            Dense(source="input", target="exc", stdp=plastic),
            Lateral(target="exc", strength_mv=inhibition_mv),
        ),
        readout=VoteReadout(source="exc", n_classes=n_classes),
        n_steps=n_steps,
    )


Of = Literal["spikes", "v_last", "v_sum"]


class ConvLink(Record, frozen=True, tag="conv", tag_field="kind"):
    """A convolutional layer of a chain; sizes are one number for both directions, or [y, x].

    Attributes:
        neuron: in place of the chain's neurons.
    """

    channels: int
    kernel: int | Pair = 3
    stride: int | Pair = 1
    padding: int | Pair = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = False
    norm: bool = False
    neuron: Leaky | None = None
    name: str = ""


class Conv1dLink(Record, frozen=True, tag="conv1d", tag_field="kind"):
    """A convolutional layer along a sequence: what comes before it has the shape (channels, 1, length)."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = False
    neuron: Leaky | None = None
    name: str = ""


class DenseLink(Record, frozen=True, tag="dense", tag_field="kind"):
    """A layer of n neurons, fed by everything before; n = 0, in the last layer only: one for each class.

    Attributes:
        recurrent: its spikes come back to it one step later, with weights of their own.
        neuron: in place of the chain's neurons.
    """

    n: int = 0
    recurrent: bool = False
    bias: bool = False
    norm: bool = False
    neuron: Leaky | None = None
    name: str = ""


class PoolLink(Record, frozen=True, tag="pool", tag_field="kind"):
    """Pooling of the spikes before, of a sequence with kernel = [1, n]; stride 0: as the window."""

    of: Literal["sum", "average", "max"] = "sum"
    kernel: int | Pair = 2
    stride: int | Pair = 0
    name: str = ""


Link = ConvLink | Conv1dLink | DenseLink | PoolLink
_NAMES = {ConvLink: "conv", Conv1dLink: "conv", DenseLink: "fc", PoolLink: "pool"}


def chain(
    shape: Shape,
    links: tuple[Link, ...],
    *,
    n_classes: int,
    n_steps: int,
    neuron: Leaky | None = None,
    readout: Of = "spikes",
    max_count: int = 1,
    step_ms: float = 1.0,
    name: str = "chain",
) -> LayeredNetwork:
    """Layers one after another, each fed by the one before; read out from the last.

    Layers without a name are called conv1, fc1, pool1, ..., and the last one `out`. Where potentials are read out, the
    last layer integrates and does not spike, unless it has a neuron of its own.

    Args:
        shape: of the input.
        readout: see `NeuronReadout`.

    Raises:
        ConfigError: names the link that does not fit what comes before it, or the argument of another type.

    >>> links = (ConvLink(channels=4, kernel=3), PoolLink(), DenseLink())
    >>> [(x.name, x.shape) for x in chain((2, 8, 8), links, n_classes=3, n_steps=5).layers]
    [('conv1', (4, 6, 6)), ('out', (3, 1, 1))]
    """
    kinds: Any = Shape, tuple[Link, ...]
    shape, links = from_plain(kinds[0], shape, "shape"), from_plain(kinds[1], links, "network.layers")
    integer("n_classes", n_classes, low=1, high=1 << 16)
    if neuron is not None:
        need_kind("neuron", neuron, Leaky)
    need(len(links) > 0, "network.layers", len(links), "at least one layer")
    last = links[-1]
    if not isinstance(last, DenseLink) or last.n not in (0, n_classes):
        raise ConfigError(
            f"network.layers[{len(links) - 1}]",
            "the last layer has one neuron for each class",
            got=last,
            allowed=f'kind = "dense", n = 0 (which stands for {n_classes})',
        )
    layer_neuron = neuron or Leaky()
    layers: list[Layer] = []
    connections: list[Connection] = []
    here: Shape = shape
    signal, counts = "input", dict.fromkeys(_NAMES.values(), 0)
    for i, link in enumerate(links):
        prefix = _NAMES[type(link)]
        counts[prefix] += 1
        at_end = i == len(links) - 1  # by its place: one record may stand for several layers
        label = link.name or ("out" if at_end else f"{prefix}{counts[prefix]}")
        here, new = _linked(link, signal, label, here, f"network.layers[{i}]", n_classes if at_end else 0)
        connections += new
        if not isinstance(link, PoolLink):
            silent = at_end and readout != "spikes"
            plain = msgspec.structs.replace(layer_neuron, spiking=False) if silent else layer_neuron
            layers.append(Layer(name=label, shape=here, neuron=link.neuron or plain))
        signal = label
    return LayeredNetwork(
        name=name,
        input=EventInput(shape=shape, max_count=max_count),
        layers=tuple(layers),
        connections=tuple(connections),
        readout=NeuronReadout(source=signal, of=readout),
        step_ms=step_ms,
        n_steps=n_steps,
    )


def _linked(
    link: Link, source: str, target: str, shape: Shape, where: str, n_classes: int
) -> tuple[Shape, list[Connection]]:
    """(shape after the link, its connections); n_classes stands for a size of 0."""
    if isinstance(link, DenseLink):
        n = link.n or n_classes
        need(n >= 1, f"{where}.n", n, ">= 1 (0, one for each class, in the last layer only)")
        feedback = [Linear(source=target, target=target)] if link.recurrent else []
        return (n, 1, 1), [Linear(source=source, target=target, bias=link.bias, norm=link.norm), *feedback]
    if isinstance(link, Conv1dLink) and shape[1] != 1:
        raise ConfigError(
            where,
            "convolves along a sequence, and what comes before it is no sequence",
            got=shape,
            allowed="(channels, 1, length)",
            fix='kind = "conv"',
        )
    kernel = (1, link.kernel) if isinstance(link, Conv1dLink) else _pair(link.kernel)
    if isinstance(link, ConvLink | Conv1dLink):
        conv = _convolution(link, source, target)
        channels, sizes = link.channels, conv.shape_after(*shape[1:])
        new: Connection = conv
    else:
        pool = Pool2d(source=source, target=target, of=link.of, kernel=kernel, stride=_pair(link.stride or kernel))
        channels, sizes, new = shape[0], _pooled(pool, shape), pool
    if min(sizes) < 1 or channels < 1:
        raise ConfigError(
            where,
            f"does not fit what comes before it, {source} of shape {shape}",
            got=f"kernel {kernel} to {channels} channels",
            allowed=f"kernels up to {shape[1:]}",
            fix="a smaller kernel, more padding, or fewer layers before it",
        )
    return (channels, *sizes), [new]


def _convolution(link: ConvLink | Conv1dLink, source: str, target: str) -> Conv2d:
    same: dict[str, Any] = {"groups": link.groups, "bias": link.bias, "norm": link.norm}
    if isinstance(link, Conv1dLink):
        return conv1d(
            source, target, link.kernel, stride=link.stride, padding=link.padding, dilation=link.dilation, **same
        )
    return Conv2d(
        source=source,
        target=target,
        kernel=_pair(link.kernel),
        stride=_pair(link.stride),
        padding=_pair(link.padding),
        dilation=_pair(link.dilation),
        **same,
    )


def _pooled(pool: Pool2d, shape: Shape) -> Pair:
    """(height, width) of a pooled signal."""
    height, width = ((size - k) // s + 1 for size, k, s in zip(shape[1:], pool.kernel, pool.stride, strict=True))
    return height, width


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else size

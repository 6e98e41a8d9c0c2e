"""Published deep networks as functions that return a LayeredNetwork: ResNet-19, VGG-16, VGGSNN.

All three take images as currents or events, have no biases but the read-out's, batch normalization after every
convolution, and before the read-out an average over all places that are left; the read-out adds up what reaches it
(its final potential is the sum over the steps). `width` multiplies the channels of all layers, so a small version is
the same network, narrower: `resnet19(Variant(width=1 / 8))`.

Source: Wei et al. (2024), Q-SNNs, section 5.1, for which networks, on which data, with which neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from qspinn.arrays import need_kind
from qspinn.errors import ConfigError
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
    Skip,
)
from qspinn.networks.models import ConvLink, DenseLink, Link, Of, PoolLink, chain
from qspinn.records.record import Record, need

Architecture = Literal["resnet19", "vgg16", "vggsnn"]
NEURON = Leaky(decay=0.5, v_th=1.0, reset="value", v_reset=0.0)
"""Wei et al. (2024), eq. 10: half of the potential is left after a step, a spike at 1, reset to 0."""

RESNET19_STAGES = ((128, 3), (256, 3), (512, 2))
"""(channels, residual blocks) of each stage."""
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions before each pooling."""
VGGSNN_STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


class Variant(Record, frozen=True):
    """Choices that a published network leaves open.

    Attributes:
        shape: (channels, height, width) of the input.
        max_count: how often a source may spike in a step; 255 for images whose pixels enter as currents.
        width: what the number of channels of every layer is multiplied by.
        neuron: of all layers; the read-out has one that does not leak and, where potentials are read, does not spike.
        readout: see `NeuronReadout`; "v_last" ranks classes as the mean of the outputs over the steps does.
    """

    shape: Shape = (3, 32, 32)
    n_classes: int = 10
    width: float = 1.0
    n_steps: int = 4
    max_count: int = 255
    neuron: Leaky = NEURON
    readout: Of = "v_last"
    step_ms: float = 1.0
    name: str = ""

    def check(self) -> None:
        need(0 < self.width <= 16, "network.width", self.width, "above 0, at most 16")
        need(2 <= self.n_classes <= 1 << 16, "network.n_classes", self.n_classes, "2..65536")

    def channels(self, full: int) -> int:
        """Number of channels of a layer that has `full` of them at width 1; one at least."""
        return max(1, round(full * self.width))

    @property
    def last(self) -> Leaky:
        """The neurons of the read-out."""
        return msgspec.structs.replace(self.neuron, decay=1.0, spiking=self.readout == "spikes")


def resnet19(variant: Variant = Variant()) -> LayeredNetwork:  # noqa: B008 (frozen)
    """ResNet-19 for small images: 17 convolutions of 3 x 3 in eight residual blocks, one to begin with, and a read-out.

    A block's spikes enter the second population of the next block as they are (`Skip` of weight 1); where a block
    changes the shape, through a convolution of 1 x 1 with the block's stride and normalization. Addition takes place
    before the neuron, at the input current. Layers: `conv1`, `block1_1`, `block1_2`, ..., `block8_2`, `out`.

    At width 1 with 3 x 32 x 32 inputs and 10 classes: 3,456 + 12,550,144 + 5,130 weights (first, hidden, read-out with
    its bias), 10,496 parameters of normalization.

    Source: Zheng et al. (2021), stages of 3, 3 and 2 blocks, addition before the neuron; Wei et al. (2024), a single
    read-out in place of two dense layers, 1 x 1 convolutions with normalization.

    >>> net = resnet19(Variant(width=1 / 8))
    >>> len(net.layers), net.layers[1].shape, net.layers[-2].shape
    (18, (16, 32, 32), (64, 8, 8))
    """
    need_kind("variant", variant, Variant)
    first = variant.channels(RESNET19_STAGES[0][0])
    conv = Conv2d(source="input", target="conv1", padding=(1, 1), norm=True)
    layers = [Layer(name="conv1", shape=(first, *variant.shape[1:]), neuron=variant.neuron)]
    connections: list[Connection] = [conv]
    number = 0
    for stage, (full, n_blocks) in enumerate(RESNET19_STAGES):
        for block in range(n_blocks):
            number += 1
            stride = (2, 2) if stage and not block else (1, 1)
            two, new = _block(layers[-1], f"block{number}", variant.channels(full), stride)
            layers += two
            connections += new
    last = layers[-1]
    connections += [
        Pool2d(source=last.name, target="mean", of="average", kernel=last.shape[1:], stride=last.shape[1:]),
        Linear(source="mean", target="out", bias=True),
    ]
    layers.append(Layer(name="out", shape=(variant.n_classes, 1, 1), neuron=variant.last))
    return LayeredNetwork(
        name=variant.name or "resnet19",
        input=EventInput(shape=variant.shape, max_count=variant.max_count),
        layers=tuple(layers),
        connections=tuple(connections),
        readout=NeuronReadout(source="out", of=variant.readout),
        step_ms=variant.step_ms,
        n_steps=variant.n_steps,
    )


def _block(before: Layer, name: str, channels: int, stride: Pair) -> tuple[list[Layer], list[Connection]]:
    """The two populations of a residual block and the connections into them."""
    one, two = f"{name}_1", f"{name}_2"
    entry = Conv2d(source=before.name, target=one, stride=stride, padding=(1, 1), norm=True)
    shape = (channels, *entry.shape_after(*before.shape[1:]))
    same_shape = shape == before.shape
    shortcut: Connection = (
        Skip(source=before.name, target=two)
        if same_shape
        else Conv2d(source=before.name, target=two, kernel=(1, 1), stride=stride, norm=True)
    )
    inner = Conv2d(source=one, target=two, padding=(1, 1), norm=True)
    return [Layer(name=n, shape=shape, neuron=before.neuron) for n in (one, two)], [entry, inner, shortcut]


def vgg16(variant: Variant = Variant()) -> LayeredNetwork:  # noqa: B008 (frozen)
    """VGG-16 for small images: 13 convolutions of 3 x 3 in five stages with averages between them, and one read-out.

    At width 1 with 3 x 32 x 32 inputs and 10 classes: 1,728 + 14,708,736 + 5,130 weights, 8,448 parameters of
    normalization.

    Raises:
        ConfigError: the input is smaller than a pixel after four halvings.

    Source: Simonyan & Zisserman (2015), configuration D, with normalization and with one dense layer of 512 inputs in
    place of three, which is what the counts of Wei et al. (2024), table 2, are made of.

    >>> [x.shape for x in vgg16(Variant(width=1 / 8)).layers][-4:]
    [(64, 2, 2), (64, 2, 2), (64, 2, 2), (10, 1, 1)]
    """
    need_kind("variant", variant, Variant)
    return _vgg(variant, VGG16_STAGES, "vgg16")


def vggsnn(variant: Variant = Variant(shape=(2, 48, 48), n_steps=10, max_count=1)) -> LayeredNetwork:  # noqa: B008 (frozen)
    """VGGSNN for event cameras: 8 convolutions of 3 x 3 in four stages with averages between them, and one read-out.

    At width 1 with 2 channels and 10 classes: 1,152 + 9,216,000 + 5,130 weights, 5,504 parameters of normalization.

    Raises:
        ConfigError: the input is smaller than a pixel after three halvings.

    Source: Deng et al. (2022), VGGSNN. Theirs reads out of all places that are left (4,608 inputs at 48 x 48); here
    their average is taken (512 inputs), which is what the counts of Wei et al. (2024), table 2, are made of.

    >>> [x.shape for x in vggsnn(Variant(shape=(2, 34, 34), width=1 / 8)).layers][-3:]
    [(64, 4, 4), (64, 4, 4), (10, 1, 1)]
    """
    need_kind("variant", variant, Variant)
    return _vgg(variant, VGGSNN_STAGES, "vggsnn")


def _vgg(variant: Variant, stages: tuple[tuple[int, ...], ...], name: str) -> LayeredNetwork:
    """Stages of convolutions with pooling by 2 between them, the last one over all that is left.

    Raises:
        ConfigError: the input is too small for so many stages.
    """
    halvings = len(stages) - 1
    size = (variant.shape[1] >> halvings, variant.shape[2] >> halvings)
    if min(size) < 1:
        raise ConfigError(
            "network.shape",
            f"is too small for {name}",
            got=variant.shape,
            allowed=f"at least {1 << halvings} x {1 << halvings}",
        )
    links: list[Link] = []
    for number, stage in enumerate(stages):
        links += [ConvLink(channels=variant.channels(full), padding=1, norm=True) for full in stage]
        links.append(PoolLink(of="average", kernel=size if number == halvings else 2))
    links.append(DenseLink(bias=True, neuron=variant.last))
    return chain(
        variant.shape,
        tuple(links),
        name=variant.name or name,
        n_classes=variant.n_classes,
        n_steps=variant.n_steps,
        neuron=variant.neuron,
        readout=variant.readout,
        max_count=variant.max_count,
        step_ms=variant.step_ms,
    )


ARCHITECTURES: dict[Architecture, Callable[[Variant], LayeredNetwork]] = {
    "resnet19": resnet19,
    "vgg16": vgg16,
    "vggsnn": vggsnn,
}

"""Layout of a population in the array of sums that the kernels of layers fill: maps in rows, with margins.

It stands with programs since the account of a run's memory counts it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.program.ops import ConvOp, Feed, LifOp, conv_shape
from qspinn.program.program import Program

MARGIN = 32  # rows of sums are multiples of this long: the widest vector's lanes


class Field(NamedTuple):
    """Layout of a population in an array of sums: groups of maps with margins, rows of pixels, `run` channels a pixel.

    Element (group, y, x, channel of the group) is at first + group * group_pitch + y * row_pitch + x * run + channel.
    """

    groups: int
    height: int
    width: int
    run: int
    first: int
    row_pitch: int
    group_pitch: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.groups * self.run, self.height, self.width

    def places(self) -> NDArray[np.int64]:
        """The place of each neuron, in the program's order."""
        return self._at(self.first, self.row_pitch, self.group_pitch)

    def packed(self, width: int) -> NDArray[np.int64]:
        """The place of each neuron where rows are `width` long, without margins."""
        return self._at(0, width, self.height * width)

    def _at(self, first: int, row_pitch: int, group_pitch: int) -> NDArray[np.int64]:
        c, y, x = grid(self.shape)
        return first + c // self.run * group_pitch + y * row_pitch + x * self.run + c % self.run


def grid(shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Coordinates (channel, y, x) of each source of a signal."""
    c, y, x = np.unravel_index(np.arange(math.prod(shape)), shape)
    return c, y, x


def up_to(n: int, unit: int) -> int:
    """The smallest multiple of unit that is not below n."""
    return -(-n // unit) * unit


def field_of(program: Program, op: LifOp, feeds: list[Feed]) -> Field:
    """The field of a population: maps as its convolutions make them, with margins that take whatever falls off the map;
    one row where there are none."""
    convs = [f for f in feeds if isinstance(f, ConvOp)]
    (channels, height, width), *_ = [*(conv_shape(f, program.codes(f.weight).shape) for f in convs), (op.n, 1, 1)]
    groups = convs[0].groups if convs and len({f.groups for f in convs}) == 1 else 1
    run = channels // groups
    fits = [f for f in convs if conv_shape(f, program.codes(f.weight).shape) == (channels, height, width)]
    spans = [[span(f, program.codes(f.weight).shape, axis) for f in fits] or [(0, 0, 0)] for axis in (0, 1)]
    top, x_left = (max(0, *(-low for low, _, _ in s)) for s in spans)
    bottom, x_right = (
        max(0, *(high - size + 1 for _, high, _ in s)) for s, size in zip(spans, (height, width), strict=True)
    )
    margin = up_to(x_left * run, MARGIN)
    row_pitch = up_to((width + max(x_left, x_right)) * run, MARGIN)
    group_pitch = (top + height + bottom) * row_pitch
    size = groups * group_pitch + margin + row_pitch + 2 * MARGIN
    return Field(
        groups=groups,
        height=height,
        width=width,
        run=run,
        first=top * row_pitch + margin,
        row_pitch=row_pitch,
        group_pitch=group_pitch,
        size=size,
    )


def span(op: ConvOp, weight: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Lowest and highest place that sources reach along an axis, and the number of places each source reaches, less
    one."""
    stride, padding = op.stride[axis], op.padding[axis]
    further = (weight[2 + axis] - 1) * op.dilation[axis] // stride
    return padding // stride - further, (padding + op.shape[1 + axis] - 1) // stride, further

"""How a connection carries signals: as lists of what is not zero, or densely by torch where signals are crowded.

Tensors lie channel-last and sample after sample: a signal [T, B, C, H, W] is a view of [B, T, H, W, C].
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qspinn.layers import Conv2d, Linear, Pair, Shape
from qspinn.learning import _conv_kernel as kernels

CROWDED = 0.25
"""Share of sources above which torch's dense convolution is faster than going from entry to entry."""
_POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
_PART = 1 << 15  # numbers that are worth a call
_NONE = np.zeros(0, np.float32)


class Room:
    """Memory that is used again: fresh pages cost more than most of what is written to them."""

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], kind: Any = np.float32) -> NDArray:
        """An array with any content; its memory is taken again once nothing refers to it."""
        size = math.prod(shape) * np.dtype(kind).itemsize
        with self._lock:
            free = [a for a in self._kept if sys.getrefcount(a) == 3]  # the list, the loop, the call itself
            block = min((a for a in free if size <= a.size <= 2 * size + 4096), key=len, default=None)
            if block is None:
                spare = {id(a) for a in free}
                if len(free) > 8:  # what no shape asks for any more
                    self._kept = [a for a in self._kept if id(a) not in spare]
                block = np.empty(size + 64, np.uint8)
                self._kept.append(block)
        start = -block.ctypes.data % 64
        start = start if start + size <= block.size else 0
        return block[start : start + size].view(kind).reshape(shape)

    def __deepcopy__(self, memo: Any) -> Room:
        return Room()

    def __reduce__(self) -> Any:
        return Room, ()


def parts(batch: int, size: int, most: int = 16) -> list[tuple[int, int]]:
    """Ranges of samples that are worked on at once, by amount of work alone: sums over them repeat on any number of
    threads."""
    n = max(1, min(batch, most, size // _PART))
    edges = [batch * i // n for i in range(n + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def run(ranges: list[tuple[int, int]], work: Callable[..., None]) -> None:
    """work(number, start, stop) for all ranges, on as many threads as torch uses."""
    if torch.get_num_threads() == 1 or len(ranges) == 1:
        for number, (start, stop) in enumerate(ranges):
            work(number, start, stop)
    else:
        list(_POOL.map(lambda task: work(task[0], *task[1]), enumerate(ranges)))


def flat(x: Tensor) -> Tensor:
    """A signal [T, B, C, H, W] as [B, T, H * W * C], contiguous."""
    n_steps, batch = x.shape[:2]
    return x.permute(1, 0, 3, 4, 2).reshape(batch, n_steps, -1).contiguous()


def shaped(x: Tensor, shape: Shape) -> Tensor:
    """[B, T, H * W * C] as a signal [T, B, C, H, W], without copying."""
    c, height, width = shape
    return x.view(*x.shape[:2], height, width, c).permute(1, 0, 4, 2, 3)


def images(x: Tensor) -> Tensor:
    """A signal as [B * T, C, H, W]."""
    return x.transpose(0, 1).flatten(0, 1)


class Entries(NamedTuple):
    """What is not zero in a signal, see `_conv_kernel.find`; value has no entries where all are 1."""

    index: NDArray[np.int32]
    ends: NDArray[np.int32]
    value: NDArray[np.float32]
    by_channel: bool

    @property
    def arguments(self) -> tuple[NDArray, NDArray, NDArray]:
        return self.index, self.ends, self.value


def entries_of(x: Tensor, room: Room) -> Entries:
    """The entries of a signal [T, B, C, H, W], numbered as they lie in memory: by channel, or channel-last."""
    n_steps, batch = x.shape[:2]
    n = math.prod(x.shape[2:])
    by_channel = x.is_contiguous()
    x = x if by_channel else flat(x)
    by_sample, by_step = (n, batch * n) if by_channel else (n_steps * n, n)
    numbers = x.numpy().reshape(-1)
    index, ends = room.take((batch, n_steps * n + 1), np.int32), np.empty((batch, n_steps), np.int32)
    graded, value = np.zeros(batch, np.bool_), _NONE.reshape(0, 0)
    ranges = parts(batch, numbers.size)
    run(ranges, lambda _, a, b: kernels.find(numbers, by_sample, by_step, n, a, b, ends, index, graded))
    if graded.any():
        value = room.take(index.shape)
        run(ranges, lambda _, a, b: kernels.look_up(numbers, by_sample, by_step, a, b, ends, index, value))
    return Entries(index, ends, value, by_channel)


class Wiring(NamedTuple):
    """The geometry of a convolution; an all-to-all connection is one whose kernel covers the source."""

    source: Shape
    target: Shape
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def sparse(self) -> bool:
        """Whether entries can be followed one by one."""
        return self.groups == 1 and self.dilation == (1, 1)

    def weights(self, w: NDArray) -> NDArray[np.float32]:
        """Weights [C_out, C_in, k_y, k_x] as rows [C_in, k_y, k_x in runs, C_out]."""
        w = w.reshape(self.target[0], self.source[0], *self.kernel)
        return np.ascontiguousarray(w[..., _runs(self)].transpose(1, 2, 3, 0), dtype=np.float32)

    def weights_back(self, rows: NDArray) -> NDArray[np.float32]:
        """The inverse of `weights`."""
        return np.ascontiguousarray(rows.transpose(3, 0, 1, 2)[..., np.argsort(_runs(self))])

    def turned(self, w: NDArray) -> NDArray[np.float32]:
        """Weights as [k_y, C_out, k_x, C_in], flat."""
        w = w.reshape(self.target[0], self.source[0], *self.kernel)
        return np.ascontiguousarray(w.transpose(2, 0, 3, 1), dtype=np.float32).reshape(-1)

    @property
    def steps(self) -> tuple[int, int]:
        """(line, back) of `_conv_kernel`."""
        return self.target[2] * self.target[0], self.stride[0] * self.kernel[1] * self.target[0]

    @property
    def geometry(self) -> tuple[int, ...]:
        """Argument of `_conv_kernel.backward`."""
        return *self.target[1:], *self.kernel, *self.source[1:], *self.stride, *self.padding

    def dense(self, x: Tensor, w: Tensor) -> Tensor:
        """Currents [B, T, N] of a signal by torch."""
        y = functional.conv2d(images(x).to(w.dtype), self._shaped(w), None, self.stride, self.padding, self.dilation,
                              self.groups)
        return y.permute(0, 2, 3, 1).reshape(x.shape[1], x.shape[0], -1).contiguous()

    def dense_gradients(self, grad: Tensor, x: Tensor, w: Tensor, needed: tuple[bool, bool]
                        ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of `dense` by source and weights, as far as needed."""
        c, height, width = self.target
        images_grad = grad.view(-1, height, width, c).permute(0, 3, 1, 2)
        source, weights, _ = torch.ops.aten.convolution_backward(
            images_grad, images(x).to(w.dtype), self._shaped(w), None, self.stride, self.padding, self.dilation, False,
            (0, 0), self.groups, (*needed, False))
        if needed[0]:
            source = source.view(x.shape[1], x.shape[0], *source.shape[1:]).transpose(0, 1)
        return source, weights.reshape(w.shape) if needed[1] else None

    def _shaped(self, w: Tensor) -> Tensor:
        return w.view(self.target[0], -1, *self.kernel)


def wiring_of(c: Linear | Conv2d, source: Shape, target: Shape) -> Wiring:
    """The wiring of a connection between populations of these shapes."""
    if isinstance(c, Linear):
        return Wiring(source, (math.prod(target), 1, 1), source[1:])
    return Wiring(source, target, c.kernel, c.stride, c.padding, c.dilation, c.groups)


@lru_cache(256)
def _runs(wiring: Wiring) -> NDArray[np.int64]:
    """The columns of a kernel in the order in which neighbouring targets meet one source."""
    columns = np.arange(wiring.kernel[1])
    return np.lexsort((-columns, columns % wiring.stride[1]))


@lru_cache(256)
def taps(wiring: Wiring, by_channel: bool) -> NDArray[np.int32]:
    """Where each source goes, see `_conv_kernel`; sources numbered by channel or channel-last."""
    (c_in, *sizes), (c_out, *after) = wiring.source, wiring.target
    axes = []
    for axis in range(2):
        place = np.arange(sizes[axis]) + wiring.padding[axis]
        first = np.maximum(0, -(-(place - wiring.kernel[axis] + 1) // wiring.stride[axis]))
        last = np.minimum(after[axis] - 1, place // wiring.stride[axis])
        axes.append((first, np.maximum(0, last - first + 1), place - wiring.stride[axis] * first))
    (y, n_y, k_y), (x, n_x, k_x) = axes
    column = np.argsort(_runs(wiring))[np.clip(k_x, 0, wiring.kernel[1] - 1)]
    c = np.arange(c_in)[:, None, None]
    found = np.zeros((c_in, *sizes, 4), np.int32)
    found[..., 0] = (y[:, None] * after[1] + x) * c_out
    found[..., 1] = ((c * wiring.kernel[0] + k_y[:, None]) * wiring.kernel[1] + column) * c_out
    found[..., 2] = n_x * c_out
    found[..., 3] = n_y[:, None] * (n_x > 0)
    return np.ascontiguousarray((found if by_channel else found.transpose(1, 2, 0, 3)).reshape(-1, 4))

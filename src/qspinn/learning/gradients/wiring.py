"""Transport of signals over a connection: as lists of non-zeros, or densely by torch where signals are crowded.

Tensors lie channel-last and sample after sample: a signal [T, B, C, H, W] is a view of [B, T, H, W, C].
"""

from __future__ import annotations

import itertools
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

from qspinn import former
from qspinn.compiled.threads import in_parts
from qspinn.compiled.vectors import FLOATS, LINE, aligned
from qspinn.learning.gradients.convolution import gradients
from qspinn.learning.gradients.kernels import conv as kernels
from qspinn.networks.layered import Conv2d, Linear, Pair, Shape

CROWDED = 0.4
"""Share of sources above which torch's dense convolution is faster than going from entry to entry."""
_PART = 1 << 18  # numbers that are worth a call
_CORES = os.cpu_count() or 1  # asking again takes as long as a small kernel
_PAGE = 1 << 21  # bytes of a large page, which NumPy asks for where an array is large
_NONE = np.zeros(0, np.float32)


class Scratch:
    """Scratch memory that is used again: fresh pages cost more than most of what is written to them."""

    def __init__(self) -> None:
        self._kept: list[tuple[NDArray[np.uint8], int]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], kind: Any = np.float32) -> NDArray:
        """An array with any content, from a cache line on; its memory is taken again once nothing refers to it."""
        size = math.prod(shape) * np.dtype(kind).itemsize
        with self._lock:
            best = None
            for block, start in self._kept:
                most = best[0].size if best else 2 * size + 3 * _PAGE
                if size + start <= block.size < most and sys.getrefcount(block) == 3:  # its pair, the loop, the call
                    best = block, start
            best = best or self._another(size)
        block, start = best
        return block[start : start + size].view(kind).reshape(shape)

    def _another(self, size: int) -> tuple[NDArray[np.uint8], int]:
        """A new block, and where in it to begin: at a page of the large kind, where it is worth one."""
        free = {id(block) for block, _ in self._kept if sys.getrefcount(block) == 3}
        if len(free) > 8:  # what no shape asks for any more
            self._kept = [pair for pair in self._kept if id(pair[0]) not in free]
        border = _PAGE if size >= 2 * _PAGE else LINE
        block = np.empty(size + border, np.uint8)
        self._kept.append((block, -block.ctypes.data % border))
        return self._kept[-1]

    def __deepcopy__(self, memo: Any) -> Scratch:
        return Scratch()

    def __reduce__(self) -> Any:
        return Scratch, ()


def parts(batch: int, size: int, most: int = 8) -> list[tuple[int, int]]:
    """Ranges of samples that are worked on at once, by amount of work alone: sums over them repeat on any number of
    threads."""
    n = max(1, min(batch, most, size // _PART))
    return list(itertools.pairwise(batch * i // n for i in range(n + 1)))


def run(ranges: list[tuple[int, int]], work: Callable[..., Any]) -> list[Any]:
    """Results of work(number, start, stop) for all ranges, on as many threads as torch uses, of which this is one."""
    n, n_threads = len(ranges), min(torch.get_num_threads(), _CORES)
    return in_parts(lambda number, _: work(number, *ranges[number]), n, n, n_threads)


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


class NonZeros(NamedTuple):
    """Non-zeros of a signal, see `kernels.conv.find`; value is empty where all are 1."""

    which: NDArray[np.int32]
    ends: NDArray[np.int32]
    starts: NDArray[np.int32]
    value: NDArray[np.float32]
    by_channel: bool


def non_zeros_of(x: Tensor, scratch: Scratch) -> NonZeros:
    """Non-zeros of a signal [T, B, C, H, W], numbered as they lie in memory: by channel, or channel-last."""
    n_steps, batch = x.shape[:2]
    n = math.prod(x.shape[2:])
    by_channel = x.is_contiguous()
    signal = x if by_channel else flat(x)
    by_sample, by_step = (n, batch * n) if by_channel else (n_steps * n, n)
    numbers = signal.numpy().reshape(-1)
    index, ends = scratch.take((batch, n_steps * n + 16), np.int32), np.empty((batch, n_steps), np.int32)
    by_place = not by_channel and x.shape[2] % FLOATS == 0  # several entries of a place follow each other
    starts = scratch.take((batch, n_steps, n // FLOATS + 1), np.int32) if by_place else np.zeros((0, 0, 0), np.int32)
    graded, value = np.zeros(batch, np.bool_), _NONE.reshape(0, 0)
    ranges = parts(batch, numbers.size)
    run(ranges, lambda _, a, b: kernels.find(numbers, by_sample, by_step, n, a, b, ends, index, starts, graded))
    if graded.any():
        value = scratch.take(index.shape)
        run(ranges, lambda _, a, b: kernels.look_up(numbers, by_sample, by_step, a, b, ends, index, value))
    return NonZeros(index, ends, starts, value, by_channel)


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

    @property
    def alone(self) -> Wiring:
        """The same; along an axis with one target, every source lies in a phase of its own."""
        (_, height, width), (k_y, k_x), (s_y, s_x) = self.target, self.kernel, self.stride
        return self._replace(stride=(max(k_y, s_y) if height == 1 else s_y, max(k_x, s_x) if width == 1 else s_x))

    @property
    def block(self) -> Pair:
        """Largest number of targets along an axis that one source can reach."""
        (k_y, k_x), (s_y, s_x) = self.kernel, self.stride
        return -(-k_y // s_y), -(-k_x // s_x)

    @property
    def frame(self) -> tuple[int, ...]:
        """Argument of `conv_kernel.feed`."""
        before = [n - 1 for n in self.block]
        last = [(n + p - 1) // s for n, p, s in zip(self.source[1:], self.padding, self.stride, strict=True)]
        sizes = [b + max(n, m + 1) for b, n, m in zip(before, self.target[1:], last, strict=True)]
        return *before, *sizes, *self.block

    def n_rows(self, by_place: bool) -> int:
        """Numbers in `rows`, or else in `weights`."""
        filled = -(-self.target[0] // FLOATS) * FLOATS
        phases = self.kernel if by_place else (*self.block, *self.stride)
        return filled * self.source[0] * math.prod(phases)

    def weights(self, w: NDArray) -> NDArray[np.float32]:
        """Weights [C_out, C_in, k_y, k_x] as blocks [C_in, phase y, phase x, n_y, n_x, C_out], filled by zeros; flat. A
        phase is where a source lies within a stride, a block holds the weights to the targets it meets, in order."""
        c_out, c_in = self.target[0], self.source[0]
        (n_y, n_x), (s_y, s_x) = self.block, self.stride
        full = np.zeros((-(-c_out // FLOATS) * FLOATS, c_in, n_y * s_y, n_x * s_x), np.float32)
        full[:c_out, :, : self.kernel[0], : self.kernel[1]] = w.reshape(c_out, c_in, *self.kernel)
        full = full.reshape(-1, c_in, n_y, s_y, n_x, s_x)[:, :, ::-1, :, ::-1]
        return _laid(full.transpose(1, 3, 5, 2, 4, 0))

    def weights_back(self, rows: NDArray) -> NDArray[np.float32]:
        """The inverse of `weights`, from a flat array."""
        (n_y, n_x), (s_y, s_x) = self.block, self.stride
        full = rows.reshape(self.source[0], s_y, s_x, n_y, n_x, -1)[:, :, :, ::-1, ::-1].transpose(5, 0, 3, 1, 4, 2)
        full = full.reshape(-1, self.source[0], n_y * s_y, n_x * s_x)
        return np.ascontiguousarray(full[: self.target[0], :, : self.kernel[0], : self.kernel[1]])

    def rows(self, w: NDArray) -> NDArray[np.float32]:
        """Weights as [k_y, k_x, C_in, C_out], filled up by zeros, flat."""
        w = w.reshape(self.target[0], self.source[0], *self.kernel).transpose(2, 3, 1, 0)
        full = aligned((*w.shape[:3], -(-self.target[0] // FLOATS) * FLOATS), np.float32)
        full[..., : self.target[0]] = w
        return full.reshape(-1)

    def rows_back(self, rows: NDArray) -> NDArray[np.float32]:
        """The inverse of `rows`."""
        full = rows.reshape(*self.kernel, self.source[0], -1)[..., : self.target[0]]
        return np.ascontiguousarray(full.transpose(3, 2, 0, 1))

    def turned(self, w: NDArray) -> NDArray[np.float32]:
        """Weights as [k_y, C_out, k_x, C_in], flat."""
        w = w.reshape(self.target[0], self.source[0], *self.kernel)
        return _laid(w.transpose(2, 0, 3, 1))

    @property
    def geometry(self) -> tuple[int, ...]:
        """Argument of `conv_back_kernel.backward`."""
        return *self.target[1:], *self.kernel, *self.source[1:], *self.stride, *self.padding

    def dense(self, x: Tensor, w: Tensor) -> Tensor:
        """Currents [B, T, N] of a signal by torch."""
        if self.whole:
            return flat(x).to(w.dtype) @ self._matrix(w).T
        y = functional.conv2d(
            images(x).to(w.dtype), self._shaped(w), None, self.stride, self.padding, self.dilation, self.groups
        )
        return y.permute(0, 2, 3, 1).reshape(x.shape[1], x.shape[0], -1).contiguous()

    def dense_gradients(
        self, grad: Tensor, x: Tensor, w: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of `dense` by source and weights, as far as needed."""
        if self.whole:
            by_source = shaped(grad @ self._matrix(w), self.source) if needed[0] else None
            if not needed[1]:
                return by_source, None
            rows = grad.flatten(0, 1).T @ flat(x).to(w.dtype).flatten(0, 1)
            c, height, width = self.source
            return by_source, rows.view(-1, height, width, c).permute(0, 3, 1, 2).reshape(w.shape)
        c, height, width = self.target
        images_grad = grad.view(-1, height, width, c).permute(0, 3, 1, 2)
        source, weights = gradients(
            images_grad,
            images(x).to(w.dtype),
            self._shaped(w),
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            needed,
        )
        if needed[0]:
            source = source.view(x.shape[1], x.shape[0], *source.shape[1:]).transpose(0, 1)
        return source, weights.reshape(w.shape) if needed[1] else None

    @property
    def whole(self) -> bool:
        """Whether every target sees the whole source: then torch's matrix product is faster than its convolution."""
        return self.groups == 1 and self.kernel == self.source[1:] and self.padding == (0, 0) and self.n_places == 1

    @property
    def n_places(self) -> int:
        """Number of places of the target."""
        return self.target[1] * self.target[2]

    def _matrix(self, w: Tensor) -> Tensor:
        """Weights as [C_out, H * W * C_in], as a signal lies in memory."""
        return self._shaped(w).permute(0, 2, 3, 1).flatten(1)

    def _shaped(self, w: Tensor) -> Tensor:
        return w.view(self.target[0], -1, *self.kernel)


def _laid(x: NDArray) -> NDArray[np.float32]:
    """A copy in this order, flat, from a cache line on."""
    rows = aligned(x.shape, np.float32)
    rows[:] = x
    return rows.reshape(-1)


def wiring_of(c: Linear | Conv2d, source: Shape, target: Shape) -> Wiring:
    """The wiring of a connection between populations of these shapes."""
    if isinstance(c, Linear):
        return Wiring(source, (math.prod(target), 1, 1), source[1:]).alone
    return Wiring(source, target, c.kernel, c.stride, c.padding, c.dilation, c.groups).alone


@lru_cache(256)
def taps(wiring: Wiring, by_channel: bool) -> NDArray[np.int32]:
    """Starts of the block of each source, see `kernels.conv`; sources numbered by channel or channel-last."""
    c_in, (s_y, s_x), (n_y, n_x) = wiring.source[0], wiring.stride, wiring.block
    y, x = (np.arange(n) + p for n, p in zip(wiring.source[1:], wiring.padding, strict=True))
    width = -(-wiring.target[0] // FLOATS) * FLOATS
    starts = np.zeros((*wiring.source, 2), np.int32)
    starts[..., 0] = (y[:, None] // s_y * wiring.frame[3] + x // s_x) * width
    phase = y[:, None] % s_y * s_x + x % s_x
    starts[..., 1] = (np.arange(c_in)[:, None, None] * s_y * s_x + phase) * n_y * n_x * width
    return np.ascontiguousarray((starts if by_channel else starts.transpose(1, 2, 0, 3)).reshape(-1, 2))


__getattr__ = former.names_of(__name__)

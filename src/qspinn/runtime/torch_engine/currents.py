"""Input currents of the torch engine, of all steps at once: exact products of integers on floating-point units.

Integer products run on floating-point units only where the codes prove every partial sum exact: sum |w| times the most
spikes of a source stays below 2**24 in float32, below 2**53 in float64; larger weights are split into digits. That
holds for matrix products, which add products in some order, and for oneDNN's direct convolution. It does not hold for
transformed convolutions (Winograd, FFT), so elsewhere a convolution is a matrix product over its windows.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qspinn.program import Program
from qspinn.program.check import n_windows
from qspinn.program.ops import ConvOp, DenseOp, Feed, LifOp, conv_shape
from qspinn.runtime.torch_engine.signals import Signal, room

Weigher = Callable[[Tensor], Tensor]
FULL = ("none", "ieee")
"""Settings of torch under which float32 products are computed in float32."""


def current(program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Signal], dtype: torch.dtype) -> Tensor:
    """Input currents of a population from others, [T, B, N]; few images at a time, since floats need memory."""
    x = signals["input"].x
    total = torch.zeros((x.shape[0] * x.shape[1], op.n), dtype=dtype, device=x.device)
    for feed in feeds:
        source, most = signals[feed.source]
        images, weigh = source.flatten(0, 1), weigher(program, feed, most, dtype, x.device)
        kernel = math.prod(program.codes(feed.weight).shape[2:])
        size = max(16, room(x.device) // (64 * (kernel * images.shape[1] + 2 * op.n)))
        for at in range(0, len(images), size):
            total[at : at + size] += weigh(images[at : at + size]) << feed.shift
    return total.view(*x.shape[:2], op.n)


def weigher(program: Program, feed: Feed, most: int, dtype: torch.dtype, device: torch.device) -> Weigher:
    """The function from spikes [M, n] of a source to the current [M, N] that they feed, without the shift."""
    w = program.codes(feed.weight).astype(np.int64)
    if isinstance(feed, DenseOp):
        return _linear(w, most, dtype, device)
    if isinstance(feed, ConvOp):
        return _convolution(feed, w, most, dtype, device)
    n = len(w)
    each = torch.from_numpy(w).to(device, dtype)
    return lambda x: x.to(dtype) * each.repeat_interleave(x.shape[1] // n)


def _linear(w: NDArray[np.int64], most: int, dtype: torch.dtype, device: torch.device) -> Weigher:
    digits = _digits(w.T, most, device)
    return lambda x: _product(x, digits, dtype)


def _convolution(op: ConvOp, w: NDArray[np.int64], most: int, dtype: torch.dtype, device: torch.device) -> Weigher:
    """By oneDNN where its algorithm is known and float32 suffices; else as a product over windows, of few images at a
    time: they may need a hundred times the memory of the images."""
    c_out, height, width = conv_shape(op, w.shape)
    columns = w.reshape(op.groups, c_out // op.groups, -1).transpose(0, 2, 1)  # [G, C_in / G * kernel, C_out / G]
    digits = _digits(columns, most, device)
    direct = _direct(device) and digits[0][0].dtype == torch.float32
    filters = torch.from_numpy(w).to(torch.float32) if direct else None
    size = max(1, room(device) // (64 * (n_windows(op, w.shape) + 2 * c_out * height * width)))

    def weigh(x: Tensor) -> Tensor:
        images = x.view(len(x), *op.shape)
        if filters is not None and len(x) >= 16:  # below, torch may take another library
            y = functional.conv2d(
                images.to(torch.float32), filters, None, op.stride, op.padding, op.dilation, op.groups
            )
            return y.flatten(1).to(dtype)
        total = torch.empty((len(x), op.groups, c_out // op.groups, height * width), dtype=dtype, device=x.device)
        for at in range(0, len(x), size):
            part = images[at : at + size]
            y = _product(_windows(op, part, w.shape[2:], (height, width)), digits, dtype)
            total[at : at + size] = y.view(op.groups, len(part), height * width, -1).permute(1, 0, 3, 2)
        return total.flatten(1)

    return weigh


def _windows(op: ConvOp, images: Tensor, kernel: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """What every neuron of a convolution sees, [G, M * height * width, C_in / G * kernel]."""
    (pad_y, pad_x), per_group = op.padding, op.shape[0] // op.groups
    x = functional.pad(images, (pad_x, pad_x, pad_y, pad_y)).contiguous()
    image, channel, row, one = x.stride()
    seen = x.as_strided(
        (op.groups, len(x), *size, per_group, *kernel),
        (
            per_group * channel,
            image,
            op.stride[0] * row,
            op.stride[1] * one,
            channel,
            op.dilation[0] * row,
            op.dilation[1] * one,
        ),
    )
    return seen.reshape(op.groups, len(x) * size[0] * size[1], per_group * kernel[0] * kernel[1])


def _direct(device: torch.device) -> bool:
    """Whether float32 convolutions are oneDNN's direct ones: on other processors it may transform."""
    onednn: Any = torch.backends.mkldnn
    return (
        device.type == "cpu"
        and platform.machine() in ("x86_64", "AMD64")
        and onednn.is_available()
        and bool(onednn.enabled)
    )


def _digits(w: NDArray[np.int64], most: int, device: torch.device) -> list[tuple[Tensor, int]]:
    """(digit, shift) with w = sum of digit << shift, in types in which x @ digit is exact for 0 <= x <= most.

    w [..., K, N]. Every partial sum of products is an integer of at most most * sum |w|, so its float is exact.
    """
    bound = most * int(np.abs(w).sum(axis=-2).max(initial=0))
    if bound < 1 << 53:
        single = bound < 1 << 24 and _single_is_exact()
        return [(torch.from_numpy(np.ascontiguousarray(w)).to(device, torch.float32 if single else torch.float64), 0)]
    half = max(1, int(np.abs(w).max()).bit_length() // 2)
    high, low = _digits(w >> half, most, device), _digits(w & ((1 << half) - 1), most, device)
    return [*((digit, shift + half) for digit, shift in high), *low]


def _single_is_exact() -> bool:
    """Whether torch computes float32 products in float32; it may have been told to use fewer bits (TF32, bfloat16)."""
    onednn: Any = torch.backends.mkldnn
    parts = [torch.backends.cuda.matmul, getattr(onednn, "matmul", None), getattr(onednn, "conv", None)]
    told = [getattr(part, "fp32_precision", None) for part in parts]
    if None in told:  # torch before 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return all(precision in FULL for precision in told)


def _product(x: Tensor, digits: list[tuple[Tensor, int]], dtype: torch.dtype) -> Tensor:
    """x @ w in integers."""
    parts = [(x.to(digit.dtype) @ digit).to(dtype) << shift for digit, shift in digits]
    return sum(parts[1:], start=parts[0])

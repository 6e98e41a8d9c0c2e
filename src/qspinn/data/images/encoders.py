"""Encoders: real-valued samples -> input spikes, in integers, so that a device can draw the very same spikes."""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import frozen, integer, need_kind, numbers
from qspinn.errors import DataError
from qspinn.fixedpoint import random_words, stream_key
from qspinn.program.ops import POISSON_BOUNDS, PoissonOp
from qspinn.spikes import Spikes, index_dtype, unchecked

INPUT_STREAM = 1 << 20  # first stream of the encoder; sample s uses INPUT_STREAM + first_sample + s

MOST_SAMPLES = (1 << 32) - INPUT_STREAM - 1  # streams are numbered in 32 bits
MOST_STEPS, MOST_THREADS = 1 << 24, 1 << 10


def poisson(
    images: NDArray[np.uint8], op: PoissonOp, n_steps: int, *, first_sample: int = 0, n_threads: int = 0
) -> Spikes:
    """Independent Bernoulli spikes: source i of sample s spikes at t when word(s, t, i) < pixel * per_level.

    word(s, t, i) is the 32-bit hash of (op.seed, INPUT_STREAM + first_sample + s, t, i), so each sample has spikes of
    its own that do not depend on batch or order.

    Args:
        images: uint8 [B, n].
        n_steps: T.
        first_sample: number of the first image in its data set.
        n_threads: 0 for all cores.

    Raises:
        ConfigError: no PoissonOp, or one whose numbers no program may have.
        DataError: images of another type or shape.
    """
    images, n_steps, first_sample = _checked(images, op, n_steps, first_sample)
    from qspinn.data.kernels import poisson as _poisson

    n_threads = integer("poisson.n_threads", n_threads, low=0, high=MOST_THREADS) or os.cpu_count() or 1
    n = images.shape[1]
    edges = np.linspace(0, len(images), n_threads + 1).astype(int)

    def part(i: int) -> tuple[NDArray[np.int64], NDArray]:
        block = frozen(np.ascontiguousarray(images[edges[i] : edges[i + 1]]))
        room = _poisson.capacity(block, op.per_level, n_steps)
        offsets = np.empty((len(block), n_steps + 1), dtype=np.int64)
        index = np.empty(room, dtype=index_dtype(n))
        used = _poisson.draw(
            block, op.per_level, np.uint32(op.seed), INPUT_STREAM + first_sample + edges[i], n_steps, offsets, index
        )
        return offsets, index[:used]

    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        parts = list(pool.map(part, range(n_threads)))
    starts = np.cumsum([0, *(len(index) for _, index in parts)])
    offsets = np.concatenate([o + s for (o, _), s in zip(parts, starts[:-1], strict=True)])
    return unchecked(offsets=offsets, index=np.concatenate([index for _, index in parts]), n=n)


def _checked(
    images: NDArray[np.uint8], op: PoissonOp, n_steps: int, first_sample: int
) -> tuple[NDArray[np.uint8], int, int]:
    """The arguments of both encoders."""
    need_kind("op", op, PoissonOp)
    for field, (low, high) in POISSON_BOUNDS.items():
        integer(f"op.{field}", getattr(op, field), low=low, high=high)
    images = numbers("images", images, None, DataError)
    if images.ndim != 2 or images.dtype != np.uint8 or not images.shape[1]:
        raise DataError(
            "images", "wrong shape or type", got=f"{images.dtype} {images.shape}", allowed="uint8 [B, n] with n >= 1"
        )
    return (
        images,
        integer("poisson.n_steps", n_steps, low=1, high=MOST_STEPS, error=DataError),
        integer("poisson.first_sample", first_sample, low=0, high=MOST_SAMPLES, error=DataError),
    )


def poisson_reference(images: NDArray[np.uint8], op: PoissonOp, n_steps: int, *, first_sample: int = 0) -> NDArray:
    """The same spikes as a raster uint8 [T, B, n], written down directly; for tests."""
    images, n_steps, first_sample = _checked(images, op, n_steps, first_sample)
    level = images.astype(np.int64) * op.per_level
    raster = np.zeros((n_steps, *images.shape), dtype=np.uint8)
    for s in range(len(images)):
        for t in range(n_steps):
            key = stream_key(op.seed, INPUT_STREAM + first_sample + s, t)
            raster[t, s] = random_words(key, np.arange(images.shape[1])) < level[s]
    return raster

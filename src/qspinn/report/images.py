"""Receptive fields and kernels as small PNG images inside the page."""

from __future__ import annotations

import base64
import struct
import zlib

import msgspec
import numpy as np
from numpy.typing import NDArray

N_SHOWN = 36


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """Image of a neuron as a data URI, with the text that describes it."""

    uri: str
    tip: str


def png(grey: NDArray[np.uint8], opaque: NDArray[np.bool_]) -> bytes:
    """A PNG file of a grey image [H, W]; pixels that are not opaque are transparent."""
    height, width = grey.shape
    pixels = np.stack([grey, np.where(opaque, 255, 0)], axis=-1).astype(np.uint8).reshape(height, -1)
    rows = np.hstack([np.zeros((height, 1), np.uint8), pixels])
    header = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)  # 8 bits, grey with alpha
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_of(weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Weights of one neuron as 0..255: zero (or the smallest, if negative) is black, its largest is white."""
    low, high = min(0.0, float(weights.min())), float(weights.max())
    return np.rint((weights - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def shown(n: int) -> list[int]:
    """At most N_SHOWN neurons, evenly spaced."""
    return sorted({int(k) for k in np.linspace(0, n - 1, min(n, N_SHOWN)).round()})


def image(grey: NDArray[np.uint8], tip: str, opaque: NDArray[np.bool_] | None = None) -> Field:
    """A grey image [H, W] with its text; transparent where not opaque."""
    data = png(grey, np.ones(grey.shape, dtype=bool) if opaque is None else opaque)
    return Field(uri="data:image/png;base64," + base64.b64encode(data).decode(), tip=tip)

"""Integer local learning once more, slowly: NumPy int64, one loop per formula of `qspinn.learning.local.integers`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import Rounding, requantize, stream_key
from qspinn.learning.local.formats import LayerGrid
from qspinn.learning.local.integers import STREAM
from qspinn.learning.local.settings import LocalLearning

Ints = NDArray[np.int64]


def nearest_power(x: int) -> int:
    """Exponent of the power of two nearest by ratio, from the 16 highest bits."""
    exponent = x.bit_length() - 1
    highest = (x << 15) >> exponent
    return exponent + (highest * highest >= 1 << 31)


class OracleLayer:
    """One layer; arrays are channel-last."""

    def __init__(self, grid: LayerGrid, bias: bool) -> None:
        self.g, self.bias = grid, bias
        self.w, self.b = grid.learned.copy(), np.zeros(len(grid.learned), np.int64)
        self.e_exponent = grid.bits["error"] - 1
        self.least = -(-(grid.size.n_outputs << grid.bits["activation"]) // 10)

    def forward(self, x: Ints) -> Ints:
        g = self.g
        shift = g.bits["gradient"] - g.bits["w"]
        return np.clip(requantize(x, shift, g.rounding["w"]), -g.top("w"), g.top("w"))

    def rest(self, batch: int) -> None:
        c, h, w = self.g.size.source
        self.p, self.q = np.zeros((batch, h, w, c), np.int64), np.zeros((batch, h, w, c), np.int64)
        c, h, w = self.g.size.target
        self.r = np.zeros((batch, h, w, c), np.int64)

    def patches(self, y: int, x: int) -> Ints:
        """The patch [B, k, k, C_in] that one output sees."""
        layer = self.g.size.layer
        pad, k = layer.padding, layer.kernel
        p = np.pad(self.p, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        return p[:, y * layer.stride : y * layer.stride + k, x * layer.stride : x * layer.stride + k]

    def advance(self, spikes: Ints) -> Ints:
        """Pooled spikes of one step."""
        g, layer = self.g, self.g.size.layer
        bits = g.bits
        finest = max(bits["q_trace"], bits["p_trace"])
        fed = (g.alpha * self.p << (finest - bits["p_trace"])) + (g.gain * self.q << (finest - bits["q_trace"]))
        self.p, old = requantize(fed, 8 + finest - bits["p_trace"], g.rounding["p_trace"]), self.q
        self.p = np.minimum(self.p, g.top("p_trace"))
        self.q = np.minimum(requantize(g.beta * old, 8, g.rounding["q_trace"]) + g.jump * spikes, g.top("q_trace"))
        c, rows, cols = g.size.target
        u = np.zeros_like(self.r)
        w, b = self.forward(self.w), self.forward(self.b)
        for y in range(rows):
            for x in range(cols):
                u[:, y, x] = np.einsum("bijk,cijk->bc", self.patches(y, x), w)
        u = requantize(u + (b << g.b_shift) - (self.r << g.r_shift), g.u_shift, g.rounding["u"])
        u = np.clip(u, -g.top("u"), g.top("u"))
        self.r = np.minimum(requantize(self.r * g.r_decay, 8, g.rounding["r"]) + (u >= 0) * 2 ** bits["r"], g.top("r"))
        _, height, width = g.size.pooled
        n = layer.pool
        windows = u[:, : height * n, : width * n].reshape(-1, height, n, width, n, c).transpose(0, 1, 3, 5, 2, 4)
        windows = windows.reshape(*windows.shape[:4], n * n)
        self.where, self.top = windows.argmax(-1), windows.max(-1)
        self.act, self.gate = g.activity[self.top + g.top("u")], g.slope[self.top + g.top("u")]
        flat = self.act.reshape(len(u), -1)
        self.out = requantize(flat @ g.readout.reshape(len(g.readout), -1).T, g.read_shift, g.rounding["read"])
        self.out = np.clip(self.out, -g.top("read"), g.top("read"))
        return (self.top >= 0).astype(np.int64)

    def update(self, labels: Ints, learning: LocalLearning, key: int, halvings: int) -> None:
        g, (_, height, width) = self.g, self.g.size.pooled
        e = self.out - np.eye(len(g.readout), dtype=np.int64)[labels] * g.top("read")
        e = requantize(e, g.bits["read"] - g.bits["error"], g.rounding["error"])
        e = np.clip(e, -g.top("error"), g.top("error"))
        back = (e @ g.feedback.reshape(len(g.feedback), -1)).reshape(self.act.shape)
        few = self.act.sum(axis=(1, 2, 3)) < self.least
        raw = (back - g.pull * few[:, None, None, None]) * self.gate + g.push * (self.top >= 0)
        shift = max(0, self.e_exponent - (g.bits["error"] - 1))
        delta = np.clip(requantize(raw, shift, g.rounding["error"]), -g.top("error"), g.top("error"))
        grad, n = np.zeros_like(self.w), g.size.layer.pool
        for y in range(height * n):
            for x in range(width * n):
                here = delta[:, y // n, x // n] * (self.where[:, y // n, x // n] == y % n * n + x % n)
                grad += np.einsum("bc,bijk->cijk", here, self.patches(y, x))
        self.learn(self.w, grad, key, 0, halvings)
        if self.bias:
            self.learn(self.b, delta.sum(axis=(0, 1, 2)) << g.bits["p_trace"], key, grad.size, halvings)
        if np.abs(raw).max() > 0:
            self.e_exponent = nearest_power(int(np.abs(raw).max()))

    def learn(self, w: Ints, grad: Ints, key: int, first: int, halvings: int) -> None:
        g = self.g
        largest = int(np.abs(grad).max())
        if largest == 0:
            return
        part = requantize(grad, nearest_power(largest) - 16, Rounding.TRUNCATE)
        index = first + np.arange(grad.size).reshape(grad.shape)
        step = requantize(part * g.rate, g.rate_shift + halvings, g.rounding["gradient"], key=key, index=index)
        w[:] = np.clip(w - step, -g.top("gradient"), g.top("gradient"))


class Oracle:
    """All layers."""

    def __init__(self, grids: list[LayerGrid], learning: LocalLearning, *, bias: bool = True, seed: int = 0) -> None:
        self.layers, self.learning, self.seed = [OracleLayer(g, bias) for g in grids], learning, seed
        self.n_updates = 0

    def run(self, raster: NDArray[np.uint8], labels: Ints | None = None, epoch: int = 0) -> Ints:
        """Read-outs of the last layer [T, B, n_classes]; learns where there are labels."""
        for layer in self.layers:
            layer.rest(raster.shape[1])
        found, self.n_spikes = [], 0
        for t, spikes in enumerate(raster.astype(np.int64)):
            for layer in self.layers:
                spikes = layer.advance(spikes)
                self.n_spikes += int(spikes.sum())
            found.append(self.layers[-1].out)
            if labels is not None and t >= self.learning.burn_in:
                for number, layer in enumerate(self.layers):
                    key = stream_key(self.seed, STREAM + number, self.n_updates)
                    layer.update(labels, self.learning, key, self.learning.halvings(epoch))
                self.n_updates += 1
        return np.stack(found)

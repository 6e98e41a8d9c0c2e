"""Local learning in float32 with torch: the baseline of `integers`, see the package for the formulas.

No graph is built: a layer's gradient is one outer product per step, so it is written down (`conv2d_weight`), which
needs half the time of autograd and no memory over time. Traces do not saturate.
Source: Kaiser, Mostafa and Neftci 2020; Adamax with beta = (0, 0.95) as in their reference recipe.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, Reals, gains, need_labels, need_raster
from qspinn.networks.layered import Shape
from qspinn.networks.local import LocalNetwork

BETA, EPS = 0.95, 1e-8
MARGIN, LEAST_MEAN = 0.01, 0.1
"""Constants of the two regularizers."""


class FloatLayers:
    """The layers in float32; `learn` trains them in place. Deterministic on one machine and torch version."""

    def __init__(self, network: LocalNetwork, learning: LocalLearning, start: tuple[LayerStart, ...]) -> None:
        self.learning = learning
        self.layers = [_Layer(layer, network, learning) for layer in start]

    @property
    def fits(self) -> tuple[Shape, int]:
        """Shape (channels, height, width) of the recordings, and number of classes, that the layers were made for."""
        return self.layers[0].size.source, len(self.layers[0].readout)

    def learn(self, raster: NDArray[np.uint8], labels: NDArray[np.int64], epoch: int) -> None:
        """Trains on a batch: raster uint8 [T, B, y, x, C] of 0 and 1, labels [B]; one update per step."""
        rate = self.learning.float_learning_rate * 0.5 ** self.learning.halvings(epoch)
        wanted = torch.tensor(need_labels(labels, raster, self.fits[1]))
        for t, spikes in enumerate(self._begin(raster)):
            for layer in self.layers:
                spikes, activity = layer.advance(spikes)
                if t >= self.learning.burn_in:
                    layer.update(activity, wanted, rate)

    def readouts(self, raster: NDArray[np.uint8]) -> tuple[Reals, int]:
        """Read-out of the last layer at every step [T, B, n_classes], and spikes of all layers after pooling."""
        values, n_spikes = [], 0
        for spikes in self._begin(raster):
            for layer in self.layers:
                spikes, activity = layer.advance(spikes)
                n_spikes += int(spikes.sum())
            values.append(self.layers[-1].read(activity))
        return torch.stack(values).double().numpy(), n_spikes

    def _begin(self, raster: NDArray[np.uint8]) -> Tensor:
        """Input spikes [T, B, C, y, x] as floats, all states at rest."""
        need_raster(raster, self.fits[0])
        for layer in self.layers:
            layer.rest(raster.shape[1])
        return torch.from_numpy(raster).permute(0, 1, 4, 2, 3).float()

    def state(self) -> dict[str, NDArray]:
        """Every array that learning changes."""
        return {
            f"{layer.name}.{kind}": getattr(layer, kind).numpy()
            for layer in self.layers
            for kind in ("w", "b", "w_size", "b_size")
        }

    def put_back(self, state: dict[str, NDArray]) -> None:
        """Goes on from what `state` returned."""
        for layer in self.layers:
            for kind in ("w", "b", "w_size", "b_size"):
                getattr(layer, kind).copy_(torch.from_numpy(state[f"{layer.name}.{kind}"].copy()))


class _Layer:
    """One layer with its states of a batch."""

    def __init__(self, start: LayerStart, network: LocalNetwork, learning: LocalLearning) -> None:
        def by_channel(x: Reals) -> Tensor:
            return torch.from_numpy(x).float().view(-1, 1, 1)

        def matrix(x: Reals) -> Tensor:
            return torch.from_numpy(x.transpose(0, 3, 1, 2).reshape(len(x), -1).copy()).float()

        self.name, self.size, self.bias, self.gamma = start.size.name, start.size, network.bias, network.refractory
        self.w = torch.from_numpy(start.w.transpose(0, 3, 1, 2).copy()).float()
        self.b = torch.zeros(len(self.w))
        self.w_size, self.b_size = torch.zeros_like(self.w), torch.zeros_like(self.b)
        self.scale, self.read_scale = 2.0**start.scale, 2.0**-start.readout_shift
        self.readout, self.feedback = matrix(start.readout), matrix(start.feedback)
        self.alpha, self.beta = by_channel(start.alpha), by_channel(start.beta)
        self.m_p, self.m_q = by_channel(gains(start.alpha, network.cap)), by_channel(gains(start.beta, network.cap))
        self.l1, self.l2 = 20 * learning.l1, 0.1 * learning.l2

    def rest(self, batch: int) -> None:
        """States at the start of a recording."""
        self.p, self.q = torch.zeros(batch, *self.size.source), torch.zeros(batch, *self.size.source)
        self.r = torch.zeros(batch, *self.size.target)

    def advance(self, spikes: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled spikes and sigmoid of the pooled potentials [B, C, y, x] after one step."""
        layer = self.size.layer
        self.p.mul_(self.alpha).addcmul_(self.q, self.m_p)
        self.q.mul_(self.beta).addcmul_(spikes, self.m_q)
        u = functional.conv2d(self.p, self.w * self.scale, self.b, layer.stride, layer.padding).sub_(self.r)
        fired = (u >= 0).float()
        self.r.mul_(self.gamma).add_(fired)
        if layer.pool == 1:
            self.u = u
            return fired, u.sigmoid()
        self.u, self.where = functional.max_pool2d(u, layer.pool, return_indices=True)
        return (self.u >= 0).float(), self.u.sigmoid()

    def read(self, activity: Tensor) -> Tensor:
        """The read-out [B, n_classes]."""
        return activity.flatten(1) @ self.readout.T * self.read_scale

    def update(self, activity: Tensor, wanted: Tensor, rate: float) -> None:
        """One step of learning from the states as they are."""
        layer, batch = self.size.layer, len(wanted)
        error = self.read(activity)
        error[torch.arange(batch), wanted] -= 1.0
        error *= 2.0 * self.read_scale / error.shape[1]
        delta = (error @ self.feedback).view_as(activity).mul_(activity).mul_(1.0 - activity)
        if self.l1:
            delta += (self.l1 / self.size.n_outputs) * (self.u > -MARGIN)
        if self.l2:
            quiet = activity.mean(dim=(1, 2, 3), keepdim=True) < LEAST_MEAN
            delta -= (self.l2 / self.size.n_outputs) * quiet * activity * (1.0 - activity)
        if layer.pool > 1:
            delta = (
                torch.zeros(self.r.shape)
                .flatten(2)
                .scatter_(2, self.where.flatten(2), delta.flatten(2))
                .view_as(self.r)
            )
        grad = conv2d_weight(  # type: ignore[no-untyped-call]
            self.p, self.w.shape, delta, layer.stride, layer.padding
        )
        _adamax(self.w, self.w_size, grad.mul_(self.scale / batch), rate)
        if self.bias:
            _adamax(self.b, self.b_size, delta.sum(dim=(0, 2, 3)).div_(batch), rate)


def _adamax(x: Tensor, size: Tensor, grad: Tensor, rate: float) -> None:
    """x <- x - rate * grad / size, size the largest gradient seen, slowly forgotten."""
    torch.maximum(size.mul_(BETA), grad.abs().add_(EPS), out=size)
    x.addcdiv_(grad, size, value=-rate)

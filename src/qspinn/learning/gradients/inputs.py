"""Check of the spikes and recordings that a module of layers takes.

Integer programs take counts up to the declared one and nothing else, so the float network takes nothing else either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qspinn.data.events.event_set import EventSet
from qspinn.errors import DataError
from qspinn.learning.gradients.kernels.counts import holds_counts
from qspinn.networks.layered import LayeredNetwork
from qspinn.spikes import largest

NUMERIC = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)
"""Types that spikes may have."""


def need_shape(network: LayeredNetwork, spikes: Tensor) -> None:
    """Checks that spikes are [T, B, n_inputs] with T steps of the network and a sample at least.

    Raises:
        DataError: they are not.
    """
    if not isinstance(spikes, Tensor):
        raise DataError(
            "spikes", "are no tensor", got=type(spikes).__name__, allowed="torch.Tensor", fix="torch.from_numpy(...)"
        )
    allowed = f"[T, B, n] = ({network.n_steps}, B, {network.input.n})"
    if spikes.ndim != 3 or spikes.shape[2] != network.input.n or spikes.shape[0] != network.n_steps:
        turned = spikes.ndim == 3 and spikes.shape[1] == network.n_steps and spikes.shape[2] == network.input.n
        raise DataError(
            "spikes",
            "wrong shape",
            got=tuple(spikes.shape),
            allowed=allowed,
            fix="steps come before samples: spikes.transpose(0, 1)" if turned else "",
        )
    if spikes.shape[1] == 0:
        raise DataError("spikes", "hold no samples", got=tuple(spikes.shape), allowed=allowed + " with B >= 1")


def need_counts(network: LayeredNetwork, spikes: Tensor) -> None:
    """Checks that spikes are counts up to the declared one: the integer program takes nothing else.

    Raises:
        DataError: a value is negative, not finite, no whole number, or too large.
    """
    most = network.input.max_count
    if spikes.dtype not in NUMERIC or spikes.layout is not torch.strided:
        raise DataError(
            "spikes",
            "are no dense tensor of real numbers",
            got=f"{spikes.dtype} {spikes.layout}",
            allowed=", ".join(map(str, NUMERIC)),
        )
    if spikes.dtype is torch.bool or spikes.device.type == "meta":  # the latter has no values
        return
    with torch.no_grad():
        if _compiled(spikes) and holds_counts(spikes.numpy().reshape(-1), np.float32(most)):
            return
        low, high = (x.item() for x in torch.aminmax(spikes))
        if not (low >= 0 and high <= most):  # NaN is neither
            raise DataError(
                "spikes",
                "holds a value that is no count",
                got=low if not low >= 0 else high,
                allowed=f"whole numbers, 0..{most}: network.input.max_count",
                fix="declare a larger max_count, if sources spike several times in a step",
            )
        if spikes.is_floating_point() and (part := spikes[spikes != spikes.round()]).numel():
            raise DataError(
                "spikes",
                "holds a value that is no whole number",
                got=part.flatten()[0].item(),
                allowed=f"whole numbers, 0..{most}",
            )


def _compiled(x: Tensor) -> bool:
    """Whether the compiled check reads these numbers as they lie."""
    return x.device.type == "cpu" and x.dtype is torch.float32 and x.is_contiguous() and not x.requires_grad


def need_events(network: LayeredNetwork, data: Any, per_step: int = 1) -> None:
    """Checks that recordings are what the network takes, from their list of events; per_step bins make a step.

    Raises:
        DataError: other recordings, none, or a source that spikes more often in a step than declared.
    """
    if not isinstance(data, EventSet):
        raise DataError(
            "events",
            "are no recordings",
            got=type(data).__name__,
            allowed="an EventSet",
            fix="qspinn.data.events.event_set.from_dense makes one of an array [B, T, channels, height, width]",
        )
    n_steps = -(-data.n_steps // per_step)
    if data.shape != network.input.shape or n_steps != network.n_steps:
        raise DataError(
            "events",
            "do not fit the network's input",
            got=(data.shape, n_steps),
            allowed=f"{network.input.shape} over {network.n_steps} steps",
        )
    if data.n_samples == 0:
        raise DataError("events", "holds no recordings", got=0, allowed="at least one")
    most = largest(data) if data.count is None else largest(data.rebinned(per_step))
    if most > network.input.max_count:
        raise DataError(
            "events.count",
            "a source spikes more often in a step than was declared",
            got=most,
            allowed=f"at most {network.input.max_count}: network.input.max_count",
        )

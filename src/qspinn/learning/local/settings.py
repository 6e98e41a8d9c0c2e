"""Settings of training local layers."""

from __future__ import annotations

from typing import Literal

from qspinn.networks.names import need_size
from qspinn.records.record import Record, need


class LocalLearning(Record, frozen=True):
    """Settings of local learning.

    Attributes:
        arithmetic: "integer" computes and stores nothing but integers from input spikes to new weights.
        n_epochs, batch: passes over the data, samples per update (a rest smaller than a batch is left out).
        burn_in: first steps of a recording that are neither learned from nor counted for the prediction.
        learning_rate: integer: how far the largest gradient of a layer moves its weight, within a factor of sqrt 2
            (gradients are divided by the power of two nearest to the largest); weights are within +-1.
        float_learning_rate: of Adamax (beta 0, 0.95) in float arithmetic.
        halve_every: both rates are halved after so many epochs; 0 for never.
        l1, l2: weights of the regularizers, l1 * 20 * mean relu(U + 0.01) + l2 * 0.1 * relu(0.1 - mean sigmoid(U)).
        shift: events are moved by up to so many pixels in x and y, anew in every epoch; 0 for none.
    """

    arithmetic: Literal["integer", "float"] = "integer"
    n_epochs: int = 10
    batch: int = 72
    burn_in: int = 2
    learning_rate: float = 2.0**-9
    float_learning_rate: float = 1e-3
    halve_every: int = 0
    l1: float = 1e-3
    l2: float = 1e-3
    shift: int = 0

    def check(self) -> None:
        for name, low, high in (
            ("n_epochs", 0, 10_000),
            ("batch", 1, 1 << 12),
            ("burn_in", 0, 1 << 15),
            ("halve_every", 0, 10_000),
            ("shift", 0, 64),
        ):
            need(low <= getattr(self, name) <= high, f"learning.{name}", getattr(self, name), f"{low}..{high}")
        for name in ("learning_rate", "float_learning_rate"):
            need(0 < getattr(self, name) <= 1, f"learning.{name}", getattr(self, name), "above 0, at most 1")
        for name in ("l1", "l2"):
            need(getattr(self, name) >= 0, f"learning.{name}", getattr(self, name), ">= 0")
            need_size(f"learning.{name}", getattr(self, name))

    def halvings(self, epoch: int) -> int:
        """Number of halvings of the rates before this epoch, counted from 0."""
        return epoch // self.halve_every if self.halve_every else 0

"""Rewards: one number for the trade between accuracy and memory; the largest wins."""

from __future__ import annotations

import math
from typing import Literal

from qspinn.errors import ConfigError
from qspinn.networks.names import need_size
from qspinn.records.record import Record, need

LARGEST = 1e100
"""Accuracies and memories are below it."""
MOST = 1e9
"""The largest mu: far above it all candidates would have the same reward, minus infinity."""


class Reward(Record, frozen=True):
    """Reward by which candidates that meet the target are ranked.

    ``additive``: R = A_q - mu * M_q / M_0; ``multiplicative``: R = (M_0 / M_q) * exp(-max(0, A_0 - A_q) / softness).
    A is accuracy in 0..1, M memory in bits, index 0 the float network, q the candidate.
    Source: both are reconstructions of Putra & Shafique (2021), whose text only says that memory and accuracy are
    traded; their mu is not known.

    Attributes:
        mu: accuracy that is given for the whole memory of the float network (0.02: two points).
        softness: accuracy loss at which the multiplicative reward has fallen to 1/e.
    """

    form: Literal["additive", "multiplicative"] = "additive"
    mu: float = 0.5
    softness: float = 0.005

    def check(self) -> None:
        need(0 <= self.mu <= MOST, "reward.mu", self.mu, f"0..{MOST:g}")
        need(self.softness > 0, "reward.softness", self.softness, "> 0")
        need_size("reward.mu", self.mu)
        need_size("reward.softness", self.softness)

    def value(self, accuracy: float, bits: int, float_accuracy: float, float_bits: int) -> float:
        """The reward of one candidate.

        Raises:
            ConfigError: an accuracy is not finite, a memory not above 0, or out of reach.
        """
        for name, x, low in (
            ("accuracy", accuracy, -math.inf),
            ("float_accuracy", float_accuracy, -math.inf),
            ("bits", bits, 0),
            ("float_bits", float_bits, 0),
        ):
            if isinstance(x, bool) or not isinstance(x, int | float) or not low < x < LARGEST:
                raise ConfigError(name, "has no reward", got=x, allowed=f"finite, memory above 0 and below {LARGEST:g}")
        if self.form == "additive":
            return accuracy - self.mu * bits / float_bits
        return float_bits / bits * math.exp(-max(0.0, float_accuracy - accuracy) / self.softness)

"""The experiment file of local learning (`family = "local"`): data, network, learning, and the widths as a plan."""

from __future__ import annotations

from typing import Literal

from qspinn.data.event_dataset import EventData
from qspinn.learning.local import LocalLearning, LocalNetwork
from qspinn.learning.local.formats import DEFAULT_PLAN
from qspinn.network import _need
from qspinn.plan import QuantPlan
from qspinn.records import Record


class LocalExperiment(Record, frozen=True):
    """Local learning of a convolutional network as one file.

    Attributes:
        plan: widths of the integer version; see `learning.local.formats` for the tensors.
    """

    name: str
    family: Literal["local"]
    data: EventData
    network: LocalNetwork
    learning: LocalLearning = LocalLearning()
    plan: QuantPlan = DEFAULT_PLAN
    seed: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        _need(0 <= self.seed < 1 << 32, "seed", self.seed, "0 <= seed < 2**32")
        _need(self.version == 1, "version", self.version, "1 (a newer file needs a newer qspinn)")

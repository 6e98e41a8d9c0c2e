"""Search space of local learning (`family = "local"`): the experiment record and its candidates.

The widths are a plan; what is tried are other widths of its kinds of tensors, see `learning.local.formats`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from qspinn.data.events.dataset import EventData
from qspinn.exploration.layered.space import synthetic
from qspinn.exploration.reward import Reward
from qspinn.exploration.scheme import SWEEP_NAMES, Scheme, Sweep, need_header
from qspinn.learning.local.formats import DEFAULT_PLAN, SPANS
from qspinn.learning.local.settings import LocalLearning
from qspinn.networks.local import LocalNetwork
from qspinn.quantization.plan import QuantPlan, need_no_options
from qspinn.records.record import Record, content_key, need

GROUPS: dict[str, tuple[str, ...]] = {
    "weight_bits": ("w",),
    "gradient_bits": ("gradient",),
    "trace_bits": ("q_trace", "p_trace"),
    "state_bits": ("u",),
    "refractory_bits": ("r",),
    "readout_bits": ("readout",),
    "error_bits": ("read", "error"),
}
"""The kinds of tensors whose width each key of a search sets."""


class LocalSweep(Sweep, frozen=True):
    """The significance sweep of local learning, one kind of tensor at a time: `[search.sweep]`. Every point is a
    training of its own.

    Attributes:
        bits: widths that are tried, all other kinds as in the plan; only those below the plan's. Empty for no sweep.
        samples: how many recordings a point learns from, and how many of validation measure it; 0 for all.
        epochs: of the training that each point is.
    """

    epochs: int = 1

    def check(self) -> None:
        super().check()
        for bits in self.bits:
            need(1 <= bits <= 16, "search.sweep.bits", bits, "1..16")
        need(self.epochs >= 1, "search.sweep.epochs", self.epochs, ">= 1")


class LocalSearch(Record, frozen=True):
    """The candidates that are tried, and how they are compared.

    Every candidate learns anew, in integers, from the start that the seed draws. Tried are the experiment's plan, the
    plan at the widths that significance finds harmless ("lean"), and from both of them every combination of the widths
    asked for here. Roundings stay those of the plan, and so does the width of the activation, which no account counts.
    Where the list of a width is empty, the width is that of the plan.

    Attributes:
        weight_bits: of w. gradient_bits: of gradient, the learned weights; at least as wide as w.
        trace_bits: of q_trace and p_trace. state_bits: of u, the potentials. refractory_bits: of r.
        readout_bits: of both random matrices. error_bits: of the values read out and the errors.
        max_drop_points: accuracy a candidate may lose against float, on validation.
        sweep: of one kind of tensor at a time.
    """

    RENAMED: ClassVar[tuple[tuple[str, str], ...]] = (
        *SWEEP_NAMES,
        ("sensitivity_samples", "sweep.samples"),
        ("sensitivity_epochs", "sweep.epochs"),
    )

    weight_bits: tuple[int, ...] = (6, 4)
    gradient_bits: tuple[int, ...] = ()
    trace_bits: tuple[int, ...] = (8,)
    state_bits: tuple[int, ...] = ()
    refractory_bits: tuple[int, ...] = ()
    readout_bits: tuple[int, ...] = ()
    error_bits: tuple[int, ...] = ()
    max_drop_points: float = 1.0
    sweep: LocalSweep = LocalSweep(bits=(8, 6, 4, 3, 2), samples=1000, harmless_points=2.0)

    def check(self) -> None:
        for name, kinds in GROUPS.items():
            low, high = (max(SPANS[k][0] for k in kinds), min(SPANS[k][1] for k in kinds))
            for bits in getattr(self, name):
                need(low <= bits <= high, f"search.{name}", bits, f"{low}..{high}")
        need(self.max_drop_points >= 0, "search.max_drop_points", self.max_drop_points, ">= 0")


class LocalExperiment(Record, frozen=True):
    """Local learning of a convolutional network as one file.

    Attributes:
        learning: `arithmetic` is for training alone; an exploration takes float for the baseline, else integers.
        plan: widths of the integer version; see `learning.local.formats` for the tensors.
    """

    name: str
    family: Literal["local"]
    data: EventData
    network: LocalNetwork
    learning: LocalLearning = LocalLearning()
    plan: QuantPlan = DEFAULT_PLAN
    search: LocalSearch = LocalSearch()
    reward: Reward = Reward()
    seed: int = 0
    version: int = 1

    def check(self) -> None:
        need_header(self.name, self.seed, self.version)
        need_no_options(self.plan, "local learning")

    def on_synthetic_data(self) -> LocalExperiment:
        """The same experiment on synthetic gestures of the same shape, named so.

        Raises:
            ConfigError: there is no synthetic data of this shape.
        """
        return msgspec.structs.replace(self, name=f"{self.name}-synthetic", data=synthetic(self.data))


class LocalCandidate(Record, frozen=True):
    """Candidate of a search: a plan to learn by and a seed. Its key is the hash of its content."""

    plan: QuantPlan
    seed: int
    label: str
    scheme: Scheme = Scheme.ITQ

    def key(self) -> str:
        """First 16 characters of the content key."""
        return content_key(self)[:16]

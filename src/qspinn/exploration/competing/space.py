"""Search space of competing populations: the experiment record, candidates, and their plans."""

from __future__ import annotations

from typing import ClassVar, Literal

from qspinn.data import DataConfig
from qspinn.exploration.reward import Reward
from qspinn.exploration.scheme import SWEEP_NAMES, Scheme, Sweep, need_header, need_some
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.training import StdpTraining
from qspinn.networks.competing import Lif, Network, Stdp
from qspinn.networks.models import diehl_cook, lif_for
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule, with_rule
from qspinn.records.record import Record, content_key, need


class NetworkConfig(Record, frozen=True):
    """The searched architecture: `models.diehl_cook` with these constants.

    Attributes:
        n_neurons: N of the baseline.
        neuron: LIF constants for every N; without them they follow N (`models.lif_for`). Given in part, the rest are
            those of `Lif`.
        stdp: the float network's learning rule; `norm` is per 784 inputs.
    """

    model: Literal["diehl_cook"] = "diehl_cook"
    n_neurons: int = 400
    n_steps: int = 250
    rate_hz: float = 128.0
    neuron: Lif | None = None
    stdp: Stdp = Stdp()
    inhibition_mv: float = 1000.0

    def check(self) -> None:
        need(1 <= self.n_neurons <= 1 << 16, "network.n_neurons", self.n_neurons, "1..65536")
        diehl_cook(1, self.n_neurons, n_steps=self.n_steps, rate_hz=self.rate_hz, inhibition_mv=self.inhibition_mv)

    def build(self, n_inputs: int, n_classes: int, n_neurons: int = 0, stdp: Stdp | None = None) -> Network:
        """The declared network for this many inputs and classes, with another N or learning rule where given."""
        n = n_neurons or self.n_neurons
        return diehl_cook(
            n_inputs,
            n,
            n_steps=self.n_steps,
            rate_hz=self.rate_hz,
            n_classes=n_classes,
            neuron=self.neuron or lif_for(n),
            stdp=stdp or self.stdp,
            inhibition_mv=self.inhibition_mv,
        )


class PtqSearch(Record, frozen=True):
    """The grid of the search: `[search.ptq]`. In-training quantization takes its widths, granularities and roundings,
    too.

    Attributes:
        weight_bits, granularities, roundings: with the schemes, their product is the grid of the search.
        state_bits: widths of potentials and thresholds tried beside the cheapest ones that significance finds harmless.
        input_rates: thresholds under which inputs are left out (spikes per step); 0 keeps all.
        hopeless_points: candidates are skipped where quantizing the weights alone loses more than this.
        adapt_samples: training images for PTQ_ADAPT; 0 for all.
    """

    weight_bits: tuple[int, ...] = (8, 4, 3, 2, 1)
    granularities: tuple[Granularity, ...] = (Granularity.GLOBAL, Granularity.PER_NEURON)
    roundings: tuple[Rounding, ...] = (Rounding.TRUNCATE, Rounding.NEAREST, Rounding.STOCHASTIC)
    state_bits: tuple[int, ...] = (16,)
    input_rates: tuple[float, ...] = (0.0, 0.003)
    hopeless_points: float = 10.0
    adapt_samples: int = 10_000

    def check(self) -> None:
        for name in ("weight_bits", "state_bits"):
            for bits in getattr(self, name):
                need(1 <= bits <= 16, f"search.ptq.{name}", bits, "1..16")
        need_some("search.ptq", self, "roundings", "weight_bits", "granularities", "input_rates")
        for name in ("hopeless_points", "adapt_samples"):
            need(getattr(self, name) >= 0, f"search.ptq.{name}", getattr(self, name), ">= 0")
        for rate in self.input_rates:
            need(0 <= rate < 1, "search.ptq.input_rates", rate, "0 <= rate < 1")
        need(
            Granularity.PER_CHANNEL not in self.granularities,
            "search.ptq.granularities",
            "per_channel",
            "global, per_neuron",
        )


class ItqSearch(Record, frozen=True):
    """STDP on the integer grid (in-training quantization, also called quantization-aware training): `[search.itq]`.

    Attributes:
        passes: passes of STDP on the grid.
        stdp: learning rule on a grid with a step per neuron, where rescaled weights do not exist; given in part, the
            rest are those of this field's default.
    """

    passes: int = 2
    stdp: Stdp = Stdp(eta_post=0.03, x_offset=0.3, bound="two_sided")

    def check(self) -> None:
        need(0 <= self.passes <= 1000, "search.itq.passes", self.passes, "0..1000")


class SearchConfig(Record, frozen=True):
    """The candidates that are tried, and how they are compared.

    Attributes:
        schemes: when quantization happens; each is tried.
        n_neurons: further network sizes that are searched together with precision, PTQ only.
        max_drop_points: accuracy a candidate may lose against float, on validation.
        assign_samples: training images on which votes are assigned; 0 for all.
        sweep, ptq, itq: the settings of each part.
    """

    RENAMED: ClassVar[tuple[tuple[str, str], ...]] = (
        *SWEEP_NAMES,
        ("sensitivity_images", "sweep.samples"),
        *((name, f"ptq.{name}") for name in PtqSearch.__struct_fields__ if name != "adapt_samples"),
        ("adapt_images", "ptq.adapt_samples"),
        ("assign_images", "assign_samples"),
        ("itq_passes", "itq.passes"),
        ("itq_stdp", "itq.stdp"),
    )

    schemes: tuple[Scheme, ...] = (Scheme.PTQ, Scheme.PTQ_ADAPT, Scheme.ITQ)
    n_neurons: tuple[int, ...] = ()
    max_drop_points: float = 0.5
    assign_samples: int = 10_000
    sweep: Sweep = Sweep(bits=(16, 12, 10, 8, 6, 5, 4, 3, 2, 1), samples=2000, harmless_points=0.25)
    ptq: PtqSearch = PtqSearch()
    itq: ItqSearch = ItqSearch()

    def check(self) -> None:
        need_some("search", self, "schemes")
        need_some("search.sweep", self.sweep, "bits")
        for bits in self.sweep.bits:
            need(1 <= bits <= 16, "search.sweep.bits", bits, "1..16")
        for name in ("max_drop_points", "assign_samples"):
            need(getattr(self, name) >= 0, f"search.{name}", getattr(self, name), ">= 0")
        for n in self.n_neurons:
            need(1 <= n <= 1 << 16, "search.n_neurons", n, "1..65536")


class Experiment(Record, frozen=True):
    """A whole exploration as one file: data, network, training, search, reward."""

    name: str
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    training: StdpTraining = StdpTraining()
    search: SearchConfig = SearchConfig()
    reward: Reward = Reward()
    seed: int = 0
    version: int = 1

    def check(self) -> None:
        need_header(self.name, self.seed, self.version)


class Candidate(Record, frozen=True):
    """Candidate of a search: a plan, a scheme, a network size and a seed. Its key is the hash of its content."""

    scheme: Scheme
    plan: QuantPlan
    n_neurons: int
    seed: int
    label: str

    def key(self) -> str:
        """First 16 characters of the content key."""
        return content_key(self)[:16]


def sensitivity_plan(base: QuantPlan, path: str, bits: int, rounding: Rounding) -> QuantPlan:
    """The wide plan with one tensor at the given width and rounding."""
    return with_rule(base, QuantRule(tensor=path, bits=bits, rounding=rounding))


def candidate_plan(
    weight_bits: int, granularity: Granularity, rounding: Rounding, states: dict[str, int], input_rate: float
) -> QuantPlan:
    """A plan for all tensors: weights as given, states at the given widths by kind, everything rounded alike.

    With a unit per neuron, v_th and theta are folded into one threshold per neuron, at the wider of their widths.
    """
    folded = granularity is Granularity.PER_NEURON
    if folded:
        states = states | {"exc.v_th": max(states["exc.v_th"], states["exc.theta"])}
    states = {"exc.x_*": 16} | states if "exc.x_pre" not in states else states
    rules = [QuantRule(tensor="exc.w", bits=weight_bits, rounding=rounding, granularity=granularity)]
    rules += [QuantRule(tensor=path, bits=bits, rounding=rounding) for path, bits in sorted(states.items())]
    return QuantPlan(rules=tuple(rules), fold_theta=folded, min_input_rate=input_rate)


def label_of(
    scheme: Scheme,
    weight_bits: int,
    granularity: Granularity,
    rounding: Rounding,
    states: str,
    input_rate: float,
    n_neurons: int,
    rates: tuple[float, ...] = (),
) -> str:
    """A short readable name, unique within a search of these input rates."""
    parts = [
        scheme.value,
        f"w{weight_bits}",
        "per-neuron" if granularity is Granularity.PER_NEURON else "global",
        rounding.value,
        states,
    ]
    if input_rate > 0:
        short = f"{input_rate:g}"
        alike = any(rate != input_rate and f"{rate:g}" == short for rate in rates)
        parts.append(f"inputs>{input_rate if alike else short}")
    return " ".join([*parts, f"N{n_neurons}"])

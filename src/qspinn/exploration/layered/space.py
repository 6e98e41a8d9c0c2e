"""Search space of layered networks: the experiment record, its candidates, and their plans."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import msgspec

from qspinn.data.catalog import entry_of
from qspinn.data.events.dataset import EventData
from qspinn.errors import ConfigError
from qspinn.exploration.reward import Reward
from qspinn.exploration.scheme import SWEEP_NAMES, Scheme, Sweep, need_header, need_some
from qspinn.fixedpoint import Rounding
from qspinn.learning.gradients.settings import Supervision
from qspinn.networks.layered import LayeredNetwork, Leaky, Shape
from qspinn.networks.models import Link, Of, chain
from qspinn.networks.published import ARCHITECTURES, NEURON, Architecture, Variant
from qspinn.networks.tensors import TensorPath
from qspinn.quantization.paths import is_weight, layer_paths, state_paths
from qspinn.quantization.plan import WIDE_BITS, Calibrator, Granularity, Levels, QuantPlan, QuantRule
from qspinn.records.record import Record, content_key, need

LEAST_BITS = 2
"""Potentials and biases have a sign and a zero; weights of one bit are binary."""
SKIP_BITS = 8
"""Of residual connections beside binary weights: one factor per channel, which binary codes could not hold."""
CURRENT_BITS = 8
"""How many more bits a synaptic current gets than the weights it is a sum of: it counts in their steps."""
Widths = dict[str, int]


class LayersConfig(Record, frozen=True):
    """The searched architecture: `models.chain` of these layers, or a published one by its name; sizes of inputs and
    classes come from the data.

    Attributes:
        architecture: see `qspinn.networks.published`; without layers.
        width: what the channels of a published architecture are multiplied by.
        neuron: of every layer that has none of its own; without it the architecture's, `Leaky()` in a chain.
        readout: what the classes are compared by, in the last layer; without it the architecture's, spikes in a chain.
    """

    layers: tuple[Link, ...] = ()
    architecture: Architecture | Literal["chain"] = "chain"
    width: float = 1.0
    neuron: Leaky | None = None
    readout: Of | None = None

    def check(self) -> None:
        need(
            (self.architecture == "chain") == bool(self.layers),
            "network.layers",
            len(self.layers),
            'at least one layer for architecture = "chain", none for the others',
        )
        need(
            self.width == 1 or self.architecture != "chain",
            "network.width",
            self.width,
            "1 in a chain, whose layers say how wide they are",
        )

    def build(
        self, shape: Shape, n_steps: int, n_classes: int, *, max_count: int, step_ms: float, name: str
    ) -> LayeredNetwork:
        """The declared network for data of this shape."""
        if self.architecture == "chain":
            return chain(
                shape,
                self.layers,
                n_classes=n_classes,
                n_steps=n_steps,
                neuron=self.neuron,
                readout=self.readout or "spikes",
                max_count=max_count,
                step_ms=step_ms,
                name=name,
            )
        return ARCHITECTURES[self.architecture](
            Variant(
                shape=shape,
                n_classes=n_classes,
                width=self.width,
                n_steps=n_steps,
                max_count=max_count,
                neuron=self.neuron or NEURON,
                readout=self.readout or "v_last",
                step_ms=step_ms,
                name=name,
            )
        )


class ItqBits(Record, frozen=True):
    """Widths of one ITQ candidate, in bits.

    Attributes:
        weights, states: of all weights, and of potentials between steps.
        first_bits, last_bits, accumulator_bits: as in `LayeredSearch`, for this candidate alone; 0: as there.
    """

    weights: int
    states: int
    first_bits: int = 0
    last_bits: int = 0
    accumulator_bits: int = 0

    def within(self, search: LayeredSearch) -> LayeredSearch:
        """The search as it holds for this candidate."""
        changed = {f: getattr(self, f) or getattr(search, f) for f in ("first_bits", "last_bits", "accumulator_bits")}
        return msgspec.structs.replace(search, **changed)


class LayeredPtq(Record, frozen=True):
    """Post-training quantization: `[search.ptq]`.

    Attributes:
        weight_bits, state_bits, roundings, granularities: their product, with state widths that significance finds
            harmless ("lean") beside state_bits, is the grid. Where potentials are read out, the weights of the last
            layer have one step for all.
        weight_calibrator, state_calibrator, quantile: which weight, and which potential on calibration data, counts as
            the largest. See `plan.Calibrator`.
        hopeless_points: candidates are skipped where quantizing some weights alone loses more than this.
    """

    weight_bits: tuple[int, ...] = (8, 6, 4, 3, 2)
    state_bits: tuple[int, ...] = (12, 8)
    roundings: tuple[Rounding, ...] = (Rounding.NEAREST, Rounding.TRUNCATE)
    granularities: tuple[Granularity, ...] = (Granularity.PER_CHANNEL, Granularity.GLOBAL)
    weight_calibrator: Calibrator = Calibrator.MSE
    state_calibrator: Calibrator = Calibrator.PERCENTILE
    quantile: float = 0.97
    hopeless_points: float = 20.0

    def check(self) -> None:
        where = "search.ptq"
        need_some(where, self, "roundings", "weight_bits", "granularities")
        _need_widths(f"{where}.weight_bits", self.weight_bits, 1)
        _need_widths(f"{where}.state_bits", self.state_bits, LEAST_BITS)
        need(self.hopeless_points >= 0, f"{where}.hopeless_points", self.hopeless_points, ">= 0")
        need(
            self.state_calibrator is not Calibrator.MEAN_ABS,
            f"{where}.state_calibrator",
            "mean_abs",
            "max, percentile, mse",
        )
        _need_calibrator(f"{where}.weight_calibrator", self.weight_calibrator)
        _need_quantile(f"{where}.quantile", self.quantile)
        need(
            Granularity.PER_NEURON not in self.granularities,
            f"{where}.granularities",
            "per_neuron",
            "per_channel, global",
        )


class LayeredItq(Record, frozen=True):
    """In-training quantization (quantization-aware training, QAT) that goes on from the float network: `[search.itq]`.

    Attributes:
        bits: (weights, states) of the candidates, with the first granularity of `[search.ptq]`; or these two by name,
            with a first_bits, last_bits or accumulator_bits of its own, see `ItqBits`.
        roundings: how states are rounded, each tried; what is trained is rounded to nearest.
        calibrator, quantile: as in `[search.ptq]`. Training learns to do without large potentials (a quantile near 0
            leaves the threshold as the largest).
        epochs, learning_rate: of the training; the rest is as in float training.
        spike_regulation: in place of that of float training; see `Supervision`.
        distillation, temperature: how far training follows the float network's answers instead of the labels; see
            `Supervision`.
        estimator: gradient of binary and ternary weights; see `learning.gradients.quantized.prepare`.
    """

    bits: tuple[tuple[int, int] | ItqBits, ...] = ((4, 8), (3, 6), (2, 4))
    roundings: tuple[Rounding, ...] = (Rounding.TRUNCATE,)
    calibrator: Calibrator = Calibrator.MSE
    quantile: float = 0.3
    epochs: int = 6
    learning_rate: float = 3e-3
    spike_regulation: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0
    estimator: Literal["straight_through", "annealed"] = "straight_through"

    def check(self) -> None:
        where, points = "search.itq", self.points
        need_some(where, self, "roundings")
        _need_widths(f"{where}.bits", [p.weights for p in points], 1)
        _need_widths(f"{where}.bits", [p.states for p in points], LEAST_BITS)
        for p in points:
            _need_exceptions(f"{where}.bits", p)
            need(
                p.accumulator_bits == 0 or p.accumulator_bits >= p.states,
                f"{where}.bits",
                p.accumulator_bits,
                f"accumulator_bits of 0, or at least the {p.states} bits of states",
            )
        _need_calibrator(f"{where}.calibrator", self.calibrator)
        _need_quantile(f"{where}.quantile", self.quantile)
        need(0 <= self.epochs <= 10_000, f"{where}.epochs", self.epochs, "0..10000")
        need(0 < self.learning_rate <= 1e3, f"{where}.learning_rate", self.learning_rate, "above 0, at most 1000")
        need(self.spike_regulation >= 0, f"{where}.spike_regulation", self.spike_regulation, ">= 0; 0 for none")
        need(0 <= self.distillation <= 1, f"{where}.distillation", self.distillation, "0..1; 0 for none")
        need(self.temperature > 0, f"{where}.temperature", self.temperature, "> 0")

    @property
    def points(self) -> tuple[ItqBits, ...]:
        """`bits`, all of them by name."""
        return tuple(p if isinstance(p, ItqBits) else ItqBits(weights=p[0], states=p[1]) for p in self.bits)


def _need_widths(where: str, widths: Iterable[int], least: int) -> None:
    for bits in widths:
        need(least <= bits <= WIDE_BITS, where, bits, f"{least}..{WIDE_BITS}")


def _need_exceptions(where: str, of: LayeredSearch | ItqBits) -> None:
    """Widths of the first and last layer's weights and of accumulators, where they are not 0."""
    _need_widths(f"{where}.first_bits", [of.first_bits or 1], 1)
    _need_widths(f"{where}.last_bits", [of.last_bits or 1], 1)
    _need_widths(f"{where}.accumulator_bits", [of.accumulator_bits or LEAST_BITS], LEAST_BITS)


def _need_calibrator(where: str, calibrator: Calibrator) -> None:
    need(calibrator is not Calibrator.THRESHOLD, where, "threshold", "max, percentile, mse, mean_abs")


def _need_quantile(where: str, quantile: float) -> None:
    need(0 < quantile <= 1, where, quantile, "above 0, at most 1")


class LayeredSearch(Record, frozen=True):
    """The candidates that are tried, and how they are compared.

    Attributes:
        schemes: PTQ and ITQ, here training that goes on from the float network with quantization in the loop.
        max_drop_points: accuracy a candidate may lose against float, on validation.
        calibration_samples: training samples from which ranges are taken; 0 for all.
        constant_bits: least width of thresholds, decays and biases beside states of a given width: there are few.
        first_bits, last_bits: width of the first and last layer's weights in every candidate; 0: as the others.
        accumulator_bits: width in which a step computes potentials, where they are kept in fewer bits; 0: as they are
            kept. See `plan.QuantRule`.
        standardize, power_of_two: for binary and ternary weights; see `plan.QuantRule`. Weights of one bit are binary.
        ternary_weights, ternary_states: weights, and what is kept of potentials, at 2 bits are -1, 0 and +1.
        shared_step: potentials count in steps of the weights themselves.
        sweep, ptq, itq: the settings of each part.
    """

    RENAMED: ClassVar[tuple[tuple[str, str], ...]] = (
        *SWEEP_NAMES,
        ("sensitivity_samples", "sweep.samples"),
        *((name, f"ptq.{name}") for name in LayeredPtq.__struct_fields__),
        *((f"itq_{name}", f"itq.{name}") for name in LayeredItq.__struct_fields__),
    )

    schemes: tuple[Scheme, ...] = (Scheme.PTQ, Scheme.ITQ)
    max_drop_points: float = 1.0
    calibration_samples: int = 500
    constant_bits: int = 10
    first_bits: int = 0
    last_bits: int = 0
    accumulator_bits: int = 0
    standardize: bool = True
    power_of_two: bool = False
    ternary_weights: bool = False
    ternary_states: bool = False
    shared_step: bool = False
    sweep: Sweep = Sweep(bits=(16, 12, 10, 8, 6, 5, 4, 3, 2), samples=1000, harmless_points=0.5)
    ptq: LayeredPtq = LayeredPtq()
    itq: LayeredItq = LayeredItq()

    def check(self) -> None:
        need_some("search", self, "schemes")
        need(Scheme.PTQ_ADAPT not in self.schemes, "search.schemes", "ptq_adapt", "ptq, itq")
        need_some("search.sweep", self.sweep, "bits")
        _need_widths("search.sweep.bits", self.sweep.bits, LEAST_BITS)
        _need_widths("search.constant_bits", [self.constant_bits], LEAST_BITS)
        _need_exceptions("search", self)
        for name in ("max_drop_points", "calibration_samples"):
            need(getattr(self, name) >= 0, f"search.{name}", getattr(self, name), ">= 0")


class LayeredExperiment(Record, frozen=True):
    """A whole exploration of a layered network as one file: data, network, training, search, reward."""

    name: str
    family: Literal["layers"]
    data: EventData
    network: LayersConfig
    training: Supervision = Supervision()
    search: LayeredSearch = LayeredSearch()
    reward: Reward = Reward()
    seed: int = 0
    version: int = 1

    def check(self) -> None:
        need_header(self.name, self.seed, self.version)

    def on_synthetic_data(self) -> LayeredExperiment:
        """The same experiment on synthetic gestures of the same shape, named so.

        Raises:
            ConfigError: there is no synthetic data of this shape.
        """
        return msgspec.structs.replace(self, name=f"{self.name}-synthetic", data=synthetic(self.data))


def synthetic(data: EventData) -> EventData:
    """Synthetic gestures in place of recorded ones.

    Raises:
        ConfigError: there are none of this kind.
    """
    name = entry_of("events", data.name).synthetic
    if not name:
        raise ConfigError(
            "--synthetic",
            "there are no synthetic data of this kind",
            got=data.title,
            allowed="experiments on dvs_gesture",
        )
    return msgspec.structs.replace(data, name=name, folder="", on_error="stop")


class LayeredCandidate(Record, frozen=True):
    """Candidate of a search: a plan, a scheme and a seed. Its key is the hash of its content."""

    scheme: Scheme
    plan: QuantPlan
    seed: int
    label: str

    def key(self) -> str:
        """First 16 characters of the content key."""
        return content_key(self)[:16]


def layers_plan(
    network: LayeredNetwork,
    weights: Widths,
    states: Widths,
    rounding: Rounding,
    granularity: Granularity,
    search: LayeredSearch,
    scheme: Scheme = Scheme.PTQ,
) -> QuantPlan:
    """A plan for all tensors of a network: the one place where rules for layers are made.

    Args:
        weights, states: width of each path; weights of both kinds of connection, everything else in states.
    """
    in_training = scheme is Scheme.ITQ
    of_weights = search.itq.calibrator if in_training else search.ptq.weight_calibrator
    rules = []
    for path in layer_paths(network):
        tensor, bits = TensorPath.of(path), weights[path] if path in weights else states[path]
        levels = _levels(tensor, bits, search)
        uniform = levels.get("levels", Levels.UNIFORM) is Levels.UNIFORM
        calibrator = of_weights if tensor.is_weight and uniform else Calibrator.MAX
        calibrator = search.ptq.state_calibrator if tensor.kind == "v" else calibrator
        if calibrator is Calibrator.PERCENTILE:
            levels["quantile"] = search.itq.quantile if in_training else search.ptq.quantile
        rules.append(
            QuantRule(
                tensor=path,
                bits=bits,
                **levels,
                rounding=Rounding.NEAREST if in_training and tensor.kind not in ("v", "i") else rounding,
                granularity=step_of(network, tensor, granularity),
                calibrator=calibrator,
            )
        )
    return QuantPlan(rules=tuple(rules))


def _levels(tensor: TensorPath, bits: int, search: LayeredSearch) -> dict[str, Any]:
    """The keys of a rule that only some weights and potentials have."""
    if tensor.is_weight:
        levels = Levels.BINARY if bits == 1 else Levels.TERNARY if bits == 2 and search.ternary_weights else None
        return (
            {}
            if levels is None
            else {"levels": levels, "standardize": search.standardize, "power_of_two": search.power_of_two}
        )
    if tensor.kind != "v":
        return {}
    levels = Levels.TERNARY if bits == 2 and search.ternary_states else Levels.UNIFORM
    return {
        "levels": levels,
        "shared_step": search.shared_step,
        "accumulator_bits": search.accumulator_bits if bits < search.accumulator_bits else 0,
    }


def step_of(network: LayeredNetwork, tensor: TensorPath, granularity: Granularity) -> Granularity:
    """The granularity that weights can have: one step for all where potentials are compared, and of skips."""
    compared = network.readout.of != "spikes" and tensor.layer == network.readout.source
    return Granularity.GLOBAL if compared or not tensor.is_weight else granularity


def wide_weights(network: LayeredNetwork) -> Widths:
    """The widths under which a sweep leaves the weights: all bits there are, less what a current's sum needs."""
    return {
        network.weight_path(c): WIDE_BITS - (CURRENT_BITS if layer.neuron.current_decay is not None else 0)
        for layer in network.layers
        for c in network.into(layer.name)
    }


def weight_widths(network: LayeredNetwork, bits: int, search: LayeredSearch) -> Widths:
    """The width of all weights, with the exceptions for the first and the last layer."""
    first, last = network.layers[0].name, network.readout.source
    exceptions = {first: search.first_bits, last: search.last_bits}
    widths = {
        network.weight_path(c): exceptions.get(layer.name, 0) or bits
        for layer in network.layers
        for c in network.into(layer.name)
    }
    return {path: SKIP_BITS if width == 1 and not is_weight(path) else width for path, width in widths.items()}


def state_widths(network: LayeredNetwork, bits: int, weights: Widths, constant_bits: int) -> Widths:
    """Widths of the states: one for all potentials, constants at least as wide as given; currents have as many more
    bits than weights as their sums need."""
    widest = {
        layer.name: max(weights[network.weight_path(c)] for c in network.into(layer.name)) for layer in network.layers
    }
    widths = dict.fromkeys(state_paths(network), max(bits, constant_bits))
    for path in widths:
        tensor = TensorPath.of(path)
        if tensor.kind == "v":
            widths[path] = bits
        if tensor.kind == "i":
            widths[path] = min(WIDE_BITS, max(bits, widest[tensor.layer] + CURRENT_BITS))
    return widths


def label_of(
    scheme: Scheme, bits: int, states: str, rounding: Rounding, granularity: Granularity, search: LayeredSearch
) -> str:
    """A short readable name, unique within a search."""
    parts = [
        scheme.value,
        f"w{bits}",
        "per-channel" if granularity is Granularity.PER_CHANNEL else "global",
        rounding.value,
        states,
    ]
    parts += [f"{name}{width}" for name, width in (("first", search.first_bits), ("last", search.last_bits)) if width]
    return " ".join(parts)

"""The part of the page that is about layered networks: rates, widths and memory layer by layer, first kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from qspinn import program as program_file
from qspinn.exploration.scheme import Scheme
from qspinn.memory import MemoryRow
from qspinn.networks import checkpoint
from qspinn.networks.checkpoint import TrainedLayers
from qspinn.networks.layered import Conv2d, Layer, LayeredNetwork
from qspinn.networks.tensors import TensorPath
from qspinn.program import Program
from qspinn.quantization.paths import is_weight, layer_paths
from qspinn.quantization.plan import Granularity, QuantPlan, chosen_rules
from qspinn.report import svg, words
from qspinn.report.images import Field, image, shown
from qspinn.report.plots import NARROW, WIDE
from qspinn.report.source import Point, Source
from qspinn.report.svg import Scale

TEMPLATE = "layered.html.j2"
SCHEME_MEANING = {
    Scheme.PTQ: "quantized after float training, in one go",
    Scheme.ITQ: "trained on from the float network with quantization in the loop",
}


def view(source: Source, family_facts: Layers) -> dict[str, Any]:
    """Variables of the template besides those of all families."""
    before, after = kernel_images(family_facts)
    return {
        "noun": "recordings",
        "winner_text": winner_text(source, family_facts),
        "caution": caution(source),
        "sizes": (family_facts.n_neurons, family_facts.n_neurons),
        "float_texts": [words.float_text(f) for f in source.float_networks],
        "n_swept": source.experiment.search.sweep.samples,
        "cost": "inference",
        "swept_text": words.SWEPT,
        "own_title": "Layer by layer",
        "rows": [_row(f) for f in family_facts.facts],
        "kinds": _kinds(family_facts.facts),
        "kernels_before": before,
        "kernels_after": after,
        "n_kernels": len(family_facts.before),
        "rates": Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(
            rates(family_facts.facts, WIDE), rates(family_facts.facts, NARROW)
        ),
        "training": history(source.winner.trained_rates),
    }


def winner_text(source: Source, family_facts: Layers) -> str:
    """Sentence that describes the winner."""
    p = source.winner
    weights = [bits for f in family_facts.facts for name, bits in f.widths.items() if is_weight(name)]
    states = [f.widths["v"] for f in family_facts.facts]
    return (
        f"The winner is {words.SCHEMES[p.candidate.scheme]}, {SCHEME_MEANING[p.candidate.scheme]}: "
        f"{words.width_text(weights)} weights ({words.GRANULARITIES[p.weights.granularity]}), "
        f"{words.width_text(states)} potentials, {words.ROUNDINGS[p.weights.rounding]} rounding, "
        f"{words.count_text(family_facts.n_neurons)} neurons in {len(family_facts.facts)} layers."
    )


def caution(source: Source) -> str:
    """Sentence on differences of the comparison besides precision; empty where there are none."""
    if source.winner.candidate.scheme is not Scheme.ITQ:
        return ""
    return (
        f"The difference is not the effect of precision alone: the winner was trained for {source.winner.epochs} "
        "more epochs than the baseline."
    )


def _kinds(facts: Sequence[LayerFacts]) -> list[str]:
    """Kinds of tensors in any layer, in the order in which they occur."""
    return list(dict.fromkeys(kind for f in facts for kind in f.widths))


def _row(f: LayerFacts) -> dict[str, Any]:
    return {
        "name": f.name,
        "shape": " × ".join(map(str, f.shape)),
        "widths": f.widths,
        "float_rate": f.float_rate,
        "rate": f.rate,
        "drift": f.drift,
        "float_bits": f.float_bits,
        "bits": f.bits,
        "factor": words.factor_text(f.float_bits, f.bits),
    }


def rates(facts: Sequence[LayerFacts], width: int) -> Markup:
    """Spikes per neuron and step of each layer, float and winner on one line."""
    spiking = [(f, f.float_rate, f.rate) for f in facts if f.float_rate is not None and f.rate is not None]
    step, margin = 36, 128
    height = step * len(spiking) + 56
    high = max((max(a, b) for _, a, b in spiking), default=0.0) * 1.1 or 1.0
    x = Scale(low=0.0, high=high, start=margin, end=width - 24)
    bottom = height - 44
    content = [svg.text((x.start + x.end) / 2, height - 4, "spikes per neuron and step", "axis", "middle")]
    for tick in svg.nice_ticks(0.0, high, 5):
        content += [
            svg.line(x.at(tick), 2, x.at(tick), bottom, "grid"),
            svg.text(x.at(tick), bottom + 18, f"{tick:g}", "tick", "middle"),
        ]
    for i, (f, a, b) in enumerate(spiking):
        y = step * i + step / 2 + 2
        content += [svg.text(x.start - 12, y + 4, f.name, "row", "end"), svg.line(x.at(a), y, x.at(b), y, "link")]
        for name, rate, class_ in (("float", a, "dot-float"), ("winner", b, "dot-winner")):
            tip = f"{f.name}, {name}\n{words.three(rate)} spikes per neuron and step"
            content.append(svg.tag("circle", cx=x.at(rate), cy=float(y), r=6.5, class_=class_, data_tip=tip))
    return svg.picture(width, height, "Spikes per neuron and step of each layer, float and winner", *content)


def history(rates: Mapping[str, Sequence[float]]) -> Markup:
    """Spikes per neuron and step of each layer, epoch by epoch of training with quantization in the loop; empty of
    fewer than two epochs."""
    n = max((len(line) for line in rates.values()), default=0)
    if n < 2:
        return Markup("")
    width, height, high = NARROW, 260, max(0.01, *(max(line) for line in rates.values())) * 1.1
    x = Scale(low=1, high=n, start=52, end=width - 84)
    y = Scale(low=0.0, high=high, start=height - 44, end=12)
    content = [svg.text((x.start + x.end) / 2, height - 4, "epoch", "axis", "middle")]
    for tick in svg.nice_ticks(0.0, high, 4):
        content += [
            svg.line(x.start, y.at(tick), x.end, y.at(tick), "grid"),
            svg.text(x.start - 8, y.at(tick) + 4, f"{tick:g}", "tick", "end"),
        ]
    content += [svg.text(x.at(k), y.start + 18, f"{k}", "tick", "middle") for k in (1, n)]
    for name, line in rates.items():
        content += [
            svg.path([(x.at(k + 1), y.at(rate)) for k, rate in enumerate(line)], "trace"),
            svg.text(x.end + 6, y.at(line[-1]) + 4, name, "row"),
        ]
        content += [
            svg.tag(
                "circle",
                cx=x.at(k + 1),
                cy=y.at(rate),
                r=3.5,
                class_="dot-winner",
                data_tip=f"{name}, epoch {k + 1}\n{words.three(rate)} spikes per neuron and step",
            )
            for k, rate in enumerate(line)
        ]
    return svg.picture(width, height, "Spikes per neuron and step of each layer in every epoch of training", *content)


def kernel_images(family_facts: Layers) -> tuple[list[Field], list[Field]]:
    """The first layer's kernels before and after, the same ones in the same order."""
    chosen = shown(len(family_facts.before)) if len(family_facts.before) else []
    return [
        [image(signed_grey(kernels[k]), family_facts.names[k]) for k in chosen]
        for kernels in (family_facts.before, family_facts.after)
    ]  # type: ignore[return-value]


def signed_grey(weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Weights as 0..255: zero is middle grey, the largest size black or white."""
    top = max(float(np.abs(weights).max()), 1e-12)
    return np.rint((weights / top + 1) * 127.5).astype(np.uint8)


def read(folder: Path, facts: dict[str, Any], model: Path) -> tuple[Layers, int]:
    """Facts on the winner's layers, and 0: nothing is learned on the device."""
    program = program_file.load(model)
    trained = checkpoint.load_layers(folder / "float" / "layers.safetensors")
    winner: Point = facts["winner"]
    return layers_of(
        trained,
        program,
        winner.candidate.plan,
        winner.rates,
        facts["float_networks"][0].rates,
        facts["float_memory"],
        winner.memory,
    ), 0


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Layer of the winner beside the float network.

    Attributes:
        widths: bits of every kind of tensor (w, v, v_th, ...) in the winner's plan.
        float_rate, rate: spikes per neuron and step on validation; None where nothing spikes.
        float_bits, bits: memory of all its tensors and states.
    """

    name: str
    shape: tuple[int, int, int]
    widths: dict[str, int]
    float_rate: float | None
    rate: float | None
    float_bits: int
    bits: int

    @property
    def drift(self) -> float | None:
        """Difference of the winner's rate from float's, as a share of float's."""
        if not self.float_rate or self.rate is None:
            return None
        return self.rate / self.float_rate - 1


class Layers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All layers, and first-layer kernels as numbers [n, height, width], float and codes; empty without a convolution.

    Attributes:
        names: of the kernels.
    """

    network: LayeredNetwork
    facts: tuple[LayerFacts, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    names: tuple[str, ...]

    @property
    def n_neurons(self) -> int:
        """Number of neurons of all layers."""
        return sum(layer.n for layer in self.network.layers)


def layers_of(
    trained: TrainedLayers,
    program: Program,
    plan: QuantPlan,
    rates: Mapping[str, float],
    float_rates: Mapping[str, float],
    float_memory: Iterable[MemoryRow],
    memory: Iterable[MemoryRow],
) -> Layers:
    """The facts of a run's winner.

    Raises:
        LookupError, ValueError: the parts do not fit each other.
    """
    network = trained.network
    paths = layer_paths(network)
    rules = chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL)
    old, new = _by_layer(float_memory), _by_layer(memory)
    facts = tuple(
        LayerFacts(
            name=layer.name,
            shape=layer.shape,
            float_bits=old[layer.name],
            bits=new[layer.name],
            widths={
                tensor.name: rule.bits
                for path, rule in rules.items()
                if (tensor := TensorPath.of(path)).layer == layer.name
            },
            float_rate=float_rates[layer.name] if layer.neuron.spiking else None,
            rate=rates[layer.name] if layer.neuron.spiking else None,
        )
        for layer in network.layers
    )
    return Layers(network=network, facts=facts, **_kernels(trained, program))


def _by_layer(rows: Iterable[MemoryRow]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in rows:
        name = TensorPath.of(row.path).layer
        totals[name] = totals.get(name, 0) + row.total_bits
    return totals


def _kernels(trained: TrainedLayers, program: Program) -> dict[str, Any]:
    """Kernels of the first layer: one for each pair of output and input channel."""
    layer: Layer = trained.network.layers[0]
    first = [c for c in trained.network.into(layer.name) if isinstance(c, Conv2d) and c.source == "input"]
    if not first:
        return {"before": np.zeros((0, 1, 1)), "after": np.zeros((0, 1, 1)), "names": ()}
    path = trained.network.weight_path(first[0])
    before, after = _folded(trained, path), program.codes(path).astype(np.float64)
    names = tuple(f"channel {o} from {i}" for o in range(before.shape[0]) for i in range(before.shape[1]))
    return {
        "before": before.reshape(-1, *before.shape[2:]),
        "after": after.reshape(-1, *after.shape[2:]),
        "names": names,
    }


def _folded(trained: TrainedLayers, path: str) -> NDArray[np.float64]:
    """Weights times the factor of their batch normalization, where they have one."""
    key = path.replace(".", "__")
    w = trained.params[key].astype(np.float64)
    gain = trained.params.get(f"norms.{key}.weight")
    if gain is None:
        return w
    factor = gain / np.sqrt(trained.params[f"norms.{key}.running_var"] + 1e-5)
    return w * factor.reshape(-1, 1, 1, 1)

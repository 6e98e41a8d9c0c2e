"""Locally learning layers from start to end: trained on a data set, declared for their file, and restored from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.data.events.dataset import EventDataset
from qspinn.data.events.event_set import EventSet
from qspinn.errors import ArtifactError, ConfigError, DataError
from qspinn.learning.local.formats import local_rules
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, drawn_layers, start_of
from qspinn.learning.local.training import Layers, Progress, answers, fit, layers_of
from qspinn.networks import parameters
from qspinn.networks.checkpoint import Arrays, read
from qspinn.networks.layered import Shape
from qspinn.networks.local import LocalNetwork, sizes_of
from qspinn.networks.parameters import SPAN_64, Expected
from qspinn.quantization.plan import QuantPlan
from qspinn.records.record import Record, content_key, from_plain, need, plain_table


def trained_layers(
    dataset: EventDataset,
    network: LocalNetwork,
    learning: LocalLearning,
    plan: QuantPlan,
    seed: int = 0,
    *,
    n_threads: int = 0,
    progress: Progress | None = None,
    resume: Path | None = None,
) -> tuple[Layers, LocalDeclaration]:
    """Layers trained on the training split of a data set, and their declaration; arguments and errors as for
    `training.layers_of` and `training.fit`."""
    start = start_of(
        network, dataset.train, len(dataset.labels), step_ms=dataset.bin_ms, burn_in=learning.burn_in, seed=seed
    )
    return trained_from(
        start,
        dataset.train,
        dataset.bin_ms,
        network,
        learning,
        plan,
        seed,
        n_threads=n_threads,
        progress=progress,
        resume=resume,
    )


def trained_from(
    start: tuple[LayerStart, ...],
    train: EventSet,
    step_ms: float,
    network: LocalNetwork,
    learning: LocalLearning,
    plan: QuantPlan,
    seed: int = 0,
    *,
    n_threads: int = 0,
    progress: Progress | None = None,
    resume: Path | None = None,
) -> tuple[Layers, LocalDeclaration]:
    """The same from layers that `start_of` made for this network, seed and length of a step [ms]."""
    layers = layers_of(network, learning, start, plan, seed=seed, n_threads=n_threads)
    declared = LocalDeclaration(
        network=network,
        learning=learning,
        plan=plan,
        shape=train.shape,
        n_classes=len(start[0].readout),
        step_ms=step_ms,
        seed=seed,
        scales=tuple(layer.scale for layer in start),
    )
    fit(layers, train, learning, seed=seed, progress=progress, checkpoint=resume, origin=content_key(declared))
    return layers, declared


def restored(trained: TrainedLocal, *, n_threads: int = 0) -> Layers:
    """The layers of a checkpoint: what was random is drawn again from the seed, what was learned is put back.

    Raises:
        ArtifactError: arrays are missing or do not fit the declaration.
    """
    declared = trained.network
    drawn = drawn_layers(declared.network, declared.shape, declared.n_classes, declared.step_ms, declared.seed)
    try:
        start = tuple(
            msgspec.structs.replace(layer, scale=scale) for layer, scale in zip(drawn, declared.scales, strict=True)
        )
        layers = layers_of(
            declared.network, declared.learning, start, declared.plan, seed=declared.seed, n_threads=n_threads
        )
        layers.put_back(trained.params)
    except (KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise ArtifactError("checkpoint", "does not fit its own declaration", got=str(error)[:120]) from None
    return layers


def predictions(layers: Layers, data: EventSet, declared: LocalDeclaration) -> tuple[NDArray[np.int64], float]:
    """Class of every recording [B], and spikes per recording.

    Raises:
        DataError: the events do not fit the layers.
    """
    if data.shape != declared.shape:
        raise DataError("events", "do not fit the layers", got=data.shape, allowed=str(declared.shape))
    return answers(layers, data, declared.network.prediction, declared.learning.burn_in)


class LocalDeclaration(Record, frozen=True):
    """Declaration that locally learned arrays belong to: network, learning, plan, shape, classes, scales.

    Attributes:
        shape: of the input; step_ms: length of a step.
        scales: of the layers, as their calibration chose them.
    """

    network: LocalNetwork
    learning: LocalLearning
    plan: QuantPlan
    shape: Shape
    n_classes: int
    step_ms: float
    seed: int
    scales: tuple[int, ...]

    def check(self) -> None:
        need(min(self.shape) >= 1, "shape", self.shape, "positive")
        need(self.n_classes >= 1, "n_classes", self.n_classes, ">= 1")
        need(self.step_ms > 0, "step_ms", self.step_ms, "> 0")
        need(0 <= self.seed < 1 << 32, "seed", self.seed, "0 <= seed < 2**32")
        need(len(self.scales) == len(self.network.layers), "scales", self.scales, "one for each layer")


class TrainedLocal(Arrays, frozen=True, kw_only=True, eq=False):
    """Layers that learned locally and the arrays that learning changed: float32, or integer codes of the plan.

    Attributes:
        provenance: where it comes from, as plain data: the experiment, and of an exploration the candidate.

    Raises:
        DataError: an array is missing, none of these layers', of another shape, not finite, or a code out of its range.
        ConfigError: the provenance cannot be written as JSON.
    """

    FAMILY: ClassVar[str] = "local"

    network: LocalDeclaration
    provenance: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.network) is not LocalDeclaration:
            raise ConfigError(
                "network",
                "is no declaration of local layers",
                got=type(self.network).__name__,
                allowed="LocalDeclaration",
            )
        self.need_whole()
        msgspec.structs.force_setattr(self, "params", parameters.native(self.params))
        msgspec.structs.force_setattr(self, "provenance", plain_table(self.provenance, "provenance"))

    def expected(self) -> dict[str, Expected]:
        """Requirements on the arrays by path."""
        declared = self.network
        return of_local(declared.network, declared.learning, declared.plan, declared.shape)


def load_local(path: str | Path) -> TrainedLocal:
    """The checkpoint of locally learned layers at path; errors as for `load`."""
    return read(
        path,
        lambda entry, params: TrainedLocal(
            network=from_plain(LocalDeclaration, entry["network"], "network"),
            params=params,
            provenance=dict(entry.get("provenance", {})),
        ),
        TrainedLocal.FAMILY,
    )


CODES_16 = (-(1 << 15), (1 << 15) - 1)


def of_local(
    network: LocalNetwork, learning: LocalLearning, plan: QuantPlan, shape: tuple[int, int, int]
) -> dict[str, Expected]:
    """Arrays of layers that learn locally, in the arithmetic that they learn in: weights `<layer>.w` [C_out, C_in, k,
    k] and biases `<layer>.b` [C_out], with the state of the optimizer or of the integer updates."""
    sizes = sizes_of(network, shape)
    expected: dict[str, Expected] = {}
    integer = learning.arithmetic == "integer"
    rules = local_rules(plan, [size.name for size in sizes]) if integer else {}
    if integer:
        expected["n_updates"] = Expected(((1,),), low=0, high=SPAN_64[1], whole=True)
    for size in sizes:
        c_out, kernel = size.target[0], size.layer.kernel
        of_w, of_b = ((c_out, size.source[0], kernel, kernel),), ((c_out,),)
        if not integer:
            expected |= {
                f"{size.name}.w": Expected(of_w),
                f"{size.name}.b": Expected(of_b),
                f"{size.name}.w_size": Expected(of_w, low=0.0),
                f"{size.name}.b_size": Expected(of_b, low=0.0),
            }
            continue
        top = (1 << (rules[f"{size.name}.gradient"].bits - 1)) - 1
        expected |= {
            f"{size.name}.{kind}": Expected(shapes, low=-top, high=top, whole=True)
            for kind, shapes in (("w", of_w), ("b", of_b))
        }
        expected[f"{size.name}.e_exponent"] = Expected(((1,),), low=CODES_16[0], high=CODES_16[1], whole=True)
    return expected

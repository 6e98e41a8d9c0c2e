"""Layered networks that learn by gradients: their part of an exploration, see `family.Family`. Needs the torch extra.

Splits are memory-mapped event lists; a worker keeps the float module, its ranges, and the spikes of layers that
candidates have in common.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import former
from qspinn.data import EventDataset, EventSet, load_recordings
from qspinn.exploration import event_splits
from qspinn.exploration.artifacts import PROGRAM, from_start_if_damaged, readable
from qspinn.exploration.event_splits import mapped
from qspinn.exploration.family import Files
from qspinn.exploration.layered import proposal as layered_proposal
from qspinn.exploration.layered.reuse import Reuse
from qspinn.exploration.layered.space import LayeredCandidate, LayeredExperiment
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.sensitivity import Significance, significance
from qspinn.learning.device import one_thread
from qspinn.learning.gradients import quantized
from qspinn.learning.gradients.surrogate import SurrogateNet, frozen, restored
from qspinn.learning.gradients.training import Progress, fit, layer_ranges, responses, scores
from qspinn.memory import MemoryAccount, float_layers_account
from qspinn.networks import checkpoint
from qspinn.networks.layered import LayeredNetwork
from qspinn.program import Program
from qspinn.program.ops import LifOp
from qspinn.quantization.layered import lower_layers
from qspinn.records.record import to_plain
from qspinn.runtime import run

LIBRARIES = ("numpy", "numba", "torch")
STORED = PROGRAM
describe = event_splits.describe


class Measurement(msgspec.Struct, kw_only=True, eq=False):
    """Measurement of candidates; the float network is read when first needed.

    Attributes:
        learned, per_step: what training takes, see `EventDataset.learned`.
    """

    folder: Path
    experiment: LayeredExperiment
    labels: tuple[str, ...]
    train: EventSet
    validation: EventSet
    learned: EventSet
    per_step: int
    max_count: int
    bin_ms: float
    reuse: Reuse
    known: dict[str, Any]

    def network(self) -> LayeredNetwork:
        """The declared network."""
        return self.experiment.network.build(
            self.train.shape,
            self.train.n_steps,
            len(self.labels),
            max_count=self.max_count,
            step_ms=self.bin_ms,
            name=self.experiment.name,
        )

    def float_net(self) -> SurrogateNet:
        """The trained float network, from the run's folder."""
        if "net" not in self.known:
            self.known["net"] = restored(checkpoint.load_layers(float_path(self.folder)))
        net: SurrogateNet = self.known["net"]
        return net

    def ranges(self) -> Any:
        """Ranges of the float network on the first training samples, for lowering."""
        if "ranges" not in self.known:
            n = self.experiment.search.calibration_samples or self.train.n_samples
            with one_thread():  # so that every worker finds the same
                self.known["ranges"] = layer_ranges(self.float_net(), self.train.slice(0, min(n, self.train.n_samples)))
        return self.known["ranges"]

    def float_rates(self) -> dict[str, float]:
        """Spikes per neuron and step of the float network's layers on validation."""
        if "rates" not in self.known:
            with one_thread():
                self.known["rates"] = responses(self.float_net(), self.validation)[1]
        rates: dict[str, float] = self.known["rates"]
        return rates


def float_path(folder: Path, task: None = None) -> Path:
    """Checkpoint of the float network in a run's folder."""
    return folder / "float" / "layers.safetensors"


def load(experiment: LayeredExperiment) -> EventDataset:
    """Data set of an experiment."""
    return load_recordings(experiment.data)


def account(experiment: LayeredExperiment, dataset: EventDataset) -> MemoryAccount:
    """Memory of the float baseline."""
    return float_layers_account(declared(experiment, dataset))


def declared(experiment: LayeredExperiment, dataset: EventDataset) -> LayeredNetwork:
    """The network that the experiment declares for its data."""
    return experiment.network.build(
        dataset.shape,
        dataset.n_steps,
        len(dataset.labels),
        max_count=dataset.max_count,
        step_ms=dataset.bin_ms,
        name=experiment.name,
    )


def float_tasks(experiment: LayeredExperiment) -> list[tuple[str, Any]]:
    """Float networks to train: one."""
    return [("float", None)]


def points(experiment: LayeredExperiment, dataset: EventDataset) -> list[LayeredCandidate]:
    """Points of the significance sweep as candidates."""
    return layered_proposal.points(experiment, declared(experiment, dataset))


def curves(experiment: LayeredExperiment, accuracy: dict[str, float], account: MemoryAccount) -> list[Significance]:
    """Significance curves, most significant first."""
    return significance(experiment.search.sweep, accuracy, account)


def propose(experiment: LayeredExperiment, dataset: EventDataset, curves: list[Significance]) -> list[LayeredCandidate]:
    """Candidates to try, given the significance curves."""
    return layered_proposal.propose(experiment, declared(experiment, dataset), curves)


def store(folder: Path, experiment: LayeredExperiment, dataset: EventDataset) -> Files:
    """Files of the training and validation splits in a run's folder."""
    return event_splits.store(folder, experiment.data, dataset)


def open_measurement(folder: Path, experiment: LayeredExperiment, labels: tuple[str, ...], files: Files) -> Measurement:
    """Measurement from the files of a run, which are mapped, not read."""
    train, validation = (mapped(files[name]) for name in ("train", "validation"))
    learned = mapped(files["learned"]) if "learned" in files else train
    return Measurement(
        folder=folder,
        experiment=experiment,
        labels=labels,
        train=train,
        validation=validation,
        learned=learned,
        per_step=files["train"]["per_step"],
        max_count=files["train"]["max_count"],
        bin_ms=files["train"]["bin_ms"],
        reuse=Reuse(),
        known={},
    )


def train_float(measurement: Measurement, task: None) -> dict[str, Any]:
    """Trains the float network, going on where an interrupted run was, and stores it; returns its record."""
    start, experiment = time.perf_counter(), measurement.experiment
    path = float_path(measurement.folder)
    resumed = path.with_suffix(".training")
    net = from_start_if_damaged(
        resumed,
        lambda: trained_net(experiment, measurement.network(), measurement.learned, measurement.per_step, resumed),
    )
    checkpoint.save(frozen(net), path)
    outputs, rates = responses(net, measurement.validation)
    resumed.unlink(missing_ok=True)
    return {
        "accuracy": float((outputs.argmax(axis=1) == measurement.validation.labels).mean()),
        "rates": rates,
        "epochs": experiment.training.n_epochs,
        "seconds": round(time.perf_counter() - start, 3),
    }


def has_float(folder: Path, task: None) -> bool:
    """Whether the float network is stored and can be read."""
    return readable(checkpoint.load_layers, float_path(folder)) is not None


def trained_net(
    experiment: LayeredExperiment,
    network: LayeredNetwork,
    data: EventSet,
    per_step: int = 1,
    resumed: Path | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> SurrogateNet:
    """The float network of an experiment, trained from fresh weights or from where `resumed` says."""
    net = SurrogateNet(network, seed=experiment.seed).to(device)
    fit(net, data, experiment.training, seed=experiment.seed, per_step=per_step, checkpoint=resumed, progress=progress)
    return net


def sweep_accuracy(measurement: Measurement, candidate: LayeredCandidate) -> float:
    """Validation accuracy of a point of the sweep, on the samples of the sweep."""
    n = measurement.experiment.search.sweep.samples
    data = measurement.validation.slice(0, min(n or measurement.validation.n_samples, measurement.validation.n_samples))
    result = measurement.reuse.run(_quantized(measurement, candidate), data.graded(), f"validation {data.n_samples}")
    return float((result.predictions() == data.labels).mean())


def _quantized(measurement: Measurement, candidate: LayeredCandidate) -> Program:
    """The float network as integers in one go."""
    net = measurement.float_net()
    return lower_layers(
        net.network,
        net.params(),
        candidate.plan,
        measurement.ranges(),
        seed=candidate.seed,
        labels=measurement.labels,
        provenance=_provenance(measurement, candidate),
    )


def _provenance(measurement: Measurement, candidate: LayeredCandidate) -> dict[str, Any]:
    return {"candidate": to_plain(candidate), "experiment": to_plain(measurement.experiment)}


def build(measurement: Measurement, candidate: LayeredCandidate) -> tuple[Program, MemoryAccount | None]:
    """Program of a candidate, quantized or trained; nothing is learned on the device."""
    return (
        _trained_in(measurement, candidate) if candidate.scheme is Scheme.ITQ else _quantized(measurement, candidate)
    ), None


def _trained_in(measurement: Measurement, candidate: LayeredCandidate) -> Program:
    """The float network trained on with quantization in the loop, as integers."""
    search, net = measurement.experiment.search, measurement.float_net()
    training = msgspec.structs.replace(
        measurement.experiment.training,
        n_epochs=search.itq.epochs,
        learning_rate=search.itq.learning_rate,
        spike_regulation=search.itq.spike_regulation,
        distillation=search.itq.distillation,
        temperature=search.itq.temperature,
    )
    resumed = STORED.path(measurement.folder, candidate).with_suffix(".training")

    def trained() -> tuple[quantized.QuantNet, Any]:
        module = quantized.prepare(
            net.network,
            candidate.plan,
            net.params(),
            measurement.ranges(),
            seed=candidate.seed,
            estimator=search.itq.estimator,
        )
        with one_thread():
            epochs = fit(
                module,
                measurement.learned,
                training,
                seed=candidate.seed,
                per_step=measurement.per_step,
                checkpoint=resumed,
                teacher=net if training.distillation else None,
            )
        return module, epochs

    module, epochs = from_start_if_damaged(resumed, trained)
    measurement.known["epochs"] = {candidate.key(): epochs}
    program = quantized.convert(module, labels=measurement.labels, provenance=_provenance(measurement, candidate))
    resumed.unlink(missing_ok=True)
    return program


def measure(
    measurement: Measurement, candidate: LayeredCandidate, program: Program
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Measures a program on validation; the facts are spikes per neuron and step of every layer, the difference from
    float, the epochs trained, and the rates on training data in each of them."""
    data = measurement.validation
    result = measurement.reuse.run(program, data.graded(), f"validation {data.n_samples}")
    rates = {op.name: float(result.counts[op.name].mean() / data.n_steps) for op in program.ops_of(LifOp) if op.spiking}
    drift = {name: rate - measurement.float_rates()[name] for name, rate in rates.items()}
    epochs = measurement.experiment.search.itq.epochs if candidate.scheme is Scheme.ITQ else 0
    seen = measurement.known.get("epochs", {}).get(candidate.key(), [])
    trained = {"trained_rates": {name: [e.rates[name] for e in seen] for name in rates}} if seen else {}
    return result.predictions() == data.labels, {"rates": rates, "rate_drift": drift, "epochs": epochs} | trained


def test(
    measurement: Measurement, dataset: EventDataset, program: Program
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Correctness of the float baseline and predictions of the winner on each test sample."""
    float_predicted = scores(measurement.float_net(), dataset.test).argmax(axis=1)
    return float_predicted == dataset.test.labels, run(program, dataset.test.graded()).predictions()


__getattr__ = former.names_of(__name__)

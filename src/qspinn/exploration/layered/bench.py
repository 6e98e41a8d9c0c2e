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

from qspinn.data import EventDataset, EventSet, load_recordings
from qspinn.exploration import event_splits
from qspinn.exploration.artifacts import PROGRAM, readable
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


class Bench(msgspec.Struct, kw_only=True, eq=False):
    """What candidates are measured with; the float network is read when first needed.

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
        """What lowering must know about the data, from the first training samples."""
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


def float_path(folder: Path) -> Path:
    return folder / "float" / "layers.safetensors"


def load(experiment: LayeredExperiment) -> EventDataset:
    return load_recordings(experiment.data)


def account(experiment: LayeredExperiment, dataset: EventDataset) -> MemoryAccount:
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
    return [("float", None)]


def points(experiment: LayeredExperiment, dataset: EventDataset) -> list[LayeredCandidate]:
    return layered_proposal.points(experiment, declared(experiment, dataset))


def curves(experiment: LayeredExperiment, accuracy: dict[str, float], account: MemoryAccount) -> list[Significance]:
    return significance(experiment.search.sweep, accuracy, account)


def propose(experiment: LayeredExperiment, dataset: EventDataset, curves: list[Significance]) -> list[LayeredCandidate]:
    return layered_proposal.propose(experiment, declared(experiment, dataset), curves)


def store(folder: Path, experiment: LayeredExperiment, dataset: EventDataset) -> Files:
    return event_splits.store(folder, experiment.data, dataset)


def open_bench(folder: Path, experiment: LayeredExperiment, labels: tuple[str, ...], files: Files) -> Bench:
    train, validation = (mapped(files[name]) for name in ("train", "validation"))
    learned = mapped(files["learned"]) if "learned" in files else train
    return Bench(
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


def train_float(bench: Bench, task: None) -> dict[str, Any]:
    """Trains the float network, going on where an interrupted run was, and stores it; returns its record."""
    start, experiment = time.perf_counter(), bench.experiment
    path = float_path(bench.folder)
    net = trained_net(experiment, bench.network(), bench.learned, bench.per_step, path.with_suffix(".training"))
    checkpoint.save(frozen(net), path)
    said, rates = responses(net, bench.validation)
    path.with_suffix(".training").unlink(missing_ok=True)
    return {
        "accuracy": float((said.argmax(axis=1) == bench.validation.labels).mean()),
        "rates": rates,
        "epochs": experiment.training.n_epochs,
        "seconds": round(time.perf_counter() - start, 3),
    }


def has_float(folder: Path, task: None) -> bool:
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


def sweep_accuracy(bench: Bench, candidate: LayeredCandidate) -> float:
    n = bench.experiment.search.sweep.samples
    data = bench.validation.slice(0, min(n or bench.validation.n_samples, bench.validation.n_samples))
    result = bench.reuse.run(_quantized(bench, candidate), data.graded(), f"validation {data.n_samples}")
    return float((result.predictions() == data.labels).mean())


def _quantized(bench: Bench, candidate: LayeredCandidate) -> Program:
    """The float network as integers in one go."""
    net = bench.float_net()
    return lower_layers(
        net.network,
        net.params(),
        candidate.plan,
        bench.ranges(),
        seed=candidate.seed,
        labels=bench.labels,
        provenance=_provenance(bench, candidate),
    )


def _provenance(bench: Bench, candidate: LayeredCandidate) -> dict[str, Any]:
    return {"candidate": to_plain(candidate), "experiment": to_plain(bench.experiment)}


def build(bench: Bench, candidate: LayeredCandidate) -> tuple[Program, MemoryAccount | None]:
    return (_trained_in(bench, candidate) if candidate.scheme is Scheme.ITQ else _quantized(bench, candidate)), None


def _trained_in(bench: Bench, candidate: LayeredCandidate) -> Program:
    """The float network trained on with quantization in the loop, as integers."""
    search, net = bench.experiment.search, bench.float_net()
    training = msgspec.structs.replace(
        bench.experiment.training,
        n_epochs=search.itq.epochs,
        learning_rate=search.itq.learning_rate,
        spike_regulation=search.itq.spike_regulation,
        distillation=search.itq.distillation,
        temperature=search.itq.temperature,
    )
    module = quantized.prepare(
        net.network, candidate.plan, net.params(), bench.ranges(), seed=candidate.seed, estimator=search.itq.estimator
    )
    resumed = STORED.path(bench.folder, candidate).with_suffix(".training")
    with one_thread():
        epochs = fit(
            module,
            bench.learned,
            training,
            seed=candidate.seed,
            per_step=bench.per_step,
            checkpoint=resumed,
            teacher=net if training.distillation else None,
        )
    bench.known["epochs"] = {candidate.key(): epochs}
    program = quantized.convert(module, labels=bench.labels, provenance=_provenance(bench, candidate))
    resumed.unlink(missing_ok=True)
    return program


def measure(bench: Bench, candidate: LayeredCandidate, program: Program) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Besides the answers: spikes per neuron and step of every layer, how far that is from float, epochs trained, and
    the rates on training data in each of them."""
    data = bench.validation
    result = bench.reuse.run(program, data.graded(), f"validation {data.n_samples}")
    rates = {op.name: float(result.counts[op.name].mean() / data.n_steps) for op in program.ops_of(LifOp) if op.spiking}
    drift = {name: rate - bench.float_rates()[name] for name, rate in rates.items()}
    epochs = bench.experiment.search.itq.epochs if candidate.scheme is Scheme.ITQ else 0
    seen = bench.known.get("epochs", {}).get(candidate.key(), [])
    trained = {"trained_rates": {name: [e.rates[name] for e in seen] for name in rates}} if seen else {}
    return result.predictions() == data.labels, {"rates": rates, "rate_drift": drift, "epochs": epochs} | trained


def test(bench: Bench, dataset: EventDataset, program: Program) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    said = scores(bench.float_net(), dataset.test).argmax(axis=1)
    return said == dataset.test.labels, run(program, dataset.test.graded()).predictions()

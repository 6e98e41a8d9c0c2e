"""Layers that learn from themselves alone: their part of an exploration, see `family.Family`. Needs the torch extra.

The float baseline learns in torch; every candidate learns in integers, from the same start, and is kept as the layers
that it then has, which can go on learning. Memory is therefore that of learning on the device.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import former
from qspinn.data import EventDataset, EventSet, load_recordings
from qspinn.exploration import event_splits
from qspinn.exploration.artifacts import Stored, from_start_if_damaged, readable
from qspinn.exploration.event_splits import mapped
from qspinn.exploration.family import Files
from qspinn.exploration.local import proposal as local_proposal
from qspinn.exploration.local.space import LocalCandidate, LocalExperiment
from qspinn.exploration.sensitivity import Significance
from qspinn.learning.device import one_thread
from qspinn.learning.local import model as local_model
from qspinn.learning.local.memory import local_account
from qspinn.learning.local.model import TrainedLocal, load_local
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, start_of
from qspinn.memory import MemoryAccount
from qspinn.networks import checkpoint
from qspinn.networks.local import sizes_of
from qspinn.quantization.plan import QuantPlan
from qspinn.records.record import to_plain

LIBRARIES = ("numpy", "numba", "torch")
curves, describe = local_proposal.curves, event_splits.describe


def learning_memory(trained: TrainedLocal) -> MemoryAccount:
    """Memory that the layers need to go on learning, at the widths of their plan."""
    declared = trained.network
    return local_account(declared.network, declared.shape, declared.n_classes, declared.plan)


STORED = Stored(suffix=".safetensors", save=checkpoint.save, load=load_local, account=learning_memory)


class Measurement(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Measurement of candidates; the start of all trainings is drawn when first needed."""

    folder: Path
    experiment: LocalExperiment
    labels: tuple[str, ...]
    train: EventSet
    validation: EventSet
    bin_ms: float
    known: dict[str, tuple[LayerStart, ...]]

    def start(self) -> tuple[LayerStart, ...]:
        """The layers before training, of float and of every plan."""
        if "start" not in self.known:
            experiment = self.experiment
            self.known["start"] = start_of(
                experiment.network,
                self.train,
                len(self.labels),
                step_ms=self.bin_ms,
                burn_in=experiment.learning.burn_in,
                seed=experiment.seed,
            )
        return self.known["start"]


def float_path(folder: Path, task: None = None) -> Path:
    """Checkpoint of the float layers in a run's folder."""
    return folder / "float" / "local.safetensors"


def load(experiment: LocalExperiment) -> EventDataset:
    """Data set of an experiment."""
    return load_recordings(experiment.data)


def account(experiment: LocalExperiment, dataset: EventDataset) -> MemoryAccount:
    """Memory of the float baseline."""
    return local_account(experiment.network, dataset.shape, len(dataset.labels), None)


def float_tasks(experiment: LocalExperiment) -> list[tuple[str, Any]]:
    """Float networks to train: one."""
    return [("float", None)]


def points(experiment: LocalExperiment, dataset: EventDataset) -> list[LocalCandidate]:
    """Points of the significance sweep as candidates."""
    return local_proposal.points(experiment, _names(experiment, dataset))


def propose(
    experiment: LocalExperiment, dataset: EventDataset, significances: list[Significance]
) -> list[LocalCandidate]:
    """Candidates to try, given the significance curves."""
    return local_proposal.propose(experiment, _names(experiment, dataset), significances)


def _names(experiment: LocalExperiment, dataset: EventDataset) -> list[str]:
    return [size.name for size in sizes_of(experiment.network, dataset.shape)]


def store(folder: Path, experiment: LocalExperiment, dataset: EventDataset) -> Files:
    """Files of the training and validation splits in a run's folder."""
    return event_splits.store(folder, experiment.data, dataset)


def open_measurement(folder: Path, experiment: LocalExperiment, labels: tuple[str, ...], files: Files) -> Measurement:
    """Measurement from the files of a run, which are mapped, not read."""
    train, validation = (mapped(files[name]) for name in ("train", "validation"))
    return Measurement(
        folder=folder,
        experiment=experiment,
        labels=labels,
        train=train,
        validation=validation,
        bin_ms=files["train"]["bin_ms"],
        known={},
    )


def train_float(measurement: Measurement, task: None) -> dict[str, Any]:
    """Trains the float layers, going on where an interrupted run was, and stores them; returns their record."""
    begin, path = time.perf_counter(), float_path(measurement.folder)
    resumed = path.with_suffix(".training")
    learning = _learning(measurement.experiment, "float")
    trained = from_start_if_damaged(
        resumed, lambda: _trained(measurement, learning, measurement.experiment.plan, measurement.train, resumed)
    )
    checkpoint.save(trained, path)
    predicted, n_spikes = _answers(trained, measurement.validation)
    resumed.unlink(missing_ok=True)
    return {
        "accuracy": float((predicted == measurement.validation.labels).mean()),
        "epochs": learning.n_epochs,
        "spikes": n_spikes,
        "seconds": round(time.perf_counter() - begin, 3),
    }


def has_float(folder: Path, task: None) -> bool:
    """Whether the float layers are stored and can be read."""
    return readable(load_local, float_path(folder)) is not None


def sweep_accuracy(measurement: Measurement, candidate: LocalCandidate) -> float:
    """Validation accuracy of a short training on some recordings."""
    search = measurement.experiment.search
    learning = msgspec.structs.replace(_learning(measurement.experiment), n_epochs=search.sweep.epochs)
    train, validation = (
        part.slice(0, min(search.sweep.samples or part.n_samples, part.n_samples))
        for part in (measurement.train, measurement.validation)
    )
    predicted, _ = _answers(_trained(measurement, learning, candidate.plan, train), validation)
    return float((predicted == validation.labels).mean())


def build(measurement: Measurement, candidate: LocalCandidate) -> tuple[TrainedLocal, MemoryAccount | None]:
    """Layers of a candidate, trained by its plan; the memory of learning is part of their account."""
    resumed = STORED.path(measurement.folder, candidate).with_suffix(".training")
    learning = _learning(measurement.experiment)
    trained = from_start_if_damaged(
        resumed, lambda: _trained(measurement, learning, candidate.plan, measurement.train, resumed)
    )
    resumed.unlink(missing_ok=True)
    provenance = {
        "candidate": to_plain(candidate),
        "experiment": to_plain(measurement.experiment),
        "labels": list(measurement.labels),
    }
    return msgspec.structs.replace(trained, provenance=provenance), None


def measure(
    measurement: Measurement, candidate: LocalCandidate, built: TrainedLocal
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Measures layers on validation; the facts are spikes per recording and epochs trained."""
    predicted, n_spikes = _answers(built, measurement.validation)
    return predicted == measurement.validation.labels, {"spikes": n_spikes, "epochs": built.network.learning.n_epochs}


def test(
    measurement: Measurement, dataset: EventDataset, built: TrainedLocal
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Correctness of the float baseline and predictions of the winner on each test sample."""
    real, _ = _answers(load_local(float_path(measurement.folder)), dataset.test)
    return real == dataset.test.labels, _answers(built, dataset.test)[0]


def _learning(experiment: LocalExperiment, arithmetic: Literal["integer", "float"] = "integer") -> LocalLearning:
    return msgspec.structs.replace(experiment.learning, arithmetic=arithmetic)


def _trained(
    measurement: Measurement, learning: LocalLearning, plan: QuantPlan, train: EventSet, resume: Path | None = None
) -> TrainedLocal:
    """Layers trained from the common start, on one thread: the others have candidates of their own."""
    experiment = measurement.experiment
    with one_thread():
        layers, declaration = local_model.trained_from(
            measurement.start(),
            train,
            measurement.bin_ms,
            experiment.network,
            learning,
            plan,
            experiment.seed,
            n_threads=1,
            resume=resume,
        )
    return TrainedLocal(network=declaration, params=layers.state())


def _answers(trained: TrainedLocal, data: EventSet) -> tuple[NDArray[np.int64], float]:
    """(class of every recording, spikes per recording) of the layers as they are stored."""
    with one_thread():
        return local_model.predictions(local_model.restored(trained, n_threads=1), data, trained.network)


__getattr__ = former.names_of(__name__)

"""Competing populations that learn by STDP: their part of an exploration, see `family.Family`.

Encoded spikes are memory-mapped files, written once; a worker keeps the float networks and their ranges.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import data as datasets
from qspinn import former
from qspinn.data.images.encoders import poisson
from qspinn.errors import DataError, LoweringError, RunError
from qspinn.exploration import sensitivity
from qspinn.exploration.artifacts import PROGRAM, readable
from qspinn.exploration.competing import proposal
from qspinn.exploration.competing.space import Candidate, Experiment
from qspinn.exploration.family import Files
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.sensitivity import Significance
from qspinn.exploration.tasks import keep_array, map_array
from qspinn.files import write_atomic
from qspinn.learning.stdp import grid
from qspinn.learning.stdp.training import StdpTraining, mean_responses, respond, train
from qspinn.memory import MemoryAccount, float_account, learning_account
from qspinn.networks import checkpoint
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Network
from qspinn.program import Program
from qspinn.program.ops import PoissonOp, VoteOp
from qspinn.quantization.competing import lower, poisson_op, readout_votes, resolve
from qspinn.quantization.paths import tensor_paths
from qspinn.quantization.plan import Granularity
from qspinn.quantization.ranges import Ranges, calibrate
from qspinn.records.record import content_key, to_plain
from qspinn.runtime import run
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.spikes import Spikes

LIBRARIES = ("numpy", "numba")
STORED = PROGRAM


class Encoded(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Split of a data set as spikes, with its labels."""

    spikes: Spikes
    labels: NDArray[np.int64]

    def first(self, n: int) -> Encoded:
        """The first n samples (0: all)."""
        n = min(n or len(self.labels), len(self.labels))
        return Encoded(spikes=self.spikes.slice(0, n), labels=self.labels[:n])


class Measurement(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Measurement of candidates: the run's folder, its experiment and the encoded splits."""

    folder: Path
    experiment: Experiment
    labels: tuple[str, ...]
    train: Encoded
    validation: Encoded
    float_cache: dict[int, Trained]
    ranges_cache: dict[int, Ranges]

    def float_network(self, n_neurons: int) -> Trained:
        """The trained float network of a size, from the run's folder."""
        if n_neurons not in self.float_cache:
            self.float_cache[n_neurons] = checkpoint.load(float_path(self.folder, n_neurons))
        return self.float_cache[n_neurons]

    def ranges(self, n_neurons: int) -> Ranges:
        """Ranges of the float network of a size on the first training samples, for lowering."""
        if n_neurons not in self.ranges_cache:
            self.ranges_cache[n_neurons] = calibrate(self.float_network(n_neurons), self.train.spikes)
        return self.ranges_cache[n_neurons]


def float_path(folder: Path, n_neurons: int) -> Path:
    """Checkpoint of the float network of a size in a run's folder."""
    return folder / "float" / f"n{n_neurons}.safetensors"


def load(experiment: Experiment) -> datasets.Dataset:
    """Data set of an experiment."""
    return datasets.load(experiment.data)


def describe(dataset: datasets.Dataset) -> dict[str, Any]:
    """Facts on the images for a report: their shape."""
    return {"shape": list(dataset.shape)}


def account(experiment: Experiment, dataset: datasets.Dataset) -> MemoryAccount:
    """Memory of the float baseline."""
    return float_account(_network(experiment, dataset))


def _network(experiment: Experiment, dataset: datasets.Dataset) -> Network:
    return experiment.network.build(dataset.train.images.shape[1], len(dataset.labels))


def float_tasks(experiment: Experiment) -> list[tuple[str, Any]]:
    """Float networks to train: one for each size, the baseline first, then from large to small."""
    n0 = experiment.network.n_neurons
    return [(f"float-n{n}", n) for n in (n0, *sorted({*experiment.search.n_neurons} - {n0}, reverse=True))]


def points(experiment: Experiment, dataset: datasets.Dataset) -> list[Candidate]:
    """Points of the significance sweep as candidates."""
    return proposal.sweep_points(experiment, _network(experiment, dataset))


def curves(experiment: Experiment, accuracy: dict[str, float], account: MemoryAccount) -> list[Significance]:
    """Significance curves, most significant first."""
    return sensitivity.significance(experiment.search.sweep, accuracy, account)


def propose(experiment: Experiment, dataset: datasets.Dataset, curves: list[Significance]) -> list[Candidate]:
    """Candidates to try, given the significance curves."""
    swept = {(s.path, s.rounding) for s in curves}
    paths, roundings = tensor_paths(_network(experiment, dataset)), experiment.search.ptq.roundings
    for path, rounding in itertools.product(paths, roundings):
        if (path, rounding) not in swept:
            raise LoweringError(
                path,
                f"cannot be quantized, rounding {rounding.value}, at any width of the sweep",
                fix="choose constants of the network that can be kept as integers, or other roundings",
            )
    return proposal.propose(experiment, curves)


def store(folder: Path, experiment: Experiment, dataset: datasets.Dataset) -> Files:
    """Files of the encoded training and validation splits; drawn once, shared by all candidates."""
    files: Files = {}
    for name, split in (("train", dataset.train), ("validation", dataset.validation)):
        spikes = encode_split(folder, name, split.images, split.first, experiment, len(dataset.labels))
        stem = str(spikes.offsets.filename).removesuffix(".offsets.npy")  # type: ignore[attr-defined]
        sha256 = _sums(Path(stem)) | {"labels": keep_array(Path(f"{stem}.labels.npy"), split.labels)}
        files[name] = {kind: f"{stem}.{kind}.npy" for kind in sha256} | {"n": spikes.n, "sha256": sha256}
    return files


def encode_split(
    folder: Path, name: str, images: NDArray[np.uint8], first: int, experiment: Experiment, n_classes: int
) -> Spikes:
    """Spikes of a split: from the run's folder where they are whole, else drawn and stored there."""
    network = experiment.network.build(images.shape[1], n_classes)
    op = poisson_op(network, experiment.seed)
    pixels = hashlib.sha256(images.tobytes()).hexdigest()
    key = content_key(op, network.n_steps, first, list(images.shape), pixels)[:16]
    stem = folder / "cache" / f"{name}-{key}"
    offsets, index = stem.with_suffix(".offsets.npy"), stem.with_suffix(".index.npy")
    try:
        sums = _sums(stem)
        return Spikes(
            offsets=map_array(offsets, sums["offsets"]), index=map_array(index, sums["index"]), n=images.shape[1]
        )
    except (RunError, DataError):
        spikes = poisson(images, op, network.n_steps, first_sample=first)
        stem.parent.mkdir(parents=True, exist_ok=True)
        sums = {"index": keep_array(index, spikes.index), "offsets": keep_array(offsets, spikes.offsets)}
        write_atomic(_sums_path(stem), msgspec.json.encode(sums))
    return Spikes(offsets=map_array(offsets, sums["offsets"]), index=map_array(index, sums["index"]), n=images.shape[1])


def _sums_path(stem: Path) -> Path:
    return stem.with_suffix(".sha256.json")


def _sums(stem: Path) -> dict[str, str]:
    """The checksums of the drawn spikes of a split.

    Raises:
        RunError: there are none.
    """
    try:
        sums = msgspec.json.decode(_sums_path(stem).read_bytes(), type=dict[str, str])
        return {kind: sums[kind] for kind in ("offsets", "index")}
    except (OSError, msgspec.DecodeError, KeyError, UnicodeDecodeError):
        raise RunError(str(_sums_path(stem)), "is missing or damaged", fix="start again: it is made anew") from None


def open_measurement(folder: Path, experiment: Experiment, labels: tuple[str, ...], files: Files) -> Measurement:
    """Measurement from the files of a run, which are mapped, not read."""
    encoded = {}
    for name, of in files.items():
        arrays = {kind: map_array(of[kind], sha256) for kind, sha256 in of["sha256"].items()}
        spikes = Spikes(offsets=arrays["offsets"], index=arrays["index"], n=of["n"])
        encoded[name] = Encoded(spikes=spikes, labels=arrays["labels"])
    return Measurement(
        folder=folder,
        experiment=experiment,
        labels=labels,
        train=encoded["train"],
        validation=encoded["validation"],
        float_cache={},
        ranges_cache={},
    )


def accuracy(program: Program, data: Encoded, *, n_threads: int = 1) -> float:
    """Share of samples that the program classifies right."""
    return float(correct(program, data, n_threads=n_threads).mean())


def correct(program: Program, data: Encoded, *, n_threads: int = 1) -> NDArray[np.bool_]:
    """Whether each sample is classified right, bool [n]."""
    return numba_engine.run(program, data.spikes, n_threads=n_threads).predictions() == data.labels


def assigned(trained: Trained, program: Program, data: Encoded, n_classes: int, *, n_threads: int = 1) -> Trained:
    """The network with the mean responses of the integer program on labelled samples: class assignment is redone
    after quantization, since integers may answer a little differently."""
    (vote,) = program.ops_of(VoteOp)
    counts = numba_engine.run(program, data.spikes, n_threads=n_threads).counts[vote.source]
    return trained.with_params(readout__responses=mean_responses(counts, data.labels, n_classes))


def build(measurement: Measurement, candidate: Candidate) -> tuple[Program, MemoryAccount | None]:
    """Program of a candidate, quantized or trained, classes assigned, and the memory of learning it on the grid."""
    search = measurement.experiment.search
    trained, ranges = measurement.float_network(candidate.n_neurons), measurement.ranges(candidate.n_neurons)
    n_classes = trained.network.readout.n_classes
    draft = lower(trained, candidate.plan, ranges, seed=candidate.seed, labels=measurement.labels)
    if candidate.scheme is not Scheme.PTQ:
        model = _grid_model(measurement, candidate, trained, ranges)
        draft = grid.to_program(model, draft.tensors["readout.votes"], labels=measurement.labels)
    trained = assigned(trained, draft, measurement.train.first(search.assign_samples), n_classes)
    votes = lower(trained, candidate.plan, ranges, seed=candidate.seed).tensors["readout.votes"]
    provenance = {"candidate": to_plain(candidate), "experiment": to_plain(measurement.experiment)}
    done = msgspec.structs.replace(draft, tensors={**draft.tensors, "readout.votes": votes}, provenance=provenance)
    if candidate.scheme is Scheme.PTQ:
        return done, None
    rules = resolve(candidate.plan, trained.network, learning=True)
    return done, learning_account(trained.network, done, {path: rule.bits for path, rule in rules.items()})


def _grid_model(measurement: Measurement, candidate: Candidate, trained: Trained, ranges: Ranges) -> grid.GridModel:
    """The population after learning on the grid: thresholds only, or everything from fresh weights."""
    search, network = measurement.experiment.search, trained.network
    if candidate.scheme is Scheme.PTQ_ADAPT:
        model = grid.prepare(network, candidate.plan, ranges, seed=candidate.seed, start=trained)
        shown = measurement.train.first(search.ptq.adapt_samples).spikes
        grid.fit(model, shown, StdpTraining(n_passes=1), learn_weights=False)
        return model
    per_neuron = resolve(candidate.plan, network)["exc.w"].granularity is Granularity.PER_NEURON
    stdp = search.itq.stdp if per_neuron else measurement.experiment.network.stdp
    network = measurement.experiment.network.build(
        network.input.n, network.readout.n_classes, candidate.n_neurons, stdp
    )
    model = grid.prepare(network, candidate.plan, ranges, seed=candidate.seed)
    grid.fit(
        model,
        measurement.train.spikes,
        StdpTraining(n_passes=search.itq.passes, anneal=measurement.experiment.training.anneal),
    )
    return model


def measure(
    measurement: Measurement, candidate: Candidate, program: Program
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Correctness of each validation sample; there are no further facts."""
    return correct(program, measurement.validation), {}


def has_float(folder: Path, task: int) -> bool:
    """Whether the float network of a size is stored and can be read."""
    trained = readable(checkpoint.load, float_path(folder, task))
    return trained is not None and trained.network.size_of("exc") == task


def sweep_accuracy(measurement: Measurement, candidate: Candidate) -> float:
    """Validation accuracy with one group quantized and the rest wide; votes as assigned to the float network."""
    trained = measurement.float_network(candidate.n_neurons)
    program = lower(trained, candidate.plan, measurement.ranges(candidate.n_neurons), seed=candidate.seed)
    return accuracy(program, measurement.validation.first(measurement.experiment.search.sweep.samples))


def test(
    measurement: Measurement, dataset: datasets.Dataset, program: Program
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Correctness of the float baseline and predictions of the winner on each test sample."""
    split = dataset.test
    spikes = poisson(split.images, program.ops_of(PoissonOp)[0], program.n_steps, first_sample=split.first)
    trained = measurement.float_network(measurement.experiment.network.n_neurons)
    float_right = (respond(trained, spikes) @ readout_votes(trained)).argmax(axis=1) == split.labels
    return float_right, run(program, spikes).predictions()


def train_float(measurement: Measurement, task: int) -> dict[str, Any]:
    """Trains the float network of a size, assigns classes and stores it; returns its record."""
    start = time.perf_counter()
    experiment, n_classes, n_neurons = measurement.experiment, len(measurement.labels), task
    network = experiment.network.build(measurement.train.spikes.n, n_classes, n_neurons)
    path = float_path(measurement.folder, n_neurons)
    trained = train(network, measurement.train.spikes, experiment.training, seed=experiment.seed)
    sample = measurement.train.first(experiment.search.assign_samples)
    trained = trained.with_params(
        readout__responses=mean_responses(respond(trained, sample.spikes, n_threads=1), sample.labels, n_classes)
    )
    checkpoint.save(trained, path)
    scores = respond(trained, measurement.validation.spikes, n_threads=1) @ readout_votes(trained)
    hit = float((scores.argmax(axis=1) == measurement.validation.labels).mean())
    return {"n_neurons": n_neurons, "accuracy": hit, "seconds": round(time.perf_counter() - start, 3)}


__getattr__ = former.names_of(__name__)

"""Evaluating one candidate: quantize, assign classes, measure on validation. Runs in worker processes.

A worker keeps the shared data (encoded spikes are memory-mapped files, written once) and the float networks; what
travels is a Candidate one way and a plain record the other.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn import checkpoint
from qspinn import program as program_file
from qspinn.calibrate import Ranges, calibrate
from qspinn.checkpoint import Trained
from qspinn.data.encoders import poisson
from qspinn.errors import LoweringError, RunError
from qspinn.explore.space import Candidate, Experiment, Scheme
from qspinn.learning import grid
from qspinn.learning.stdp import StdpTraining, mean_responses, respond, train
from qspinn.lower import lower, poisson_op, readout_votes
from qspinn.memory import MemoryAccount, learning_account, program_account
from qspinn.ops import VoteOp
from qspinn.plan import Granularity, resolve
from qspinn.program import Program
from qspinn.records import content_key, from_plain, to_plain
from qspinn.runtime import numba_engine
from qspinn.spikes import Spikes


class Encoded(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One split as spikes, with its labels."""

    spikes: Spikes
    labels: NDArray[np.int64]

    def first(self, n: int) -> Encoded:
        """The first n samples (0: all)."""
        n = min(n or len(self.labels), len(self.labels))
        return Encoded(spikes=self.spikes.slice(0, n), labels=self.labels[:n])


class Bench(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What candidates are measured with: the run's folder, its experiment and the encoded splits."""

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
        if n_neurons not in self.ranges_cache:
            self.ranges_cache[n_neurons] = calibrate(self.float_network(n_neurons), self.train.spikes)
        return self.ranges_cache[n_neurons]


def float_path(folder: Path, n_neurons: int) -> Path:
    return folder / "float" / f"n{n_neurons}.safetensors"


def encode_split(folder: Path, name: str, images: NDArray[np.uint8], first: int, experiment: Experiment,
                 n_classes: int) -> Spikes:
    """Spikes of a split: from the run's folder where they are, else drawn and stored there."""
    network = experiment.network.build(images.shape[1], n_classes)
    op = poisson_op(network, experiment.seed)
    pixels = hashlib.sha256(images.tobytes()).hexdigest()
    key = content_key(op, network.n_steps, first, list(images.shape), pixels)[:16]
    stem = folder / "cache" / f"{name}-{key}"
    offsets, index = stem.with_suffix(".offsets.npy"), stem.with_suffix(".index.npy")
    if not (offsets.exists() and index.exists()):
        spikes = poisson(images, op, network.n_steps, first_sample=first)
        stem.parent.mkdir(parents=True, exist_ok=True)
        store_array(index, spikes.index)
        store_array(offsets, spikes.offsets)
    return Spikes(offsets=np.load(offsets, mmap_mode="r"), index=np.load(index, mmap_mode="r"), n=images.shape[1])


def store_array(path: Path, array: NDArray) -> None:
    """Writes an array as .npy under a temporary name, then renames it.

    Raises:
        RunError: the disk is full or the place is not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(str(path), "cannot be written", got=error.strerror or str(error),
                       fix="free some space or choose another folder with --out") from None


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


def build(bench: Bench, candidate: Candidate) -> tuple[Program, MemoryAccount | None]:
    """(program, memory of learning it on the grid) of a candidate: quantized or trained, classes assigned."""
    search = bench.experiment.search
    trained, ranges = bench.float_network(candidate.n_neurons), bench.ranges(candidate.n_neurons)
    n_classes = trained.network.readout.n_classes
    draft = lower(trained, candidate.plan, ranges, seed=candidate.seed, labels=bench.labels)
    if candidate.scheme is not Scheme.PTQ:
        model = _grid_model(bench, candidate, trained, ranges)
        draft = grid.to_program(model, draft.tensors["readout.votes"], labels=bench.labels)
    trained = assigned(trained, draft, bench.train.first(search.assign_images), n_classes)
    votes = lower(trained, candidate.plan, ranges, seed=candidate.seed).tensors["readout.votes"]
    provenance = {"candidate": to_plain(candidate), "experiment": to_plain(bench.experiment)}
    done = msgspec.structs.replace(draft, tensors={**draft.tensors, "readout.votes": votes}, provenance=provenance)
    if candidate.scheme is Scheme.PTQ:
        return done, None
    rules = resolve(candidate.plan, trained.network, learning=True)
    return done, learning_account(trained.network, done, {path: rule.bits for path, rule in rules.items()})


def _grid_model(bench: Bench, candidate: Candidate, trained: Trained, ranges: Ranges) -> grid.GridModel:
    """The population after learning on the grid: thresholds only, or everything from fresh weights."""
    search, network = bench.experiment.search, trained.network
    if candidate.scheme is Scheme.PTQ_ADAPT:
        model = grid.prepare(network, candidate.plan, ranges, seed=candidate.seed, start=trained)
        grid.fit(model, bench.train.first(search.adapt_images).spikes, StdpTraining(n_passes=1), learn_weights=False)
        return model
    per_neuron = resolve(candidate.plan, network)["exc.w"].granularity is Granularity.PER_NEURON
    stdp = search.itq_stdp if per_neuron else bench.experiment.network.stdp
    network = bench.experiment.network.build(network.input.n, network.readout.n_classes, candidate.n_neurons, stdp)
    model = grid.prepare(network, candidate.plan, ranges, seed=candidate.seed)
    grid.fit(model, bench.train.spikes, StdpTraining(n_passes=search.itq_passes,
                                                     anneal=bench.experiment.training.anneal))
    return model


def evaluate(bench: Bench, candidate: Candidate) -> dict[str, Any]:
    """Builds and measures a candidate, stores its program, and returns the record for the journal.

    A candidate that cannot be lowered gets a record with the reason under "rejected" and no accuracy.
    """
    start = time.perf_counter()
    record = {"kind": "candidate", "key": candidate.key(), "candidate": to_plain(candidate)}
    try:
        program, learning = build(bench, candidate)
    except LoweringError as error:  # a plan that cannot become integers is a finding, not a failure of the run
        return record | {"rejected": str(error)}
    right = correct(program, bench.validation)
    account = program_account(program)
    path = program_path(bench.folder, candidate)
    program_file.save(program, path)
    return record | {
        "accuracy": float(right.mean()), "bits": account.total_bits,
        "learning_bits": learning.total_bits if learning else 0,
        "memory": [to_plain(row) for row in account.rows], "seconds": round(time.perf_counter() - start, 3),
    }


def program_path(folder: Path, candidate: Candidate) -> Path:
    return folder / "candidates" / f"{candidate.key()}.qspinn"


def sensitivity_point(bench: Bench, candidate: Candidate) -> dict[str, Any]:
    """Validation accuracy with one group quantized and the rest wide; votes as assigned to the float network."""
    trained = bench.float_network(candidate.n_neurons)
    program = lower(trained, candidate.plan, bench.ranges(candidate.n_neurons), seed=candidate.seed)
    data = bench.validation.first(bench.experiment.search.sensitivity_images)
    return {"kind": "sensitivity", "key": candidate.key(), "label": candidate.label,
            "accuracy": accuracy(program, data)}


def train_float(bench: Bench, n_neurons: int) -> dict[str, Any]:
    """Trains the float network of a size, assigns classes and stores it; returns its record."""
    start = time.perf_counter()
    experiment, n_classes = bench.experiment, len(bench.labels)
    network = experiment.network.build(bench.train.spikes.n, n_classes, n_neurons)
    path = float_path(bench.folder, n_neurons)
    trained = train(network, bench.train.spikes, experiment.training, seed=experiment.seed)
    sample = bench.train.first(experiment.search.assign_images)
    trained = trained.with_params(
        readout__responses=mean_responses(respond(trained, sample.spikes, n_threads=1), sample.labels, n_classes))
    checkpoint.save(trained, path)
    scores = respond(trained, bench.validation.spikes, n_threads=1) @ readout_votes(trained)
    hit = float((scores.argmax(axis=1) == bench.validation.labels).mean())
    return {"kind": "float", "key": f"float-n{n_neurons}", "n_neurons": n_neurons, "accuracy": hit,
            "seconds": round(time.perf_counter() - start, 3)}


_bench: Bench | None = None


def start_worker(folder: str, experiment: bytes, labels: tuple[str, ...], splits: dict[str, tuple[str, str, str, int]]
                 ) -> None:
    """Prepares a worker process: opens the shared files, and makes sure it ends when its parent is killed."""
    global _bench
    parent = multiprocessing.parent_process()  # known from birth: os.getppid() is already another one if it died since

    def watch(parent: Any) -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    _bench = open_bench(Path(folder), from_plain(Experiment, msgspec.json.decode(experiment)), labels, splits)


def open_bench(folder: Path, experiment: Experiment, labels: tuple[str, ...],
               splits: dict[str, tuple[str, str, str, int]]) -> Bench:
    """The bench from its files: for each split (offsets file, index file, labels file, number of inputs)."""
    encoded = {}
    for name, (offsets, index, targets, n) in splits.items():
        encoded[name] = Encoded(
            spikes=Spikes(offsets=np.load(offsets, mmap_mode="r"), index=np.load(index, mmap_mode="r"), n=n),
            labels=np.load(targets))
    return Bench(folder=folder, experiment=experiment, labels=labels, train=encoded["train"],
                 validation=encoded["validation"], float_cache={}, ranges_cache={})


def work(task: str, argument: bytes) -> dict[str, Any]:
    """One task in a worker process."""
    if _bench is None:
        raise RunError("worker", "was not started")
    if task == "float":
        return train_float(_bench, msgspec.json.decode(argument))
    measure = {"candidate": evaluate, "sensitivity": sensitivity_point}[task]
    return measure(_bench, from_plain(Candidate, msgspec.json.decode(argument)))

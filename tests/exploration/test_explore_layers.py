"""A small exploration of a layered network: whole, interrupted, killed; its records, its reuse of layers, its errors.

Run as a script it is the process that gets killed.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.data import EventData, load_recordings
from qspinn.errors import ConfigError, RunError
from qspinn.exploration.family import read_experiment
from qspinn.exploration.journal import scan
from qspinn.exploration.layered import measurement as layered
from qspinn.exploration.layered.reuse import Reuse, layer_keys
from qspinn.exploration.layered.space import ItqBits, LayeredCandidate, LayeredExperiment, LayeredSearch, LayersConfig
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.search import Event, Outcome, explore
from qspinn.exploration.tasks import open_worker
from qspinn.fixedpoint import Rounding
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import restored
from qspinn.learning.gradients.training import responses
from qspinn.networks import checkpoint
from qspinn.networks.layered import Leaky
from qspinn.networks.models import ConvLink, DenseLink
from qspinn.program import load
from qspinn.program.ops import LifOp
from qspinn.quantization.plan import Granularity, Levels
from qspinn.records.record import from_plain, to_plain
from qspinn.report import write_report
from qspinn.report.sections.layered import history
from qspinn.runtime import run
from running import die_at, inline, lasting, with_value
from samples import read

EXPERIMENT = LayeredExperiment(
    name="tiny",
    family="layers",
    data=EventData(name="synthetic_gestures", bin_ms=40.0, n_bins=6, size=8, n_train=44, n_validation=22, n_test=22),
    network=LayersConfig(
        layers=(ConvLink(channels=4, stride=2, norm=True), DenseLink(n=6, norm=True), DenseLink(norm=True))
    ),
    training=Supervision(n_epochs=3, batch=16, learning_rate=1e-2, shift=1),
    search=LayeredSearch(
        last_bits=8,
        accumulator_bits=8,
        max_drop_points=100.0,
        ptq={
            "roundings": (Rounding.NEAREST,),
            "weight_bits": (6, 3),
            "state_bits": (10,),
            "granularities": (Granularity.PER_CHANNEL,),
            "hopeless_points": 100.0,
        },
        itq={"bits": ((3, 8), (1, 2)), "epochs": 2, "spike_regulation": 1e-3, "distillation": 0.5},
        sweep={"bits": (8, 3)},
    ),
    seed=5,
)
DEATHS = (18, 30, 33)  # moments of three processes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """(folder, outcome) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, explore(EXPERIMENT, folder, executors=inline)


def test_outcome_is_consistent(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    labels = {r["candidate"]["label"] for r in outcome.candidates}
    assert labels == {
        "ptq w6 per-channel nearest lean last8",
        "ptq w6 per-channel nearest s10 last8",
        "ptq w3 per-channel nearest lean last8",
        "ptq w3 per-channel nearest s10 last8",
        "itq w3 per-channel truncate s8 last8",
        "itq w1 per-channel truncate s2 last8",
    }
    assert outcome.winner in outcome.front
    assert np.sum(outcome.confusion) == 22
    assert np.trace(outcome.confusion) / 22 == outcome.winner_test
    assert {s["path"] for s in outcome.significance} == {
        f"{name}.{kind}" for name in ("conv1", "fc1", "out") for kind in ("w", "v", "decay", "v_th", "bias")
    }
    assert outcome.data["name"] == "synthetic_gestures"
    for record in outcome.candidates:
        program = load(folder / "candidates" / f"{record['key']}.qspinn")
        rows = {r["path"]: r["bits"] for r in record["memory"]}
        assert rows["out.w"] == 8
        assert rows["conv1.w"] == rows["fc1.w"] == int(record["candidate"]["label"].split()[1][1:])
        assert rows["conv1.v"] == program.ops_of(LifOp)[0].kept_fmt.bits
        assert set(program.tensors) <= set(rows)
        assert record["epochs"] == (2 if record["candidate"]["scheme"] == "itq" else 0)
        seen = record.get("trained_rates", {})
        assert set(seen) == ({"conv1", "fc1", "out"} if record["epochs"] else set())
        assert all(len(line) == 2 for line in seen.values())
        assert not seen or max(seen["conv1"]) > 0
    (record,) = outcome.floats
    assert record["epochs"] == 3
    assert set(record["rates"]) == {"conv1", "fc1", "out"}


def test_a_record_is_what_the_stored_program_gives(whole: tuple[Path, Outcome]) -> None:
    """Accuracy, rates and their drift, by the reference engine, which knows of no reuse."""
    folder, outcome = whole
    data = load_recordings(EXPERIMENT.data).validation
    net = restored(checkpoint.load_layers(layered.float_path(folder)))
    said, float_rates = responses(net, data)
    assert (said.argmax(axis=1) == data.labels).mean() == outcome.float_validation
    for record in outcome.candidates:
        program = load(folder / "candidates" / f"{record['key']}.qspinn")
        result = run(program, data.graded(), backend="reference")
        assert (result.predictions() == data.labels).mean() == record["accuracy"]
        for name, counts in result.counts.items():
            assert record["rates"][name] == pytest.approx(counts.mean() / data.n_steps)
            assert record["rate_drift"][name] == pytest.approx(counts.mean() / data.n_steps - float_rates[name])
    assert any(r["rates"]["conv1"] > 0 for r in outcome.candidates)


def test_training_takes_the_finer_bins(tmp_path: Path) -> None:
    bits = np.random.default_rng(1).random((140, 256, 12)) < 0.05
    np.savez(tmp_path / "braille7.npz", x=np.packbits(bits, axis=-1), shape=np.array(bits.shape), y=np.arange(140) % 7)
    experiment = msgspec.structs.replace(
        EXPERIMENT,
        data=EventData(name="braille7", folder=str(tmp_path), bin_ms=40.0, fine=4),
        network=LayersConfig(layers=(DenseLink(n=6, norm=True), DenseLink(norm=True))),
        training=Supervision(n_epochs=1, batch=16, jitter=1.0),
    )
    dataset = layered.load(experiment)
    measurement = layered.open_measurement(
        tmp_path, experiment, dataset.labels, layered.store(tmp_path, experiment, dataset)
    )
    layered.train_float(measurement, None)
    (tmp_path / "candidates").mkdir()
    expected = layered.trained_net(experiment, layered.declared(experiment, dataset), *dataset.learned())
    coarse = layered.trained_net(experiment, layered.declared(experiment, dataset), dataset.train)
    assert np.array_equal(measurement.float_net().params()["fc1.w"], expected.params()["fc1.w"])
    assert not np.array_equal(coarse.params()["fc1.w"], expected.params()["fc1.w"])
    candidate = next(c for c in layered.propose(experiment, dataset, []) if c.scheme is Scheme.ITQ)
    program, _ = layered.build(measurement, candidate)
    assert program.n_steps == dataset.n_steps == 32


def test_a_finished_run_is_not_done_again(whole: tuple[Path, Outcome]) -> None:
    folder, _ = whole
    before, journal = lasting(folder), (folder / "journal").read_bytes()
    events: list[Event] = []
    explore(EXPERIMENT, folder, on_event=events.append, executors=inline)
    assert lasting(folder) == before
    assert (folder / "journal").read_bytes() == journal
    assert all(e.done == e.total for e in events if e.stage in ("float training", "significance", "candidates"))


def test_damaged_interrupted_trainings_start_again(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    """That of the float network and that of a candidate: neither stops the run, nor costs more than time."""
    (folder, outcome), out = whole, tmp_path / "damaged"
    shutil.copytree(folder, out)
    key = next(r["key"] for r in outcome.candidates if r["candidate"]["scheme"] == "itq")
    for trained in (out / "float" / "layers.safetensors", out / "candidates" / f"{key}.qspinn"):
        trained.unlink()
        trained.with_suffix(".training").write_bytes(b"damaged")
    explore(EXPERIMENT, out, executors=inline)
    assert lasting(out) == lasting(folder)
    assert not list(out.rglob("*.training"))


@pytest.mark.soak
def test_worker_processes_come_to_the_same_result(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    explore(EXPERIMENT, tmp_path / "run", n_workers=2)
    assert lasting(tmp_path / "run") == lasting(whole[0])


@pytest.mark.soak
def test_killed_runs_come_to_the_same_result(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Processes die in the float training, among PTQ candidates and in an ITQ training; then one finishes."""
    out, told = tmp_path / "killed", []
    for moment in DEATHS:
        died = subprocess.run([sys.executable, __file__, str(out), str(moment)], check=False)
        assert died.returncode == -signal.SIGKILL
        told.append((len(list(out.rglob("*.training"))), len(scan((out / "journal").read_bytes(), "journal")[0])))
    assert told == [(1, 1), (0, 28), (1, 51)]
    explore(EXPERIMENT, out, executors=inline)
    assert lasting(out) == lasting(whole[0])
    assert not list(out.rglob("*.training"))


def test_layers_in_common_are_run_once_and_give_the_same_bits(whole: tuple[Path, Outcome]) -> None:
    folder, _ = whole
    dataset = load_recordings(EXPERIMENT.data)
    files = layered.store(folder, EXPERIMENT, dataset)
    measurement = open_worker(folder, EXPERIMENT, dataset.labels, files).measurement
    spikes, reuse = dataset.validation.graded(), Reuse()
    points = [p for p in layered.points(EXPERIMENT, dataset) if p.label.split("|")[0].startswith("fc1")]
    programs = [layered.build(measurement, p)[0] for p in points]
    for program in programs:
        mine, plain = reuse.run(program, spikes, "validation"), run(program, spikes)
        assert np.array_equal(mine.scores, plain.scores)
        assert all(np.array_equal(mine.counts[name], plain.counts[name]) for name in plain.counts)
    keys = [layer_keys(p, "validation") for p in programs]
    n_different = sum(len({k[name] for k in keys}) for name in ("conv1", "fc1"))
    assert len({k["conv1"] for k in keys}) == 1
    assert reuse.n_runs == n_different + len(programs)
    assert n_different < len(programs)
    small = Reuse(room_bytes=0)
    assert all(np.array_equal(small.run(p, spikes, "validation").scores, run(p, spikes).scores) for p in programs)


def test_everything_that_a_layer_depends_on_is_in_its_key(whole: tuple[Path, Outcome]) -> None:
    folder, _ = whole
    program = load(folder / "model.qspinn")
    before = layer_keys(program, "validation")
    for name, tensor in program.tensors.items():
        codes = tensor.codes.copy()
        codes.flat[0] += 1 if codes.flat[0] < 1 else -1
        other = {**program.tensors, name: msgspec.structs.replace(tensor, codes=codes)}
        after = layer_keys(msgspec.structs.replace(program, tensors=other), "validation")
        order = ["conv1", "fc1", "out"]
        first = order.index(name.split(".")[0])
        assert [before[n] != after[n] for n in order] == [i >= first for i in range(3)], name
    assert layer_keys(program, "test")["conv1"] != before["conv1"]
    assert layer_keys(msgspec.structs.replace(program, seed=9), "validation")["conv1"] != before["conv1"]


def test_candidates_have_keys_by_content(whole: tuple[Path, Outcome]) -> None:
    for record in whole[1].candidates:
        candidate = from_plain(LayeredCandidate, record["candidate"])
        assert candidate.key() == record["key"]
        assert msgspec.structs.replace(candidate, seed=6).key() != record["key"]


def test_plans_of_the_keys_for_few_bits() -> None:
    """One bit is binary, two may be ternary; wide potentials need no accumulator; first and last keep their width."""
    search = LayeredSearch(
        schemes=(Scheme.ITQ,),
        first_bits=8,
        last_bits=8,
        accumulator_bits=12,
        ternary_weights=True,
        ternary_states=True,
        power_of_two=True,
        itq={"bits": ((1, 2), (2, 12))},
    )
    experiment = msgspec.structs.replace(EXPERIMENT, search=search)
    low, high = (
        {r.tensor: r for r in c.plan.rules} for c in layered.propose(experiment, load_recordings(experiment.data), [])
    )
    assert [low[f"{name}.w"].levels for name in ("conv1", "fc1", "out")] == [
        Levels.UNIFORM,
        Levels.BINARY,
        Levels.UNIFORM,
    ]
    assert high["fc1.w"].levels is Levels.TERNARY
    assert low["fc1.w"].power_of_two
    assert (low["fc1.v"].bits, low["fc1.v"].accumulator_bits, low["fc1.v"].levels) == (2, 12, Levels.TERNARY)
    assert (high["fc1.v"].bits, high["fc1.v"].accumulator_bits, high["fc1.v"].levels) == (12, 0, Levels.UNIFORM)


def test_an_itq_candidate_may_have_widths_of_its_own() -> None:
    """Beside others, which keep the search's; its label says so."""
    own = ItqBits(weights=1, states=3, first_bits=3, accumulator_bits=8)
    search = LayeredSearch(schemes=(Scheme.ITQ,), last_bits=4, itq={"bits": ((1, 3), own)})
    experiment = msgspec.structs.replace(EXPERIMENT, search=search)
    again = from_plain(LayeredExperiment, json.loads(json.dumps(to_plain(experiment))))
    assert again == experiment
    plain, special = layered.propose(again, load_recordings(experiment.data), [])
    widths = [{r.tensor: (r.bits, r.accumulator_bits) for r in c.plan.rules} for c in (plain, special)]
    assert [w[f"{name}.w"][0] for w in widths for name in ("conv1", "fc1", "out")] == [1, 1, 4, 3, 1, 4]
    assert [w["fc1.v"] for w in widths] == [(3, 0), (3, 8)]
    assert special.label == f"{plain.label.removesuffix(' last4')} first3 last4"


def test_rates_of_training_are_drawn(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, outcome = whole
    winner = next(r for r in outcome.candidates if r["candidate"]["scheme"] == "itq")
    title = "Spikes per neuron and step of each layer in every epoch"
    drawn = str(history(winner["trained_rates"]))
    assert title in drawn
    assert drawn.count("<circle") == 3 * 2
    assert history({}) == ""
    page = write_report(folder, tmp_path / "page.html").read_text("utf-8")
    chosen = next(r for r in outcome.candidates if r["key"] == outcome.winner)
    assert (title in page) == ("trained_rates" in chosen)


def test_currents_and_potential_readouts_have_possible_plans() -> None:
    """A synaptic current is wide enough for its weights, and weights that are compared have one step for all."""
    network = LayersConfig(
        layers=(DenseLink(n=8, recurrent=True, neuron=Leaky(current_decay=0.6)), DenseLink()),
        neuron=Leaky(decay=0.9),
        readout="v_last",
    )
    experiment = msgspec.structs.replace(
        EXPERIMENT,
        network=network,
        training=Supervision(n_epochs=1),
        search=(
            LayeredSearch(
                schemes=(Scheme.PTQ,),
                max_drop_points=100.0,
                ptq={
                    "roundings": (Rounding.NEAREST,),
                    "weight_bits": (8, 4),
                    "granularities": (Granularity.PER_CHANNEL,),
                },
                sweep={"bits": (8,)},
            )
        ),
    )
    dataset = load_recordings(experiment.data)
    candidates = layered.propose(experiment, dataset, [])
    for candidate in candidates:
        bits = {r.tensor: r.bits for r in candidate.plan.rules}
        assert bits["fc1.i"] >= min(16, bits["fc1.w_input"] + 8)
        assert bits["fc1.i"] == 12 or bits["fc1.w_input"] == 8 or "lean" in candidate.label
        steps = {r.tensor: r.granularity for r in candidate.plan.rules}
        assert steps["fc1.w_fc1"] is Granularity.PER_CHANNEL
        assert steps["out.w"] is Granularity.GLOBAL


def test_a_run_with_currents_measures_its_curves(tmp_path: Path) -> None:
    """The widest point can be lowered; points that cannot are left out of the curve."""
    network = LayersConfig(layers=(DenseLink(n=8, recurrent=True, neuron=Leaky(current_decay=0.6)), DenseLink()))
    experiment = msgspec.structs.replace(
        EXPERIMENT,
        network=network,
        search=msgspec.structs.replace(
            EXPERIMENT.search,
            schemes=(Scheme.PTQ,),
            sweep=msgspec.structs.replace(EXPERIMENT.search.sweep, bits=(8, 2)),
            ptq=msgspec.structs.replace(EXPERIMENT.search.ptq, weight_bits=(6,)),
        ),
    )
    outcome = explore(experiment, tmp_path, executors=inline)
    curves = {s["path"]: s["bits"] for s in outcome.significance}
    assert curves["fc1.w_fc1"][-1] == 2
    assert curves["fc1.i"][0] == 16
    assert 2 not in curves["fc1.i"]
    assert {r["path"] for r in outcome.float_memory} >= {"fc1.i", "fc1.s", "fc1.i_decay", "fc1.w_input", "fc1.w_fc1"}


def test_the_page_shows_layers_and_nothing_of_competing_neurons(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, outcome = whole
    page = write_report(folder, tmp_path / "page.html").read_text("utf-8")
    text = read(page).text
    winner = next(r for r in outcome.candidates if r["key"] == outcome.winner)
    for part in (
        "Layer by layer",
        "spikes per neuron and step",
        "Kernels of the first layer",
        "conv1",
        "4 × 3 × 3",
        "synthetic_gestures",
        "22 recordings",
        "3 epochs",
        "synthetic clap",
        winner["candidate"]["label"],
    ):
        assert part in text, part
    for part in ("Receptive fields", "Learning on the device", "images", "votes"):
        assert part not in text, part
    assert all(load.startswith(("data:", "#")) for load in read(page).loads)
    assert not re.search(r"https?://", page)
    assert read(page).tags.count("img") == 2 * 8
    rates, drift = outcome.floats[0]["rates"], winner["rate_drift"]
    assert f"{100 * drift['fc1'] / rates['fc1']:+.1f}" in text


@pytest.mark.parametrize("name", ["model.qspinn", "float/layers.safetensors"])
def test_a_broken_file_is_named_by_the_report(name: str, whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "run")
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(RunError, match=rf"{name}.*fix: .*qspinn explore"):
        write_report(folder)


def test_a_damaged_memory_of_another_network_is_an_error(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    result["floats"][0]["rates"] = {}
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(RunError, match="does not fit the float network"):
        write_report(folder)


PLAIN: dict[str, Any] = to_plain(EXPERIMENT)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("family", "lyaers", "config.family.*lyaers.*layers"),
        ("search.ptq.weight_bits", [0], r"search.ptq.weight_bits.*1\.\.16"),
        ("search.ptq.state_bits", [1], r"search.ptq.state_bits.*2\.\.16"),
        ("search.itq.bits", [[1, 1]], r"search.itq.bits.*got 1; allowed: 2\.\.16"),
        ("search.itq.spike_regulation", -1e-3, r"search.itq.spike_regulation.*>= 0"),
        ("training.spike_regulation", -1e-3, r"training.spike_regulation.*>= 0"),
        ("search.itq.distillation", 1.5, r"search.itq.distillation.*0\.\.1"),
        ("search.itq.temperature", 0.0, r"search.itq.temperature.*> 0"),
        ("training.distillation", -0.5, r"training.distillation.*0\.\.1"),
        ("training.temperature", -1.0, r"training.temperature.*> 0"),
        ("search.itq.estimator", "anealed", "search.itq.estimator"),
        ("search.itq.bits", [[4, 17]], r"search.itq.bits.*17"),
        ("search.itq.bits", [[4, 8], {"weights": 1}], r"config.search.itq.bits\[1\].*states"),
        (
            "search.itq.bits",
            [{"weights": 1, "states": 3, "frist_bits": 3}],
            r"search.itq.bits\[0\].frist_bits.*first_bits",
        ),
        ("search.itq.bits", [{"weights": 1, "states": 3, "first_bits": 17}], r"search.itq.bits.first_bits.*17"),
        (
            "search.itq.bits",
            [{"weights": 1, "states": 3, "accumulator_bits": -1}],
            r"search.itq.bits.accumulator_bits.*-1",
        ),
        ("search.schemes", ["ptq_adapt"], "search.schemes.*ptq, itq"),
        ("search.ptq.granularities", ["per_neuron"], "search.ptq.granularities.*per_channel"),
        ("search.ptq.state_calibrator", "mean_abs", "search.ptq.state_calibrator"),
        ("search.wieght_bits", [4], "config.search.wieght_bits.*weight_bits"),
        ("network.layers", [{"kind": "conv", "chanels": 3}], r"config.network.layers\[0\].chanels.*channels"),
        ("network.layers", [{"kind": "convolution"}], r"network.layers\[0\]"),
        ("data.name", "nmnist9", "data.name"),
        ("data.size", -1, "data.size"),
        ("seed", -1, "seed"),
    ],
)
def test_mistakes_in_the_configuration_are_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_experiment(with_value(PLAIN, path, value))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((DenseLink(n=5),), r"network.layers\[0\].*one neuron for each class"),
        ((ConvLink(channels=2),), r"network.layers\[0\].*one neuron for each class"),
        ((DenseLink(), DenseLink()), r"network.layers\[0\].n"),
        ((ConvLink(channels=2, kernel=9), DenseLink()), r"network.layers\[0\].*kernel \(9, 9\)"),
    ],
)
def test_networks_that_do_not_fit_the_data_are_named(layers: tuple, says: str, tmp_path: Path) -> None:
    experiment = msgspec.structs.replace(EXPERIMENT, network=LayersConfig(layers=layers))
    with pytest.raises(ConfigError, match=says):
        explore(experiment, tmp_path, executors=inline)


def test_synthetic_data_in_place_of_recordings_are_named_so() -> None:
    real = msgspec.structs.replace(EXPERIMENT, data=EventData(name="dvs_gesture", folder="x", size=8, n_bins=6))
    replaced = real.on_synthetic_data()
    assert (replaced.name, replaced.data.name, replaced.data.size) == ("tiny-synthetic", "synthetic_gestures", 8)
    assert replaced.data.folder == ""
    with pytest.raises(ConfigError, match=r"--synthetic.*nmnist8"):
        msgspec.structs.replace(EXPERIMENT, data=EventData(name="nmnist8")).on_synthetic_data()


if __name__ == "__main__":
    folder, moment = Path(sys.argv[1]), int(sys.argv[2])
    die_at(moment, moment % 5, folder)
    explore(EXPERIMENT, folder, executors=inline)

"""A small exploration of local learning: whole, interrupted, repeated; its plans, records, page and command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn import cli
from qspinn.data import EventData, EventDataset
from qspinn.errors import ConfigError, RunError, TargetError
from qspinn.exploration.family import read_experiment
from qspinn.exploration.local import measurement as local
from qspinn.exploration.local import proposal as local_proposal
from qspinn.exploration.local.space import LocalCandidate, LocalExperiment, LocalSearch
from qspinn.exploration.search import Event, Outcome, explore, sweep
from qspinn.learning.local import model as local_model
from qspinn.learning.local import training
from qspinn.learning.local.formats import default_rules, local_rules
from qspinn.learning.local.memory import local_account
from qspinn.learning.local.model import TrainedLocal, load_local
from qspinn.learning.local.settings import LocalLearning
from qspinn.networks.local import LocalLayer, LocalNetwork
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.records.record import from_plain, to_plain
from qspinn.report import write_report
from running import inline, lasting, with_value
from samples import LOCAL_SHAPE, local_bars, read

NAMES = ["conv1", "conv2"]
EXPERIMENT = LocalExperiment(
    name="tiny",
    family="local",
    data=EventData(name="synthetic_gestures"),
    network=LocalNetwork(
        layers=(LocalLayer(channels=12, kernel=3, padding=1), LocalLayer(channels=8, kernel=3, padding=1, pool=2)),
        tau_mem_ms=(5.0, 30.0),
    ),
    learning=LocalLearning(arithmetic="float", n_epochs=3, batch=24, learning_rate=2.0**-6, float_learning_rate=1e-2),
    plan=QuantPlan(rules=(QuantRule(tensor="conv2.p_trace", bits=7), *default_rules(readout=4))),
    search=LocalSearch(
        weight_bits=(5,),
        trace_bits=(),
        gradient_bits=(9, 4),
        max_drop_points=20.0,
        sweep={"bits": (8, 3), "samples": 48, "harmless_points": 5.0},
    ),
    seed=5,
)


def dataset() -> EventDataset:
    return EventDataset(
        name="bars",
        shape=LOCAL_SHAPE,
        n_steps=8,
        bin_ms=5.0,
        labels=("upper", "middle", "lower"),
        train=local_bars(240, 1),
        validation=local_bars(60, 2),
        test=local_bars(60, 3),
        split_rule="by seed",
    )


@pytest.fixture(scope="module", autouse=True)
def on_bars() -> Iterator[None]:
    """Recordings that few epochs suffice for, in place of gestures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "load", lambda experiment: dataset())
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, on_bars: None) -> tuple[Path, Outcome]:
    """(folder, outcome) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, explore(EXPERIMENT, folder, executors=inline)


def by_label(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {r["candidate"]["label"]: r for r in outcome.candidates}


def stored(folder: Path, record: dict[str, Any]) -> TrainedLocal:
    return load_local(folder / "candidates" / f"{record['key']}.safetensors")


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_outcome_is_consistent(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    found = by_label(outcome)
    assert set(found) == {"plan", "lean", "w5 gradient9 plan", "w5 gradient9 lean"}
    assert {r["candidate"]["label"] for r in outcome.rejected} == {"w5 gradient4 plan", "w5 gradient4 lean"}
    assert all("conv1.gradient: the shift" in r["rejected"] for r in outcome.rejected)
    assert outcome.float_validation > 0.8
    assert found["plan"]["accuracy"] > 0.8
    assert outcome.winner in outcome.front
    assert outcome.winner in outcome.admitted
    assert np.sum(outcome.confusion) == 60
    assert np.trace(outcome.confusion) / 60 == outcome.winner_test
    assert {r["scheme"] for r in (c["candidate"] for c in outcome.candidates)} == {"itq"}
    assert len({r["accuracy"] for r in outcome.candidates}) > 1
    (record,) = outcome.floats
    assert record["epochs"] == 3
    assert not list(folder.rglob("*.training"))
    assert not list(folder.rglob("*.qspinn"))


def test_memory_is_that_of_learning(whole: tuple[Path, Outcome]) -> None:
    _, outcome = whole
    assert outcome.float_bits == local_account(EXPERIMENT.network, LOCAL_SHAPE, 3, None).total_bits
    for record in outcome.candidates:
        plan = from_plain(LocalCandidate, record["candidate"]).plan
        account = local_account(EXPERIMENT.network, LOCAL_SHAPE, 3, plan)
        assert record["bits"] == account.total_bits
        assert record["memory"] == [to_plain(row) for row in account.rows]
    rows = {r["path"]: r["bits"] for r in by_label(outcome)["w5 gradient9 lean"]["memory"]}
    assert {rows[f"{name}.w"] for name in NAMES} == {5}
    assert {rows[f"{name}.gradient"] for name in NAMES} == {9}
    assert {"parameter", "state", "learning"} == {r["role"] for r in outcome.float_memory}


def test_candidates_and_baseline_are_what_training_alone_gives(whole: tuple[Path, Outcome]) -> None:
    """Bit for bit, from the same start; whatever arithmetic the file names for training."""
    folder, outcome = whole
    data = dataset()
    for arithmetic, mine in (
        ("integer", stored(folder, by_label(outcome)["plan"])),
        ("float", load_local(folder / "float" / "local.safetensors")),
    ):
        learning = msgspec.structs.replace(EXPERIMENT.learning, arithmetic=arithmetic)
        layers, told = local_model.trained_layers(data, EXPERIMENT.network, learning, EXPERIMENT.plan, 5)
        assert mine.network.learning.arithmetic == arithmetic
        assert mine.network.scales == told.scales
        assert same(mine.params, layers.state())


def test_a_record_is_what_the_stored_layers_say(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    data = dataset()
    for record in outcome.candidates:
        trained = stored(folder, record)
        said, spikes = local_model.predictions(local_model.restored(trained), data.validation, trained.network)
        assert (said == data.validation.labels).mean() == record["accuracy"]
        assert spikes == record["spikes"] > 0
        assert {a.dtype.kind for a in trained.params.values()} == {"i"}
        assert from_plain(LocalCandidate, trained.provenance["candidate"]).key() == record["key"]
    winner = load_local(folder / outcome.model)
    assert outcome.model == "model.safetensors"
    chosen = next(r for r in outcome.candidates if r["key"] == outcome.winner)
    assert same(winner.params, stored(folder, chosen).params)
    said, _ = local_model.predictions(local_model.restored(winner), data.test, winner.network)
    assert (said == data.test.labels).mean() == outcome.winner_test == winner.provenance["test_accuracy"]
    assert read_experiment(winner.provenance["experiment"]) == EXPERIMENT
    real = load_local(folder / "float" / "local.safetensors")
    said, _ = local_model.predictions(local_model.restored(real), data.test, real.network)
    assert (said == data.test.labels).mean() == outcome.float_test


def test_curves_begin_with_the_plan(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    curves = {s["path"]: s for s in outcome.significance}
    assert {path: s["bits"] for path, s in curves.items()} == {
        "*.w": (8, 3),
        "*.gradient": (10, 8),
        "*.q_trace": (10, 8, 3),
        "*.p_trace": (12, 8, 3),
        "*.u": (6, 3),
        "*.readout": (4, 3),
        "*.read": (6, 3),
        "*.error": (6, 3),
    }
    assert len({s["accuracy"][0] for s in curves.values()}) == 1
    measurement = local.open_measurement(
        folder, EXPERIMENT, dataset().labels, local.store(folder, EXPERIMENT, dataset())
    )
    point = next(c for c in local.points(EXPERIMENT, dataset()) if c.label == "*.w|nearest|3")
    learning = msgspec.structs.replace(EXPERIMENT.learning, arithmetic="integer", n_epochs=1)
    small = msgspec.structs.replace(dataset(), train=dataset().train.slice(0, 48))
    layers, told = local_model.trained_layers(small, EXPERIMENT.network, learning, point.plan, 5)
    part = dataset().validation.slice(0, 48)
    expected = (local_model.predictions(layers, part, told)[0] == part.labels).mean()
    assert curves["*.w"]["accuracy"][1] == local.sweep_accuracy(measurement, point) == expected
    n_weights = sum(r["count"] for r in outcome.float_memory if r["path"].endswith(".w"))
    lost = 100 * max(0, curves["*.w"]["accuracy"][0] - curves["*.w"]["accuracy"][1])
    assert curves["*.w"]["significance"] == pytest.approx(lost / (n_weights * 5 / 1000))


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
    key = outcome.candidates[0]["key"]
    for trained in (out / "float" / "local.safetensors", out / "candidates" / f"{key}.safetensors"):
        trained.unlink()
        trained.with_suffix(".training").write_bytes(b"damaged")
    explore(EXPERIMENT, out, executors=inline)
    assert lasting(out) == lasting(folder)
    assert not list(out.rglob("*.training"))


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.soak
def test_worker_processes_come_to_the_same_result(n_workers: int, whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    explore(EXPERIMENT, tmp_path / "run", n_workers=n_workers)
    assert lasting(tmp_path / "run") == lasting(whole[0])


class Stop(BaseException):
    """The interruption: no failure of a candidate, which would be recorded."""


@pytest.mark.parametrize("n_stored", [2, 5])
def test_an_interrupted_training_goes_on(
    n_stored: int, whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the float training, and within a candidate: no epoch is done twice."""
    written: list[Path] = []
    store = training._store

    def stopping(path: Path, *rest: Any) -> None:
        store(path, *rest)
        written.append(path)
        if len(written) == n_stored:
            raise Stop

    monkeypatch.setattr(training, "_store", stopping)
    with pytest.raises(Stop):
        explore(EXPERIMENT, tmp_path, executors=inline)
    assert written[n_stored - 1].exists()
    explore(EXPERIMENT, tmp_path, executors=inline)
    assert written.count(written[n_stored - 1]) == 3
    assert lasting(tmp_path) == lasting(whole[0])
    assert not list(tmp_path.rglob("*.training"))


def test_the_sweep_alone_is_the_first_part_of_the_search(tmp_path: Path, whole: tuple[Path, Outcome]) -> None:
    assert [to_plain(s) for s in sweep(EXPERIMENT, tmp_path, executors=inline)] == [
        to_plain(s) for s in map(dict, whole[1].significance)
    ]
    assert not list(tmp_path.glob("candidates/*"))


def widths(candidate: LocalCandidate) -> dict[str, int]:
    return {path: rule.bits for path, rule in local_rules(candidate.plan, NAMES).items()}


def test_layers_that_have_fewer_bits_keep_them() -> None:
    """conv2.p_trace has 7 bits; what is asked for by name is set in all layers; roundings stay."""
    by_label = {c.label: c for c in local_proposal.points(EXPERIMENT, NAMES)}
    assert widths(by_label["plan"]) == {p: r.bits for p, r in local_rules(EXPERIMENT.plan, NAMES).items()}
    narrow = widths(by_label["*.p_trace|nearest|8"])
    assert (narrow["conv1.p_trace"], narrow["conv2.p_trace"], narrow["conv1.q_trace"]) == (8, 7, 10)
    assert not [label for label in by_label if "activation" in label or "|r|" in label or "*.r|" in label]
    search = msgspec.structs.replace(EXPERIMENT.search, trace_bits=(9,), gradient_bits=())
    accuracy = {
        "plan": 0.9,
        "*.p_trace|nearest|8": 0.9,
        "*.p_trace|nearest|3": 0.5,
        "*.w|nearest|3": 0.88,
        "*.u|nearest|3": 0.1,
        "*.readout|nearest|3": 0.9,
    }
    experiment = msgspec.structs.replace(EXPERIMENT, search=search)
    curves = local_proposal.curves(experiment, accuracy, local_account(EXPERIMENT.network, LOCAL_SHAPE, 3, None))
    assert {c.path: c.harmless_bits for c in curves} == {"*.p_trace": 8, "*.w": 3, "*.u": 6, "*.readout": 3}
    found = {c.label: widths(c) for c in local_proposal.propose(experiment, NAMES, curves)}
    assert list(found) == ["plan", "lean", "w5 trace9 plan", "w5 trace9 lean"]
    lean, asked = found["lean"], found["w5 trace9 lean"]
    assert [lean[p] for p in ("conv1.w", "conv1.p_trace", "conv2.p_trace", "conv1.u", "conv2.r")] == [3, 8, 7, 6, 2]
    assert [asked[p] for p in ("conv1.w", "conv1.p_trace", "conv2.p_trace", "conv2.q_trace")] == [5, 9, 9, 9]
    assert [c["conv1.readout"] for c in found.values()] == [4, 3, 4, 3]
    rounded = local_rules(local_proposal.propose(experiment, NAMES, curves)[-1].plan, NAMES)
    assert {p: r.rounding for p, r in rounded.items()} == {
        p: r.rounding for p, r in local_rules(EXPERIMENT.plan, NAMES).items()
    }


def test_the_same_plan_is_tried_once() -> None:
    search = LocalSearch(weight_bits=(8, 6), trace_bits=(), sweep={"bits": ()})
    experiment = msgspec.structs.replace(EXPERIMENT, search=search)
    assert local_proposal.points(experiment, NAMES) == []
    assert [c.label for c in local_proposal.propose(experiment, NAMES, [])] == ["plan", "w6 plan"]
    assert len({c.key() for c in local_proposal.points(EXPERIMENT, NAMES)}) == 1 + 11


def test_a_plan_that_is_not_possible_is_a_finding(tmp_path: Path) -> None:
    plan = QuantPlan(rules=default_rules(gradient=6))
    search = LocalSearch(weight_bits=(5,), trace_bits=(), max_drop_points=100.0, sweep={"bits": (3,), "samples": 24})
    learning = msgspec.structs.replace(EXPERIMENT.learning, n_epochs=1)
    experiment = msgspec.structs.replace(EXPERIMENT, plan=plan, search=search, learning=learning)
    outcome = explore(experiment, tmp_path / "some", executors=inline)
    assert outcome.significance == []
    assert set(by_label(outcome)) == {"w5 plan"}
    assert [r["candidate"]["label"] for r in outcome.rejected] == ["plan"]
    assert "No significance was measured" in write_report(tmp_path / "some").read_text("utf-8")
    hopeless = msgspec.structs.replace(experiment, search=msgspec.structs.replace(search, weight_bits=(7,)))
    with pytest.raises(TargetError, match=r"no candidate could be measured; 1 rejected: conv1\.gradient: the shift"):
        explore(hopeless, tmp_path / "none", executors=inline)


def test_the_page_shows_what_learning_costs(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, outcome = whole
    page = write_report(folder, tmp_path / "page.html").read_text("utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    winner = next(r for r in outcome.candidates if r["key"] == outcome.winner)
    saved = 100 * (1 - winner["bits"] / outcome.float_bits)
    kept = {r["path"]: r["bits"] for r in winner["memory"]}
    for part in (
        "Learning on the device",
        "memory for learning",
        "what learning costs",
        "60 recordings",
        "bars",
        "1 epoch on 48 of the 240 training recordings",
        winner["candidate"]["label"],
        f"{saved:.1f}",
        "qspinn explore tiny.json",
        "conv1.gradient: the shift",
        "one recording at a time",
    ):
        assert part in text, part
    traces = [str(kept[f"{name}.p_trace"]) for name in NAMES]
    assert f"p_trace membrane traces 1,008 32 {', '.join(dict.fromkeys(traces))} nearest" in text
    n_weights = 12 * 9 * 2 + 12 + 8 * 9 * 12 + 8
    assert f"w weights of the forward pass {n_weights:,} 32 {kept['conv1.w']} nearest {32 * n_weights:,}" in text
    assert f"*.w {n_weights:,}" in text
    for part in ("Receptive fields", "Layer by layer", "images", "votes", "inference", "folded"):
        assert part not in text, part
    assert all(load.startswith(("data:", "#")) for load in read(page).loads)
    assert not re.search(r"https?://", page)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_broken_file_is_named_by_the_report(damage: str, whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "run")
    model = folder / "model.safetensors"
    if damage == "missing":
        model.unlink()
    else:
        model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(RunError, match=r"model\.safetensors.*fix: .*qspinn explore"):
        write_report(folder)


PLAIN: dict[str, Any] = to_plain(EXPERIMENT)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("search.weight_bits", [1], r"search.weight_bits.*got 1; allowed: 2\.\.12"),
        ("search.trace_bits", [8, 16], r"search.trace_bits.*got 16; allowed: 1\.\.15"),
        ("search.gradient_bits", [17], r"search.gradient_bits.*got 17; allowed: 2\.\.16"),
        ("search.state_bits", [11], r"search.state_bits.*got 11; allowed: 2\.\.10"),
        ("search.refractory_bits", [9], r"search.refractory_bits.*got 9; allowed: 1\.\.8"),
        ("search.readout_bits", [1], r"search.readout_bits.*got 1; allowed: 2\.\.12"),
        ("search.error_bits", [13], r"search.error_bits.*got 13; allowed: 2\.\.12"),
        ("search.sweep.bits", [0], r"search.sweep.bits.*got 0; allowed: 1\.\.16"),
        ("search.sweep.epochs", 0, r"search.sweep.epochs.*got 0; allowed: >= 1"),
        ("search.sweep.samples", -1, r"search.sweep.samples.*got -1; allowed: >= 0"),
        ("search.max_drop_points", -1, r"search.max_drop_points.*got -1"),
        ("search.sweep.harmless_points", -0.5, r"search.sweep.harmless_points.*got -0.5"),
        ("search.wieght_bits", [4], "config.search.wieght_bits.*weight_bits"),
        ("reward.mu", -1, "reward.mu"),
        ("seed", -1, "seed"),
        ("version", 2, "version"),
    ],
)
def test_mistakes_in_the_configuration_are_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_experiment(with_value(PLAIN, path, value))


def test_a_file_without_a_search_has_the_usual_one() -> None:
    plain = {k: v for k, v in PLAIN.items() if k not in ("search", "reward")}
    read = read_experiment(json.loads(json.dumps(plain)))
    assert isinstance(read, LocalExperiment)
    assert read.search == LocalSearch()


TINY = """
version = 1
name = "tiny"
family = "local"
[data]
name = "synthetic_gestures"
size = 16
n_bins = 6
n_train = 22
n_validation = 22
n_test = 11
[[network.layers]]
channels = 4
stride = 4
[learning]
n_epochs = 1
batch = 8
[search]
weight_bits = [6]
trace_bits = []
max_drop_points = 100.0
[search.sweep]
bits = [3]
samples = 8
"""


def qspinn(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qspinn", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.soak
def test_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    done = qspinn(tmp_path, "explore", "tiny.toml", "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    model = Path(said["model"])
    assert model == Path("runs/tiny/model.safetensors")
    assert (tmp_path / said["report"]).exists()
    assert said["candidates"] == 4
    told = json.loads(qspinn(tmp_path, "evaluate", str(model), "--json").stdout)
    assert (told["split"], told["n"], told["accuracy"]) == ("test", 11, said["winner_test"])
    options: list[dict[str, Any]] = [{"seed": 3}, {"backend": "torch"}, {"device": "cuda"}, {"dataset": "mnist"}]
    for given in options:
        with pytest.raises(ConfigError, match=f"--{next(iter(given))}"):
            cli.evaluate(tmp_path / model, **given)
    refused = qspinn(tmp_path, "explore", "tiny.toml", "--set", "search.trace_bits=[99]")
    assert refused.returncode == 2
    assert "search.trace_bits" in refused.stderr
    trained = qspinn(tmp_path, "train", "tiny.toml", "--out", "alone.safetensors")
    assert trained.returncode == 0, trained.stderr
    told = json.loads(qspinn(tmp_path, "evaluate", "alone.safetensors", "--split", "validation", "--json").stdout)
    assert f"{told['accuracy'] * 100:.2f} %" in trained.stdout

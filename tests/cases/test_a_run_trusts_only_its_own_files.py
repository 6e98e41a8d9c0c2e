"""A run takes and replaces only what it wrote itself: files of other runs, other data and other people are noticed."""

from __future__ import annotations

import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qspinn.data import DataConfig, Dataset
from qspinn.errors import ArtifactError, RunError
from qspinn.exploration import artifacts, search
from qspinn.exploration.artifacts import digest, from_start_if_damaged, need_digest
from qspinn.exploration.competing import measurement
from qspinn.exploration.competing.space import Experiment, NetworkConfig, SearchConfig
from qspinn.exploration.entries import check_entries
from qspinn.exploration.journal import HEAD, Journal, scan
from qspinn.exploration.outcome import Selection
from qspinn.exploration.reward import Reward
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.search import explore
from qspinn.exploration.workers import LocalProcesses, stop
from qspinn.files import remove_parts
from qspinn.fixedpoint import Rounding
from qspinn.quantization.plan import Granularity
from running import inline, lasting

EXPERIMENT = Experiment(
    name="tiny",
    data=DataConfig(name="digits", n_train=60, n_validation=40, n_test=40),
    network=NetworkConfig(n_neurons=10, n_steps=20, rate_hz=200.0),
    search=SearchConfig(
        schemes=(Scheme.PTQ,),
        max_drop_points=100.0,
        ptq={
            "roundings": (Rounding.NEAREST,),
            "weight_bits": (4, 2),
            "state_bits": (),
            "granularities": (Granularity.PER_NEURON,),
            "input_rates": (0.0,),
        },
        sweep={"bits": (8,)},
    ),
)
OTHER = msgspec.structs.replace(EXPERIMENT, training=msgspec.structs.replace(EXPERIMENT.training, n_passes=3))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    explore(EXPERIMENT, folder, executors=inline)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another training of networks of the same size, whose candidates have the same names."""
    folder = tmp_path_factory.mktemp("other")
    explore(OTHER, folder, executors=inline)
    return folder


@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_the_winner_is_on_the_front_where_rewards_tie(form: Any) -> None:
    """Beyond the accuracy of the float network the multiplicative reward counts memory alone."""
    experiment = Experiment(name="e", reward=Reward(form=form), search=SearchConfig(max_drop_points=50.0))
    selection = Selection(experiment=experiment, float_accuracy=0.8, float_bits=1000)
    records = [
        {"key": key, "accuracy": accuracy, "bits": bits}
        for key, accuracy, bits in (("z", 0.81, 100), ("a", 0.9, 100), ("m", 0.85, 100), ("y", 0.9, 200))
    ]
    for order in (records, records[::-1]):
        assert selection.winner(order) == "a"
        assert selection.winner(order) in selection.front(order)


def test_candidates_of_another_run_are_made_again(run: Path, other: Path, tmp_path: Path) -> None:
    before, folder = lasting(run), tmp_path / "mixed"
    shutil.copytree(run, folder)
    names = {p.name for p in (run / "candidates").iterdir()}
    assert names == {p.name for p in (other / "candidates").iterdir()}
    for path in (other / "candidates").iterdir():
        shutil.copy(path, folder / "candidates" / path.name)
    explore(EXPERIMENT, folder, executors=inline)
    assert lasting(folder) == before


def test_a_float_network_of_another_run_is_trained_again(run: Path, other: Path, tmp_path: Path) -> None:
    before, folder = lasting(run), tmp_path / "mixed"
    shutil.copytree(run, folder)
    shutil.copy(other / "float" / "n10.safetensors", folder / "float" / "n10.safetensors")
    explore(EXPERIMENT, folder, executors=inline)
    assert lasting(folder) == before


def rewritten(folder: Path, change: Any) -> None:
    """Writes a journal again, its records changed."""
    records, _ = scan((folder / "journal").read_bytes(), "journal")
    (folder / "journal").unlink()
    with Journal(folder / "journal") as journal:
        for record in records:
            journal.append(change(record))


def test_journals_without_digests_classes_and_shapes_are_continued(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    later = ("sha256", "labels", "shape")
    rewritten(tmp_path / "old", lambda r: {key: value for key, value in r.items() if key not in later})
    explore(EXPERIMENT, tmp_path / "old", executors=inline)
    first, again = lasting(run), lasting(tmp_path / "old")
    for kind in ("floats", "candidates"):
        assert all(record.pop("sha256") for record in first[kind])
    assert first == again


@pytest.mark.parametrize(("field", "value"), [("labels", tuple("abcdefghij")), ("shape", (4, 16))])
def test_other_names_of_classes_and_other_shapes_are_other_data(
    field: str, value: tuple, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = measurement.load

    def changed(experiment: Experiment) -> Dataset:
        return msgspec.structs.replace(load(experiment), **{field: value})

    assert changed(EXPERIMENT).checksum() == load(EXPERIMENT).checksum()  # content keys are what they were
    monkeypatch.setattr(measurement, "load", changed)
    with pytest.raises(RunError, match=r"holds a run of the same data with .*fix: choose another folder"):
        explore(EXPERIMENT, run, executors=inline)


@pytest.mark.parametrize(
    "name",
    [
        "report.html",
        "result.json",
        "model.qspinn",
        "model.safetensors",
        "float/mine.safetensors",
        "candidates/a.qspinn",
    ],
)
def test_files_of_others_are_not_written_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(RunError, match=r"no journal of a run that wrote them.*fix: choose another folder"):
        explore(EXPERIMENT, tmp_path, executors=inline)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["float", "cache", "candidates"])
def test_a_file_in_the_place_of_a_folder_is_named_with_the_fix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=rf"{name}: is no folder; fix: choose another folder"):
        explore(EXPERIMENT, tmp_path, executors=inline)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_half_files_of_others_are_kept(tmp_path: Path) -> None:
    for name in (".thesis.docx.12.part", ".result.json.12.part"):
        (tmp_path / name).write_text("x")
    remove_parts(tmp_path, search.WRITTEN[""])
    assert [p.name for p in tmp_path.iterdir()] == [".thesis.docx.12.part"]


GOOD: list[dict[str, Any]] = [
    {"kind": "run", "key": "k", "data": "d"},
    {"kind": "float", "key": "float-n8", "accuracy": 0.5},
    {"kind": "sensitivity", "key": "s", "label": "exc.w|nearest|4", "accuracy": 0.5},
    {"kind": "sensitivity", "key": "t", "label": "plan", "rejected": "no"},
    {"kind": "candidate", "key": "c", "candidate": {"label": "l"}, "accuracy": 0.5, "bits": 3},
    {"kind": "candidate", "key": "n", "candidate": {"label": "l"}, "accuracy": None, "bits": 3},
]


def test_records_of_every_kind_are_understood() -> None:
    check_entries(GOOD, "journal")


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "candidate"},
        {"kind": "candidate", "key": ["a"], "candidate": {"label": "l"}},
        {"kind": "candidate", "key": "c", "candidate": {}},
        {"kind": "candidate", "key": "c", "candidate": 3},
        {"kind": "candidate", "key": "c", "candidate": {"label": "l"}, "accuracy": "good", "bits": 3},
        {"kind": "candidate", "key": "c", "candidate": {"label": "l"}, "accuracy": 0.5, "bits": 0},
        {"kind": "float", "key": "float-n8"},
        {"kind": "float", "key": "float-n8", "accuracy": None},
        {"kind": "sensitivity", "key": "s", "label": "exc.w", "accuracy": 0.5},
        {"kind": "sensitivity", "key": "s", "label": "exc.w|up|4", "accuracy": 0.5},
        {"kind": "sensitivity", "key": "s"},
        {"kind": "dance", "key": "s"},
        {"kind": 3, "key": "s"},
    ],
)
def test_records_that_are_not_understood_are_named_by_their_number(record: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=r"journal: holds a record that is not understood.*record 3: .*fix: "):
        check_entries([*GOOD[:2], record, *GOOD[2:]], "journal")
    with pytest.raises(RunError, match="record 1: "):
        check_entries(GOOD[1:], "journal")


def test_a_journal_that_is_not_understood_stops_a_run_by_name(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    with Journal(tmp_path / "copy" / "journal") as journal:
        journal.append({"kind": "candidate"})
        n = len(journal.records)
    with pytest.raises(RunError, match=f"record {n}: "):
        explore(EXPERIMENT, tmp_path / "copy", executors=inline)


def test_zeros_at_the_end_of_a_journal_are_what_a_loss_of_power_leaves(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        for record in GOOD:
            journal.append(record)
    whole = path.read_bytes()
    payload = b'{"kind":"float","key":"torn","accuracy":0.5}'
    head = HEAD.pack(len(payload), len(payload) ^ 0xFFFFFFFF, zlib.crc32(payload))
    for tail in (b"\0", b"\0" * 11, b"\0" * 12, b"\0" * 5000, head + payload[:10] + bytes(len(payload) - 10)):
        path.write_bytes(whole + tail)
        with Journal(path) as journal:
            assert journal.records == GOOD
        assert path.read_bytes() == whole
    for tail in (bytes(40) + b"x" * 40, head + payload[:-1] + b"x", head + b"\0" * len(payload) + b"more"):
        path.write_bytes(whole + tail)
        with pytest.raises(RunError, match=f"bad record at byte {len(whole)}"):
            Journal(path)


@pytest.mark.parametrize("kind", [ArtifactError, RunError])
def test_a_damaged_interrupted_training_starts_again(kind: type[Exception], tmp_path: Path) -> None:
    path, tries = tmp_path / "k.training", []

    def train() -> str:
        tries.append(path.exists())
        if path.exists():
            raise kind(str(path), "is damaged")
        return "trained"

    path.write_text("damaged")
    assert from_start_if_damaged(path, train) == "trained"
    assert tries == [True, False]


def test_other_errors_of_a_training_are_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "k.training"
    path.write_text("whole")

    def diverge() -> None:
        raise RunError("epoch 3", "the loss is not finite")

    with pytest.raises(RunError, match="epoch 3"):
        from_start_if_damaged(path, diverge)
    assert path.exists()


def test_digests_are_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a")
    need_digest(path, None)
    need_digest(path, digest(path))
    path.write_bytes(b"b")
    with pytest.raises(ArtifactError, match="is not the file that this run wrote"):
        need_digest(path, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4fa72b9807785afee48bbb"[:64])
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.digest(tmp_path / "nothing")


def test_work_that_is_stopped_does_not_finish_its_tasks() -> None:
    start = time.monotonic()
    with LocalProcesses(2, print, ()) as pool:
        tasks = [pool.submit(time.sleep, 120) for _ in range(4)]
        while not any(task.running() for task in tasks):
            time.sleep(0.05)
        stop(pool)
    assert time.monotonic() - start < 60
    for process in pool.context.made:  # is_alive() may fail to see an end that another thread has waited for
        assert multiprocessing.connection.wait([process.sentinel], timeout=30)


def test_a_worker_that_starts_is_not_reached_by_the_interrupt_of_a_terminal() -> None:
    code = (
        "import os, signal, time\nfrom qspinn.exploration.workers import LocalProcesses\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, lambda *x: None)\n"
        "with LocalProcesses(1, print, ()) as pool:\n"
        "    task = pool.submit(pow, 2, 3)\n"
        "    for _ in range(20):\n        os.killpg(0, signal.SIGINT)\n        time.sleep(0.02)\n"
        "    print(task.result(60))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120, start_new_session=True
    )
    assert (done.returncode, done.stdout.split()[-1:], "Traceback" in done.stderr) == (0, ["8"], False), done.stderr
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.getpid()

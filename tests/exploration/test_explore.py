"""A small exploration, whole and killed again and again. Run as a script it is the process that gets killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from qspinn.data import DataConfig
from qspinn.errors import RunError, TargetError
from qspinn.exploration.competing.space import Candidate, Experiment, NetworkConfig, SearchConfig
from qspinn.exploration.journal import Journal, scan
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.search import Event, Outcome, explore
from qspinn.fixedpoint import Rounding
from qspinn.learning.stdp.training import StdpTraining
from qspinn.program import load
from qspinn.records.record import from_plain
from running import die_at, inline, lasting

EXPERIMENT = Experiment(
    name="tiny",
    data=DataConfig(name="digits", n_train=150, n_validation=80, n_test=60),
    network=NetworkConfig(n_neurons=12, n_steps=30, rate_hz=200.0),
    training=StdpTraining(n_passes=1),
    search=SearchConfig(
        n_neurons=(8,),
        max_drop_points=100.0,
        ptq={
            "roundings": (Rounding.NEAREST, Rounding.STOCHASTIC),
            "weight_bits": (4, 1),
            "state_bits": (8,),
            "input_rates": (0.0, 0.01),
        },
        sweep={"bits": (8, 2)},
        itq={"passes": 1},
    ),
    seed=5,
)
N_KILLS, N_KILLS_WITH_WORKERS = 24, 5
N_MOMENTS = 310  # files synced or renamed in a whole run, about


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[Event]]:
    """(folder, outcome, events) of an uninterrupted run."""
    folder, events = tmp_path_factory.mktemp("whole"), []
    return folder, explore(EXPERIMENT, folder, on_event=events.append, executors=inline), events


def test_outcome_is_consistent(whole: tuple[Path, Outcome, list[Event]]) -> None:
    folder, outcome, events = whole
    by_key = {r["key"]: r for r in outcome.candidates}
    assert len(by_key) > 10
    assert {r["candidate"]["scheme"] for r in outcome.candidates} == {s.value for s in Scheme}
    for key in outcome.front:
        mine = by_key[key]
        assert not any(
            (o["accuracy"] >= mine["accuracy"] and o["bits"] <= mine["bits"])
            and (o["accuracy"], o["bits"]) != (mine["accuracy"], mine["bits"])
            for o in by_key.values()
        )
    assert outcome.winner in outcome.front
    assert outcome.winner in outcome.admitted
    assert outcome.rewards[outcome.winner] == max(outcome.rewards[k] for k in outcome.admitted)
    assert np.sum(outcome.confusion) == 60
    assert np.trace(outcome.confusion) / 60 == outcome.winner_test
    drop = 100 * (outcome.winner_test - outcome.float_test)
    assert outcome.test_difference.points == pytest.approx(drop)
    assert outcome.test_difference.low <= drop <= outcome.test_difference.high
    for record in outcome.candidates:
        program = load(folder / "candidates" / f"{record['key']}.qspinn")
        assert sum(t.codes.size * t.fmt.bits for t in program.tensors.values()) < record["bits"]
    assert {e.stage for e in events} >= {"data", "float training", "significance", "candidates", "test"}
    assert all(0 <= e.done <= e.total for e in events)


def test_a_candidate_can_be_evaluated_again_from_its_record(whole: tuple[Path, Outcome, list[Event]]) -> None:
    """Measured accuracy is what the stored program gives, by the reference engine."""
    from qspinn import data
    from qspinn.data.images.encoders import poisson
    from qspinn.program.ops import PoissonOp
    from qspinn.runtime import run

    folder, outcome, _ = whole
    split = data.load(EXPERIMENT.data).validation
    for record in outcome.candidates[::7]:
        candidate = from_plain(Candidate, record["candidate"])
        assert candidate.key() == record["key"]
        program = load(folder / "candidates" / f"{record['key']}.qspinn")
        spikes = poisson(split.images, program.ops_of(PoissonOp)[0], program.n_steps, first_sample=split.first)
        right = run(program, spikes, backend="reference").predictions() == split.labels
        assert right.mean() == record["accuracy"]


def test_a_finished_run_is_not_done_again(whole: tuple[Path, Outcome, list[Event]]) -> None:
    folder, outcome, _ = whole
    before, journal = lasting(folder), (folder / "journal").read_bytes()
    events: list[Event] = []
    again = explore(EXPERIMENT, folder, on_event=events.append, executors=inline)
    assert again.winner == outcome.winner
    assert lasting(folder) == before
    assert (folder / "journal").read_bytes() == journal
    assert all(e.done == e.total for e in events if e.stage in ("float training", "significance", "candidates"))


def test_a_folder_of_another_experiment_or_in_use_is_refused(whole: tuple[Path, Outcome, list[Event]]) -> None:
    folder, _, _ = whole
    with pytest.raises(RunError, match="holds a run of another experiment"):
        explore(msgspec.structs.replace(EXPERIMENT, seed=6), folder, executors=inline)
    with Journal(folder / "journal"), pytest.raises(RunError, match="another process"):
        explore(EXPERIMENT, folder, executors=inline)


def test_the_order_in_which_work_is_finished_does_not_matter(
    tmp_path: Path, whole: tuple[Path, Outcome, list[Event]]
) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    records, _ = scan((folder / "journal").read_bytes(), "journal")
    (folder / "journal").unlink()
    with Journal(folder / "journal") as journal:
        journal.append(records[0])
        for i in np.random.default_rng(1).permutation(len(records) - 1):
            journal.append(records[i + 1])
    explore(EXPERIMENT, folder, executors=inline)
    assert lasting(folder) == lasting(whole[0])


def test_a_target_that_nobody_meets_is_said(tmp_path: Path, whole: tuple[Path, Outcome, list[Event]]) -> None:
    """The same run, with a float accuracy in its journal that is out of reach."""
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    records, _ = scan((folder / "journal").read_bytes(), "journal")
    (folder / "journal").unlink()
    with Journal(folder / "journal") as journal:
        for record in records:
            journal.append(record | {"accuracy": 2.5} if record["kind"] == "float" else record)
    message = r"no candidate meets the target; nearest: candidate .* loses 2\d\d\.\d\d points, .*a loss of 100 points"
    with pytest.raises(TargetError, match=message):
        explore(EXPERIMENT, folder, executors=inline)


@pytest.mark.slow
def test_killed_runs_come_to_the_same_result(whole: tuple[Path, Outcome, list[Event]], tmp_path: Path) -> None:
    """One process forks a run that dies at some write or renaming, many times, then lets it finish."""
    out = tmp_path / "killed"
    done = subprocess.run([sys.executable, __file__, "fork", str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["killed"] == N_KILLS
    assert report["records"] == sorted(report["records"])
    assert len(set(report["records"])) > 10, "the kills should fall on different moments"
    assert lasting(out) == lasting(whole[0])


def test_half_files_of_a_killed_run_are_removed(whole: tuple[Path, Outcome, list[Event]], tmp_path: Path) -> None:
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "candidates" / ".x.qspinn.123.part").write_bytes(b"half")
    explore(EXPERIMENT, tmp_path / "run", executors=inline)
    assert not list(tmp_path.rglob("*.part"))
    assert lasting(tmp_path / "run") == lasting(whole[0])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds orphans through /proc")
@pytest.mark.soak
def test_killed_runs_leave_no_worker_behind(whole: tuple[Path, Outcome, list[Event]], tmp_path: Path) -> None:
    out, rng, sessions = tmp_path / "workers", np.random.default_rng(8), []
    for _ in range(N_KILLS_WITH_WORKERS):
        process = start_with_workers(out)
        sessions.append(process.pid)
        time.sleep(rng.uniform(0.8, 4.0))
        process.kill()
        process.wait()
    with start_with_workers(out) as process:
        sessions.append(process.pid)
        assert process.wait(timeout=300) == 0
    assert lasting(out) == lasting(whole[0])
    deadline = time.monotonic() + 30
    while (left := list(members(sessions))) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def start_with_workers(out: Path) -> subprocess.Popen:
    """A run with two worker processes, in a session of its own."""
    return subprocess.Popen([sys.executable, __file__, "workers", str(out)], start_new_session=True)


def members(sessions: list[int]) -> Iterator[int]:
    """Living processes of the sessions."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *rest = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[2]) in sessions and state != "Z":
            yield int(place.parent.name)


def fork_and_kill(out: Path) -> None:
    """Warms up by a whole run, then starts it anew in forks that die at some moment; prints how far each had come."""
    warm = out.with_name("warm")
    explore(EXPERIMENT, warm, executors=inline)
    shutil.rmtree(warm)
    rng, killed, records = np.random.default_rng(7), 0, []
    early, late = range(N_KILLS // 3), rng.integers(1, 2 * N_MOMENTS // N_KILLS, N_KILLS - N_KILLS // 3)
    for moment, lost in zip((*early, *late), rng.integers(13, size=N_KILLS), strict=True):
        pid = os.fork()
        if pid == 0:
            die_at(int(moment), int(lost), out)
            explore(EXPERIMENT, out, executors=inline)
            os._exit(0)
        killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        journal = out / "journal"
        records.append(len(scan(journal.read_bytes(), "journal")[0]) if journal.exists() else 0)
    explore(EXPERIMENT, out, executors=inline)
    print(json.dumps({"killed": killed, "records": records}))


if __name__ == "__main__":
    mode, place = sys.argv[1], Path(sys.argv[2])
    if mode == "fork":
        fork_and_kill(place)
    else:
        explore(EXPERIMENT, place, n_workers=2)

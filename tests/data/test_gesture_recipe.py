"""experiments/dvs_gesture.toml, end to end, on a DVS128 Gesture folder as it is published, made from real recordings.

The folder's AEDAT files are written here: the three recordings that there are, turned, mirrored, moved, and cut at
other times, stand for 11 gestures of several users. What is learned from so few says nothing about accuracy.
"""

from __future__ import annotations

import json
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qspinn.data.events.aedat import write_aedat
from qspinn.data.events.dvs_gesture import CLASSES, SENSOR, gesture_set
from qspinn.data.events.recording import Events, crop_time, flip, join, make, shift
from qspinn.program import load
from qspinn.runtime import run
from samples import AEDAT_SAMPLES, command_line, needs_aedat_samples

RECIPE = Path(__file__).parents[2] / "experiments" / "dvs_gesture.toml"
OWN = {"class01": 0, "class06": 5, "class09": 8}
"""Sample files and the classes (from 0) that they show."""
TRIALS = {
    "train": [
        "user01_led",
        "user02_fluorescent",
        "user02_lab",
        "user03_natural",
        "user04_led",
        "user05_led",
        "user06_fluorescent_led",
    ],
    "test": ["user24_led", "user29_natural"],
}
DAMAGED = "user02_lab.aedat"
GESTURE_US, PAUSE_US, START_US = 450_000, 80_000, 2_500_000
SPECIAL = struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<Ii", 1 << 1 | 1, 0)
"""A packet with one special event, which a camera writes when its clock starts."""
HEADER = b"#Start-Time: 2015-10-08 11:42:05 (TZ+0000)\r\n#!END-HEADER\r\n"
QUICK = [
    "training.n_epochs=2",
    'search.ptq.roundings=["nearest"]',
    'search.ptq.granularities=["per_channel"]',
    "search.sweep.bits=[8]",
    "search.itq.epochs=1",
    "search.ptq.hopeless_points=100.0",
    "search.max_drop_points=100.0",
]

pytestmark = needs_aedat_samples


def samples() -> list[Events]:
    """The real recordings from time 0, by class."""
    found = []
    for name in OWN:
        with np.load(AEDAT_SAMPLES / f"{name}.npz") as file:
            found.append(make(file["x"], file["y"], file["t"].astype(np.int64) - int(file["t"][0]), file["p"]))
    return found


def gesture(real: list[Events], label: int, person: int) -> Events:
    """A piece of a real recording: of its own class as it was, of the other eight turned or mirrored, at another time
    and place for every person."""
    own = list(OWN.values())
    others = [k for k in range(len(CLASSES)) if k not in own]
    which, turns = (own.index(label), 0) if label in own else divmod(others.index(label), 3)
    start = 60_000 * person
    events = crop_time(real[which], start, start + GESTURE_US)
    if turns != 0 or label not in own:
        events = flip(events, SENSOR)
    if turns == 1:
        events = make(events["y"], events["x"], events["t"], events["p"])
    if turns == 2:
        events = make(events["x"], SENSOR[0] - 1 - events["y"].astype(np.int64), events["t"], events["p"])
    moved = shift(events, SENSOR, person % 5 - 2, person % 3 - 1)
    moved["t"] -= start
    return moved


def write_folder(folder: Path) -> None:
    """Lists, recordings of all gestures one after another, in an order of each person's own, and their labels."""
    real = samples()
    persons = [(part, name) for part, names in TRIALS.items() for name in names]
    for person, (_, name) in enumerate(persons):
        pieces, rows, at = [], ["class,startTime_usec,endTime_usec"], START_US + 1000 * person
        for label in np.random.default_rng([person, 31]).permutation(len(CLASSES)):
            piece = gesture(real, int(label), person)
            piece["t"] += at
            pieces.append(piece)
            rows.append(f"{label + 1},{at},{at + GESTURE_US}")
            at += GESTURE_US + PAUSE_US
        write_aedat(folder / f"{name}.aedat", join(pieces))
        plain = (folder / f"{name}.aedat").read_bytes()
        (folder / f"{name}.aedat").write_bytes(plain.replace(b"#!END-HEADER\r\n", HEADER + SPECIAL, 1))
        (folder / f"{name}_labels.csv").write_text("\n".join([*rows, ""]))
    for part, names in TRIALS.items():
        (folder / f"trials_to_{part}.txt").write_text("\n".join([*(f"{name}.aedat" for name in names), ""]))


@pytest.fixture(scope="module")
def gestures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder in which one file is cut short, and the byte at which that shows."""
    folder = tmp_path_factory.mktemp("dvs_gesture")
    write_folder(folder)
    content = (folder / DAMAGED).read_bytes()
    at = content.index(HEADER) + len(HEADER) + len(SPECIAL)
    while (after := at + 28 + 8 * struct.unpack_from("<I", content, at + 20)[0]) < len(content):
        at = after
    (folder / DAMAGED).write_bytes(content[:-3])
    return folder, at + 20


def explored(folder: Path, out: Path, *settings: str) -> dict[str, Any]:
    """The stored result of the recipe with other settings."""
    sets = [word for setting in [*QUICK, *settings] for word in ("--set", setting)]
    done = command_line(
        "explore", RECIPE, "--data", folder, "--out", out, "--workers", 1, "--json", *sets, cwd=out.parent
    )
    assert done.returncode == 0, done.stderr
    headline = json.loads(done.stdout)
    assert headline["data"] == "dvs_gesture"
    assert headline["report"] == str(out / "report.html")
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def check_run(out: Path, result: dict[str, Any]) -> None:
    """Front, winner, model and page are there and agree."""
    by_key = {c["key"]: c for c in result["candidates"]}
    assert result["winner"] in result["front"]
    assert set(result["front"]) <= set(by_key)
    bits = [by_key[key]["bits"] for key in result["front"]]
    accuracy = [by_key[key]["accuracy"] for key in result["front"]]
    assert all(a < b for a, b in pairwise(bits))
    assert all(a < b for a, b in pairwise(accuracy))
    assert by_key[result["winner"]]["bits"] < result["float_bits"] / 2
    model, candidate = load(out / "model.qspinn"), load(out / "candidates" / f"{result['winner']}.qspinn")
    assert model.ops == candidate.ops
    for name, tensor in candidate.tensors.items():
        np.testing.assert_array_equal(model.tensors[name].codes, tensor.codes)
    page = (out / "report.html").read_text("utf-8")
    assert all(part in page for part in ("dvs_gesture", DAMAGED, by_key[result["winner"]]["candidate"]["label"]))


@pytest.mark.soak
def test_the_recipe_runs_on_the_published_folder(gestures: tuple[Path, int], tmp_path: Path) -> None:
    """At 32 x 32 with all its bins: PTQ and ITQ, the damaged file left out by name."""
    folder, at = gestures
    result = explored(
        folder,
        tmp_path / "run",
        "search.ptq.weight_bits=[8,4]",
        "search.ptq.state_bits=[12]",
        "search.itq.bits=[[4,8]]",
    )
    check_run(tmp_path / "run", result)
    assert [c["candidate"]["scheme"] for c in result["candidates"]].count("itq") == 1
    (skipped,) = result["data"]["skipped"]
    assert skipped.startswith(f"{DAMAGED}: {folder / DAMAGED}: byte {at}: packet is cut short")
    assert result["data"]["n"] == [2 * 11, 4 * 11, 2 * 11]
    assert (result["data"]["shape"], result["data"]["n_steps"]) == ([2, 32, 32], 50)
    program = load(tmp_path / "run" / "model.qspinn")
    test = gesture_set(folder, "test", bin_ms=30.0, n_bins=50).events
    assert sorted(test.labels.tolist()) == sorted([*range(11)] * 2)
    right = run(program, test.graded(), backend="reference").predictions() == test.labels
    assert right.mean() == result["winner_test"]
    for i, row in enumerate(result["confusion"]):
        assert sum(row) == 2, CLASSES[i]


@pytest.mark.soak
def test_the_recipe_runs_on_all_pixels(gestures: tuple[Path, int], tmp_path: Path) -> None:
    """2 x 128 x 128 inputs, 11 classes: float and one PTQ candidate."""
    result = explored(
        gestures[0],
        tmp_path / "run",
        "data.size=128",
        "data.n_bins=6",
        "data.n_validation=11",
        "training.n_epochs=1",
        "training.batch=11",
        'search.schemes=["ptq"]',
        "search.ptq.weight_bits=[8]",
        "search.ptq.state_bits=[]",
        "search.sweep.bits=[16]",
        "search.ptq.weight_calibrator=max",
    )
    check_run(tmp_path / "run", result)
    assert len(result["candidates"]) == 1
    assert (result["data"]["shape"], len(result["confusion"])) == ([2, 128, 128], 11)
    program = load(tmp_path / "run" / "model.qspinn")
    assert (program.n_inputs, len(program.labels)) == (2 * 128 * 128, 11)
    test = gesture_set(gestures[0], "test", bin_ms=30.0, n_bins=6, to=SENSOR).events
    assert (run(program, test.graded()).predictions() == test.labels).mean() == result["winner_test"]


@pytest.mark.soak
def test_a_damaged_file_stops_the_recipe_where_it_is_asked_to(gestures: tuple[Path, int], tmp_path: Path) -> None:
    folder, at = gestures
    done = command_line(
        "explore", RECIPE, "--data", folder, "--out", "run", "--set", "data.on_error=stop", cwd=tmp_path
    )
    assert done.returncode == 2
    assert re.search(rf"{re.escape(str(folder / DAMAGED))}: byte {at}: packet is cut short", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_part_without_one_whole_file_is_an_error(gestures: tuple[Path, int], tmp_path: Path) -> None:
    folder = tmp_path / "gestures"
    folder.mkdir()
    for path in gestures[0].iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "trials_to_train.txt").unlink()
    (folder / "trials_to_train.txt").write_text(f"{DAMAGED}\n")
    done = command_line("explore", RECIPE, "--data", folder, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("no recording of part train could be read", DAMAGED, "byte"))

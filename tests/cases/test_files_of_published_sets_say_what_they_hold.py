"""Files of published sets: another version, another type of events, other names or times in another unit are refused,
and events that the steps leave out are counted."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qspinn.data.events import cifar10_dvs, ncars, nmnist
from qspinn.data.events.dataset import Kept
from qspinn.data.events.recording import make
from qspinn.data.events.spoken import load_shd, load_ssc
from qspinn.errors import ConfigError, DataError

EVENT = struct.pack("<II", 5, 3 | 4 << 14)
OLD_EVENT = struct.pack("<II", 5, 3 | 4 << 9)


def dat(path: Path, header: bytes, kind: int = 0, event: bytes = EVENT) -> Path:
    path.write_bytes(header + bytes([kind, 8]) + event)
    return path


@pytest.mark.parametrize("kind", [0, 12])
def test_both_versions_are_read(kind: int, tmp_path: Path) -> None:
    for header, event in ((b"% Version 2\n", EVENT), (b"% version 1\n", OLD_EVENT), (b"% Height 5\n", EVENT)):
        found = ncars.read_dat(dat(tmp_path / "a.dat", header, kind, event))
        assert found.tolist() == [(3, 4, 5, False)]


@pytest.mark.parametrize(
    ("header", "kind", "message"),
    [
        (b"% Version 1.0\n", 0, r"a\.dat: byte 0: Version is none.*got b'1\.0'; allowed: 1, 2"),
        (b"% x\n% VERSION 7\n", 0, r"a\.dat: byte 4: Version is none.*got b'7'"),
        (b"% Version\n", 0, r"a\.dat: byte 0: Version is none"),
        (b"% Width 0\n", 0, r"a\.dat: byte 0: Width is none.*allowed: 1\.\.32768"),
        (b"% Version 2\n", 14, r"a\.dat: byte 12: holds events of another type.*got 14; allowed: 0, 12"),
    ],
)
def test_another_version_or_type_of_events_is_refused(header: bytes, kind: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        ncars.read_dat(dat(tmp_path / "a.dat", header, kind))


@pytest.mark.parametrize("sensor", [5, (100,), ("a", "b")])
def test_a_sensor_is_two_sizes(sensor: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"read_dat\.sensor"):
        ncars.read_dat(dat(tmp_path / "a.dat", b"% Version 2\n"), sensor)


def cars(folder: Path, times: Callable[[int], int]) -> Path:
    """A folder of N-CARS whose recording k has an event early, unless times(k) says another time [us]."""
    k = 0
    for part, n in (("train", 10), ("test", 2)):
        for name in ncars.CLASSES:
            place = folder / f"n-cars_{part}" / name
            place.mkdir(parents=True)
            for i in range(n):
                k += 1
                events = struct.pack("<IIII", times(k), k | 4 << 14, times(k) + 200_000, 5 << 14)
                dat(place / f"{i}.dat", b"% Version 2\n", 0, events)
    return folder


def test_events_after_the_last_step_are_counted(tmp_path: Path) -> None:
    found = ncars.load(cars(tmp_path / "a", lambda k: k))
    assert found.split_rule.endswith(
        "50.00% of the events of train are after the last step, and left out; "
        "50.00% of the events of test are after the last step, and left out"
    )
    with pytest.raises(DataError, match=r"ncars: train: has no event before the end of the last step; got '0 of 40 ev"):
        ncars.load(cars(tmp_path / "b", lambda k: 1_000_000 + k))


def test_what_is_kept_is_counted_from_the_start_of_a_recording() -> None:
    kept = Kept(1000, 3)
    times = np.array([5000, 7999, 8000])
    kept.counted(make(times * 0, times * 0, times, times * 0), 5000)
    assert kept.notes("x", "test") == ["33.33% of the events of test are after the last step, and left out"]
    assert Kept(1000, 3).notes("x", "train") == []
    for n_bins in (0, 10**40, "x"):
        with pytest.raises(ConfigError, match=r"data\.n_bins"):
            Kept(1000, n_bins)


def test_recordings_of_another_class_or_of_one_number_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "airplane"
    place.mkdir()
    for i in range(3):
        (place / f"cifar10_airplane_{i}.aedat").touch()
    assert len(cifar10_dvs._files(place, 2)) == 3
    for name, message in (
        ("cifar10_cat_7.aedat", "is a recording of another class than its folder; got 'cat'; allowed: airplane"),
        ("cifar10_airplane_01.aedat", "has the number of another recording"),
    ):
        (place / name).touch()
        with pytest.raises(DataError, match=message):
            cifar10_dvs._files(place, 2)
        (place / name).unlink()


@pytest.mark.parametrize("load", [ncars.load, nmnist.load, cifar10_dvs.load])
def test_folders_that_cannot_be_looked_for_are_named(load: Callable[[str], Any]) -> None:
    with pytest.raises(DataError, match="cannot be looked for"):
        load("x" * 5000)


def ears(folder: Path, name: str, keys: Any = (b"one", b"two"), unit: float = 1.0, seed: int = 0) -> Path:
    """A file of eight utterances by four speakers."""
    h5py = pytest.importorskip("h5py")
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        for kind, dtype in (("times", "f4"), ("units", "u2")):
            file.create_dataset(f"spikes/{kind}", (8,), dtype=h5py.vlen_dtype(dtype))
        for i in range(8):
            file["spikes/times"][i] = (np.arange(6) / 10 + 0.01) * unit
            file["spikes/units"][i] = np.arange(6) + 8 * seed + i
        file["labels"], file["extra/speaker"] = np.arange(8) % 2, np.arange(8) // 2
        if keys is not None:
            file["extra/keys"] = list(keys)
    return folder


def test_names_of_classes_are_those_of_every_file(tmp_path: Path) -> None:
    ears(tmp_path, "shd_train")
    assert load_shd(ears(tmp_path, "shd_test", None, seed=1)).labels == ("one", "two")
    with pytest.raises(DataError, match=r"shd_test\.h5: extra/keys: names other classes than shd_train\.h5"):
        load_shd(ears(tmp_path, "shd_test", (b"two", b"one"), seed=1))
    with pytest.raises(DataError, match=r"shd_test\.h5: extra/keys: name a class twice; got \['one'\]"):
        load_shd(ears(tmp_path, "shd_test", (b"one", b"one"), seed=1))
    for seed, name in enumerate(("ssc_train", "ssc_valid", "ssc_test")):
        ears(tmp_path, name, (b"one", b"two") if seed < 2 else (b"two", b"one"), seed=seed)
    with pytest.raises(DataError, match=r"ssc_test\.h5: extra/keys: names other classes"):
        load_ssc(tmp_path)


def test_times_in_another_unit_are_found(tmp_path: Path) -> None:
    ears(tmp_path, "shd_train", unit=1000.0)
    with pytest.raises(DataError, match="shd: train: has no event before the end of the last step"):
        load_shd(ears(tmp_path, "shd_test", seed=1))


def test_hdf5_files_of_another_layout_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    ears(tmp_path, "shd_test", seed=1)
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer without end
    changes: dict[str, Callable[[Any], Any]] = {
        "extra": lambda file: file.create_dataset("extra", data=[1, 2]),
        "spikes": lambda file: file.create_dataset("spikes", data=[1, 2]),
        "extra/": lambda file: file.__setitem__("extra", h5py.ExternalLink(str(tmp_path / "pipe"), "/extra")),
        "labels": lambda file: file.create_dataset("labels", (1 << 20,), dtype="S65536"),
    }
    messages = {
        "extra": "extra/speaker: is not in the file",
        "spikes": "spikes/times: is not in the file",
        "extra/": "extra/speaker: is a link",
        "labels": "labels: is too large; got '68,719,476,736 bytes'",
    }
    for name, change in changes.items():
        with h5py.File(ears(tmp_path, "shd_train") / "shd_train.h5", "a") as file:
            del file[name.strip("/")]
            change(file)
        with pytest.raises(DataError, match=messages[name]):
            load_shd(tmp_path)


def test_an_ssc_file_whose_names_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    os.mkfifo(tmp_path / "pipe")
    for seed, name in enumerate(("ssc_train", "ssc_valid", "ssc_test")):
        with h5py.File(ears(tmp_path, name, seed=seed) / f"{name}.h5", "a") as file:
            del file["extra"]
            if name == "ssc_valid":
                file["extra"] = h5py.ExternalLink(str(tmp_path / "pipe"), "/extra")
    with pytest.raises(DataError, match=r"ssc_valid\.h5: extra/keys: is a link"):
        load_ssc(tmp_path)

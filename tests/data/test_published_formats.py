"""Readers of published formats, on files that are written here byte by byte as the formats say."""

from __future__ import annotations

import gzip
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import DataConfig, EventData
from qspinn.data.events import cifar10_dvs, ncars, spoken
from qspinn.data.events.cifar10_dvs import read_aedat2
from qspinn.data.events.ncars import read_dat
from qspinn.errors import ConfigError, DataError

HEADER = b"% Data file containing Event2D events.\n% Version 2\n% Width 120\n% Height 100\n"


def dat(events: list[tuple[int, int, int, int]], header: bytes = HEADER, size: int = 8) -> bytes:
    """A .dat file of events (x, y, t, p) of version 2."""
    body = b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for x, y, t, p in events)
    return header + bytes([12, size]) + body


def aedat2(events: list[tuple[int, int, int, int]], header: bytes = b"#!AER-DAT2.0\r\n# a comment\r\n") -> bytes:
    """An AEDAT 2.0 file of a DVS128 of events (x, y, t, p)."""
    words = (((127 - x) << 8 | (127 - y) << 1 | (1 - p), t) for x, y, t, p in events)
    return header + b"".join(struct.pack(">II", address, t) for address, t in words)


def drawn(n: int, sensor: tuple[int, int], seed: int, end: int = 100_000) -> list[tuple[int, int, int, int]]:
    """Random events (x, y, t, p) in order of time."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, end, n))
    return [(int(rng.integers(sensor[1])), int(rng.integers(sensor[0])), int(k), int(rng.integers(2))) for k in t]


def test_dat_files_are_read_as_written(tmp_path: Path) -> None:
    events = [(0, 0, 0, 0), (119, 99, 5, 1), (7, 3, 5, 0), (1, 2, (1 << 32) - 1, 1)]
    (tmp_path / "a.dat").write_bytes(dat(events))
    assert read_dat(tmp_path / "a.dat").tolist() == [(x, y, t, bool(p)) for x, y, t, p in events]
    (tmp_path / "b.dat").write_bytes(dat(events, b"% no sizes\n"))
    assert len(read_dat(tmp_path / "b.dat", (100, 120))) == 4
    old = b"% Version 1\n" + bytes([0, 8]) + struct.pack("<II", 9, 300 | 200 << 9 | 1 << 17)
    (tmp_path / "c.dat").write_bytes(old)
    assert read_dat(tmp_path / "c.dat").tolist() == [(300, 200, 9, True)]
    (tmp_path / "d.dat").write_bytes(dat([]))
    assert len(read_dat(tmp_path / "d.dat")) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a Prophesee"),
        (b"nothing", "is not a Prophesee"),
        (b"% no end of the line", "byte 0: text header is damaged"),
        (HEADER, r"byte \d+: size of events is not given"),
        (dat([], size=16), "size of events is not given, or another one"),
        (dat([(1, 2, 3, 0)])[:-3], r"file is cut short; got .5 bytes of events"),
        (dat([(1, 2, 3, 0), (120, 2, 4, 0)]), rf"byte {len(HEADER) + 10}: event outside.*\(120, 2, 0\).*version 2"),
        (dat([(1, 2, 3, 2)]), r"of no polarity; got \(1, 2, 2\)"),
        (dat([(1, 2, 3, 0), (1, 2, 2, 0)]), r"a\.dat\.t\[1\]: events are not in order"),
    ],
)
def test_what_is_wrong_with_a_dat_file_is_said_by_its_byte(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_dat(tmp_path / "a.dat")


def test_ncars_is_read_from_its_folders(tmp_path: Path) -> None:
    seed = 0
    for part, n in (("train", 10), ("test", 2)):
        for name in ncars.CLASSES:
            place = tmp_path / f"n-cars_{part}" / name
            place.mkdir(parents=True)
            for i in range(n):
                seed += 1
                (place / f"obj_{i:06}_td.dat").write_bytes(dat(drawn(20, (60, 50), seed)))
    found = qspinn.load_data(EventData(name="ncars", folder=str(tmp_path)))
    assert (found.shape, found.n_steps, found.labels) == ((2, 100, 120), 20, ("background", "cars"))
    assert found.class_counts() == {"train": (9, 9), "validation": (1, 1), "test": (2, 2)}
    expected = np.zeros((20, 2, 100, 120), np.uint8)
    for x, y, t, p in drawn(20, (60, 50), 10):  # the last of the background
        expected[t // 5000, p, y, x] = 1
    assert np.array_equal(found.validation.dense()[:, 0], expected)
    longer = qspinn.load_data(EventData(name="ncars", folder=str(tmp_path), bin_ms=50.0, n_bins=1))
    assert np.array_equal(longer.validation.dense()[0, 0], expected[:10].max(axis=0))
    with pytest.raises(DataError, match=r"n-cars_train/background: holds no \.dat files"):
        qspinn.load_data(EventData(name="ncars", folder=str(tmp_path / "n-cars_test")))


def test_aedat2_files_are_read_as_written(tmp_path: Path) -> None:
    events = [(0, 0, 1, 0), (127, 127, 1, 1), (5, 90, 70, 1)]
    place = tmp_path / "a.aedat"
    place.write_bytes(aedat2(events))
    assert read_aedat2(place).tolist() == [(x, y, t, bool(p)) for x, y, t, p in events]
    place.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", 0x0203, 9))
    assert read_aedat2(place).tolist() == [(125, 126, 9, False)]
    hash_first = [(127 - 0x23, 0, 0x0D, 1)]  # 0x0000_23FE: no first byte of '#', but one within
    place.write_bytes(aedat2(hash_first))
    assert read_aedat2(place).tolist() == [(92, 0, 13, True)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an AEDAT 2.0 file; got b''"),
        (b"#!AER-DAT3.1\r\n", "is not an AEDAT 2.0 file"),
        (b"#!AER-DAT4.0\r\n", "is not an AEDAT 2.0 file but an AEDAT 4 file"),
        (b"#!AER-DAT2.0", "byte 0: text header is damaged or cut short"),
        (aedat2([(1, 2, 3, 0)])[:-1], r"file is cut short; got .7 bytes"),
        (b"#!AER-DAT2.0\r\n" + struct.pack(">II", 1 << 15, 0), r"byte 14: is no address of a DVS128; got 32768"),
        (b"#!AER-DAT2.0\r\n#\x01\x02\x03" + struct.pack(">I", 0), r"byte 14: is no address of a DVS128"),
        (aedat2([(1, 2, 3, 0), (1, 2, 2, 0)]), r"a\.aedat\.t\[1\]: events are not in order"),
    ],
)
def test_what_is_wrong_with_an_aedat2_file_is_said_by_its_byte(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.aedat").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_aedat2(tmp_path / "a.aedat")


def cifar(folder: Path, n: int) -> None:
    for k, name in enumerate(cifar10_dvs.CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            events = [(x, y, t + 777, p) for x, y, t, p in drawn(30, (128, 128), 100 * k + i)]
            (folder / name / f"cifar10_{name}_{i}.aedat").write_bytes(aedat2(events))


def test_cifar10_dvs_is_split_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path / "cifar10_dvs", 12)
    found = cifar10_dvs.load(tmp_path / "cifar10_dvs", bin_ms=50.0, n_test=2, n_validation=3)
    assert (found.shape, found.n_steps, found.labels[3]) == ((2, 32, 32), 26, "cat")
    assert found.class_counts() == {"train": (7,) * 10, "validation": (3,) * 10, "test": (2,) * 10}
    events = drawn(30, (128, 128), 411)  # number 11 of the deer: the last, though "11" sorts before "2"
    expected = np.zeros((26, 2, 32, 32), np.uint8)
    for x, y, t, p in events:
        expected[(t - events[0][2]) // 50_000, p, y // 4, x // 4] = 1
    assert np.array_equal(found.validation.dense()[:, 4 * 3 + 2], expected)
    assert "the first 2 recordings (by number) for test" in found.split_rule
    with pytest.raises(DataError, match=r"airplane: holds too few recordings.*got 12; allowed: over 200"):
        qspinn.load_data(EventData(name="cifar10_dvs", folder=str(tmp_path / "cifar10_dvs")))
    monkeypatch.setattr(
        cifar10_dvs.load, "__kwdefaults__", {**cifar10_dvs.load.__kwdefaults__, "n_test": 2, "n_validation": 3}
    )
    monkeypatch.setenv("QSPINN_DATA", str(tmp_path))
    small = qspinn.load_data(EventData(name="cifar10_dvs", size=16, bin_ms=50.0, n_train=10))
    assert (small.shape, small.train.n_samples) == ((2, 16, 16), 10)


class HardLink:
    """A link of HDF5 to something in the same file."""


class ExternalLink:
    """A link of HDF5 to another file."""


class Group(dict):
    """A group of HDF5, as h5py shows it."""

    links: dict[str, Any] = {}  # noqa: RUF012

    def get(self, name: str, default: Any = None, getlink: bool = False) -> Any:
        if getlink and name in self.links:
            return self.links[name]
        return (HardLink() if getlink else self[name]) if name in self else default

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Stored(list):
    """A data set of HDF5 with one axis, of arrays."""

    external = None
    is_virtual = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self),)

    @property
    def dtype(self) -> np.dtype:
        return np.asarray(self[0]).dtype


def utterances(n: int, n_classes: int, seed: int, dtype: str = "f2") -> Group:
    """The content of a file of so many utterances, two of every class by each of two speakers in turn."""
    rng = np.random.default_rng(seed)
    times = Stored(np.sort(rng.random(40) * 1.3).astype(dtype) for _ in range(n))
    units = Stored(rng.integers(0, 700, 40).astype("u2") for _ in range(n))
    extra = Group(
        speaker=Stored(np.arange(n) // n_classes % 2 + 3), keys=Stored(np.array([b"zero", b"one", b"two"])[:n_classes])
    )
    return Group(spikes=Group(times=times, units=units), labels=Stored(np.arange(n) % n_classes), extra=extra)


class FakeH5py(types.ModuleType):
    """As much of h5py as the reader uses; a file is its outermost group."""

    def __init__(self, files: dict[str, Group]) -> None:
        types.ModuleType.__init__(self, "h5py")
        self.files = files

    def File(self, path: Path, mode: str) -> Any:
        assert mode == "r"
        return self.files[Path(path).name]


@pytest.fixture
def ears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Group]:
    """The content of the files of SHD and SSC in $QSPINN_DATA, which a small module in place of h5py reads."""
    names = ("shd_train", "shd_test", "ssc_train", "ssc_valid", "ssc_test")
    files = {f"{name}.h5": utterances(12, 3, seed) for seed, name in enumerate(names)}
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setenv("QSPINN_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "h5py", FakeH5py(files))
    return files


def expected_bins(file: Group, i: int, bin_us: int, n_bins: int) -> np.ndarray:
    raster = np.zeros((n_bins, 700), np.uint8)
    for t, unit in zip(file["spikes"]["times"][i], file["spikes"]["units"][i], strict=True):
        raster[round(float(t) * 1e6) // bin_us, int(unit)] = 1
    return raster


def test_shd_is_split_by_speaker(ears: dict[str, Group]) -> None:
    found = qspinn.load_data(EventData(name="shd"))
    assert (found.shape, found.n_steps, found.bin_ms, found.labels) == ((1, 1, 700), 140, 10.0, ("zero", "one", "two"))
    assert found.class_counts() == {"train": (2,) * 3, "validation": (2,) * 3, "test": (4,) * 3}
    file = ears["shd_train.h5"]
    assert np.array_equal(found.validation.dense()[:, 0, 0, 0], expected_bins(file, 3, 10_000, 140))
    assert np.array_equal(found.train.dense()[:, 2, 0, 0], expected_bins(file, 2, 10_000, 140))
    assert "speaker 4 for validation, those of speakers 3 for training" in found.split_rule


def test_ssc_has_three_files(ears: dict[str, Group]) -> None:
    found = qspinn.load_data(EventData(name="ssc", bin_ms=20.0))
    assert found.n_steps == 70
    assert found.class_counts()["validation"] == (4, 4, 4)
    assert np.array_equal(found.test.dense()[:, 5, 0, 0], expected_bins(ears["ssc_test.h5"], 5, 20_000, 70))
    del ears["ssc_train.h5"]["extra"]
    assert qspinn.load_data(EventData(name="ssc")).labels == ("0", "1", "2")


def break_it(file: Group, how: str) -> None:
    spikes = file["spikes"]
    times, units = spikes["times"], spikes["units"]
    if how == "external link":
        spikes.links = {"times": ExternalLink()}
    if how == "external group":
        file.links = {"spikes": ExternalLink()}
    if how == "external storage":
        times.external = [("other.raw", 0, 8)]
    if how == "virtual":
        times.is_virtual = True
    if how == "missing":
        del spikes["units"]
    if how == "no speaker":
        del file["extra"]["speaker"]
    if how == "fewer":
        times.pop()
    if how == "huge":
        file["labels"] = type("Huge", (Stored,), {"shape": (1 << 40,)})()
    if how == "unit":
        units[2][3] = 700
    if how == "NaN":
        times[2][3] = np.nan
    if how == "negative":
        times[2][3] = -0.5
    if how == "integers":
        times[2] = np.arange(40)
    if how == "label":
        file["labels"][1] = -1
    if how == "classes":
        file["labels"][1] = 1 << 20


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("external link", r"shd_train\.h5: spikes/times: is a link, perhaps to another file.*ExternalLink"),
        ("external group", r"shd_train\.h5: spikes/times: is a link"),
        ("external storage", r"shd_train\.h5: spikes/times: is stored outside the file"),
        ("virtual", r"shd_train\.h5: spikes/times: is stored outside the file"),
        ("missing", r"shd_train\.h5: spikes/units: is not in the file"),
        ("no speaker", r"shd_train\.h5: extra/speaker: is not in the file"),
        ("fewer", r"shd_train\.h5: spikes and labels are not of as many utterances"),
        ("huge", r"shd_train\.h5: labels: has the wrong shape; got \(1099511627776,\)"),
        ("unit", r"shd_train\.h5: utterance 2: units\[3\]: .*got 700; allowed: 0\.\.699"),
        ("NaN", r"shd_train\.h5: utterance 2: times\[3\]: holds NaN"),
        ("negative", r"shd_train\.h5: utterance 2: times: hold a negative time"),
        ("integers", r"shd_train\.h5: utterance 2: times: are no times in seconds"),
        ("label", r"shd_train\.h5: labels\[1\]: .*got -1"),
        ("classes", r"shd: labels: are of too many classes; got 1048577"),
    ],
)
def test_what_is_wrong_with_an_hdf5_file_is_said_by_name(ears: dict[str, Group], how: str, message: str) -> None:
    break_it(ears["shd_train.h5"], how)
    with pytest.raises(DataError, match=message):
        spoken.load_shd()


def test_times_of_16_bits_do_not_tell_steps_under_a_millisecond(ears: dict[str, Group]) -> None:
    with pytest.raises(DataError, match=r"data\.bin_ms: is shorter than the times are exact.*got 0\.5; allowed: 1 ms"):
        qspinn.load_data(EventData(name="shd", bin_ms=0.5))
    for seed, part in enumerate(("train", "valid", "test")):
        ears[f"ssc_{part}.h5"] = utterances(12, 3, seed, "f8")
    assert qspinn.load_data(EventData(name="ssc", bin_ms=0.5)).n_steps == 2800


def test_without_h5py_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shd_train.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"^the data set shd: needs h5py.*fix: pip install qspinn\[hdf5\]$"):
        qspinn.load_data(EventData(name="shd", folder=str(tmp_path)))


def test_h5py_itself_reads_what_it_wrote_and_links_are_not_followed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for part, seed in (("train", 0), ("test", 1)):
        content = utterances(12, 3, seed)
        with h5py.File(tmp_path / f"shd_{part}.h5", "w") as file:
            for kind, dtype in (("times", "f2"), ("units", "u2")):
                column = file.create_dataset(f"spikes/{kind}", (12,), dtype=h5py.vlen_dtype(np.dtype(dtype)))
                for i, values in enumerate(content["spikes"][kind]):
                    column[i] = values
            file["labels"] = np.array(content["labels"])
            file["extra/speaker"] = np.array(content["extra"]["speaker"])
            file["extra/keys"] = np.array(content["extra"]["keys"])
    found = qspinn.load_data(EventData(name="shd", folder=str(tmp_path)))
    assert np.array_equal(found.test.dense()[:, 1, 0, 0], expected_bins(utterances(12, 3, 1), 1, 10_000, 140))
    with h5py.File(tmp_path / "shd_train.h5", "a") as file:
        del file["spikes/times"]
        file["spikes/times"] = h5py.ExternalLink("shd_test.h5", "/spikes/times")
    with pytest.raises(DataError, match="spikes/times: is a link"):
        qspinn.load_data(EventData(name="shd", folder=str(tmp_path)))
    (tmp_path / "shd_train.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        qspinn.load_data(EventData(name="shd", folder=str(tmp_path)))


def idx(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def idx_folder(folder: Path, **changed: np.ndarray) -> Path:
    """A folder of idx files of images of 5 x 9 in three classes."""
    rng = np.random.default_rng(4)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (60, 5, 9)),
        "train-labels-idx1-ubyte": np.arange(60) % 3,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (9, 5, 9)),
        "t10k-labels-idx1-ubyte": np.arange(9) % 3,
    }
    for name, array in (arrays | {k.replace("_", "-"): v for k, v in changed.items()}).items():
        (folder / name).write_bytes(idx(array))
    return folder


def test_a_folder_of_idx_files_of_any_size(tmp_path: Path) -> None:
    found = qspinn.load_data(DataConfig(name="idx", folder=str(idx_folder(tmp_path))))
    assert (found.shape, found.labels) == ((5, 9), ("0", "1", "2"))
    assert found.class_counts() == {"train": (17, 17, 17), "validation": (3, 3, 3), "test": (3, 3, 3)}
    stored = np.frombuffer((tmp_path / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(9, 45)
    assert np.array_equal(found.test.images, stored)
    assert [split.first for _, split in found.parts()] == [0, 51, 60]
    assert "the last 15 % for validation" in found.split_rule
    packed = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(packed))
    again = qspinn.load_data(DataConfig(name="idx", folder=str(tmp_path)))
    assert again.checksum() == found.checksum()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels_idx1_ubyte": np.arange(59) % 3}, r"train: images and labels do not belong together"),
        ({"t10k_images_idx3_ubyte": np.zeros((9, 5, 8))}, r"test images are of another size; got \(5, 8\)"),
        (
            {"train_labels_idx1_ubyte": np.arange(60) % 3 * 2},
            r"train: holds no recording of some classes; got \['1', '3'\]",
        ),
        ({"train_images_idx3_ubyte": np.zeros((60, 45))}, r"train: images and labels do not belong together"),
    ],
)
def test_what_is_wrong_with_idx_files_is_said_by_name(
    changed: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        qspinn.load_data(DataConfig(name="idx", folder=str(idx_folder(tmp_path, **changed))))


def test_idx_needs_a_folder_and_shares_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.folder: is not given"):
        qspinn.load_data(DataConfig(name="idx"))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: is missing"):
        qspinn.load_data(DataConfig(name="idx", folder=str(tmp_path)))
    idx_folder(tmp_path)
    images = np.frombuffer((tmp_path / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(60, 5, 9)
    idx_folder(tmp_path, t10k_images_idx3_ubyte=images[:9])
    with pytest.raises(DataError, match="splits share recordings"):
        qspinn.load_data(DataConfig(name="idx", folder=str(tmp_path)))
    assert qspinn.load_data(DataConfig(name="idx", folder=str(tmp_path), allow_shared=True)).allow_shared

"""N-MNIST and tactile sets: formats by hand, damage named, sizes and balances of the real files."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from qspinn.data import EventData, EventDataset, load_events, load_recordings
from qspinn.data.events import nmnist, tactile
from qspinn.data.events.nmnist import nmnist_recordings, nmnist_set, read_nmnist, read_packed
from qspinn.data.events.recording import bin_events
from qspinn.errors import ConfigError, DataError

DATA = Path(os.environ.get("QSPINN_DATA", ""))


def needs(name: str) -> pytest.MarkDecorator:
    there = bool(os.environ.get("QSPINN_DATA")) and (DATA / name).exists()
    return pytest.mark.skipif(not there, reason=f"QSPINN_DATA does not name a folder with {name}")


# N-MNIST, the published files


def bin_bytes(events: list[tuple[int, int, int, int]]) -> bytes:
    """(x, y, t, p) as five bytes each."""
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, t, p in events)


EVENTS = [(0, 33, 5, 1), (33, 0, 70_000, 0), (12, 7, 70_000, 1), (1, 2, 5_300_123, 0)]


def test_nmnist_bytes_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bin_bytes(EVENTS))
    got = read_nmnist(path)
    assert [(e["x"], e["y"], e["t"], e["p"]) for e in got] == [(x, y, t, bool(p)) for x, y, t, p in EVENTS]
    path.write_bytes(bin_bytes([EVENTS[0], (9, 240, 8000, 1), EVENTS[2], (0, 240, 0, 0), (1, 2, 65_000, 0)]))
    assert read_nmnist(path)["t"].tolist() == [5, 70_000 + 8192, 65_000 + 2 * 8192]


def test_damaged_nmnist_files_are_named(tmp_path: Path) -> None:
    path, content = tmp_path / "a.bin", bin_bytes(EVENTS)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if size % 5 == 0:  # no trace of what followed
            assert len(read_nmnist(path)) == size // 5
            continue
        with pytest.raises(DataError, match=rf"a\.bin: byte {size - size % 5}: file is cut short"):
            read_nmnist(path)
    for bad in ((34, 0, 6_000_000, 0), (0, 34, 6_000_000, 0)):
        path.write_bytes(bin_bytes([*EVENTS[:3], bad]))
        with pytest.raises(DataError, match=r"a\.bin: byte 15: event outside the sensor"):
            read_nmnist(path)
    path.write_bytes(bin_bytes(EVENTS[::-1]))
    with pytest.raises(DataError, match=r"a\.bin: byte 5: events are not in order.*fix: the file is damaged"):
        read_nmnist(path)
    with pytest.raises(DataError, match=r"b\.bin: cannot be read"):
        read_nmnist(tmp_path / "b.bin")


def nmnist_folder(tmp_path: Path, n: int = 10) -> Path:
    rng = np.random.default_rng(3)
    for part, size in (("Train", n), ("Test", 2)):
        for digit in range(10):
            (tmp_path / part / str(digit)).mkdir(parents=True)
            for i in range(size):
                columns = (
                    rng.integers(0, 34, 50),
                    rng.integers(0, 34, 50),
                    np.sort(rng.integers(0, 330_000, 50)),
                    rng.integers(0, 2, 50),
                )
                rows = [(int(x), int(y), int(t), int(p)) for x, y, t, p in zip(*columns, strict=True)]
                (tmp_path / part / str(digit) / f"{i:05}.bin").write_bytes(bin_bytes(rows))
    return tmp_path


def test_nmnist_folders(tmp_path: Path) -> None:
    folder = nmnist_folder(tmp_path)
    whole = load_events("nmnist", str(folder))
    assert [p.n_samples for _, p in whole.parts()] == [90, 10, 20]
    assert all(np.ptp(np.bincount(p.labels, minlength=10)) == 0 for _, p in whole.parts())
    assert (whole.shape, whole.n_steps, whole.bin_ms) == ((2, 34, 34), 63, 5.0)
    assert load_events("nmnist", str(folder), bin_ms=10.0).n_steps == 32
    recordings = list(nmnist_recordings(folder, "Train"))
    assert [label for _, label in recordings] == sorted(whole.train.labels.tolist() + whole.validation.labels.tolist())
    counts = nmnist_set(folder, "Train", bin_ms=50.0, n_bins=3, binary=False)
    for number in (9, 55):
        raster = np.zeros((3, 2, 34, 34), np.int64)
        for e in recordings[number][0]:
            if e["t"] < 150_000:
                raster[e["t"] // 50_000, int(e["p"]), e["y"], e["x"]] += 1
        np.testing.assert_array_equal(counts.dense()[:, number], raster)
    last = bin_events(recordings[9][0], (34, 34), 5000, 63)
    np.testing.assert_array_equal(whole.validation.slice(0, 1).compact().index, last.address)
    (folder / "Train" / "4" / "00000.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"00000\.bin: byte 0: file is cut short"):
        load_events("nmnist", str(folder))
    with pytest.raises(DataError, match=r"Train/0: holds no \.bin files"):
        load_events("nmnist", str(folder / "Test"))


# N-MNIST, packed


def packed_fields(n: int = 16, n_events: int = 30, seed: int = 5) -> dict[str, np.ndarray]:
    """Recordings of random sorted keys, every 8th empty."""
    rng = np.random.default_rng(seed)
    n_bins = rng.integers(50, 64, n).astype(np.uint16)
    keys = [
        np.sort(rng.choice(int(b) * 2312, 0 if i % 8 == 7 else n_events, replace=False)) for i, b in enumerate(n_bins)
    ]
    deltas = [np.diff(k, prepend=0) for k in keys]
    return {
        "delta": np.concatenate(deltas).astype(np.uint16),
        "offsets": np.cumsum([0, *map(len, keys)]),
        "n_bins": n_bins,
        "label": (np.arange(n) % 8).astype(np.uint8),
        "keys": np.concatenate(keys),
    }


def write_packed(path: Path, **change: np.ndarray) -> Path:
    fields = packed_fields() | change
    np.savez(path, **{k: v for k, v in fields.items() if k != "keys"})
    return path


@pytest.mark.parametrize("factor", [1, 4])
def test_packed_files_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
    monkeypatch.setattr(nmnist, "CHUNK", 5)
    fields, n_steps = packed_fields(), -(-63 // factor)
    expected = np.zeros((n_steps, 16, 2, 34, 34), np.uint8)
    for i in range(16):
        for key in fields["keys"][fields["offsets"][i] : fields["offsets"][i + 1]].tolist():
            step, address = divmod(key, 2312)
            expected[step // factor, i, address // 1156, address % 1156 // 34, address % 34] = 1
    got = read_packed(write_packed(tmp_path / "x.npz"), factor)
    np.testing.assert_array_equal(got.dense(), expected)
    assert got.labels.tolist() == [*range(8)] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.arange(16)}, "offsets do not fit"),
        ({"offsets": np.arange(17)[::-1]}, "offsets do not fit"),
        ({"n_bins": np.full(16, 64)}, "too many bins"),
        ({"n_bins": np.full(16, 3)}, "events after the last bin"),
        ({"delta": np.zeros(420, np.uint16)}, "events are not in order"),
        ({"label": np.zeros(3)}, "label: holds no integers"),
        ({"delta": np.array([{}] * 420)}, "delta: holds Python objects"),
    ],
)
def test_packed_files_are_checked(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.npz: {message}"):
        read_packed(write_packed(tmp_path / "x.npz", **change))


def test_damaged_npz_files_are_named(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "x.npz")
    content = path.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(content), 97)]:
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"x\.npz: cannot be read"):
            read_packed(path)
    whole, seen = read_packed(write_packed(path)), 0
    for at in range(0, len(content), 5):
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        try:
            got = read_packed(path)
        except DataError:
            seen += 1
            continue
        np.testing.assert_array_equal(got.index, whole.index)
    assert seen > 100
    np.savez(path, delta=np.zeros(3))
    with pytest.raises(DataError, match=r"x\.npz: holds no array 'offsets'"):
        read_packed(path)


def test_packed_validation_is_balanced(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_packed(tmp_path / f"nmnist8_{part}.npz", **packed_fields(seed=5 + (part == "test")))
    whole = nmnist.load_packed(tmp_path, n_validation=8)
    assert whole.validation.labels.tolist() == [*range(8)]
    np.testing.assert_array_equal(
        whole.validation.index, read_packed(tmp_path / "nmnist8_train.npz").slice(8).compact().index
    )
    for n in (4, -8, 16):
        with pytest.raises(DataError):
            nmnist.load_packed(tmp_path, n_validation=n)
    for bin_ms in (7.0, 2.5, 0.0):
        with pytest.raises(DataError, match="not a multiple of the stored bins"):
            nmnist.load_packed(tmp_path, bin_ms=bin_ms)


@needs("nmnist8_train.npz")
def test_real_packed_nmnist() -> None:
    whole = load_events("nmnist8")
    assert [p.n_samples for _, p in whole.parts()] == [7000, 1000, 2000]
    assert [np.bincount(p.labels).tolist() for _, p in whole.parts()] == [[875] * 8, [125] * 8, [250] * 8]
    assert [p.n_events for _, p in whole.parts()] == [22_483_607, 3_202_062, 6_414_417]
    assert (whole.shape, whole.n_steps, whole.train.index.dtype) == ((2, 34, 34), 63, np.uint16)
    assert "last 125 recordings of the training file" in whole.split_rule
    with np.load(DATA / "nmnist8_test.npz") as file:
        for i in (0, 1234, 1999):
            keys = np.cumsum(file["delta"][file["offsets"][i] : file["offsets"][i + 1]], dtype=np.int64)
            raster = np.zeros(63 * 2312, np.uint8)
            raster[keys] = 1
            np.testing.assert_array_equal(whole.test.slice(i, i + 1).dense().ravel(), raster)
            assert whole.test.labels[i] == file["label"][i]


# Tactile


def shares(whole: EventDataset) -> list[list[int]]:
    return [np.bincount(p.labels).tolist() for _, p in whole.parts()]


@needs("braille7.npz")
def test_real_braille() -> None:
    whole = load_events("braille7")
    assert shares(whole) == [
        [117, 124, 118, 122, 115, 121, 117],
        [13, 14, 13, 14, 13, 13, 13],
        [32, 34, 33, 34, 32, 33, 33],
    ]
    assert (whole.shape, whole.n_steps, whole.bin_ms) == ((12, 1, 1), 256, 5.0)
    with np.load(DATA / "braille7.npz") as file:
        bits = np.unpackbits(file["x"], axis=-1, count=12)
        expected = sorted((int(label), x.tobytes()) for label, x in zip(file["y"], bits, strict=True))
    got = [
        (int(label), x.tobytes())
        for _, part in whole.parts()
        for label, x in zip(part.labels, np.swapaxes(part.dense(), 0, 1), strict=True)
    ]
    assert sorted(got) == expected, "each recording is in one split"
    assert load_events("braille7").checksum() == whole.checksum()
    merged = load_events("braille7", bin_ms=15.0)
    assert merged.n_steps == 86
    np.testing.assert_array_equal(merged.test.dense()[3], whole.test.dense()[9:12].max(axis=0))
    with pytest.raises(DataError, match="not a multiple"):
        load_events("braille7", bin_ms=7.0)


@needs("ev_containers.npz")
def test_real_containers() -> None:
    whole = load_events("ev_containers")
    assert shares(whole) == [[10] * 20, [2] * 20, [3] * 20]
    assert (whole.shape, whole.n_steps, whole.bin_ms) == ((2, 39, 1), 325, 20.0)
    with np.load(DATA / "ev_containers.npz") as file:
        bits = np.unpackbits(file["test_x"], axis=-1, count=325)
        train = np.unpackbits(file["train_x"], axis=-1, count=325).sum()
    np.testing.assert_array_equal(whole.test.dense()[..., 0], bits.transpose(3, 0, 2, 1))
    assert whole.train.n_events + whole.validation.n_events == train
    assert load_events("ev_containers", bin_ms=40.0).n_steps == 163


def write_braille(folder: Path) -> None:
    """Random events under the name of the Braille recordings."""
    bits = np.random.default_rng(1).random((140, 256, 12)) < 0.05
    np.savez(folder / "braille7.npz", x=np.packbits(bits, axis=-1), shape=np.array(bits.shape), y=np.arange(140) % 7)


def test_braille_has_finer_bins_for_training(tmp_path: Path) -> None:
    write_braille(tmp_path)
    plain = tactile.braille(tmp_path, bin_ms=20.0)
    assert plain.learned() == (plain.train, 1)
    for fine in (2, 4):
        whole = tactile.braille(tmp_path, bin_ms=20.0, fine=fine)
        learned, per_step = whole.learned()
        assert (learned.n_steps, per_step) == (64 * fine, fine)
        for part in (whole.train, learned.rebinned(fine)):
            np.testing.assert_array_equal(part.dense(), plain.train.dense())
            np.testing.assert_array_equal(part.labels, plain.train.labels)
        np.testing.assert_array_equal(whole.validation.dense(), plain.validation.dense())
    few = load_recordings(EventData(name="braille7", folder=str(tmp_path), bin_ms=20.0, fine=4, n_train=21))
    assert few.learned()[0].labels.tolist() == few.train.labels.tolist()
    assert few.train.n_samples == 21
    with pytest.raises(ConfigError, match=r"data\.fine: does not divide a step into stored bins; got 3"):
        tactile.braille(tmp_path, bin_ms=20.0, fine=3)
    with pytest.raises(DataError, match=r"braille7\.fine: are not the training recordings in finer bins"):
        msgspec.structs.replace(plain, fine=whole.fine, per_step=2)


def test_tactile_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"x": np.zeros((70, 256, 2), np.uint8), "shape": np.array([70, 256, 12]), "y": np.arange(70) % 7}
    for change, message in (
        ({"shape": np.array([70, 256, 13])}, "wrong shape; got"),
        ({"y": np.arange(69) % 7}, "wrong shape; got"),
        ({"x": np.zeros((70, 256, 1), np.uint8)}, "wrong shape or type of bits"),
        ({"x": np.zeros((70, 256, 2))}, "wrong shape or type of bits"),
    ):
        np.savez(tmp_path / "braille7.npz", **(good | change))
        with pytest.raises(DataError, match=rf"braille7\.npz: {message}"):
            tactile.braille(tmp_path)
    np.savez(tmp_path / "braille7.npz", **(good | {"y": np.arange(70) % 6}))
    with pytest.raises(DataError, match=r"braille7\.train: holds no recording of some classes; got \['Y'\]"):
        tactile.braille(tmp_path)
    np.savez(tmp_path / "braille7.npz", **(good | {"y": np.arange(70) % 8}))
    with pytest.raises(DataError, match="unknown class"):
        tactile.braille(tmp_path)
    with pytest.raises(DataError, match=r"ev_containers\.npz: is missing"):
        tactile.containers(tmp_path)
    monkeypatch.delenv("QSPINN_DATA", raising=False)
    with pytest.raises(DataError, match="QSPINN_DATA"):
        load_events("braille7")
    with pytest.raises(ConfigError, match="is not a word that is known here; got 'mnist'"):
        load_events("mnist", "x")


def test_event_sets_are_imported_when_asked_for() -> None:
    import subprocess
    import sys

    code = (
        "import sys, qspinn.data; print([m for m in ('nmnist', 'tactile', 'aedat', 'synthetic_gestures', "
        "'dvs_gesture') if f'qspinn.data.{m}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

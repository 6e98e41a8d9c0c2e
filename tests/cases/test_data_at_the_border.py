"""Data at the border: what has one meaning is taken alike by every entry, and what has none is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qspinn import data, spikes
from qspinn.data.events import dvs_gesture, frames
from qspinn.data.events.aedat import read_aedat
from qspinn.data.events.dataset import EventDataset, split_off
from qspinn.data.events.dvs_gesture import CSV_HEADER, cut, labels_of
from qspinn.data.events.event_set import EventSet, concatenate, from_dense, pack
from qspinn.data.events.recording import bin_events, check, join, make
from qspinn.data.events.synthetic_gestures import synthetic_recording
from qspinn.data.images import mnist
from qspinn.data.images.dataset import Split
from qspinn.errors import ConfigError, DataError, QSpinnError, RunError
from qspinn.exploration.tasks import keep_array, map_array
from qspinn.spikes import Spikes
from qspinn.workflow.experiments import load_data


def at(*times: int) -> Any:
    return make(*np.zeros((2, len(times)), np.int64), np.array(times), np.zeros(len(times), bool))


def store(n: int = 4, most: int = 1, seed: int = 0) -> EventSet:
    raster = np.random.default_rng(seed).integers(0, most + 1, (4, n, 1, 2, 9))
    raster[0, :, 0, 0, 0] = most
    return from_dense(raster, np.arange(n) % 2, order="TB")


def events(**fields: Any) -> EventDataset:
    fields = {
        "train": store(seed=1),
        "validation": store(seed=2),
        "test": store(seed=3),
        "labels": ("a", "b"),
        "bin_ms": 1.0,
        "n_steps": 4,
    } | fields
    return EventDataset(name="d", shape=(1, 2, 9), split_rule="", **fields)


def test_packets_may_overlap_in_time() -> None:
    blocks = [at(0, 1_000_000, 2_500_000), at(1_500_000, 3_000_000)]
    for given in (blocks, [join(blocks)]):
        first, second = cut(given, [(0, 2_000_000), (2_000_000, 4_000_000)])
        assert (first["t"].tolist(), second["t"].tolist()) == ([0, 1_000_000, 1_500_000], [2_500_000, 3_000_000])


def test_a_masked_entry_in_a_list_is_masked() -> None:
    row = np.ma.array([1, 0, 1], mask=[1, 0, 0])
    for masked in ([[row]], [[[np.ma.masked, 0, 1]]], ([row.reshape(1, 3)],)):
        with pytest.raises(DataError, match="spikes: is masked"):
            spikes.from_dense(masked)
    with pytest.raises(DataError, match="images: is masked"):
        Split(images=[row.astype(np.uint8)], labels=[0], first=0)


def test_memory_that_somebody_can_write_to_is_copied() -> None:
    buffer = bytearray(np.array([0, 3], np.uint16).tobytes())
    given = np.frombuffer(buffer, np.uint16)
    given.flags.writeable = False
    own = np.array([0, 3], np.uint16)
    own.flags.writeable = False
    made = [Spikes(offsets=[[0, 1, 2]], index=index, n=4) for index in (given, own)]
    own.flags.writeable = True
    own[:], buffer[:] = 60_000, b"\xff" * 4
    assert [s.index.tolist() for s in made] == [[0, 3], [0, 3]]
    with pytest.raises(ValueError, match="WRITEABLE"):
        made[0].index.flags.writeable = True
    whole = np.frombuffer(bytes(4), np.uint16)[:1]
    assert Spikes(offsets=[[0, 1]], index=whole, n=4).index is whole


def test_two_streams_are_told_from_a_clock_that_wrapped() -> None:
    streams = at(5, 1_040_000, 3, 1_039_000)
    with pytest.raises(DataError, match="clock_bits=0, if the clock does not wrap"):
        check(streams, (1, 1), order="sort")
    assert check(streams, (1, 1), order="sort", clock_bits=0)["t"].tolist() == [3, 5, 1_039_000, 1_040_000]
    assert check(at(65_530, 4), (1, 1), order="unwrap", clock_bits=16)["t"].tolist() == [65_530, 65_540]
    with pytest.raises(DataError, match="is no time of a clock of 16 bits"):
        check(at(65_536, 4), (1, 1), order="unwrap", clock_bits=16)
    for bits in (3, 41, True, 1.0):
        with pytest.raises(ConfigError, match="clock_bits"):
            check(streams, (1, 1), clock_bits=bits)  # type: ignore[arg-type]


def test_blocks_are_joined_only_where_they_are_events() -> None:
    bad = at(1)
    bad["x"] = -1
    with pytest.raises(DataError, match=r"block 0\.x\[0\]"):
        join([bad])
    for other in (None, 3):
        with pytest.raises(DataError, match="are not several"):
            join(other)  # type: ignore[arg-type]


def test_finer_bins_hold_the_same_events() -> None:
    fine = store(seed=1)
    merged = {"train": fine.rebinned(2), "validation": store(seed=2).rebinned(2), "test": store(seed=3).rebinned(2)}
    assert events(**merged, n_steps=2, fine=fine, per_step=2).learned() == (fine, 2)
    with pytest.raises(DataError, match=r"d\.fine: are not the training recordings"):
        events(**merged, n_steps=2, fine=store(seed=5), per_step=2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": "ab"}, "labels"),
        ({"labels": {"a": 0, "b": 1}}, "labels"),
        ({"labels": (1, None)}, "labels"),
        ({"labels": ("a", "a")}, "labels"),
        ({"per_step": 7}, "per_step"),
        ({"bin_ms": True}, "bin_ms"),
        ({"train": None}, "train"),
        ({"fine": 3}, "fine"),
        ({"labels": 2}, "labels"),
        ({"skipped": [1]}, "skipped"),
    ],
)
def test_fields_of_data_sets(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=rf"d\.{named}"):
        events(**change)


def test_equal_numbers_make_equal_data_sets() -> None:
    assert (
        len({events(bin_ms=ms, n_steps=n).checksum() for ms in (1, 1.0, np.float32(1)) for n in (4, np.int64(4))}) == 1
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: data.load(data.EventData(name="braille7")),
        lambda: load_data(None),
        lambda: load_data("digits"),
        lambda: data.load_recordings("x"),
        lambda: data.load(data.DataConfig(folder="/nonexistent")),
        lambda: data.load_events("synthetic_gestures", "/nonexistent"),
        lambda: data.load_events("braille7", bin_ms=False),
        lambda: data.load_events("braille7", bin_ms=""),
        lambda: data.load_events("braille7", bin_ms=10**400),
        lambda: data.load_events("braille7", bin_ms=1e20),
        lambda: data.load_recordings(data.EventData(name="dvs_gesture", size=33)),
        lambda: split_off([0] * 9, 1, fraction=0.5),
        lambda: split_off([0] * 9, -1),
        lambda: Split(images=np.zeros((1, 4), np.uint8), labels=[-1], first=0),
        lambda: bin_events(at(1), (1, 1), 1, 1, binary="False"),
        lambda: spikes.from_dense([[[1]]], graded="no"),
        lambda: concatenate([1]),
        lambda: concatenate(None),
        lambda: pack([bin_events(at(1), (1, 1), 1, 1)], 1, (1, 1)),
        lambda: pack(None, 1, (1, 1)),
        lambda: make([0], [0], [0], [0], time_unit=[]),
        lambda: synthetic_recording(0, 0, camera=3),
        lambda: read_aedat(None),
        lambda: dvs_gesture.load(None),
        lambda: mnist.read_idx(3),
        lambda: labels_of("missing\0"),
        lambda: data.DataConfig(n_train=-(10**5000)),
    ],
)
def test_what_has_no_meaning_is_refused(call: Any) -> None:
    with pytest.raises(QSpinnError):
        call()


def test_valid_input_is_taken() -> None:
    empty = from_dense(np.zeros((5, 0, 2, 3, 3)), [], order="TB")
    assert (empty.n_samples, empty.n_steps) == (0, 5)
    assert concatenate(store() for _ in range(2)).n_samples == 8
    assert split_off([0] * 8, fraction=np.float32(0.25)).sum() == 2


def test_counts_of_others_do_not_matter() -> None:
    from qspinn.learning.gradients.inputs import need_events

    network: Any = SimpleNamespace(n_steps=4, input=SimpleNamespace(shape=(1, 2, 9), max_count=2))
    both = concatenate([store(2, most=2), store(2, most=7)])
    need_events(network, both.slice(0, 2))
    with pytest.raises(DataError, match="more often in a step than was declared; got 7"):
        need_events(network, both)
    network.n_steps = 2
    with pytest.raises(DataError, match=r"more often in a step than was declared; got [34]"):
        need_events(network, both.slice(0, 2), 2)


def test_moved_events_count_as_many_as_the_input_takes() -> None:
    from qspinn.learning.gradients.settings import Supervision
    from qspinn.learning.gradients.training import _batches

    for most in (2, 255):
        batches = _batches(store(40, most), Supervision(jitter=2.0), np.random.default_rng(0), 2, most)
        assert max(int(raster.max()) for raster, _ in batches) == most


def test_frames_are_chosen_of_all_classes_alike() -> None:
    split = Split(images=np.full((9, 784), 16, np.uint8), labels=[0, 0, 0, 0, 0, 1, 1, 2, 0], first=0)
    assert frames._steps(split, 6, 2).labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert frames._steps(split, 0, 2).labels.tolist() == split.labels.tolist()


def test_images_of_other_shapes_are_no_digits() -> None:
    for shape in ((2, 784, 1), (2, 14, 56)):
        with pytest.raises(DataError, match="images are of another size"):
            mnist._split(np.zeros(shape, np.uint8), np.zeros(2, np.uint8), 0, Path("x"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1_0,0,9", "is not a label"),
        ("1,0,9,3", "is not a label"),
        ("1,0,9\n2,0,9", "same time to two gestures"),
        ("\ufeff1,0,9", "is no ASCII text"),
    ],
)
def test_label_files(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"{CSV_HEADER}\n{rows}\n")
    with pytest.raises(DataError, match=message):
        labels_of(str(tmp_path / "l.csv"))


def test_a_user_is_in_one_list(tmp_path: Path) -> None:
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (tmp_path / "trials_to_test.txt").write_text("user1_lab.aedat\n")
    with pytest.raises(DataError, match=r"users of trials_to_train\.txt; got \[1\]"):
        dvs_gesture.load(tmp_path)


def test_stored_splits_are_what_was_stored(tmp_path: Path) -> None:
    path, array = tmp_path / "a.npy", np.arange(50)
    expected = keep_array(path, array)
    np.testing.assert_array_equal(map_array(path, expected), array)
    whole = path.read_bytes()
    for changed in (whole[:-1] + b"\1", whole[:-9], b"", whole[:20]):
        path.write_bytes(changed)
        with pytest.raises(RunError, match=r"a\.npy"):
            map_array(path, expected)
        assert keep_array(path, array) == expected
        assert path.read_bytes() == whole

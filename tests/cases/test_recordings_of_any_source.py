"""`Recordings` and data sets made by hand: what is taken, and what is refused by name when it is passed, not later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qspinn
from qspinn.data import DataConfig, Dataset, EventData, Split
from qspinn.data.events.aedat import write_aedat
from qspinn.errors import ConfigError, DataError

LABELS = np.arange(30) % 2
X = np.random.default_rng(0).random((30, 6, 4)) < 0.4


def columns(**changed: Any) -> dict[str, Any]:
    """Columns of 12 recordings of one event each, by split."""
    arrays: dict[str, Any] = {"sensor": np.array([1, 12])}
    for k, part in enumerate(("train", "validation", "test")):
        own = {"x": np.arange(4) + 4 * k, "y": np.zeros(4, int), "t": np.arange(4), "p": np.zeros(4, int)}
        own |= {"offsets": np.arange(5), "labels": np.arange(4) % 2}
        arrays |= {f"{name}_{part}": values for name, values in own.items()}
    return arrays | changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"p_test": np.full(4, 7)}, r"mine\.npz: p_test\[0\]: is no polarity"),
        ({"x_validation": np.full(4, -1)}, r"mine\.npz: x_validation\[0\]: holds a value out of range"),
        ({"t_test": np.arange(4) / 2}, r"mine\.npz: t_test: holds floats.*fix: time_unit = \"s\""),
        (
            {"t_test": np.array([1 << 40, 0, 2, 3]), "offsets_test": np.array([0, 2, 3, 3, 4])},
            r"sort the events by time$",
        ),
    ],
)
def test_errors_of_columns_name_the_array_and_a_fix_for_a_file(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", **columns(**changed))
    with pytest.raises(DataError, match=message) as caught:
        qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=1.0))
    assert "clock_bits" not in str(caught.value)


def test_times_further_apart_than_a_step_are_refused(tmp_path: Path) -> None:
    for dtype, unit, times, message in (
        ("f2", "s", [0, 0.1, 0.2, 1.5], r"t_test: holds floats of 16 bits.*0\.977 ms at 1\.5 s.*allowed: 0\.1 ms"),
        ("f4", "s", [0, 0.1, 0.2, 9e3], r"t_test: holds floats of 32 bits.*0\.977 ms at 9000 s"),
    ):
        np.savez(tmp_path / "mine.npz", **columns(t_test=np.array(times, dtype), time_unit=unit))
        with pytest.raises(DataError, match=message):
            qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=0.1))
    np.savez(tmp_path / "mine.npz", **columns(t_test=np.array([0, 0.1, 0.2, 1.5], "f2"), time_unit="s"))
    assert qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=1.0)).n_steps == 3001


def test_columns_whose_events_are_all_late_are_refused(tmp_path: Path) -> None:
    late = {f"t_{part}": np.arange(4) + 10**6 for part in ("train", "validation", "test")}
    np.savez(tmp_path / "mine.npz", **columns(**late))
    with pytest.raises(DataError, match=r"mine\.npz: train: has no event before the end of the last step"):
        qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=1.0, n_bins=10))
    np.savez(tmp_path / "mine.npz", **columns(t_test=np.array([0, 1, 2, 10**6])))
    data = qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=1.0, n_bins=10))
    assert data.split_rule.endswith("25.00% of the events of test are after the last step, and left out")


def test_counts_that_merged_bins_cannot_hold_name_the_file(tmp_path: Path) -> None:
    split = np.array(["train"] * 20 + ["validation"] * 5 + ["test"] * 5)
    np.savez(tmp_path / "mine.npz", x=X.astype(np.uint8) * 200, labels=LABELS, split=split, bin_ms=1.0)
    with pytest.raises(DataError, match=r"mine\.npz: count: too many events fall together"):
        qspinn.load_data(EventData(file=str(tmp_path / "mine.npz"), bin_ms=2.0))


def test_numbers_of_numpy_and_text_of_pandas_are_taken(tmp_path: Path) -> None:
    words = np.array(["b", "a"], dtype=object)[LABELS]
    expected = qspinn.Recordings((X, words.astype(str)), bin_ms=5.0).events()
    for bin_ms in (5, np.int64(5), np.float32(5), np.uint8(5)):
        found = qspinn.Recordings((X, words), bin_ms=bin_ms).events()
        assert (found.labels, found.checksum()) == (("a", "b"), expected.checksum())
    for bad in (np.array([5]), "5", True, -1, np.nan, None, 5j):
        with pytest.raises(ConfigError, match=r"Recordings\.bin_ms: is no number"):
            qspinn.Recordings((X, words), bin_ms=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [([1, 2], [3]), (0, 4), ("a", "b"), (4.0, 4)])
def test_a_sensor_size_is_two_integers(size: Any) -> None:
    events = np.zeros(1, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    with pytest.raises(ConfigError, match=r"Recordings\.sensor_size\[0\]"):
        qspinn.Recordings([(events, 0)], sensor_size=size)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ((np.array([[[1, 2]]] * 30, object), LABELS), {}, "x: holds Python objects; got \\['int'\\]"),
        ((np.full((30, 6, 4), np.nan), LABELS), {"bin_ms": 5.0}, "x: .*holds NaN"),
        ((np.full((30, 6, 4), -1), LABELS), {}, "x: .*holds a value out of range|x\\[0, 0, 0\\]"),
        ((X, LABELS[:3]), {}, "labels: are not as many"),
        ((X, LABELS), {"n_bins": 3}, "n_bins: is for event columns"),
    ],
)
def test_what_no_reader_takes_is_not_saved(source: Any, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{message}|x\[0, 0, 0\]: holds"):
        qspinn.Recordings(source, **settings).save(tmp_path / "mine.npz")
    assert not (tmp_path / "mine.npz").exists()


def test_what_a_reader_takes_with_its_settings_is_saved(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 5), np.uint8)
    shared = np.concatenate([X[:15], X[:15]])
    events = np.zeros(3, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    pairs = []
    for i in range(30):
        events["x"], events["t"] = i, [0, 5_000, 50_000_000]
        pairs.append((events.copy(), i % 2))
    made = (
        qspinn.Recordings((images, LABELS)),
        qspinn.Recordings((images / 255, LABELS), scale=255.0),
        qspinn.Recordings((X, LABELS)),
        qspinn.Recordings((shared, np.tile(np.arange(15) % 2, 2)), split=["train", "test"] * 14 + ["validation"] * 2),
        qspinn.Recordings(pairs, sensor_size=(30, 1)),
    )
    for k, recordings in enumerate(made):
        recordings.save(tmp_path / f"{k}.npz")
    assert np.load(tmp_path / "4.npz")["x"].tolist() == np.repeat(np.arange(30), 3).tolist()


def test_sources_that_can_be_gone_through_are() -> None:
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[tuple[Any, int]]:
            return iter([(torch.from_numpy(x), int(k)) for x, k in zip(X, LABELS, strict=True)])

        def __len__(self) -> int:
            return 30

    expected = qspinn.Recordings((X, LABELS), bin_ms=5.0).events().checksum()
    assert qspinn.Recordings(Stream(), bin_ms=5.0).events().checksum() == expected
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged)
    with pytest.raises(DataError, match="is a nested tensor"):
        qspinn.Recordings((nested, [0, 1]), bin_ms=5.0)


def test_a_source_without_a_length_is_refused() -> None:
    class Unknown:
        def __len__(self) -> int:
            raise TypeError("no length")

        def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
            return X[i], i % 2

    with pytest.raises(DataError, match="does not know its length; got 'no length'"):
        qspinn.Recordings(Unknown(), bin_ms=5.0)


def dataset(**fields: Any) -> Dataset:
    split = Split(images=np.zeros((2, 4), np.uint8), labels=[0, 1], first=0)
    usual = {"name": "d", "shape": (2, 2), "labels": ("a", "b"), "split_rule": "", "allow_shared": True}
    return Dataset(**usual | {"train": split, "validation": split, "test": split} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": 5}, r"d\.labels: is no tuple of texts"),
        ({"labels": ("a", "a")}, r"d\.labels: holds a name twice"),
        ({"train": None}, r"d\.train: is of the wrong type"),
        ({"split_rule": 5}, r"dataset\.split_rule: is of the wrong type"),
        ({"name": 5}, r"dataset\.name: is of the wrong type"),
        ({"labels": ("a", "b", "c")}, r"d\.train: holds no image of some classes; got \['c'\]"),
    ],
)
def test_sets_of_images_are_checked_as_those_of_events(fields: dict[str, Any], message: str) -> None:
    assert dataset().labels == ("a", "b")
    with pytest.raises(DataError, match=message):
        dataset(**fields)


def test_a_number_of_images_that_cuts_classes_is_named(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 5, 5), np.uint8)
    labels = np.repeat([0, 1], 30)
    np.savez(tmp_path / "mine.npz", x=images, labels=labels, split=np.tile(["train", "validation", "test"], 20))
    whole = DataConfig(file=str(tmp_path / "mine.npz"), n_train=15)
    assert qspinn.load_data(whole).train.labels.max() == 1
    with pytest.raises(ConfigError, match=r"data\.n_train: .*got 5"):
        qspinn.load_data(DataConfig(file=str(tmp_path / "mine.npz"), n_train=5))


@pytest.mark.parametrize(
    "call", [lambda path: write_aedat(path, 5), lambda path: write_aedat(5, []), lambda path: write_aedat(None, [])]
)
def test_files_are_written_of_events_to_a_path(call: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"write_aedat\.(events: are not several|path: is no path)"):
        call(tmp_path / "w.aedat")
    assert not (tmp_path / "w.aedat").exists()

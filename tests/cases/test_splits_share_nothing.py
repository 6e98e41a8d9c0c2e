"""A test set that is the training set.

Reported: figures on recordings that were trained on, since both splits came from one file. Right: recordings that two
splits share are counted by their content and refused, unless the data set says that they may; classes are checked and
counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.data import Dataset, EventDataset, EventSet, Split
from qspinn.data.events.dvs_gesture import trials
from qspinn.data.events.event_set import from_dense
from qspinn.errors import DataError


def recordings(n: int = 6, seed: int = 0) -> EventSet:
    raster = np.random.default_rng(seed).random((4, n, 1, 1, 20)) < 0.5
    return from_dense(raster, np.arange(n) % 2, order="TB")


def events(**splits: Any) -> EventDataset:
    fields = {"train": recordings(seed=1), "validation": recordings(seed=2), "test": recordings(seed=3)} | splits
    return EventDataset(name="d", shape=(1, 1, 20), n_steps=4, bin_ms=1.0, labels=("a", "b"), split_rule="", **fields)


def images(seed: int, labels: Any = (0, 1, 0, 1, 0, 1), first: int = 0) -> Split:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 4)).astype(np.uint8)
    return Split(images=pixels, labels=np.array(labels), first=first)


def pictures(**splits: Any) -> Dataset:
    fields = {"train": images(1), "validation": images(2), "test": images(3)} | splits
    return Dataset(name="d", shape=(2, 2), labels=("a", "b"), split_rule="", **fields)


def test_splits_apart_are_accepted_and_counted() -> None:
    for data in (events(), pictures()):
        assert data.shared() == {}
        assert data.class_counts() == {"train": (3, 3), "validation": (3, 3), "test": (3, 3)}
        assert not data.allow_shared


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"test": recordings(seed=1)}, "train and test share 6"),
        ({"validation": recordings(seed=3)}, "validation and test share 6"),
        ({"test": recordings(seed=1).take([4, 0])}, "train and test share 2"),
        (
            {"validation": recordings(seed=1).slice(2, 3), "test": recordings(seed=2).slice(0, 1)},
            "train and validation share 1",
        ),
        (
            {"train": recordings(), "validation": recordings(), "test": recordings()},
            "train and validation share 6, train and test share 6, validation and test share 6",
        ),
    ],
)
def test_recordings_in_two_splits_are_refused(change: dict, named: str) -> None:
    with pytest.raises(DataError, match=rf"d: splits share recordings.*got '{named}'.*allow_shared=True"):
        events(**change)
    allowed = events(**change, allow_shared=True)
    assert allowed.allow_shared
    assert sum(allowed.shared().values()) == sum(int(word) for word in named.replace(",", "").split() if word.isdigit())


def test_the_content_counts_not_the_label_nor_the_place() -> None:
    train = recordings(seed=1)

    def counted(count: int) -> EventSet:
        return msgspec.structs.replace(train, count=np.full(train.n_events, count), labels=1 - train.labels)

    with pytest.raises(DataError, match="train and test share 6"):
        events(test=counted(1))
    assert events(test=counted(2), max_count=2).shared() == {}
    assert events(test=train.shifted(1, 0)).shared() == {}


def test_recordings_without_events_share_nothing() -> None:
    silent = from_dense(np.zeros((4, 3, 1, 1, 20)), [0, 1, 0], order="TB")
    assert events(validation=silent, test=silent.slice(0, 2)).shared() == {}
    assert events(validation=silent, test=silent).shared() == {}


def test_images_in_two_splits_are_refused() -> None:
    with pytest.raises(DataError, match="got 'train and test share 6'"):
        pictures(test=images(1))
    mixed = Split(images=np.concatenate([images(3).images, images(2).images[4:5]]), labels=[0] * 7, first=0)
    with pytest.raises(DataError, match="got 'validation and test share 1'"):
        pictures(test=mixed)
    assert pictures(test=mixed, allow_shared=True).shared() == {("validation", "test"): 1}
    blank = Split(images=np.zeros((2, 4), np.uint8), labels=[0, 1], first=0)
    assert pictures(train=blank, validation=blank).shared() == {}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_labels_are_classes(part: str) -> None:
    with pytest.raises(DataError, match=rf"d\.{part}\.labels: unknown class; got \[7, 8\]; allowed: 0\.\.1"):
        pictures(**{part: images(4, (0, 7, 8, 0, 1, 1))})
    with pytest.raises(DataError, match=rf"d\.{part}\.labels: unknown class; got \[2\]; allowed: 0\.\.1"):
        events(**{part: from_dense(np.ones((4, 3, 1, 1, 20)), [0, 1, 2], order="TB")})
    for bad in ([0.5] * 6, ["a"] * 6, [None] * 6, [0] * 5, [[0] * 6], [-1] * 6):
        with pytest.raises(DataError, match="labels"):
            Split(images=images(4).images, labels=np.array(bad), first=0)


def test_sizes_fit_the_images() -> None:
    with pytest.raises(DataError, match=r"d\.test\.images: wrong number of pixels; got 3; allowed: 2 x 2"):
        pictures(test=Split(images=np.zeros((1, 3), np.uint8), labels=[0], first=0))


def listed(folder: Path, train: str, test: str) -> Path:
    (folder / "trials_to_train.txt").write_text(train)
    (folder / "trials_to_test.txt").write_text(test)
    return folder


def test_lists_of_gestures_name_each_recording_once(tmp_path: Path) -> None:
    a, b = "user01_led.aedat\n", "user24_led.aedat\n"
    assert trials(listed(tmp_path, a, b), "train") == ["user01_led.aedat"]
    for part in ("train", "test"):
        with pytest.raises(DataError, match=rf"trials_to_{part}\.txt: names recordings .*got \['user01_led\.aedat'\]"):
            trials(listed(tmp_path, a + b.replace("24", "02"), b + a), part)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"trials_to_train\.txt: names a recording twice; got \['user01_led\.aedat'\]"):
        trials(listed(tmp_path, a + a, b), "train")
    (tmp_path / "trials_to_test.txt").unlink()
    (tmp_path / "trials_to_train.txt").write_text(a)
    assert trials(tmp_path, "train") == ["user01_led.aedat"]

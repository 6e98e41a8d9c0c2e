"""Synthetic gestures: proper events, hands that move as named, pixels that follow the light, noise as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from qspinn.data.events import synthetic_gestures
from qspinn.data.events.recording import bin_events, check, crop_time, downsample
from qspinn.data.events.synthetic_gestures import CLASSES, Camera, synthetic_recording, synthetic_set
from qspinn.errors import ConfigError


@pytest.mark.parametrize("label", range(11))
def test_synthetic_recordings_are_proper_events(label: int) -> None:
    events = synthetic_recording(label, 0, n_ms=400)
    np.testing.assert_array_equal(check(events, (128, 128)), events)
    assert 2000 < len(events) < 40_000
    assert events["t"][-1] < 400_000
    assert 0.3 < events["p"].mean() < 0.7
    np.testing.assert_array_equal(synthetic_recording(label, 0, n_ms=400), events)
    for other in (synthetic_recording(label, 1, n_ms=400), synthetic_recording(label, 0, seed=1, n_ms=400)):
        assert len(other) != len(events) or (other != events).any()


CLEAN = Camera(noise_hz=0.0, n_hot=0)


def path_of(label: int, number: int) -> np.ndarray:
    """Middle of the events in windows of 100 ms, [windows, 2]."""
    events = synthetic_recording(label, number, camera=CLEAN)
    windows = (crop_time(events, t, t + 100_000) for t in range(0, 1_500_000, 25_000))
    return np.array([[w["x"].mean(), w["y"].mean()] for w in windows if len(w)])


@pytest.mark.parametrize("number", range(3))
def test_the_hand_moves_as_the_name_says(number: int) -> None:
    for name, side, sense in (
        ("right clockwise", 1, 1),
        ("right counter-clockwise", 1, -1),
        ("left clockwise", -1, 1),
        ("left counter-clockwise", -1, -1),
    ):
        path = path_of(CLASSES.index(name), number)
        arm = path - path.mean(axis=0)
        turned = (arm[:-1, 0] * arm[1:, 1] - arm[:-1, 1] * arm[1:, 0]).sum()
        assert sense * turned > 0, name  # y points down: positive is clockwise
        assert side * (path[:, 0].mean() - 64) > 5, name
    for name, side in (("wave right", 1), ("wave left", -1)):
        path = path_of(CLASSES.index(name), number)
        assert side * (path[:, 0].mean() - 64) > 5
        assert path[:, 0].std() > 2 * path[:, 1].std()


def ideal(log_intensity: np.ndarray, camera: Camera, n_ms: int) -> int:
    """Events of one pixel that follows log_intensity [frames]: its level moves by the threshold at each."""
    level, n = log_intensity[0], 0
    for value in log_intensity[1:]:
        while abs(value - level) >= camera.threshold:
            level += np.sign(value - level) * camera.threshold
            n += 1
    return n


def test_pixels_follow_the_change_of_log_intensity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal thresholds, no noise: the count at each pixel is that of a loop, and times lie within the frame."""
    camera = Camera(noise_hz=0.0, n_hot=0, mismatch=0.0, threshold=0.25)
    frames = np.zeros((6, 128, 128), np.float32)
    frames[:, 3, 4] = [0, 1.1, 1.1, -0.6, -0.5, 0.3]
    frames[:, 90, 17] = [0.5, 0.7, 0.9, 1.05, 1.05, 1.05]
    monkeypatch.setattr(synthetic_gestures, "_frames", lambda parts, n: iter(frames))
    events = synthetic_recording(0, 0, n_ms=25, camera=camera)
    assert {(int(e["x"]), int(e["y"])) for e in events} == {(4, 3), (17, 90)}
    for x, y in ((4, 3), (17, 90)):
        mine = events[(events["x"] == x) & (events["y"] == y)]
        assert len(mine) == ideal(frames[:, y, x].astype(float), camera, 25)
    first = events[(events["x"] == 4) & (events["t"] < 5000)]
    assert first["t"].tolist() == [int(5000 * k * 0.25 / 1.1) for k in (1, 2, 3, 4)]
    assert first["p"].all()
    assert not events[(events["x"] == 4) & (events["t"] >= 10_000) & (events["t"] < 15_000)]["p"].any()


def test_blobs_are_drawn_one_after_the_other() -> None:
    """Also where they reach over the edge; sums in float32, in the order of the blobs."""
    rng = np.random.default_rng(4)
    parts = [(rng.uniform(-5, 133, (7, 2)), r, height) for r, height in ((6.0, -0.5), (9.0, 1.1), (30.0, 0.7))]
    frames = np.stack(list(synthetic_gestures._frames(parts, 7)))
    expected = np.zeros((7, 128, 128), np.float32)
    for path, radius, height in parts:
        down, across = (synthetic_gestures._profile(path[:, axis], radius) for axis in (1, 0))
        expected += (down * np.float32(height))[:, :, None] * across[:, None, :]
    np.testing.assert_array_equal(frames, expected)
    assert (frames[:, 0] != 0).any()
    assert (frames == 0).any()


def test_noise_has_the_asked_rate() -> None:
    noise = synthetic_gestures._noise(4000, Camera(noise_hz=2.0, n_hot=3, hot_hz=500.0), np.random.default_rng(0))
    at = np.bincount(noise["y"].astype(int) * 128 + noise["x"], minlength=128 * 128)
    hot = np.sort(at)[-3:]
    assert ((hot > 1800) & (hot < 2200)).all()
    assert abs(np.sort(at)[:-3].mean() - 8) < 0.2
    assert len(synthetic_gestures._noise(4000, CLEAN, np.random.default_rng(0))) == 0


def test_synthetic_sets() -> None:
    events = synthetic_set(2, first=3, bin_ms=20.0, n_bins=10, to=(16, 32))
    assert (events.n_samples, events.n_steps, events.shape) == (22, 10, (2, 16, 32))
    assert events.labels.tolist() == [*range(11)] * 2
    for i, (label, number) in ((5, (5, 3)), (13, (2, 4))):
        recording = downsample(synthetic_recording(label, number, n_ms=200), (128, 128), (16, 32))
        np.testing.assert_array_equal(
            events.slice(i, i + 1).compact().index, bin_events(recording, (16, 32), 20_000, 10).address
        )


def test_the_synthetic_data_set_says_what_it_is() -> None:
    whole = synthetic_gestures.load(n_train=2, n_validation=1, n_test=1, n_bins=5)
    assert [p.n_samples for _, p in whole.parts()] == [22, 11, 11]
    assert whole.name.startswith("synthetic")
    assert whole.split_rule.startswith("synthetic")
    assert all(label.startswith("synthetic ") for label in whole.labels)
    parts = [synthetic_set(1, first=first, n_bins=5) for first in (0, 1, 80, 110)]
    np.testing.assert_array_equal(whole.train.index, np.concatenate([p.index for p in parts[:2]]))
    np.testing.assert_array_equal(whole.validation.index, parts[2].index)
    np.testing.assert_array_equal(whole.test.index, parts[3].index)


def test_the_size_of_a_split_moves_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[tuple[int, int]] = []
    monkeypatch.setattr(synthetic_gestures, "synthetic_set", lambda n, *, first, **_: numbers.append((first, n)))
    monkeypatch.setattr(synthetic_gestures, "concatenate", list)
    monkeypatch.setattr(synthetic_gestures, "largest_count", lambda *sets: 1)
    monkeypatch.setattr(synthetic_gestures, "EventDataset", dict)
    synthetic_gestures.load()
    assert numbers == [(0, 80), (80, 30), (110, 30)]
    numbers.clear()
    synthetic_gestures.load(n_train=85, n_validation=1, n_test=31)
    assert numbers == [(0, 80), (1 << 32, 5), (80, 1), (110, 30), (3 << 32, 1)]


@pytest.mark.parametrize(
    "bad", [{"threshold": 0.0}, {"mismatch": 0.1}, {"noise_hz": -1.0}, {"n_hot": -1}, {"hot_hz": 1e5}, {"frame_hz": 0}]
)
def test_cameras_are_checked(bad: dict) -> None:
    with pytest.raises(ConfigError, match=f"camera.{next(iter(bad))}"):
        Camera(**bad)


def test_recordings_that_do_not_exist() -> None:
    for label, number, seed in ((11, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, -1), (1.5, 0, 0), (0, 0.0, 0), (0, 0, "1")):
        with pytest.raises(ConfigError, match=r"synthetic_recording\.(label|number|seed)"):
            synthetic_recording(label, number, seed=seed)
    with pytest.raises(ConfigError, match=r"synthetic_recording\.n_ms: is out of range"):
        synthetic_recording(0, 0, n_ms=0)

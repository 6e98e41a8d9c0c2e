"""Synthetic gestures: drawn arms and hands that move in 11 ways before a simulated event camera of 128 x 128 pixels.

For tests, demonstrations and experiments without the real recordings; results on them say nothing about real gestures.

A gesture is a path of one or two hands, each at the end of an arm. Arms and hands are soft blobs, bright and dark by
turns, added in the logarithm of intensity, so that they carry texture along and the still background plays no part. A
pixel fires when that logarithm has changed by its own threshold since its last event; the time is interpolated within
the frame. On top come noise at random pixels and a few hot ones.

Source: the pixel of Rebecq et al. 2018 (ESIM) and Hu, Liu, Delbruck 2021 (v2e): thresholds with Gaussian mismatch,
shot noise, hot pixels. We leave out bandwidth, refractory time and leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer, need_kind
from qspinn.data.events.dataset import EventDataset, largest_count
from qspinn.data.events.dvs_gesture import DURATION_MS, bins_of, microseconds
from qspinn.data.events.event_set import EventSet, concatenate, pack
from qspinn.data.events.recording import MOST_BINS, Binned, Events, Sensor, bin_events, downsample, join, make
from qspinn.data.kernels.camera import draw, fire
from qspinn.records.record import Record, need

SENSOR: Sensor = (128, 128)
CLASSES = (
    "clap",
    "wave right",
    "wave left",
    "right clockwise",
    "right counter-clockwise",
    "left clockwise",
    "left counter-clockwise",
    "roll",
    "drums",
    "strum",
    "jitter",
)
N_CLASSES = len(CLASSES)
STREAM = 0x6E57  # keeps these draws apart from others with the same seed
OWN = {"train": (0, 80, 1 << 32), "validation": (80, 30, 2 << 32), "test": (110, 30, 3 << 32)}
"""Numbers of the recordings of each split: the first, how many by default, and where those beyond start."""
GRID = 1024
"""Positions are rounded to this part of a pixel, so that the last bit of a sine does not matter."""

Path: TypeAlias = NDArray[np.float64]
"""Positions [frames, 2] (x, y) in pixels."""
Blob: TypeAlias = tuple[Path, float, float]
"""Path, radius, height (log intensity)."""
Arms: TypeAlias = list[tuple[tuple[float, float], Path]]
"""(shoulder, path of the hand) of every arm, from the middle of the sensor."""
Motion: TypeAlias = Callable[[NDArray[np.float64], np.random.Generator], Arms]
"""Arms at each phase [frames]."""


class Camera(Record, frozen=True):
    """The simulated camera.

    Attributes:
        threshold: change of log intensity that makes an event; mismatch: its standard deviation between pixels.
        noise_hz: events per pixel without cause.
        n_hot, hot_hz: pixels that fire all the time, and how often.
        frame_hz: drawn frames per second.
    """

    threshold: float = 0.25
    mismatch: float = 0.04
    noise_hz: float = 0.5
    n_hot: int = 6
    hot_hz: float = 60.0
    frame_hz: int = 200

    def check(self) -> None:
        need(self.threshold > 0, "camera.threshold", self.threshold, "> 0")
        need(0 <= self.mismatch <= self.threshold / 4, "camera.mismatch", self.mismatch, "0..threshold / 4")
        need(0 <= self.noise_hz <= 1000, "camera.noise_hz", self.noise_hz, "0..1000")
        need(0 <= self.n_hot <= math.prod(SENSOR), "camera.n_hot", self.n_hot, "0..all pixels")
        need(0 <= self.hot_hz <= 10_000, "camera.hot_hz", self.hot_hz, "0..10000")
        need(1 <= self.frame_hz <= 10_000, "camera.frame_hz", self.frame_hz, "1..10000")


def synthetic_recording(
    label: int, number: int, *, seed: int = 0, n_ms: int = 1500, camera: Camera | None = None
) -> Events:
    """The events of synthetic recording `number` of a class, in order of time from 0 to n_ms.

    The same (seed, label, number, n_ms, camera) gives the same events.

    Args:
        label: 0..10, the place in `CLASSES`.
        number: 0, 1, ...; speed, phase, place, size, contrast and tilt differ between recordings.
    """
    camera = Camera() if camera is None else camera
    need_kind("camera", camera, Camera)
    label = integer("synthetic_recording.label", label, low=0, high=N_CLASSES - 1)
    number = integer("synthetic_recording.number", number, low=0)
    seed = integer("synthetic_recording.seed", seed, low=0)
    n_ms = integer("synthetic_recording.n_ms", n_ms, low=1)
    rng = np.random.default_rng([seed, STREAM, label, number])
    time_s = np.arange(n_ms * camera.frame_hz // 1000 + 2) / camera.frame_hz
    parts = [part for arm in _arms(label, time_s, rng) for part in _blobs(*arm, rng)]
    signal = list(_fired(parts, len(time_s), camera, rng))
    events = join([*signal, _noise(n_ms, camera, rng)])
    events = events[events["t"] < n_ms * 1000]
    return events[np.argsort(events["t"], kind="stable")]


def _arms(label: int, time_s: NDArray[np.float64], rng: np.random.Generator) -> list[tuple[Path, Path]]:
    """(shoulder, hand) of every arm of a class, with this recording's speed, phase, place, size and tilt."""
    phase = 2 * math.pi * (rng.uniform(0.9, 1.8) * time_s + rng.random())
    size = rng.uniform(0.8, 1.2)
    tilt = rng.normal(0, 0.08)
    place = np.array([64.0, 64.0]) + rng.normal(0, 3, 2)
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]]) * size
    still = np.zeros((len(time_s), 2))
    return [
        (still + place + np.array(shoulder) @ turn, place + hand @ turn)
        for shoulder, hand in MOTIONS[label](phase, rng)
    ]


LEFT, RIGHT = (-18.0, -28.0), (18.0, -28.0)
"""Shoulders, from the middle of the sensor; x to the right, y down."""


def _at(x: NDArray | float, y: NDArray | float, like: NDArray[np.float64]) -> Path:
    return np.stack([np.broadcast_to(x, like.shape), np.broadcast_to(y, like.shape)], axis=1)


def _clap(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
    """Both hands meet and part."""
    apart = 16 + 12 * np.sin(phase)
    return [(LEFT, _at(-apart, 8, phase)), (RIGHT, _at(apart, 8, phase))]


def _wave(side: int) -> Motion:
    """One hand goes from side to side."""

    def motion(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
        return [((side * 18.0, -28.0), _at(side * 26 + 16 * np.sin(phase), -8, phase))]

    return motion


def _circle(side: int, sense: int) -> Motion:
    """One hand goes round; sense 1 is clockwise as seen (y points down)."""

    def motion(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
        return [((side * 18.0, -28.0), _at(side * 26 + 17 * np.cos(phase), 17 * sense * np.sin(phase), phase))]

    return motion


def _roll(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
    """Both hands turn about each other before the chest."""
    x, y = 13 * np.cos(phase), 13 * np.sin(phase)
    return [(LEFT, _at(x, 6 + y, phase)), (RIGHT, _at(-x, 6 - y, phase))]


def _drums(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
    """One hand up while the other is down."""
    return [(LEFT, _at(-24, 8 + 16 * np.sin(phase), phase)), (RIGHT, _at(24, 8 - 16 * np.sin(phase), phase))]


def _strum(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
    """One hand holds still, the other goes along a diagonal."""
    swing = 14 * np.sin(phase)
    return [(LEFT, _at(-34, 0, phase)), (RIGHT, _at(6 + swing, 14 + swing, phase))]


def _jitter(phase: NDArray[np.float64], rng: np.random.Generator) -> Arms:
    """Both hands wander at random."""
    return [(side, _at(side[0], 5, phase) + _wander(len(phase), rng)) for side in (LEFT, RIGHT)]


def _wander(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random path [n, 2] of about 10 pixels: sums of sines of unrelated speeds."""
    speed, phase = rng.uniform(0.03, 0.15, (4, 2)), rng.uniform(0, 2 * math.pi, (4, 2))
    return 6 * np.sin(np.arange(n)[:, None, None] * speed + phase).sum(axis=1)


MOTIONS: tuple[Motion, ...] = (
    _clap,
    _wave(1),
    _wave(-1),
    _circle(1, 1),
    _circle(1, -1),
    _circle(-1, 1),
    _circle(-1, -1),
    _roll,
    _drums,
    _strum,
    _jitter,
)


def _blobs(shoulder: Path, hand: Path, rng: np.random.Generator) -> list[Blob]:
    """The blobs along an arm: four on the arm, bright and dark by turns, then the hand."""
    contrast, radius = rng.uniform(0.8, 1.3), rng.uniform(7, 9)
    along = [(0.3, 6.0, -0.5), (0.5, 6.0, 0.6), (0.68, 6.0, -0.5), (0.85, 6.0, 0.6), (1.0, radius, 1.0)]
    spot = np.array([rng.uniform(-3, 3), rng.uniform(-3, 3)])
    blobs = [(shoulder + (hand - shoulder) * share, r, contrast * height) for share, r, height in along]
    blobs.append((hand + spot, 3.5, -1.2 * contrast))
    return [(np.floor(path * GRID + 0.5) / GRID, r, height) for path, r, height in blobs]


def _profile(centre: NDArray[np.float64], radius: float) -> NDArray[np.float32]:
    """(1 - (u / radius)^2)^2 within the radius, else 0, over the pixels of one axis: [frames, 128]."""
    u = (np.arange(128) - centre[:, None]) / radius
    return np.square(np.maximum(1 - u * u, 0)).astype(np.float32)


def _frames(parts: list[Blob], n: int) -> Iterator[NDArray[np.float32]]:
    """Log intensity of each frame, less the background."""
    down = np.stack([_profile(path[:, 1], r) * np.float32(height) for path, r, height in parts], axis=1)
    across = np.stack([_profile(path[:, 0], r) for path, r, _ in parts], axis=1)
    for f in range(n):
        frame = np.zeros(SENSOR, dtype=np.float32)
        draw(frame, down[f], across[f])
        yield frame


def _fired(parts: list[Blob], n: int, camera: Camera, rng: np.random.Generator) -> Iterator[Events]:
    """The events between each frame and the next."""
    mismatch = camera.mismatch * np.clip(rng.standard_normal((2, *SENSOR), dtype=np.float32), -3, 3)
    threshold = (camera.threshold + mismatch).astype(np.float32).reshape(2, -1)
    frame_us = 1_000_000 / camera.frame_hz
    frames = _frames(parts, n)
    last = next(frames).ravel()
    level = last.copy()  # log intensity at the pixel's last event
    for f, frame in enumerate(frames):
        now = frame.ravel()
        pixel, t, brighter = fire(now, last, level, threshold, f * frame_us, frame_us)
        yield make(pixel % SENSOR[1], pixel // SENSOR[1], t, brighter)
        last = now


def _noise(n_ms: int, camera: Camera, rng: np.random.Generator) -> Events:
    """Events without cause: at any pixel, and many at the hot ones."""
    n_pixels = math.prod(SENSOR)
    anywhere = rng.integers(0, n_pixels, rng.poisson(camera.noise_hz * n_pixels * n_ms / 1000))
    hot = rng.choice(n_pixels, camera.n_hot, replace=False)
    pixel = np.concatenate([anywhere, np.repeat(hot, rng.poisson(camera.hot_hz * n_ms / 1000, camera.n_hot))])
    t = rng.integers(0, n_ms * 1000, len(pixel))
    return make(pixel % SENSOR[1], pixel // SENSOR[1], t, rng.random(len(pixel)) < 0.5)


def synthetic_set(
    n_per_class: int,
    *,
    seed: int = 0,
    first: int = 0,
    bin_ms: float = 10.0,
    n_bins: int = 150,
    to: Sensor = (32, 32),
    binary: bool = True,
    camera: Camera | None = None,
) -> EventSet:
    """Recordings first..first + n_per_class - 1 of every synthetic class, in bins, made one by one.

    Recording i of the set has class i mod 11 and number first + i // 11, whatever n_per_class.
    """
    n_per_class, first = (
        integer(f"synthetic_set.{name}", n, low=0) for name, n in (("n_per_class", n_per_class), ("first", first))
    )
    bin_us, n_bins = microseconds(bin_ms), integer("synthetic_set.n_bins", n_bins, low=1, high=MOST_BINS)
    n_ms = -(-bin_us * n_bins // 1000)

    def binned() -> Iterator[tuple[Binned, int]]:
        for i in range(n_per_class * N_CLASSES):
            number, label = divmod(i, N_CLASSES)
            events = synthetic_recording(label, first + number, seed=seed, n_ms=n_ms, camera=camera)
            yield bin_events(downsample(events, SENSOR, to), to, bin_us, n_bins, binary=binary), label

    return pack(binned(), n_bins, to)


def load(
    *,
    n_train: int = 80,
    n_validation: int = 30,
    n_test: int = 30,
    seed: int = 0,
    bin_ms: float = 10.0,
    n_bins: int | None = None,
    to: Sensor = (32, 32),
    binary: bool = True,
) -> EventDataset:
    """The synthetic data set, so many recordings of each class; splits differ in their numbers, and no recording of
    one is ever in another, whatever their sizes.

    The usual 1,540 take about half a minute; with 330 for validation and 330 for test, one is 0.3 points.

    Args:
        n_bins: None for as many as make 1.5 s.
    """
    n_bins = bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins
    sizes = {"train": n_train, "validation": n_validation, "test": n_test}
    train, validation, test = (
        concatenate(
            synthetic_set(n, seed=seed, first=first, bin_ms=bin_ms, n_bins=n_bins, to=to, binary=binary)
            for first, n in _numbers(part, integer(f"data.n_{part}", size, low=0))
        )
        for part, size in sizes.items()
    )
    return EventDataset(
        name="synthetic_gestures",
        shape=(2, *to),
        n_steps=n_bins,
        bin_ms=bin_ms,
        max_count=largest_count(train, validation, test),
        labels=tuple(f"synthetic {name}" for name in CLASSES),
        train=train,
        validation=validation,
        test=test,
        split_rule=f"synthetic gestures (seed {seed}): of each class {n_train} recordings for training, "
        f"{n_validation} for validation and {n_test} for test, each split from numbers of its own",
    )


def _numbers(part: str, n: int) -> list[tuple[int, int]]:
    """(first number, how many) of the recordings of each class in a split: those of the usual sizes, then far ones."""
    first, usual, far = OWN[part]
    return [(first, min(n, usual)), *([(far, n - usual)] if n > usual else [])]

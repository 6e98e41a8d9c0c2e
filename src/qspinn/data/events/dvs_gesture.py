"""DVS128 Gesture: 11 hand and arm gestures of 29 users before an event camera of 128 x 128 pixels.

A folder holds `trials_to_train.txt` and `trials_to_test.txt` (names of recordings, users 1-23 and 24-29) and, for each
name, `userNN_<light>.aedat` and `userNN_<light>_labels.csv` (class 1..11, start and stop in us).

Source: Amir et al. 2017, "A Low Power, Fully Event-Based Gesture Recognition System". The user downloads it from
https://research.ibm.com/interactive/dvsgesture (it asks for consent), so nothing is downloaded here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from qspinn.arrays import integer, real_of
from qspinn.data.events.aedat import read_aedat
from qspinn.data.events.clock import Remedies
from qspinn.data.events.dataset import EventDataset, largest_count
from qspinn.data.events.event_set import EventSet, pack
from qspinn.data.events.recording import (
    EVENT,
    MOST_BINS,
    Binned,
    Events,
    Sensor,
    bin_events,
    checked,
    crop_time,
    downsample,
)
from qspinn.data.npz import LONGEST_MS
from qspinn.data.paths import exists, path_of
from qspinn.errors import ConfigError, DataError

SENSOR: Sensor = (128, 128)
CLASSES = (
    "hand clap",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other",
)
CSV_HEADER = "class,startTime_usec,endTime_usec"
SLACK_US = 1_000_000
"""A label may start or end this long outside of the events, which can be few in a still scene."""
REMEDIES = Remedies('order="sort" of qspinn.data.events.dvs_gesture.load', "the file is damaged: copy it anew")
N_VALIDATION_USERS = 4
DURATION_MS = 1500

Part: TypeAlias = Literal["train", "test"]
OnError: TypeAlias = Literal["stop", "skip"]


class Gesture(NamedTuple):
    """A row of a label file: class 0..10 and its time [us]."""

    label: int
    start_us: int
    stop_us: int


class Recording(NamedTuple):
    """One gesture.

    Attributes:
        events: in order, with the times of the file.
        gesture: class and time.
        file: name of the .aedat file.
    """

    events: Events
    gesture: Gesture
    file: str


class Skipped(NamedTuple):
    """A file that was left out, and the error that it caused."""

    file: str
    reason: str


class GestureSet(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Binned gestures, the file [B] each is from, and the files left out."""

    events: EventSet
    files: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def gesture_recordings(
    folder: str | Path,
    part: Part,
    *,
    n_ms: int = DURATION_MS,
    on_error: OnError = "stop",
    order: Literal["reject", "sort"] = "reject",
) -> Iterator[Recording | Skipped]:
    """The gestures of a part, file by file in the order of its list, each cut to its first n_ms.

    Held in memory are the gestures of one file at most.

    Args:
        on_error: "stop" raises the first error; "skip" yields a `Skipped` instead of that file's gestures and goes on
            with the next file. A missing list of files always raises.
        order: what to do with events out of order, see `events.check`.

    Raises:
        DataError: a file is missing or damaged, its labels do not fit, or a gesture has no events.
    """
    folder = path_of("gesture_recordings.folder", folder)
    n_ms = integer("gesture_recordings.n_ms", n_ms, low=1)
    for word, value, known in (("on_error", on_error, ("stop", "skip")), ("order", order, ("reject", "sort"))):
        if value not in known:
            raise ConfigError(f"gesture_recordings.{word}", "is unknown", got=value, allowed=", ".join(known))
    for name in trials(folder, part):
        try:
            gestures = _of_file(folder, name, n_ms, order)
        except DataError as error:
            if on_error == "stop":
                raise
            yield Skipped(name, str(error))
            continue
        yield from gestures


def trials(folder: str | Path, part: Part) -> list[str]:
    """Names of the .aedat files of a part.

    Raises:
        DataError: the list is missing, empty, names something else or a recording twice, or one that the list of the
            other part (where there is one) names too.
    """
    if part not in ("train", "test"):
        raise ConfigError("part", "is unknown", got=part, allowed="train, test")
    folder = path_of("trials.folder", folder)
    path, names = _list_of(folder, part)
    other = folder / f"trials_to_{'test' if part == 'train' else 'train'}.txt"
    both = sorted({*names} & {*_lines(other)}) if exists(other) else []
    if both:
        raise DataError(
            str(path),
            f"names recordings that {other.name} names too",
            got=both,
            allowed="one list each",
            fix="take them out of one list: a test on recordings that were learned says nothing",
        )
    return names


def _user(name: str) -> int:
    """Number of the user of a recording."""
    return int(name[4 : name.index("_")])


def _need_other_users(folder: Path) -> None:
    """Refuses lists on which the same user is in both parts: the test is one on users that were not learned."""
    train, test = ({_user(name) for name in trials(folder, part)} for part in ("train", "test"))
    if train & test:
        raise DataError(
            str(folder / "trials_to_test.txt"),
            "names recordings of users of trials_to_train.txt",
            got=sorted(train & test),
            allowed="users in one list each",
            fix="move all recordings of a user into one list",
        )


def _list_of(folder: Path, part: Part) -> tuple[Path, list[str]]:
    """The list of a part, and the names on it."""
    path = folder / f"trials_to_{part}.txt"
    names = _lines(path)
    for name in names or [""]:
        if not re.fullmatch(r"user\d+_\w+\.aedat", name):
            raise DataError(str(path), "does not list recordings", got=name, allowed="userNN_<light>.aedat, one a line")
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise DataError(str(path), "names a recording twice", got=twice, allowed="each once")
    return path, names


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise DataError(
            str(path),
            f"byte {error.start}: is no ASCII text",
            got=error.object[error.start :][:4],
            allowed="ASCII, without a byte order mark",
            fix="save it as plain ASCII text",
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), "is missing or cannot be read", got=str(error)[:200], fix="copy the whole DVS128 Gesture folder"
        ) from None


def labels_of(path: str | Path) -> list[Gesture]:
    """The gestures of a label file in order of their start.

    Raises:
        DataError: names the line that is not `class,start,stop` with class 1..11 and start before stop, in digits; or
            two lines have the same time.
    """
    path = path_of("labels_of.path", path)
    lines = _text(path).splitlines()
    if not lines or lines[0].strip() != CSV_HEADER:
        raise DataError(str(path), "is not a label file", got=lines[0][:60] if lines else "", allowed=CSV_HEADER)
    gestures = [_gesture(line, f"{path}:{i}") for i, line in enumerate(lines[1:], 2) if line.strip()]
    if not gestures:
        raise DataError(str(path), "has no labels", allowed="one line per gesture")
    twice = [time for time, n in Counter((g.start_us, g.stop_us) for g in gestures).items() if n > 1]
    if twice:
        raise DataError(
            str(path),
            "gives the same time to two gestures",
            got=twice,
            allowed="each time once",
            fix="leave one of the lines out",
        )
    return sorted(gestures, key=lambda g: g.start_us)


def _gesture(line: str, where: str) -> Gesture:
    words = [word.strip() for word in line.split(",")]
    if len(words) != 3 or not all(re.fullmatch(r"-?[0-9]{1,18}", word) for word in words):
        raise DataError(where, "is not a label", got=line[:60], allowed=f"{CSV_HEADER}, in digits")
    label, start, stop = map(int, words)
    if not 1 <= label <= len(CLASSES):
        raise DataError(where, "unknown class", got=label, allowed=f"1..{len(CLASSES)}")
    if not 0 <= start < stop:
        raise DataError(where, "gesture ends before it starts", got=(start, stop), allowed="0 <= start < end")
    return Gesture(label - 1, start, stop)


def _of_file(folder: Path, name: str, n_ms: int, order: Literal["reject", "sort"]) -> list[Recording]:
    path = folder / name
    labels = path.with_name(f"{path.stem}_labels.csv")
    gestures = labels_of(labels)
    span: list[int] = []
    stream = _watched(read_aedat(path), span)
    windows = [(g.start_us, min(g.stop_us, g.start_us + n_ms * 1000)) for g in gestures]
    pieces = cut(stream, windows)  # to the end: damage and the last event count too
    if not span:
        raise DataError(str(path), "recording is empty", allowed="one polarity event or more")
    for gesture, events in zip(gestures, pieces, strict=True):
        _check_window(gesture, events, span, path, labels)
    return [
        Recording(checked(events, SENSOR, order, None, f"{path} gesture {i}", REMEDIES), gesture, name)
        for i, (gesture, events) in enumerate(zip(gestures, pieces, strict=True))
    ]


def _watched(blocks: Iterable[Events], span: list[int]) -> Iterator[Events]:
    """The blocks; span becomes [first, last] time."""
    for block in blocks:
        times = int(block["t"].min()), int(block["t"].max())
        span[:] = [min(times[0], *span), max(times[1], *span)] if span else times
        yield block


def _check_window(gesture: Gesture, events: Events, span: list[int], path: Path, labels: Path) -> None:
    if gesture.start_us < span[0] - SLACK_US or gesture.stop_us > span[1] + SLACK_US:
        raise DataError(
            str(labels),
            f"gesture lies outside of {path.name}",
            got=(gesture.start_us, gesture.stop_us),
            allowed=f"{span[0]}..{span[1]} us",
            fix="the label file belongs to another recording, or the recording is cut short",
        )
    if not events.size:
        raise DataError(str(path), "gesture has no events", got=(gesture.start_us, gesture.stop_us))


def cut(blocks: Iterable[Events], windows: Sequence[tuple[int, int]]) -> list[Events]:
    """The events of each window [start_us, stop_us) of a stream of blocks, in the order of the stream.

    The stream is read once, to its end: packets may overlap in time. Held are only the events of the windows.
    """
    pieces: list[list[Events]] = [[np.empty(0, dtype=EVENT)] for _ in windows]
    for block in blocks:
        first, last = (int(block["t"].min()), int(block["t"].max())) if block.size else (0, -1)
        for piece, (start, stop) in zip(pieces, windows, strict=True):
            if first < stop and start <= last:
                piece.append(crop_time(block, start, stop))
    return [np.concatenate(piece) for piece in pieces]


def gesture_set(
    folder: str | Path,
    part: Part,
    *,
    bin_ms: float = 10.0,
    n_bins: int = 150,
    to: Sensor = (32, 32),
    binary: bool = True,
    on_error: OnError = "stop",
    order: Literal["reject", "sort"] = "reject",
) -> GestureSet:
    """The gestures of a part in bins: their first n_bins * bin_ms, on a grid of `to` pixels.

    A gesture that is shorter has empty bins at its end. Recordings are streamed; only the bins are kept.

    Raises:
        DataError: as `gesture_recordings`; or not one file could be read.
    """
    files: list[str] = []
    skipped: list[Skipped] = []
    bin_us, n_bins = microseconds(bin_ms), integer("data.n_bins", n_bins, low=1, high=MOST_BINS)

    def binned() -> Iterator[tuple[Binned, int]]:
        n_ms = -(-bin_us * n_bins // 1000)
        for found in gesture_recordings(folder, part, n_ms=n_ms, on_error=on_error, order=order):
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            files.append(found.file)
            events = downsample(found.events, SENSOR, to)
            yield (
                bin_events(events, to, bin_us, n_bins, start_us=found.gesture.start_us, binary=binary),
                found.gesture.label,
            )

    events = pack(binned(), n_bins, to)
    if not files:
        raise DataError(
            str(folder),
            f"no recording of part {part} could be read",
            got=[s.file for s in skipped],
            fix=skipped[0].reason if skipped else "",
        )
    return GestureSet(events=events, files=tuple(files), skipped=tuple(skipped))


def bins_of(duration_ms: int, bin_ms: float) -> int:
    """Number of bins that hold the duration."""
    duration_ms = integer("bins_of.duration_ms", duration_ms, low=1)
    return -(-duration_ms * 1000 // microseconds(bin_ms))


def microseconds(bin_ms: float) -> int:
    """The length of a bin as a whole number of microseconds, within a millionth of one."""
    length = real_of(bin_ms) * 1000 if 0 < real_of(bin_ms) <= LONGEST_MS else 0.0
    if abs(length - round(length)) > 1e-6 or round(length) < 1:
        raise ConfigError(
            "data.bin_ms",
            "is not a whole number of microseconds",
            got=bin_ms,
            allowed=f"0.001, 0.002, ..., {LONGEST_MS:,}",
        )
    return round(length)


def load(
    folder: str | Path,
    *,
    bin_ms: float = 10.0,
    n_bins: int | None = None,
    to: Sensor = (32, 32),
    binary: bool = True,
    on_error: OnError = "stop",
    order: Literal["reject", "sort"] = "reject",
) -> EventDataset:
    """The data set: the last users of the training list (by number) are the validation split.

    Args:
        n_bins: None for as many as make 1.5 s. The others: see `gesture_set`.
    """
    folder = path_of("data.folder", folder)
    n_bins = bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins
    _need_other_users(folder)
    train, test = (
        gesture_set(folder, part, bin_ms=bin_ms, n_bins=n_bins, to=to, binary=binary, on_error=on_error, order=order)
        for part in ("train", "test")
    )
    users = np.array([_user(name) for name in train.files])
    held_out = np.unique(users)[-N_VALIDATION_USERS:]
    if len(np.unique(users)) <= N_VALIDATION_USERS:
        raise DataError(
            str(folder),
            "too few users for a validation split",
            got=np.unique(users).tolist(),
            allowed=f"over {N_VALIDATION_USERS} users in trials_to_train.txt",
        )
    chosen = np.isin(users, held_out)
    return EventDataset(
        name="dvs_gesture",
        shape=(2, *to),
        n_steps=n_bins,
        bin_ms=bin_ms,
        labels=CLASSES,
        max_count=largest_count(train.events, test.events),
        train=train.events.take(~chosen),
        validation=train.events.take(chosen),
        test=test.events,
        split_rule=f"DVS128 Gesture: the published test users for test; of the training users, "
        f"{', '.join(map(str, held_out))} for validation",
        skipped=tuple(f"{s.file}: {s.reason}" for s in train.skipped + test.skipped),
    )

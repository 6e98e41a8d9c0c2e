"""Spoken digits and commands as spikes of 700 channels of an artificial ear: SHD and SSC. Needs the hdf5 extra.

Each file has `spikes/times` (seconds, an array for each utterance), `spikes/units` (channels), `labels` and, where they
are published, `extra/speaker` and `extra/keys` (names of the classes).

Source: Cramer, Stradmann, Schemmel, Zenke 2020, "The Heidelberg Spiking Data Sets"; https://zenkelab.org/datasets.
Links to other files, storage outside the file and virtual data sets are refused. A damaged file can keep the HDF5
library busy without end, which nothing here can interrupt: copy a file anew that is not read within minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer, integers
from qspinn.data.events.clock import microseconds_of
from qspinn.data.events.dataset import EventDataset, Kept
from qspinn.data.events.dvs_gesture import bins_of, microseconds
from qspinn.data.events.event_set import EventSet
from qspinn.data.events.recording import MOST_BINS
from qspinn.data.events.rows import distinct
from qspinn.data.npz import MOST_PACKED, find, need
from qspinn.data.own.labels import MOST_CLASSES, absences
from qspinn.errors import DataError
from qspinn.optional import module
from qspinn.spikes import index_dtype, offsets_of

CHANNELS = 700
DURATION_MS = 1400
MOST_UTTERANCES = 1 << 20
MOST_SPIKES = 1 << 24
"""Of one utterance; the published ones have some ten thousand."""
COARSE_MS = 1.0
"""Times are published as floats of 16 bits, whose spacing is 0.98 ms beyond one second: shorter steps mean nothing."""


def load_shd(
    folder: str | Path = "", *, bin_ms: float = 10.0, n_bins: int | None = None, allow_shared: bool = False
) -> EventDataset:
    """Spoken digits in German and English, 20 classes; shape (1, 1, 700), binary.

    The file for training has no part for validation: the utterances of its last speaker (by number) validate, so that
    no voice is in both.

    Args:
        folder: where shd_train.h5 and shd_test.h5 are; empty: $QSPINN_DATA.
        n_bins: None for as many as make 1.4 s; spikes after the last bin are dropped.

    Raises:
        ConfigError: h5py is not installed.
        DataError: a file is missing, damaged, refers to other files, or holds other data.
    """
    sizes = microseconds(bin_ms), bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins
    read = {part: _utterances(find(folder, f"shd_{part}.h5"), *sizes, "shd", part) for part in ("train", "test")}
    whole, speakers, test = read["train"].events, read["train"].speakers, read["test"].events
    last = int(speakers.max())
    chosen = speakers == last
    parts = {"train": whole.take(~chosen), "validation": whole.take(chosen), "test": test}
    rule = (
        f"SHD: shd_test.h5 for test; of shd_train.h5, the utterances of speaker {last} for validation, those of "
        f"speakers {', '.join(map(str, np.unique(speakers[~chosen]).tolist()))} for training"
    )
    return _dataset("shd", bin_ms, _same_names(read), parts, [rule, *_notes(read)], allow_shared)


def load_ssc(
    folder: str | Path = "", *, bin_ms: float = 10.0, n_bins: int | None = None, allow_shared: bool = False
) -> EventDataset:
    """Spoken commands in English, 35 classes; shape (1, 1, 700), binary; ssc_train.h5, ssc_valid.h5, ssc_test.h5.

    Args, Raises: as `load_shd`.
    """
    sizes = microseconds(bin_ms), bins_of(DURATION_MS, bin_ms) if n_bins is None else n_bins
    files = {"train": "train", "validation": "valid", "test": "test"}
    read = {part: _utterances(find(folder, f"ssc_{name}.h5"), *sizes, "ssc", part) for part, name in files.items()}
    parts = {part: found.events for part, found in read.items()}
    return _dataset("ssc", bin_ms, _same_names(read), parts, ["SSC: its own three files", *_notes(read)], allow_shared)


def _notes(read: dict[str, Utterances]) -> list[str]:
    """Sentences of a report on the files."""
    return [note for found in read.values() for note in found.notes]


def _same_names(read: dict[str, Utterances]) -> tuple[str, ...]:
    """The names of the classes in the file for training, which the others have, too, if they have any.

    Raises:
        DataError: a file has others than the one before, so that a label would be another class.
    """
    named = [found for found in read.values() if found.names]
    for found in named[1:]:
        if found.names != named[0].names:
            raise DataError(
                f"{found.path}: extra/keys",
                f"names other classes than {named[0].path.name}, or in another order",
                got=list(found.names[:8]),
                allowed=", ".join(named[0].names[:8]),
                fix="copy the published files anew",
            )
    return read["train"].names


def _dataset(
    name: str, bin_ms: float, names: tuple[str, ...], parts: dict[str, EventSet], rules: list[str], allow_shared: bool
) -> EventDataset:
    highest = max(int(events.labels.max(initial=0)) for events in parts.values())
    if not 0 <= highest < MOST_CLASSES:
        raise DataError(f"{name}: labels", "are of too many classes", got=highest + 1, allowed=f"1..{MOST_CLASSES}")
    names = names if len(names) > highest else tuple(str(k) for k in range(highest + 1))
    absent = absences(name, {part: events.labels for part, events in parts.items()}, names)
    return EventDataset(
        name=name,
        shape=parts["train"].shape,
        n_steps=parts["train"].n_steps,
        bin_ms=bin_ms,
        labels=names,
        split_rule="; ".join([*rules, *absent]),
        allow_shared=allow_shared,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


class Utterances(NamedTuple):
    """Content of a file.

    Attributes:
        events: in bins. speakers: of each, where it is needed. names: of the classes; none where the file has none.
        notes: sentences for the report.
    """

    path: Path
    events: EventSet
    speakers: NDArray[np.int64]
    names: tuple[str, ...]
    notes: list[str]


def _utterances(path: Path, bin_us: int, n_bins: int, name: str, part: str) -> Utterances:
    """The utterances of a file in bins."""
    n_bins = integer("data.n_bins", n_bins, low=1, high=MOST_BINS)
    with _opened(path, name) as file:
        labels = integers(f"{path}: labels", _whole(file, "labels", path), shape=(None,), low=0)
        need(labels.size > 0, path, "holds no recordings", 0, "one or more")
        stored = [_dataset_of(file, f"spikes/{kind}", path) for kind in ("times", "units")]
        need(
            all(each.shape == labels.shape for each in stored),
            path,
            "spikes and labels are not of as many utterances",
            [each.shape for each in stored],
            f"{labels.shape}",
        )
        kept = Kept(bin_us, n_bins)
        rows = [_row(path, i, stored[0][i], stored[1][i], bin_us, n_bins, kept) for i in range(len(labels))]
        speakers = labels[:0]
        if (name, part) == ("shd", "train"):
            speakers = integers(f"{path}: extra/speaker", _whole(file, "extra/speaker", path), shape=labels.shape)
        names = _names(file, path)
    sizes = np.array([np.bincount(step, minlength=n_bins) for step, _ in rows])
    events = EventSet(
        offsets=offsets_of(sizes),
        index=np.concatenate([unit for _, unit in rows]).astype(index_dtype(CHANNELS)),
        count=None,
        shape=(1, 1, CHANNELS),
        labels=labels,
    )
    return Utterances(path, events, speakers, names, kept.notes(name, part))


def _row(path: Path, i: int, times: Any, units: Any, bin_us: int, n_bins: int, kept: Kept) -> tuple[NDArray, NDArray]:
    """(bin, channel) of the spikes of an utterance, each once, in order."""
    times, units = np.asarray(times), np.asarray(units)
    where = f"{path}: utterance {i}"
    if times.dtype.kind != "f" or times.ndim != 1 or len(times) > MOST_SPIKES:
        raise DataError(
            f"{where}: times",
            "are no times in seconds",
            got=f"{times.dtype} {times.shape}",
            allowed=f"floats, up to {MOST_SPIKES:,}",
        )
    if times.dtype.itemsize == 2 and bin_us < COARSE_MS * 1000:
        raise DataError(
            "data.bin_ms",
            "is shorter than the times are exact, which are floats of 16 bits",
            got=bin_us / 1000,
            allowed=f"{COARSE_MS:g} ms or more",
        )
    t = microseconds_of(f"{where}: times", times.astype(np.float64), "s")
    channel = integers(f"{where}: units", units, shape=t.shape, low=0, high=CHANNELS - 1)
    if t.size and t.min() < 0:
        raise DataError(f"{where}: times", "hold a negative time", got=float(times.min()), allowed="0 s or later")
    kept.add(t)
    step = t // bin_us
    key, _ = distinct(step[step < n_bins] * CHANNELS + channel[step < n_bins], None)
    return key // CHANNELS, key % CHANNELS


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """The file, open for reading."""
    h5py = module("h5py", f"the data set {name}")
    try:
        file = h5py.File(path, "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from None
    with file:
        try:
            yield file
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, MemoryError) as error:
            raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(str(path), "cannot be read as HDF5", got=str(error)[:200], fix="copy the file anew")


def _dataset_of(file: Any, name: str, path: Path) -> Any:
    """A one-axis data set that lies in the file itself.

    Raises:
        DataError: there is none, it is a link or stored elsewhere, or announces too many entries.
    """
    place = file
    for part in name.split("/"):
        if not callable(getattr(place, "get", None)):
            raise DataError(f"{path}: {name}", "is not in the file", got=f"{place.name}, data", allowed="a group")
        link = place.get(part, getlink=True)  # looked at before anything is followed
        if link is None or type(link).__name__ != "HardLink":
            raise DataError(
                f"{path}: {name}",
                "is not in the file" if link is None else "is a link, perhaps to another file, which is not followed",
                got=None if link is None else type(link).__name__,
                allowed="data in the file itself",
                fix="copy the published file anew",
            )
        place = place[part]
    if getattr(place, "external", None) or getattr(place, "is_virtual", False):
        raise DataError(f"{path}: {name}", "is stored outside the file, which is not followed", allowed="in the file")
    shape = getattr(place, "shape", None)
    if shape is None or len(shape) != 1 or shape[0] > MOST_UTTERANCES:
        raise DataError(
            f"{path}: {name}", "has the wrong shape", got=shape, allowed=f"[N], up to {MOST_UTTERANCES:,} utterances"
        )
    if (size := shape[0] * place.dtype.itemsize) > MOST_PACKED:
        raise DataError(f"{path}: {name}", "is too large", got=f"{size:,} bytes", allowed=f"{MOST_PACKED:,} bytes")
    return place


def _whole(file: Any, name: str, path: Path) -> NDArray:
    return np.asarray(_dataset_of(file, name, path)[:])


def _has_keys(extra: Any) -> bool:
    """Whether a group holds names of classes; what is no group is refused when they are read."""
    return not callable(getattr(extra, "get", None)) or extra.get("keys", getlink=True) is not None


def _names(file: Any, path: Path) -> tuple[str, ...]:
    """The names of the classes, each once; none where the file has none."""
    extra = file.get("extra", getlink=True)
    if extra is None or (type(extra).__name__ == "HardLink" and not _has_keys(file["extra"])):
        return ()
    found = [k.decode() if isinstance(k, bytes) else str(k) for k in _whole(file, "extra/keys", path).tolist()]
    if len(set(found)) < len(found):
        twice = sorted({k for k in found if found.count(k) > 1})
        raise DataError(f"{path}: extra/keys", "name a class twice", got=twice[:8], allowed="each class once")
    return tuple(found)

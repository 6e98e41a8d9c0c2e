"""Events, bins and the compressed store, against plain loops over dense arrays."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from qspinn.data.events.dataset import EventDataset, split_off
from qspinn.data.events.event_set import EventSet, concatenate, from_dense, pack
from qspinn.data.events.recording import (
    EVENT,
    Events,
    bin_events,
    check,
    crop_time,
    distinct,
    downsample,
    flip,
    join,
    make,
    shift,
)
from qspinn.errors import ConfigError, DataError, QSpinnError
from qspinn.spikes import from_dense as spikes_from_dense

SENSOR = (6, 8)
N_BINS, BIN_US = 7, 100


def random_events(n: int = 300, seed: int = 0, span_us: int = 900) -> Events:
    """Sorted events on the small sensor, many at the same place and time."""
    rng = np.random.default_rng([seed, 7])
    return make(
        rng.integers(0, SENSOR[1], n),
        rng.integers(0, SENSOR[0], n),
        np.sort(rng.integers(0, span_us, n)),
        rng.random(n) < 0.4,
    )


def rows(events: Events) -> list[tuple]:
    return [(int(e["x"]), int(e["y"]), int(e["t"]), bool(e["p"])) for e in events]


def counted(recordings: list[Events]) -> np.ndarray:
    """Counts [T, B, 2, H, W], event by event."""
    out = np.zeros((N_BINS, len(recordings), 2, *SENSOR), dtype=np.int64)
    for b, events in enumerate(recordings):
        for x, y, t, p in rows(events):
            if t < N_BINS * BIN_US:
                out[t // BIN_US, b, int(p), y, x] += 1
    return out


RECORDINGS = [random_events(n, seed) for seed, n in enumerate([300, 40, 0, 150, 3])]
LABELS = [3, 1, 0, 1, 2]


def store(binary: bool) -> EventSet:
    binned = (bin_events(e, SENSOR, BIN_US, N_BINS, binary=binary) for e in RECORDINGS)
    return pack(zip(binned, LABELS, strict=True), N_BINS, SENSOR)


def seen(counts: np.ndarray, binary: bool) -> np.ndarray:
    return (counts > 0).astype(np.uint8) if binary else counts.astype(np.uint8)


def ascending(events: EventSet) -> bool:
    """Addresses of each row ascend, each once."""
    return all(
        (np.diff(events.index[a:b].astype(int)) > 0).all()
        for line in events.offsets
        for a, b in itertools.pairwise(line)
    )


# Events


def test_the_form_of_events_is_that_of_tonic() -> None:
    assert EVENT.names == ("x", "y", "t", "p")
    assert [EVENT[name] for name in EVENT.names] == [np.int16, np.int16, np.int64, np.bool_]


def test_good_events_pass_as_they_are() -> None:
    events = random_events()
    assert rows(check(events, SENSOR)) == rows(events)
    assert check(events[:0], SENSOR).dtype == EVENT
    unsigned = np.array([(1, 2, 3, 1)], dtype=[("p", "u1"), ("t", "u4"), ("y", "u2"), ("x", "u2")])
    assert rows(check(unsigned, SENSOR)) == [(1, 3, 2, True)]
    with pytest.raises(DataError, match="fields x, y, t, p"):
        check(np.zeros(3), SENSOR)
    with pytest.raises(DataError, match="fields x, y, t, p"):
        check(np.zeros((2, 2), EVENT), SENSOR)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x", 8, r"rec\.x\[5\]: is outside the sensor \(1 such events\); got 8; allowed: 0\.\.7"),
        ("x", -1, r"rec\.x\[5\].*got -1"),
        ("y", 6, r"rec\.y\[5\].*got 6; allowed: 0\.\.5"),
        ("y", -3, r"rec\.y\[5\]"),
        ("t", 10**6, r"rec\.t\[6\]: events are not in order of time \(1 steps back\).*fix: order=\"sort\""),
        ("t", -1, r"rec\.t\[5\]: timestamps wrapped around: a time is negative; got -1"),
        ("t", 1 << 40, r"rec\.t\[6\]: timestamps wrapped around"),
    ],
)
def test_the_first_bad_event_is_named(field: str, value: int, message: str) -> None:
    events = random_events()
    events[field][5] = value
    with pytest.raises(DataError, match=message):
        check(events, SENSOR, where="rec")
    if "not in order" not in message:
        with pytest.raises(DataError, match=message):
            check(events, SENSOR, where="rec", order="sort")


def test_polarity_is_zero_or_one() -> None:
    events = random_events(4).astype([("x", "i4"), ("y", "i4"), ("t", "i8"), ("p", "i1")])
    events["p"][2] = -1
    with pytest.raises(DataError, match=r"p\[2\]: is no polarity \(1 such events\); got -1; allowed: 0, 1, or -1, 1"):
        check(events, SENSOR)


def test_disorder_is_sorted_when_asked_and_ties_keep_their_order() -> None:
    events = random_events(200, span_us=50)
    shuffled = events[np.random.default_rng(1).permutation(200)]
    assert rows(check(shuffled, SENSOR, order="sort")) == sorted(rows(shuffled), key=lambda e: e[2])


def test_crop_time_keeps_times() -> None:
    events = random_events()
    assert rows(crop_time(events, 100, 250)) == [e for e in rows(events) if 100 <= e[2] < 250]


def test_downsample_flip_and_shift() -> None:
    events, (height, width) = random_events(), SENSOR
    assert rows(downsample(events, SENSOR, (3, 2))) == [(x // 4, y // 2, t, p) for x, y, t, p in rows(events)]
    assert rows(flip(events, SENSOR)) == [(width - 1 - x, y, t, p) for x, y, t, p in rows(events)]
    moved = [(x + 3, y - 2, t, p) for x, y, t, p in rows(events)]
    assert rows(shift(events, SENSOR, 3, -2)) == [e for e in moved if 0 <= e[0] < width and 0 <= e[1] < height]
    for to in ((4, 8), (6, 3), (0, 8), (12, 8)):
        with pytest.raises(ConfigError, match=r"downsample\.to"):
            downsample(events, SENSOR, to)


@pytest.mark.parametrize("start", [0, 130, 5000])
def test_bins_count_events(start: int) -> None:
    events = random_events()
    expected: Counter = Counter()
    for x, y, t, p in rows(events):
        if 0 <= (t - start) // BIN_US < N_BINS:
            expected[(t - start) // BIN_US, int(p) * 48 + y * 8 + x] += 1
    step, address, counts = bin_events(events, SENSOR, BIN_US, N_BINS, start_us=start, binary=False)
    assert counts is not None
    assert list(zip(step.tolist(), address.tolist(), strict=True)) == sorted(expected)
    assert counts.tolist() == [expected[key] for key in sorted(expected)]
    again = bin_events(events[::-1], SENSOR, BIN_US, N_BINS, start_us=start)
    assert again.counts is None
    np.testing.assert_array_equal(again.bin, step)
    np.testing.assert_array_equal(again.address, address)


def test_bins_are_checked() -> None:
    for bad in ((0, 5), (100, 0)):
        with pytest.raises(ConfigError, match=r"bin_events\.(bin_us|n_bins): is out of range; got 0; allowed: 1\.\."):
            bin_events(random_events(), SENSOR, *bad)
    for bad_sensor in ((6, 7), (5, 8)):  # an address beyond would be another pixel's
        with pytest.raises(DataError, match="outside the sensor"):
            bin_events(random_events(), bad_sensor, 100, 5)


def test_distinct_keys_and_their_sums() -> None:
    key, counts = np.array([5, 0, 5, 2, 0, 0]), np.array([1, 2, 3, 250, 5, 6], np.uint8)
    assert distinct(key, counts)[0].tolist() == [0, 2, 5]
    assert distinct(key, counts)[1].tolist() == [13, 250, 4]
    assert distinct(key, None)[0].tolist() == [0, 2, 5]
    assert distinct(key[:0], counts[:0])[1].tolist() == []


# The store


@pytest.mark.parametrize("binary", [True, False])
def test_the_store_holds_the_bins(binary: bool) -> None:
    events = store(binary)
    expected = seen(counted(RECORDINGS), binary)
    np.testing.assert_array_equal(events.dense(), expected)
    assert (events.n_samples, events.n_steps, events.n, events.shape) == (5, N_BINS, 96, (2, *SENSOR))
    assert events.n_events == np.count_nonzero(expected)
    assert events.labels.tolist() == LABELS
    assert events.index.dtype == np.uint16
    assert (events.count is None) == binary
    spikes = events.spikes()
    np.testing.assert_array_equal(spikes.dense(), (expected > 0).reshape(N_BINS, 5, -1))
    np.testing.assert_array_equal(spikes.offsets, spikes_from_dense(spikes.dense()).offsets)
    np.testing.assert_array_equal(events.spikes(1, 4).dense(), spikes.dense()[:, 1:4])
    assert spikes.index is events.index


VIEWS = {"all": slice(0, None), "part": slice(1, 4), "none": slice(2, 2)}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("binary", [True, False])
def test_augmentation_and_merging_against_dense_loops(binary: bool, view: str) -> None:
    part = VIEWS[view]
    counts, events = counted(RECORDINGS)[:, part], store(binary).slice(part.start, part.stop)
    n = events.n_samples
    rng = np.random.default_rng(4)
    dx, dy, mirrored = rng.integers(-3, 4, n), rng.integers(-3, 4, n), rng.random(n) < 0.5
    moved, flipped = np.zeros_like(counts), counts.copy()
    for b in range(n):
        for y in range(SENSOR[0]):
            for x in range(SENSOR[1]):
                if 0 <= y + dy[b] < SENSOR[0] and 0 <= x + dx[b] < SENSOR[1]:
                    moved[:, b, :, y + dy[b], x + dx[b]] = counts[:, b, :, y, x]
        if mirrored[b]:
            flipped[:, b] = counts[:, b, ..., ::-1]
    coarse = np.zeros((N_BINS, n, 2, 3, 4), dtype=np.int64)
    for y in range(SENSOR[0]):
        for x in range(SENSOR[1]):
            coarse[..., y // 2, x // 2] += counts[..., y, x]
    merged = np.zeros((3, n, 2, *SENSOR), dtype=np.int64)
    for t in range(N_BINS):
        merged[t // 3] += counts[t]
    for got, expected in (
        (events.shifted(dx, dy), moved),
        (events.flipped(mirrored), flipped),
        (events.flipped(), counts[..., ::-1]),
        (events.shifted(0, 0), counts),
        (events.downsampled(2), coarse),
        (events.rebinned(3), merged),
        (events.rebinned(1), counts),
    ):
        np.testing.assert_array_equal(got.dense(), seen(expected, binary))
        np.testing.assert_array_equal(got.labels, events.labels)
        assert ascending(got)
        assert got.index.dtype == np.uint16


@pytest.mark.parametrize("binary", [True, False])
def test_recordings_are_taken_joined_and_sliced(binary: bool) -> None:
    events, dense = store(binary), store(binary).dense()
    for which in ([3, 0, 0, 4], np.array([True, False, True, True, False]), [], np.array([2])):
        got = events.slice(0, 5).take(np.asarray(which, dtype=None if len(which) else int))
        np.testing.assert_array_equal(got.dense(), dense[:, np.asarray(which, dtype=None if len(which) else int)])
        assert len(got.index) == got.n_events
    part = events.slice(1, 4)
    assert part.index is events.index
    assert part.n_events == np.count_nonzero(dense[:, 1:4])
    np.testing.assert_array_equal(part.compact().dense(), dense[:, 1:4])
    assert len(part.compact().index) == part.n_events
    joined = concatenate([part, events, part.slice(0, 1)])
    np.testing.assert_array_equal(joined.dense(), np.concatenate([dense[:, 1:4], dense, dense[:, 1:2]], axis=1))
    assert joined.labels.tolist() == [1, 0, 1, *LABELS, 1]
    with pytest.raises(DataError, match="do not belong together"):
        concatenate([events, events.rebinned(2)])
    with pytest.raises(DataError, match="do not belong together"):
        concatenate([store(True), store(False)])


def test_a_raster_becomes_a_store() -> None:
    raster = np.random.default_rng(0).integers(0, 3, (4, 5, 3, 2, 2))
    events = from_dense(raster, [0, 1, 2, 3], order="BT")
    np.testing.assert_array_equal(events.dense(), np.swapaxes(raster, 0, 1))
    same = from_dense(events.dense(), [0, 1, 2, 3], order="TB")
    spikes = spikes_from_dense(events.dense().reshape(5, 4, 12), graded=True)
    np.testing.assert_array_equal(same.graded().dense(), spikes.dense())
    with pytest.raises(DataError, match="wrong shape"):
        from_dense(raster[0], [0], order="BT")


def test_large_sensors_need_wider_addresses() -> None:
    corner = make(np.array([255]), np.array([255]), np.array([3]), np.array([True]))
    events = pack([(bin_events(corner, (256, 256), 10, 2), 0)], 2, (256, 256))
    assert events.index.dtype == np.uint32
    assert events.index.tolist() == [2 * 65536 - 1]
    assert events.downsampled(4).index.tolist() == [2 * 4096 - 1]


def test_counts_that_do_not_fit_are_refused() -> None:
    many = make(*(np.zeros(n, int) for n in (300, 300, 300, 300)))
    with pytest.raises(DataError, match=r"too many events fall together; got 300; allowed: 0\.\.255"):
        pack([(bin_events(many, SENSOR, 100, 2, binary=False), 0)], 2, SENSOR)
    half = join([many[:200], make(many["x"][:200], many["y"][:200], many["t"][:200] + 100, many["p"][:200])])
    events = pack([(bin_events(half, SENSOR, 100, 2, binary=False), 0)], 2, SENSOR)
    with pytest.raises(DataError, match="got 400"):
        events.rebinned(2)
    mixed = [(bin_events(half, SENSOR, 100, 2, binary=b), 0) for b in (True, False)]
    with pytest.raises(DataError, match="some recordings have counts, some not"):
        pack(mixed, 2, SENSOR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.zeros(3, np.int64)}, "wrong shape"),
        ({"labels": np.zeros(4, np.int64)}, "labels: do not match"),
        ({"count": np.ones(3, np.uint8)}, "count: wrong shape"),
        ({"offsets": -np.ones((5, 8), np.int64)}, "do not follow"),
        ({"offsets": np.arange(40).reshape(5, 8)}, "do not follow"),
        ({"index": np.zeros(0, np.uint16)}, "do not follow"),
    ],
)
def test_stores_are_checked(change: dict, message: str) -> None:
    events = store(True)
    fields = {name: getattr(events, name) for name in events.__struct_fields__}
    with pytest.raises(DataError, match=message):
        EventSet(**(fields | change))


def test_factors_are_checked() -> None:
    for method, factor in (("rebinned", 0), ("downsampled", 4), ("downsampled", 0)):
        with pytest.raises(ConfigError, match=f"{method}.factor"):
            getattr(store(True), method)(factor)


# Data sets


def dataset(**change: object) -> EventDataset:
    events = store(True)
    fields: dict = {
        "name": "small",
        "shape": (2, *SENSOR),
        "n_steps": N_BINS,
        "bin_ms": 0.1,
        "train": events,
        "validation": events.slice(0, 1),
        "test": events.slice(1, 3),
        "labels": tuple("abcd"),
        "split_rule": "none",
        "allow_shared": True,
        "max_count": 9,
    }
    return EventDataset(**(fields | change))


def test_the_checksum_covers_the_content() -> None:
    events = store(True)
    same, sums = dataset(validation=events.take([0])), [dataset().checksum()]
    assert same.checksum() == sums[0]
    for change in (
        {"bin_ms": 0.2},
        {"validation": events.slice(1, 2)},
        {"test": events.slice(1, 4)},
        {"train": events.shifted(1, 0)},
        {"train": store(False)},
        {
            "train": EventSet(
                offsets=events.offsets,
                index=events.index,
                count=None,
                shape=events.shape,
                labels=events.labels[[0, 1, 2, 4, 3]],
            )
        },
    ):
        sums.append(dataset(**change).checksum())
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": store(True).slice(0, 4)}, r"small\.train: holds no recording of some classes; got \['c'\]"),
        ({"labels": tuple("abc")}, r"small\.train\.labels: unknown class"),
        ({"test": store(True).rebinned(2)}, r"small\.test: wrong shape"),
        ({"validation": store(True).downsampled(2)}, r"small\.validation: wrong shape"),
    ],
)
def test_data_sets_are_checked(change: dict, message: str) -> None:
    with pytest.raises(QSpinnError, match=message):
        dataset(**change)


def test_split_off_takes_the_same_share_of_every_class() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 2, 2, 2])
    assert np.flatnonzero(split_off(labels, 1)).tolist() == [6, 7, 10]
    assert np.flatnonzero(split_off(labels, fraction=0.5)).tolist() == [4, 5, 6, 7, 9, 10]
    assert not split_off(labels, 0).any()
    drawn = split_off(labels, fraction=0.5, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(drawn, split_off(labels, fraction=0.5, seed=1))
    assert any((split_off(labels, 1, seed=s) != split_off(labels, 1)).any() for s in range(3))
    with pytest.raises(DataError, match="class 2 has too few recordings to split off 3"):
        split_off(labels, 3)

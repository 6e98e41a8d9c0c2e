"""Whatever strangers pass as spikes, events, recordings, images or labels is answered or refused by name.

Never another exception, never a changed input; and what is accepted is consistent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostile
from hostile import answered, arrays, events, scalars
from qspinn import arrays as borders
from qspinn.data import Dataset, EventDataset, Split
from qspinn.data.events import recording as ev
from qspinn.data.events.aedat import read_aedat, write_aedat
from qspinn.data.events.dataset import some_of_each, split_off
from qspinn.data.events.dvs_gesture import microseconds
from qspinn.data.events.event_set import EventSet, concatenate, from_dense, pack
from qspinn.data.events.nmnist import read_packed
from qspinn.data.images.encoders import poisson, poisson_reference
from qspinn.errors import QSpinnError
from qspinn.program.ops import PoissonOp
from qspinn.spikes import Spikes
from qspinn.spikes import from_dense as spikes_from_dense

MANY = settings(max_examples=150)
SENSOR = st.one_of(st.just((3, 4)), st.just((3, 4)), st.tuples(scalars(), scalars()), scalars())
OP = PoissonOp(per_level=2**31 // 255, seed=7)


def accepted(x: Any) -> bool:
    return not isinstance(x, QSpinnError)


def consistent(spikes: Spikes) -> None:
    """Nobody can write to the arrays, and the raster is what the rows say."""
    assert not any(a.flags.writeable for a in (spikes.offsets, spikes.index, spikes.count) if a is not None)
    if spikes.n < 100:
        total = (
            spikes.n_events
            if spikes.count is None
            else int(spikes.count[spikes.offsets[0, 0] : spikes.offsets[-1, -1]].sum())
            if spikes.n_samples
            else 0
        )
        assert spikes.dense().sum() == total
        back = spikes_from_dense(spikes.dense(), graded=True)
        np.testing.assert_array_equal(back.dense(), spikes.dense())


# Arrays


@MANY
@given(arrays(), st.sampled_from([None, (None,), (2, None)]), st.booleans())
def test_borders_of_arrays(x: Any, shape: Any, floats: bool) -> None:
    for result in (
        answered(borders.integers, "x", x, shape=shape, whole_floats=floats),
        answered(borders.integers, "x", x, low=0, high=255),
        answered(borders.reals, "x", x, shape=shape),
        answered(borders.whole, "x", x, whole_floats=floats),
        answered(borders.booleans, "x", x),
        answered(borders.sealed, "x", x, np.uint8, low=0, high=255),
    ):
        if accepted(result):
            assert result.dtype.isnative
            assert result.shape == np.shape(x)
            assert (np.asarray(x) == result).all()


@given(scalars())
def test_borders_of_single_integers(x: Any) -> None:
    result = answered(borders.integer, "x", x, low=0, high=100)
    assert not accepted(result) or (type(result) is int and result == x and not isinstance(x, bool))


# Spikes

OFFSETS = st.one_of(
    arrays(n_dims=(1, 2)),
    st.sampled_from(
        [
            np.array([[0, 2, 3]]),
            np.array([[0, 1], [1, 3]]),
            np.array([[0, 3, 1]]),
            np.array([[-1, 3]]),
            np.array([[0, 2**40]]),
            np.array([[0, 1], [2, 3]]),
            np.array([[0, 1.0]]),
            np.zeros((0, 3), int),
            np.array([[0], [1]]),
        ]
    ),
)
INDEX = st.one_of(
    arrays(n_dims=(1, 2)),
    st.sampled_from(
        [np.array([0, 1, 3], np.uint16), np.array([1, 0, 2]), np.array([0, 0, 1]), np.array([0, 1, 70_000])]
    ),
)


@MANY
@given(OFFSETS, INDEX, st.one_of(st.just(4), scalars()), st.one_of(st.none(), arrays(n_dims=(1,)), st.just([1, 2, 3])))
def test_spikes(offsets: Any, index: Any, n: Any, count: Any) -> None:
    spikes = answered(Spikes, offsets=offsets, index=index, n=n, count=count)
    if accepted(spikes):
        consistent(spikes)


@MANY
@given(arrays(n_dims=(2, 3, 3, 3)), st.booleans())
def test_spikes_of_rasters(raster: Any, graded: bool) -> None:
    spikes = answered(spikes_from_dense, raster, graded=graded)
    if accepted(spikes):
        consistent(spikes)
        np.testing.assert_array_equal(spikes.dense(), np.asarray(raster).astype(np.int64))


@MANY
@given(arrays(n_dims=(0, 1, 2)), scalars(), scalars())
def test_parts_of_spikes(kept: Any, start: Any, stop: Any) -> None:
    spikes = spikes_from_dense(np.random.default_rng(0).random((3, 4, 3)) < 0.5)
    for result in (answered(spikes.select, kept), answered(spikes.slice, start, stop)):
        if accepted(result):
            consistent(result)
    batches = answered(spikes.batches, start)
    assert not accepted(batches) or sum(b.n_samples for b in batches) == 4


# Recordings


def recordings(counts: bool = False) -> EventSet:
    raster = np.random.default_rng(1).integers(0, 4 if counts else 2, (3, 4, 1, 2, 3))
    return from_dense(raster, [0, 1, 0, 1], order="TB")


def whole(events_of: Any) -> None:
    """The arrays of a store fit each other."""
    if accepted(events_of):
        again = EventSet(
            offsets=events_of.offsets,
            index=events_of.index,
            count=events_of.count,
            shape=events_of.shape,
            labels=events_of.labels,
        )
        np.testing.assert_array_equal(again.index, events_of.index)
        np.testing.assert_array_equal(again.labels, events_of.labels)
        consistent(events_of.graded())


@MANY
@given(
    OFFSETS,
    INDEX,
    st.one_of(st.none(), arrays(n_dims=(1,))),
    st.one_of(st.just((1, 2, 2)), st.tuples(scalars(), scalars(), scalars()), scalars()),
    st.one_of(arrays(), st.just([0])),
)
def test_event_sets(offsets: Any, index: Any, count: Any, shape: Any, labels: Any) -> None:
    whole(answered(EventSet, offsets=offsets, index=index, count=count, shape=shape, labels=labels))


@MANY
@given(
    arrays(n_dims=(4, 5, 5, 5), sides=(0, 1, 2)),
    st.one_of(arrays(n_dims=(0, 1)), st.just([0]), st.just([0, 1])),
    st.sampled_from(["TB", "BT", "tb", 3]),
)
def test_event_sets_of_rasters(raster: Any, labels: Any, order: Any) -> None:
    events_of = answered(from_dense, raster, labels, order=order)
    whole(events_of)
    if accepted(events_of):
        expected = np.asarray(raster).astype(np.int64)
        np.testing.assert_array_equal(events_of.dense(), expected if order == "TB" else np.swapaxes(expected, 0, 1))


@MANY
@given(
    st.booleans(),
    st.one_of(arrays(n_dims=(0, 1, 1, 2)), arrays(shape=(4,)), scalars()),
    st.one_of(arrays(n_dims=(0, 1)), scalars()),
)
def test_operations_on_event_sets(counts: bool, first: Any, second: Any) -> None:
    of = recordings(counts)
    before = of.dense()
    for result in (
        answered(of.take, first),
        answered(of.shifted, first, second),
        answered(of.flipped, first),
        answered(of.delayed, first),
        answered(of.jittered, first),
        answered(of.thinned, first),
        answered(of.rebinned, second),
        answered(of.downsampled, second),
        answered(of.slice, second, None),
        answered(some_of_each, of, second),
    ):
        whole(result)
    n = of.n_events
    whole(answered(of.jittered, np.resize(np.asarray(first, dtype=object), n)))
    np.testing.assert_array_equal(of.dense(), before)


@MANY
@given(
    arrays(n_dims=(1,)),
    st.one_of(arrays(n_dims=(1,)), st.just(np.array([0, 3]))),
    st.one_of(st.none(), arrays(n_dims=(1,))),
    scalars(),
    scalars(),
    SENSOR,
)
def test_packed_recordings(step: Any, address: Any, counts: Any, label: Any, n_bins: Any, sensor: Any) -> None:
    good = ev.Binned(np.array([0, 1]), np.array([2, 0]), None)
    whole(answered(pack, [(ev.Binned(step, address, counts), label)], n_bins, sensor))
    whole(answered(pack, [(good, label)], 2, sensor))
    whole(answered(pack, [(good, 0), (ev.Binned(step, address, counts), 1)], 2, (3, 4)))


def test_no_sets_to_join() -> None:
    assert not accepted(answered(concatenate, []))
    whole(concatenate([recordings().slice(0, 0)]))


# Events


@MANY
@given(
    *[st.one_of(arrays(n_dims=(0, 1, 1, 2)), arrays(shape=(3,))) for _ in range(4)],
    st.sampled_from([None, "us", "ms", "s", "h"]),
)
def test_events_from_columns(x: Any, y: Any, t: Any, p: Any, unit: Any) -> None:
    for columns in ((x, y, t, p), (x, [0, 1, 2], [3, 4, 5], [0, 1, 0]), ([0, 1, 2], [0, 1, 2], t, p)):
        made = answered(ev.make, *columns, time_unit=unit)
        if accepted(made):
            assert made.dtype == ev.EVENT
            np.testing.assert_array_equal(made["x"].astype(int), np.asarray(columns[0]).astype(int))


@settings(max_examples=250)
@given(
    st.one_of(events(), events(), arrays()),
    SENSOR,
    scalars(),
    scalars(),
    st.sampled_from(["reject", "sort", "unwrap", "up"]),
    st.sampled_from([None, None, "us", "s"]),
)
def test_functions_on_events(given_events: Any, sensor: Any, a: Any, b: Any, order: Any, unit: Any) -> None:
    checked = answered(ev.check, given_events, sensor, order=order, time_unit=unit)
    for result in (
        checked,
        answered(ev.join, [given_events]),
        answered(ev.crop_time, given_events, a, b),
        answered(ev.downsample, given_events, sensor, (1, 2)),
        answered(ev.flip, given_events, sensor),
        answered(ev.downsample, given_events, (3, 4), sensor),
        answered(ev.shift, given_events, sensor, a, b),
    ):
        assert not accepted(result) or result.dtype == ev.EVENT
    if accepted(checked) and checked.size:
        assert (np.diff(checked["t"]) >= 0).all()
    binned = answered(ev.bin_events, given_events, sensor, a, b, binary=False)
    if accepted(binned):
        assert binned.counts.sum() <= len(given_events)
        whole(answered(pack, [(binned, 0)], b, sensor))


@settings(max_examples=60)
@given(st.one_of(events(), arrays(n_dims=(1,))), scalars(), st.one_of(scalars(), st.text(max_size=3)))
def test_written_events(tmp_path_factory: pytest.TempPathFactory, given_events: Any, size: Any, source: Any) -> None:
    folder = tmp_path_factory.mktemp("written")
    for named in ({"packet_events": size}, {"source": source}, {}):
        if accepted(answered(write_aedat, folder / "a.aedat", given_events, **named)):
            back = ev.join(read_aedat(folder / "a.aedat"))
            np.testing.assert_array_equal(back["t"], np.asarray(given_events["t"]).astype(int))
        else:
            assert not list(folder.iterdir())
        (folder / "a.aedat").unlink(missing_ok=True)


# Images, labels, files


@MANY
@given(
    st.one_of(arrays(n_dims=(1, 2, 3)), st.just(np.zeros((2, 4), np.uint8))),
    arrays(n_dims=(0, 1)),
    scalars(),
    st.one_of(st.just((2, 2)), scalars(), st.tuples(scalars(), scalars())),
)
def test_images_and_labels(images: Any, labels: Any, first: Any, shape: Any) -> None:
    split = answered(Split, images=images, labels=labels, first=first)
    answered(Split, images=images, labels=[0] * len(images) if np.ndim(images) else [], first=0)
    if accepted(split):
        assert not split.images.flags.writeable
        answered(
            Dataset, name="d", shape=shape, labels=("a", "b"), train=split, validation=split, test=split, split_rule=""
        )
    for encoder in (poisson, poisson_reference):
        answered(encoder, images, OP, 3)
        answered(encoder, np.full((1, 2), 200, np.uint8), OP, first, first_sample=first)


@given(arrays(n_dims=(0, 1)), scalars(), scalars(), scalars())
def test_shares_of_labels(labels: Any, n: Any, fraction: Any, seed: Any) -> None:
    answered(split_off, labels, n)
    answered(split_off, labels, fraction=fraction, seed=seed)
    answered(split_off, [0, 1, 0, 1], n, fraction=fraction, seed=seed)
    answered(microseconds, n)


@given(scalars(), scalars(), scalars(), scalars())
def test_sizes_of_data_sets(n_steps: Any, bin_ms: Any, max_count: Any, allow: Any) -> None:
    of = recordings()
    fields = {
        "name": "d",
        "shape": of.shape,
        "n_steps": 3,
        "bin_ms": 1.0,
        "labels": ("a", "b"),
        "train": of,
        "validation": of.slice(0, 0),
        "test": of.slice(0, 0),
        "split_rule": "",
    }
    for change in (
        {"n_steps": n_steps},
        {"bin_ms": bin_ms},
        {"max_count": max_count},
        {"shape": bin_ms},
        {"allow_shared": allow},
        {"per_step": max_count},
    ):
        answered(EventDataset, **(fields | change))


@settings(max_examples=80)
@given(st.sampled_from(["delta", "offsets", "n_bins", "label"]), arrays(n_dims=(0, 1, 1, 2)))
def test_packed_files(tmp_path_factory: pytest.TempPathFactory, name: str, x: Any) -> None:
    fields: dict[str, Any] = {
        "delta": np.array([5, 10, 3]),
        "offsets": np.array([0, 2, 3]),
        "n_bins": np.array([3, 4]),
        "label": np.array([0, 1]),
    }
    path = Path(tmp_path_factory.mktemp("packed")) / "p.npz"
    np.savez(path, **(fields | {name: np.asarray(x)}))
    result = answered(read_packed, path)
    whole(result)
    assert accepted(result) or str(path) in str(result)


def test_the_strategies_reach_both_ends() -> None:
    """Rasters of every type that has whole numbers are accepted where they hold zeros and ones, and refused else."""
    for dtype in hostile.DTYPES:
        tame = np.array([0, 1, 1, 0]).astype("i8").astype(dtype).reshape(2, 1, 2)
        assert accepted(answered(spikes_from_dense, tame)) == (np.dtype(dtype).kind in "biuf"), dtype
        wild = hostile.values(np.random.default_rng(1), (40, 2, 2), dtype, False)
        assert accepted(answered(spikes_from_dense, wild)) == (dtype == "bool"), dtype

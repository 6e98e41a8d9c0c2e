"""The compiled Poisson encoder against its definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from qspinn.data.images.encoders import INPUT_STREAM, poisson, poisson_reference
from qspinn.errors import ConfigError, DataError
from qspinn.fixedpoint import random_words, stream_key
from qspinn.program.ops import POISSON_BOUNDS, PoissonOp

OP = PoissonOp(per_level=int(0.2 / 255 * 2**32), seed=7)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 20)).astype(np.uint8)


@pytest.mark.parametrize("first", [0, 12_345])
@pytest.mark.parametrize("per_level", [1, OP.per_level, (2**32 - 1) // 255])
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_equals_the_definition(first: int, per_level: int, seed: int) -> None:
    op = PoissonOp(per_level=per_level, seed=seed)
    spikes = poisson(IMAGES, op, 15, first_sample=first)
    np.testing.assert_array_equal(spikes.dense(), poisson_reference(IMAGES, op, 15, first_sample=first))
    assert all(
        np.all(np.diff(spikes.index[a:b].astype(int)) > 0) for row in spikes.offsets for a, b in itertools.pairwise(row)
    )


def test_a_word_equal_to_the_level_is_no_spike() -> None:
    image = np.array([[0, 0, 1]], dtype=np.uint8)
    words = ((i, int(random_words(stream_key(7, INPUT_STREAM + i, 0), [2])[0])) for i in itertools.count())
    sample, word = next((i, word) for i, word in words if 0 < word < POISSON_BOUNDS["per_level"][1])
    for per_level, n_events in ((word, 0), (word + 1, 1)):
        assert poisson(image, PoissonOp(per_level=per_level, seed=7), 1, first_sample=sample).n_events == n_events


@pytest.mark.parametrize("encode", [poisson, poisson_reference])
@pytest.mark.parametrize(
    ("op", "field"),
    [
        (PoissonOp(per_level=(1 << 32) // 255 + 1, seed=0), "per_level"),
        (PoissonOp(per_level=0, seed=0), "per_level"),
        (PoissonOp(per_level=-5, seed=0), "per_level"),
        (PoissonOp(per_level=9, seed=-1), "seed"),
        (None, ""),
    ],
)
def test_operations_that_no_program_may_have(encode: Callable, op: PoissonOp | None, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"op\.{field}: is out of range" if op else "op: is of the wrong type"):
        encode(IMAGES, op, 3)


@pytest.mark.parametrize("n_threads", [1, 2, 4, 30])
def test_threads_change_nothing(n_threads: int) -> None:
    spikes = poisson(IMAGES, OP, 15, n_threads=n_threads)
    np.testing.assert_array_equal(spikes.dense(), poisson_reference(IMAGES, OP, 15))


def test_samples_do_not_depend_on_their_batch() -> None:
    whole = poisson(IMAGES, OP, 15).dense()
    for s in range(9):
        np.testing.assert_array_equal(poisson(IMAGES[s : s + 1], OP, 15, first_sample=s).dense()[:, 0], whole[:, s])
    np.testing.assert_array_equal(poisson(IMAGES, OP, 9).dense(), whole[:9])


def test_rates_are_the_declared_probabilities() -> None:
    image = np.array([[0, 51, 255]], dtype=np.uint8)
    rate = poisson(image, OP, 30_000).dense().mean(axis=(0, 1))
    for got, p in zip(rate, (0.0, 0.04, 0.2), strict=True):
        assert abs(got - p) <= 4 * math.sqrt(p * (1 - p) / 30_000)


def test_neighbours_are_independent() -> None:
    raster = poisson(np.full((2, 2), 255, np.uint8), PoissonOp(per_level=2**31 // 255, seed=1), 20_000).dense()
    flat = raster.transpose(1, 2, 0).reshape(4, -1).astype(float)
    correlation = np.corrcoef(np.concatenate([flat, flat[:, ::-1]])) - np.eye(8)
    assert np.abs(correlation).max() < 0.035
    assert abs(np.corrcoef(flat[0, :-1], flat[0, 1:])[0, 1]) < 0.035


def test_dark_and_no_images() -> None:
    assert poisson(np.zeros((3, 4), np.uint8), OP, 5).n_events == 0
    empty = poisson(np.zeros((0, 4), np.uint8), OP, 5)
    assert (empty.n_samples, empty.n_steps, empty.n) == (0, 5, 4)


def test_wrong_images_are_refused() -> None:
    for bad in (IMAGES.astype(float), IMAGES.ravel(), IMAGES.tolist(), IMAGES[:, :0], IMAGES.astype(bool), None):
        for encoder in (poisson, poisson_reference):
            with pytest.raises(DataError, match=r"images: (wrong shape or type|is no)"):
                encoder(bad, OP, 5)


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": 2.5}, "n_steps"),
        ({"first_sample": -1}, "first"),
        ({"first_sample": 2**32}, "first"),
        ({"first_sample": "0"}, "first_sample"),
    ],
)
def test_wrong_numbers_are_refused(named: dict, field: str) -> None:
    for encoder in (poisson, poisson_reference):
        with pytest.raises(DataError, match=rf"poisson\.{field}"):
            encoder(IMAGES, OP, **({"n_steps": 5} | named))

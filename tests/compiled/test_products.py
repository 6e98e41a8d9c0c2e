"""Vector intrinsics of integer products: against NumPy, with and without the wide instruction."""

from __future__ import annotations

from collections.abc import Callable

import numba as nb
import numpy as np
import pytest

from qspinn.compiled import products
from qspinn.compiled.vectors import ints_splat, load_ints, store_ints


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    return nb.njit(function)  # type: ignore[no-any-return]


@pytest.mark.parametrize("wide", [True, False])
def test_sums_of_products(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not wide:
        monkeypatch.setattr(products, "get_host_cpu_features", lambda: {})
    rng = np.random.default_rng(1)
    a, b = rng.integers(-(2**15) + 1, 2**15, (2, 32)).astype(np.int16)
    total = rng.integers(-1000, 1000, 16).astype(np.int32)
    out = np.zeros((2, 16), np.int32)

    @compiled
    def run(total, a, b, out):  # type: ignore[no-untyped-def]
        flat, start = out.reshape(-1), load_ints(total, 0)
        store_ints(flat, 0, products.add_products(start, products.load_pairs(a, 0), products.load_pairs(b, 0)))
        store_ints(flat, 16, products.add_products(start, products.load_pairs(a, 0), products.splat_pair(b, 3)))

    a //= 2  # two products must fit 32 bits
    run(total, a, b, out)
    x, y = (v.astype(np.int64).reshape(16, 2) for v in (a, b))
    assert np.array_equal(out[0], total + (x * y).sum(axis=1))
    assert np.array_equal(out[1], total + (x * b[3:5].astype(np.int64)).sum(axis=1))


def test_pairs_of_two_registers_and_their_places() -> None:
    a, b = np.arange(32, dtype=np.int16), np.arange(100, 132, dtype=np.int16)
    factors, out = np.array([3, -2], np.int16), np.zeros(32, np.int32)

    @compiled
    def run(a, b, factors, out):  # type: ignore[no-untyped-def]
        one, two, pair = products.load_pairs(a, 0), products.load_pairs(b, 0), products.splat_pair(factors, 0)
        store_ints(out, 0, products.add_products(ints_splat(0), products.pair_low(one, two), pair))
        store_ints(out, 16, products.add_products(ints_splat(0), products.pair_high(one, two), pair))

    run(a, b, factors, out)
    assert sorted(products.PLACES) == list(range(32))
    assert np.array_equal(out, (3 * a.astype(np.int64) - 2 * b)[products.PLACES])


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
def test_widened_narrowed_and_reduced(kind: type) -> None:
    x = np.random.default_rng(2).integers(np.iinfo(kind).min // 2, np.iinfo(kind).max // 2, 20).astype(kind)
    out, found = np.zeros(20, kind), np.zeros(2, np.int64)

    @compiled
    def run(x, out, found):  # type: ignore[no-untyped-def]
        value = products.load_wide(x, 3)
        products.store_narrow(out, 1, value)
        found[0], found[1] = products.ints_total(value), products.ints_top(value)

    run(x, out, found)
    assert np.array_equal(out[1:17], x[3:19])
    assert not out[17:].any()
    assert found[1] == x[3:19].max()
    assert np.int32(found[0]) == np.int64(x[3:19].astype(np.int64).sum()).astype(np.int32)

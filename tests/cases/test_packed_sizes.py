"""Memory of narrow codes: one after the other to the bit, in the account as in the file, and never a batch of none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat
from qspinn.memory import (
    MemoryAccount,
    MemoryRow,
    Widths,
    counter_bits,
    float_account,
    float_layers_account,
    learning_account,
    plan_account,
    program_account,
    published_account,
)
from qspinn.networks.layered import Conv2d, EventInput, Layer, LayeredNetwork, Linear, NeuronReadout
from qspinn.networks.models import diehl_cook
from qspinn.program import pack
from qspinn.quantization.plan import QuantPlan, QuantRule
from qspinn.testing.programs import single

LAYERS = LayeredNetwork(
    name="n",
    input=EventInput(shape=(2, 1, 1)),
    layers=(Layer(name="a", shape=(2, 1, 1)), Layer(name="p", shape=(3, 1, 1))),
    connections=(
        Linear(source="input", target="a"),
        Linear(source="input", target="p", bias=True),
        Conv2d(source="a", target="p", kernel=(1, 1), bias=True),
        Linear(source="p", target="p", bias=True),
    ),
    readout=NeuronReadout(source="p"),
)
PLAN = QuantPlan(rules=(QuantRule(tensor="*", bits=8),))
COMPETING = diehl_cook(5, 3)


@pytest.mark.parametrize(
    ("rows", "columns", "bits", "right"),
    [(10, 8, 4, 40), (3, 5, 4, 8), (1, 1, 1, 1), (3, 3, 3, 4), (7, 9, 12, 95), (2, 4, 1, 1), (0, 5, 4, 0)],
)
def test_the_account_is_the_size_of_the_packed_codes(rows: int, columns: int, bits: int, right: int) -> None:
    """Three rows of five weights of 4 bits take 8 bytes, not the 9 of rows that begin at bytes."""
    row = MemoryRow(path="p.w", role="parameter", count=rows * columns, bits=bits)
    assert row.packed_bytes == right
    codes = np.arange(rows * columns).reshape(rows, columns) % (1 << bits)
    assert len(pack(codes, QFormat(bits=bits))) == right


@pytest.mark.parametrize("batch", [-1, 0, 1.0, 1.5, True, None, "2"])
@pytest.mark.parametrize(
    "account",
    [
        lambda b: program_account(single([[1, 2]]), batch=b),
        lambda b: float_account(COMPETING, batch=b),
        lambda b: float_layers_account(LAYERS, batch=b),
        lambda b: published_account(LAYERS, batch=b),
        lambda b: plan_account(LAYERS, PLAN, batch=b),
        lambda b: MemoryAccount(rows=(), batch=b),
    ],
)
def test_a_batch_is_a_number_of_samples(account: Callable[[Any], MemoryAccount], batch: Any) -> None:
    with pytest.raises(ConfigError, match="batch"):
        account(batch)
    one, three = account(1).total_bits, account(3).total_bits
    states = sum(r.total_bits for r in account(1).rows if r.role == "state")
    assert three == one + 2 * states


@pytest.mark.parametrize(
    "make",
    [
        lambda: MemoryRow(path="a", role="state", count=-1, bits=1),
        lambda: MemoryRow(path="a", role="state", count=1, bits=2.0),
        lambda: Widths(first=0),
        lambda: Widths(v="8"),
        lambda: counter_bits(-1),
        lambda: counter_bits(1.5),
        lambda: published_account(LAYERS, states="largest"),
        lambda: learning_account(COMPETING, single([[1]]), {}),
    ],
)
def test_numbers_and_words_of_accounts_are_checked(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_the_bias_of_a_layer_is_counted_once() -> None:
    for account in (float_layers_account(LAYERS), published_account(LAYERS), plan_account(LAYERS, PLAN)):
        assert [r.count for r in account.rows if r.path == "p.bias"] == [3]

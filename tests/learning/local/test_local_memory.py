"""The memory account of local learning, to the digit."""

from __future__ import annotations

import pytest

from qspinn.errors import ConfigError
from qspinn.learning.local.formats import DEFAULT_PLAN, default_rules
from qspinn.learning.local.memory import (
    PUBLISHED,
    PUBLISHED_CLASSES,
    PUBLISHED_SHAPE,
    PUBLISHED_SLIP,
    cost_table,
    local_account,
    saving,
    stdp_accounts,
)
from qspinn.networks.local import LocalLayer, LocalNetwork
from qspinn.networks.models import diehl_cook
from qspinn.quantization.plan import QuantPlan, QuantRule


def published(plan: QuantPlan | None, **options: object) -> int:
    account = local_account(PUBLISHED, PUBLISHED_SHAPE, PUBLISHED_CLASSES, plan, **options)  # type: ignore[arg-type]
    return account.total_bits


def test_the_published_figures_with_their_slip() -> None:
    integer, real = (published(plan, outputs=PUBLISHED_SLIP) for plan in (DEFAULT_PLAN, None))
    assert (integer, real) == (26_462_796, 100_928_576)
    assert f"{(1 - integer / real) * 100:.3f}" == "73.781"


def test_the_right_count() -> None:
    """Weights 6,272 + 401,408 + 802,816; inputs 2,048 + 14,400 + 21,632; outputs 14,400 + 21,632 + 3,200."""
    weights, inputs, outputs = 1_210_496, 38_080, 39_232
    integer = weights * 18 + inputs * 22 + outputs * 8 + 22 * outputs * 6 + 33 * 6 + (33 + outputs) * 6
    real = 32 * (2 * weights + 2 * inputs + 2 * outputs + 22 * outputs + 33 + 33 + outputs)
    assert published(DEFAULT_PLAN) == integer == 28_354_956
    assert published(None) == real == 111_296_576
    assert f"{(1 - integer / real) * 100:.2f}" == "74.52"


def test_states_before_pooling() -> None:
    before = 64 * 30 * 30 + 128 * 13 * 13 + 128 * 11 * 11
    integer = published(DEFAULT_PLAN, before_pooling=True)
    real = published(None, before_pooling=True)
    assert integer - published(DEFAULT_PLAN) == (before - 39_232) * 8
    assert real - published(None) == (before - 39_232) * 64
    assert f"{(1 - integer / real) * 100:.2f}" == "74.92"


def test_every_tensor_of_a_layer() -> None:
    """2 x 6 x 6 -> 3 channels, 3 x 3, pooled to 3 x 3; 4 classes."""
    network = LocalNetwork(layers=(LocalLayer(channels=3, kernel=3, padding=1, pool=2),))
    plan = QuantPlan(rules=default_rules(p_trace=9))
    account = local_account(network, (2, 6, 6), 4, plan)
    assert {r.path: (r.role, r.count, r.bits) for r in account.rows} == {
        "conv1.w": ("parameter", 54 + 3, 8),
        "conv1.gradient": ("learning", 57, 10),
        "conv1.q_trace": ("state", 72, 10),
        "conv1.p_trace": ("state", 72, 9),
        "conv1.r": ("state", 27, 2),
        "conv1.u": ("state", 27, 6),
        "conv1.readout": ("parameter", 2 * 4 * 27, 6),
        "conv1.read": ("learning", 4, 6),
        "conv1.error": ("learning", 31, 6),
    }
    assert saving(account, account) == 0.0


def test_both_ways_of_learning_in_one_table() -> None:
    """784 inputs, 400 neurons: weights and votes, a threshold and theta per neuron; v, ref and both traces."""
    network = diehl_cook(784, 400)
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="exc.w", bits=4),
            QuantRule(tensor="exc.x_*", bits=6),
            QuantRule(tensor="readout.votes", bits=3),
            QuantRule(tensor="*", bits=8),
        )
    )
    real, integer = stdp_accounts(network, plan)
    n_ref = integer.rows[[r.path for r in integer.rows].index("exc.ref")].bits
    constants = 8 * (1 + 400 + 1 + 1 + 1)  # v_th, theta, decay, v_reset, inhibition
    assert integer.total_bits == 313_600 * 4 + 4_000 * 3 + constants + 400 * (8 + n_ref) + (784 + 400) * 6
    assert real.total_bits == 32 * (313_600 + 4_000 + 404 + 800 + 1_184)
    local = tuple(local_account(PUBLISHED, PUBLISHED_SHAPE, PUBLISHED_CLASSES, p) for p in (None, DEFAULT_PLAN))
    table = cost_table({"STDP": (real, integer), "DECOLLE": (local[0], local[1])}).splitlines()
    assert len(table) == 6
    assert table[3].startswith("| STDP | integer | ")
    assert table[3].endswith(f"| {integer.total_bits:,} | {saving(integer, real):.2f} % |")
    assert table[5].endswith("| 28,354,956 | 74.52 % |")
    assert table[4].endswith("| 111,296,576 |  |")


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="conv4"):
        local_account(PUBLISHED, PUBLISHED_SHAPE, 11, outputs={"conv4": 3})

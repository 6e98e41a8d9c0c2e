"""Nothing meets the target: the nearest candidates are named with how far they are from it, never an empty answer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qspinn.errors import RunError, TargetError
from qspinn.exploration.competing.space import Experiment, SearchConfig
from qspinn.exploration.outcome import Selection, _no_winner

NAN_RECORDS: list[dict[str, Any]] = [
    {"key": "N", "accuracy": math.nan, "bits": 50},
    {"key": "I", "accuracy": math.inf, "bits": 50},
    {"key": "J", "accuracy": None, "bits": 50},
    {"key": "B", "accuracy": 0.99, "bits": math.inf},
    {"key": "R", "rejected": "a.w: too wide"},
]
"""Failed ones, as they were computed and as they are read from JSON, where NaN is null."""


def selection(allowed: float = 0.5, accuracy: float = 0.95) -> Selection:
    experiment = Experiment(name="e", search=SearchConfig(max_drop_points=allowed))
    return Selection(experiment=experiment, float_accuracy=accuracy, float_bits=10_000)


def test_the_nearest_candidate_is_named_with_what_it_lacks() -> None:
    records = [{"key": "A", "accuracy": 0.90, "bits": 2100}, {"key": "B", "accuracy": 0.80, "bits": 900}]
    for extra in ([], NAN_RECORDS):
        error = _no_winner([*extra, *records], selection())
        assert isinstance(error, RunError)
        assert "candidate A loses 5.00 points, 4.50 more than allowed, at 2,100 bits" in str(error)
        assert "candidate B loses 15.00 points, 14.50 more than allowed, at 900 bits" in str(error)
        assert str(error).index("candidate A") < str(error).index("candidate B")
        assert [n["key"] for n in error.nearest] == ["A", "B"]
        assert "nan" not in str(error)
    assert error.rejected == (("accuracy or memory is not finite", 4), ("a.w: too wide", 1))


def test_by_excess_as_a_list_of_three() -> None:
    """Losses of 21.00, 16.00 and 9.00 points where 5.12 are allowed: 15.88, 10.88 and 3.88 too many."""
    records = [
        {"key": key, "accuracy": 1 - lost / 100, "bits": bits, "candidate": {"label": f"w{key}"}}
        for key, lost, bits in (("a", 21.0, 2100), ("b", 16.0, 1600), ("c", 9.0, 900))
    ]
    error = _no_winner(records, selection(5.12, 1.0))
    assert [(n["label"], n["points_missing"]) for n in error.nearest] == [("wc", 3.88), ("wb", 10.88), ("wa", 15.88)]
    assert "candidate wc loses 9.00 points, 3.88 more than allowed, at 900 bits" in str(error)


def test_equal_losses_are_ordered_by_memory() -> None:
    records = [{"key": "big", "accuracy": 0.9, "bits": 2000}, {"key": "small", "accuracy": 0.9, "bits": 1000}]
    assert [n["key"] for n in _no_winner(records, selection()).nearest] == ["small", "big"]


def test_where_nothing_was_measured_the_reasons_are_named() -> None:
    rejected = [{"key": k, "rejected": "a.v: overflow"} for k in "xyz"]
    rejected += [{"key": "q", "rejected": "epoch 1: diverged"}]
    error = _no_winner([], selection(), rejected)
    assert isinstance(error, TargetError)
    assert error.nearest == ()
    assert error.rejected == (("a.v: overflow", 3), ("epoch 1: diverged", 1))
    assert "no candidate could be measured; 3 rejected: a.v: overflow, 1 rejected: epoch 1: diverged" in str(error)
    assert "there are none" in str(_no_winner([], selection()))


@pytest.mark.parametrize("failed", NAN_RECORDS, ids=lambda r: r["key"])
def test_failed_candidates_are_on_no_front_and_win_nothing(failed: dict[str, Any]) -> None:
    good = [
        {"key": "p", "accuracy": 0.90, "bits": 100},
        {"key": "q", "accuracy": 0.92, "bits": 120},
        {"key": "s", "accuracy": 0.88, "bits": 130},
    ]
    for records in ([failed, *good], [*good, failed]):
        j = selection(10.0)
        assert j.front(records) == ["p", "q"]
        assert [r["key"] for r in j.admitted(records)] == ["p", "q", "s"]
        assert j.winner(records) == "q"
    assert selection().front([failed]) == []
    assert selection().winner([failed]) == ""

"""The text of an error is short and soon there, whatever value it shows; None is a value, too."""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np
import pytest

from qspinn.arrays import flag
from qspinn.errors import LONGEST, ConfigError, DataError


def circle() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


def table_in_itself() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["again"] = values
    return values


def deep() -> list[Any]:
    values: list[Any] = []
    for _ in range(100_000):
        values = [values]
    return values


def twice(base: type) -> Any:
    values: Any = base()
    for _ in range(60):
        values = [values, values] if base is list else {"a": values, "b": values}
    return values


@pytest.mark.parametrize(
    "value",
    [
        circle(),
        table_in_itself(),
        deep(),
        twice(list),
        twice(dict),
        [1] * 3_000_000,
        (circle(),) * 1_000_000,
        {i: i for i in range(1_000_000)},
        "a" * 50_000_000,
        np.zeros(30_000_000, np.int8),
    ],
    ids=["circle", "table", "deep", "twice", "tables", "long", "circles", "long table", "text", "array"],
)
def test_errors_show_long_and_deep_values_in_part(value: Any) -> None:
    begun = time.process_time()
    text = str(ConfigError("a", "is wrong", got=value))
    assert len(text) < 2 * LONGEST
    assert text.startswith("a: is wrong; got ")
    assert time.process_time() - begun < 1  # 8 s and more, or no end, where every entry is looked at


def test_short_values_are_shown_whole() -> None:
    for value in ([], (), (1,), [1, "a", (2.5, None)], {"a": [1], 2: {}}, [[[[1]]]], None, "a", b"b", {1}, 3):
        assert str(ConfigError("a", "is wrong", got=value)) == f"a: is wrong; got {value!r}"
    assert str(ConfigError("a", "is wrong", got=[np.int64(3), np.ones(2)])) == "a: is wrong; got [3, [1.0, 1.0]]"
    long = list(range(1000))
    shown = str(ConfigError("a", "is wrong", got=long)).removeprefix("a: is wrong; got ")
    assert shown == f"{str(long)[: LONGEST // 2]} ... {str(long)[-LONGEST // 4 :]}"


@pytest.mark.parametrize("value", [np.float64(131068.0), np.float32(0.5), np.int16(-3), np.bool_(True)], ids=repr)
def test_numbers_of_numpy_are_shown_as_plain_ones(value: Any) -> None:
    """Reported: `got np.float64(131068.0)`."""
    assert str(ConfigError("a", "is wrong", got=value)) == f"a: is wrong; got {value.item()!r}"


def test_none_is_shown_and_no_value_is_not() -> None:
    assert str(ConfigError("a", "is wrong", got=None)) == "a: is wrong; got None"
    assert str(ConfigError("a", "is wrong")) == "a: is wrong"
    for error in (ConfigError("a", "is wrong", got=None), DataError("a", "is wrong")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.got) == (type(error), str(error), error.got)
    with pytest.raises(ConfigError, match=r"^a: is neither true nor false; got None; allowed: True, False$"):
        flag("a", None)

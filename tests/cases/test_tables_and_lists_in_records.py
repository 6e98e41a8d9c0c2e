"""A table in the place of a record is any mapping, read like a dict; nothing else that has items is a record."""

from __future__ import annotations

import array
import collections
import re
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.exploration.competing.space import ItqSearch, SearchConfig
from qspinn.exploration.family import read_experiment
from qspinn.learning.local.model import TrainedLocal
from qspinn.networks.layered import Layer, Linear
from qspinn.networks.models import chain
from qspinn.records import record
from qspinn.records.record import from_plain, plain_table
from samples import trained_local

MAPPINGS = (MappingProxyType, collections.UserDict, collections.ChainMap, collections.OrderedDict)


@pytest.mark.parametrize("kind", MAPPINGS)
def test_mappings_are_tables(kind: Any) -> None:
    assert ItqSearch(stdp=kind({"norm": 50.0})) == ItqSearch(stdp={"norm": 50.0})  # type: ignore[arg-type]
    assert read_experiment(kind({"name": "x", "seed": 5})).seed == 5
    assert SearchConfig(itq=kind({"passes": 2})) == SearchConfig(itq={"passes": 2})  # type: ignore[arg-type]
    link = kind({"type": "linear", "source": "a", "target": "b"})
    assert from_plain(tuple[Linear, ...], [link]) == (Linear(source="a", target="b"),)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"ItqSearch\.stdp\.nrom: unknown key; got 'nrom'; .*'norm'"):
        ItqSearch(stdp=kind({"nrom": 50.0}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"config\.sed: unknown key"):
        read_experiment(kind({"name": "x", "sed": 5}))
    assert plain_table(kind({"a": kind({"b": (1,)})}), "provenance") == {"a": {"b": (1,)}}


@pytest.mark.parametrize(
    "value",
    [
        range(2),
        array.array("i", [1]),
        collections.UserList([1]),
        collections.deque(),
        memoryview(b"a"),
        b"ab",
        re.match("a", "a"),
        list[int],
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_items_but_no_keys_is_no_record(value: Any) -> None:
    for make in (
        lambda: ItqSearch(stdp=value),
        lambda: Layer(name="a", shape=(1, 1, 1), neuron=value),
        lambda: chain((1, 1, 1), (value,), n_classes=2, n_steps=1),
        lambda: from_plain(ItqSearch, value),
    ):
        with pytest.raises(ConfigError, match="is of the wrong type"):
            make()


class Pair(NamedTuple):
    first: int
    second: int


def test_named_tuples_are_kept_as_tuples() -> None:
    plain = plain_table({"pair": Pair(1, 2)}, "provenance")
    assert plain == {"pair": (1, 2)}
    assert type(plain["pair"]) is tuple
    trained = trained_local()
    kept = TrainedLocal(network=trained.network, params=trained.params, provenance={"pair": Pair(1, 2)})
    assert kept.provenance["pair"] == (1, 2)


def test_lists_that_hold_themselves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    circle: list[Any] = []
    circle.append(circle)
    table: dict[str, Any] = {}
    table["again"] = table
    for value in (circle, [table]):
        with pytest.raises(ConfigError, match="too deep within one another"):
            plain_table({"a": value}, "provenance")
        with pytest.raises(ConfigError, match="is of the wrong type"):
            Layer(name="a", shape=value)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            Layer(name="a", shape=(1, 1, 1), neuron=value)  # type: ignore[arg-type]
    monkeypatch.setattr(record, "MOST_ENTRIES", 1000)
    twice: list[Any] = []
    for _ in range(60):
        twice = [twice, twice]
    with pytest.raises(ConfigError, match="is one value too many; allowed: 1000 values in all"):
        plain_table({"a": twice}, "provenance")
    assert len(plain_table({"a": [0] * 998}, "provenance")["a"]) == 998


def test_arrays_of_numbers_stay_lists_of_them() -> None:
    assert from_plain(Layer, {"name": "a", "shape": np.array([2, 1, 1])}).shape == (2, 1, 1)
    assert msgspec.structs.replace(Layer(name="a", shape=(1, 1, 1)), shape=np.array([2, 1, 1])).n == 2

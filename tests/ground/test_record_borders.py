"""Every field of every record: values of another type are refused by name, those of one meaning take their form."""

from __future__ import annotations

import enum
import importlib
import math
import pkgutil
import types
import typing
import warnings
from typing import Any

import msgspec
import numpy as np
import pytest

import qspinn
from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout, Pool2d
from qspinn.quantization.plan import QuantRule
from qspinn.records.record import Record, from_plain, to_plain


def records() -> list[type]:
    """All records of the package."""
    for module in pkgutil.walk_packages(qspinn.__path__, "qspinn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type] = []
    waiting: list[type] = [Record]
    while waiting:
        below = [c for c in waiting.pop().__subclasses__() if c.__module__.startswith("qspinn")]
        found += below
        waiting += below
    return sorted(set(found), key=lambda c: (c.__module__, c.__qualname__))


RECORDS = records()
FIELDS = [
    (kind, name, hint)
    for kind in RECORDS
    for name, hint in typing.get_type_hints(kind).items()
    if name in kind.__struct_fields__
]  # type: ignore[attr-defined]
STRANGERS: dict[str, Any] = {
    "float": 1.5,
    "whole float": 2.0,
    "bool": True,
    "int": 7,
    "text": "1",
    "word": "no such word",
    "NaN": math.nan,
    "infinity": -math.inf,
    "array": np.array([1.5, 2.5]),
    "none": None,
    "huge": 10**30,
    "surrogate": "\ud800",
    "complex": 1j,
    "bytes": b"a",
    "object": object(),
    "set": {1},
    "function": len,
    "table": {"no_such_key": 1},
    "table of numbers": {1: 2},
    "date": np.datetime64("2020-01-01"),
    "list": [[[1.5]]],
}


def members(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def fits(hint: Any, value: Any) -> bool:
    """Whether a value has a meaning for a declared type, decided without the code under test."""
    for kind in members(hint):
        origin = typing.get_origin(kind)
        simple = {
            bool: type(value) is bool,
            int: type(value) is int and abs(value) < 1 << 63,
            float: type(value) is int or (type(value) is float and math.isfinite(value)),
            str: type(value) is str and value != "\ud800",
            types.NoneType: value is None,
        }
        if simple.get(kind, False):
            return True
        is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
        if is_enum and type(value) is str and value in [m.value for m in kind]:
            return True
        if origin is typing.Literal and type(value) is str and value in typing.get_args(kind):
            return True
        if origin is dict and isinstance(value, dict) and all(type(k) is str for k in value):
            return all(fits(typing.get_args(kind)[1], v) for v in value.values())
        plain = value.tolist() if isinstance(value, np.ndarray) else value
        if origin is tuple and isinstance(plain, list):
            items = typing.get_args(kind)
            items = (items[0],) * len(plain) if items[-1] is Ellipsis else items
            if len(items) == len(plain) and all(fits(i, v) for i, v in zip(items, plain, strict=True)):
                return True
        if (
            kind is Any
            and not isinstance(value, (complex, bytes, set, types.BuiltinFunctionType))
            and (type(value) is not object)
            and not isinstance(value, np.datetime64)
            and value != "\ud800"
            and not (isinstance(value, float) and not math.isfinite(value))
            and value != 10**30
            and value != {1: 2}
        ):
            return True
    return False


def raw(kind: type, name: str, value: Any) -> dict[str, Any]:
    """Values for a record: one field as given, the others that have no default as plausible ones."""
    found = {}
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        if field.required and field.name != name:
            found[field.name] = example(hints[field.name])
    return found | {name: value}


def example(hint: Any) -> Any:
    """Some value of a declared type."""
    kind = members(hint)[0]
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return typing.get_args(kind)[0]
    if origin is tuple:
        items = typing.get_args(kind)
        return () if items[-1] is Ellipsis else tuple(example(item) for item in items)
    if origin is dict:
        return {}
    if kind is QFormat:
        return QFormat(bits=8)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: example(hints[f.name]) for f in msgspec.structs.fields(kind) if f.required})
    return {bool: True, int: 1, float: 0.5, str: "a", Any: 1}.get(kind)


@pytest.mark.parametrize(("kind", "name", "hint"), FIELDS, ids=lambda x: getattr(x, "__name__", str(x))[:40])
def test_values_of_another_type_are_refused_by_class_and_field(kind: type, name: str, hint: Any) -> None:
    """By the constructor as `Class.field`, from plain data by the path; never by another exception."""
    refused = 0
    for what, value in STRANGERS.items():
        if fits(hint, value):
            continue
        refused += 1
        try:
            values = raw(kind, name, value)
        except ConfigError:  # what must go with it has no example this simple
            continue
        with pytest.raises(ConfigError) as caught:
            kind(**values)
        assert caught.value.where.startswith(f"{kind.__name__}.{name}"), (what, str(caught.value))
        plain = {key: to_plain(x) if isinstance(x, (msgspec.Struct, enum.Enum)) else x for key, x in values.items()}
        with pytest.raises(ConfigError) as again:
            from_plain(kind, plain, "a.b")
        if not isinstance(value, dict) and again.value.where.startswith(f"a.b.{name}"):
            assert again.value.problem == caught.value.problem, what
        assert again.value.where.startswith("a.b"), (what, str(again.value))
    assert refused or hint is Any or dict in map(typing.get_origin, members(hint))


def test_all_kinds_of_records_are_tried() -> None:
    names = {kind.__name__ for kind in RECORDS}
    assert {"Leaky", "Lif", "QuantRule", "LifOp", "Note", "Experiment", "LocalDeclaration", "ConvLink"} <= names
    assert len(FIELDS) > 250


@pytest.mark.parametrize(
    ("make", "same"),
    [
        (
            lambda: Leaky(decay=np.float32(0.5), n_ref_steps=np.uint8(3), strict=np.bool_(True), v_th=np.int16(2)),
            Leaky(decay=0.5, n_ref_steps=3, strict=True, v_th=2.0),
        ),
        (lambda: Leaky(decay=np.array(0.25), reset=np.str_("value")), Leaky(decay=0.25, reset="value")),
        (lambda: Layer(name="p", shape=[2, np.int8(1), 1]), Layer(name="p", shape=(2, 1, 1))),  # type: ignore[arg-type]
        (lambda: Layer(name="p", shape=np.array([2, 1, 1])), Layer(name="p", shape=(2, 1, 1))),  # type: ignore[arg-type]
        (
            lambda: QuantRule(tensor="*", bits=np.int64(4), rounding="truncate"),  # type: ignore[arg-type]
            QuantRule(tensor="*", bits=4, rounding=Rounding.TRUNCATE),
        ),
    ],
)
def test_other_forms_of_a_value_take_the_declared_one(make: Any, same: Record) -> None:
    record = make()
    assert record == same
    assert to_plain(record) == to_plain(same)
    for field in record.__struct_fields__:
        value, expected = getattr(record, field), getattr(same, field)
        assert type(value) is type(expected) or {type(value), type(expected)} == {int, float}


class Steps(enum.IntEnum):
    """Numbers with a name."""

    THREE = 3


class Word(enum.StrEnum):
    """Words with a name."""

    SUBTRACT = "subtract"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Leaky(n_ref_steps=Steps.THREE),
        lambda: Leaky(reset=Word.SUBTRACT),  # type: ignore[arg-type]
        lambda: Layer(name=Word.SUBTRACT, shape=(1, 1, 1)),
        lambda: QuantRule(tensor="*", bits=Steps.THREE),
        lambda: Leaky(decay=Rounding.NEAREST),  # type: ignore[arg-type]
        lambda: QuantRule(tensor="*", bits=8, rounding=Word.SUBTRACT),
    ],
)  # type: ignore[arg-type]
def test_members_of_foreign_enums_are_no_numbers_and_no_words(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"(Leaky|Layer|QuantRule)\.\w+: is (of the wrong type|not a word)"):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Leaky(reset="soft"), r"Leaky\.reset: .*got 'soft'.*did you mean 'subtract'\?"),  # type: ignore[arg-type]
        (lambda: Leaky(reset="zero"), r"did you mean 'value' with v_reset = 0\?"),  # type: ignore[arg-type]
        (lambda: Leaky(reset="hard"), r"did you mean 'value'\?"),  # type: ignore[arg-type]
        (lambda: Leaky(reset="substract"), r"did you mean 'subtract'\?"),  # type: ignore[arg-type]
        (lambda: Pool2d(source="a", target="b", of="avg"), r"Pool2d\.of: .*'average'\?"),  # type: ignore[arg-type]
        (lambda: QuantRule(tensor="*", bits=8, rounding="floor"), r"'truncate'\?"),  # type: ignore[arg-type]
        (lambda: QuantRule(tensor="*", bits=8, granularity="per-tensor"), r"'global'\?"),  # type: ignore[arg-type]
        (lambda: NeuronReadout(source="p", of="count"), r"'spikes'\?"),  # type: ignore[arg-type]
    ],
)
def test_words_of_other_libraries_lead_to_the_word_here(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_paths_from_plain_data_are_whole() -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(1, 4, 4)),
        layers=(Layer(name="p", shape=(2, 1, 1)),),
        connections=(Pool2d(source="input", target="q"), Linear(source="q", target="p")),
        readout=NeuronReadout(source="p"),
    )
    for path, value, where in (
        (("layers", 0, "neuron", "decay"), "fast", "net.layers[0].neuron.decay"),
        (("layers", 0, "neuron", "n_ref_steps"), 2.5, "net.layers[0].neuron.n_ref_steps"),
        (("layers", 0, "shape"), [2, 1], "net.layers[0].shape"),
        (("n_steps",), "1", "net.n_steps"),
        (("layers", 0, "shape", 1), 1.5, "net.layers[0].shape[1]"),
        (("connections", 0, "of"), "avg", "net.connections[0].of"),
        (("connections", 1, "bias"), 1, "net.connections[1].bias"),
        (("connections", 1, "type"), "lineal", "net.connections[1].type"),
    ):
        data = to_plain(network)
        place = data = msgspec.json.decode(msgspec.json.encode(data))
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(ConfigError) as caught:
            from_plain(LayeredNetwork, data, "net")
        assert caught.value.where == where


def test_former_names_are_read_from_files_and_warned_about_in_code() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = from_plain(Pool2d, {"type": "pool2d", "source": "a", "target": "b", "kind": "max"})
    assert read == Pool2d(source="a", target="b", of="max")
    assert "kind" not in to_plain(read)
    with pytest.warns(DeprecationWarning, match="Pool2d: kind is called of now"):
        assert Pool2d(source="a", target="b", kind="max") == read  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"Pool2d\.of: is not a word"):
        Pool2d(source="a", target="b", kind="biggest")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"Pool2d\.kind: is the former name of of"):
        Pool2d(source="a", target="b", kind="max", of="sum")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"config\.kind: is the former name of of, which is given"):
        from_plain(Pool2d, {"source": "a", "target": "b", "kind": "max", "of": "sum"})


@pytest.mark.parametrize("step", [1, 1.0])
def test_changed_copies_pass_the_same_checks(step: float) -> None:
    leaky = Leaky()
    assert msgspec.structs.replace(leaky, v_th=step).v_th == 1.0
    for change, words in (
        ({"reset": "soft"}, "subtract"),
        ({"n_ref_steps": 2.5}, "integer"),
        ({"v_th": -1.0}, "> 0"),
        ({"decay": math.nan}, "finite"),
        ({"v_th": 1e300}, r"1e\+30"),
        ({"theta_step": 1e308}, r"1e\+30"),
        ({"v_reset": -1e308, "reset": "value"}, r"1e\+30"),
    ):
        with pytest.raises(ConfigError, match=words):
            msgspec.structs.replace(leaky, **change)

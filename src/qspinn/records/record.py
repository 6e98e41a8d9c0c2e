"""Frozen configuration records: one border for values from Python, TOML and JSON; canonical bytes; content keys.

Every record of Q-SpiNN (networks, plans, experiments, operations) is a frozen msgspec Struct. However a record is made,
by its constructor, by `msgspec.structs.replace` or from a file, its values pass the same checks: types, words, finite
numbers. Nothing is rounded or guessed; a value that has one meaning in another form takes the declared form (a NumPy
number, a list for a tuple, the word of an enum), and everything else is refused with its path, the nearest valid word
and the fix.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
import json
import math
import re
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
import numpy as np

from qspinn.errors import ConfigError
from qspinn.records.named import NamedFields, need_complete, need_names
from qspinn.records.plain import MAX_DEPTH
from qspinn.records.words import nearest, unknown_key

T = TypeVar("T")


_LARGEST = (1 << 63) - 1
_SINGLE = (types.NoneType, bool, int, float, str, enum.Enum, msgspec.Struct, np.generic, np.ndarray)
"""Types of values that are no tables and no lists."""
MOST_ENTRIES = 1 << 22
"""Values in a field that may hold anything; a list that is there many times counts as often."""


class RecordType(NamedFields):
    """Metaclass of records: constructors take values by name, refuse names that they do not know as files do, and take
    former names.

    `RENAMED` of a record has pairs of a former name and the present one, which may be that of an entry in a table
    (`sweep.bits`). The constructor takes a former name with a DeprecationWarning, files may have it without one.
    """

    def __new__(mcls, *args: Any, **settings: Any) -> Any:
        return super().__new__(mcls, *args, **{"kw_only": True, **settings})

    def __call__(cls, *args: Any, **values: Any) -> Any:
        if args:
            need_names(cls, args, values)
        values = cls.present(values)  # type: ignore[attr-defined]
        old_names = former_names(cls, values)
        values = _with_present_names(old_names, values, cls.__name__)
        values = {**cls.implied(values), **values}  # type: ignore[attr-defined]
        record = super().__call__(**values)
        for old, new in old_names:
            warnings.warn(f"{cls.__name__}: {old} is called {new} now", DeprecationWarning, stacklevel=2)
        return record


def former_names(kind: Any, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The former names of a record that a table has, each with the present one."""
    return [(old, new) for old, new in getattr(kind, "RENAMED", ()) if old in values]


def former_keys(kind: Any, data: Any, where: str = "") -> list[tuple[str, str]]:
    """Paths of keys in a table, and in the tables within, that have former names, each with its present path."""
    if not isinstance(data, dict):
        return []
    here = [(f"{where}{old}", f"{where}{new}") for old, new in former_names(kind, data)]
    for name, hint in _hints(kind).items():
        if _is_struct(hint):
            here += former_keys(hint, data.get(name), f"{where}{name}.")
    return here


def _with_present_names(old_names: list[tuple[str, str]], values: dict[str, Any], where: str) -> dict[str, Any]:
    """The table with former names replaced, some of them by entries in a table within.

    Raises:
        ConfigError: both names are given.
    """
    if not old_names:
        return values
    values = dict(values)
    for old, new in old_names:
        table, _, name = new.rpartition(".")
        within = dict(values.get(table, {})) if table and isinstance(values.get(table, {}), Mapping) else {}
        given = values.get(table) is not None and not isinstance(values[table], Mapping) if table else False
        if given or name in (within if table else values):
            raise ConfigError(
                f"{where}.{old}", f"is the former name of {new}, which is given, too", fix=f"leave out {old}"
            )
        value = values.pop(old)
        if table:
            values[table] = within | {name: value}
        else:
            values[name] = value
    return values


class Record(msgspec.Struct, metaclass=RecordType, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of configuration records: immutable, every value of its declared type.

    A record whose values must also fit together defines `check`. `__post_init__` stays with this class, so that no
    record is ever made without the checks of types.

    `LATER` of a record names fields that it got after experiments with it were stored: `to_plain` leaves them out while
    they hold their defaults, so that the content keys of older experiments stay what they are.
    """

    RENAMED: ClassVar[tuple[tuple[str, str], ...]] = ()
    LATER: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        if "__post_init__" in cls.__dict__:
            raise TypeError(f"{cls.__name__} defines __post_init__: a record's own rules belong into check()")

    def __post_init__(self) -> None:
        cls = type(self)
        for field, value in zip(_fields(cls), msgspec.structs.astuple(self), strict=True):
            if type(value) in field.plain or field.takes(value):
                continue
            settled = field.members.get(value) if type(value) is str else None
            if settled is None:
                settled = _settled(
                    _hints(cls)[field.name], value, f"{cls.__name__}.{field.name}", _defaults(cls).get(field.name)
                )
            if settled is not value:
                msgspec.structs.force_setattr(self, field.name, settled)
        self.check()

    @classmethod
    def present(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The values of a constructor's call as they are now, where a former version of the record took others."""
        return given

    @classmethod
    def implied(cls, given: typing.Mapping[str, Any]) -> dict[str, Any]:
        """The values of fields that are not given and follow from those that are."""
        return {}

    def check(self) -> None:
        """Checks how the values of this record fit together.

        Raises:
            ConfigError: names the value that does not.
        """


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The declared type of every field of a record."""
    return typing.get_type_hints(kind)


@functools.cache
def _defaults(kind: Any) -> dict[str, Any]:
    """The fields of a record that have a record as default, and that record: a table in its place changes only the keys
    that it has."""
    return {f.name: f.default for f in msgspec.structs.fields(kind) if isinstance(f.default, msgspec.Struct)}


class _Field(msgspec.Struct, frozen=True):
    """Which values of a field are as they must be at first sight; all others go through `_settled`.

    Attributes:
        plain: exact types of which every value is as it must be.
        types: exact types of such values, the numbers and the texts among them after a look at the value.
        members: members of an enum by their words.
        words: where text is one of a few words.
        item: type of the entries of a tuple of simple entries.
        length: of that tuple; None: any.
    """

    name: str
    plain: frozenset[type]
    types: frozenset[type]
    members: dict[str, enum.Enum]
    words: frozenset[str] | None
    item: type | None
    length: int | None

    def takes(self, value: Any) -> bool:
        """Whether a value is as it must be: the usual case, decided quickly."""
        kind = type(value)
        if kind in self.types:
            if kind is float:
                return bool(value - value == 0.0 and (value or math.copysign(1.0, value) > 0))
            if kind is int:
                return bool(-_LARGEST <= value <= _LARGEST)
            if kind is str:
                return value.isascii() if self.words is None else value in self.words
            return True
        return (
            kind is tuple
            and self.item is not None
            and self.length in (None, len(value))
            and all(type(x) is self.item for x in value)
            and (self.item is not int or all(-_LARGEST <= x <= _LARGEST for x in value))
        )


@functools.cache
def _fields(kind: type) -> tuple[_Field, ...]:
    """What every field of a record takes at first sight."""
    return tuple(_field(name, _hints(kind)[name]) for name in kind.__struct_fields__)  # type: ignore[attr-defined]


@functools.cache
def _by_name(kind: type) -> dict[str, _Field]:
    """`_fields` by their names."""
    return {field.name: field for field in _fields(kind)}


def _field(name: str, hint: Any) -> _Field:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    simple = [m for m in members if m in (bool, int, float, str, types.NoneType) or _is_enum(m) or _is_struct(m)]
    literal = [m for m in members if typing.get_origin(m) is typing.Literal]
    words = frozenset(_words(literal[0])) if literal else None
    item, length = None, None
    for items in (typing.get_args(m) for m in members if typing.get_origin(m) is tuple):
        alike = len(set(items) - {Ellipsis}) == 1 and (items[0] in (bool, int) or _is_enum(items[0]))
        item, length = (items[0] if alike else None), (None if items[-1] is Ellipsis else len(items))
    enums = [m for m in simple if _is_enum(m)]
    by_word: dict[str, enum.Enum] = {}
    if len(enums) == 1 and str not in simple:
        by_word = {member.value: member for member in enums[0]}
    kinds = frozenset((*simple, *([str] if literal else [])))
    return _Field(name, kinds - {int, float, str}, kinds, by_word, words, item, length)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def to_plain(record: Any) -> Any:
    """The record as nested dicts, lists, numbers and strings (what JSON and TOML hold), without the `LATER` fields that
    hold their defaults."""
    if isinstance(record, list | tuple):
        return [to_plain(entry) for entry in record]
    plain = msgspec.to_builtins(record)
    kind: Any = type(record)
    for path in _later(kind) if _is_struct(kind) else ():
        _leave_out(record, plain, path)
    return plain


@functools.cache
def _later(kind: Any) -> tuple[tuple[str, ...], ...]:
    """Paths of the `LATER` fields of a record and of the records in its fields."""
    paths: list[tuple[str, ...]] = [(name,) for name in getattr(kind, "LATER", ())]
    for name, hint in _hints(kind).items():
        for member in (hint, *typing.get_args(hint)):
            if _is_struct(member) and member is not kind:
                paths += [(name, *path) for path in _later(member)]
    return tuple(dict.fromkeys(paths))


def _leave_out(record: Any, plain: Any, path: tuple[str, ...]) -> None:
    """Removes the field at a path from the plain form of a record where it holds its default."""
    *heads, name = path
    for head in heads:
        record, plain = getattr(record, head, None), plain.get(head) if isinstance(plain, dict) else None
    if name in getattr(type(record), "LATER", ()):
        default = next(f.default for f in msgspec.structs.fields(type(record)) if f.name == name)
        if getattr(record, name) == default:
            del plain[name]


def canonical_json(record: Any) -> bytes:
    """One byte string per meaning: sorted keys, no spaces."""
    return msgspec.json.encode(to_plain(record), order="sorted")


def content_key(*records: Any) -> str:
    """sha256 (hex) of the canonical JSON of the records."""
    return hashlib.sha256(canonical_json(list(records))).hexdigest()


def from_plain(kind: type[T], data: Any, where: str = "config") -> T:
    """A record of type kind from plain data.

    Raises:
        ConfigError: names the path of the first bad key or value, and the nearest valid key where one was misspelt.
    """
    return typing.cast(T, _settled(kind, data, where))


def _settled(kind: Any, value: Any, where: str, base: Any = None) -> Any:
    """The value in the form that its declared type has; `where` is its path, `base` the record that a table of the same
    kind starts from.

    Raises:
        ConfigError: the value is not of that type, not finite, or a key is unknown or missing.
    """
    if type(value) in _records(kind):  # was checked when it was made, and never changes
        return value
    value = _without_wrapping(value)
    kind = _member(kind, value, where)
    origin = typing.get_origin(kind)
    if _is_struct(kind) and isinstance(value, dict):
        return _record(kind, value, where, base if type(base) is kind else None)
    if origin is tuple and isinstance(value, (list, tuple)):
        return _sequence(kind, value, where)
    if origin is dict and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        item = typing.get_args(kind)[1]
        return {_text(key, where): _settled(item, entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is Any:
        return _any(value, where)
    if origin is tuple or not isinstance(value, _SINGLE):  # sets, which have no order; what msgspec takes for a table
        raise _refusal(kind, value, where)
    try:
        if isinstance(value, np.generic | np.ndarray) or (isinstance(value, enum.Enum) and not _is_enum(kind)):
            raise TypeError("a time, or a member of an enum where none is declared")
        value, given = msgspec.convert(value, kind), value
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError):
        raise _refusal(kind, value, where) from None
    if isinstance(given, int) and value != given:
        raise ConfigError(
            where,
            "is a whole number that no float of 64 bits holds",
            got=given,
            allowed="up to 2**53 exactly",
            fix=f"write {value!r}",
        )
    return _finite(kind, value, where)


@functools.cache
def _records(kind: Any) -> frozenset[type]:
    """The records among the members of a declared type."""
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return frozenset(m for m in members if isinstance(m, RecordType))


def _without_wrapping(value: Any) -> Any:
    """A NumPy number, text or array of them, or a value of a type derived from numbers or text, as the plain value that
    it holds, and a table of any kind as a dict; members of enums stay what they are, and so do times and masked arrays,
    which are no numbers."""
    if (
        isinstance(value, np.generic | np.ndarray)
        and value.dtype.kind in "biufU"
        and not isinstance(value, np.ma.MaskedArray)
    ):
        value = value.tolist()
    if isinstance(value, (bool, enum.Enum)):
        return value
    for base in (int, float, str):
        if isinstance(value, base) and type(value) is not base:
            return base(value)
    if not isinstance(value, (dict, int, float, str, list, tuple)) and isinstance(value, Mapping):
        return dict(value)
    return value


def _finite(kind: Any, value: Any, where: str) -> Any:
    """The value of a simple type; numbers are finite, of at most 64 bits, zero has no sign, text can be written."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(where, "is not finite", got=value, allowed=_in_words(kind))
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        raise ConfigError(where, "does not fit 64 bits", got=value, allowed=_in_words(kind))
    if isinstance(value, float):
        return value + 0.0
    return _text(value, where) if isinstance(value, str) else value


def _text(value: str, where: str) -> str:
    """Text that can be written as UTF-8."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(where, "is no text that can be written", got=value, allowed="valid Unicode") from None
    return value


def plain_table(value: Any, where: str) -> dict[str, Any]:
    """A table of what JSON can hold.

    Raises:
        ConfigError: not a table, or names the path of what cannot be written.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(where, "is no table", got=type(value).__name__, allowed="a dict of plain data")
    return typing.cast(dict[str, Any], _any(value, where))


def _any(value: Any, where: str, depth: int = 0, entries: Iterator[int] | None = None) -> Any:
    """A value of a field that may hold anything which JSON can hold, up to MAX_DEPTH tables and lists within one
    another, and MOST_ENTRIES in all; `entries` counts them."""
    entries = itertools.count() if entries is None else entries
    if next(entries) > MOST_ENTRIES:
        raise ConfigError(where[:120], "is one value too many", allowed=f"{MOST_ENTRIES} values in all")
    if depth > MAX_DEPTH:
        raise ConfigError(
            where[:120], "holds tables or lists too deep within one another", allowed=f"{MAX_DEPTH} levels"
        )
    if type(value) in (bool, types.NoneType) or (type(value) is str and value.isascii()):
        return value
    value = _without_wrapping(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ConfigError(where, "has a key that is no text", got=[k for k in value if not isinstance(k, str)][:3])
        return {_text(key, where): _any(entry, f"{where}.{key}", depth + 1, entries) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        plain = [_any(entry, f"{where}[{i}]", depth + 1, entries) for i, entry in enumerate(value)]
        return tuple(plain) if isinstance(value, tuple) else plain
    if value is None or isinstance(value, (bool, int, float, str)):
        return _finite(Any, value, where)
    raise ConfigError(
        where,
        "cannot be written as JSON",
        got=type(value).__name__,
        allowed="tables, lists, numbers, text, true, false and null",
    )


def _sequence(kind: Any, value: list | tuple, where: str) -> tuple:
    """A tuple whose items have the declared types, one type for any number of items or a type for each."""
    items = typing.get_args(kind)
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(value) != len(items):
        raise _refusal(kind, value, where)
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_settled(item, entry, f"{where}[{i}]") for i, (item, entry) in pairs)


def _record(kind: Any, data: dict, where: str, base: Any = None) -> Any:
    """A record from a table: every key known, every required key there, the others as in `base` where there is one."""
    config = kind.__struct_config__
    known = [*kind.__struct_fields__, *([config.tag_field] if config.tag_field else [])]
    data = _with_present_names(former_names(kind, data), data, where)
    for key in data:
        if key not in known:
            raise unknown_key(f"{where}.{key}", key, known, getattr(kind, "RENAMED", ()))
    if config.tag_field and data.get(config.tag_field, config.tag) != config.tag:
        raise ConfigError(
            f"{where}.{config.tag_field}",
            "names another kind of record",
            got=data[config.tag_field],
            allowed=repr(config.tag),
        )
    if issubclass(kind, Record):
        data = {**kind.implied(data), **data}
    hints = _hints(kind)
    values = {name: getattr(base, name) for name in (() if base is None else kind.__struct_fields__)}
    at_sight = _by_name(kind)
    values |= {
        key: value
        if type(value) in at_sight[key].plain or at_sight[key].takes(value)
        else _settled(hints[key], value, f"{where}.{key}", getattr(base, key, None) or _defaults(kind).get(key))
        for key, value in data.items()
        if key in hints
    }
    need_complete(kind, values, where)
    try:
        return kind(**values)
    except ConfigError as error:
        name, _, rest = error.where.partition(".")
        own = re.split(r"[. ]+", error.where)[-1]  # checks name a record's place in a network, not in the table
        if name != kind.__name__ and own not in known:
            raise
        place = f"{where}.{rest if name == kind.__name__ else own}"
        raise type(error)(place, error.problem, got=error.got, allowed=error.allowed, fix=error.fix) from None


def _member(kind: Any, value: Any, where: str) -> Any:
    """The member of a union that a value is meant for: by tag where members are tagged, else by the value's form.

    Raises:
        ConfigError: the tag names no member.
    """
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    members = typing.get_args(kind)
    if value is None and types.NoneType in members:
        return types.NoneType
    structs = [m for m in members if _is_struct(m)]
    if isinstance(value, dict) and structs:
        if len(structs) == 1:
            return structs[0]
        field = structs[0].__struct_config__.tag_field
        tags = {m.__struct_config__.tag: m for m in structs}
        if not isinstance(value.get(field), str) or value[field] not in tags:  # a list or a table has no hash
            raise ConfigError(
                f"{where}.{field}",
                "names no kind of record" if field in value else "is missing",
                got=value.get(field),
                allowed=", ".join(map(str, tags)),
                fix=nearest(value.get(field), tags),
            )
        return tags[value[field]]
    tuples = [m for m in members if typing.get_origin(m) is tuple]
    if isinstance(value, (list, tuple)) and len(tuples) == 1:
        return tuples[0]
    rest = [m for m in members if m not in structs and m not in tuples and m is not types.NoneType]
    return rest[0] if len(rest) == 1 and not structs and not tuples else kind


def _refusal(kind: Any, value: Any, where: str) -> ConfigError:
    """The error for a value of the wrong type or for an unknown word."""
    words = _words(kind)
    if words and isinstance(value, str):
        return ConfigError(
            where, "is not a word that is known here", got=value, allowed=", ".join(words), fix=nearest(value, words)
        )
    shown = value if isinstance(value, (bool, int, float, str, list, tuple, enum.Enum)) else type(value).__name__
    fix = ""
    if isinstance(value, enum.Enum) and value.value in words:
        fix = f"write {value.value!r}"
    if kind is str and isinstance(value, (bool, int, float)):
        fix = f'write "{json.dumps(value)}", with the quotes'
    if isinstance(value, float) and kind is int:
        fix = f"write {int(value)}" if math.isfinite(value) and value == int(value) else "a whole number"
    items = typing.get_args(kind) if typing.get_origin(kind) is tuple else ()
    if items and items[-1] is not Ellipsis and type(value) is items[0]:
        fix = f"write [{', '.join([str(value)] * len(items))}]"
    return ConfigError(where, "is of the wrong type", got=shown, allowed=_in_words(kind), fix=fix)


def _words(kind: Any) -> list[str]:
    """The words that a field may hold, where it holds words."""
    if _is_enum(kind):
        return [str(member.value) for member in kind]
    if typing.get_origin(kind) is typing.Literal:
        return [str(word) for word in typing.get_args(kind)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [word for member in typing.get_args(kind) for word in _words(member)]
    return []


def _in_words(kind: Any) -> str:
    """A declared type as a reader of a configuration would say it."""
    names = {
        int: "an integer",
        float: "a finite number",
        bool: "true or false",
        str: "text",
        types.NoneType: "nothing (None)",
    }
    if kind in names:
        return names[kind]
    words = _words(kind)
    if words:
        return ", ".join(words)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_in_words(member) for member in typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        if items[-1] is Ellipsis:
            return f"a list, each entry {_in_words(items[0])}"
        return "[" + ", ".join(_in_words(item) for item in items) + "]"
    return f"a {kind.__name__} record" if _is_struct(kind) else str(kind)


def need(ok: bool, where: str, got: object, allowed: str) -> None:
    """Checks a value of a record.

    Raises:
        ConfigError: `ok` is false, or the value is a number that is not finite.
    """
    if not ok or (isinstance(got, float) and not math.isfinite(got)):
        raise ConfigError(where, "value out of range", got=got, allowed=allowed)

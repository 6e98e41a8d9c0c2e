"""Frozen configuration records: strict reading from TOML / JSON, canonical bytes, and content keys.

Every record of Q-SpiNN (networks, plans, experiments) is a frozen msgspec Struct. This module is the one place that
turns plain data into records and back, so that every unknown key is reported with its path and the nearest valid one.
"""

from __future__ import annotations

import difflib
import hashlib
import types
import typing
from typing import Any, TypeVar

import msgspec

from qspinn.errors import ConfigError

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of configuration records: immutable, keyword-only, unknown fields are errors."""


def to_plain(record: Any) -> Any:
    """The record as nested dicts, lists, numbers and strings (what JSON and TOML hold)."""
    return msgspec.to_builtins(record)


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
    _check_keys(kind, data, where)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        message, _, path = text.partition(" - at `$")
        place = where + path.rstrip("`")
        raise ConfigError(place, message, fix="correct the value in the configuration") from None


def _check_keys(kind: Any, data: Any, where: str) -> None:
    """Walks data beside the record types and reports the first unknown key with its path."""
    kind = _chosen(kind, data)
    origin = typing.get_origin(kind)
    if origin in (tuple, list) and isinstance(data, (list, tuple)):
        item = typing.get_args(kind)[0]
        for i, entry in enumerate(data):
            _check_keys(item, entry, f"{where}[{i}]")
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(data, dict)):
        return
    hints = typing.get_type_hints(kind)
    tag_field = kind.__struct_config__.tag_field
    known = list(kind.__struct_fields__) + ([tag_field] if tag_field else [])
    for key in data:
        if key not in known:
            raise unknown_key(f"{where}.{key}", key, known)
    for key, value in data.items():
        if key in hints:
            _check_keys(hints[key], value, f"{where}.{key}")


def _chosen(kind: Any, data: Any) -> Any:
    """The member of a union that data is meant for: by tag where members are tagged, else the only record."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    members = [m for m in typing.get_args(kind) if m is not type(None)]
    structs = [m for m in members if isinstance(m, type) and issubclass(m, msgspec.Struct)]
    if isinstance(data, dict) and structs:
        for member in structs:
            config = member.__struct_config__
            if config.tag_field and data.get(config.tag_field) == config.tag:
                return member
        return structs[0] if len(structs) == 1 else kind
    rest = [m for m in members if m not in structs]
    return rest[0] if len(rest) == 1 else kind


def unknown_key(where: str, key: str, known: list[str]) -> ConfigError:
    """The error for a key that does not exist, naming the nearest one that does."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else "remove it"
    return ConfigError(where, "unknown key", got=key, allowed=", ".join(known), fix=fix)


def with_override(data: dict, assignment: str) -> dict:
    """A copy of plain data with one dotted assignment applied, e.g. ``network.n_neurons=100``.

    The value is read as JSON where it is JSON, else as text. Intermediate tables are made when missing;
    whether the key exists is checked when the record is built.
    """
    path, eq, text = assignment.partition("=")
    if not eq or not path:
        raise ConfigError("--set", "not an assignment", got=assignment, allowed="path.to.key=value")
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    return _assign(data, path.strip().split("."), value, path)


def _assign(data: Any, keys: list[str], value: Any, path: str) -> dict:
    if not isinstance(data, dict):
        raise ConfigError(f"--set {path}", "passes through something that is not a table", got=data)
    head, *rest = keys
    copy = dict(data)
    copy[head] = _assign(copy.get(head, {}), rest, value, path) if rest else value
    return copy

"""Constructors that take values by name, and say which name they do not know or miss."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from qspinn.errors import ConfigError
from qspinn.records.words import unknown_key


class NamedFields(msgspec.StructMeta):
    """Metaclass of structs whose constructors refuse an unknown name, a missing one, and values without a name."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except TypeError:
            need_names(cls, args, values)
            raise


def need_names(kind: Any, args: tuple[Any, ...], values: dict[str, Any]) -> None:
    """Refuses values without a name, values of names that a struct does not have, and one without what it must have.

    Raises:
        ConfigError: names the first of them.
    """
    known = list(kind.__struct_fields__)
    if args:
        names = ", ".join(f"{name}=" for name in known[: len(args)])
        raise ConfigError(kind.__name__, "takes its values by name", got=args, fix=f"{kind.__name__}({names}...)")
    for key in values:
        if key not in known:
            raise unknown_key(f"{kind.__name__}.{key}", key, known, getattr(kind, "RENAMED", ()))
    need_complete(kind, values, kind.__name__)


def need_complete(kind: Any, values: dict[str, Any], where: str) -> None:
    """Refuses a table without a field that has no default.

    Raises:
        ConfigError: names the fields that are missing.
    """
    missing = [name for name in _required(kind) if name not in values]
    if missing:
        raise ConfigError(
            where,
            "a required key is missing",
            got=sorted(values),
            allowed=f"with {', '.join(missing)}",
            fix=f"add {missing[0]}",
        )


@functools.cache
def _required(kind: Any) -> tuple[str, ...]:
    """The fields of a struct that have no default."""
    return tuple(f.name for f in msgspec.structs.fields(kind) if f.required)

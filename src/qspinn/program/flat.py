"""Populations as files hold them: one table of all fields without tables within, where "" and null mean absent.

The format of files is older than the parts of `LifOp`, and stays: `flat_of` and `from_flat` are the two ways between
them. What a part's fields are called in files stands with the part (`Part.FLAT`).
"""

from __future__ import annotations

import functools
import typing
from typing import Any, Literal

import msgspec

from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program.ops import AddOp, ConvOp, DenseOp, EventsOp, LifOp, Op, PoissonOp, PoolOp, ReadOp, SelectOp, VoteOp
from qspinn.program.parts import Part
from qspinn.records.record import Record


class FlatLif(Record, frozen=True, tag="lif"):
    """A `LifOp` in the file of a program: the names of tensors that are absent are empty."""

    name: str
    n: int
    v_fmt: QFormat
    v_min: int
    in_shift: int
    decay: str
    decay_shift: int
    rounding: Rounding
    v_th: str
    v_th_shift: int
    v_reset: str
    n_ref: int
    winner: bool
    stream: int
    theta: str = ""
    theta_shift: int = 0
    inhibition: str = ""
    inhibition_shift: int = 0
    bias: str = ""
    bias_shift: int = 0
    in_shifts: str = ""
    strict: bool = False
    reset: Literal["value", "subtract"] = "value"
    spiking: bool = True
    current: str = ""
    current_shift: int = 0
    current_fmt: QFormat | None = None
    store_fmt: QFormat | None = None
    store_min: int = 0
    reset_delay: bool = False
    theta_fmt: QFormat | None = None
    theta_step: str = ""
    theta_decay: str = ""
    theta_decay_shift: int = 0
    max_spikes: int = 1


FlatOp = PoissonOp | EventsOp | SelectOp | DenseOp | ConvOp | PoolOp | AddOp | FlatLif | VoteOp | ReadOp
"""An operation in the file of a program."""


def _kinds() -> list[tuple[str, type[Part], bool]]:
    """(field of LifOp, kind of part that it may hold, whether it holds one always), in order."""
    hints = typing.get_type_hints(LifOp)
    members = {field: typing.get_args(hints[field]) or (hints[field],) for field in LifOp.__struct_fields__}
    return [
        (field, kind, len(kinds) == 1)
        for field, kinds in members.items()
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Part)
    ]


KINDS = _kinds()
FILE_NAMES = {f"{place}.{field}": name for place, kind, _ in KINDS for field, name in kind.FLAT.items()}
"""The name in files of every field of a part, by its path in LifOp."""
_OWN = [field for field in LifOp.__struct_fields__ if field not in {place for place, _, _ in KINDS}]
"""Fields of LifOp that files hold under the same name."""
_ABSENT = {f.name: f.default for f in msgspec.structs.fields(FlatLif)}
"""What the fields of a file hold where there is nothing to say."""


def flat_of(op: Op) -> FlatOp:
    """An operation in the form of files."""
    if not isinstance(op, LifOp):
        return op
    values = {field: getattr(op, field) for field in _OWN}
    for part in op.parts.values():
        values |= {name: x for field, name in part.FLAT.items() if (x := getattr(part, field)) is not None}
    return FlatLif(**values)


def from_flat(op: FlatOp, where: str = "LifOp") -> Op:
    """An operation from the form of files; inverse of `flat_of`.

    Args:
        where: what messages call the operation.

    Raises:
        ConfigError: names the field that belongs to a part which is not there, or is there in half.
    """
    if not isinstance(op, FlatLif):
        return op
    parts: dict[str, Any] = {}
    used = set(_OWN)
    for place, kind, always in KINDS:
        if always or _is_there(kind, op, where):
            if place in parts:
                raise ConfigError(
                    f"{where}.{_needed(kind)[0]}",
                    f"stands beside another kind of {place}",
                    got=sorted(parts[place].FLAT.values()),
                    allowed="one of them",
                )
            parts[place] = _part(kind, op)
            used |= set(kind.FLAT.values())
    _need_owners(op, used, where)
    values: dict[str, Any] = {field: getattr(op, field) for field in _OWN}
    return LifOp(**values, **parts)


@functools.cache
def _required(kind: type[Part]) -> frozenset[str]:
    """The fields of a part that have no default."""
    return frozenset(f.name for f in msgspec.structs.fields(kind) if f.required)


@functools.cache
def _needed(kind: type[Part]) -> tuple[str, ...]:
    """The fields of files without which a part is not there."""
    names = [kind.FLAT[name] for name in kind.__struct_fields__ if name in _required(kind)]
    return tuple(name for name in names if _ABSENT[name] in ("", None))


def _is_there(kind: type[Part], op: FlatLif, where: str) -> bool:
    """Whether a file has a part; it comes whole or not at all."""
    there = {name: getattr(op, name) != _ABSENT[name] for name in _needed(kind)}
    if any(there.values()) and not all(there.values()):
        missing = [name for name, yes in there.items() if not yes]
        raise ConfigError(
            f"{where}.{missing[0]}",
            f"is missing beside {', '.join(sorted(there.keys() - set(missing)))}",
            got=getattr(op, missing[0]),
            allowed=f"{', '.join(there)}: all of them, or none",
        )
    return all(there.values())


def _part(kind: type[Part], op: FlatLif) -> Part:
    """A part from its fields in a file; those that are absent stay at their defaults."""
    values: dict[str, Any] = {field: getattr(op, name) for field, name in kind.FLAT.items()}
    return kind(**{f: x for f, x in values.items() if f in _required(kind) or x != _ABSENT[kind.FLAT[f]]})


def _need_owners(op: FlatLif, used: set[str], where: str) -> None:
    """Refuses fields that say something of parts that are not there."""
    for name in op.__struct_fields__:
        if name not in used and getattr(op, name) != _ABSENT[name]:
            owners = (" and ".join(_needed(kind)) for _, kind, _ in KINDS if name in kind.FLAT.values())
            raise ConfigError(
                f"{where}.{name}",
                "belongs to a part that is not there",
                got=getattr(op, name),
                allowed=repr(_ABSENT[name]),
                fix=f"add {' or '.join(owners)}, or leave it out",
            )

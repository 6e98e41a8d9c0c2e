"""The integer program: tensors of codes and an ordered list of operations.

A Program is all that a backend needs. It holds no float: formats, shifts and codes only.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import sealed
from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat
from qspinn.program.ops import Op
from qspinn.records.record import Record, from_plain


class Note(Record, frozen=True):
    """Note on a tensor of which lowering could not keep `count` of `total` values, for example those that the largest
    code cuts off.

    Attributes:
        path: of the tensor.
        problem: what happened to these values, e.g. "clipped".
    """

    path: str
    problem: str
    count: int
    total: int

    def check(self) -> None:
        if not 0 < self.count <= self.total:
            raise ConfigError("Note.count", "is out of range", got=self.count, allowed=f"1..{self.total}")

    @property
    def share(self) -> float:
        """Share 0..1 of the tensor's values."""
        return self.count / self.total

    def __str__(self) -> str:
        return f"{self.path}: {self.problem} {self.count:,} of {self.total:,} values ({self.share:.1%})"


NOTABLE_SHARE = 0.01
"""Share of a tensor's values above which a note about them is shown."""


class _Described(Record, frozen=True):
    """All of a program but its tensors."""

    name: str
    n_inputs: int
    n_steps: int
    seed: int
    ops: tuple[Op, ...]
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    notes: tuple[Note, ...]


class CodeTensor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Integer codes with their format. codes: int32, any shape, C order, read-only; a copy where others may write.

    Whether the codes lie within the format is checked with the program, which knows the tensor's name.

    Raises:
        ConfigError: the codes are no integers of 32 bits, or the format is none.
    """

    codes: NDArray[np.int32]
    fmt: QFormat

    def __post_init__(self) -> None:
        if not isinstance(self.fmt, QFormat):
            raise ConfigError("tensor.fmt", "is no format", got=type(self.fmt).__name__, allowed="a QFormat")
        msgspec.structs.force_setattr(
            self, "codes", sealed("codes", self.codes, np.int32, low=-(1 << 31), high=(1 << 31) - 1, error=ConfigError)
        )


class _Fixed(dict[str, CodeTensor]):
    """Tensors by path, none of which can be exchanged: engines keep what they made of them."""

    def _refuse(self, *arguments: Any, **named: Any) -> Any:
        raise ConfigError(
            "program.tensors",
            "cannot be changed",
            fix="make another program: msgspec.structs.replace(program, tensors=program.tensors | {path: tensor})",
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[_Fixed], tuple[dict[str, CodeTensor]]]:
        return _Fixed, (dict(self),)


class Program(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """An executable integer network. It never changes, its codes included: engines keep what they made of it.

    Attributes:
        n_inputs: sources of the input, before any selection.
        n_steps: steps per sample.
        seed: of every random draw at run time.
        ops: in execution order.
        tensors: by path.
        labels: class names, in the order of the vote columns.
        provenance: where the program comes from (configuration, data checksum, versions); not used in execution.
        notes: what lowering could not keep; not used in execution.
    """

    name: str
    n_inputs: int
    n_steps: int
    seed: int
    ops: tuple[Op, ...]
    tensors: dict[str, CodeTensor]
    labels: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        if not (
            isinstance(self.tensors, dict)
            and all(isinstance(n, str) and isinstance(t, CodeTensor) for n, t in self.tensors.items())
        ):
            raise ConfigError(
                "program.tensors",
                "is no table of code tensors by path",
                got=type(self.tensors).__name__,
                allowed="dict of str to CodeTensor",
            )
        msgspec.structs.force_setattr(self, "tensors", _Fixed(self.tensors))
        rest = {name: getattr(self, name) for name in _Described.__struct_fields__}
        described = from_plain(_Described, rest, "program")
        for name in rest:
            msgspec.structs.force_setattr(self, name, getattr(described, name))

    def notable(self) -> list[Note]:
        """The notes that concern more than one value in a hundred of their tensor."""
        return [note for note in self.notes if note.share > NOTABLE_SHARE]

    def codes(self, name: str) -> NDArray[np.int32]:
        return self.tensors[name].codes

    def ops_of(self, kind: type) -> list[Any]:
        return [op for op in self.ops if isinstance(op, kind)]

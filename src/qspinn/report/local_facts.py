"""What the page shows of local learning: the widths of every kind of tensor, and what learning with them costs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from qspinn.checkpoint import LocalDeclaration
from qspinn.learning.local import sizes_of
from qspinn.learning.local.formats import DEFAULTS, local_rules
from qspinn.memory import MemoryRow


class KindFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of tensor in all layers of the winner beside the float baseline.

    Attributes:
        role: in the memory account; empty for what it does not count.
        widths: bits in the winner's plan, layer by layer.
        rounding: of the first layer's.
        count, float_bits, bits: how many values, and what they need.
    """

    kind: str
    role: str
    widths: tuple[int, ...]
    rounding: str
    count: int
    float_bits: int
    bits: int


class Local(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All kinds of tensors; the declaration of the winner."""

    told: LocalDeclaration
    facts: tuple[KindFacts, ...]

    @property
    def n_neurons(self) -> int:
        return sum(math.prod(size.target) for size in sizes_of(self.told.network, self.told.shape))


def local_of(told: LocalDeclaration, float_memory: Iterable[MemoryRow], memory: Iterable[MemoryRow]) -> Local:
    """The facts of a run's winner, from its declaration and both accounts.

    Raises:
        ConfigError: the declaration's plan does not fit its layers.
    """
    names = [size.name for size in sizes_of(told.network, told.shape)]
    rules = local_rules(told.plan, names)
    old, new = list(float_memory), list(memory)

    def of(rows: list[MemoryRow], kind: str) -> list[MemoryRow]:
        return [row for row in rows if row.path.endswith(f".{kind}")]

    return Local(told=told, facts=tuple(KindFacts(
        kind=kind, role=next((row.role for row in of(new, kind)), ""),
        widths=tuple(rules[f"{name}.{kind}"].bits for name in names), count=sum(row.count for row in of(new, kind)),
        rounding=rules[f"{names[0]}.{kind}"].rounding.value, float_bits=sum(row.total_bits for row in of(old, kind)),
        bits=sum(row.total_bits for row in of(new, kind))) for kind in DEFAULTS))

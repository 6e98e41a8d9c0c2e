"""Significance: which tensor tolerates which precision, measured one tensor at a time.

All other tensors stay at 16 bits, the widest the engine runs; its accuracy there is on each curve beside the float
network's, so what that stand-in costs is seen and not assumed (docs/adr/0002).
"""

from __future__ import annotations

import msgspec

from qspinn.exploration.scheme import Sweep
from qspinn.fixedpoint import Rounding
from qspinn.memory import MemoryAccount


class Significance(msgspec.Struct, frozen=True, kw_only=True):
    """The precision curve of one tensor under one rounding.

    Attributes:
        bits, accuracy: the curve, widths descending; accuracy as a share in 0..1.
        harmless_bits: the smallest width down to which no width loses more than `harmless_points`.
        significance: points of accuracy lost per kilobit of memory saved, averaged over the curve.
    """

    path: str
    rounding: Rounding
    bits: tuple[int, ...]
    accuracy: tuple[float, ...]
    harmless_bits: int
    significance: float

    def drop_at(self, bits: int) -> float:
        """Accuracy lost at a width against the widest point (share); at the next wider point where not measured."""
        measured = [b for b in self.bits if b >= bits]
        return self.accuracy[0] - self.accuracy[self.bits.index(min(measured))] if measured else 0.0


def sweep_bits(sweep: Sweep) -> tuple[int, ...]:
    """The widths of the sweep, descending, the wide one always first."""
    return tuple(sorted({16, *sweep.bits}, reverse=True))


def significance(sweep: Sweep, accuracy: dict[str, float], account: MemoryAccount) -> list[Significance]:
    """Ranked curves, most significant first.

    Args:
        accuracy: of every point that could be lowered, by label ``path|rounding|bits``; a curve consists of those
            there are.
        account: float memory account, for the number of values in each tensor.
    """
    counts = {row.path: row.count for row in account.rows}
    measured: dict[tuple[str, Rounding], dict[int, float]] = {}
    for label, value in accuracy.items():
        path, rounding, width = label.split("|")
        measured.setdefault((path, Rounding(rounding)), {})[int(width)] = value
    curves = []
    for (path, rounding_of), accuracies in measured.items():
        bits = tuple(sorted(accuracies, reverse=True))
        curve = tuple(accuracies[b] for b in bits)
        lost = [max(0.0, curve[0] - a) * 100 for a in curve]
        saved = [counts[path] * (bits[0] - b) / 1000 for b in bits]
        curves.append(
            Significance(
                path=path,
                rounding=rounding_of,
                bits=bits,
                accuracy=curve,
                harmless_bits=_harmless(bits, lost, sweep.harmless_points),
                significance=sum(lost) / max(sum(saved), 1e-9),
            )
        )
    return sorted(curves, key=lambda s: (-s.significance, s.path, s.rounding.value))


def _harmless(bits: tuple[int, ...], lost: list[float], tolerance: float) -> int:
    """The last width before the first that loses more than the tolerance."""
    harmless = bits[0]
    for width, loss in zip(bits, lost, strict=True):
        if loss > tolerance:
            break
        harmless = width
    return harmless

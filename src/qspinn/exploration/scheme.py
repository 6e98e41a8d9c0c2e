"""Search settings that all families have in common."""

from __future__ import annotations

import enum

from qspinn.records.record import Record, need


class Scheme(enum.Enum):
    """Time of quantization: after training (PTQ), or in it (ITQ).

    PTQ: after float training, in one go. PTQ_ADAPT: the same, then only the thresholds are learned anew on the grid.
    ITQ: STDP itself runs on the grid, from fresh weights.
    """

    PTQ = "ptq"
    PTQ_ADAPT = "ptq_adapt"
    ITQ = "itq"


class Sweep(Record, frozen=True):
    """The significance sweep, one tensor at a time: `[search.sweep]`.

    Attributes:
        bits: widths that are tried, all other tensors as wide as they can be.
        samples: validation samples on which every point is measured; 0 for all.
        harmless_points: a width is harmless while the sweep loses no more than this [points of accuracy].
    """

    bits: tuple[int, ...]
    samples: int
    harmless_points: float

    def check(self) -> None:
        for name in ("samples", "harmless_points"):
            need(getattr(self, name) >= 0, f"search.sweep.{name}", getattr(self, name), ">= 0")


SWEEP_NAMES = (("sensitivity_bits", "sweep.bits"), ("harmless_points", "sweep.harmless_points"))
"""Former names of keys of `[search]` in every family, and the present ones."""


def need_some(where: str, record: Record, *names: str) -> None:
    """Checks that lists of a record are not empty.

    Raises:
        ConfigError: names the list; `where` is the record's path.
    """
    for name in names:
        need(len(getattr(record, name)) > 0, f"{where}.{name}", getattr(record, name), "at least one entry")


def need_header(name: str, seed: int, version: int) -> None:
    """Checks the head of an experiment's file: name, seed and version; the name is that of the run's folder."""
    need(
        name not in ("", ".", "..") and not set(name) & set("/\\\0") and len(name.encode()) <= 200,
        "name",
        name,
        "the name of a file: no / and no \\, not empty, up to 200 bytes",
    )
    need(0 <= seed < 1 << 32, "seed", seed, "0 <= seed < 2**32")
    need(version == 1, "version", version, "1 (a newer file needs a newer qspinn)")

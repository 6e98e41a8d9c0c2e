"""What the search settings of all families have in common."""

from __future__ import annotations

import enum

from qspinn.records.record import need


class Scheme(enum.Enum):
    """When quantization happens.

    PTQ: after float training, in one go. PTQ_ADAPT: the same, then only the thresholds are learned anew on the grid.
    ITQ: STDP itself runs on the grid, from fresh weights.
    """

    PTQ = "ptq"
    PTQ_ADAPT = "ptq_adapt"
    ITQ = "itq"


def need_header(name: str, seed: int, version: int) -> None:
    """What every experiment's file must have; runs are stored in folders of the experiment's name."""
    need(
        name not in ("", ".", "..") and not set(name) & set("/\\\0") and len(name.encode()) <= 200,
        "name",
        name,
        "the name of a file: no / and no \\, not empty, up to 200 bytes",
    )
    need(0 <= seed < 1 << 32, "seed", seed, "0 <= seed < 2**32")
    need(version == 1, "version", version, "1 (a newer file needs a newer qspinn)")

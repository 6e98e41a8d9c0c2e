"""Words of other libraries, and the advice that names the valid word nearest to an unknown one."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from qspinn.errors import ConfigError

OTHER_WORDS = {
    "soft": "subtract",
    "hard": "value",
    "zero": "value",
    "avg": "average",
    "mean": "average",
    "floor": "truncate",
    "round": "nearest",
    "half_up": "nearest",
    "fix": "toward_zero",
    "per_tensor": "global",
    "per_axis": "per_channel",
    "absmax": "max",
    "qat": "itq",
    "count": "spikes",
    "beta": "decay",
    "alpha": "current_decay",
    "threshold": "v_th",
    "v_threshold": "v_th",
    "theta": "v_th",
    "reset_mechanism": "reset",
    "kernel_size": "kernel",
    "t_ref": "n_ref_steps",
    "refractory": "n_ref_steps",
    "time_steps": "n_steps",
    "timesteps": "n_steps",
    "name": "tensor",
}
"""Words of other libraries, and the word that stands for the same thing here."""

REMARKS = {"zero": " with v_reset = 0"}
"""What goes with the word here where the other library's word says more."""


def nearest(word: Any, known: typing.Iterable[str]) -> str:
    """The advice that names the valid word nearest to another one; empty where none is near."""
    known = [str(k) for k in known]
    text = str(word).strip().lower().replace("-", "_").replace(" ", "_")
    if OTHER_WORDS.get(text) in known:
        return f"did you mean {OTHER_WORDS[text]!r}{REMARKS.get(text, '')}?"
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def unknown_key(where: str, key: str, known: list[str], former: Iterable[tuple[str, str]] = ()) -> ConfigError:
    """The error for a key that does not exist, naming the nearest one that does; `former` has names of earlier versions
    and the present ones."""
    fix = nearest(key, [*known, *(old for old, _ in former)]) or "remove it"
    for old, new in former:
        fix = fix.replace(f"{old!r}", f"{new!r}")
    return ConfigError(where, "unknown key", got=key, allowed=", ".join(known), fix=fix)

"""Q-SpiNN: find the cheapest integer version of a spiking neural network that keeps its accuracy.

Importing this package is light: submodules are loaded when one of their names is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from qspinn.version import __version__

_HOME = {
    "Experiment": "qspinn.explore.space",
    "Network": "qspinn.network",
    "Program": "qspinn.program",
    "QFormat": "qspinn.fixedpoint",
    "QSpinnError": "qspinn.errors",
    "QuantPlan": "qspinn.plan",
    "QuantRule": "qspinn.plan",
    "Rounding": "qspinn.fixedpoint",
    "Spikes": "qspinn.spikes",
    "calibrate": "qspinn.calibrate",
    "diehl_cook": "qspinn.models",
    "explore": "qspinn.explore.search",
    "load": "qspinn.program",
    "load_experiment": "qspinn.explore.space",
    "lower": "qspinn.lower",
    "run": "qspinn.runtime",
    "save": "qspinn.program",
    "write_report": "qspinn.report",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qspinn' has no attribute {name!r}")
    # `qspinn.calibrate` and `qspinn.lower` are functions here although modules of that name exist: the import system
    # binds a submodule to its parent, so the function is bound again, once, over it.
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value

"""Q-SpiNN: find the cheapest integer version of a spiking neural network that keeps its accuracy.

Importing this package is light: a name's home is loaded when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from qspinn.version import __version__

_HOME = {
    "Candidate": "explore.space",
    "DataConfig": "data",
    "EventData": "data",
    "Experiment": "explore.space",
    "LayeredExperiment": "explore.layered_space",
    "Network": "network",
    "Program": "program",
    "QFormat": "fixedpoint",
    "QSpinnError": "errors",
    "QuantPlan": "plan",
    "QuantRule": "plan",
    "Rounding": "fixedpoint",
    "Spikes": "spikes",
    "StdpTraining": "learning.stdp",
    "Trained": "checkpoint",
    "diehl_cook": "models",
    "load": "program",
    "load_data": "workflow",
    "load_experiment": "workflow",
    "quantize": "lower",
    "run": "runtime",
    "save": "program",
    "train": "workflow",
    "evaluate": "workflow",
    "sensitivity": "workflow",
    "write_report": "report",
}

__all__ = ["__version__", "explore", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name == "explore":
        return importlib.import_module("qspinn.explore")  # the package can be called: see its docstring
    if name not in _HOME:
        raise AttributeError(f"module 'qspinn' has no attribute {name!r}")
    return getattr(importlib.import_module(f"qspinn.{_HOME[name]}"), name)

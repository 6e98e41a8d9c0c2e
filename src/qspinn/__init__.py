"""Q-SpiNN: find the cheapest integer version of a spiking neural network that keeps its accuracy.

Importing this package is light: a name's home is loaded when the name is first used.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from qspinn import optional
from qspinn.version import __version__

_HOME = {
    "Candidate": "explore.space",
    "convert": "learning.quantized",
    "DataConfig": "data",
    "diehl_cook": "models",
    "evaluate": "workflow",
    "EventData": "data",
    "Experiment": "explore.space",
    "fit": "learning.supervised",
    "layer_ranges": "learning.supervised",
    "LayeredExperiment": "explore.layered_space",
    "LayeredNetwork": "layers",
    "load": "program",
    "load_data": "workflow",
    "load_events": "data",
    "load_experiment": "workflow",
    "LocalExperiment": "explore.local_space",
    "lower_layers": "lower_layers",
    "Network": "network",
    "prepare": "learning.quantized",
    "Program": "program",
    "QFormat": "fixedpoint",
    "QSpinnError": "errors",
    "quantize": "lower",
    "QuantPlan": "plan",
    "QuantRule": "plan",
    "restore_rates": "rebalance",
    "Rounding": "fixedpoint",
    "run": "runtime",
    "save": "program",
    "sensitivity": "workflow",
    "Spikes": "spikes",
    "StdpTraining": "learning.stdp",
    "Supervision": "learning.supervision",
    "SurrogateNet": "learning.surrogate",
    "train": "workflow",
    "Trained": "checkpoint",
    "write_report": "report",
}

__all__ = ["__version__", "explore", *sorted(_HOME)]


class _Package(types.ModuleType):
    """The package as a module whose public names stay what they are.

    Importing a submodule makes Python set an attribute of that name on the package, which would hide the function of
    the same name (`lower_layers`) from the second use on.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            types.ModuleType.__setattr__(self, name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "explore":
        return optional.module("qspinn.explore", "qspinn.explore")  # the package can be called: see its docstring
    if name not in _HOME:
        raise AttributeError(f"module 'qspinn' has no attribute {name!r}")
    return getattr(optional.module(f"qspinn.{_HOME[name]}", f"qspinn.{name}"), name)

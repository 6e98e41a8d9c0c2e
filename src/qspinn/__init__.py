"""Q-SpiNN: find the cheapest integer version of a spiking neural network that keeps its accuracy.

Importing this package is light: a name's home is loaded when the name is first used.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from qspinn import former, optional

__version__ = "0.1.0"

_HOME = {
    "Candidate": "exploration.competing.space",
    "convert": "learning.gradients.quantized",
    "DataConfig": "data",
    "diehl_cook": "networks.models",
    "evaluate": "workflow",
    "EventData": "data",
    "explore": "exploration.search",
    "Experiment": "exploration.competing.space",
    "fit": "learning.gradients.training",
    "layer_ranges": "learning.gradients.training",
    "LayeredExperiment": "exploration.layered.space",
    "LayeredNetwork": "networks.layered",
    "load": "program",
    "load_data": "workflow",
    "load_events": "data",
    "load_experiment": "workflow",
    "LocalExperiment": "exploration.local.space",
    "lower_layers": "quantization.layered",
    "Network": "networks.competing",
    "prepare": "learning.gradients.quantized",
    "Program": "program",
    "QFormat": "fixedpoint",
    "QSpinnError": "errors",
    "quantize": "quantization.competing",
    "QuantPlan": "quantization.plan",
    "QuantRule": "quantization.plan",
    "Recordings": "data",
    "restore_rates": "quantization.rates",
    "Rounding": "fixedpoint",
    "run": "runtime",
    "save": "program",
    "sensitivity": "workflow",
    "Spikes": "spikes",
    "StdpTraining": "learning.stdp.training",
    "Supervision": "learning.gradients.settings",
    "SurrogateNet": "learning.gradients.surrogate",
    "train": "workflow",
    "Trained": "networks.checkpoint",
    "write_report": "report",
}

__all__ = ["__version__", *sorted(_HOME)]


class _Package(types.ModuleType):
    """The package as a module whose public names stay what they are.

    Importing a submodule makes Python set an attribute of that name on the package, which would hide the function of
    the same name (`lower_layers`) from the second use on.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            types.ModuleType.__setattr__(self, name, value)


sys.modules[__name__].__class__ = _Package
former.install()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qspinn' has no attribute {name!r}")
    return getattr(optional.module(f"qspinn.{_HOME[name]}", f"qspinn.{name}"), name)

"""Q-SpiNN: find the cheapest integer version of a spiking neural network that keeps its accuracy.

Importing this package is light: a name's home is loaded when the name is first used.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

from qspinn import former, optional

__version__ = "0.1.0"

_HOME = {
    "Accuracy": "exploration.statistics",
    "calibrate": "workflow.verbs",
    "Candidate": "exploration.competing.space",
    "convert": "workflow.verbs",
    "DataConfig": "data",
    "diehl_cook": "networks.models",
    "evaluate": "workflow.verbs",
    "EventData": "data",
    "Experiment": "exploration.competing.space",
    "explore": "exploration.search",
    "LayeredExperiment": "exploration.layered.space",
    "LayeredNetwork": "networks.layered",
    "load": "workflow.verbs",
    "load_data": "workflow.experiments",
    "load_events": "data",
    "load_experiment": "workflow.experiments",
    "LocalExperiment": "exploration.local.space",
    "LocalLearning": "learning.local.settings",
    "LocalNetwork": "networks.local",
    "Network": "networks.competing",
    "prepare": "workflow.verbs",
    "Program": "program",
    "QFormat": "fixedpoint",
    "QSpinnError": "errors",
    "quantize": "workflow.verbs",
    "QuantPlan": "quantization.plan",
    "QuantRule": "quantization.plan",
    "Recordings": "data",
    "restore_rates": "quantization.rates",
    "Rounding": "fixedpoint",
    "run": "runtime",
    "save": "workflow.verbs",
    "sensitivity": "workflow.verbs",
    "Spikes": "spikes",
    "StdpTraining": "learning.stdp.training",
    "Supervision": "learning.gradients.settings",
    "SurrogateNet": "learning.gradients.surrogate",
    "train": "workflow.verbs",
    "Trained": "networks.checkpoint",
    "TrainedLayers": "networks.checkpoint",
    "write_report": "report",
}
_FORMER = {
    "fit": ("learning.gradients.training", "train"),
    "layer_ranges": ("learning.gradients.training", "calibrate"),
    "lower_layers": ("quantization.layered", "quantize"),
}
"""Former public name -> (module that has it, public name that does the same for networks of all families)."""

__all__ = ["__version__", *sorted(_HOME)]


class _Package(types.ModuleType):
    """The package as a module whose public names stay what they are.

    Importing a submodule makes Python set an attribute of that name on the package, which would hide the function of
    the same name (`lower_layers`) from the second use on.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not ((name in _HOME or name in _FORMER) and isinstance(value, types.ModuleType)):
            types.ModuleType.__setattr__(self, name, value)


sys.modules[__name__].__class__ = _Package
former.install()


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        home, present = _FORMER[name]
        warnings.warn(f"qspinn.{name} is called qspinn.{present} now", DeprecationWarning, stacklevel=2)
        return getattr(optional.module(f"qspinn.{home}", f"qspinn.{name}"), name)
    if name not in _HOME:
        raise AttributeError(f"module 'qspinn' has no attribute {name!r}")
    return getattr(optional.module(f"qspinn.{_HOME[name]}", f"qspinn.{name}"), name)

"""Former places of public modules: importing one still works in this version, with a warning that names the new place.

`qspinn.plan` is `qspinn.quantization.plan` now, for example. The old name stands for the very same module.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader
else:  # it would import a fifth of what `qspinn --help` takes, and does nothing here
    Loader = object

MOVED = {
    "architectures": "networks.published",
    "calibrators": "quantization.calibrators",
    "checkpoint": "networks.checkpoint",
    "data.aedat": "data.events.aedat",
    "data.dataset": "data.images.dataset",
    "data.digits": "data.images.digits",
    "data.dvs_gesture": "data.events.dvs_gesture",
    "data.encoders": "data.images.encoders",
    "data.event_dataset": "data.events.dataset",
    "data.event_set": "data.events.event_set",
    "data.frames": "data.events.frames",
    "data.mnist": "data.images.mnist",
    "data.nmnist": "data.events.nmnist",
    "data.synthetic_gestures": "data.events.synthetic_gestures",
    "data.tactile": "data.events.tactile",
    "explore": "exploration",
    "exploration.competing.bench": "exploration.competing.measurement",
    "exploration.layered.bench": "exploration.layered.measurement",
    "exploration.local.bench": "exploration.local.measurement",
    "explore.competing": "exploration.competing.measurement",
    "explore.crew": "exploration.workers",
    "explore.evaluate": "exploration.tasks",
    "explore.event_splits": "exploration.event_splits",
    "explore.family": "exploration.family",
    "explore.journal": "exploration.journal",
    "explore.layered": "exploration.layered.measurement",
    "explore.layered_proposal": "exploration.layered.proposal",
    "explore.layered_space": "exploration.layered.space",
    "explore.local": "exploration.local.measurement",
    "explore.local_proposal": "exploration.local.proposal",
    "explore.local_space": "exploration.local.space",
    "explore.outcome": "exploration.outcome",
    "explore.pareto": "exploration.pareto",
    "explore.proposal": "exploration.competing.proposal",
    "explore.reuse": "exploration.layered.reuse",
    "explore.reward": "exploration.reward",
    "explore.search": "exploration.search",
    "explore.sensitivity": "exploration.sensitivity",
    "explore.space": "exploration.competing.space",
    "explore.statistics": "exploration.statistics",
    "explore.stored": "exploration.artifacts",
    "layer_grid": "quantization.grid",
    "layers": "networks.layered",
    "learning.gradients.kernels.usual": "learning.gradients.kernels.fast",
    "learning.grid": "learning.stdp.grid",
    "learning.quantized": "learning.gradients.quantized",
    "learning.resume": "learning.gradients.resume",
    "learning.supervised": "learning.gradients.training",
    "learning.supervision": "learning.gradients.settings",
    "learning.surrogate": "learning.gradients.surrogate",
    "lower": "quantization.competing",
    "lower_layers": "quantization.layered",
    "models": "networks.models",
    "network": "networks.competing",
    "ops": "program.ops",
    "plan": "quantization.plan",
    "ranges": "quantization.ranges",
    "rebalance": "quantization.rates",
    "report.competing": "report.sections.competing",
    "report.fields": "report.images",
    "report.layers": "report.sections.layered",
    "report.local": "report.sections.local",
    "runtime.arithmetic": "compiled.scalars",
    "weight_codes": "quantization.weights",
}
"""Former name -> present name, both within `qspinn`."""


MOVED_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "data.events": {"data.events.recording": ("Events", "bin_events", "crop_time")},
    "learning.local": {
        "networks.local": ("LayerSize", "LocalLayer", "LocalNetwork", "sizes_of"),
        "learning.local.settings": ("LocalLearning",),
    },
    "learning.stdp": {"learning.stdp.training": ("StdpTraining", "mean_responses", "plastic", "respond", "train")},
    "networks.checkpoint": {"learning.local.model": ("LocalDeclaration", "TrainedLocal", "load_local")},
    "records": {"records.record": ("Record", "canonical_json", "content_key", "from_plain", "to_plain")},
    "program": {"files": ("replacing", "write_atomic")},
    "quantization.plan": {
        "quantization.paths": ("layer_paths", "tensor_paths"),
        "quantization.competing": ("resolve", "wide_plan"),
    },
    "runtime.numba_engine": {"runtime.numba_engine.engine": ("run",)},
    "runtime.torch_engine": {"runtime.torch_engine.engine": ("run",)},
    "workflow": {
        "exploration.statistics": ("Accuracy",),
        "workflow.experiments": ("load_data", "load_experiment"),
        "workflow.verbs": ("evaluate", "sensitivity", "train"),
    },
}
"""Module -> present place of a name that lay in it -> these names, all within `qspinn`."""

RENAMED: dict[str, dict[str, str]] = {
    "exploration.outcome": {"Judge": "Selection", "conclude": "outcome_of"},
    "exploration.shipped": {"what_it_is": "summary_of"},
    "exploration.workers": {"Ahead": "Precompilation", "Crew": "Workers"},
    "exploration.competing.measurement": {"Bench": "Measurement", "open_bench": "open_measurement"},
    "exploration.layered.measurement": {"Bench": "Measurement", "open_bench": "open_measurement"},
    "exploration.local.measurement": {"Bench": "Measurement", "open_bench": "open_measurement"},
    "learning.gradients.node": {"Found": "LayerResult"},
    "learning.gradients.torch_passes.neurons": {"Spent": "ScanResult"},
    "learning.gradients.wiring": {"Entries": "NonZeros", "Room": "Scratch", "entries_of": "non_zeros_of"},
    "learning.local.training": {"said": "predicted_classes"},
}
"""Module -> former name in it -> present name in it, all within `qspinn`."""


class Former(Loader):
    """Finds modules by their former names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "qspinn" and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own empty module, which `exec_module` replaces: the present one keeps its own name and spec."""

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        present = f"qspinn.{MOVED[former.partition('.')[2]]}"
        warnings.warn(f"{former} is called {present} now", DeprecationWarning, stacklevel=2)
        sys.modules[former] = importlib.import_module(present)


def names_of(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module: its former names from where they are now, with a warning."""
    within = module.partition(".")[2]
    present = {name: (home, name) for home, names in MOVED_NAMES.get(within, {}).items() for name in names}
    present |= {name: (within, renamed) for name, renamed in RENAMED.get(within, {}).items()}

    def find(name: str) -> Any:
        if name not in present:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, present_name = f"qspinn.{present[name][0]}", present[name][1]
        warnings.warn(f"{module}.{name} is called {home}.{present_name} now", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(home), present_name)

    return find


def install() -> None:
    """Makes former names importable; a second call changes nothing."""
    if not any(isinstance(finder, Former) for finder in sys.meta_path):
        sys.meta_path.insert(0, Former())  # before the finder that would load a second copy from a package's folder

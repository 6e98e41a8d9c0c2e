"""Import of torch modules in order: which library a module belongs to, and which function reads it."""

from __future__ import annotations

import copy
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import integer
from qspinn.errors import ConfigError
from qspinn.importers import norse, sinabs, snntorch, spikingjelly, torch_modules
from qspinn.importers.model import Model, counts_of
from qspinn.importers.neuron import Neurons, Place
from qspinn.importers.parity import Parity, Recorded, parity
from qspinn.importers.reading import Reading, finished
from qspinn.networks.layered import Shape
from qspinn.records.words import nearest

LIBRARIES: dict[str, ModuleType] = {
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
    "norse": norse,
    "sinabs": sinabs,
}
"""Package that a class of neurons lives in -> the module that reads its neurons."""
CONTAINERS = ("Sequential", "SequentialState")
"""Modules that run their children in order."""


def from_torch(
    modules: Any,
    *,
    shape: Sequence[int],
    n_steps: int,
    step_ms: float = 1.0,
    max_count: int = 1,
    readout: Literal["spikes", "v_last", "v_sum"] | None = None,
    name: str = "imported",
) -> Model:
    """Reads a trained network of torch modules: its layers, in the order in which they run at every step.

    Dropout, Flatten and Identity may stand anywhere, or be left out. Batch normalization is taken with its running
    statistics. What is folded or chosen stands in `Model.notes`; what cannot be said in a `LayeredNetwork` is refused
    by its name.

    Args:
        modules: `nn.Sequential`, a list of modules, or a dict of names and modules, whose names layers then have.
        shape: of the input: (channels, height, width), or (n,) for a sensor without places.
        n_steps: steps per sample, T.
        step_ms: length of a step [ms].
        max_count: how often an input may spike in one step.
        readout: what the classes of the last layer are compared by; None for its spikes, or where it has no neurons
            for the sum of its outputs over time.
        name: of the network.

    Raises:
        ConfigError: names the module, its field and value, and what is allowed instead.
    """
    full = _full(shape)
    reading, populations = _read(modules, full)
    return finished(
        reading,
        name=name,
        shape=full,
        max_count=max_count,
        n_steps=n_steps,
        step_ms=step_ms,
        readout=readout,
        source=", ".join(dict.fromkeys(_version(p.library) for p in populations)),
    )


class Read(NamedTuple):
    """A module of neurons that was read as a layer."""

    place: Place
    library: ModuleType
    neurons: Neurons
    layer: str


def _full(shape: Sequence[int]) -> Shape:
    """A shape with three sizes.

    Raises:
        ConfigError: no shape of an input.
    """
    sizes = tuple(integer("shape", size, low=1) for size in shape)
    if len(sizes) not in (1, 3):
        raise ConfigError("shape", "is no shape of an input", got=sizes, allowed="(channels, height, width) or (n,)")
    return (sizes[0], 1, 1) if len(sizes) == 1 else (sizes[0], sizes[1], sizes[2])


def _read(modules: Any, shape: Shape) -> tuple[Reading, list[Read]]:
    """Reads modules from first to last.

    Raises:
        ConfigError: names the module that cannot be read.
    """
    reading, populations = Reading(shape), []
    seen: dict[int, str] = {}
    for where, given, module in opened(modules):
        place = Place(where, module, reading.shape if reading.waiting is None else reading.waiting.shape)
        library, kind = _library(module), type(module).__name__
        _need_ready(place)
        if library is not None and kind in library.TABLE:
            if id(module) in seen:
                raise ConfigError(where, "is a module of neurons that stands at two places", got=seen[id(module)])
            neurons = library.TABLE[kind](place)
            name = given or f"layer{len(reading.layers) + 1}"
            reading.populate(place, neurons, name)
            populations.append(Read(place, library, neurons, name))
        elif kind in torch_modules.TABLE and _package(module) in ("torch", *LIBRARIES):
            if id(module) in seen and any(True for _ in module.parameters()):
                reading.note(place, f"shares its weights with {seen[id(module)]}; here each has its own")
            torch_modules.TABLE[kind](reading, place)
        elif library is not None:
            raise ConfigError(
                where,
                "is no module of leaky integrate-and-fire neurons, or one that cannot be said here",
                got=kind,
                allowed=", ".join(library.TABLE),
            )
        else:
            known = [*torch_modules.TABLE, *(k for lib in LIBRARIES.values() for k in lib.TABLE)]
            raise ConfigError(
                where,
                "is a module that cannot be imported",
                got=f"{type(module).__module__}.{kind}",
                allowed=", ".join(known),
                fix=nearest(kind, known) or "",
            )
        seen[id(module)] = where
    reading.close()
    return reading, populations


def compare(model: Model, modules: Any, inputs: Any, *, exact: bool = False) -> Parity:
    """Runs the modules on inputs and compares every layer, on the spikes that the modules gave it.

    The modules are copied: their states, statistics and modes stay as they are.

    Args:
        exact: the copies compute in float64, where sums in another order hardly differ.

    Raises:
        ConfigError: these are not the modules that the model was read from.
        DataError: inputs of another shape.
    """
    import torch

    network = model.network
    reading, populations = _read(modules, network.input.shape)
    known = tuple(layer.name for layer in network.layers if layer.neuron.spiking)
    if tuple(p.layer for p in populations) != known or any(
        path not in model.params or not np.array_equal(x, model.params[path]) for path, x in reading.params.items()
    ):
        raise ConfigError(
            "original",
            "is not what the model was read from",
            got=[p.layer for p in populations],
            allowed=", ".join(known),
        )
    if not known:
        raise ConfigError("original", "has no neurons whose spikes could be compared", allowed="a layer that spikes")
    counts = counts_of(network, inputs)
    by_module = {id(p.place.module): p for p in populations}
    x = torch.from_numpy(counts).to(torch.float64 if exact else torch.float32)
    x = x.reshape(
        *x.shape[:2], *(network.input.shape if network.input.shape[1:] != (1, 1) else network.input.shape[:1])
    )
    recorded: dict[str, Recorded] = {}
    with torch.no_grad():
        for _, _, module in opened(modules):
            copied = _copied(module).eval()
            copied = copied.double() if exact else copied
            read = by_module.get(id(module))
            if read is None:
                x = _each_step(copied, x)
                continue
            spikes, potentials = read.library.steps(copied, x)
            x = spikes.to(x.dtype)  # libraries give float32 whatever they take
            shown = None if potentials is None else _flat(potentials) - read.neurons.origin
            recorded[read.layer] = Recorded(_flat(x), shown, float(torch.finfo(x.dtype).eps))
    return parity(network, model.params, counts.astype(np.float64), recorded)


def _copied(module: Any) -> Any:
    """A copy of a module with everything in it, past the copying of its class, which not every library has right."""
    twin = object.__new__(type(module))
    twin.__dict__.update(copy.deepcopy(module.__dict__, {id(module): twin}))  # methods that it keeps are of the twin
    return twin


def _each_step(module: Any, x: Any) -> Any:
    """A module without neurons, at every step [T, B, ...]."""
    steps = x.flatten(0, 1)
    if type(module).__name__ == "Linear" and steps.shape[1:] != (module.in_features,):
        steps = steps.flatten(1)
    return module(steps).unflatten(0, x.shape[:2])


def _flat(x: Any) -> NDArray[np.float64]:
    """Signals [T, B, N] of [T, B, ...]."""
    flat: NDArray[np.float64] = x.detach().cpu().double().flatten(2).numpy()
    return flat


def opened(modules: Any) -> Iterator[tuple[str, str, Any]]:
    """Every module in order: where it stands, its name or "", the module. Containers that run theirs in order open.

    Raises:
        ConfigError: no modules in an order.
    """
    if isinstance(modules, Mapping):
        pairs = [(f"modules[{name!r}]", str(name), module) for name, module in modules.items()]
    elif _is_container(modules) or isinstance(modules, Sequence):
        pairs = [(f"modules[{number}]", "", module) for number, module in enumerate(modules)]
    elif hasattr(modules, "named_children"):
        children = [name for name, _ in modules.named_children()]
        raise ConfigError(
            "modules",
            "is a module whose forward pass does not say in which order its modules run",
            got=type(modules).__name__,
            allowed="nn.Sequential, a list or a dict of modules",
            fix=f"[{', '.join(f'net.{name}' for name in children)}], in the order in which they run",
        )
    else:
        raise ConfigError("modules", "are no modules", got=type(modules).__name__, allowed="a list of torch modules")
    for where, name, module in pairs:
        if not hasattr(module, "state_dict"):
            raise ConfigError(where, "is no torch module", got=type(module).__name__, allowed="torch.nn.Module")
        if _is_container(module):
            yield from ((f"{where}{inner.removeprefix('modules')}", n, m) for inner, n, m in opened(module))
        else:
            yield f"{where} ({type(module).__name__})", name, module


def _package(module: Any) -> str:
    """The package that a module's class is defined in; "" of a class that is not found there under its name, such as
    one that was derived from it, whose forward pass may be another."""
    kind = type(module)
    home = sys.modules.get(kind.__module__)
    return kind.__module__.split(".")[0] if getattr(home, kind.__name__, None) is kind else ""


def _is_container(modules: Any) -> bool:
    """Whether a module runs its children in order and does nothing else."""
    if type(modules).__name__ in CONTAINERS and _package(modules) in ("torch", *LIBRARIES):
        _need_ready(Place("modules", modules, (1, 1, 1)))
        return True
    return False


def _library(module: Any) -> ModuleType | None:
    return LIBRARIES.get(_package(module))


def _version(library: ModuleType) -> str:
    """Name and version of the library that a module of this package reads."""
    name = library.__name__.rpartition(".")[2]
    return f"{name} {importlib.metadata.version(name)}"


def _need_ready(place: Place) -> None:
    """Checks that nothing changes what a module gives.

    Raises:
        ConfigError: a hook may do so, or another forward pass than that of its class.
    """
    if "forward" in vars(place.module):
        raise ConfigError(place.where, "has a forward pass of its own, not that of its class", allowed="its class's")
    hooks = [*getattr(place.module, "_forward_hooks", ()), *getattr(place.module, "_forward_pre_hooks", ())]
    if hooks:
        raise ConfigError(
            place.where, "has hooks that may change what it gives", got=len(hooks), allowed="none", fix="remove them"
        )

"""A trained float network of any family: its declaration with its arrays, and the file that holds both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qspinn import parameters
from qspinn.errors import ArtifactError, ConfigError, QSpinnError
from qspinn.files import entry_of, write_atomic
from qspinn.layers import LayeredNetwork, Shape
from qspinn.learning.local import LocalLearning, LocalNetwork
from qspinn.network import Network, _need
from qspinn.parameters import Parameters
from qspinn.plan import QuantPlan
from qspinn.records import Record, canonical_json, from_plain, plain_table

__all__ = ["AnyTrained", "LocalDeclaration", "Parameters", "Trained", "TrainedLayers", "TrainedLocal", "load",
           "load_layers", "load_local", "save"]

T = TypeVar("T", "Trained", "TrainedLayers", "TrainedLocal")


class Trained(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A network and its learned arrays by tensor path.

    `<pop>.w` float32 [N_post, N_pre]; `<pop>.theta` float32 [N], mV; `readout.responses` float64 [N, n_classes], the
    mean spike count per sample of each class on labelled training data (absent before assignment).

    Raises:
        DataError: an array is none of this network's, or no NumPy array of real numbers. Shapes and values are checked
            where the arrays are used, see `need_whole`.
    """

    network: Network
    params: Parameters

    def __post_init__(self) -> None:
        if not isinstance(self.network, Network):
            raise ConfigError("network", "is no network of competing populations", got=type(self.network).__name__,
                              allowed="qspinn.Network")
        parameters.need_arrays(self.params, parameters.of_competing(self.network))
        msgspec.structs.force_setattr(self, "params", parameters.native(self.params))

    def need_whole(self) -> Trained:
        """This network, once every array is known to be there, of its shape and finite.

        Raises:
            DataError: names the array.
        """
        parameters.need_whole(self.params, parameters.of_competing(self.network))
        return self

    def with_params(self, **changed: NDArray) -> Trained:
        """The same network with some arrays replaced; dots in paths are written as double underscores."""
        new = {k.replace("__", "."): v for k, v in changed.items()}
        return Trained(network=self.network, params={**self.params, **new})

    def key(self) -> str:
        """Content key (sha256, hex) of declaration and arrays."""
        return _digest(self.network, self.params, with_shapes=False)


class TrainedLayers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A layered network and the state of the module that was trained, batch normalization with its statistics and not
    folded, so that training can go on from it (`learning.surrogate.restored`).

    Raises:
        DataError: an array is missing, none of this network's, of another shape or not finite.
    """

    network: LayeredNetwork
    params: Parameters

    def __post_init__(self) -> None:
        if not isinstance(self.network, LayeredNetwork):
            raise ConfigError("network", "is no network of layers", got=type(self.network).__name__,
                              allowed="qspinn.LayeredNetwork")
        self.need_whole()
        msgspec.structs.force_setattr(self, "params", parameters.native(self.params))

    def need_whole(self) -> TrainedLayers:
        """This network, once every array is known to be there, of its shape and finite.

        Raises:
            DataError: names the array.
        """
        parameters.need_whole(self.params, parameters.of_module(self.network))
        return self

    def key(self) -> str:
        """Content key (sha256, hex) of declaration and arrays."""
        return _digest(self.network, self.params, with_shapes=True)


class LocalDeclaration(Record, frozen=True):
    """Everything that locally learned arrays are the arrays of.

    Attributes:
        shape: of the input; step_ms: length of a step.
        scales: of the layers, as their calibration chose them.
    """

    network: LocalNetwork
    learning: LocalLearning
    plan: QuantPlan
    shape: Shape
    n_classes: int
    step_ms: float
    seed: int
    scales: tuple[int, ...]

    def check(self) -> None:
        _need(min(self.shape) >= 1, "shape", self.shape, "positive")
        _need(self.n_classes >= 1, "n_classes", self.n_classes, ">= 1")
        _need(self.step_ms > 0, "step_ms", self.step_ms, "> 0")
        _need(0 <= self.seed < 1 << 32, "seed", self.seed, "0 <= seed < 2**32")
        _need(len(self.scales) == len(self.network.layers), "scales", self.scales, "one for each layer")


class TrainedLocal(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Layers that learned locally and the arrays that learning changed: float32, or integer codes of the plan.

    Attributes:
        provenance: where it comes from, as plain data: the experiment, and of an exploration the candidate.

    Raises:
        DataError: an array is missing, none of these layers', of another shape, not finite, or a code out of its range.
        ConfigError: the provenance cannot be written as JSON.
    """

    network: LocalDeclaration
    params: Parameters
    provenance: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not isinstance(self.network, LocalDeclaration):
            raise ConfigError("network", "is no declaration of local layers", got=type(self.network).__name__,
                              allowed="checkpoint.LocalDeclaration")
        self.need_whole()
        msgspec.structs.force_setattr(self, "params", parameters.native(self.params))
        msgspec.structs.force_setattr(self, "provenance", plain_table(self.provenance, "provenance"))

    def need_whole(self) -> TrainedLocal:
        """These layers, once every array is known to be there, of its shape and within its range.

        Raises:
            DataError: names the array.
        """
        declared = self.network
        shapes = parameters.of_local(declared.network, declared.learning, declared.plan, declared.shape)
        parameters.need_whole(self.params, shapes)
        return self

    def key(self) -> str:
        """Content key (sha256, hex) of declaration and arrays."""
        return _digest(self.network, self.params, with_shapes=True)


AnyTrained = Trained | TrainedLayers | TrainedLocal
_FAMILIES = {TrainedLayers: "layers", TrainedLocal: "local"}


def _digest(declaration: Any, params: Parameters, *, with_shapes: bool) -> str:
    """sha256 (hex) of a declaration, as a record or as the plain data of a file, and of arrays.

    Files are checked by the data that they hold: a declaration whose fields got other names since has another record.
    """
    sha = hashlib.sha256(canonical_json(declaration))
    for name, array in sorted(params.items()):
        label = f"{name} {array.dtype} {array.shape}" if with_shapes else f"{name}{array.dtype}"
        sha.update(label.encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def save(trained: AnyTrained, path: str | Path) -> None:
    """Writes the checkpoint (safetensors; the declaration, and a checksum, in its metadata).

    Raises:
        DataError: an array is missing, of the wrong shape or not finite: the file could not be read again.
        ConfigError: not a trained network.
        ArtifactError: the disk is full or the place is not writable.
    """
    if not isinstance(trained, Trained | TrainedLayers | TrainedLocal):
        raise ConfigError("trained", "is no trained network", got=type(trained).__name__,
                          allowed="Trained, TrainedLayers, TrainedLocal")
    trained.need_whole()
    arrays = {k: np.require(v, requirements="C") for k, v in trained.params.items()}
    family: dict[str, Any] = {"family": _FAMILIES[type(trained)]} if type(trained) in _FAMILIES else {}
    if isinstance(trained, TrainedLocal) and trained.provenance:
        family |= {"provenance": trained.provenance}
    entry = msgspec.json.encode({"network": msgspec.to_builtins(trained.network), "sha256": trained.key()} | family)
    write_atomic(path, safetensors.numpy.save(arrays, metadata={"qspinn_float": entry.decode()}))


def load(path: str | Path) -> Trained:
    """The checkpoint of competing populations at path.

    Raises:
        ArtifactError: missing, truncated, altered or not such a checkpoint.
    """
    return _load(path, lambda entry, params: Trained(
        network=from_plain(Network, entry["network"], str(path)), params=params).need_whole())


def load_layers(path: str | Path) -> TrainedLayers:
    """The checkpoint of a layered network at path; errors as for `load`."""
    return _load(path, lambda entry, params: TrainedLayers(
        network=from_plain(LayeredNetwork, entry["network"], str(path)), params=params))


def load_local(path: str | Path) -> TrainedLocal:
    """The checkpoint of locally learned layers at path; errors as for `load`."""
    return _load(path, lambda entry, params: TrainedLocal(
        network=from_plain(LocalDeclaration, entry["network"], str(path)), params=params,
        provenance=dict(entry.get("provenance", {}))))


def _load(path: str | Path, make: Callable[[Any, Parameters], T]) -> T:
    try:
        data = Path(path).read_bytes()
        params = dict(safetensors.numpy.load(data))
        entry = entry_of(data, "qspinn_float")
        trained = make(entry, params)
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, ValueError, OverflowError, RecursionError,
            QSpinnError) as error:
        raise ArtifactError(str(path), "cannot be read as a float checkpoint", got=str(error)[:120]) from None
    if entry.get("sha256") != _digest(entry["network"], params, with_shapes="family" in entry):
        raise ArtifactError(str(path), "checksum does not match: the file was damaged or edited")
    return trained

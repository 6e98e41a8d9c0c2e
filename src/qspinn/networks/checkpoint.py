"""A trained float network of any family: its declaration with its arrays, and the file that holds both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qspinn import former
from qspinn.errors import ArtifactError, ConfigError, QSpinnError
from qspinn.files import entry_of, read_file, read_head, write_atomic
from qspinn.networks import parameters
from qspinn.networks.competing import Network
from qspinn.networks.layered import LayeredNetwork
from qspinn.networks.parameters import Expected, Parameters
from qspinn.records.named import NamedFields
from qspinn.records.record import canonical_json, from_plain

T = TypeVar("T", bound="AnyTrained")
FAMILIES = {"": "competing populations", "layers": "a network of layers", "local": "layers that learned locally"}
"""What the files of each family hold, by the family's word in their entry; those of competing populations have none."""
KEYS = ("network", "sha256", "family", "provenance", "sha256_all")
"""What the entry of a file may hold."""
UNREADABLE = (LookupError, TypeError, ValueError, OverflowError, RecursionError, QSpinnError)
"""Errors by which something within a file is refused."""


class AnyTrained(Protocol):
    """A trained network of any family, as a checkpoint holds it.

    Attributes:
        FAMILY: the family's word in a checkpoint's entry; empty for competing populations, whose files have none.
    """

    FAMILY: ClassVar[str]

    @property
    def network(self) -> Any:
        """The declaration, a record."""

    @property
    def params(self) -> Parameters:
        """The learned arrays by path."""

    def need_whole(self) -> AnyTrained:
        """Returns this network after a check that every array is there, of its shape and finite."""

    def key(self) -> str:
        """Content key (sha256, hex) of declaration and arrays."""


class Arrays(msgspec.Struct, metaclass=NamedFields, frozen=True, kw_only=True, eq=False):
    """Base of trained networks: a declaration, its arrays by path, and the checks that both share.

    Attributes:
        WITH_SHAPES: the content key covers the shapes of the arrays.
    """

    WITH_SHAPES: ClassVar[bool] = True

    network: Any
    params: Parameters

    def expected(self) -> dict[str, Expected]:
        """Requirements on the arrays by path."""
        raise NotImplementedError

    def need_whole(self) -> Self:
        """Returns this network after a check that every array is there, of its shape and finite.

        Raises:
            DataError: names the array.
        """
        parameters.need_whole(self.params, self.expected())
        return self

    def key(self) -> str:
        """Content key (sha256, hex) of declaration and arrays."""
        return digest(self.network, self.params, with_shapes=self.WITH_SHAPES)


class Trained(Arrays, frozen=True, kw_only=True, eq=False):
    """A network and its learned arrays by tensor path.

    `<pop>.w` float32 [N_post, N_pre]; `<pop>.theta` float32 [N], mV; `readout.responses` float64 [N, n_classes], the
    mean spike count per sample of each class on labelled training data (absent before assignment).

    Raises:
        DataError: an array is none of this network's, or no NumPy array of real numbers. Shapes and values are checked
            where the arrays are used, see `need_whole`.
    """

    FAMILY: ClassVar[str] = ""
    WITH_SHAPES: ClassVar[bool] = False

    network: Network

    def __post_init__(self) -> None:
        if type(self.network) is not Network:  # a file would lose the fields of a derived class
            raise ConfigError(
                "network",
                "is no network of competing populations",
                got=type(self.network).__name__,
                allowed="qspinn.Network",
            )
        parameters.need_arrays(self.params, self.expected())
        msgspec.structs.force_setattr(self, "params", parameters.native(self.params))

    def expected(self) -> dict[str, Expected]:
        """Requirements on the arrays by path."""
        return parameters.of_competing(self.network)

    def with_params(self, **changed: NDArray) -> Trained:
        """The same network with some arrays replaced; dots in paths are written as double underscores."""
        new = {k.replace("__", "."): v for k, v in changed.items()}
        return Trained(network=self.network, params={**self.params, **new})


class TrainedLayers(Arrays, frozen=True, kw_only=True, eq=False):
    """A layered network and the state of the module that was trained, batch normalization with its statistics and not
    folded, so that training can go on from it (`learning.surrogate.restored`).

    Raises:
        DataError: an array is missing, none of this network's, of another shape or not finite.
    """

    FAMILY: ClassVar[str] = "layers"

    network: LayeredNetwork

    def __post_init__(self) -> None:
        if type(self.network) is not LayeredNetwork:
            raise ConfigError(
                "network", "is no network of layers", got=type(self.network).__name__, allowed="qspinn.LayeredNetwork"
            )
        self.need_whole()
        msgspec.structs.force_setattr(self, "params", parameters.native(self.params))

    def expected(self) -> dict[str, Expected]:
        """Requirements on the arrays by path."""
        return parameters.of_module(self.network)


def digest(declaration: Any, params: Parameters, *, with_shapes: bool) -> str:
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
    if not hasattr(type(trained), "FAMILY"):
        raise ConfigError(
            "trained",
            "is no trained network",
            got=type(trained).__name__,
            allowed="Trained, TrainedLayers, TrainedLocal",
        )
    trained.need_whole()
    arrays = {k: np.require(v, requirements="C") for k, v in trained.params.items()}
    entry: dict[str, Any] = {"network": msgspec.to_builtins(trained.network), "sha256": trained.key()}
    if trained.FAMILY:
        entry["family"] = trained.FAMILY
    if provenance := getattr(trained, "provenance", None):
        entry["provenance"] = provenance
    entry["sha256_all"] = _of_all(msgspec.json.decode(msgspec.json.encode(entry)))
    text = msgspec.json.encode(entry).decode()
    write_atomic(path, safetensors.numpy.save(arrays, metadata={"qspinn_float": text}))


def _of_all(entry: dict[str, Any]) -> str:
    """sha256 (hex) of all that the entry of a file holds beside it, the family and the provenance included."""
    rest = {key: value for key, value in entry.items() if key != "sha256_all"}
    return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


def family_in(path: str | Path) -> str | None:
    """The family of the trained network in a file, "" for competing populations; None where the file is no checkpoint,
    or cannot be read."""
    try:
        entry = entry_of(read_head(path), "qspinn_float")
        return str(entry.get("family", ""))
    except (QSpinnError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def load(path: str | Path) -> Trained:
    """The checkpoint of competing populations at path.

    Raises:
        ArtifactError: missing, truncated, altered or not such a checkpoint.
    """
    return read(
        path,
        lambda entry, params: Trained(
            network=from_plain(Network, entry["network"], "network"), params=params
        ).need_whole(),
        Trained.FAMILY,
    )


def load_layers(path: str | Path) -> TrainedLayers:
    """The checkpoint of a layered network at path; errors as for `load`."""
    return read(
        path,
        lambda entry, params: TrainedLayers(
            network=from_plain(LayeredNetwork, entry["network"], "network"), params=params
        ),
        TrainedLayers.FAMILY,
    )


def read(path: str | Path, make: Callable[[Any, Parameters], T], family: str) -> T:
    """The checkpoint of a family at path.

    Args:
        make: makes the trained network of the file's entry and its arrays.
        family: its word, a key of `FAMILIES`.

    Raises:
        ArtifactError: missing, truncated, altered or not such a checkpoint.
    """
    data, where = read_file(path), str(path)
    try:
        params = dict(safetensors.numpy.load(data))
        entry = entry_of(data, "qspinn_float")
        msgspec.json.encode(entry)  # refuses what is nested too deep to be written again
    except (safetensors.SafetensorError, *UNREADABLE) as error:
        raise _unreadable(where, error) from None
    _need_entry(entry, family, where)
    try:
        trained = make(entry, params)
        whole = entry.get("sha256") == digest(entry["network"], params, with_shapes="family" in entry)
    except UNREADABLE as error:
        raise _unreadable(where, error) from None
    all_of_it = _of_all(entry)
    if not whole or entry.get("sha256_all", all_of_it) != all_of_it:
        raise ArtifactError(where, "checksum does not match: the file was damaged or edited")
    return trained


def _unreadable(where: str, error: Exception) -> ArtifactError:
    return ArtifactError(where, "cannot be read as a float checkpoint", got=str(error))


def _need_entry(entry: Any, family: str, where: str) -> None:
    """Refuses an entry of another family, and one with keys that this version does not write; files from before
    `sha256_all` have no checksum of anything but the network and its arrays."""
    if not isinstance(entry, dict):
        raise ArtifactError(where, "cannot be read as a float checkpoint", got=type(entry).__name__, allowed="a table")
    found = entry.get("family", "")
    if found not in (*FAMILIES,):
        raise ArtifactError(
            where,
            "holds a trained network of a family that this version does not know",
            got=found,
            allowed=", ".join(filter(None, FAMILIES)),
            fix="upgrade qspinn, or restore the file from a copy",
        )
    if found != family:
        raise ArtifactError(where, f"holds {FAMILIES[found]}", allowed=FAMILIES[family])
    if unknown := entry.keys() - KEYS:
        raise ArtifactError(
            where,
            "has entries that this version does not know",
            got=sorted(unknown),
            allowed=", ".join(KEYS),
            fix="upgrade qspinn, or restore the file from a copy",
        )


__getattr__ = former.names_of(__name__)

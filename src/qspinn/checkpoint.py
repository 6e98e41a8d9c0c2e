"""A trained float network: its declaration with its arrays, and the file that holds both."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qspinn.errors import ArtifactError, QSpinnError
from qspinn.network import Network
from qspinn.program import write_atomic
from qspinn.records import canonical_json, from_plain

Parameters = dict[str, NDArray]


class Trained(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A network and its learned arrays by tensor path.

    `<pop>.w` float32 [N_post, N_pre]; `<pop>.theta` float32 [N], mV; `readout.responses` float64 [N, n_classes], the
    mean spike count per sample of each class on labelled training data (absent before assignment).
    """

    network: Network
    params: Parameters

    def with_params(self, **changed: NDArray) -> Trained:
        """The same network with some arrays replaced; dots in paths are written as double underscores."""
        new = {k.replace("__", "."): v for k, v in changed.items()}
        return Trained(network=self.network, params={**self.params, **new})

    def key(self) -> str:
        """Content key (sha256, hex) of declaration and arrays."""
        sha = hashlib.sha256(canonical_json(self.network))
        for name, array in sorted(self.params.items()):
            sha.update(name.encode() + str(array.dtype).encode() + np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def save(trained: Trained, path: Path) -> None:
    """Writes the checkpoint (safetensors; the declaration, and a checksum, in its metadata)."""
    arrays = {k: np.ascontiguousarray(v) for k, v in trained.params.items()}
    entry = msgspec.json.encode({"network": msgspec.to_builtins(trained.network), "sha256": trained.key()})
    write_atomic(path, safetensors.numpy.save(arrays, metadata={"qspinn_float": entry.decode()}))


def load(path: Path) -> Trained:
    """The checkpoint at path.

    Raises:
        ArtifactError: missing, truncated, altered or not a checkpoint.
    """
    try:
        data = path.read_bytes()
        params = dict(safetensors.numpy.load(data))
        size = struct.unpack("<Q", data[:8])[0]
        entry = msgspec.json.decode(msgspec.json.decode(data[8 : 8 + size])["__metadata__"]["qspinn_float"])
        trained = Trained(network=from_plain(Network, entry["network"], str(path)), params=params)
    except (OSError, safetensors.SafetensorError, msgspec.DecodeError, struct.error, LookupError, TypeError,
            ValueError, QSpinnError) as error:
        raise ArtifactError(str(path), "cannot be read as a float checkpoint", got=str(error)[:120]) from None
    if entry.get("sha256") != trained.key():
        raise ArtifactError(str(path), "checksum does not match: the file was damaged or edited")
    return trained

"""An imported network: its declaration, its arrays, and what reading it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import reals
from qspinn.errors import DataError
from qspinn.networks.layer_arrays import layer_arrays
from qspinn.networks.layered import LayeredNetwork
from qspinn.records.record import Record

if TYPE_CHECKING:
    from qspinn.importers.parity import Parity


class ImportNote(Record, frozen=True):
    """Note on what an importer did to a module beyond copying it: a fold, a scale, a choice.

    Attributes:
        module: where the module stands, as in `modules[3] (Leaky)`.
        text: a sentence that says what was done, with the numbers that were used.
    """

    module: str
    text: str

    def __str__(self) -> str:
        return f"{self.module}: {self.text}"


class Model(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A network that was trained elsewhere, as this package computes it.

    Attributes:
        network: the declaration.
        params: its arrays by path, float64, batch normalization and input factors folded (see `layer_arrays`).
        notes: what was folded, scaled, left out or chosen.
        source: the library that the modules come from, with its version.

    Raises:
        LoweringError: names an array that does not fit the declaration.
    """

    network: LayeredNetwork
    params: dict[str, NDArray[np.float64]]
    notes: tuple[ImportNote, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "params", layer_arrays(self.network, self.params))

    def verify(self, original: Any, inputs: Any, *, exact: bool = False) -> Parity:
        """Runs the original and this network on the same inputs and compares them spike for spike.

        Args:
            original: the modules that were imported, in the order in which they were given.
            inputs: spike counts [T, B, ...], an array or a tensor.
            exact: the original computes in float64, where sums in another order hardly differ.

        Returns:
            For every layer, how many spikes are equal, how many differ, and where they part first.

        Raises:
            ConfigError: these are not the modules that the model was read from.
            DataError: inputs of another shape.
        """
        from qspinn.importers.from_modules import compare

        return compare(self, original, inputs, exact=exact)


def counts_of(network: LayeredNetwork, inputs: Any) -> NDArray[np.float64]:
    """Spike counts [T, B, n_inputs].

    Raises:
        DataError: inputs of another shape, or that are no counts.
    """
    array = inputs.detach().cpu().numpy() if hasattr(inputs, "detach") else np.asarray(inputs)
    if array.ndim < 3 or array.shape[0] != network.n_steps or int(np.prod(array.shape[2:])) != network.input.n:
        turned = array.ndim >= 3 and array.shape[1] == network.n_steps
        raise DataError(
            "inputs",
            "have another shape than the network takes",
            got=array.shape,
            allowed=f"[T, B, ...] = ({network.n_steps}, B, {', '.join(map(str, network.input.shape))})",
            fix="steps come before samples: swap the first two axes" if turned else "",
        )
    counts = reals("inputs", array.reshape(*array.shape[:2], -1), low=0.0, high=float(network.input.max_count))
    if np.any(counts != np.rint(counts)):
        raise DataError(
            "inputs", "hold a value that is no count", got=float(counts[counts != np.rint(counts)][0]), allowed="counts"
        )
    return counts

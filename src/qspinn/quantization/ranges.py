"""Ranges: what the lowering must know about the data; one record for each of the two families of networks."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import LARGEST_SIZE, frozen, integers, need_kind, reals, sealed
from qspinn.errors import DataError
from qspinn.networks.checkpoint import Trained
from qspinn.networks.competing import Population
from qspinn.records.named import NamedFields
from qspinn.spikes import Spikes

BINS = 2048
LEAST_LIMIT = 2.0**-300
"""Of a histogram: smaller sizes lie in its first bin."""
MOST_VALUES = 1 << 48
"""In a bin of a histogram, so that sums of bins and of histograms fit into 64 bits."""


class Ranges(msgspec.Struct, metaclass=NamedFields, frozen=True, kw_only=True, eq=False):
    """Observed on calibration data.

    Attributes:
        input_rate: spikes per step of each input, float64 [n_inputs].
        busiest_step: the largest number of inputs that spiked in one step.
        threshold_max_mv: the largest v_th + theta of each population after float training, by name.

    Raises:
        DataError: a value is negative, not finite, or of another kind.
    """

    input_rate: NDArray[np.float64]
    busiest_step: int
    threshold_max_mv: dict[str, float]

    def __post_init__(self) -> None:
        rates = reals("ranges.input_rate", self.input_rate, shape=(None,), low=0.0, high=1.0)
        busiest = integers("ranges.busiest_step", self.busiest_step, shape=(), low=0)
        msgspec.structs.force_setattr(self, "input_rate", frozen(np.array(rates)))
        msgspec.structs.force_setattr(self, "busiest_step", int(busiest))
        msgspec.structs.force_setattr(
            self, "threshold_max_mv", _table("ranges.threshold_max_mv", self.threshold_max_mv)
        )


def _table(where: str, table: dict[str, float]) -> dict[str, float]:
    """A table of sizes by name.

    Raises:
        DataError: names the entry that is negative, not finite or no number.
    """
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table):
        raise DataError(where, "is no table of numbers by name", got=type(table).__name__, allowed="a dict")
    return {
        name: float(reals(f"{where}.{name}", value, shape=(), low=0.0, high=LARGEST_SIZE))
        for name, value in table.items()
    }


def calibrate(trained: Trained, spikes: Spikes) -> Ranges:
    """The ranges of a trained float network on a set of encoded samples.

    Raises:
        DataError: there are no samples, or they do not fit the network's inputs and steps.
    """
    need_kind("trained", trained, Trained)
    need_kind("spikes", spikes, Spikes, DataError)
    network = trained.network
    for field, got, allowed in (("n", spikes.n, network.input.n), ("n_steps", spikes.n_steps, network.n_steps)):
        if got != allowed:
            raise DataError(
                f"spikes.{field}", f"does not match network {network.name!r}", got=got, allowed=str(allowed)
            )
    if spikes.n_samples == 0:
        raise DataError("calibration data", "holds no samples")
    start, stop = spikes.offsets[0, 0], spikes.offsets[-1, -1]
    thresholds = {p.name: p.neuron.v_th_mv + _largest_theta(trained, p) for p in trained.network.populations}
    count = np.bincount(spikes.index[start:stop], minlength=spikes.n)
    return Ranges(
        input_rate=count / (spikes.n_samples * spikes.n_steps),
        busiest_step=int(np.diff(spikes.offsets, axis=1).max()),
        threshold_max_mv=thresholds,
    )


def _largest_theta(trained: Trained, population: Population) -> float:
    """The largest adaptive part of a population's thresholds [mV].

    Raises:
        DataError: the array is missing, misshapen, negative or not finite.
    """
    path = f"{population.name}.theta"
    if path not in trained.params:
        raise DataError(path, "is not among the trained arrays", allowed=", ".join(sorted(trained.params)))
    return float(reals(path, trained.params[path], shape=(population.n,), low=0.0, high=LARGEST_SIZE).max())


class Sizes(msgspec.Struct, metaclass=NamedFields, frozen=True, kw_only=True, eq=False):
    """A histogram of the sizes |x| of a tensor: BINS bins of equal width over 0..limit.

    Attributes:
        top: the largest size, exactly.
        limit: a power of two, so that histograms merge without splitting bins.

    Raises:
        DataError: top is not within 0..limit, limit no power of two, or counts are not BINS counts.
    """

    top: float
    limit: float
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        limit = float(reals("sizes.limit", self.limit, shape=(), low=LEAST_LIMIT, high=2 * LARGEST_SIZE))
        if math.frexp(limit)[0] != 0.5:
            raise DataError("sizes.limit", "is no power of two", got=limit)
        top = float(reals("sizes.top", self.top, shape=(), low=0.0, high=limit))
        integers("sizes.counts", self.counts, shape=(BINS,))
        counts = sealed("sizes.counts", self.counts, np.int64, low=0, high=MOST_VALUES)
        for name, value in (("top", top), ("limit", limit), ("counts", counts)):
            msgspec.structs.force_setattr(self, name, value)

    def merged(self, other: Sizes) -> Sizes:
        """The histogram of both."""
        limit = max(self.limit, other.limit)
        return Sizes(top=max(self.top, other.top), limit=limit, counts=_widened(self, limit) + _widened(other, limit))

    def quantile(self, share: float) -> float:
        """The size that `share` of the values do not exceed, to the width of a bin; the largest one for 1.

        Raises:
            DataError: no share.
        """
        share = float(reals("share", share, shape=(), low=0.0, high=1.0))
        if share >= 1.0:
            return self.top
        at = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return min(self.top, (at + 1) * self.limit / BINS)


def sizes_of(x: NDArray) -> Sizes:
    """The histogram of the entries of x.

    Raises:
        DataError: an entry is NaN or infinite.
    """
    size = np.abs(reals("potentials", x, low=-LARGEST_SIZE, high=LARGEST_SIZE)).ravel()
    top = float(size.max(initial=0.0))
    limit = max(2.0 ** np.ceil(np.log2(top)), LEAST_LIMIT) if top > 0 else 1.0
    bins = np.minimum((size * (BINS / limit)).astype(np.int64), BINS - 1)
    return Sizes(top=top, limit=float(limit), counts=np.bincount(bins, minlength=BINS))


def _widened(sizes: Sizes, limit: float) -> NDArray[np.int64]:
    """Counts over 0..limit."""
    factor = min(round(limit / sizes.limit), BINS)
    merged = sizes.counts.reshape(-1, factor).sum(axis=1)
    return np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])


class LayerRanges(msgspec.Struct, metaclass=NamedFields, frozen=True, kw_only=True, eq=False):
    """Observed on calibration data, by layer: the largest size of potentials, synaptic currents, adaptive thresholds.

    Potentials are those that a step leaves, after resets; codes saturate at the range that follows from them. Currents
    of a layer without an entry saturate at their format, in training and in every engine alike.

    Before a reset by subtraction in the same step a potential may be higher than what the step leaves, by the threshold
    (times the spikes of the step); what lies above the largest code then is lost, and with it spikes that the float
    network has. Where that matters, add this to `v`: ranges are plain data.

    Attributes:
        sizes: histograms of the potentials' sizes, for the calibrators that need them.

    Raises:
        DataError: names the layer whose value is negative, not finite or no number.
    """

    v: dict[str, float]
    i: dict[str, float] = {}
    theta: dict[str, float] = {}
    sizes: dict[str, Sizes] = {}

    def __post_init__(self) -> None:
        for field in ("v", "i", "theta"):
            msgspec.structs.force_setattr(self, field, _table(f"ranges.{field}", getattr(self, field)))
        if not isinstance(self.sizes, dict) or not all(isinstance(x, Sizes) for x in self.sizes.values()):
            raise DataError(
                "ranges.sizes",
                "is no table of histograms by layer",
                got=type(self.sizes).__name__,
                allowed="a dict of Sizes",
            )

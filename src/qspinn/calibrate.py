"""Ranges: what the lowering must know about the data. Nothing else happens here."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.checkpoint import Trained
from qspinn.errors import DataError
from qspinn.spikes import Spikes


class Ranges(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Observed on calibration data.

    Attributes:
        input_rate: spikes per step of each input, float64 [n_inputs].
        busiest_step: the largest number of inputs that spiked in one step.
        threshold_max_mv: the largest v_th + theta of each population after float training, by name.
    """

    input_rate: NDArray[np.float64]
    busiest_step: int
    threshold_max_mv: dict[str, float]


def calibrate(trained: Trained, spikes: Spikes) -> Ranges:
    """The ranges of a trained float network on a set of encoded samples.

    Raises:
        DataError: there are no samples.
    """
    if spikes.n_samples == 0:
        raise DataError("calibration data", "holds no samples")
    start, stop = spikes.offsets[0, 0], spikes.offsets[-1, -1]
    thresholds = {p.name: p.neuron.v_th_mv + float(trained.params[f"{p.name}.theta"].max())
                  for p in trained.network.populations}
    count = np.bincount(spikes.index[start:stop], minlength=spikes.n)
    return Ranges(input_rate=count / (spikes.n_samples * spikes.n_steps),
                  busiest_step=int(np.diff(spikes.offsets, axis=1).max()),
                  threshold_max_mv=thresholds)

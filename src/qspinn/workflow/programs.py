"""Integer programs measured on the splits of data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.exploration.statistics import Accuracy, summary
from qspinn.program import Program
from qspinn.runtime import run
from qspinn.workflow.splits import inputs_of, need_classes, need_samples


def evaluate(
    program: Program, split: Any, name: str, backend: str = "numba", device: str = "cpu"
) -> tuple[Accuracy, NDArray[np.int64]]:
    """Accuracy and predictions [n] of an integer program on a split; see `verbs.evaluate`."""
    need_samples(split, name)
    results = []
    for spikes in inputs_of(program, split):
        results.append(run(program, spikes, backend=backend, device=device))
        need_classes(split, results[0].scores.shape[1], name)
    predicted = np.concatenate([r.predictions() for r in results])
    counts = np.concatenate([np.concatenate(list(r.counts.values()), axis=1) for r in results])
    return summary(name, predicted == split.labels, counts), predicted

"""Several events of one input in one step.

Reported: training counted them, the device did not (or the other way round), so that a neuron spiked in one and not in
the other. Right: 3 or 1 by the declared mode, and every engine sums what was declared; a source is not listed twice,
and a count is 1..255.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from qspinn.data.events.dataset import EventDataset
from qspinn.data.events.event_set import EventSet, pack
from qspinn.data.events.recording import bin_events, make
from qspinn.errors import DataError
from qspinn.program.ops import EventsOp
from qspinn.runtime import run
from qspinn.spikes import Spikes
from qspinn.testing.programs import single

Z = np.zeros(3, int)
EVENTS = make(Z + 3, Z, np.array([100, 101, 180]), Z)


def recordings(binary: bool) -> EventSet:
    return pack([(bin_events(EVENTS, (1, 4), 100, 2, binary=binary), 0)], 2, (1, 4))


@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
@pytest.mark.parametrize(("binary", "count", "n_spikes"), [(False, 3, 1), (True, 1, 0)])
def test_the_declared_mode_decides(backend: str, binary: bool, count: int, n_spikes: int) -> None:
    events = recordings(binary)
    assert events.dense()[1, 0].ravel().tolist() == [0, 0, 0, count, 0, 0, 0, 0]
    program = single([[0, 0, 0, 40, 0, 0, 0, 0]], v_th=100, v_bits=12, n_steps=2, winner=False)
    program = msgspec.structs.replace(program, ops=(EventsOp(shape=(8, 1, 1), max_count=3), *program.ops[1:]))
    assert run(program, events.graded(), backend=backend).counts["p0"].tolist() == [[n_spikes]]
    assert run(program, events.spikes(), backend=backend).counts["p0"].tolist() == [[0]]


@pytest.mark.parametrize("count", [[300], [256], [0], [-1], [1.0], [np.nan], [[1]], [1, 1], ["1"]])
def test_counts_are_one_byte(count: list) -> None:
    with pytest.raises(DataError, match=r"spikes\.count"):
        Spikes(offsets=np.array([[0, 1]]), index=np.array([1]), n=2, count=np.array(count))
    with pytest.raises(DataError, match=r"events\.count"):
        EventSet(offsets=np.array([[0, 1]]), index=np.array([1]), count=np.array(count), shape=(2, 1, 1), labels=[0])


def test_pooled_counts_are_shown_as_they_are() -> None:
    from qspinn.spikes import unchecked

    pooled = unchecked(offsets=np.array([[0, 2]]), index=np.array([1, 0]), n=2, count=np.array([1500, 3], np.int32))
    assert pooled.dense().tolist() == [[[3, 1500]]]


@pytest.mark.parametrize(("index", "n"), [([1, 1], 2), ([1, 0], 2), ([0, 2], 2), ([-1, 0], 2), ([0.0, 1.0], 2)])
def test_sources_ascend_each_once(index: list, n: int) -> None:
    with pytest.raises(DataError, match=r"spikes\.index"):
        Spikes(offsets=np.array([[0, 2]]), index=np.array(index), n=n)
    with pytest.raises(DataError, match=r"events\.index"):
        EventSet(offsets=np.array([[0, 2]]), index=np.array(index), count=None, shape=(n, 1, 1), labels=[0])
    spread = Spikes(offsets=np.array([[0, 1, 1, 2], [2, 2, 3, 3]]), index=np.array([1, 1, 0]), n=2)
    assert spread.dense().sum() == 3


def test_a_data_set_declares_its_counts() -> None:
    events = recordings(binary=False)
    fields = {
        "name": "d",
        "shape": events.shape,
        "n_steps": 2,
        "bin_ms": 0.1,
        "labels": ("a",),
        "train": events,
        "validation": events.slice(0, 0),
        "test": events.slice(0, 0),
        "split_rule": "",
    }
    with pytest.raises(DataError, match=r"d\.train\.count: .*got 3; allowed: 1\.\.1; fix: max_count=3"):
        EventDataset(**fields)
    assert EventDataset(**fields, max_count=3).max_count == 3

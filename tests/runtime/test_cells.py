"""Sources that add at one place: which are taken together, what they add, and that nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import Program
from qspinn.program.field import field_of
from qspinn.program.ops import ConvOp, EventsOp, LifOp, ReadOp, conv_shape
from qspinn.program.parts import InputShift, Leak, Reset, Threshold
from qspinn.runtime import reference
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.runtime.numba_engine.kernels import feed as feed_kernel
from qspinn.runtime.numba_engine.layered.cells import LARGEST, cells
from qspinn.runtime.numba_engine.layered.strips import strips
from qspinn.spikes import from_dense
from qspinn.testing.contract import check_equal
from qspinn.testing.programs import codes

SHAPES = {  # source, channels, kernel, stride, padding, groups -> sources of a cell, or 0
    "pixels by two": ((2, 12, 14), 16, (5, 5), (2, 2), (2, 2), 1, 8),
    "one channel": ((1, 13, 11), 16, (3, 3), (2, 2), (1, 1), 1, 4),
    "two channels": ((2, 8, 8), 7, (3, 3), (1, 1), (0, 0), 1, 2),
    "columns": ((2, 9, 10), 33, (3, 3), (1, 3), (0, 1), 1, 6),
    "groups": ((4, 9, 9), 32, (3, 3), (2, 2), (0, 0), 2, 8),
    "many sources": ((5, 9, 9), 16, (3, 3), (2, 2), (1, 1), 1, 8),
    "kernel below stride": ((1, 10, 10), 16, (1, 1), (2, 2), (0, 0), 1, 4),
    "alone": ((1, 8, 8), 16, (3, 3), (1, 1), (1, 1), 1, 0),
    "too large": ((3, 9, 9), 128, (7, 7), (2, 2), (1, 1), 1, 0),
}
LANES = {np.int16: (8, Rounding.NEAREST), np.int32: (15, Rounding.NEAREST), np.int64: (8, Rounding.STOCHASTIC)}


def program_of(name: str, lane: type) -> tuple[Program, ConvOp, LifOp]:
    source, channels, kernel, stride, padding, groups, _ = SHAPES[name]
    bits, rounding = LANES[lane]
    rng = np.random.default_rng(4)
    op = ConvOp(source="input", target="a", weight="a.w", shape=source, stride=stride, padding=padding, groups=groups)
    w = rng.integers(-1 << bits - 1, 1 << bits - 1, (channels, source[0] // groups, *kernel))
    n, v_fmt = math.prod(conv_shape(op, w.shape)), QFormat(bits=bits + 7, signed=True)
    tensors = {
        "a.w": codes(w, QFormat(bits=bits, signed=True)),
        "a.decay": codes(13, QFormat(bits=4)),
        "a.v_th": codes(1 << bits - 3, QFormat(bits=bits + 2)),
        "a.v_reset": codes(0, v_fmt),
    }
    lif = LifOp(
        name="a",
        n=n,
        v_fmt=v_fmt,
        v_min=v_fmt.code_min,
        rounding=rounding,
        leak=Leak(decay="a.decay", shift=4),
        input=InputShift(shift=1),
        threshold=Threshold(tensor="a.v_th"),
        reset=Reset(tensor="a.v_reset", by="subtract"),
        n_ref=0,
        winner=False,
        stream=16,
    )
    ops = (EventsOp(shape=source), op, lif, ReadOp(source="a"))
    return Program(name="cells", n_inputs=math.prod(source), n_steps=5, seed=1, ops=ops, tensors=tensors), op, lif


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", SHAPES)
def test_blocks_are_what_their_sources_add(name: str, lane: type) -> None:
    program, op, lif = program_of(name, lane)
    made = strips(program, op, field_of(program, lif, [op]), lane, np.zeros(lif.n, np.int64))
    found, largest = cells(made, lane), SHAPES[name][-1]
    assert found.blocks.nbytes <= LARGEST
    assert (found.of.size > 0) == (largest > 0) or lane is np.int64  # whose blocks may be too large
    if found.of.size == 0:
        return
    assert np.bincount(found.of >> 3).max() == largest
    at, first = made.table.reshape(-1, 2).T
    size = made.n_rows * made.n_strips * 16
    for cell in np.unique(found.of >> 3)[::3]:
        members = np.flatnonzero(found.of >> 3 == cell)
        assert (at[members] == found.table[2 * cell]).all()
        some = members[np.random.default_rng(cell).random(len(members)) < 0.6]
        number = int(sum(1 << (found.of[some] & 7)))
        begin = found.table[2 * cell + 1] + number * size
        block = found.blocks[begin : begin + size].astype(np.int64)
        alone = [made.rows[first[i] : first[i] + size].astype(np.int64) for i in some]
        np.testing.assert_array_equal(block, np.sum([np.zeros(size, np.int64), *alone], axis=0))


@pytest.mark.parametrize("density", [0.02, 0.12, 0.5, 1.0])
@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", SHAPES)
def test_cells_change_nothing(name: str, lane: type, density: float) -> None:
    program, _, _ = program_of(name, lane)
    spikes = from_dense(np.random.default_rng(7).random((5, 3, program.n_inputs)) < density)
    expected = reference.run(program, spikes, record=True)
    check_equal(numba_engine.run(program, spikes, record=True), expected, name)
    assert density < 0.1 or expected.counts["a"].sum() > 0


def test_cells_are_for_busy_steps_and_leave_their_room_as_it_was() -> None:
    program, op, lif = program_of("pixels by two", np.int16)
    field = field_of(program, lif, [op])
    made = strips(program, op, field, np.int16, np.zeros(lif.n, np.int64))
    together = cells(made, np.int16)
    together.blocks[:] = 0  # so that what goes by cells is not there
    for n_events, arrives in ((together.least - 1, True), (together.least, False)):
        raster = np.zeros((1, 1, program.n_inputs))
        raster[0, 0, 30 : 30 + n_events] = 1
        spikes, totals = from_dense(raster), np.zeros((1, 1, field.size), np.int16)
        feed_kernel.add_all(spikes.offsets, spikes.index, np.zeros(0, np.uint8), (*made, together), totals)
        assert totals.any() == arrives

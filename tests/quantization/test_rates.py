"""Restored rates: disturbed thresholds come back, fitting ones stay, and what makes no sense is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn.errors import ConfigError, DataError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import Program
from qspinn.program.ops import ConvOp, DenseOp, EventsOp, LifOp, ReadOp
from qspinn.program.parts import Inhibition, InputShift, Leak, Reset, Threshold
from qspinn.quantization.rates import measured_rates, restore_rates
from qspinn.runtime import run
from qspinn.spikes import Spikes, from_dense
from qspinn.testing.programs import codes

SIZES = {"a": 4, "b": 3, "c": 2}
"""Channels of the populations."""


def lif(name: str, n: int, number: int) -> LifOp:
    return LifOp(
        name=name,
        n=n,
        v_fmt=QFormat(bits=12, signed=True),
        v_min=-2048,
        rounding=Rounding.NEAREST,
        leak=Leak(decay="decay", shift=4),
        input=InputShift(shift=0),
        threshold=Threshold(tensor=f"{name}.v_th"),
        reset=Reset(tensor="v_reset"),
        n_ref=0,
        winner=False,
        stream=16 * number,
    )


def program(**thresholds: Any) -> Program:
    """A convolution of 4 channels, one of 3, two dense neurons; thresholds by population."""
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> Any:
        return codes(rng.integers(-3, 8, shape), QFormat(bits=4, signed=True))

    levels = {"a": [15, 20, 20, 25], "b": [20], "c": [40, 70]} | thresholds
    tensors = {
        "a.w": weights(4, 1, 3, 3),
        "b.w": weights(3, 4, 2, 2),
        "c.w": weights(2, 27),
        "decay": codes(14, QFormat(bits=4, frac=4)),
        "v_reset": codes(0, QFormat(bits=1)),
    }
    tensors |= {f"{name}.v_th": codes(v, QFormat(bits=10)) for name, v in levels.items()}
    ops = (
        EventsOp(shape=(1, 8, 8)),
        ConvOp(source="input", target="a", weight="a.w", shape=(1, 8, 8)),
        lif("a", 144, 1),
        ConvOp(source="a", target="b", weight="b.w", shape=(4, 6, 6), stride=(2, 2)),
        lif("b", 27, 2),
        DenseOp(source="b", target="c", weight="c.w"),
        lif("c", 2, 3),
        ReadOp(source="c"),
    )
    return Program(name="rates", n_inputs=64, n_steps=20, seed=1, ops=ops, tensors=tensors)


def some_spikes(n_samples: int = 40) -> Spikes:
    return from_dense(np.random.default_rng(4).random((20, n_samples, 64)) < 0.3)


def rates(of: Program, spikes: Spikes) -> dict[str, np.ndarray]:
    return {name: measured_rates(of, name, spikes, n) for name, n in SIZES.items()}


def test_measured_rates_are_spikes_per_neuron_and_step() -> None:
    of, spikes = program(), some_spikes()
    raster = run(of, spikes, record=True).spikes["b"]
    assert measured_rates(of, "b", spikes, 3) == pytest.approx(raster.reshape(20, 40, 3, 9).mean(axis=(0, 1, 3)))


def test_disturbed_thresholds_come_back_to_the_rates() -> None:
    spikes = some_spikes()
    wanted = rates(program(), spikes)
    assert all(0.005 < r < 0.6 for x in wanted.values() for r in x)
    disturbed = program(a=[50, 9, 31, 90], b=[60], c=[5, 1000])
    restored = restore_rates(disturbed, spikes, wanted)
    for name, found in rates(restored, spikes).items():
        assert found == pytest.approx(wanted[name], abs=1e-12), name
    assert restored.codes("b.v_th").shape == (3,)
    assert {n for n, t in restored.tensors.items() if t is not disturbed.tensors[n]} == {"a.v_th", "b.v_th", "c.v_th"}
    assert restored.ops == disturbed.ops


def test_rates_are_the_closest_that_any_threshold_gives() -> None:
    """Against trying every code of a population that nothing comes back to."""
    spikes, wanted = some_spikes(3), np.array([0.013, 0.11, 0.257, 0.9])
    every = np.array([measured_rates(program(a=[c] * 4), "a", spikes, 4) for c in range(1, 100)])
    assert not every[-1].any()
    found = measured_rates(restore_rates(program(), spikes, {"a": wanted}), "a", spikes, 4)
    assert np.abs(found - wanted) == pytest.approx(np.abs(every - wanted).min(axis=0), abs=1e-12)


def test_populations_without_a_target_stay_but_feel_the_change() -> None:
    spikes, disturbed = some_spikes(), program(a=[50, 9, 31, 90])
    wanted = rates(program(), spikes)
    restored = restore_rates(disturbed, spikes, {"a": wanted["a"]})
    assert restored.tensors["b.v_th"] is disturbed.tensors["b.v_th"]
    found = rates(restored, spikes)
    for name in SIZES:
        assert found[name] == pytest.approx(wanted[name], abs=1e-12), name


def test_nothing_changes_where_rates_fit() -> None:
    of, spikes = program(), some_spikes()
    assert restore_rates(of, spikes, rates(of, spikes)) is of
    between = {name: r + 1e-9 for name, r in rates(of, spikes).items()}  # nearest is what there is
    assert restore_rates(of, spikes, between) is of


def test_one_rate_for_each_neuron() -> None:
    spikes = some_spikes()
    wanted = measured_rates(program(b=[15] * 20 + [30] * 7), "b", spikes, 27)
    restored = restore_rates(program(), spikes, {"b": wanted})
    assert restored.codes("b.v_th").shape == (27,)
    assert measured_rates(restored, "b", spikes, 27) == pytest.approx(wanted, abs=1e-12)


def test_thresholds_use_all_of_their_format_above_zero_and_no_more() -> None:
    spikes, of = some_spikes(), program()
    loud = msgspec.structs.replace(
        of, ops=tuple(msgspec.structs.replace(op, shift=3) if isinstance(op, ConvOp) else op for op in of.ops)
    )
    always, never = (restore_rates(loud, spikes, {"a": np.full(4, rate)}) for rate in (1.0, 0.0))
    assert always.codes("a.v_th").min() >= 1
    assert 300 < never.codes("a.v_th").max() <= 1023
    assert measured_rates(never, "a", spikes, 4) == pytest.approx(np.zeros(4))
    assert always.codes("a.v_th").max() < never.codes("a.v_th").min()


def test_every_engine_measures_the_same() -> None:
    spikes, disturbed = some_spikes(10), program(a=[50, 9, 31, 90])
    wanted = rates(program(), spikes)
    first, *others = (restore_rates(disturbed, spikes, wanted, backend=b) for b in ("numba", "reference", "torch"))
    for other in others:
        assert all(np.array_equal(first.codes(name), other.codes(name)) for name in first.tensors)


def competing(v_th: int) -> Program:
    """Neurons of which one wins and inhibits the others, with feedback: thresholds of one act on the rates of all."""
    of = program(c=[v_th])
    rng = np.random.default_rng(5)
    more = {
        "c.inhibition": codes(30, QFormat(bits=8)),
        "c.w": codes(rng.integers(-2, 8, (8, 27)), QFormat(bits=5, signed=True)),
        "c.back": codes(rng.integers(-8, 8, (8, 8)), QFormat(bits=4, signed=True)),
    }
    ops = (
        *of.ops[:-2],
        DenseOp(source="c", target="c", weight="c.back"),
        msgspec.structs.replace(of.ops[-2], n=8, winner=True, inhibition=Inhibition(tensor="c.inhibition")),
        of.ops[-1],
    )
    return msgspec.structs.replace(of, ops=ops, tensors=of.tensors | more)


def test_rounds_bring_neurons_that_act_on_each_other_closer() -> None:
    spikes, wanted = some_spikes(), np.full(8, 0.04)
    misses = [
        np.abs(measured_rates(p, "c", spikes, 8) - wanted).sum()
        for p in (
            competing(20),
            *(restore_rates(competing(20), spikes, {"c": wanted}, n_rounds=n) for n in (1, 2, 4, 5)),
        )
    ]
    assert misses == sorted(misses, reverse=True)
    assert misses[1] < misses[0] / 2
    assert misses[-1] < misses[1] / 2


@pytest.mark.parametrize(
    ("targets", "kind", "message"),
    [
        ({"z": np.ones(4)}, ConfigError, r"target_rates\['z'\]: is no spiking population; got 'z'; allowed: a, b, c"),
        ({"a": np.ones(5)}, DataError, r"wrong shape; got \(5,\); allowed: .* a divisor of 144 .* multiple of 4"),
        ({"a": np.ones(20)}, DataError, "wrong shape"),
        ({"a": np.ones((4, 1))}, DataError, "wrong shape"),
        ({"a": np.ones(2)}, DataError, "wrong shape"),
        (
            {"a": np.array([0.1, 0.2, 0.3, 1.5])},
            DataError,
            r"not spikes per step; got \(.*0\.1.*1\.5.*\); allowed: 0\.\.1",
        ),
        ({"a": np.array([0.1, 0.2, 0.3, np.nan])}, DataError, r"target_rates\['a'\]\[3\]: holds NaN"),
        ({"a": ["x", "y"]}, DataError, "holds no real numbers"),
        ({"a": [[0.1], [0.2, 0.3]]}, DataError, "no rectangular array"),
    ],
)
def test_targets_that_make_no_sense_are_refused(
    targets: dict[str, np.ndarray], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        restore_rates(program(), some_spikes(2), targets)


def test_no_samples_and_no_rounds_are_refused() -> None:
    with pytest.raises(DataError, match="calibration data: holds no samples"):
        restore_rates(program(), some_spikes(2).slice(0, 0), {})
    with pytest.raises(ConfigError, match="n_rounds: is out of range; got 0"):
        restore_rates(program(), some_spikes(2), {}, n_rounds=0)


def test_populations_that_do_not_spike_have_no_rate() -> None:
    of = program()
    ops = [msgspec.structs.replace(op, spiking=False) if op == of.ops[-2] else op for op in of.ops]
    with pytest.raises(ConfigError, match=r"allowed: a, b$"):
        restore_rates(msgspec.structs.replace(of, ops=tuple(ops)), some_spikes(2), {"c": np.ones(2)})

"""The passes over time for layers of the usual kind against those for every layer, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qspinn.compiled.scalars import NEAREST, STOCHASTIC, TRUNCATE
from qspinn.compiled.vectors import aligned
from qspinn.learning.gradients import choice
from qspinn.learning.gradients.choice import Passes
from qspinn.learning.gradients.kernels import backward as backward_kernel
from qspinn.learning.gradients.kernels import fast
from qspinn.learning.gradients.kernels import forward as forward_kernel
from qspinn.learning.gradients.scan import Scan

N_SAMPLES, N_STEPS = 3, 7
NAMES = ("levels", "biases", "decays", "products")


def scan_of(mode: int, **changes: Any) -> Scan:
    plain = mode == forward_kernel.PLAIN
    settings: dict[str, Any] = {
        "kind": np.float32,
        "decay": 0.8 if plain else 205,
        "decay_scale": 1.0 if plain else 2.0**-8,
        "in_scale": np.ones(4) if plain else np.array([0.5, 1, 2, 0.25]),
        "reset": np.zeros(4),
        "unit": np.ones(4) if plain else np.array([0.01, 0.02, 0.05, 0.03]),
        "v_min": -np.inf if plain else -64,
        "v_max": np.inf if plain else 63,
        "strict": False,
        "subtract": True,
        "n_ref": 0,
        "spiking": True,
        "has_current": False,
        "i_decay": 0,
        "i_scale": 1.0,
        "i_min": 0,
        "i_max": 0,
        "delayed": False,
        "theta_step": np.zeros(0),
        "theta_decay": 0,
        "theta_scale": 1.0,
        "theta_max": 0,
        "theta_unit": 1.0,
        "mode": mode,
        "seed": 1,
        "stream": 16,
        "surrogate": backward_kernel.ARCTAN,
        "width": 2.0,
    }
    return Scan(**settings | changes)


def passes_of(scan: Scan, seed: int, places: int = 8, gained: bool = True, n_channels: int = 4) -> Passes:
    rng = np.random.default_rng(seed)
    n, plain = n_channels * places, scan.mode == forward_kernel.PLAIN
    level = rng.uniform(0.5, 1.5, n_channels) if plain else rng.integers(1, 60, n_channels)
    bias = rng.normal(0, 0.1, n_channels) if plain else rng.integers(-3, 4, n_channels)
    current = rng.normal(0.2, 0.6, (N_SAMPLES, N_STEPS, n)) if plain else rng.integers(-60, 90, (N_SAMPLES, N_STEPS, n))
    gain = rng.uniform(0.5, 2, n).astype(np.float32) if gained else np.zeros(0, np.float32)
    return Passes(
        scan,
        level.astype(scan.kind),
        bias.astype(scan.kind),
        current.astype(scan.kind),
        gain if plain else gain[:0],
        np.zeros((0, 0), scan.kind),
    )


def outcome(passes: Passes, seed: int, without: tuple[str, ...] = ()) -> dict[str, NDArray]:
    """Everything both passes write."""
    rng, shape = np.random.default_rng(seed), passes.current.shape
    n = shape[2]
    spikes, v_after, none = (
        np.full(shape, 9, np.float32),
        np.full(shape, 9, np.float32),
        np.zeros((0, 0, 0), np.float32),
    )
    work = passes.forward(spikes, v_after, none, none)
    count = sum(work(0, a, b) for a, b in ((0, 2), (2, N_SAMPLES)))
    up, across = (none if name in without else rng.normal(size=shape).astype(np.float32) for name in ("up", "across"))
    grad = aligned(shape, np.float32)
    grad[:] = 9
    sums = {name: np.zeros((2, 0 if name in without else n), np.float32) for name in NAMES}
    normed, around = rng.normal(size=shape).astype(np.float32), rng.normal(size=n).astype(np.float32)
    back = passes.backward(up, np.float32(0.125), across, np.zeros((0, 0)), normed, around, grad, *sums.values())
    for number, (a, b) in enumerate(((0, 1), (1, N_SAMPLES))):
        back(number, a, b)
    return {"count": np.array(count), "spikes": spikes, "left": v_after, "grad": grad} | sums


def both(passes: Passes, seed: int, without: tuple[str, ...] = ()) -> tuple[dict, dict]:
    assert passes.fast
    fast = outcome(passes, seed, without)
    passes.fast = False
    return fast, outcome(passes, seed, without)


@given(
    st.integers(0, 10_000),
    st.sampled_from([forward_kernel.PLAIN, NEAREST, TRUNCATE]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([backward_kernel.ARCTAN, backward_kernel.FAST_SIGMOID, backward_kernel.TRIANGLE]),
    st.sets(st.sampled_from(["up", "across", "levels", "decays", "products"])),
    st.sampled_from([4, 8, 260]),
)
def test_usual_layers_are_computed_as_any_layer(
    seed: int, mode: int, strict: bool, gained: bool, surrogate: int, without: set[str], places: int
) -> None:
    scan = scan_of(mode, strict=strict, surrogate=surrogate)
    fast, slow = both(passes_of(scan, seed, places, gained), seed, tuple(without))
    for name, found in fast.items():
        np.testing.assert_array_equal(found, slow[name], err_msg=name)
    assert fast["count"] > 0


@pytest.mark.parametrize("mode", [forward_kernel.PLAIN, NEAREST])
def test_large_gradients_are_stored_past_the_caches(mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    near = outcome(passes_of(scan_of(mode), 3), 3)
    monkeypatch.setattr(choice, "PAST", 0)
    assert choice.goes_past(aligned((4,), np.float32))
    assert not choice.goes_past(aligned((5,), np.float32)[1:])
    for name, found in outcome(passes_of(scan_of(mode), 3), 3).items():
        np.testing.assert_array_equal(found, near[name], err_msg=name)


def test_potentials_are_limited_on_both_sides() -> None:
    passes = passes_of(scan_of(NEAREST, v_min=-8, v_max=9), 3)
    fast, slow = both(passes, 3)
    assert fast["left"].min() == -8
    for name, found in fast.items():
        np.testing.assert_array_equal(found, slow[name], err_msg=name)


def test_what_is_no_number_is_passed_on() -> None:
    passes = passes_of(scan_of(forward_kernel.PLAIN), 3)
    passes.current[1, 2, 5] = np.nan
    fast, slow = both(passes, 3)
    assert np.isnan(fast["spikes"][1, 2:, 5]).all()
    np.testing.assert_array_equal(fast["spikes"], slow["spikes"])


@pytest.mark.parametrize(
    "changes",
    [
        {"spiking": False},
        {"subtract": False},
        {"n_ref": 2},
        {"has_current": True},
        {"mode": STOCHASTIC},
        pytest.param({"kind": np.float64}, marks=pytest.mark.soak),
        {"delayed": True},
        {"theta_step": np.ones(4)},
    ],
    ids=str,
)
def test_other_layers_go_the_general_way(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "forward", None)
    scan = scan_of(NEAREST)._replace(**changes)
    passes = passes_of(scan, 1, gained=False)
    shape = passes.current.shape
    current, thetas = (np.zeros(shape if there else (0, 0, 0), np.float32) for there in (scan.has_current, scan.adapts))
    passes.forward(np.zeros(shape, np.float32), np.zeros(shape, np.float32), current, thetas)(0, 0, N_SAMPLES)
    assert not passes.fast
    assert not passes_of(scan_of(NEAREST), 1, places=5, gained=False).fast  # 20 neurons fill no register

"""Local learning in integers: equal to a slow oracle, integers throughout, the same on any number of threads."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numba as nb
import numpy as np
import pytest
from numba.core import types
from numpy.typing import NDArray

from decolle_oracle import Oracle
from qspinn.data.events.event_set import EventSet, from_dense
from qspinn.errors import ConfigError, DataError, LoweringError
from qspinn.fixedpoint import Rounding
from qspinn.learning.local.formats import DEFAULT_PLAN, default_rules, local_rules, rate_codes
from qspinn.learning.local.integers import IntegerLayers
from qspinn.learning.local.kernels import backward as _backward
from qspinn.learning.local.kernels import forward as _forward
from qspinn.learning.local.kernels import step as _kernel
from qspinn.learning.local.kernels import update as _update
from qspinn.learning.local.settings import LocalLearning
from qspinn.learning.local.start import LayerStart, raster_of, start_of
from qspinn.learning.local.training import answers, fit, layers_of, predicted_classes
from qspinn.networks.local import LocalLayer, LocalNetwork, sizes_of
from qspinn.quantization.plan import QuantPlan, QuantRule, with_rule
from samples import LOCAL_SHAPE, local_bars

TWO = (LocalLayer(channels=3, kernel=3, padding=1, pool=2), LocalLayer(channels=5, kernel=3, padding=0))
LEARNING = LocalLearning(learning_rate=2.0**-6, burn_in=1)


KERNELS = (_kernel.advance, _update.update, _update.forward_codes, _update.power_of)


def noise(n: int = 6, n_steps: int = 4, seed: int = 0) -> EventSet:
    rng = np.random.default_rng(seed)
    return from_dense(rng.random((n, n_steps, *LOCAL_SHAPE)) < 0.3, np.arange(n) % 3, order="BT")


def started(network: LocalNetwork, data: EventSet | None = None) -> tuple[LayerStart, ...]:
    return start_of(network, data or noise(), 3, step_ms=5.0, burn_in=1)


def integer(
    network: LocalNetwork, learning: LocalLearning = LEARNING, plan: QuantPlan = DEFAULT_PLAN, n_threads: int = 1
) -> IntegerLayers:
    return IntegerLayers(network, learning, started(network), plan, seed=3, n_threads=n_threads)


def same(a: dict[str, NDArray], b: dict[str, NDArray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


ROUNDED = {
    kind: QuantRule(tensor=f"*.{kind}", bits=bits, rounding=Rounding.TRUNCATE)
    for kind, bits in (("w", 6), ("q_trace", 8), ("p_trace", 8), ("u", 5), ("readout", 6), ("error", 5))
}
PLANS = {
    "published": DEFAULT_PLAN,
    "wide Q": QuantPlan(rules=default_rules(q_trace=12, p_trace=9, gradient=8, error=4, readout=7, read=7)),
    "few read-out bits": QuantPlan(rules=default_rules(readout=3, read=5)),
    "wide R": QuantPlan(rules=default_rules(r=4, u=7, error=8, activation=5)),
    "truncated": functools.reduce(with_rule, ROUNDED.values(), DEFAULT_PLAN),
    "nearest": with_rule(
        with_rule(DEFAULT_PLAN, QuantRule(tensor="*.r", bits=3)), QuantRule(tensor="*.gradient", bits=12)
    ),
    "toward zero": with_rule(DEFAULT_PLAN, QuantRule(tensor="*.gradient", bits=12, rounding=Rounding.TOWARD_ZERO)),
}
CASES: list[tuple[tuple[LocalLayer, ...], str, dict[str, Any]]] = [
    (TWO, "published", {}),
    (
        (
            LocalLayer(channels=20, kernel=5, padding=2, stride=2),
            LocalLayer(channels=16, kernel=3, padding=1, pool=2),
            LocalLayer(channels=4, kernel=1, padding=0),
        ),
        "published",
        {"burn_in": 0},
    ),
    (
        (LocalLayer(channels=40, kernel=4, padding=3, stride=3), LocalLayer(channels=33, kernel=2, padding=0, pool=2)),
        "published",
        {"halve_every": 1, "l1": 0.0, "l2": 0.0},
    ),
    (TWO, "wide Q", {"burn_in": 3}),
    (TWO, "wide R", {"l1": 0.5, "l2": 50.0}),
    (TWO, "few read-out bits", {}),
    (TWO, "truncated", {}),
    (TWO, "nearest", {}),
    (TWO, "toward zero", {}),
]


@pytest.mark.parametrize(("layers", "plan", "changed"), CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_weights_and_readouts_are_those_of_the_oracle(
    layers: tuple[LocalLayer, ...], plan: str, changed: dict[str, Any], bias: bool
) -> None:
    learning = msgspec.structs.replace(LEARNING, **changed)
    net = integer(LocalNetwork(layers=layers, bias=bias), learning, PLANS[plan])
    oracle = Oracle([layer.grid for layer in net.layers], learning, bias=bias, seed=3)
    x, labels = raster_of(noise()), noise().labels
    assert np.array_equal(net.readouts(x)[0], oracle.run(x))
    for epoch in range(2):
        net.learn(x, labels, epoch)
        oracle.run(x, labels, epoch)
        for mine, theirs in zip(net.layers, oracle.layers, strict=True):
            assert np.array_equal(mine.weights(), theirs.w.transpose(0, 3, 1, 2)), mine.name
            assert np.array_equal(mine.learned[mine.n_weights :], theirs.b), mine.name
            assert mine.e_exponent == theirs.e_exponent, mine.name
            assert (theirs.w != theirs.g.learned).any(), mine.name
    values, n_spikes = net.readouts(x)
    assert np.array_equal(values, oracle.run(x))
    assert n_spikes == oracle.n_spikes


def test_quiet_recordings_are_pulled_up() -> None:
    """The second regularizer, with its limit where it divides the recordings."""
    learning = msgspec.structs.replace(LEARNING, l2=50.0)
    net = integer(LocalNetwork(layers=TWO), learning)
    oracle = Oracle([layer.grid for layer in net.layers], learning, seed=3)
    oracle.run(raster_of(noise()))
    for mine, theirs in zip(net.layers, oracle.layers, strict=True):
        sums = theirs.act.sum(axis=(1, 2, 3))
        assert mine.numbers.least == theirs.least
        theirs.least = int(np.median(sums))
        assert 0 < (sums < theirs.least).sum() < 6
        mine.numbers = mine.numbers._replace(least=theirs.least)
    net.learn(raster_of(noise()), noise().labels, 0)
    oracle.run(raster_of(noise()), noise().labels)
    for mine, theirs in zip(net.layers, oracle.layers, strict=True):
        assert np.array_equal(mine.weights(), theirs.w.transpose(0, 3, 1, 2)), mine.name


@pytest.mark.parametrize("n_threads", [2, 3, 7])
def test_any_number_of_threads_learns_the_same(n_threads: int) -> None:
    network, x, labels = LocalNetwork(layers=TWO), raster_of(noise(7)), noise(7).labels
    one, many, again = integer(network), integer(network, n_threads=n_threads), integer(network, n_threads=n_threads)
    for layers in (one, many, again):
        for epoch in range(3):
            layers.learn(x, labels, epoch)
    assert same(one.state(), many.state())
    assert same(again.state(), many.state())
    assert not same(one.state(), integer(network).state())


def test_sums_are_emptied_before_they_could_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, labels = LocalNetwork(layers=TWO), raster_of(noise()), noise().labels
    whole, often = integer(network), integer(network)
    for layer in often.layers:
        layer.numbers = layer.numbers._replace(n_safe=2)
    for layers in (whole, often):
        layers.learn(x, labels, 0)
    assert same(whole.state(), often.state())


def test_the_seed_draws_the_random_bits() -> None:
    network, x, labels = LocalNetwork(layers=TWO), raster_of(noise()), noise().labels
    start = started(network)
    states = []
    for seed in (0, 1):
        layers = IntegerLayers(network, LEARNING, start, DEFAULT_PLAN, seed=seed, n_threads=1)
        layers.learn(x, labels, 0)
        states.append(layers.state())
    assert not same(*states)


def arrays_in(x: Any) -> Iterator[NDArray]:
    """Every array, and every number as an array, within containers and records."""
    if isinstance(x, np.ndarray | int | float | np.generic):
        yield np.asarray(x)
    elif isinstance(x, dict):
        for value in x.values():
            yield from arrays_in(value)
    elif isinstance(x, tuple | list):
        for value in x:
            yield from arrays_in(value)
    elif isinstance(x, msgspec.Struct):
        yield from arrays_in([getattr(x, f) for f in x.__struct_fields__])
    elif hasattr(x, "__dict__"):
        yield from arrays_in(vars(x))


def integers_only(x: Any) -> None:
    for array in arrays_in(x):
        assert array.dtype.kind in "iub", array.dtype


def test_there_is_no_float_between_input_spikes_and_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            called.append(name)
            integers_only(arguments)
            found = function(*arguments)
            integers_only(found)
            return found

        return call

    layers = integer(LocalNetwork(layers=TWO))
    for kernel in KERNELS:
        name = kernel.py_func.__name__
        home = _kernel if name == "advance" else _update
        monkeypatch.setattr(home, name, watched(name, kernel))
    x = raster_of(noise())
    integers_only(x)
    layers.learn(x, noise().labels, 0)
    assert set(called) == {"advance", "update", "forward_codes", "power_of"}
    for layer in layers.layers:
        integers_only(vars(layer))
    integers_only(layers.state())
    with pytest.raises(AssertionError):
        integers_only(np.zeros(2, np.float32))


def is_float(kind: Any) -> bool:
    """Whether a type of Numba's is, or holds, a float."""
    if isinstance(kind, types.Array):
        return is_float(kind.dtype)
    if isinstance(kind, types.BaseTuple):
        return any(map(is_float, kind))
    return isinstance(kind, types.Float | types.Complex) or "float" in str(kind)


@pytest.mark.slow
def test_compiled_kernels_hold_no_float() -> None:
    """Types of all variables of the kernels and of their pieces, and their machine-independent code."""
    layers = integer(LocalNetwork(layers=TWO))
    layers.learn(raster_of(noise()), noise().labels, 0)
    for kernel in KERNELS:
        fresh = nb.njit(nogil=True, error_model="numpy")(kernel.py_func)  # what comes from the cache says nothing
        fresh.compile(kernel.signatures[0])
        code = next(iter(fresh.inspect_llvm().values()))
        assert "i32" in code
        assert not re.search(r"\b(float|double|bfloat)\b", code), kernel.py_func.__name__
        found = fresh.overloads[fresh.signatures[0]].type_annotation.typemap.values()
        assert found
        assert not any(map(is_float, found)), kernel.py_func.__name__
    homes = (_backward, _forward, _kernel, _update)
    pieces = [
        f for home in homes for f in vars(home).values() if isinstance(f, nb.core.dispatcher.Dispatcher) and f.overloads
    ]
    seen = 0
    for piece in pieces:
        for compiled in piece.overloads.values():
            kinds = getattr(compiled.type_annotation, "typemap", {})
            seen += len(kinds)
            assert not any(map(is_float, kinds.values())), piece.py_func.__name__
    assert seen > 500


@pytest.mark.parametrize("arithmetic", ["integer", "float"])
def test_learns_bars(arithmetic: Any) -> None:
    network = LocalNetwork(
        layers=(LocalLayer(channels=16, kernel=3, padding=1), LocalLayer(channels=16, kernel=3, padding=1, pool=2)),
        tau_mem_ms=(5.0, 30.0),
    )
    learning = LocalLearning(
        arithmetic=arithmetic, n_epochs=3, batch=24, burn_in=2, learning_rate=2.0**-6, float_learning_rate=1e-2
    )
    train, test = local_bars(240, 1), local_bars(120, 2)
    layers = layers_of(network, learning, started(network, train), DEFAULT_PLAN)
    before = (answers(layers, test, "mode", 2)[0] == test.labels).mean()
    fit(layers, train, learning)
    right = (answers(layers, test, "mode", 2)[0] == test.labels).mean()
    assert before < 0.6
    assert right > 0.9


def test_wide_integers_read_out_what_floats_do() -> None:
    """Traces that do not saturate, no refractory memory beyond a step: what remains is rounding."""
    network = LocalNetwork(layers=TWO[:1], cap=1.0, refractory=0.0)
    wide = QuantPlan(
        rules=default_rules(
            w=12, gradient=16, q_trace=15, p_trace=13, r=8, u=10, readout=12, read=12, activation=10, error=6
        )
    )
    start, x = started(network), raster_of(noise())
    floats = layers_of(network, LocalLearning(arithmetic="float"), start, wide).readouts(x)[0]
    codes = IntegerLayers(network, LocalLearning(), start, wide, n_threads=1).readouts(x)[0]
    assert floats.std() > 0.1
    assert np.abs(floats - codes / 2.0**11).max() < 0.05
    assert np.abs(floats - codes / 2.0**11).mean() < 0.005


def test_gradients_of_the_float_version_are_those_of_autograd() -> None:
    import torch
    from torch.nn import functional

    from qspinn.learning.local.floats import FloatLayers

    network = LocalNetwork(layers=(LocalLayer(channels=4, kernel=3, padding=1, stride=2, pool=2),))
    learning = LocalLearning(arithmetic="float", burn_in=0, l1=0.3, l2=20.0, float_learning_rate=1e-3)
    start = started(network)
    start = (msgspec.structs.replace(start[0], feedback=start[0].readout),)  # then the feedback is the true gradient
    layer = FloatLayers(network, learning, start).layers[0]
    data = noise()
    layer.rest(6)
    for spikes in torch.from_numpy(raster_of(data)).permute(0, 1, 4, 2, 3).float():
        r = layer.r.clone()
        _, activity = layer.advance(spikes)
    w, b = layer.w.clone().requires_grad_(), layer.b.clone().requires_grad_()
    pooled = functional.max_pool2d(functional.conv2d(layer.p, w * layer.scale, b, 2, 1) - r, 2)
    assert torch.allclose(pooled, layer.u, atol=1e-5)
    read = pooled.sigmoid().flatten(1) @ layer.readout.T * layer.read_scale
    wanted = functional.one_hot(torch.tensor(data.labels), 3).float()
    loss = ((read - wanted) ** 2).mean(1).sum() / 6
    mean = pooled.sigmoid().mean(dim=(1, 2, 3))
    loss = loss + 20 * 0.3 * (pooled + 0.01).relu().mean() + 0.1 * 20.0 * (0.1 - mean).relu().mean()
    torch.autograd.backward(loss)
    layer.update(activity, torch.tensor(data.labels), 1e-3)
    assert w.grad is not None
    assert b.grad is not None
    assert torch.allclose(layer.w_size, w.grad.abs() + 1e-8, atol=1e-6)
    assert torch.allclose(layer.b_size, b.grad.abs() + 1e-8, atol=1e-6)
    assert torch.equal(torch.sign(w.detach() - layer.w), torch.sign(w.grad))


def test_most_frequent_and_summed_readouts() -> None:
    values = np.array([[[3, 2, 0]], [[3, 2, 0]], [[0, 9, 0]]])
    assert predicted_classes(values, "mode").tolist() == [0]
    assert predicted_classes(values, "sum").tolist() == [1]


@pytest.mark.parametrize(
    ("bits", "rounding", "match"),
    [
        (
            6,
            Rounding.NEAREST,
            r"conv1.gradient: is too narrow to ever move a weight; got '6 bits rounded nearest at a "
            r"learning rate of 0.00195312'; allowed: 9..16 bits; fix: 9 bits or more",
        ),
        (9, Rounding.TRUNCATE, "fix: 10 bits or more"),
    ],
)
def test_a_gradient_that_never_moves_a_weight_is_refused(bits: int, rounding: Rounding, match: str) -> None:
    with pytest.raises(LoweringError, match=match):
        rate_codes("conv1", 2.0**-9, bits, rounding)


def test_the_smallest_width_named_does_move_a_weight() -> None:
    for rate in (2.0**-5, 2.0**-9, 3e-3):
        for rounding in Rounding:
            for bits in range(2, 17):
                try:
                    code, shift = rate_codes("a", rate, bits, rounding)
                except LoweringError as error:
                    least = int(error.fix.split()[0])
                    assert least > bits
                    rate_codes("a", rate, least, rounding)
                    continue
                largest = 92_681 * code  # sqrt 2 in 2^-16, what a gradient may be over its power of two
                added = {Rounding.NEAREST: 1 << (shift - 1), Rounding.STOCHASTIC: (1 << shift) - 1}.get(rounding, 0)
                assert (largest + added) >> shift > 0


@pytest.mark.parametrize(
    ("bits", "match"),
    [
        (
            {"gradient": 6},
            r"conv1.gradient: the shift that rounds to this width would be negative; got 'gradient of 6 bits "
            r"under w of 8'; allowed: conv1.gradient of at least 8 bits",
        ),
        ({"p_trace": 1, "w": 2, "u": 10}, r"conv1.(r|u): the shift that rounds to this width would be negative"),
        ({"q_trace": 1}, r"conv1.p_trace|conv1.q_trace"),
        ({"p_trace": 15, "w": 12, "gradient": 12}, "a sum could overflow 32 bits"),
    ],
)
def test_widths_that_do_not_fit_are_refused(bits: dict[str, int], match: str) -> None:
    network = LocalNetwork(
        layers=(LocalLayer(channels=64, kernel=9, padding=4), LocalLayer(channels=4)), tau_syn_ms=(90.0, 100.0)
    )
    with pytest.raises(LoweringError, match=match):
        IntegerLayers(network, LEARNING, started(network), QuantPlan(rules=default_rules(**bits)))


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (QuantRule(tensor="*.q_tarce", bits=4), "did you mean"),
        (QuantRule(tensor="*.u", bits=16), r"conv1.u: width is not possible here; got 16; allowed: 2..10"),
        (QuantRule(tensor="*.u", bits=6, rounding=Rounding.STOCHASTIC), "rounding is not possible here"),
        (QuantRule(tensor="*.u", bits=6, clip=0.5), r"plan.rules\[0\].clip: changes nothing"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rule: QuantRule, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        local_rules(with_rule(DEFAULT_PLAN, rule), ["conv1"])


def test_a_tensor_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"conv1.w: no rule matches"):
        local_rules(QuantPlan(rules=default_rules()[1:]), ["conv1"])


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ((LocalLayer(channels=2, kernel=11, padding=0),), r"conv1.kernel: is larger than its padded input"),
        ((LocalLayer(channels=2, kernel=8, padding=0, pool=3),), r"conv1.pool: is larger than the layer"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: tuple[LocalLayer, ...], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        sizes_of(LocalNetwork(layers=layers), LOCAL_SHAPE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalLayer(channels=0),
        lambda: LocalLayer(channels=2, pool=0),
        lambda: LocalNetwork(layers=()),
        lambda: LocalNetwork(layers=TWO, tau_mem_ms=(5.0, 1.0)),
        lambda: LocalNetwork(layers=TWO, refractory=1.0),
        lambda: LocalNetwork(layers=TWO, cap=0.0),
        lambda: LocalLearning(l1=-1.0),
        lambda: LocalLearning(batch=0),
        lambda: LocalLearning(learning_rate=0.0),
        lambda: LocalNetwork(layers=TWO, spread=float("nan")),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=r"value out of range|is not finite"):
        make()


def test_data_that_teach_nothing_are_refused() -> None:
    network = LocalNetwork(layers=TWO)
    silent = from_dense(np.zeros((3, 4, *LOCAL_SHAPE), bool), [0, 1, 2], order="BT")
    with pytest.raises(DataError, match="conv1: nothing reaches this layer"):
        started(network, silent)
    with pytest.raises(DataError, match="holds no samples"):
        started(network, noise().slice(0, 0))
    with pytest.raises(DataError, match=r"leave nothing to learn from; got '6 samples of 4 steps'"):
        fit(integer(network), noise(), LocalLearning(burn_in=4))

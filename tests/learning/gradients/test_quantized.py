"""In-training quantization: the module's spikes and states are the engine's, its gradients those of plain steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, LoweringError
from qspinn.fixedpoint import Rounding
from qspinn.learning.gradients.quantized import QuantNet, convert, prepare
from qspinn.learning.gradients.surrogate import SurrogateNet
from qspinn.networks.layered import (
    Conv2d,
    EventInput,
    Layer,
    LayeredNetwork,
    Leaky,
    Linear,
    NeuronReadout,
    Pool2d,
    Skip,
)
from qspinn.program import Program
from qspinn.quantization.plan import Calibrator, Granularity, Levels, QuantPlan, QuantRule
from qspinn.quantization.ranges import LayerRanges
from qspinn.runtime import run
from qspinn.spikes import from_dense

T, B = 12, 9


def network_of(
    neuron: Leaky, *, pool: str = "average", feedback: bool = False, of: str = "spikes", max_count: int = 1
) -> LayeredNetwork:
    out = neuron if of == "spikes" else Leaky(decay=0.9, spiking=False)
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 6, 6), max_count=max_count),
        n_steps=T,
        readout=NeuronReadout(source="out", of=of),
        layers=(
            Layer(name="a", shape=(4, 4, 4), neuron=neuron),
            Layer(name="b", shape=(4, 2, 2), neuron=neuron),
            Layer(name="out", shape=(3, 1, 1), neuron=out),
        ),
        connections=(
            Conv2d(source="input", target="a", norm=True),
            Pool2d(source="a", target="p", of=pool),
            Conv2d(source="p", target="b", padding=(1, 1), groups=2, bias=True),
            Skip(source="p", target="b", weight=0.6),
            Linear(source="b", target="out", bias=True),
            *([Linear(source="b", target="b")] if feedback else []),
        ),
    )


def plan_of(
    w: int,
    v: int,
    *,
    others: int = 12,
    rounding: Rounding = Rounding.NEAREST,
    granularity: Granularity = Granularity.PER_CHANNEL,
    of: str = "spikes",
    calibrator: Calibrator = Calibrator.MSE,
    weights: dict[str, Any] | None = None,
    potentials: dict[str, Any] | None = None,
) -> QuantPlan:
    out = Granularity.GLOBAL if of != "spikes" else granularity
    return QuantPlan(
        rules=(
            QuantRule(tensor="out.w", bits=w, granularity=out, rounding=rounding, calibrator=calibrator),
            *([QuantRule(tensor=f"{x}.w*", granularity=granularity, **weights) for x in ("a", "b")] if weights else []),
            *(
                []
                if weights
                else [
                    QuantRule(tensor="*.w*", bits=w, granularity=granularity, rounding=rounding, calibrator=calibrator)
                ]
            ),
            QuantRule(tensor="*.v", bits=v, rounding=rounding, **(potentials or {})),
            QuantRule(tensor="*", bits=others, rounding=rounding),
        )
    )


def raster_of(seed: int, *, most: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((rng.random((T, B, 72)) < 0.3) * rng.integers(1, most + 1, (T, B, 72))).astype(np.uint8)


def module_of(
    network: LayeredNetwork, plan: QuantPlan, seed: int = 1, decays: dict[str, np.ndarray] | None = None
) -> QuantNet:
    net = SurrogateNet(network, seed=seed, decays=decays)
    for k in range(5):
        net(torch.from_numpy(raster_of(k)))  # statistics of the normalizations
    net.eval()
    params = net.params() | {"b.bias": np.linspace(-0.1, 0.2, 4), "out.bias": np.array([0.05, -0.02, 0.0])}
    ranges = LayerRanges(v=dict.fromkeys(("a", "b", "out"), 1.6))
    return prepare(network, plan, params, ranges, seed=seed)


def check_identity(module: QuantNet, program: Program, raster: np.ndarray) -> None:
    with torch.no_grad():
        out = module(torch.from_numpy(raster), potentials=True)
    for backend in ("reference", "numba"):
        result = run(program, from_dense(raster, graded=True), backend=backend, record=True)
        assert np.array_equal(result.predictions(), out.scores.argmax(dim=1).numpy())
        for layer in module.network.layers:
            name = layer.name
            assert np.array_equal(out.potentials[name][-1].flatten(1).numpy(), result.v[name]), name
            if layer.neuron.spiking:
                mine = out.spikes[name].flatten(2).numpy()
                assert np.array_equal(mine, result.spikes[name]), name
            if name in out.thetas:
                assert np.array_equal(out.thetas[name][-1].flatten(1).numpy(), result.theta[name]), name
            if name in out.currents:
                assert np.array_equal(out.currents[name][-1].flatten(1).numpy(), result.current[name]), name


BINARY: dict[str, Any] = {"bits": 1, "levels": Levels.BINARY}
TERNARY: dict[str, Any] = {"bits": 2, "levels": Levels.TERNARY}
THREE: dict[str, Any] = {"levels": Levels.TERNARY}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {"w": 4, "v": 8}),
    "narrow": ({"v_th": 0.4}, {}, {"w": 3, "v": 4, "others": 5}),
    "wide": ({}, {}, {"w": 12, "v": 16, "others": 16}),
    "strict": ({"strict": True, "decay": 1.0}, {"pool": "sum"}, {"w": 3, "v": 5}),
    "value": ({"reset": "value", "v_reset": 0.2, "n_ref_steps": 2}, {"pool": "max"}, {"w": 4, "v": 6}),
    "feedback": ({}, {"feedback": True}, {"w": 4, "v": 8}),
    "delayed": ({"reset_delay": True, "strict": True}, {}, {"w": 4, "v": 8}),
    "adaptive": ({"theta_step": 0.15, "theta_decay": 0.8}, {}, {"w": 4, "v": 8, "others": 6}),
    "adaptive, delayed": ({"theta_step": 0.2, "reset_delay": True}, {"feedback": True}, {"w": 4, "v": 8}),
    "adaptive value": (
        {"theta_step": 0.1, "reset": "value", "n_ref_steps": 1, "current_decay": 0.5},
        {},
        {"w": 4, "v": 8, "others": 9},
    ),
    "delayed value": (
        {"reset_delay": True, "reset": "value", "v_reset": 0.2, "n_ref_steps": 1, "current_decay": 0.6},
        {"feedback": True},
        {"w": 4, "v": 6, "others": 8},
    ),
    "delayed refractory": ({"reset_delay": True, "n_ref_steps": 2}, {}, {"w": 4, "v": 7}),
    "current": ({"current_decay": 0.6}, {}, {"w": 4, "v": 8, "others": 8}),
    "everything": ({"current_decay": 0.6, "n_ref_steps": 1}, {"feedback": True}, {"w": 4, "v": 8, "others": 7}),
    "by potential": ({}, {"of": "v_sum"}, {"w": 4, "v": 9, "of": "v_sum"}),
    "by last potential": ({}, {"of": "v_last"}, {"w": 5, "v": 10, "of": "v_last"}),
    "global": ({}, {}, {"w": 5, "v": 8, "granularity": Granularity.GLOBAL}),
    "graded": ({}, {"max_count": 9}, {"w": 4, "v": 10}),
    "binary": ({}, {}, {"w": 8, "v": 8, "weights": BINARY}),
    "binary, all alike": ({}, {}, {"w": 8, "v": 8, "weights": BINARY, "granularity": Granularity.GLOBAL}),
    "binary as they are": ({}, {"feedback": True}, {"w": 8, "v": 8, "weights": BINARY | {"standardize": False}}),
    "power of two": ({}, {}, {"w": 8, "v": 6, "weights": BINARY | {"power_of_two": True}}),
    "ternary": ({}, {}, {"w": 8, "v": 8, "weights": TERNARY}),
    "kept in 4 bits": ({}, {}, {"w": 8, "v": 4, "potentials": {"accumulator_bits": 10}}),
    "kept in 2 bits": (
        {},
        {"feedback": True},
        {"w": 8, "v": 2, "weights": BINARY, "potentials": {"accumulator_bits": 12}},
    ),
    "kept ternary": ({"n_ref_steps": 1}, {}, {"w": 8, "v": 2, "potentials": {"accumulator_bits": 12} | THREE}),
    "ternary potentials": ({}, {}, {"w": 8, "v": 2, "potentials": THREE | {"calibrator": Calibrator.THRESHOLD}}),
    "kept after a reset to a value": (
        {"reset": "value", "v_reset": 0.2, "current_decay": 0.6},
        {},
        {"w": 4, "v": 3, "others": 8, "potentials": {"accumulator_bits": 9}},
    ),
    "delayed, kept in 3 bits": (
        {"reset_delay": True},
        {},
        {"w": 4, "v": 3, "others": 8, "potentials": {"accumulator_bits": 9}},
    ),
    "adaptive, delayed, kept in 5 bits": (
        {"theta_step": 0.1, "theta_decay": 0.8, "reset_delay": True, "n_ref_steps": 1},
        {"feedback": True},
        {"w": 4, "v": 5, "others": 8, "potentials": {"accumulator_bits": 10}},
    ),
    "shared step": ({}, {}, {"w": 4, "v": 8, "potentials": {"shared_step": True}}),
    "shared step, kept in 2 bits": (
        {},
        {},
        {"w": 4, "v": 2, "potentials": {"shared_step": True, "accumulator_bits": 10}},
    ),
    "leaks of channels": ({}, {}, {"w": 4, "v": 8}),
    "every leak of channels": (
        {"current_decay": 0.6, "theta_step": 0.15, "theta_decay": 0.8},
        {"feedback": True},
        {"w": 4, "v": 8, "others": 7},
    ),
    "every leak of neurons": (
        {"current_decay": 0.6, "theta_step": 0.1, "theta_decay": 0.8, "reset_delay": True, "n_ref_steps": 1},
        {},
        {"w": 4, "v": 8, "others": 9},
    ),
}
NUMBERS = {"channels": {"a": 4, "b": 4, "out": 3}, "neurons": {"a": 64, "b": 16, "out": 3}}
OWN: dict[str, dict[str, np.ndarray]] = {
    "leaks of channels": {"a.decay": np.array([0.9, 1.0, 0.5, 0.0]), "b.decay": np.array([0.7, 0.95, 0.99, 0.8])},
    **{
        f"every leak of {who}": {
            f"{layer}.{kind}": np.linspace(low, high, n)
            for layer, n in numbers.items()
            for kind, low, high in (("decay", 0.4, 1.0), ("i_decay", 0.3, 0.8), ("theta_decay", 0.95, 0.1))
        }
        for who, numbers in NUMBERS.items()
    },
}
"""By case: decays that are not the declared ones."""


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.soak if c == "wide" else ()) for c in CASES])
def test_the_module_computes_what_the_engine_computes(case: str, rounding: Rounding) -> None:
    neuron, settings, plan = CASES[case]
    network = network_of(Leaky(**{"v_th": 0.6, **neuron}), **settings)
    module = module_of(network, plan_of(**plan, rounding=rounding), decays=OWN.get(case))
    raster = raster_of(7, most=settings.get("max_count", 1))
    check_identity(module, convert(module), raster)
    for path, decay in OWN.get(case, {}).items():
        assert convert(module).codes(path).shape == decay.shape, path
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for k in range(5):  # steps, thresholds and weights have moved
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(raster)).scores * 5, torch.arange(B) % 3)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        assert all(p.grad is not None for p in module.parameters() if p.requires_grad), k
    program = convert(module)
    check_identity(module, program, raster)
    result = run(program, from_dense(raster, graded=True))
    assert result.counts["a"].sum() > 0
    assert result.counts["b"].sum() > 0


class _Through(torch.autograd.Function):
    """floor(x + half), and gradients as if it were x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad


class _Spike(torch.autograd.Function):
    """A comparison with the arctan surrogate in real units."""

    @staticmethod
    def forward(ctx: Any, gap: torch.Tensor, unit: torch.Tensor, width: float) -> torch.Tensor:
        ctx.save_for_backward(gap, unit)
        ctx.width = width
        return (gap >= 0).to(gap.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        gap, unit = ctx.saved_tensors
        return grad * unit * 0.5 * ctx.width / (1 + (torch.pi / 2 * ctx.width * gap * unit) ** 2), None, None


def plain_gradients(module: QuantNet, x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a one-layer recurrent network with a synaptic current by plain steps in float64."""
    layer, name = module.network.layers[0], "out"
    p = {k: v.detach().double().requires_grad_() for k, v in module.named_parameters()}
    step = torch.tensor(module.grids[name].step) * torch.exp(p["out__log_step"])
    shifts = 2.0 ** torch.tensor(module.grids[name].shifts)
    unit = step * shifts
    limits = {k: 1 << module.rules[f"out.{k}"].bits - 1 for k in ("w_input", "w_out", "v", "i")}

    def codes(w: torch.Tensor, scale: torch.Tensor, most: int) -> torch.Tensor:
        return _Through.apply(w / scale).clamp(-most, most)

    w_in = codes(p["out__w_input"], step[:, None], limits["w_input"] - 1)
    w_back = codes(p["out__w_out"], step[:, None], limits["w_out"] - 1)
    level, bias = _Through.apply(p["out__v_th"] / unit), _Through.apply(p["out__bias"] / step)
    decay = _Through.apply(p["out__decay"] * 2**12) / 2**12
    i_decay = np.floor(layer.neuron.current_decay * 2**12 + 0.5) / 2**12
    limits["theta"] = 1 << module.rules["out.theta"].bits if layer.neuron.adapts else 1
    theta_step, theta_code, theta_shift, _, theta_unit = module._theta(layer, unit)
    theta_step, theta_decay = torch.from_numpy(theta_step), int(theta_code[0]) / 2.0**theta_shift
    v = i = s = theta = torch.zeros(x.shape[1], layer.n, dtype=torch.float64)
    high = level
    total = torch.zeros(())
    for t in range(x.shape[0]):
        i = (_Through.apply(i * i_decay) + x[t] @ w_in.T + s @ w_back.T + bias).clamp(-limits["i"], limits["i"] - 1)
        kept = _Through.apply(v * decay)
        kept = kept - s.detach() * high if layer.neuron.reset_delay else kept
        if layer.neuron.adapts:
            raised, top = _Through.apply(theta * theta_decay) + s * theta_step, limits["theta"] - 1.0
            theta = torch.where(raised < top, raised, top)
            high = level + theta * 2.0**theta_unit
        v = (kept + _Through.apply(i / shifts)).clamp(-limits["v"], limits["v"] - 1)
        s = _Spike.apply(v - high, unit.detach(), module.width)
        v = v if layer.neuron.reset_delay else v - s.detach() * high
        total = total + (s * weight[t]).sum()
    torch.autograd.backward(total)
    return {k: v.grad for k, v in p.items() if v.grad is not None}


@pytest.mark.parametrize(
    "settings",
    [{}, {"reset_delay": True}, {"theta_step": 0.1, "theta_decay": 0.8}, {"theta_step": 0.2, "reset_delay": True}],
    ids=str,
)
def test_gradients_equal_plain_steps(settings: dict[str, Any]) -> None:
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(6, 1, 1)),
        n_steps=T,
        readout=NeuronReadout(source="out"),
        layers=(Layer(name="out", shape=(5, 1, 1), neuron=Leaky(decay=0.85, current_decay=0.6, v_th=0.8, **settings)),),
        connections=(Linear(source="input", target="out", bias=True), Linear(source="out", target="out")),
    )
    rng = np.random.default_rng(3)
    params = {
        "out.w_input": rng.normal(0, 0.4, (5, 6)),
        "out.w_out": rng.normal(0, 0.3, (5, 5)),
        "out.bias": rng.normal(0, 0.1, 5),
    }
    few = (QuantRule(tensor="*.theta", bits=5),) if settings.get("theta_step") else ()  # some saturate
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="*.w*", bits=5, granularity=Granularity.PER_CHANNEL),
            *few,
            QuantRule(tensor="*.v", bits=8),
            QuantRule(tensor="*.i", bits=8),
            QuantRule(tensor="*", bits=12),
        )
    )
    module = prepare(network, plan, params, LayerRanges(v={"out": 2.0}, theta={"out": 0.3}))
    for p in module.parameters():
        p.requires_grad_()
    x = torch.from_numpy((rng.random((T, B, 6)) < 0.4).astype(np.float64))
    weight = torch.from_numpy(rng.normal(0, 1, (T, B, 5)))
    torch.autograd.backward((module(x).spikes["out"].flatten(2) * weight).sum())
    expected = plain_gradients(module, x, weight)
    for name, p in module.named_parameters():
        assert p.grad is not None, name
        atol = 1e-3 * max(1.0, expected[name].abs().max().item())  # the mark of saturation moves a slope a little
        assert torch.allclose(p.grad.double(), expected[name], rtol=1e-3, atol=atol), (name, p.grad, expected[name])


def test_what_cannot_be_lowered_is_refused_before_training() -> None:
    network = network_of(Leaky(), of="v_sum")
    with pytest.raises(LoweringError, match="one unit for all"):
        prepare(network, plan_of(4, 8))


@pytest.mark.parametrize("make", [SurrogateNet, lambda network: prepare(network, plan_of(4, 8), params={})])
def test_several_spikes_are_not_trained(make: Callable[[LayeredNetwork], Any]) -> None:
    with pytest.raises(ConfigError, match=r"network\.a\.neuron\.max_spikes: .*got 3; allowed: 1; fix: train with"):
        make(network_of(Leaky(max_spikes=3)))


def test_fresh_modules_follow_the_seed() -> None:
    network, plan = network_of(Leaky()), plan_of(4, 8)
    first, again, other = (prepare(network, plan, seed=s).params()["a.w"] for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)

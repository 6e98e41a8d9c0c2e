"""Layers in torch operations, as CUDA devices take them, against the compiled passes, plain steps and the engine.

On the CPU that path is forced; the tests at the end need a GPU.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_connection
import test_quantized
import test_resume
import test_supervised
import test_surrogate
import torch
from test_quantized import CASES, B
from torch.nn import functional

import qspinn
from qspinn.compiled.scalars import NEAREST, STOCHASTIC
from qspinn.errors import ConfigError
from qspinn.fixedpoint import Rounding
from qspinn.learning.gradients.quantized import QuantNet, convert, prepare
from qspinn.learning.gradients.scan import Scan, outer_numbers
from qspinn.learning.gradients.settings import Supervision
from qspinn.learning.gradients.surrogate import SurrogateNet, frozen, real_scan
from qspinn.learning.gradients.torch_passes import connection as torch_connection
from qspinn.learning.gradients.torch_passes import neurons as torch_neurons
from qspinn.learning.gradients.training import channel_rates, fit, layer_ranges, responses
from qspinn.learning.gradients.walk import Output
from qspinn.networks.layered import EventInput, Layer, LayeredNetwork, Leaky, Linear, NeuronReadout
from qspinn.program import to_bytes
from qspinn.quantization.plan import Granularity

Net = SurrogateNet | QuantNet
ALL_CASES = CASES | {
    "large": ({}, {"max_count": 255}, {"w": 16, "v": 16, "others": 16, "granularity": Granularity.GLOBAL})
}

pytestmark = pytest.mark.soak


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_neurons, "serves", lambda device: True)


def outcome(net: Net, x: torch.Tensor, labels: torch.Tensor) -> tuple[Output, dict[str, torch.Tensor]]:
    """What a forward pass returns, and the gradients of a loss of scores, rates and potentials."""
    net.zero_grad()
    out = net(x, potentials=True)
    loss = functional.cross_entropy(out.scores * 5, labels) + 3 * sum(out.rates.values())
    loss = loss + sum(p.pow(2).mean() for p in out.potentials.values())
    loss.backward()
    return out, {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def both(net: Net, x: torch.Tensor, labels: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """`outcome` by the compiled passes and by torch, from the same state."""
    state = {k: v.clone() for k, v in net.state_dict().items()}
    compiled = outcome(net, x, labels)
    seen = {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    with monkeypatch.context() as m:
        m.setattr(torch_neurons, "serves", lambda device: True)
        by_torch = outcome(net, x, labels)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(value, seen[name], rtol=1e-5, atol=1e-7, err_msg=name)
    return compiled, by_torch


def check_close(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], tolerance: float = 2e-5) -> None:
    assert expected.keys() == found.keys()
    for name, grad in expected.items():
        assert grad.abs().sum() > 0, name
        np.testing.assert_allclose(
            found[name], grad, rtol=tolerance, atol=tolerance * grad.abs().max().item(), err_msg=name
        )


def quant_net(case: str, rounding: Rounding) -> tuple[QuantNet, torch.Tensor]:
    neuron, settings, plan = ALL_CASES[case]
    network = test_quantized.network_of(Leaky(**{"v_th": 0.6, **neuron}), **settings)
    plan, decays = test_quantized.plan_of(**plan, rounding=rounding), test_quantized.OWN.get(case)
    module = test_quantized.module_of(network, plan, decays=decays)
    for name, p in module.named_parameters():
        p.requires_grad_(not name.endswith("v_th") or "value" not in case)  # reset to a value, at rest: may be zero
    return module, torch.from_numpy(test_quantized.raster_of(7, most=settings.get("max_count", 1)))


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize("case", ALL_CASES)
def test_codes_equal_the_compiled_ones_bit_for_bit(
    case: str, rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x = quant_net(case, rounding)
    (compiled, grads), (found, found_grads) = both(module, x, torch.arange(B) % 3, monkeypatch)
    for kind in ("spikes", "potentials", "currents", "thetas", "rates"):
        mine, theirs = getattr(found, kind), getattr(compiled, kind)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), kind
    assert torch.equal(compiled.scores, found.scores)
    leaking = (case, rounding) == ("ternary potentials", Rounding.TRUNCATE)  # rounds every rest down to the lowest code
    assert compiled.spikes["a" if leaking else "b"].sum() > 0
    check_close({k: g for k, g in grads.items() if g.any()}, {k: g for k, g in found_grads.items() if g.any()})


def test_all_to_all_connections_into_places_equal_the_compiled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    neuron = Leaky(v_th=0.6)
    network = LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 6, 6)),
        n_steps=test_quantized.T,
        readout=NeuronReadout(source="out"),
        layers=(
            Layer(name="a", shape=(4, 2, 3), neuron=neuron),
            Layer(name="b", shape=(2, 3, 2), neuron=neuron),
            Layer(name="out", shape=(3, 1, 1), neuron=neuron),
        ),
        connections=(
            Linear(source="input", target="a"),
            Linear(source="a", target="b"),
            Linear(source="b", target="out"),
        ),
    )
    x = torch.from_numpy(test_quantized.raster_of(7))
    for net in (SurrogateNet(network), prepare(network, test_quantized.plan_of(4, 8, granularity=Granularity.GLOBAL))):
        (compiled, grads), (found, found_grads) = both(net, x, torch.arange(B) % 3, monkeypatch)
        assert all(torch.equal(compiled.spikes[name], found.spikes[name]) for name in compiled.spikes)
        check_close({k: g for k, g in grads.items() if g.any()}, {k: g for k, g in found_grads.items() if g.any()})


@pytest.mark.parametrize(("case", "dtype"), [("plain", torch.float32), ("large", torch.float64)])
def test_every_connection_of_codes_is_an_exact_product(
    case: str, dtype: torch.dtype, forced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, torch.dtype]] = []
    exact = torch_connection.current
    monkeypatch.setattr(
        torch_connection,
        "current",
        lambda wiring, x, w, *, codes: seen.append((codes, w.dtype)) or exact(wiring, x, w, codes=codes),
    )
    module, x = quant_net(case, Rounding.NEAREST)
    seen.clear()  # the float network came first
    module(x)
    assert len(seen) == 3
    assert (True, dtype) in seen
    assert all(codes for codes, _ in seen)


@pytest.mark.parametrize("case", ["everything", "strict", "value", "by potential", "large"])
def test_the_engine_computes_the_same_after_training_there(case: str, forced: None) -> None:
    module, x = quant_net(case, Rounding.STOCHASTIC)
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(3):
        outcome(module, x, torch.arange(B) % 3)
        optimizer.step()
    test_quantized.check_identity(module, convert(module), x.numpy())


@pytest.mark.parametrize("slope", list(test_surrogate.SLOPES))
@pytest.mark.parametrize(("of", "feedback"), [("spikes", False), ("v_sum", True), ("v_last", False)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reset": "value", "v_reset": 0.1, "strict": True},
        {"n_ref_steps": 2},
        {"current_decay": 0.6, "decay": 1.0},
        {"current_decay": 0.6, "n_ref_steps": 1},
    ],
    ids=str,
)
def test_real_numbers_equal_plain_steps_and_the_compiled_ones(
    slope: str, of: str, feedback: bool, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = test_surrogate.network_of(Leaky(**{"v_th": 0.7, **settings}), of, feedback=feedback)
    net = SurrogateNet(network, seed=3, surrogate=slope, width=1.7)
    x = (torch.rand(test_surrogate.T, B, 72, generator=torch.Generator().manual_seed(1)) < 0.4).to(torch.uint8)
    (compiled, grads), (found, found_grads) = both(net, x, torch.arange(B) % 3, monkeypatch)
    for name in compiled.spikes:
        assert torch.equal(compiled.spikes[name], found.spikes[name])
        np.testing.assert_allclose(found.potentials[name].detach(), compiled.potentials[name].detach(), atol=2e-6)
    for name in compiled.currents:
        np.testing.assert_allclose(found.currents[name].detach(), compiled.currents[name].detach(), atol=2e-6)
    check_close(grads, found_grads)
    monkeypatch.setattr(torch_neurons, "serves", lambda device: True)
    test_surrogate.test_outputs_and_gradients_equal_plain_steps(slope, of, feedback, settings)


@pytest.mark.parametrize("name", test_connection.WIRINGS)
def test_connections_equal_a_convolution(name: str, forced: None) -> None:
    for channel_last in (False, True):
        test_connection.test_currents_and_gradients_equal_a_convolution(name, 0.15, True, channel_last)


@pytest.mark.parametrize("told", [False, True], ids=["", "TF32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", test_connection.WIRINGS)
def test_connections_of_codes_are_exact(
    name: str, dtype: torch.dtype, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiring, x, w = test_connection.case_of(name, 0.5, graded=False, channel_last=True)
    size = 2**14 if dtype is torch.float32 else 2**43
    w = (w.double().clamp(-4, 4) / 4 * size / 64).round().to(dtype)
    x = (x * 15).to(torch.uint8)
    monkeypatch.setattr(torch_connection, "_single_is_exact", lambda: not told)
    monkeypatch.setattr(torch_connection, "WINDOWS", 3000)
    products: list[torch.dtype] = []
    unfold = functional.unfold
    monkeypatch.setattr(functional, "unfold", lambda x, *rest: products.append(x.dtype) or unfold(x, *rest))
    found = torch_connection.current(wiring, x, w, codes=True)
    expected = test_connection.plain(test_connection.WIRINGS[name][3], x, w)
    assert torch.equal(test_connection.shaped(found, wiring.target).double(), expected)
    assert set(products) == {torch.float64 if told else dtype}
    assert len(products) > 1


@pytest.mark.parametrize("training", [True, False])
def test_normalization_equals_torch(training: bool, forced: None) -> None:
    test_connection.test_normalization_equals_torch(training, 0.1)


@pytest.mark.parametrize("training", [True, False])
def test_normalized_networks_equal_the_compiled_ones(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = SurrogateNet(test_connection.network(), seed=0)
    x = (torch.rand(test_connection.T, 16, 512, generator=torch.Generator().manual_seed(0)) < 0.1).to(torch.uint8)
    for _ in range(4):
        net(x)
    net.norms["a__w"].momentum = None
    net.train(training)
    (compiled, grads), (found, found_grads) = both(net, x, torch.arange(16) % 4, monkeypatch)
    for name in compiled.spikes:
        assert torch.equal(compiled.spikes[name], found.spikes[name])
    check_close(grads, found_grads, 1e-4)


def losses(net: Net, seed: int = 0) -> list[float]:
    """Of every epoch of a short training."""
    seen: list[float] = []
    fit(
        net,
        test_supervised.bars(96, 1),
        Supervision(n_epochs=4, batch=32, learning_rate=5e-3, shift=1, flip=True),
        seed=seed,
        progress=lambda done, total, loss: seen.append(loss),
    )
    return seen


def test_training_reaches_the_same_loss_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = [SurrogateNet(test_supervised.network(), seed=0) for _ in range(3)]
    compiled = losses(nets[0])
    monkeypatch.setattr(torch_neurons, "serves", lambda device: True)
    found = losses(nets[1])
    assert found == pytest.approx(compiled, rel=0.05)
    assert found[-1] < 0.8 * found[0]
    assert losses(nets[2]) == found
    assert all(torch.equal(a, b) for a, b in zip(nets[1].parameters(), nets[2].parameters(), strict=True))


@pytest.mark.parametrize("make", [test_resume.float_net, test_resume.quant_net])
def test_interrupted_training_goes_on(make: Callable[[], Net], tmp_path: Path, forced: None) -> None:
    test_resume.test_interrupted_and_resumed_equals_uninterrupted(make, tmp_path)


def test_cudnn_repeats_while_training_only() -> None:
    seen: list[tuple[bool, bool]] = []
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    fit(
        SurrogateNet(test_supervised.network()),
        test_supervised.bars(32, 1),
        Supervision(n_epochs=1, batch=16),
        progress=lambda *_: seen.append((cudnn.deterministic, cudnn.benchmark)),
    )
    assert seen == [(True, False)]
    assert (cudnn.deterministic, cudnn.benchmark) == before == (False, False)


def test_weights_that_are_no_numbers_are_noticed(forced: None) -> None:
    test_supervised.test_weights_that_are_not_finite_are_not_trained()


@pytest.mark.parametrize("settings", [{"current_decay": 0.6, "n_ref_steps": 1}, {"reset": "value"}], ids=str)
def test_nothing_stays_on_another_device(settings: dict[str, Any], forced: None) -> None:
    """ "meta" stands for a GPU: it refuses to compute with what lies on the CPU."""
    for network in (test_surrogate.network_of(Leaky(**settings), "v_sum", feedback=True), test_connection.network()):
        net = SurrogateNet(network).to("meta")
        out, grads = outcome(
            net,
            torch.zeros(network.n_steps, 4, network.input.n, dtype=torch.uint8, device="meta"),
            torch.zeros(4, dtype=torch.int64, device="meta"),
        )
        assert {x.device.type for x in (*out.spikes.values(), *out.rates.values(), *grads.values())} == {"meta"}
        assert grads.keys() == dict(net.named_parameters()).keys()


@pytest.mark.parametrize("mode", [NEAREST, STOCHASTIC])
def test_nothing_of_codes_stays_on_another_device(mode: int) -> None:
    wiring, x, w = test_connection.case_of("groups", 0.5, graded=False, channel_last=True)
    half = np.full(32, 0.5)
    layer = Layer(name="b", shape=wiring.target, neuron=Leaky(current_decay=0.5, n_ref_steps=1))
    scan = real_scan(layer, 0, 2.0)._replace(mode=mode, kind=np.float64, in_scale=half, decay_scale=0.5, i_scale=0.5)
    there = [torch.empty(n, device="meta", dtype=torch.float64, requires_grad=True) for n in (32, 32)]
    w = w.to("meta").requires_grad_()
    decay = torch.tensor(0.5, dtype=torch.float64)
    total = torch_connection.current(wiring, x.to("meta"), w, codes=True)
    spent = torch_neurons.neurons(scan, total, None, *there, decay, outer_numbers(wiring.target[0], wiring.n_places))
    (spent.spikes.sum() + spent.v_after.sum() + spent.rate).backward()
    assert all(t.grad is not None and t.grad.device.type == "meta" for t in (w, *there))


def test_switches_that_are_not_known_are_refused_by_name() -> None:
    scan = real_scan(test_surrogate.network_of(Leaky()).layers[0], 0, 2.0)
    wider = namedtuple("wider", (*Scan._fields, "lazy", "kept_shift"), defaults=(-1,))
    torch_neurons.check(scan)
    torch_neurons.check(wider(*scan, False))
    for changed, name in (
        (wider(*scan, True), "lazy"),
        (wider(*scan, False, 2), "kept_shift"),
        (scan._replace(mode=9), "mode"),
        (scan._replace(surrogate=9), "surrogate"),
    ):
        with pytest.raises(ConfigError, match=rf"device: training on CUDA does not know {name} of a layer"):
            torch_neurons.check(changed)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    root = Path(__file__).parents[3] / "experiments"
    with pytest.raises(ConfigError, match=r"torch finds no CUDA device; got 'cuda'; allowed: cpu; fix: install a CUDA"):
        qspinn.train(qspinn.load_experiment(root / "nmnist8.toml"), device="cuda")
    with pytest.raises(ConfigError, match=r"only gradients train elsewhere than on the CPU; got 'cuda'"):
        qspinn.train(qspinn.load_experiment(root / "digits_stdp.toml"), device="cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
@pytest.mark.parametrize("case", ALL_CASES)
def test_codes_on_cuda_equal_those_on_the_cpu(case: str, rounding: Rounding) -> None:
    module, x = quant_net(case, rounding)
    labels = torch.arange(B) % 3
    compiled, grads = outcome(module, x, labels)
    found, found_grads = outcome(module.to("cuda"), x.to("cuda"), labels.to("cuda"))
    for kind in ("spikes", "potentials", "currents", "thetas", "rates"):
        mine, theirs = getattr(found, kind), getattr(compiled, kind)
        assert all(torch.equal(mine[name].cpu(), theirs[name]) for name in theirs), kind
    check_close(
        {k: g for k, g in grads.items() if g.any()}, {k: g.cpu() for k, g in found_grads.items() if g.any()}, 2e-3
    )
    assert to_bytes(convert(module)) == to_bytes(convert(module.to("cpu")))


@pytest.mark.cuda
def test_training_on_cuda_repeats_goes_on_on_the_cpu_and_answers_in_numpy(tmp_path: Path) -> None:
    compiled = losses(SurrogateNet(test_supervised.network(), seed=0))
    nets = [SurrogateNet(test_supervised.network(), seed=0).to("cuda") for _ in range(2)]
    first, again = (losses(net) for net in nets)
    assert first == again
    assert first == pytest.approx(compiled, rel=0.1)
    data, path = test_supervised.bars(40, 2), tmp_path / "training"
    here = SurrogateNet(test_supervised.network())
    here.load_state_dict({name: t.cpu() for name, t in nets[0].state_dict().items()})
    np.testing.assert_allclose(responses(nets[0], data)[0], responses(here, data)[0], atol=0.3)
    assert channel_rates(nets[0], data).keys() == channel_rates(here, data).keys()
    assert layer_ranges(nets[0], data).v.keys() == layer_ranges(here, data).v.keys()
    assert frozen(nets[0]).params.keys() == frozen(here).params.keys()
    training = Supervision(n_epochs=2, batch=16)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(SurrogateNet(test_supervised.network()).to("cuda"), data, training, checkpoint=path, progress=stop)
    seen: list[int] = []
    fit(
        SurrogateNet(test_supervised.network()),
        data,
        training,
        checkpoint=path,
        progress=lambda done, *_: seen.append(done),
    )
    assert seen == [2]


@pytest.mark.cuda
def test_a_module_and_input_on_different_devices_are_refused() -> None:
    net = SurrogateNet(test_surrogate.network_of(Leaky()))
    with pytest.raises(ConfigError, match=r"got 'module on cpu, input on cuda:0'"):
        net(torch.zeros(test_surrogate.T, 2, 72, device="cuda"))

"""Modules of other libraries, imported and compared with the library itself, spike for spike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qspinn
from qspinn.errors import ConfigError
from qspinn.importers import from_torch
from qspinn.networks.simulation import simulate
from qspinn.spikes import from_dense

N_IN, N, T, B = 12, 40, 60, 8


def counts(seed: int, rate: float = 0.3, shape: tuple[int, ...] = (N_IN,), most: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.binomial(most, rate, (T, B, *shape)).astype(np.float32)


def weights(seed: int, n_in: int = N_IN, n: int = N, *, size: float = 0.6, bias: bool = True) -> nn.Linear:
    torch.manual_seed(seed)
    linear = nn.Linear(n_in, n, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(n, n_in) * size)
        if bias:
            linear.bias.copy_(torch.randn(n) * 0.1)
    return linear


def check(modules: list[Any], *, most: int = 1, shape: tuple[int, ...] = (N_IN,)) -> None:
    model = from_torch(modules, shape=shape, n_steps=T, max_count=most)
    for seed, rate in ((1, 0.1), (2, 0.5)):
        found = model.verify(modules, counts(seed, rate, shape, most), exact=True)
        assert found.equal, str(found)
        assert all(layer.spikes > 20 for layer in found.layers), str(found)
        assert sum(layer.ties for layer in found.layers) == 0
        assert all(layer.potential is None or layer.potential < 1e-9 for layer in found.layers)


def snn() -> Any:
    return pytest.importorskip("snntorch")


def per_neuron(low: float, high: float) -> Any:
    return torch.linspace(low, high, N)


SNNTORCH: dict[str, Callable[[], Any]] = {
    "Leaky": lambda: snn().Leaky(beta=0.8),
    "Leaky zero": lambda: snn().Leaky(beta=0.8, reset_mechanism="zero"),
    "Leaky zero at once": lambda: snn().Leaky(beta=0.8, reset_mechanism="zero", reset_delay=False),
    "Leaky threshold": lambda: snn().Leaky(beta=0.7, threshold=1.7),
    "Leaky beta above 1": lambda: snn().Leaky(beta=1.2, threshold=3.0),
    "Leaky beta by neuron": lambda: snn().Leaky(beta=per_neuron(0.4, 0.99)),
    "Leaky threshold by neuron": lambda: snn().Leaky(beta=0.8, threshold=per_neuron(0.5, 2.0)),
    "Leaky hidden": lambda: snn().Leaky(beta=0.8, init_hidden=True),
    "Leaky output": lambda: snn().Leaky(beta=0.8, init_hidden=True, output=True),
    "Synaptic": lambda: snn().Synaptic(alpha=0.6, beta=0.8),
    "Synaptic zero": lambda: snn().Synaptic(alpha=0.6, beta=0.8, reset_mechanism="zero"),
    "Synaptic zero at once": lambda: snn().Synaptic(alpha=0.6, beta=0.8, reset_mechanism="zero", reset_delay=False),
    "Synaptic alpha by neuron": lambda: snn().Synaptic(alpha=per_neuron(0.1, 0.9), beta=per_neuron(0.3, 0.95)),
    "RLeaky": lambda: snn().RLeaky(beta=0.8, linear_features=N),
    "RLeaky zero": lambda: snn().RLeaky(beta=0.8, linear_features=N, reset_mechanism="zero"),
    "RLeaky one to one": lambda: snn().RLeaky(beta=0.8, all_to_all=False, V=per_neuron(-1.0, 1.0)),
    "RSynaptic": lambda: snn().RSynaptic(alpha=0.5, beta=0.8, linear_features=N),
    "RSynaptic zero": lambda: snn().RSynaptic(alpha=0.5, beta=0.8, linear_features=N, reset_mechanism="zero"),
    "Lapicque": lambda: snn().Lapicque(beta=0.9, threshold=0.2),
    "Lapicque R C": lambda: snn().Lapicque(R=5.0, C=1.2, time_step=1.0),
}


@pytest.mark.parametrize("name", SNNTORCH)
@pytest.mark.parametrize("most", [1, 3])
def test_snntorch(name: str, most: int) -> None:
    torch.manual_seed(3)
    check([weights(0), SNNTORCH[name]()], most=most)


def test_snntorch_convolutions() -> None:
    shape = (2, 8, 8)
    torch.manual_seed(4)
    conv, norm = nn.Conv2d(2, 6, 3, padding="same"), nn.BatchNorm2d(6)
    with torch.no_grad():
        conv.weight.mul_(6)
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.uniform_(-0.2, 0.4)
    first, second = snn().Leaky(beta=torch.rand(6, 1, 1)), snn().Leaky(beta=torch.rand(6, 4, 4))
    modules = [
        conv,
        norm,
        first,
        nn.Dropout(0.5),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False),
        second,
        nn.MaxPool2d(3, 1),
        nn.Flatten(),
        weights(5, 24, 10),
        snn().Synaptic(alpha=0.5, beta=0.9),
    ]
    with torch.no_grad():
        modules[5].weight.mul_(5)
    check(modules, shape=shape)


def sj() -> Any:
    return pytest.importorskip("spikingjelly.activation_based.neuron")


SPIKINGJELLY: dict[str, Callable[[], Any]] = {
    "LIFNode": lambda: sj().LIFNode(tau=2.0),
    "LIFNode input as it is": lambda: sj().LIFNode(tau=3.0, decay_input=False),
    "LIFNode subtract": lambda: sj().LIFNode(tau=2.5, v_reset=None),
    "LIFNode v_reset": lambda: sj().LIFNode(tau=2.5, v_reset=-0.3, v_threshold=0.6),
    "LIFNode v_reset, input as it is": lambda: sj().LIFNode(tau=2.5, v_reset=0.2, decay_input=False),
    "ParametricLIFNode": lambda: sj().ParametricLIFNode(init_tau=1.8),
    "ParametricLIFNode input as it is": lambda: sj().ParametricLIFNode(init_tau=3.0, decay_input=False),
    "IFNode": lambda: sj().IFNode(),
    "IFNode subtract": lambda: sj().IFNode(v_reset=None, v_threshold=1.5),
    "IFNode v_reset": lambda: sj().IFNode(v_reset=-0.5),
}


@pytest.mark.parametrize("name", SPIKINGJELLY)
@pytest.mark.parametrize("most", [1, 3])
def test_spikingjelly(name: str, most: int) -> None:
    check([weights(0, size=0.9), SPIKINGJELLY[name]()], most=most)


def norse() -> Any:
    return pytest.importorskip("norse.torch")


def lif(**fields: float) -> Any:
    return norse().LIFParameters(**{name: torch.as_tensor(x) for name, x in fields.items()})


def box(reset: str = "reset_value", **fields: float) -> Any:
    norse()
    from norse.torch.functional import lif_box
    from norse.torch.functional import reset as resets

    return lif_box.LIFBoxParameters(
        **{name: torch.as_tensor(x) for name, x in fields.items()}, reset_method=getattr(resets, reset)
    )


def box_cell(*arguments: Any, **fields: Any) -> Any:
    norse()
    from norse.torch.module.lif_box import LIFBoxCell

    return LIFBoxCell(box(*arguments, **fields))


def iaf(**fields: float) -> Any:
    norse()
    from norse.torch.functional.iaf import IAFParameters
    from norse.torch.module.iaf import IAFCell

    return IAFCell(IAFParameters(**{name: torch.as_tensor(x) for name, x in fields.items()}))


NORSE: dict[str, Callable[[], Any]] = {
    "LIFCell": lambda: norse().LIFCell(),
    "LIFCell dt": lambda: norse().LIFCell(lif(tau_mem_inv=150.0, tau_syn_inv=80.0), dt=0.002),
    "LIFCell v_leak": lambda: norse().LIFCell(lif(v_leak=-0.4, v_th=0.3, v_reset=-0.4)),
    "LIFCell v_reset": lambda: norse().LIFCell(lif(v_leak=0.1, v_th=0.8, v_reset=-0.3)),
    "LIF": lambda: norse().LIF(),
    "LIFBoxCell": lambda: box_cell(tau_mem_inv=300.0),
    "LIFBoxCell subtract": lambda: box_cell("reset_subtract", tau_mem_inv=300.0),
    "LIFBoxCell v_leak": lambda: box_cell(tau_mem_inv=300.0, v_leak=0.2, v_reset=-0.1),
    "IAFCell": lambda: iaf(v_th=1.5),
    "IAFCell v_reset": lambda: iaf(v_th=1.5, v_reset=-0.5),
}


@pytest.mark.parametrize("name", NORSE)
@pytest.mark.parametrize("most", [1, 3])
def test_norse(name: str, most: int) -> None:
    check([weights(0, size=1.2), NORSE[name]()], most=most)


@pytest.mark.parametrize("kind", ["LIFRecurrentCell", "LIFRecurrent"])
def test_norse_recurrent(kind: str) -> None:
    torch.manual_seed(6)
    p = lif(tau_mem_inv=400.0)
    check([getattr(norse(), kind)(N_IN, N, p=p), weights(1, N, 20, size=2.0), norse().LIFCell(p)])


def layers() -> Any:
    return pytest.importorskip("sinabs.layers")


def activation() -> Any:
    return pytest.importorskip("sinabs.activation")


SINABS: dict[str, Callable[[], Any]] = {
    "LIF": lambda: layers().LIF(tau_mem=5.0),
    "LIF single": lambda: layers().LIF(tau_mem=5.0, spike_fn=activation().SingleSpike),
    "LIF most": lambda: layers().LIF(tau_mem=5.0, norm_input=False, spike_fn=activation().MaxSpike(3)),
    "LIF reset": lambda: layers().LIF(
        tau_mem=5.0, spike_fn=activation().SingleSpike, reset_fn=activation().MembraneReset()
    ),
    "LIF current": lambda: layers().LIF(tau_mem=5.0, tau_syn=2.0, norm_input=False),
    "LIF by neuron": lambda: layers().LIF(tau_mem=per_neuron(2.0, 30.0), spike_threshold=per_neuron(0.3, 1.0)),
    "LIF alphas": lambda: layers().LIF(tau_mem=5.0, tau_syn=3.0, train_alphas=True),
    "IAF": lambda: layers().IAF(),
    "IAF current": lambda: layers().IAF(tau_syn=4.0),
    "IAFSqueeze": lambda: layers().IAFSqueeze(batch_size=B),
    "LIFSqueeze": lambda: layers().LIFSqueeze(tau_mem=4.0, batch_size=B, norm_input=False),
}


@pytest.mark.parametrize("name", SINABS)
@pytest.mark.parametrize("most", [1, 3])
def test_sinabs(name: str, most: int) -> None:
    check([weights(0, size=0.9), SINABS[name]()], most=most)


def test_sinabs_recurrent() -> None:
    torch.manual_seed(7)
    recurrent = layers().LIFRecurrent(tau_mem=5.0, rec_connect=nn.Linear(N, N, bias=False), norm_input=False)
    check([weights(0), recurrent])


def test_an_imported_network_becomes_integers_that_spike_like_the_library(tmp_path: Path) -> None:
    modules = {
        "fc1": weights(0),
        "lif1": snn().Leaky(beta=0.8),
        "fc2": weights(1, N, 5, size=0.4),
        "lif2": snn().Synaptic(alpha=0.5, beta=0.9),
    }
    model = from_torch(modules, shape=(N_IN,), n_steps=T)
    assert [layer.name for layer in model.network.layers] == ["lif1", "lif2"]
    plan = qspinn.QuantPlan(
        rules=(
            qspinn.QuantRule(tensor="*.w", bits=8),
            qspinn.QuantRule(tensor="*.i", bits=16),
            qspinn.QuantRule(tensor="*", bits=16),
        )
    )
    x = counts(5)
    program = qspinn.quantize(model, plan, x)
    qspinn.save(program, tmp_path / "m.qspinn")
    loaded = qspinn.load(tmp_path / "m.qspinn")
    assert "snntorch" in str(loaded.provenance)
    found = qspinn.run(loaded, from_dense(x.astype(np.uint8)))
    expected = simulate(model.network, model.params, x).spikes
    for name in ("lif1", "lif2"):
        theirs = expected[name].sum(0)
        assert np.abs(found.counts[name] - theirs).sum() < 0.05 * theirs.sum()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "subtract at once": (lambda: snn().Leaky(beta=0.8, reset_delay=False), "reset_delay"),
    "no reset": (lambda: snn().Leaky(beta=0.8, reset_mechanism="none"), "reset_mechanism"),
    "graded": (lambda: snn().Leaky(beta=0.8, graded_spikes_factor=2.0), "graded_spikes_factor"),
    "Alpha": (lambda: snn().Alpha(alpha=0.9, beta=0.8), "leaky integrate-and-fire"),
    "NaN": (lambda: snn().Leaky(beta=float("nan")), "finite"),
    "threshold": (lambda: snn().Leaky(beta=0.8, threshold=0.0), "threshold"),
    "refractory": (lambda: norse().LIFRefracCell(), "LIFRefracCell"),
    "unstable": (lambda: norse().LIFCell(dt=0.02), "tau_mem_inv"),
    "subtract from v_leak": (lambda: box_cell("reset_subtract", v_leak=0.2), "v_leak"),
    "bound": (lambda: layers().IAF(min_v_mem=-1.0), "min_v_mem"),
    "reset value": (
        lambda: layers().LIF(5.0, spike_fn=activation().SingleSpike, reset_fn=activation().MembraneReset(0.1)),
        "reset_value",
    ),
    "several and reset": (lambda: layers().LIF(5.0, reset_fn=activation().MembraneReset()), "reset_fn"),
    "KLIFNode": (lambda: sj().KLIFNode(), "KLIFNode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name: str) -> None:
    make, word = REFUSED[name]
    with pytest.raises(ConfigError, match=r"modules\[1\]") as error:
        from_torch([weights(0), make()], shape=(N_IN,), n_steps=T)
    assert word in str(error.value)


def test_a_reset_that_was_changed_later_is_refused() -> None:
    lif = snn().Leaky(beta=0.8)
    lif.reset_mechanism = "zero"
    with pytest.raises(ConfigError, match="reset_mechanism"):
        from_torch([weights(0), lif], shape=(N_IN,), n_steps=T)


def test_verifying_changes_nothing_in_the_modules() -> None:
    modules = [weights(0), nn.BatchNorm1d(N), snn().Leaky(beta=0.8, init_hidden=True)]
    modules[2].mem = torch.ones(B, N)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in modules]
    model = from_torch(modules, shape=(N_IN,), n_steps=T)
    assert model.verify(modules, counts(0)).equal
    for m, state in zip(modules, before, strict=True):
        assert m.training
        assert all(torch.equal(state[k], v) for k, v in m.state_dict().items())

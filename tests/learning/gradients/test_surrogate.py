"""The compiled passes over time against plain torch, step by step; and that gradients train."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from qspinn.errors import ConfigError, LoweringError
from qspinn.learning.gradients.surrogate import SurrogateNet, frozen, restored
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

T, B = 9, 3
SLOPES = {
    "arctan": lambda d, w: 0.5 * w / (1 + (torch.pi / 2 * w * d) ** 2),
    "fast_sigmoid": lambda d, w: 1 / (1 + w * d.abs()) ** 2,
    "triangle": lambda d, w: (1 - w * d.abs()).clamp(min=0),
}


class PlainSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gap, strict, slope, width):
        ctx.save_for_backward(gap)
        ctx.rest = slope, width
        return ((gap > 0) if strict else (gap >= 0)).to(gap.dtype)

    @staticmethod
    def backward(ctx, grad):
        slope, width = ctx.rest
        return grad * SLOPES[slope](ctx.saved_tensors[0], width), None, None, None


def lowered(v, fired, n: Leaky, high):
    return v - fired * high if n.reset == "subtract" else torch.where(fired > 0, n.v_reset, v)


def factor(net: SurrogateNet, layer: Layer, kind: str) -> torch.Tensor:
    """The decay of every neuron of a layer, as given or as declared."""
    n = layer.neuron
    declared = {"decay": n.decay, "i_decay": n.current_decay or 0.0, "theta_decay": n.theta_decay}[kind]
    each = torch.tensor(net.params().get(f"{layer.name}.{kind}", np.array([declared])))
    return each.repeat_interleave(layer.n // len(each)).view(layer.shape)


def plain(network: LayeredNetwork, net: SurrogateNet, x, slope: str, width: float):
    """Scores of the same network, written down from the docstring of Leaky: every step on its own."""
    kinds = ("v", "i", "s", "rest", "theta")
    states = {
        layer.name: {k: torch.zeros(B, *layer.shape, dtype=torch.float64) for k in kinds} for layer in network.layers
    }
    total, spikes = 0, {layer.name: [] for layer in network.layers}
    for t in range(T):
        signals = {"input": x[t].double().view(B, *network.input.shape)}
        for layer in network.layers:
            for c in network.connections:
                if isinstance(c, Pool2d) and c.source in signals:
                    y = torch.nn.functional.avg_pool2d(signals[c.source], c.kernel, c.stride)
                    signals[c.target] = y * (c.kernel[0] * c.kernel[1]) if c.of == "sum" else y
            n, state = layer.neuron, states[layer.name]
            decay, i_decay, theta_decay = (factor(net, layer, kind) for kind in ("decay", "i_decay", "theta_decay"))
            current = 0
            for c in network.into(layer.name):
                source = state["s"] if c.source == layer.name else signals[c.source]
                if isinstance(c, Skip):
                    y = source * c.weight
                elif isinstance(c, Linear):
                    y = (source.flatten(1) @ net.weight(c).double().T).view(B, *layer.shape)
                else:
                    w = net.weight(c).double()
                    y = torch.nn.functional.conv2d(source, w, None, c.stride, c.padding, c.dilation, c.groups)
                current = current + y
                if not isinstance(c, Skip) and c.bias:
                    current = current + getattr(net, f"{layer.name}__bias").double().view(-1, 1, 1)
            state["i"] = current if n.current_decay is None else i_decay * state["i"] + current
            active = state["rest"] <= 0
            kept = decay * state["v"]
            v = lowered(kept, state["s"].detach(), n, n.v_th + state["theta"]) if n.reset_delay else kept
            state["theta"] = theta_decay * state["theta"] + n.theta_step * state["s"]
            high = n.v_th + state["theta"]
            v = v + torch.where(active, state["i"], 0.0)
            s = PlainSpike.apply(v - high, n.strict, slope, width) * active if n.spiking else torch.zeros_like(v)
            fired = s.detach()
            v = v if n.reset_delay else lowered(v, fired, n, high)
            state |= {"v": v, "s": s, "rest": torch.where(fired > 0, float(n.n_ref_steps), state["rest"] - 1)}
            signals[layer.name] = s
            spikes[layer.name].append(s)
        last = states[network.readout.source]
        total = total + (last["s"] if network.readout.of == "spikes" else last["v"])
    scores = last["v"] if network.readout.of == "v_last" else total / T
    return scores.flatten(1), {name: torch.stack(x) for name, x in spikes.items()}


def network_of(neuron: Leaky, of: str = "spikes", *, feedback: bool = False) -> LayeredNetwork:
    last = neuron if of == "spikes" else msgspec.structs.replace(neuron, spiking=False)
    return LayeredNetwork(
        name="n",
        input=EventInput(shape=(2, 6, 6)),
        n_steps=T,
        readout=NeuronReadout(source="out", of=of),
        layers=(
            Layer(name="a", shape=(4, 4, 4), neuron=neuron),
            Layer(name="b", shape=(4, 2, 2), neuron=neuron),
            Layer(name="out", shape=(3, 1, 1), neuron=last),
        ),
        connections=(
            Conv2d(source="input", target="a", bias=True),
            Pool2d(source="a", target="p"),
            Conv2d(source="p", target="b", padding=(1, 1), groups=2),
            Skip(source="p", target="b", weight=0.3),
            Linear(source="b", target="out"),
            *([Linear(source="b", target="b")] if feedback else []),
        ),
    )


@pytest.mark.parametrize("slope", list(SLOPES))
@pytest.mark.parametrize(("of", "feedback"), [("spikes", False), ("v_sum", False), ("v_last", False), ("spikes", True)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reset": "value", "v_reset": 0.1, "strict": True},
        {"n_ref_steps": 2},
        {"current_decay": 0.6, "decay": 1.0},
        {"theta_step": 0.2, "theta_decay": 0.7},
        {"theta_step": 0.3, "reset_delay": True, "current_decay": 0.4},
        {"theta_step": 0.2, "reset": "value", "n_ref_steps": 1},
        {"reset_delay": True, "strict": True},
        {"reset_delay": True, "reset": "value", "v_reset": 0.1, "n_ref_steps": 1},
    ],
    ids=str,
)
def test_outputs_and_gradients_equal_plain_steps(slope: str, of: str, feedback: bool, settings: dict) -> None:
    network = network_of(Leaky(**{"v_th": 0.7, **settings}), of, feedback=feedback)
    check_plain(SurrogateNet(network, seed=3, surrogate=slope, width=2.0), slope)


@pytest.mark.parametrize(
    "sizes", [{"a": 4, "b": 4, "out": 3}, {"a": 64, "b": 16, "out": 1}], ids=["channels", "neurons"]
)
@pytest.mark.parametrize("settings", [{}, {"current_decay": 0.6, "theta_step": 0.2}], ids=str)
def test_decays_of_channels_and_neurons_equal_plain_steps(settings: dict, sizes: dict[str, int]) -> None:
    network = network_of(Leaky(**{"v_th": 0.7, **settings}), feedback=bool(settings))
    kinds = ("decay", "i_decay", "theta_decay") if settings else ("decay",)
    decays = {f"{name}.{kind}": np.linspace(0.1, 0.95, n) for name, n in sizes.items() for kind in kinds}
    net = SurrogateNet(network, seed=3, decays=decays)
    check_plain(net, "arctan")
    for path, decay in decays.items():
        np.testing.assert_allclose(net.params()[path], decay, rtol=1e-7)
    again = restored(frozen(net))
    x = torch.ones(T, B, 72, dtype=torch.uint8)
    assert torch.equal(again(x).scores, net.eval()(x).scores)
    other = SurrogateNet(network, seed=4, decays={path: x[::-1].copy() for path, x in decays.items()})
    other(x)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x).scores, net(x).scores)


def test_decays_that_are_none_are_refused_by_path() -> None:
    network = network_of(Leaky(v_th=0.7))
    for path, decay, message in (
        ("a.decay", np.ones(5), r"a\.decay: has the wrong shape; got \(5,\); allowed: \(1,\) or \(4,\) or \(64,\)"),
        ("a.decay", np.array([0.5, 0.5, 1.5, 0]), r"a\.decay: is no decay factor; got 1\.5; allowed: 0\.\.1"),
        ("a.i_decay", np.ones(1), r"a\.i_decay: is no decay of this network"),
        ("a.w", np.ones(1), r"a\.w: is no decay of this network"),
    ):
        with pytest.raises(LoweringError, match=message):
            SurrogateNet(network, decays={path: decay})


def check_plain(net: SurrogateNet, slope: str) -> None:
    """Scores, rates and gradients are those of plain steps."""
    network = net.network
    x = (torch.rand(T, B, 72, generator=torch.Generator().manual_seed(1)) < 0.4).to(torch.uint8)
    out = net(x)
    scores, spikes = plain(network, net, x, slope, 2.0)
    np.testing.assert_allclose(out.scores.detach(), scores.detach(), atol=1e-5)
    for name, rate in out.rates.items():
        assert rate.item() == pytest.approx(spikes[name].mean().item(), abs=1e-6)
    assert spikes["a"].sum() > 20
    aim = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    extra = sum(r * 3 for r in out.rates.values())
    (out.scores * aim.float()).sum().add(extra).backward()
    mine = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    plain_extra = sum(spikes[name].mean() * 3 for name in out.rates)
    ((scores * aim).sum() + plain_extra).backward()
    for name, p in net.named_parameters():
        assert p.grad.abs().sum() > 0, name
        np.testing.assert_allclose(mine[name], p.grad, rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("of", "read"), [("spikes", set()), ("v_last", {"out"})])
@pytest.mark.parametrize("delayed", [False, True])  # by other passes
def test_potentials_are_kept_where_asked_for(of: str, read: set[str], delayed: bool) -> None:
    net = SurrogateNet(network_of(Leaky(v_th=0.7, reset_delay=delayed), of), seed=3)
    x = (torch.rand(T, B, 72, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    some, everything = net(x), net(x, potentials=True)
    assert set(some.potentials) == read
    assert set(everything.potentials) == {layer.name for layer in net.network.layers}
    for name, spikes in everything.spikes.items():
        torch.testing.assert_close(some.spikes[name], spikes, rtol=0, atol=0)
        assert everything.potentials[name].shape == spikes.shape
    torch.testing.assert_close(some.scores, everything.scores, rtol=0, atol=0)


def test_a_change_of_width_reaches_the_gradients() -> None:
    net, same = (SurrogateNet(network_of(Leaky(v_th=0.7)), seed=3, width=w) for w in (2.0, 5.0))
    x = (torch.rand(T, B, 72, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    net(x)
    net.width = 5.0
    for each in (net, same):
        torch.autograd.backward(each(x).scores.sum())
    for a, b in zip(net.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_a_delayed_reset_is_that_of_snntorch() -> None:
    """snnTorch's Leaky by default: mem = beta * mem + input - (mem > threshold) * threshold; spike where mem > it."""
    neuron = Leaky(decay=0.9, v_th=1.0, strict=True, reset_delay=True)
    network = LayeredNetwork(
        name="s",
        input=EventInput(shape=(5, 1, 1)),
        n_steps=40,
        readout=NeuronReadout(source="out", of="v_last"),
        layers=(Layer(name="out", shape=(4, 1, 1), neuron=neuron),),
        connections=(Linear(source="input", target="out"),),
    )
    net = SurrogateNet(network, seed=2)
    x = (torch.rand(40, 3, 5, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    mem = torch.zeros(3, 4)
    spikes = []
    for now in x @ net.weight(network.into("out")[0]).detach().T:
        mem = 0.9 * mem + now - (mem > 1.0).float() * 1.0
        spikes.append((mem > 1.0).float())
    out = net(x)
    assert torch.stack(spikes).sum() > 20
    assert torch.equal(out.spikes["out"].flatten(2), torch.stack(spikes))
    assert torch.allclose(out.scores, mem, atol=1e-5)


def test_weights_follow_the_seed() -> None:
    first, again, other = (SurrogateNet(network_of(Leaky()), seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["a__w"], other["a__w"])


def test_gradients_train() -> None:
    """Two kinds of motion are told apart: the same pixels, in the opposite order."""
    rng = np.random.default_rng(0)
    network = LayeredNetwork(
        name="motion",
        input=EventInput(shape=(1, 1, 8)),
        n_steps=8,
        readout=NeuronReadout(source="out", of="v_sum"),
        layers=(
            Layer(name="hidden", shape=(24, 1, 1), neuron=Leaky(decay=0.7, current_decay=0.5)),
            Layer(name="out", shape=(2, 1, 1), neuron=Leaky(spiking=False)),
        ),
        connections=(Linear(source="input", target="hidden", norm=True), Linear(source="hidden", target="out")),
    )
    net = SurrogateNet(network, seed=0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)

    def batch(n: int):
        labels = rng.integers(0, 2, n)
        x = np.eye(8)[:, None, :].repeat(n, axis=1)
        x[:, labels == 1] = x[::-1, labels == 1]
        x = np.logical_or(x, rng.random(x.shape) < 0.1)
        return torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(labels)

    for _ in range(60):
        x, y = batch(32)
        loss = torch.nn.functional.cross_entropy(net(x).scores, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    x, y = batch(200)
    assert (net(x).scores.argmax(1) == y).float().mean() > 0.95


def test_other_devices_are_refused_by_name() -> None:
    net, x = SurrogateNet(network_of(Leaky())), torch.zeros(T, 2, 72, device="meta")
    with pytest.raises(
        ConfigError,
        match=r"device: the module and its input lie on different devices; got 'module on "
        r'cpu, input on meta\'; fix: move the input, spikes.to\("cpu"\)',
    ):
        net(x)
    with pytest.raises(ConfigError, match=r"device: layers are not computed there; got 'meta'; allowed: cpu, cuda"):
        net.to("meta")(x)

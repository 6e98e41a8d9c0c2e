"""Memory to the bit: M = sum of count * bits over parameters, states and, where asked, what learning needs besides.

The un-quantized network is the same list at 32 bits. All layers are counted, at a stated batch; `published_account`
alone can count the states of the largest layer only, as papers do that keep one buffer for all.

A tensor is counted as it is packed in a file: its codes follow one another to the bit, and rows do not begin at a
byte. Three rows of five weights of 4 bits are 60 bits, 8 bytes; with rows that begin at bytes they would be 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
from numpy.typing import NDArray

from qspinn.arrays import integer, need_kind
from qspinn.errors import ConfigError
from qspinn.networks.competing import Network
from qspinn.networks.layer_arrays import decay_arrays
from qspinn.networks.layered import LayeredNetwork, Skip
from qspinn.program import Program
from qspinn.program.ops import DenseOp, LifOp
from qspinn.quantization.paths import layer_paths
from qspinn.quantization.plan import SHIFT_BITS, Granularity, QuantPlan, chosen_rules

FLOAT_BITS = 32


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """Row of a memory account, for one tensor: path, role (parameter, state or learning), how many numbers of how many
    bits."""

    path: str
    role: str
    count: int
    bits: int

    def __post_init__(self) -> None:
        integer(f"{self.path}: count", self.count, low=0)
        integer(f"{self.path}: bits", self.bits, low=0)

    @property
    def total_bits(self) -> int:
        return self.count * self.bits

    @property
    def packed_bytes(self) -> int:
        """Bytes of the codes one after the other; only the last byte is filled up."""
        return -(-self.total_bits // 8)


class MemoryAccount(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one model; states are counted `batch` times."""

    rows: tuple[MemoryRow, ...]
    batch: int = 1

    def __post_init__(self) -> None:
        integer("batch", self.batch, low=1)
        for row in self.rows:
            need_kind("rows", row, MemoryRow)

    @property
    def total_bits(self) -> int:
        return sum(r.total_bits * (self.batch if r.role == "state" else 1) for r in self.rows)

    @property
    def total_bytes(self) -> float:
        return self.total_bits / 8


def counter_bits(n_ref: int) -> int:
    """Bits of a counter that holds 0..n_ref."""
    integer("n_ref", n_ref, low=0)
    return n_ref.bit_length()


def program_account(program: Program, *, batch: int = 1) -> MemoryAccount:
    """Memory that inference with the program needs: every stored tensor; of every neuron v, the refractory counter, the
    synaptic current, the adaptive threshold, and with feedback, a delayed reset or an adaptive threshold how often it
    spiked in the step before."""
    need_kind("program", program, Program)
    rows = [
        MemoryRow(path=name, role="parameter", count=int(t.codes.size), bits=t.fmt.bits)
        for name, t in sorted(program.tensors.items())
    ]
    for op in program.ops_of(LifOp):
        fed_back = any(d.source == d.target == op.name for d in program.ops_of(DenseOp))
        rows += [
            MemoryRow(path=f"{op.name}.{kind}", role="state", count=op.n, bits=bits)
            for kind, bits in op.states(fed_back=fed_back).items()
        ]
    return MemoryAccount(rows=tuple(rows), batch=batch)


def float_account(network: Network, *, learning: bool = False, batch: int = 1) -> MemoryAccount:
    """M_0: the tensors of the declared network at 32 bits each; with learning also the traces."""
    need_kind("network", network, Network)
    rows: list[MemoryRow] = []

    def add(path: str, role: str, count: int) -> None:
        rows.append(MemoryRow(path=path, role=role, count=count, bits=FLOAT_BITS))

    for p in network.populations:
        n_pre = network.size_of(network.dense_into(p.name).source)
        add(f"{p.name}.w", "parameter", n_pre * p.n)
        add(f"{p.name}.v_th", "parameter", 1)
        add(f"{p.name}.theta", "parameter", p.n)
        add(f"{p.name}.decay", "parameter", 1)
        add(f"{p.name}.v_reset", "parameter", 1)
        if network.lateral_of(p.name):
            add(f"{p.name}.inhibition", "parameter", 1)
        add(f"{p.name}.v", "state", p.n)
        if p.neuron.n_ref_steps:
            add(f"{p.name}.ref", "state", p.n)
        if learning and network.dense_into(p.name).stdp is not None:
            add(f"{p.name}.x_pre", "learning", n_pre)
            add(f"{p.name}.x_post", "learning", p.n)
    add("readout.votes", "parameter", network.population(network.readout.source).n * network.readout.n_classes)
    return MemoryAccount(rows=tuple(rows), batch=batch)


def learning_account(network: Network, program: Program, bits_of: Mapping[str, int]) -> MemoryAccount:
    """Memory of learning on the grid: inference plus traces, at the widths in bits_of (path -> bits).

    Raises:
        ConfigError: bits_of says nothing of a trace.
    """
    rows = list(program_account(program).rows)
    for p in network.populations:
        if network.dense_into(p.name).stdp is None:
            continue
        n_pre = network.size_of(network.dense_into(p.name).source)
        for kind, count in (("x_pre", n_pre), ("x_post", p.n)):
            path = f"{p.name}.{kind}"
            if path not in bits_of:
                raise ConfigError(f"bits_of.{path}", "is missing", got=sorted(bits_of), fix=f"add the width of {path}")
            rows.append(MemoryRow(path=path, role="learning", count=count, bits=bits_of[path]))
    return MemoryAccount(rows=tuple(rows))


def float_layers_account(
    network: LayeredNetwork, *, batch: int = 1, decays: Mapping[str, NDArray] | None = None
) -> MemoryAccount:
    """M_0 of a layered network: every parameter and state at 32 bits, batch normalization folded into weights and
    biases as it is for inference, constants of a layer once.

    Args:
        decays: those that are not the declared ones, by path, [1], [C] or [N]; each of their numbers is counted.

    Raises:
        LoweringError: an array is no decay of the network.
    """
    need_kind("network", network, LayeredNetwork)
    own = decay_arrays(network, {} if decays is None else decays)
    rows: list[MemoryRow] = []

    def add(path: str, role: str, count: int) -> None:
        rows.append(MemoryRow(path=path, role=role, count=count, bits=FLOAT_BITS))

    for layer in network.layers:
        into, neuron = network.into(layer.name), layer.neuron
        for c in into:
            add(network.weight_path(c), "parameter", 1 if isinstance(c, Skip) else math.prod(network.weight_shape(c)))
        if any(not isinstance(c, Skip) and (c.bias or c.norm) for c in into):
            add(f"{layer.name}.bias", "parameter", layer.shape[0])
        for kind, there in (
            ("v_th", neuron.spiking),
            ("decay", True),
            ("v_reset", neuron.spiking),
            ("i_decay", neuron.current_decay is not None),
            ("theta_step", neuron.adapts),
            ("theta_decay", neuron.adapts),
        ):
            if there:
                add(
                    f"{layer.name}.{kind}",
                    "parameter",
                    own[path].size if (path := f"{layer.name}.{kind}") in own else 1,
                )
        for kind, there in (
            ("v", True),
            ("ref", neuron.spiking and neuron.n_ref_steps > 0),
            ("i", neuron.current_decay is not None),
            ("theta", neuron.adapts),
            ("s", neuron.spiking and (neuron.looks_back or any(c.source == layer.name for c in into))),
        ):
            if there:
                add(f"{layer.name}.{kind}", "state", layer.n)
    return MemoryAccount(rows=tuple(rows), batch=batch)


class Widths(msgspec.Struct, frozen=True, kw_only=True):
    """Bits of everything that a published table counts: weights of the first, hidden and last layer (the last one's
    with its bias), parameters of normalization, potentials."""

    first: int = FLOAT_BITS
    hidden: int = FLOAT_BITS
    last: int = FLOAT_BITS
    norm: int = FLOAT_BITS
    v: int = FLOAT_BITS

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            integer(f"widths.{name}", getattr(self, name), low=1)


def published_account(
    network: LayeredNetwork,
    widths: Widths | None = None,
    *,
    batch: int = 1,
    states: Literal["largest layer", "all layers"] = "largest layer",
) -> MemoryAccount:
    """Memory as the tables of papers count it: weights, biases, normalization not folded (scale and offset of each
    channel), and potentials; no thresholds, decays and scales.

    Args:
        widths: all at 32 bits where there are none.
        states: "largest layer": one buffer, used by one spiking layer after the other. That holds for layers that run
            over all steps before the next one begins; a network that runs step by step keeps all of them.

    Raises:
        ConfigError: an unknown word for states, or a batch below 1.

    Source: Wei et al. (2024), table 2: binary weights with `Widths(first=8, hidden=1, last=8, v=...)`, parameters of
    normalization at 32 bits, "largest layer" (found by taking their figures apart: the paper does not say).
    """
    need_kind("network", network, LayeredNetwork)
    if widths is not None:
        need_kind("widths", widths, Widths)
    if not isinstance(states, str) or states not in ("largest layer", "all layers"):
        raise ConfigError("states", "unknown way of counting", got=states, allowed='"largest layer", "all layers"')
    bits, rows = widths or Widths(), []
    first, last = network.layers[0].name, network.readout.source
    for layer in network.layers:
        mine = {first: bits.first, last: bits.last}.get(layer.name, bits.hidden)
        for c in network.into(layer.name):
            if isinstance(c, Skip):
                continue
            path = network.weight_path(c)
            rows.append(MemoryRow(path=path, role="parameter", count=math.prod(network.weight_shape(c)), bits=mine))
            if c.norm:
                rows.append(MemoryRow(path=f"{path}.norm", role="parameter", count=2 * layer.shape[0], bits=bits.norm))
        if any(not isinstance(c, Skip) and c.bias for c in network.into(layer.name)):
            rows.append(MemoryRow(path=f"{layer.name}.bias", role="parameter", count=layer.shape[0], bits=mine))
    buffers = [
        MemoryRow(path=f"{layer.name}.v", role="state", count=layer.n, bits=bits.v)
        for layer in network.layers
        if layer.neuron.spiking or states == "all layers"
    ]
    kept = buffers if states == "all layers" else sorted(buffers, key=lambda row: row.count)[-1:]
    return MemoryAccount(rows=(*rows, *kept), batch=batch)


def plan_account(network: LayeredNetwork, plan: QuantPlan, *, batch: int = 1) -> MemoryAccount:
    """Memory of the program that `lower_layers` makes by this plan, known before anything is trained: the same
    rows as `program_account`, at most as large where thresholds and decays are the declared ones (a trained layer may
    have a decay for each channel or neuron, of which there is one here).

    A layer whose weights have a step per channel has a threshold and a shift for each channel (a trained one may find
    some alike, and store them once). Where all channels share a step, they are taken to share the shift as well; a bias
    that is larger than the potential's range may give its channel another one.

    Raises:
        ConfigError: the plan does not fit the network's tensors.
    """
    need_kind("network", network, LayeredNetwork)
    need_kind("plan", plan, QuantPlan)
    paths = layer_paths(network)
    rules = chosen_rules(plan, paths, paths, Granularity.PER_CHANNEL)
    rows: list[MemoryRow] = []

    def add(path: str, role: str, count: int, bits: int) -> None:
        rows.append(MemoryRow(path=path, role=role, count=count, bits=bits))

    for layer in network.layers:
        name, channels, neuron, into = layer.name, layer.shape[0], layer.neuron, network.into(layer.name)
        for c in into:
            path = network.weight_path(c)
            add(
                path,
                "parameter",
                channels if isinstance(c, Skip) else math.prod(network.weight_shape(c)),
                rules[path].bits,
            )
        each = any(rules[network.weight_path(c)].granularity is Granularity.PER_CHANNEL for c in into)
        add(
            f"{name}.v_th",
            "parameter",
            channels if each and neuron.spiking else 1,
            rules[f"{name}.v_th"].bits if neuron.spiking else 1,
        )
        v = rules[f"{name}.v"]
        add(f"{name}.v_reset", "parameter", channels if each and neuron.v_reset else 1, v.accumulator_bits or v.bits)
        add(f"{name}.decay", "parameter", 1, 1 if neuron.decay == 1 else rules[f"{name}.decay"].bits)
        if each:
            add(f"{name}.in_shifts", "parameter", channels, SHIFT_BITS)
        if f"{name}.bias" in rules:
            add(f"{name}.bias", "parameter", channels, max(rules[f"{name}.bias"].bits, 2))
        if neuron.current_decay is not None:
            add(f"{name}.i_decay", "parameter", 1, rules[f"{name}.i_decay"].bits)
            add(f"{name}.i", "state", layer.n, rules[f"{name}.i"].bits)
        add(f"{name}.v", "state", layer.n, v.bits)
        if neuron.spiking and neuron.n_ref_steps:
            add(f"{name}.ref", "state", layer.n, counter_bits(neuron.n_ref_steps))
        if neuron.adapts:
            add(f"{name}.theta_step", "parameter", channels if each else 1, rules[f"{name}.theta_step"].bits)
            add(f"{name}.theta_decay", "parameter", 1, rules[f"{name}.theta_decay"].bits)
            add(f"{name}.theta", "state", layer.n, rules[f"{name}.theta"].bits)
        if neuron.spiking and (neuron.looks_back or any(c.source == name for c in into)):
            add(f"{name}.s", "state", layer.n, counter_bits(neuron.max_spikes))
    return MemoryAccount(rows=tuple(rows), batch=batch)

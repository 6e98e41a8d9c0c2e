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
from qspinn.networks.layered import Layer, LayeredNetwork, Skip
from qspinn.networks.tensors import BY_SOURCE, Held, TensorPath, layer_tensors, population_tensors
from qspinn.program import Program
from qspinn.program.ops import DenseOp, LifOp
from qspinn.quantization.paths import layer_paths
from qspinn.quantization.plan import SHIFT_BITS, Granularity, QuantPlan, QuantRule, chosen_rules

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
    held = [h for p in network.populations for h in population_tensors(network, p, learning=learning)]
    n_votes = network.population(network.readout.source).n * network.readout.n_classes
    held.append(Held(TensorPath("readout", "votes"), "parameter", n_votes))
    return MemoryAccount(rows=tuple(_row(h, FLOAT_BITS) for h in held), batch=batch)


def _row(held: Held, bits: int, count: int | None = None) -> MemoryRow:
    """The row of a tensor or state; count: where it is another than the declaration's."""
    return MemoryRow(path=str(held.path), role=held.role, count=held.count if count is None else count, bits=bits)


def learning_account(network: Network, program: Program, bits_of: Mapping[str, int]) -> MemoryAccount:
    """Memory of learning on the grid: inference plus traces, at the widths in bits_of (path -> bits).

    Raises:
        ConfigError: bits_of says nothing of a trace.
    """
    rows = list(program_account(program).rows)
    for p in network.populations:
        for held in population_tensors(network, p, learning=True):
            path = str(held.path)
            if held.role != "learning":
                continue
            if path not in bits_of:
                raise ConfigError(f"bits_of.{path}", "is missing", got=sorted(bits_of), fix=f"add the width of {path}")
            rows.append(_row(held, bits_of[path]))
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
    rows = []
    for layer in network.layers:
        for held in layer_tensors(network, layer):
            path = str(held.path)
            rows.append(_row(held, FLOAT_BITS, own[path].size if path in own else None))
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
    for layer in network.layers:
        held = layer_tensors(network, layer)
        each = any(rules[str(h.path)].granularity is Granularity.PER_CHANNEL for h in held if h.path.kind in BY_SOURCE)
        if not layer.neuron.spiking:  # programs have a threshold and a reset all the same
            held += [Held(TensorPath(layer.name, kind), "parameter", 1) for kind in ("v_th", "v_reset")]
        rows += [_planned_row(layer, h, rules, each) for h in held]
        if each:
            path = f"{layer.name}.in_shifts"
            rows.append(MemoryRow(path=path, role="parameter", count=layer.shape[0], bits=SHIFT_BITS))
    return MemoryAccount(rows=tuple(rows), batch=batch)


def _planned_row(layer: Layer, held: Held, rules: Mapping[str, QuantRule], each: bool) -> MemoryRow:
    """The row of what a layer holds in a program that is lowered by these rules.

    Args:
        each: whether every channel has a unit of its own.
    """
    neuron, channels, path = layer.neuron, layer.shape[0], str(held.path)
    match held.path.kind:
        case "v_th" if not neuron.spiking:
            return _row(held, 1)
        case "v_th" | "theta_step":
            return _row(held, rules[path].bits, channels if each else 1)
        case "v_reset":
            v = rules[f"{layer.name}.v"]
            return _row(held, v.accumulator_bits or v.bits, channels if each and neuron.v_reset else 1)
        case "decay":
            return _row(held, 1 if neuron.decay == 1 else rules[path].bits)
        case "bias":
            return _row(held, max(rules[path].bits, 2))
        case "ref":
            return _row(held, counter_bits(neuron.n_ref_steps))
        case "s":
            return _row(held, counter_bits(neuron.max_spikes if neuron.spiking else 1))
        case "skip":
            return _row(held, rules[path].bits, channels)
        case _:
            return _row(held, rules[path].bits)

"""Memory to the bit: M = sum of count * bits over parameters, states and, where asked, what learning needs besides.

The un-quantized network is the same list at 32 bits. All layers are counted (not the peak layer), at a stated batch.
"""

from __future__ import annotations

import math

import msgspec

from qspinn.layers import LayeredNetwork, Skip
from qspinn.network import Network
from qspinn.ops import DenseOp, LifOp
from qspinn.program import Program

FLOAT_BITS = 32


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: path, role (parameter, state or learning), how many numbers of how many bits."""

    path: str
    role: str
    count: int
    bits: int

    @property
    def total_bits(self) -> int:
        return self.count * self.bits


class MemoryAccount(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one model; states are counted `batch` times."""

    rows: tuple[MemoryRow, ...]
    batch: int = 1

    @property
    def total_bits(self) -> int:
        return sum(r.total_bits * (self.batch if r.role == "state" else 1) for r in self.rows)

    @property
    def total_bytes(self) -> float:
        return self.total_bits / 8


def counter_bits(n_ref: int) -> int:
    """Bits of a counter that holds 0..n_ref."""
    return n_ref.bit_length()


def program_account(program: Program, *, batch: int = 1) -> MemoryAccount:
    """What inference with the program needs: every stored tensor; of every neuron v, the refractory counter, the
    synaptic current, the adaptive threshold, and with feedback, a delayed reset or an adaptive threshold how often it
    spiked in the step before."""
    rows = [MemoryRow(path=name, role="parameter", count=int(t.codes.size), bits=t.fmt.bits)
            for name, t in sorted(program.tensors.items())]
    for op in program.ops_of(LifOp):
        rows.append(MemoryRow(path=f"{op.name}.v", role="state", count=op.n, bits=op.v_fmt.bits))
        if op.n_ref:
            rows.append(MemoryRow(path=f"{op.name}.ref", role="state", count=op.n, bits=counter_bits(op.n_ref)))
        if op.current_fmt is not None:
            rows.append(MemoryRow(path=f"{op.name}.i", role="state", count=op.n, bits=op.current_fmt.bits))
        if op.theta_fmt is not None:
            rows.append(MemoryRow(path=f"{op.name}.theta", role="state", count=op.n, bits=op.theta_fmt.bits))
        if op.looks_back or any(d.source == d.target == op.name for d in program.ops_of(DenseOp)):
            rows.append(MemoryRow(path=f"{op.name}.s", role="state", count=op.n, bits=counter_bits(op.max_spikes)))
    return MemoryAccount(rows=tuple(rows), batch=batch)


def float_account(network: Network, *, learning: bool = False, batch: int = 1) -> MemoryAccount:
    """M_0: the tensors of the declared network at 32 bits each; with learning also the traces."""
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


def learning_account(network: Network, program: Program, bits_of: dict[str, int]) -> MemoryAccount:
    """Memory of learning on the grid: inference plus traces, at the widths in bits_of (path -> bits)."""
    rows = list(program_account(program).rows)
    for p in network.populations:
        if network.dense_into(p.name).stdp is None:
            continue
        n_pre = network.size_of(network.dense_into(p.name).source)
        for kind, count in (("x_pre", n_pre), ("x_post", p.n)):
            path = f"{p.name}.{kind}"
            rows.append(MemoryRow(path=path, role="learning", count=count, bits=bits_of[path]))
    return MemoryAccount(rows=tuple(rows))


def float_layers_account(network: LayeredNetwork, *, batch: int = 1) -> MemoryAccount:
    """M_0 of a layered network: every parameter and state at 32 bits, batch normalization folded into weights and
    biases as it is for inference, constants of a layer once."""
    rows: list[MemoryRow] = []

    def add(path: str, role: str, count: int) -> None:
        rows.append(MemoryRow(path=path, role=role, count=count, bits=FLOAT_BITS))

    for layer in network.layers:
        into, neuron = network.into(layer.name), layer.neuron
        for c in into:
            add(network.weight_path(c), "parameter", 1 if isinstance(c, Skip) else math.prod(network.weight_shape(c)))
        if any(not isinstance(c, Skip) and (c.bias or c.norm) for c in into):
            add(f"{layer.name}.bias", "parameter", layer.shape[0])
        for kind, there in (("v_th", neuron.spiking), ("decay", True), ("v_reset", neuron.spiking),
                            ("i_decay", neuron.current_decay is not None), ("theta_step", neuron.adapts),
                            ("theta_decay", neuron.adapts)):
            if there:
                add(f"{layer.name}.{kind}", "parameter", 1)
        for kind, there in (("v", True), ("ref", neuron.n_ref_steps > 0), ("i", neuron.current_decay is not None),
                            ("theta", neuron.adapts),
                            ("s", neuron.looks_back or any(c.source == layer.name for c in into))):
            if there:
                add(f"{layer.name}.{kind}", "state", layer.n)
    return MemoryAccount(rows=tuple(rows), batch=batch)

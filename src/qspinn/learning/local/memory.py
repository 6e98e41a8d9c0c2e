"""Memory of on-device learning in bits: local learning by the count of Schaefer and Joshi 2020, others beside it.

For a layer with W weights, I inputs, O outputs (after pooling) and n classes: w and gradient W each; q_trace and
p_trace I each; r and u O each; readout 2 n O (read-out and feedback); the values read out n; errors n + O. Batch 1.
Their script reproduces the published 26,462,796 and 100,928,576 bits (-73.781 %) with 1,440 outputs for layer 1, which
has 14,400; the right number gives -74.52 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from qspinn import arrays
from qspinn.learning.local.formats import DEFAULT_PLAN, DEFAULTS, local_rules
from qspinn.memory import FLOAT_BITS, MemoryAccount, MemoryRow, counter_bits, float_account
from qspinn.networks.competing import Network
from qspinn.networks.layered import Shape
from qspinn.networks.local import LocalLayer, LocalNetwork, sizes_of
from qspinn.networks.tensors import TensorPath, local_tensors
from qspinn.quantization.competing import resolve
from qspinn.quantization.plan import QuantPlan
from qspinn.records.words import unknown_key

PUBLISHED = LocalNetwork(
    bias=False,
    layers=(
        LocalLayer(channels=64, kernel=7, padding=2, pool=2),
        LocalLayer(channels=128, kernel=7, padding=2, pool=1),
        LocalLayer(channels=128, kernel=7, padding=2, pool=2),
    ),
)
"""The published network, for inputs of PUBLISHED_SHAPE and PUBLISHED_CLASSES classes."""
PUBLISHED_SHAPE: Shape = (2, 32, 32)
PUBLISHED_CLASSES = 11
PUBLISHED_SLIP = {"conv1": 1_440}
"""Outputs as the published script counts them."""


def local_account(
    network: LocalNetwork,
    shape: Shape,
    n_classes: int,
    plan: QuantPlan | None = DEFAULT_PLAN,
    *,
    before_pooling: bool = False,
    outputs: Mapping[str, int] | None = None,
) -> MemoryAccount:
    """Memory of learning, batch 1.

    Args:
        plan: widths; None for the float version, everything at 32 bits.
        before_pooling: R and U are counted where they are computed, not where they are read.
        outputs: another number of outputs for some layers, by name, e.g. `PUBLISHED_SLIP`.

    Raises:
        ConfigError: as `sizes_of` and `local_rules`.
    """
    sizes = sizes_of(network, shape)
    arrays.integer("n_classes", n_classes, low=1, high=1 << 16)
    for name, n in (outputs or {}).items():
        if name not in [s.name for s in sizes]:
            raise unknown_key(f"outputs.{name}", name, [s.name for s in sizes])
        arrays.integer(f"outputs.{name}", n, low=0)
    rules = None if plan is None else local_rules(plan, [s.name for s in sizes])
    rows: list[MemoryRow] = []
    for size in sizes:
        bits = (
            dict.fromkeys(DEFAULTS, FLOAT_BITS)
            if rules is None
            else {kind: rules[f"{size.name}.{kind}"].bits for kind in DEFAULTS}
        )
        n_outputs = (outputs or {}).get(size.name, size.n_outputs)
        n_states = math.prod(size.target) if before_pooling else n_outputs
        held = local_tensors(size, n_classes, n_outputs, n_states, bias=network.bias)
        rows += [MemoryRow(path=str(h.path), role=h.role, count=h.count, bits=bits[h.path.kind]) for h in held]
    return MemoryAccount(rows=tuple(rows))


def stdp_accounts(network: Network, plan: QuantPlan) -> tuple[MemoryAccount, MemoryAccount]:
    """Float and integer memory of learning a network of competing populations by STDP: every tensor of
    `memory.float_account` with the traces, in the integer version at the widths of the plan.

    While the thresholds adapt, v_th is one number for all neurons and theta one of each.
    """
    real = float_account(network, learning=True)
    rules = resolve(plan, network, learning=True)

    def width(row: MemoryRow) -> int:
        tensor = TensorPath.of(row.path)
        if tensor.kind == "ref":
            return counter_bits(network.population(tensor.layer).neuron.n_ref_steps)
        return rules[f"{tensor.layer}.v" if tensor.kind == "v_reset" else row.path].bits

    rows = tuple(msgspec.structs.replace(row, bits=width(row)) for row in real.rows)
    return real, MemoryAccount(rows=rows)


def saving(account: MemoryAccount, baseline: MemoryAccount) -> float:
    """Share of the baseline's memory that is saved [%]."""
    return (1 - account.total_bits / baseline.total_bits) * 100


def cost_table(systems: Mapping[str, tuple[MemoryAccount, MemoryAccount]]) -> str:
    """Memory of learning on the device as a Markdown table: for each system its (float, integer) accounts, by role."""
    lines = [
        "| system | arithmetic | parameters | states | learning | total [bit] | saved |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, (real, integer) in systems.items():
        for arithmetic, account in (("float", real), ("integer", integer)):
            parts = [
                sum(r.total_bits for r in account.rows if r.role == role) for role in ("parameter", "state", "learning")
            ]
            saved = "" if account is real else f"{saving(account, real):.2f} %"
            lines.append(
                f"| {name} | {arithmetic} | "
                + " | ".join(f"{n:,}" for n in (*parts, account.total_bits))
                + f" | {saved} |"
            )
    return "\n".join(lines)

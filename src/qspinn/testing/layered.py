"""Random layered programs: convolutions, pooling, feedback, residual connections, and every switch of a population."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from qspinn.fixedpoint import QFormat
from qspinn.program import CodeTensor, Program
from qspinn.program.ops import (
    AddOp,
    ConvOp,
    DenseOp,
    EventsOp,
    LifOp,
    Op,
    PoolOp,
    ReadOp,
    VoteOp,
    conv_shape,
    pool_shape,
)
from qspinn.runtime import reference
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes, from_dense
from qspinn.testing.programs import ROUNDINGS, Case, codes

Shape = tuple[int, int, int]


def random_layered(seed: int) -> Case:
    """A random layered program with an input, by seed: two to five layers of every kind, graded or binary inputs."""
    rng = np.random.default_rng([seed, 12])
    shape = (int(rng.integers(1, 4)), int(rng.integers(3, 9)), int(rng.integers(3, 9)))
    n_steps, n_samples = int(rng.integers(1, 14)), int(rng.integers(1, 4))
    builder = _Builder(
        rng=rng,
        more=np.random.default_rng([seed, 13]),
        factors=np.random.default_rng([seed, 14]),
        ops=[EventsOp(shape=shape)],
        tensors={},
        signals={"input": shape},
        populations=[],
    )
    for _ in range(rng.integers(2, 6)):
        builder.layer()
    if not builder.populations:
        builder.dense("input")
    name = builder.populations[-1]
    if rng.random() < 0.5:
        votes = rng.integers(0, 4, (math.prod(builder.signals[name]), 3))
        builder.tensors["readout.votes"] = codes(votes, QFormat(bits=2))
        builder.ops.append(VoteOp(source=name, votes="readout.votes"))
    else:
        builder.ops.append(ReadOp(source=name, of=("spikes", "v_last", "v_sum")[rng.integers(3)]))
    program = Program(
        name="layered",
        n_inputs=math.prod(shape),
        n_steps=n_steps,
        seed=seed,
        ops=tuple(builder.ops),
        tensors=builder.tensors,
    )
    active = rng.random((n_steps, n_samples, math.prod(shape))) < rng.choice([0.05, 0.3, 0.8])
    graded = bool(rng.random() < 0.4)
    raster = active * (rng.integers(1, 256 if rng.random() < 0.2 else 4, active.shape) if graded else 1)
    return Case(name=f"random_layered({seed})", program=program, spikes=from_dense(raster, graded=graded))


class _Builder(msgspec.Struct):
    """A program while it grows; signals by name with their shapes. more: draws whether weights are binary and what is
    kept of potentials; factors: which decays differ between channels or neurons."""

    rng: np.random.Generator
    more: np.random.Generator
    factors: np.random.Generator
    ops: list[Op]
    tensors: dict[str, CodeTensor]
    signals: dict[str, Shape]
    populations: list[str]

    def layer(self) -> None:
        """Adds a pooled signal, or a population fed by one or several connections."""
        source = str(self.rng.choice(list(self.signals)[-2:]))
        kind = str(self.rng.choice(["pool", "conv", "conv", "dense", "recurrent"]))
        if kind == "pool":
            self.pool(source)
        elif kind == "conv":
            self.conv(source)
        else:
            self.dense(source, recurrent=kind == "recurrent")

    def _pair(self, low: int, high: int) -> tuple[int, int]:
        return int(self.rng.integers(low, high)), int(self.rng.integers(low, high))

    def _weights(self, name: str, shape: tuple[int, ...]) -> str:
        bits = int(self.rng.integers(2, 9))
        bits = 1 if self.more.random() < 0.08 else bits
        fmt = QFormat(bits=bits, signed=True)
        rng = self.more if fmt.binary else self.rng
        drawn = rng.integers(fmt.code_min, fmt.code_max + 1, shape)
        self.tensors[name] = codes(2 * (drawn > 0) - 1 if fmt.binary else drawn, fmt)
        return name

    def pool(self, source: str) -> None:
        c, height, width = self.signals[source]
        kernel = int(self.rng.integers(1, min(3, height) + 1)), int(self.rng.integers(1, min(3, width) + 1))
        op = PoolOp(
            source=source,
            target=f"pool{len(self.ops)}",
            kind=("sum", "max")[self.rng.integers(2)],
            shape=(c, height, width),
            kernel=kernel,
            stride=self._pair(1, 4),
        )
        self.ops.append(op)
        self.signals[op.target] = pool_shape(op)

    def conv(self, source: str) -> None:
        name, shape = f"p{len(self.ops)}", self.signals[source]
        groups = shape[0] if self.rng.random() < 0.3 else 1
        weight = (groups * int(self.rng.integers(1, 4)), shape[0] // groups, *self._pair(1, 4))
        op = ConvOp(
            source=source,
            target=name,
            weight=f"{name}.w",
            shape=shape,
            stride=self._pair(1, 4),
            padding=self._pair(0, 3),
            dilation=self._pair(1, 3),
            groups=groups,
            shift=int(self.rng.integers(2)),
        )
        if min(conv_shape(op, weight)) < 1:
            return
        self._weights(op.weight, weight)
        self.ops.append(op)
        self.population(name, conv_shape(op, weight))

    def dense(self, source: str, *, recurrent: bool = False) -> None:
        name, n = f"p{len(self.ops)}", int(self.rng.integers(1, 20))
        n_pre = math.prod(self.signals[source])
        self.ops.append(
            DenseOp(
                source=source,
                target=name,
                weight=self._weights(f"{name}.w", (n, n_pre)),
                shift=int(self.rng.integers(3)),
            )
        )
        if recurrent:
            self.ops.append(
                DenseOp(
                    source=name,
                    target=name,
                    weight=self._weights(f"{name}.w_{name}", (n, n)),
                    shift=int(self.rng.integers(2)),
                )
            )
        self.population(name, (n, 1, 1))

    def population(self, name: str, shape: Shape) -> None:
        """Residual connections from signals of the same size, and the neurons with switches drawn at random."""
        rng, n = self.rng, math.prod(shape)
        for source, other in list(self.signals.items()):
            if math.prod(other) == n and rng.random() < 0.5:
                size = [1, shape[0], n][rng.integers(3)]
                self.ops.append(
                    AddOp(
                        source=source,
                        target=name,
                        weight=self._weights(f"{name}.w_{source}", (size,)),
                        shift=int(rng.integers(3)),
                    )
                )
        self.ops.append(self._neurons(name, shape, n))
        self.signals[name] = shape
        self.populations.append(name)

    def _neurons(self, name: str, shape: Shape, n: int) -> LifOp:
        rng = self.rng

        def yes(p: float = 0.5) -> bool:
            return bool(rng.random() < p)

        def vector(kind: str, low: int, high: int, bits: int, signed: bool = False) -> str:
            size = [1, shape[0], n][rng.integers(3)]
            self.tensors[f"{name}.{kind}"] = codes(rng.integers(low, high + 1, size), QFormat(bits=bits, signed=signed))
            return f"{name}.{kind}"

        v_bits, k, k_i = int(rng.integers(3, 13)), int(rng.integers(0, 9)), int(rng.integers(1, 9))
        top = (1 << v_bits - 1) - 1
        has_current, inhibits, adapts, several = yes(0.4), yes(0.2), yes(0.2), yes(0.2)
        decay = rng.integers(0, (1 << k) + (k == 0))
        self.tensors[f"{name}.decay"] = self._factors(decay, k, shape, QFormat(bits=max(k, 1), frac=k))
        if has_current:
            fmt = QFormat(bits=k_i, frac=k_i)
            self.tensors[f"{name}.current"] = self._factors(rng.integers(0, 1 << k_i), k_i, shape, fmt)
        moving: dict[str, Any] = {}
        if adapts:
            k_theta = int(rng.integers(1, 9))
            theta_decay, fmt = rng.integers(0, 1 << k_theta), QFormat(bits=k_theta)
            self.tensors[f"{name}.theta_decay"] = self._factors(theta_decay, k_theta, shape, fmt)
            moving = {
                "theta_fmt": QFormat(bits=int(rng.integers(2, 13))),
                "theta_decay_shift": k_theta,
                "theta_decay": f"{name}.theta_decay",
                "theta_step": vector("theta_step", 1, max(1, top // 4), v_bits),
            }
        return LifOp(
            name=name,
            n=n,
            v_fmt=QFormat(bits=v_bits, signed=True),
            v_min=int(rng.integers(-top - 1, 1)),
            in_shift=int(rng.integers(-1, 4)),
            decay=f"{name}.decay",
            decay_shift=k,
            rounding=ROUNDINGS[rng.integers(4)],
            v_th=vector("v_th", 1, max(1, top // 3), v_bits),
            v_th_shift=0,
            v_reset=vector("v_reset", 0, top // 4, v_bits, True),
            n_ref=int(rng.integers(0, 3)),
            winner=yes(0.15) and not several,
            stream=16 * (len(self.populations) + 1),
            theta=vector("theta", 0, top // 2, v_bits) if yes(0.2) and not adapts else "",
            theta_shift=int(rng.integers(3)) if adapts else 0,
            inhibition=vector("inhibition", 0, top // 2, v_bits) if inhibits and not several else "",
            bias=(bias := vector("bias", -top // 4, top // 4, v_bits, True) if yes() else ""),
            bias_shift=v_bits % 3 if bias else 0,
            in_shifts=vector("in_shifts", 0, 4, 3) if yes(0.3) else "",
            strict=yes(),
            reset="subtract" if several else ("value", "subtract")[rng.integers(2)],
            spiking=yes(0.85),
            current=f"{name}.current" if has_current else "",
            current_shift=k_i if has_current else 0,
            current_fmt=QFormat(bits=int(rng.integers(4, 13)), signed=True) if has_current else None,
            reset_delay=yes(0.2),
            max_spikes=int(rng.integers(2, 9)) if several else 1,
            **moving,
            **self._store(v_bits),
        )

    def _factors(self, code: ArrayLike, shift: int, shape: Shape, fmt: QFormat) -> CodeTensor:
        """Decay factors in units of 2**-shift: the given one for all neurons, or in every fifth population one for each
        channel or neuron, of which some may not leak."""
        if self.factors.random() < 0.8:
            return codes(code, fmt)
        size = [shape[0], math.prod(shape)][self.factors.integers(2)]
        drawn = self.factors.integers(0, (1 << shift) + 1, size)
        return codes(drawn, QFormat(bits=shift + 1, frac=shift))

    def _store(self, v_bits: int) -> dict[str, Any]:
        """A format of potentials between steps, for a third of the populations."""
        if self.more.random() < 2 / 3:
            return {}
        bits = int(self.more.integers(2, v_bits + 1))
        fmt = QFormat(bits=bits, frac=-int(self.more.integers(0, v_bits - bits + 1)), signed=True)
        return {"store_fmt": fmt, "store_min": int(self.more.integers(fmt.code_min, 1))}


ALTERATIONS: dict[str, tuple[type, dict[str, Any]]] = {
    "compares > for >= and the reverse": (LifOp, {"strict": lambda op: not op.strict}),
    "resets to a value instead of by subtraction": (LifOp, {"reset": lambda op: "value"}),
    "resets at once": (LifOp, {"reset_delay": lambda op: False}),
    "resets a step later": (LifOp, {"reset_delay": lambda op: True}),
    "lets thresholds rise without end": (LifOp, {"theta_fmt": lambda op: op.theta_fmt and QFormat(bits=30)}),
    "lets thresholds fall too fast": (LifOp, {"theta_decay_shift": lambda op: op.theta_decay_shift + 1}),
    "ignores the shift of what moves thresholds": (LifOp, {"theta_shift": lambda op: 0}),
    "spikes at most twice in a step": (LifOp, {"max_spikes": lambda op: min(2, op.max_spikes)}),
    "spikes several times where once is meant": (
        LifOp,
        {"max_spikes": lambda op: max(op.max_spikes, 1 + (op.reset == "subtract"))},
    ),
    "forgets the bias": (LifOp, {"bias": lambda op: ""}),
    "forgets the shift of the bias": (LifOp, {"bias_shift": lambda op: 0 if op.bias_shift else 1}),
    "shifts all channels alike": (LifOp, {"in_shifts": lambda op: ""}),
    "lets read-out neurons spike": (LifOp, {"spiking": lambda op: True}),
    "keeps all bits of a potential": (LifOp, {"store_fmt": lambda op: None, "store_min": lambda op: 0}),
    "keeps codes below the least": (LifOp, {"store_min": lambda op: op.store_fmt.code_min if op.store_fmt else 0}),
    "lets currents grow": (LifOp, {"current_fmt": lambda op: op.current_fmt and QFormat(bits=30, signed=True)}),
    "mistakes x for y in padding": (ConvOp, {"padding": lambda op: (op.padding[0], op.padding[0])}),
    "ignores the shift of a connection": (DenseOp, {"shift": lambda op: 0}),
    "sums instead of taking the maximum": (PoolOp, {"kind": lambda op: "sum"}),
}
"""Ways in which an engine of layers may be wrong: the operation concerned, and what it takes its fields for."""


FACTOR = "lets all neurons leak like the first"
"""A way in which an engine may be wrong about tensors, not about fields."""


def altered(change: str) -> Callable[..., Result]:
    """A backend that is right but for one of the ALTERATIONS, or FACTOR: what a contract must notice."""
    kind, fields = (LifOp, {}) if change == FACTOR else ALTERATIONS[change]

    def run(program: Program, spikes: Spikes, *, record: bool = False) -> Result:
        ops = []
        for op in program.ops:
            wrong: Any = msgspec.structs.replace(op, **{f: g(op) for f, g in fields.items() if isinstance(op, kind)})
            if isinstance(op, ConvOp):
                shape = program.codes(op.weight).shape
                wrong = wrong if conv_shape(wrong, shape) == conv_shape(op, shape) else op
            ops.append(wrong)
        firsts = {name for op in program.ops_of(LifOp) for name in op.factors} if change == FACTOR else set()
        tensors = {
            name: msgspec.structs.replace(t, codes=t.codes[:1] if name in firsts else t.codes)
            for name, t in program.tensors.items()
        }
        return reference.run(msgspec.structs.replace(program, ops=tuple(ops), tensors=tensors), spikes, record=record)

    return run

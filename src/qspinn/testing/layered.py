"""Random layered programs: convolutions, pooling, feedback, residual connections, and every switch of a population."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

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
from qspinn.program.parts import (
    Adaptation,
    Bias,
    Current,
    Inhibition,
    InputShift,
    Leak,
    Offset,
    Part,
    Reset,
    Store,
    Threshold,
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
        adaptation: dict[str, Any] = {}
        if adapts:
            k_theta = int(rng.integers(1, 9))
            theta_decay, fmt = rng.integers(0, 1 << k_theta), QFormat(bits=k_theta)
            self.tensors[f"{name}.theta_decay"] = self._factors(theta_decay, k_theta, shape, fmt)
            adaptation = {
                "fmt": QFormat(bits=int(rng.integers(2, 13))),
                "decay_shift": k_theta,
                "decay": f"{name}.theta_decay",
                "step": vector("theta_step", 1, max(1, top // 4), v_bits),
            }
        # Everything is drawn in one order, so that a seed means the same program whatever parts it has.
        v_min, in_shift = int(rng.integers(-top - 1, 1)), int(rng.integers(-1, 4))
        rounding = ROUNDINGS[rng.integers(4)]
        v_th = vector("v_th", 1, max(1, top // 3), v_bits)
        v_reset = vector("v_reset", 0, top // 4, v_bits, True)
        n_ref, winner = int(rng.integers(0, 3)), yes(0.15) and not several
        theta: Offset | Adaptation | None = None
        if yes(0.2) and not adapts:
            theta = Offset(tensor=vector("theta", 0, top // 2, v_bits))
        if adapts:
            theta = Adaptation(**adaptation, shift=int(rng.integers(3)))
        inhibition, bias = None, None
        if inhibits and not several:
            inhibition = Inhibition(tensor=vector("inhibition", 0, top // 2, v_bits))
        if yes():
            bias = Bias(tensor=vector("bias", -top // 4, top // 4, v_bits, True), shift=v_bits % 3)
        shifts = vector("in_shifts", 0, 4, 3) if yes(0.3) else None
        strict = yes()
        by: Literal["value", "subtract"] = "subtract" if several else ("value", "subtract")[rng.integers(2)]
        spiking = yes(0.85)
        current = None
        if has_current:
            fmt = QFormat(bits=int(rng.integers(4, 13)), signed=True)
            current = Current(decay=f"{name}.current", shift=k_i, fmt=fmt)
        delayed = yes(0.2)
        max_spikes = int(rng.integers(2, 9)) if several else 1
        return LifOp(
            name=name,
            n=n,
            v_fmt=QFormat(bits=v_bits, signed=True),
            v_min=v_min,
            rounding=rounding,
            leak=Leak(decay=f"{name}.decay", shift=k),
            input=InputShift(shift=in_shift, shifts=shifts),
            threshold=Threshold(tensor=v_th, strict=strict, max_spikes=max_spikes),
            reset=Reset(tensor=v_reset, by=by, delayed=delayed),
            n_ref=n_ref,
            winner=winner,
            stream=16 * (len(self.populations) + 1),
            theta=theta,
            inhibition=inhibition,
            bias=bias,
            current=current,
            store=self._store(v_bits),
            spiking=spiking,
        )

    def _factors(self, code: ArrayLike, shift: int, shape: Shape, fmt: QFormat) -> CodeTensor:
        """Decay factors in units of 2**-shift: the given one for all neurons, or in every fifth population one for each
        channel or neuron, of which some may not leak."""
        if self.factors.random() < 0.8:
            return codes(code, fmt)
        size = [shape[0], math.prod(shape)][self.factors.integers(2)]
        drawn = self.factors.integers(0, (1 << shift) + 1, size)
        return codes(drawn, QFormat(bits=shift + 1, frac=shift))

    def _store(self, v_bits: int) -> Store | None:
        """A format of potentials between steps, for a third of the populations."""
        if self.more.random() < 2 / 3:
            return None
        bits = int(self.more.integers(2, v_bits + 1))
        fmt = QFormat(bits=bits, frac=-int(self.more.integers(0, v_bits - bits + 1)), signed=True)
        return Store(fmt=fmt, min=int(self.more.integers(fmt.code_min, 1)))


Change = dict[str, Callable[[Any], Any]]
"""What fields are taken for, given the operation or the part that they belong to."""


def _part(place: str, **fields: Callable[[Any], Any]) -> Change:
    """What an engine takes fields of a population's part for; a part that is absent stays absent."""

    def wrong(op: LifOp) -> Part | None:
        part = getattr(op, place)
        known = {field: change(part) for field, change in fields.items() if hasattr(part, field)}
        return msgspec.structs.replace(part, **known) if known else part

    return {place: wrong}


def _often(op: LifOp) -> Threshold:
    """A threshold of several spikes a step where only one is meant, and a reset by subtraction."""
    most = max(op.threshold.max_spikes, 1 + op.reset.subtracts)
    return msgspec.structs.replace(op.threshold, max_spikes=most)


ALTERATIONS: dict[str, tuple[type, Change]] = {
    "compares > for >= and the reverse": (LifOp, _part("threshold", strict=lambda part: not part.strict)),
    "resets to a value instead of by subtraction": (LifOp, _part("reset", by=lambda part: "value")),
    "resets at once": (LifOp, _part("reset", delayed=lambda part: False)),
    "resets a step later": (LifOp, _part("reset", delayed=lambda part: True)),
    "lets thresholds rise without end": (LifOp, _part("theta", fmt=lambda part: QFormat(bits=30))),
    "lets thresholds fall too fast": (LifOp, _part("theta", decay_shift=lambda part: part.decay_shift + 1)),
    "ignores the shift of what moves thresholds": (LifOp, _part("theta", shift=lambda part: 0)),
    "spikes at most twice in a step": (LifOp, _part("threshold", max_spikes=lambda part: min(2, part.max_spikes))),
    "spikes several times where once is meant": (LifOp, {"threshold": _often}),
    "forgets the bias": (LifOp, {"bias": lambda op: None}),
    "forgets the shift of the bias": (LifOp, _part("bias", shift=lambda part: 0 if part.shift else 1)),
    "shifts all channels alike": (LifOp, _part("input", shifts=lambda part: None)),
    "lets read-out neurons spike": (LifOp, {"spiking": lambda op: True}),
    "keeps all bits of a potential": (LifOp, {"store": lambda op: None}),
    "keeps codes below the least": (LifOp, _part("store", min=lambda part: part.fmt.code_min)),
    "lets currents grow": (LifOp, _part("current", fmt=lambda part: QFormat(bits=30, signed=True))),
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

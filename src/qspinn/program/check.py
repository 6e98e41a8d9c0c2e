"""Check of a program that every engine may rely on, however it was made, and the memory that a run of it takes.

A program that passes runs alike in every engine: names are found, shapes fit, codes lie within their formats, and every
intermediate of a step stays within the 32 bits of `docs/numerics.md`, section 3, even if all sources spike at once.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterable, Mapping

import numpy as np

from qspinn.arrays import integer, need_kind
from qspinn.errors import ConfigError, QSpinnError
from qspinn.files import half_of_memory
from qspinn.program.faults import MAX_COUNT, MAX_SHIFT, MAX_SIZE, Fault, named_tensor, pairs, ranges, shaped, vector
from qspinn.program.field import field_of
from qspinn.program.neurons import neuron_faults
from qspinn.program.ops import (
    POISSON_BOUNDS,
    AddOp,
    ConvOp,
    DenseOp,
    EventsOp,
    Feed,
    LifOp,
    Op,
    PoissonOp,
    PoolOp,
    ReadOp,
    SelectOp,
    VoteOp,
    conv_shape,
    pool_shape,
)
from qspinn.program.program import CodeTensor, Program

MAX_STEPS = 1 << 15
MAX_AXES = 4
"""Axes of a tensor: kernels of convolutions have most."""
METADATA = "__metadata__"
"""What no tensor may be called: files keep the header under this name. In operations '' says that there is none."""
MEMORY_KEY = "QSPINN_MEMORY_LIMIT"
"""Environment variable: bytes that one sample of a run may take at most, in place of half of the machine's memory."""

MOST_DIGITS = 18
"""Digits of the largest limit that the environment variable may hold."""

_checked: weakref.WeakKeyDictionary[Program, int] = weakref.WeakKeyDictionary()
"""The programs that were found right, with the memory that a run of each takes."""


def check(
    program: Program,
    where: str = "program",
    *,
    error: type[QSpinnError] = ConfigError,
    memory_limit: int | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Checks a program, once: later calls for the same program only compare the memory of a run with the limit.

    Args:
        where: what the messages call the program: the path of its file.
        error: the kind of error that is raised.
        memory_limit: bytes that one sample of a run may take; None: the value of the environment variable
            QSPINN_MEMORY_LIMIT, or half of the machine's memory.
        names: what the messages call fields of operations, where it is not their path in Python: `flat.FILE_NAMES` for
            files.

    Raises:
        QSpinnError: of kind `error`: names the tensor or the operation, what was found, what is allowed and the fix.
    """
    need_kind(where, program, Program, error)
    if memory_limit is not None:
        integer("memory_limit", memory_limit, low=1)
    need = _checked.get(program)
    if need is not None:
        need_memory(need, where, error, memory_limit)
        return
    for fault in _faults(program):
        place = fault.op + (names or {}).get(fault.field, fault.field)
        raise error(f"{where}: {place}", fault.problem, got=fault.got, allowed=fault.allowed, fix=fault.fix)
    need = _checked[program] = run_bytes(program)
    need_memory(need, where, error, memory_limit)


def need_memory(need: int, where: str, error: type[QSpinnError], memory_limit: int | None) -> None:
    """Refuses a program of which a run of one sample needs so many bytes, or more; see `check`."""
    limit = default_limit() if memory_limit is None else integer("memory_limit", memory_limit, low=1)
    if need > limit:
        raise error(
            f"{where}: memory",
            "a run of one sample would take more memory than is allowed",
            got=f"{need} bytes",
            allowed=f"up to {limit} bytes",
            fix=f"raise memory_limit, or the environment variable {MEMORY_KEY}",
        )


def default_limit() -> int:
    """Default limit of a run: bytes that one sample may take.

    Raises:
        ConfigError: the environment variable QSPINN_MEMORY_LIMIT is no positive number of bytes.
    """
    text = os.environ.get(MEMORY_KEY, "")
    if text:
        if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) == 0:
            raise ConfigError(
                MEMORY_KEY,
                "is no number of bytes",
                got=text,
                allowed=f"a positive integer of up to {MOST_DIGITS} digits",
            )
        return int(text)
    return half_of_memory()


def run_bytes(program: Program) -> int:
    """Bytes that a run of one sample takes at most in the engine that takes the most: codes, sums over all steps,
    spikes and states of every population, signals that are pooled and their windows, padded images of convolutions,
    what each of their neurons sees of an image, and their weights as they are added to a map."""
    maps: dict[str, tuple[int, int, int]] = {}  # as the first convolution into a population makes them
    feeds: dict[str, list[Feed]] = {}
    sums = 0  # of the population that takes the most
    n_steps, codes = program.n_steps, sum(t.codes.size for t in program.tensors.values())
    total = 16 * codes + 10 * program.n_inputs * (n_steps + 1)
    for op in program.ops:
        if isinstance(op, Feed):
            feeds.setdefault(op.target, []).append(op)
        match op:
            case LifOp():
                total += op.n * (18 * n_steps + 80 + 8 * sum(program.codes(name).size > 1 for name in op.factors))
                sums = max(sums, 8 * n_steps * n_sums(program, op, feeds[op.name]))
            case PoolOp():
                total += math.prod(pool_shape(op)) * (14 * (n_steps + 1) + 32 * math.prod(op.kernel))
            case ConvOp():
                channels, *sizes = op.shape
                total += 16 * channels * math.prod(size + 2 * p for size, p in zip(sizes, op.padding, strict=True))
                weight = program.codes(op.weight).shape
                after = conv_shape(op, weight)
                total += WINDOW_BYTES * n_windows(op, weight)
                total += (
                    _taps_bytes(op, weight)
                    if maps.setdefault(op.target, after) == after
                    else (8 * math.prod(op.shape) * (math.prod(op.shape) + 5 * math.prod(after)))
                )  # as a matrix
            case _:
                pass
    return total + sums


WINDOW_BYTES = 12
"""Bytes that a source takes in a window: as it was, and as a float of 64 bits."""


def n_windows(op: ConvOp, weight: tuple[int, ...]) -> int:
    """Number of sources that the neurons of a convolution see of an image, all windows together."""
    return math.prod(conv_shape(op, weight)[1:]) * op.shape[0] * weight[2] * weight[3]


def n_sums(program: Program, op: LifOp, feeds: list[Feed]) -> int:
    """Number of sums that a population has in each step before it runs: several connections with others are added up
    first, with the margins of `field`."""
    return field_of(program, op, feeds).size if sum(feed.source != op.name for feed in feeds) > 1 else 0


def _taps_bytes(op: ConvOp, weight: tuple[int, ...]) -> int:
    """Bytes of a convolution's weights with the gaps that stride and dilation leave, for each place within a stride."""
    gaps = math.prod(
        min(op.stride[i], op.shape[1 + i]) * ((weight[2 + i] - 1) * op.dilation[i] // op.stride[i] + 1) for i in (0, 1)
    )
    return 24 * op.shape[0] * gaps * (weight[0] // op.groups)


def _faults(program: Program) -> Iterable[Fault]:
    """What is wrong with a program, in the order of its parts."""
    if not 1 <= program.n_steps <= MAX_STEPS:
        yield Fault("n_steps", "is out of range", program.n_steps, f"1..{MAX_STEPS}")
    if not 1 <= program.n_inputs < 1 << 32:
        yield Fault("n_inputs", "is out of range", program.n_inputs, "1..2**32 - 1")
    if not 0 <= program.seed < 1 << 32:
        yield Fault("seed", "is out of range", program.seed, "0..2**32 - 1")
    for name, tensor in program.tensors.items():
        yield from _tensor_faults(name, tensor)
    walk = _Walk(program)
    yield from walk.faults()
    labels = program.labels
    if len(labels) > walk.n_classes or len(set(labels)) < len(labels):
        yield Fault(
            "labels",
            "do not name each class once",
            labels[: walk.n_classes + 1],
            f"up to {walk.n_classes} names, all different, or none",
        )


def _tensor_faults(name: str, tensor: CodeTensor) -> Iterable[Fault]:
    codes, fmt = tensor.codes, tensor.fmt
    if name in ("", METADATA):
        yield Fault(
            "tensors",
            "have a name that stands for something else",
            name,
            f"neither '' nor {METADATA!r}",
            "another name, such as 'p.w'",
        )
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        yield Fault(
            "tensors",
            "have a name that no file can hold",
            name,
            "text without lone surrogates",
            "another name, such as 'p.w'",
        )
    if codes.ndim > MAX_AXES:
        yield Fault(name, "has too many axes", codes.shape, f"up to {MAX_AXES}")
    if fmt.bits > 31 and not fmt.signed:
        yield Fault(name, "has a format whose codes do not fit 32 bits with a sign", str(fmt), "up to 31 unsigned bits")
    inside = (np.abs(codes) == 1) if fmt.binary else (codes >= fmt.code_min) & (codes <= fmt.code_max)
    if codes.size and not inside.all():
        at = tuple(int(i) for i in np.unravel_index(int(inside.argmin()), codes.shape))
        allowed = "-1 and +1" if fmt.binary else f"{fmt.code_min}..{fmt.code_max} ({fmt})"
        yield Fault(
            f"{name}{list(at)}",
            "holds a code outside its format",
            int(codes[at]),
            allowed,
            "a wider format, or codes that fit",
        )


class _Walk:
    """The operations of a program in order, with the signals that exist by then."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.sizes: dict[str, int] = {"input": program.n_inputs}  # of the signals that exist by now
        events = program.ops_of(EventsOp)
        self.most: dict[str, int] = {"input": events[0].max_count if events else 1}  # spikes of one source in a step
        self.selected: set[str] = set()
        self.n_classes = 0
        self.populations = {op.name: op for op in program.ops_of(LifOp)}
        self.feeds: dict[str, list[Feed]] = {}

    def faults(self) -> Iterable[Fault]:
        readouts = [op for op in self.program.ops if isinstance(op, VoteOp | ReadOp)]
        if len(readouts) != 1:
            yield Fault("ops", "needs exactly one read-out", len(readouts), "one VoteOp or ReadOp")
        inputs = [op for op in self.program.ops if isinstance(op, PoissonOp | EventsOp)]
        if len(inputs) > 1:
            yield Fault("ops", "has more than one input", len(inputs), "one PoissonOp or EventsOp")
        for i, op in enumerate(self.program.ops):
            label = f"ops[{i}] ({_named(op)})"
            for fault in self._faults_of(op):
                yield fault._replace(op=f"{label}.")

    def _faults_of(self, op: Op) -> Iterable[Fault]:
        match op:
            case PoissonOp():
                yield from ranges(op, **POISSON_BOUNDS)
            case EventsOp():
                yield from ranges(op, max_count=(1, MAX_COUNT))
                if min(op.shape) < 1 or math.prod(op.shape) != self.program.n_inputs:
                    yield Fault(
                        "shape",
                        "does not have as many places as the program has inputs",
                        op.shape,
                        f"{self.program.n_inputs} places",
                    )
            case SelectOp():
                yield from self._select(op)
            case PoolOp():
                yield from self._pool(op)
            case DenseOp() | ConvOp() | AddOp():
                yield from self._feed(op)
            case LifOp():
                yield from self._lif(op)
            case VoteOp() | ReadOp():
                yield from self._readout(op)

    def _known(self, name: str, field: str = "source") -> Iterable[Fault]:
        if name not in self.sizes:
            yield Fault(field, "is no signal that exists by now", name, ", ".join(sorted(self.sizes)))

    def _new(self, name: str, field: str) -> Iterable[Fault]:
        if not name.isidentifier():
            yield Fault(field, "is no name", name, "letters, digits and _")
        if name in self.sizes or (field != "name" and name in self.populations):
            yield Fault(field, "is the name of another signal", name, "a name of its own")

    def _select(self, op: SelectOp) -> Iterable[Fault]:
        yield from self._known(op.source)
        yield from self._new(op.target, "target")
        if op.source in self.selected:
            yield Fault("source", "is a selection already", op.source, "a signal with all its sources")
        yield from shaped(self.program, "kept", op.kept, (self.sizes[op.source],))
        kept = self.program.codes(op.kept)
        if not np.isin(kept, (0, 1)).all() or not kept.any():
            yield Fault(
                "kept",
                f"tensor {op.kept!r} selects nothing, or holds more than bits",
                np.unique(kept)[:5],
                "0 and 1, at least one 1",
            )
        self.sizes[op.target], self.most[op.target] = int(np.count_nonzero(kept)), self.most[op.source]
        self.selected.add(op.target)

    def _grid(self, op: ConvOp | PoolOp) -> Iterable[Fault]:
        yield from self._known(op.source)
        if min(op.shape) < 1 or math.prod(op.shape) != self.sizes[op.source]:
            yield Fault(
                "shape",
                f"does not have as many places as {op.source} has sources",
                op.shape,
                f"{self.sizes[op.source]} places",
            )

    def _pool(self, op: PoolOp) -> Iterable[Fault]:
        yield from self._grid(op)
        yield from self._new(op.target, "target")
        yield from pairs(op, kernel=1, stride=1)
        shape = pool_shape(op)
        if min(shape) < 1:
            yield Fault("kernel", "does not fit into the signal", op.kernel, f"up to {op.shape[1:]}")
        windows = math.prod(op.kernel) if op.kind == "sum" else 1
        self.sizes[op.target], self.most[op.target] = math.prod(shape), windows * self.most[op.source]
        if self.most[op.target] >= 1 << 31:
            yield Fault("kernel", "sums may overflow 32 bits", self.most[op.target], f"below {1 << 31}")

    def _feed(self, op: Feed) -> Iterable[Fault]:
        if op.target not in self.populations or op.target in self.sizes:
            waiting = sorted(self.populations.keys() - self.sizes.keys())
            yield Fault("target", "is no population that still has to run", op.target, ", ".join(waiting))
        n = self.populations[op.target].n
        recurrent = isinstance(op, DenseOp) and op.source == op.target
        if not recurrent:
            yield from self._known(op.source)
        yield from ranges(op, shift=(0, MAX_SHIFT))
        n_pre = n if recurrent else self.sizes[op.source]
        match op:
            case DenseOp():
                yield from shaped(self.program, "weight", op.weight, (n, n_pre))
            case AddOp():
                yield from vector(self.program, "weight", op.weight, n)
                if n_pre != n:
                    yield Fault("source", "has another size than the target", n_pre, str(n))
            case ConvOp():
                yield from self._conv(op, n)
        self.feeds.setdefault(op.target, []).append(op)

    def _conv(self, op: ConvOp, n: int) -> Iterable[Fault]:
        yield from self._grid(op)
        yield from pairs(op, stride=1, dilation=1, padding=0)
        yield from ranges(op, groups=(1, MAX_SIZE))
        yield from named_tensor(self.program, "weight", op.weight)
        w = self.program.codes(op.weight).shape
        if len(w) != 4 or min(w) < 1 or max(w) > 1 << 20:
            yield Fault("weight", f"tensor {op.weight!r} is no kernel", w, "[C_out, C_in / groups, k_y, k_x]")
        if w[0] % op.groups or w[1] * op.groups != op.shape[0]:
            yield Fault(
                "groups",
                f"do not divide the channels of {op.weight!r}",
                (op.groups, w, op.shape),
                "C_in = w.shape[1] * groups, and groups divides C_out",
            )
        after = conv_shape(op, w)
        if min(after) < 1 or math.prod(after) != n:
            yield Fault("shape", f"does not convolve to {op.target}", after, f"{n} neurons")

    def _readout(self, op: VoteOp | ReadOp) -> Iterable[Fault]:
        if op.source not in self.populations or op.source not in self.sizes:
            yield Fault(
                "source",
                "is no population that runs before the read-out",
                op.source,
                ", ".join(sorted(self.populations)),
            )
        if isinstance(op, VoteOp):
            yield from named_tensor(self.program, "votes", op.votes)
            shape = self.program.codes(op.votes).shape
            if len(shape) != 2 or shape[0] != self.sizes[op.source] or shape[1] < 1:
                yield Fault(
                    "votes",
                    f"tensor {op.votes!r} has the wrong shape",
                    shape,
                    f"[{self.sizes[op.source]}, number of classes]",
                )
            score = int(np.abs(self.program.codes(op.votes).astype(np.int64)).sum(axis=0).max())
            score *= self.most[op.source] * self.program.n_steps
            if score >= 1 << 63:
                yield Fault(
                    "votes",
                    "the scores may overflow 64 bits",
                    score,
                    f"below {1 << 63}",
                    "smaller votes, or fewer steps",
                )
        self.n_classes = shape[1] if isinstance(op, VoteOp) else self.sizes[op.source]

    def _lif(self, op: LifOp) -> Iterable[Fault]:
        yield from self._new(op.name, "name")
        if not any(feed.source != op.name for feed in self.feeds.get(op.name, [])):
            yield Fault(
                "name",
                "is a population that nothing before it feeds",
                op.name,
                "a connection from the input or from an earlier population",
                "add one, or leave it out",
            )
        yield from neuron_faults(self.program, op, self._drive(op))
        self.sizes[op.name] = op.n
        self.most[op.name] = op.threshold.max_spikes if op.spiking else 1

    def _drive(self, op: LifOp) -> int:
        """The largest size of the input current: all sources spike as often as they may."""
        most = self.most | {op.name: op.threshold.max_spikes}
        return sum(_row_sum(self.program, f) * most[f.source] << f.shift for f in self.feeds[op.name])


def _named(op: Op) -> str:
    """The kind of an operation, and what it makes or feeds."""
    kind = type(op).__struct_config__.tag
    return " ".join(filter(None, (str(kind), getattr(op, "name", "") or getattr(op, "target", ""))))


def _row_sum(program: Program, feed: Feed) -> int:
    """The largest sum of |weights| into one neuron."""
    w = np.abs(program.codes(feed.weight).astype(np.int64))
    return int((w if isinstance(feed, AddOp) else w.reshape(len(w), -1).sum(axis=1)).max(initial=0))

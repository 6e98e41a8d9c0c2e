"""Running programs that begin alike: the spikes of a layer are kept by the content of everything up to it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from qspinn.program import Program
from qspinn.program.ops import AddOp, ConvOp, DenseOp, Feed, LifOp, Op, PoolOp, ReadOp, VoteOp
from qspinn.records.record import canonical_json
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes

ROOM_BYTES = 512 << 20


class Reuse:
    """Kept spikes, the most recently used last; when they take more than room_bytes the oldest go."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self.room_bytes = room_bytes
        self.n_runs = 0
        self._kept: OrderedDict[str, Spikes] = OrderedDict()

    def run(self, program: Program, spikes: Spikes, which: str, *, n_threads: int = 1) -> Result:
        """Result of `runtime.run`, bit for bit; layers that an earlier program had in common are not run again.

        Args:
            which: names the input: the same name must mean the same spikes.
        """
        (read,) = (op.source for op in program.ops if isinstance(op, ReadOp | VoteOp))
        keys = {name: key for name, key in layer_keys(program, which).items() if name != read}
        given = {name: self._kept[key] for name, key in keys.items() if key in self._kept}
        result, signals = numba_engine.run_from(program, spikes, given, n_threads=n_threads)
        self.n_runs += 1 + len(keys) - len(given)
        for name, key in keys.items():
            self._kept[key] = signals[name]
            self._kept.move_to_end(key)
        self._make_room()
        return result

    def _make_room(self) -> None:
        sizes = {key: _bytes(spikes) for key, spikes in self._kept.items()}
        total = sum(sizes.values())
        while total > self.room_bytes:
            total -= sizes[self._kept.popitem(last=False)[0]]


def _bytes(spikes: Spikes) -> int:
    return int(sum(x.nbytes for x in (spikes.offsets, spikes.index, spikes.count) if x is not None))


def layer_keys(program: Program, which: str) -> dict[str, str]:
    """For every population the sha256 (hex) of all that its spikes depend on: operations, tensors, seed, input."""
    own = {"input": hashlib.sha256(f"{which} {program.n_inputs} {program.n_steps}".encode()).hexdigest()}
    feeding: dict[str, list[Feed]] = {}
    found: dict[str, str] = {}
    for op in program.ops:
        match op:
            case PoolOp():
                own[op.target] = _key(program, [op], own[op.source])
            case DenseOp() | ConvOp() | AddOp():
                feeding.setdefault(op.target, []).append(op)
            case LifOp():
                before = [own[f.source] for f in feeding[op.name] if f.source != op.name]
                own[op.name] = found[op.name] = _key(program, [*feeding[op.name], op], *before)
            case _:
                pass
    return found


def _key(program: Program, ops: list[Op], *before: str) -> str:
    """Hash of operations with the tensors they name, after what came before."""
    sha = hashlib.sha256(f"{program.seed} {before}".encode())
    for op in ops:
        sha.update(canonical_json(op))
        named = op.tensors.values() if isinstance(op, LifOp) else [getattr(op, field) for field in op.__struct_fields__]
        for name in sorted({n for n in named if isinstance(n, str) and n in program.tensors}):
            tensor = program.tensors[name]
            codes = np.ascontiguousarray(tensor.codes)
            sha.update(canonical_json(tensor.fmt) + f"{name} {codes.shape} {codes.dtype}".encode() + codes.tobytes())
    return sha.hexdigest()

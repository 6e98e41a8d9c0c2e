"""The integer program: tensors of codes and an ordered list of operations; and its file, `.qspinn`.

A Program is all that a backend needs. It holds no float: formats, shifts and codes only. The file is a safetensors
file whose tensors are the packed bit streams of the codes and whose one metadata entry is the canonical JSON of the
rest, with a sha256 over both.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qspinn.errors import ArtifactError, ConfigError
from qspinn.fixedpoint import QFormat
from qspinn.ops import (
    AddOp,
    ConvOp,
    DenseOp,
    EventsOp,
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
from qspinn.records import Record, canonical_json, from_plain, to_plain

FORMAT_VERSION = 1


class CodeTensor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Integer codes with their format. codes: int32, any shape, C order."""

    codes: NDArray[np.int32]
    fmt: QFormat


class Program(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """An executable integer network. It never changes, its codes included: engines keep what they made of it.

    Attributes:
        n_inputs: sources of the input, before any selection.
        n_steps: steps per sample.
        seed: of every random draw at run time.
        ops: in execution order.
        tensors: by path.
        labels: class names, in the order of the vote columns.
        provenance: where the program comes from (configuration, data checksum, versions); not used in execution.
    """

    name: str
    n_inputs: int
    n_steps: int
    seed: int
    ops: tuple[Op, ...]
    tensors: dict[str, CodeTensor]
    labels: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}

    def codes(self, name: str) -> NDArray[np.int32]:
        return self.tensors[name].codes

    def ops_of(self, kind: type) -> list[Any]:
        return [op for op in self.ops if isinstance(op, kind)]


class _Header(Record, frozen=True):
    """What the metadata entry of a .qspinn file holds."""

    format_version: int
    name: str
    n_inputs: int
    n_steps: int
    seed: int
    ops: tuple[Op, ...]
    formats: dict[str, QFormat]
    shapes: dict[str, tuple[int, ...]]
    labels: tuple[str, ...]
    provenance: dict[str, Any]


def pack(codes: NDArray, fmt: QFormat) -> NDArray[np.uint8]:
    """Codes as a stream of fmt.bits bits each, lowest bit first, two's complement where signed, -1 and +1 as 0 and 1
    where binary, padded to bytes.

    Raises:
        ConfigError: the format is binary and some code is neither -1 nor +1.
    """
    flat = np.ascontiguousarray(codes, dtype=np.int64).ravel()
    if fmt.binary:
        if not np.all(np.abs(flat) == 1):
            raise ConfigError("codes", "do not fit a binary format", got=sorted(set(flat.tolist()))[:5],
                              allowed="-1 and +1", fix="two bits where weights may be zero")
        flat = flat + 1 >> 1
    flat &= (1 << fmt.bits) - 1
    planes = (flat[:, None] >> np.arange(fmt.bits)) & 1
    return np.packbits(planes.astype(np.uint8).ravel(), bitorder="little")


def unpack(stream: NDArray[np.uint8], fmt: QFormat, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The codes of a packed stream; inverse of `pack`."""
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.unpackbits(stream, count=count * fmt.bits, bitorder="little").reshape(count, fmt.bits)
    flat = bits.astype(np.int64) @ (1 << np.arange(fmt.bits, dtype=np.int64))
    if fmt.binary:
        flat = 2 * flat - 1
    elif fmt.signed:
        flat = np.where(flat > fmt.code_max, flat - (1 << fmt.bits), flat)
    return flat.astype(np.int32).reshape(shape)


def to_bytes(program: Program) -> bytes:
    """The canonical bytes of a program: equal programs give equal bytes."""
    streams = {name: pack(t.codes, t.fmt) for name, t in sorted(program.tensors.items())}
    header = _Header(
        format_version=FORMAT_VERSION, name=program.name, n_inputs=program.n_inputs, n_steps=program.n_steps,
        seed=program.seed, ops=program.ops, formats={n: t.fmt for n, t in program.tensors.items()},
        shapes={n: t.codes.shape for n, t in program.tensors.items()}, labels=program.labels,
        provenance=program.provenance,
    )
    text = canonical_json(header)
    entry = msgspec.json.encode({"header": to_plain(header), "sha256": _digest(text, streams)}, order="sorted")
    return safetensors.numpy.save(streams, metadata={"qspinn": entry.decode()})


def _digest(text: bytes, streams: dict[str, NDArray[np.uint8]]) -> str:
    sha = hashlib.sha256(text)
    for name, stream in sorted(streams.items()):
        sha.update(name.encode() + b"\0" + struct.pack("<Q", stream.size) + stream.tobytes())
    return sha.hexdigest()


def from_bytes(data: bytes, where: str = "program") -> Program:
    """The program stored in bytes.

    Raises:
        ArtifactError: truncated, altered, foreign, or written by a newer version.
    """
    streams, entry = _parse(data, where)
    plain = entry.get("header")
    if not isinstance(plain, dict) or not isinstance(plain.get("format_version"), int):
        raise ArtifactError(where, "is not a Q-SpiNN program")
    if plain["format_version"] > FORMAT_VERSION:
        raise ArtifactError(where, "was written by a newer version of qspinn", got=plain["format_version"],
                            allowed=f"up to {FORMAT_VERSION}", fix="upgrade qspinn")
    if entry.get("sha256") != _digest(msgspec.json.encode(plain, order="sorted"), streams):
        raise ArtifactError(where, "checksum does not match: the file was damaged or edited",
                            fix="restore it from a copy or run the export again")
    try:
        header = from_plain(_Header, plain, where)
    except ConfigError as error:
        raise ArtifactError(where, f"header is not valid ({error})") from None
    if not (header.formats.keys() == header.shapes.keys() == streams.keys()):
        raise ArtifactError(where, "header and tensors do not belong together")
    tensors = {n: _tensor(n, streams[n], header.formats[n], header.shapes[n], where) for n in header.formats}
    program = Program(name=header.name, n_inputs=header.n_inputs, n_steps=header.n_steps, seed=header.seed,
                      ops=header.ops, tensors=tensors, labels=header.labels, provenance=header.provenance)
    _check_operations(program, where)
    return program


def _tensor(name: str, stream: NDArray, fmt: QFormat, shape: tuple[int, ...], where: str) -> CodeTensor:
    """The codes of a stream whose length fits the shape."""
    if min(shape, default=0) < 0 or stream.size != -(-math.prod(shape) * fmt.bits // 8):
        raise ArtifactError(where, f"tensor {name!r} has the wrong length", got=stream.size, allowed=f"{shape} {fmt}")
    return CodeTensor(codes=unpack(stream, fmt, shape), fmt=fmt)


def _check_operations(program: Program, where: str) -> None:
    """Every operation finds its sources and tensors, in the shapes it needs; engines may rely on that.

    Raises:
        ArtifactError: names the operation that does not fit.
    """
    sizes = {"input": program.n_inputs} | {op.name: op.n for op in program.ops_of(LifOp)}
    known = {"input"}  # signals that exist by the time an operation runs
    shapes = {name: t.codes.shape for name, t in program.tensors.items()}
    readouts = [op for op in program.ops if isinstance(op, VoteOp | ReadOp)]
    if len(readouts) != 1 or program.n_steps <= 0:
        raise ArtifactError(where, "needs one read-out and a step", got=(len(readouts), program.n_steps))
    for op in program.ops:
        if not _fits(program, op, sizes, known, shapes):
            raise ArtifactError(where, "an operation does not fit its tensors", got=to_plain(op))


def _fits(program: Program, op: Op, sizes: dict[str, int], known: set[str], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether an operation finds what it needs; notes the size of the signal it makes."""
    if isinstance(op, SelectOp | PoolOp) and op.target in sizes:
        return False
    match op:
        case EventsOp():
            return math.prod(op.shape) == program.n_inputs and min(op.shape) > 0
        case SelectOp():
            ok = op.source in known and shapes.get(op.kept) == (sizes[op.source],)
            sizes[op.target] = int(np.count_nonzero(program.codes(op.kept))) if ok else 0
            known.add(op.target)
            return ok
        case DenseOp():
            return (op.source in known | {op.target} and op.target in sizes and 0 <= op.shift <= 31
                    and shapes.get(op.weight) == (sizes[op.target], sizes[op.source]))
        case ConvOp():
            w = shapes.get(op.weight, ())
            return (op.source in known and math.prod(op.shape) == sizes[op.source] and len(w) == 4 and min(w) > 0
                    and min(op.shape + op.stride + op.dilation) > 0 and min(op.padding) >= 0 and op.groups > 0
                    and w[0] % op.groups == 0 and w[1] * op.groups == op.shape[0] and 0 <= op.shift <= 31
                    and min(conv_shape(op, w)) > 0 and math.prod(conv_shape(op, w)) == sizes.get(op.target))
        case PoolOp():
            ok = (op.source in known and math.prod(op.shape) == sizes[op.source]
                  and min(op.shape + op.kernel + op.stride) > 0 and min(pool_shape(op)) > 0)
            sizes[op.target] = math.prod(pool_shape(op)) if ok else 0
            known.add(op.target)
            return ok
        case AddOp():
            return (op.source in known and sizes[op.source] == sizes.get(op.target) and 0 <= op.shift <= 31
                    and _spreads(shapes.get(op.weight), sizes[op.source]))
        case LifOp():
            vectors = (op.v_th, op.v_reset,
                       *filter(None, (op.theta, op.inhibition, op.bias, op.in_shifts, op.theta_step)))
            scalars = (op.decay, *filter(None, (op.current, op.theta_decay)))
            known.add(op.name)
            return (any(getattr(o, "target", "") == op.name for o in program.ops)
                    and all(_spreads(shapes.get(t), op.n) for t in vectors)
                    and all(shapes.get(t) == (1,) for t in scalars) and (op.current == "") == (op.current_fmt is None)
                    and min(op.n_ref, op.decay_shift, op.current_shift, op.theta_decay_shift) >= 0
                    and max(op.decay_shift, op.current_shift, op.theta_decay_shift, abs(op.in_shift)) <= 31
                    and _moves(op) and _counts(op) and _keeps(op)
                    and min(op.v_th_shift, op.theta_shift, op.inhibition_shift, op.bias_shift) >= 0
                    and op.bias_shift <= 31)
        case VoteOp():
            return shapes.get(op.votes, ())[:1] == (sizes.get(op.source, -1),) and len(shapes[op.votes]) == 2
        case ReadOp():
            return any(o.name == op.source for o in program.ops_of(LifOp))
        case PoissonOp():
            return True


def _moves(op: LifOp) -> bool:
    """Whether a threshold that moves has all it needs, and one that does not has nothing of it."""
    if op.theta_fmt is None:
        return not (op.theta_step or op.theta_decay or op.theta_decay_shift)
    return bool(op.theta_step and op.theta_decay) and not op.theta and not op.theta_fmt.signed


def _counts(op: LifOp) -> bool:
    """Whether a neuron may spike so often in a step."""
    several = op.reset == "subtract" and not op.winner and not op.inhibition
    return op.max_spikes == 1 or (several and 1 < op.max_spikes <= 255)


def _keeps(op: LifOp) -> bool:
    """Whether the format of potentials between steps, where there is one, is a signed part of that within a step."""
    fmt = op.store_fmt
    if fmt is None:
        return op.store_min == 0
    return (fmt.signed and fmt.bits > 1 and 0 <= -fmt.frac <= 31 and fmt.code_min <= op.store_min <= 0
            and fmt.bits - fmt.frac <= 32)


def _spreads(shape: tuple[int, ...] | None, n: int) -> bool:
    """Whether a tensor of this shape gives one value to each of n neurons."""
    return shape is not None and len(shape) == 1 and shape[0] > 0 and n % shape[0] == 0


def _parse(data: bytes, where: str) -> tuple[dict[str, NDArray[np.uint8]], dict]:
    """The packed streams and the metadata entry; the container's own checks come first."""
    try:
        streams = safetensors.numpy.load(data)
        size = struct.unpack("<Q", data[:8])[0]
        text = msgspec.json.decode(data[8 : 8 + size])["__metadata__"]["qspinn"]
        entry = msgspec.json.decode(text)
    except (safetensors.SafetensorError, msgspec.DecodeError, struct.error, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(where, "is truncated, damaged or not a .qspinn file", got=str(error)[:120]) from None
    if any(stream.dtype != np.uint8 or stream.ndim != 1 for stream in streams.values()):
        raise ArtifactError(where, "holds something else than packed bytes")
    if not isinstance(entry, dict) or not isinstance(entry.get("header"), dict):
        raise ArtifactError(where, "is not a Q-SpiNN program")
    return streams, entry


def save(program: Program, path: str | Path) -> Path:
    """Writes the program to path: to a temporary name first, then renamed, so that no half file is ever seen."""
    path = Path(path)
    write_atomic(path, to_bytes(program))
    return path


def load(path: str | Path) -> Program:
    """The program in the file at path."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(str(path), "cannot be read", got=error.strerror) from None
    return from_bytes(data, str(path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name beside path, synced and renamed to it at the end of the block; the old
    file stays whole if anything fails.

    Raises:
        ArtifactError: the disk is full or the place is not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ArtifactError(str(path), "cannot be written", got=error.strerror or str(error),
                            fix="free some space or choose another place with --out") from None


def write_atomic(path: Path, data: bytes) -> None:
    """Writes bytes, all or nothing; see `replacing`, also for errors."""
    with replacing(path) as file:
        file.write(data)

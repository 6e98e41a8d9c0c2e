"""The file of a program, `.qspinn`.

It is a safetensors file whose tensors are the packed bit streams of the codes and whose one metadata entry is the
canonical JSON of the rest, with a sha256 over both.
"""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qspinn.arrays import integer, integers
from qspinn.errors import ArtifactError, ConfigError, QSpinnError
from qspinn.files import entry_of, read_file, write_atomic
from qspinn.fixedpoint import QFormat
from qspinn.program.check import MAX_AXES, check, need_memory
from qspinn.program.constants import share_factors
from qspinn.program.flat import FILE_NAMES, FlatOp, flat_of, from_flat
from qspinn.program.ops import LifOp
from qspinn.program.program import CodeTensor, Note, Program
from qspinn.records.record import Record, canonical_json, from_plain, to_plain

FORMAT_VERSION = 3
"""Version 2 has `notes`, version 3 decay factors that differ between neurons; what has neither is as before."""
BLOCK = 1 << 16
"""Codes that are unpacked at a time: they take a word for each bit meanwhile."""
MOST = {"header": 4 << 20, "provenance": 1 << 20}
"""Bytes of JSON that a file may hold: each value is checked by itself, which takes a while."""


class _Header(Record, frozen=True):
    """What the metadata entry of a .qspinn file holds."""

    format_version: int
    name: str
    n_inputs: int
    n_steps: int
    seed: int
    ops: tuple[FlatOp, ...]
    formats: dict[str, QFormat]
    shapes: dict[str, tuple[int, ...]]
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    notes: tuple[Note, ...] = ()


def pack(codes: NDArray, fmt: QFormat) -> NDArray[np.uint8]:
    """Codes as a stream of fmt.bits bits each, lowest bit first, two's complement where signed, -1 and +1 as 0 and 1
    where binary, padded to bytes.

    Raises:
        ConfigError: a code does not lie within the format, or is no integer.
    """
    flat = integers("codes", codes, error=ConfigError).ravel()
    if fmt.binary:
        if not np.all(np.abs(flat) == 1):
            raise ConfigError(
                "codes",
                "do not fit a binary format",
                got=sorted(set(flat.tolist()))[:5],
                allowed="-1 and +1",
                fix="two bits where weights may be zero",
            )
        flat = flat + 1 >> 1
    elif flat.size and (flat.min() < fmt.code_min or flat.max() > fmt.code_max):
        raise ConfigError(
            "codes",
            f"do not fit the format {fmt}",
            got=(int(flat.min()), int(flat.max())),
            allowed=f"{fmt.code_min}..{fmt.code_max}",
        )
    planes = (flat[:, None] >> np.arange(fmt.bits)) & 1
    return np.packbits(planes.astype(np.uint8).ravel(), bitorder="little")


def unpack(stream: NDArray[np.uint8], fmt: QFormat, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The codes of a packed stream; inverse of `pack`."""
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.zeros(count, np.int32)
    for at in range(0, count, BLOCK):
        size = min(BLOCK, count - at)
        flat[at : at + size] = _unpacked(stream[at * fmt.bits // 8 :], fmt, size)
    return flat.reshape(shape)


def _unpacked(stream: NDArray[np.uint8], fmt: QFormat, count: int) -> NDArray[np.int64]:
    """The first codes of a stream."""
    bits = np.unpackbits(stream[: -(-count * fmt.bits // 8)], count=count * fmt.bits, bitorder="little")
    flat = bits.reshape(count, fmt.bits).astype(np.int64) @ (1 << np.arange(fmt.bits, dtype=np.int64))
    if fmt.binary:
        flat = 2 * flat - 1
    elif fmt.signed:
        flat = np.where(flat > fmt.code_max, flat - (1 << fmt.bits), flat)
    return flat


def to_bytes(program: Program) -> bytes:
    """The canonical bytes of a program: equal programs give equal bytes.

    Raises:
        ConfigError: the program is none that `from_bytes` would take; see `program.check.check`.
    """
    check(program)
    streams = {name: pack(t.codes, t.fmt) for name, t in sorted(program.tensors.items())}
    header = _Header(
        format_version=version_of(program),
        name=program.name,
        n_inputs=program.n_inputs,
        n_steps=program.n_steps,
        seed=program.seed,
        ops=tuple(map(flat_of, program.ops)),
        formats={n: t.fmt for n, t in program.tensors.items()},
        shapes={n: t.codes.shape for n, t in program.tensors.items()},
        labels=program.labels,
        provenance=program.provenance,
        notes=program.notes,
    )
    plain = to_plain(header)
    if not program.notes:
        del plain["notes"]
    _need_short(plain, "program", ConfigError)
    entry = msgspec.json.encode({"header": plain, "sha256": _digest(canonical_json(plain), streams)}, order="sorted")
    return safetensors.numpy.save(streams, metadata={"qspinn": entry.decode()})


def version_of(program: Program) -> int:
    """The first version of the format whose readers know everything that is in a program."""
    if not all(share_factors(program, op) for op in program.ops_of(LifOp)):
        return 3
    return 2 if program.notes else 1


def _need_short(plain: dict[str, Any], where: str, error: type[QSpinnError]) -> None:
    """Refuses headers that are longer than `MOST`."""
    for what, part in (("provenance", plain.get("provenance")), ("header", plain)):
        size = len(msgspec.json.encode(part))
        if size > MOST[what]:
            raise error(f"{where}: {what}", "is too long", got=f"{size} bytes of JSON", allowed=f"up to {MOST[what]}")


def _digest(text: bytes, streams: dict[str, NDArray[np.uint8]]) -> str:
    sha = hashlib.sha256(text)
    for name, stream in sorted(streams.items()):
        sha.update(name.encode() + b"\0" + struct.pack("<Q", stream.size) + stream.tobytes())
    return sha.hexdigest()


def from_bytes(data: bytes, where: str = "program", *, memory_limit: int | None = None) -> Program:
    """The program stored in bytes.

    Args:
        where: name of the bytes in messages.
        memory_limit: bytes that a run of one sample may take; see `program.check.check`.

    Raises:
        ArtifactError: truncated, altered, foreign, written by a newer version, or not a program that every engine runs
            alike.
    """
    streams, entry = _parse(bytes(data) if isinstance(data, bytearray | memoryview) else data, where)
    plain = entry.get("header")
    if not isinstance(plain, dict) or not isinstance(plain.get("format_version"), int):
        raise ArtifactError(where, "is not a Q-SpiNN program")
    _need_short(plain, where, ArtifactError)
    if plain["format_version"] < 1 or (plain["format_version"] == 1 and plain.get("notes")):
        raise _unwritten(where, plain["format_version"])
    if plain["format_version"] > FORMAT_VERSION:
        raise ArtifactError(
            where,
            "was written by a newer version of qspinn",
            got=plain["format_version"],
            allowed=f"up to {FORMAT_VERSION}",
            fix="upgrade qspinn",
        )
    if entry.get("sha256") != _digest(msgspec.json.encode(plain, order="sorted"), streams):
        raise ArtifactError(
            where,
            "checksum does not match: the file was damaged or edited",
            fix="restore it from a copy or run the export again",
        )
    try:
        header = from_plain(_Header, plain, where)
        ops = tuple(from_flat(op, f"{where}.ops[{i}]") for i, op in enumerate(header.ops))
    except ConfigError as error:
        raise ArtifactError(where, f"header is not valid ({error})") from None
    if not (header.formats.keys() == header.shapes.keys() == streams.keys()):
        raise ArtifactError(where, "header and tensors do not belong together")
    need_memory(16 * sum(map(math.prod, header.shapes.values())), where, ArtifactError, memory_limit)
    tensors = {n: _tensor(n, streams[n], header.formats[n], header.shapes[n], where) for n in header.formats}
    program = Program(
        name=header.name,
        n_inputs=header.n_inputs,
        n_steps=header.n_steps,
        seed=header.seed,
        ops=ops,
        tensors=tensors,
        labels=header.labels,
        provenance=header.provenance,
        notes=header.notes,
    )
    check(program, where, error=ArtifactError, memory_limit=memory_limit, names=FILE_NAMES)
    if header.format_version < version_of(program):
        raise _unwritten(where, header.format_version)
    return program


def _unwritten(where: str, version: int) -> ArtifactError:
    """The error for a file of a version that could not hold what is in it."""
    return ArtifactError(
        where,
        "has a header that no version of qspinn writes",
        got=version,
        allowed=f"1..{FORMAT_VERSION}, notes from 2, decay factors that differ between neurons from 3",
    )


def _tensor(name: str, stream: NDArray, fmt: QFormat, shape: tuple[int, ...], where: str) -> CodeTensor:
    """The codes of a stream whose length fits the shape."""
    if len(shape) > MAX_AXES or min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) >= 1 << 48:
        raise ArtifactError(
            where,
            f"tensor {name!r} has a shape that no array has",
            got=shape[: MAX_AXES + 1],
            allowed=f"up to {MAX_AXES} axes, together shorter than 2**48",
        )
    if stream.size != -(-math.prod(shape) * fmt.bits // 8):
        raise ArtifactError(where, f"tensor {name!r} has the wrong length", got=stream.size, allowed=f"{shape} {fmt}")
    used = math.prod(shape) * fmt.bits % 8
    if used and stream[-1] >> used:
        raise ArtifactError(
            where,
            f"tensor {name!r} has bits behind its last code",
            got=int(stream[-1]) >> used,
            allowed="zeros, up to a whole byte",
        )
    return CodeTensor(codes=unpack(stream, fmt, shape), fmt=fmt)


def _parse(data: bytes, where: str) -> tuple[dict[str, NDArray[np.uint8]], dict]:
    """The packed streams and the metadata entry; the container's own checks come first."""
    try:
        streams = safetensors.numpy.load(data)
        entry = entry_of(data, "qspinn")
        msgspec.json.encode(entry)  # what is nested too deep to be written again
    except (safetensors.SafetensorError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ArtifactError(where, "is truncated, damaged or not a .qspinn file", got=str(error)[:120]) from None
    if any(stream.dtype != np.uint8 or stream.ndim != 1 for stream in streams.values()):
        raise ArtifactError(where, "holds something else than packed bytes")
    if not isinstance(entry, dict) or not isinstance(entry.get("header"), dict):
        raise ArtifactError(where, "is not a Q-SpiNN program")
    return streams, entry


def save(program: Program, path: str | Path) -> Path:
    """Writes the program to path: to a temporary name first, then renamed, so that no half file is ever seen.

    Raises:
        WriteError: the disk is full or the place is not writable; see `files.replacing`.
    """
    write_atomic(path, to_bytes(program))
    return Path(path)


def load(path: str | Path, *, memory_limit: int | None = None) -> Program:
    """The program in the file at path; see `from_bytes` for the limit and the errors."""
    most = 0 if memory_limit is None else integer("memory_limit", memory_limit, low=1)
    return from_bytes(read_file(path, most=most), str(path), memory_limit=memory_limit)

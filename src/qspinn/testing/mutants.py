"""Changed files of programs, signed anew: what a stranger or a damaged tool may hand to the loader.

A mutant is a function of (seed, number) alone, so that a fault is repeated by naming them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import Program, pack, to_bytes
from qspinn.program.flat import FlatLif
from qspinn.records.record import to_plain
from qspinn.testing.layered import random_layered
from qspinn.testing.neurons import adversarial_neurons
from qspinn.testing.programs import adversarial, random_case
from qspinn.testing.vectors import adversarial_layered

PER_BASE = 40
"""Mutants in a row that are made of the same program."""
LARGEST_BASE = 8000
"""Codes of the largest program that is changed: the time goes into changes, not into sums."""
NUMBERS = (
    -(10**30),
    -(1 << 63),
    -(1 << 31),
    -40,
    -2,
    -1,
    0,
    1,
    2,
    3,
    7,
    15,
    16,
    30,
    31,
    32,
    33,
    40,
    63,
    64,
    255,
    256,
    1 << 15,
    (1 << 15) + 1,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    10**30,
)
WORDS = (
    "",
    "input",
    "p0",
    "a b",
    "é",
    "\0",
    "x" * 300,
    "class",
    "value",
    "subtract",
    "sum",
    "max",
    "spikes",
    "v_last",
    "v_sum",
    *(r.value for r in Rounding),
    "lif",
    "dense",
    "conv",
    "add",
    "pool",
    "select",
    "read",
    "vote",
)
OTHERS: tuple[Any, ...] = (None, True, False, 0.5, 2.0, 1e308, "", "0", [], {}, [1], [1, 1], {"a": 1})
VECTORS = ("v_th", "v_reset", "theta", "inhibition", "bias", "in_shifts", "theta_step")
FACTORS = ("decay", "current", "theta_decay")

Streams = dict[str, NDArray[np.uint8]]
Rng = np.random.Generator


class Mutant(NamedTuple):
    """A changed file: its bytes, the name of the program that it was made of, and what was changed, in words."""

    data: bytes
    base: str
    changes: tuple[str, ...]


class Parts(NamedTuple):
    """The header and the packed tensors of a file, to be changed in place."""

    header: dict[str, Any]
    streams: Streams


class _Base(NamedTuple):
    name: str
    header: bytes
    streams: Streams


def mutant(seed: int, number: int) -> Mutant:
    """The mutant of a number: a program of any kind whose header or tensors were changed in one to three places."""
    rng = np.random.default_rng([seed, number, 21])
    base = _base(seed, number // PER_BASE)
    parts = Parts(msgspec.json.decode(base.header), dict(base.streams))
    changes = []
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])):
        change = _CHANGES[rng.choice(len(_CHANGES), p=_SHARES)]
        changes.append(change(parts, rng) or "nothing")
    return Mutant(signed(parts.header, parts.streams), base.name, tuple(changes))


def signed(header: dict[str, Any], streams: Streams) -> bytes:
    """The bytes of a program's file with this header and these packed tensors, and the checksum that belongs to them.

    The checksum is written here a second time, apart from the loader, which it tests.
    """
    text = json.dumps(header)
    sha = hashlib.sha256(msgspec.json.encode(msgspec.json.decode(text), order="sorted"))
    for name, stream in sorted(streams.items()):
        sha.update(name.encode() + b"\0" + struct.pack("<Q", stream.size) + stream.tobytes())
    entry = f'{{"header": {text}, "sha256": "{sha.hexdigest()}"}}'
    return safetensors.numpy.save(streams, metadata={"qspinn": entry})


def parts_of(program: Program) -> Parts:
    """The header and the packed tensors that a program's file holds."""
    data = to_bytes(program)
    size = struct.unpack("<Q", data[:8])[0]
    entry = msgspec.json.decode(msgspec.json.decode(data[8 : 8 + size])["__metadata__"]["qspinn"])
    return Parts(entry["header"], safetensors.numpy.load(data))


@functools.lru_cache(maxsize=2)
def _base(seed: int, number: int) -> _Base:
    """The program that mutants are made of."""
    rng = np.random.default_rng([seed, number, 22])
    while True:
        kind, draw = int(rng.integers(5)), int(rng.integers(1 << 30))
        case = random_case(draw) if kind == 0 else random_layered(draw) if kind < 4 else None
        name, program = (case.name, case.program) if case is not None else _vectors()[draw % len(_vectors())]
        if sum(t.codes.size for t in program.tensors.values()) > LARGEST_BASE:
            continue
        try:
            header, streams = parts_of(program)
        except ConfigError:  # vectors for engines alone: beyond what a file may hold
            continue
        return _Base(name, json.dumps(header).encode(), streams)


@functools.cache
def _vectors() -> list[tuple[str, Program]]:
    """Every hand-built program that is small."""
    cases = itertools.chain(adversarial(), adversarial_layered(), adversarial_neurons())
    return [
        (case.name, case.program)
        for case in cases
        if sum(t.codes.size for t in case.program.tensors.values()) <= LARGEST_BASE
    ]


def _places(value: Any, where: str = "header") -> Iterator[tuple[Any, Any, str]]:
    """(container, key, path) of everything within a header."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in pairs:
        path = f"{where}.{key}"
        yield value, key, path
        yield from _places(entry, path)


def _picked(rng: Rng, choices: Any) -> Any:
    choices = list(choices)
    return choices[rng.integers(len(choices))] if choices else None


def _replacement(parts: Parts, value: Any, rng: Rng) -> Any:
    """Another value, most often of the same type."""
    if rng.random() < 0.08:
        return _picked(rng, OTHERS)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = (value - 1, value + 1, -value, 2 * value, value // 2)
        return _picked(rng, near if rng.random() < 0.4 else NUMBERS)
    if isinstance(value, str):
        return _picked(rng, WORDS if rng.random() < 0.4 else _names(parts))
    if isinstance(value, list):
        return _picked(rng, (value[:-1], value[1:], value + value[-1:], value[::-1], []))
    if value is None:
        return to_plain(QFormat(bits=int(rng.integers(1, 33)), frac=-int(rng.integers(3)), signed=rng.random() < 0.6))
    return _picked(rng, OTHERS)


def _names(parts: Parts) -> list[str]:
    """Names of tensors and of signals."""
    ops = [op for op in _list(parts, "ops") if isinstance(op, dict)]
    return ["input", *parts.streams, *(str(op[key]) for op in ops for key in ("name", "target") if key in op)]


def _list(parts: Parts, key: str) -> list[Any]:
    found = parts.header.get(key)
    return found if isinstance(found, list) else []


def _table(parts: Parts, key: str) -> dict[str, Any]:
    found = parts.header.get(key)
    return found if isinstance(found, dict) else {}


def _value(parts: Parts, rng: Rng) -> str | None:
    """Another value anywhere in the header; nine of ten times within the operations."""
    root = parts.header if rng.random() < 0.15 else _list(parts, "ops")
    place = _picked(rng, _places(root, "ops" if isinstance(root, list) else "header"))
    if place is None:
        return None
    container, key, path = place
    new = _replacement(parts, container[key], rng)
    container[key] = new
    return f"{path} = {str(new)[:60]!r}"


def _keys(parts: Parts, rng: Rng) -> str | None:
    """A key left out, added, or named otherwise."""
    tables = [parts.header, *(c[k] for c, k, _ in _places(parts.header) if isinstance(c[k], dict))]
    table = _picked(rng, tables)
    key = _picked(rng, table) if table else None
    way = _picked(rng, ("left out", "added", "renamed"))
    if way == "added" or key is None:
        table[_picked(rng, (*WORDS, *FlatLif.__struct_fields__))] = _picked(rng, OTHERS)
        return "a key added"
    value = table.pop(key)
    if way == "renamed":
        table[_picked(rng, (*WORDS, key.upper(), *FlatLif.__struct_fields__))] = value
    return f"{key} {way}"


def _operations(parts: Parts, rng: Rng) -> str | None:
    """Operations exchanged, moved, left out or repeated."""
    ops = _list(parts, "ops")
    if not ops:
        return None
    way, i, j = _picked(rng, ("swap", "move", "drop", "repeat", "split")), *(int(rng.integers(len(ops))) for _ in "ij")
    if way == "swap":
        ops[i], ops[j] = ops[j], ops[i]
    elif way == "move":
        ops.insert(j, ops.pop(i))
    elif way == "drop":
        ops.pop(i)
    else:
        copy = json.loads(json.dumps(ops[i]))
        if way == "split" and isinstance(copy, dict):  # under a name of its own
            copy |= {key: "another" for key in ("name", "target") if key in copy}
        ops.insert(j, copy)
    return f"ops: {way} {i} {j}"


def _exchanged(parts: Parts, rng: Rng) -> str | None:
    """Two tensors under each other's names, or one of them twice."""
    a, b = (_picked(rng, parts.streams) for _ in "ab")
    twice = rng.random() < 0.3
    for table in (parts.streams, _table(parts, "formats"), _table(parts, "shapes")):
        if a in table and b in table:
            table[a], table[b] = table[b], table[b] if twice else table[a]
    return f"tensors {a} and {b} exchanged"


def _rewrite(parts: Parts, name: str, codes: NDArray[Any], fmt: QFormat) -> None:
    """Puts other codes of another format in the place of a tensor."""
    parts.streams[name] = pack(codes, fmt)
    _table(parts, "formats")[name] = to_plain(fmt)
    _table(parts, "shapes")[name] = list(codes.shape)


def _codes(parts: Parts, rng: Rng) -> str | None:
    """Other codes in a tensor, of another format or shape, that belong together: the loader has to look at them."""
    name = _picked(rng, parts.streams)
    shape = _table(parts, "shapes").get(name)
    if not isinstance(shape, list) or not all(type(s) is int and 0 <= s <= 600 for s in shape) or np.prod(shape) > 1e4:
        return None
    if rng.random() < 0.3:
        shape = _picked(
            rng,
            (
                [1],
                shape[::-1],
                [1, *shape],
                shape[:-1],
                [*shape, 1],
                [s + 1 for s in shape],
                [0],
                [int(np.prod(shape))],
            ),
        )
    fmt = QFormat(
        bits=int(_picked(rng, (1, 2, 3, 4, 8, 15, 16, 17, 24, 30, 31, 32))),
        frac=int(rng.integers(-3, 4)),
        signed=bool(rng.random() < 0.4),
    )
    ends = [-1, 1] if fmt.binary else [fmt.code_min, min(fmt.code_max, (1 << 31) - 1)]
    drawn = rng.integers(0, 2, shape) if rng.random() < 0.5 or fmt.binary else None
    codes = np.array(ends)[drawn] if drawn is not None else np.clip(rng.integers(-3, 40, shape), ends[0], ends[1])
    if rng.random() < 0.3:
        codes = np.full(shape, _picked(rng, ends))
    _rewrite(parts, name, codes, fmt)
    return f"{name} = {shape} {fmt}, {codes.min(initial=0)}..{codes.max(initial=0)}"


def _bytes(parts: Parts, rng: Rng) -> str | None:
    """Other bytes in a tensor's stream, or more or fewer of them."""
    name = _picked(rng, parts.streams)
    if name is None:
        return None
    stream = parts.streams[name].copy()
    way = _picked(rng, ("noise", "zeros", "ones", "bit", "longer", "shorter"))
    if way == "noise":
        stream = np.frombuffer(rng.bytes(stream.size), np.uint8)
    elif way in ("zeros", "ones"):
        stream[:] = 255 * (way == "ones")
    elif way == "bit" and stream.size:
        stream[rng.integers(stream.size)] ^= 1 << rng.integers(8)
    elif way == "longer":
        stream = np.append(stream, np.uint8(0))
    else:
        stream = stream[:-1]
    parts.streams[name] = stream
    return f"{name}: {way}"


def _switch(parts: Parts, rng: Rng) -> str | None:
    """A part of a population switched on, with everything that belongs to it, at the ends of what it may be."""
    op = _picked(rng, (op for op in _list(parts, "ops") if isinstance(op, dict) and op.get("type") == "lif"))
    if op is None:
        return None
    bits, shift = int(_picked(rng, (1, 2, 8, 15, 16, 17, 24, 30, 31, 32))), int(_picked(rng, (0, 0, 1, 8, 15, 16, 31)))
    field = str(_picked(rng, (*VECTORS, *FACTORS, "store", "adapts", "several", "format")))
    settings: dict[str, Any] = {}
    if field in (*VECTORS, *FACTORS):
        settings = {field: f"new.{field}"}
        top = (1 << shift) if field in FACTORS else int(_picked(rng, (1, 5, 100, 32767, (1 << 30) - 1)))
        code = max(0, min(top - int(rng.integers(2)), (1 << 31) - 1))
        signs = -1 if field in ("bias", "in_shifts", "v_reset", "v_th") and rng.random() < 0.3 else 1
        n = op.get("n")
        size = n if field in FACTORS and type(n) is int and 1 <= n <= 600 and rng.random() < 0.3 else 1
        made = np.full(size, signs * code)
        made[::2] = made[::2] // (1 if size == 1 else 2)
        _rewrite(parts, f"new.{field}", made, QFormat(bits=32 if signs < 0 else 31, signed=signs < 0))
        if field != "v_reset" and field != "in_shifts" and field != "theta_step":
            settings[f"{field}_shift"] = shift
        if field == "current":
            settings["current_fmt"] = to_plain(QFormat(bits=max(bits, 2), signed=True))
    elif field == "store":
        settings = {
            "store_fmt": to_plain(QFormat(bits=max(2, bits // 2), frac=-shift, signed=True)),
            "store_min": int(_picked(rng, (0, -1, -(1 << max(2, bits // 2) - 1)))),
        }
    elif field == "adapts":
        for name, code in (("theta_step", 3), ("theta_decay", (1 << shift) - 1)):
            _rewrite(parts, f"new.{name}", np.array([min(code, (1 << 31) - 1)]), QFormat(bits=31))
        settings = {
            "theta_fmt": to_plain(QFormat(bits=bits)),
            "theta_step": "new.theta_step",
            "theta": "",
            "theta_decay": "new.theta_decay",
            "theta_decay_shift": shift,
        }
    elif field == "several":
        settings = {
            "max_spikes": int(_picked(rng, (2, 3, 255))),
            "reset": "subtract",
            "winner": False,
            "inhibition": "",
            "inhibition_shift": 0,
        }
    else:
        fmt = QFormat(bits=bits, signed=bits > 1 and bool(rng.random() < 0.7))
        settings = {"v_fmt": to_plain(fmt), "v_min": int(_picked(rng, (0, fmt.code_min)))}
    op.update(settings)
    return f"{op.get('name')}: {settings}"


_CHANGES: tuple[Callable[[Parts, Rng], str | None], ...] = (
    _value,
    _keys,
    _operations,
    _exchanged,
    _codes,
    _bytes,
    _switch,
)
_SHARES = (0.5, 0.05, 0.08, 0.05, 0.12, 0.05, 0.15)

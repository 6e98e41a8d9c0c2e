"""JSON may give a key twice, and readers differ in which value they take: no file of ours may do so."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qspinn.errors import ArtifactError
from qspinn.files import entry_of
from qspinn.learning.local.model import load_local
from qspinn.networks import checkpoint
from qspinn.program import from_bytes, to_bytes
from qspinn.testing.programs import single
from samples import trained_competing, trained_layers, trained_local


def doubled(data: bytes, key: str, *, outside: bool) -> bytes:
    """The bytes of a safetensors file in which an entry's key, or a name of the header outside, is given twice."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(header) if outside else next(iter(header["__metadata__"].values()))
    at = re.search(f'"{re.escape(key)}": ?', text)
    assert at, (key, text[:300])
    value = json.JSONDecoder().raw_decode(text, at.end())[0]
    twice = f'{text[: at.start()]}"{key}":{json.dumps(value)},{text[at.start() :]}'
    if not outside:
        twice = json.dumps(header | {"__metadata__": {next(iter(header["__metadata__"])): twice}})
    return struct.pack("<Q", len(twice.encode())) + twice.encode() + data[8 + size :]


PROGRAM = to_bytes(single(np.ones((3, 4), int), v_bits=8, in_shift=0, decay=3, decay_shift=2, v_th=6, n_steps=4))
FILES: list[tuple[Callable[..., Any], Callable[..., Any], str]] = [
    (trained_competing, checkpoint.load, "n_steps"),
    (trained_layers, checkpoint.load_layers, "n_steps"),
    (trained_local, load_local, "n_classes"),
]


@pytest.mark.parametrize(
    ("key", "outside"),
    [("n_steps", False), ("ops", False), ("sha256", False), ("bits", False), ("__metadata__", True), ("qspinn", True)],
)
def test_programs(key: str, outside: bool) -> None:
    assert from_bytes(PROGRAM).n_steps == 4
    with pytest.raises(ArtifactError, match=f"not a .qspinn file; got '.*({key}: is given twice|duplicate field)"):
        from_bytes(doubled(PROGRAM, key, outside=outside))


@pytest.mark.parametrize(("make", "load", "key"), FILES, ids=["competing", "layers", "local"])
@pytest.mark.parametrize("outside", [False, True])
def test_checkpoints(
    make: Callable[..., Any], load: Callable[..., Any], key: str, outside: bool, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(make(), path)
    load(path)
    key = "__metadata__" if outside else key
    path.write_bytes(doubled(path.read_bytes(), key, outside=outside))
    with pytest.raises(ArtifactError, match=f"{key}: is given twice|duplicate field"):
        load(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        PROGRAM[:100],
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 19) + b'{"__metadata__": 3}',
    ],
    ids=range(7),
)
def test_entries_of_damaged_files(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        entry_of(data, "qspinn")

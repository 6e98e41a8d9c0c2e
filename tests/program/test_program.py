"""Programs as files: packed exactly, written canonically, and never read wrong."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from qspinn.errors import ArtifactError, ConfigError
from qspinn.files import write_atomic
from qspinn.fixedpoint import QFormat
from qspinn.program import FORMAT_VERSION, Note, Program, from_bytes, load, pack, save, to_bytes, unpack
from qspinn.program import file as program_file
from qspinn.program.flat import FlatLif, flat_of, from_flat
from qspinn.program.ops import VoteOp
from qspinn.program.parts import Threshold
from qspinn.records.record import to_plain
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.testing import random_case
from qspinn.testing.contract import check_equal
from qspinn.testing.layered import random_layered
from qspinn.testing.programs import single

FIRST = FlatLif.__struct_fields__[: FlatLif.__struct_fields__.index("store_fmt")]
"""Fields of a population in files of every version."""


@pytest.fixture(scope="module")
def small() -> bytes:
    """The bytes of a model of two neurons."""
    program = single([[1, 2], [3, 0]], w_bits=2, signed=True, v_reset=-1, v_min=-3, decay=3, decay_shift=2)
    return to_bytes(msgspec.structs.replace(program, labels=("a", "b"), provenance={"note": "é", "share": 0.5}))


@given(st.data())
def test_pack_and_unpack_are_inverse(data: st.DataObject) -> None:
    fmt = QFormat(bits=data.draw(st.integers(1, 31)), signed=data.draw(st.booleans()))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    size = math.prod(shape)
    code = st.sampled_from([-1, 1]) if fmt.binary else st.integers(fmt.code_min, fmt.code_max)
    codes = np.array(data.draw(st.lists(code, min_size=size, max_size=size)), dtype=np.int32).reshape(shape)
    stream = pack(codes, fmt)
    assert stream.size == -(-codes.size * fmt.bits // 8)
    back = unpack(stream, fmt, shape)
    np.testing.assert_array_equal(back, codes)
    assert back.dtype == np.int32


def test_binary_codes_take_one_bit_and_nothing_else_fits() -> None:
    fmt = QFormat(bits=1, signed=True)
    assert pack(np.array([1, -1, -1, 1, 1, 1, -1, -1, 1]), fmt).tolist() == [0b00111001, 1]
    with pytest.raises(ConfigError, match="do not fit a binary format"):
        pack(np.array([1, 0]), fmt)


def test_pack_by_hand() -> None:
    """Lowest bit first, without gaps: 3-bit codes 5, 2, 7 are 101 | 010 | 111 -> 0b11_010_101, 0b1."""
    assert pack(np.array([5, 2, 7]), QFormat(bits=3)).tolist() == [0b11010101, 0b1]
    assert pack(np.array([-1, -4, 3]), QFormat(bits=3, signed=True)).tolist() == [0b11100111, 0b0]


@pytest.mark.parametrize("seed", range(25))
def test_saved_and_loaded_programs_run_the_same(seed: int, tmp_path: Path) -> None:
    case = random_case(seed)
    back = load(save(case.program, tmp_path / "deep" / "model.qspinn"))
    assert to_bytes(back) == to_bytes(case.program)
    check_equal(
        numba_engine.run(back, case.spikes, record=True),
        numba_engine.run(case.program, case.spikes, record=True),
        case.name,
    )
    for name, tensor in case.program.tensors.items():
        assert back.tensors[name].fmt == tensor.fmt
        np.testing.assert_array_equal(back.tensors[name].codes, tensor.codes)


def test_bytes_are_canonical() -> None:
    program = random_case(4).program
    turned = msgspec.structs.replace(program, tensors=dict(reversed(program.tensors.items())))
    assert to_bytes(program) == to_bytes(turned)
    other = msgspec.structs.replace(program, seed=program.seed ^ 1)
    assert to_bytes(program) != to_bytes(other)


def test_the_file_is_hardly_larger_than_its_bits() -> None:
    program = single(np.ones((100, 784), int), w_bits=1)
    assert len(to_bytes(program)) < 784 * 100 / 8 + 4096


def outcome(data: bytes) -> Program | None:
    """The program that bytes are read as, None where they are refused as they should be."""
    try:
        return from_bytes(data, "file")
    except ArtifactError:
        return None


def test_every_truncation_is_refused(small: bytes) -> None:
    assert outcome(small) is not None
    accepted = [n for n in range(len(small)) if outcome(small[:n]) is not None]
    assert accepted == []
    assert outcome(small + b"\0") is None


@pytest.mark.slow
def test_every_flipped_byte_is_refused_or_harmless(small: bytes) -> None:
    changed = []
    for at in range(len(small)):
        for new in {small[at] ^ (1 << bit) for bit in range(8)} | set(b'IUF86310 "\\,{}[]\t\xff'):
            damaged = small[:at] + bytes([new]) + small[at + 1 :]
            program = outcome(damaged)
            if program is not None and to_bytes(program) != small:
                changed.append((at, small[at : at + 1], bytes([new])))
    assert changed == []


def test_random_bytes_are_refused(small: bytes) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 8, 9, 100, 2000):
        assert outcome(rng.bytes(size)) is None
    for _ in range(300):
        start, stop = sorted(rng.integers(0, len(small), 2))
        noise = small[:start] + rng.bytes(stop - start) + small[stop:]
        assert noise == small or outcome(noise) is None


def rewritten(small: bytes, change: dict) -> bytes:
    """The file with its header changed and its checksum made right again."""
    import hashlib
    import struct

    from safetensors.numpy import load as load_tensors

    streams = load_tensors(small)
    size = struct.unpack("<Q", small[:8])[0]
    entry = msgspec.json.decode(msgspec.json.decode(small[8 : 8 + size])["__metadata__"]["qspinn"])
    header = entry["header"] | change
    sha = hashlib.sha256(msgspec.json.encode(header, order="sorted"))
    for name, stream in sorted(streams.items()):
        sha.update(name.encode() + b"\0" + struct.pack("<Q", stream.size) + stream.tobytes())
    text = msgspec.json.encode({"header": header, "sha256": sha.hexdigest()}).decode()
    return save_tensors(streams, metadata={"qspinn": text})


def test_newer_versions_are_refused_by_name(small: bytes) -> None:
    assert to_bytes(from_bytes(rewritten(small, {}))) == small
    with pytest.raises(ArtifactError, match=f"newer version of qspinn; got {FORMAT_VERSION + 1}.*upgrade"):
        from_bytes(rewritten(small, {"format_version": FORMAT_VERSION + 1}))


def test_decays_that_differ_need_a_version_of_their_own() -> None:
    """Files without are written as before; those with name a version that readers from before refuse."""
    for decay, version in (([3], 1), ([3, 1, 2], 3)):
        program = single([[3, 5], [1, 2], [2, 2]], decay=decay, decay_shift=2)
        data = to_bytes(program)
        assert f'\\"format_version\\":{version}'.encode() in data
        again = from_bytes(data)
        assert (again.codes("p0.decay").tolist(), to_bytes(again)) == (decay, data)
        noted = msgspec.structs.replace(program, notes=(Note(path="p0.w", problem="clipped", count=1, total=2),))
        assert from_bytes(to_bytes(noted)).notes == noted.notes
    for older in (1, 2):
        with pytest.raises(ArtifactError, match=f"no version of qspinn writes; got {older}; .* between neurons from 3"):
            from_bytes(rewritten(data, {"format_version": older}))


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"n_steps": "many"},
        {"ops": [{"type": "unknown"}]},
        {"formats": {"p0.w": {"bits": 99, "frac": 0, "signed": False}}},
        {"formats": {"nowhere": {"bits": 3, "frac": 0, "signed": False}}, "shapes": {"nowhere": [2]}},
        {"shapes": {}},
        {"shapes": {"p0.w": [1000, 1000]}},
        {"shapes": {"p0.w": [-1, 2]}},
    ],
    ids=str,
)
def test_headers_that_lie_are_refused_although_their_checksum_is_right(small: bytes, change: dict) -> None:
    assert outcome(rewritten(small, change)) is None


def test_programs_whose_operations_do_not_fit_their_tensors_are_refused(small: bytes) -> None:
    """A file from a stranger with a right checksum must not make the compiled engine read beyond its arrays."""
    program = from_bytes(small)
    lif = program.ops[2]
    for ops in (
        (*program.ops[:2], msgspec.structs.replace(lif, threshold=Threshold(tensor="nowhere")), program.ops[3]),
        (*program.ops[:2], msgspec.structs.replace(lif, n=7), program.ops[3]),
        (*program.ops[:3], VoteOp(source="nobody", votes="readout.votes")),
    ):
        with pytest.raises(ConfigError, match="program: ops"):
            to_bytes(msgspec.structs.replace(program, ops=ops))
        assert outcome(rewritten(small, {"ops": to_plain([flat_of(op) for op in ops])})) is None


def test_foreign_safetensors_and_missing_files(tmp_path: Path) -> None:
    assert outcome(save_tensors({"x": np.zeros(3, np.float32)})) is None
    assert outcome(save_tensors({"x": np.zeros(3, np.float32)}, metadata={"qspinn": "[1]"})) is None
    assert outcome(save_tensors({}, metadata={"qspinn": '{"header": {"format_version": "1"}}'})) is None
    with pytest.raises(ArtifactError, match=r"none\.qspinn: cannot be read"):
        load(tmp_path / "none.qspinn")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(tmp_path)


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    program = single([[1]])
    blocker = tmp_path / "file"
    blocker.write_bytes(b"old")
    with pytest.raises(ArtifactError, match=r"cannot be written.*--out"):
        save(program, blocker / "model.qspinn")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="cannot be written"):
        save(program, tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert blocker.read_bytes() == b"old"


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.qspinn"
    save(single([[1]]), path)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        save(single([[2]]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_files_from_before_later_switches_load() -> None:
    """Switches of a population that a file does not speak of are at their defaults."""
    case = random_layered(11)
    flat = [flat_of(op) for op in case.program.ops]
    ops = [FlatLif(**{f: getattr(op, f) for f in FIRST}) if isinstance(op, FlatLif) else op for op in flat]
    old = msgspec.structs.replace(case.program, ops=tuple(map(from_flat, ops)))
    data = to_bytes(old)
    streams, entry = program_file._parse(data, "file")
    header = entry["header"]
    for op in header["ops"]:
        if op["type"] == "lif":
            for field in op.keys() - {*FIRST, "type"}:
                del op[field]
    text = msgspec.json.encode(header, order="sorted")
    stored = msgspec.json.encode({"header": header, "sha256": program_file._digest(text, streams)})
    again = from_bytes(save_tensors(streams, metadata={"qspinn": stored.decode()}))
    assert again.ops == old.ops
    assert len(text) < len(msgspec.json.encode(program_file._parse(data, "file")[1]["header"]))

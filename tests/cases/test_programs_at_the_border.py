"""Files that hold no program are refused in no time; results and inputs stay whole on their way to other processes."""

from __future__ import annotations

import json
import pickle
import struct
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

import qspinn
from qspinn.errors import ArtifactError, ConfigError
from qspinn.program import CodeTensor, check, file, from_bytes, to_bytes
from qspinn.runtime import run
from qspinn.spikes import from_dense
from qspinn.testing.layered import random_layered
from qspinn.testing.programs import constant, single


def with_shape(shape: list[int]) -> bytes:
    """A program's file in which a tensor has another shape, with its checksum."""
    data = to_bytes(single([[5, 7]], winner=False))
    (size,) = struct.unpack("<Q", data[:8])
    entry = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["qspinn"])
    streams = safetensors.numpy.load(data)
    entry["header"]["shapes"]["p0.w"] = shape
    header = msgspec.json.encode(entry["header"], order="sorted")
    entry["sha256"] = file.__dict__["_digest"](header, streams)
    return safetensors.numpy.save(streams, metadata={"qspinn": json.dumps(entry)})


@pytest.mark.parametrize("shape", [[2**62] * 300, [2**62] * 100_000, [2**62] * 4, [-1, 3], [1] * 5])
def test_shapes_that_no_array_has_are_refused_before_they_are_multiplied(shape: list[int]) -> None:
    data, start = with_shape(shape), time.perf_counter()
    with pytest.raises(ArtifactError, match="has a shape that no array has"):
        from_bytes(data)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_numbers_of_types_that_numpy_does_not_have_are_refused(kind: str, tmp_path: Path) -> None:
    size = 4 if kind == "BF16" else 2
    header = json.dumps({"w": {"dtype": kind, "shape": [2], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(ArtifactError, match=r"type that is not known|no entry 'qspinn'"):
        qspinn.load(path)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_results_can_be_sent_to_another_process(backend: str) -> None:
    case = random_layered(3)
    result = run(case.program, case.spikes, backend=backend)
    again = pickle.loads(pickle.dumps(result))
    assert (again.scores == result.scores).all()
    assert again.counts.keys() == result.counts.keys()
    for name, counts in result.counts.items():
        assert (again.counts[name] == counts).all()


def test_spikes_of_a_raster_cannot_be_written_to() -> None:
    spikes = from_dense(np.full((3, 1, 2), 2), graded=True)
    for array in (spikes.index, spikes.offsets, spikes.count):
        assert array is not None
        with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
            array.flags.writeable = True


def test_recording_may_be_told_by_a_truth_value_of_numpy() -> None:
    program, spikes = single([[5]], winner=False, n_steps=3), constant(1, 3)
    assert run(program, spikes, backend="reference", record=np.bool_(True)).v  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="record: is neither true nor false"):
        run(program, spikes, record="yes")  # type: ignore[arg-type]


def test_a_limit_beyond_64_bits_is_told_the_largest_one() -> None:
    with pytest.raises(ConfigError, match=rf"memory_limit: is out of range.*allowed: 1\.\.{2**63 - 1}"):
        run(single([[5]], winner=False, n_steps=3), constant(1, 3), memory_limit=2**70)


def test_a_tensor_whose_name_no_file_can_hold_is_refused_before_it_runs() -> None:
    program = single([[5]], winner=False, n_steps=3)
    extra: dict[str, CodeTensor] = {"\ud800": program.tensors["p0.w"]}
    with pytest.raises(ConfigError, match="tensors: have a name that no file can hold"):
        check(msgspec.structs.replace(program, tensors=program.tensors | extra))

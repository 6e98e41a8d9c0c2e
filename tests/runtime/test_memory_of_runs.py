"""A run takes no more memory than was checked before it, also where windows or sums are many times the neurons."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qspinn.errors import ConfigError
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.program import CodeTensor, Program
from qspinn.program.check import check, n_sums, n_windows, run_bytes
from qspinn.program.ops import ConvOp, EventsOp, LifOp, ReadOp
from qspinn.program.parts import InputShift, Leak, Reset, Threshold
from qspinn.runtime import run
from qspinn.spikes import from_dense
from qspinn.testing.programs import codes

MEASURED = """
import resource, sys
import numpy as np
sys.path.insert(0, {folder!r})
from qspinn.runtime import run
from qspinn.program.check import run_bytes
from qspinn.spikes import from_dense
from test_memory_of_runs import field

program = field({kernel}, {size}, {bits}, {n_convs}, {n_steps}, {n_out})
rng = np.random.default_rng(0)
spikes = from_dense((rng.random(({n_steps}, {n_samples}, program.n_inputs)) < 0.02).astype(np.uint8))
small = field(1, 2, {bits}, {n_convs}, 3, 1)
run(small, from_dense(np.ones((3, 1, 4), np.uint8)), backend={backend!r})  # libraries and compiled code
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
run(program, spikes, backend={backend!r})
print(peak() - before, run_bytes(program))
"""


def field(kernel: int, size: int, bits: int, n_convs: int, n_steps: int, n_out: int, *, same: bool = True) -> Program:
    """One map that several convolutions feed: as large as the input where n_out is 1, one neuron a map otherwise."""
    fmt, one = QFormat(bits=bits, signed=True), Rounding.NEAREST
    padding = (kernel // 2,) * 2 if n_out == 1 and same else (0, 0)
    rng = np.random.default_rng(1)
    w = {
        f"w{i}": CodeTensor(codes=rng.integers(fmt.code_min, fmt.code_max, (n_out, 1, kernel, kernel)), fmt=fmt)
        for i in range(n_convs)
    }
    shape = (1, size, size)
    after = size + 2 * padding[0] - kernel + 1
    return Program(
        name="field",
        n_inputs=size * size,
        n_steps=n_steps,
        seed=0,
        ops=(
            EventsOp(shape=shape, max_count=1),
            *(ConvOp(source="input", target="p", weight=name, shape=shape, padding=padding) for name in w),
            LifOp(
                name="p",
                n=n_out * after * after,
                v_fmt=QFormat(bits=30, signed=True),
                v_min=0,
                leak=Leak(decay="d", shift=0),
                input=InputShift(shift=0),
                threshold=Threshold(tensor="h"),
                reset=Reset(tensor="r"),
                rounding=one,
                n_ref=0,
                winner=False,
                stream=16,
            ),
            ReadOp(source="p"),
        ),
        tensors=w
        | {"d": codes(1, QFormat(bits=1)), "h": codes(1000, QFormat(bits=20)), "r": codes(0, QFormat(bits=1))},
    )


@pytest.mark.parametrize(
    ("backend", "kernel", "size", "bits", "n_convs", "n_steps", "n_out", "n_samples"),
    [
        pytest.param("torch", 21, 128, 18, 1, 16, 1, 1, marks=pytest.mark.soak),  # a product over windows in 64 bits
        ("torch", 21, 128, 4, 1, 3, 1, 1),  # in 32 bits, as there are few images
        ("torch", 21, 128, 4, 1, 40, 1, 1),  # by direct convolution, and windows for the rest
        pytest.param(
            "numba", 32, 32, 4, 2, 100, 128, 3, marks=pytest.mark.soak
        ),  # sums of two connections, margins many times the map
    ],
)
def test_a_run_takes_the_memory_that_was_checked(
    backend: str, kernel: int, size: int, bits: int, n_convs: int, n_steps: int, n_out: int, n_samples: int
) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    script = MEASURED.format(folder=str(Path(__file__).parent), **locals())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    taken, need = map(int, done.stdout.split())
    at_once = min(n_samples, os.cpu_count() or 1)  # a sample for each thread
    assert taken <= need * at_once + (100 << 20), f"{need / 1e6:.0f} MB checked, {taken / 1e6:.0f} MB taken"


def test_windows_and_sums_are_counted() -> None:
    wide, deep = field(21, 64, 18, 1, 4, 1), field(32, 32, 4, 2, 10, 16)
    (conv,), (lif,) = wide.ops_of(ConvOp), deep.ops_of(LifOp)
    assert n_windows(conv, wide.codes("w0").shape) == 64 * 64 * 21 * 21
    assert run_bytes(wide) > 12 * 64 * 64 * 21 * 21
    sums = n_sums(deep, lif, deep.ops_of(ConvOp))
    assert sums > 100 * lif.n
    assert run_bytes(deep) > 8 * 10 * sums
    assert n_sums(wide, wide.ops_of(LifOp)[0], [conv]) == 0
    with pytest.raises(ConfigError, match="more memory than is allowed"):
        check(wide, memory_limit=12 * 64 * 64 * 21 * 21)


def test_a_program_that_was_run_once_is_held_to_the_limit_again(monkeypatch: pytest.MonkeyPatch) -> None:
    program = field(3, 5, 4, 1, 3, 1)
    spikes = from_dense(np.ones((3, 1, 25), np.uint8))
    monkeypatch.setenv("QSPINN_MEMORY_LIMIT", "100")
    for _ in range(2):
        with pytest.raises(ConfigError, match="allowed: up to 100 bytes"):
            run(program, spikes, backend="reference")
        run(program, spikes, backend="reference", memory_limit=10**6)
    with pytest.raises(ConfigError, match="allowed: up to 200 bytes"):
        run(program, spikes, backend="reference", memory_limit=200)
    monkeypatch.setenv("QSPINN_MEMORY_LIMIT", "9" * 5000)
    with pytest.raises(ConfigError, match="up to 18 digits"):
        run(program, spikes, backend="reference")


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize(("bits", "n_steps"), [(18, 3), (18, 20), (4, 3), (4, 20)])
def test_convolutions_in_parts_equal_the_reference(
    backend: str, bits: int, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
        from qspinn.runtime.torch_engine import currents

        monkeypatch.setattr(currents, "room", lambda device: 1)  # one image at a time
    else:
        from qspinn.runtime.numba_engine import engine

        monkeypatch.setattr(engine, "SUMS", 1)  # one sample at a time
    program = field(5, 9, bits, 2, n_steps, 1)
    spikes = from_dense((np.random.default_rng(2).random((n_steps, 3, 81)) < 0.3).astype(np.uint8))
    got, wanted = (run(program, spikes, backend=name, record=True) for name in (backend, "reference"))
    assert (got.v["p"] == wanted.v["p"]).all()
    assert (got.spikes["p"] == wanted.spikes["p"]).all()

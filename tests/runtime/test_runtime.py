"""The engines against the contract, and the contract against broken engines."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qspinn import program, runtime
from qspinn.errors import ConfigError, DataError
from qspinn.fixedpoint import QFormat, Rounding, random_words, stream_key
from qspinn.program import Program
from qspinn.program.ops import AddOp, ConvOp, DenseOp, LifOp, PoolOp, ReadOp, VoteOp
from qspinn.runtime import reference, run
from qspinn.runtime.numba_engine import engine as numba_engine
from qspinn.runtime.numba_engine.engine import competing as _competing
from qspinn.runtime.numba_engine.kernels import bits as _bits_kernel
from qspinn.runtime.numba_engine.kernels import general as general_kernel
from qspinn.runtime.numba_engine.kernels import lanes as lanes_kernel
from qspinn.runtime.numba_engine.kernels import narrow as _kernels
from qspinn.runtime.numba_engine.layered import proof as proofs
from qspinn.runtime.torch_engine import currents, rounding, signals
from qspinn.runtime.torch_engine import engine as torch_engine
from qspinn.spikes import Spikes, from_dense
from qspinn.testing import BackendContract, BrokenBackend, Fault, adversarial, build, observed, random_case, recipes
from qspinn.testing.contract import check_equal
from qspinn.testing.layered import ALTERATIONS, FACTOR, altered, random_layered
from qspinn.testing.programs import Recipe, codes, constant, single
from qspinn.testing.vectors import lone
from samples import with_parts

USED: list[str] = []
"""Grows with every run of the bit-sliced kernel."""
FAULTS = [f for f in Fault if f is not Fault.NONE]


@pytest.fixture(autouse=True, scope="module")
def watch_bit_slices() -> Iterator[None]:
    """Notes in USED when the bit-sliced kernel is chosen."""
    chosen = _competing.packed_rows

    def noted(w: np.ndarray) -> tuple:
        USED.append("one_bit")
        return chosen(w)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_competing, "packed_rows", noted)
        yield


class TestNumba(BackendContract):
    backend = staticmethod(numba_engine.run)


class TestTorch(BackendContract):
    backend = staticmethod(torch_engine.run)
    n_random = 100

    @pytest.mark.soak
    def test_adversarial_layered_vectors(self) -> None:
        super().test_adversarial_layered_vectors()


@pytest.mark.cuda
class TestTorchOnCuda(BackendContract):
    backend = staticmethod(functools.partial(torch_engine.run, device="cuda"))
    n_random = 100


class TestReference(BackendContract):
    """Holds the reference against physics and itself."""

    backend = staticmethod(reference.run)
    n_random = 2

    @pytest.mark.soak
    def test_adversarial_layered_vectors(self) -> None:
        super().test_adversarial_layered_vectors()


class Small(BackendContract):
    n_random = 80
    layered = False


def failures(fault: Fault) -> list[str]:
    """The contract's tests that a broken backend fails."""
    contract = type("Contract", (Small,), {"backend": staticmethod(BrokenBackend(fault).run)})()
    failed = []
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)()
            except AssertionError:
                failed.append(name)
    return failed


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name.lower())
def test_contract_catches_a_broken_backend(fault: Fault) -> None:
    assert {"test_adversarial_vectors", "test_random_programs"} <= set(failures(fault))


@pytest.mark.parametrize("change", [*ALTERATIONS, FACTOR])
def test_contract_catches_a_wrong_engine_of_layers(change: str) -> None:
    wrong = {"backend": staticmethod(altered(change)), "layered": True, "n_random": 130}  # up to the first that differs
    contract = type("Contract", (Small,), wrong)()
    with pytest.raises(AssertionError):
        contract.test_random_layered_programs()


NEEDED = [
    (16, "potential"),
    (16, "reset"),
    (16, "threshold"),
    (16, "rest"),
    (16, "decay"),
    (16, "input"),
    (16, "current decay"),
    (16, "drive"),
    (32, "rest"),
    (32, "product"),
    (32, "sum"),
    (32, "current product"),
]


@pytest.mark.parametrize(("bits", "name"), NEEDED, ids=str)
@pytest.mark.soak
def test_vectors_need_every_condition_under_which_lanes_are_narrow(
    bits: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = proofs.proof

    def careless(program: Program, op: LifOp, drive: int, lane_bits: int) -> dict[str, bool]:
        return {k: yes or (k, lane_bits) == (name, bits) for k, yes in proof(program, op, drive, lane_bits).items()}

    monkeypatch.setattr(proofs, "proof", careless)
    with pytest.raises(AssertionError):
        TestNumba().test_adversarial_layered_vectors()


def test_random_layered_programs_are_lively_and_have_everything() -> None:
    cases = [random_layered(seed) for seed in range(160)]
    results = [reference.run(c.program, c.spikes, record=True) for c in cases]
    kinds = {type(op) for c in cases for op in c.program.ops}
    assert {ConvOp, DenseOp, AddOp, PoolOp, LifOp, ReadOp, VoteOp} <= kinds
    ops = [(op, r) for c, r in zip(cases, results, strict=True) for op in c.program.ops_of(LifOp)]
    assert np.mean([r.counts[op.name].any() for op, r in ops if op.spiking]) > 0.5
    for end in ("code_max", "code_min"):
        at_end = [(r.v[op.name] == max(getattr(op.v_fmt, end), op.v_min)).any() for op, r in ops if op.store is None]
        assert np.sum(at_end) > 5, "both ends of the potential are met"
    for low in (False, True):
        met = [
            (r.v[op.name] == (op.store.min if low else op.store.fmt.code_max) << op.store.dropped).any()
            for op, r in ops
            if op.store is not None
        ]
        assert np.sum(met) > 5, "both ends of what is kept are met"
    assert sum(t.fmt.binary for c in cases for t in c.program.tensors.values()) > 10
    feedback = [op for c in cases for op in c.program.ops_of(DenseOp) if op.source == op.target]
    assert len(feedback) > 10
    assert sum(c.spikes.count is not None for c in cases) > 10


def test_switches_by_hand() -> None:
    """No leak, an input of 10 in every step, a threshold of 10 at first."""
    always = from_dense(np.ones((8, 1, 1)))
    for settings, times, v, theta in (
        # v 10*; then 10 - 10 + 10 = 10* for ever
        ({"reset_delay": True, "reset": "subtract"}, [1] * 8, 10, None),
        # v 10*, then 0 + 10 - 10 at rest: 0; 10*, ...
        ({"reset_delay": True, "reset": "value", "n_ref": 1}, [1, 0] * 4, 0, None),
        # theta 0*, 4, 2*, 5 (half of 2, and 4), 2* (half of 5, truncated), 5, ...
        ({"theta_step": 4, "theta_decay": (1, 1), "reset": "value", "rounding": Rounding.TRUNCATE}, [1, 0] * 4, 10, 5),
        # v 10: three times 3 leaves 1; 11: three times 3 leaves 2; 12: four times 3 leaves 0, ...
        ({"v_th": 3, "max_spikes": 9, "reset": "subtract"}, [3, 3, 4, 3, 3, 4, 3, 3], 2, None),
        # at most twice: 10 - 6 = 4, 14 - 6 = 8, ...
        ({"v_th": 3, "max_spikes": 2, "reset": "subtract"}, [2] * 8, 32, None),
        # strictly, at 5: 10 passes 5 but not 10, which leaves 5; 15 passes 10 but not 15, which leaves 5, ...
        ({"v_th": 5, "max_spikes": 9, "strict": True, "reset": "subtract"}, [1, 2, 2, 2, 2, 2, 2, 2], 5, None),
    ):
        result = reference.run(lone([[10]], n_steps=8, **({"v_th": 10} | settings)), always, record=True)
        assert result.spikes["p"][:, 0, 0].tolist() == times, settings
        assert result.v["p"].tolist() == [[v]], settings
        assert {n: x.tolist() for n, x in result.theta.items()} == ({} if theta is None else {"p": [[theta]]}), settings


@pytest.mark.soak
def test_several_spikes_reach_every_kind_of_connection() -> None:
    """A population that spikes 3, 2, 3, ... times in a step feeds a matrix, a pool and itself; nothing is recorded."""
    first = lone([[10]], n_steps=8, v_th=3, max_spikes=9, reset="subtract", feedback=[[-1]])
    (last,) = first.ops_of(LifOp)
    tensors = first.tensors | {"q.w": codes([[2]], QFormat(bits=4))}
    pool = PoolOp(source="p", target="s", kind="sum", shape=(1, 1, 1), kernel=(1, 1), stride=(1, 1))
    ops = (
        *first.ops[:-1],
        pool,
        DenseOp(source="s", target="q", weight="q.w"),
        DenseOp(source="p", target="q", weight="q.w"),
        msgspec.structs.replace(last, name="q", stream=32),
        ReadOp(source="q"),
    )
    both = msgspec.structs.replace(first, ops=ops, tensors=tensors)
    spikes = from_dense(np.ones((8, 3, 1)))
    expected = reference.run(both, spikes)
    assert expected.counts["p"][0, 0] > 16
    for engine in (numba_engine.run, torch_engine.run):
        check_equal(engine(both, spikes), expected, "several")


def test_layered_programs_survive_their_file() -> None:
    for seed in range(40):
        case = random_layered(seed)
        again = program.from_bytes(program.to_bytes(case.program))
        assert again.ops == case.program.ops
        check_equal(reference.run(again, case.spikes), reference.run(case.program, case.spikes), case.name)


@pytest.mark.slow
def test_contract_passes_a_slow_but_right_backend() -> None:
    assert failures(Fault.NONE) == []


@given(recipes())
def test_numba_equals_reference(recipe: Recipe) -> None:
    case = build(recipe)
    check_equal(
        numba_engine.run(case.program, case.spikes, record=True),
        reference.run(case.program, case.spikes, record=True),
        case.name,
    )


def test_random_programs_are_lively_and_use_every_kernel() -> None:
    cases = [random_case(seed) for seed in range(80)]
    alive = [all(c.any() for c in reference.run(c.program, c.spikes).counts.values()) for c in cases]
    assert np.mean(alive) > 0.6
    assert {len(c.program.ops_of(LifOp)) for c in cases} == {1, 2, 3}
    everything = frozenset().union(*(observed(c.program, c.spikes) for c in cases))
    assert {
        "equal",
        "upper",
        "lower",
        "tie",
        "negative_tie",
        "negative_remainder",
        "crowd",
        "joint",
        "refractory_drive",
    } <= everything
    for case in [*cases, *adversarial()]:
        numba_engine.run(case.program, case.spikes)
    assert len(_kernels.narrow.signatures) >= 7, "row, sum and potential types of 16 and 32 bits"
    assert _kernels.in_bytes.signatures
    assert lanes_kernel.in_lanes.signatures
    assert general_kernel.in_general.signatures
    assert _bits_kernel.one_bit.signatures


@given(st.integers(0, 2**32 - 1))
def test_bit_slices_equal_the_reference(seed: int) -> None:
    """One-bit weights under every width, rounding, decay, reset, inhibition and number of inputs of their kernel."""
    rng = np.random.default_rng([seed, 9])
    n, n_inputs, v_bits, k = (int(rng.integers(a, b)) for a, b in ((1, 1100), (1, 200), (1, 17), (1, 17)))
    taken = rng.choice(k + 1, size=min(k, int(rng.integers(1, 5))), replace=False)
    rounding = [Rounding.TRUNCATE, Rounding.NEAREST, Rounding.TOWARD_ZERO][rng.integers(3)]
    top, density = (1 << v_bits) - 1, rng.random() ** 2
    program = single(
        rng.random((n, n_inputs)) < 0.5,
        w_bits=1,
        v_bits=v_bits,
        in_shift=-int(rng.integers(0, 9)),
        decay_shift=k,
        decay=max(0, (1 << k) - sum(1 << int(s) for s in taken)),
        rounding=rounding,
        n_ref=int(rng.integers(0, 4)),
        v_th=rng.integers(0, top + 3, n),
        v_reset=rng.integers(0, top + 1, n) if rng.random() < 0.5 else 0,
        inhibition=[None, int(rng.integers(0, top + 1)), 65535][rng.integers(3)],
        n_steps=12,
    )
    spikes = from_dense(rng.random((12, 2, n_inputs)) < density)
    before = len(USED)
    check_equal(numba_engine.run(program, spikes, record=True), reference.run(program, spikes, record=True), "bits")
    assert len(USED) == before + 1 or sum(1 << int(s) for s in taken) > 1 << k


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("in_shift", [15, 16, 17, 20, 23, 30])
def test_sums_shifted_further_than_lanes_multiply(rounding: Rounding, in_shift: int) -> None:
    """Potentials of few bits under wide weights: competing populations take every shift, `in_general` none."""
    rng = np.random.default_rng([in_shift, len(rounding.value)])
    program = single(
        rng.integers(0, 1 << 16, (40, 300)),
        w_bits=16,
        v_bits=max(2, 24 - in_shift),
        in_shift=in_shift,
        rounding=rounding,
        n_ref=1,
        v_th=rng.integers(1, 4 if in_shift > 21 else 60, 40),
        n_steps=20,
    )
    spikes = from_dense(rng.random((20, 3, 300)) < 0.4)
    expected = reference.run(program, spikes, record=True)
    check_equal(numba_engine.run(program, spikes, record=True), expected, rounding.value)
    assert expected.counts["p0"].any() or in_shift > 20
    (op,), feeds = program.ops_of(LifOp), list(program.ops_of(DenseOp))
    assert _competing.plan(program, op, feeds, {"input": spikes}, {}) is not None


def test_more_inputs_than_six_planes_count() -> None:
    for n_inputs in (24, 25, 63, 64, 127, 128, 300):
        program = single(np.ones((3, n_inputs)), w_bits=1, v_bits=12, v_th=[n_inputs * 3, 3000, 4000], n_ref=1)
        spikes = constant(n_inputs)
        check_equal(numba_engine.run(program, spikes, record=True), reference.run(program, spikes, record=True), "many")


@pytest.mark.parametrize("w_bits", [1, 8, 12])
def test_wide_populations_in_stretches_of_steps(w_bits: int) -> None:
    """Input sums are made for as many steps as fit into a buffer: here for a part of them."""
    rng = np.random.default_rng(w_bits)
    program = single(
        rng.integers(0, 1 << w_bits, (5000, 7)),
        w_bits=w_bits,
        v_bits=14,
        v_th=rng.integers(2, 9000, 5000),
        decay=15,
        decay_shift=4,
        n_ref=2,
        inhibition=40,
        n_steps=60,
    )
    spikes = from_dense(rng.random((60, 2, 7)) < 0.3)
    expected = reference.run(program, spikes, record=True)
    assert expected.counts["p0"].sum() > 20
    check_equal(numba_engine.run(program, spikes, record=True), expected, "wide")


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_threads_change_nothing(n_threads: int) -> None:
    case = random_case(6)
    check_equal(
        numba_engine.run(case.program, case.spikes, record=True, n_threads=n_threads),
        reference.run(case.program, case.spikes, record=True),
        "threads",
    )


def test_threads_keep_a_little_memory_from_run_to_run() -> None:
    with numba_engine._room() as room:
        room["a"] = np.zeros(4)
        with numba_engine._room() as other:  # of a run within the run
            assert other is not room
    with numba_engine._room() as again:
        assert again is room
        again["b"] = np.zeros(numba_engine.KEPT, np.uint8)
    with numba_engine._room() as new:
        assert "b" not in new


def test_states_start_fresh_for_every_sample() -> None:
    program = single([[5]], v_th=12, n_ref=3)
    for engine in (reference.run, numba_engine.run):
        result = engine(program, constant(1, n_samples=3), record=True)
        assert (result.spikes["p0"] == result.spikes["p0"][:, :1]).all()


def test_a_spike_reaches_the_next_population_in_the_same_step() -> None:
    case = build(Recipe(layers=Recipe().layers * 2))
    tensors = dict(case.program.tensors)
    for name in ("p0", "p1"):
        tensors[f"{name}.w"] = msgspec.structs.replace(
            tensors[f"{name}.w"], codes=np.ones_like(tensors[f"{name}.w"].codes)
        )
        tensors[f"{name}.v_th"] = msgspec.structs.replace(tensors[f"{name}.v_th"], codes=np.zeros(1, np.int32))
    program = msgspec.structs.replace(case.program, tensors=tensors)
    for engine in (reference.run, numba_engine.run):
        spikes = engine(program, from_dense(np.ones((1, 1, program.n_inputs))), record=True).spikes
        assert spikes["p0"][0].any()
        assert spikes["p1"][0].any()


def test_predictions_take_the_lowest_class_of_a_tie() -> None:
    program = single([[9], [9]], v_th=5, winner=False)
    result = run(program, constant(1, n_samples=1))
    assert result.scores[0, 0] == result.scores[0, 1] > 0
    assert result.predictions().tolist() == [0]


def test_wrong_input_width_and_backend_are_named() -> None:
    program = single([[1, 2]])
    with pytest.raises(DataError, match=r"spikes\.n: .*got 3; allowed: 2"):
        run(program, constant(3))
    with pytest.raises(ConfigError, match="numba, reference"):
        run(program, constant(2), backend="cuda")


@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
@pytest.mark.parametrize("shape", [(4, 2, 2), (6, 2, 2), (2, 5, 2)], ids=["fewer", "more", "samples first"])
def test_spikes_of_another_number_of_steps_are_refused(shape: tuple[int, int, int], backend: str) -> None:
    """Reported: they ran for as many steps as they had. Right: the program says how many steps a sample has."""
    program = single([[1, 2]], winner=False, n_steps=5)
    with pytest.raises(DataError, match=rf"spikes\..*got {shape[0]}; allowed: 5"):
        run(program, from_dense(np.ones(shape)), backend=backend)
    assert run(program, from_dense(np.ones((5, 2, 2))), backend=backend).scores.shape[0] == 2


def with_codes(program: program.Program, **tensors: np.ndarray) -> program.Program:
    """The program with other codes in some tensors, __ for the dot in a name; as wide as they need."""
    new = {name.replace("__", "."): codes(x, QFormat(bits=32, signed=True)) for name, x in tensors.items()}
    return msgspec.structs.replace(program, tensors=program.tensors | new)


def hold_torch(program: program.Program, spikes: Spikes, name: str) -> None:
    check_equal(torch_engine.run(program, spikes, record=True), reference.run(program, spikes, record=True), name)


@pytest.mark.parametrize(
    ("n_inputs", "bits", "kinds"),
    [(100, 8, [torch.float32]), (100, 16, [torch.float64]), (20_000, 32, [torch.float64, torch.float64])],
    ids=str,
)
def test_torch_products_are_exact_at_every_width(n_inputs: int, bits: int, kinds: list[torch.dtype]) -> None:
    """Sums at the upper and the lower end of what the codes allow, told apart by their last bits."""
    top = (1 << bits - 1) - 1
    w = np.array([[top] * n_inputs, [-top - 1] * n_inputs, [top] * (n_inputs - 1) + [top - 1]])
    assert [d.dtype for d, _ in currents._digits(w.T, 255, torch.device("cpu"))] == kinds
    base = single(np.ones((3, n_inputs)), v_bits=32, signed=True, v_min=-(1 << 31), v_th=1 << 16, winner=False)
    wide = with_codes(base, p0__w=w, p0__v_reset=np.zeros(1))
    spikes = from_dense(np.full((2, 3, n_inputs), 255), graded=True)
    for in_shift in (0, 24, 28):
        hold_torch(with_parts(wide, input={"shift": in_shift}), spikes, f"shifted by {in_shift}")


def test_torch_uses_float32_only_where_torch_was_not_told_to_use_fewer_bits() -> None:
    (plain,) = currents._digits(np.ones((4, 1), np.int64), 1, torch.device("cpu"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    (careful,) = currents._digits(np.ones((4, 1), np.int64), 1, torch.device("cpu"))
    torch.set_float32_matmul_precision(before)
    assert (plain[0].dtype, careful[0].dtype) == (torch.float32, torch.float64)


def test_torch_computes_exactly_where_it_was_told_to_compute_in_few_bits() -> None:
    """257 has no bfloat16."""
    ones = single(np.ones((1, 257), int), v_th=300, v_bits=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hold_torch(ones, from_dense(np.ones((3, 2, 257))), "autocast")


@pytest.mark.parametrize("direct", [True, False])
def test_torch_convolves_in_both_ways(direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(currents, "_direct", lambda device: direct)
    for seed in range(40):
        case = random_layered(seed)
        many = from_dense(np.repeat(case.spikes.dense(), 16, axis=1), graded=True)
        hold_torch(case.program, many, case.name)


def test_torch_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [random_layered(seed) for seed in range(30)]
    monkeypatch.setattr(signals, "ROOM", 1)
    for case in cases:
        assert torch_engine._block(case.program, case.spikes.n_steps, torch.device("cpu")) == 1
        hold_torch(case.program, case.spikes, case.name)


def test_torch_takes_64_bits_where_32_may_not_do() -> None:
    """Refractory potentials that grow from step to step, by others that excite or by a decay above one; a product with
    the decay after a high reset; an input current of many counts."""
    settings = {"signed": True, "v_bits": 30, "v_th": 5, "n_ref": 14}
    excited = with_codes(single(np.full((6, 1), 9), inhibition=1, **settings), p0__inhibition=[-(1 << 29)])
    doubled = with_codes(single([[9]], **settings), p0__decay=[2], p0__v_reset=[1 << 20])
    for case, n_steps in ((excited, 8), (doubled, 14)):
        spikes = constant(1, n_steps)
        assert reference.run(case, spikes, record=True).v["p0"].max() > 1 << 31
        hold_torch(case, spikes, "beyond 31 bits")
    reset = single([[9]], signed=True, v_th=5, n_ref=14, decay=15, decay_shift=4)
    hold_torch(with_codes(reset, p0__v_reset=[1 << 29]), constant(1), "high reset")
    counts = from_dense(np.full((3, 2, 300), 255), graded=True)
    hold_torch(single(np.full((1, 300), 1 << 15), w_bits=16, in_shift=20, v_bits=14, v_th=9000), counts, "many counts")


def test_torch_draws_the_words_of_the_hash() -> None:
    words = rounding.words_of(0xDEADBEEF, 35, 7, 3000, torch.device("cpu")).numpy()
    for t in range(7):
        assert np.array_equal(words[t, 0], random_words(stream_key(0xDEADBEEF, 35, t), np.arange(3000)))


def test_samples_that_do_not_lie_in_order_are_refused() -> None:
    """Every engine takes the entries from the first sample's first to the last one's last as those of all samples."""
    spikes = random_layered(2).spikes
    assert spikes.n_samples > 1
    with pytest.raises(DataError, match=r"spikes\.offsets: rows do not follow each other"):
        msgspec.structs.replace(spikes, offsets=spikes.offsets[::-1].copy())


def test_devices_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    program, spikes = single([[1, 2]]), constant(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for backend, device, message in (
        ("torch", "cuda", r"torch finds no CUDA device; got 'cuda'; allowed: cpu; fix: install a CUDA build"),
        ("torch", "gpu", r"unknown device; got 'gpu'; allowed: cpu, cuda"),
        ("torch", "cpu:1", r"processors have no number; got 'cpu:1'"),
        ("torch", "meta", r"not known there; got 'meta'; allowed: cpu, cuda"),
        ("numba", "cuda", r"the numba backend runs on the CPU only; got 'cuda'; .* choose the torch backend"),
        ("reference", "cuda:0", r"the reference backend runs on the CPU only"),
        ("nonsense", "cuda", r"unknown backend; got 'nonsense'; allowed: numba, reference, torch"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(program, spikes, backend=backend, device=device)


def test_cuda_numbers_that_do_not_exist_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"no CUDA device of this number; got 'cuda:2'; allowed: 0\.\.1"):
        torch_engine.device_of("cuda:2")
    assert torch_engine.device_of("cuda:1").index == 1


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "qspinn.runtime.torch_engine.engine")
    monkeypatch.delattr(runtime, "torch_engine")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"needs torch, which is not installed; fix: pip install qspinn\[torch\]"):
        run(single([[1, 2]]), constant(2), backend="torch")
    assert run(single([[1, 2]]), constant(2)).counts["p0"].shape == (2, 1)

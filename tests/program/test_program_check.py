"""Programs are checked once, alike for engines, saving and loading; a refusal names the place and what is allowed."""

from __future__ import annotations

import copy
import hashlib
import math
import pickle
import re
import struct
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from qspinn.data import Split
from qspinn.errors import ArtifactError, ConfigError, DataError, QSpinnError
from qspinn.fixedpoint import QFormat
from qspinn.program import CodeTensor, Note, Program, check, from_bytes, load, pack, save, to_bytes
from qspinn.program.flat import FILE_NAMES, FlatLif, flat_of, from_flat
from qspinn.program.ops import AddOp, ConvOp, DenseOp, EventsOp, LifOp, PoissonOp, PoolOp, ReadOp, SelectOp, VoteOp
from qspinn.program.parts import Offset
from qspinn.records.record import canonical_json, to_plain
from qspinn.runtime import run
from qspinn.spikes import from_dense
from qspinn.testing.programs import constant, single
from qspinn.workflow.verbs import evaluate

ENGINES = ("reference", "numba", "torch")
replace = msgspec.structs.replace
U8, S8 = QFormat(bits=8), QFormat(bits=8, signed=True)


def tensor(codes: Any, fmt: QFormat = U8) -> CodeTensor:
    return CodeTensor(codes=np.array(codes), fmt=fmt)


def plain() -> Program:
    """Two inputs, one neuron without leak, threshold 10."""
    return single([[5, 7]], v_th=10, winner=False, n_steps=3)


def lif(**changes: Any) -> Callable[[Program], Program]:
    """A change of the population, whose fields have the names that they have in files."""

    def change(p: Program) -> Program:
        flat = [flat_of(op) for op in p.ops]
        changed = [replace(op, **changes) if isinstance(op, FlatLif) else op for op in flat]
        return replace(p, ops=tuple(map(from_flat, changed)))

    return change


def in_python(words: str) -> str:
    """A pattern for a message about a file as one for a program in memory, whose populations have parts."""
    paths = {name: path for path, name in FILE_NAMES.items()}
    return re.sub(r"\b(\w+): ", lambda found: f"{re.escape(paths.get(found[1], found[1]))}: ", words)


def with_tensor(path: str, codes: Any, fmt: QFormat = U8, **changes: Any) -> Callable[[Program], Program]:
    return lambda p: lif(**changes)(replace(p, tensors=p.tensors | {path: tensor(codes, fmt)}))


def with_ops(*ops: Any, **more: CodeTensor) -> Callable[[Program], Program]:
    """These operations in front of the population's."""
    tensors = {path.replace("__", "."): x for path, x in more.items()}
    return lambda p: replace(p, ops=(p.ops[0], *ops, *p.ops[1:]), tensors=p.tensors | tensors)


def without(kind: type) -> Callable[[Program], Program]:
    return lambda p: replace(p, ops=tuple(op for op in p.ops if not isinstance(op, kind)))


def exchanged(kind: type, **changes: Any) -> Callable[[Program], Program]:
    return lambda p: replace(p, ops=tuple(replace(op, **changes) if isinstance(op, kind) else op for op in p.ops))


def many_votes(p: Program, votes: int) -> Program:
    """1024 neurons that spike up to 255 times in each of 2**15 steps."""
    fmt, n = QFormat(bits=31), 1024
    p = lif(n=n, reset="subtract", max_spikes=255)(with_tensor("p0.w", np.ones((n, 2), int))(p))
    return replace(p, n_steps=1 << 15, tensors=p.tensors | {"readout.votes": tensor(np.full((n, 1), votes), fmt)})


def pool(**k: Any) -> PoolOp:
    return PoolOp(
        **(
            {"source": "input", "target": "q", "kind": "sum", "shape": (2, 1, 1), "kernel": (1, 1), "stride": (1, 1)}
            | k
        )
    )


def conv(**k: Any) -> ConvOp:
    return ConvOp(**({"source": "input", "target": "p0", "weight": "k", "shape": (2, 1, 1)} | k))


KERNEL = tensor(np.ones((1, 2, 1, 1), int))
THETA = {"theta_step": "s", "theta_decay": "d", "theta_fmt": QFormat(bits=8)}
REFUSED: dict[str, tuple[Callable[[Program], Program], str]] = {
    "no steps": (lambda p: replace(p, n_steps=0), "n_steps: is out of range"),
    "too many steps": (lambda p: replace(p, n_steps=1 << 16), "n_steps: is out of range"),
    "no inputs": (lambda p: replace(p, n_inputs=0), "n_inputs: is out of range"),
    "seed below 0": (lambda p: replace(p, seed=-1), "seed: is out of range"),
    "seed too large": (lambda p: replace(p, seed=1 << 32), "seed: is out of range"),
    "code too large": (with_tensor("p0.w", [[5, 300]]), r"p0\.w\[0, 1\]: holds a code outside.*got 300; .*0\.\.255"),
    "code too small": (with_tensor("p0.w", [[-5, 3]]), r"p0\.w\[0, 0\]: holds a code outside.*got -5"),
    "no binary code": (with_tensor("p0.w", [[1, 0]], QFormat(bits=1, signed=True)), r"got 0; allowed: -1 and \+1"),
    "unsigned 32 bits": (with_tensor("p0.w", [[1, 2]], QFormat(bits=32)), "do not fit 32 bits with a sign"),
    "no read-out": (without(VoteOp), "needs exactly one read-out; got 0"),
    "two read-outs": (lambda p: replace(p, ops=(*p.ops, p.ops[-1])), "exactly one read-out; got 2"),
    "two inputs": (with_ops(EventsOp(shape=(2, 1, 1))), "more than one input"),
    "no probability": (exchanged(PoissonOp, per_level=0), "per_level: is out of range"),
    "probability above 1": (exchanged(PoissonOp, per_level=1 << 25), "per_level: is out of range"),
    "no population": (without(LifOp), "target: is no population that still has to run"),
    "nothing feeds it": (without(DenseOp), "name: is a population that nothing before it feeds"),
    "only itself feeds it": (exchanged(DenseOp, source="p0"), r"nothing before it feeds|wrong shape"),
    "unknown source": (exchanged(DenseOp, source="q"), r"ops\[1\] \(dense p0\)\.source: is no signal"),
    "unknown weights": (exchanged(DenseOp, weight="q"), r"weight: names no tensor"),
    "weights misshapen": (with_tensor("p0.w", [[1, 2, 3]]), "weight: tensor 'p0.w' has the wrong shape"),
    "weights without columns": (with_tensor("p0.w", [1, 2]), "weight: tensor 'p0.w' has the wrong shape"),
    "shift of the weights": (exchanged(DenseOp, shift=40), r"shift: is out of range; got 40; allowed: 0\.\.31"),
    "negative shift": (exchanged(DenseOp, shift=-1), "shift: is out of range"),
    "unknown votes": (exchanged(VoteOp, votes="q"), "votes: names no tensor"),
    "votes misshapen": (with_tensor("readout.votes", [1, 0]), "votes: tensor 'readout.votes' has the wrong shape"),
    "unknown read-out": (exchanged(VoteOp, source="q"), "source: is no population that runs before"),
    "input read out": (exchanged(VoteOp, source="input"), "source: is no population that runs before"),
    "n_ref -1": (lif(n_ref=-1), "n_ref: is out of range"),
    "n_ref too long": (lif(n_ref=1 << 16), "n_ref: is out of range"),
    "no spikes at most": (
        lif(max_spikes=0, reset="subtract"),
        r"max_spikes: is out of range; got 0; allowed: 1\.\.255",
    ),
    "several spikes and a reset to a value": (lif(max_spikes=2), "several spikes a step need a reset by subtraction"),
    "several spikes and a winner": (lif(max_spikes=2, reset="subtract", winner=True), "no competition"),
    "stream": (lif(stream=-1), "stream: is out of range"),
    "n": (lif(n=0), r"ops\[\d\].*(n: is out of range|wrong shape)"),
    "another n": (lif(n=3), "has the wrong shape"),
    "v_min above 0": (lif(v_min=1), "v_min: is out of range"),
    "v_min below the format": (lif(v_min=-1), "v_min: is out of range"),
    "v_min of 2**31": (lif(v_min=-(1 << 31)), "v_min: is out of range"),
    "in_shift": (lif(in_shift=32), "in_shift: is out of range"),
    "decay_shift": (lif(decay_shift=40), "decay_shift: is out of range"),
    "v_th_shift": (lif(v_th_shift=1 << 31), "v_th_shift: is out of range"),
    "theta_shift": (with_tensor("t", [1], theta="t", theta_shift=40), "theta_shift: is out of range"),
    "inhibition_shift": (with_tensor("t", [1], inhibition="t", inhibition_shift=64), "inhibition_shift: is out of"),
    "bias_shift": (with_tensor("t", [1], bias="t", bias_shift=-1), "bias_shift: is out of range"),
    "no threshold": (lif(v_th="nowhere"), "v_th: names no tensor of this program; got 'nowhere'"),
    "threshold without a name": (lif(v_th=""), "v_th: names no tensor"),
    "decays of another number": (
        with_tensor("p0.decay", [1] * 7),
        "decay: tensor 'p0.decay' does not give one value to each neuron",
    ),
    "a matrix of decays": (with_tensor("p0.decay", [[1]]), "does not give one value to each neuron"),
    "a neuron whose potential grows": (
        lambda p: with_tensor("p0.decay", [1, 3], decay_shift=1)(single([[5, 7]] * 2, n_steps=3)),
        r"is no factor of 0\.\.1; got '3 / 2\*\*1'",
    ),
    "a decay that grows": (with_tensor("p0.decay", [3], decay_shift=1), r"is no factor of 0\.\.1; got '3 / 2\*\*1'"),
    "a signed decay": (with_tensor("p0.decay", [-1], S8), r"decay: tensor 'p0.decay' is no factor"),
    "more labels than classes": (lambda p: replace(p, labels=("a", "b", "c")), "labels: do not name each class once"),
    "a label twice": (lambda p: replace(p, labels=("a", "a")), "labels: do not name .*up to 2 names, all different"),
    "threshold 0": (with_tensor("p0.v_th", [0]), "would spike without any input; got 0.*threshold of 1 at least"),
    "negative threshold": (with_tensor("p0.v_th", [-1], S8, strict=True), "would spike without any input"),
    "threshold out of reach": (
        with_tensor("p0.v_th", [300], QFormat(bits=9)),
        "no neuron can ever reach its threshold",
    ),
    "strict at the top": (with_tensor("p0.v_th", [255], strict=True), "can ever reach its threshold; .*at most 254"),
    "thresholds of another number": (with_tensor("p0.v_th", [9, 9]), "does not give one value to each neuron"),
    "no thresholds": (with_tensor("p0.v_th", np.zeros(0, int)), "does not give one value to each neuron"),
    "reset out of range": (with_tensor("p0.v_reset", [-1], S8), "resets out of the range of potentials"),
    "negative inhibition": (with_tensor("i", [-1], S8, inhibition="i"), "inhibition: .*has no meaning there"),
    "negative theta": (with_tensor("t", [-1], S8, theta="t"), "theta: .*has no meaning there"),
    "shifts of channels": (with_tensor("s", [40], in_shifts="s"), r"in_shifts: .*\(40, 40\); allowed: -31\.\.31"),
    "binary potentials": (lif(v_fmt=QFormat(bits=1, signed=True)), "v_fmt: holds no potentials"),
    "32-bit potentials": (lif(v_fmt=QFormat(bits=32, signed=True)), "v_fmt: holds no potentials"),
    "binary current": (
        with_tensor("i", [1], current="i", current_shift=1, current_fmt=QFormat(bits=1, signed=True)),
        "holds no synaptic currents",
    ),
    "unsigned current": (with_tensor("i", [1], current="i", current_shift=1, current_fmt=U8), "no synaptic currents"),
    "a signed adaptation": (
        lambda p: with_tensor("s", [1], **(THETA | {"theta_fmt": S8}))(with_tensor("d", [1])(p)),
        "theta_fmt: holds no adaptive thresholds",
    ),
    "an unsigned store": (lif(store_fmt=U8), "store_fmt: is no signed part"),
    "a store of fractions": (lif(store_fmt=QFormat(bits=8, frac=1, signed=True)), "store_fmt: is no signed part"),
    "threshold overflows": (with_tensor("p0.v_th", [200], v_th_shift=31), "no neuron can|may overflow 32 bits"),
    "input overflows": (exchanged(DenseOp, shift=29), "accumulator of the input current may overflow 32 bits"),
    "bias overflows": (
        with_tensor("b", [127], S8, bias="b", bias_shift=28),
        "accumulator of the input current may overflow",
    ),
    "inhibition overflows": (
        with_tensor("i", [255], inhibition="i", inhibition_shift=30),
        "the inhibition may overflow",
    ),
    "decay overflows": (
        with_tensor("p0.decay", [1 << 30], QFormat(bits=31), decay_shift=31),
        r"decay \* v may overflow",
    ),
    "a tensor without a name": (with_tensor("", [1], decay=""), "tensors: have a name that stands for something else"),
    "a tensor of five axes": (with_tensor("x", np.ones((1,) * 5, int)), "x: has too many axes|shape that no array has"),
    "a tensor named as the header": (with_tensor("__metadata__", [1]), "stands for something else; got '__metadata__'"),
    "a store that rounds beyond 31 bits": (
        with_tensor(
            "m",
            [32767],
            QFormat(bits=15),
            decay="m",
            decay_shift=15,
            v_fmt=QFormat(bits=16, signed=True),
            v_min=-1,
            store_fmt=QFormat(bits=2, frac=-30, signed=True),
            store_min=-1,
        ),
        "may overflow 32 bits",
    ),
    "votes overflow": (lambda p: many_votes(p, (1 << 31) - 1), r"votes: the scores may overflow 64 bits; .*below 9223"),
    "unknown selection": (with_ops(SelectOp(source="x", target="k", kept="k")), "source: is no signal"),
    "selection of nothing": (
        with_ops(SelectOp(source="input", target="k", kept="k"), k=tensor([0, 0])),
        "selects nothing",
    ),
    "selection of twos": (
        with_ops(SelectOp(source="input", target="k", kept="k"), k=tensor([2, 1])),
        "selects nothing",
    ),
    "selection misshapen": (with_ops(SelectOp(source="input", target="k", kept="k"), k=tensor([1])), "wrong shape"),
    "selection twice": (
        with_ops(
            SelectOp(source="input", target="k", kept="k"), SelectOp(source="k", target="m", kept="k"), k=tensor([1, 1])
        ),
        "is a selection already",
    ),
    "a name twice": (with_ops(pool(target="input")), "is the name of another signal"),
    "a population's name": (with_ops(pool(target="p0")), "is the name of another signal"),
    "no name": (with_ops(pool(target="a b")), "is no name"),
    "pool misshapen": (with_ops(pool(shape=(3, 1, 1))), "does not have as many places"),
    "pool kernel": (with_ops(pool(kernel=(0, 1))), "kernel: is out of range"),
    "pool stride": (with_ops(pool(stride=(1 << 31, 1))), "stride: is out of range"),
    "pool too wide": (with_ops(pool(kernel=(2, 1))), "kernel: does not fit into the signal"),
    "kernel misshapen": (with_ops(conv(), k=tensor([1, 2])), "is no kernel"),
    "kernel of other channels": (with_ops(conv(groups=2), k=KERNEL), "groups: do not divide"),
    "convolution's stride": (with_ops(conv(stride=(1 << 31, 1)), k=KERNEL), "stride: is out of range"),
    "negative padding": (with_ops(conv(padding=(-1, 0)), k=KERNEL), "padding: is out of range"),
    "convolution to another size": (with_ops(conv(padding=(1, 0)), k=KERNEL), "does not convolve to p0"),
    "residual of another size": (
        with_ops(AddOp(source="input", target="p0", weight="k"), k=tensor([1])),
        "another size",
    ),
    "too many neurons": (lambda p: replace(p, n_inputs=1 << 32), "n_inputs: is out of range"),
}
HALVES: dict[str, tuple[dict[str, Any], str]] = {
    "a current's shift without a current": ({"current_shift": 3}, "current_shift: belongs to a part that is not there"),
    "a bias's shift without a bias": (
        {"bias_shift": 3},
        "bias_shift: belongs to a part that is not there; got 3; allowed: 0; fix: add bias, or",
    ),
    "theta's shift without theta": (
        {"theta_shift": 3},
        "theta_shift: belongs .*; fix: add theta or theta_fmt and theta_step and theta_decay, or leave it out",
    ),
    "inhibition's shift without one": ({"inhibition_shift": 3}, "inhibition_shift: belongs to a part that is not"),
    "current without a format": ({"current": "i"}, "current_fmt: is missing beside current; .*all of them, or none"),
    "format without a current": ({"current_fmt": to_plain(S8)}, "current: is missing beside current_fmt"),
    "half an adaptation": ({"theta_fmt": to_plain(U8)}, "theta_step: is missing beside theta_fmt"),
    "most of an adaptation": ({"theta_fmt": to_plain(U8), "theta_step": "s"}, "theta_decay: is missing beside theta_f"),
    "both kinds of theta": (
        {"theta": "t", "theta_fmt": to_plain(U8), "theta_step": "s", "theta_decay": "d"},
        "theta_fmt: stands beside another kind of theta",
    ),
    "a bound without a store": ({"store_min": -1}, "store_min: belongs to a part that is not there; .*add store_fmt"),
}
"""Populations that only files can describe: the fields that differ, and what is said about them."""
EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no places": ({"shape": (0, 1, 1)}, "does not have as many places"),
    "other places": ({"shape": (3, 1, 1)}, "does not have as many places"),
    "negative places": ({"shape": (-2, -1, 1)}, "does not have as many places"),
    "no counts": ({"max_count": 0}, "max_count: is out of range"),
    "negative counts": ({"max_count": -1}, "max_count: is out of range"),
    "counts over 255": ({"max_count": 256}, r"max_count: is out of range; got 256; allowed: 1\.\.255"),
}


def file_of(program: Program) -> bytes:
    """The file of a program as a stranger would write it: nothing checked, its checksum right."""
    streams, formats = {}, {}
    for path, x in sorted(program.tensors.items()):
        bits = (x.codes.ravel().astype(np.int64)[:, None] >> np.arange(x.fmt.bits)) & 1
        streams[path], formats[path] = np.packbits(bits.astype(np.uint8).ravel(), bitorder="little"), x.fmt
    fields = ("name", "n_inputs", "n_steps", "seed", "labels", "provenance")
    header = {
        **{k: getattr(program, k) for k in fields},
        "ops": tuple(map(flat_of, program.ops)),
        "formats": formats,
        "shapes": {n: x.codes.shape for n, x in program.tensors.items()},
        "format_version": 1,
    }
    return signed(to_plain(header), streams)


def signed(header: dict, streams: dict[str, np.ndarray], text: bytes | None = None) -> bytes:
    """The bytes of a file with this header, its checksum made right."""
    text = canonical_json(header) if text is None else text
    sha = hashlib.sha256(text)
    for name, stream in sorted(streams.items()):
        sha.update(name.encode() + b"\0" + struct.pack("<Q", stream.size) + stream.tobytes())
    entry = b'{"header":' + text + b',"sha256":"' + sha.hexdigest().encode() + b'"}'
    return save_tensors(streams, metadata={"qspinn": entry.decode()})


def header_of(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    size = struct.unpack("<Q", data[:8])[0]
    return (
        msgspec.json.decode(msgspec.json.decode(data[8 : 8 + size])["__metadata__"]["qspinn"])["header"],
        load_tensors(data),
    )


def refused_everywhere(program: Program, words: str, *, in_file: bool = True) -> None:
    for engine in ENGINES:
        with pytest.raises(ConfigError, match=in_python(words)):
            run(program, constant(2, 3), backend=engine)
    with pytest.raises(ConfigError, match=in_python(words)):
        to_bytes(program)
    if in_file:
        with pytest.raises(ArtifactError, match=words):
            from_bytes(file_of(program), "a file")


@pytest.mark.parametrize("name", REFUSED)
def test_what_engines_would_read_differently_is_refused(name: str) -> None:
    """Before any engine runs it, before it is saved, and from a file that a stranger wrote and signed."""
    change, words = REFUSED[name]
    in_file = name not in (
        "code too large",
        "code too small",
        "no binary code",
        "unsigned 32 bits",
        "a tensor named as the header",
    )
    refused_everywhere(change(plain()), words, in_file=in_file)


@pytest.mark.parametrize("name", HALVES)
def test_halves_of_parts_are_refused(name: str) -> None:
    """What `LifOp` cannot even say, files can."""
    changes, words = HALVES[name]
    header, streams = header_of(file_of(plain()))
    header["ops"][2] |= changes
    with pytest.raises(ArtifactError, match=rf"^a file: header is not valid \(a file\.ops\[2\]\.{words}"):
        from_bytes(signed(header, streams), "a file")


@pytest.mark.parametrize("name", EVENTS)
def test_inputs_that_no_engine_could_take_are_refused(name: str) -> None:
    changes, words = EVENTS[name]
    events = EventsOp(**({"shape": (2, 1, 1)} | changes))
    refused_everywhere(replace(plain(), ops=(events, *plain().ops[1:])), words)


def test_what_just_fits_64_bits_and_stores_within_31_are_taken() -> None:
    check(many_votes(plain(), ((1 << 63) - 1) // (1024 * 255 << 15)))
    wide = QFormat(bits=30, signed=True)  # rounds potentials of 8 bits to multiples of 4, whatever else it could hold
    check(
        lif(v_fmt=S8, store_fmt=QFormat(bits=30, frac=-2, signed=True), store_min=wide.code_min)(
            with_tensor("p0.v_reset", [0], S8)(plain())
        )
    )


def test_the_stranger_of_these_tests_writes_files_that_are_read() -> None:
    assert to_bytes(from_bytes(file_of(plain()))) == to_bytes(plain())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("what", "words"),
    [(None, "program: is of the wrong type"), ({"ops": ()}, "program: is of the wrong type"), (b"", "program")],
)
def test_what_is_no_program_is_refused(engine: str, what: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(what, constant(2, 3), backend=engine)
    with pytest.raises(ConfigError, match=words):
        to_bytes(what)


@pytest.mark.parametrize(
    "settings",
    [
        {"record": "no"},
        {"record": 1},
        {"backend": None},
        {"backend": "nunba"},
        {"device": None},
        {"device": b"cpu"},
        {"device": np.array(["cpu", "cuda"])},
        {"backend": np.array(["numba", "torch"])},
        {"memory_limit": 0},
        {"memory_limit": "9"},
        {"memory_limit": float("nan")},
        {"memory_limit": 1e9},
        {"memory_limit": True},
    ],
    ids=str,
)
def test_words_and_numbers_of_a_run_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(settings))}: "):
        run(plain(), constant(2, 3), **settings)
    if "device" in settings:
        with pytest.raises(ConfigError, match=r"^device: "):
            run(plain(), constant(2, 3), backend="torch", **settings)


def test_programs_without_an_input_are_not_evaluated_on_images_or_events() -> None:
    split = Split(images=np.zeros((1, 2), np.uint8), labels=np.zeros(1, np.int64), first=0)
    with pytest.raises(DataError, match="data: cannot be turned into spikes: the program does not say how"):
        evaluate(without(PoissonOp)(plain()), split, "test")


@pytest.mark.parametrize("codes", [None, "a", 1.5, [1.5], [[1], [1, 2]], [2**40], [None], [1j], [np.nan]], ids=str)
def test_codes_are_integers_of_32_bits(codes: Any) -> None:
    with pytest.raises(ConfigError, match=r"^codes"):
        CodeTensor(codes=codes, fmt=U8)
    with pytest.raises(ConfigError, match=r"tensor\.fmt: is no format"):
        CodeTensor(codes=np.ones(1, int), fmt={"bits": 8})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, ">i4", bool])
@pytest.mark.parametrize("view", [False, True])
def test_codes_belong_to_the_program_alone(dtype: Any, view: bool) -> None:
    """Also where the array given is a read-only view of one that its owner goes on writing to."""
    array = np.ones((1, 2), dtype)
    given = array[:]
    given.flags.writeable = not view
    kept = CodeTensor(codes=given, fmt=U8)
    array[0, 0] = 0
    assert kept.codes.tolist() == [[1, 1]]
    assert kept.codes.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        kept.codes[0, 0] = 3


def test_tensors_cannot_be_exchanged() -> None:
    """A program that was checked stays what was checked; copies and pickles are as good."""
    program = plain()
    for change in (
        lambda t: t.__setitem__("p0.w", tensor([[1, 2, 3]])),
        lambda t: t.pop("p0.w"),
        lambda t: t.clear(),
        lambda t: t.update({"p0.w": tensor([[1]])}),
        lambda t: t.setdefault("x", tensor([1])),
        lambda t: t.__delitem__("p0.w"),
        lambda t: t.__ior__({"a": 1}),
    ):
        with pytest.raises(ConfigError, match=r"program\.tensors: cannot be changed"):
            change(program.tensors)
    for again in (pickle.loads(pickle.dumps(program)), copy.copy(program), replace(program, labels=("a", "b"))):
        assert run(again, constant(2, 3)).counts["p0"].tolist() == run(program, constant(2, 3)).counts["p0"].tolist()
    given = dict(program.tensors)
    made = replace(program, tensors=given)
    given.clear()
    assert made.codes("p0.w").tolist() == [[5, 7]]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_saving_changes_nothing(dtype: Any) -> None:
    codes = np.array([-5, 3, -8], dtype)
    pack(codes, QFormat(bits=4, signed=True))
    assert codes.tolist() == [-5, 3, -8]
    program = replace(
        plain(),
        tensors=plain().tensors
        | {"p0.w": CodeTensor(codes=np.array([[-2, 7]], dtype), fmt=QFormat(bits=4, signed=True))},
    )
    program = lif(v_fmt=S8)(replace(program, tensors=program.tensors | {"p0.v_reset": tensor([0], S8)}))
    before = {n: x.codes.tolist() for n, x in program.tensors.items()}
    again = from_bytes(to_bytes(program))
    assert {n: x.codes.tolist() for n, x in program.tensors.items()} == before
    assert again.codes("p0.w").tolist() == [[-2, 7]]
    for bad in ([-9], [8], [1.5]):
        with pytest.raises(ConfigError, match="codes"):
            pack(np.array(bad), QFormat(bits=4, signed=True))


def test_memory_is_limited_by_argument_and_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    path = save(plain(), tmp_path / "p.qspinn")
    need = check.__globals__["run_bytes"](plain())
    assert need > 100
    for call in (
        lambda p, m: run(p, constant(2, 3), memory_limit=m),
        lambda p, m: load(path, memory_limit=m),
        lambda p, m: from_bytes(path.read_bytes(), memory_limit=m),
    ):
        with pytest.raises(
            QSpinnError,
            match=rf"memory: .*got '{need} bytes'; allowed: up to {need - 1} bytes; .*"
            "QSPINN_MEMORY_LIMIT",
        ):
            call(plain(), need - 1)
        call(plain(), need)
    monkeypatch.setenv("QSPINN_MEMORY_LIMIT", str(need - 1))
    with pytest.raises(ConfigError, match=rf"got '{need} bytes'"):
        run(plain(), constant(2, 3))
    with pytest.raises(ArtifactError, match=rf"got '{need} bytes'"):
        load(path)
    for text in ("0", "-5", "1e9", "much", "1.5"):
        monkeypatch.setenv("QSPINN_MEMORY_LIMIT", text)
        with pytest.raises(ConfigError, match="QSPINN_MEMORY_LIMIT: is no number of bytes"):
            run(plain(), constant(2, 3))
    monkeypatch.setenv("QSPINN_MEMORY_LIMIT", "100000000")
    wide = tensor([1])
    big = Program(
        name="b",
        n_inputs=10**9,
        n_steps=30,
        seed=0,
        tensors=plain().tensors | {"a": wide},
        ops=(
            EventsOp(shape=(1000, 1000, 1000)),
            AddOp(source="input", target="p0", weight="a"),
            replace(plain().ops[2], n=10**9),
            ReadOp(source="p0"),
        ),
    )
    with pytest.raises(ArtifactError, match=r"memory: .*got '\d{12} bytes'; allowed: up to 100000000 bytes"):
        from_bytes(file_of(big))


def test_sizes_are_compared_with_the_limit_before_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few kilobytes whose population, thresholds by channel, would need 8 GB to be spread out."""
    monkeypatch.setenv("QSPINN_MEMORY_LIMIT", "100000000")
    n = 30_000 * 29_999
    for theta, words in ((tensor(np.zeros(29_999, int)), "different channels"), (tensor([3]), "take more memory")):
        tensors = plain().tensors | {"a": tensor([1]), "p0.v_th": tensor(np.full(30_000, 9)), "t": theta}
        big = Program(
            name="b",
            n_inputs=n,
            n_steps=3,
            seed=0,
            tensors=tensors,
            ops=(
                EventsOp(shape=(30_000, 29_999, 1)),
                AddOp(source="input", target="p0", weight="a"),
                replace(plain().ops[2], n=n, theta=Offset(tensor="t")),
                ReadOp(source="p0"),
            ),
        )
        with pytest.raises(ArtifactError, match=words):
            from_bytes(file_of(big))
    silent = with_tensor("t", [0], theta="t")(with_tensor("p0.v_th", [0])(plain()))
    with pytest.raises(ConfigError, match="neuron 0 would spike without any input"):
        to_bytes(silent)


def convolved(*more: Any, shape: tuple[int, int, int], stride: tuple[int, int] = (1, 1)) -> Program:
    """A convolution with a kernel of one weight, and others."""
    n = math.prod(shape)
    first = ConvOp(source="input", target="p0", weight="k", shape=shape, stride=stride)
    neuron = replace(plain().ops[2], n=-(-shape[1] // stride[0]) * -(-shape[2] // stride[1]))
    tensors = plain().tensors | {"k": tensor(np.ones((1, 1, 1, 1), int))}
    return Program(
        name="c",
        n_inputs=n,
        n_steps=3,
        seed=0,
        tensors=tensors,
        ops=(EventsOp(shape=shape), first, *more, neuron, ReadOp(source="p0", of="v_last")),
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5)])
def test_large_strides_take_little(shape: tuple[int, int, int]) -> None:
    program = convolved(stride=(1 << 15, 3), shape=shape)
    spikes = from_dense(np.ones((3, 2, program.n_inputs)))
    for engine in ENGINES:
        assert (run(program, spikes, backend=engine, memory_limit=1 << 20).scores == 3).all()


def test_what_engines_make_of_convolutions_and_pools_counts() -> None:
    n, wide = 40_000, (1, 200, 200)
    other = ConvOp(source="input", target="p0", weight="k", shape=(1, 1, n))
    pooled = PoolOp(source="input", target="q", kind="max", shape=wide, kernel=(100, 100), stride=(1, 1))
    for op in (other, pooled):
        with pytest.raises(ConfigError, match="memory: "):
            check(convolved(op, shape=wide), memory_limit=300 << 20)
    check(convolved(shape=wide), memory_limit=300 << 20)


def test_notes_survive_the_file_and_programs_without_any_stay_version_1() -> None:
    program = plain()
    assert header_of(to_bytes(program))[0]["format_version"] == 1
    assert "notes" not in header_of(to_bytes(program))[0]
    assert to_bytes(program) == to_bytes(from_bytes(to_bytes(program)))
    noted = replace(program, notes=(Note(path="p0.w", problem="clipped", count=1, total=2),))
    back = from_bytes(to_bytes(noted))
    assert header_of(to_bytes(noted))[0]["format_version"] == 2
    assert back.notes == noted.notes
    assert back.notes[0].share == 0.5
    assert to_bytes(back) == to_bytes(noted)
    for count, total in ((0, 2), (3, 2), (-1, 2)):
        with pytest.raises(ConfigError, match=r"Note\.count: is out of range"):
            Note(path="p0.w", problem="clipped", count=count, total=total)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 0},
        {"format_version": -5},
        {"format_version": True},
        {"format_version": 1.0},
        {"notes": [{"path": "p0.w", "problem": "clipped", "count": 1, "total": 2}]},
        {"format_version": 2, "notes": [1]},
        {"format_version": 2, "notes": [{"path": "p0.w", "problem": "clipped", "count": 3, "total": 2}]},
    ],
    ids=str,
)
def test_headers_that_no_version_writes_are_refused(change: dict[str, Any]) -> None:
    header, streams = header_of(to_bytes(plain()))
    with pytest.raises(ArtifactError):
        from_bytes(signed(header | change, streams))


@pytest.mark.parametrize(
    "shape", [[1] * 65, [1] * 5, [0, 2**62], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1], [-1, 1]], ids=str
)
def test_shapes_that_no_array_has_are_refused(shape: list[int]) -> None:
    empty = replace(plain(), tensors=plain().tensors | {"z": tensor(np.zeros(0 if 0 in shape else 1, int))})
    header, streams = header_of(to_bytes(empty))
    header["shapes"]["z"] = shape
    with pytest.raises(ArtifactError, match="tensor 'z' has a shape that no array has"):
        from_bytes(signed(header, streams))


def test_files_are_read_from_any_bytes_and_bits_behind_the_last_code_are_refused() -> None:
    data = to_bytes(plain())
    for kind in (bytearray, memoryview):
        assert to_bytes(from_bytes(kind(data))) == data  # type: ignore[arg-type]
    header, streams = header_of(data)
    streams["p0.decay"] = streams["p0.decay"] | 128
    with pytest.raises(ArtifactError, match=r"tensor 'p0\.decay' has bits behind its last code; got 64"):
        from_bytes(signed(header, streams))


def test_long_headers_and_many_codes_are_refused_before_they_are_read() -> None:
    long = replace(plain(), provenance={"a": "x" * (1 << 20)})
    with pytest.raises(ConfigError, match="program: provenance: is too long"):
        to_bytes(long)
    with pytest.raises(ArtifactError, match="f: provenance: is too long"):
        from_bytes(file_of(long), "f")
    many = file_of(replace(plain(), tensors=plain().tensors | {"z": tensor(np.zeros(1 << 20, int), QFormat(bits=1))}))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="f: memory: "):
        from_bytes(many, "f", memory_limit=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()
    assert from_bytes(many).codes("z").shape == (1 << 20,)


@pytest.mark.parametrize("depth", [70, 900, 3000, 100_000])
def test_headers_nested_too_deep_are_refused(depth: int) -> None:
    header, streams = header_of(to_bytes(plain()))
    nest = b'"provenance":{"a":' + b"[" * depth + b"]" * depth + b"}"
    text = canonical_json(header).replace(b'"provenance":{}', nest)
    with pytest.raises(ArtifactError, match=r"too deep|truncated, damaged"):
        from_bytes(signed({}, streams, text))
    nested: Any = []
    for _ in range(min(depth, 3000)):
        nested = [nested]
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    for provenance in ({"a": nested}, circle):
        with pytest.raises(ConfigError, match="too deep within one another"):
            replace(plain(), provenance=provenance)


@pytest.mark.parametrize("name", ["a\0b", None, 3.5])
def test_names_of_files_that_cannot_be_are_refused(name: Any, tmp_path: Any) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(name)
    if isinstance(name, str):
        with pytest.raises(ArtifactError, match="cannot be written"):
            save(plain(), name)


def test_a_program_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:

    module, calls = sys.modules[check.__module__], []  # the module, which the function of that name hides
    faults = module._faults
    monkeypatch.setattr(module, "_faults", lambda p: calls.append(p) or faults(p))
    program = plain()
    for engine in ENGINES:
        run(program, constant(2, 3), backend=engine)
    to_bytes(program)
    assert calls == [program]
    run(replace(program, labels=("a", "b")), constant(2, 3))
    assert len(calls) == 2

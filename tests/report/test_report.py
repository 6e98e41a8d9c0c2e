"""The report page: complete, self-contained, honest about the interval, and safe with hostile text."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from qspinn import program
from qspinn.errors import RunError
from qspinn.exploration.competing.space import Candidate, Experiment, NetworkConfig
from qspinn.exploration.scheme import Scheme
from qspinn.exploration.search import Outcome
from qspinn.exploration.statistics import Difference
from qspinn.fixedpoint import QFormat, Rounding
from qspinn.memory import float_account
from qspinn.networks import checkpoint
from qspinn.program import CodeTensor, Program
from qspinn.program.ops import DenseOp, LifOp, PoissonOp, SelectOp, VoteOp
from qspinn.program.parts import InputShift, Leak, Reset, Threshold
from qspinn.quantization.plan import Granularity, QuantPlan, QuantRule
from qspinn.records.record import to_plain
from qspinn.report import images as fields
from qspinn.report import plots, source, svg, words, write_report
from qspinn.report.sections import SECTIONS
from samples import read

EVIL = '<script>alert("x")</script>'
N, SIDE, CLASSES = 50, 5, 3
WINNER = "ptq0"


def make_run(folder: Path, *, label: str = "", difference: Difference | None = None, **changed: Any) -> Path:
    """A finished run of a 5 x 5 input, 50 neurons and 3 classes, with made-up numbers."""
    experiment = Experiment(name="tiny" + label.replace("/", ""), network=NetworkConfig(n_neurons=N, n_steps=10))
    network = experiment.network.build(SIDE * SIDE, CLASSES)
    rng = np.random.default_rng(0)
    params: checkpoint.Parameters = {
        "exc.w": rng.random((N, SIDE * SIDE), dtype=np.float32),
        "exc.theta": np.ones(N, np.float32),
        "readout.responses": rng.random((N, CLASSES)),
    }
    checkpoint.save(checkpoint.Trained(network=network, params=params), folder / "float" / f"n{N}.safetensors")
    program.save(_program(rng), folder / "model.qspinn")
    records = [_record(scheme, i, label) for scheme in Scheme for i in range(2)]
    account = float_account(network)
    outcome = Outcome(
        experiment=to_plain(experiment),
        versions={"qspinn": "0"},
        float_bits=account.total_bits,
        data={
            "name": "made up",
            "split_rule": "none" + label,
            "sha256": "00",
            "shape": [SIDE, SIDE],
            "labels": ["a", "b", "c" + label],
            "n": [10, 20, 30],
        },
        float_memory=[to_plain(r) for r in account.rows],
        floats=[{"kind": "float", "key": f"float-n{N}", "n_neurons": N, "accuracy": 0.9, "seconds": 1.5}],
        significance=[
            {
                "path": "exc.w" + label,
                "rounding": "nearest",
                "bits": [16, 4, 1],
                "accuracy": [0.9, 0.9, 0.3],
                "harmless_bits": 4,
                "significance": 0.25,
            }
        ],
        candidates=records,
        rejected=[{**_record(Scheme.ITQ, 3, label), "rejected": "may overflow" + label}],
        front=[WINNER, "itq1"],
        admitted=[WINNER],
        winner=WINNER,
        rewards={r["key"]: r["accuracy"] - 0.5 * r["bits"] / account.total_bits for r in records},
        float_validation=0.9,
        winner_validation=0.9,
        float_test=0.88,
        winner_test=0.877,
        test_difference=difference or Difference(points=-0.3, low=-0.62, high=0.11),
        confusion=[[9, 1, 0], [0, 10, 0], [0, 2, 8]],
        seconds=75.0,
    )
    outcome = msgspec.structs.replace(outcome, **changed)
    (folder / "result.json").write_bytes(msgspec.json.encode(outcome))
    return folder


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("drop", [0.0, 0.5, 100.0])
def test_a_run_whose_accuracies_are_all_the_same_has_a_report(accuracy: float, drop: float, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    plain = msgspec.json.decode((folder / "result.json").read_bytes())
    plain["experiment"]["search"]["max_drop_points"] = drop
    for record in plain["candidates"] + plain["floats"]:
        record["accuracy"] = accuracy
    plain["significance"][0]["accuracy"] = [accuracy] * 3
    plain |= dict.fromkeys(("float_validation", "winner_validation", "float_test", "winner_test"), accuracy)
    (folder / "result.json").write_bytes(msgspec.json.encode(plain))
    page = write_report(folder).read_text()
    assert not re.search('="nan|nan"', page)


def test_scales_and_ticks_of_one_value() -> None:
    assert svg.Scale(low=2.0, high=2.0, start=10, end=30, log=True).at(2.0) == 20
    assert svg.nice_ticks(0.0, 0.0) == [0.0]


def _program(rng: np.random.Generator) -> Program:
    kept = np.ones(SIDE * SIDE, np.int32)
    kept[:SIDE] = 0
    bit, two = QFormat(bits=1, frac=0, signed=False), QFormat(bits=2, frac=0, signed=False)
    tensors = {
        "input.kept": CodeTensor(codes=kept, fmt=bit),
        "exc.w": CodeTensor(codes=rng.integers(0, 4, (N, int(kept.sum())), dtype=np.int32), fmt=two),
        "exc.decay": CodeTensor(codes=np.array([250], np.int32), fmt=QFormat(bits=8)),
        "exc.v_th": CodeTensor(codes=np.array([9], np.int32), fmt=QFormat(bits=8)),
        "readout.votes": CodeTensor(codes=rng.integers(0, 4, (N, CLASSES), dtype=np.int32), fmt=two),
    }
    ops = (
        PoissonOp(per_level=1, seed=0),
        SelectOp(source="input", target="some", kept="input.kept"),
        DenseOp(source="some", target="exc", weight="exc.w"),
        LifOp(
            name="exc",
            n=N,
            v_fmt=QFormat(bits=8),
            v_min=0,
            rounding=Rounding.NEAREST,
            leak=Leak(decay="exc.decay", shift=8),
            input=InputShift(shift=0),
            threshold=Threshold(tensor="exc.v_th"),
            reset=Reset(tensor="exc.v_th"),
            n_ref=2,
            winner=True,
            stream=16,
        ),
        VoteOp(source="exc", votes="readout.votes"),
    )
    return Program(name="tiny", n_inputs=SIDE * SIDE, n_steps=10, seed=0, ops=ops, tensors=tensors)


def _record(scheme: Scheme, i: int, label: str) -> dict[str, Any]:
    plan = QuantPlan(
        rules=(
            QuantRule(tensor="exc.w", bits=2 - i % 2, granularity=Granularity.PER_NEURON),
            QuantRule(tensor="*", bits=8),
        ),
        fold_theta=True,
        min_input_rate=0.003,
    )
    candidate = Candidate(scheme=scheme, plan=plan, n_neurons=N, seed=0, label=f"{scheme.value} number {i}{label}")
    rows: list[dict[str, Any]] = [
        {"path": "exc.w", "role": "parameter", "count": 1000, "bits": 2 - i % 2},
        {"path": "input.kept", "role": "parameter", "count": 25, "bits": 1},
    ]
    bits = sum(r["count"] * r["bits"] for r in rows)
    return {
        "kind": "candidate",
        "key": f"{scheme.value}{i}",
        "candidate": to_plain(candidate),
        "memory": rows,
        "accuracy": 0.9 - 0.4 * i,
        "bits": bits,
        "seconds": 0.1,
        "learning_bits": 0 if scheme is Scheme.PTQ else bits + 600,
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(make_run(tmp_path_factory.mktemp("run"))).read_text(encoding="utf-8")


def test_writes_report_html_into_the_run_or_where_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert write_report(run) == run / "report.html"
    other = tmp_path / "elsewhere" / "page.html"
    assert write_report(str(run), str(other)) == other
    assert other.read_bytes() == (run / "report.html").read_bytes()


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    reader = read(page)
    assert all(load.startswith(("data:", "#")) for load in reader.loads)
    assert not {"link", "iframe", "object", "embed", "base"} & set(reader.tags)
    assert reader.tags.count("script") == 1
    assert "@import" not in page
    assert "url(" not in page
    assert not re.search(r"https?://", page)


def test_the_headline_is_the_result(page: str) -> None:
    float_bits = 32 * (25 * N + N + 4 + 2 * N + CLASSES * N)
    text = read(page).text
    assert f"({float_bits / 2025:.1f}×)" in text
    assert "6.22 kB → 253 B" in text
    assert "at −0.30 points on test (95 % interval −0.62 … +0.11)" in text
    assert "Not decided by this test set." in text


def test_every_section_and_number_is_there(page: str) -> None:
    reader = read(page)
    for part in (
        "Pareto front",
        "smallest harmless width",
        "bits of the weights",
        "input.kept",
        "taken for",
        "hatched",
        "R = A − μ · M / M₀",
        "may overflow",
        "7 candidates tried",
        "ptq post-training quantization; ptq_adapt PTQ, then thresholds learned anew; itq in-training",
        "qspinn explore tiny.json --out",
        '"max_drop_points": 0.5',
    ):
        assert part in reader.text or part in page, part
    assert reader.tags.count("img") == 2 * 36
    unclosed = {"meta", "img", "br", "use"}
    assert all(page.count(f"<{t}") >= page.count(f"</{t}>") for t in set(reader.tags) - unclosed)


def test_hostile_text_is_escaped_everywhere(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path, label=EVIL)).read_text(encoding="utf-8")
    assert EVIL not in page
    assert page.count("<script") == 1
    assert page.count("&lt;script&gt;") > 5


@pytest.mark.parametrize(
    ("points", "low", "high", "kind", "says"),
    [
        (0.0, -0.4, 0.4, "met", "contains zero"),
        (-0.3, -0.5, -0.1, "met", "below zero"),
        (1.0, 0.2, 1.8, "met", "better than float"),
        (-0.3, -0.6, 0.1, "open", "is within the target, but"),
        (-0.7, -1.2, 0.1, "open", "is larger than that, but"),
        (-2.0, -3.0, -0.51, "missed", "loses more"),
    ],
)
def test_the_verdict_says_what_the_interval_says(points: float, low: float, high: float, kind: str, says: str) -> None:
    found = words.verdict(Difference(points=points, low=low, high=high), 300, 0.5)
    assert found.kind == kind
    assert says in found.text


def test_a_run_without_significance_has_a_page(tmp_path: Path) -> None:
    assert "No significance was measured" in write_report(make_run(tmp_path, significance=[])).read_text("utf-8")


@pytest.mark.parametrize(
    ("winner", "says"), [("ptq0", "PTQ does not learn on the device"), ("itq0", "328 B at the winner")]
)
def test_learning_memory_is_stated_where_the_winner_learns(tmp_path: Path, winner: str, says: str) -> None:
    page = write_report(make_run(tmp_path, winner=winner)).read_text("utf-8")
    assert says in read(page).text


def test_inputs_that_are_no_image_are_not_drawn(tmp_path: Path) -> None:
    data = source.read_run(make_run(tmp_path), SECTIONS).outcome.data | {"shape": [25]}
    page = write_report(make_run(tmp_path, data=data)).read_text("utf-8")
    assert "there is nothing to draw" in page


def test_no_run_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"result\.json: cannot be read.*run qspinn explore"):
        write_report(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["result.json", "model.qspinn", f"float/n{N}.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_broken_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    run = make_run(tmp_path)
    if damage == "missing":
        (run / name).unlink()
    else:
        (run / name).write_bytes((run / name).read_bytes()[:100])
    with pytest.raises(RunError, match=rf"{re.escape(name)}.*fix: .*qspinn explore"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"winner": "nobody"},
        {"experiment": {"name": 3}},
        {"rewards": {}},
        {"candidates": [{"key": "x"}]},
        {"float_memory": [{"path": "w"}]},
        {"data": {"name": "x"}},
        {"significance": [{"path": "w"}]},
        {"floats": [{}]},
        {"confusion": [[1]]},
    ],
)
def test_content_that_does_not_fit_is_an_error(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="fix: "):
        write_report(make_run(tmp_path, **changed))


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (3, "3 bit"),
        (8, "1 B"),
        (32, "4 B"),
        (2025, "253 B"),
        (246_528, "30.8 kB"),
        (18_119, "2.26 kB"),
        (8_000_000, "1 MB"),
        (10_240_000, "1.28 MB"),
        (7_999_999, "1.00 MB"),
        (80_000, "10 kB"),
        (8e9, "1 GB"),
    ],
)
def test_sizes(bits: float, text: str) -> None:
    assert words.size_text(bits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.217, "0.217"),
        (9.996, "10.0"),
        (54.08, "54.1"),
        (3581.3, "3,581"),
        (13.6, "13.6"),
        (100, "100"),
        (0.00123, "0.00123"),
    ],
)
def test_three_digits(value: float, text: str) -> None:
    assert words.three(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.004, "0.00"), (-0.004, "0.00"), (-0.006, "−0.01"), (8.333, "+8.33")])
def test_signs(value: float, text: str) -> None:
    assert words.signed(value) == text


def test_png_holds_the_pixels() -> None:
    grey, opaque = np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([[True, False, True]] * 2)
    data = fields.png(grey, opaque)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (3, 2)
    at = data.index(b"IDAT")
    size = struct.unpack(">I", data[at - 4 : at])[0]
    assert zlib.crc32(data[at : at + 4 + size]) == struct.unpack(">I", data[at + 4 + size : at + 8 + size])[0]
    rows = zlib.decompress(data[at + 4 : at + 4 + size])
    assert rows == bytes([0, 0, 255, 1, 0, 2, 255, 0, 3, 255, 4, 0, 5, 255])


def test_left_out_inputs_are_transparent_and_zero(tmp_path: Path) -> None:
    found = source.read_run(make_run(tmp_path), SECTIONS).family_facts
    assert not found.kept[:SIDE].any()
    assert found.kept[SIDE:].all()
    assert (found.after[:, :SIDE] == 0).all()
    assert found.after[:, SIDE:].max() == 3


def test_scales_and_ticks() -> None:
    log = svg.Scale(low=1, high=100, start=0, end=10, log=True)
    assert [log.at(v) for v in (1, 10, 100)] == pytest.approx([0, 5, 10])
    assert svg.nice_ticks(0.09, 0.87) == [0.2, 0.4, 0.6, 0.8]
    assert svg.log_ticks(0.9, 25) == [1, 2, 5, 10, 20]


@pytest.mark.parametrize("drop", [0.5, 1.3, 40.0])
def test_the_target_is_within_the_plot(tmp_path: Path, drop: float) -> None:
    run = source.read_run(make_run(tmp_path), SECTIONS)
    search = msgspec.structs.replace(run.experiment.search, max_drop_points=drop)
    points = tuple(msgspec.structs.replace(p, accuracy=0.898, admitted=True) for p in run.points)
    run = msgspec.structs.replace(run, points=points, experiment=msgspec.structs.replace(run.experiment, search=search))
    assert plots.visible_floor(run) < run.outcome.float_validation - drop / 100


def test_best_by_bits_takes_the_most_accurate_then_the_cheapest(tmp_path: Path) -> None:
    points = source.read_run(make_run(tmp_path), SECTIONS).points
    best = plots.best_by_bits(points, Scheme.PTQ, Rounding.NEAREST)
    assert {bits: p.key for bits, p in best.items()} == {1: "ptq1", 2: "ptq0"}
    twin = msgspec.structs.replace(best[2], key="twin", bits=1)
    assert plots.best_by_bits([*points, twin], Scheme.PTQ, Rounding.NEAREST)[2].key == "twin"


def test_shared_splits_are_said_before_the_verdict(tmp_path: Path) -> None:
    data = {
        "name": "made up",
        "split_rule": "none",
        "sha256": "00",
        "shape": [SIDE, SIDE],
        "labels": ["a", "b", "c"],
        "n": [10, 20, 30],
    }
    plain = write_report(make_run(tmp_path / "plain", data=data)).read_text("utf-8")
    assert "Shared splits" not in plain
    shared = {"train and test": 1234, "validation and test": 2}
    page = write_report(make_run(tmp_path / "shared", data=data | {"shared": shared})).read_text("utf-8")
    text = "train and test share 1,234, validation and test share 2 images"
    assert text in page
    assert page.index("Shared splits") < page.index('class="lead"')


FIRST = ("candidates", 0)
OUT_OF_RANGE: list[tuple[tuple[Any, ...], Any]] = [
    (("float_bits",), 0),
    (("float_bits",), 1 << 60),
    ((*FIRST, "bits"), 0),
    ((*FIRST, "accuracy"), 1e308),
    ((*FIRST, "accuracy"), -5.0),
    ((*FIRST, "learning_bits"), -1),
    ((*FIRST, "memory", 0, "count"), -1),
    ((*FIRST, "candidate", "plan", "rules"), []),
    ((*FIRST, "trained_rates"), {"a": []}),
    ((*FIRST, "trained_rates"), {"a": [0.1], "b": [0.1, 0.2]}),
    (("floats", 0, "accuracy"), 2.0),
    (("floats", 0, "seconds"), -1.0),
    (("floats",), []),
    (("float_validation",), 1.5),
    (("winner_test",), -0.1),
    (("candidates",), []),
    (("front",), []),
    (("front",), ["nobody"]),
    (("admitted",), []),
    (("admitted",), ["nobody"]),
    (("confusion", 0, 0), -9),
    (("confusion", 0, 0), 8),
    (("data", "labels"), []),
    (("data", "n", 2), 31),
    (("data", "shape", 0), 0),
    (("significance", 0, "bits"), []),
    (("significance", 0, "bits", 0), 0),
    (("significance", 0, "accuracy"), [0.9]),
    (("significance", 0, "accuracy", 0), 7.0),
    (("test_difference", "low"), 5000.0),
    (("test_difference",), {"points": 0.0, "low": 1.0, "high": 2.0}),
    (("seconds",), -1.0),
    (("rewards",), {"ptq0": 1e301}),
    (("model",), "../other/model.qspinn"),
    (("model",), ""),
]


@pytest.mark.parametrize(("path", "value"), OUT_OF_RANGE, ids=lambda x: repr(x)[:40])
def test_numbers_out_of_range_are_named_and_not_drawn(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    run = make_run(tmp_path)
    plain = msgspec.json.decode((run / "result.json").read_bytes())
    *heads, last = path
    place = plain
    for head in heads:
        place = place[head]
    place[last] = value
    (run / "result.json").write_bytes(msgspec.json.encode(plain))
    with pytest.raises(RunError, match=r"result\.json: is damaged.*got .*fix: ") as caught:
        write_report(run)
    assert str([name for name in path if isinstance(name, str)][-1]) in str(caught.value.got)
    assert not (run / "report.html").exists()

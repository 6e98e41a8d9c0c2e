"""The command line beside files, streams and names that are not as usual: nothing of the user's is lost or left out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

import qspinn
from qspinn import cli
from qspinn.cli import inputs, output, verbs
from qspinn.errors import ConfigError
from qspinn.exploration.competing.space import Experiment
from qspinn.networks import checkpoint
from qspinn.program import save
from qspinn.testing.programs import single
from qspinn.workflow.experiments import load_experiment
from samples import command_line, trained_competing, trained_layers, trained_local


def told(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """What a command prints on both streams."""
    monkeypatch.setattr(sys, "argv", ["qspinn", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data, models and experiments on them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QSPINN_DATA", "")
    rng = np.random.default_rng(0)
    np.savez("mine.npz", images=rng.integers(0, 256, (60, 4, 4), dtype=np.uint8), labels=np.arange(60) % 3)
    Path("own.toml").write_text('name = "own"\n[data]\nfile = "mine.npz"\n')
    Path("idx").mkdir()
    Path("idx/train-images-idx3-ubyte").write_bytes(b"images")
    Path("idx.toml").write_text('name = "i"\n[data]\nname = "idx"\nfolder = "idx"\n')
    experiment = {"name": "own", "data": {"name": "npz", "file": "mine.npz", "folder": str(tmp_path)}}
    save(msgspec.structs.replace(single([[1, 2]]), provenance={"experiment": experiment}), "m.qspinn")
    Path("run").mkdir()
    Path("run/result.json").write_text(json.dumps({"experiment": experiment}))
    for place in ("run/journal", "run/cache", "run/a.qspinn", "run/a.json"):
        Path(place).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "own.toml", "--out", "mine.npz"],
        ["train", "own.toml", "--data", "mine.npz", "--out", "./mine.npz"],
        ["train", "idx.toml", "--out", "idx/train-images-idx3-ubyte"],
        ["evaluate", "m.qspinn", "--data", "mine.npz", "--dataset", "npz", "--out", "mine.npz"],
        ["inspect", "m.qspinn", "--out", "mine.npz"],
        ["report", "run", "--out", "mine.npz"],
        ["report", "run", "--out", "run/cache"],
        ["report", "run", "--out", "run/a.qspinn"],
        ["report", "run", "--out", "run/a.json"],
    ],
)
def test_data_are_not_written_over(
    arguments: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    _, err = told(arguments, 2, monkeypatch, capsys)
    assert "--out: is what the command reads, which would be lost" in err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_files_in_the_folder_of_the_data_are_replaced_where_no_reader_takes_them(here: Path) -> None:
    from qspinn.cli.places import output_file

    for name in ("net.safetensors", "page.html"):
        (here / "idx" / name).write_text("old")
        assert output_file(here / "idx" / name, here / "idx") == here / "idx" / name


def test_a_report_does_not_walk_through_folders(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def walk(*arguments: object) -> None:
        raise AssertionError("a whole tree may be as large as the machine")

    monkeypatch.setattr(Path, "rglob", walk)
    _, err = told(["report", "/", "--out", "x.html"], 1, monkeypatch, capsys)
    assert "no finished run is there" in err


@pytest.mark.parametrize("arguments", [["explore", "pipe"], ["evaluate", "pipe"], ["inspect", "pipe"]])
def test_pipes_are_not_waited_for(
    arguments: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    _, err = told(arguments, 2, monkeypatch, capsys)
    assert "pipe: is no regular file" in err


@pytest.mark.parametrize(
    ("verb", "name", "made", "words"),
    [
        ("evaluate", "f.qspinn", trained_competing, "is a float network, and no integer program; fix: quantize it"),
        ("evaluate", "f.safetensors", trained_layers, "is a float network, and no integer program; fix: quantize it"),
        ("inspect", "f.safetensors", trained_competing, "fix: quantize it first: qspinn explore"),
        ("inspect", "f.qspinn", trained_local, "holds layers that learn locally, and no program; fix: qspinn evaluate"),
        ("evaluate", "f.qspinn", trained_local, "does not say which data it was made for"),
    ],
)
def test_models_are_told_apart_by_what_they_hold(
    verb: str,
    name: str,
    made: Any,
    words: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint.save(made(), name)
    _, err = told([verb, name], 2, monkeypatch, capsys)
    assert words in err


def test_closed_streams_change_no_exit_code(here: Path) -> None:
    command = f"{sys.executable} -m qspinn"
    for line, code in (
        (f"{command} --version >&-", 0),
        (f"{command} inspect m.qspinn >&-", 0),
        (f"{command} inspect nothere 2>&-", 2),
    ):
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), (line, done.stderr)


def test_names_that_the_output_cannot_encode_are_escaped(tmp_path: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = command_line("init", "mnist_stdp", "--out", "é.toml", cwd=tmp_path, **ascii_only)
    assert (done.returncode, "experiment  \\xe9.toml" in done.stdout) == (0, True), done.stderr
    done = command_line("init", "mnist_stdp", "--out", "名.toml", "--json", cwd=tmp_path, **ascii_only)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"experiment": "名.toml"}), done.stderr


def test_json_is_ascii_only_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"é": "名\U0001f600"}
    for encoding, ascii_only in (("ascii", True), ("utf-8", False)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        output.print_json(value)
        stream.seek(0)
        text = stream.read()
        assert (json.loads(text), text.isascii()) == (value, ascii_only)


@pytest.mark.parametrize("columns", ["0", "1", "30", "80"])
def test_tables_lose_nothing_where_nobody_says_their_width(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = output.table_of(output.printable("[x].npz of a\x1b[31m"), "tensor", "bits", left=("tensor",))
    table.add_row(output.printable("a" * 200), "12345678901234567890")
    output.print_table(table)
    text = capsys.readouterr().out
    for word in ("a" * 200, "12345678901234567890", "[x].npz of a\\x1b[31m"):
        assert word in text


def test_the_front_of_data_with_brackets_in_their_name_says_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    candidate = {"key": "k", "candidate": {"label": "ptq w4 [red]"}, "bits": 10, "accuracy": 0.5}
    outcome = SimpleNamespace(
        data={"name": "[x].npz", "shared": {}},
        candidates=[candidate],
        rejected=[],
        front=["k"],
        winner="k",
        rewards={"k": 0.1},
        float_bits=100,
        float_validation=0.5,
        float_test=0.5,
        winner_test=0.5,
        test_difference=SimpleNamespace(points=0.0, low=-1.0, high=1.0),
    )
    output.print_outcome(outcome)
    text = " ".join(capsys.readouterr().out.split())
    assert "Pareto front on [x].npz" in text
    assert "ptq w4 [red]" in text


def test_errors_hold_nothing_that_a_terminal_obeys(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("k.toml").write_text('name = "k"\n"a\\u001b[31mb" = 1\n')
    for arguments in (["explore", "k.toml"], ["explore", "x\x1b[31m.toml"]):
        _, err = told(arguments, 2, monkeypatch, capsys)
        assert "\x1b" not in err
        assert "\\x1b[31m" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [("x" * 245, "the name is too long"), ("é" * 120, "the name is too long"), ("folder/", "is a folder")],
)
def test_names_of_files_are_checked_before_the_work(
    name: str, words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["train", "own.toml"], ["inspect", "m.qspinn"], ["report", "run"], ["init", "mnist_stdp"]):
        if verb[0] == "init" and "long" in words:
            continue  # writes under its own name alone
        _, err = told([*verb, "--out", name], 2, monkeypatch, capsys)
        assert words in err
    assert not any(path.name.startswith("folder") for path in here.iterdir())


def test_a_run_whose_folder_has_too_long_a_name_is_refused_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("y" * 256, f"new/{'y' * 256}/run"):
        _, err = told(["explore", "own.toml", "--out", name], 2, monkeypatch, capsys)
        assert "--out: cannot be written to" in err


def test_the_report_is_written_before_anything_is_printed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import qspinn.exploration.search as search

    done: list[str] = []
    monkeypatch.setattr(search, "explore", lambda *a, **k: SimpleNamespace(model="model.qspinn"))
    monkeypatch.setattr(qspinn, "write_report", lambda folder: done.append("written"))

    def closed(outcome: object) -> None:
        done.append("printed")
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(verbs, "print_outcome", closed)
    monkeypatch.setattr(sys, "argv", ["qspinn", "explore", "own.toml", "--out", "new"])
    with pytest.raises(SystemExit):
        cli.main()
    assert done == ["written", "printed"]


def test_interrupted_training_says_how_it_continues(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = '[[network.layers]]\nkind = "dense"\n'
    Path("l.toml").write_text(f'name = "l"\nfamily = "layers"\n[data]\nname = "synthetic_gestures"\n{layers}')

    def interrupted(experiment: Any, resume: Path = Path("r"), **options: Any) -> None:
        if not isinstance(experiment, Experiment):
            resume.write_text("epochs")
        raise KeyboardInterrupt

    monkeypatch.setattr(qspinn, "train", interrupted)
    monkeypatch.setattr(verbs.signal, "signal", lambda *a: None)
    _, err = told(["train", "l.toml", "--out", "l.safetensors"], 130, monkeypatch, capsys)
    assert "the finished epochs are kept. To continue: qspinn train l.toml --out l.safetensors" in " ".join(err.split())
    _, err = told(["train", "own.toml", "--out", "o.safetensors"], 130, monkeypatch, capsys)
    assert (err.count("interrupted"), "To continue" in err) == (1, False)
    monkeypatch.setattr(verbs, "need_program", interrupted)
    _, err = told(["inspect", "m.qspinn"], 130, monkeypatch, capsys)
    assert err == "\ninterrupted\n"


def test_an_interrupt_while_libraries_load_is_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\nsys.argv = ['qspinn', '--help']\n"
        "runpy.run_module('qspinn', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (130, "interrupted", "")


OLD = 'name = "old"\n[search]\nsensitivity_bits = [4]\nweight_bits = [4]\nroundings = ["nearest"]\n'


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["search.weight_bits", "search.ptq.weight_bits"])
@pytest.mark.parametrize("text", [OLD, 'name = "new"\n[search.ptq]\nweight_bits = [4]\nroundings = ["nearest"]\n'])
def test_overrides_take_former_and_present_names_in_files_of_either(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(text)
    found = load_experiment(tmp_path / "e.toml", [f"{name}=[8, 2]", "search.sweep.samples=7"])
    assert isinstance(found, Experiment)
    assert (found.search.ptq.weight_bits, found.search.sweep.samples) == ((8, 2), 7)
    assert [r.value for r in found.search.ptq.roundings] == ["nearest"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_with_both_names_of_a_key_is_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(f"{OLD}[search.ptq]\nweight_bits = [2]\n")
    for overrides in ([], ["seed=3"]):
        with pytest.raises(ConfigError, match=r"is the former name of ptq\.weight_bits, which is given, too"):
            load_experiment(tmp_path / "e.toml", overrides)


def test_former_names_are_told_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('name = "e"\n')
    with pytest.warns(DeprecationWarning, match=r"search\.weight_bits is called search\.ptq\.weight_bits now"):
        load_experiment(tmp_path / "e.toml", ["search.weight_bits=[2]"])


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\nschemes = []\n"])
def test_a_key_given_twice_in_toml_is_named(end: str, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(f'name = "e"\n[search]\nmax_drop_points = 1.0\nmax_drop_points = 2.0{end}')
    with pytest.raises(ConfigError, match=r"is not valid TOML.*max_drop_points is given twice"):
        load_experiment(tmp_path / "e.toml")


def test_places_of_data_are_those_of_their_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSPINN_DATA", "/data")
    assert inputs.data_places({"file": "a.npz", "folder": "b"}) == [Path("b/a.npz")]
    assert inputs.data_places({"folder": "b"}) == [Path("b")]
    assert inputs.data_places({}) == [Path("/data")]
    assert inputs.data_places({"file": 3, "folder": None}) == [Path("/data")]
    assert inputs.data_places(Experiment(name="e").data) == [Path("/data")]

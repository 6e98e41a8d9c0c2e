"""The command line where its options, places and streams are at their limits: one line that says what is wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest

from qspinn import cli
from qspinn.cli import entry, inputs, output
from qspinn.errors import ConfigError, RunError, WriteError
from qspinn.exploration import search
from qspinn.exploration.competing.space import Experiment
from qspinn.exploration.outcome import Selection, _no_winner
from qspinn.exploration.statistics import wilson_interval


def exit_code(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["qspinn", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "m.qspinn", "--seed", "-1"],
        ["evaluate", "m.qspinn", "--seed", "4294967296"],
        ["explore", "e.toml", "--workers", "99999999999"],
        ["explore", "e.toml", "--workers", "-1"],
    ],
)
def test_numbers_out_of_range_are_bad_usage(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert exit_code(arguments, monkeypatch) == 2
    assert "than or equal to" in capsys.readouterr().err


def test_an_interrupted_command_is_told_as_a_shell_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.toml").write_text('name = "e"')

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "explore", interrupted)
    assert (
        exit_code(["explore", "e.toml", "--set", "search.ptq.weight_bits=[8]", "--out", "[/b] c"], monkeypatch) == 130
    )
    told = capsys.readouterr().err
    assert "To continue: qspinn explore e.toml --set 'search.ptq.weight_bits=[8]' --out '[/b] c'" in told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (WriteError("x", "cannot be written"), 1),
        (RunError("x", "failed"), 1),
    ],
)
def test_a_full_disk_is_a_run_that_failed(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails(**options: object) -> None:
        raise error

    monkeypatch.setattr(entry, "app", fails)
    assert exit_code([], monkeypatch) == code
    assert "error: " in capsys.readouterr().err


def test_output_that_nobody_can_take_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert exit_code(["--version"], monkeypatch) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_paths_that_are_no_text_are_printed(capsys: pytest.CaptureFixture) -> None:
    output.print_json({"model": output.path_text(Path(os.fsdecode(b"a\xff/m.qspinn")))})
    assert json.loads(capsys.readouterr().out) == {"model": "a\ufffd/m.qspinn"}


def test_data_of_a_model_are_those_of_its_experiment() -> None:
    data = {"name": "digits", "n_train": 40, "n_validation": 30, "n_test": 20, "folder": "here"}
    provenance = {"experiment": {"data": data}}
    found = inputs.data_of_model(provenance, False, "", "")
    assert (found.n_train, found.n_validation, found.n_test, found.folder) == (40, 30, 20, "here")
    assert inputs.data_of_model(provenance, False, "mnist", "").n_test == Experiment(name="e").data.n_test
    assert inputs.data_of_model({"experiment": 3}, False, "digits", "").name == "digits"


@pytest.mark.parametrize("level", [1 - 1e-16, 1 - 2**-53])
def test_levels_that_round_to_one_are_refused(level: float) -> None:
    with pytest.raises(Exception, match="level: is no share"):
        wilson_interval(1, 2, level)


def test_synthetic_gestures_stand_for_recorded_ones_in_every_family(tmp_path: Path) -> None:
    layers = '[[network.layers]]\nkind = "dense"\n', "[[network.layers]]\nchannels = 2\nkernel = 3\n"
    for family, told in zip(("layers", "local"), layers, strict=True):
        path = tmp_path / f"{family}.toml"
        path.write_text(f'name = "e"\nfamily = "{family}"\n[data]\nname = "dvs_gesture"\nn_bins = 4\n{told}')
        found = inputs.read_experiment(path, None, "", [], synthetic=True)
        assert (found.name, found.data.name) == ("e-synthetic", "synthetic_gestures")


def test_data_that_synthetic_gestures_would_stand_for_are_not_named(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(
        'name = "e"\nfamily = "layers"\n[data]\nname = "dvs_gesture"\nn_bins = 4\n[[network.layers]]\nkind = "dense"\n'
    )
    with pytest.raises(ConfigError, match=r"--synthetic: takes no data.*got 'here'.*leave one of the two out"):
        inputs.read_experiment(path, None, "here", [], synthetic=True)


def test_wider_numbers_are_advised_where_lowering_failed() -> None:
    selection = Selection(experiment=Experiment(name="e"), float_accuracy=0.9, float_bits=10)
    for kind, advised in (("LoweringError", True), ("RunError", False)):
        error = _no_winner([], selection, [{"key": "a", "rejected": "a: failed", "error": kind}])
        assert ("more bits" in str(error)) is advised

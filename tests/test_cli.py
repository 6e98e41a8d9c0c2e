"""The command line: one process per call, as a user would. Run as a script it is a command that gets interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from qspinn.cli import main
from qspinn.cli.progress import progress
from qspinn.exploration.workers import Event, Precompilation
from qspinn.networks import checkpoint
from qspinn.program import Note, save
from qspinn.program.ops import EventsOp
from qspinn.testing.programs import single
from running import at
from samples import command_line, trained_layers

N_BEFORE_INTERRUPT = 20  # syncs and renamings, of 39 in the whole run
EXPERIMENT = """
version = 1
name = "tiny"
[data]
name = "digits"
n_train = 200
n_validation = 80
n_test = 80
[network]
n_neurons = 16
n_steps = 40
rate_hz = 400.0
[network.neuron]
theta_plus_mv = 0.5
[training]
n_passes = 1
[search]
schemes = ["ptq"]
max_drop_points = 60.0
[search.sweep]
bits = [16, 8]
[search.ptq]
roundings = ["nearest"]
weight_bits = [4, 1]
granularities = ["per_neuron"]
state_bits = []
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment file and a finished run of it in `run`."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    done = command_line("explore", "tiny.toml", "--out", "run", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "explore.json").write_text(done.stdout)
    return folder


def test_explore_prints_nothing_but_json_and_writes_model_and_report(place: Path) -> None:
    result = json.loads((place / "explore.json").read_text())
    assert result["memory_reduction"] > 4
    assert result["candidates"] == 4
    assert (result["feasible"], result["nearest"], result["rejected"], result["shared"]) == (True, [], [], {})
    assert (place / "run" / "model.qspinn").stat().st_size < 10_000
    assert (place / "run" / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_explore_again_continues_and_says_the_same(place: Path) -> None:
    journal = (place / "run" / "journal").read_bytes()
    again = command_line("explore", "tiny.toml", "--out", "run", cwd=place)
    assert again.returncode == 0
    assert "Pareto front" in again.stdout
    assert re.search(r"^  w… +bits of the weights$", again.stdout, re.MULTILINE)
    winner_name = json.loads((place / "explore.json").read_text())["winner_name"]
    assert "-bit weights, " in winner_name
    assert f"winner: {winner_name}" in again.stdout
    assert again.stderr == ""  # no progress bar where nobody watches
    assert (place / "run" / "journal").read_bytes() == journal


@pytest.mark.soak
def test_evaluate_repeats_the_test_accuracy_on_every_engine(place: Path) -> None:
    expected = json.loads((place / "explore.json").read_text())["winner_test"]
    accuracies = set()
    for backend in ("numba", "reference", "torch"):
        done = command_line("evaluate", "run/model.qspinn", "--json", "--backend", backend, cwd=place)
        whole = json.loads(done.stdout)
        assert (whole["n"], whole["accuracy"]) == (80, expected)  # the split is that of the run
        accuracies.add((whole["accuracy"], whole["spikes_per_sample"]))
    assert len(accuracies) == 1
    others = [
        json.loads(command_line("evaluate", "run/model.qspinn", "--json", "--seed", seed, cwd=place).stdout)
        for seed in (9, 10, 11)
    ]
    assert len({(other["accuracy"], other["spikes_per_sample"]) for other in others}) > 1


def test_evaluate_names_the_device_that_a_backend_does_not_have(place: Path) -> None:
    done = command_line("evaluate", "run/model.qspinn", "--device", "cuda", cwd=place)
    assert (done.returncode, "the numba backend runs on the CPU only; got 'cuda'" in done.stderr) == (2, True)


@pytest.mark.slow
def test_evaluate_stores_predictions(place: Path) -> None:
    command_line("evaluate", "run/model.qspinn", "--out", "p.txt", "--split", "validation", cwd=place)
    assert {int(line) for line in (place / "p.txt").read_text().split()} <= set(range(10))


def test_inspect_accounts_for_every_bit(place: Path) -> None:
    found = json.loads(command_line("inspect", "run/model.qspinn", "--json", cwd=place).stdout)
    assert found["total_bits"] == sum(row["count"] * row["bits"] for row in found["memory"])
    assert found["total_bits"] == json.loads((place / "explore.json").read_text())["winner_bits"]
    assert "exc.w" in command_line("inspect", "run/model.qspinn", cwd=place).stdout


def test_sensitivity_uses_the_same_folder(place: Path) -> None:
    curves = json.loads(command_line("sensitivity", "tiny.toml", "--out", "run", "--json", cwd=place).stdout)
    assert {c["path"] for c in curves} >= {"exc.w", "exc.v", "exc.theta", "readout.votes"}


def test_train_writes_a_checkpoint(place: Path) -> None:
    done = command_line("train", "tiny.toml", "--out", "float.safetensors", "--set", "network.n_neurons=8", cwd=place)
    assert done.returncode == 0
    assert "validation:" in done.stdout
    assert (place / "float.safetensors").exists()


def test_names_in_files_are_neither_markup_nor_orders_to_the_terminal(tmp_path: Path) -> None:
    made = single([[1, 2]])
    tensors = made.tensors | {"[/b][red]x:smile:": made.tensors["p0.decay"]}
    note = Note(path="w\x1b[31m", problem="clipped", count=1, total=2)
    save(msgspec.structs.replace(made, name="[/b]\x1b[2J\x9b", tensors=tensors, notes=(note,)), tmp_path / "m.qspinn")
    done = command_line("inspect", "m.qspinn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    for word in ("[/b]\\x1b[2J\\x9b: 2 inputs", "note: w\\x1b[31m: clipped"):
        assert word in done.stdout


def test_a_state_does_not_take_the_format_of_a_tensor_of_the_same_name(tmp_path: Path) -> None:
    made = single([[5, 7]], v_th=10, winner=False)
    tensors = dict(made.tensors)
    tensors["p0.v"] = tensors.pop("p0.v_th")
    of = made.ops[2]
    other = msgspec.structs.replace(of, threshold=msgspec.structs.replace(of.threshold, tensor="p0.v"))
    ops = (*made.ops[:2], other, *made.ops[3:])
    save(msgspec.structs.replace(made, tensors=tensors, ops=ops), tmp_path / "m.qspinn")
    rows = [x for x in command_line("inspect", "m.qspinn", cwd=tmp_path).stdout.splitlines() if "p0.v " in x]
    assert [str(tensors["p0.v"].fmt) in row for row in rows] == ["parameter" in row for row in rows] == [True, False]


def test_inspect_says_what_a_float_network_is(tmp_path: Path) -> None:
    checkpoint.save(trained_layers(), tmp_path / "m.safetensors")
    done = command_line("inspect", "m.safetensors", cwd=tmp_path)
    assert done.returncode == 2
    words = " ".join(done.stderr.split())
    assert "m.safetensors: is a float network, and no integer program; fix: quantize it first: qspinn explore" in words


def test_a_seed_for_programs_that_draw_no_spikes_is_refused(tmp_path: Path) -> None:
    made = single([[1, 2]])
    save(msgspec.structs.replace(made, ops=(EventsOp(shape=(2, 1, 1)), *made.ops[1:])), tmp_path / "m.qspinn")
    done = command_line("evaluate", "m.qspinn", "--seed", 3, "--dataset", "nmnist8", cwd=tmp_path)
    assert done.returncode == 2
    assert "--seed: draws input spikes" in done.stderr


def test_report_is_written_again(place: Path) -> None:
    (place / "run" / "report.html").unlink()
    assert command_line("report", "run", cwd=place).returncode == 0
    assert (place / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explore", "tiny.toml", "--set", "search.wieght_bits=[1]"], 2, ["config.search.wieght_bits", "weight_bits"]),
        (["explore", "tiny.toml", "--set", "search.ptq.weight_bits=[17]"], 2, ["weight_bits", "17", "1..16"]),
        (["explore", "tiny.toml", "--set", "nonsense"], 2, ["--set", "nonsense"]),
        (["explore", "missing.toml"], 2, ["missing.toml"]),
        (["explore", "tiny.toml", "--workers", "-1"], 2, ["workers"]),
        (["explore", "tiny.toml", "--out", "run", "--seed", "5"], 1, ["another experiment", "--out"]),
        (["train", "tiny.toml", "--set", "data.name=mnist", "--data", "nowhere"], 2, ["nowhere", "idx"]),
        (["evaluate", "tiny.toml"], 2, ["tiny.toml", "not a .qspinn"]),
        (["evaluate", "run/model.qspinn", "--split", "tset"], 2, ["tset", "validation"]),
        (["evaluate", "run/model.qspinn", "--dataset", "cifar"], 2, ["cifar", "digits"]),
        (["report", "nowhere"], 1, ["nowhere", "explore"]),
        (["frobnicate"], 2, ["frobnicate"]),
    ],
)
def test_mistakes_name_the_place_and_the_fix(place: Path, arguments: list[str], code: int, words: list[str]) -> None:
    done = command_line(*arguments, cwd=place)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("verb", ["explore", "train", "sensitivity", "evaluate", "inspect", "report"])
def test_every_verb_has_help_with_an_example_and_the_common_options(verb: str, place: Path) -> None:
    text = command_line(verb, "--help", cwd=place).stdout
    for word in ("Example: qspinn " + verb, "--json", "--seed", "--out"):
        assert word in text


@pytest.mark.parametrize("arguments", [["--help"], ["explore", "--help"], ["--version"]])
def test_help_loads_neither_libraries_nor_stages(arguments: list[str]) -> None:
    """Help shall come at once: it loads the command line alone, and of the libraries typer."""
    code = (
        f"import sys\nfrom qspinn.cli import main\nsys.argv = ['qspinn', *{arguments!r}]\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    loaded = done.stdout.splitlines()[-1].split()
    assert "typer" in loaded, done.stderr
    heavy = [
        "numpy",
        "msgspec",
        "numba",
        "llvmlite",
        "torch",
        "jinja2",
        "sklearn",
        "scipy",
        "safetensors",
        "pooch",
        "rich",
        "pygments",
        "markdown_it",
    ]
    assert sorted(set(heavy) & set(loaded)) == []
    rooms = {name.split(".")[1] for name in loaded if name.startswith("qspinn.")}
    assert rooms == {"cli", "errors", "former", "optional"}


def test_init_writes_an_experiment_and_keeps_what_is_there(tmp_path: Path) -> None:
    listed = json.loads(command_line("init", "--list", "--json", cwd=tmp_path).stdout)
    assert "digits_stdp" in listed
    for known in listed:
        assert known in command_line("init", "--list", cwd=tmp_path).stdout
    done = command_line("init", "digits_stdp", "--out", "my own.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "qspinn explore 'my own.toml'" in done.stdout
    (tmp_path / "my own.toml").write_text("edited")
    for arguments, words in (
        (["digits_stdp", "--out", "my own.toml"], "is there already"),
        (["digit_stdp"], "did you mean 'digits_stdp'"),
        ([], "allowed: braille"),
        (["digits_stdp", "--list"], "--list: lists all experiments"),
    ):
        done = command_line("init", *arguments, cwd=tmp_path)
        assert (done.returncode in (1, 2), done.stdout) == (True, ""), arguments
        assert words in done.stderr
    assert (tmp_path / "my own.toml").read_text() == "edited"
    assert "did you mean 'digits_stdp'" in command_line("explore", "digits-stdp", cwd=tmp_path).stderr


def test_compiling_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        Event(stage=stage, done=n, total=8) for stage in ("float training", Precompilation.STAGE) for n in (0, 1, 8)
    ]
    for quiet, said in ((True, ""), (False, "compiling kernels, once per machine: 8\n")):
        with progress(quiet) as on_event:
            for event in told:
                on_event(event)
        assert capsys.readouterr() == ("", said)


def test_help_says_what_exit_codes_mean(place: Path) -> None:
    for arguments in (["--help"], ["explore", "--help"]):
        text = " ".join(command_line(*arguments, cwd=place, COLUMNS="200").stdout.replace("│", "").split())
        assert "0 done; 1 the run failed; 2 bad usage, configuration or input, or a library is missing; 3 no" in text


@pytest.mark.slow
def test_nothing_meets_the_target(place: Path) -> None:
    """Exit code 3, the nearest candidates in words and as JSON; the run's folder is kept and goes on saying so."""
    impossible = (
        "explore",
        "tiny.toml",
        "--out",
        "none",
        "--set",
        "search.max_drop_points=0",
        "--set",
        'search.ptq.granularities=["global"]',
        "--set",
        'search.ptq.roundings=["truncate"]',
        "--set",
        "search.ptq.weight_bits=[1]",
        "--set",
        "search.ptq.hopeless_points=100",
    )
    first = command_line(*impossible, "--json", cwd=place)
    assert (first.returncode, "Traceback" in first.stderr) == (3, False), first.stderr
    found = json.loads(first.stdout)
    assert (found["feasible"], found["data"], found["rejected"]) == (False, "digits", [])
    missing = [n["points_missing"] for n in found["nearest"]]
    assert missing == sorted(missing)
    assert missing[0] > 0
    nearest = found["nearest"][0]
    assert nearest["name"].startswith("1-bit weights, ")
    assert f"candidate {nearest['label']} loses {nearest['points_lost']:.2f} points" in first.stderr
    assert f"at {nearest['bits']:,} bits" in first.stderr
    again = command_line(*impossible, cwd=place)
    assert (again.returncode, again.stdout) == (3, "")
    assert again.stderr == first.stderr
    assert not (place / "none" / "result.json").exists()


@pytest.mark.slow
def test_no_candidate_could_be_measured(place: Path) -> None:
    done = command_line(
        "explore", "tiny.toml", "--out", "refused", "--set", "search.ptq.input_rates=[0.99]", "--json", cwd=place
    )
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    found = json.loads(done.stdout)
    assert found["nearest"] == []
    ((reason, n),) = [tuple(entry.values()) for entry in found["rejected"]]
    assert (n, reason.startswith("plan.min_input_rate: leaves no input")) == (2, True)
    assert f"no candidate could be measured; 2 rejected: {reason}" in done.stderr


HIDING = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
sys.argv = ["qspinn", *{arguments!r}]
from qspinn.cli import main
main()
"""


def without(library: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line where a library is not installed."""
    code = HIDING.format(library=library, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("verb", ["explore", "train", "sensitivity"])
def test_without_torch_layers_say_what_to_install(verb: str, layers: Path) -> None:
    done = without("torch", verb, "gestures.toml", "--synthetic", "--out", f"no-{verb}", cwd=layers)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "needs torch, which is not installed" in line
    assert "pip install qspinn[torch]" in line
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("verb", "name", "words"),
    [
        *(("train", "nmnist8", ()), ("explore", "mnist_conv", ()), ("sensitivity", "qsnn_braille", ())),
        *(("explore", "integer_decolle", ()), ("sensitivity", "integer_decolle", ())),
        ("train", "integer_decolle", ("--set", "learning.arithmetic=float")),
    ],
)
def test_without_torch_every_family_says_what_to_install_before_it_reads_data(
    verb: str, name: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    done = without("torch", verb, name, "--data", "nowhere", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "needs torch, which is not installed; fix: pip install qspinn[torch]" in line


@pytest.mark.soak
def test_without_torch_everything_else_works(place: Path, layers: Path) -> None:
    for folder, arguments in (
        (place, ["evaluate", "run/model.qspinn"]),
        (place, ["inspect", "run/model.qspinn"]),
        (place, ["report", "run"]),
        (layers, ["evaluate", "run/model.qspinn"]),
        (layers, ["report", "run"]),
    ):
        done = without("torch", *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    done = without("torch", "evaluate", "run/model.qspinn", "--backend", "torch", cwd=place)
    assert (done.returncode, "pip install qspinn[torch]" in done.stderr) == (2, True)


def test_without_another_library_the_command_to_install_it_is_named(place: Path) -> None:
    done = without("sklearn", "train", "tiny.toml", "--out", "no.safetensors", cwd=place)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "needs sklearn, which is not installed; fix: pip install scikit-learn" in done.stderr


@pytest.mark.slow
def test_interrupt_leaves_a_run_that_continues(place: Path) -> None:
    # a test run that was started in the background ignores the signal, and children inherit that
    process = subprocess.Popen(
        [sys.executable, __file__, "explore", "tiny.toml", "--out", "broken"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _, told = process.communicate(timeout=300)
    assert process.returncode == 130, told
    assert "To continue: qspinn explore tiny.toml --out broken" in " ".join(told.split())
    done = command_line("explore", "tiny.toml", "--out", "broken", "--json", cwd=place)
    expected = json.loads((place / "explore.json").read_text())
    assert {k: v for k, v in json.loads(done.stdout).items() if k not in ("seconds", "model", "report")} == {
        k: v for k, v in expected.items() if k not in ("seconds", "model", "report")
    }


LAYERS = """
version = 1
name = "gestures"
family = "layers"
[data]
name = "dvs_gesture"
bin_ms = 40.0
n_bins = 6
size = 8
n_train = 44
n_validation = 22
n_test = 22
[[network.layers]]
kind = "conv"
channels = 3
stride = 2
norm = true
[[network.layers]]
kind = "dense"
norm = true
[training]
n_epochs = 2
batch = 16
[search]
max_drop_points = 100.0
[search.sweep]
bits = [8]
[search.ptq]
roundings = ["nearest"]
weight_bits = [4]
granularities = ["per_channel"]
state_bits = []
hopeless_points = 100.0
[search.itq]
bits = [[3, 8]]
epochs = 1
"""


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment on layers and a finished run of it, on synthetic data, in `run`."""
    folder = tmp_path_factory.mktemp("layers")
    (folder / "gestures.toml").write_text(LAYERS)
    done = command_line("explore", "gestures.toml", "--synthetic", "--out", "run", "--json", "--workers", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "explore.json").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_layers_are_explored_and_synthetic_data_named_everywhere(layers: Path) -> None:
    result = json.loads((layers / "explore.json").read_text())
    assert result["candidates"] == 2
    assert result["data"] == "synthetic_gestures"
    assert "synthetic_gestures" in (layers / "run" / "report.html").read_text()
    stored = json.loads((layers / "run" / "result.json").read_text())
    assert stored["experiment"]["name"] == "gestures-synthetic"
    assert stored["data"]["name"] == "synthetic_gestures"
    again = command_line("explore", "gestures.toml", "--synthetic", "--out", "run", cwd=layers)
    assert "synthetic_gestures" in again.stdout


@pytest.mark.slow
def test_a_model_of_layers_is_evaluated_on_what_it_was_made_for(layers: Path) -> None:
    expected = json.loads((layers / "explore.json").read_text())["winner_test"]
    for backend in ("numba", "reference"):
        done = command_line("evaluate", "run/model.qspinn", "--json", "--backend", backend, cwd=layers)
        assert json.loads(done.stdout)["accuracy"] == expected
    found = json.loads(command_line("inspect", "run/model.qspinn", "--json", cwd=layers).stdout)
    assert found["total_bits"] == json.loads((layers / "explore.json").read_text())["winner_bits"]
    assert found["provenance"]["experiment"]["data"]["name"] == "synthetic_gestures"


@pytest.mark.soak
def test_layers_have_curves_and_a_checkpoint(layers: Path) -> None:
    done = command_line("sensitivity", "gestures.toml", "--synthetic", "--out", "run", "--json", cwd=layers)
    assert {c["path"] for c in json.loads(done.stdout)} >= {"conv1.w", "conv1.v", "out.w", "out.bias"}
    done = command_line("train", "gestures.toml", "--synthetic", "--out", "net.safetensors", cwd=layers)
    assert "synthetic_gestures" in done.stdout
    assert (layers / "net.safetensors").exists()
    assert not list(layers.glob(".*training"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explore", "gestures.toml", "--data", "nowhere"], 2, ["nowhere"]),
        (["explore", "gestures.toml"], 2, ["QSPINN_DATA"]),
        (["explore", "gestures.toml", "--set", "family=lyaers"], 2, ["config.family", "layers"]),
        (["explore", "gestures.toml", "--set", "data.name=nmnist8", "--synthetic"], 2, ["--synthetic", "nmnist8"]),
        (["train", "gestures.toml", "--set", "data.name=braille7"], 2, ["data.n_bins", "braille7", "bin_ms"]),
        (
            ["train", "gestures.toml", "--synthetic", "--set", "search.ptq.weight_bits=[0]"],
            2,
            ["search.ptq.weight_bits", "1..16"],
        ),
        (["evaluate", "run/model.qspinn", "--dataset", "mnist"], 2, ["--dataset", "mnist", "braille7"]),
    ],
)
@pytest.mark.slow
def test_mistakes_with_layers_name_the_place_and_the_fix(
    layers: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    done = command_line(*arguments, cwd=layers, QSPINN_DATA="")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_synthetic_is_for_events(place: Path) -> None:
    done = command_line("train", "tiny.toml", "--synthetic", cwd=place)
    assert done.returncode == 2
    assert "--synthetic" in done.stderr


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches the workers too
    at(N_BEFORE_INTERRUPT, Path("broken"), lambda file: os.killpg(0, signal.SIGINT))
    main()

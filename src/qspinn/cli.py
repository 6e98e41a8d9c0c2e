"""Command line: argument parsing and printing only; each verb is one Python call of the same name.

What a verb needs is imported where it is used: help is shown without any of it.

Exit codes: 0 done; 1 failed; 2 bad usage, configuration or input, or a library is missing; 3 no candidate meets the
target; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import typing
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import qspinn
from qspinn import __version__
from qspinn.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LoweringError,
    QSpinnError,
    RunError,
    TargetError,
    WriteError,
)
from qspinn.optional import missing

if typing.TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

err = Console(stderr=True)
FAILED, BAD_INPUT, NO_CANDIDATE, INTERRUPTED = 1, 2, 3, 130
CODES = (
    "Exit codes: 0 done; 1 the run failed; 2 bad usage, configuration or input, or a library is missing; 3 no "
    "candidate meets the target; 130 interrupted."
)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    epilog=CODES,
    help="Find the cheapest integer version of a spiking network that keeps its accuracy.",
)


def _place(text: str) -> Path:
    if not text:
        raise ConfigError("--out", "is empty", allowed="a path", fix="name a place, or leave --out out")
    return Path(text)


Config = Annotated[
    Path,
    typer.Argument(
        help="Experiment file (.toml or .json), or the name of one of the package's: see `qspinn init --list`.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Argument(help="A .qspinn file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output, nothing else.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=(1 << 32) - 1, help="Seed of everything random; overrides the experiment's.")
]
Out = Annotated[Path | None, typer.Option(parser=_place, metavar="<path>", help="Folder (or file) to write to.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override one key, e.g. network.n_neurons=100; "
        "text that reads as a number in quotes: 'name=\"123\"'. Keys of a table that "
        "the file lacks keep their defaults; those of network.neuron are the neuron's "
        "own, not what the architecture or the size would choose.",
    ),
]
Data = Annotated[str, typer.Option(help="Folder with the data set's files, or an .npz file of your own.")]
Synthetic = Annotated[
    bool,
    typer.Option(
        "--synthetic",
        help="Take synthetic gestures of the same shape in place of "
        "recordings that are not there (dvs_gesture); all results are named so.",
    ),
]
Workers = Annotated[int, typer.Option(min=0, max=1024, help="Worker processes; 0 for one per core.")]


def main() -> None:
    """Entry point: turns errors into one line and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads would spin where compiled passes run
    try:
        try:
            app(standalone_mode=True)
        finally:
            sys.stdout.flush()
    except WriteError as error:
        _fail(error, FAILED)
    except (ConfigError, DataError, LoweringError, ArtifactError) as error:
        _fail(error, BAD_INPUT)
    except TargetError as error:
        _fail(error, NO_CANDIDATE)
    except QSpinnError as error:
        _fail(error, FAILED)
    except ModuleNotFoundError as error:
        found = missing(error, f"qspinn {' '.join(sys.argv[1:2])}")
        if not isinstance(found, QSpinnError):
            raise
        _fail(found, BAD_INPUT)
    except KeyboardInterrupt:
        err.print("\ninterrupted")
        sys.exit(INTERRUPTED)
    except OSError as error:  # where results are printed to is full or gone
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed there at exit
        _fail(RunError(str(error.filename or "output"), "cannot be read or written", got=error.strerror), FAILED)


def _fail(error: QSpinnError, code: int) -> None:
    err.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Find the cheapest integer version of a spiking network that keeps its accuracy."""


@app.command(epilog=f"Example: qspinn explore digits_stdp --out runs/digits\n\n{CODES}")
def explore(
    config: Config,
    out: Out = None,
    seed: Seed = None,
    data: Data = "",
    workers: Workers = 0,
    sets: Sets = None,
    synthetic: Synthetic = False,
    as_json: Json = False,
) -> None:
    """Search schemes, roundings and precisions; write the best integer model and a report.

    Running the same command again continues an interrupted run. Where no candidate meets the target, the nearest ones
    are named (with --json under "nearest") and the exit code is 3.
    """
    from qspinn.exploration.search import explore as search

    experiment = _experiment(config, seed, data, sets, synthetic)
    folder = _out_folder(out or Path("runs") / experiment.name)
    try:
        with _progress(as_json) as on_event:
            outcome = search(experiment, folder, n_workers=workers, on_event=on_event)
    except KeyboardInterrupt:
        command = shlex.join(["qspinn", *sys.argv[1:]])
        err.print(
            f"\ninterrupted; everything finished is kept. To continue: {command}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        sys.exit(INTERRUPTED)
    except TargetError as error:
        if as_json:
            _print_json(
                {
                    "data": experiment.data.title,
                    "feasible": False,
                    "nearest": list(error.nearest),
                    "rejected": _reasons(error.rejected),
                }
            )
        raise
    model, page = (_text(folder / name) for name in (outcome.model, "report.html"))
    if as_json:
        _print_json(_headline(outcome) | {"model": model, "report": page})
    else:
        _print_outcome(outcome)
        print(f"model   {model}\nreport  {page}")
    qspinn.write_report(folder)


@app.command(epilog="Example: qspinn train digits_stdp --out runs/float.safetensors")
def train(
    config: Config,
    out: Out = None,
    seed: Seed = None,
    data: Data = "",
    sets: Sets = None,
    synthetic: Synthetic = False,
    device: Annotated[str, typer.Option(help="cpu; for networks of layers also cuda or cuda:<i>.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train the network of an experiment, in floats or where it says so in integers, and store it.

    Training by gradients or locally that was interrupted continues with the same command.
    """
    experiment = _experiment(config, seed, data, sets, synthetic)
    path = _out_file(out or Path("runs") / f"{experiment.name}.safetensors", config)
    resume = path.with_name(f".{path.name}.training")
    with _progress(as_json) as on_event:
        trained, accuracy = qspinn.train(
            experiment,
            resume=resume,
            device=device,
            progress=lambda done, total: on_event(_event("training", done, total)),
        )
    qspinn.save(trained, path)
    if not isinstance(experiment, qspinn.Experiment):  # STDP leaves no such file: one that is there is another's
        resume.unlink(missing_ok=True)
    if as_json:
        _print_json(_plain(accuracy) | {"data": experiment.data.title, "checkpoint": _text(path)})
    else:
        print(f"data        {experiment.data.title}\n{_accuracy_line(accuracy)}\ncheckpoint  {_text(path)}")


@app.command(epilog="Example: qspinn sensitivity digits_stdp --out runs/digits")
def sensitivity(
    config: Config,
    out: Out = None,
    seed: Seed = None,
    data: Data = "",
    workers: Workers = 0,
    sets: Sets = None,
    synthetic: Synthetic = False,
    as_json: Json = False,
) -> None:
    """Sweep the precision of one tensor at a time and rank the tensors by significance.

    Uses the same folder as `explore`, which then need not repeat the sweep.
    """
    experiment = _experiment(config, seed, data, sets, synthetic)
    folder = _out_folder(out or Path("runs") / experiment.name)
    with _progress(as_json) as on_event:
        curves = qspinn.sensitivity(experiment, folder, n_workers=workers, on_event=on_event)
    if as_json:
        _print_json(_plain(curves))
        return
    heads = ("tensor", "rounding", "harmless at", "points lost per kbit saved")
    table = _table("significance, most significant first", *heads, left=heads[:2])
    for c in curves:
        table.add_row(c.path, c.rounding.value, f"{c.harmless_bits} bit", f"{c.significance:.3g}")
    Console().print(table)


@app.command(epilog="Example: qspinn evaluate runs/digits/model.qspinn --split test")
def evaluate(
    model: Annotated[
        Path, typer.Argument(help="A .qspinn file, or a .safetensors file of local learning.", show_default=False)
    ],
    out: Out = None,
    seed: Seed = None,
    data: Data = "",
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    dataset: Annotated[str, typer.Option(help="Name of the data set; default: what the model was made for.")] = "",
    backend: Annotated[str, typer.Option(help="numba, reference or torch.")] = "numba",
    device: Annotated[str, typer.Option(help="cpu; with the torch backend also cuda or cuda:<i>.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Measure a model's accuracy on a split. --seed draws the input spikes anew; --out stores the predictions."""
    from qspinn.workflow.experiments import SPLITS

    if split not in SPLITS:
        raise ConfigError("--split", "unknown split", got=split, allowed=", ".join(SPLITS))
    if out:
        _out_file(out, model)
    measure = _evaluate_local if model.suffix == ".safetensors" else _evaluate_program
    accuracy, predicted = measure(model, seed, data, split, dataset, backend, device)
    if out:
        from qspinn.files import write_atomic

        write_atomic(out, ("\n".join(map(str, predicted)) + "\n").encode())
    if as_json:
        _print_json(_plain(accuracy))
    else:
        print(_accuracy_line(accuracy))


def _evaluate_program(
    model: Path, seed: int | None, data: str, split: str, dataset: str, backend: str, device: str
) -> tuple[Any, Any]:
    """(accuracy, predictions) of an integer program."""
    from qspinn.program.ops import EventsOp, PoissonOp

    program = qspinn.load(model)
    if seed is not None:
        if not program.ops_of(PoissonOp):
            raise ConfigError(
                "--seed",
                "draws input spikes, and this program takes its spikes as they are given",
                got=seed,
                fix="leave it out",
            )
        import msgspec

        ops = tuple(msgspec.structs.replace(op, seed=seed) if isinstance(op, PoissonOp) else op for op in program.ops)
        program = msgspec.structs.replace(program, ops=ops)
    config = _data_config(program.provenance, bool(program.ops_of(EventsOp)), dataset, data)
    loaded = qspinn.load_data(config)
    if config.file:
        _need_same_classes(loaded, program.provenance, program.labels)
    return qspinn.evaluate(program, getattr(loaded, split), split, backend=backend, device=device)


def _evaluate_local(
    model: Path, seed: int | None, data: str, split: str, dataset: str, backend: str, device: str
) -> tuple[Any, Any]:
    """(accuracy, predictions) of layers that learned locally: there is nothing random in it, and one engine."""
    from qspinn.learning.local.model import load_local

    for name, value, only in (("--seed", seed, None), ("--backend", backend, "numba"), ("--device", device, "cpu")):
        if value != only:
            raise ConfigError(name, "does not apply to layers that learn locally", got=value, fix="leave it out")
    trained = load_local(model)
    config = _data_config(trained.provenance, True, dataset, data)
    loaded = qspinn.load_data(config)
    if config.file:
        _need_same_classes(loaded, trained.provenance, ())
    return qspinn.evaluate(trained, getattr(loaded, split), split)


@app.command(epilog="Example: qspinn inspect runs/digits/model.qspinn")
def inspect(model: Model, out: Out = None, seed: Seed = None, as_json: Json = False) -> None:
    """Show what is in a model: operations, tensors with their formats, memory to the bit. --seed is not used."""
    from qspinn.memory import program_account

    if out:
        _out_file(out, model)
    program = qspinn.load(model)
    account = program_account(program)
    found = {
        "name": program.name,
        "inputs": program.n_inputs,
        "steps": program.n_steps,
        "operations": [_plain(op) for op in program.ops],
        "memory": [_plain(r) | {"total_bits": r.total_bits} for r in account.rows],
        "total_bits": account.total_bits,
        "labels": list(program.labels),
        "notes": [str(note) for note in program.notable()],
        "provenance": program.provenance,
    }
    if out:
        from qspinn.files import write_atomic

        write_atomic(out, _json(found))
    if as_json:
        _print_json(found)
        return
    title = _shown(f"{program.name}: {program.n_inputs} inputs, {program.n_steps} steps")
    heads = ("tensor", "role", "format", "count", "bits", "total bits")
    table = _table(title, *heads, left=heads[:3])
    for r in account.rows:
        fmt = str(program.tensors[r.path].fmt) if r.path in program.tensors else f"{r.bits} bit"
        table.add_row(_shown(r.path), r.role, fmt, f"{r.count:,}", str(r.bits), f"{r.total_bits:,}")
    table.add_row("total", "", "", "", "", f"{account.total_bits:,}", style="bold")
    Console().print(table)
    for note in found["notes"]:
        print(f"note: {_shown(note)}")


def _shown(text: str) -> Text:
    """Text from a file as it is: no markup, and nothing that a terminal would obey."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


@app.command(epilog="Example: qspinn report runs/digits")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of an exploration.", show_default=False)],
    out: Out = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Write the report of a finished exploration again. --seed is not used."""
    if out:
        _out_file(out, *(file for file in run.rglob("*") if file.suffix != ".html"))
    page = qspinn.write_report(run, out)
    if as_json:
        _print_json({"report": _text(page)})
    else:
        print(f"report  {_text(page)}")


@app.command(epilog="Example: qspinn init digits_stdp --out mine.toml")
def init(
    name: Annotated[str, typer.Argument(help="Name of an experiment that comes with the package.")] = "",
    out: Out = None,
    listed: Annotated[bool, typer.Option("--list", help="List the experiments that come with the package.")] = False,
    as_json: Json = False,
) -> None:
    """Write an experiment that comes with the package as a file to edit; a file that is there is kept."""
    from qspinn.exploration.shipped import shipped, what_it_is, write_shipped

    if listed:
        if name or out:
            raise ConfigError("--list", "lists all experiments", got=name or str(out), fix="leave the rest out")
        found = {known: what_it_is(file) for known, file in shipped().items()}
        if as_json:
            _print_json(found)
        else:
            for known, text in found.items():
                print(f"{known:{max(map(len, found))}}  {text}")
        return
    if not name:
        raise ConfigError("name", "is missing", allowed=", ".join(shipped()))
    path = write_shipped(name, out)
    if as_json:
        _print_json({"experiment": _text(path)})
    else:
        print(f"experiment  {_text(path)}\nnext        qspinn explore {shlex.quote(_text(path))}")


def _out_folder(path: Path) -> Path:
    """A folder that a command writes to, checked before the work begins.

    Raises:
        ConfigError: there is something else, or nothing can be written there.
    """
    with _place_errors():
        there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
        if not there.is_dir():
            raise ConfigError(
                "--out",
                "is no folder" if there == path.absolute() else f"{there} is no folder",
                got=str(path),
                fix="choose another place",
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError("--out", "cannot be written to", got=str(path), fix="choose another place")
    return path


@contextmanager
def _place_errors() -> Iterator[None]:
    """Turns what the system says of a place, such as a name that is too long, into an error on --out."""
    try:
        yield
    except OSError as error:
        raise ConfigError("--out", "cannot be written to", got=error.strerror, fix="choose another place") from None


def _out_file(path: Path, *inputs: Path) -> Path:
    """A file that a command writes, checked before the work begins.

    Raises:
        ConfigError: it is one of the command's inputs, there is something else than a file, or nothing can be written.
    """
    with _place_errors():
        if path.is_dir() or not path.name:
            raise ConfigError("--out", "is a folder", got=str(path), allowed="the name of a file")
        if path.exists() and not path.is_file():
            raise ConfigError("--out", "is no regular file", got=str(path), allowed="the name of a file")
        if path.exists() and any(p.exists() and path.samefile(p) for p in inputs):
            raise ConfigError(
                "--out", "is what the command reads, which would be lost", got=str(path), fix="choose another place"
            )
    _out_folder(path.parent)
    return path


def _experiment(config: Path, seed: int | None, data: str, sets: list[str] | None, synthetic: bool = False) -> Any:
    overrides = list(sets or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    if data:
        overrides += [f"data.{key}={json.dumps(text)}" for key, text in _placed(data).items()]  # always text
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        experiment = qspinn.load_experiment(config, overrides)
    for warning in caught:
        err.print(f"note: {warning.message}", markup=False, highlight=False, soft_wrap=True)
    if not synthetic:
        return experiment
    if data:
        raise ConfigError(
            "--synthetic", "takes no data, so --data would not be read", got=data, fix="leave one of the two out"
        )
    if isinstance(experiment, qspinn.LayeredExperiment | qspinn.LocalExperiment):
        return experiment.on_synthetic_data()
    raise ConfigError("--synthetic", "is for experiments on events", got=experiment.data.title, fix="leave it out")


def _placed(data: str) -> dict[str, str]:
    """The keys of a configuration that --data stands for: a folder, or a file of the user's own and its folder."""
    path = Path(data)
    return {"folder": str(path.parent), "file": path.name} if path.suffix.lower() == ".npz" else {"folder": data}


def _data_config(provenance: dict[str, Any], events: bool, name: str, folder: str) -> Any:
    """The data a model was made for, with the numbers of samples, bins and limits of its experiment, or those named."""
    from qspinn.records.record import from_plain

    experiment = provenance.get("experiment")
    stored = experiment.get("data") if isinstance(experiment, dict) else None
    stored = stored if isinstance(stored, dict) else {}
    from qspinn.data.catalog import names

    known = names("events" if events else "images")
    place = _placed(folder) if folder else {}
    name = name or ("npz" if "file" in place else stored.get("name", ""))
    if not name:
        raise ConfigError("--dataset", "the model does not say which data it was made for", allowed=", ".join(known))
    if name not in known:
        raise ConfigError(
            "--dataset", "unknown data set, or not of the model's kind", got=name, allowed=", ".join(known)
        )
    same = stored if name == stored.get("name") else {}
    return from_plain(qspinn.EventData if events else qspinn.DataConfig, {**same, "name": name, **place}, "data")


def _need_same_classes(loaded: Any, provenance: dict[str, Any], labels: tuple[str, ...]) -> None:
    """Refuses data of the user's own whose classes are not those of the model, where it names them, and says where they
    are other data than the model was made from."""
    if labels and loaded.labels != labels:
        raise DataError(
            loaded.name,
            "has other classes than the model",
            got=list(loaded.labels),
            allowed=", ".join(labels),
            fix="give the file the model's classes, in its order, as class_names",
        )
    if provenance.get("data") not in (None, loaded.checksum()):
        err.print(f"note: {loaded.name} holds other data than the model was made from", markup=False, soft_wrap=True)


def _event(stage: str, done: int, total: int) -> Any:
    from qspinn.exploration.workers import Event

    return Event(stage=stage, done=done, total=total)


def _say_what_is_compiled(event: Any) -> None:
    if event.stage.startswith("compiling") and event.done == 0:
        err.print(f"{event.stage}: {event.total}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """A callback for progress events: a bar on a terminal; elsewhere no more than one line on what takes longest."""
    if quiet or not err.is_terminal:
        yield (lambda event: None) if quiet else _say_what_is_compiled
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:15}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    with Progress(*columns, console=err) as bar:
        tasks: dict[str, Any] = {}

        def show(event: Any) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bar.add_task(event.stage, total=event.total, best="")
            best = f"best {event.best}" if event.best else ""
            bar.update(tasks[event.stage], completed=event.done, total=event.total, best=best)

        yield show


def _headline(outcome: Any) -> dict[str, Any]:
    """The result in a few numbers."""
    from qspinn.exploration.outcome import reasons

    winner = next(c for c in outcome.candidates if c["key"] == outcome.winner)
    return {
        "data": outcome.data["name"],
        "feasible": True,
        "winner": winner["candidate"]["label"],
        "memory_reduction": round(outcome.float_bits / winner["bits"], 2),
        "float_bits": outcome.float_bits,
        "winner_bits": winner["bits"],
        "float_test": outcome.float_test,
        "winner_test": outcome.winner_test,
        "difference_points": outcome.test_difference.points,
        "interval_points": [outcome.test_difference.low, outcome.test_difference.high],
        "candidates": len(outcome.candidates),
        "rejected": _reasons(reasons(outcome.rejected)),
        "nearest": [],
        "shared": outcome.data["shared"],
        "seconds": outcome.seconds,
    }


def _reasons(found: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Why candidates were not measured, as plain data."""
    return [{"reason": reason, "candidates": n} for reason, n in found]


def _print_outcome(outcome: Any) -> None:
    """The front as a table, and the answer below it."""
    for pair, n in outcome.data["shared"].items():
        err.print(f"note: {pair} share {n:,} samples, as the data set allows", markup=False, soft_wrap=True)
    by_key = {c["key"]: c for c in outcome.candidates}
    title, heads = f"Pareto front on {outcome.data['name']} (accuracy on validation)", ("", "candidate", "memory")
    table = _table(title, *heads, "less", "accuracy", "reward", left=heads[:2])
    table.add_row("", "float", _size(outcome.float_bits), "1.0x", f"{outcome.float_validation * 100:.2f} %", "")
    for key in reversed(outcome.front):
        c = by_key[key]
        table.add_row(
            "*" if key == outcome.winner else "",
            c["candidate"]["label"],
            _size(c["bits"]),
            f"{outcome.float_bits / c['bits']:.1f}x",
            f"{c['accuracy'] * 100:.2f} %",
            f"{outcome.rewards[key]:.4f}",
            style="bold green" if key == outcome.winner else "",
        )
    Console().print(table)
    d, winner = outcome.test_difference, by_key[outcome.winner]
    print(
        f"{_size(outcome.float_bits)} -> {_size(winner['bits'])} ({outcome.float_bits / winner['bits']:.1f}x) at "
        f"{d.points:+.2f} points on test (95 % interval {d.low:+.2f} to {d.high:+.2f}): "
        f"float {outcome.float_test * 100:.2f} %, winner {outcome.winner_test * 100:.2f} %"
    )
    if outcome.rejected:
        print(f"{len(outcome.rejected)} candidates were not measured; the report says why")


def _size(bits: int) -> str:
    """Bits as kB or MB (decimal)."""
    return f"{bits / 8e6:.2f} MB" if bits >= 8e6 else f"{bits / 8e3:.2f} kB"


def _accuracy_line(a: Any) -> str:
    return (
        f"{a.split}: {a.accuracy * 100:.2f} % of {a.n:,} (95 % interval {a.low * 100:.2f} to {a.high * 100:.2f}), "
        f"{a.spikes_per_sample:.1f} spikes per sample"
    )


def _text(path: Path) -> str:
    """A path to print, also where it is no text."""
    return os.fsencode(path).decode(errors="replace")


def _plain(value: Any) -> Any:
    """A record, or a list of them, as plain data."""
    import msgspec

    return msgspec.to_builtins(value)


def _json(value: Any) -> bytes:
    """Plain data as JSON that people read too."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def _table(title: str | Text, *heads: str, left: Container[str]) -> Table:
    """An empty table with these columns; numbers, all but those named in left, are aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right")
    return table


def _print_json(value: Any) -> None:
    print(_json(value).decode())

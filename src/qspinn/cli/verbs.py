"""Commands of the command line; each checks its arguments, makes one Python call and prints the result.

What a command needs is imported where it is used: help is shown without any of it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

import qspinn
from qspinn import __version__
from qspinn.cli.evaluation import evaluate_local, evaluate_program
from qspinn.cli.exit_codes import CODES, INTERRUPTED
from qspinn.cli.inputs import read_experiment
from qspinn.cli.options import Config, Data, Json, Model, Out, Seed, Sets, Synthetic, Workers
from qspinn.cli.output import (
    accuracy_line,
    errors_console,
    headline,
    json_bytes,
    nearest_as_data,
    path_text,
    plain,
    print_json,
    print_outcome,
    print_table,
    printable,
    reasons_as_data,
    table_of,
)
from qspinn.cli.places import output_file, output_folder
from qspinn.cli.progress import progress, training_event
from qspinn.errors import ConfigError, TargetError

Verb = TypeVar("Verb", bound=Callable[..., None])
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: loading rich takes longer than all the rest of it
    epilog=CODES,
    help="Find the cheapest integer version of a spiking network that keeps its accuracy.",
)


def _command(example: str, *paragraphs: str) -> Callable[[Verb], Verb]:
    """Registers a function as a command that shows an example, and these paragraphs, below its help."""

    def register(verb: Verb) -> Verb:
        summary = " ".join((verb.__doc__ or "").partition("\n\n")[0].split())  # whole: by itself it would be cut off
        return app.command(short_help=summary, epilog="\n\n".join((f"Example: {example}", *paragraphs)))(verb)

    return register


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find the cheapest integer version of a spiking network that keeps its accuracy."""


@_command("qspinn explore digits_stdp --out runs/digits", CODES)
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

    experiment = read_experiment(config, seed, data, sets, synthetic)
    folder = output_folder(out or Path("runs") / experiment.name)
    try:
        with progress(as_json) as on_event:
            outcome = search(experiment, folder, n_workers=workers, on_event=on_event)
    except KeyboardInterrupt:
        command = shlex.join(["qspinn", *sys.argv[1:]])
        errors_console().print(
            f"\ninterrupted; everything finished is kept. To continue: {command}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        sys.exit(INTERRUPTED)
    except TargetError as error:
        if as_json:
            print_json(
                {
                    "data": experiment.data.title,
                    "feasible": False,
                    "nearest": nearest_as_data(error.nearest),
                    "rejected": reasons_as_data(error.rejected),
                }
            )
        raise
    model, page = (path_text(folder / name) for name in (outcome.model, "report.html"))
    if as_json:
        print_json(headline(outcome) | {"model": model, "report": page})
    else:
        print_outcome(outcome)
        print(f"model   {model}\nreport  {page}")
    qspinn.write_report(folder)


@_command("qspinn train digits_stdp --out runs/float.safetensors")
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
    experiment = read_experiment(config, seed, data, sets, synthetic)
    path = output_file(out or Path("runs") / f"{experiment.name}.safetensors", config)
    resume = path.with_name(f".{path.name}.training")
    with progress(as_json) as on_event:
        trained, accuracy = qspinn.train(
            experiment,
            resume=resume,
            device=device,
            progress=lambda done, total: on_event(training_event("training", done, total)),
        )
    qspinn.save(trained, path)
    if not isinstance(experiment, qspinn.Experiment):  # STDP leaves no such file: one that is there is another's
        resume.unlink(missing_ok=True)
    if as_json:
        print_json(plain(accuracy) | {"data": experiment.data.title, "checkpoint": path_text(path)})
    else:
        print(f"data        {experiment.data.title}\n{accuracy_line(accuracy)}\ncheckpoint  {path_text(path)}")


@_command("qspinn sensitivity digits_stdp --out runs/digits")
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
    experiment = read_experiment(config, seed, data, sets, synthetic)
    folder = output_folder(out or Path("runs") / experiment.name)
    with progress(as_json) as on_event:
        curves = qspinn.sensitivity(experiment, folder, n_workers=workers, on_event=on_event)
    if as_json:
        print_json(plain(curves))
        return
    heads = ("tensor", "rounding", "harmless at", "points lost per kbit saved")
    table = table_of("significance, most significant first", *heads, left=heads[:2])
    for c in curves:
        table.add_row(c.path, c.rounding.value, f"{c.harmless_bits} bit", f"{c.significance:.3g}")
    print_table(table)


@_command("qspinn evaluate runs/digits/model.qspinn --split test")
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
        output_file(out, model)
    measure = evaluate_local if model.suffix == ".safetensors" else evaluate_program
    accuracy, predicted = measure(model, seed, data, split, dataset, backend, device)
    if out:
        from qspinn.files import write_atomic

        write_atomic(out, ("\n".join(map(str, predicted)) + "\n").encode())
    if as_json:
        print_json(plain(accuracy))
    else:
        print(accuracy_line(accuracy))


@_command("qspinn inspect runs/digits/model.qspinn")
def inspect(model: Model, out: Out = None, seed: Seed = None, as_json: Json = False) -> None:
    """Show what is in a model: operations, tensors with their formats, memory to the bit. --seed is not used."""
    from qspinn.memory import program_account

    if out:
        output_file(out, model)
    program = qspinn.load(model)
    if not isinstance(program, qspinn.Program):
        raise ConfigError(
            str(model), "holds a float network", got=type(program).__name__, allowed="a program (.qspinn)"
        )
    account = program_account(program)
    contents = {
        "name": program.name,
        "inputs": program.n_inputs,
        "steps": program.n_steps,
        "operations": [plain(op) for op in program.ops],
        "memory": [plain(r) | {"total_bits": r.total_bits} for r in account.rows],
        "total_bits": account.total_bits,
        "labels": list(program.labels),
        "notes": [str(note) for note in program.notable()],
        "provenance": program.provenance,
    }
    if out:
        from qspinn.files import write_atomic

        write_atomic(out, json_bytes(contents))
    if as_json:
        print_json(contents)
        return
    title = printable(f"{program.name}: {program.n_inputs} inputs, {program.n_steps} steps")
    heads = ("tensor", "role", "format", "count", "bits", "total bits")
    table = table_of(title, *heads, left=heads[:3])
    for r in account.rows:
        fmt = str(program.tensors[r.path].fmt) if r.role == "parameter" else f"{r.bits} bit"
        table.add_row(printable(r.path), r.role, fmt, f"{r.count:,}", str(r.bits), f"{r.total_bits:,}")
    table.add_row("total", "", "", "", "", f"{account.total_bits:,}", style="bold")
    print_table(table)
    for remark in contents["notes"]:
        print(f"note: {printable(remark)}")


@_command("qspinn report runs/digits")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of an exploration.", show_default=False)],
    out: Out = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Write the report of a finished exploration again. --seed is not used."""
    if out:
        output_file(out, *(file for file in run.rglob("*") if file.suffix != ".html"))
    page = qspinn.write_report(run, out)
    if as_json:
        print_json({"report": path_text(page)})
    else:
        print(f"report  {path_text(page)}")


@_command("qspinn init digits_stdp --out mine.toml")
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
        summaries = {known: what_it_is(file) for known, file in shipped().items()}
        if as_json:
            print_json(summaries)
        else:
            for known, text in summaries.items():
                print(f"{known:{max(map(len, summaries))}}  {text}")
        return
    if not name:
        raise ConfigError("name", "is missing", allowed=", ".join(shipped()))
    path = write_shipped(name, out)
    if as_json:
        print_json({"experiment": path_text(path)})
    else:
        print(f"experiment  {path_text(path)}\nnext        qspinn explore {shlex.quote(path_text(path))}")

"""Commands of the command line; each checks its arguments, makes one Python call and prints the result.

What a command needs is imported where it is used: help is shown without any of it.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

import qspinn
from qspinn import __version__
from qspinn.cli.evaluation import evaluate_model
from qspinn.cli.exit_codes import CODES, INTERRUPTED, Interrupted
from qspinn.cli.inputs import data_of_provenance, data_places, need_program, read_experiment, run_places
from qspinn.cli.options import Config, Data, Json, Model, Out, OutFile, Seed, Sets, Synthetic, Workers
from qspinn.cli.output import (
    accuracy_line,
    errors_console,
    escaped,
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
        _interrupted("everything finished is kept")
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
    qspinn.write_report(folder)  # before anything is printed: whoever reads it may stop reading
    model, page = (path_text(folder / name) for name in (outcome.model, "report.html"))
    if as_json:
        print_json(headline(outcome) | {"model": model, "report": page})
    else:
        print_outcome(outcome)
        print(f"model   {escaped(model)}\nreport  {escaped(page)}")


def _interrupted(kept: str) -> NoReturn:
    """Says what an interrupted command has kept, if anything, and how to continue it, and ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do takes no time
    command = shlex.join(["qspinn", *sys.argv[1:]])
    line = f"; {kept}. To continue: {escaped(command)}" if kept else ""
    errors_console().print(f"\ninterrupted{line}", soft_wrap=True, markup=False, highlight=False)
    raise Interrupted(INTERRUPTED)


@_command("qspinn train digits_stdp --out runs/float.safetensors")
def train(
    config: Config,
    out: OutFile = None,
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
    path = output_file(out or Path("runs") / f"{experiment.name}.safetensors", config, *data_places(experiment.data))
    keeps_epochs = not isinstance(experiment, qspinn.Experiment)  # STDP leaves no such file: one there is another's
    resume = path.with_name(f".{path.name}.training")
    try:
        with progress(as_json) as on_event:
            trained, accuracy = qspinn.train(
                experiment,
                resume=resume if keeps_epochs else None,
                device=device,
                progress=lambda done, total: on_event(training_event("training", done, total)),
            )
    except KeyboardInterrupt:
        _interrupted("the finished epochs are kept" if keeps_epochs and resume.exists() else "")
    qspinn.save(trained, path)
    if keeps_epochs:
        resume.unlink(missing_ok=True)
    if as_json:
        print_json(plain(accuracy) | {"data": experiment.data.title, "checkpoint": path_text(path)})
    else:
        title, where = escaped(experiment.data.title), escaped(path_text(path))
        print(f"data        {title}\n{accuracy_line(accuracy)}\ncheckpoint  {where}")


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
    try:
        with progress(as_json) as on_event:
            curves = qspinn.sensitivity(experiment, folder, n_workers=workers, on_event=on_event)
    except KeyboardInterrupt:
        _interrupted("everything finished is kept")
    if as_json:
        print_json(plain(curves))
        return
    heads = ("tensor", "rounding", "harmless at", "points lost per kbit saved")
    table = table_of("significance, most significant first", *heads, left=heads[:2])
    for c in curves:
        table.add_row(printable(c.path), c.rounding.value, f"{c.harmless_bits} bit", f"{c.significance:.3g}")
    print_table(table)


@_command("qspinn evaluate runs/digits/model.qspinn --split test")
def evaluate(
    model: Annotated[
        Path, typer.Argument(help="A .qspinn file, or a .safetensors file of local learning.", show_default=False)
    ],
    out: OutFile = None,
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
    accuracy, predicted = evaluate_model(model, out, seed, data, split, dataset, backend, device)
    if out:
        from qspinn.files import write_atomic

        write_atomic(out, ("\n".join(map(str, predicted)) + "\n").encode())
    if as_json:
        print_json(plain(accuracy))
    else:
        print(accuracy_line(accuracy))


@_command("qspinn inspect runs/digits/model.qspinn")
def inspect(model: Model, out: OutFile = None, seed: Seed = None, as_json: Json = False) -> None:
    """Show what is in a model: operations, tensors with their formats, memory to the bit. --seed is not used."""
    from qspinn.memory import program_account

    if out:
        output_file(out, model)
    need_program(model)
    program = qspinn.load(model)
    if out:
        output_file(out, model, *data_places(data_of_provenance(program.provenance)))
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
    out: OutFile = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Write the report of a finished exploration again. --seed is not used."""
    if out:
        output_file(out, *run_places(run), written=(".html",))
    page = qspinn.write_report(run, out)
    if as_json:
        print_json({"report": path_text(page)})
    else:
        print(f"report  {escaped(path_text(page))}")


@_command("qspinn init digits_stdp --out mine.toml")
def init(
    name: Annotated[str, typer.Argument(help="Name of an experiment that comes with the package.")] = "",
    out: OutFile = None,
    listed: Annotated[bool, typer.Option("--list", help="List the experiments that come with the package.")] = False,
    as_json: Json = False,
) -> None:
    """Write an experiment that comes with the package as a file to edit; a file that is there is kept."""
    from qspinn.exploration.shipped import shipped, summary_of, write_shipped

    if listed:
        if name or out:
            raise ConfigError("--list", "lists all experiments", got=name or str(out), fix="leave the rest out")
        summaries = {known: summary_of(file) for known, file in shipped().items()}
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
        where = escaped(path_text(path))
        print(f"experiment  {where}\nnext        qspinn explore {escaped(shlex.quote(path_text(path)))}")

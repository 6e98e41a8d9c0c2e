"""Arguments and options that several commands share, each with its help and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qspinn.cli.places import output_file_path, output_path

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
Out = Annotated[Path | None, typer.Option(parser=output_path, metavar="<path>", help="Folder to write to.")]
OutFile = Annotated[
    Path | None, typer.Option("--out", parser=output_file_path, metavar="<path>", help="File to write to.")
]
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

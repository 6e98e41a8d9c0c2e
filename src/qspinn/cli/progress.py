"""Progress of long work: a bar on a terminal, and elsewhere one line on what takes longest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qspinn.cli.output import errors_console


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Callback for progress events: a bar on a terminal, at most one line on compiling elsewhere, nothing if quiet."""
    if quiet or not errors_console().is_terminal:
        yield (lambda event: None) if quiet else _compiling_line
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
    with Progress(*columns, console=errors_console()) as bar:
        tasks: dict[str, Any] = {}

        def show(event: Any) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bar.add_task(event.stage, total=event.total, best="")
            best = f"best {event.best}" if event.best else ""
            bar.update(tasks[event.stage], completed=event.done, total=event.total, best=best)

        yield show


def training_event(stage: str, done: int, total: int) -> Any:
    """Progress event of a training that has done so many of its steps."""
    from qspinn.exploration.workers import Event

    return Event(stage=stage, done=done, total=total)


def _compiling_line(event: Any) -> None:
    if event.stage.startswith("compiling") and event.done == 0:
        errors_console().print(f"{event.stage}: {event.total}", markup=False, highlight=False, soft_wrap=True)

"""Printing: results as tables, as lines and as JSON; what is not a result goes to standard error."""

from __future__ import annotations

import json
import os
import sys
import typing
from collections.abc import Container, Iterable
from functools import cache
from pathlib import Path
from typing import Any

if typing.TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


WIDEST, NARROWEST = 10_000, 20
"""Columns of a table where nothing says how many there are, and the fewest that it is printed in."""


@cache
def errors_console() -> Console:
    """The console on standard error: coloured on a terminal, plain text elsewhere."""
    from rich.console import Console

    return Console(stderr=True)


def note(text: str) -> None:
    """Prints a remark beside the result, on standard error."""
    errors_console().print(escaped(f"note: {text}"), markup=False, highlight=False, soft_wrap=True)


def headline(outcome: Any) -> dict[str, Any]:
    """Result of an exploration in a few numbers, as plain data."""
    from qspinn.exploration.names import readable_name
    from qspinn.exploration.outcome import reasons

    winner = next(c for c in outcome.candidates if c["key"] == outcome.winner)
    return {
        "data": outcome.data["name"],
        "feasible": True,
        "winner": winner["candidate"]["label"],
        "winner_name": readable_name(winner["candidate"]["label"]),
        "memory_reduction": round(outcome.float_bits / winner["bits"], 2),
        "float_bits": outcome.float_bits,
        "winner_bits": winner["bits"],
        "float_test": outcome.float_test,
        "winner_test": outcome.winner_test,
        "difference_points": outcome.test_difference.points,
        "interval_points": [outcome.test_difference.low, outcome.test_difference.high],
        "candidates": len(outcome.candidates),
        "rejected": reasons_as_data(reasons(outcome.rejected)),
        "nearest": [],
        "shared": outcome.data["shared"],
        "seconds": outcome.seconds,
    }


def reasons_as_data(reasons: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Reasons why candidates were not measured, and the number of candidates of each, as plain data."""
    return [{"reason": reason, "candidates": n} for reason, n in reasons]


def print_outcome(outcome: Any) -> None:
    """Prints the Pareto front as a table, and the best candidate beside the float network below it."""
    from qspinn.exploration.names import readable_name

    for pair, n in outcome.data["shared"].items():
        note(f"{pair} share {n:,} samples, as the data set allows")
    by_key = {c["key"]: c for c in outcome.candidates}
    title = printable(f"Pareto front on {outcome.data['name']} (accuracy on validation)")
    heads = ("", "candidate", "memory")
    table = table_of(title, *heads, "less", "accuracy", "reward", left=heads[:2])
    table.add_row("", "float", _size(outcome.float_bits), "1.0x", f"{outcome.float_validation * 100:.2f} %", "")
    for key in reversed(outcome.front):
        c = by_key[key]
        table.add_row(
            "*" if key == outcome.winner else "",
            printable(c["candidate"]["label"]),
            _size(c["bits"]),
            f"{outcome.float_bits / c['bits']:.1f}x",
            f"{c['accuracy'] * 100:.2f} %",
            f"{outcome.rewards[key]:.4f}",
            style="bold green" if key == outcome.winner else "",
        )
    print_table(table)
    _print_legend([by_key[key]["candidate"]["label"] for key in outcome.front])
    d, winner = outcome.test_difference, by_key[outcome.winner]
    print(f"winner: {escaped(readable_name(winner['candidate']['label']))}")
    print(
        f"{_size(outcome.float_bits)} -> {_size(winner['bits'])} ({outcome.float_bits / winner['bits']:.1f}x) at "
        f"{d.points:+.2f} points on test (95 % interval {d.low:+.2f} to {d.high:+.2f}): "
        f"float {outcome.float_test * 100:.2f} %, winner {outcome.winner_test * 100:.2f} %"
    )
    if outcome.rejected:
        print(f"{len(outcome.rejected)} candidates were not measured; the report says why")


def _print_legend(labels: list[str]) -> None:
    """Prints the meaning of each abbreviation in these labels of candidates."""
    from qspinn.exploration.names import legend

    entries = legend(labels)
    for sign, meaning in entries:
        print(f"  {sign:{max(len(sign) for sign, _ in entries)}}  {meaning}")


def nearest_as_data(nearest: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nearest candidates of a search without a winner, each with its readable name, as plain data."""
    from qspinn.exploration.names import readable_name

    return [{**candidate, "name": readable_name(candidate["label"])} for candidate in nearest]


def table_of(title: str | Text, *heads: str, left: Container[str]) -> Table:
    """An empty table with these columns; numbers, all but those named in left, are aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Prints a table on standard output, as wide as its content; on a terminal at most as wide as that."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDEST)
    elif console.width < NARROWEST:
        console = Console(width=NARROWEST)
    console.print(table)


def printable(text: str) -> Text:
    """Text from a file as it is: no markup, and nothing that a terminal would obey."""
    from rich.text import Text

    return Text(escaped(text))


def escaped(text: str) -> str:
    """Text on one line in which what a terminal would obey is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def accuracy_line(a: Any) -> str:
    """Accuracy of a split in percent with its confidence interval, and the spikes of a sample."""
    return (
        f"{a.split}: {a.accuracy * 100:.2f} % of {a.n:,} (95 % interval {a.low * 100:.2f} to {a.high * 100:.2f}), "
        f"{a.spikes_per_sample:.1f} spikes per sample"
    )


def _size(bits: int) -> str:
    """Bits as kB or MB (decimal)."""
    return f"{bits / 8e6:.2f} MB" if bits >= 8e6 else f"{bits / 8e3:.2f} kB"


def path_text(path: Path) -> str:
    """A path to print, also where it is no text."""
    return os.fsencode(path).decode(errors="replace")


def plain(value: Any) -> Any:
    """A record, or a list of them, as plain data."""
    import msgspec

    return msgspec.to_builtins(value)


def print_json(value: Any) -> None:
    """Prints plain data as JSON on standard output; in ASCII where its encoding lacks a letter."""
    text = json_bytes(value).decode()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)  # only texts hold others
    print(text)


def json_bytes(value: Any) -> bytes:
    """Plain data as JSON that people read too."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=1)

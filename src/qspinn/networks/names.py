"""Checks that all families of networks share: names, steps and constants."""

from __future__ import annotations

from qspinn.arrays import LARGEST_FACTOR
from qspinn.records.record import need


def need_name(where: str, name: str, *others: str) -> None:
    """A name of which paths, attributes of modules and keywords (`a.w` as `a__w`) can be made, and be told apart."""
    ok = name.isidentifier() and "__" not in name and name == name.strip("_") and name not in others
    need(ok, where, name, "a name of letters, digits and single _ between them, other than " + " and ".join(others))


def need_size(where: str, x: float) -> None:
    """A number of which quotients and products stay numbers in the float32 that networks compute in."""
    need(
        x == 0 or 1 / LARGEST_FACTOR <= abs(x) <= LARGEST_FACTOR,
        where,
        x,
        f"0, or sizes of {1 / LARGEST_FACTOR:g} to {LARGEST_FACTOR:g}",
    )


def need_steps(length: str, step_ms: float, n_steps: int) -> None:
    """A network's steps have a length, given as `length`, and a number that a program can hold."""
    need(1e-9 <= step_ms <= 1e9, f"network.{length}", step_ms, "1e-9..1e9 ms")
    need(1 <= n_steps <= 1 << 15, "network.n_steps", n_steps, "1..32768")

"""Command line: argument parsing and printing only; each verb is one Python call of the same name.

What a verb needs is imported where it is used: help is shown without any of it.

Exit codes: 0 done; 1 failed; 2 bad usage, configuration or input, or a library is missing; 3 no candidate meets the
target; 130 interrupted.
"""

from __future__ import annotations

from qspinn.cli.entry import main
from qspinn.cli.verbs import app, evaluate, explore, init, inspect, report, sensitivity, train

__all__ = ["app", "evaluate", "explore", "init", "inspect", "main", "report", "sensitivity", "train"]

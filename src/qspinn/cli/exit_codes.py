"""Exit codes of the command line."""

from __future__ import annotations


class Interrupted(SystemExit):
    """End of an interrupted command that has said what it keeps."""


FAILED, BAD_INPUT, NO_CANDIDATE, INTERRUPTED = 1, 2, 3, 130
CODES = (
    "Exit codes: 0 done; 1 the run failed; 2 bad usage, configuration or input, or a library is missing; 3 no "
    "candidate meets the target; 130 interrupted."
)
"""Sentence of the help that says what the exit codes mean."""

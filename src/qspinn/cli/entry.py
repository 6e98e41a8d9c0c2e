"""Entry point of the command line: runs the command and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from qspinn.cli.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, NO_CANDIDATE, Interrupted
from qspinn.cli.output import errors_console, escaped
from qspinn.cli.verbs import app
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


def main() -> None:
    """Entry point: turns errors into one line and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads would spin where compiled passes run
    _open_streams()
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
        reported = missing(error, f"qspinn {' '.join(sys.argv[1:2])}")
        if not isinstance(reported, QSpinnError):
            raise
        _fail(reported, BAD_INPUT)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED and not isinstance(end, Interrupted):  # typer itself ends without a word
            print("\ninterrupted", file=sys.stderr)
        raise
    except OSError as error:  # where results are printed to is full or gone
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed there at exit
        _fail(RunError(str(error.filename or "output"), "cannot be read or written", got=error.strerror), FAILED)


def _open_streams() -> None:
    """Opens the standard streams that the caller has closed, so that printing to them does nothing, and has standard
    output write what its encoding lacks as an escape: no result is lost over the name of a file."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(error: QSpinnError, code: int) -> None:
    line = escaped(f"error: {error}")
    errors_console().print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)

"""`python -m qspinn` is the command line."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress


def main() -> None:
    """Entry point: loads the command line and runs it, also where it is interrupted while it loads."""
    try:
        from qspinn.cli import main as command

        command()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if end.code in (None, 0) and "numba" in sys.modules:
            _leave()
        raise


def _leave() -> None:
    """Ends a program that is done without taking the interpreter apart, which takes most of a second once Numba is
    loaded. What was registered for the end of the program has its turn, and results are written out before."""
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # else the usual way says what is wrong with the streams
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()

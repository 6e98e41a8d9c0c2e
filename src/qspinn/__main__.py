"""`python -m qspinn` is the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: loads the command line and runs it, also where it is interrupted while it loads."""
    try:
        from qspinn.cli import main as command

        command()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

"""`python -m qspinn` is the command line."""

from qspinn.cli import main

main()

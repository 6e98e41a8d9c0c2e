"""The compiled, event-driven engine for CPUs: `engine` runs a program, `competing` and `layered` its populations."""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)

"""The batched engine in torch operations, on CPUs and CUDA devices: `engine` runs a program."""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)

"""Tests for authors of backends: the contract every backend must keep, programs to test it on, and broken backends."""

from __future__ import annotations

from qspinn.testing.broken import BrokenBackend, Fault
from qspinn.testing.contract import BackendContract
from qspinn.testing.programs import Case, adversarial, build, observed, random_case, random_recipe, recipes

__all__ = [
    "BackendContract",
    "BrokenBackend",
    "Case",
    "Fault",
    "adversarial",
    "build",
    "observed",
    "random_case",
    "random_recipe",
    "recipes",
]

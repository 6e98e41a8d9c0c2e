"""Data sets, their splits, and encoders."""

from __future__ import annotations

from qspinn.data.dataset import DataConfig, Dataset, Split, load

__all__ = ["DataConfig", "Dataset", "Split", "load"]

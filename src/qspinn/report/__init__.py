"""The report of an exploration: one self-contained HTML page."""

from __future__ import annotations

from qspinn.report.page import write_report

__all__ = ["write_report"]

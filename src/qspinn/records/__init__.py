"""Configuration records: `record` checks values wherever they come from, `plain` reads JSON and assignments, `words`
knows the words of other libraries."""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)

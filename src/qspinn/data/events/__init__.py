"""Recordings of event cameras and other sensors of events: readers, bins, and data sets with their splits."""

from __future__ import annotations

from qspinn import former

__getattr__ = former.names_of(__name__)

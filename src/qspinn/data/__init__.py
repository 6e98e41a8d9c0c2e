"""Data sets, their splits, and encoders: `images`, `events`, and the `catalog` of the sets that are known by name."""

from __future__ import annotations

from qspinn.data.catalog import load, load_events, load_recordings
from qspinn.data.events.dataset import EventData, EventDataset, EventName
from qspinn.data.events.event_set import EventSet
from qspinn.data.images.dataset import DataConfig, Dataset, Split

__all__ = [
    "DataConfig",
    "Dataset",
    "EventData",
    "EventDataset",
    "EventName",
    "EventSet",
    "Split",
    "load",
    "load_events",
    "load_recordings",
]

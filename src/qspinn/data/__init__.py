"""Data sets, their splits, and encoders: `images`, `events`, the user's `own`, and the `catalog` of all that have a
name."""

from __future__ import annotations

from qspinn.data.catalog import load, load_events, load_recordings
from qspinn.data.events.dataset import EventData, EventDataset, EventName
from qspinn.data.events.event_set import EventSet
from qspinn.data.images.dataset import DataConfig, Dataset, Split
from qspinn.data.own.recordings import Recordings

__all__ = [
    "DataConfig",
    "Dataset",
    "EventData",
    "EventDataset",
    "EventName",
    "EventSet",
    "Recordings",
    "Split",
    "load",
    "load_events",
    "load_recordings",
]

"""Event recordings in a run's folder: written once, mapped by every worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qspinn.data import EventData, EventDataset, EventSet
from qspinn.exploration.family import Files
from qspinn.exploration.tasks import keep_array, map_array
from qspinn.records.record import content_key


def describe(dataset: EventDataset) -> dict[str, Any]:
    """Facts on the recordings for a report."""
    return {
        "shape": list(dataset.shape),
        "n_steps": dataset.n_steps,
        "bin_ms": dataset.bin_ms,
        "skipped": list(dataset.skipped),
    }


def store(folder: Path, config: EventData, dataset: EventDataset) -> Files:
    """Files of the training and validation splits, and of what training takes where that has finer bins."""
    key = content_key(config, dataset.checksum())[:16]
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    files: Files = {}
    learned, per_step = dataset.learned()
    parts = [("train", dataset.train), ("validation", dataset.validation)]
    for name, events in parts + [("learned", learned)] * (per_step > 1):
        whole = events.compact()
        arrays = {"offsets": whole.offsets, "index": whole.index, "count": whole.count, "labels": whole.labels}
        files[name] = {
            "shape": list(dataset.shape),
            "max_count": dataset.max_count,
            "bin_ms": dataset.bin_ms,
            "per_step": per_step,
            "sha256": {},
        }
        for kind, array in arrays.items():
            if array is not None:
                path = folder / "cache" / f"{name}-{key}.{kind}.npy"
                files[name][kind] = str(path)
                files[name]["sha256"][kind] = keep_array(path, array)
    return files


def mapped(of: dict[str, Any]) -> EventSet:
    """A split whose events stay on disk until they are used.

    Raises:
        RunError: a file holds something else than what was stored.
    """
    arrays = {kind: map_array(of[kind], sha256) for kind, sha256 in of["sha256"].items()}
    return EventSet(
        offsets=arrays["offsets"],
        index=arrays["index"],
        count=arrays.get("count"),
        shape=tuple(of["shape"]),
        labels=arrays["labels"],
    )

"""Records of measured claims: benchmarks/results/TOPIC.json, one record per claim."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def commit() -> str:
    """Short hash of the commit that is measured, marked where the tree differs from it; empty without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    if shutil.which("git") is None:
        return ""
    dirty = git("status", "--porcelain", "--", "src", "experiments")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if dirty else "")


def machine() -> str:
    """Processor and core count, without a host name."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def claim(
    text: str,
    values: list[float],
    unit: str,
    target: str,
    met: bool | None,
    *,
    command: str,
    seeds: list[int] | None = None,
    peer: str | None = None,
    digits: int = 2,
    note: str | None = None,
) -> dict[str, Any]:
    """One record; value is the median of the values, spread their range."""
    return {
        "claim": text,
        "value": round(median(values), digits),
        "unit": unit,
        "target": target,
        "met": met,
        "spread": [round(min(values), digits), round(max(values), digits)],
        "seeds": seeds or [],
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "peer": peer,
        "note": note,
        "date": datetime.date.today().isoformat(),
    }


def write(topic: str, records: list[dict[str, Any]]) -> Path:
    """Stores the records of a topic."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{topic}.json"
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    return path

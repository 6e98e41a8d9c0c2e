"""Renders all benchmarks/results/*.json into benchmarks/README.md, and lists what is not met: make bench-table."""

from __future__ import annotations

import json

from claims import RESULTS, ROOT

HEAD = """# Measurements

Rendered by `make bench-table` from `results/*.json`; do not edit. Value: median over seeds or runs; spread: smallest
and largest. Accuracies are in percent, differences in points. Choices were made on the validation split (the last
10,000 images of MNIST's training file); test figures were taken once, after choosing.
"""


def row(record: dict) -> str:
    """One table row."""
    mark = {True: "yes", False: "**no**", None: "-"}[record["met"]]
    low, high = record["spread"]
    spread = f"{low:g} … {high:g}" if low != high else ""
    cells = [record["claim"], f"{record['value']:g} {record['unit']}".strip(), spread, record["target"], mark,
             record["peer"] or "", f"`{record['command']}`"]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def main() -> None:
    """Writes benchmarks/README.md."""
    lines, missed = [HEAD], []
    for path in sorted(RESULTS.glob("*.json")):
        records = json.loads(path.read_text())
        lines += [f"## {path.stem}", "", "| what | value | spread | target | met | peer | command |",
                  "|---|---|---|---|---|---|---|", *map(row, records), ""]
        first = records[0]
        lines += [f"Machine: {first['machine']}. Commit {first['commit']}, {first['date']}.", ""]
        lines += [f"- {r['claim']}: {r['note']}" for r in records if r.get("note")] + [""]
        missed += [f"- {path.stem}: {r['claim']}: {r['value']:g} {r['unit']}, target {r['target']}"
                   for r in records if r["met"] is False]
    lines += ["## Not met", "", *(missed or ["Every target above is met."]), ""]
    (ROOT / "benchmarks" / "README.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()

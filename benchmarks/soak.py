"""Changed program files by the thousand: each is refused by the loader, or runs alike in every engine.

Usage: soak.py [--seconds 600 | --mutations N] [--seed 0] [--workers 2] [--dry] | --repeat SEED NUMBER

Appends a record to results/soak.json. A fault is printed with its seed and number; --repeat judges that one again, in
this process. Exit status 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from claims import RESULTS, claim, write
from qspinn.testing.soak import Verdict, counted, judged, soak

TELL_S = 5.0


def record(verdicts: list[Verdict], seed: int, seconds: float, command: str) -> dict[str, Any]:
    """The summary of a trial."""
    faults = [v for v in verdicts if v.outcome.fault]
    made = claim(
        f"{len(verdicts)} changed program files, neither refused by name nor alike in all engines",
        [len(faults)],
        "",
        "0",
        not faults,
        seeds=[seed],
        command=command,
    )
    return made | {
        "outcomes": counted(verdicts),
        "seconds": round(seconds),
        "faults": [f"{seed} {v.number} {v.outcome.value}: {v.detail}" for v in faults[:50]],
    }


def trial(arguments: argparse.Namespace) -> list[Verdict]:
    """Verdicts of a trial; tells every few seconds how far it is, and every fault at once."""
    verdicts: list[Verdict] = []
    started = told = time.monotonic()
    seconds = 0.0 if arguments.mutations else arguments.seconds
    for verdict in soak(arguments.seed, seconds=seconds, mutations=arguments.mutations, n_workers=arguments.workers):
        verdicts.append(verdict)
        if verdict.outcome.fault:
            print(f"{arguments.seed} {verdict.number} {verdict.outcome.value}: {verdict.detail}", flush=True)
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            print(f"{told - started:.0f} s: {len(verdicts)} files, {counted(verdicts)}", flush=True)
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--mutations", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write nothing to results")
    parser.add_argument("--repeat", type=int, nargs=2, metavar=("SEED", "NUMBER"))
    arguments = parser.parse_args()
    if arguments.repeat:
        verdict = judged(*arguments.repeat)
        print(verdict.outcome.value, verdict.detail)
        return int(verdict.outcome.fault)
    started = time.monotonic()
    verdicts = trial(arguments)
    amount = f"--mutations {arguments.mutations}" if arguments.mutations else f"--seconds {arguments.seconds:g}"
    made = record(
        verdicts,
        arguments.seed,
        time.monotonic() - started,
        f"python benchmarks/soak.py {amount} --seed {arguments.seed}",
    )
    print(json.dumps(made["outcomes"]))
    if not arguments.dry:
        path = RESULTS / "soak.json"
        write("soak", [*(json.loads(path.read_text()) if path.exists() else []), made])
    return int(made["value"] > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Selection of the winner, its measurement once on test, and the record of the whole exploration."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections import Counter
from typing import Any

import msgspec
import numpy as np

from qspinn import __version__, former
from qspinn.errors import TargetError
from qspinn.exploration import tasks as ev
from qspinn.exploration.family import AnyDataset, AnyExperiment, candidate_of, family_of
from qspinn.exploration.pareto import pareto_front
from qspinn.exploration.sensitivity import Significance
from qspinn.exploration.statistics import Difference, paired_difference
from qspinn.exploration.workers import is_measured
from qspinn.memory import MemoryAccount
from qspinn.records.record import to_plain

NEAREST = 3
"""How many of the nearest candidates an error names."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an exploration, as written to result.json.

    Accuracies are shares in 0..1: on validation for the search, on test for the baseline and the winner only.
    `model` is the name of the winner's file.
    """

    experiment: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]
    float_bits: int
    float_memory: list[dict[str, Any]]
    floats: list[dict[str, Any]]
    significance: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    front: list[str]
    admitted: list[str]
    winner: str
    rewards: dict[str, float]
    float_validation: float
    winner_validation: float
    float_test: float
    winner_test: float
    test_difference: Difference
    confusion: list[list[int]]
    seconds: float
    model: str = "model.qspinn"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Selection of candidates by target, Pareto front and reward, against the float baseline.

    Attributes:
        float_accuracy: of the baseline on validation, 0..1.
        float_bits: memory of the baseline.
    """

    experiment: AnyExperiment
    float_accuracy: float
    float_bits: int

    def front(self, records: list[dict[str, Any]]) -> list[str]:
        """Keys of the candidates that no other beats in both accuracy and memory, cheapest first."""
        records = [r for r in records if is_measured(r)]
        if not records:
            return []
        mask = pareto_front([(-r["accuracy"], r["bits"]) for r in records])
        on = [r for r, m in zip(records, mask, strict=True) if m]
        return [r["key"] for r in sorted(on, key=lambda r: (r["bits"], r["key"]))]

    def admitted(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The candidates that lose no more than the target allows."""
        floor = self.float_accuracy - self.experiment.search.max_drop_points / 100
        return [r for r in records if is_measured(r) and r["accuracy"] >= floor - 1e-12]

    def nearest(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The measured candidates by what they lose beyond the target, then by memory, with both in points."""
        losses = []
        for r in records:
            if is_measured(r):
                lost = (self.float_accuracy - r["accuracy"]) * 100
                losses.append(
                    {
                        "key": r["key"],
                        "label": label_of(r),
                        "accuracy": r["accuracy"],
                        "bits": r["bits"],
                        "points_lost": round(lost, 6),
                        "points_missing": round(max(0.0, lost - self.experiment.search.max_drop_points), 6),
                    }
                )
        return sorted(losses, key=lambda r: (r["points_missing"], r["bits"], r["key"]))

    def reward(self, record: dict[str, Any]) -> float:
        """Reward of a measured candidate by the experiment's formula."""
        return self.experiment.reward.value(record["accuracy"], record["bits"], self.float_accuracy, self.float_bits)

    def winner(self, records: list[dict[str, Any]]) -> str:
        """Key of the admitted candidate on the front with the largest reward, of equal ones the one of fewest bits; ""
        when none is admitted. No other candidate beats it: what does so is admitted, too."""
        admitted = self.admitted(records)
        on_front = set(self.front(admitted))  # rewards alone may tie: beyond float, accuracy has no reward
        best = max(
            (r for r in admitted if r["key"] in on_front),
            key=lambda r: (self.reward(r), -r["bits"], r["key"]),
            default=None,
        )
        return best["key"] if best else ""


def label_of(record: dict[str, Any]) -> str:
    """Name of a candidate: its label, else its key."""
    candidate = record.get("candidate")
    return str(candidate.get("label", record["key"]) if isinstance(candidate, dict) else record["key"])


def shared_of(dataset: AnyDataset) -> dict[str, int]:
    """Number of recordings that two splits share, by pair, where the data set allows that; else empty."""
    return {" and ".join(pair): n for pair, n in dataset.shared().items()} if dataset.allow_shared else {}


def reasons(rejected: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Reasons why candidates were not measured, with the number of each, the most frequent first."""
    return Counter(str(r.get("rejected", "accuracy or memory is not finite")) for r in rejected).most_common()


def ranked(experiment: AnyExperiment, records: list[dict[str, Any]], account: MemoryAccount) -> list[Significance]:
    """The significance curves of a journal."""
    accuracy = {
        r["label"]: r["accuracy"]
        for r in records
        if r.get("kind") == "sensitivity"
        and isinstance(r.get("accuracy"), int | float)
        and math.isfinite(r["accuracy"])
    }
    return family_of(experiment).curves(experiment, accuracy, account)


def outcome_of(
    worker: ev.Worker, dataset: AnyDataset, records: list[dict[str, Any]], selection: Selection, seconds: float
) -> Outcome:
    """Chooses on validation, measures baseline and winner once on test, and stores the winner's program.

    Raises:
        TargetError: no candidate meets the target.
        ArtifactError: the winner's file is missing, damaged or another candidate's.
    """
    experiment, family = worker.experiment, worker.family
    by_kind = {
        kind: list({r["key"]: r for r in records if r.get("kind") == kind}.values())  # the last of each counts
        for kind in ("float", "candidate")
    }
    rejected = sorted((r for r in by_kind["candidate"] if not is_measured(r)), key=lambda r: r["key"])
    candidates = sorted((r for r in by_kind["candidate"] if is_measured(r)), key=lambda r: r["key"])
    winner = selection.winner(candidates)
    if not winner:
        raise _no_winner(candidates, selection, rejected)
    chosen = next(r for r in candidates if r["key"] == winner)
    stored = family.STORED
    built = stored.kept(
        worker.folder, candidate_of(experiment, chosen["candidate"]), chosen["bits"], chosen.get("sha256")
    )
    float_right, predicted = family.test(worker.measurement, dataset, built)
    truth = dataset.test.labels
    right = predicted == truth
    by = " and ".join(dict.fromkeys(versions_of(records)))
    provenance = built.provenance | {
        "data": dataset.checksum(),
        "qspinn": by,
        "validation_accuracy": chosen["accuracy"],
        "test_accuracy": float(right.mean()),
    }
    stored.save(msgspec.structs.replace(built, provenance=provenance), worker.folder / stored.model)
    account = family.account(experiment, dataset)
    confusion = np.zeros((len(dataset.labels), len(dataset.labels)), dtype=int)
    np.add.at(confusion, (truth, predicted), 1)
    return Outcome(
        experiment=to_plain(experiment),
        data={
            "name": dataset.name,
            "split_rule": dataset.split_rule,
            "sha256": dataset.checksum(),
            "labels": list(dataset.labels),
            "shared": shared_of(dataset),
            "n": [len(dataset.train.labels), len(dataset.validation.labels), len(truth)],
        }
        | family.describe(dataset),
        versions=versions(family.LIBRARIES) | {"qspinn": by},
        float_bits=selection.float_bits,
        float_memory=[to_plain(r) for r in account.rows],
        floats=sorted(by_kind["float"], key=lambda r: r.get("n_neurons", 0)),
        significance=[to_plain(s) for s in ranked(experiment, records, account)],
        candidates=candidates,
        rejected=rejected,
        front=selection.front(candidates),
        admitted=[r["key"] for r in selection.admitted(candidates)],
        winner=winner,
        rewards={r["key"]: selection.reward(r) for r in candidates},
        float_validation=selection.float_accuracy,
        winner_validation=chosen["accuracy"],
        float_test=float(float_right.mean()),
        winner_test=float(right.mean()),
        test_difference=paired_difference(float_right, right),
        confusion=confusion.tolist(),
        seconds=round(seconds, 1),
        model=stored.model,
    )


def _no_winner(
    candidates: list[dict[str, Any]], selection: Selection, rejected: list[dict[str, Any]] | None = None
) -> TargetError:
    """The error for a search in which nothing meets the target, with the nearest candidates and what they miss."""
    nearest = selection.nearest(candidates)
    failed = [*(rejected or []), *(r for r in candidates if not is_measured(r))]
    why = reasons(failed)
    if nearest:
        named = ", ".join(
            f"candidate {n['label']} loses {n['points_lost']:.2f} points, {n['points_missing']:.2f} more "
            f"than allowed, at {n['bits']:,} bits"
            for n in nearest[:NEAREST]
        )
        error = TargetError(
            "search",
            f"no candidate meets the target; nearest: {named}",
            allowed=f"a loss of {selection.experiment.search.max_drop_points:g} points",
            fix="allow a larger search.max_drop_points in a new folder, or add weight_bits",
        )
    else:
        named = ", ".join(f"{n} rejected: {reason}" for reason, n in why[:NEAREST]) or "there are none"
        lowered = any(r.get("error") == "LoweringError" for r in failed)
        error = TargetError(
            "search",
            f"no candidate could be measured; {named}",
            fix="more bits for potentials or currents often help" if lowered else "",
        )
    error.nearest, error.rejected = tuple(nearest), tuple(why)
    return error


def versions_of(records: list[dict[str, Any]]) -> list[str]:
    """The versions of qspinn that worked on a run, in this order."""
    return [str(r.get("version")) for r in records if r.get("kind") == "run"] or [__version__]


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "qspinn": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in libraries},
    }


__getattr__ = former.names_of(__name__)

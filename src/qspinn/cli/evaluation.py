"""Accuracy of a stored model on the data that it was made for, or on data that are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qspinn
from qspinn.cli.inputs import check_own_data, data_of_model, data_places, model_family, need_program
from qspinn.cli.output import note
from qspinn.cli.places import output_file
from qspinn.errors import ConfigError, DataError


def evaluate_model(
    model: Path, out: Path | None, seed: int | None, data: str, split: str, dataset: str, backend: str, device: str
) -> tuple[Any, Any]:
    """Accuracy and predictions of an integer program or of layers that learned locally, by the content of the file.

    Args:
        out: where predictions will be written; checked not to be among the data.

    Raises:
        ArtifactError: a float network.
    """
    family = model_family(model)
    if family == "local" or (family is None and model.suffix == ".safetensors"):
        return evaluate_local(model, out, seed, data, split, dataset, backend, device)
    need_program(model)
    return evaluate_program(model, out, seed, data, split, dataset, backend, device)


def evaluate_program(
    model: Path, out: Path | None, seed: int | None, data: str, split: str, dataset: str, backend: str, device: str
) -> tuple[Any, Any]:
    """Accuracy and predictions of an integer program.

    Args:
        seed: draws the input spikes anew; None for the program's own seed.

    Raises:
        ConfigError: a seed for a program that draws no input spikes.
    """
    import msgspec

    from qspinn.program.ops import EventsOp, PoissonOp

    program = qspinn.load(model)
    if seed is not None:
        if not program.ops_of(PoissonOp):
            raise ConfigError(
                "--seed",
                "draws input spikes, and this program takes its spikes as they are given",
                got=seed,
                fix="leave it out",
            )
        ops = tuple(msgspec.structs.replace(op, seed=seed) if isinstance(op, PoissonOp) else op for op in program.ops)
        program = msgspec.structs.replace(program, ops=ops)
    config = data_of_model(program.provenance, bool(program.ops_of(EventsOp)), dataset, data)
    if out:
        output_file(out, model, *data_places(config))
    loaded = qspinn.load_data(config)
    if config.file:
        check_own_data(loaded, program.provenance, program.labels)
    return qspinn.evaluate(program, getattr(loaded, split), split, backend=backend, device=device)


def evaluate_local(
    model: Path, out: Path | None, seed: int | None, data: str, split: str, dataset: str, backend: str, device: str
) -> tuple[Any, Any]:
    """Accuracy and predictions of layers that learned locally, which draw nothing and have one engine.

    Raises:
        ConfigError: a seed, another engine or another device is given.
        DataError: the data have other classes than the model, or steps of another length.
    """
    from qspinn.learning.local.model import load_local

    for name, value, only in (("--seed", seed, None), ("--backend", backend, "numba"), ("--device", device, "cpu")):
        if value != only:
            raise ConfigError(name, "does not apply to layers that learn locally", got=value, fix="leave it out")
    trained = load_local(model)
    config = data_of_model(trained.provenance, True, dataset, data)
    if out:
        output_file(out, model, *data_places(config))
    loaded = qspinn.load_data(config)
    if config.file:
        labels = trained.provenance.get("labels")
        if not isinstance(labels, list):
            note("the model does not say the names of its classes: their order is taken as it is in the file")
        check_own_data(loaded, trained.provenance, tuple(labels) if isinstance(labels, list) else ())
    if loaded.bin_ms != trained.network.step_ms:
        raise DataError(
            "data.bin_ms",
            "is not the length of a step that the model learned with",
            got=loaded.bin_ms,
            allowed=f"{trained.network.step_ms} ms",
            fix="give the data in steps of this length",
        )
    return qspinn.evaluate(trained, getattr(loaded, split), split)

"""The batched engine on torch, CPU or CUDA: population after population, each over all steps of a block of samples.

Input currents of all steps are made at once (a convolution sees [T * B] images); then the neurons go step by step.

- `_torch_signals`: spikes as tensors, pooling;
- `_torch_currents`: exact products, from spikes to currents;
- `_torch_neurons`: a population's steps;
- `_torch_rounding`: shifts and random words.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qspinn.errors import ConfigError
from qspinn.program import Program
from qspinn.program.ops import AddOp, ConvOp, DenseOp, Feed, LifOp, PoolOp, SelectOp, pool_shape
from qspinn.runtime.reference import read
from qspinn.runtime.result import Result
from qspinn.runtime.torch_engine.neurons import Left, population
from qspinn.runtime.torch_engine.signals import Signal, pooled, raster, room
from qspinn.spikes import Spikes

CACHED = 1 << 18  # neurons of a population that go through a step together on the CPU: they shall stay in its cache


def run(program: Program, spikes: Spikes, *, record: bool = False, device: str = "cpu") -> Result:
    """Runs every sample from a fresh state over all its steps; equal to `reference.run` in every bit.

    Args:
        device: "cpu", "cuda" or "cuda:<i>".

    Raises:
        ConfigError: the device does not exist, or is of another kind.
    """
    place = device_of(device)
    blocks = list(spikes.batches(_block(program, spikes.n_steps, place))) or [spikes]
    with torch.inference_mode(), torch.autocast(place.type, enabled=False):  # products in the types that are proved
        parts = [_run_block(program, block, record, place) for block in blocks]
    return _joined(parts)


def device_of(name: str) -> torch.device:
    """The device of a name, if it is there."""
    allowed = "cpu, cuda, cuda:<i>"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("device", "unknown device", got=name, allowed=allowed) from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError("device", "bit-exact execution is not known there", got=name, allowed=allowed)
    if device.type == "cpu" and device.index:
        raise ConfigError("device", "processors have no number", got=name, allowed=allowed, fix='use device="cpu"')
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device",
            "CUDA was asked for, but torch finds no CUDA device",
            got=name,
            allowed="cpu",
            fix='install a CUDA build of torch on a machine with a GPU, or use device="cpu"',
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            "device", "there is no CUDA device of this number", got=name, allowed=f"0..{torch.cuda.device_count() - 1}"
        )
    return device


def _block(program: Program, n_steps: int, device: torch.device) -> int:
    """How many samples run at once: the signals of all steps stay, the largest currents exist in a few copies."""
    sizes = [op.n for op in program.ops_of(LifOp)]
    n_pooled = sum(math.prod(pool_shape(op)) for op in program.ops_of(PoolOp))
    size = room(device) // (n_steps * (program.n_inputs + sum(sizes) + 4 * n_pooled + 24 * max(sizes)))
    return max(1, min(size, CACHED // max(sizes)) if device.type == "cpu" else size)


def _run_block(program: Program, spikes: Spikes, record: bool, device: torch.device) -> Result:
    """The result of samples that run at once."""
    most = int(spikes.count.max(initial=0)) if spikes.count is not None else 1
    signals = {"input": Signal(raster(spikes, device), most)}
    feeds: dict[str, list[Feed]] = {}
    left: dict[str, Left] = {}
    for op in program.ops:
        match op:
            case SelectOp():
                x, most = signals[op.source]
                kept = torch.from_numpy(np.flatnonzero(program.codes(op.kept) == 1)).to(device)
                signals[op.target] = Signal(x.index_select(2, kept), most)
            case PoolOp():
                signals[op.target] = pooled(op, signals[op.source])
            case DenseOp() | ConvOp() | AddOp():
                feeds.setdefault(op.target, []).append(op)
            case LifOp():
                signals[op.name], left[op.name] = population(program, op, feeds.get(op.name, []), signals)
            case _:
                pass  # encoding happens before, reading after the steps
    return _result(program, {op.name: signals[op.name].x for op in program.ops_of(LifOp)}, left, record)


def _result(program: Program, fired: dict[str, Tensor], left: dict[str, Left], record: bool) -> Result:
    """Counts, scores and, where recorded, rasters and states, as arrays."""
    counts = {name: _array(x.sum(dim=0, dtype=torch.int64)) for name, x in fired.items()}
    v = {name: _array(x.v) for name, x in left.items()}
    scores = read(program, counts, v, {name: _array(x.v_sum) for name, x in left.items()})
    if not record:
        return Result(counts=counts, scores=scores)
    return Result(
        counts=counts,
        scores=scores,
        v=v,
        ref={name: _array(x.ref) for name, x in left.items()},
        spikes={name: _array(x) for name, x in fired.items()},
        current={op.name: _array(left[op.name].i) for op in program.ops_of(LifOp) if op.current is not None},
        theta={op.name: _array(left[op.name].theta) for op in program.ops_of(LifOp) if op.adaptation is not None},
    )


def _array(x: Tensor) -> NDArray[Any]:
    return x.cpu().numpy()


def _joined(parts: list[Result]) -> Result:
    """The results of consecutive blocks as one."""

    def along(axis: int, field: str) -> dict[str, NDArray]:
        return {
            name: np.concatenate([getattr(p, field)[name] for p in parts], axis=axis)
            for name in getattr(parts[0], field)
        }

    return Result(
        counts=along(0, "counts"),
        scores=np.concatenate([p.scores for p in parts]),
        v=along(0, "v"),
        ref=along(0, "ref"),
        spikes=along(1, "spikes"),
        current=along(0, "current"),
        theta=along(0, "theta"),
    )

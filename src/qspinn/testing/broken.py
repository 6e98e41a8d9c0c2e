"""Backends that are wrong in one small realistic way: what a contract must notice."""

from __future__ import annotations

import enum

import msgspec
import numpy as np
from numpy.typing import NDArray

from qspinn.fixedpoint import Rounding, random_words, requantize, stream_key
from qspinn.program import Program
from qspinn.program.constants import decays, inhibitions, thresholds
from qspinn.program.ops import DenseOp, LifOp, SelectOp, Stream
from qspinn.runtime.result import Result, vote
from qspinn.spikes import Spikes

Ints = NDArray[np.int64]


class Fault(enum.Enum):
    """The one thing a `BrokenBackend` does otherwise than the numeric contract."""

    NONE = "nothing is wrong"
    COMPARE = "compares v > v_th instead of v >= v_th"
    NEGATIVES = "truncates negative numbers toward zero"
    HALF_EVEN = "rounds ties to even"
    RANDOM_BITS = "rounds stochastically with the bits of the neighbour"
    REFRACTORY = "is silent one step too long"
    INHIBITION = "lets inhibition push v below v_min"
    SELF_INHIBITION = "spares spiking neurons from the inhibition of others"
    WINNER = "lets the first crossing neuron win"
    OVERFLOW = "wraps at the upper end instead of saturating"
    RESET = "resets by subtracting the threshold"


class BrokenBackend(msgspec.Struct, frozen=True):
    """A slow backend with one fault; `run` has the signature of every backend."""

    fault: Fault = Fault.COMPARE

    def run(self, program: Program, spikes: Spikes, *, record: bool = False) -> Result:
        """Runs every sample from a fresh state, with the fault."""
        raster = spikes.dense().astype(np.int64)
        lifs = program.ops_of(LifOp)
        v = {op.name: np.zeros((spikes.n_samples, op.n), dtype=np.int64) for op in lifs}
        ref = {name: x.copy() for name, x in v.items()}
        fired: dict[str, list[NDArray]] = {op.name: [] for op in lifs}
        for t in range(spikes.n_steps):
            signals = {"input": raster[t]}
            for op in program.ops:
                if isinstance(op, SelectOp):
                    signals[op.target] = signals[op.source][:, program.codes(op.kept) == 1]
                if isinstance(op, DenseOp):
                    current = signals[op.source] @ program.codes(op.weight).astype(np.int64).T
                if isinstance(op, LifOp):
                    v[op.name], ref[op.name], signals[op.name] = self._step(
                        program, op, t, v[op.name], ref[op.name], current
                    )
                    fired[op.name].append(signals[op.name].astype(np.uint8))
        rasters = {name: np.stack(steps) for name, steps in fired.items()}
        counts = {name: x.sum(axis=0, dtype=np.int64) for name, x in rasters.items()}
        if not record:
            return Result(counts=counts, scores=vote(program, counts))
        return Result(counts=counts, scores=vote(program, counts), v=v, ref=ref, spikes=rasters)

    def _rounded(self, x: Ints, shift: int, rounding: Rounding, key: int) -> Ints:
        index = np.broadcast_to(np.arange(x.shape[1]) + (self.fault is Fault.RANDOM_BITS), x.shape)
        if shift > 0 and rounding is Rounding.NEAREST and self.fault is Fault.HALF_EVEN:
            return np.rint(x / 2.0**shift).astype(np.int64)
        if rounding is Rounding.TRUNCATE and self.fault is Fault.NEGATIVES:
            rounding = Rounding.TOWARD_ZERO
        return requantize(x, shift, rounding, key=key, index=index)

    def _step(self, program: Program, op: LifOp, t: int, v: Ints, ref: Ints, current: Ints) -> tuple[Ints, Ints, Ints]:
        """(v, ref, spikes) after one step of a population."""
        keys = {s: stream_key(program.seed, op.stream + s, t) for s in (Stream.WINNER, Stream.DECAY, Stream.INPUT)}
        level = thresholds(program, op)
        v = self._rounded(v * decays(program, op), op.leak.shift, op.rounding, keys[Stream.DECAY])
        active, ref = ref == 0, np.maximum(ref - 1, 0)
        fed = v + self._rounded(current, op.input.shift, op.rounding, keys[Stream.INPUT])
        if self.fault is Fault.OVERFLOW:
            fed = np.where(fed > op.v_fmt.code_max, fed - (1 << op.v_fmt.bits), fed)
        v = np.where(active, np.clip(fed, op.v_min, op.v_fmt.code_max), v)
        crossing = active & (v > level if self.fault is Fault.COMPARE else v >= level)
        spikes = crossing.astype(np.int64)
        if op.winner:
            words = random_words(keys[Stream.WINNER], np.arange(op.n)).astype(np.int64)
            draw = np.where(crossing, -np.arange(op.n) if self.fault is Fault.WINNER else words, -(1 << 40))
            spikes &= np.arange(op.n) == draw.argmax(axis=1)[:, None]
        by_others = spikes.sum(axis=1, keepdims=True) - spikes
        v = np.where(spikes == 1, v - level if self.fault is Fault.RESET else program.codes(op.reset.tensor), v)
        ref = np.where(spikes == 1, op.n_ref + (self.fault is Fault.REFRACTORY), ref)
        if op.inhibition is not None:
            strength = inhibitions(program, op)
            floor = op.v_fmt.code_min - 40 if self.fault is Fault.INHIBITION else op.v_min
            spared = (by_others == 0) | ((spikes == 1) & (self.fault is Fault.SELF_INHIBITION))
            v = np.where(spared, v, np.maximum(v - by_others * strength, floor))
        return v, ref, spikes

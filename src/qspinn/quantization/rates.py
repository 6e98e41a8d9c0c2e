"""Firing rates restored after quantization: thresholds moved until every channel spikes as often as it shall."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qspinn.arrays import integer, need_kind, reals
from qspinn.errors import ConfigError, DataError
from qspinn.program import CodeTensor, Program
from qspinn.program.ops import LifOp, ReadOp, VoteOp
from qspinn.runtime import run
from qspinn.spikes import Spikes

Rates = NDArray[np.float64]
Codes = NDArray[np.int64]


def restore_rates(
    program: Program, spikes: Spikes, target_rates: Mapping[str, NDArray], *, n_rounds: int = 1, backend: str = "numba"
) -> Program:
    """The program with threshold codes under which every channel's rate on the calibration spikes is closest to its
    target; nothing else changes, and no population ends farther from its targets (sum over channels of |rate - target|)
    than it began.

    Population after population in execution order, each measured behind those already adjusted. Codes move within
    their format, to where some potential reaches them and neither silence nor a reset does. The search is a bisection
    per channel, all channels of a population at once: more threshold, fewer spikes. Where a code
    meets the rate as well as any found, it stays.

    Args:
        spikes: calibration input; some hundred samples do.
        target_rates: by population, mean spikes per neuron and step of each channel [C] or neuron [N], as
            `channel_rates` measures them in the float network. Populations without an entry stay as they are. A
            threshold that all channels shared becomes one per channel.
        n_rounds: bisections per population; neurons that inhibit or feed one another may need more than one.
        backend: which engine measures; all give the same program.

    Raises:
        ConfigError: a name is not that of a spiking population, or n_rounds is below 1.
        DataError: no samples, rates that are no numbers of 0 to the most spikes of a step, or not one rate for each
            channel or neuron.

    Source: threshold balancing after Diehl et al. (2015, IJCNN), but towards measured rates instead of away from
    saturation, in integers, and per channel.
    """
    integer("n_rounds", n_rounds, low=1, high=1 << 15)
    need_kind("program", program, Program)
    need_kind("spikes", spikes, Spikes)
    if not isinstance(target_rates, Mapping):
        raise ConfigError("target_rates", "is no mapping from populations to rates", got=type(target_rates).__name__)
    if spikes.n_samples == 0:
        raise DataError("calibration data", "holds no samples")
    populations = {op.name: op for op in program.ops_of(LifOp) if op.spiking}
    targets: dict[str, Rates] = {}
    for name, rates in target_rates.items():
        if name not in populations:
            raise ConfigError(
                f"target_rates[{name!r}]", "is no spiking population", got=name, allowed=", ".join(populations)
            )
        targets[name] = _checked(program, populations[name], rates)
    for name, op in populations.items():
        for _ in range(n_rounds if name in targets else 0):
            program = _settled(program, op, spikes, targets[name], backend)
    return program


def _checked(program: Program, op: LifOp, given: ArrayLike) -> Rates:
    """The target rates of a population, one for each channel or neuron."""
    where, most = f"target_rates[{op.name!r}]", op.threshold.max_spikes
    n_codes = program.codes(op.threshold.tensor).size
    rates = reals(where, given)
    if rates.ndim != 1 or rates.size == 0 or op.n % rates.size or rates.size % n_codes:
        raise DataError(
            where,
            "wrong shape",
            got=rates.shape,
            allowed=f"[C] or [N]: a divisor of {op.n} neurons and a multiple of {n_codes} thresholds",
        )
    if not np.all((rates >= 0) & (rates <= most)):
        raise DataError(
            where, "not spikes per step", got=(float(rates.min()), float(rates.max())), allowed=f"0..{most}"
        )
    return rates


def _settled(program: Program, op: LifOp, spikes: Spikes, target: Rates, backend: str) -> Program:
    """The program after one bisection of a population's thresholds."""

    def miss(codes: Codes) -> Rates:
        """How much too often each channel spikes under these threshold codes."""
        return measured_rates(_with_codes(program, op, codes), op.name, spikes, len(target), backend) - target

    codes = program.codes(op.threshold.tensor).astype(np.int64)
    old = np.repeat(codes, len(target) // codes.size)
    least, most = _limits(program, op, len(old))
    before = best_miss = miss(old)
    best, low, high = old, np.minimum(least, old) - 1, np.maximum(most, old) + 1  # too low, too high
    low, high = _narrowed(low, high, old, before)
    reach = 1  # grows from near to far, so that neurons that act on one another are not all moved far at once
    while np.any(high - low > 1):
        tried = np.where(high - low > 1, np.clip((low + high) // 2, old - reach, old + reach), best)
        new, reach = miss(tried), 2 * reach
        low, high = _narrowed(low, high, tried, new)
        better = np.abs(new) < np.abs(best_miss)
        best, best_miss = np.where(better, tried, best), np.where(better, new, best_miss)
    best = np.clip(best, np.minimum(least, old), np.maximum(most, old))
    if np.array_equal(best, old) or np.abs(miss(best)).sum() >= np.abs(before).sum():
        return program
    return _with_codes(program, op, best)


def _limits(program: Program, op: LifOp, n: int) -> tuple[Codes, Codes]:
    """(least, largest) threshold code of each of n groups of neurons: silence and a reset stay below it, and some
    potential reaches it."""
    resets = program.codes(op.reset.tensor).astype(np.int64)
    rest = np.repeat(0 * resets if op.reset.subtracts else resets, op.n // resets.size).reshape(n, -1).max(axis=1)
    strict, shift = op.threshold.strict, op.threshold.shift
    least = (np.maximum(rest, 0) - strict >> shift) + 1
    fmt = program.tensors[op.threshold.tensor].fmt
    most = np.full(n, min(fmt.code_max, op.v_fmt.code_max - strict >> shift))
    return np.minimum(np.maximum(least, int(not strict)), most), most


def _narrowed(low: Codes, high: Codes, tried: Codes, miss: Rates) -> tuple[Codes, Codes]:
    """Exclusive bounds of each channel's code after a trial; closed where the rate was met exactly."""
    open_, many = high - low > 1, miss > 0
    low = np.where(open_ & many, np.maximum(low, tried), low)
    high = np.where(open_ & ~many, np.minimum(high, tried), high)
    return np.where(miss == 0, high - 1, low), high


def _with_codes(program: Program, op: LifOp, codes: Codes) -> Program:
    """The program with other threshold codes of a population."""
    tensor = CodeTensor(codes=codes.astype(np.int32), fmt=program.tensors[op.threshold.tensor].fmt)
    return msgspec.structs.replace(program, tensors=program.tensors | {op.threshold.tensor: tensor})


def measured_rates(program: Program, name: str, spikes: Spikes, n_channels: int, backend: str = "numba") -> Rates:
    """Mean spikes per neuron and step of each channel of a population, float64 [n_channels]; what comes after the
    population is not run.

    Raises:
        ConfigError: there is no such population, or it does not divide into so many channels.
        DataError: there are no samples.
    """
    need_kind("program", program, Program)
    need_kind("spikes", spikes, Spikes)
    sizes = {op.name: op.n for op in program.ops_of(LifOp)}
    if not isinstance(name, str) or name not in sizes:
        raise ConfigError("name", "is no population", got=name, allowed=", ".join(sizes))
    if sizes[name] % integer("n_channels", n_channels, low=1, high=1 << 20):
        raise ConfigError("n_channels", f"does not divide the {sizes[name]} neurons", got=n_channels)
    if spikes.n_samples == 0:
        raise DataError("calibration data", "holds no samples")
    at = next(i for i, op in enumerate(program.ops) if isinstance(op, LifOp) and op.name == name)
    ops = (*(op for op in program.ops[: at + 1] if not isinstance(op, VoteOp | ReadOp)), ReadOp(source=name))
    counts = run(msgspec.structs.replace(program, ops=ops), spikes, backend=backend).counts[name]
    per_channel = counts.sum(axis=0).reshape(n_channels, -1)
    return per_channel.sum(axis=1) / (per_channel.shape[1] * spikes.n_samples * spikes.n_steps)

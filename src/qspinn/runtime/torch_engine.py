"""The batched engine on torch, CPU or CUDA: population after population, each over all steps of a block of samples.

Input currents of all steps are made at once (a convolution sees [T * B] images); then the neurons go step by step.
Integer products run on floating-point units only where the codes prove every partial sum exact: sum |w| times the most
spikes of a source stays below 2**24 in float32, below 2**53 in float64; larger weights are split into digits. That
holds for matrix products, which add products in some order, and for oneDNN's direct convolution. It does not hold for
transformed convolutions (Winograd, FFT), so elsewhere a convolution is a matrix product over its windows.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qspinn.errors import ConfigError
from qspinn.fixedpoint import INDEX_STRIDE, Rounding, stream_key
from qspinn.ops import AddOp, ConvOp, DenseOp, Feed, LifOp, PoolOp, ReadOp, SelectOp, conv_shape, pool_shape, spread
from qspinn.program import Program
from qspinn.runtime.reference import biases, read, thresholds
from qspinn.runtime.result import Result
from qspinn.spikes import Spikes

Rounder = Callable[[Tensor, int | slice], Tensor]
Weigh = Callable[[Tensor], Tensor]
ROOM = 1 << 28  # bytes of signals and currents made at once on the CPU; on CUDA a quarter of what is free
CACHED = 1 << 18  # neurons of a population that go through a step together on the CPU: they shall stay in its cache
WORD = 0xFFFFFFFF
FULL = ("none", "ieee")
"""Settings of torch under which float32 products are computed in float32."""


class Signal(NamedTuple):
    """Spikes of one signal over a block of samples: integers x [T, B, n], each at most `most`."""

    x: Tensor
    most: int


class Left(NamedTuple):
    """What a population leaves behind, int64 [B, N]: potentials, refractory counters, synaptic currents after the last
    step, and the sum of its potentials after every step (zero unless it is read)."""

    v: Tensor
    ref: Tensor
    i: Tensor
    v_sum: Tensor


def run(program: Program, spikes: Spikes, *, record: bool = False, device: str = "cpu") -> Result:
    """Runs every sample from a fresh state over all its steps; equal to `reference.run` in every bit.

    Args:
        device: "cpu", "cuda" or "cuda:<i>".

    Raises:
        ConfigError: the device does not exist, or is of another kind.
    """
    place = _device(device)
    blocks = list(spikes.batches(_block(program, spikes.n_steps, place))) or [spikes]
    with torch.inference_mode():
        parts = [_run_block(program, block, record, place) for block in blocks]
    return _joined(parts)


def _device(name: str) -> torch.device:
    """The device of a name, if it is there."""
    allowed = "cpu, cuda, cuda:<i>"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("device", "unknown device", got=name, allowed=allowed) from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError("device", "bit-exact execution is not known there", got=name, allowed=allowed)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "CUDA was asked for, but torch finds no CUDA device", got=name, allowed="cpu",
                          fix="install a CUDA build of torch on a machine with a GPU, or use device=\"cpu\"")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError("device", "there is no CUDA device of this number", got=name,
                          allowed=f"0..{torch.cuda.device_count() - 1}")
    return device


def _room(device: torch.device) -> int:
    """Bytes that may be used at once."""
    return ROOM if device.type == "cpu" else max(ROOM, torch.cuda.mem_get_info(device)[0] // 4)


def _block(program: Program, n_steps: int, device: torch.device) -> int:
    """How many samples run at once: the signals of all steps stay, the largest currents exist in a few copies."""
    sizes = [op.n for op in program.ops_of(LifOp)]
    pooled = sum(math.prod(pool_shape(op)) for op in program.ops_of(PoolOp))
    size = _room(device) // (n_steps * (program.n_inputs + sum(sizes) + 4 * pooled + 24 * max(sizes)))
    return max(1, min(size, CACHED // max(sizes)) if device.type == "cpu" else size)


def _run_block(program: Program, spikes: Spikes, record: bool, device: torch.device) -> Result:
    """The result of samples that run at once."""
    most = int(spikes.count.max(initial=0)) if spikes.count is not None else 1
    signals = {"input": Signal(_raster(spikes, device), most)}
    feeds: dict[str, list[Feed]] = {}
    left: dict[str, Left] = {}
    for op in program.ops:
        match op:
            case SelectOp():
                x, most = signals[op.source]
                kept = torch.from_numpy(np.flatnonzero(program.codes(op.kept) == 1)).to(device)
                signals[op.target] = Signal(x.index_select(2, kept), most)
            case PoolOp():
                signals[op.target] = _pooled(op, signals[op.source])
            case DenseOp() | ConvOp() | AddOp():
                feeds.setdefault(op.target, []).append(op)
            case LifOp():
                signals[op.name], left[op.name] = _population(program, op, feeds.get(op.name, []), signals)
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
    return Result(counts=counts, scores=scores, v=v, ref={name: _array(x.ref) for name, x in left.items()},
                  spikes={name: _array(x) for name, x in fired.items()},
                  current={op.name: _array(left[op.name].i) for op in program.ops_of(LifOp) if op.current})


def _array(x: Tensor) -> NDArray[Any]:
    return x.cpu().numpy()


def _joined(parts: list[Result]) -> Result:
    """The results of consecutive blocks as one."""
    def along(axis: int, field: str) -> dict[str, NDArray]:
        return {name: np.concatenate([getattr(p, field)[name] for p in parts], axis=axis)
                for name in getattr(parts[0], field)}

    return Result(counts=along(0, "counts"), scores=np.concatenate([p.scores for p in parts]), v=along(0, "v"),
                  ref=along(0, "ref"), spikes=along(1, "spikes"), current=along(0, "current"))


# ---- signals


def _raster(spikes: Spikes, device: torch.device) -> Tensor:
    """Events as numbers, uint8 [T, B, n]."""
    n_samples, n_steps = spikes.n_samples, spikes.n_steps
    raster = torch.zeros((n_steps, n_samples, spikes.n), dtype=torch.uint8, device=device)
    if spikes.n_events == 0:
        return raster
    first, stop = int(spikes.offsets.min()), int(spikes.offsets.max())
    offsets = torch.from_numpy(spikes.offsets - first).to(device)
    index = torch.from_numpy(spikes.index[first:stop].astype(np.int64)).to(device)
    length = offsets.diff(dim=1).ravel()
    cell = torch.arange(n_steps * n_samples, device=device).view(n_steps, n_samples).T.ravel()  # of [b, t]: t * B + b
    skipped = offsets[:, :-1].ravel() - (length.cumsum(0) - length)  # samples need not lie one behind the other
    event = torch.arange(int(length.sum()), device=device) + skipped.repeat_interleave(length)
    place = cell.repeat_interleave(length) * spikes.n + index[event]
    if spikes.count is None:
        raster.view(-1)[place] = 1
    else:
        count = torch.from_numpy(spikes.count[first:stop].astype(np.uint8)).to(device)
        raster.view(-1)[place] = count[event]
    return raster


def _pooled(op: PoolOp, source: Signal) -> Signal:
    """Sums or maxima over windows: one pass per place in the window."""
    x, most = source.x.view(*source.x.shape[:2], *op.shape), source.most
    _, height, width = pool_shape(op)
    most = most * op.kernel[0] * op.kernel[1] if op.kind == "sum" else most
    total: Tensor | None = None
    for y in range(op.kernel[0]):
        for z in range(op.kernel[1]):
            seen = x[..., y : y + (height - 1) * op.stride[0] + 1 : op.stride[0],
                     z : z + (width - 1) * op.stride[1] + 1 : op.stride[1]]
            if total is None:
                total = seen.to(_ints(most))
            else:
                total = total + seen if op.kind == "sum" else torch.maximum(total, seen.to(total.dtype))
    assert total is not None
    return Signal(total.flatten(2), most)


def _ints(bound: int) -> torch.dtype:
    """The type in which integers of at most this size are exact; int64 wraps as NumPy's does."""
    return torch.uint8 if bound < 1 << 8 else torch.int32 if bound < 1 << 31 else torch.int64


# ---- input currents


def _weigh(program: Program, feed: Feed, most: int, dtype: torch.dtype, device: torch.device) -> Weigh:
    """The function from spikes [M, n] of a source to the current [M, N] that they feed, without the shift."""
    w = program.codes(feed.weight).astype(np.int64)
    if isinstance(feed, DenseOp):
        return _linear(w, most, dtype, device)
    if isinstance(feed, ConvOp):
        return _convolution(feed, w, most, dtype, device)
    n = len(w)
    each = torch.from_numpy(w).to(device, dtype)
    return lambda x: x.to(dtype) * each.repeat_interleave(x.shape[1] // n)


def _linear(w: NDArray[np.int64], most: int, dtype: torch.dtype, device: torch.device) -> Weigh:
    digits = _digits(w.T, most, device)
    return lambda x: _product(x, digits, dtype)


def _convolution(op: ConvOp, w: NDArray[np.int64], most: int, dtype: torch.dtype, device: torch.device) -> Weigh:
    """By oneDNN where its algorithm is known and float32 suffices; else as a product over windows."""
    c_out, height, width = conv_shape(op, w.shape)
    columns = w.reshape(op.groups, c_out // op.groups, -1).transpose(0, 2, 1)  # [G, C_in / G * kernel, C_out / G]
    digits = _digits(columns, most, device)
    direct = _direct(device) and digits[0][0].dtype == torch.float32
    filters = torch.from_numpy(w).to(torch.float32) if direct else None

    def weigh(x: Tensor) -> Tensor:
        images = x.view(len(x), *op.shape)
        if filters is not None and len(x) >= 16:  # below, torch may take another library
            y = functional.conv2d(images.to(torch.float32), filters, None, op.stride, op.padding, op.dilation,
                                  op.groups)
            return y.flatten(1).to(dtype)
        y = _product(_windows(op, images, w.shape[2:], (height, width)), digits, dtype)
        return y.view(op.groups, len(x), height * width, -1).permute(1, 0, 3, 2).reshape(len(x), -1)

    return weigh


def _windows(op: ConvOp, images: Tensor, kernel: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """What every neuron of a convolution sees, [G, M * height * width, C_in / G * kernel]."""
    (pad_y, pad_x), per_group = op.padding, op.shape[0] // op.groups
    x = functional.pad(images, (pad_x, pad_x, pad_y, pad_y)).contiguous()
    image, channel, row, one = x.stride()
    seen = x.as_strided(
        (op.groups, len(x), *size, per_group, *kernel),
        (per_group * channel, image, op.stride[0] * row, op.stride[1] * one, channel, op.dilation[0] * row,
         op.dilation[1] * one))
    return seen.reshape(op.groups, len(x) * size[0] * size[1], per_group * kernel[0] * kernel[1])


def _direct(device: torch.device) -> bool:
    """Whether float32 convolutions are oneDNN's direct ones: on other processors it may transform."""
    onednn: Any = torch.backends.mkldnn
    return (device.type == "cpu" and platform.machine() in ("x86_64", "AMD64") and onednn.is_available()
            and bool(onednn.enabled))


def _digits(w: NDArray[np.int64], most: int, device: torch.device) -> list[tuple[Tensor, int]]:
    """(digit, shift) with w = sum of digit << shift, in types in which x @ digit is exact for 0 <= x <= most.

    w [..., K, N]. Every partial sum of products is an integer of at most most * sum |w|, so its float is exact.
    """
    bound = most * int(np.abs(w).sum(axis=-2).max(initial=0))
    if bound < 1 << 53:
        single = bound < 1 << 24 and _single_is_exact()
        return [(torch.from_numpy(np.ascontiguousarray(w)).to(device, torch.float32 if single else torch.float64), 0)]
    half = max(1, int(np.abs(w).max()).bit_length() // 2)
    high, low = _digits(w >> half, most, device), _digits(w & ((1 << half) - 1), most, device)
    return [*((digit, shift + half) for digit, shift in high), *low]


def _single_is_exact() -> bool:
    """Whether torch computes float32 products in float32; it may have been told to use fewer bits (TF32, bfloat16)."""
    onednn: Any = torch.backends.mkldnn
    parts = [torch.backends.cuda.matmul, getattr(onednn, "matmul", None), getattr(onednn, "conv", None)]
    told = [getattr(part, "fp32_precision", None) for part in parts]
    if None in told:  # torch before 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return all(precision in FULL for precision in told)


def _product(x: Tensor, digits: list[tuple[Tensor, int]], dtype: torch.dtype) -> Tensor:
    """x @ w in integers."""
    parts = [(x.to(digit.dtype) @ digit).to(dtype) << shift for digit, shift in digits]
    return sum(parts[1:], start=parts[0])


def _current(program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Signal], dtype: torch.dtype) -> Tensor:
    """What reaches a population from others, [T, B, N]; few images at a time, since windows need room."""
    x = signals["input"].x
    total = torch.zeros((x.shape[0] * x.shape[1], op.n), dtype=dtype, device=x.device)
    for feed in feeds:
        source, most = signals[feed.source]
        images, weigh = source.flatten(0, 1), _weigh(program, feed, most, dtype, x.device)
        kernel = math.prod(program.codes(feed.weight).shape[2:])
        size = max(16, _room(x.device) // (64 * (kernel * images.shape[1] + 2 * op.n)))
        for at in range(0, len(images), size):
            total[at : at + size] += weigh(images[at : at + size]) << feed.shift
    return total.view(*x.shape[:2], op.n)


# ---- neurons


class _State(NamedTuple):
    """A population between two steps, [B, N] each: potential, refractory counter, synaptic current, spikes (bool)."""

    v: Tensor
    ref: Tensor
    i: Tensor
    s: Tensor


class _Constants(NamedTuple):
    """What a population's step needs besides its state; vectors [N], `words` [T, 1, N] only where one neuron wins."""

    decay: int
    decayed: Rounder
    current: int
    slowed: Rounder
    scaled: Rounder
    bias: Tensor
    level: Tensor
    reset: Tensor
    strength: Tensor
    words: Tensor


def _population(program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Signal]) -> tuple[Signal, Left]:
    """(spikes, states left) of a population over all steps."""
    forward, back = ([f for f in feeds if (f.source == f.target) is own] for own in (False, True))
    dtype = _ints(max(1 << 8, _bound(program, op, feeds, {**signals, op.name: Signal(torch.empty(0), 1)})))
    drive = _current(program, op, forward, signals, dtype)
    device = drive.device
    own = [(_weigh(program, f, 1, dtype, device), f.shift) for f in back]
    k = _constants(program, op, len(drive), dtype, device)
    ready = not own and not op.current  # all that reaches the potential is known before the first step
    if ready:
        drive = k.scaled(drive, slice(None)) + k.bias
    zero = torch.zeros_like(drive[0])
    state = _State(v=zero, ref=zero, i=zero, s=zero > 0)
    fired = torch.zeros_like(drive, dtype=torch.uint8)
    summed = any(r.of == "v_sum" and r.source == op.name for r in program.ops_of(ReadOp))
    v_sum = torch.zeros_like(state.v, dtype=torch.int64)
    for t in range(len(drive)):
        received = sum((weigh(state.s) << shift for weigh, shift in own), start=drive[t])
        state = _step(op, k, t, state, received, ready)
        fired[t] = state.s
        if summed:
            v_sum += state.v
    v, ref, i, _ = (x.to(torch.int64) for x in state)
    return Signal(fired, 1), Left(v=v, ref=ref, i=i, v_sum=v_sum)


def _bound(program: Program, op: LifOp, feeds: list[Feed], signals: dict[str, Signal]) -> int:
    """A size that no intermediate of a population's steps exceeds: all that may add up, added up."""
    def top(name: str) -> int:
        return int(np.abs(program.codes(name).astype(np.int64)).max()) if name else 0

    grows = top(op.decay) > 1 << op.decay_shift or (op.inhibition and program.codes(op.inhibition).min() < 0)
    if grows:  # without end while a neuron is refractory
        return 1 << 63
    drive = sum(signals[f.source].most * _row_sum(program.codes(f.weight)) << f.shift for f in feeds)
    fmt, level = op.current_fmt, int(np.abs(thresholds(program, op)).max())
    slow = 0 if fmt is None else max(-fmt.code_min, fmt.code_max) * (top(op.current) + 1) + (1 << op.current_shift)
    shifts = program.codes(op.in_shifts).tolist() if op.in_shifts else [op.in_shift]
    fed = (drive + slow + int(np.abs(biases(program, op)).max()) << max(0, -min(shifts))) + (1 << max(0, *shifts))
    v = max(-op.v_min, op.v_fmt.code_max, top(op.v_reset)) + level
    others = 1 if op.winner else op.n
    return v * (top(op.decay) + 1) + (1 << op.decay_shift) + fed + op.n_ref + others * (
        top(op.inhibition) << op.inhibition_shift)


def _row_sum(w: NDArray) -> int:
    """The largest sum of |weights| into one neuron."""
    return int(np.abs(w.astype(np.int64)).reshape(len(w), -1).sum(axis=1).max(initial=0))


def _constants(program: Program, op: LifOp, n_steps: int, dtype: torch.dtype, device: torch.device) -> _Constants:
    def vector(codes: NDArray) -> Tensor:
        return torch.from_numpy(spread(codes, op.n)).to(device, dtype)

    def rounder(shift: int | NDArray, offset: int) -> Rounder:
        return _rounder(program, op, np.atleast_1d(shift), offset, n_steps, dtype, device)

    none = np.zeros(1, np.int64)
    codes = program.codes
    return _Constants(
        decay=int(codes(op.decay)[0]), decayed=rounder(op.decay_shift, 1),
        current=int(codes(op.current)[0]) if op.current else 0, slowed=rounder(op.current_shift, 6),
        scaled=rounder(spread(codes(op.in_shifts), op.n) if op.in_shifts else op.in_shift, 2),
        bias=vector(biases(program, op)), level=vector(thresholds(program, op)),
        reset=vector(codes(op.v_reset)),
        strength=vector(codes(op.inhibition).astype(np.int64) << op.inhibition_shift if op.inhibition else none),
        words=_words(program.seed, op.stream, n_steps, op.n, device) if op.winner else torch.empty(0))


def _step(op: LifOp, k: _Constants, t: int, old: _State, received: Tensor, ready: bool) -> _State:
    """One step of docs/numerics.md, section 2; `ready`: what is received is already scaled, with the bias."""
    v, ref, i = k.decayed(old.v * k.decay, t), old.ref, old.i
    if op.current_fmt is not None:
        i = k.slowed(i * k.current, t) + received + k.bias
        received = i = i.clamp_(op.current_fmt.code_min, op.current_fmt.code_max)
    if not ready:
        received = k.scaled(received, t) + (k.bias if op.current_fmt is None else 0)
    fed = (v + received).clamp_(op.v_min, op.v_fmt.code_max)
    v = torch.where(ref == 0, fed, v) if op.n_ref else fed
    if not op.spiking:
        return _State(v, ref, i, old.s)
    s = v > k.level if op.strict else v >= k.level
    s = s & (ref == 0) if op.n_ref else s
    s = _winners(s, k.words[t]) if op.winner else s
    v = torch.where(s, k.reset if op.reset == "value" else v - k.level, v)
    ref = torch.where(s, op.n_ref, (ref - 1).clamp_(min=0)) if op.n_ref else ref
    return _State(_inhibited(v, s.to(v.dtype), k.strength, op.v_min) if op.inhibition else v, ref, i, s)


def _winners(crossing: Tensor, words: Tensor) -> Tensor:
    """One spike per sample: the crossing neuron with the largest random word."""
    best = torch.where(crossing, words, -1).argmax(dim=1, keepdim=True)
    return torch.zeros_like(crossing).scatter_(1, best, True) & crossing


def _inhibited(v: Tensor, s: Tensor, strength: Tensor, v_min: int) -> Tensor:
    """v lowered by strength for every spike of another neuron, never below v_min."""
    by_others = s.sum(dim=1, keepdim=True, dtype=s.dtype) - s
    return torch.where(by_others > 0, (v - by_others * strength).clamp_(min=v_min), v)


# ---- rounding


def _rounder(
    program: Program, op: LifOp, shift: NDArray, offset: int, n_steps: int, dtype: torch.dtype, device: torch.device
) -> Rounder:
    """round(x, shift) of a step t, or of all steps for slice(None); shift [1] or [N], negative shifts multiply.

    Every scheme but TOWARD_ZERO adds something and shifts.
    """
    def each(values: NDArray) -> Any:
        return int(values[0]) if len(values) == 1 else torch.from_numpy(values.astype(np.int64)).to(device, dtype)

    if not shift.any():
        return lambda x, t: x
    left, right = each(np.maximum(-shift, 0)), each(np.maximum(shift, 0))
    if shift.max() <= 0:
        return lambda x, t: x << left
    if op.rounding is Rounding.TOWARD_ZERO:
        return lambda x, t: x.sign() * (x.abs() << left >> right)
    if op.rounding is Rounding.STOCHASTIC:
        words = _words(program.seed, op.stream + offset, n_steps, op.n, device)
        bits = (words >> (32 - right)).to(dtype)
        return lambda x, t: (x << left) + bits[t] >> right
    half = each((1 << np.maximum(shift, 0)) >> 1 if op.rounding is Rounding.NEAREST else np.zeros_like(shift))
    return lambda x, t: (x << left) + half >> right


def _words(seed: int, stream: int, n_steps: int, n: int, device: torch.device) -> Tensor:
    """The random words of a stream, one per step and neuron, int64 [T, 1, N] below 2**32."""
    keys = torch.tensor([stream_key(seed, stream, t) for t in range(n_steps)], dtype=torch.int64, device=device)
    h = _times(torch.arange(n, device=device), INDEX_STRIDE) ^ keys.view(-1, 1, 1)
    h = _times(h ^ (h >> 16), 0x7FEB352D)
    h = _times(h ^ (h >> 15), 0x846CA68B)
    return h ^ (h >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    """x * factor modulo 2**32, for 0 <= x < 2**32, in halves that stay within int64."""
    return ((x & 0xFFFF) * factor + (((x >> 16) * factor & 0xFFFF) << 16)) & WORD

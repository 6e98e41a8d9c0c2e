"""A layer's passes over time in torch operations, for devices that the compiled ones do not know (CUDA).

The same steps as `_scan_kernel`, to the bit in codes, and the same gradients. All steps of the neurons are one node for
autograd; what the backward pass needs of them is kept instead of made again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qspinn.errors import ConfigError
from qspinn.learning._passes import Scan
from qspinn.learning._scan_kernel import ARCTAN, BEYOND, FAST_SIGMOID, PLAIN, TRIANGLE
from qspinn.learning._wiring import Wiring, images
from qspinn.runtime._torch_currents import _single_is_exact
from qspinn.runtime._torch_rounding import words_of
from qspinn.runtime.arithmetic import NEAREST, STOCHASTIC, TOWARD_ZERO, TRUNCATE

WINDOWS = 1 << 26  # numbers of windows that are made at once
KNOWN = frozenset((
    "kind", "decay", "decay_scale", "in_scale", "reset", "unit", "v_min", "v_max", "strict", "subtract", "delayed",
    "n_ref", "spiking", "has_current", "i_decay", "i_scale", "i_min", "i_max", "theta_step", "theta_decay",
    "theta_scale", "theta_max", "theta_unit", "mode", "seed", "stream", "surrogate", "width", "store_shift",
    "store_min", "store_max"))
"""Fields of `Scan` that these passes obey."""
DTYPES = {np.float32: torch.float32, np.float64: torch.float64}
Rounder = Callable[[Tensor, int], Tensor]


def serves(device: torch.device) -> bool:
    """Whether layers on a device are computed here, not by the compiled passes.

    Raises:
        ConfigError: by neither.
    """
    if device.type not in ("cpu", "cuda"):
        raise ConfigError("device", "layers are not computed there", got=str(device), allowed="cpu, cuda",
                          fix="move the module and its input to one of them")
    return device.type == "cuda"


def check(scan: Scan) -> None:
    """Nothing is asked of a layer that these passes would leave out.

    Raises:
        ConfigError: something is; named.
    """
    unlike = [name for name in set(scan._fields) - KNOWN
              if not np.array_equal(getattr(scan, name), scan._field_defaults.get(name, 0))]
    unlike += [] if scan.mode in (PLAIN, TRUNCATE, NEAREST, STOCHASTIC, TOWARD_ZERO) else ["mode"]
    unlike += [] if scan.surrogate in (ARCTAN, FAST_SIGMOID, TRIANGLE) else ["surrogate"]
    if unlike:
        raise ConfigError("device", f"training on CUDA does not know {', '.join(sorted(unlike))} of a layer",
                          got=[getattr(scan, name) for name in sorted(unlike)],
                          fix="train on the CPU, or leave it out")


def current(wiring: Wiring, x: Tensor, w: Tensor, *, codes: bool) -> Tensor:
    """Currents [B, T, N] of a signal [T, B, C, H, W]; of codes in whole numbers, which must fit the type of w."""
    if codes:
        apply: Any = _Exact.apply
        found: Tensor = apply(x, w, wiring)
        return found
    return wiring.dense(x, w)


class _Exact(torch.autograd.Function):
    """A connection as a product over windows: transformed convolutions (Winograd, FFT) are not exact."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, wiring: Wiring) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.wiring = wiring
        pictures, n = images(x), wiring.target[1] * wiring.target[2]
        kind = _product_type(w.dtype)
        filters = w.view(wiring.groups, wiring.target[0] // wiring.groups, -1).to(kind)
        found = torch.empty((len(pictures), n, wiring.target[0]), dtype=w.dtype, device=w.device)
        size = max(1, WINDOWS // (n * filters.shape[0] * filters.shape[2]))
        for a in range(0, len(pictures), size):
            seen = functional.unfold(pictures[a : a + size].to(kind), wiring.kernel, wiring.dilation, wiring.padding,
                                     wiring.stride)
            y = torch.einsum("gok,mgkl->mlgo", filters, seen.view(len(seen), *filters.shape[::2], n))
            found[a : a + size] = y.flatten(2)
        return found.view(x.shape[1], x.shape[0], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w = ctx.saved_tensors
        source, weights = ctx.wiring.dense_gradients(grad.contiguous(), x, w, ctx.needs_input_grad[:2])
        return None if source is None else source.to(x.dtype), weights, None


def _product_type(kind: torch.dtype) -> torch.dtype:
    """The type in which products of codes are exact where `kind` holds their sums."""
    return kind if _single_is_exact() else torch.float64


class Spent(NamedTuple):
    """Of a layer over all steps, [B, T, N]: spikes, potentials left, synaptic currents and adaptive thresholds, or
    nothing; mean of spikes."""

    spikes: Tensor
    left: Tensor
    i_left: Tensor
    thetas: Tensor
    rate: Tensor


def neurons(scan: Scan, total: Tensor, rows: Tensor | None, level: Tensor, bias: Tensor, decay: Tensor,
            outer: NDArray[np.int64]) -> Spent:
    """The neurons of a layer over all steps.

    Args:
        total: what reaches them, [B, T, N], channel-last; rows [N, N], feedback by target; level, bias [C].
        decay: the factor as a real number, for its gradient only.
        outer [N]: the numbers under which neurons draw random words.

    Raises:
        ConfigError: the layer has a switch that is not known here.
    """
    check(scan)
    apply: Any = _Neurons.apply
    return Spent(*apply(total, rows, level, bias, decay, scan, outer))


class _Constants:
    """What a layer's steps need besides its state, on the device of what reaches it; vectors [N].

    product: the type of feedback; round_decay, round_in, round_i, round_theta, round_store: roundings of potential,
    input, synaptic current, adaptive threshold and what is kept of the potential; store: its unit, or none where it is
    kept as it is; theta_step: by which a spike raises the threshold, or none.
    """

    def __init__(self, scan: Scan, total: Tensor, level: Tensor, bias: Tensor, outer: NDArray[np.int64]) -> None:
        n_steps, n = total.shape[1:]
        self.places, self.device, self.kind = n // len(level), total.device, DTYPES[scan.kind]
        self.level, self.bias = self.vector(level), self.vector(bias)
        self.reset = self.vector(scan.reset)
        self.decay, self.i_decay = float(scan.kind(scan.decay)), float(scan.kind(scan.i_decay))
        self.product = self.kind if scan.mode == PLAIN else _product_type(self.kind)
        order = torch.from_numpy(outer).to(self.device)

        def rounder(scale: Any, offset: int) -> Rounder:
            if np.all(np.asarray(scale) == 1):
                return lambda x, t: x
            return _rounder(scan, self.vector(np.broadcast_to(scale, len(level))), offset, n_steps, order)

        self.round_decay, self.round_in = rounder(scan.decay_scale, 1), rounder(scan.in_scale, 2)
        self.round_i = rounder(scan.i_scale, 6) if scan.has_current else self.round_in
        self.theta_step = self.vector(scan.theta_step) if scan.adapts else None
        self.round_theta = rounder(scan.theta_scale, 5) if scan.adapts else self.round_in
        self.store = None if scan.store_shift is None else 2.0**scan.store_shift
        self.round_store = self.round_in if self.store is None else rounder(1 / self.store, 7)

    def vector(self, x: Any, dtype: torch.dtype | None = None) -> Tensor:
        """A number per channel as one per neuron."""
        each = x.detach() if isinstance(x, Tensor) else torch.tensor(np.asarray(x, np.float64))
        return each.to(self.device, dtype or self.kind).repeat(self.places)


def _rounder(scan: Scan, scale: Tensor, offset: int, n_steps: int, outer: Tensor) -> Rounder:
    """round(x * scale) of a step; see `_scan_kernel.round_all`."""
    if scan.mode == PLAIN:
        return lambda x, t: x * scale
    if scan.mode == TOWARD_ZERO:
        return lambda x, t: (x * scale).trunc_()
    if scan.mode == STOCHASTIC:
        words = words_of(scan.seed, scan.stream + offset, n_steps, len(outer), outer.device)[:, 0, outer]
        bits = (words.double() * 2.0**-32 / scale).floor_() * scale  # as many as the shift drops
        return lambda x, t: (x * scale + bits[t]).floor_()
    half = 0.5 if scan.mode == NEAREST else 0.0
    return lambda x, t: (x * scale + half).floor_()


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Tensor, rows: Tensor | None, level: Tensor, bias: Tensor, decay: Tensor, scan: Scan,
                outer: NDArray[np.int64]) -> Any:
        k = _Constants(scan, total, level, bias, outer)
        spikes, left, gap = (torch.empty(total.shape, device=k.device) for _ in range(3))
        i_left, thetas = (torch.empty(total.shape if there else (0, 0, 0), device=k.device)
                          for there in (scan.has_current, scan.adapts))
        back = None if rows is None else rows.T.to(k.product)
        drives = total.to(k.kind)
        v = i = theta = torch.zeros_like(drives[:, 0])
        high = k.level.expand_as(v)
        until = torch.zeros(v.shape, dtype=torch.int32, device=k.device)
        for t in range(total.shape[1]):
            drive = drives[:, t]
            if back is not None and t > 0:
                drive = drive + (spikes[:, t - 1].to(k.product) @ back).to(k.kind)
            if scan.has_current:
                i = (k.round_i(i * k.i_decay, t) + drive + k.bias).clamp_(scan.i_min, scan.i_max)
                i_left[:, t] = drive = i
            v = k.round_decay(v * k.decay, t)
            if scan.delayed and t > 0:
                v = _lowered(scan, k, v, spikes[:, t - 1], high)
            if k.theta_step is not None:
                if t > 0:
                    theta = k.round_theta(theta * float(scan.kind(scan.theta_decay)), t)
                    theta = (theta + spikes[:, t - 1] * k.theta_step).clamp_(0, float(scan.theta_max))
                    high = k.level + theta * float(scan.kind(scan.theta_unit))
                thetas[:, t] = theta
            v, fired, apart, until = _step(scan, k, t, v, drive, high, until)
            spikes[:, t], gap[:, t], left[:, t] = fired, apart, v
        ctx.save_for_backward(spikes, gap, left, i_left, thetas, rows)
        ctx.rest = scan, k
        ctx.types = [None if x is None else (x.dtype, x.device) for x in (total, rows, level, bias, decay)]
        ctx.set_materialize_grads(False)
        rate = ((spikes > 0).sum().double() / spikes.numel()).float()
        return spikes, left, i_left, thetas, rate

    @staticmethod
    def backward(ctx: Any, spike_grad: Tensor | None, left_grad: Tensor | None, i_grad: Tensor | None,
                 theta_grad: Tensor | None, rate_grad: Tensor | None) -> Any:
        scan, k = ctx.rest
        needs = ctx.needs_input_grad
        grad, level_grad, decay_grad = _back(scan, k, ctx.saved_tensors, spike_grad, left_grad, rate_grad, needs)
        spikes, rows = ctx.saved_tensors[0], ctx.saved_tensors[5]
        bias_grad = grad.sum(dim=(0, 1))
        if not scan.has_current:
            bias_grad /= k.vector(scan.in_scale, torch.float32)
        rows_grad = None
        if rows is not None:  # the spikes of one step meet the currents of the next
            rows_grad = grad[:, 1:].flatten(0, 1).T @ spikes[:, :-1].flatten(0, 1)
        found = (grad, rows_grad, _by_channel(level_grad, k) if needs[2] else None, _by_channel(bias_grad, k),
                 decay_grad.sum(dtype=torch.float64) if needs[4] else None)
        return *(None if g is None else g.to(device=kind[1], dtype=kind[0])
                 for g, kind in zip(found, ctx.types, strict=True)), None, None


def _by_channel(x: Tensor, k: _Constants) -> Tensor:
    """[N], channel-last, as sums [C]."""
    return x.double().view(k.places, -1).sum(dim=0)


def _lowered(scan: Scan, k: _Constants, v: Tensor, fired: Tensor, high: Tensor) -> Tensor:
    """Potentials after the reset of the neurons that spiked."""
    return torch.where(fired > 0, v - high if scan.subtract else k.reset, v)


def _step(scan: Scan, k: _Constants, t: int, v: Tensor, drive: Tensor, high: Tensor, until: Tensor
          ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(potential after, spikes, distance from threshold, first step without rest) of one step, given the potential as
    it decayed and the thresholds."""
    constant = torch.zeros_like(k.bias) if scan.has_current else k.bias
    drive = k.round_in(drive, t)
    resting = until > t
    if scan.n_ref:
        drive = torch.where(resting, -constant, drive)
    free = v + drive + constant
    v = free.clamp(scan.v_min, scan.v_max)
    d = (v - high).float()
    apart = d + float(BEYOND) * ((free > scan.v_max).float() - (free < scan.v_min).float())
    crossing = (d > 0 if scan.strict else d >= 0) if scan.spiking else torch.zeros_like(d)
    fired = torch.where(d == d, crossing.float(), d)  # what is no number is passed on, to be noticed
    if scan.n_ref:
        fired, apart = fired.masked_fill_(resting, 0), apart.masked_fill_(resting, torch.inf)
        until = torch.where(fired > 0, t + scan.n_ref + 1, until)
    if not scan.delayed:
        v = _lowered(scan, k, v, fired, high)
    if k.store is not None:
        v = k.round_store(v, t).clamp(scan.store_min, scan.store_max) * k.store
    return v, fired, apart, until


def _back(scan: Scan, k: _Constants, kept: tuple[Tensor, ...], spike_grad: Tensor | None, left_grad: Tensor | None,
          rate_grad: Tensor | None, needs: tuple[bool, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients back in time by what reaches the neurons [B, T, N], by their thresholds and decays [N]; see
    `_scan_kernel.back_in_time`."""
    spikes, gap, left, i_left, thetas, rows = kept
    found = torch.empty_like(gap)
    of_level, of_decay = (torch.zeros(gap.shape[2], device=gap.device) for _ in range(2))
    every = 0.0 if rate_grad is None else rate_grad / gap.numel()
    unit, in_scale = (k.vector(x, torch.float32) for x in (scan.unit, scan.in_scale))
    high, w = k.level.float(), None if rows is None else rows.float()
    decay, i_decay = scan.decay * scan.decay_scale, scan.i_decay * scan.i_scale
    kept_by_reset, lowered = float(scan.subtract or scan.delayed), float(scan.subtract and not scan.delayed)
    keep_min, keep_max = scan._kept()
    theta = _BackOfTheta(scan, k, thetas)
    g = g_i = back = torch.zeros_like(gap[:, 0])
    for t in range(gap.shape[1] - 1, -1, -1):
        d, fired = gap[:, t], spikes[:, t]
        resting = d == torch.inf
        high = theta.high(t, high)
        g = g if left_grad is None else g + left_grad[:, t]
        if k.store is not None:
            whole = d + high * (1 - fired * lowered)  # potential at the end of the step
            g = torch.where((whole >= float(keep_min)) & (whole < float(keep_max)) | resting, g, 0)
        back = back if spike_grad is None else back + spike_grad[:, t]
        of_spike = _slope(scan, d, unit) * (theta.through(back) + every)
        of_high = g * fired * lowered + of_spike
        theta.step(t, of_high)
        if needs[2]:
            of_level -= of_high.sum(dim=0)
        after = g * (1 - fired + fired * kept_by_reset) + of_spike
        g = torch.where((d <= scan.v_max - high) & (d >= scan.v_min - high) | resting, after, 0)
        back = torch.where(resting, 0, g) * in_scale
        if scan.delayed and t > 0:
            before = spikes[:, t - 1]
            if scan.subtract:
                theta.later = g * before
                of_level -= theta.later.sum(dim=0) if needs[2] else 0
            else:
                g = g * (1 - before)
        if needs[4] and t > 0:
            of_decay += (g * left[:, t - 1]).sum(dim=0)
        g = g * decay
        if scan.has_current:
            i = i_left[:, t]
            back = torch.where((i > scan.i_min) & (i < scan.i_max), back + g_i, 0)
            g_i = back * i_decay
        found[:, t] = back
        back = torch.zeros_like(back) if w is None else back @ w
    return found, of_level, of_decay


class _BackOfTheta:
    """Gradients back in time by the adaptive parts of thresholds; nothing where thresholds do not adapt.

    later: the gradient, less, by this step's threshold of a reset that took place in the next one.
    """

    def __init__(self, scan: Scan, k: _Constants, thetas: Tensor) -> None:
        self.thetas, self.level, self.unit = thetas, k.level.float(), scan.theta_unit
        self.decay, self.top = scan.theta_decay * scan.theta_scale, scan.theta_max
        self.rise = None if k.theta_step is None else k.theta_step.float()
        self.grad: Tensor | float = 0.0
        self.later: Tensor | float = 0.0

    def high(self, t: int, constant: Tensor) -> Tensor:
        """The thresholds of a step."""
        return constant if self.rise is None else self.level + self.thetas[:, t] * self.unit

    def through(self, back: Tensor) -> Tensor:
        """The gradient by a step's spikes, with that by the thresholds they raise."""
        return back if self.rise is None else back + self.rise * self.grad

    def step(self, t: int, of_high: Tensor) -> None:
        """One step back; of_high is the gradient, less, by the step's thresholds."""
        if self.rise is not None:
            whole = self.decay * self.grad - self.unit * (self.later + of_high)
            self.grad = torch.where(self.thetas[:, t] < self.top, whole, 0)


def _slope(scan: Scan, gap: Tensor, unit: Tensor) -> Tensor:
    """Derivative of the spike by the code of the potential; see `_scan_kernel.slopes`."""
    x = gap * unit * scan.width
    if scan.surrogate == ARCTAN:
        return 0.5 * scan.width * unit / (1 + (torch.pi / 2 * x) ** 2)
    if scan.surrogate == FAST_SIGMOID:
        return unit / (1 + x.abs()) ** 2
    return unit * (1 - x.abs()).clamp(min=0)

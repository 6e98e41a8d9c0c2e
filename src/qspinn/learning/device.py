"""Devices of modules and their input, and settings under which training there repeats."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from qspinn.errors import ConfigError


def device_of(net: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(iter(net.parameters())).device


def need_together(net: nn.Module, spikes: Tensor) -> None:
    """A module and its input lie on one device, and the module computes in float32, outside torch.autocast.

    Raises:
        ConfigError: they do not.
    """
    need_single(net)
    place = device_of(net)
    if spikes.device != place:
        raise ConfigError(
            "device",
            "the module and its input lie on different devices",
            got=f"module on {place}, input on {spikes.device}",
            fix=f'move the input, spikes.to("{place}"), or the module, net.to("{spikes.device}")',
        )
    # torch knows no autocast, not even one that is off, for devices that compute nothing, such as "meta".
    if torch.amp.is_autocast_available(place.type) and torch.is_autocast_enabled(place.type):
        raise ConfigError(
            "autocast",
            "networks are computed and trained in float32",
            got="torch.autocast is on",
            allowed="float32",
            fix=f'with torch.autocast("{place.type}", enabled=False): ...',
        )


def need_single(net: nn.Module) -> None:
    """The parameters of a module are float32.

    Raises:
        ConfigError: names one that is not.
    """
    for name, p in net.named_parameters():
        if p.dtype != torch.float32:
            raise ConfigError(
                name,
                "networks are computed and trained in float32",
                got=str(p.dtype).split(".")[-1],
                allowed="float32",
                fix="net.float()",
            )


@contextlib.contextmanager
def repeatable(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers of torch start from the seed, and cuDNN takes algorithms that always add up in one order; what was
    set before comes back."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for modules that draw while they train
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in torch depend on the number of threads in their last bit; with one they do not, and several workers do
    not stand in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

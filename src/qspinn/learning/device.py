"""Devices of modules and their input, and settings under which training there repeats."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from qspinn.errors import ConfigError, DataError


def device_of(net: nn.Module) -> torch.device:
    """The device of a module's parameters; of one that has none, as residual connections alone make, the CPU."""
    first = next(iter(net.parameters()), None)
    return torch.device("cpu") if first is None else first.device


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
    _need_no_autocast(place)


def need_ready(net: nn.Module) -> None:
    """A module computes in float32, outside torch.autocast, and all its arrays are finite.

    Raises:
        ConfigError: it computes in another type.
        DataError: names the array that holds NaN or infinity.
    """
    need_single(net)
    _need_no_autocast(device_of(net))
    if (name := not_finite(net)) is not None:
        raise DataError(
            name, "holds NaN or infinity", allowed="finite values", fix="train again with a smaller learning rate"
        )


def need_gradients(net: nn.Module) -> None:
    """A module has something to learn, and torch keeps track of it.

    Raises:
        ConfigError: no parameter requires a gradient, or gradients are switched off.
    """
    if not any(p.requires_grad for p in net.parameters()):
        raise ConfigError(
            "net",
            "has no parameter that learns",
            got=f"{sum(1 for _ in net.parameters())} parameters, none with requires_grad",
            allowed="one at least",
            fix="net.requires_grad_(True)",
        )
    if not torch.is_grad_enabled():
        raise ConfigError(
            "torch.no_grad",
            "training needs gradients, which are switched off here",
            got="inference mode" if torch.is_inference_mode_enabled() else "no_grad",
            fix="call outside of it, or within torch.enable_grad()",
        )


def not_finite(net: nn.Module) -> str | None:
    """The name of the first array of a module that holds NaN or infinity; None where all are finite."""
    return next((name for name, x in net.state_dict().items() if not bool(torch.isfinite(x).all())), None)


def _need_no_autocast(place: torch.device) -> None:
    """Raises ConfigError where torch computes in another type than a module's."""
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

"""Modules of torch.nn, and their namesakes in the libraries of spiking neurons, as connections of a layered network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from qspinn.errors import ConfigError
from qspinn.importers.neuron import Place
from qspinn.importers.reading import Reader, Reading, Weights
from qspinn.networks.layered import Conv2d, Linear

Pair = tuple[int, int]


def _linear(reading: Reading, place: Place) -> None:
    reading.spikes(place)
    m = place.module
    n = int(np.prod(reading.shape))
    if m.in_features != n:
        raise ConfigError(
            f"{place.where}.in_features",
            "is not the size of what the module takes",
            got=m.in_features,
            allowed=f"{n} = {' * '.join(map(str, reading.shape))}",
            fix="the shape of the input, or a module that is missing before this one",
        )
    declared = Linear(source="input", target="next")
    reading.weigh(Weights(place, declared, place.numbers("weight"), _bias(place), (m.out_features, 1, 1)))


def _conv(reading: Reading, place: Place) -> None:
    reading.spikes(place)
    m = place.module
    if m.padding_mode != "zeros":
        raise place.refuse("padding_mode", "pads with something else than silence", m.padding_mode, "zeros")
    if m.in_channels != reading.shape[0]:
        raise place.refuse(
            "in_channels", "is not the number of channels of what it takes", m.in_channels, str(reading.shape[0])
        )
    declared = Conv2d(
        source="input",
        target="next",
        kernel=m.kernel_size,
        stride=m.stride,
        padding=_padding(place),
        dilation=m.dilation,
        groups=m.groups,
    )
    height, width = declared.shape_after(*reading.shape[1:])
    if min(height, width) < 1:
        raise place.refuse("kernel_size", "is larger than what it takes", m.kernel_size, str(reading.shape))
    reading.weigh(Weights(place, declared, place.numbers("weight"), _bias(place), (m.out_channels, height, width)))


def _padding(place: Place) -> Pair:
    """Padding as numbers.

    Raises:
        ConfigError: "same" of an even kernel, which pads one side more than the other.
    """
    m = place.module
    if m.padding == "valid":
        return 0, 0
    if m.padding != "same":
        pair: Pair = m.padding
        return pair
    spans = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
    if any(span % 2 for span in spans):
        raise place.refuse("padding", "'same' of an even kernel pads one side more", m.kernel_size, "odd kernels")
    return spans[0] // 2, spans[1] // 2


def _bias(place: Place) -> Any:
    return None if place.module.bias is None else place.numbers("bias")


def _norm(reading: Reading, place: Place) -> None:
    m = place.module
    if not m.track_running_stats or m.running_mean is None:
        raise place.refuse(
            "track_running_stats", "normalizes by the batch, also when the network is used", False, "True"
        )
    spread = np.sqrt(place.numbers("running_var") + m.eps)
    gamma = place.numbers("weight") if m.affine else np.ones(m.num_features)
    beta = place.numbers("bias") if m.affine else np.zeros(m.num_features)
    factor = gamma / spread
    reading.normalize(place, factor, beta - place.numbers("running_mean") * factor)


def _pool(of: Literal["average", "max"]) -> Reader:
    def read(reading: Reading, place: Place) -> None:
        m = place.module
        kernel, stride = _pair(m.kernel_size), _pair(m.kernel_size if m.stride is None else m.stride)
        for field, usual in (("padding", 0), ("dilation", 1), ("ceil_mode", False), ("return_indices", False)):
            got = getattr(m, field, usual)
            if _pair(got) != _pair(usual):
                raise place.refuse(field, "is not supported by pooling", got, str(usual))
        if getattr(m, "divisor_override", None) is not None:
            raise place.refuse("divisor_override", "is not supported by pooling", m.divisor_override, "None")
        reading.pool(place, of, kernel, stride)

    return read


def _sum_pool(reading: Reading, place: Place) -> None:
    m = place.module
    if getattr(m, "norm_type", 1) != 1 or m.ceil_mode:
        raise place.refuse("norm_type", "is no sum", m.norm_type, "1")
    reading.pool(place, "sum", _pair(m.kernel_size), _pair(m.kernel_size if m.stride is None else m.stride))


def _pair(x: Any) -> Pair:
    return (x[0], x[1]) if isinstance(x, tuple | list) else (x, x)


def _flatten(reading: Reading, place: Place) -> None:
    """Channels, rows and columns one after the other are how sources are numbered here, too.

    Raises:
        ConfigError: another axis is flattened: samples, or only a part of the places.
    """
    m = place.module
    if (m.start_dim, m.end_dim) not in ((1, -1), (2, -1)):
        raise place.refuse("start_dim", "flattens samples, or a part of a picture", (m.start_dim, m.end_dim), "1, -1")


def _nothing(reading: Reading, place: Place) -> None:
    """A module that does nothing once training is over."""


TABLE: dict[str, Callable[[Reading, Place], None]] = {
    "Linear": _linear,
    "Conv2d": _conv,
    "BatchNorm1d": _norm,
    "BatchNorm2d": _norm,
    "AvgPool2d": _pool("average"),
    "MaxPool2d": _pool("max"),
    "SumPool2d": _sum_pool,
    "Flatten": _flatten,
    "Dropout": _nothing,
    "Dropout2d": _nothing,
    "Identity": _nothing,
}
"""Class of a module without neurons -> the function that reads it."""

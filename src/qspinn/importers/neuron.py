"""A module of neurons of another library, in the terms of `Leaky`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn.errors import ConfigError
from qspinn.networks.layered import Layer, Leaky, Shape

Floats = NDArray[np.float64]


class Feedback(NamedTuple):
    """Connection of a layer's spikes onto the layer: weights [N, N] and, where there is one, a bias [N]."""

    weight: Floats
    bias: Floats | None


class Neurons(NamedTuple):
    """Equations of a module of neurons, in the terms of `Leaky`.

    Attributes:
        declared: the neuron; where channels or neurons differ, `arrays` has the numbers that hold.
        gain: factor on everything that enters, biases and feedback as well.
        decay, i_decay, v_th: where they differ between neurons: one per neuron, in the shape of the layer; else None.
        weights: [N, n_in], where the module weighs its input itself; else None.
        feedback: connection of the layer's spikes onto the layer.
        origin: potential of the module that counts as 0 here.
        notes: sentences on what was folded or chosen.
    """

    declared: Leaky
    gain: float | Floats = 1.0
    decay: Floats | None = None
    i_decay: Floats | None = None
    v_th: Floats | None = None
    weights: Floats | None = None
    feedback: Feedback | None = None
    origin: float = 0.0
    notes: tuple[str, ...] = ()


class Place(NamedTuple):
    """A module and where it stands, for messages.

    Attributes:
        where: as in `modules[3] (Leaky)`.
        shape: of the signal that enters the module: (channels, height, width).
    """

    where: str
    module: Any
    shape: Shape

    def refuse(self, field: str, problem: str, got: Any, allowed: str = "", fix: str = "") -> ConfigError:
        """The error that refuses a field of this module."""
        return ConfigError(f"{self.where}.{field}", problem, got=got, allowed=allowed, fix=fix)

    def numbers(self, field: str, x: Any = None) -> Floats:
        """A parameter, or the field of that name, as finite float64 numbers.

        Raises:
            ConfigError: it is not finite.
        """
        value = getattr(self.module, field) if x is None else x
        if hasattr(value, "is_complex") and value.is_complex():
            raise self.refuse(field, "holds complex numbers", value.dtype, "real numbers")
        value = value.detach().cpu().double().numpy() if hasattr(value, "detach") else np.asarray(value, np.float64)
        if not np.isfinite(value).all():
            wrong = float(value[~np.isfinite(value)].flat[0])
            raise self.refuse(field, "holds a value that is no finite number", wrong, "finite numbers")
        return np.array(value, np.float64)

    def number(self, field: str, x: Any = None) -> float:
        """A parameter that is one number.

        Raises:
            ConfigError: it is not finite, or differs between neurons.
        """
        value = self.numbers(field, x)
        if np.any(value != value.flat[0]):
            raise self.refuse(
                field, "differs between neurons", f"{value.min():.4g} to {value.max():.4g}", "one number for the layer"
            )
        return float(value.flat[0])

    def each(self, field: str, x: Any = None) -> tuple[float, Floats | None]:
        """A parameter as (its first number, None), or (its mean, one per neuron) where neurons differ.

        Raises:
            ConfigError: it is not finite, or does not fit the shape of the layer.
        """
        value = self.numbers(field, x)
        if np.all(value == value.flat[0]):
            return float(value.flat[0]), None
        channels, height, width = self.shape
        plain = (channels * height * width,) if height == width == 1 else self.shape
        try:
            spread = np.broadcast_to(value, plain).reshape(self.shape)
        except ValueError:
            raise self.refuse(field, "does not fit the shape of the layer", value.shape, str(plain)) from None
        return float(value.flat[0]), spread.copy()


def need_step(place: Place, field: str, function: Any, *, strict: bool) -> None:
    """Checks that the function by which a module spikes is a step at 0: 1 above, 0 below, and at 0 where not strict.

    Raises:
        ConfigError: it is none: a smooth one, one that draws random numbers, or one with another step.
    """
    import torch

    tiny = torch.finfo(torch.float32).tiny
    x = torch.cat([torch.linspace(-4.0, 4.0, 801), torch.tensor([0.0, -0.0, tiny, -tiny, 1e3, -1e3])])
    with torch.no_grad():
        given = function(x.clone())
    if not torch.equal(given.float(), ((x > 0) if strict else (x >= 0)).float()):
        name = getattr(function, "__qualname__", type(function).__name__)
        allowed = (
            "1 where the potential is above the threshold, else 0" if strict else "1 from the threshold on, else 0"
        )
        raise place.refuse(field, "makes no spikes of 0 and 1 at the threshold", name, allowed)


def of_layer(layer: Layer, neurons: Neurons) -> dict[str, Floats]:
    """Arrays of a layer by path: decays and thresholds that differ between neurons, one per channel where each channel
    has one.

    Raises:
        ConfigError: thresholds differ within a channel.
    """
    arrays: dict[str, Floats] = {}
    for kind, each in (("decay", neurons.decay), ("i_decay", neurons.i_decay), ("v_th", neurons.v_th)):
        if each is None:
            continue
        rows = each.reshape(layer.shape[0], -1)
        by_channel = bool(np.all(rows == rows[:, :1]))
        if kind == "v_th" and not by_channel:
            raise ConfigError(
                f"{layer.name}.v_th",
                "thresholds differ within a channel",
                got=f"{rows.min():.4g} to {rows.max():.4g}",
                allowed="one per channel",
            )
        arrays[f"{layer.name}.{kind}"] = rows[:, 0].copy() if by_channel else rows.reshape(-1)
    return arrays

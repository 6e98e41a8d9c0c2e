"""The real arrays of a layered network: every key known, none missing, shapes and values as the declaration asks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qspinn.arrays import LARGEST_SIZE, need_kind, reals
from qspinn.errors import LoweringError
from qspinn.networks.layered import Layer, LayeredNetwork, Pool2d, Skip
from qspinn.networks.tensors import TensorPath
from qspinn.records.words import nearest

Floats = NDArray[np.float64]
Shapes = tuple[tuple[int, ...], ...]


def layer_arrays(network: LayeredNetwork, params: Mapping[str, NDArray]) -> dict[str, Floats]:
    """The arrays of a network by path, float64: weights; `<layer>.bias` [C] where a connection declares one (zeros are
    taken for none elsewhere); and where given, in place of the declared numbers, `<layer>.v_th` [C] and the decays
    `<layer>.decay`, `<layer>.i_decay` (of a synaptic current), `<layer>.theta_decay` (of an adaptive threshold): one
    for all neurons [1], one per channel [C], or one per neuron [N], channel after channel.

    Raises:
        LoweringError: names the path of an array that is unknown, missing, of the wrong shape, not finite, or out of
            its range (thresholds above 0, decays within 0..1, those of currents and thresholds below 1).
    """
    need_kind("network", network, LayeredNetwork)
    if not isinstance(params, Mapping):
        raise LoweringError("params", "is no table of arrays by path", got=type(params).__name__, allowed="a dict")
    needed, optional = _shapes(network)
    known = needed | optional
    for path in params:
        if path not in known and not _is_no_bias(network, str(path), params[path]):
            raise LoweringError(
                str(path),
                "is not an array of this network",
                allowed=", ".join(sorted(known)),
                fix=_fix(network, str(path), known),
            )
    for path in needed:
        if path not in params:
            raise LoweringError(path, "is not among the trained arrays", allowed=", ".join(sorted(params)))
    return {path: _array(path, params[path], known[path]) for path in known if path in params}


def _is_no_bias(network: LayeredNetwork, path: str, x: NDArray) -> bool:
    """Whether an array that is not declared is a bias of zeros, which says the same as none."""
    layer = next((layer for layer in network.layers if path == f"{layer.name}.bias"), None)
    return layer is not None and not reals(path, x, shape=(layer.shape[0],), error=LoweringError).any()


def has_bias(network: LayeredNetwork, layer: str) -> bool:
    """Whether some connection into a layer declares a bias, or a normalization whose offset becomes one."""
    return any(not isinstance(c, Skip) and (c.bias or c.norm) for c in network.into(layer))


def thresholds_of(layer: Layer, arrays: Mapping[str, Floats]) -> Floats:
    """The threshold of every channel [C], as given or as declared."""
    return np.broadcast_to(arrays.get(f"{layer.name}.v_th", np.asarray(layer.neuron.v_th)), layer.shape[0]).copy()


def decay_of(layer: Layer, arrays: Mapping[str, Floats], kind: str = "decay") -> Floats:
    """The decay factors of a layer, as given or as declared: [1] for all neurons, [C] per channel or [N] per neuron.

    Args:
        kind: "decay" of potentials, "i_decay" of synaptic currents (0 without), "theta_decay" of adaptive thresholds.
    """
    neuron = layer.neuron
    declared = {"decay": neuron.decay, "i_decay": neuron.current_decay or 0.0, "theta_decay": neuron.theta_decay}[kind]
    return arrays.get(f"{layer.name}.{kind}", np.full(1, declared))


def decay_paths(network: LayeredNetwork) -> dict[str, Shapes]:
    """The decays that arrays may give, by path, with the shapes that each may have."""
    paths: dict[str, Shapes] = {}
    for layer in network.layers:
        there = {"decay": True, "i_decay": layer.neuron.current_decay is not None, "theta_decay": layer.neuron.adapts}
        shapes = ((1,), (layer.shape[0],), (layer.n,))
        paths |= {f"{layer.name}.{kind}": shapes for kind, is_there in there.items() if is_there}
    return paths


def decay_arrays(network: LayeredNetwork, decays: Mapping[str, NDArray]) -> dict[str, Floats]:
    """Decays by path, as `layer_arrays` takes them, and nothing else.

    Raises:
        LoweringError: names the path of an array that is no decay of this network, of the wrong shape or out of range.
    """
    if not isinstance(decays, Mapping):
        raise LoweringError("decays", "are no table of arrays by path", got=type(decays).__name__, allowed="a dict")
    known = decay_paths(network)
    for path in decays:
        if path not in known:
            raise LoweringError(
                str(path),
                "is no decay of this network",
                allowed=", ".join(sorted(known)),
                fix=nearest(str(path), known) or "leave it out",
            )
    return {path: _array(path, x, known[path]) for path, x in decays.items()}


def most_spikes(network: LayeredNetwork, signal: str) -> int:
    """Largest number of spikes of a source of a signal in one step."""
    pools = {c.target: c for c in network.connections if isinstance(c, Pool2d)}
    windows = 1
    while signal in pools:
        pool = pools[signal]
        windows *= 1 if pool.of == "max" else pool.kernel[0] * pool.kernel[1]
        signal = pool.source
    if signal == "input":
        return windows * network.input.max_count
    neuron = next(layer.neuron for layer in network.layers if layer.name == signal)
    return windows * (neuron.max_spikes if neuron.spiking else 1)


def _shapes(network: LayeredNetwork) -> tuple[dict[str, Shapes], dict[str, Shapes]]:
    """(shapes of the arrays that must be there, of those that may be there), by path."""
    needed: dict[str, Shapes] = {}
    optional = decay_paths(network)
    for layer in network.layers:
        channels = layer.shape[0]
        for c in network.into(layer.name):
            if not isinstance(c, Skip):
                needed[network.weight_path(c)] = (network.weight_shape(c),)
        if has_bias(network, layer.name):
            needed[f"{layer.name}.bias"] = ((channels,),)
        if layer.neuron.spiking:
            optional[f"{layer.name}.v_th"] = ((channels,),)
    return needed, optional


DECAYS = {"decay": "0..1", "i_decay": "0 <= decay < 1", "theta_decay": "0 <= decay < 1"}
"""Kinds of decays, and what each factor may be: potentials need not leak."""


def _array(path: str, x: NDArray, shapes: Shapes) -> Floats:
    """An array of one of its shapes; one number stands for all channels of a threshold, and for a decay."""
    kind = TensorPath.of(path).kind
    array = reals(path, x, low=-LARGEST_SIZE, high=LARGEST_SIZE, error=LoweringError)
    if (kind == "v_th" or kind in DECAYS) and array.size == 1:
        array = array.reshape(1)
    elif array.shape not in shapes:
        allowed = " or ".join(map(str, dict.fromkeys(shapes)))
        raise LoweringError(path, "has the wrong shape", got=array.shape, allowed=allowed)
    if kind == "v_th" and array.min() <= 0:
        raise LoweringError(path, "holds a threshold that silence reaches", got=float(array.min()), allowed="above 0")
    if kind in DECAYS:
        wrong = (array < 0) | (array > 1 if kind == "decay" else array >= 1)
        if wrong.any():
            raise LoweringError(path, "is no decay factor", got=float(array[wrong][0]), allowed=DECAYS[kind])
    return array


def _fix(network: LayeredNetwork, path: str, known: Mapping[str, object]) -> str:
    tensor = TensorPath.of(path)
    if tensor.kind == "bias" and any(tensor.layer == x.name for x in network.layers):
        return f"declare it (bias = True on a connection into {tensor.layer}), or leave it out"
    return nearest(path, known) or "leave it out"

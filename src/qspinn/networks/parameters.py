"""Arrays of a trained network by path, and the check that a set of arrays is what the network declares.

Arrays reach a network from a file, from training or from a caller. Wherever they do, unknown and missing ones, wrong
shapes and values that are not finite are refused here, by path, before anything computes with them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qspinn import arrays
from qspinn.errors import ConfigError, DataError, QSpinnError
from qspinn.networks.competing import Network
from qspinn.networks.layer_arrays import decay_paths
from qspinn.networks.layered import LayeredNetwork, Skip

Parameters = dict[str, NDArray]
MOST = float(np.finfo(np.float32).max)
"""The largest size of a number: networks compute in float32."""
BELOW_1 = float(np.nextafter(1.0, 0.0))
SPAN_64 = (-(2**63), 2**63 - 1)


class Expected(NamedTuple):
    """Requirements on an array: its shapes (any of them), its values' span, whether they are integers, whether it may
    be missing."""

    shapes: tuple[tuple[int, ...], ...]
    low: float = -MOST
    high: float = MOST
    whole: bool = False
    optional: bool = False


def of_competing(network: Network) -> dict[str, Expected]:
    """Arrays of competing populations: `<pop>.w` [N_post, N_pre], `<pop>.theta` [N], `readout.responses` [N, classes],
    which is missing before classes are assigned."""
    expected: dict[str, Expected] = {}
    for p in network.populations:
        expected[f"{p.name}.w"] = Expected(((p.n, network.size_of(network.dense_into(p.name).source)),))
        expected[f"{p.name}.theta"] = Expected(((p.n,),))
    shape = (network.population(network.readout.source).n, network.readout.n_classes)
    return expected | {"readout.responses": Expected((shape,), optional=True)}


def of_module(network: LayeredNetwork) -> dict[str, Expected]:
    """Arrays of a layered network as its module in training has them: `a__w`, `a__bias`, `norms.a__w.weight`, ...
    and, where they are not the declared ones, decays: `a__decay`, `a__i_decay`, `a__theta_decay`."""
    expected = {
        path.replace(".", "__"): Expected(shapes, 0.0, 1.0 if path.endswith(".decay") else BELOW_1, optional=True)
        for path, shapes in decay_paths(network).items()
    }
    for layer in network.layers:
        channels = layer.shape[0]
        for c in network.into(layer.name):
            if isinstance(c, Skip):
                continue
            key = network.weight_path(c).replace(".", "__")
            expected[key] = Expected((network.weight_shape(c),))
            if c.bias:
                expected[f"{layer.name}__bias"] = Expected(((channels,),))
            if c.norm:
                expected |= {
                    f"norms.{key}.{kind}": Expected(((channels,),)) for kind in ("weight", "bias", "running_mean")
                }
                expected[f"norms.{key}.running_var"] = Expected(((channels,),), low=0.0)
                expected[f"norms.{key}.num_batches_tracked"] = Expected(((),), low=0, high=SPAN_64[1], whole=True)
    return expected


def need(
    params: Mapping[str, Any], expected: Mapping[str, Expected], *, error: type[QSpinnError] = DataError
) -> dict[str, NDArray[Any]]:
    """Every array, as float64 or int64: none unknown, none missing, shapes as declared, values finite and within their
    span.

    Raises:
        QSpinnError: of kind `error`, naming the path.
    """
    need_known(params, expected, error=error)
    checked: dict[str, NDArray[Any]] = {}
    for path, what in expected.items():
        if path not in params:
            if not what.optional:
                raise error(path, "is not among the arrays", got=sorted(params), fix=f"add {path}")
            continue
        if what.whole:
            span = int(what.low), int(what.high)
            array: NDArray[Any] = arrays.integers(path, params[path], low=span[0], high=span[1], error=error)
        else:
            array = arrays.reals(path, params[path], low=what.low, high=what.high, error=error)
        if array.shape not in what.shapes:
            raise error(path, "has the wrong shape", got=array.shape, allowed=" or ".join(map(str, what.shapes)))
        checked[path] = array
    return checked


def need_known(
    params: Mapping[str, Any], expected: Mapping[str, Expected], *, error: type[QSpinnError] = DataError
) -> None:
    """Checks that there is no array which the network does not have; a misspelt path would be ignored otherwise.

    Raises:
        ConfigError: params is no mapping.
        QSpinnError: of kind `error`, naming the path and the nearest one that exists.
    """
    if not isinstance(params, Mapping):
        raise ConfigError("params", "is no mapping from paths to arrays", got=type(params).__name__)
    for path in params:
        if path not in expected:
            near = difflib.get_close_matches(str(path), expected, n=1, cutoff=0.5)
            raise error(
                str(path),
                "is no array of this network",
                allowed=", ".join(expected),
                fix=f"did you mean {near[0]!r}?" if near else "leave it out",
            )


def need_arrays(
    params: Mapping[str, Any], expected: Mapping[str, Expected], *, error: type[QSpinnError] = DataError
) -> None:
    """Checks names, and that the values are NumPy arrays of numbers: what a checkpoint can hold."""
    need_known(params, expected, error=error)
    for path, array in params.items():
        if type(array) is not np.ndarray or array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
            kind = str(array.dtype) if type(array) is np.ndarray else type(array).__name__
            raise error(path, "is no NumPy array of real numbers", got=kind, fix=_as_array(array, path.split(".")[-1]))


def _as_array(x: Any, name: str) -> str:
    """The advice by which what is no plain array of real numbers becomes one, nothing of it lost unsaid."""
    if isinstance(x, np.ma.MaskedArray):
        return f"fill or leave out the masked entries of {name}"
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufO":
        return f"np.asarray({name}, np.float32)" if x.dtype.kind in "bO" else f"np.asarray({name}, np.float64)"
    if isinstance(x, np.ndarray):
        return "give real numbers"
    return f"{name}.detach().cpu().numpy()" if hasattr(x, "detach") else f"np.asarray({name})"


def need_whole(params: Mapping[str, Any], expected: Mapping[str, Expected]) -> None:
    """Checks that a checkpoint can hold the arrays, and that they are all there, of their shapes and spans.

    Raises:
        DataError: names the array.
    """
    need_arrays(params, expected)
    need(params, expected)


def native(params: Mapping[str, NDArray]) -> Parameters:
    """Copies of the arrays in a table of their own, in the byte order of this machine, as files hold them: a trained
    network does not change with the arrays that it was made of."""
    return {path: array.astype(array.dtype.newbyteorder("=")) for path, array in params.items()}

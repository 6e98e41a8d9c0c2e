"""Inputs as strangers pass them, for tests that every border either answers or refuses by name.

`arrays()` draws arrays of every type, shape, layout and content; `scalars()` single values of every kind; `events()`
structured arrays that nearly are events. `answered` calls a function and asserts that nothing but a QSpinnError is
raised and that no input has changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from qspinn.errors import QSpinnError

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "longdouble",
    "complex64",
    "complex128",
    "object",
    "U3",
    "S3",
    "M8[s]",
    "m8[s]",
    ">i2",
    ">i4",
    ">i8",
    ">u2",
    ">f4",
    ">f8",
)
TAME = (0, 1)
WILD = (
    0,
    1,
    2,
    3,
    -1,
    7,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
WILD_FLOATS = (0.0, 1.0, -0.0, 0.5, 2.7, -1.0, np.nan, np.inf, -np.inf, 255.0, 256.0, 1e-40, 65504.0, 1e30, 1e300)
LAYOUTS = ("plain", "plain", "plain", "read-only", "strided", "reversed", "fortran", "masked", "list", "matrix")


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, tame: bool) -> np.ndarray:
    """Random values of the type: zeros and ones, or whatever the type can hold."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=int))
    with np.errstate(all="ignore"):
        if tame or kind.kind in "bOUSMm":
            chosen = rng.integers(0, 2, size)
            found = chosen.astype(object) if kind.kind in "O" else chosen.astype("i8").astype(kind)
            if kind.kind == "O" and not tame and size:
                found[0] = [None, "a", 2**80, [1, 2]][int(rng.integers(4))]
        elif kind.kind in "fc":
            found = np.array(WILD_FLOATS)[rng.integers(0, len(WILD_FLOATS), size)].astype(kind)
        else:
            info = np.iinfo(kind)
            pool = [v for v in WILD if info.min <= v <= info.max]
            found = np.array([pool[i] for i in rng.integers(0, len(pool), size)], dtype=kind)
    return found.reshape(shape)


def _laid_out(values: np.ndarray, layout: str, rng: np.random.Generator) -> Any:
    """The same values in another form."""
    if layout == "read-only":
        values.flags.writeable = False
    elif layout == "strided" and values.ndim:
        values = np.repeat(values, 2, axis=-1)[..., ::2]
    elif layout == "reversed" and values.ndim:
        values = values[::-1]
    elif layout == "fortran":
        values = np.asfortranarray(values)
    elif layout == "masked":
        with np.errstate(all="ignore"):  # the value that fills the masked places need not fit the type
            return np.ma.masked_array(values, mask=rng.random(values.shape) < 0.3)
    elif layout == "list":
        return values.tolist()
    elif layout == "matrix" and values.ndim == 2:
        return values.view(np.matrix)
    return values


@st.composite
def arrays(
    draw: st.DrawFn,
    *,
    n_dims: Sequence[int] = (0, 1, 2, 3, 5),
    sides: Sequence[int] = (0, 1, 2, 3, 4),
    shape: tuple[int, ...] | None = None,
) -> Any:
    """An array, masked array or nested list; half of them hold zeros and ones only, so that types and layouts are
    reached that a value would be refused for."""
    if shape is None:
        shape = tuple(draw(st.sampled_from(sides)) for _ in range(draw(st.sampled_from(n_dims))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = values(rng, shape, draw(st.sampled_from(DTYPES)), draw(st.booleans()))
    return _laid_out(found, draw(st.sampled_from(LAYOUTS)), rng)


def scalars() -> st.SearchStrategy[Any]:
    """A single value: a small number mostly, else one of the wrong kind or size."""
    return st.one_of(
        st.integers(0, 4),
        st.sampled_from(
            [
                None,
                True,
                False,
                -1,
                1.0,
                1.5,
                np.nan,
                np.inf,
                "1",
                "",
                b"1",
                [],
                [1],
                (1, 2),
                {},
                2**31,
                2**63,
                2**70,
                -(2**70),
                np.int8(3),
                np.uint64(2),
                np.float32(2),
                np.array(2),
                np.array([1, 2]),
                1j,
            ]
        ),
    )


@st.composite
def events(draw: st.DrawFn, *, sizes: Sequence[int] = (0, 1, 3, 8)) -> Any:
    """A structured array with the fields of events (mostly), of any types."""
    n = draw(st.sampled_from(sizes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = [draw(st.sampled_from([usual, usual, usual, *DTYPES])) for usual in ("int16", "uint8", "int64", "bool")]
    names = draw(st.sampled_from([("x", "y", "t", "p")] * 6 + [("x", "y", "t", "pol"), ("a", "b", "c", "d")]))
    out = np.zeros(n, dtype=list(zip(names, kinds, strict=True)))
    for name, kind in zip(names, kinds, strict=True):
        out[name] = values(rng, (n,), kind, draw(st.booleans()))
    return _laid_out(out, draw(st.sampled_from(["plain", "plain", "read-only", "reversed", "masked"])), rng)


def fingerprint(x: Any) -> Any:
    """Everything of an input that a call could change."""
    if isinstance(x, np.ma.MaskedArray):
        return fingerprint(np.asarray(x)), np.ma.getmaskarray(x).tobytes()
    if isinstance(x, np.ndarray):
        content = repr(x.tolist()) if x.dtype.hasobject else x.tobytes()
        return x.dtype.str, x.shape, x.strides, x.flags.writeable, content
    return repr(copy.deepcopy(x))


def answered(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the function returns, or the QSpinnError that it raises; its inputs are as before either way."""
    before = [fingerprint(x) for x in (*arguments, *named.values())]
    try:
        result = function(*arguments, **named)
    except QSpinnError as error:
        result = error
    assert [fingerprint(x) for x in (*arguments, *named.values())] == before, "an input was changed"
    return result

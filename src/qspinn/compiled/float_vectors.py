"""More operations on 16 floats at once (see `_vectors`): comparisons to masks, choices by masks, rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from qspinn.compiled.vectors import FLOATS, FLOATS_MASK_T, FLOATS_T, _binary, _llvm


def _compared(sign: str, *, ordered: bool = True) -> Callable:
    def compare(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return (builder.fcmp_ordered if ordered else builder.fcmp_unordered)(sign, *arguments)

        return FLOATS_MASK_T(FLOATS_T, FLOATS_T), generate

    return intrinsic(compare)


floats_above, floats_from, floats_below, floats_to = (_compared(sign) for sign in (">", ">=", "<", "<="))
floats_unlike = _compared("!=", ordered=False)
"""Also where either is no number."""
floats_div = _binary(FLOATS_T, lambda b, x, y: b.fdiv(x, y))
masks_and = _binary(FLOATS_MASK_T, lambda b, x, y: b.and_(x, y))


def _unary(name: str) -> Callable:
    def operate(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            kind = _llvm(FLOATS_T)
            function = builder.module.declare_intrinsic(f"llvm.{name}.v{FLOATS}f32", fnty=ir.FunctionType(kind, [kind]))
            return builder.call(function, arguments)

        return FLOATS_T(FLOATS_T), generate

    return intrinsic(operate)


floats_floor, floats_abs = _unary("floor"), _unary("fabs")


@intrinsic
def floats_where(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.select(*arguments)

    return FLOATS_T(FLOATS_MASK_T, FLOATS_T, FLOATS_T), generate


@intrinsic
def count_set(typingctx: Any, mask: Any) -> Any:
    """Number of set lanes of a mask."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        word = ir.IntType(FLOATS)
        count = builder.module.declare_intrinsic("llvm.ctpop", [word])
        return builder.zext(builder.call(count, [builder.bitcast(arguments[0], word)]), ir.IntType(64))

    return types.int64(FLOATS_MASK_T), generate

"""Sums of products of 16-bit integers in registers: sixteen sums of 32 bits, to each of which an instruction adds two
products. A register of 32 numbers is held as sixteen pairs, `INTS_T`; results do not depend on the processor."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import types
from numba.extending import intrinsic

from qspinn.compiled.lanes import _fetch
from qspinn.compiled.vectors import INTS, INTS_T, LANES_T, _llvm, _pointer, _splat

PAIRED = 2 * INTS
"""Numbers in a register."""


@intrinsic
def load_pairs(typingctx: Any, array: Any, at: Any) -> Any:
    """32 numbers of an int16 array as sixteen pairs."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _fetch(context, builder, signature.args[0], arguments[0], arguments[1], _llvm(INTS_T))

    return INTS_T(array, types.intp), generate


@intrinsic
def splat_pair(typingctx: Any, array: Any, at: Any) -> Any:
    """The pair array[at:at + 2] of an int16 array, sixteen times."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pair = _fetch(context, builder, signature.args[0], arguments[0], arguments[1], ir.IntType(32))
        return _splat(builder, pair, _llvm(INTS_T))

    return INTS_T(array, types.intp), generate


@intrinsic
def load_wide(typingctx: Any, array: Any, at: Any) -> Any:
    """Sixteen numbers of an integer array of 8, 16 or 32 bits, widened to 32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        width = array.dtype.bitwidth
        kind = ir.VectorType(ir.IntType(width), INTS)
        value = _fetch(context, builder, signature.args[0], arguments[0], arguments[1], kind)
        if width == 32:
            return value
        return (builder.sext if array.dtype.signed else builder.zext)(value, _llvm(INTS_T))

    return INTS_T(array, types.intp), generate


@intrinsic
def store_narrow(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """array[at:at + 16] = the lowest bits of sixteen numbers."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.VectorType(ir.IntType(array.dtype.bitwidth), INTS)
        value = arguments[2] if array.dtype.bitwidth == 32 else builder.trunc(arguments[2], kind)
        place = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], INTS)
        builder.store(value, builder.bitcast(place, kind.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, INTS_T), generate


@intrinsic
def add_products(typingctx: Any, total: Any, a: Any, b: Any) -> Any:
    """total + the sum of both products of every pair; the two products of a pair must fit 32 bits together."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        total, *factors = arguments
        a, b = (builder.bitcast(x, _llvm(LANES_T)) for x in factors)
        wide = _llvm(INTS_T)
        if get_host_cpu_features().get("avx512bw", False):
            multiply = builder.module.declare_intrinsic(
                "llvm.x86.avx512.pmaddw.d.512", fnty=ir.FunctionType(wide, [a.type, b.type])
            )
            return builder.add(total, builder.call(multiply, [a, b]))
        for part in (0, 1):
            chosen = ir.Constant(wide, list(range(part, PAIRED, 2)))
            nothing = ir.Constant(a.type, ir.Undefined)
            x, y = (builder.sext(builder.shuffle_vector(v, nothing, chosen), wide) for v in (a, b))
            total = builder.add(total, builder.mul(x, y))
        return total

    return INTS_T(INTS_T, INTS_T, INTS_T), generate


LOW_FIRST = [j for part in range(0, PAIRED, 8) for j in range(part, part + 4)]
PLACES = LOW_FIRST + [j + 4 for j in LOW_FIRST]
"""Which of 32 numbers the sums of `pair_low` (first sixteen) and `pair_high` belong to."""


def _pairing(half: int) -> Any:
    def pair(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            one, two = (builder.bitcast(x, _llvm(LANES_T)) for x in arguments)
            order = [k for j in PLACES[half * INTS : half * INTS + INTS] for k in (j, j + PAIRED)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), PAIRED), order)
            return builder.bitcast(builder.shuffle_vector(one, two, mask), _llvm(INTS_T))

        return INTS_T(INTS_T, INTS_T), generate

    return intrinsic(pair)


pair_low, pair_high = _pairing(0), _pairing(1)
"""Pairs (a[j], b[j]) of two registers of 32 numbers, for j as `PLACES` says: one instruction each."""


def _reduction(name: str) -> Any:
    def reduce(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            kind = _llvm(INTS_T)
            found = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.{name}.v{INTS}i32", fnty=ir.FunctionType(kind.element, [kind])
            )
            return builder.call(found, arguments)

        return types.int32(INTS_T), generate

    return intrinsic(reduce)


ints_total, ints_top = _reduction("add"), _reduction("smax")
"""Sum and largest of sixteen numbers."""

"""Whole vector registers inside compiled kernels: 512 bits as words for bit-sliced counting, as 32 lanes
of 16 bits, as 16 floats.

Numba has no vector values; these intrinsics emit LLVM vector instructions, which LLVM maps to whatever the processor
has (512-bit registers at best, pairs or loops of narrower ones elsewhere). Results do not depend on the mapping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

WORDS, LANES, FLOATS = 8, 32, 16


class _Vector(types.Type):
    """A Numba type for one LLVM vector."""

    def __init__(self, count: int, element: ir.Type) -> None:
        self.count, self.element = count, element
        super().__init__(name=f"vector_{count}x{element}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: _Vector) -> None:
        super().__init__(dmm, fe_type, _llvm(fe_type))


def _llvm(kind: _Vector) -> ir.VectorType:
    return ir.VectorType(kind.element, kind.count)


WORDS_T, LANES_T = _Vector(WORDS, ir.IntType(64)), _Vector(LANES, ir.IntType(16))
FLOATS_T = _Vector(FLOATS, ir.FloatType())


def _splat(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A vector with the same scalar in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _pointer(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, at: ir.Value) -> ir.Value:
    """Address of element `at` of a contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [at])


def _loader(kind: _Vector) -> Callable:
    def load(typingctx: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            place = _pointer(context, builder, signature.args[0], *arguments)
            value = builder.load(builder.bitcast(place, _llvm(kind).as_pointer()))
            value.align = 1
            return value

        return kind(array, types.intp), generate

    return intrinsic(load)


def _storer(kind: _Vector) -> Callable:
    def store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            place = _pointer(context, builder, signature.args[0], *arguments[:2])
            builder.store(arguments[2], builder.bitcast(place, _llvm(kind).as_pointer())).align = 1
            return context.get_dummy_value()

        return types.void(array, types.intp, kind), generate

    return intrinsic(store)


def _binary(kind: _Vector, emit: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Callable:
    def operate(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return emit(builder, *arguments)

        return kind(kind, kind), generate

    return intrinsic(operate)


load_words, load_lanes, load_floats = _loader(WORDS_T), _loader(LANES_T), _loader(FLOATS_T)
store_words, store_lanes, store_floats = _storer(WORDS_T), _storer(LANES_T), _storer(FLOATS_T)
floats_add = _binary(FLOATS_T, lambda b, x, y: b.fadd(x, y))
floats_mul = _binary(FLOATS_T, lambda b, x, y: b.fmul(x, y))
words_xor = _binary(WORDS_T, lambda b, x, y: b.xor(x, y))
words_and = _binary(WORDS_T, lambda b, x, y: b.and_(x, y))
words_or = _binary(WORDS_T, lambda b, x, y: b.or_(x, y))
lanes_add = _binary(LANES_T, lambda b, x, y: b.add(x, y))
lanes_min = _binary(LANES_T, lambda b, x, y: b.select(b.icmp_unsigned("<", x, y), x, y))


@intrinsic
def load_bytes(typingctx: Any, array: Any, at: Any) -> Any:
    """32 bytes of a uint8 array as 16-bit lanes."""
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        place = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(place, ir.VectorType(ir.IntType(8), LANES).as_pointer()))
        value.align = 1
        return builder.zext(value, _llvm(LANES_T))

    return LANES_T(array, types.intp), generate


@intrinsic
def words_zero(typingctx: Any) -> Any:
    """Eight words of zero."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return ir.Constant(_llvm(WORDS_T), [0] * WORDS)

    return WORDS_T(), generate


@intrinsic
def lanes_splat(typingctx: Any, scalar: Any) -> Any:
    """The low 16 bits of an integer in every lane."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return _splat(builder, builder.trunc(arguments[0], ir.IntType(16)), _llvm(LANES_T))

    return LANES_T(types.int64), generate


@intrinsic
def lanes_add_where(typingctx: Any, x: Any, bits: Any, value: Any) -> Any:
    """x + value in lanes whose bit (uint32, lane 0 lowest) is set, x elsewhere: one masked addition."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        mask = builder.bitcast(arguments[1], ir.VectorType(ir.IntType(1), LANES))
        return builder.select(mask, builder.add(arguments[0], arguments[2]), arguments[0])

    return LANES_T(LANES_T, types.uint32, LANES_T), generate


@intrinsic
def lanes_scale(typingctx: Any, x: Any, factor: Any, half: Any) -> Any:
    """(x * factor + half) >> 16 for unsigned lanes, half 0 or 2**15: high half of the product plus its carry."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        wide = ir.VectorType(ir.IntType(32), LANES)
        narrow = _llvm(LANES_T)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, [16] * LANES)), narrow)
        low = builder.mul(arguments[0], arguments[1])
        carry = builder.lshr(builder.and_(low, arguments[2]), ir.Constant(narrow, [15] * LANES))
        return builder.add(high, carry)

    return LANES_T(LANES_T, LANES_T, LANES_T), generate


@intrinsic
def lanes_reach(typingctx: Any, x: Any, level: Any) -> Any:
    """Bit per lane (uint32): x >= level, unsigned."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return builder.bitcast(builder.icmp_unsigned(">=", *arguments), ir.IntType(32))

    return types.uint32(LANES_T, LANES_T), generate


@intrinsic
def floats_splat(typingctx: Any, scalar: Any) -> Any:
    """A float32 in every lane."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return _splat(builder, arguments[0], _llvm(FLOATS_T))

    return FLOATS_T(types.float32), generate


@intrinsic
def floats_reach(typingctx: Any, x: Any, level: Any) -> Any:
    """Bit per lane (uint16): x >= level."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return builder.bitcast(builder.fcmp_ordered(">=", *arguments), ir.IntType(16))

    return types.uint16(FLOATS_T, FLOATS_T), generate

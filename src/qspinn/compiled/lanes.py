"""Vectors as wide as the arrays that they come from: kernels written once, for lanes of 16 or of 32 bits.

A *strip* is always 16 elements, a register of half or full size. *Full* vectors have 512 bits: 32 or 16 lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import types
from numba.extending import intrinsic

from qspinn.compiled.vectors import _llvm, _pointer, _splat, _Vector

STRIP = 16
FEW = 16  # names written without asking whether there are that many
Emit = Callable[..., ir.Value]


def _full(dtype: Any) -> _Vector:
    return _Vector(512 // dtype.bitwidth, ir.IntType(dtype.bitwidth))


def _strip(dtype: Any) -> _Vector:
    return _Vector(STRIP, ir.IntType(dtype.bitwidth))


def _has(feature: str) -> bool:
    return bool(get_host_cpu_features().get(feature, False))


def _fetch(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, at: ir.Value, kind: ir.Type
) -> ir.Value:
    """`kind` read from an array, which need not be aligned."""
    bits = kind.count * kind.element.width if isinstance(kind, ir.VectorType) else kind.width
    count = bits // array_type.dtype.bitwidth  # elements, which may be narrower than lanes
    place = _pointer(context, builder, array_type, array, at, count)
    value = builder.load(builder.bitcast(place, kind.as_pointer()))
    value.align = 1
    return value


def _loader(kind_of: Callable[[Any], _Vector]) -> Callable:
    def load(typingctx: Any, array: Any, at: Any) -> Any:
        kind = kind_of(array.dtype)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return _fetch(context, builder, signature.args[0], *arguments, _llvm(kind))

        return kind(array, types.intp), generate

    return intrinsic(load)


load_full, load_strip = _loader(_full), _loader(_strip)


@intrinsic
def store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """array[at : at + lanes] = value."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        place = _pointer(context, builder, signature.args[0], *arguments[:2], value.count)
        builder.store(arguments[2], builder.bitcast(place, _llvm(value).as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


def _row_loader(kind_of: Callable[[Any], _Vector]) -> Callable:
    def load(typingctx: Any, rows: Any, at: Any, like: Any) -> Any:
        kind = kind_of(like.dtype)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            narrow = ir.VectorType(ir.IntType(rows.dtype.bitwidth), kind.count)
            value = _fetch(context, builder, signature.args[0], *arguments[:2], narrow)
            return value if narrow == _llvm(kind) else builder.sext(value, _llvm(kind))

        return kind(rows, types.intp, like), generate

    return intrinsic(load)


load_full_row, load_row = _row_loader(_full), _row_loader(_strip)
"""A vector, or a strip, of a weight row, widened to the lanes of the array `like`."""


@intrinsic
def lanes_of(typingctx: Any, like: Any) -> Any:
    """Number of lanes of an array's type in a full vector."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return ir.Constant(ir.IntType(64), _full(like.dtype).count)

    return types.intp(like), generate


@intrinsic
def load_numbers(typingctx: Any, numbers: Any, at: Any, like: Any) -> Any:
    """Vector of as many elements of an array as a full vector of the array `like` has lanes."""
    kind = _Vector(512 // like.dtype.bitwidth, ir.IntType(numbers.dtype.bitwidth))

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _fetch(context, builder, signature.args[0], *arguments[:2], _llvm(kind))

    return kind(numbers, types.intp, like), generate


@intrinsic
def splat_like(typingctx: Any, like: Any, x: Any) -> Any:
    """x in every lane of a vector like that one."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = _llvm(like)
        return _splat(builder, builder.trunc(arguments[1], kind.element), kind)

    return like(like, types.int64), generate


def _splatter(kind_of: Callable[[Any], _Vector]) -> Callable:
    def splat(typingctx: Any, like: Any, x: Any) -> Any:
        kind = kind_of(like.dtype)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            x = arguments[1]
            return _splat(builder, x if kind.element.width == 64 else builder.trunc(x, kind.element), _llvm(kind))

        return kind(like, types.int64), generate

    return intrinsic(splat)


splat_full, splat_strip = _splatter(_full), _splatter(_strip)


def _binary(emit: Emit) -> Callable:
    def operate(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return emit(builder, *arguments)

        return a(a, a), generate

    return intrinsic(operate)


def _add_within(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x + y, of 16 bits saturated (one instruction), of more bits as it is: there the sum is proved to fit."""
    if x.type.element.width > 16:
        return builder.add(x, y)
    name = f"llvm.sadd.sat.v{x.type.count}i{x.type.element.width}"
    saturated = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(x.type, [x.type, x.type]))
    return builder.call(saturated, [x, y])


add = _binary(lambda b, x, y: b.add(x, y))
sub = _binary(lambda b, x, y: b.sub(x, y))
mul = _binary(lambda b, x, y: b.mul(x, y))
both = _binary(lambda b, x, y: b.and_(x, y))
up = _binary(lambda b, x, y: b.shl(x, y))
down = _binary(lambda b, x, y: b.ashr(x, y))
least = _binary(lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y))
most = _binary(lambda b, x, y: b.select(b.icmp_signed(">", x, y), x, y))
add_within = _binary(_add_within)


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _sign(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """All ones where x is negative."""
    return builder.ashr(x, _constant(x.type, x.type.element.width - 1))


@intrinsic
def sign(typingctx: Any, x: Any) -> Any:
    """All ones where x is negative, else zero."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _sign(builder, arguments[0])

    return x(x), generate


def _nearest_product(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """(x * y + 2**14) >> 15 for 16-bit lanes; named where the processor has it, as LLVM loses it in loops."""
    kind = x.type
    if _has("avx512bw"):
        fnty = ir.FunctionType(kind, [kind, kind])
        multiply = builder.module.declare_intrinsic("llvm.x86.avx512.pmul.hr.sw.512", fnty=fnty)
        return builder.call(multiply, [x, y])
    wide = ir.VectorType(ir.IntType(32), kind.count)
    product = builder.add(builder.mul(builder.sext(x, wide), builder.sext(y, wide)), _constant(wide, 1 << 14))
    return builder.trunc(builder.ashr(product, _constant(wide, 15)), kind)


@intrinsic
def scaled(typingctx: Any, x: Any, factor: Any, half: Any, low: Any, shift: Any) -> Any:
    """(x * factor + half + (low where x < 0)) >> shift; where lanes have 16 bits, the product need not fit them.

    With (half, low) = (0, 0) that truncates, with (half the divisor, 0) it rounds to nearest, with (0, divisor - 1)
    toward zero. Lanes of 16 bits take the common shift of 15, and half and low accordingly.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, factor, half, low, shift = arguments
        offset = builder.or_(half, builder.and_(low, _sign(builder, x)))
        if x.type.element.width > 16:
            return builder.ashr(builder.add(builder.mul(x, factor), offset), shift)
        # The nearest multiple is one instruction; the remainder says by how much another rounding differs from it.
        fraction, fourteen = _constant(x.type, 0x7FFF), _constant(x.type, 1 << 14)
        rest = builder.and_(builder.mul(x, factor), fraction)
        carries = [builder.lshr(builder.add(rest, y), _constant(x.type, 15)) for y in (fourteen, offset)]
        return builder.add(_nearest_product(builder, x, factor), builder.sub(carries[1], carries[0]))

    return x(x, x, x, x, x), generate


@intrinsic
def scaled_to_nearest(typingctx: Any, x: Any, factor: Any, half: Any, shift: Any) -> Any:
    """`scaled` where it rounds to nearest: one instruction for 16-bit lanes."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, factor, half, shift = arguments
        if x.type.element.width > 16:
            return builder.ashr(builder.add(builder.mul(x, factor), half), shift)
        return _nearest_product(builder, x, factor)

    return x(x, x, x, x), generate


def _mask(kind: Any) -> _Vector:
    return _Vector(kind.count, ir.IntType(1))


def _comparison(sign: str) -> Callable:
    def compare(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return builder.icmp_signed(sign, *arguments)

        return _mask(a)(a, a), generate

    return intrinsic(compare)


above, equal = _comparison(">"), _comparison("==")


@intrinsic
def choose(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.select(*arguments)

    return a(mask, a, a), generate


@intrinsic
def spill(typingctx: Any, index: Any, at: Any, values: Any, mask: Any, valid: Any) -> Any:
    """index[at:] = values where the mask is set, one after the other; returns how many of them are valid.

    A whole vector is written: what follows the spilled values is overwritten. valid (uint32) has a bit for each lane,
    lane 0 lowest. Lanes that are not valid lie above those that are, so that theirs come last and need no mask.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        index, at, values, mask, valid = arguments
        n, bits = signature.args[3].count, signature.args[0].dtype.bitwidth
        word, kind = ir.IntType(n), ir.VectorType(ir.IntType(bits), n)
        set_bits = builder.and_(builder.bitcast(mask, word), builder.trunc(valid, word) if n < 32 else valid)

        fnty = ir.FunctionType(kind, [kind, mask.type, kind])
        compress = builder.module.declare_intrinsic(f"llvm.experimental.vector.compress.v{n}i{bits}", fnty=fnty)
        place = _pointer(context, builder, signature.args[0], index, at, 0)  # what is written is decided below

        def write(first: int) -> None:
            """The first so many; few at a time, as stores across cache lines are slow."""
            packed = builder.call(compress, [values, mask, ir.Constant(kind, ir.Undefined)])
            if first < n:
                few = ir.Constant(ir.VectorType(ir.IntType(32), first), list(range(first)))
                packed = builder.shuffle_vector(packed, ir.Constant(kind, ir.Undefined), few)
            builder.store(packed, builder.bitcast(place, packed.type.as_pointer())).align = 1

        count = builder.module.declare_intrinsic("llvm.ctpop", [word])
        found = builder.call(count, [set_bits])
        if bits == 16 and _has("avx512vbmi2"):
            write(FEW)  # a few instructions; a jump that is often wrong would cost more
            with builder.if_then(builder.icmp_unsigned(">", found, ir.Constant(word, FEW)), likely=False):
                write(n)
        else:
            with builder.if_then(builder.icmp_unsigned("!=", set_bits, ir.Constant(word, 0))):
                write(n)
        return builder.zext(found, ir.IntType(64))

    return types.int64(index, types.intp, values, mask, types.uint32), generate

"""Whole vector registers inside compiled kernels: 512 bits as words for bit-sliced counting, as 32 lanes
of 16 bits, as 16 floats or 16 integers of 32 bits.

Numba has no vector values; these intrinsics emit LLVM vector instructions, which LLVM maps to whatever the processor
has (512-bit registers at best, pairs or loops of narrower ones elsewhere). Results do not depend on the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import types
from numba.extending import intrinsic, models, register_model

from qspinn.compiled.jit import BOUNDS_CHECKED, kernel

WORDS, LANES, FLOATS, INTS = 8, 32, 16, 16
LINE = 64  # bytes of a register and of a cache line: a register that straddles two lines costs twice the bandwidth


def aligned(shape: tuple[int, ...], kind: type) -> np.ndarray:
    """Zeros that start at a cache line."""
    n_bytes = math.prod(shape) * np.dtype(kind).itemsize
    room = np.zeros(n_bytes + LINE, dtype=np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + n_bytes].view(kind).reshape(shape)


@kernel
def aligned_zeros(n, kind):
    """Zeros of a type that start at a cache line, inside compiled code."""
    room = np.zeros(n + LINE, kind)
    start = (-room.ctypes.data % LINE) // room.itemsize
    return room[start : start + n]


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
FLOATS_T, INTS_T = _Vector(FLOATS, ir.FloatType()), _Vector(INTS, ir.IntType(32))


def _splat(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A vector with the same scalar in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _pointer(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, at: ir.Value, count: int
) -> ir.Value:
    """Address of the elements at..at + count of a contiguous array; where bounds are checked, they must lie in it."""
    view = context.make_array(array_type)(context, builder, array)
    if BOUNDS_CHECKED:
        last = builder.sub(view.nitems, ir.Constant(view.nitems.type, count))
        outside = builder.or_(builder.icmp_signed("<", at, ir.Constant(at.type, 0)), builder.icmp_signed(">", at, last))
        with builder.if_then(outside, likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("a register lies beyond its array",))
    return builder.gep(view.data, [at])


def _loader(kind: _Vector) -> Callable:
    def load(typingctx: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            place = _pointer(context, builder, signature.args[0], *arguments, kind.count)
            value = builder.load(builder.bitcast(place, _llvm(kind).as_pointer()))
            value.align = 1
            return value

        return kind(array, types.intp), generate

    return intrinsic(load)


def _storer(kind: _Vector) -> Callable:
    def store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            place = _pointer(context, builder, signature.args[0], *arguments[:2], kind.count)
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


def _splatter(kind: _Vector, scalar: types.Type) -> Callable:
    def splat(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            x = arguments[0]
            if isinstance(x.type, ir.IntType) and x.type != kind.element:
                x = builder.trunc(x, kind.element)
            return _splat(builder, x, _llvm(kind))

        return kind(scalar), generate

    return intrinsic(splat)


load_words, load_lanes, load_floats = _loader(WORDS_T), _loader(LANES_T), _loader(FLOATS_T)
store_words, store_lanes, store_floats = _storer(WORDS_T), _storer(LANES_T), _storer(FLOATS_T)
load_ints, store_ints = _loader(INTS_T), _storer(INTS_T)
words_splat, lanes_splat = _splatter(WORDS_T, types.uint64), _splatter(LANES_T, types.int64)
floats_splat, ints_splat = _splatter(FLOATS_T, types.float32), _splatter(INTS_T, types.int64)
ints_add = _binary(INTS_T, lambda b, x, y: b.add(x, y))
ints_sub = _binary(INTS_T, lambda b, x, y: b.sub(x, y))
ints_mul = _binary(INTS_T, lambda b, x, y: b.mul(x, y))
ints_xor = _binary(INTS_T, lambda b, x, y: b.xor(x, y))
ints_shift = _binary(INTS_T, lambda b, x, y: b.ashr(x, y))
ints_shift_unsigned = _binary(INTS_T, lambda b, x, y: b.lshr(x, y))
ints_min = _binary(INTS_T, lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y))
ints_max = _binary(INTS_T, lambda b, x, y: b.select(b.icmp_signed(">", x, y), x, y))
floats_add = _binary(FLOATS_T, lambda b, x, y: b.fadd(x, y))
floats_sub = _binary(FLOATS_T, lambda b, x, y: b.fsub(x, y))
floats_mul = _binary(FLOATS_T, lambda b, x, y: b.fmul(x, y))
floats_max = _binary(FLOATS_T, lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
words_xor = _binary(WORDS_T, lambda b, x, y: b.xor(x, y))
words_and = _binary(WORDS_T, lambda b, x, y: b.and_(x, y))
words_or = _binary(WORDS_T, lambda b, x, y: b.or_(x, y))
lanes_add = _binary(LANES_T, lambda b, x, y: b.add(x, y))
lanes_min = _binary(LANES_T, lambda b, x, y: b.select(b.icmp_unsigned("<", x, y), x, y))


@intrinsic
def floats_fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once where the processor can."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = _llvm(FLOATS_T)
        fused = builder.module.declare_intrinsic(
            f"llvm.fmuladd.v{FLOATS}f32", fnty=ir.FunctionType(kind, [kind, kind, kind])
        )
        return builder.call(fused, arguments)

    return FLOATS_T(FLOATS_T, FLOATS_T, FLOATS_T), generate


@intrinsic
def load_bytes(typingctx: Any, array: Any, at: Any) -> Any:
    """32 bytes of a uint8 array as 16-bit lanes."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        place = _pointer(context, builder, signature.args[0], *arguments, LANES)
        value = builder.load(builder.bitcast(place, ir.VectorType(ir.IntType(8), LANES).as_pointer()))
        value.align = 1
        return builder.zext(value, _llvm(LANES_T))

    return LANES_T(array, types.intp), generate


def _ternary(table: int, emit: Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value], ir.Value]) -> Callable:
    """Any function of three bits, by its truth table: one instruction where the processor has it, which LLVM does not
    always find."""

    def operate(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            if not get_host_cpu_features().get("avx512f", False):
                return emit(builder, *arguments)
            kind = _llvm(WORDS_T)
            select = builder.module.declare_intrinsic(
                "llvm.x86.avx512.pternlog.q.512", fnty=ir.FunctionType(kind, [kind, kind, kind, ir.IntType(32)])
            )
            return builder.call(select, [*arguments, ir.Constant(ir.IntType(32), table)])

        return WORDS_T(WORDS_T, WORDS_T, WORDS_T), generate

    return intrinsic(operate)


words_xor3 = _ternary(0x96, lambda b, x, y, z: b.xor(b.xor(x, y), z))
words_majority = _ternary(0xE8, lambda b, x, y, z: b.or_(b.and_(x, y), b.and_(z, b.or_(x, y))))
words_borrow = _ternary(0x8E, lambda b, x, y, z: b.or_(b.and_(b.not_(x), y), b.and_(z, b.or_(b.not_(x), y))))


@intrinsic
def words_lanes(typingctx: Any, x: Any) -> Any:
    """Bit per word (uint32, word 0 lowest): whether any bit of it is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        nonzero = builder.icmp_unsigned("!=", arguments[0], ir.Constant(_llvm(WORDS_T), [0] * WORDS))
        return builder.zext(builder.bitcast(nonzero, ir.IntType(WORDS)), ir.IntType(32))

    return types.uint32(WORDS_T), generate


@intrinsic
def words_bit(typingctx: Any, place: Any) -> Any:
    """The one bit at `place`, 0 the lowest of word 0; none where it is not in 0..511."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        kind, word = _llvm(WORDS_T), ir.IntType(64)
        place = arguments[0]
        bit = builder.shl(ir.Constant(word, 1), builder.and_(place, ir.Constant(word, 63)))
        lane = builder.ashr(place, ir.Constant(word, 6))
        here = builder.icmp_unsigned("==", _splat(builder, lane, kind), ir.Constant(kind, list(range(WORDS))))
        return builder.select(here, _splat(builder, bit, kind), ir.Constant(kind, [0] * WORDS))

    return WORDS_T(types.int64), generate


def _high_product(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Upper 16 bits of the products of unsigned lanes. LLVM finds the instruction for it by itself, but not in loops:
    it moves one operand's widening out of them first. So it is named where the processor has it."""
    narrow = _llvm(LANES_T)
    if get_host_cpu_features().get("avx512bw", False):
        kind = ir.FunctionType(narrow, [narrow, narrow])
        multiply = builder.module.declare_intrinsic("llvm.x86.avx512.pmulhu.w.512", fnty=kind)
        return builder.call(multiply, [x, y])
    wide = ir.VectorType(ir.IntType(32), LANES)
    product = builder.mul(builder.zext(x, wide), builder.zext(y, wide))
    return builder.trunc(builder.lshr(product, ir.Constant(wide, [16] * LANES)), narrow)


@intrinsic
def lanes_scale(typingctx: Any, x: Any, factor: Any, half: Any) -> Any:
    """(x * factor + half) >> 16 for unsigned lanes, half 0 or 2**15: high half of the product plus its carry."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        narrow = _llvm(LANES_T)
        high = _high_product(builder, arguments[0], arguments[1])
        low = builder.mul(arguments[0], arguments[1])
        carry = builder.lshr(builder.and_(low, arguments[2]), ir.Constant(narrow, [15] * LANES))
        return builder.add(high, carry)

    return LANES_T(LANES_T, LANES_T, LANES_T), generate


def _reaching(kind: _Vector, mask: _Vector, compare: str) -> Callable:
    def reach(typingctx: Any, seen: Any, x: Any, level: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            seen, x, level = arguments
            return builder.or_(seen, getattr(builder, compare)(">=", x, level))

        return mask(mask, kind, kind), generate

    return intrinsic(reach)


LANES_MASK_T, FLOATS_MASK_T = _Vector(LANES, ir.IntType(1)), _Vector(FLOATS, ir.IntType(1))
lanes_reach, floats_reach = (  # seen or x >= level, lane by lane
    _reaching(LANES_T, LANES_MASK_T, "icmp_unsigned"),
    _reaching(FLOATS_T, FLOATS_MASK_T, "fcmp_ordered"),
)


def _none(mask: _Vector) -> Callable:
    def none(typingctx: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return ir.Constant(_llvm(mask), [0] * mask.count)

        return mask(), generate

    return intrinsic(none)


lanes_none, floats_none = _none(LANES_MASK_T), _none(FLOATS_MASK_T)


@intrinsic
def any_of(typingctx: Any, seen: Any) -> Any:
    """Whether any lane of a mask is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        bits = builder.bitcast(arguments[0], ir.IntType(seen.count))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(seen), generate


@intrinsic
def reach_bits(typingctx: Any, x: Any, level: Any, at: Any) -> Any:
    """Bit per element (uint32, element `at` lowest): x[at:at + 32] >= level[at:at + 32], for arrays of one type:
    potentials of 16 or 32 bits, signed, or floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.VectorType(context.get_data_type(signature.args[0].dtype), 32)
        values = []
        for array_type, array in zip(signature.args[:2], arguments[:2], strict=True):
            place = _pointer(context, builder, array_type, array, arguments[2], 32)
            value = builder.load(builder.bitcast(place, kind.as_pointer()))
            value.align = 1
            values.append(value)
        compare = builder.fcmp_ordered if isinstance(signature.args[0].dtype, types.Float) else builder.icmp_signed
        return builder.bitcast(compare(">=", *values), ir.IntType(32))

    return types.uint32(x, level, types.intp), generate


@intrinsic
def lowest_bit(typingctx: Any, word: Any) -> Any:
    """Place of the lowest set bit of a nonzero unsigned word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        place = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return place if place.type.width == 64 else builder.zext(place, ir.IntType(64))

    return types.int64(word), generate


def _compared(builder: ir.IRBuilder, context: Any, array_type: Any, values: ir.Value, number: int) -> ir.Value:
    """Mask of values that are not `number` (not a number is none)."""
    constant = ir.Constant(values.type, [number] * values.type.count)
    if isinstance(array_type.dtype, types.Float):
        return builder.fcmp_unordered("!=", values, constant)
    return builder.icmp_unsigned("!=", values, constant)


def _differing(number: int) -> Callable:
    def differ(typingctx: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            array_type = signature.args[0]
            kind = ir.VectorType(context.get_data_type(array_type.dtype), INTS)
            place = _pointer(context, builder, array_type, *arguments, INTS)
            values = builder.load(builder.bitcast(place, kind.as_pointer()))
            values.align = 1
            found = builder.bitcast(_compared(builder, context, array_type, values, number), ir.IntType(INTS))
            return builder.zext(found, ir.IntType(32))

        return types.uint32(array, types.intp), generate

    return intrinsic(differ)


differ_from_0, differ_from_1 = _differing(0), _differing(1)
"""Bit per element (uint32, element `at` lowest): array[at:at + 16] is another number; of any type."""


@intrinsic
def list_bits(typingctx: Any, index: Any, at: Any, first: Any, bits: Any) -> Any:
    """index[at:] <- first + place of every set bit of the lower 16, ascending; returns the place after the last. What
    follows within 16 places is overwritten. index is int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        index, at, first, bits = arguments
        word = ir.IntType(32)
        first = builder.trunc(first, word)
        if not get_host_cpu_features().get("avx512f", False):
            for lane in range(INTS):
                builder.store(
                    builder.add(first, ir.Constant(word, lane)),
                    _pointer(context, builder, signature.args[0], index, at, 1),
                )
                bit = builder.and_(builder.lshr(bits, ir.Constant(word, lane)), ir.Constant(word, 1))
                at = builder.add(at, builder.zext(bit, at.type))
            return at
        kind, narrow = _llvm(INTS_T), ir.IntType(INTS)
        mask_type = ir.VectorType(ir.IntType(1), INTS)
        mask = builder.bitcast(builder.trunc(bits, narrow), mask_type)
        numbers = builder.add(_splat(builder, first, kind), ir.Constant(kind, list(range(INTS))))
        pack = builder.module.declare_intrinsic(
            "llvm.x86.avx512.mask.compress.v16i32", fnty=ir.FunctionType(kind, [kind, kind, mask_type])
        )
        place = builder.bitcast(_pointer(context, builder, signature.args[0], index, at, INTS), kind.as_pointer())
        builder.store(builder.call(pack, [numbers, numbers, mask]), place).align = 1
        return builder.add(at, builder.zext(builder.ctpop(bits), at.type))

    return types.int64(index, types.int64, types.int64, types.uint32), generate


@intrinsic
def stream_floats(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """`store_floats` past the caches, to a whole cache line (`at` must be the first of one): what would not stay in
    them until it is read is then not fetched to be overwritten. Needs a `fence` at the end."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        place = _pointer(context, builder, signature.args[0], *arguments[:2], FLOATS)
        store = builder.store(arguments[2], builder.bitcast(place, _llvm(FLOATS_T).as_pointer()))
        store.align = LINE
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, FLOATS_T), generate


@intrinsic
def fence(typingctx: Any) -> Any:
    """Fence after which every thread sees what `stream_floats` has stored."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate

"""What `sketch` does to 64 bytes at once: ASCII folded to words, and minima of permutations of hashes.

In LLVM's vectors, which become the widest instructions that the processor has, several of them where it has none so
wide; a loop that LLVM makes vectors of by itself gets narrower ones.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from data_quality.mask_kernels import BLOCK, BYTES, CASE, byte_mask, everywhere, within

HASHES = 8
"""How many hashes `least` takes at once."""


def _fold_ascii(typing_context: Any, source: Any, target: Any) -> Any:
    """Writes 64 bytes at one address to another, ASCII letters small, ASCII that is no word character as 0.

    The mask of the bytes that are not ASCII; these are written as 0.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = everywhere(0)
        block = builder.load(builder.inttoptr(arguments[0], BYTES.as_pointer()), align=1)
        small = builder.or_(block, everywhere(CASE))
        letter = within(builder, small, ord("a"), ord("z"))
        other = builder.or_(within(builder, block, ord("0"), ord("9")), within(builder, block, ord("_"), ord("_")))
        folded = builder.select(letter, small, builder.select(other, block, zeros))
        builder.store(folded, builder.inttoptr(arguments[1], BYTES.as_pointer()), align=1)
        return builder.bitcast(builder.icmp_signed("<", block, zeros), ir.IntType(64))

    return types.uint64(types.int64, types.int64), generate


def _least(typing_context: Any, best: Any, a: Any, b: Any, at: Any, hashes: Any, first: Any) -> Any:
    """best[k] = the least of best[k] and a[k]·h + b[k], for one vector of k from `at` and 8 hashes h from `first`.

    All four are arrays of one type, uint32 or uint64, and the arithmetic is modulo its size.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = best.dtype.bitwidth
        vector = ir.VectorType(ir.IntType(bits), 8 * BLOCK // bits)
        anywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)

        def place(number: int, index: int) -> Any:
            buffer = cgutils.create_struct_proxy(signature.args[number])(  # type: ignore[no-untyped-call]
                context, builder, arguments[number]
            )
            return builder.gep(buffer.data, [arguments[index]])

        def load(number: int) -> Any:
            return builder.load(builder.bitcast(place(number, 3), vector.as_pointer()), align=1)

        factor, addend, least = load(1), load(2), load(0)
        start = place(4, 5)
        for k in range(HASHES):
            one = builder.load(builder.gep(start, [ir.Constant(ir.IntType(64), k)]))
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.Constant(ir.IntType(32), 0))
            one = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), anywhere)
            value = builder.add(builder.mul(factor, one), addend)
            least = builder.select(builder.icmp_unsigned("<", value, least), value, least)
        builder.store(least, builder.bitcast(place(0, 3), vector.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(best, a, b, types.int64, hashes, types.int64), generate


fold_ascii: Any = intrinsic(_fold_ascii)
least: Any = intrinsic(_least)
not_zero: Any = byte_mask((1, 255))

"""Sixty-four bytes at once: which of them are of a class, as the bits of one integer.

A mask is a uint64 whose bit k says something of the k-th byte. It comes of a comparison of 64-byte vectors, which LLVM
turns into the widest instructions that the processor has; everything behind it is arithmetic on integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from data_quality.byte_kernels import Array

BLOCK = 64
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
NONE = np.uint64(0)
ONE = np.uint64(1)

BYTES = ir.VectorType(ir.IntType(8), BLOCK)
CASE = 0x20
"""The bit in which the two cases of an ASCII letter differ."""


def everywhere(byte: int) -> Any:
    """The vector of 64 times this byte."""
    return ir.Constant(BYTES, [byte] * BLOCK)


def within(builder: Any, block: Any, first: int, last: int) -> Any:
    """Which bytes of a vector lie in a span, as a vector of bits."""
    return builder.icmp_unsigned("<=", builder.sub(block, everywhere(first)), everywhere(last - first))


def byte_mask(*spans: tuple[int, int], either_case: bool = False) -> Any:
    """A compiled function of an `address` -> mask of the bytes in memory from there on that lie in one of the spans.

    All 64 bytes must be there. `spans` are first and last byte of each; with `either_case` small letters stand for both
    cases, and a few marks and control characters for others.
    """

    def mask(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            block = builder.load(builder.inttoptr(arguments[0], BYTES.as_pointer()), align=1)
            if either_case:
                block = builder.or_(block, everywhere(CASE))
            found = ir.Constant(ir.VectorType(ir.IntType(1), BLOCK), [0] * BLOCK)
            for first, last in spans:
                found = builder.or_(found, within(builder, block, first, last))
            return builder.bitcast(found, ir.IntType(64))

        return types.uint64(types.int64), generate

    return intrinsic(mask)


def _address(typing_context: Any, array: Any, index: Any) -> Any:
    """Where in memory an element of an array is, as int64; numba counts references to arrays, not to addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer = cgutils.create_struct_proxy(signature.args[0])(  # type: ignore[no-untyped-call]
            context, builder, arguments[0]
        )
        return builder.ptrtoint(builder.gep(buffer.data, [arguments[1]]), ir.IntType(64))

    return types.int64(array, types.int64), generate


def _number_at(typing_context: Any, address: Any) -> Any:
    """The eight bytes in memory from an address on as a little-endian uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.int64), generate


def _first_one(typing_context: Any, mask: Any) -> Any:
    """The number of the lowest bit that is 1, as uint64; 64 if none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _ones(typing_context: Any, mask: Any) -> Any:
    """How many bits are 1, as int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


address: Any = intrinsic(_address)
first_one: Any = intrinsic(_first_one)
number_at: Any = intrinsic(_number_at)
ones: Any = intrinsic(_ones)


@njit(cache=True, nogil=True)
def low_bits(number: int) -> Any:
    """The mask of the first `number` bytes: none below 1, all from 64 on."""
    return ALL if number >= BLOCK else (ONE << np.uint64(max(number, 0))) - ONE


@njit(cache=True, nogil=True)
def block_at(values: Array, at: int, tail: Array) -> Any:
    """An address with the bytes of values from `at` on: in `values` or, at its end, copied to `tail` (uint8, zeros)."""
    if at + tail.size <= values.size:
        return address(values, np.int64(at))
    for k in range(values.size - at):
        tail[k] = values[at + k]
    return address(tail, np.int64(0))

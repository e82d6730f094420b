"""What the compiled loops over UTF-8 buffers share: eight bytes at once, code points, hashes of ranges, hash tables.

Ranges are compared by 64-bit hashes: two different ones are taken for the same with a chance of about k² / 2⁶⁵ in a
document of k of them (one in ten million for a million words).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = Any  # numba compiles by dtype; the docstrings name it

# Odd constants with well mixed bits: the golden ratio and the two multipliers of murmur3's 64-bit finaliser.
SEED = np.uint64(0x9E3779B97F4A7C15)
STEP = np.uint64(0xFF51AFD7ED558CCD)
LAST = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(32)

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
HIGH_BITS = np.uint64(0x8080808080808080)
_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_FROM_A = np.uint64(0x3F3F3F3F3F3F3F3F)  # 0x80 - "A" in every byte
_AFTER_Z = np.uint64(0x2525252525252525)  # 0x7f - "Z" in every byte
_TWO = np.uint64(2)
_EIGHT = np.int64(8)


def _load_eight(typing_context: Any, array: Any, index: Any) -> Any:
    """The eight bytes from `index` of a uint8 array as a little-endian uint64; all eight must lie in the array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer = cgutils.create_struct_proxy(signature.args[0])(  # type: ignore[no-untyped-call]
            context, builder, arguments[0]
        )
        place = builder.gep(buffer.data, [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


def _store_eight(typing_context: Any, array: Any, index: Any, eight: Any) -> Any:
    """Writes a uint64 as the eight bytes from `index` of a uint8 array; all eight must lie in the array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        buffer = cgutils.create_struct_proxy(signature.args[0])(  # type: ignore[no-untyped-call]
            context, builder, arguments[0]
        )
        place = builder.gep(buffer.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


load_eight: Any = intrinsic(_load_eight)
store_eight: Any = intrinsic(_store_eight)


@njit(cache=True, nogil=True)
def readable(values: Array, scratch: Array) -> Any:
    """`scratch` in the type of `values`, which cannot be written to, so that what reads both is compiled once."""
    either = values
    if scratch.size > 0:
        either = scratch
    return either


@njit(cache=True, nogil=True)
def load(values: Array, index: int, end: int) -> Any:
    """The bytes values[index:end], at most eight, as a little-endian uint64; those that lack are 0."""
    count = end - index
    if index + _EIGHT <= values.size:
        eight = load_eight(values, np.int64(index))
        return eight if count >= 8 else eight & (_ALL >> np.uint64(64 - 8 * count))
    found: Any = np.uint64(0)
    for k in range(min(count, 8)):
        found |= np.uint64(values[index + k]) << np.uint64(8 * k)
    return found


@njit(cache=True, nogil=True)
def step(state: Any, value: Any) -> Any:
    """A hash extended by one value; the shift brings high bits down, so that every bit matters later."""
    mixed = (state ^ np.uint64(value)) * STEP
    return mixed ^ (mixed >> SHIFT)


@njit(cache=True, nogil=True)
def hash_range(values: Array, start: int, end: int) -> Any:
    """The hash of values[start:end]."""
    state = SEED + np.uint64(end - start)
    while start < end:
        state = step(state, load(values, start, end))
        start += 8
    return state


@njit(cache=True, nogil=True)
def hash_lower_ascii(values: Array, start: int, end: int) -> Any:
    """`hash_range` of values[start:end], all ASCII, with its capitals made small."""
    state = SEED + np.uint64(end - start)
    while start < end:
        found = load(values, start, end)
        low = found & _LOW_BITS
        capital = ((low + _FROM_A) ^ (low + _AFTER_Z)) & HIGH_BITS
        state = step(state, found | (capital >> _TWO))
        start += 8
    return state


@njit(cache=True, nogil=True)
def decode(values: Array, position: int, end: int) -> tuple[int, int]:
    """The code point of 2 to 4 bytes at `position` and their number; a damaged byte is U+FFFD, 1 byte."""
    lead: Any = np.int64(values[position])
    if lead >= 0xF0:
        size, code = 4, lead & 0x07
    elif lead >= 0xE0:
        size, code = 3, lead & 0x0F
    elif lead >= 0xC0:
        size, code = 2, lead & 0x1F
    elif lead < 0x80:
        return lead, 1
    else:
        return 0xFFFD, 1
    if position + size > end:
        return 0xFFFD, 1
    for k in range(1, size):
        code = (code << 6) | (np.int64(values[position + k]) & 0x3F)
    return (code, size) if code < 0x110000 else (0xFFFD, size)


@njit(cache=True, nogil=True)
def previous(values: Array, start: int, end: int) -> int:
    """Where the character begins that ends before `end`; `start` is the first byte it may begin at."""
    at = end - 1
    while at > start and values[at] & 0xC0 == 0x80:
        at -= 1
    return at


@njit(cache=True, nogil=True)
def encode(code: int, out: Array, at: int) -> int:
    """Writes a code point as UTF-8 to `out` (uint8) and says where the next one goes."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | (code >> 6)
        out[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | (code >> 12)
        out[at + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[at + 2] = 0x80 | (code & 0x3F)
        return at + 3
    out[at] = 0xF0 | (code >> 18)
    out[at + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[at + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[at + 3] = 0x80 | (code & 0x3F)
    return at + 4


@njit(cache=True, nogil=True)
def capacity(items: int) -> int:
    """The smallest power of two that leaves half of an open-addressed table free."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def first(table: Array, mask: Any, hashes: Array, position: int) -> int:
    """The earliest position with the same hash, entering this one if there is none (then itself)."""
    wanted = hashes[position]
    slot = int((wanted * LAST) >> SHIFT) & mask
    while table[slot] >= 0:
        if hashes[table[slot]] == wanted:
            return int(table[slot])
        slot = (slot + 1) & mask
    table[slot] = position
    return position


@njit(cache=True, nogil=True)
def duplicates(hashes: Array, lengths: Array, items: int, table: Array) -> tuple[int, int]:
    """How many items repeat an earlier one, and the sum of their lengths."""
    size = capacity(items)
    table[:size] = -1
    repeats, characters = 0, 0
    for i in range(items):
        if first(table, size - 1, hashes, i) != i:
            repeats += 1
            characters += lengths[i]
    return repeats, characters

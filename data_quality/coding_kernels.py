"""How many bytes a frozen LZ77 coder needs for a text: a measure of repetition that no library's next version changes.

Only the size is computed. The coder is greedy, of the family of LZ4's block format: a sequence is a token of one byte,
literals, and unless it is the last one a match of at least MINIMUM bytes behind two bytes of offset; lengths from 15 on
(of literals, and of what a match has beyond MINIMUM) take one more byte, and one more for every further 255.

At every position outside a match the four bytes there are looked up in a table of 2^TABLE_BITS places by the top bits
of their little-endian value times MULTIPLIER; the place is then given to this position. Where the position found lies
in the same text, not more than WINDOW bytes back, and has the same four bytes, the match is taken as far as it goes.
Positions inside a match are not entered; and the longer there was no match, the more are passed over: behind n literals
n // 2^PATIENCE_BITS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import Array, load, load_eight
from data_quality.mask_kernels import NONE, first_one

MINIMUM = 4
WINDOW = 65_535
TABLE_BITS = 13
PATIENCE_BITS = 5
MULTIPLIER = np.uint32(2_654_435_761)  # the golden ratio of 32 bits (Knuth)

_SHIFT = np.uint32(32 - TABLE_BITS)
_WORD = np.uint64(0xFFFFFFFF)
_REACH = (1 << 31) - 1  # of int32: texts are far shorter


@njit(cache=True, nogil=True)
def _more(length: int) -> int:
    """Further bytes that a length takes beside the token."""
    return 0 if length < 15 else 1 + (length - 15) // 255


@njit(cache=True, nogil=True)
def _four(values: Array, at: int) -> Any:
    """The four bytes from `at`."""
    if at + 8 <= values.size:
        return np.uint32(load_eight(values, at) & _WORD)
    return np.uint32(load(values, at, at + MINIMUM))


@njit(cache=True, nogil=True)
def _same_bytes(values: Array, before: int, at: int, end: int) -> int:
    """How many bytes from `before` on are those from `at` on, which stop at `end`."""
    start = at
    while at + 8 <= end:
        other = load_eight(values, before) ^ load_eight(values, at)
        if other != NONE:
            return at - start + (np.int64(first_one(other)) >> 3)
        before += 8
        at += 8
    while at < end and values[at] == values[before]:
        before += 1
        at += 1
    return at - start


@njit(cache=True, nogil=True)
def _coded_bytes(values: Array, begin: int, end: int, base: int, table: Any) -> int:
    """Bytes of the code of values[begin:end]; `table` (int32[2^TABLE_BITS]) holds positions from `base` on, or -1."""
    coded, anchor, at = 0, begin, begin
    while at + MINIMUM <= end:
        word = _four(values, at)
        place = np.uint32(word * MULTIPLIER) >> _SHIFT
        before = base + table[place]
        table[place] = at - base
        if before < begin or at - before > WINDOW or _four(values, before) != word:
            at += 1 + ((at - anchor) >> PATIENCE_BITS)
            continue
        match = at + MINIMUM + _same_bytes(values, before + MINIMUM, at + MINIMUM, end)
        literals = at - anchor
        coded += 1 + _more(literals) + literals + 2 + _more(match - at - MINIMUM)
        at = anchor = match
    literals = end - anchor
    return coded + (1 + _more(literals) + literals if literals > 0 else 0)


@njit(cache=True, nogil=True)
def count_coded_bytes(values: Array, offsets: Array, coded: Array) -> None:
    """Fills `coded` (int64[documents]) for the texts values[offsets[d]:offsets[d + 1]] of a large_string array.

    What the table holds of earlier texts lies before the text and counts as nothing, so that it need not be emptied.
    """
    table = np.full(1 << TABLE_BITS, -1, dtype=np.int32)
    base = offsets[0] if offsets.size > 0 else 0
    for d in range(offsets.size - 1):
        if offsets[d + 1] - base > _REACH:
            table[:] = -1
            base = offsets[d]
        coded[d] = _coded_bytes(values, offsets[d], offsets[d + 1], base, table)

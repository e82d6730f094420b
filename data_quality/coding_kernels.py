"""How many bytes a frozen LZ77 coder needs for a text: a measure of repetition that no library's next version changes.

Only the size is computed. The coder is greedy, of the family of LZ4's block format: a sequence is a token of one byte,
literals, and unless it is the last one a match of at least MINIMUM bytes behind two bytes of offset; lengths from 15 on
(of literals, and of what a match has beyond MINIMUM) take one more byte, and one more for every further 255.

At every position outside a match the four bytes there are looked up in a table of 2^TABLE_BITS places by the top bits of
their little-endian value times MULTIPLIER; the place is then given to this position. Where the position found lies in
the same text, not more than WINDOW bytes back, and has the same four bytes, the match is taken as far as it goes.
Positions inside a match are not entered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import Array, load

MINIMUM = 4
WINDOW = 65_535
TABLE_BITS = 13
MULTIPLIER = np.uint32(2_654_435_761)  # the golden ratio of 32 bits (Knuth)

_SHIFT = np.uint32(32 - TABLE_BITS)
_WORD = np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def _more(length: int) -> int:
    """Further bytes that a length takes beside the token."""
    return 0 if length < 15 else 1 + (length - 15) // 255


@njit(cache=True, nogil=True)
def _coded_bytes(values: Array, begin: int, end: int, table: Any) -> int:
    """Bytes of the code of values[begin:end]; `table` (int64[2^TABLE_BITS]) holds positions of this text or before."""
    coded, anchor, at = 0, begin, begin
    while at + MINIMUM <= end:
        word = np.uint32(load(values, at, end) & _WORD)
        place = np.uint32(word * MULTIPLIER) >> _SHIFT
        before = table[place]
        table[place] = at
        if before < begin or at - before > WINDOW or np.uint32(load(values, before, end) & _WORD) != word:
            at += 1
            continue
        match = at + MINIMUM
        while match < end and values[match] == values[before + match - at]:
            match += 1
        literals = at - anchor
        coded += 1 + _more(literals) + literals + 2 + _more(match - at - MINIMUM)
        at = anchor = match
    literals = end - anchor
    return coded + (1 + _more(literals) + literals if literals > 0 else 0)


@njit(cache=True, nogil=True)
def count_coded_bytes(values: Array, offsets: Array, coded: Array) -> None:
    """Fills `coded` (int64[documents]) for the texts values[offsets[d]:offsets[d + 1]] of a large_string array."""
    table = np.full(1 << TABLE_BITS, -1, dtype=np.int64)
    for d in range(offsets.size - 1):
        coded[d] = _coded_bytes(values, offsets[d], offsets[d + 1], table)

"""The compiled loops over the texts of a whole Arrow buffer: which of them may need a repair, and their ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numba compiles by dtype; the docstrings name it

ORDINARY, ASCII_LETTER, ASCII_OTHER, CLOSER_LOOK = 0, 1, 2, 255
"""Classes of characters that `find_unclean` knows; those between are told apart by its table of neighbours."""
BLOCK = 128


@njit(cache=True, nogil=True)
def _ascii_repairs(data: Array, begin: int, end: int, seen: Array) -> tuple[bool, bool]:
    """Whether data[begin:end] has ASCII that a repair changes, and whether it has bytes beyond ASCII.

    Controls, a space or tab before a line end, four line ends. `seen` is uint8[BLOCK], room to work in.
    """
    found = 0
    for i in range(begin, min(begin + 3, end)):
        byte = data[i]
        control = ((byte < 32) & (byte != 9) & (byte != 10)) | (byte == 127)
        ragged = i > begin and byte == 10 and (data[i - 1] == 32 or data[i - 1] == 9)
        found |= int(control or ragged) | (int(byte) & 128)
    size = max(0, end - begin - 3)
    fourth, third = data[begin : begin + size], data[begin + 1 : begin + 1 + size]
    before, now = data[begin + 2 : begin + 2 + size], data[end - size : end]
    whole = size - size % BLOCK
    seen[:] = 0
    # Blocks of a fixed size, bytes into bytes, no branches: this is compiled to vector instructions (5 GB/s).
    for at in range(0, whole, BLOCK):
        a, b, c, d = fourth[at : at + BLOCK], third[at : at + BLOCK], before[at : at + BLOCK], now[at : at + BLOCK]
        for j in range(BLOCK):
            byte, last = d[j], c[j]
            control = ((byte < 32) & (byte != 9) & (byte != 10)) | (byte == 127)
            empty = (last == 10) & (b[j] == 10) & (a[j] == 10)
            ragged = (byte == 10) & ((last == 32) | (last == 9) | empty)
            seen[j] |= np.uint8(control | ragged) | (byte & 128)
    for j in range(BLOCK):
        found |= int(seen[j])
    for i in range(whole, size):
        byte, last = now[i], before[i]
        control = ((byte < 32) & (byte != 9) & (byte != 10)) | (byte == 127)
        empty = (last == 10) & (third[i] == 10) & (fourth[i] == 10)
        ragged = (byte == 10) & ((last == 32) | (last == 9) | empty)
        found |= int(control | ragged) | (int(byte) & 128)
    return found & 1 != 0, found & 128 != 0


@njit(cache=True, nogil=True)
def _has_neighbours(data: Array, begin: int, end: int, classes: Array, neighbours: Array) -> bool:
    """Whether valid UTF-8 has a character of the class CLOSER_LOOK, or two that may not stand side by side."""
    i, before = begin, ASCII_OTHER
    while i < end:
        byte = data[i]
        if byte < 128:
            while i + 1 < end and data[i + 1] < 128:
                i += 1
            byte = data[i] | 32
            before = ASCII_LETTER if 97 <= byte <= 122 else ASCII_OTHER
            i += 1
            continue
        if byte < 0xE0:
            code, size = ((byte & 0x1F) << 6) | (data[i + 1] & 0x3F), 2
        elif byte < 0xF0:
            code, size = ((byte & 0x0F) << 12) | ((data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F), 3
        else:
            code = ((byte & 0x07) << 18) | ((data[i + 1] & 0x3F) << 12) | ((data[i + 2] & 0x3F) << 6)
            code, size = code | (data[i + 3] & 0x3F), 4
        now = classes[code]
        if now == CLOSER_LOOK:
            return True
        after = ASCII_OTHER
        if i + size < end and data[i + size] < 128 and 97 <= (data[i + size] | 32) <= 122:
            after = ASCII_LETTER
        if neighbours[before, now] or ((i + size >= end or data[i + size] < 128) and neighbours[now, after]):
            return True
        before = now
        i += size
    return False


@njit(cache=True, nogil=True)
def find_unclean(data: Array, offsets: Array, classes: Array, neighbours: Array, found: Array) -> int:
    """Finds the texts that some repair of `corpus.normalise` may change; never one too few, a few too many.

    Parameters
    ----------
    data, offsets
        uint8 and int64: the buffers of a valid `large_string` array.
    classes
        uint8[0x110000]: class of every character.
    neighbours
        bool[classes, classes]: which two classes side by side ask for a closer look.
    found
        int64[texts], written: the rows of those texts, ascending.

    Returns
    -------
    The number of rows found.
    """
    seen = np.zeros(BLOCK, np.uint8)
    number = 0
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        unclean = begin == end
        if not unclean:
            last = data[end - 1]
            unclean = last == 32 or last == 9 or last == 10 or data[begin] == 10
        if not unclean:
            unclean, high = _ascii_repairs(data, begin, end, seen)
            if high and not unclean:
                unclean = _has_neighbours(data, begin, end, classes, neighbours)
        if unclean:
            found[number] = row
            number += 1
    return number


@njit(cache=True, nogil=True)
def find_blank(data: Array, offsets: Array, found: Array) -> int:
    """Finds the texts that may be nothing but white space, by the first byte that is no ASCII space or control.

    Parameters and result as `find_unclean`; `str.isspace` decides.
    """
    number = 0
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        while i < end and data[i] <= 32:
            i += 1
        # U+0085, U+00A0, U+1680, U+2000 to U+205F and U+3000 begin with these bytes.
        if i == end or data[i] == 0xC2 or 0xE1 <= data[i] <= 0xE3:
            found[number] = row
            number += 1
    return number

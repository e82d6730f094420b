"""The compiled loops over the texts of a whole Arrow buffer: which of them may need a repair, and their ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numba compiles by dtype; the docstrings name it

ORDINARY, ASCII_LETTER, ASCII_OTHER, CLOSER_LOOK = 0, 1, 2, 255
"""Classes of characters that `find_unclean` knows; those between are told apart by its table of neighbours."""
CONTROL, RAGGED, BLANK, HIGH = 1, 2, 4, 128
"""Bits of `_look_at_ascii`."""
BLOCK = 128


@njit(cache=True, nogil=True)
def _look_at_ascii(data: Array, begin: int, end: int, seen: Array) -> int:
    """What stands in data[begin:end]: CONTROL, RAGGED (white space at a line's end), BLANK (four line ends), HIGH.

    `seen` is uint8[BLOCK], room to work in.
    """
    found = 0
    for i in range(begin, min(begin + 3, end)):
        byte = data[i]
        control = ((byte < 32) & (byte != 9) & (byte != 10)) | (byte == 127)
        ragged = i > begin and byte == 10 and (data[i - 1] == 32 or data[i - 1] == 9)
        found |= int(control) | (int(ragged) << 1) | (int(byte) & HIGH)
    size = max(0, end - begin - 3)
    fourth, third = data[begin : begin + size], data[begin + 1 : begin + 1 + size]
    before, now = data[begin + 2 : begin + 2 + size], data[end - size : end]
    whole = size - size % BLOCK
    seen[:] = 0
    # Blocks of a fixed size, bytes into bytes, no branches: this is compiled to vector instructions (4 GB/s).
    for at in range(0, whole, BLOCK):
        a, b, c, d = fourth[at : at + BLOCK], third[at : at + BLOCK], before[at : at + BLOCK], now[at : at + BLOCK]
        for j in range(BLOCK):
            byte, last = d[j], c[j]
            control = ((byte < 32) & (byte != 9) & (byte != 10)) | (byte == 127)
            four = (byte == 10) & (last == 10) & (b[j] == 10) & (a[j] == 10)
            ragged = (byte == 10) & ((last == 32) | (last == 9))
            seen[j] |= np.uint8(control) | (np.uint8(ragged) << 1) | (np.uint8(four) << 2) | (byte & HIGH)
    for j in range(BLOCK):
        found |= int(seen[j])
    for i in range(whole, size):
        byte, last = now[i], before[i]
        control = ((byte < 32) & (byte != 9) & (byte != 10)) | (byte == 127)
        four = (byte == 10) & (last == 10) & (third[i] == 10) & (fourth[i] == 10)
        ragged = (byte == 10) & ((last == 32) | (last == 9))
        found |= int(control) | (int(ragged) << 1) | (int(four) << 2) | (int(byte) & HIGH)
    return found


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
def find_unclean(data: Array, offsets: Array, classes: Array, neighbours: Array, found: Array, ragged: Array) -> int:
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
    ragged
        bool[texts], written: whether white space at line ends and blank lines are all that was found.

    Returns
    -------
    The number of rows found.
    """
    seen = np.zeros(BLOCK, np.uint8)
    number = 0
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        if begin == end:
            continue
        bits, last = _look_at_ascii(data, begin, end, seen), data[end - 1]
        closer = bits & CONTROL != 0
        if bits & HIGH and not closer:
            closer = _has_neighbours(data, begin, end, classes, neighbours)
        if closer or bits & (RAGGED | BLANK) or last == 32 or last == 9 or last == 10 or data[begin] == 10:
            found[number], ragged[number] = row, not closer
            number += 1
    return number


@njit(cache=True, nogil=True)
def trim_texts(data: Array, offsets: Array, rows: Array, out: Array, sizes: Array, shortened: Array) -> None:
    """Removes white space at line ends, blank lines around texts, and all but two of blank lines in a row.

    Parameters
    ----------
    rows
        int64: the texts.
    out
        uint8, written: each text begins where the one before ended; at most the bytes that they have.
    sizes
        int64[rows], written: the size of each, which may be 0.
    shortened
        bool[rows, 2], written: whether there was white space or a blank line around; whether too many blank lines.
    """
    begin = 0
    for number in range(len(rows)):
        first, limit = offsets[rows[number]], offsets[rows[number] + 1]
        size, end, skipped = limit - first, begin, 0
        while limit > first and (data[limit - 1] == 32 or data[limit - 1] == 9 or data[limit - 1] == 10):
            limit -= 1
        for i in range(first, limit):
            byte = data[i]
            if byte == 10:
                while end > begin and (out[end - 1] == 32 or out[end - 1] == 9):
                    end -= 1
                if end == begin:
                    continue
                if end - begin >= 3 and out[end - 1] == 10 and out[end - 2] == 10 and out[end - 3] == 10:
                    skipped += 1
                    continue
            out[end] = byte
            end += 1
        sizes[number] = end - begin
        shortened[number, 0], shortened[number, 1] = end - begin + skipped < size, skipped > 0
        begin = end


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

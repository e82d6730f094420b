"""Compiled loops from UTF-8 buffers to word hashes and sets of shingle hashes; plain integers, no Python strings.

A word hash is multiplicative over the folded code points, a shingle hash polynomial over the word hashes;
both end in MurmurHash3's 64-bit finaliser. They are fixed: signatures of all runs can be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numba compiles by dtype; the docstrings name it

WORD_SEED = np.uint64(0x9E3779B97F4A7C15)
WORD_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
SHINGLE_MULTIPLIER = np.uint64(0xA24BAED4963EE407)
FINAL_1 = np.uint64(0xFF51AFD7ED558CCD)
FINAL_2 = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
ONE = np.uint64(1)
ZERO = np.uint64(0)
LAST_CODE_POINT = np.int64(0x10FFFF)


@njit(cache=True, nogil=True)
def mix64(value: Any) -> Any:
    """MurmurHash3's 64-bit finaliser (Appleby): a bijection of uint64."""
    value = (value ^ (value >> SHIFT)) * FINAL_1
    value = (value ^ (value >> SHIFT)) * FINAL_2
    return value ^ (value >> SHIFT)


@njit(cache=True, nogil=True)
def hash_words(
    data: Array, start: int, end: int, ascii_words: Array, classes: Array, folds: Array, words: Array
) -> int:
    """Writes the word hashes of data[start:end] to `words` (uint64, room for (bytes + 1) // 2); returns how many.

    `ascii_words` is uint8[128]: the folded character of a word character, 0 of a separator.
    """
    count = 0
    value = WORD_SEED
    i = start
    while i < end:
        byte = data[i]
        if byte < 128:
            i += 1
            folded = ascii_words[byte]
            if folded != 0:
                value = (value ^ np.uint64(folded)) * WORD_MULTIPLIER
            elif value != WORD_SEED:
                words[count] = mix64(value)
                count += 1
                value = WORD_SEED
            continue
        if byte < 0xE0:
            size, code = 2, np.int64(byte) & 0x1F
        elif byte < 0xF0:
            size, code = 3, np.int64(byte) & 0x0F
        else:
            size, code = 4, np.int64(byte) & 0x07
        if i + size > end:
            break  # a cut sequence: cannot happen in a valid Arrow string, must not read past it
        for k in range(1, size):
            code = (code << 6) | (np.int64(data[i + k]) & 0x3F)
        code = min(code, LAST_CODE_POINT)
        i += size
        found = classes[code]
        if found == 1:
            value = (value ^ np.uint64(folds[code])) * WORD_MULTIPLIER
            continue
        if value != WORD_SEED:
            words[count] = mix64(value)
            count += 1
            value = WORD_SEED
        if found == 3:
            words[count] = mix64((WORD_SEED ^ np.uint64(folds[code])) * WORD_MULTIPLIER)
            count += 1
    if value != WORD_SEED:
        words[count] = mix64(value)
        count += 1
    return count


@njit(cache=True, nogil=True)
def distinct_shingles(words: Array, count: int, ngram: int, table: Array, shingles: Array) -> int:
    """Writes the distinct n-gram hashes of words[:count] to `shingles` in order of appearance; returns how many.

    `table` is uint64 scratch of a power of two of slots, at least twice the n-grams; 0 marks a free slot
    and is never a shingle hash. Fewer words than `ngram`: one shingle of all.
    """
    if count == 0:
        return 0
    width = min(ngram, count)
    mask = np.uint64(table.size - 1)
    table[:] = ZERO
    leaving = ONE  # SHINGLE_MULTIPLIER ** (width - 1): the weight of the word that leaves the window
    rolling = ZERO
    for i in range(width - 1):
        leaving *= SHINGLE_MULTIPLIER
        rolling = rolling * SHINGLE_MULTIPLIER + words[i]
    found = 0
    for i in range(width - 1, count):
        rolling = rolling * SHINGLE_MULTIPLIER + words[i]
        value = mix64(rolling)
        if value == ZERO:
            value = ONE
        rolling -= leaving * words[i - width + 1]
        slot = value & mask
        while table[slot] != ZERO and table[slot] != value:
            slot = (slot + ONE) & mask
        if table[slot] == ZERO:
            table[slot] = value
            shingles[found] = value
            found += 1
    return found


@njit(cache=True, nogil=True)
def longest(offsets: Array) -> int:
    """The longest range of `offsets`."""
    most = 0
    for i in range(offsets.size - 1):
        most = max(most, offsets[i + 1] - offsets[i])
    return most

"""Compiled loops from UTF-8 buffers to word hashes and sets of shingle hashes; plain integers, no Python strings.

A word's hash is made of the UTF-8 bytes of its folded form, eight at a time: `mix64` of the hash so far xor the next
eight (little-endian, zeros behind the last), from WORD_SEED on. A shingle's is `mix64` of a polynomial over its words'
hashes. They are fixed: signatures of all runs of one SHINGLE_HASH_VERSION can be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import load_eight, store_eight
from data_quality.mask_kernels import BLOCK, address, first_one, number_at, ones
from data_quality.vector_kernels import fold_ascii, not_zero

Array = Any  # numba compiles by dtype; the docstrings name it

WORD_SEED = np.uint64(0x9E3779B97F4A7C15)
SHINGLE_MULTIPLIER = np.uint64(0xA24BAED4963EE407)
FINAL_1 = np.uint64(0xFF51AFD7ED558CCD)
FINAL_2 = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
ONE = np.uint64(1)
ZERO = np.uint64(0)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
LAST_CODE_POINT = np.int64(0x10FFFF)
OWN = np.int64(1 << 30)
"""Marks in `sketch.word_forms` a character that is a word by itself; in the last byte of a character this bit is 0."""
STRETCH = 1024
"""Bytes of folded text whose words are found before they are hashed, so that where they stand stays in the cache."""


@njit(cache=True, nogil=True)
def mix64(value: Any) -> Any:
    """MurmurHash3's 64-bit finaliser (Appleby): a bijection of uint64."""
    value = (value ^ (value >> SHIFT)) * FINAL_1
    value = (value ^ (value >> SHIFT)) * FINAL_2
    return value ^ (value >> SHIFT)


@njit(cache=True, nogil=True)
def word_scratch(longest_text: int) -> Any:
    """Scratch of `hash_words` for texts of so many bytes."""
    copy = np.empty(longest_text + BLOCK, dtype=np.uint8)
    # Two bytes of text become at most four: a letter of two bytes one of three and a zero, a digit behind a word that
    # is one character itself.
    folded = np.empty(2 * longest_text + 4 * BLOCK, dtype=np.uint8)
    places = np.empty(STRETCH + 2 * BLOCK, dtype=np.int64)
    longer = np.empty(STRETCH, dtype=np.int64)
    return copy, folded, places, longer


@njit(cache=True, nogil=True)
def hash_words(data: Array, start: int, end: int, forms: Array, scratch: Any, words: Array) -> int:
    """Writes the word hashes of data[start:end] to `words` (uint64, room for (bytes + 1) // 2); returns how many.

    `forms` is that of `sketch.word_forms`, `scratch` that of `word_scratch`.
    """
    copy, folded, places, longer = scratch
    text = address(data, np.int64(start))
    if end + BLOCK > data.size:
        copy[: end - start] = data[start:end]
        text = address(copy, np.int64(0))
    length = fold_text(text, end - start, forms, folded)
    first_block = address(folded, np.int64(0))
    count, found = 0, 0
    at: Any = np.int64(0)
    within = ZERO
    while at <= length:
        stop = min(at + STRETCH, length + 1)
        while at < stop:
            inside = not_zero(first_block + at)
            edges = inside ^ ((inside << ONE) | within)
            within = inside >> np.uint64(63)
            after = found + ones(edges)
            while found < after:
                for k in range(8):  # more than there are, so that there is seldom a branch; what is too much is nothing
                    places[found + k] = at + np.int64(first_one(edges))
                    edges &= edges - ONE
                found += 8
            found = after
            at += BLOCK
        hash_places(folded, places, found // 2, longer, words[count:])
        count += found // 2
        places[0] = places[max(found - 1, 0)]  # where a word began that goes on
        found &= 1
    return count


@njit(cache=True, nogil=True)
def fold_text(text: int, length: int, forms: Array, folded: Array) -> Any:
    """Writes the folded words of a text with zeros between and 64 behind them; returns where these begin.

    `text` is its address, from which `length` bytes and 64 more can be read.
    """
    target = address(folded, np.int64(0))
    i, out = np.int64(0), np.int64(0)
    owed = np.int64(0)  # 1 behind a word that is one character: a zero comes before what goes on with a word
    while i < length:
        number = min(np.int64(first_one(fold_ascii(text + i, target + out + owed))), length - i)
        if number > 0:
            i += number
            out += number + owed
            owed = np.int64(0)
        while i < length:
            eight = np.int64(number_at(text + i))
            if eight & 0x80 == 0:
                break
            if eight & 0xFF < 0xE0:
                i += 2
                code = (eight & 0x1F) << 6 | (eight >> 8 & 0x3F)
            elif eight & 0xFF < 0xF0:
                i += 3
                code = (eight & 0x0F) << 12 | (eight >> 8 & 0x3F) << 6 | (eight >> 16 & 0x3F)
            else:
                i += 4
                code = (eight & 0x07) << 18 | (eight >> 8 & 0x3F) << 12
                code |= (eight >> 16 & 0x3F) << 6 | (eight >> 24 & 0x3F)
                code = min(code, LAST_CODE_POINT)
            if i > length:
                break  # a cut sequence: cannot happen in a valid Arrow string
            form = np.int64(forms[code])
            own = form >> 30 & 1
            form &= ~OWN
            before = (own | owed) & np.int64(form != 0)
            store_eight(folded, out, np.uint64(form << 8 * before))
            out += before + 1 + np.int64(form > 0xFF) + np.int64(form > 0xFFFF) + np.int64(form > 0xFFFFFF)
            owed = own
    for k in range(0, BLOCK, 8):
        store_eight(folded, out + k, ZERO)
    return out


@njit(cache=True, nogil=True)
def hash_places(folded: Array, places: Array, count: int, longer: Array, words: Array) -> None:
    """The hashes of `count` words; `places` are where each begins and ends."""
    rest = 0
    for k in range(count):
        begin = places[2 * k]
        length = places[2 * k + 1] - begin
        kept = ALL >> np.uint64(64 - 8 * min(length, 8))
        words[k] = WORD_SEED ^ (load_eight(folded, begin) & kept)
        longer[rest] = k
        rest += length > 8
    for j in range(rest):
        k = longer[j]
        value = words[k]
        end = places[2 * k + 1]
        for at in range(places[2 * k] + 8, end, 8):
            kept = ALL >> np.uint64(64 - 8 * min(end - at, 8))
            value = mix64(value) ^ (load_eight(folded, at) & kept)
        words[k] = value
    for k in range(count):
        words[k] = mix64(words[k])


@njit(cache=True, nogil=True)
def hash_shingles(words: Array, count: int, ngram: int, shingles: Array) -> int:
    """Writes the hashes of the n-grams of words[:count] to `shingles`; returns how many.

    Fewer words than `ngram`: one shingle of all; no words: none.
    """
    width = min(ngram, count)
    total = count - width + 1 if count > 0 else 0
    for i in range(total):
        shingles[i] = words[i]
    for k in range(1, width):
        later = words[k:]
        for i in range(total):
            shingles[i] = shingles[i] * SHINGLE_MULTIPLIER + later[i]
    for i in range(total):
        shingles[i] = mix64(shingles[i])
    return total


@njit(cache=True, nogil=True)
def keep_distinct(hashes: Array, count: int, table: Array) -> int:
    """Moves the first of each value of hashes[:count] to the front, in their order; returns how many.

    `table` is int32 scratch of a power of two of slots, more than `count`.
    """
    mask = np.uint64(table.size - 1)
    table[:] = 0
    found = 0
    for i in range(count):
        value = hashes[i]
        slot = value & mask
        while table[slot] != 0 and hashes[table[slot] - 1] != value:
            slot = (slot + ONE) & mask
        if table[slot] == 0:
            hashes[found] = value
            found += 1
            table[slot] = found
    return found


@njit(cache=True, nogil=True)
def longest(offsets: Array) -> int:
    """The longest range of `offsets`."""
    most = 0
    for i in range(offsets.size - 1):
        most = max(most, offsets[i + 1] - offsets[i])
    return most

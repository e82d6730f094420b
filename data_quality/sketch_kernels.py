"""Compiled loops over the texts of a part: MinHash signatures, and the shingle sets they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import HIGH_BITS, capacity, load_eight
from data_quality.mask_kernels import NONE, ones
from data_quality.word_kernels import WORD_MULTIPLIER, WORD_SEED, distinct_shingles, hash_words, longest, mix64

Array = Any

LONG = 64
"""Bytes of ASCII from which a stretch is hashed by itself, and bytes that are not looked through for one."""
MIX_1 = np.uint32(0x85EBCA6B)
MIX_2 = np.uint32(0xC2B2AE35)


@njit(cache=True, nogil=True)
def mix32(value: Any) -> Any:
    """MurmurHash3's 32-bit finaliser, which datasketch's affine32 applies to every hash first."""
    value = np.uint32(value ^ (value >> np.uint32(16)))
    value = np.uint32(value * MIX_1)
    value = np.uint32(value ^ (value >> np.uint32(13)))
    value = np.uint32(value * MIX_2)
    return np.uint32(value ^ (value >> np.uint32(16)))


@njit(cache=True, nogil=True)
def hash_ascii(data: Array, start: int, end: int, ascii_words: Array, words: Array, other: Array) -> Any:
    """As `hash_words`, of ASCII that neither begins nor ends inside a word; `other` is scratch of the size of `words`.

    Without branches, and in two halves at once: a processor waits neither for a word's end that it guessed wrongly nor
    for one multiplication after the other. Every byte writes the hash so far, which the next one writes over.
    """
    middle = (start + end) // 2
    while middle < end and ascii_words[data[middle]] != 0:
        middle += 1
    # Unsigned, for numba takes negative places for such from the end and asks about each.
    first, second, last = np.uint64(start), np.uint64(middle), np.uint64(end)
    both = min(second - first, last - second)
    value, beside = WORD_SEED, WORD_SEED
    count, found = NONE, NONE
    for i in range(both):
        one, two = np.uint64(ascii_words[data[first + i]]), np.uint64(ascii_words[data[second + i]])
        words[count], other[found] = value, beside
        count += np.uint64((one == NONE) & (value != WORD_SEED))
        found += np.uint64((two == NONE) & (beside != WORD_SEED))
        longer, longer_beside = (value ^ one) * WORD_MULTIPLIER, (beside ^ two) * WORD_MULTIPLIER
        value = longer if one != NONE else WORD_SEED
        beside = longer_beside if two != NONE else WORD_SEED
    value, count = _go_on(data, first + both, second, ascii_words, words, value, count)
    beside, found = _go_on(data, second + both, last, ascii_words, other, beside, found)
    words[count] = value
    count += np.uint64(value != WORD_SEED)
    other[found] = beside
    found += np.uint64(beside != WORD_SEED)
    for i in range(found):
        words[count + i] = other[i]
    for i in range(count + found):
        words[i] = mix64(words[i])
    return np.int64(count + found)


@njit(cache=True, nogil=True)
def _go_on(data: Array, start: Any, end: Any, ascii_words: Array, words: Array, value: Any, count: Any) -> Any:
    for i in range(start, end):
        one = np.uint64(ascii_words[data[i]])
        words[count] = value
        count += np.uint64((one == NONE) & (value != WORD_SEED))
        longer = (value ^ one) * WORD_MULTIPLIER
        value = longer if one != NONE else WORD_SEED
    return value, count


@njit(cache=True, nogil=True)
def ascii_end(data: Array, start: int, end: int) -> int:
    """Where the first byte from `start` stands that is not ASCII; `end` if there is none."""
    i = start
    while i + 8 <= end and load_eight(data, np.int64(i)) & HIGH_BITS == NONE:
        i += 8
    while i < end and data[i] < 128:
        i += 1
    return i


@njit(cache=True, nogil=True)
def others_in(data: Array, start: int, end: int) -> Any:
    """How many bytes are not ASCII, up to seven last ones aside."""
    found = 0
    for i in range(start, end - 7, 8):
        found += ones(load_eight(data, np.int64(i)) & HIGH_BITS)
    return found


@njit(cache=True, nogil=True)
def hash_stretches(
    data: Array, start: int, end: int, ascii_words: Array, classes: Array, folds: Array, words: Array, other: Array
) -> int:
    """As `hash_words`, long stretches of ASCII by `hash_ascii`; `words` and `other` have room for one more."""
    if others_in(data, start, end) > (end - start) // LONG:
        return int(hash_words(data, start, end, ascii_words, classes, folds, words))
    count = 0
    i = start
    while i < end:
        stop = ascii_end(data, i, end)
        cut = stop
        while stop < end and cut > i and ascii_words[data[cut - 1]] != 0:
            cut -= 1
        if cut - i >= LONG or stop == end:
            count += hash_ascii(data, i, cut, ascii_words, words[count:], other)
        else:
            cut = separator(data, min(stop + LONG, end), end, ascii_words)
            count += hash_words(data, i, cut, ascii_words, classes, folds, words[count:])
        i = cut
    return count


@njit(cache=True, nogil=True)
def separator(data: Array, start: int, end: int, ascii_words: Array) -> int:
    """Where the first byte from `start` stands that is ASCII and no word character; `end` if there is none."""
    i = start
    while i < end:
        if i + 8 <= end and load_eight(data, np.int64(i)) & HIGH_BITS == HIGH_BITS:
            i += 8
        elif data[i] >= 128 or ascii_words[data[i]] != 0:
            i += 1
        else:
            break
    return i


@njit(cache=True, nogil=True)
def minimise(hashes: Array, count: int, a: Array, b: Array, signature: Array) -> None:
    """signature[k] = min over hashes of a[k]·h + b[k] mod 2^32 or 2^64, whichever type all four arrays have.

    `hashes` has room for 3 more than `count`. Four hashes a round: the coefficients are loaded once for them, and
    rests are filled up with a copy of the last hash, which changes no minimum.
    """
    number = signature.dtype.type
    for i in range(count, count + 3):
        hashes[i] = hashes[count - 1]
    signature[:] = number(0xFFFFFFFFFFFFFFFF)
    for i in range(0, count, 4):
        h0, h1, h2, h3 = hashes[i], hashes[i + 1], hashes[i + 2], hashes[i + 3]
        for k in range(signature.size):
            v0 = number(a[k] * h0 + b[k])
            v1 = number(a[k] * h1 + b[k])
            v2 = number(a[k] * h2 + b[k])
            v3 = number(a[k] * h3 + b[k])
            signature[k] = min(signature[k], min(min(v0, v1), min(v2, v3)))


@njit(cache=True, nogil=True)
def sketch_texts(
    data: Array,
    offsets: Array,
    ascii_words: Array,
    classes: Array,
    folds: Array,
    ngram: int,
    a: Array,
    b: Array,
    signatures: Array,
    counts: Array,
) -> None:
    """Fills `signatures` (uint32 or uint64 [n, permutations], as a and b) and `counts` (int32[n], distinct shingles).

    The hash of a shingle is its low half after MurmurHash3's finaliser of 32 bits, or all of it after that of 64 bits.
    """
    room = (longest(offsets) + 1) // 2 + 1
    words, other = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    shingles = np.empty(room, dtype=np.uint64)
    hashes = np.empty(room + 3, dtype=a.dtype)
    table = np.empty(1024, dtype=np.uint64)
    for document in range(offsets.size - 1):
        start, end = offsets[document], offsets[document + 1]
        count = hash_stretches(data, start, end, ascii_words, classes, folds, words, other)
        slots = capacity(count)
        if slots > table.size:
            table = np.empty(slots, dtype=np.uint64)
        found = distinct_shingles(words, count, ngram, table[:slots], shingles)
        counts[document] = found
        if found == 0:
            continue
        if a.itemsize == 4:
            for i in range(found):
                hashes[i] = mix32(np.uint32(shingles[i]))
        else:
            for i in range(found):
                hashes[i] = mix64(shingles[i])
        minimise(hashes, found, a, b, signatures[document])


@njit(cache=True, nogil=True)
def shingle_texts(
    data: Array,
    offsets: Array,
    rows: Array,
    ascii_words: Array,
    classes: Array,
    folds: Array,
    ngram: int,
    expected: int,
    ends: Array,
) -> Any:
    """The distinct shingle hashes (uint64) of the texts `rows`, one after the other; `ends` (int64[rows]) says where.

    `expected` is how many there will be, if that is known; more are taken in too.
    """
    room = (longest(offsets) + 1) // 2 + 1
    words, other = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    shingles = np.empty(room, dtype=np.uint64)
    table = np.empty(1024, dtype=np.uint64)
    values = np.empty(expected, dtype=np.uint64)
    total = 0
    for place in range(rows.size):
        document = rows[place]
        start, end = offsets[document], offsets[document + 1]
        count = hash_stretches(data, start, end, ascii_words, classes, folds, words, other)
        slots = capacity(count)
        if slots > table.size:
            table = np.empty(slots, dtype=np.uint64)
        found = distinct_shingles(words, count, ngram, table[:slots], shingles)
        if total + found > values.size:
            more = np.empty(2 * (total + found), dtype=np.uint64)
            more[:total] = values[:total]
            values = more
        values[total : total + found] = shingles[:found]
        total += found
        ends[place] = total
    return values[:total]

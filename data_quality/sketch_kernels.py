"""Compiled loops over the texts of a part: MinHash signatures, and the shingle sets they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import capacity
from data_quality.word_kernels import distinct_shingles, hash_words, longest, mix64

Array = Any

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
    words = np.empty(room, dtype=np.uint64)
    shingles = np.empty(room, dtype=np.uint64)
    hashes = np.empty(room + 3, dtype=a.dtype)
    table = np.empty(1024, dtype=np.uint64)
    for document in range(offsets.size - 1):
        count = hash_words(data, offsets[document], offsets[document + 1], ascii_words, classes, folds, words)
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
    data: Array, offsets: Array, ascii_words: Array, classes: Array, folds: Array, ngram: int, ends: Array
) -> Any:
    """The distinct shingle hashes (uint64) of all texts, one text after the other; `ends` (int64[n]) says where."""
    room = (longest(offsets) + 1) // 2 + 1
    words = np.empty(room, dtype=np.uint64)
    shingles = np.empty(room, dtype=np.uint64)
    table = np.empty(1024, dtype=np.uint64)
    values = np.empty((offsets[-1] - offsets[0]) // 8 + 1024, dtype=np.uint64)
    total = 0
    for document in range(offsets.size - 1):
        count = hash_words(data, offsets[document], offsets[document + 1], ascii_words, classes, folds, words)
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
        ends[document] = total
    return values[:total]

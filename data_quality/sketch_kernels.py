"""Compiled loops over the texts of a part: MinHash signatures, and the shingle sets they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import capacity
from data_quality.mask_kernels import BLOCK
from data_quality.vector_kernels import HASHES, least
from data_quality.word_kernels import hash_shingles, hash_words, keep_distinct, longest, mix64, word_scratch

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
def mix(shingles: Array, count: int, hashes: Array) -> None:
    """What datasketch does to hashes first: the low half through MurmurHash3's finaliser of 32 bits, or all through
    that of 64 bits, by the type of `hashes` (uint32 or uint64)."""
    if hashes.itemsize == 4:
        for i in range(count):
            hashes[i] = mix32(np.uint32(shingles[i]))
    else:
        for i in range(count):
            hashes[i] = mix64(shingles[i])


@njit(cache=True, nogil=True)
def minimise(hashes: Array, count: int, a: Array, b: Array, best: Array) -> None:
    """best[k] = min over hashes of a[k]·h + b[k] mod 2^32 or 2^64, whichever type all four arrays have.

    `a`, `b` and `best` are whole vectors. `hashes` has room for HASHES - 1 more than `count`: rests are filled up with
    a copy of the last hash, which changes no minimum.
    """
    for i in range(count, count + HASHES - 1):
        hashes[i] = hashes[count - 1]
    best[:] = best.dtype.type(0xFFFFFFFFFFFFFFFF)
    for i in range(0, count, HASHES):
        for k in range(0, best.size, BLOCK // best.itemsize):
            least(best, a, b, k, hashes, i)


@njit(cache=True, nogil=True)
def whole_vectors(numbers: Array) -> Array:
    """A copy with zeros behind, as many as the last vector lacks."""
    lanes = BLOCK // numbers.itemsize
    padded = np.zeros((numbers.size + lanes - 1) // lanes * lanes, dtype=numbers.dtype)
    padded[: numbers.size] = numbers
    return padded


@njit(cache=True, nogil=True)
def distinct_shingles(
    data: Array, start: int, end: int, forms: Array, ngram: int, scratch: Any, words: Array, table: Array,
    shingles: Array,
) -> Any:  # fmt: skip
    """Writes the distinct shingle hashes of data[start:end] to `shingles` in order of appearance.

    How many, and the table (int32 scratch), a larger one where it had to grow.
    """
    count = hash_words(data, start, end, forms, scratch, words)
    count = hash_shingles(words, count, ngram, shingles)
    slots = 2 * capacity(count)
    if slots > table.size:
        table = np.empty(slots, dtype=np.int32)
    return keep_distinct(shingles, count, table[:slots]), table


@njit(cache=True, nogil=True)
def sketch_texts(
    data: Array,
    offsets: Array,
    forms: Array,
    ngram: int,
    a: Array,
    b: Array,
    signatures: Array,
    counts: Array,
) -> None:
    """Fills `signatures` (uint32 or uint64 [n, permutations], as a and b) and `counts` (int32[n], distinct shingles).

    The hash of a shingle is its low half after MurmurHash3's finaliser of 32 bits, or all of it after that of 64 bits.
    """
    most = longest(offsets)
    scratch = word_scratch(most)
    words, shingles = np.empty((most + 1) // 2, dtype=np.uint64), np.empty((most + 1) // 2, dtype=np.uint64)
    hashes = np.empty(words.size + HASHES, dtype=a.dtype)
    table = np.empty(1024, dtype=np.int32)
    factors, addends = whole_vectors(a), whole_vectors(b)
    best = np.empty_like(factors)
    for document in range(offsets.size - 1):
        start, end = offsets[document], offsets[document + 1]
        found, table = distinct_shingles(data, start, end, forms, ngram, scratch, words, table, shingles)
        counts[document] = found
        if found == 0:
            continue
        mix(shingles, found, hashes)
        minimise(hashes, found, factors, addends, best)
        signatures[document] = best[: a.size]


@njit(cache=True, nogil=True)
def shingle_texts(
    data: Array,
    offsets: Array,
    rows: Array,
    forms: Array,
    ngram: int,
    expected: int,
    ends: Array,
) -> Any:
    """The distinct shingle hashes (uint64) of the texts `rows`, one after the other; `ends` (int64[rows]) says where.

    `expected` is how many there will be, if that is known; more are taken in too.
    """
    most = longest(offsets)
    scratch = word_scratch(most)
    words, shingles = np.empty((most + 1) // 2, dtype=np.uint64), np.empty((most + 1) // 2, dtype=np.uint64)
    table = np.empty(1024, dtype=np.int32)
    values = np.empty(expected, dtype=np.uint64)
    total = 0
    for place in range(rows.size):
        start, end = offsets[rows[place]], offsets[rows[place] + 1]
        found, table = distinct_shingles(data, start, end, forms, ngram, scratch, words, table, shingles)
        if total + found > values.size:
            more = np.empty(2 * (total + found), dtype=np.uint64)
            more[:total] = values[:total]
            values = more
        values[total : total + found] = shingles[:found]
        total += found
        ends[place] = total
    return values[:total]

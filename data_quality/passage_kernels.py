"""Compiled loops that find lines and paragraphs by hash, and what finding by hash shares: tables and sums over parts.

A hash only finds: whatever is marked as a repeat was compared with the other passage, byte by byte or word by word.
The two lowest bits of every hash say what kind of passage it is of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import load, step
from data_quality.word_kernels import mix64

Array = Any  # numba compiles by dtype; the docstrings name it

LINE, PARAGRAPH, WORDS = 0, 1, 2
KIND = np.uint64(3)
_LF = 10
_ONE, _TWO, _SHIFT, _BITS = np.uint64(1), np.uint64(2), np.uint64(32), np.uint64(63)


@njit(cache=True, nogil=True)
def fill_table(hashes: Array, bits: Array, table: Array) -> None:
    """Enters different hashes into an open-addressed table (int64, a power of two, filled with -1).

    `bits` (uint64, a power of two of words) is a filter that stays in the processor's cache: most look-ups end there.
    """
    mask = table.size - 1
    for i in range(hashes.size):
        bits[(hashes[i] >> _SHIFT) & np.uint64(bits.size - 1)] |= _ONE << ((hashes[i] >> _TWO) & _BITS)
        slot = np.int64(hashes[i] >> _TWO) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = i


@njit(cache=True, nogil=True)
def look_up(wanted: Any, hashes: Array, bits: Array, table: Array) -> Any:
    """Where `wanted` stands in `hashes`, -1 if it does not."""
    if not (bits[(wanted >> _SHIFT) & np.uint64(bits.size - 1)] >> ((wanted >> _TWO) & _BITS)) & _ONE:
        return -1
    mask = table.size - 1
    slot = np.int64(wanted >> _TWO) & mask
    while table[slot] >= 0:
        if hashes[table[slot]] == wanted:
            return table[slot]
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def add_up(
    hashes: Array, order: Array, owners: Array, counted: Array, documents: Array, first: Array, limits: Array,
    totals: Array, chosen: Array,
) -> None:  # fmt: skip
    """The documents of every hash over all parts.

    Parameters
    ----------
    hashes, order
        uint64, and int64: their places in ascending order, equal ones by part.
    owners, documents, first
        By place: the part, how many of its documents hold the hash, and (or nothing) the smallest of their ids.
    counted, limits
        By part, whether its documents count; by kind, in how many a passage may stand without being repeated.
    totals, chosen
        int64, written in the order of `order`: the documents of the counted parts, 0 of what is not repeated, and the
        place of the counted part with the smallest `first`.
    """
    begin = 0
    while begin < order.size:
        value = hashes[order[begin]]
        total, best = 0, -1
        end = begin
        while end < order.size and hashes[order[end]] == value:
            place = order[end]
            if counted[owners[place]]:
                total += documents[place]
                if best < 0 or (first.size > 0 and first[place] < first[best]):
                    best = place
            end += 1
        totals[begin:end] = total if total > limits[value & KIND] else 0
        chosen[begin:end] = best
        begin = end


# ------------------------------------------------------------------------------------------- lines and paragraphs


@njit(cache=True, nogil=True)
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@njit(cache=True, nogil=True)
def next_line(data: Array, position: int, limit: int) -> tuple[int, int, int]:
    """(start, end, next): the line at `position` without ASCII white space around it, and where the next begins."""
    end = position
    while end < limit and data[end] != _LF:
        end += 1
    following = min(end + 1, limit)
    start = position
    while start < end and _is_space(data[start]):
        start += 1
    while end > start and _is_space(data[end - 1]):
        end -= 1
    return start, end, following


@njit(cache=True, nogil=True)
def next_paragraph(data: Array, position: int, limit: int) -> tuple[int, int, int]:
    """As `next_line` for the paragraph at `position`; blank lines go with the paragraph before them."""
    start, end, at = next_line(data, position, limit)
    while start == end and at < limit:
        start, end, at = next_line(data, at, limit)
    blank = start == end
    while at < limit:
        more, last, following = next_line(data, at, limit)
        if more == last:
            blank = True
        elif blank:
            break
        else:
            end = last
        at = following
    return start, end, at


@njit(cache=True, nogil=True)
def _passage(data: Array, position: int, limit: int, kind: int) -> tuple[int, int, int]:
    if kind == LINE:
        return next_line(data, position, limit)
    return next_paragraph(data, position, limit)


@njit(cache=True, nogil=True)
def _hash_bytes(data: Array, start: int, end: int, seed: Any, kind: int) -> Any:
    state = seed ^ np.uint64(end - start)
    while start < end:
        state = step(state, load(data, start, end))
        start += 8
    return (mix64(state) & ~KIND) | np.uint64(kind)


@njit(cache=True, nogil=True)
def hash_passages(
    data: Array, offsets: Array, kind: int, shortest: int, seed: Any, hashes: Array, documents: Array
) -> int:
    """All lines (or paragraphs, by `kind`) of at least `shortest` bytes; returns how many there are.

    Written: `hashes` (uint64) and `documents` (int64, the number of the text). With too little room nothing is written
    behind it; the caller comes again.
    """
    number = 0
    for d in range(offsets.size - 1):
        position, limit = offsets[d], offsets[d + 1]
        while position < limit:
            start, end, position = _passage(data, position, limit, kind)
            if end - start >= shortest:
                if number < hashes.size:
                    hashes[number] = _hash_bytes(data, start, end, seed, kind)
                    documents[number] = d
                number += 1
    return number


@njit(cache=True, nogil=True)
def find_passages(
    data: Array, offsets: Array, kind: int, shortest: int, seed: Any, hashes: Array, bits: Array, table: Array,
    rows: Array, documents: Array, places: Array,
) -> int:  # fmt: skip
    """The lines (or paragraphs) whose hash is among `hashes`; returns how many there are.

    Written as by `hash_passages`: `rows` of `hashes`, `documents`, and `places` (int64[.., 4]): start and end in `data`
    without white space around, then of what would be cut.
    """
    number = 0
    for d in range(offsets.size - 1):
        position, limit = offsets[d], offsets[d + 1]
        while position < limit:
            start, end, following = _passage(data, position, limit, kind)
            if end - start >= shortest:
                row = look_up(_hash_bytes(data, start, end, seed, kind), hashes, bits, table)
                if row >= 0:
                    if number < rows.size:
                        rows[number], documents[number] = row, d
                        places[number, 0], places[number, 1] = start, end
                        places[number, 2], places[number, 3] = position, following
                    number += 1
            position = following
    return number


@njit(cache=True, nogil=True)
def same_range(data: Array, start: int, end: int, other: Array, other_start: int, other_end: int) -> bool:
    """Whether data[start:end] is other[other_start:other_end]."""
    if end - start != other_end - other_start:
        return False
    while start < end and load(data, start, end) == load(other, other_start, other_end):
        start += 8
        other_start += 8
    return start >= end


@njit(cache=True, nogil=True)
def same_bytes(
    data: Array, starts: Array, ends: Array, other: Array, other_starts: Array, other_ends: Array, same: Array
) -> None:
    """same[i] = whether data[starts[i]:ends[i]] is other[other_starts[i]:other_ends[i]]."""
    for i in range(starts.size):
        same[i] = same_range(data, starts[i], ends[i], other, other_starts[i], other_ends[i])

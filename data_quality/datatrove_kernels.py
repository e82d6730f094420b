"""Gopher's features by datatrove's own formulas, quirks included: whole Arrow buffers in, one row of integers out.

Written after what datatrove v0.10's GopherQualityFilter and GopherRepetitionFilter compute, so that their decisions can
be reproduced; definitions stand in `feature_table.py`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from data_quality.byte_kernels import SEED, Array, capacity, decode, duplicates, first, hash_range, previous, step
from data_quality.feature_kernels import find, listed
from data_quality.mask_kernels import BLOCK
from data_quality.split_kernels import CLASS_BITS, LETTER, NUMBER, PUNCTUATION, split_words

WORDS, NON_SYMBOL_WORDS, NON_SYMBOL_CHARACTERS, ALPHABETIC_WORDS, STOP_WORDS = range(5)
ALL_LINES, BULLET_LINES, ELLIPSIS_LINES = range(5, 8)
PIECES, DUPLICATE_PIECES, DUPLICATE_PIECE_CHARACTERS = range(8, 11)
PARAGRAPHS, DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARACTERS = range(11, 14)
TOP_2_GRAM_CHARACTERS = 14  # then 3, 4
DUPLICATE_5_GRAM_CHARACTERS = 17  # then 6 to 10
COUNTS = 23

_DATATROVE, _WHITE = 8, 16  # bits of `punctuation.mark_bits`
_BASE = np.uint64(0xD6E8FEB86659FD93)
_ONE = np.uint64(1)
# Marks between two letters or numbers that end one word, are a word, and begin another; , only if not between numbers.
_PARTING = np.array(sorted(map(ord, '/:<>=,;!?"()[]{}*…—–“”„«»')), np.int64)
_APOSTROPHE, _RIGHT_QUOTE, _HYPHEN, _DOT, _COMMA, _COLON, _ELLIPSIS, _BULLET = (
    39,
    0x2019,
    45,
    46,
    44,
    58,
    0x2026,
    0x2022,
)


@njit(cache=True, nogil=True)
def _parts(values: Array, start: int, end: int, kinds: Array, starts: Array, ends: Array, number: int) -> int:
    """Writes the words that values[start:end], one word between white space, falls into; says how many there are now.

    A mark is a word, and so is a run of . or - or …; but it belongs to the word where letters or numbers touch it on
    both sides, unless it is one of _PARTING, a hyphen between two letters or two numbers, or an apostrophe, which
    begins a word (John 's). A full stop also belongs to the word before it that is one letter or holds one (U.S.).
    """
    word, dotted, length = -1, False, 0  # where the word under way starts
    before = np.int64(0)  # kind of the character before
    at = start
    while at < end:
        code, size = decode(values, at, end)
        kind = np.int64(kinds[code])
        if kind & CLASS_BITS != PUNCTUATION:
            if word < 0:
                word, dotted, length = at, False, 0
            length += 1
            before = kind
            at += size
            continue
        touches, after = word >= 0 and before & CLASS_BITS != PUNCTUATION, np.int64(PUNCTUATION)
        if at + size < end:
            following, _ = decode(values, at + size, end)
            after = np.int64(kinds[following])
        numbers = before & NUMBER != 0 and after & NUMBER != 0
        if touches and after & CLASS_BITS != PUNCTUATION:
            if code in (_APOSTROPHE, _RIGHT_QUOTE):
                starts[number], ends[number] = word, at
                number += 1
                word, dotted, length = at, False, 0
                before = kind
                at += size
                continue
            parting = False
            for mark in _PARTING:
                parting |= mark == code
            if code == _HYPHEN:
                parting = numbers or (before & LETTER != 0 and after & LETTER != 0)
            if not parting or (numbers and code in (_COMMA, _COLON)):
                dotted |= code == _DOT
                before = kind
                at += size
                continue
        elif touches and code == _DOT and at + 1 == end and (dotted or length == 1):
            at += 1
            break
        if word >= 0:
            starts[number], ends[number] = word, at
            number += 1
            word = -1
        mark_start = at
        at += size
        while at < end and code in (_DOT, _HYPHEN, _ELLIPSIS):
            following, width = decode(values, at, end)
            if following != code:
                break
            at += width
        starts[number], ends[number] = mark_start, at
        number += 1
        before = np.int64(PUNCTUATION)
    if word >= 0:
        starts[number], ends[number] = word, at
        number += 1
    return number


@njit(cache=True, nogil=True)
def _line_break(values: Array, at: int, end: int) -> int:
    """Bytes of what str.splitlines breaks at, 0 if that is not at `at`."""
    byte = values[at]
    if byte < 0x80:
        if byte == 13 and at + 1 < end and values[at + 1] == 10:
            return 2
        return 1 if 10 <= byte <= 13 or 28 <= byte <= 30 else 0
    if byte == 0xC2:
        return 2 if at + 1 < end and values[at + 1] == 0x85 else 0
    if byte == 0xE2 and at + 2 < end and values[at + 1] == 0x80:
        return 3 if values[at + 2] in (0xA8, 0xA9) else 0
    return 0


@njit(cache=True, nogil=True)
def _is_white(values: Array, at: int, end: int, marks: Array) -> bool:
    code, _ = decode(values, at, end)
    return bool(marks[code] & _WHITE)


@njit(cache=True, nogil=True)
def _strip(values: Array, start: int, end: int, marks: Array) -> tuple[int, int]:
    """The range without white space (as str.isspace) at its ends."""
    while start < end and _is_white(values, start, end, marks):
        _, size = decode(values, start, end)
        start += size
    while start < end:
        at = previous(values, start, end)
        if not _is_white(values, at, end, marks):
            break
        end = at
    return start, end


@njit(cache=True, nogil=True)
def _characters(values: Array, start: int, end: int) -> int:
    characters = 0
    for at in range(start, end):
        characters += values[at] & 0xC0 != 0x80
    return characters


@njit(cache=True, nogil=True)
def _count_split(
    values: Array, start: int, end: int, least: int, hashes: Array, lengths: Array, table: Array
) -> tuple[int, int, int]:
    """Pieces between runs of `least` line feeds or more, how many are duplicates, and the characters of these."""
    number, piece, at = 0, start, start
    while at <= end:
        run = at
        while run < end and values[run] == 10:
            run += 1
        if run - at >= least or at == end:
            hashes[number], lengths[number] = hash_range(values, piece, at), _characters(values, piece, at)
            number += 1
            piece = run
            if at == end:
                break
        at = max(run, at + 1)
    repeats, characters = duplicates(hashes, lengths, number, table)
    return number, repeats, characters


@njit(cache=True, nogil=True)
def count_as_datatrove(
    values: Array, offsets: Array, separate: bool, kinds: Array, scripts: Array, marks: Array, stop_keys: Array,
    counts: Array,
) -> None:  # fmt: skip
    """Count what datatrove's Gopher filters look at in every document of a large_string array.

    Parameters
    ----------
    values, offsets
        uint8 data and int64[documents + 1] offsets of the array: document d is values[offsets[d]:offsets[d + 1]].
    separate
        Whether marks of punctuation are words (see `_parts`), else words stand between white space.
    kinds, scripts, marks
        uint8 tables over all code points: `character_kinds`, `script_table`, `punctuation.mark_bits`.
    stop_keys
        Table of `listed` hashes of the stop words as they are, list 0.
    counts
        int64[documents, COUNTS], overwritten.
    """
    longest = 0
    for d in range(offsets.size - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest + 2
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    whole_starts, whole_ends = np.empty(room, np.int64), np.empty(room, np.int64)
    characters, mets = np.empty(room, np.int32), np.empty(room, np.uint8)
    hashes, lengths = np.empty(room, np.uint64), np.empty(room, np.int64)
    grams, times = np.empty(room, np.uint64), np.empty(room, np.int64)
    joined = np.empty(room, np.uint64)  # polynomial hash of the words before, joined by nothing
    before = np.empty(room, np.int64)  # their characters
    bytes_before = np.empty(room, np.int64)
    powers = np.empty(room, np.uint64)
    powers[0] = _ONE
    for k in range(1, room):
        powers[k] = powers[k - 1] * _BASE
    table = np.empty(capacity(room), np.int32)
    letters, tail = np.zeros(256, np.int64), np.empty(BLOCK, np.uint8)
    stop_seen = np.full(stop_keys.size, -1, np.int64)

    for d in range(offsets.size - 1):
        row = counts[d]
        row[:] = 0
        begin, end = offsets[d], offsets[d + 1]
        if begin == end:
            continue
        words, _, _ = split_words(
            values, begin, end, kinds, scripts, whole_starts, whole_ends, characters, mets, letters, tail
        )
        number = 0
        for i in range(words):
            if separate:
                number = _parts(values, whole_starts[i], whole_ends[i], kinds, starts, ends, number)
            else:
                starts[i], ends[i] = whole_starts[i], whole_ends[i]
        words = number if separate else words
        joined[0], before[0], bytes_before[0] = np.uint64(0), 0, 0
        state = np.uint64(0)
        for i in range(words):
            solid, alphabetic, length, at = False, False, 0, starts[i]
            while at < ends[i]:
                code, size = decode(values, at, ends[i])
                solid |= marks[code] & _DATATROVE == 0
                alphabetic |= kinds[code] & LETTER != 0
                length += 1
                at += size
            for at in range(starts[i], ends[i]):
                state = state * _BASE + np.uint64(values[at]) + _ONE
            hashes[i], lengths[i] = hash_range(values, starts[i], ends[i]), length
            joined[i + 1], before[i + 1] = state, before[i] + length
            bytes_before[i + 1] = bytes_before[i] + ends[i] - starts[i]
            row[NON_SYMBOL_WORDS] += solid
            row[NON_SYMBOL_CHARACTERS] += length if solid else 0
            row[ALPHABETIC_WORDS] += alphabetic
            place = find(stop_keys, listed(hashes[i], 0))
            if place >= 0 and stop_seen[place] != d:
                stop_seen[place] = d
                row[STOP_WORDS] += 1
        row[WORDS] = words

        for n in range(2, 5):
            number = words - n + 1
            if number < 1:
                break
            size = capacity(number)
            table[:size] = -1
            best, best_count = 0, 0
            for i in range(number):
                gram = SEED
                for k in range(n):
                    gram = step(gram, hashes[i + k])
                grams[i] = gram
                times[i] = 0
            for i in range(number):
                earliest = first(table, size - 1, grams, i)
                times[earliest] += 1
            for i in range(number):
                if times[i] > best_count:
                    best, best_count = i, times[i]
            row[TOP_2_GRAM_CHARACTERS + n - 2] = best_count * (before[best + n] - before[best] + n - 1)

        for n in range(5, 11):
            number = words - n + 1
            if number < 1:
                break
            size = capacity(number)
            table[:size] = -1
            repeated, i = 0, 0
            while i < number:
                width = bytes_before[i + n] - bytes_before[i]
                grams[i] = joined[i + n] - joined[i] * powers[width]
                if first(table, size - 1, grams, i) == i:
                    i += 1
                else:
                    repeated += before[i + n] - before[i]
                    i += n
            row[DUPLICATE_5_GRAM_CHARACTERS + n - 5] = repeated

        row[PIECES], row[DUPLICATE_PIECES], row[DUPLICATE_PIECE_CHARACTERS] = _count_split(
            values, begin, end, 1, hashes, lengths, table
        )
        left, right = _strip(values, begin, end, marks)
        row[PARAGRAPHS], row[DUPLICATE_PARAGRAPHS], row[DUPLICATE_PARAGRAPH_CHARACTERS] = _count_split(
            values, left, right, 2, hashes, lengths, table
        )
        line, at = begin, begin
        while at <= end:
            width = _line_break(values, at, end) if at < end else 0
            if width > 0 or (at == end and line < end):
                row[ALL_LINES] += 1
                left, right = _strip(values, line, at, marks)
                if left < right:
                    code, _ = decode(values, left, right)
                    row[BULLET_LINES] += code in (_BULLET, _HYPHEN)
                    code, _ = decode(values, previous(values, left, right), right)
                    row[ELLIPSIS_LINES] += code == _ELLIPSIS or (
                        right - left >= 3
                        and values[right - 1] == _DOT
                        and values[right - 2] == _DOT
                        and values[right - 3] == _DOT
                    )
                line = at + width
            at += max(width, 1)
